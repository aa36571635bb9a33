"""The feature cache: the same numbers, each image computed once, and a line for all that can be wrong with it."""

import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import PROBE, run
from tiny import NoiseData, tiny_task, tiny_trainer
from torch import Tensor, nn

from lightning_app.backbones.base import Backbone
from lightning_app.backbones.feature_cache import FeatureCache, rooms
from lightning_app.backbones.freeze import freeze_parts
from lightning_app.backbones.timm import TimmBackbone
from lightning_app.util.errors import InputError


class Counting(Backbone):
    """Two levels; knows how many images it has computed."""

    channels, reductions = [4, 6], [2, 4]

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.Dropout())
        self.second = nn.Conv2d(4, 6, 3, 2, 1)
        self.computed = 0

    def forward(self, images: Tensor) -> list[Tensor]:
        self.computed += len(images)
        first = self.first(images)
        return [first, self.second(first)]


def frozen(seed: int = 0) -> Counting:
    backbone = Counting()
    torch.manual_seed(seed)
    nn.init.normal_(backbone.second.weight)
    freeze_parts(backbone, ["backbone"])
    return backbone


IMAGES = torch.rand(3, 3, 16, 24, generator=torch.Generator().manual_seed(0))


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    """A convolution of another batch may round differently."""
    return len(one) == len(other) and all(map(partial(torch.allclose, atol=1e-6), one, other))


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.safetensors"))


def test_each_image_is_computed_once_in_whatever_batch_and_process(tmp_path: Path) -> None:
    backbone = frozen()
    expected = backbone(IMAGES)
    backbone.computed = 0
    FeatureCache(backbone, tmp_path, 1e9)
    assert same(backbone(IMAGES[:2]), [level[:2] for level in expected])
    assert same(backbone(IMAGES.flip(0)), [level.flip(0) for level in expected])
    assert backbone.computed == len(files(tmp_path)) == 3
    again = frozen()
    FeatureCache(again, tmp_path, 1e9)
    levels = again(IMAGES)
    assert same(levels, expected)
    assert again.computed == 0
    assert not any(level.requires_grad for level in levels)


def test_other_weights_images_and_precision_are_other_features(tmp_path: Path) -> None:
    first, second = frozen(), frozen(seed=1)
    caches = [FeatureCache(each, tmp_path, 1e9) for each in (first, second)]
    expected = first(IMAGES)
    assert str(caches[0]).startswith(f"Feature cache: {caches[0].room}: 3 images")
    assert f"{caches[0].room.name} is of other weights (contextzoo cache {tmp_path})" in str(caches[1])
    assert not same(second(IMAGES), expected)
    with torch.autocast("cpu", torch.bfloat16):
        for _ in range(2):
            assert first(IMAGES)[1].dtype == torch.bfloat16
    brighter = IMAGES.clone()
    brighter[0, 0, 0, 0] += 1e-6
    first(brighter)
    assert (first.computed, second.computed) == (7, 3)
    assert sorted(room.images for room in rooms(tmp_path)) == [3, 7]


