"""What weights of semantic segmentation say of themselves: classes, colours, and how images are to be looked at."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Final, Self

from lightning_app.data.facts import Colour, default_palette, palette_from_hex
from lightning_app.data.semantic.context_probe import CELL, ContextProbe
from lightning_app.reading import specs
from lightning_app.tasks.report import Best
from lightning_app.tasks.semantic.network import ModelInfo, Segmentor
from lightning_app.tasks.semantic.protocol import EvaluationProtocol
from lightning_app.tasks.semantic.summary import best_validation
from lightning_app.util.errors import InputError
from lightning_app.weights import torchvision
from lightning_app.weights.facts import Facts, is_text, record
from lightning_app.weights.openmmlab import convert
from lightning_app.weights.openmmlab.published import evaluation_size, upstream_config
from lightning_app.weights.parts import MODEL, new_segmentor
from zoo import ZooEntry
from zoo.datasets import datasets

MOST_CLASSES: Final = 10_000


@dataclass(frozen=True)
class SemanticFacts(Facts[Segmentor]):
    """A name and an RGB colour for each number, and how images are to be looked at."""

    classes: tuple[str, ...]
    palette: tuple[Colour, ...]
    protocol: EvaluationProtocol

    parts: ClassVar = MODEL
    figures: ClassVar = ("mIoU",)
    pipeline: ClassVar = "image-segmentation"

    @classmethod
    def read(cls, content: Mapping[str, Any], where: str) -> Self:
        classes, palette = content["classes"], content["palette"]
        if not isinstance(classes, list) or not 0 < len(classes) <= MOST_CLASSES or not all(map(is_text, classes)):
            raise InputError(f"{where}: its classes are {specs.shown(classes)}, not a list of names")
        if not isinstance(palette, list) or len(palette) != len(classes) or not all(map(_is_colour, palette)):
            raise InputError(
                f"{where}: its palette is {specs.shown(palette)}, not a colour for each of {len(classes)} classes"
            )
        return cls(
            tuple(classes),
            tuple((red, green, blue) for red, green, blue in palette),
            record(EvaluationProtocol, content["protocol"], f"{where}: its protocol"),
        )

    @classmethod
    def of_run(cls, content: Mapping[str, Any]) -> dict[str, Any]:
        config, facts = content["config"], content["hyper_parameters"]
        protocol = dict(config["model"]["protocol"])
        if "align_corners" in (head := specs.given(config["model"].get("head"))):
            protocol["align_corners"] = head["align_corners"]  # one for the whole network
        if (size := specs.given(config.get("data")).get("image_size")) and not protocol.get("fit"):
            protocol |= {"fit": [max(size), min(size)], "antialias": True}  # as the datamodule resized them
        names = facts["class_names"] or [str(number) for number in range(min(facts["num_classes"], MOST_CLASSES + 1))]
        palette = facts["palette"] or default_palette(len(names))
        return {"classes": list(names), "palette": [list(colour) for colour in palette], "protocol": protocol}

    @classmethod
    def best_validation(cls, content: Mapping[str, Any]) -> Best | None:
        return best_validation(content)

    @classmethod
    def published(cls, path: Path, entry: ZooEntry) -> tuple[Segmentor, Mapping[str, Any], Self]:
        dataset = datasets()[entry.dataset]
        facts = cls(dataset.classes, palette_from_hex(" ".join(dataset.palette)), EvaluationProtocol())
        if entry.format == "torchvision":
            parts = torchvision.parts_of(entry)
            network = new_segmentor(parts, len(facts.classes), entry.id)
            convert.load_strictly(network, torchvision.read(path, entry), what=str(path))
            protocol = EvaluationProtocol(fit=dataset.evaluated, antialias=True)
            return network.eval(), parts, replace(facts, protocol=protocol)
        config = convert.as_the_weights_have_it(upstream_config(entry), path)
        facts = replace(facts, protocol=replace(convert.protocol_of(config), fit=evaluation_size(entry)))
        return convert.load_checkpoint(path, config), convert.parts_of(config), facts

    def network(self, model: Mapping[str, Any], name: str) -> Segmentor:
        return new_segmentor(model, len(self.classes), name)

    def of_others(self, names: Sequence[str]) -> Self:
        return replace(self, classes=tuple(names), palette=default_palette(len(names)))

    @property
    def labels(self) -> tuple[str, ...]:
        return self.classes

    def protocol_in_words(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.as_dict()["protocol"].items() if value)

    def details(self, crop: Sequence[int] | None, data: Mapping[str, Any], model: Mapping[str, Any]) -> dict[str, Any]:
        if crop is None and data["class_path"].endswith(f".{ContextProbe.__name__}"):
            crop = (CELL * data["init_args"]["cells"],) * 2
        if crop is None:
            raise InputError("It was trained on whole images: say with --crop H W how large they are")
        return {"crop": list(crop)}

    @staticmethod
    def look(network: Segmentor, details: Mapping[str, Any]) -> None:
        network.head(network.features(network.mean.new_empty(1, len(network.mean), *details["crop"])))

    def info(self, **shared: Any) -> ModelInfo:
        return ModelInfo(classes=self.classes, palette=self.palette, protocol=self.protocol, **shared)


def _is_colour(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 3 and all(type(x) is int and 0 <= x < 256 for x in value)
