"""What weights say of themselves: read back as it was written, from every file that ships."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from weights import describe_tiny

from lightning_app.tools.publish_entry import _split
from lightning_app.util.errors import InputError
from lightning_app.weights.description import HEADER, Data, Description, Metrics
from lightning_app.weights.published import SHIPS

SHIPPED = sorted(path for path in SHIPS.glob("*/*.safetensors") if path.parent.name != "shared")  # those are parts


def test_every_shipped_header_is_read_back_as_it_was_written() -> None:
    assert len(SHIPPED) > 60
    for path in SHIPPED:
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
        description = Description.from_header(metadata, path)
        written, now = json.loads(metadata[HEADER]), description.as_dict()
        assert description.task == now.pop("task") == written.pop("task", "semantic")
        if "miou" in written["metrics"]:  # of before there were several tasks
            written["metrics"]["figures"] = {"mIoU": written["metrics"].pop("miou")}
        now["metrics"] = {key: now["metrics"][key] for key in written["metrics"]}  # older files name no split
        assert now == written
        assert Description.from_header(description.as_header(), path) == description


def test_a_key_of_a_later_release_is_left_alone() -> None:
    content = describe_tiny(later=1, metrics={"miou": 50, "later": [1]})
    assert Description.from_dict(content, "x").metrics == Metrics({"mIoU": 50.0})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training": {"iterations": "many"}}, "x: its training cannot have iterations = many"),
        ({"training": {"iterations": 1}}, "x: its training cannot be built: TypeError"),
        ({"training": [1]}, r"x: its training is \[1\], not names and values"),
        ({"metrics": {"miou": "50"}}, r"x: its metrics cannot have figures = {'mIoU': '50'}"),
        ({"data": {"class_path": 5}}, "x: its data is "),
    ],
)
def test_a_wrong_field_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Description.from_dict(describe_tiny(**changes), Path("x"))


@pytest.mark.parametrize(
    ("data", "split"),
    [
        (Data("lightning_app.data.COCOStuff", {"version": "10k"}), "test"),  # which has no val
        (Data("lightning_app.data.COCOStuff", {"version": "164k"}), "val"),
        (Data("lightning_app.data.COCOStuff", {"val_split": "train"}), "train"),
        (Data("lightning_app.data.ContextProbe", {}), "val"),
        (Data("lightning_app.data.Folder", {"classes": None}), "val"),
    ],
)
def test_the_split_of_a_figure_is_the_datamodules(data: Data, split: str) -> None:
    description = Description.from_dict(describe_tiny(), "x")
    assert _split(replace(description, data=data, metrics=Metrics({"mIoU": 50.0}, "measured"))) == split
