"""What weights of pose say of themselves: the keypoints, and how their figures were measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Final, Self

from lightning_app.backbones.base import Backbone
from lightning_app.data.pose.facts import SIGMA, Keypoints, person_facts
from lightning_app.heads.base import ContextHead
from lightning_app.heads.simple_baseline import SimpleBaseline
from lightning_app.reading import specs
from lightning_app.registry import import_parts
from lightning_app.tasks.network import head_on
from lightning_app.tasks.pose.codec import Codec
from lightning_app.tasks.pose.info import PoseInfo
from lightning_app.tasks.pose.network import PoseEstimator
from lightning_app.tasks.pose.oks import KEYPOINT_THRESHOLD, NMS_THRESHOLD
from lightning_app.util.errors import InputError
from lightning_app.weights.facts import Facts, is_text, record
from lightning_app.weights.openmmlab.pose import load_estimator, parts_of, upstream_config
from lightning_app.weights.parts import GIVEN
from zoo import ZooEntry
from zoo.datasets import datasets
from zoo.tasks.pose import details_of

MOST_POINTS: Final = 1000
LONGEST: Final = 4096  # pixels of a crop's side, and of a blur
BOXES: Final = {"truth": "ground truth", "whole": "whole image"}  # of the data, as the index says it


@dataclass(frozen=True)
class PoseFacts(Facts[PoseEstimator]):
    """Names, bones, mirror pairs and sigmas of the keypoints, and what ``PoseTask`` makes of the maps."""

    keypoints: Keypoints
    flip_test: bool = True
    nms: float | None = NMS_THRESHOLD
    keypoint_threshold: float = KEYPOINT_THRESHOLD

    parts: ClassVar = ("backbone", "head", "codec", "channels_last")
    figures: ClassVar = ("AP", "AR", "AP50", "AP75", "AR50")
    pipeline: ClassVar = "keypoint-detection"

    @classmethod
    def read(cls, content: Mapping[str, Any], where: str) -> Self:
        keypoints = record(Keypoints, content["keypoints"], f"{where}: its keypoints")
        if not 0 < len(keypoints.names) <= MOST_POINTS or not all(map(is_text, keypoints.names)):
            raise InputError(f"{where}: its keypoints are {specs.shown(keypoints.names)}, not a list of names")
        rules = {name: content[name] for name in ("flip_test", "nms", "keypoint_threshold") if name in content}
        specs.check_plain(rules, where)
        kinds = {"flip_test": bool, "nms": float | None, "keypoint_threshold": float}
        return cls(keypoints, **specs.fit(rules, kinds, where))

    @classmethod
    def of_run(cls, content: Mapping[str, Any]) -> dict[str, Any]:
        facts, model = content["hyper_parameters"], content["config"]["model"]
        names = facts.get("keypoint_names") or ["point"]
        return {
            "keypoints": {
                "names": list(names),
                "skeleton": [list(pair) for pair in facts.get("skeleton") or ()],
                "flip_pairs": [list(pair) for pair in facts.get("flip_pairs") or ()],
                "sigmas": list(facts.get("sigmas") or [SIGMA] * len(names)),
            },
            **{name: model[name] for name in ("flip_test", "nms", "keypoint_threshold") if name in model},
        }

    @classmethod
    def published(cls, path: Path, entry: ZooEntry) -> tuple[PoseEstimator, Mapping[str, Any], Self]:
        config = upstream_config(entry)
        facts = cls(person_facts(datasets()[entry.dataset].keypoints), details_of(entry).flip_test)
        return load_estimator(path, config), parts_of(config), facts

    def network(self, model: Mapping[str, Any], name: str) -> PoseEstimator:
        import_parts()
        what = f"{name}: its model"
        if unknown := model.keys() - set(self.parts):
            raise InputError(f"{what} cannot be built: it has no {specs.shown(sorted(map(str, unknown)))}")
        given = {"channels_last": model["channels_last"]} if "channels_last" in model else {}
        options = specs.fit(given, {"channels_last": bool}, what)
        backbone = specs.maker(model.get("backbone"), "backbone", specs.Part(Backbone), what)
        head = specs.maker(model.get("head"), "head", specs.Part(ContextHead, GIVEN), what) or SimpleBaseline
        if backbone is None:
            raise InputError(f"{what} cannot be built: it has no backbone")
        codec = codec_of(model.get("codec"), what)
        maps = len(self.keypoints.names) * codec.maps_per_point

        def build() -> PoseEstimator:
            levels: Backbone = backbone()
            return PoseEstimator(levels, head_on(levels, head, maps), codec, **options)

        return specs.make(build, what)

    def of_others(self, names: Sequence[str]) -> Self:
        return replace(self, keypoints=Keypoints(tuple(names), (), (), (SIGMA,) * len(names)))

    @property
    def labels(self) -> tuple[str, ...]:
        return self.keypoints.names

    def protocol_in_words(self) -> str:
        return "mean with the mirrored crops" if self.flip_test else "no mirroring"

    def details(self, crop: Sequence[int] | None, data: Mapping[str, Any], model: Mapping[str, Any]) -> dict[str, Any]:
        boxes = str(data["init_args"].get("boxes", "truth"))
        size = codec_of(model.get("codec"), "The model").input_size
        return {
            "input_size": list(size),
            "boxes": BOXES.get(boxes, Path(boxes).name),
            "flip_test": self.flip_test,
        }

    @staticmethod
    def look(network: PoseEstimator, details: Mapping[str, Any]) -> None:
        network.head(network.features(network.mean.new_empty(1, len(network.mean), *details["input_size"])))

    def info(self, **shared: Any) -> PoseInfo:
        return PoseInfo(
            keypoints=self.keypoints,
            codec=codec_of(shared["parts"].get("codec"), shared["name"]),
            flip_test=self.flip_test,
            nms=self.nms,
            keypoint_threshold=self.keypoint_threshold,
            **shared,
        )


def codec_of(values: Any, what: str) -> Codec:
    """A codec of its values in a file; of none the usual one.

    Raises:
        InputError: they are of no codec.
    """
    codec = Codec() if values is None else record(Codec, values, f"{what}: its codec")
    if max(*codec.input_size, *codec.maps, codec.blur_kernel) > LONGEST:
        raise InputError(f"{what}: its codec has {specs.shown(values)}, where {LONGEST} pixels are the most")
    return codec
