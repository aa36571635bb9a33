"""Weights by name -> a network that knows what its numbers mean."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

import zoo
from lightning_app.reading import specs
from lightning_app.runs import RUNS
from lightning_app.runs import folders as runs
from lightning_app.util.errors import InputError, closest
from lightning_app.util.files import check_file
from lightning_app.weights import hub, wandb_artifacts
from lightning_app.weights.checkpoint import read_checkpoint
from lightning_app.weights.description import Data, Description
from lightning_app.weights.facts import facts_of
from lightning_app.weights.openmmlab.convert import load_strictly
from lightning_app.weights.published import is_known, read_published
from lightning_app.weights.transfer import transfer
from zoo import ZooEntry, ZooError, download
from zoo.datasets import datasets

SUFFIXES: Final = (".ckpt", ".safetensors", ".pth", ".pt")
ADDRESSES: Final = {each.SCHEME: each.fetch for each in (hub, wandb_artifacts)}
MOST: Final = 10_000  # things that a network may be asked to tell apart


def load(
    weights: str | Path,
    *,
    device: str | torch.device = "cpu",
    task: str | None = None,
    num_classes: int | Sequence[str] | None = None,
) -> Any:
    """The network of the weights' task in evaluation mode, with what it knows as ``info``.

    Args:
        weights: an id of the zoo (fetched and verified); a checkpoint of ``contextzoo fit`` (EMA weights where the run
            kept them), the name or folder of its run, best or last of the newest run; a file that ``contextzoo zoo
            publish`` wrote, or its folder; or a file that others published, which is recognised by its name.

        task: which they must be of; None takes any.

    Raises:
        InputError: no such id or file, one of another task, or a file that does not say how to build its model.
    """
    path, entry = _find(weights)
    network = _load_file(path, entry)
    if task not in (None, network.info.task):
        raise InputError(f"{weights} is of the task {network.info.task}, and weights of {task} are wanted here")
    if num_classes is not None:
        network = _with_others(network, num_classes, str(weights))
    return network.to(device).eval()


def _with_others(source: Any, wanted: int | Sequence[str], weights: str) -> Any:
    """The network for other classes, or what else its task tells apart, with all that fits of its weights."""
    names = [str(number) for number in range(min(wanted, MOST))] if isinstance(wanted, int) else list(wanted)
    told = source.info.told
    if not names or (isinstance(wanted, int) and wanted != len(names)) or isinstance(wanted, str):
        raise InputError(f"num_classes is {specs.shown(wanted)}: give a number of {told} from 1 on, or their names")
    before = Description.of_network(source)
    began = weights if "://" in weights else before.name
    facts = before.facts.of_others(names)
    new = replace(before, facts=facts, data=Data(), training=None, metrics=None, provenance={"begun from": began})
    network = facts.network(new.model, new.name)
    network.info = new.info
    print(f"{before.name}: {transfer(source, network, network.info.outputs, force=True)}", file=sys.stderr)
    return network


def find(weights: str | Path) -> Path:
    """The file of the weights, fetched and verified where they are an id.

    Raises:
        InputError: no such id or file.
    """
    return _find(weights)[0]


def _find(weights: str | Path) -> tuple[Path, ZooEntry | None]:
    for scheme, fetch in ADDRESSES.items():
        if str(weights).startswith(scheme):
            return fetch(str(weights)), None
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


def _load_file(path: Path, entry: ZooEntry | None) -> Any:
    if path.suffix == ".ckpt":
        return build(*read_checkpoint(path))
    entry = entry or _entry_of(path)
    if entry and entry.format != "safetensors":
        return _published(path, entry)
    if path.suffix == ".safetensors":
        network = build(*read_published(path))
        return _named(network, entry) if entry else network
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


def _published(path: Path, entry: ZooEntry) -> Any:
    """The network in a file that others published."""
    network, parts, facts = facts_of(entry.task).published(path, entry)
    dataset = datasets()[entry.dataset]
    data = Data(dataset.data, dataset.arguments)
    network.info = Description(name=entry.id, task=entry.task, model=parts, facts=facts, data=data).info
    return _named(network, entry)


def _named(network: Any, entry: ZooEntry) -> Any:
    """The network under its id, with the index's figures."""
    source = f"{entry.metrics_source}, {entry.split}"
    licences = {"code": entry.code_licence, "weights": entry.weights_licence, "training data": entry.data_licence}
    network.info = replace(
        network.info, name=entry.id, metrics=entry.metrics, source=source, split=entry.split, licences=licences
    )
    return network


def build(description: Description, tensors: Mapping[str, Tensor]) -> Any:
    """The described network with its weights.

    Raises:
        InputError: the description is of no network, or the tensors are not its own.
    """
    name = description.name
    with specs.at_most([tensor.numel() for tensor in tensors.values()], f"{name}: its model"):
        network = description.facts.network(description.model, name)
    load_strictly(network, tensors, what=f"{name}, the model that is described beside them")
    network.info = description.info
    return network
