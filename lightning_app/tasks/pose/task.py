"""Top-down pose: the keypoints of what stands in each box."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, ClassVar, cast

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from lightning_app.backbones.base import Backbone
from lightning_app.data.images import read_image
from lightning_app.data.pose.affine import to_image
from lightning_app.data.pose.base import PoseBatch, PoseDataModule
from lightning_app.data.pose.facts import Keypoints, Pair
from lightning_app.heads.base import ContextHead
from lightning_app.heads.simple_baseline import SimpleBaseline
from lightning_app.registry import TASKS
from lightning_app.tasks.base import Drawing, Evaluation, Part, Report, Stage, Task
from lightning_app.tasks.coco_scores import CocoResults, ImageResult
from lightning_app.tasks.network import head_on
from lightning_app.tasks.pose.codec import Codec
from lightning_app.tasks.pose.infer import PoseInfer
from lightning_app.tasks.pose.metrics import report_of
from lightning_app.tasks.pose.network import PoseEstimator
from lightning_app.tasks.pose.oks import KEYPOINT_THRESHOLD, NMS_THRESHOLD, oks_nms, person_scores
from lightning_app.tasks.pose.poses import PoseDrawing, Poses
from lightning_app.tasks.pose.weights import PoseFacts
from lightning_app.util.errors import InputError


@TASKS.register("pose")
class PoseTask(Task[PoseEstimator, PoseBatch]):
    """Train and evaluate a backbone with a head that gives a map for each keypoint.

    Args:
        backbone: where features come from.
        head: any map head, called with the levels' widths and the number of maps; null is SimpleBaseline.
        keypoint_names: come from the data on the command line, as the next three do.
        skeleton: pairs of keypoints that a line joins in drawings.
        flip_pairs: pairs of keypoints that a mirror swaps.
        sigmas: of each keypoint, for OKS.
        codec: what the maps mean, and the size of the crops.
        flip_test: predict the mean of each crop and its mirror image.
        nms: OKS above which the less sure of two people is taken for the other one seen again; null keeps all.
        keypoint_threshold: score below which a keypoint says nothing of its person's score.
    """

    monitor = "val/AP"
    mode = "max"
    data = PoseDataModule
    facts = PoseFacts
    infer = PoseInfer
    from_data = ("keypoint_names", "skeleton", "flip_pairs", "sigmas")
    parts: ClassVar[Mapping[str, Part]] = {
        "backbone": Part(Backbone),
        "head": Part(ContextHead, ("in_channels", "num_classes")),
    }
    evaluated = ("flip_test", "nms", "keypoint_threshold", "channels_last", "compile")

    def __init__(
        self,
        backbone: Backbone,
        head: Callable[[list[int], int], ContextHead] | None = None,
        *,
        keypoint_names: list[str] | None = None,
        skeleton: list[Pair] | None = None,
        flip_pairs: list[Pair] | None = None,
        sigmas: list[float] | None = None,
        codec: Codec = Codec(),
        flip_test: bool = True,
        nms: float | None = NMS_THRESHOLD,
        keypoint_threshold: float = KEYPOINT_THRESHOLD,
        channels_last: bool = False,
        **options: Any,
    ) -> None:
        names = keypoint_names or ["point"]
        facts = Keypoints(
            tuple(names),
            tuple((a, b) for a, b in skeleton or ()),
            tuple((a, b) for a, b in flip_pairs or ()),
            tuple(sigmas or [0.05] * len(names)),
        )
        maps = len(names) * codec.maps_per_point
        made = head_on(backbone, head or SimpleBaseline, maps)
        network = PoseEstimator(backbone, made, codec, channels_last=channels_last)
        super().__init__(network, channels_last=channels_last, **options)
        self.keypoints, self.codec = facts, codec
        self.flip_test, self.nms, self.keypoint_threshold = flip_test, nms, keypoint_threshold
        self.val_results, self.test_results = CocoResults(), CocoResults()

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of what the network sees in training."""
        return self.codec.input_size

    @property
    def _data(self) -> PoseDataModule:
        """What is evaluated."""
        return cast(PoseDataModule, self.trainer.datamodule)  # type: ignore[attr-defined]

    @property
    def outputs(self) -> int:
        return len(self.keypoints.names) * self.codec.maps_per_point

    @classmethod
    def parts_of(cls, weights: Mapping[str, Any], given: Collection[str]) -> dict[str, Any]:
        """Backbone and head, and what the head's maps mean."""
        codec = {name: weights[name] for name in ("codec",) if weights.get(name) is not None}
        return super().parts_of({"head": None, **weights}, given) | codec

    @classmethod
    def with_weights(cls, network: PoseEstimator) -> Evaluation:
        info = network.known
        return Evaluation(
            type("EvaluationTask", (EvaluationTask,), {"pretrained": network}),
            {name: getattr(info, name) for name in ("flip_test", "nms", "keypoint_threshold")},
            info.data,
            info.split,
            info.known("AP"),
            {"keypoint_names": info.keypoints.names},
        )

    def losses(self, batch: PoseBatch) -> dict[str, Tensor]:
        assert batch.keypoints is not None, "a batch for evaluation has no single crops to learn"
        points, visible = batch.keypoints[..., :2], batch.keypoints[..., 2].clamp(max=1)
        target, weights = self.codec.encode(points, visible)
        return {"maps": self.codec.loss(self.network(batch.image), target, weights)}

    def predict(self, batch: PoseBatch) -> list[Poses]:
        """The people of each photograph, the surest first."""
        if not len(batch.image):
            nobody = self._poses(torch.zeros(0, len(self.keypoints.names), 3), torch.zeros(0), torch.zeros(0, 4))
            return [nobody] * len(batch)
        maps = self.network.maps(batch.image, self.keypoints.flip_indices if self.flip_test else None)
        points, scores = self.codec.decode(maps)
        points = to_image(points, batch.centres, batch.scales, self.codec.input_size)
        people = person_scores(batch.box_scores, scores, self.keypoint_threshold)
        found = []
        for place in batch.places:
            kept = self._kept(points[place], people[place], batch.scales[place].prod(-1))
            keypoints = torch.cat([points[place], scores[place, :, None]], -1)[kept]
            found.append(self._poses(keypoints, people[place][kept], batch.boxes[place][kept]))
        return found

    def _kept(self, points: Tensor, people: Tensor, areas: Tensor) -> Tensor:
        """Indices of those that are kept, the surest first."""
        if self.nms is None or len(people) < 2:
            return people.argsort(descending=True, stable=True)
        return oks_nms(points, people, areas, points.new_tensor(self.keypoints.sigmas), self.nms)

    def _poses(self, keypoints: Tensor, scores: Tensor, boxes: Tensor) -> Poses:
        points, people, corners = (each.float().cpu().numpy() for each in (keypoints, scores, boxes))
        return Poses(points[..., :2], points[..., 2], people, corners, self.keypoints)

    def update(self, stage: Stage, batch: PoseBatch, predictions: Sequence[Poses]) -> None:
        assert batch.truth is not None, "a batch for prediction has no truth"
        results = self.val_results if stage == "val" else self.test_results
        for image, truth, poses in zip(batch.coco, batch.truth, predictions, strict=True):
            found = poses.results(image.id, self._data.category_id)
            results.update(ImageResult.of(image, truth, found))

    def report(self, stage: Stage) -> Report:
        results = self.val_results if stage == "val" else self.test_results
        data = self._data
        return report_of(
            results.compute(),
            self.keypoints.names,
            self.keypoints.sigmas,
            category_id=data.category_id,
            thing=data.class_names[0],
            box_source=data.box_source,
            devices=self.trainer.world_size,
        )

    def draw(self, batch: PoseBatch, predictions: Sequence[Poses]) -> list[Drawing]:
        """Skeletons over each photograph, which is read again."""
        drawings: list[Drawing] = []
        for place, (name, path, poses) in enumerate(zip(batch.names, batch.paths, predictions, strict=True)):
            photograph = read_image(path)
            found = poses.results(batch.coco[place].id, self._data.category_id)
            results = [{**each, "file_name": name} for each in found]
            truth = None
            if batch.truth is not None:
                marked = [each.keypoints for each in batch.truth[place] if each.keypoints]
                truth = np.array(marked, dtype=np.float32).reshape(-1, len(self.keypoints.names), 3)
            drawings.append(PoseDrawing(name, photograph, results=results, poses=poses.on(photograph), truth=truth))
        return drawings


