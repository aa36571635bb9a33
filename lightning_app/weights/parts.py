"""The parts of a model as a configuration, a checkpoint and a header name them: a class and its arguments each."""

from collections.abc import Mapping
from typing import Any, Final

from lightning_app.backbones.base import Backbone
from lightning_app.heads.base import ContextHead
from lightning_app.heads.fcn import FCN
from lightning_app.reading import specs
from lightning_app.registry import import_parts
from lightning_app.tasks.semantic.network import Segmentor
from lightning_app.util.errors import InputError

PARTS: Final[dict[str, type]] = {"backbone": Backbone, "head": ContextHead, "auxiliary": ContextHead}
HEAD: Final = ("head", "auxiliary")
SETTINGS: Final = {"auxiliary_weight": float, "channels_last": bool}
MODEL: Final = (*PARTS, *SETTINGS)
GIVEN: Final = ("in_channels", "num_classes")  # a head's arguments that the backbone and the classes give


def new_segmentor(config: Mapping[str, Any], num_classes: int, name: str) -> Segmentor:
    """A segmentor from its parts, freshly initialised; it fetches nothing and names no more than what is imported.

    Raises:
        InputError: an unknown part or argument.
    """
    import_parts()
    what = f"{name}: its model"
    if unknown := config.keys() - set(MODEL):
        raise InputError(f"{what} cannot be built: it has no {specs.shown(sorted(map(str, unknown)))}")
    made = {
        part: specs.maker(config.get(part), part, specs.Part(base, GIVEN if part in HEAD else ()), what)
        for part, base in PARTS.items()
    }
    settings = specs.fit({key: config[key] for key in SETTINGS if key in config}, SETTINGS, what)
    made["head"] = made["head"] or FCN  # as a task has it where none is named
    backbone = made["backbone"]
    if backbone is None:
        raise InputError(f"{what} cannot be built: it has no backbone")

    def build() -> Segmentor:
        levels: Backbone = backbone()
        heads: Any = {part: make and make(levels.channels, num_classes) for part, make in made.items() if part in HEAD}
        return Segmentor(levels, **heads, **settings)

    return specs.make(build, what)
