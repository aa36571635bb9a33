"""Every published entry of the index converts: names and shapes of mmsegmentation 1.2.2, taken from models it built.

``goldens/openmmlab_names.json.gz`` is written by ``scripts/compare_mmseg.py --names``.
"""

import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import zoo
from lightning_app.backbones.base import Backbone
from lightning_app.backbones.timm import TimmBackbone
from lightning_app.heads.semantic_fpn import SemanticFPN
from lightning_app.tasks.semantic.network import Segmentor
from lightning_app.util.errors import InputError
from lightning_app.weights.openmmlab import convert as openmmlab
from lightning_app.weights.openmmlab.backbones import backbone_arguments, new_backbone
from lightning_app.weights.openmmlab.heads import joined
from lightning_app.weights.openmmlab.published import upstream_config
from lightning_app.weights.parts import new_segmentor
from zoo.datasets import backbones
from zoo.tasks.semantic import details_of

ENTRIES = [entry for entry in zoo.list_entries(task="semantic") if entry.format == "openmmlab"]
ONE_OF_EACH_HEAD = list({entry.head: entry for entry in ENTRIES}.values())
A_FEW = [  # another library's network, other batch norms, another network's pretraining statistics, three branches
    next(entry for entry in ENTRIES if entry.backbone.upstream["type"] == kind)
    for kind in ("MixVisionTransformer", "MobileNetV3", "VisionTransformer", "ICNet")
]
PARTS = ("backbone", "decode_head", "auxiliary_head")
FOREIGN_TO_NAMES = (
    "loss_decode",
    "loss_se_decode",
    "sampler",
    "align_corners",
    "init_cfg",
    "dropout_ratio",
    "norm_cfg",
)


@cache
def published() -> dict[str, dict[str, list[int]]]:
    """A part's config, without what its tensors do not depend on -> name and shape of each tensor."""
    content = gzip.decompress((Path(__file__).parents[1] / "goldens" / "openmmlab_names.json.gz").read_bytes())
    parts: dict[str, dict[str, list[int]]] = json.loads(content)
    return parts


def part_key(config: Any) -> str:
    """As in ``scripts/compare_mmseg.py``."""

    def keep(table: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in table.items() if key not in FOREIGN_TO_NAMES}

    return json.dumps(json.loads(json.dumps(config), object_hook=keep), sort_keys=True)


def state_of(row: dict[str, Any]) -> dict[str, Tensor]:
    """The published model's tensors, without values."""
    return {
        f"{part}.{name}": torch.empty(shape, device="meta")
        for part in PARTS
        if row[part]
        for name, shape in published()[part_key(row[part])].items()
    }


