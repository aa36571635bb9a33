"""Photographs with boxes as the crops that a network sees."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from lightning_app.data.bad_file import BadFile
from lightning_app.data.base import ImageDataset
from lightning_app.data.coco_records import CocoAnnotation, CocoImage
from lightning_app.data.images import read_image
from lightning_app.data.pose.affine import Size, centre_and_scale, crop, warps
from lightning_app.data.pose.augment import Augmentation, training_map
from lightning_app.data.pose.base import PoseSample
from lightning_app.data.pose.boxes import Boxes
from lightning_app.data.pose.facts import Keypoints
from lightning_app.data.sampler import seeded
from lightning_app.util.errors import InputError


@dataclass(frozen=True)
class Cut:
    """How crops are cut: their size (H, W), and whether by UDP's map."""

    size: Size
    udp: bool


@dataclass
class Photographs:
    """Pictures on disk, by what an annotation file says of them.

    Args:
        root: what names are relative to.
        cache: keep what was read in memory.
    """

    root: Path
    cache: bool = False
    _known: dict[Path, Tensor] = field(default_factory=dict)

    def read(self, path: Path, image: CocoImage) -> Tensor:
        """The pixels. Shape: (3, H, W) uint8.

        Raises:
            BadFile: it cannot be read, or has another size than the annotations say.
        """
        pixels = self._known.get(path)
        if pixels is None:
            pixels = torch.from_numpy(read_image(path)).permute(2, 0, 1)
            height, width = pixels.shape[1:]
            if (height, width) != (image.height, image.width):
                detail = f"{width}x{height} vs {image.width}x{image.height}"
                raise BadFile(path, ("Another size than its annotations say",), "Mark it again.", detail)
            if self.cache:
                self._known[path] = pixels
        return pixels

    def name(self, path: Path) -> str:
        """A picture's path under the root."""
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else path.as_posix()


class PhotographDataset(ImageDataset[PoseSample]):
    """All crops of one photograph at a time.

    Args:
        items: each photograph's file, what the annotations say of it, and where to look.
        truth: image id -> what people marked there; none in prediction.
    """

    def __init__(
        self,
        photographs: Photographs,
        items: Sequence[tuple[Path, CocoImage, Boxes]],
        cut: Cut,
        truth: Mapping[int, tuple[CocoAnnotation, ...]] | None = None,
    ) -> None:
        self.photographs, self.items, self.cut, self.truth = photographs, items, cut, truth

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, key: int | tuple[int, int]) -> PoseSample | InputError:
        assert isinstance(key, int)
        path, image, boxes = self.items[key]
        try:
            pixels = self.photographs.read(path, image)
        except BadFile as error:
            return error
        centres, scales = centre_and_scale(boxes.corners, self.cut.size)
        return PoseSample(
            cut_out(pixels, centres, scales, self.cut),
            self.photographs.name(path),
            path,
            image,
            boxes.corners,
            boxes.scores,
            centres,
            scales,
            truth=None if self.truth is None else self.truth[image.id],
        )


class TrainingDataset(ImageDataset[PoseSample]):
    """One box at a time, augmented: ``dataset[epoch, index]`` is seeded by (seed, epoch, index).

    Args:
        items: the photograph's file, what the annotations say of it, the box (4,) and the keypoints (K, 3) in it.
    """

    def __init__(
        self,
        photographs: Photographs,
        items: Sequence[tuple[Path, CocoImage, Tensor, Tensor]],
        cut: Cut,
        facts: Keypoints,
        augmentation: Augmentation,
        seed: int,
    ) -> None:
        self.photographs, self.items, self.cut = photographs, items, cut
        self.facts, self.augmentation, self.seed = facts, augmentation, seed

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, key: int | tuple[int, int]) -> PoseSample | InputError:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        path, image, box, marked = self.items[index]
        try:
            pixels = self.photographs.read(path, image)
        except BadFile as error:
            return error
        with seeded(self.seed, epoch, index):
            matrix, keypoints = training_map(
                box, marked, image.width, self.cut.size, self.facts, self.augmentation, udp=self.cut.udp
            )
        shown = crop(pixels, matrix[None], self.cut.size)
        return PoseSample(
            _bytes(shown),
            self.photographs.name(path),
            path,
            image,
            box[None],
            torch.ones(1),
            *centre_and_scale(box[None], self.cut.size),
            keypoints.float()[None],
        )


def cut_out(photograph: Tensor, centres: Tensor, scales: Tensor, cut: Cut) -> Tensor:
    """The crops of a photograph (3, H, W) uint8. Shape: centres and scales (N, 2) -> (N, 3, *size) uint8."""
    if not len(centres):
        return torch.empty(0, 3, *cut.size, dtype=torch.uint8)
    return _bytes(crop(photograph, warps(centres, scales, cut.size, udp=cut.udp), cut.size))


def _bytes(crops: Tensor) -> Tensor:
    return crops.round_().to(torch.uint8)