class EvaluationTask(PoseTask):
    """A task that evaluates a network with weights that say what they are.

    The command line makes it of the arguments alone, so the network comes with the class, a new one for each.

    Raises:
        InputError: data of other keypoints.
    """

    pretrained: ClassVar[PoseEstimator]

    def __init__(
        self,
        keypoint_names: list[str],
        skeleton: list[Pair],
        flip_pairs: list[Pair],
        sigmas: list[float],
        flip_test: bool = True,
        nms: float | None = NMS_THRESHOLD,
        keypoint_threshold: float = KEYPOINT_THRESHOLD,
        channels_last: bool = False,
        compile: bool = False,
    ) -> None:
        network, info = self.pretrained, self.pretrained.known
        names = info.keypoints.names
        if len(keypoint_names) != len(names):
            raise InputError(
                f"{info.name} knows {len(names)} keypoints, the data has {len(keypoint_names)}: "
                "give the data it was trained on"
            )
        if tuple(keypoint_names) != names:
            rank_zero_only(print)(f"Compared by number: {info.name} calls its keypoints {', '.join(names)}")
        super().__init__(
            network.backbone,
            lambda in_channels, num_classes: network.head,
            keypoint_names=list(names),
            skeleton=list(info.keypoints.skeleton),
            flip_pairs=list(info.keypoints.flip_pairs),
            sigmas=sigmas,
            codec=network.codec,
            flip_test=flip_test,
            nms=nms,
            keypoint_threshold=keypoint_threshold,
            channels_last=channels_last,
            compile=compile,
        )