@pytest.fixture
def shared_backbones(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backbone that many entries have is built once."""
    built: dict[str, Backbone] = {}

    def build(config: dict[str, Any], neck: dict[str, Any] | None) -> Backbone:
        key = json.dumps([config, neck])
        if key not in built:
            built[key] = new_backbone(config, neck)
        return built[key]

    monkeypatch.setattr(openmmlab, "new_backbone", build)


def test_there_are_as_many_entries_as_the_documents_say() -> None:
    assert len(ENTRIES) == 440 + 136 + 1  # of mmsegmentation's 626, those whose backbone timm or smp has; a project's


@pytest.mark.usefixtures("shared_backbones")
@pytest.mark.parametrize(
    "entries", [ONE_OF_EACH_HEAD, pytest.param(ENTRIES, marks=pytest.mark.slow)], ids=["some", "all"]
)
def test_entries_convert(entries: list[zoo.ZooEntry]) -> None:
    """Those whose tensors' names were written down."""
    converted: dict[str, Segmentor] = {}
    for entry in entries:
        row = upstream_config(entry)
        if any(row[part] and part_key(row[part]) not in published() for part in PARTS):
            continue
        key = part_key({part: row[part] for part in PARTS})
        if key not in converted:
            with torch.device("meta"):
                converted[key] = openmmlab.load_checkpoint(state_of(row), row)
        protocol = openmmlab.protocol_of(row)
        details = details_of(entry)
        assert (protocol.crop, protocol.stride) == (details.window, details.stride)
        assert protocol.align_corners == details.align_corners
    assert converted


@pytest.mark.parametrize(
    "entries",
    [A_FEW, pytest.param(ENTRIES, marks=pytest.mark.slow)],
    ids=["some", "all"],
)
def test_the_parts_of_an_entry_rebuild_its_model(entries: list[zoo.ZooEntry]) -> None:
    """In our own words, as a converted file holds them: the same tensors, and the same statistics of the images."""
    for entry in entries:
        row = upstream_config(entry)
        with torch.device("meta"):
            model = openmmlab.new_segmentor(row)
            rebuilt = new_segmentor(openmmlab.parts_of(row), joined(row["decode_head"])["num_classes"], entry.id)
        shapes, expected = ({n: t.shape for n, t in each.state_dict().items()} for each in (rebuilt, model))
        assert shapes == expected, entry.id
        assert rebuilt.backbone.mean == pytest.approx(model.backbone.mean, abs=1e-5), entry.id
        assert rebuilt.backbone.std == pytest.approx(model.backbone.std, abs=1e-5), entry.id


@pytest.mark.parametrize("slug", sorted({entry.backbone.slug for entry in ENTRIES}))
def test_the_index_says_in_timms_words_what_upstream_says_in_its_own(slug: str) -> None:
    known = backbones()[slug]
    row = next(upstream_config(entry) for entry in ENTRIES if entry.backbone.slug == slug)
    arguments = backbone_arguments(row["backbone"])
    assert known.name.endswith(arguments["name"])
    changes = arguments.get("changes", {})
    stride = arguments.get("output_stride")
    if known.changes != {key: value for key, value in changes.items() if key != "patch_bias"}:  # a file says the bias
        with torch.device("meta"):  # timm's own, where it has them
            ours = TimmBackbone(known.name, stride, changes=dict(known.changes))
            assert str(ours.model) == str(new_backbone(row["backbone"]).model)
    assert known.output_stride == stride or stride is None or known.name.startswith(("ICNet", "BiSeNet"))


def row_of(id: str) -> dict[str, Any]:
    return upstream_config(zoo.get(id))


def test_the_constants_are_those_of_the_preprocessing() -> None:
    row = row_of("fcn_r18b-d8_cityscapes-512x1024_80k")
    row["preprocess"] |= {"mean": [51.0, 102.0, 127.5], "std": [25.5, 51.0, 255.0]}
    with torch.device("meta"):
        model = openmmlab.load_checkpoint(state_of(row), row)
    model = model.to_empty(device="cpu").double()
    assert model.mean.flatten().tolist() == [0.2, 0.4, 0.5]
    assert model.std.flatten().tolist() == [0.1, 0.2, 1.0]
    row["preprocess"]["bgr_to_rgb"] = False
    with pytest.raises(InputError, match="bgr_to_rgb=False is not supported"):
        openmmlab.new_segmentor(row)


@pytest.mark.usefixtures("shared_backbones")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"decode_head.conv_seg.bias": None}, "1 missing: head.classifier.bias"),
        ({"decode_head.extra.weight": [1]}, "1 unknown: head.extra.weight"),
        ({"teacher.weight": [1]}, "1 unknown: teacher.weight"),
        ({"backbone.conv1.weight": [64, 4, 7, 7]}, r"1 of another shape: .*\[64, 4, 7, 7\] instead of \[64, 3, 7, 7\]"),
    ],
)
def test_tensors_that_do_not_fit_are_named(change: dict[str, list[int] | None], message: str) -> None:
    row = row_of("fcn_r18b-d8_cityscapes-512x1024_80k")
    state = state_of(row)
    for name, shape in change.items():
        state.pop(name, None)
        if shape:
            state[name] = torch.empty(shape, device="meta")
    with torch.device("meta"), pytest.raises(InputError, match=f"do not fit the model: {message}"):
        openmmlab.load_checkpoint(state, row)


