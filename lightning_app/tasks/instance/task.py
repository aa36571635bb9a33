"""Instance segmentation: each object's class, box and mask."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from lightning_app.backbones.base import Backbone
from lightning_app.data.instance.base import InstanceBatch, InstanceDataModule
from lightning_app.registry import TASKS
from lightning_app.tasks.base import Drawing, Evaluation, Report, Stage, Task
from lightning_app.tasks.coco_scores import CocoResults, ImageResult
from lightning_app.tasks.instance.draw import InstanceDrawing
from lightning_app.tasks.instance.found import Found
from lightning_app.tasks.instance.infer import InstanceInfer
from lightning_app.tasks.instance.metrics import report_of
from lightning_app.tasks.instance.network import InstanceSegmentor
from lightning_app.tasks.instance.objects import SHOWN
from lightning_app.tasks.instance.roi_align import Regions
from lightning_app.tasks.instance.weights import BUILT, InstanceFacts
from lightning_app.util.errors import InputError


@TASKS.register("instance")
class InstanceTask(Task[InstanceSegmentor, InstanceBatch]):
    """Train and evaluate Mask R-CNN, or Faster R-CNN, on a backbone with context blocks in it.

    Args:
        backbone: where features come from; its levels' strides double from one to the next.
        class_names: come from the data on the command line, as the next three do.
        category_ids: of the classes in the annotation files.
        masks: find each object's mask, and not its box alone.
        image_size: the longest short and long side that a photograph is looked at in; null looks at it as it is.
        channels: width of the pyramid, the proposal network and the mask head.
        hidden: width of the box head.
        pyramid: how levels get the news of others: fpn (each from the coarser one, by the nearest pixel), carafe, or
            libra (an fpn, and all from their mean).
        regions: what is read of a box: level (the level that suits its size) or groie (all of them).
        cascade: three rounds of heads, each with the boxes that the one before it moved.
        mask_upsample: how the mask head doubles its size: deconv or carafe.
        anchor_scale: sides of the boxes that proposals start from, in strides of their level; small things need less.
        score_threshold: objects below are not told.
        max_detections: at most so many objects in a picture.
        freeze_norms: the backbone's batch norms keep their statistics in training, as small batches need it.
    """

    monitor = "val/mask_AP"
    mode = "max"
    data = InstanceDataModule
    facts = InstanceFacts
    infer = InstanceInfer
    from_data = ("class_names", "category_ids", "masks", "image_size")

    def __init__(
        self,
        backbone: Backbone,
        *,
        class_names: list[str],
        category_ids: list[int] | None = None,
        masks: bool = True,
        image_size: tuple[int, int] | None = (800, 1333),
        channels: int = 256,
        hidden: int = 1024,
        pyramid: Literal["fpn", "carafe", "libra"] = "fpn",
        regions: Regions = "level",
        cascade: bool = False,
        mask_upsample: Literal["deconv", "carafe"] = "deconv",
        anchor_scale: float = 8.0,
        score_threshold: float = 0.05,
        max_detections: int = 100,
        freeze_norms: bool = False,
        channels_last: bool = False,
        **options: Any,
    ) -> None:
        network = InstanceSegmentor(
            backbone,
            len(class_names),
            masks=masks,
            channels=channels,
            hidden=hidden,
            pyramid=pyramid,
            regions=regions,
            cascade=cascade,
            mask_upsample=mask_upsample,
            size=image_size,
            anchor_scale=anchor_scale,
            score_threshold=score_threshold,
            max_detections=max_detections,
            freeze_norms=freeze_norms,
            channels_last=channels_last,
        )
        super().__init__(network, channels_last=channels_last, **options)
        self._score(class_names, category_ids)

    def _score(self, class_names: list[str], category_ids: list[int] | None) -> None:
        """Be ready to score objects of these classes."""
        self.class_names = class_names
        if not self.network.masks:
            self.monitor = "val/box_AP"
        self.category_ids = category_ids or list(range(1, len(class_names) + 1))
        self.val_results, self.test_results = CocoResults(), CocoResults()

    @property
    def outputs(self) -> int:
        return len(self.class_names)

    @classmethod
    def parts_of(cls, weights: Mapping[str, Any], given: Collection[str]) -> dict[str, Any]:
        """The backbone, and what else its weights were built with."""
        return super().parts_of(weights, given) | {name: weights[name] for name in BUILT if name in weights}

    @classmethod
    def with_weights(cls, network: InstanceSegmentor) -> Evaluation:
        info = network.known
        data = dict(info.data)
        if data and not network.masks:
            data["init_args"] = {**data["init_args"], "masks": False}
        return Evaluation(
            type("EvaluationTask", (EvaluationTask,), {"pretrained": network}),
            data=data,
            split=info.split,
            known=info.known("mask_AP" if network.masks else "box_AP"),
            names={"classes": info.classes},
        )

    def losses(self, batch: InstanceBatch) -> dict[str, Tensor]:
        assert batch.targets is not None
        return self.network.losses(batch.image, batch.targets)

    def predict(self, batch: InstanceBatch) -> list[Found]:
        """The objects of each image, in the pixels of its file, masks as runs."""
        found = self.network(batch.image)
        return [Found.of(each, size) for each, size in zip(found, batch.sizes, strict=True)]

    def update(self, stage: Stage, batch: InstanceBatch, predictions: Sequence[Found]) -> None:
        results = self.val_results if stage == "val" else self.test_results
        assert batch.truth is not None
        for image, annotations, found in zip(batch.coco, batch.truth, predictions, strict=True):
            results.update(ImageResult.of(image, annotations, found.results(image.id, self.category_ids)))

    def report(self, stage: Stage) -> Report:
        results = self.val_results if stage == "val" else self.test_results
        return report_of(
            results.compute(),
            self.class_names,
            self.category_ids,
            masks=self.network.masks,
            devices=self.trainer.world_size,
        )

    def draw(self, batch: InstanceBatch, predictions: Sequence[Found]) -> list[Drawing]:
        drawings: list[Drawing] = []
        for place, (image, found) in enumerate(zip(batch.coco, predictions, strict=True)):
            photograph = (batch.image[place] * 255).round().permute(1, 2, 0).to("cpu", torch.uint8).numpy()
            truth = None
            if batch.truth is not None:
                truth = Found.annotated(image, batch.truth[place], self.category_ids)
            results = found.results(image.id, self.category_ids)
            shown = found[found.scores >= SHOWN]
            drawings.append(InstanceDrawing.of(batch.names[place], photograph, shown, truth, self.class_names, results))
        return drawings


class EvaluationTask(InstanceTask):
    """A task that evaluates a network with weights that say what they are.

    The command line makes it of the arguments alone, so the network comes with the class, a new one for each.

    Raises:
        InputError: data of other classes, or with masks where the network finds none.
    """

    pretrained: ClassVar[InstanceSegmentor]

    def __init__(
        self,
        class_names: list[str],
        category_ids: list[int],
        masks: bool,
        image_size: tuple[int, int] | None,
        channels_last: bool = False,
        compile: bool = False,
    ) -> None:
        network, info = self.pretrained, self.pretrained.known
        if len(class_names) != len(info.classes):
            raise InputError(
                f"{info.name} knows {len(info.classes)} classes, the data has {len(class_names)}: "
                "give the data it was trained on"
            )
        if masks and not network.masks:
            raise InputError(f"{info.name} finds boxes alone: add --data.masks false")
        if tuple(class_names) != info.classes:
            rank_zero_only(print)(f"Compared by number: {info.name} calls its classes {', '.join(info.classes)}")
        network.size, network.masks = image_size, masks
        super(InstanceTask, self).__init__(network, channels_last=channels_last, compile=compile)
        self._score(list(info.classes), category_ids)
