"""Batch norms right behind a convolution, put into its weights: s (W x + b - m) + t = (s W) x + (s (b - m) + t)."""

from collections import Counter
from collections.abc import Callable

import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

CLOSE = 1e-3  # of the largest output: folding may move it by float32's rounding, through a hundred layers


@torch.no_grad()
def fold_batch_norms(module: nn.Module, run: Callable[[], Tensor]) -> int:
    """Fold what can be folded in a module that only predicts; returns how many batch norms went.

    ``run`` lets it predict once: a batch norm is folded where its input was what one convolution had just put out. The
    prediction is compared with the one before, and where something else read such an output nothing is changed.
    """
    pairs, before = _pairs(module, run)
    unfolded = [(convolution.weight, convolution.bias) for convolution, _ in pairs]
    for convolution, norm in pairs:
        _scale(convolution, norm)
    names = {child: name for name, child in module.named_modules()}
    for _, norm in pairs:
        _replace(module, names[norm], _what_is_left(norm))
    after = run()
    if (after - before).abs().max() <= CLOSE * before.abs().max():
        return len(pairs)
    for (convolution, norm), (weight, bias) in zip(pairs, unfolded, strict=True):
        _replace(module, names[norm], norm)
        convolution.weight, convolution.bias = weight, bias
    return 0


def _pairs(module: nn.Module, run: Callable[[], Tensor]) -> tuple[list[tuple[nn.Conv2d, nn.BatchNorm2d]], Tensor]:
    """Convolutions and the batch norms right behind them, and the prediction."""
    made: dict[int, tuple[nn.Conv2d, Tensor]] = {}  # the tensor too, or its number would be another's
    calls: Counter[nn.Module] = Counter()
    found: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []

    def convolved(convolution: nn.Module, inputs: object, output: Tensor) -> None:
        assert isinstance(convolution, nn.Conv2d)
        calls[convolution] += 1
        made[id(output)] = convolution, output

    def normalised(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, nn.BatchNorm2d)
        calls[norm] += 1
        if id(inputs[0]) in made:
            found.append((made[id(inputs[0])][0], norm))

    hooks = [m.register_forward_hook(convolved) for m in module.modules() if isinstance(m, nn.Conv2d)]
    hooks += [m.register_forward_pre_hook(normalised) for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    try:
        prediction = run()
    finally:
        for hook in hooks:
            hook.remove()
    of_convolution = Counter(convolution for convolution, _ in found)
    once = [
        (convolution, norm)
        for convolution, norm in found
        if calls[convolution] == calls[norm] == of_convolution[convolution] == 1 and norm.running_mean is not None
    ]
    return once, prediction


def _scale(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """In double precision, rounded once."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    shift = norm.running_mean.double()
    shift = -shift if convolution.bias is None else convolution.bias.double() - shift
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    shift = shift * scale
    if norm.bias is not None:
        shift = shift + norm.bias.double()
    weight = convolution.weight
    for name, folded in (("weight", weight.double() * scale.view(-1, 1, 1, 1)), ("bias", shift)):
        setattr(convolution, name, nn.Parameter(folded.to(weight.dtype), requires_grad=weight.requires_grad))


def _what_is_left(norm: nn.BatchNorm2d) -> nn.Module:
    """Of timm's batch norms their activation."""
    return norm.act if isinstance(norm, BatchNormAct2d) else nn.Identity()


def _replace(module: nn.Module, name: str, child: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(module.get_submodule(parent), last, child)
