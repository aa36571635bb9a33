"""Keypoints of things that stand in boxes: one crop for each box, photographs for evaluation."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from pathlib import Path
from typing import ClassVar, Self

import torch
from torch import Tensor

from lightning_app.data.base import Batch, DataModule
from lightning_app.data.coco_records import CocoAnnotation, CocoImage
from lightning_app.data.pose.facts import Keypoints, Pair


@dataclass
class PoseSample:
    """What a dataset gives: the crops of one photograph, or in training one of them.

    Shape: image (N, 3, h, w) uint8; centres, scales (N, 2), boxes (N, 4) and box_scores (N,) in photograph pixels;
    keypoints (N, K, 3) in crop pixels, in training.
    """

    image: Tensor
    name: str
    path: Path
    coco: CocoImage
    boxes: Tensor
    box_scores: Tensor
    centres: Tensor
    scales: Tensor
    keypoints: Tensor | None = None
    truth: tuple[CocoAnnotation, ...] | None = None


@dataclass
class PoseBatch(Batch):
    """Crops of photographs.

    Shape: image (N, 3, h, w), the crops of all photographs, ``crops[i]`` of them of the i-th; keypoints (N, K, 3) in
    crop pixels, in training alone. Numbers of the boxes as in ``PoseSample``.

    Args:
        paths: of the photographs.
        coco: the entries of the photographs in their annotation file.
        truth: what people marked in each, in evaluation.
    """

    crops: list[int] = field(default_factory=list)
    paths: list[Path] = field(default_factory=list)
    coco: list[CocoImage] = field(default_factory=list)
    boxes: Tensor = field(default_factory=lambda: torch.zeros(0, 4))
    box_scores: Tensor = field(default_factory=lambda: torch.zeros(0))
    centres: Tensor = field(default_factory=lambda: torch.zeros(0, 2))
    scales: Tensor = field(default_factory=lambda: torch.zeros(0, 2))
    keypoints: Tensor | None = None
    truth: list[tuple[CocoAnnotation, ...]] | None = None

    PER_CROP: ClassVar = ("image", "boxes", "box_scores", "centres", "scales", "keypoints")

    def to(self, device: torch.device | str) -> Self:
        """The tensors on another device; Lightning would copy the annotations too."""
        moved = replace(self)
        for name in self.PER_CROP:
            value = getattr(self, name)
            setattr(moved, name, None if value is None else value.to(device))
        return moved

    @property
    def places(self) -> list[slice]:
        """Where the crops of each photograph are."""
        ends = list(accumulate(self.crops, initial=0))
        return [slice(start, end) for start, end in pairwise(ends)]

    def __getitem__(self, part: slice) -> Self:
        chosen = self.places[part]
        batch = super().__getitem__(part)
        inside = slice(chosen[0].start, chosen[-1].stop) if chosen else slice(0, 0)
        for name in self.PER_CROP:
            value = getattr(self, name)
            setattr(batch, name, None if value is None else value[inside])
        return batch


class PoseDataModule(DataModule):
    """Photographs, boxes in them, and the keypoints of what stands in each box.

    Training gives single crops, evaluation all crops of a photograph at once. What a crop shows hangs on the network:
    ``follow`` takes its input size and its kind of map.

    Attributes:
        keypoints: all facts; ``keypoint_names``, ``skeleton``, ``flip_pairs`` and ``sigmas`` are what a task takes of
            them.
        class_names: what the keypoints are of, and
        category_id: its number in the annotation file.
        box_source: where the boxes of evaluation come from, in words.
    """

    def __init__(
        self,
        facts: Keypoints,
        class_name: str,
        category_id: int = 1,
        *,
        batch_size: int = 32,
        val_batch_size: int = 8,
        num_workers: int = 2,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size=batch_size, val_batch_size=val_batch_size, num_workers=num_workers, seed=seed)
        self.facts = facts
        self.class_names, self.category_id = [class_name], category_id
        self.keypoint_names: list[str] = list(facts.names)
        self.skeleton: list[Pair] = list(facts.skeleton)
        self.flip_pairs: list[Pair] = list(facts.flip_pairs)
        self.sigmas: list[float] = list(facts.sigmas)
        self.box_source = "ground truth"
        self.input_size, self.udp = (256, 192), False

    def follow(self, input_size: tuple[int, int], *, udp: bool) -> None:
        """Cut crops of this size (H, W), by UDP's map or the usual one."""
        if (tuple(input_size), udp) != (self.input_size, self.udp):
            self.input_size, self.udp = (input_size[0], input_size[1]), udp
            self._datasets.clear()

    def setup(self, stage: str) -> None:
        codec = getattr(self.trainer and self.trainer.lightning_module, "codec", None)
        if codec is not None:
            self.follow(codec.input_size, udp=codec.udp)
        super().setup(stage)

    @staticmethod
    def collate(samples: Sequence[PoseSample]) -> PoseBatch:
        """Crops in one row; the photographs may differ in size."""
        keypoints = [sample.keypoints for sample in samples if sample.keypoints is not None]
        truth = [sample.truth for sample in samples if sample.truth is not None]

        def all_of(name: str) -> Tensor:
            return torch.cat([getattr(sample, name) for sample in samples])

        return PoseBatch(
            all_of("image"),
            [sample.name for sample in samples],
            [(sample.coco.height, sample.coco.width) for sample in samples],
            crops=[len(sample.boxes) for sample in samples],
            paths=[sample.path for sample in samples],
            coco=[sample.coco for sample in samples],
            boxes=all_of("boxes").float(),
            box_scores=all_of("box_scores").float(),
            centres=all_of("centres").float(),
            scales=all_of("scales").float(),
            keypoints=torch.cat(keypoints) if keypoints else None,
            truth=truth or None,
        )
