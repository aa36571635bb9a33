"""Datamodules: one file per dataset, with the dataset's facts beside it."""

from lightning_app.data.facts import DatasetFacts
from lightning_app.data.pose.coco_keypoints import COCOKeypoints
from lightning_app.data.semantic.ade20k import ADE20K
from lightning_app.data.semantic.base import SegmentationDataModule
from lightning_app.data.semantic.camvid import CamVid
from lightning_app.data.semantic.cityscapes import Cityscapes
from lightning_app.data.semantic.coco_stuff import COCOStuff
from lightning_app.data.semantic.context_probe import ContextProbe
from lightning_app.data.semantic.folder import Folder
from lightning_app.data.semantic.pairs import FileDataModule
from lightning_app.data.semantic.pascal_context import PascalContext
from lightning_app.data.semantic.pascal_voc import PascalVOC

__all__ = [
    "ADE20K",
    "COCOKeypoints",
    "COCOStuff",
    "CamVid",
    "Cityscapes",
    "ContextProbe",
    "DatasetFacts",
    "FileDataModule",
    "Folder",
    "PascalContext",
    "PascalVOC",
    "SegmentationDataModule",
]
