"""ContextProbe: associative recall on a grid, a dataset that nothing but long-range context solves."""

from dataclasses import dataclass
from functools import cache, cached_property
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from lightning_app.data.base import Stage
from lightning_app.data.facts import DatasetFacts, of_zoo, voc_palette
from lightning_app.data.semantic.base import Sample, SegmentationDataModule, SegmentationDataset
from lightning_app.util.errors import InputError

Mode = Literal["anywhere", "cross", "near"]

STREAM = 1 << 20  # where the stream of the next split begins
CELL = 8  # pixels a side; what the patchify backbone sees
BACKGROUND = (127, 127, 127)
COLOURS = (
    (230, 25, 75),
    (60, 180, 75),
    (0, 130, 200),
    (255, 225, 25),
    (145, 30, 180),
    (70, 240, 240),
    (245, 130, 48),
    (250, 190, 212),
)
_Y, _X = np.mgrid[:CELL, :CELL]
PATTERNS = (  # where a cue shows its colour; elsewhere it is black
    _Y // 2 % 2 == 0,
    _X // 2 % 2 == 0,
    (_Y // 2 + _X // 2) % 2 == 0,
    (_Y + _X) // 2 % 2 == 0,
    (np.minimum(_Y, _X) < 2) | (np.maximum(_Y, _X) >= CELL - 2),
    (abs(2 * _Y - CELL + 1) < 4) | (abs(2 * _X - CELL + 1) < 4),
    (_Y % 4 < 2) & (_X % 4 < 2),
    _Y + _X < CELL,
)
NAMES = (*of_zoo("context-probe", {}).classes, "frame", "cross", "dots", "corner")  # of the background and of PATTERNS


@dataclass(frozen=True)
class Layout:
    """What stands where in an image of ``cells`` x ``cells`` cells, each 8 pixels a side (see ``ContextProbe``).

    Every colour has one textured cue cell and several solid query cells; a query's label is 1 + its cue's texture, all
    else (cues included) is background. Distances are counted in cells, as the larger of the two offsets: the radius
    that a convolution needs to reach from the one to the other.

    Raises:
        InputError: a number is outside its range, or the cells cannot hold what is asked.
    """

    mode: Mode = "anywhere"
    cells: int = 12
    colours: int = 4
    textures: int = 4
    queries: int = 3
    radius: int = 2
    beyond: int = 0

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise InputError(f'Unknown ContextProbe mode "{self.mode}": give one of {", ".join(get_args(Mode))}')
        for name, low, high in (
            ("cells", 2, 64),
            ("colours", 1, len(COLOURS)),
            ("textures", 2, len(PATTERNS)),
            ("queries", 1, 64),
            ("radius", 1, 64),
            ("beyond", 0, 63),
        ):
            if not low <= getattr(self, name) <= high:
                raise InputError(f"ContextProbe's {name} is {getattr(self, name)}: give {low} to {high}")
        if np.median(self.allowed.sum(1)) < 2 * self.queries or 2 * self.colours * (1 + self.queries) > self.cells**2:
            raise InputError(
                f"No room for cues and queries in {self}: give more cells, fewer queries or other distances"
            )

    @property
    def _offsets(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        row, column = np.divmod(np.arange(self.cells**2), self.cells)
        return abs(row[:, None] - row), abs(column[:, None] - column)

    @cached_property
    def distances(self) -> NDArray[np.int64]:
        """Cells between any two cells, (cells^2, cells^2)."""
        rows, columns = self._offsets
        return np.maximum(rows, columns)

    @cached_property
    def allowed(self) -> NDArray[np.bool_]:
        """Whether a query may stand in one cell where its cue stands in the other, (cells^2, cells^2)."""
        fits: NDArray[np.bool_] = self.distances > self.beyond
        if self.mode == "near":
            fits &= self.distances <= self.radius
        elif self.mode == "cross":
            fits &= np.minimum(*self._offsets) == 0
        return fits


class Scene(NamedTuple):
    """One image (3, H, W), its mask (H, W), and for each query pixel the distance to its cue in cells, else 0."""

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    distance: NDArray[np.uint8]


def draw(layout: Layout, seed: int, index: int) -> Scene:
    """The image ``index`` of the stream ``seed``: the same on every machine, whatever was drawn before."""
    dice = np.random.RandomState(
        np.random.PCG64((seed, index))
    )  # the methods of Generator change with numpy's versions
    while (placed := _place(layout, dice)) is None:
        pass
    cues, queries = placed
    textures = dice.randint(layout.textures, size=layout.colours)
    colours = np.arange(layout.colours)

    drawing, mask, distance = np.zeros((3, layout.cells**2), dtype=np.uint8)
    drawing[cues] = 1 + layout.colours + colours * layout.textures + textures
    drawing[queries] = 1 + colours[:, None]
    mask[queries] = 1 + textures[:, None]
    distance[queries] = layout.distances[cues[:, None], queries]
    return Scene(_paint(layout, drawing), _enlarge(layout, mask), _enlarge(layout, distance))


def _place(layout: Layout, dice: np.random.RandomState) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Cells of the cues (colours,) and of the queries (colours, queries); None where the dice left no room."""
    cues = dice.permutation(layout.cells**2)[: layout.colours]
    free = np.ones(layout.cells**2, dtype=bool)
    free[cues] = False
    queries = []
    for cue in cues:
        places = dice.permutation(np.flatnonzero(free & layout.allowed[cue]))[: layout.queries]
        if len(places) < layout.queries:
            return None
        free[places] = False
        queries.append(places)
    return cues, np.stack(queries)


@cache
def _tiles(colours: int, textures: int) -> NDArray[np.uint8]:
    """Background, then every colour solid, then every colour with every texture: (tiles, 3, CELL, CELL)."""
    palette = np.array(COLOURS[:colours])[:, :, None, None]
    solid = np.ones((CELL, CELL), dtype=bool)
    patterns = np.stack(PATTERNS[:textures])[:, None]
    background = np.array(BACKGROUND)[None, :, None, None] * solid
    cues = palette[:, None] * patterns
    return np.concatenate([background, palette * solid, cues.reshape(-1, 3, CELL, CELL)]).astype(np.uint8)


def _paint(layout: Layout, drawing: NDArray[np.uint8]) -> NDArray[np.uint8]:
    tiles = _tiles(layout.colours, layout.textures)[drawing.reshape(layout.cells, layout.cells)]
    side = layout.cells * CELL
    return np.ascontiguousarray(tiles.transpose(2, 0, 3, 1, 4).reshape(3, side, side))


def _enlarge(layout: Layout, cells: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return cells.reshape(layout.cells, layout.cells).repeat(CELL, 0).repeat(CELL, 1)


class ProbeDataset(SegmentationDataset):
    """Scenes ``first`` to ``first + count`` of one stream, drawn once and kept in memory."""

    def __init__(self, layout: Layout, seed: int, first: int, count: int, *, labelled: bool = True) -> None:
        scenes = [draw(layout, seed, index) for index in range(first, first + count)]
        self.images, self.masks, self.distances = (
            torch.from_numpy(np.stack(part)) for part in zip(*scenes, strict=True)
        )
        self.first, self.labelled = first, labelled

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: int | tuple[int, int]) -> Sample:
        index = key[1] if isinstance(key, tuple) else key
        height, width = self.masks.shape[1:]
        sample: Sample = {
            "image": self.images[index],
            "name": f"context_probe/{self.first + index}",
            "size": (height, width),
        }
        if self.labelled:
            sample["mask"] = self.masks[index]
        return sample


class ContextProbe(SegmentationDataModule):
    """Associative recall on a grid: only news from afar tells a query its class. Drawn on the spot, no download.

    Every colour has one textured cue cell and several solid query cells; a query's class is the texture of its cue, all
    else is background. With ``Patchify``, which sees one cell, the accuracy on queries is
    1 / textures without context and 1 with all of it. A head's own 3x3 convolutions see cells nearby: ``beyond`` keeps
    the cues out of their reach.

    Args:
        mode: where a cue stands: ``anywhere``; ``cross``, in its queries' rows or columns; ``near``, within ``radius``.
        cells: cells a side, 8 pixels each.
        colours: how many colours, one cue each.
        textures: how many textures, one class each.
        queries: query cells of each colour.
        radius: the largest distance between query and cue in mode ``near``.
        beyond: query and cue stand more than this many cells apart, in every mode.
        train_images: images to train on, the same ones in every epoch.
        val_images: images to validate on.
        test_images: images to test on.
        test_split: the split to test on: test, or val.
    """

    def __init__(
        self,
        mode: Mode = "anywhere",
        *,
        cells: int = 12,
        colours: int = 4,
        textures: int = 4,
        queries: int = 3,
        radius: int = 2,
        beyond: int = 0,
        train_images: int = 1920,
        val_images: int = 256,
        test_images: int = 512,
        test_split: Literal["val", "test"] = "test",
        batch_size: int = 32,
        val_batch_size: int = 64,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        self.layout = Layout(mode, cells, colours, textures, queries, radius, beyond)
        classes = NAMES[: textures + 1]
        self.counts = {"train": train_images, "val": val_images, "test": test_images}
        self.splits = {"train": "train", "val": "val", "test": test_split, "predict": test_split}
        for stage, count in self.counts.items():
            if not 1 <= count <= STREAM:
                raise InputError(f"ContextProbe's {stage}_images is {count}: give 1 to {STREAM}")
        facts = DatasetFacts(
            name="ContextProbe",
            classes=classes,
            palette=voc_palette(len(classes)),
            label_map={train_id: train_id for train_id in range(len(classes))},
            splits=dict(self.counts),
            test_split="test",
        )
        super().__init__(
            facts, batch_size=batch_size, val_batch_size=val_batch_size, num_workers=num_workers, seed=seed
        )

    def make_dataset(self, stage: Stage) -> ProbeDataset:
        split = self.splits[stage]
        first = list(self.counts).index(split) * STREAM
        return ProbeDataset(self.layout, self.seed, first, self.counts[split], labelled=stage != "predict")
