"""Weights by name -> a segmentor that knows its classes and protocol."""

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

import zoo
from lightning_app.data.facts import palette_from_hex
from lightning_app.reading import specs
from lightning_app.runs import RUNS
from lightning_app.runs import folders as runs
from lightning_app.tasks.semantic.network import Segmentor
from lightning_app.util.errors import InputError, closest
from lightning_app.util.files import check_file
from lightning_app.weights.checkpoint import read_checkpoint
from lightning_app.weights.description import Data, Description
from lightning_app.weights.openmmlab import convert as openmmlab
from lightning_app.weights.openmmlab.published import evaluation_size, upstream_config
from lightning_app.weights.parts import new_segmentor
from lightning_app.weights.published import is_known, read_published
from zoo import ZooEntry, ZooError, download
from zoo.datasets import datasets

SUFFIXES: Final = (".ckpt", ".safetensors", ".pth", ".pt")


def load(weights: str | Path, *, device: str | torch.device = "cpu") -> Segmentor:
    """A segmentor in evaluation mode, with its ``ModelInfo`` as ``info``.

    Args:
        weights: an id of the zoo (fetched and verified); a checkpoint of ``contextzoo fit`` (EMA weights where the run
            kept them), the name or folder of its run, best or last of the newest run; a file that ``contextzoo zoo
            publish`` wrote, or its folder; or a published OpenMMLab file, which is recognised by its name.

    Raises:
        InputError: no such id or file, or a file that does not say how to build its model.
    """
    path, entry = _find(weights)
    return _load_file(path, entry).to(device).eval()


def find(weights: str | Path) -> Path:
    """The file of the weights, fetched and verified where they are an id.

    Raises:
        InputError: no such id or file.
    """
    return _find(weights)[0]


def _find(weights: str | Path) -> tuple[Path, ZooEntry | None]:
    path = Path(weights)
    if path.suffix in SUFFIXES:
        check_file(path)
        return path, None
    word = str(weights)
    if not is_known(word):
        if found := runs.weights_of(word):
            return found, None
        if close := closest(word, runs.names()):
            raise InputError(f'No weights "{word}" in the zoo or in {RUNS}/. Did you mean the run "{close[0]}"?')
    try:
        entry = zoo.get(word)
        return download.fetch(entry, say=lambda line: print(line, file=sys.stderr)), entry
    except ZooError as error:
        raise InputError(str(error)) from None


def _load_file(path: Path, entry: ZooEntry | None) -> Segmentor:
    if path.suffix == ".ckpt":
        return build(*read_checkpoint(path))
    entry = entry or _entry_of(path)
    if entry and entry.format == "openmmlab":
        return _from_openmmlab(path, entry)
    if path.suffix == ".safetensors":
        model = build(*read_published(path))
        return _named(model, entry) if entry else model
    raise InputError(
        f"{path}: no weights of the zoo have a file of that name, so their architecture is not known. Keep the name it "
        "was published under, such as ...-4123f401.pth, or call it ID.pth (contextzoo zoo list)"
    )


def _entry_of(path: Path) -> ZooEntry | None:
    """The entry whose published file, or whose file in the cache, is called like ``path``."""
    for entry in zoo.list_entries():
        if path.stem in (entry.id, entry.url.rpartition("/")[2].rpartition(".")[0]):
            return entry
    return None


def _from_openmmlab(path: Path, entry: ZooEntry) -> Segmentor:
    config = openmmlab.as_the_weights_have_it(upstream_config(entry), path)
    model = openmmlab.load_checkpoint(path, config)
    dataset = datasets()[entry.dataset]
    description = Description(
        name=entry.id,
        model=openmmlab.parts_of(config),
        classes=dataset.classes,
        palette=palette_from_hex(" ".join(dataset.palette)),
        protocol=replace(openmmlab.protocol_of(config), fit=evaluation_size(entry)),
        data=Data(dataset.data, dataset.arguments),
    )
    model.info = description.info
    return _named(model, entry)


def _named(model: Segmentor, entry: ZooEntry) -> Segmentor:
    """The model under its id, with the index's figure."""
    assert model.info is not None
    source = f"{entry.metrics_source}, {entry.split}"
    model.info = replace(model.info, name=entry.id, miou=entry.figure, miou_source=source, split=entry.split)
    return model


def build(description: Description, tensors: Mapping[str, Tensor]) -> Segmentor:
    """The described segmentor with its weights.

    Raises:
        InputError: the description is of no model, or the tensors are not its own.
    """
    name = description.name
    with specs.at_most([tensor.numel() for tensor in tensors.values()], f"{name}: its model"):
        model = new_segmentor(description.model, len(description.classes), name)
    openmmlab.load_strictly(model, tensors, what=f"{name}, the model that is described beside them")
    model.info = description.info
    return model
