"""Datamodules: one file per dataset, with the dataset's facts beside it."""

from lightning_app.data.base import SegmentationDataModule
from lightning_app.data.camvid import CamVid
from lightning_app.data.facts import DatasetFacts
from lightning_app.data.files import FileDataModule
from lightning_app.data.folder import Folder

__all__ = ["CamVid", "DatasetFacts", "FileDataModule", "Folder", "SegmentationDataModule"]
