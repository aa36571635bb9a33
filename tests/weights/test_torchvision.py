"""torchvision's segmentation weights: files of networks that torchvision draws give the same logits here."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

import zoo
from lightning_app.app.cli import main
from lightning_app.util.errors import InputError
from lightning_app.weights.load import load
from lightning_app.weights.openmmlab.convert import load_strictly
from lightning_app.weights.parts import new_segmentor
from lightning_app.weights.torchvision import NETWORKS, parts_of, rename

ENTRIES = {entry.config: entry for entry in zoo.list_entries(task="semantic") if entry.format == "torchvision"}


def built(name: str) -> Any:
    auxiliary = {} if name.startswith("lraspp") else {"aux_loss": True}
    return torchvision.models.get_model(name, weights=None, weights_backbone=None, **auxiliary).eval()


def drawn(name: str) -> Any:
    """torchvision's network with statistics and scales that show where each of them went."""
    torch.manual_seed(0)
    network = built(name)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            for tensor, low, high in (
                (module.running_mean, -0.2, 0.2),
                (module.running_var, 0.5, 2.0),
                (module.weight.data, 0.5, 1.5),
                (module.bias.data, -0.2, 0.2),
            ):
                tensor.uniform_(low, high)
    return network


def file_of(network: nn.Module, name: str, folder: Path) -> Path:
    path = folder / ENTRIES[name].url.rpartition("/")[2]
    torch.save(network.state_dict(), path)
    return path


def near(actual: Tensor, expected: Tensor) -> None:
    assert float((actual - expected).abs().max() / expected.std()) < 1e-9


@pytest.mark.parametrize("name", NETWORKS)
def test_every_tensor_has_its_place(name: str) -> None:
    with torch.device("meta"):
        theirs = built(name).state_dict()
        ours = new_segmentor(parts_of(ENTRIES[name]), 21, name)
    load_strictly(ours, rename(ENTRIES[name], theirs), what=name)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name.startswith("lraspp") else pytest.mark.slow) for name in NETWORKS]
)
@torch.no_grad()
def test_a_published_file_gives_the_logits_of_torchvision(name: str, tmp_path: Path) -> None:
    """The file is known by its name; map sizes are odd."""
    theirs = drawn(name)
    ours = load(file_of(theirs, name, tmp_path)).double()
    images = torch.rand(1, 3, 97, 130, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = theirs.double()((images - ours.mean) / ours.std)
    near(ours(images), expected["out"])
    if "aux" in expected:
        side = ours.auxiliary.at(ours.features(images), (97, 130))
        near(side, expected["aux"])
    assert (ours.info.name, len(ours.info.classes), ours.info.protocol.fit) == (ENTRIES[name].id, 21, (2080, 520))


def test_entries_say_what_torchvision_says() -> None:
    assert ENTRIES.keys() == NETWORKS.keys()
    for name, entry in ENTRIES.items():
        weights = torchvision.models.get_model_weights(name).DEFAULT
        (figures,) = weights.meta["_metrics"].values()
        assert (entry.url, entry.metrics) == (weights.url, {"mIoU": figures["miou"]})
        assert entry.url.endswith(f"-{entry.sha256}.pth")
        assert (entry.parameters or 0) <= weights.meta["num_params"]  # theirs may count the auxiliary head
        names = [each.replace("__", "") for each in weights.meta["categories"]]
        assert list(zoo.datasets.datasets()[entry.dataset].classes) == names
        assert entry.commercial == "no"  # no licence of the weights is stated


def test_a_file_of_another_network_is_refused(tmp_path: Path) -> None:
    path = file_of(nn.Conv2d(1, 1, 1), "lraspp_mobilenet_v3_large", tmp_path)
    with pytest.raises(InputError, match=r"do not fit .*lraspp_mobilenet_v3_large-d234d4ea.pth: \d+ missing: "):
        load(path)
    with pytest.raises(InputError, match="torchvision's fcn_vgg16 is not known here, only fcn_resnet50, "):
        parts_of(replace(ENTRIES["fcn_resnet50"], config="fcn_vgg16"))


def test_what_is_known_of_them_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["zoo", "show", "lraspp_m-v3-d16_coco-voc-480x480_30e"]) == 0
    shown = capsys.readouterr().out
    assert "LRASPP, as in torchvision's lraspp_mobilenet_v3_large" in shown
    assert "mobilenetv3_large_100, output stride 16" in shown
    assert "BSD-3-Clause" in shown
    assert "dataset          COCO 2017 with the labels of Pascal VOC, 21 classes\n" in shown


def test_a_tensor_of_no_part_keeps_its_name() -> None:
    entry = ENTRIES["fcn_resnet50"]
    assert rename(entry, {"other.0.weight": torch.zeros(1)}).keys() == {"other.0.weight"}
