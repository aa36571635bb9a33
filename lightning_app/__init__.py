"""Context heads and blocks for semantic segmentation, instance segmentation and pose: networks, training and tools."""

from lightning_app import _moved as _moved  # old names of modules still import

__version__ = "0.1.0"
