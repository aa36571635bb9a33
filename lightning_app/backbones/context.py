"""Context blocks inside timm's convolutional networks."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from timm.models.hrnet import HighResolutionNet
from timm.models.resnet import BasicBlock
from torch import Tensor, nn

from lightning_app.backbones.changes import ExchangeUnit, residual_blocks
from lightning_app.blocks._named import named_block
from lightning_app.util.errors import InputError, suggest

PLACES = ("stage", "last", "every", "inside", "shortcut", "before_last")


class PerBranch(nn.ModuleList):
    """One block for each of HRNet's branches."""

    def forward(self, branches: Sequence[Tensor]) -> list[Tensor]:
        return [block(x) for block, x in zip(self, branches, strict=True)]


def insert_context(model: nn.Module, name: str, context: Mapping[str, Mapping[str, Any]]) -> None:
    """Put context blocks into stages; the names of the network's own weights stay.

    Args:
        context: stage -> {"block": slug, "where": place, and the block's own arguments}. Places: "stage" = behind the
            stage, where nothing is said (in HRNet behind each branch), "last" or "every" = behind its last or every
            residual block (in HRNet of each branch), "inside" = behind the first 3x3 convolution of every residual
            block, its norm and its activation, "shortcut" = in every residual block, before its shortcut is added,
            "before_last" = once, in front of its last residual block (in HRNet of each branch).

    Raises:
        InputError: unknown stage, place, block or argument, or a place that the network does not have.
    """
    stages = _stages(model)
    for stage, options in context.items():
        if stage not in stages:
            raise InputError(f'context: {name} has no stage "{stage}".{suggest(stage, stages)} It has: {_list(stages)}')
        options = dict(options)
        slug, where = options.pop("block", None), options.pop("where", PLACES[0])
        if slug is None:
            raise InputError(f"context.{stage} needs a block, such as {{block: gcnet}} (contextzoo blocks)")
        if where not in PLACES:
            raise InputError(f'context.{stage}: where is "{where}".{suggest(where, PLACES)} Places: {_list(PLACES)}')

        module, widths = stages[stage]
        blocks = residual_blocks(module)
        if where == "stage":
            _append(module, [named_block(slug, width, options) for width in widths], f"{stage} of {name}")
            continue
        if not blocks:
            raise InputError(f'context.{stage}: {name} has no residual blocks of ResNet\'s kind; set where to "stage"')
        if where in ("last", "before_last"):
            exchanges = [unit for unit in module.modules() if isinstance(unit, ExchangeUnit)]
            sequences = list(exchanges[-1].branches) if exchanges else [blocks]
            place = -1 if where == "last" else -2
            if any(len(sequence) < -place for sequence in sequences):
                raise InputError(
                    f'context.{stage}: {name} has one residual block there; set where to "last" or "every"'
                )
            blocks = [sequence[place] for sequence in sequences]
        for block in blocks:
            slot, convolution = _slot(block, where)
            addition = named_block(slug, convolution.out_channels, options)
            before = getattr(block, slot)
            if before is not None and where == "shortcut":
                raise InputError(f'context.{stage}: {name} has a block of its own there; set where to "every"')
            setattr(block, slot, nn.Sequential(before, addition) if before is not None else addition)


def _stages(model: Any) -> dict[str, tuple[nn.Module, list[int]]]:
    """Name -> module and the width of each map that it gives."""
    if isinstance(model, HighResolutionNet):
        stages: dict[str, tuple[nn.Module, list[int]]] = {}
        for name in ("layer1", "stage2", "stage3", "stage4"):
            stage = model.get_submodule(name)
            *_, end = stage
            levels = (
                [branch[-1] for branch in end.branches][: len(end.fuse_layers)]
                if isinstance(end, ExchangeUnit)
                else [end]
            )
            stages[name] = stage, [_slot(each, "every")[1].out_channels for each in levels]
        return stages
    modules = dict(model.named_modules())
    levels = model.feature_info.out_indices
    info = [  # stages that are no level of the backbone too, but no stem
        (each["module"], each["num_chs"])
        for index, each in enumerate(model.feature_info.info)
        if index in levels or each["reduction"] >= 4
    ]
    flat = [(name if name in modules else name.replace(".", "_"), width) for name, width in info]
    return {name: (modules[name], [width]) for name, width in flat if name in modules}


def _slot(block: nn.Module, where: str) -> tuple[str, nn.Conv2d]:
    """The place in a residual block, by the name of what stands there, and the convolution in front of it."""
    first, last = ("1", "2") if isinstance(block, BasicBlock) else ("2", "3")
    slot, number = {"inside": ("aa", first), "shortcut": ("se", last)}.get(where, (f"act{last}", last))
    convolution = block.get_submodule(f"conv{number}")
    assert isinstance(convolution, nn.Conv2d)
    return slot, convolution


def _append(stage: nn.Module, blocks: list[nn.Module], what: str) -> None:
    sequence = getattr(stage, "blocks", stage)
    if not isinstance(sequence, nn.Sequential):
        raise InputError(f"context: no block can stand behind {what}, which is a {type(stage).__name__}")
    in_hrnet = any(isinstance(unit, ExchangeUnit) for unit in stage.children())
    sequence.add_module("context", PerBranch(blocks) if in_hrnet else blocks[0])


def _list(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