def test_the_memory_format_is_the_images(tmp_path: Path) -> None:
    backbone = frozen()
    FeatureCache(backbone, tmp_path, 1e9)
    for _ in range(2):
        for level in backbone(IMAGES.to(memory_format=torch.channels_last)):
            assert level.is_contiguous(memory_format=torch.channels_last)
        for level in backbone(IMAGES):
            assert level.is_contiguous()


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "tf_efficientnet_lite0", "swin_tiny_patch4_window7_224"])
def test_any_backbone_of_timms(tmp_path: Path, name: str) -> None:
    backbone = TimmBackbone(name, out_indices=[0, 1], drop_path_rate=0.5)
    freeze_parts(backbone, ["backbone"])
    images = torch.rand(2, 3, 224, 224)
    expected = backbone(images)
    FeatureCache(backbone, tmp_path, 1e9)
    assert same(backbone(images), expected)
    assert same(backbone(images), expected)


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "flipped":
        content[-1] ^= 1
    path.write_bytes(content[: len(content) // 2] if how == "short" else b"" if how == "empty" else bytes(content))


@pytest.mark.parametrize("how", ["flipped", "short", "empty"])
def test_a_damaged_file_is_named_and_computed_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    backbone = frozen()
    FeatureCache(backbone, tmp_path, 1e9)
    expected = backbone(IMAGES)
    broken = files(tmp_path)[1]
    damage(broken, how)
    assert same(backbone(IMAGES), expected)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith(str(broken))
    assert said.endswith("It is computed anew.\n")
    assert same(backbone(IMAGES), expected)
    assert capsys.readouterr().err == ""
    assert backbone.computed == 4


def test_beyond_the_limit_features_are_computed_each_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    backbone = frozen()
    expected = backbone(IMAGES)
    backbone.computed = 0
    FeatureCache(backbone, tmp_path, 4000)  # an image's levels are of 4 * 8 * 12 * 4 + 6 * 4 * 6 * 4 = 2112 bytes
    for _ in range(2):
        assert same(backbone(IMAGES), expected)
    assert (len(files(tmp_path)), backbone.computed) == (1, 5)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"The feature cache {tmp_path} holds 0.0 GB, and model.feature_cache_gb is 4e-06" in said
    assert f"contextzoo cache {tmp_path}" in said


@contextmanager
def no_room_for_files() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_costs_time_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    backbone = frozen()
    expected = backbone(IMAGES)
    FeatureCache(backbone, tmp_path, 1e9)
    with no_room_for_files():
        levels = backbone(IMAGES)
    assert same(levels, expected)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert re.search(r"cannot be written to \(.*File too large", said)


def test_a_backbone_that_learns_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=r"give --model\.freeze backbone too"):
        tiny_task(feature_cache=str(tmp_path), freeze=["conv1"])
    backbone = frozen()
    FeatureCache(backbone, tmp_path, 1e9)
    backbone.second.requires_grad_(True)  # as callbacks of fine-tuning do in mid-run
    with pytest.raises(InputError, match=r"give --model\.freeze backbone too"):
        backbone(IMAGES)
    assert run(f"fit {PROBE} --model.feature_cache {tmp_path}") == 2
    said = capsys.readouterr().err
    assert said == "model.feature_cache is for a backbone that stays as it is: give --model.freeze backbone too\n"


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file/features cannot be written to \(Not a directory\)"):
        FeatureCache(frozen(), tmp_path / "file" / "features", 1e9)


def test_training_with_it_is_the_same_training(tmp_path: Path) -> None:
    """Two versions in three epochs: the weights are those of a training without, to rounding."""
    ends = []
    for cache in (None, str(tmp_path / "features")):
        task: Any = tiny_task(freeze="backbone", feature_cache=cache)
        tiny_trainer(tmp_path, callbacks=[], max_epochs=3).fit(task, datamodule=NoiseData())
        ends.append(task.network.state_dict())
    assert all(torch.allclose(value, ends[1][name], atol=1e-4) for name, value in ends[0].items())
    assert len(files(tmp_path / "features")) == 12  # those to validate on are among them


def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A second head computes nothing; the verb lists what there is, and removes it and nothing else."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONTEXTZOO_RUN", "")
    fit = f"fit {PROBE} --model.freeze backbone --model.feature_cache features --trainer.max_epochs 1"
    assert run(f"{fit} --run one") == 0
    (room,) = tmp_path.glob("features/*")
    begun = f"Feature cache: features/{room.name}: {{}}, 0.0 of 50 GB taken"
    assert begun.format("0 images, 0.00 GB") in capsys.readouterr().out
    assert run(f"{fit} --run two --model.head NonLocal --model.head.channels 8") == 0
    assert begun.format(f"{6 + 5} images, 0.00 GB") in capsys.readouterr().out
    assert len(files(tmp_path / "features")) == 6 + 5

    assert run("fit --run one --ckpt_path last --trainer.max_epochs 2 --model.feature_cache_gb 1") == 0  # goes on
    said = capsys.readouterr().out
    assert f"features/{room.name}: {6 + 5} images, 0.00 GB, 0.0 of 1 GB taken" in said
    assert len(files(tmp_path / "features")) == 6 + 5

    (tmp_path / "features" / "mine-0123456789ab").mkdir()
    (tmp_path / "features" / "mine-0123456789ab" / "weights.safetensors").touch()
    assert run("cache features") == 0
    assert capsys.readouterr().out.startswith(f"features/{room.name}: {6 + 5} images")
    assert run("cache features --clean patchify") == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert 'features holds no features of "patchify".' in said
    assert run("cache features --clean") == 0
    assert f"Removed features/{room.name}: {6 + 5} images" in capsys.readouterr().out
    assert [path.name for path in tmp_path.glob("features/*/*")] == ["weights.safetensors"]
    assert run("cache nowhere") == 2
    assert capsys.readouterr().err == "nowhere: no such folder\n"
