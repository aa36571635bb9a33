"""Optimiser, groups of parameters and schedule of every task, by its hyper-parameters; what a resumed run keeps."""

from collections.abc import Mapping
from typing import Any, Final

from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from lightning_app.util.errors import InputError

KEPT: Final = ("optimizer", "decay_norms", "schedule", "freeze")  # what a resumed run cannot change


def optimizer(network: nn.Module, backbone: nn.Module, h: Mapping[str, Any]) -> Optimizer:
    """The optimiser of what learns, in groups called backbone and head, with _no_decay where weights do not decay."""
    of_backbone = {id(parameter) for parameter in backbone.parameters()}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in network.parameters():
        if parameter.requires_grad:
            decays = h["decay_norms"] or parameter.dim() > 1
            groups.setdefault((id(parameter) in of_backbone, decays), []).append(parameter)
    options = [
        {
            "params": parameters,
            "lr": h["lr"] * (h["backbone_lr"] if in_backbone else 1),
            "weight_decay": h["weight_decay"] if decays else 0.0,
            "name": ("backbone" if in_backbone else "head") + ("" if decays else "_no_decay"),
        }
        for (in_backbone, decays), parameters in groups.items()
    ]
    return AdamW(options) if h["optimizer"] == "adamw" else SGD(options, momentum=0.9)


def schedule(optimizer: Optimizer, steps: int, h: Mapping[str, Any]) -> LRScheduler:
    """The learning rates of a run of ``steps``."""
    if h["schedule"] == "onecycle":
        warmup = 0.3 if h["warmup_steps"] is None else h["warmup_steps"] / steps
        peaks = [group["lr"] for group in optimizer.param_groups]
        return OneCycleLR(optimizer, peaks, total_steps=steps, pct_start=min(warmup, 1.0))
    warmup = h["warmup_steps"] or 0

    def factor(step: int) -> float:
        if step < warmup:
            return float((step + 1) / (warmup + 1))
        if h["schedule"] == "constant":
            return 1.0
        if h["schedule"] == "steps":
            return float(0.1 ** sum(step >= share * steps for share in h["milestones"]))
        left = max(0.0, 1 - (step - warmup) / max(1, steps - warmup))
        return float(h["min_lr"] + (1 - h["min_lr"]) * left ** h["poly_power"])

    return LambdaLR(optimizer, factor)


def check_kept(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise an InputError where a resumed run would have another optimiser, or other groups of parameters."""
    for fixed in KEPT:
        if before.get(fixed) != now[fixed]:
            raise InputError(
                f"model.{fixed} {before.get(fixed)} -> {now[fixed]}: a resumed run keeps it; "
                "start a new one from the weights with --model.weights"
            )


def let_now_win(checkpoint: dict[str, Any], optimizer: Optimizer) -> None:
    """Learning rates, weight decay and length of now in place of those in a checkpoint's optimiser and schedule.

    Args:
        optimizer: a new one, of the hyper-parameters of now.
    """
    before = checkpoint["hyper_parameters"]
    now = {group["name"]: group for group in optimizer.param_groups}
    (saved,) = checkpoint["optimizer_states"]
    (schedule,) = checkpoint["lr_schedulers"]
    for length in ("total_steps", "_schedule_phases"):  # of onecycle; without them it keeps those of now
        schedule.pop(length, None)
    for index, group in enumerate(saved["param_groups"]):
        peak_before = before["lr"] * (before["backbone_lr"] if group["name"].startswith("backbone") else 1)
        change = now[group["name"]]["lr"] / peak_before if peak_before else 1.0
        group["weight_decay"] = now[group["name"]]["weight_decay"]
        for rate in ("lr", "initial_lr", "max_lr", "min_lr"):
            if rate in group:
                group[rate] *= change
        for rates in ("base_lrs", "_last_lr"):
            schedule[rates][index] *= change
