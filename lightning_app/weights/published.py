"""Weights of one's own as ``contextzoo zoo publish`` writes them, and their entry in the zoo's index."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

import zoo
from lightning_app.reading import tensor_files
from lightning_app.registry import Entry as HeadEntry
from lightning_app.util.errors import InputError
from lightning_app.weights import shared
from lightning_app.weights.description import Description
from zoo import ZooError, index, writing
from zoo.cache import CHECKOUT
from zoo.datasets import Dataset, datasets
from zoo.entry import SHIPPED

HALVES: Final = (torch.float16, torch.bfloat16)
SHIPS: Final = CHECKOUT / SHIPPED  # where weights of one's own come with the repository


def read_published(path: Path) -> tuple[Description, dict[str, Tensor]]:
    """What a file that ``contextzoo zoo publish`` wrote says of its model, and the model's tensors in float32.

    Parts that it shares with other weights come out of files of their own.

    Raises:
        InputError: not such a file, or a damaged one, or a part that it shares is not there.
    """
    tensors, metadata = tensor_files.read(path)
    description = Description.from_header(metadata, path)
    tensors = shared.read(description.shared, path) | tensors
    return description, {name: each.float() if each.dtype in HALVES else each for name, each in tensors.items()}


def is_known(id: str) -> bool:
    """Whether the zoo has weights of that id."""
    return any(entry.id == id for entry in zoo.list_entries())


def dataset_of(description: Description) -> Dataset | None:
    """The dataset of the zoo that the described weights were trained on, by its datamodule and its labels."""
    for dataset in datasets().values():
        if (dataset.data, dataset.classes or dataset.keypoints) == (description.data.name, description.facts.labels):
            return dataset
    return None


def add_entry(id: str, task: str, head: HeadEntry, values: Mapping[str, Any], *, rehearse: bool = False) -> Path:
    """Write an entry of own weights into the zoo's index; returns the file that it stands in.

    Args:
        rehearse: only find out whether it could be written.

    Raises:
        InputError: it would be wrong, or the id is taken; nothing is written.
    """
    try:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) if rehearse else index.INDEX
            if rehearse and (there := index.file_of(task, head.slug)).is_file():
                (folder / task).mkdir()
                shutil.copy(there, folder / task)
            return writing.add(id, task, head.slug, head.name, head.paper, values, folder)
    except (OSError, ZooError) as error:
        raise InputError(f"No entry {id}: {error}") from None
