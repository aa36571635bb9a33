"""What weights of instance segmentation say of themselves: classes, masks or none, and the size they look at."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Final, Self

from torch import Tensor

from lightning_app.backbones.base import Backbone
from lightning_app.backbones.timm import TimmBackbone
from lightning_app.blocks.carafe import CARAFEUpsample
from lightning_app.reading import specs
from lightning_app.registry import BLOCKS, HEADS, Entry, import_parts
from lightning_app.tasks.instance.cascade import CascadeHeads
from lightning_app.tasks.instance.info import InstanceInfo
from lightning_app.tasks.instance.network import InstanceSegmentor
from lightning_app.tasks.instance.pyramid import BalancedPyramid
from lightning_app.tasks.instance.roi_align import AllLevelsAlign
from lightning_app.util.errors import InputError
from lightning_app.weights.facts import Facts, is_text
from lightning_app.weights.openmmlab.convert import load_strictly, other_statistics
from lightning_app.weights.openmmlab.detection import rename
from lightning_app.weights.openmmlab.tensors import read_tensors
from zoo import ZooEntry
from zoo.datasets import datasets
from zoo.tasks.instance import details_of

MOST_CLASSES: Final = 10_000
LONGEST_SIDE: Final = 10_000  # pixels
PROPOSALS: Final = 1000  # of which GFLOP are counted
OBJECTS: Final = 100
BUILT: Final = ("channels", "hidden", "pyramid", "regions", "cascade", "mask_upsample", "anchor_scale")
SETTINGS: Final = (*BUILT, "score_threshold", "max_detections", "channels_last")
KINDS: Final = {"mask-rcnn": "MaskRCNN", "faster-rcnn": "FasterRCNN", "cascade-mask-rcnn": "CascadeRCNN"}
DETECTORS: Final = {
    slug: Entry(slug, cls, f"arXiv:{paper}", year, title)
    for slug, title, cls, paper, year in (
        ("mask_rcnn", "MaskRCNN", InstanceSegmentor, "1703.06870", 2017),
        ("faster_rcnn", "FasterRCNN", InstanceSegmentor, "1506.01497", 2015),
        ("cascade_mask_rcnn", "CascadeMaskRCNN", InstanceSegmentor, "1906.09756", 2019),
        ("cascade_rcnn", "CascadeRCNN", InstanceSegmentor, "1712.00726", 2018),
        ("groie", "GRoIE", AllLevelsAlign, "2004.13665", 2020),
        ("libra", "LibraRCNN", BalancedPyramid, "1904.02701", 2019),
    )
}


@dataclass(frozen=True)
class InstanceFacts(Facts[InstanceSegmentor]):
    """A name for each class, whether objects have masks, and the longest short and long side that is looked at."""

    classes: tuple[str, ...]
    masks: bool
    image_size: tuple[int, int] | None

    parts: ClassVar = ("backbone", *SETTINGS)
    figures: ClassVar = ("box_AP", "mask_AP")
    pipeline: ClassVar = "object-detection"

    @classmethod
    def read(cls, content: Mapping[str, Any], where: str) -> Self:
        classes, masks, size = content["classes"], content["masks"], content["image_size"]
        if not isinstance(classes, list) or not 0 < len(classes) <= MOST_CLASSES or not all(map(is_text, classes)):
            raise InputError(f"{where}: its classes are {specs.shown(classes)}, not a list of names")
        if not isinstance(masks, bool):
            raise InputError(f"{where}: its masks are {specs.shown(masks)}, not true or false")
        if size is not None and not _is_size(size):
            raise InputError(
                f"{where}: its image_size is {specs.shown(size)}, not a short and a long side of up to {LONGEST_SIDE}"
            )
        return cls(tuple(classes), masks, None if size is None else (size[0], size[1]))

    @classmethod
    def of_run(cls, content: Mapping[str, Any]) -> dict[str, Any]:
        facts = content["hyper_parameters"]
        size = facts["image_size"]
        return {
            "classes": list(facts["class_names"]),
            "masks": facts["masks"],
            "image_size": None if size is None else list(size),
        }

    @classmethod
    def published(cls, path: Path, entry: ZooEntry) -> tuple[InstanceSegmentor, Mapping[str, Any], Self]:
        details = details_of(entry)
        facts = cls(datasets()[entry.dataset].classes, details.detector != "faster-rcnn", details.image_size)
        parts = parts_of(entry)
        network = facts.network(parts, entry.id)
        config = {
            "type": KINDS[details.detector],
            "backbone": dict(entry.backbone.upstream),
            "data_preprocessor": {"bgr_to_rgb": not details.bgr},
        }  # all that the names and the order of tensors hang on
        load_strictly(network, rename(config, read_tensors(path)), what=str(path))
        return network, parts, facts

    def network(self, model: Mapping[str, Any], name: str) -> InstanceSegmentor:
        import_parts()
        what = f"{name}: its model"
        if unknown := model.keys() - set(self.parts):
            raise InputError(f"{what} cannot be built: it has no {specs.shown(sorted(map(str, unknown)))}")
        given = {key: model[key] for key in SETTINGS if key in model}
        specs.check_plain(given, what)
        settings = specs.fit(given, specs.parameters(InstanceSegmentor), what)
        backbone = specs.maker(model.get("backbone"), "backbone", specs.Part(Backbone), what)
        if backbone is None:
            raise InputError(f"{what} cannot be built: it has no backbone")
        count, seen = len(self.classes), settings | {"masks": self.masks, "size": self.image_size}
        return specs.make(lambda: InstanceSegmentor(backbone(), count, **seen), what)

    @classmethod
    def of_network(cls, network: Any) -> Self:
        return cls(network.known.classes, network.masks, network.size)

    def of_others(self, names: Sequence[str]) -> Self:
        return replace(self, classes=tuple(names))

    @property
    def labels(self) -> tuple[str, ...]:
        return self.classes

    def protocol_in_words(self) -> str:
        if self.image_size is None:
            return "images as they are"
        return f"images of a short side of {self.image_size[0]} pixels and a long one of {self.image_size[1]} at most"

    def head(self, network: InstanceSegmentor) -> Entry:
        """The block that it is known for, or its detector: what the index's files are called by."""
        context = network.backbone.description()["init_args"].get("context") or {}
        blocks = [each["block"] for each in context.values()]
        kinds = {type(each) for each in network.modules()}
        if blocks:
            return HEADS[blocks[0]] if blocks[0] in HEADS else BLOCKS[blocks[0]]
        if CARAFEUpsample in kinds:
            return HEADS["carafe"]
        for slug in ("groie", "libra"):
            if DETECTORS[slug].cls in kinds:
                return DETECTORS[slug]
        return DETECTORS[_detector(self.masks, isinstance(network.roi_heads, CascadeHeads)).replace("-", "_")]

    def details(self, crop: Sequence[int] | None, data: Mapping[str, Any], model: Mapping[str, Any]) -> dict[str, Any]:
        size = None if self.image_size is None else list(self.image_size)
        return {"detector": _detector(self.masks, bool(model.get("cascade"))), "image_size": size}

    @staticmethod
    def look(network: InstanceSegmentor, details: Mapping[str, Any]) -> None:
        """As mmdetection counts: at 800x1280 where (800, 1333) is the most, with 1000 proposals and 100 masks."""
        if not details["image_size"]:
            return
        short, long = details["image_size"]
        levels, _ = network.levels([network.mean.new_empty(3, short, min(long, short * 8 // 5))])
        network.rpn.head(levels)
        rounds = network.roi_heads
        for heads in rounds.rounds if isinstance(rounds, CascadeHeads) else [rounds]:
            heads.box_predictor(heads.box_head(_regions(heads.box_roi_pool, levels[0], PROPOSALS)))
            if network.masks:
                heads.mask_head(_regions(heads.mask_roi_pool, levels[0], OBJECTS))

    def info(self, **shared: Any) -> InstanceInfo:
        return InstanceInfo(classes=self.classes, **shared)


def parts_of(entry: ZooEntry) -> dict[str, Any]:
    """The parts of a published detector in the words of our command line."""
    details, backbone = details_of(entry), entry.backbone
    assert details.mean
    assert details.std
    order = -1 if details.bgr else 1
    statistics = {"mean": details.mean[::order], "std": details.std[::order]}
    arguments: dict[str, Any] = {"name": backbone.name, "output_stride": backbone.output_stride}
    if changes := {**backbone.changes, **other_statistics(backbone.name, statistics)}:
        arguments["changes"] = changes
    if details.context:
        arguments["context"] = details.context
    return {
        "backbone": specs.spec_of(TimmBackbone, arguments),
        "pyramid": details.pyramid,
        "regions": details.regions,
        "cascade": details.detector.startswith("cascade"),
        "mask_upsample": details.mask_upsample,
    }


def _regions(pool: Any, level: Tensor, count: int) -> Tensor:
    """What is read of so many boxes, without reading it."""
    regions = level.new_empty(count, level.shape[1], pool.size, pool.size)
    if isinstance(pool, AllLevelsAlign):
        for _ in pool.strides:
            pool.pre(regions)
        pool.post(regions)
    return regions


def _detector(masks: bool, cascade: bool) -> str:
    if cascade:
        return "cascade-mask-rcnn" if masks else "cascade-rcnn"
    return "mask-rcnn" if masks else "faster-rcnn"


def _is_size(value: Any) -> bool:
    """Whether it is a short and a long side."""
    sides = isinstance(value, list | tuple) and len(value) == 2 and all(type(side) is int for side in value)
    return sides and 0 < value[0] <= value[1] <= LONGEST_SIDE
