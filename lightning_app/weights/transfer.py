"""A model that starts from another's weights: every tensor that fits by name and shape."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from lightning_app.backbones.timm import TimmBackbone
from lightning_app.reading import specs
from lightning_app.tasks.semantic.network import Segmentor
from lightning_app.util.errors import InputError


def transfer(
    source: Segmentor, target: nn.Module, num_classes: int, *, part: str | None = None, force: bool = False
) -> str:
    """Give ``target``, of ``num_classes`` classes, every tensor of ``source`` that fits by name and shape.

    Args:
        part: take those of this part alone, such as the backbone.
        force: even where under half of the target's tensors fit.

    Returns one line for a person: what was loaded and what was not.

    Raises:
        InputError: under half of the target's tensors are there, or those of a head of the same class have another
            width, and ``force`` is off.
    """
    assert source.info is not None
    given, wanted = (
        {name: tensor for name, tensor in model.state_dict().items() if part in (None, name.partition(".")[0])}
        for model in (source, target)
    )
    fitting = {name: tensor for name, tensor in given.items() if name in wanted and wanted[name].shape == tensor.shape}
    counted, present = (
        [name for name in names if not name.endswith("num_batches_tracked")] for names in (wanted, given)
    )
    new = [name for name in counted if name not in fitting]
    unused = [name for name in present if name not in wanted]
    share = f"{len(counted) - len(new)}/{len(counted)} tensors"
    other = [
        name for name in new if name in given and not _is_of_classes(given[name], wanted[name], source, num_classes)
    ]
    same_head = type(source.head) is type(getattr(target, "head", None))
    other = [name for name in other if name.startswith("head.") and same_head]
    if (2 * len(new) > len(counted) or other) and not force:
        raise InputError(
            f"Only {share} of the {part or 'model'} are in {source.info.name}, which is {describe(source)}: leave "
            f"--model.backbone and --model.head out, or give {_options(source.info.parts)}, "
            "or --model.weights_force true"
        )
    target.load_state_dict(fitting, strict=False)
    line = f"Loaded {share}{f' of the {part}' if part else ''}."
    if new:
        before = len(source.info.classes)
        line += f" New: {_summary(new)}" + (f" ({before} -> {num_classes} classes)." if before != num_classes else ".")
    return line + (f" Not used: {_summary(unused)}." if unused else "")


def _is_of_classes(given: Tensor, wanted: Tensor, source: Segmentor, num_classes: int) -> bool:
    """Whether two tensors differ in the number of classes alone."""
    assert source.info is not None
    return (given.shape[0], wanted.shape[0]) == (len(source.info.classes), num_classes) and (
        given.shape[1:] == wanted.shape[1:]
    )


def _options(parts: Mapping[str, Any]) -> str:
    """Backbone and head as they are typed."""
    typed = []
    for part in ("backbone", "head"):
        spec = parts.get(part) or {}
        if "class_path" in spec and (part == "head" or not spec["class_path"].endswith(f".{TimmBackbone.__name__}")):
            typed.append(f"--model.{part} {spec['class_path'].rpartition('.')[2]}")
        for key, value in specs.given(spec).items():
            if value not in (None, {}, False) and key != "pretrained":
                typed.append(f"--model.{part}.{key} {json.dumps(value, separators=(',', ':'))}".replace('"', ""))
    return " ".join(typed)


def describe(model: Segmentor) -> str:
    """Head and backbone in a few words."""
    backbone = getattr(model.backbone, "name", type(model.backbone).__name__)
    return f"{type(model.head).__name__} on {backbone}"


def _summary(names: Sequence[str]) -> str:
    """Names with what they share said once; of many, how many in each part of the model."""
    layers: dict[str, list[str]] = {}
    for name in names:
        layer, _, parameter = name.rpartition(".")
        layers.setdefault(layer, []).append(parameter)
    if len(layers) > 4:
        parts = Counter(name.partition(".")[0] for name in names)
        return ", ".join(f"{count} of {part}" for part, count in parts.items())
    return ", ".join(
        f"{layer}.{{{','.join(parameters)}}}" if len(parameters) > 1 else f"{layer}.{parameters[0]}"
        for layer, parameters in layers.items()
    )
