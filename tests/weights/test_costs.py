"""Parameters and GFLOP: counted by hand, and those of the index again, from shapes alone."""

from dataclasses import asdict

import pytest
import torch
from torch import nn

import zoo
from lightning_app.backbones.patchify import Patchify
from lightning_app.heads.fcn import FCN
from lightning_app.registry import HEADS
from lightning_app.tasks.instance.weights import InstanceFacts
from lightning_app.tasks.instance.weights import parts_of as detector_parts
from lightning_app.tasks.pose.weights import PoseFacts
from lightning_app.tasks.semantic.network import Segmentor
from lightning_app.tasks.semantic.weights import SemanticFacts
from lightning_app.weights.costs import costs_of
from lightning_app.weights.facts import Facts
from lightning_app.weights.openmmlab import pose
from zoo.datasets import datasets


def test_a_network_that_is_counted_by_hand() -> None:
    """Its auxiliary head counts for nothing, and what it is goes on as it was."""
    backbone = Patchify(channels=4, patch=8, depth=1)
    options = {"channels": 5, "num_convs": 1, "concat_input": False}
    network = Segmentor(backbone, FCN(backbone.channels, 3, **options), FCN(backbone.channels, 3, **options)).train()
    before = {name: each.clone() for name, each in network.state_dict().items()}
    patches, convolution, classifier = 3 * 64 * 4, 4 * 9 * 5, 5 * 3
    assert costs_of(network, SemanticFacts, {"crop": (64, 128)}) == {
        "parameters": patches + 2 * 4 + convolution + 2 * 5 + classifier + 3,
        "gflop": round(2 * (patches + convolution + classifier) * 8 * 16 / 1e9, 3),
    }
    assert network.training
    assert all(torch.equal(each, before[name]) for name, each in network.state_dict().items())


@pytest.mark.parametrize("head", [name for name in HEADS if name not in ("dpt", "setr", "setr_mla")])
def test_every_head_has_its_cost(head: str) -> None:
    backbone = Patchify(channels=16, patch=8, depth=1)
    network = Segmentor(backbone, HEADS[head].cls(backbone.channels, 3))
    assert "gflop" in costs_of(network, SemanticFacts, {"crop": (64, 64)})
    assert all(each.requires_grad for name, each in network.named_parameters() if name == "head.classifier.weight")


def test_a_task_that_does_not_tell_what_a_look_is() -> None:
    class Silent(SemanticFacts):
        look = Facts.look

    assert costs_of(nn.Linear(2, 3), Silent, {}) == {"parameters": 9}


@pytest.mark.parametrize(
    "id", ["td-hm_res50_8xb64-210e_coco-256x192", "mask-rcnn_r50-fpn_coco_1x", "faster-rcnn_r50-fpn_coco_1x"]
)
def test_figures_of_the_index(id: str) -> None:
    """Mask R-CNN on a ResNet-50 has 44.4 M parameters and 260 G multiply-adds in mmdetection's list, too."""
    entry = zoo.get(id)
    facts: type[Facts] = PoseFacts if entry.task == "pose" else InstanceFacts  # type: ignore[type-arg]
    with torch.device("meta"):
        if entry.task == "pose":
            network: nn.Module = pose.new_estimator(pose.upstream_config(entry))
        else:
            classes, details = datasets()[entry.dataset].classes, entry.details
            of_class = InstanceFacts(classes, "mask" in details.detector, details.image_size)  # type: ignore[attr-defined]
            network = of_class.network(detector_parts(entry), id)
    told = {"parameters": entry.parameters, "gflop": entry.gflop}
    assert costs_of(network, facts, asdict(entry.details)) == told


def test_what_was_counted_is_said() -> None:
    words = {id: zoo.get(id).details.looked_at() for id in ("mask-rcnn_r50-fpn_coco_1x", "faster-rcnn_r50-fpn_coco_1x")}
    assert words == {
        "mask-rcnn_r50-fpn_coco_1x": "an image of 800x1280, 1000 proposals, the masks of 100",
        "faster-rcnn_r50-fpn_coco_1x": "an image of 800x1280, 1000 proposals",
    }
    assert zoo.get("td-hm_res50_8xb64-210e_coco-256x192").details.looked_at() == "one such crop"