@pytest.mark.usefixtures("shared_backbones")
def test_step_counters_may_be_missing() -> None:
    row = row_of("fcn_r18b-d8_cityscapes-512x1024_80k")
    state = {name: tensor for name, tensor in state_of(row).items() if not name.endswith("num_batches_tracked")}
    with torch.device("meta"):
        assert openmmlab.load_checkpoint(state, row).training is False


def test_an_auxiliary_head_that_the_config_lacks_is_unknown() -> None:
    row = row_of("fcn_r18b-d8_cityscapes-512x1024_80k")
    state = state_of(row)
    with torch.device("meta"), pytest.raises(InputError, match="unknown: auxiliary_head"):
        openmmlab.load_checkpoint(state, {**row, "auxiliary_head": None})


RESNET = {"type": "ResNet", "depth": 18, "norm_cfg": {"type": "BN"}}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"type": "MSCAN"}, 'backbone "MSCAN" has no counterpart'),
        (RESNET | {"stem_channels": 32}, "stem_channels=32"),
        (RESNET | {"plugins": [{"cfg": {"type": "SE"}, "stages": [True], "position": "after_conv3"}]}, "'SE'"),
        (RESNET | {"plugins": [{"cfg": {"type": "SE"}, "stages": [True], "position": "after_conv1"}]}, "after_conv1"),
        (RESNET | {"dcn": {"type": "DCNv2"}}, "DCNv2"),
        (RESNET | {"strides": [2, 2, 2, 2]}, r"strides \[2, 2, 2, 2\]"),
        (RESNET | {"norm_cfg": {"type": "GN"}}, "normalisation 'GN'"),
        ({"type": "HRNet", "extra": {f"stage{i}": {"num_modules": 9} for i in range(1, 5)}}, "HRNet with these stages"),
    ],
)
def test_a_backbone_without_counterpart_is_named(config: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        new_backbone(config)


def test_semantic_fpn_brings_its_neck() -> None:
    norm = {"type": "BN"}
    levels = {"in_channels": [16] * 4, "in_index": [0, 1, 2, 3], "feature_strides": [4, 8, 16, 32]}
    row = {
        "backbone": RESNET,
        "neck": {"type": "FPN", "in_channels": [64, 128, 256, 512], "out_channels": 16, "num_outs": 4},
        "decode_head": {"type": "FPNHead", **levels, "channels": 8, "num_classes": 3, "norm_cfg": norm},
    }

    def unit(name: str, *shape: int) -> dict[str, Tensor]:
        norms = {
            f"{name}.bn.{each}": torch.rand(shape[0]) for each in ("weight", "bias", "running_mean", "running_var")
        }
        return {f"{name}.conv.weight": torch.rand(shape), f"{name}.bn.num_batches_tracked": torch.tensor(1), **norms}

    state = {f"backbone.{name}": tensor for name, tensor in new_backbone(RESNET).model.state_dict().items()}
    for i, width in enumerate((64, 128, 256, 512)):
        for name, shape in ((f"lateral_convs.{i}", (16, width, 1, 1)), (f"fpn_convs.{i}", (16, 16, 3, 3))):
            state |= {f"neck.{name}.conv.weight": torch.rand(shape), f"neck.{name}.conv.bias": torch.rand(16)}
        for step in range(max(i, 1)):
            state |= unit(f"decode_head.scale_heads.{i}.{2 * step}", 8, 8 if step else 16, 3, 3)
    state |= {"decode_head.conv_seg.weight": torch.rand(3, 8, 1, 1), "decode_head.conv_seg.bias": torch.rand(3)}
    model = openmmlab.load_checkpoint(state, row)
    assert isinstance(model.head, SemanticFPN)
    assert model.head.fpn is not None
    assert torch.equal(model.head.fpn.laterals[1].bias, state["neck.lateral_convs.1.conv.bias"])
    assert model(torch.rand(1, 3, 65, 33)).shape == (1, 3, 65, 33)
