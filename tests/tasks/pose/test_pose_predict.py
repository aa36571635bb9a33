"""Keypoints in photographs, from Python."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pose_fakes import NAMES, animal

from lightning_app.backbones.timm import TimmBackbone
from lightning_app.data.pose.facts import Keypoints
from lightning_app.heads.fcn import FCN
from lightning_app.tasks.pose.codec import Codec
from lightning_app.tasks.pose.info import PoseInfo
from lightning_app.tasks.pose.network import PoseEstimator
from lightning_app.util.errors import InputError

FACTS = Keypoints(tuple(NAMES), ((0, 1), (0, 2)), ((1, 2),), (0.05,) * 4)


@pytest.fixture(scope="module")
def network() -> PoseEstimator:
    torch.manual_seed(0)
    codec = Codec("udp", (64, 48))
    backbone = TimmBackbone("resnet10t", out_indices=[1])
    head = FCN(backbone.channels, 4, channels=8, num_convs=1, concat_input=False, dropout=0)
    made = PoseEstimator(backbone, head, codec)
    made.info = PoseInfo(name="animals", keypoints=FACTS, codec=codec)
    return made


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    return animal(np.random.default_rng(0))[0]


def test_each_box_has_its_keypoints_in_the_photograph(
    network: PoseEstimator, photograph: np.ndarray, tmp_path: Path
) -> None:
    boxes = [[5, 5, 40, 40], [20, 8, 60, 47.5], [0, 0, 64, 48]]
    poses = network.train().predict(photograph, boxes)
    assert network.training
    assert poses.keypoints.shape == (3, 4, 2)
    assert poses.keypoint_scores.shape == (3, 4)
    assert np.array_equal(poses.boxes, np.array(boxes, dtype=np.float32))
    for place, box in enumerate(boxes):
        alone = network.predict(Image.fromarray(photograph), [box])
        np.testing.assert_allclose(alone.keypoints[0], poses.keypoints[place], atol=1e-2)
    few = network.predict(photograph, boxes, batch=2)
    np.testing.assert_allclose(few.keypoints, poses.keypoints, atol=1e-2)
    whole = network.predict(photograph)
    np.testing.assert_allclose(whole.keypoints[0], poses.keypoints[2], atol=1e-2)
    assert not np.allclose(network.predict(photograph, boxes, flip_test=False).keypoints, poses.keypoints)
    assert poses.draw().size == poses.overlay().size == (640, 480)
    poses.save(tmp_path / "a.json")
    assert len(json.loads((tmp_path / "a.json").read_text())) == 3


def test_a_photograph_without_boxes_has_nobody(network: PoseEstimator, photograph: np.ndarray) -> None:
    nobody = network.predict(photograph, [])
    assert (len(nobody), nobody.keypoints.shape, nobody.boxes.shape) == (0, (0, 4, 2), (0, 4))
    assert nobody.draw().size == (640, 480)


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([1, 2, 3, 4], "boxes are of shape (4,): give (N, 4)"),
        ([[1, 2, 3]], "boxes are of shape (1, 3)"),
        ([["a", 2, 3, 4]], "boxes are no table of numbers"),
        ([[0, 0, 10**400, 4]], "boxes are no table of numbers"),
        ([[0, 0, 9, 9], [64, 0, 70, 9]], "boxes[1] is [64.0, 0.0, 70.0, 9.0], outside the photograph of 64 x 48"),
        ([[3, -9, 8, 0]], "boxes[0] is [3.0, -9.0, 8.0, 0.0], outside the photograph"),
        ([[0, 0, 9, 9], [9, 9, 5, 20]], "boxes[1] is [9.0, 9.0, 5.0, 20.0]: give left < right"),
        ([[0, 0, float("nan"), 9]], "boxes[0] is"),
    ],
)
def test_boxes_that_are_none(network: PoseEstimator, photograph: np.ndarray, boxes: object, message: str) -> None:
    with pytest.raises(InputError) as caught:
        network.predict(photograph, boxes)
    assert message in str(caught.value)


def test_a_network_made_by_hand_says_what_it_lacks(network: PoseEstimator, photograph: np.ndarray) -> None:
    made = PoseEstimator(network.backbone, network.head, network.codec)
    with pytest.raises(InputError, match=r"made by hand"):
        made.predict(photograph)
