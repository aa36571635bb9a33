"""Parts of a backbone that training leaves as they are."""

from collections.abc import Iterable

from torch import nn

from lightning_app.util.errors import InputError, suggest

ALL = "backbone"


def freeze_parts(backbone: nn.Module, parts: Iterable[str]) -> list[nn.Module]:
    """Put the named parts in evaluation mode and let them have no gradients; returns them, to be kept so.

    Args:
        parts: "backbone" for all of it, or names of modules in it, such as conv_stem, bn1 and blocks.0, or layer1.

    Raises:
        InputError: it has no part of that name.
    """
    network: nn.Module = getattr(backbone, "model", backbone)  # timm's is inside ours
    modules = {name: module for name, module in network.named_modules() if name}
    frozen = [backbone if name == ALL else _find(name, modules) for name in parts]
    for part in frozen:
        part.requires_grad_(False).eval()
    return frozen


def _find(name: str, modules: dict[str, nn.Module]) -> nn.Module:
    if name in modules:
        return modules[name]
    stages = [each for each in modules if "." not in each or (f"{each}.0" in modules and each.count(".") == 1)]
    raise InputError(f'model.freeze: no part "{name}".{suggest(name, [ALL, *modules])} ({", ".join([ALL, *stages])})')
