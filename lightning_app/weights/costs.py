"""What a network costs: its parameters, and the arithmetic of one look at an image."""

import copy
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from lightning_app import kernels
from lightning_app.weights.facts import Facts


@torch.no_grad()
def costs_of(network: nn.Module, facts: type[Facts[Any]], details: Mapping[str, Any]) -> dict[str, int | float]:
    """The ``parameters`` and ``gflop`` of a zoo entry; the latter where the task tells what one look is.

    Parameters are those that predict, without auxiliary heads. GFLOP are those of convolutions and matrix products in
    the papers' plain form, 2 per multiply-add. Nothing is computed: shapes alone are followed.

    Args:
        facts: the task's.
        details: the fields of the entry that only the task has.
    """
    count = sum(each.numel() for name, each in network.named_parameters() if not name.startswith("auxiliary."))
    shapes = nullcontext() if next(network.parameters()).is_meta else FakeTensorMode(allow_non_fake_inputs=True)
    network = copy.deepcopy(network).eval().requires_grad_(False)  # the counter hooks into what asks for gradients
    with kernels.fast(False), shapes, FlopCounterMode(display=False) as counter:
        facts.look(network, details)
    found: dict[str, int | float] = {"parameters": count}
    if gflop := counter.get_total_flops() / 1e9:
        found["gflop"] = round(gflop, 3 if gflop < 10 else 1)
    return found
