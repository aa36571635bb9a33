"""The index: what it says of the published weights, and what it says of a file that is wrong."""

import json
import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from entries import OWN

import zoo
from lightning_app.weights.openmmlab.published import upstream_config
from zoo import index
from zoo.datasets import Backbone, datasets
from zoo.errors import ZooError
from zoo.values import FieldError
from zoo.writing import TRAINED_HERE, add

PUBLISHED = Path(__file__).parents[3] / "shared" / "openmmlab" / "published_checkpoints.json"
ROWS = Path(__file__).parents[1] / "goldens" / "openmmlab_rows.json"  # a few of the same rows, one of each kind
KEYS = ("backbone", "neck", "decode_head", "auxiliary_head", "segmentor", "test_cfg", "preprocess")
OTHER_FILE = {  # rows that name the config of a neighbour; the address names another backbone
    "deeplabv3plus_r101-d8_pascal-context-480x480_40k": {"depth": 101},
    "deeplabv3plus_r101-d8_pascal-context-480x480_80k": {"depth": 101},
    "pspnet_r50-d32_cityscapes-512x1024_80k": {"type": "ResNetV1c"},
    "semantic_fpn_r101_ade20k-512x512_160k": {"depth": 101},
}
PER_HEAD = {
    "ann": 16,
    "apcnet": 12,
    "ccnet": 16,
    "danet": 16,
    "deeplabv3": 49,
    "deeplabv3plus": 47,
    "dmnet": 12,
    "dnlnet": 12,
    "dpt": 1,
    "emanet": 4,
    "encnet": 16,
    "fcn": 106,
    "gcnet": 16,
    "isanet": 16,
    "isnet": 1,
    "knet": 7,
    "lraspp": 4,
    "mask2former": 13,
    "maskformer": 4,
    "nonlocal_net": 16,
    "ocrnet": 24,
    "pointrend": 4,
    "psanet": 16,
    "pspnet": 62,
    "segformer": 13,
    "segmenter": 4,
    "semantic_fpn": 15,
    "setr": 4,
    "setr_mla": 3,
    "upernet": 48,
}


def published(entries: list[zoo.ZooEntry]) -> list[zoo.ZooEntry]:
    return [entry for entry in entries if entry.format == "openmmlab"]


def assert_same_config(rows: list[dict[str, Any]]) -> None:
    by_file = {entry.url.rpartition("/")[2]: entry for entry in zoo.list_entries()}
    for row in rows:
        entry = by_file[row["weights"].rpartition("/")[2]]
        expected = {key: row[key] for key in KEYS}
        expected["backbone"] = expected["backbone"] | OTHER_FILE.get(entry.id, {})
        if entry.head == "pointrend":  # how often a map is doubled stands with the head that does it
            told = {key: value for key, value in expected["test_cfg"].items() if key != "mode"}
            coarse, fine = expected["decode_head"]
            expected["decode_head"] = [coarse, fine | {"norm_cfg": coarse["norm_cfg"], "subdivision": told}]
            expected["test_cfg"] = {"mode": "whole"}
        assert upstream_config(entry) == expected, entry.id
        assert (entry.metrics["mIoU"], entry.metrics.get("mIoU_ms"), entry.memory_gb) == (
            row["miou"],
            row["miou_ms_flip"],
            row["train_memory_gb"],
        )
        assert list(entry.details.crop) == row["crop_size"]
        assert entry.batch == (16 if entry.id.endswith("jpu_cityscapes-512x1024_80k-b16") else row["batch_size"])
        if entry.head == row["family"]:  # others are called after their backbone or neck
            assert entry.paper == row["paper"]


def test_copied_rows_come_back_whole() -> None:
    assert_same_config(json.loads(ROWS.read_text()))


@pytest.mark.skipif(not PUBLISHED.exists(), reason="the list of published checkpoints is not here")
def test_every_published_row_comes_back_whole() -> None:
    rows = json.loads(PUBLISHED.read_text())
    assert_same_config(rows)
    assert len(rows) == 440


def test_published_weights_of_every_head() -> None:
    entries = index.check()
    assert Counter(entry.head for entry in published(zoo.list_entries(task="semantic"))) == PER_HEAD
    assert len({entry.id for entry in entries}) == len(entries)
    for entry in published(zoo.list_entries(task="semantic")):
        assert entry.url.startswith("https://download.openmmlab.com/mmsegmentation/")
        assert entry.url.endswith(f"-{entry.sha256}.pth")
        assert f"_{entry.iterations // 1000}k" in entry.id
        assert "{}x{}".format(*entry.details.crop) in entry.id


