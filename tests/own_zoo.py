"""A zoo of a test's own, which it may publish to."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from zoo import datasets, index
from zoo.datasets import Dataset


@contextmanager
def own_zoo(folder: Path, patch: pytest.MonkeyPatch, dataset: Dataset) -> Iterator[None]:
    """Within it the index is a copy in ``folder``, whose data are known, and downloads go there."""
    shutil.copytree(index.INDEX, folder / "index")
    patch.setattr(index, "INDEX", folder / "index")
    patch.setitem(datasets.datasets(), dataset.slug, dataset)
    patch.setenv("CONTEXTZOO_HOME", str(folder / "home"))
    index.read.cache_clear()
    yield
    index.read.cache_clear()
