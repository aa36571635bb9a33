"""Backbones: levels of any family, changes from timm's networks, context blocks inside stages."""

import copy
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml
from torch import Tensor, nn

from lightning_app.backbones.changes import residual_blocks
from lightning_app.backbones.timm import TimmBackbone
from lightning_app.blocks.gcnet import GlobalContext
from lightning_app.blocks.polarized import PolarizedSelfAttention
from lightning_app.heads.fcn import FCN
from lightning_app.heads.ocrnet import OCRNet
from lightning_app.tasks.semantic.network import Segmentor
from lightning_app.util.errors import InputError


def tiny(name: str = "resnet10t", **options: Any) -> TimmBackbone:
    torch.manual_seed(0)
    return TimmBackbone(name, **options)


FAMILIES = [  # name, options, reductions
    ("resnet10t", {}, [4, 8, 16, 32]),
    ("resnet10t", {"output_stride": 8}, [4, 8, 8, 8]),
    ("convnext_atto", {"output_stride": 16}, [4, 8, 16, 16]),
    ("mobilenetv3_small_100", {"output_stride": 16}, [4, 8, 16, 16]),
    ("hrnet_w18_small", {}, [4, 8, 16, 32]),
    ("swin_tiny_patch4_window7_224", {}, [4, 8, 16, 32]),
    ("vit_tiny_patch16_224", {}, [16, 16, 16, 16]),
]


@pytest.mark.parametrize(("name", "options", "reductions"), FAMILIES)
@torch.no_grad()
def test_levels_of_every_family_at_any_size(name: str, options: dict[str, Any], reductions: list[int]) -> None:
    backbone = tiny(name, **options).eval()
    assert backbone.reductions[-1] == reductions[-1]
    assert len(backbone.channels) == len(backbone.reductions)
    side = 2 * max(backbone.reductions)
    levels = backbone(torch.rand(1, 3, side, 2 * side))
    shapes = [
        (1, width, side // reduction, 2 * side // reduction)
        for width, reduction in zip(backbone.channels, backbone.reductions, strict=True)
    ]
    assert [tuple(level.shape) for level in levels] == shapes
    model = Segmentor(backbone, FCN(backbone.channels, 2, channels=4, num_convs=1)).eval()
    for height, width in ((33, 47), (64, 31)):
        assert model(torch.rand(1, 3, height, width)).shape == (1, 2, height, width)


@torch.no_grad()
def test_other_channels_and_fewer_levels() -> None:
    backbone = tiny(in_channels=4, out_indices=[2, 3]).eval()
    assert len(backbone.mean) == len(backbone.std) == 4
    assert backbone.reductions == [8, 16]
    model = Segmentor(backbone, FCN(backbone.channels, 2, channels=4))
    assert model(torch.rand(1, 4, 31, 33)).shape == (1, 2, 31, 33)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "resnet5O"}, 'Unknown timm model "resnet5O". Did you mean "resnet50"'),
        ({"output_stride": 4}, "resnet10t cannot have output_stride 4; it can have 8, 16, 32"),
        (
            {"name": "vit_tiny_patch16_224", "output_stride": 8},
            "vit_tiny_patch16_224 cannot have output_stride 8; it has a fixed stride: leave output_stride null",
        ),
        ({"changes": {"multigrid": [1]}}, 'Unknown change "multigrid". Did you mean "multi_grid"?'),
        ({"changes": {"multi_grid": [1, 2, 4]}}, "multi_grid [1, 2, 4] has 3 values, but resnet10t has 1 blocks"),
        ({"changes": {"dilations": [1, 2]}}, "dilations [1, 2] has 2 values, but resnet10t has 4 stages"),
        ({"changes": {"upsample": "bilinear"}}, "resnet10t has no branches to upsample"),
        ({"name": "resnet26", "changes": {"conv2_dilation": 1}}, "resnet26 has bottlenecks"),
        ({"name": "convnext_atto", "changes": {"multi_grid": [1]}}, "convnext_atto is no ResNet, so multi_grid"),
        ({"name": "convnext_atto", "changes": {"stem_type": "deep"}}, "timm cannot build convnext_atto"),
        ({"name": "hrnet_w18_small", "changes": {"upsample": "cubic"}}, 'upsample is "cubic": it must be nearest or'),
        ({"context": {"layer5": {"block": "se"}}}, 'no stage "layer5". Did you mean "layer4"? It has: layer1, layer2'),
        ({"context": {"layer3": {}}}, "context.layer3 needs a block, such as {block: gcnet}"),
        ({"context": {"layer3": {"block": "gcnett"}}}, 'Unknown block "gcnett". Did you mean "gcnet"?'),
        ({"context": {"layer3": {"block": "se", "where": "lsat"}}}, 'where is "lsat". Did you mean "last"?'),
        ({"context": {"layer3": {"block": "gcnet", "ratoi": 2}}}, 'no argument "ratoi". Did you mean "ratio"?'),
        ({"context": {"layer3": {"block": "local_relation", "mode": 3}}}, "local_relation"),
        (
            {"name": "convnext_atto", "context": {"stages_2": {"block": "se", "where": "every"}}},
            'convnext_atto has no residual blocks of ResNet\'s kind; set where to "stage"',
        ),
        (
            {"name": "swin_tiny_patch4_window7_224", "context": {"layers_2": {"block": "gcnet"}}},
            "cannot stand in swin_tiny_patch4_window7_224",
        ),
        ({"name": "vit_tiny_patch16_224", "context": {"blocks": {"block": "gcnet"}}}, "It has: none"),
        (
            {"name": "seresnet50", "context": {"layer3": {"block": "gcnet", "where": "shortcut"}}},
            "seresnet50 has a block of its own there",
        ),
        ({"context": {"layer3": {"block": "ccnet", "where": "before_last"}}}, "resnet10t has one residual block there"),
        ({"changes": {"deformable": [True]}}, "deformable [True] has 1 values, but resnet10t has 4 stages"),
        ({"changes": {"deformable": [False, False, False, True]}}, "resnet10t has no bottlenecks"),
        ({"name": "convnext_atto", "changes": {"stride_in_1x1": True}}, "convnext_atto is no ResNet"),
    ],
)
def test_what_a_backbone_cannot_have_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        TimmBackbone(**{"name": "resnet10t"} | options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_that_cannot_be_fetched_are_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        InputError, match=r"Cannot fetch the pretrained weights of resnet10t .*pretrained: false"
    ) as caught:
        TimmBackbone("resnet10t", pretrained=True)
    assert "\n" not in str(caught.value)