@pytest.mark.parametrize(
    ("id", "expected"),
    [
        (
            "ccnet_r50-d8_cityscapes-512x1024_40k",
            {"metrics": {"mIoU": 77.76, "mIoU_ms": 78.87}, "lr": 0.01, "window": None, "align_corners": False},
        ),
        ("psanet_r101-d8_cityscapes-769x769_80k", {"window": (769, 769), "stride": (513, 513), "align_corners": True}),
        ("pspnet_r101-d8_pascal-context-59-480x480_80k", {"lr": 0.004, "stride": (320, 320), "split": "val"}),
        ("ocrnet_r101-d8_cityscapes-512x1024_80k-b16", {"lr": 0.02, "batch": 16, "auxiliary_head": None}),
        ("pspnet_r50b-d32-rsb_cityscapes-512x1024_80k-adamw", {"optimizer": "AdamW", "lr": 0.0005}),
        ("deeplabv3plus_r50-d8_mapillary-1280x1280_300k", {"optimizer": "AdamW", "iterations": 300_000}),
        ("fcn_r50b-d16_cityscapes-512x1024_80k-d6", {"head": "fcn", "name": "FCN"}),
        ("ann_r101-d8_voc12aug-512x512_40k", {"iterations": 40_000}),  # upstream's list says 20 000
        (
            "ocrnet_hr18_ade20k-512x512_160k",
            {"metrics": {"mIoU": 39.32, "mIoU_ms": 40.8}, "iterations": 160_000},
        ),  # a name that stands twice
    ],
)
def test_facts_of_an_entry(id: str, expected: dict[str, Any]) -> None:
    entry = zoo.get(id)
    assert {name: entry.as_dict()[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("id", "name", "output_stride", "changes"),
    [
        ("ccnet_r101-d8_ade20k-512x512_80k", "resnet101c", 8, {}),
        ("upernet_r50_ade20k-512x512_80k", "resnet50c", 32, {}),
        ("pspnet_r50-d32_cityscapes-512x1024_80k", "resnet50c", 32, {"dilations": [1, 1, 2, 4]}),
        ("deeplabv3_r101-d16-mg124_cityscapes-512x1024_40k", "resnet101c", 16, {"multi_grid": [1, 2, 4]}),
        ("fcn_r18b-d8_cityscapes-769x769_80k", "resnet18", 8, {"conv2_dilation": 1}),
        ("ocrnet_hr18s_voc12aug-512x512_20k", "hrnet_w18_small_v2", 4, {"upsample": "bilinear"}),
    ],
)
def test_backbone_in_timms_words(id: str, name: str, output_stride: int, changes: dict[str, Any]) -> None:
    backbone = zoo.get(id).backbone
    assert (backbone.name, backbone.output_stride, backbone.changes) == (name, output_stride, changes)


def test_upstream_config_is_a_copy() -> None:
    entry = zoo.get("ccnet_r50-d8_cityscapes-512x1024_40k")
    upstream_config(entry)["decode_head"]["norm_cfg"]["type"] = "changed"
    assert upstream_config(entry)["decode_head"]["norm_cfg"]["type"] == "SyncBN"


def test_published_weights_have_a_second_home() -> None:
    for entry in published(zoo.list_entries(task="semantic")):
        assert entry.mirrors == (entry.url.replace("download.openmmlab.com", "mmassets.onedl.ai"),)


def test_datasets() -> None:
    known = datasets()
    counts = {slug: len(dataset.classes) for slug, dataset in known.items()}
    assert counts["cityscapes"] == 19
    assert counts["ade20k"] == 150
    assert counts["pascal-context"] == counts["pascal-context-59"] + 1 == 60
    assert counts["coco-stuff10k"] == counts["coco-stuff164k"] == 171
    assert known["cityscapes"].classes[8] == "vegetation"
    assert known["cityscapes"].palette[8] == "6b8e23"
    assert known["ade20k"].classes[149] == "flag"
    for dataset in known.values():
        assert all(re.fullmatch("[0-9a-f]{6}", colour) for colour in dataset.palette)
        assert dataset.terms
        assert dataset.commercial in ("yes", "no", "unclear")


def test_filters() -> None:
    assert {entry.head for entry in zoo.list_entries(head="ccnet")} == {"ccnet"}
    best = zoo.list_entries(dataset="cityscapes", min_miou=81)
    assert "ocrnet_hr48_cityscapes-512x1024_160k" in {entry.id for entry in best}
    assert all(entry.metrics["mIoU"] >= 81 and entry.dataset == "cityscapes" for entry in best)
    assert len(zoo.list_entries(head="fcn", backbone="r50b-d16")) == 2
    assert {entry.backbone.slug for entry in zoo.list_entries(head="fcn", backbone="resnet50")} == {
        "r50b-d16",
        "r50b-d8",
    }
    assert all(entry.commercial == "yes" for entry in zoo.list_entries(commercial=True))


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"head": "ccent"}, 'Unknown head "ccent". Did you mean "ccnet"?'),
        ({"dataset": "cityscape"}, 'Unknown dataset "cityscape". Did you mean "cityscapes"?'),
        ({"backbone": "resnet50e"}, 'Unknown backbone "resnet50e". Did you mean "resnet50'),
    ],
)
def test_a_misspelt_filter_names_the_closest(filters: dict[str, Any], message: str) -> None:
    with pytest.raises(ZooError, match=re.escape(message)):
        zoo.list_entries(**filters)


