"""Modules of before the rooms: an import of ``lightning_app.backbone`` still finds what it names.

Checkpoints, headers of weights and configurations hold such names, and so do programs.
"""

import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Final

_PACKAGE: Final = "lightning_app"
MOVED: Final = {  # module -> where it is now
    f"{_PACKAGE}.{old}": f"{_PACKAGE}.{new}"
    for old, new in {
        "backbone": "backbones.timm",
        "cli": "app.cli",
        "convert": "weights.openmmlab",
        "convert.openmmlab": "weights.openmmlab.convert",
        "convert.unpickle": "reading.unpickle",
        "data.ade20k": "data.semantic.ade20k",
        "data.camvid": "data.semantic.camvid",
        "data.cityscapes": "data.semantic.cityscapes",
        "data.coco_stuff": "data.semantic.coco_stuff",
        "data.context_probe": "data.semantic.context_probe",
        "data.files": "data.semantic.pairs",
        "data.folder": "data.semantic.folder",
        "data.pascal_context": "data.semantic.pascal_context",
        "data.pascal_voc": "data.semantic.pascal_voc",
        "errors": "util.errors",
        "inference": "tasks.semantic.inference",
        "losses": "tasks.semantic.losses",
        "metrics": "tasks.semantic.metrics",
        "overlay": "tasks.semantic.draw",
        "patchify": "backbones.patchify",
        "pretrained": "weights.load",
        "segmentor": "tasks.semantic.network",
        "task": "tasks.semantic.task",
        "timm_changes": "backbones.changes",
        "timm_context": "backbones.context",
        "training": "app.training",
    }.items()
}
_SEMANTIC: Final = ("Sample", "SegmentationDataModule", "SegmentationDataset", "SemanticBatch", "collate")
PARTED: Final = {  # names that left a module which is still there -> the one that has them now
    f"{_PACKAGE}.data.base": dict.fromkeys(_SEMANTIC, f"{_PACKAGE}.data.semantic.base"),
}
RENAMED: Final = {"Protocol": "EvaluationProtocol"}  # classes of those modules


def old_names(module: str) -> list[str]:
    """The names that a module had before."""
    return [old for old, new in MOVED.items() if new == module]


def moved_names(module: str) -> Callable[[str], Any]:
    """What a module that lost some of its names has as its ``__getattr__``: they still import from there."""

    def find(name: str) -> Any:
        if name not in PARTED[module]:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        now = PARTED[module][name]
        warnings.warn(f"{module}.{name} is now in {now}", DeprecationWarning, stacklevel=2)
        return getattr(import_module(now), name)

    return find


class _Finder(MetaPathFinder, Loader):
    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        return ModuleSpec(name, self, is_package=name == f"{_PACKAGE}.convert") if name in MOVED else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        now = import_module(MOVED[spec.name])
        warnings.warn(f"{spec.name} is now {now.__name__}", DeprecationWarning, stacklevel=2)

        class Moved(ModuleType):
            def __getattr__(self, name: str) -> Any:
                return getattr(now, RENAMED.get(name, name))

        return Moved(spec.name, now.__doc__)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing is left to run."""


sys.meta_path.append(_Finder())
