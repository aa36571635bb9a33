"""A task and a dataset small enough to run whole trainings in tests."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from lightning_app.backbones.timm import TimmBackbone
from lightning_app.callbacks import SaveConfig
from lightning_app.data import DatasetFacts, SegmentationDataModule
from lightning_app.data.base import Stage
from lightning_app.data.semantic.base import Sample, SegmentationDataset
from lightning_app.heads.fcn import FCN
from lightning_app.tasks.semantic.task import SegmentationTask

CLASSES = ("road", "car", "sky")
PALETTE = ((128, 64, 128), (0, 0, 142), (70, 130, 180))
IGNORE = 255


class Noise(SegmentationDataset):
    """Random images with masks of quarters: road, car, sky and ignored."""

    def __init__(self, names: list[str], masks: bool, size: tuple[int, int] = (32, 48)) -> None:
        self.names, self.masks, self.size = names, masks, size

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, key: int | tuple[int, int]) -> Sample:
        index = key[1] if isinstance(key, tuple) else key
        image = torch.randint(0, 256, (3, *self.size), generator=torch.Generator().manual_seed(index))
        sample: Sample = {"image": image.byte(), "name": self.names[index], "size": self.size}
        if self.masks:
            (h, w), mask = self.size, torch.zeros(self.size, dtype=torch.uint8)
            mask[: h // 2, w // 2 :], mask[h // 2 :, : w // 2], mask[h // 2 :, w // 2 :] = 1, 2, IGNORE
            sample["mask"] = mask
        return sample


class NoiseData(SegmentationDataModule):
    """12 images to train on, 5 to evaluate, and those called ``predict``."""

    def __init__(self, predict: list[str] | None = None, size: tuple[int, int] = (32, 48)) -> None:
        facts = DatasetFacts("noise", CLASSES, PALETTE, {0: 0, 1: 1, 2: 2, IGNORE: IGNORE})
        super().__init__(facts, batch_size=4, num_workers=0)
        self.predict, self.size = predict or [], size

    def make_dataset(self, stage: Stage) -> Noise:
        names = {"train": [f"train/{i}.png" for i in range(12)], "predict": self.predict}
        return Noise(names.get(stage, [f"val/{i}.png" for i in range(5)]), stage != "predict", self.size)


def tiny_task(**options: Any) -> SegmentationTask:
    """A resnet10t with an 8-channel FCN."""
    seed_everything(0, verbose=False)
    return SegmentationTask(
        TimmBackbone("resnet10t", output_stride=16),
        lambda in_channels, num_classes: FCN(in_channels, num_classes, channels=8),
        num_classes=len(CLASSES),
        ignore_index=IGNORE,
        class_names=list(CLASSES),
        palette=list(PALETTE),
        **options,
    )


def tiny_trainer(folder: Path, **options: Any) -> Trainer:
    """A quiet CPU trainer whose run's folder is ``folder``."""
    options = {"enable_progress_bar": False, "logger": False, "log_every_n_steps": 1} | options
    return Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        devices=1,
        use_distributed_sampler=False,
        enable_model_summary=False,
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in options["callbacks"]),
        num_sanity_val_steps=1,
        **options,
    )


class _CLI(LightningCLI):
    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        for fact in ("num_classes", "ignore_index", "class_names", "palette"):
            parser.link_arguments(f"data.{fact}", f"model.{fact}", apply_on="instantiate")


def by_command_line(command: str, folder: Path, *args: str) -> LightningCLI:
    """A resnet10t and an FCN on noise, whose run's folder is ``folder``."""
    model = {
        "backbone": "lightning_app.backbones.timm.TimmBackbone",
        "backbone.init_args.name": "resnet10t",
        "backbone.init_args.output_stride": 16,
        "head": "lightning_app.heads.fcn.FCN",
        "head.init_args.channels": 8,
    }
    trainer = {
        "default_root_dir": folder,
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": 2,
        "log_every_n_steps": 1,
        "use_distributed_sampler": False,
        "num_sanity_val_steps": 1,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "logger": False,
        "enable_checkpointing": False,
    }
    typed = [f"--model.{key}={value}" for key, value in model.items()]
    typed += [f"--trainer.{key}={value}" for key, value in trainer.items()]
    return _CLI(
        SegmentationTask,
        SegmentationDataModule,
        subclass_mode_data=True,
        save_config_callback=SaveConfig,
        args=[command, "--data=tiny.NoiseData", *typed, *args],
    )
