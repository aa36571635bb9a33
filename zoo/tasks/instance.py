"""Instance segmentation and detection of objects: COCO's AP of boxes and masks, and what a detector is made of."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from zoo import details
from zoo.entry import ZooEntry
from zoo.errors import ZooError, shown
from zoo.values import call, is_pair

DETECTORS = ("mask-rcnn", "faster-rcnn", "cascade-mask-rcnn", "cascade-rcnn")


@dataclass(frozen=True, slots=True, kw_only=True)
class Details(details.Details):
    """What only weights of instance segmentation have; of our own weights, whose file tells the rest, the first two.

    Attributes:
        detector: one of ``DETECTORS``; faster-rcnn and cascade-rcnn find no masks. Ids begin with it.
        image_size: the longest short and long side that a photograph is looked at in; None = as it is.
        context: blocks inside the backbone, as ``TimmBackbone`` takes them.
        pyramid, regions, mask_upsample: arguments of ``InstanceSegmentor``.
        bgr: the published weights read blue first.
        mean, std: of bytes, in the order of the published weights.
    """

    metrics: ClassVar = {"box_AP": "box AP", "mask_AP": "mask AP"}

    detector: str
    image_size: tuple[int, int] | None = None
    context: dict[str, Any] | None = None
    pyramid: str = "fpn"
    regions: str = "level"
    mask_upsample: str = "deconv"
    bgr: bool = False
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None

    def check(self) -> None:
        self._check("detector", self.detector in DETECTORS, f"one of {', '.join(DETECTORS)}")
        self._check("image_size", is_pair(self.image_size), "[short side, long side]")
        blocks = (self.context or {}).values()
        known = all(isinstance(block, dict) and {"block", "where"} <= block.keys() for block in blocks)
        self._check("context", known, "a block and where for each stage")
        for name in ("mean", "std"):
            value = getattr(self, name)
            numbers = value is None or (len(value) == 3 and all(type(each) in (int, float) for each in value))
            self._check(name, numbers, "three numbers")

    def check_published(self) -> None:
        self._check("mean", self.mean is not None, "three numbers")
        self._check("std", self.std is not None, "three numbers")

    def begins(self, head: str) -> str:
        block = head.replace("_", "-")
        return f"{self.detector}_" if block == self.detector else f"{self.detector}_{block}"

    def lines(self) -> dict[str, str]:
        parts = {"pyramid": self.pyramid, "regions": self.regions, "mask upsampling": self.mask_upsample}
        usual = {"pyramid": "fpn", "regions": "level", "mask upsampling": "deconv"}
        lines = {"detector": self.detector} | {name: each for name, each in parts.items() if each != usual[name]}
        stages: dict[str, list[str]] = {}
        for stage, block in (self.context or {}).items():
            arguments = {name: value for name, value in block.items() if name not in ("block", "where")}
            stages.setdefault(f"{call(str(block['block']), arguments)} at {block['where']}", []).append(stage)
        blocks = "; ".join(f"{block} of {', '.join(names)}" for block, names in stages.items())
        return lines | ({"context": shown(blocks, 1000)} if blocks else {})

    def looked_at(self) -> str:
        short, long = self.image_size or (0, 0)
        of_masks = "" if "mask" not in self.detector else ", the masks of 100"
        return f"an image of {short}x{min(long, short * 8 // 5)}, 1000 proposals{of_masks}"

    def protocol(self, told: Mapping[str, Any]) -> str:
        size = "images as they are"
        if self.image_size:
            size = f"short side {self.image_size[0]}, long side at most {self.image_size[1]}"
        return f"{size}, 100 objects an image"


def details_of(entry: ZooEntry) -> Details:
    """The entry's details.

    Raises:
        ZooError: it is of another task.
    """
    if not isinstance(entry.details, Details):
        raise ZooError(f"{entry.id} is of another task: {entry.task}")
    return entry.details
