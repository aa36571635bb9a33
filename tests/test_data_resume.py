"""Which image comes when: over epochs, workers, devices and resumed runs."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_app.data.base import Sample, SegmentationDataModule, SegmentationDataset, Stage
from lightning_app.data.facts import DatasetFacts
from lightning_app.data.sampler import EvalSampler, TrainSampler, seeded
from lightning_app.errors import InputError


IMAGES, BATCH, EPOCHS = 13, 2, 3  # six batches an epoch, one image left over


class Noise(SegmentationDataset):
    """Images of one random colour, drawn as augmentation is."""

    def __len__(self) -> int:
        return IMAGES

    def __getitem__(self, key: int | tuple[int, int]) -> Sample:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        with seeded(0, epoch, index):
            image = torch.randint(256, (3, 1, 1), dtype=torch.uint8).expand(3, 4, 4)
        return {"image": image, "mask": image[0] % 2, "name": f"{epoch}/{index}", "size": (4, 4)}


class NoiseData(SegmentationDataModule):
    def make_dataset(self, stage: Stage) -> SegmentationDataset:  # noqa: ARG002
        return Noise()


class Recorder(LightningModule):
    """Learns nothing in particular and writes down what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 1)
        self.seen: list[tuple[int, str, int]] = []

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> torch.Tensor:  # noqa: ARG002
        pixels = batch["image"][:, :, 0, 0]
        self.seen += [(self.global_step, name, int(p.sum() * 255)) for name, p in zip(batch["name"], pixels, strict=True)]
        return self.layer(pixels).sum()

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None: ...

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.01)


def data(**options: Any) -> NoiseData:
    facts = DatasetFacts("Noise", ("even", "odd"), ((0, 0, 0), (255, 255, 255)), {0: 0, 1: 1})
    return NoiseData(facts, **{"batch_size": BATCH, "num_workers": 0, **options})


def fit(folder: Path, *, ckpt_path: Path | None = None, workers: int = 0, callback: Any = None, **options: Any) -> Recorder:
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        callbacks=[callback] if callback else [],
        enable_checkpointing=callback is not None,
        **options,
    )
    model = Recorder()
    trainer.fit(model, datamodule=data(num_workers=workers), ckpt_path=ckpt_path)
    return model


SAVES = {
    "every step": ({"every_n_train_steps": 1}, {}),
    "every validation": ({}, {"val_check_interval": 0.5}),
    "every epoch": ({"save_on_train_epoch_end": True}, {}),
}


@pytest.mark.parametrize("length", [{"max_epochs": EPOCHS}, {"max_steps": EPOCHS * (IMAGES // BATCH)}], ids=["epochs", "steps"])
@pytest.mark.parametrize("saves", SAVES)
def test_a_resumed_run_goes_on_with_the_very_next_batch(tmp_path: Path, saves: str, length: dict[str, int]) -> None:
    when, options = SAVES[saves]
    keep = ModelCheckpoint(tmp_path / "ckpt", filename="{epoch}-{step}", save_top_k=-1, **when)
    whole = fit(tmp_path, callback=keep, **length, **options).seen
    assert len(whole) == EPOCHS * (IMAGES // BATCH) * BATCH
    checkpoints = sorted((tmp_path / "ckpt").glob("*.ckpt"))
    assert len(checkpoints) >= EPOCHS
    for path in checkpoints:
        step = torch.load(path, weights_only=True)["global_step"]
        assert fit(tmp_path, ckpt_path=path, **length, **options).seen == whole[step * BATCH :], path.name
