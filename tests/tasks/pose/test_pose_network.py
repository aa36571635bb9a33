"""Any map head estimates poses, and polarized attention costs what its paper counts."""

import pytest
import torch
from small import SMALL, build
from torch import nn

from lightning_app.backbones.base import Backbone
from lightning_app.backbones.timm import TimmBackbone
from lightning_app.heads.fcn import FCN
from lightning_app.heads.simple_baseline import SimpleBaseline
from lightning_app.registry import HEADS, Entry
from lightning_app.tasks.pose.codec import Codec
from lightning_app.tasks.pose.network import PoseEstimator
from lightning_app.util.errors import InputError

POINTS = 5
CODEC = Codec(input_size=(96, 64))
STAGES = {"resnet": ("layer1", "layer2", "layer3", "layer4"), "hrnet": ("layer1", "stage2", "stage3", "stage4")}


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    torch.manual_seed(0)
    return TimmBackbone("resnet10t")


@pytest.mark.parametrize("entry", HEADS.values(), ids=lambda entry: entry.slug)
def test_every_map_head_estimates_poses(entry: Entry, backbone: Backbone) -> None:
    network = PoseEstimator(backbone, build(entry.cls, backbone.channels, POINTS), CODEC).eval()
    crops = torch.rand(2, 3, *CODEC.input_size)
    maps = network(crops)
    assert maps.shape == (2, POINTS, 24, 16)
    points, scores = CODEC.decode(maps)
    assert points.shape == (2, POINTS, 2)
    assert torch.equal(scores, maps.amax((2, 3)))
    target, weights = CODEC.encode(torch.tensor([[20.0, 30.0]]).expand(2, POINTS, 2), torch.ones(2, POINTS))
    CODEC.loss(maps, target, weights).backward()
    assert all(parameter.grad is not None for parameter in network.head.classifier.parameters())
    backbone.zero_grad()


def test_maps_follow_crops_of_other_sizes(backbone: Backbone) -> None:
    network = PoseEstimator(backbone, FCN(backbone.channels, POINTS, channels=8), CODEC).eval()
    assert network(torch.rand(1, 3, 128, 128)).shape == (1, POINTS, 32, 32)


def test_the_flip_test_is_the_mean_with_the_mirrored_crop(backbone: Backbone) -> None:
    network = build(SimpleBaseline, backbone.channels, 3, channels=SMALL["channels"])
    estimator = PoseEstimator(backbone, network, CODEC).eval()
    crops = torch.rand(2, 3, 96, 64)
    with torch.no_grad():
        mean = estimator.maps(crops, [1, 0, 2])
        plain, mirrored = estimator(crops), estimator(crops.flip(3)).flip(3)[:, [1, 0, 2]]
    mirrored[..., 1:] = mirrored[..., :-1].clone()
    torch.testing.assert_close(mean, (plain + mirrored) / 2)


@pytest.mark.parametrize(
    ("name", "mode", "parameters"),
    [
        ("resnet50", "sequential", 36_130_649),  # the paper's table 2: 36.1 M
        pytest.param("resnet152", "parallel", 75_225_617, marks=pytest.mark.slow),  # 75.2 M
        pytest.param("hrnet_w32", "parallel", 31_396_913, marks=pytest.mark.slow),  # 31.4 M
        pytest.param("hrnet_w48", "parallel", 69_983_969, marks=pytest.mark.slow),  # 70.0 M
    ],
)
def test_polarized_attention_in_every_block_costs_what_the_paper_says(name: str, mode: str, parameters: int) -> None:
    family = name.rstrip("0123456789_w")
    context = {stage: {"block": "polarized", "where": "inside", "mode": mode} for stage in STAGES[family]}
    with torch.device("meta"):
        backbone = TimmBackbone(name, context=context, out_indices=[1] if family == "hrnet" else None)
        assert count(PoseEstimator(backbone, pose_head(backbone), Codec())) == parameters


def pose_head(backbone: Backbone) -> FCN | SimpleBaseline:
    """HRNet's 1x1 on its finest branch, or three deconvolutions."""
    if backbone.reductions == [4]:
        return FCN(backbone.channels, 17, channels=backbone.channels[0], num_convs=0, concat_input=False)
    return SimpleBaseline(backbone.channels, 17)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_hrnets_finest_branch_equals_that_of_all_branches() -> None:
    torch.manual_seed(0)
    every, finest = TimmBackbone("hrnet_w18_small").eval(), TimmBackbone("hrnet_w18_small", out_indices=[1]).eval()
    assert (finest.channels, finest.reductions) == ([16], [4])
    finest.load_state_dict({name: each for name, each in every.state_dict().items() if name in finest.state_dict()})
    images = torch.rand(1, 3, 50, 70)
    assert torch.equal(finest(images)[0], every(images)[0])
    finest(images)[0].sum().backward()
    assert all(parameter.grad is not None for parameter in finest.parameters())


@pytest.mark.parametrize(("kernels", "side"), [((4, 4, 4), 24), ((3, 2), 12), ((2,), 6)])
def test_each_deconvolution_doubles_the_map(kernels: tuple[int, ...], side: int) -> None:
    head = SimpleBaseline([8], POINTS, channels=4, kernels=kernels)
    assert head([torch.rand(1, 8, 3, 3)]).shape == (1, POINTS, side, side)


def test_a_deconvolution_of_another_kernel_is_one_line() -> None:
    with pytest.raises(InputError, match=r"kernels \[5\]: give at least one, each of side 4, 3 or 2"):
        SimpleBaseline([8], POINTS, kernels=(5,))


def test_crops_must_be_in_unit_range(backbone: Backbone) -> None:
    network = PoseEstimator(backbone, FCN(backbone.channels, POINTS, channels=8), CODEC)
    with pytest.raises(InputError, match="Images up to 255"):
        network(torch.full((1, 3, 96, 64), 255.0))


@pytest.mark.parametrize(
    ("size", "batch"),
    [((96, 64), 2), *(pytest.param(size, 2, marks=pytest.mark.slow) for size in ((128, 96), (64, 64)))],
)
def test_the_network_is_exported(backbone: Backbone, size: tuple[int, int], batch: int) -> None:
    head = build(SimpleBaseline, backbone.channels, POINTS)
    network = PoseEstimator(backbone, head, CODEC).eval()
    crops = torch.rand(batch, 3, *size)
    exported = torch.export.export(network, (crops,)).module()
    torch.testing.assert_close(exported(crops), network(crops))