def dilations(backbone: TimmBackbone) -> list[list[int]]:
    """Dilation of each residual block's 3x3 convolutions, stage by stage."""
    return [
        [
            module.dilation[0]
            for block in residual_blocks(getattr(backbone.model, f"layer{stage}"))
            for module in (block.conv1, block.conv2)
            if module.kernel_size == (3, 3)
        ]
        for stage in (1, 2, 3, 4)
    ]


@pytest.mark.parametrize(
    ("name", "output_stride", "changes", "expected"),
    [
        ("resnet26", 8, {}, [[1, 1], [1, 1], [1, 2], [2, 4]]),
        ("resnet26", 16, {"multi_grid": [1, 2]}, [[1, 1], [1, 1], [1, 1], [1, 2]]),
        ("resnet26", 32, {"dilations": [1, 1, 2, 4]}, [[1, 1], [1, 1], [1, 2], [2, 4]]),
        ("resnet18", 8, {"conv2_dilation": 1}, [[1] * 4, [1] * 4, [1, 1, 2, 1], [2, 1, 4, 1]]),
    ],
)
@torch.no_grad()
def test_dilations(name: str, output_stride: int, changes: dict[str, Any], expected: list[list[int]]) -> None:
    backbone = tiny(name, output_stride=output_stride, changes=changes).eval()
    assert dilations(backbone) == expected
    last = backbone(torch.rand(1, 3, 65, 97))[-1]
    assert last.shape[-2:] == (-(-65 // output_stride), -(-97 // output_stride))


def test_a_deep_stem_is_timms_resnet_c() -> None:
    changed = tiny("resnet50", changes={"stem_type": "deep", "stem_width": 32})
    with torch.device("meta"):
        named = timm.create_model("resnet50c", features_only=True)
    shapes = [{key: value.shape for key, value in each.state_dict().items()} for each in (changed.model, named)]
    assert shapes[0] == shapes[1]


@torch.no_grad()
def test_hrnet_equals_timms_where_timm_can_run() -> None:
    backbone = tiny("hrnet_w18_small").eval()
    timms = timm.create_model(
        "hrnet_w18_small", features_only=True, feature_location="", out_indices=(1, 2, 3, 4)
    ).eval()
    timms.load_state_dict(backbone.model.state_dict())
    images = torch.rand(1, 3, 64, 96)
    for ours, theirs in zip(backbone(images), timms(images), strict=True):
        assert torch.equal(ours, theirs)
    bilinear = tiny("hrnet_w18_small", changes={"upsample": "bilinear"}).eval()
    bilinear.load_state_dict(backbone.state_dict())
    assert not torch.allclose(bilinear(images)[0], backbone(images)[0])
    assert backbone.size_multiple == bilinear.size_multiple == 1
    assert [tuple(x.shape[-2:]) for x in bilinear(torch.rand(1, 3, 65, 31))] == [(17, 8), (9, 4), (5, 2), (3, 1)]


CONTEXTS = [  # name, stage, where, parameter of the first block, how many blocks
    ("resnet10t", "layer3", "stage", "model.layer3.context.mask.weight", 1),
    ("resnet26", "layer3", "last", "model.layer3.1.act3.1.mask.weight", 1),
    ("resnet26", "layer3", "every", "model.layer3.0.act3.1.mask.weight", 2),
    ("resnet26", "layer3", "inside", "model.layer3.0.aa.1.mask.weight", 2),
    ("resnet10t", "layer3", "inside", "model.layer3.0.aa.1.mask.weight", 1),
    ("convnext_atto", "stages_2", "stage", "model.stages_2.blocks.context.mask.weight", 1),
    ("hrnet_w18_small", "stage3", "stage", "model.stage3.context.0.mask.weight", 3),
    ("hrnet_w18_small", "stage3", "last", "model.stage3.0.branches.0.1.act2.1.mask.weight", 3),
    ("hrnet_w18_small", "stage3", "every", "model.stage3.0.branches.0.0.act2.1.mask.weight", 6),
    ("hrnet_w18_small", "layer1", "inside", "model.layer1.0.aa.1.mask.weight", 1),
    ("resnet26", "layer3", "shortcut", "model.layer3.0.se.mask.weight", 2),
    ("hrnet_w18_small", "stage3", "shortcut", "model.stage3.0.branches.0.0.se.mask.weight", 6),
    ("resnet26", "layer3", "before_last", "model.layer3.0.act3.1.mask.weight", 1),
    ("hrnet_w18_small", "stage3", "before_last", "model.stage3.0.branches.0.0.act2.1.mask.weight", 3),
]


@pytest.mark.parametrize(("name", "stage", "where", "parameter", "count"), CONTEXTS)
def test_context_stands_where_asked(name: str, stage: str, where: str, parameter: str, count: int) -> None:
    plain = tiny(name)
    for module in plain.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)  # timm starts residual branches at zero
    backbone = tiny(name, context={stage: {"block": "gcnet", "where": where, "ratio": 0.5}})
    blocks = [module for module in backbone.modules() if isinstance(module, GlobalContext)]
    assert len(blocks) == count
    assert backbone.get_parameter(parameter) is not None
    missing, unexpected = backbone.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected  # the network's own names stay
    assert all(any(each in name for each in ("context.", "act2.1.", "act3.1.", "aa.1.", "se.")) for name in missing)

    images = torch.rand(2, 3, 64, 64)
    plain.eval(), backbone.eval()
    untouched = [torch.equal(a, b) for a, b in zip(plain(images), backbone(images), strict=True)]
    assert all(untouched)  # a new global context block adds nothing
    for block in blocks:
        for each in block.modules():
            if isinstance(each, nn.Conv2d):
                nn.init.normal_(each.weight, std=0.5)
    for candidate in (backbone, copy.deepcopy(backbone)):
        changed = [not torch.equal(a, b) for a, b in zip(plain(images), candidate(images), strict=True)]
        assert changed[-1]
        assert changed[0] == (name == "hrnet_w18_small")  # HRNet's branches meet again, a ResNet's levels do not
    sum(level.square().mean() for level in backbone(images)).backward()
    assert all(block.mask.weight.grad is not None for block in blocks)


def test_inside_is_behind_the_convolution() -> None:
    """Polarized attention in a bottleneck: conv, BN, ReLU, attention, and only then the last convolution."""
    backbone = tiny("resnet26", context={"layer3": {"block": "polarized", "where": "inside", "mode": "sequential"}})
    seen: dict[str, Tensor] = {}
    block = backbone.model.layer3[0]
    attention = next(module for module in block.modules() if isinstance(module, PolarizedSelfAttention))
    block.act2.register_forward_hook(lambda *args: seen.update(before=args[2]))
    attention.register_forward_hook(lambda *args: seen.update(inside=args[1][0], after=args[2]))
    block.conv3.register_forward_hook(lambda *args: seen.update(last=args[1][0]))
    backbone.eval()(torch.rand(1, 3, 64, 64))
    assert torch.equal(seen["inside"], seen["before"])
    assert torch.equal(seen["last"], seen["after"])


def test_hrnet_ocr_and_polarized_attention_train() -> None:
    recipe = Path(__file__).parents[2] / "configs" / "recipes" / "hrnet_ocr_polarized.yaml"
    model_config = yaml.safe_load(recipe.read_text())["model"]
    options = model_config["backbone"]["init_args"] | {"name": "hrnet_w18_small", "pretrained": False}
    backbone = tiny(**options)
    attentions = [name for name, module in backbone.named_modules() if isinstance(module, PolarizedSelfAttention)]
    basic = [
        block for stage in ("stage2", "stage3", "stage4") for block in residual_blocks(getattr(backbone.model, stage))
    ]
    assert len(attentions) == len(basic)
    assert not any("layer1" in name for name in attentions)

    head = OCRNet(backbone.channels, 3, **model_config["head"]["init_args"] | {"channels": 16, "coarse_channels": 24})
    model = Segmentor(backbone, head)
    logits, side = model.outputs(torch.rand(2, 3, 65, 49))
    assert logits.shape == (2, 3, 65, 49)
    (logits.square().mean() + side[0].logits.square().mean()).backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not without
