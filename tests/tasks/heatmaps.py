"""A second task, as a user would write it in a file of their own: a heatmap for each texture of ContextProbe's queries.

Where a query cell hangs on a cue of texture k, map k is 1; elsewhere all are 0. The maps have one value for each cell.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import MeanSquaredError

from lightning_app.backbones.base import Backbone
from lightning_app.data.base import Batch, DataModule, ImageDataset, Stage
from lightning_app.data.semantic.context_probe import CELL, NAMES, Layout, draw
from lightning_app.heads.base import ContextHead
from lightning_app.heads.fcn import FCN
from lightning_app.registry import TASKS
from lightning_app.tasks.base import Drawing, Part, Report, Task
from lightning_app.tasks.base import Stage as Evaluated
from lightning_app.tasks.network import Network
from lightning_app.util.errors import InputError


class Sample(NamedTuple):
    image: Tensor  # (3, H, W) uint8
    maps: Tensor | None  # (K, h, w) uint8, none in prediction
    name: str


@dataclass
class HeatmapBatch(Batch):
    """Shape: maps (B, K, h, w) float32, absent in prediction."""

    maps: Tensor | None = None


class Cells(ImageDataset[Sample]):
    def __init__(self, layout: Layout, first: int, count: int, *, labelled: bool, broken: bool) -> None:
        self.layout, self.first, self.count, self.labelled, self.broken = layout, first, count, labelled, broken

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, key: int | tuple[int, int]) -> Sample | InputError:
        index = self.first + (key[1] if isinstance(key, tuple) else key)
        if self.broken and index == self.first:
            return InputError(f"scene {index} is damaged")
        scene = draw(self.layout, 0, index)
        mask = torch.from_numpy(scene.mask[::CELL, ::CELL].copy())
        maps = torch.stack([mask == 1 + texture for texture in range(self.layout.textures)]).byte()
        return Sample(torch.from_numpy(scene.image), maps if self.labelled else None, f"scenes/{index}.png")


class Scenes(DataModule):
    """Scenes and their heatmaps.

    Args:
        cells: cells a side.
        textures: how many maps.
        train_images: images to train on.
        broken: the first image of prediction cannot be used.
    """

    def __init__(
        self, cells: int = 5, textures: int = 2, *, train_images: int = 6, broken: bool = False, **options: Any
    ) -> None:
        super().__init__(**options)
        self.layout = Layout(cells=cells, colours=2, textures=textures, queries=2)
        self.map_names = list(NAMES[1 : 1 + textures])
        self.train_images, self.broken = train_images, broken

    def make_dataset(self, stage: Stage) -> Cells:
        first, count = {"train": (0, self.train_images), "val": (100, 5)}.get(stage, (200, 3))
        predict = stage == "predict"
        return Cells(self.layout, first, count, labelled=not predict, broken=self.broken and predict)

    @staticmethod
    def collate(samples: Sequence[Sample]) -> HeatmapBatch:
        images, maps, names = zip(*samples, strict=True)
        sizes = [(image.shape[1], image.shape[2]) for image in images]
        return HeatmapBatch(torch.stack(images), list(names), sizes, torch.stack(maps) if maps[0] is not None else None)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        batch = super().on_after_batch_transfer(batch, dataloader_idx)
        batch.maps = None if batch.maps is None else batch.maps.float()
        return batch


class Heatmapper(Network):
    """Images (B, 3, H, W) in 0..1 -> logits of the maps (B, K, h, w)."""

    def __init__(self, backbone: Backbone, head: ContextHead) -> None:
        super().__init__(backbone)
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(images))
        return logits


@TASKS.register("heatmaps")
class HeatmapTask(Task[Heatmapper, HeatmapBatch]):
    """Train maps of one value for each cell.

    Args:
        backbone: where features come from.
        head: gives one map for each texture; null is FCN.
        map_names: come from the data.
        sharpness: weight of the cells that are 1.
    """

    monitor = "val/rmse"
    mode = "min"
    data = Scenes
    from_data = ("map_names",)
    parts: ClassVar[Mapping[str, Part]] = {
        "backbone": Part(Backbone),
        "head": Part(ContextHead, ("in_channels", "num_classes")),
    }

    def __init__(
        self,
        backbone: Backbone,
        head: Callable[[list[int], int], ContextHead] | None = None,
        *,
        map_names: list[str] | None = None,
        sharpness: float = 2.0,
        **options: Any,
    ) -> None:
        names = map_names or ["map"]
        super().__init__(Heatmapper(backbone, (head or FCN)(backbone.channels, len(names))), **options)
        self.map_names, self.sharpness = names, sharpness
        self.errors = MeanSquaredError(squared=False, num_outputs=len(names))

    def losses(self, batch: HeatmapBatch) -> dict[str, Tensor]:
        assert batch.maps is not None
        weight = torch.full((len(self.map_names), 1, 1), self.sharpness, device=self.device)
        loss = F.binary_cross_entropy_with_logits(self(batch.image), batch.maps, pos_weight=weight)
        return {"cells": loss, "size": 1e-3 * self(batch.image).square().mean()}

    def predict(self, batch: HeatmapBatch) -> list[Tensor]:
        return list(self(batch.image).sigmoid())

    def update(self, stage: Evaluated, batch: HeatmapBatch, predictions: Sequence[Tensor]) -> None:
        assert batch.maps is not None
        channels = len(self.map_names)
        self.errors.update(
            torch.stack(list(predictions)).movedim(1, -1).reshape(-1, channels),
            batch.maps.movedim(1, -1).reshape(-1, channels),
        )

    def report(self, stage: Evaluated) -> Report:
        errors = self.errors.compute().reshape(-1).tolist()
        mean = sum(errors) / len(errors)
        rows = list(zip(self.map_names, errors, strict=True))
        return Report({"rmse": mean}, ("map", "rmse"), rows, f"{len(rows)} maps, rmse {100 * mean:.1f}", table="maps")

    def draw(self, batch: HeatmapBatch, predictions: Sequence[Tensor]) -> list[Drawing]:
        drawings = []
        for part, maps in zip(batch.singles(), predictions, strict=True):
            masks = {"prediction": _numbers(maps)}
            if part.maps is not None:
                masks["ground_truth"] = _numbers(part.maps[0])
            photograph = (part.image[0] * 255).byte().permute(1, 2, 0).cpu().numpy()
            labels = {0: "none", **dict(enumerate(self.map_names, start=1))}
            drawings.append(Drawing(part.names[0], photograph, masks, labels))
        return drawings


def _numbers(maps: Tensor) -> np.ndarray[Any, Any]:
    """1 + the number of the highest map of each pixel, 0 where none is above 0.5. (K, h, w) -> (H, W) uint8."""
    value, index = maps.float().max(0)
    numbers = torch.where(value > 0.5, index + 1, 0).byte()
    return numbers.repeat_interleave(CELL, 0).repeat_interleave(CELL, 1).cpu().numpy()
