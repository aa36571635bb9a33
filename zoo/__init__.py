"""The model zoo: what weights exist for each head and dataset, and how to get them. Imports no torch."""

from zoo.entry import ZooEntry
from zoo.errors import ZooError
from zoo.index import get, list_entries

__all__ = ["ZooEntry", "ZooError", "get", "list_entries"]
