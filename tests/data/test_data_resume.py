"""Which image comes when: over epochs, workers, devices and resumed runs."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_app.data.base import Stage
from lightning_app.data.facts import DatasetFacts
from lightning_app.data.sampler import EvalSampler, TrainSampler, seeded
from lightning_app.data.semantic.base import Sample, SegmentationDataModule, SegmentationDataset
from lightning_app.util.errors import InputError

IMAGES, BATCH, EPOCHS = 9, 2, 2
STEPS = IMAGES // BATCH  # an epoch; one image is left over


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
    def make_dataset(self, stage: Stage) -> SegmentationDataset:
        return Noise()


class Recorder(LightningModule):
    """Learns nothing in particular and writes down what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 1)
        self.seen: list[tuple[int, str, int]] = []

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> torch.Tensor:
        pixels = batch.image[:, :, 0, 0]
        self.seen += [(self.global_step, name, int(p.sum() * 255)) for name, p in zip(batch.names, pixels, strict=True)]
        return self.layer(pixels).sum()

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None: ...

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.01)


def data(**options: Any) -> NoiseData:
    facts = DatasetFacts("Noise", ("even", "odd"), ((0, 0, 0), (255, 255, 255)), {0: 0, 1: 1})
    return NoiseData(facts, **{"batch_size": BATCH, "num_workers": 0, **options})


def fit(folder: Path, *, ckpt_path: Path | None = None, workers: int = 0, keep: Any = None, **options: Any) -> Recorder:
    """A run; ``keep`` is what saves its checkpoints."""
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=keep is not None,
        default_root_dir=folder,
        callbacks=[keep] if keep else [],
        **options,
    )
    model = Recorder()
    trainer.fit(model, datamodule=data(num_workers=workers), ckpt_path=ckpt_path)
    return model


SAVES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "every step": ({"every_n_train_steps": 1}, {}),
    "every validation": ({}, {"val_check_interval": 0.5}),
    "every epoch": ({"save_on_train_epoch_end": True}, {}),
}
LENGTHS = {"epochs": {"max_epochs": EPOCHS}, "steps": {"max_steps": EPOCHS * STEPS}}


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("saves", SAVES)
def test_a_resumed_run_goes_on_with_the_very_next_batch(tmp_path: Path, saves: str, length: str) -> None:
    when, options = SAVES[saves]
    options = options | LENGTHS[length]
    keep = ModelCheckpoint(tmp_path / "kept", filename="{epoch}-{step}", save_top_k=-1, **when)
    whole = fit(tmp_path, keep=keep, **options).seen
    assert len(whole) == EPOCHS * STEPS * BATCH
    checkpoints = sorted((tmp_path / "kept").glob("*.ckpt"))
    assert len(checkpoints) >= EPOCHS
    for path in checkpoints:
        step = torch.load(path, weights_only=True)["global_step"]
        assert fit(tmp_path, ckpt_path=path, **options).seen == whole[step * BATCH :], path.name


def test_workers_that_read_ahead_change_nothing(tmp_path: Path) -> None:
    keep = ModelCheckpoint(tmp_path / "kept", filename="{step}", save_top_k=-1, every_n_train_steps=1)
    whole = fit(tmp_path, max_epochs=EPOCHS).seen
    assert fit(tmp_path, workers=2, keep=keep, max_epochs=EPOCHS).seen == whole
    resumed = fit(tmp_path, workers=1, ckpt_path=tmp_path / "kept" / f"step={STEPS + 1}.ckpt", max_epochs=EPOCHS)
    assert resumed.seen == whole[(STEPS + 1) * BATCH :]


@pytest.mark.parametrize("workers", [0, 1])
def test_limited_epochs_still_differ(tmp_path: Path, workers: int) -> None:
    seen = fit(tmp_path, workers=workers, max_epochs=3, limit_train_batches=2).seen
    assert [name.partition("/")[0] for _, name, _ in seen] == ["0"] * 4 + ["1"] * 4 + ["2"] * 4


def test_another_batch_size_in_mid_epoch_is_said() -> None:
    loader = data(batch_size=3).train_dataloader()
    with pytest.warns(UserWarning, match=r"another order of images \(batch_size 2 -> 3\)"):
        loader.load_state_dict(data().train_dataloader().state_dict())


def test_order_and_augmentation_follow_the_seed_alone() -> None:
    def epoch(seed: int, number: int) -> list[tuple[int, int]]:
        sampler = TrainSampler(20, 4, seed=seed)
        sampler.set_epoch(number)
        return list(sampler)

    assert epoch(0, 3) == epoch(0, 3)
    assert {index for _, index in epoch(0, 3)} == set(range(20))
    assert [i for _, i in epoch(0, 3)] != [i for _, i in epoch(0, 4)]
    assert [i for _, i in epoch(1, 3)] != [i for _, i in epoch(0, 4)]  # not the sum of the two


def test_versions_come_in_turn_and_each_epoch_in_an_order_of_its_own() -> None:
    def seen(epoch: int) -> list[str]:
        loader = data(versions=2).train_dataloader()
        loader.sampler.set_epoch(epoch)
        return [name for batch in loader for name in batch.names]

    epochs = [seen(epoch) for epoch in range(3)]
    assert [{name.partition("/")[0] for name in names} for names in epochs] == [{"0"}, {"1"}, {"0"}]
    assert epochs[0] != epochs[2]
    with pytest.raises(InputError, match=r"data\.versions is 0: give 1 or more"):
        data(versions=0)


def test_loading_leaves_the_global_dice_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    for workers in (0, 1):
        list(data(num_workers=workers).train_dataloader())
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("devices", [2, 3])
def test_training_is_cut_evenly_over_devices(devices: int) -> None:
    shares = [list(TrainSampler(11, 2, seed=1, replicas=devices, rank=rank)) for rank in range(devices)]
    assert {len(share) for share in shares} == {11 // devices}
    assert len({index for share in shares for _, index in share}) == 11 // devices * devices


@pytest.mark.parametrize(("images", "devices"), [(7, 1), (7, 2), (7, 3), (2, 4)])
def test_evaluation_sees_each_image_once_on_any_number_of_devices(images: int, devices: int) -> None:
    shares = [EvalSampler(images, replicas=devices, rank=rank) for rank in range(devices)]
    assert sorted(index for share in shares for index in share) == list(range(images))
    assert [len(share) for share in shares] == [len(list(share)) for share in shares]


def test_too_few_images_for_a_batch() -> None:
    with pytest.raises(InputError, match=r"9 training images make no batch of 16\. Give --data\.batch_size 9 or less"):
        data(batch_size=16).train_dataloader()
    with pytest.raises(InputError, match="on each of 4 devices"):
        TrainSampler(13, 4, replicas=4)


def test_overfitting_one_batch_repeats_it(tmp_path: Path) -> None:
    seen = fit(tmp_path, max_epochs=2, overfit_batches=1).seen
    assert [rest for _, *rest in seen[:BATCH]] == [rest for _, *rest in seen[BATCH:]]
