"""Exported detectors: as many objects as the network finds, in the same places, with unpasted masks."""

import json
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from commands import run
from torch import Tensor, nn

import contextzoo as cz
from lightning_app.backbones.base import Backbone
from lightning_app.export.graphs import Mismatch
from lightning_app.tasks.instance.network import InstanceSegmentor
from lightning_app.tasks.instance.paste import paste
from lightning_app.tasks.instance.photographs import _recorded_size, seen_size
from lightning_app.util.errors import InputError

ID = "mask-rcnn_efficientnet-lite0_nuclei-256x256_600"


class Halving(Backbone):
    """Levels of strides 4 and 8."""

    mean = (0.5, 0.5, 0.5)
    std = (0.25, 0.25, 0.25)

    def __init__(self) -> None:
        super().__init__()
        self.channels, self.reductions, self.size_multiple = [6, 8], [4, 8], 8
        self.fine = nn.Sequential(nn.Conv2d(3, 6, 4, 4), nn.ReLU())
        self.coarse = nn.Sequential(nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU())

    def forward(self, images: Tensor) -> list[Tensor]:
        fine = self.fine(images)
        return [fine, self.coarse(fine)]


class Lying(Halving):
    """Says something else where a graph is recorded."""

    def forward(self, images: Tensor) -> list[Tensor]:
        return [level + (1 if torch.compiler.is_exporting() else 0) for level in super().forward(images)]


def small(backbone: type[Backbone] = Halving, **options: Any) -> InstanceSegmentor:
    torch.manual_seed(0)
    options = {"channels": 8, "hidden": 16, "size": (128, 160)} | options
    network = InstanceSegmentor(backbone(), 3, **options).eval()
    for heads in [network.roi_heads] if not options.get("cascade") else network.roi_heads:
        nn.init.normal_(heads.box_predictor.cls_score.weight)
    return network


def of_onnx(path: str, image: Tensor) -> list[Tensor]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return [torch.from_numpy(each) for each in session.run(None, {"images": image.numpy()})]


def photograph(*size: int) -> Tensor:
    return torch.randint(0, 256, (1, 3, *size), generator=torch.Generator().manual_seed(1)) / 255


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
def test_onnx_finds_what_the_network_finds() -> None:
    network = small()
    done = cz.export(network, "objects.onnx")
    assert [check.batch for check in done.checks] == [1, 1, 1]
    assert str(done).count(" objects ") == 3
    for size in ((150, 90), (40, 300)):
        image = photograph(*size)
        with torch.no_grad():
            (expected,) = network(image)
        boxes, labels, scores, masks = of_onnx("objects.onnx", image)
        assert len(expected) > 10
        torch.testing.assert_close(boxes, expected.boxes, atol=1e-3, rtol=0)
        torch.testing.assert_close(scores, expected.scores, atol=1e-5, rtol=0)
        assert torch.equal(labels, expected.labels)
        assert masks.shape[1:] == (28, 28)
        pasted = paste(masks, boxes, size)
        assert (pasted == expected.masks).float().mean() > 0.999
    file = onnx.load("objects.onnx")
    sides = [
        [side.dim_param or side.dim_value for side in each.type.tensor_type.shape.dim] for each in file.graph.input
    ]
    assert sides == [[1, 3, "height", "width"]]
    assert [each.name for each in file.graph.output] == ["boxes", "labels", "scores", "masks"]
    assert {each.type.tensor_type.shape.dim[0].dim_param for each in file.graph.output} == {"objects"}
    facts = {each.key: each.value for each in file.metadata_props}
    assert json.loads(facts["mean"]) == [0.5, 0.5, 0.5]
    assert facts["output"].startswith("boxes (objects, 4) left, top, right, bottom")


@pytest.mark.slow
def test_where_nothing_is_found_files_give_nothing() -> None:
    network = small(score_threshold=1.0, size=None)
    done = cz.export(network, "objects.onnx")
    assert "0 objects" in str(done)
    assert [each.shape[0] for each in of_onnx("objects.onnx", photograph(64, 96))] == [0, 0, 0, 0]
    cz.export(network, "objects.pt2", to="pt2")
    program = torch.export.load("objects.pt2").module()
    assert [each.shape[0] for each in program(photograph(64, 96))] == [0, 0, 0, 0]


@pytest.mark.slow
def test_boxes_alone_in_three_rounds_as_a_program_of_torch_export() -> None:
    network = small(masks=False, cascade=True)
    cz.export(network, "objects.pt2", to="pt2")
    extra = {"contextzoo.json": ""}
    program = torch.export.load("objects.pt2", extra_files=extra).module()
    assert json.loads(extra["contextzoo.json"])["outputs"] == ["boxes", "labels", "scores"]
    image = photograph(100, 170)
    with torch.no_grad():
        (expected,) = network(image)
    boxes, labels, _ = program(image)
    torch.testing.assert_close(boxes, expected.boxes, atol=1e-3, rtol=0)
    assert torch.equal(labels, expected.labels)


@pytest.mark.slow
def test_what_differs_is_not_kept() -> None:
    with pytest.raises(Mismatch, match=r"At 1x3x192x256 it (finds|differs)"):
        cz.export(small(Lying, masks=False, size=None), "lying.pt2", to="pt2")
    assert list(Path().iterdir()) == []


def test_the_size_that_a_graph_computes_is_the_one_that_photographs_are_seen_at() -> None:
    for short, long in ((800, 1333), (512, 512)):
        for height in range(30, 1500, 37):
            for width in range(30, 1500, 53):
                assert _recorded_size(height, width, short, long) == seen_size(height, width, short, long)


def test_what_detectors_have_not(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="Half precision is too coarse for boxes in pixels: leave half out"):
        cz.export(small(), "objects.pt2", to="pt2", half=True)
    with pytest.raises(InputError, match=r"AOTInductor compiles detectors wrongly .*: export --to pt2 or onnx"):
        cz.export(small(), "objects.pt2", to="aoti")
    assert run(f"export {ID} --to onnx --output masks") == 2
    assert capsys.readouterr().err.endswith("--output masks: InstanceSegmentor gives objects\n")
    assert list(Path().iterdir()) == []
