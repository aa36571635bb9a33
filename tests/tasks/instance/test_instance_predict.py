"""Objects in photographs, from Python."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from instances import SIZE, scene
from PIL import Image

from lightning_app.backbones.timm import TimmBackbone
from lightning_app.data import rle
from lightning_app.tasks.instance.info import InstanceInfo
from lightning_app.tasks.instance.network import InstanceSegmentor
from lightning_app.util.errors import InputError


def new_network(**options: object) -> InstanceSegmentor:
    torch.manual_seed(0)
    small = {"channels": 8, "hidden": 8, "size": None, "score_threshold": 0.0, "max_detections": 5}
    made = InstanceSegmentor(TimmBackbone("resnet10t"), 2, **small | options)
    made.info = InstanceInfo(name="shapes", classes=("square", "disc"))
    return made


def test_the_objects_of_a_photograph(tmp_path: Path) -> None:
    network, picture = new_network().train(), scene(3)[0]
    found = network.predict(picture)
    assert network.training
    count = len(found)
    assert 0 < count <= 5
    assert found.boxes.shape == (count, 4)
    assert found.masks is not None
    assert (found.masks.shape, found.masks.dtype) == ((count, *SIZE), bool)
    assert (np.diff(found.scores) <= 0).all()
    assert set(found.names) <= {"square", "disc"}
    assert sum(found.counts.values()) == count
    Image.fromarray(picture).save(tmp_path / "a.png")
    assert np.array_equal(network.predict(tmp_path / "a.png").masks, found.masks)

    middle = float(found.scores[count // 2])
    assert len(found.above(middle)) == (found.scores >= middle).sum()
    assert found.overlay().width == 640
    found.save_overlay(tmp_path / "a.jpg")
    found.save(tmp_path / "a.json")
    content = json.loads((tmp_path / "a.json").read_text())
    assert (content["height"], content["width"], len(content["objects"])) == (*SIZE, count)
    assert content["objects"][0]["class"] == found.names[0]
    runs = [{**each["segmentation"], "counts": each["segmentation"]["counts"].encode()} for each in content["objects"]]
    assert np.array_equal([rle.decode(each) for each in runs], found.masks)
    with pytest.raises(InputError, match="objects are written as JSON"):
        found.save(tmp_path / "a.png")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"regions": "groie"},
        {"mask_upsample": "carafe"},
        {"cascade": True},
        {"pyramid": "carafe"},
        {"pyramid": "libra"},
    ],
)
def test_a_photograph_without_objects(options: dict[str, object]) -> None:
    found = new_network(**options | {"score_threshold": 1.0}).predict(scene(3)[0])
    assert len(found) == 0
    assert found.masks is not None
    assert found.masks.shape == (0, *SIZE)


def test_boxes_alone(tmp_path: Path) -> None:
    found = new_network(masks=False).predict(scene(3)[0])
    assert found.masks is None
    assert found.overlay(0.0).width == 640
    found.save(tmp_path / "a.json")
    assert "segmentation" not in (tmp_path / "a.json").read_text()


def test_a_line_of_pixels_is_looked_at_too() -> None:
    """Its short side would be a fifth of a pixel."""
    network = new_network()
    network.size = (64, 64)
    found = network.predict(np.zeros((1, 300, 3), dtype=np.uint8))
    assert found.masks.shape == (len(found.scores), 1, 300)


def test_what_is_no_picture_or_no_network_with_weights() -> None:
    network = new_network()
    with pytest.raises(InputError, match="is no picture"):
        network.predict(np.zeros((4, 4, 3)))
    network.info = None
    with pytest.raises(InputError, match="made by hand"):
        network.predict(scene(1)[0])