@pytest.mark.parametrize(
    "misspelt",
    [
        "ccnet_r50-d8_cityscapes-512x1024_4k",
        "ccnet_r50-d8_4xb2-40k_cityscapes-512x1024",
    ],  # the second is upstream's name
)
def test_an_unknown_id_names_the_closest(misspelt: str) -> None:
    with pytest.raises(ZooError, match=r'Did you mean "ccnet_r50-d8_cityscapes-512x1024_40k"\?'):
        zoo.get(misspelt)


ENTRY = """
[entry.toy_r50-d8_cityscapes-512x512_1k]
backbone = "r50-d8"
decode_head = { type = "ToyHead" }
dataset = "cityscapes"
split = "val"
crop = [512, 512]
align_corners = false
metrics = { mIoU = 70.0 }
metrics_source = "measured"
iterations = 1000
batch = 8
optimizer = "SGD"
lr = 0.01
url = "https://weights.invalid/toy-0123abcd.pth"
sha256 = "0123abcd"
format = "openmmlab"
code_licence = "MIT"
weights_licence = "MIT"
"""
HEADER = 'name = "Toy"\npaper = "none"\n'


def write(folder: Path, text: str) -> Path:
    path = folder / "semantic" / "toy.toml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def test_a_good_file_is_read(tmp_path: Path) -> None:
    (entry,) = index.read(write(tmp_path, HEADER + ENTRY))
    assert (entry.id, entry.head, entry.name) == ("toy_r50-d8_cityscapes-512x512_1k", "toy", "Toy")
    assert entry.data_licence == datasets()["cityscapes"].terms
    assert entry.commercial == "no"


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        (
            "metrics = { mIoU = 70.0 }",
            "metric = { mIoU = 70.0 }",
            11,
            'unknown key "metric" in entry.toy_r50-d8_cityscapes-512x512_1k. Did you mean "metrics"?',
        ),
        ("mIoU = 70.0", 'mIoU = "70"', 11, "metrics: {'mIoU': '70'}: mIoU must be per cent, 0 to 100"),
        ("mIoU = 70.0", "mIoU = 170.0", 11, "metrics: {'mIoU': 170.0}: mIoU must be per cent, 0 to 100"),
        ("mIoU = 70.0", "mIoU_ms = 70.0", 11, "metrics: {'mIoU_ms': 70.0}: needs mIoU"),
        ("mIoU = 70.0", "mIoU = 70.0, AP = 1.0", 11, "AP is none of mIoU, mIoU_ms"),
        ("iterations = 1000", "iterations = 1000\nepochs = 5", 13, "iterations: 1000: iterations or epochs, one of"),
        ("iterations = 1000\n", "", 4, "iterations: None: iterations or epochs, one of the two"),
        ("align_corners = false\n", "", 4, "align_corners: None: true or false"),
        ('sha256 = "0123abcd"', 'sha256 = "0123ABCD"', 18, "sha256: '0123ABCD': 64 lower-case hexadecimal digits"),
        ('sha256 = "0123abcd"', 'sha256 = "0123abc"', 18, "sha256: '0123abc'"),
        ('weights_licence = "MIT"\n', "", 4, "weights_licence: is missing"),
        ('weights_licence = "MIT"', 'weights_licence = ""', 21, "weights_licence: is empty"),
        ('backbone = "r50-d8"', 'backbone = "r50-d9"', 5, "backbone: 'r50-d9' is not known. Did you mean \"r50-d8\"?"),
        ('backbone = "r50-d8"', 'backbone = { name = "resnet50" }', 5, "needs upstream, the published model's config"),
        ('dataset = "cityscapes"', 'dataset = "citiscapes"', 7, 'Did you mean "cityscapes"?'),
        ("crop = [512, 512]", 'crop = [512, "512"]', 9, "crop: (512, '512'): [height, width]"),
        (
            "crop = [512, 512]",
            "crop = [512, 512]\nwindow = [512, 512]",
            4,
            "stride: None: window and stride go together",
        ),
        ('{ type = "ToyHead" }', "{ channels = 3 }", 6, "decode_head: {'channels': 3}: needs a type"),
        (
            '"https://weights.invalid/toy-0123abcd.pth"',
            '"ftp://weights.invalid/x"',
            17,
            "url: 'ftp://weights.invalid/x'",
        ),
        ('"https://weights.invalid/toy-0123abcd.pth"', '"checkpoints/../x.pth"', 17, "url: 'checkpoints/../x.pth'"),
        (
            '"https://weights.invalid/toy-0123abcd.pth"',
            '"checkpoints/toy.pth"',
            18,
            "ships with the repository needs all 64",
        ),
        ('format = "openmmlab"', 'format = "onnx"', 19, "format: 'onnx': openmmlab or torchvision or safetensors"),
        ("entry.toy_", "entry.other_", 4, 'must start with "toy_", after the name of its file'),
        ("lr = 0.01", "lr = ", 16, "Invalid value"),
        ('name = "Toy"', "", 1, "name is missing"),
    ],
)
def test_a_wrong_file_is_named_with_its_line(tmp_path: Path, old: str, new: str, line: int, message: str) -> None:
    text = HEADER + ENTRY
    assert old in text
    path = write(tmp_path, text.replace(old, new))
    with pytest.raises(ZooError) as caught:
        index.read(path)
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_id_that_stands_twice_is_named_with_its_line(tmp_path: Path) -> None:
    path = write(tmp_path, HEADER + ENTRY + ENTRY)
    with pytest.raises(ZooError, match=rf"{re.escape(str(path))}:23: "):
        index.read(path)


