"""ContextZoo in Python: any timm backbone with any context head, and the zoo's weights.

Examples:
    >>> import contextzoo as cz
    >>> model = cz.create_model("ccnet", "resnet10t", num_classes=3, channels=32)
    >>> "ccnet" in cz.list_heads()
    True

Nothing heavy is imported before it is used.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from lightning_app import __version__

if TYPE_CHECKING:
    import torch
    from torch import nn

    from lightning_app.data.pictures import Picture
    from lightning_app.export.export import Exported
    from lightning_app.tasks.explain import By, Explanation
    from lightning_app.tasks.semantic.network import Segmentor
    from lightning_app.tasks.semantic.segmentation import Segmentation
    from zoo import ZooEntry

__all__ = [
    "__version__",
    "create_model",
    "explain",
    "export",
    "list_heads",
    "list_weights",
    "load",
    "register_head",
    "segment",
]


Class = TypeVar("Class", bound=type)


def load(
    weights: str | Path, *, device: str | torch.device = "cpu", num_classes: int | Sequence[str] | None = None
) -> Any:
    """The network of the weights' task, in evaluation mode; ``model.info`` holds what they know, such as classes.

    Args:
        weights: an id of the zoo, which is fetched once and verified; a ``.safetensors`` or ``.ckpt`` file, or its
            folder; the name of a run; ``"hf://user/name[@revision]"``, a repository of the Hugging Face hub; or
            ``"wandb://entity/project/artifact:best"``.
        device: where to put it.
        num_classes: of the new network, or their names, where they are others than the weights': all layers but the
            classifier are kept, and a line on the error stream says so.

    Raises:
        ValueError: no such weights, or a file that does not say how to build its network.

    Examples:
        >>> import contextzoo as cz
        >>> model = cz.load("ccnet_tf_efficientnet_lite0_camvid-240x320_180")  # doctest: +SKIP
    """
    from lightning_app.weights.load import load

    return load(weights, device=device, num_classes=num_classes)


def create_model(
    head: str,
    backbone: str,
    *,
    num_classes: int | Sequence[str],
    output_stride: int | None = None,
    pretrained: bool | str | Path = False,
    **options: Any,
) -> Segmentor:
    """A new network: photographs (B, 3, H, W) in 0..1 in, logits (B, num_classes, H, W) out.

    Args:
        head: its slug or the name of its class, such as ``"ccnet"`` or ``"CCNet"`` (``list_heads``).
        backbone: a model of timm's, such as ``"resnet50"``.
        num_classes: how many, or their names, which ``model.info`` then holds.
        output_stride: image pixels per pixel of the last level; None = as timm has it.
        pretrained: start the backbone from timm's weights, which are fetched where no installed package (extra lite)
            has them, or from a file of your own: .safetensors or .pth, in timm's names.
        options: the head's own, such as ``channels`` or ``recurrence``.

    Raises:
        ValueError: an unknown head, backbone, stride or option, or weights that cannot be used.

    Examples:
        >>> import contextzoo as cz
        >>> model = cz.create_model("ccnet", "resnet10t", num_classes=3, channels=32, recurrence=1)
    """
    from lightning_app.backbones.timm import TimmBackbone
    from lightning_app.heads.base import ContextHead
    from lightning_app.registry import HEADS
    from lightning_app.tasks.semantic.network import ModelInfo, Segmentor
    from lightning_app.util.errors import InputError

    entry, names = HEADS[head], [*map(str, range(num_classes) if isinstance(num_classes, int) else num_classes)]
    start = str(pretrained) if isinstance(pretrained, Path) else pretrained
    body = TimmBackbone(backbone, output_stride=output_stride, pretrained=start)
    try:
        built = entry.cls(body.channels, len(names), **options)
    except TypeError as error:
        raise InputError(f"The head {entry.slug} cannot be built: {error}") from error
    assert isinstance(built, ContextHead)
    model = Segmentor(body, built)
    model.info = ModelInfo.of_classes(f"{entry.slug}_{backbone}", names)
    return model


def export(model: str | Path | nn.Module, path: str | Path, *, to: str = "onnx", **options: Any) -> Exported:
    """Write a network to a file that runs without this program, once it gives there what it gives here.

    Photographs of any number, height and width in 0..1 go in: normalisation is inside. ``contextzoo export --help`` and
    docs/export.md tell the rest.

    Args:
        model: a network of ``load`` or ``create_model``, or weights as ``load`` takes them.
        path: the file, which must not be there.
        to: onnx, pt2 (torch.export) or aoti (AOTInductor, compiled for this processor).
        options: ``output`` (logits or classes), ``size`` (H, W) where that is to be fixed, ``half``, and ``int8``, a
            folder of photographs.

    Raises:
        ValueError: a destination, format or network that cannot be used.
        RuntimeError: the file gives something else than the network (``Mismatch``); it is not kept.

    Examples:
        >>> import contextzoo as cz
        >>> cz.export("fcn_efficientnet-lite0_camvid-240x320_1260", "fcn.onnx", output="classes")  # doctest: +SKIP
    """
    from lightning_app.export.export import export

    return export(load(model) if isinstance(model, str | Path) else model, path, to=to, **options)


def list_heads() -> list[str]:
    """The slugs of all heads, those registered outside the package included.

    Examples:
        >>> import contextzoo as cz
        >>> len(cz.list_heads()) >= 33
        True
    """
    from lightning_app.registry import HEADS

    return list(HEADS)


def list_weights(
    *,
    task: str | None = None,
    head: str | None = None,
    dataset: str | None = None,
    backbone: str | None = None,
    min_miou: float | None = None,
) -> list[ZooEntry]:
    """Entries of the zoo that meet every condition given; ``entry.id`` is what ``load`` takes.

    Raises:
        ValueError: an unknown name.

    Examples:
        >>> import contextzoo as cz
        >>> cz.list_weights(head="ccnet", dataset="ADE20K", min_miou=43.9)[0].id
        'ccnet_r101-d8_ade20k-512x512_80k'
    """
    from zoo import list_entries

    return list_entries(task=task, head=head, dataset=dataset, backbone=backbone, min_miou=min_miou)


def register_head(slug: str, *, paper: str = "", year: int = 0) -> Callable[[Class], Class]:
    """Class decorator that makes a head of your own known to the command line and to ``create_model``.

    Args:
        slug: its name: lower case, digits and underscores.
        paper: such as ``"arXiv:1811.11721"``.
        year: of the paper.

    Raises:
        ValueError: the slug is taken by another class, or the class is no head.

    Examples:
        >>> import contextzoo as cz
        >>> from lightning_app.heads.fcn import FCN
        >>> @cz.register_head("doc_example")
        ... class Mine(FCN):
        ...     '''An FCN by another name.'''
        >>> "doc_example" in cz.list_heads()
        True
    """
    from lightning_app.heads.base import ContextHead
    from lightning_app.registry import HEADS
    from lightning_app.util.errors import InputError

    def register(cls: Class) -> Class:
        if not issubclass(cls, ContextHead):
            raise InputError(f"{cls.__qualname__} is no head: derive it from BlockHead or ContextHead (heads/base.py)")
        again = known is not None and (known.__module__, known.__qualname__) == (cls.__module__, cls.__qualname__)
        if known is not None and not again:
            raise taken
        return HEADS.register(slug, paper=paper, year=year, again=again)(cls)

    if not re.fullmatch("[a-z][a-z0-9_]*", slug) or slug == "all":
        raise InputError(f'A head cannot be called "{slug}": use lower case, digits and _, such as my_head')
    known = HEADS[slug].cls if slug in HEADS else None
    taken = InputError(f'There is a head "{slug}" already ({known and known.__qualname__}): choose another name')
    if known is not None and known.__module__.startswith("lightning_app."):
        raise taken
    return register


def segment(
    picture: Picture, *, weights: str | Path, device: str | torch.device = "cpu", **options: Any
) -> Segmentation:
    """The class of each pixel of a picture, exactly as ``contextzoo segment`` gives it.

    The result has ``mask`` (H, W), ``classes``, ``shares``, ``overlay()`` and ``save(path)``.

    Args:
        picture: a file, a Pillow image, an array (H, W, 3) of bytes, or a tensor (3, H, W) of floats in 0..1.
        weights: as for ``load``; for many pictures load once and call ``model.predict``.
        options: ``window``, ``overlap``, ``tta``, ``precision`` and ``batch``, as ``contextzoo segment --help`` tells.

    Raises:
        ValueError: a picture, weights or an option that cannot be used.

    Examples:
        >>> import contextzoo as cz
        >>> result = cz.segment("photo.jpg", weights="ccnet_tf_efficientnet_lite0_camvid-240x320_180")  # doctest: +SKIP
    """
    result: Segmentation = load(weights, device=device).predict(picture, **options)
    return result


def explain(
    picture: Picture,
    *,
    weights: str | Path,
    at: tuple[int, int],
    by: By = "auto",
    device: str | torch.device = "cpu",
) -> Explanation:
    """Where the answer at one pixel comes from: the attention of the network's blocks, or the gradient's reach.

    The result has ``answer``, ``views`` (each with ``name``, ``weights`` (h, w) and ``within(share)``), ``picture()``
    and ``save(path)``.

    Args:
        picture: as for ``segment``.
        weights: as for ``load``, of any task.
        at: x and y of the pixel, counted from 0 in the upper left corner.
        by: "attention", "gradient", or "auto": attention where a block says where it looks.

    Raises:
        ValueError: a picture or weights that cannot be used, or a point outside of the picture.

    Examples:
        >>> import contextzoo as cz
        >>> ID = "ccnet_tf_efficientnet_lite0_camvid-240x320_180"
        >>> cz.explain("photo.jpg", weights=ID, at=(120, 80)).save("why.jpg")  # doctest: +SKIP
    """
    from lightning_app.tasks.explain import explain

    return explain(load(weights, device=device), picture, at, by)
