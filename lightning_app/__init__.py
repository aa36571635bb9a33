"""Context heads for semantic segmentation: networks, training and tools."""

__version__ = "0.1.0"