def test_a_wrong_default_is_named_where_it_stands(tmp_path: Path) -> None:
    text = HEADER + "\n[defaults]\nlr = 0\n" + ENTRY.replace("lr = 0.01\n", "").replace('format = "openmmlab"\n', "")
    path = write(tmp_path, text.replace("lr = 0\n", 'lr = 0\nformat = "openmmlab"\n'))
    with pytest.raises(ZooError, match=r"toy\.toml:5: .*lr: 0: a positive number"):
        index.read(path)


def test_one_file_in_two_entries_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, HEADER + ENTRY + ENTRY.replace("_1k]", "_2k]"))
    monkeypatch.setattr(index, "INDEX", tmp_path)
    with pytest.raises(ZooError, match=r"toy\.toml:36: toy_.*_2k and toy_.*_1k have the same file"):
        index.check()


def copy_of_ccnet(folder: Path) -> None:
    (folder / "semantic").mkdir()
    shutil.copy(index.file_of("semantic", "ccnet"), folder / "semantic")


def test_own_weights_are_added_below_the_published_ones(tmp_path: Path) -> None:
    copy_of_ccnet(tmp_path)
    before = index.read(index.file_of("semantic", "ccnet"))
    path = add("ccnet_resnet18_camvid-360x480_1k", "semantic", "ccnet", "CCNet", "unused", OWN, folder=tmp_path)
    *rest, entry = index.read(path)
    assert tuple(rest) == before
    assert entry.backbone == Backbone("resnet18", **OWN["backbone"])
    assert entry.sources == (OWN["url"], *OWN["mirrors"])
    assert (entry.metrics, entry.memory_gb, entry.commercial) == ({"mIoU": 60.25}, None, "unclear")
    assert path.read_text().count(f"\n{TRAINED_HERE}\n") == 1
    with pytest.raises(ZooError, match="is taken"):
        add(entry.id, "semantic", "ccnet", "CCNet", "unused", OWN, folder=tmp_path)
    with pytest.raises(ZooError, match="own config"):
        upstream_config(entry)


def test_wrong_own_weights_leave_the_index_as_it_was(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="weights_licence: is missing"):
        add(
            "glore_resnet18_x-1x1_1k",
            "semantic",
            "glore",
            "GloRe",
            "p",
            OWN | {"weights_licence": None},
            folder=tmp_path,
        )
    assert list(tmp_path.rglob("*.toml")) == []


def test_own_weights_inherit_nothing_from_published_ones(tmp_path: Path) -> None:
    copy_of_ccnet(tmp_path)
    with pytest.raises(ZooError, match="batch: is missing"):
        add("ccnet_resnet18_x-1x1_1k", "semantic", "ccnet", "CCNet", "p", OWN | {"batch": None}, folder=tmp_path)


def test_an_entry_checks_itself() -> None:
    with pytest.raises(FieldError, match="batch: 0: a positive number"):
        replace(zoo.get("ccnet_r50-d8_cityscapes-512x1024_40k"), batch=0)


def test_own_weights_tell_their_model_in_one_place() -> None:
    for entry in zoo.list_entries(task="semantic"):
        theirs = entry.format == "openmmlab"
        assert (entry.details.stages != []) is theirs, entry.id
        assert (entry.details.align_corners is not None) is theirs, entry.id
        assert (entry.backbone.output_stride is None) is (entry.format == "safetensors"), entry.id
