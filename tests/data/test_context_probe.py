"""ContextProbe: what is drawn, who can solve it, and how the answers are counted."""

import hashlib
import json
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from lightning_app.app.cli import main
from lightning_app.backbones.patchify import Patchify
from lightning_app.data.semantic.context_probe import CELL, PATTERNS, ContextProbe, Layout, draw
from lightning_app.heads.fcn import FCN
from lightning_app.heads.pspnet import PSPNet
from lightning_app.tools import probe_training as probe
from lightning_app.util.errors import InputError

LAYOUTS = [
    Layout("anywhere"),
    Layout("cross"),
    Layout("near"),
    Layout("anywhere", beyond=3),
    Layout("cross", cells=16, colours=8, textures=8, queries=2, beyond=2),
    Layout("near", colours=2, textures=2, queries=1, radius=1),
]
Cell = tuple[int, int]


def look(image: NDArray[np.uint8]) -> tuple[dict[bytes, tuple[Cell, int]], dict[Cell, bytes]]:
    """Read an image by eye: colour -> (cue's cell, texture), and query cell -> colour."""
    cues: dict[bytes, tuple[Cell, int]] = {}
    queries: dict[Cell, bytes] = {}
    for y in range(0, image.shape[1], CELL):
        for x in range(0, image.shape[2], CELL):
            cell = image[:, y : y + CELL, x : x + CELL]
            colour = cell.reshape(3, -1).max(1)
            lit = (cell == colour[:, None, None]).all(0)
            if not lit.all():
                (texture,) = [number for number, each in enumerate(PATTERNS) if (each == lit).all()]
                assert not cell[:, ~lit].any()
                assert colour.tobytes() not in cues, "two cues of one colour"
                cues[colour.tobytes()] = (y // CELL, x // CELL), texture
            elif len(set(colour)) > 1:  # grey is background
                queries[y // CELL, x // CELL] = colour.tobytes()
    return cues, queries


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_an_oracle_that_recalls_by_colour_is_always_right(layout: Layout) -> None:
    for index in range(30):
        scene = draw(layout, 7, index)
        cues, queries = look(scene.image)
        assert len(cues) == layout.colours
        assert len(queries) == layout.colours * layout.queries
        mask, distance = np.zeros_like(scene.mask), np.zeros_like(scene.distance)
        for (y, x), colour in queries.items():
            (cue_y, cue_x), texture = cues[colour]
            down, right = abs(y - cue_y), abs(x - cue_x)
            assert max(down, right) > layout.beyond
            assert layout.mode != "near" or max(down, right) <= layout.radius
            assert layout.mode != "cross" or min(down, right) == 0
            window = np.s_[y * CELL : (y + 1) * CELL, x * CELL : (x + 1) * CELL]
            mask[window], distance[window] = 1 + texture, max(down, right)
        assert (scene.mask == mask).all()
        assert (scene.distance == distance).all()


def test_images_depend_on_seed_and_index_alone() -> None:
    layout = Layout()
    scenes = [draw(layout, 0, index) for index in range(3)]
    again = [draw(layout, 0, index) for index in (2, 1, 0)][::-1]
    for one, other in zip(scenes, again, strict=True):
        assert all((a == b).all() for a, b in zip(one, other, strict=True))
    assert all((a.image != b.image).any() for a, b in pairwise([*scenes, draw(layout, 1, 2)]))


def test_the_first_images_are_the_same_on_every_machine() -> None:
    digest = hashlib.sha256()
    for mode in ("anywhere", "cross", "near"):
        digest.update(b"".join(part.tobytes() for part in draw(Layout(mode), 0, 0)))
    assert digest.hexdigest()[:16] == "2038e07324cf5e43"


def test_guessing_answers_one_in_textures() -> None:
    masks = np.stack([draw(Layout(), 0, index).mask[::CELL, ::CELL] for index in range(600)])
    shares = np.bincount(masks[masks > 0], minlength=5)[1:] / (masks > 0).sum()
    assert (masks > 0).sum() == 600 * 4 * 3
    np.testing.assert_allclose(shares, 1 / 4, atol=0.03)


def test_batches_follow_the_contract_of_every_datamodule() -> None:
    data = ContextProbe("cross", train_images=8, val_images=4, test_images=4, batch_size=4, textures=6)
    assert data.num_classes == len(data.class_names) == len(data.palette) == 7
    assert data.class_names[:3] == ["background", "rows", "columns"]
    data.setup("fit")
    loaded = next(iter(data.train_dataloader()))
    batch = data.on_after_batch_transfer(loaded, 0)
    assert batch.image.shape == (4, 3, 96, 96)
    assert batch.image.dtype == torch.float32
    assert 0.5 < batch.image.max() <= 1
    assert batch.mask.dtype == torch.int64
    assert all(name.startswith("context_probe/") for name in batch.names)
    assert "mask" not in data.dataset("predict")[0]


def test_splits_share_no_image() -> None:
    data = ContextProbe(train_images=20, val_images=20, test_images=20)
    images = {
        data.dataset(stage)[i]["image"].numpy().tobytes() for stage in ("train", "val", "test") for i in range(20)
    }
    assert len(images) == 60


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "far"}, 'Unknown ContextProbe mode "far": give one of anywhere, cross, near'),
        ({"textures": 9}, "textures is 9: give 2 to 8"),
        ({"queries": 30}, "No room"),
        ({"mode": "near", "beyond": 2}, "No room"),
    ],
)
def test_impossible_layouts_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ContextProbe(**options)  # type: ignore[arg-type]


def reach(net: nn.Module, y: int = 5, x: int = 6) -> set[Cell]:
    """Cells of a 12 x 12 image that the output at cell (y, x) depends on."""
    torch.manual_seed(0)
    images = torch.randn(1, 3, 12 * CELL, 12 * CELL, requires_grad=True)
    output = net.eval()(images)
    output = output[-1] if isinstance(output, list) else output
    scale = output.shape[-1] // 12
    output[..., y * scale + scale // 2, x * scale + scale // 2].sum().backward()
    assert images.grad is not None
    cells = images.grad.abs().reshape(3, 12, CELL, 12, CELL).sum((0, 2, 4))
    return {(int(i), int(j)) for i, j in cells.nonzero()}


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_patchify_sees_exactly_one_cell(depth: int) -> None:
    backbone = Patchify(channels=16, depth=depth)
    assert reach(backbone) == {(5, 6)}
    levels = backbone(torch.rand(2, 3, 96, 64))
    assert [level.shape[1] for level in levels] == backbone.channels
    assert all(level.shape[2:] == (96 // r, 64 // r) for level, r in zip(levels, backbone.reductions, strict=True))


class Stack(nn.Module):
    """Backbone and head, with no resizing to blur the cells."""

    def __init__(self, slug: str) -> None:
        super().__init__()
        self.net = probe.network(slug)
        for module in self.net.head.modules():  # gates that start closed
            for parameter in module.parameters(recurse=False):
                if not parameter.any():
                    nn.init.uniform_(parameter, 0.1, 0.5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.net.head(self.net.backbone(images))
        return logits


def test_only_the_papers_operator_connects_cells() -> None:
    cross = {(5, j) for j in range(12)} | {(i, 6) for i in range(12)}
    assert reach(Stack("fcn")) == {(5, 6)}
    assert len(reach(Stack("nonlocal_net"))) == 144
    assert reach(Stack("ccnet")) >= cross


def test_pointwise_leaves_operators_alone() -> None:
    fcn, pyramid = FCN([8], 5, channels=8), PSPNet([8], 5, channels=8)
    probe.pointwise(fcn)
    probe.pointwise(pyramid)
    assert {m.kernel_size for m in fcn.modules() if isinstance(m, nn.Conv2d)} == {(1, 1)}
    assert pyramid.pyramid.fuse.conv.kernel_size == (3, 3)


def test_recall_counts_query_pixels_by_distance() -> None:
    mask = torch.tensor([[[0, 1, 2, 2], [1, 0, 0, 2]]])
    distance = torch.tensor([[[0, 1, 3, 3], [1, 0, 0, 4]]], dtype=torch.uint8)
    answers = torch.tensor([[[1, 1, 2, 0], [2, 0, 0, 2]]])  # a wrong background pixel does not count
    logits = nn.functional.one_hot(answers, 3).permute(0, 3, 1, 2).float()
    result = probe.recall(logits, mask, distance)
    assert result.hits == [0, 1, 0, 1, 1]
    assert result.queries == [0, 2, 0, 2, 1]
    assert result.accuracy == 3 / 5
    assert result.by_distance[1:] == pytest.approx([1 / 2, math.nan, 1 / 2, 1], nan_ok=True)


def test_probe_command_stores_draws_and_resumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["probe", "fcn", "--modes", "near", "--seeds", "1", "--steps", "2", "--out", str(tmp_path)]
    assert main(command) == 0
    first = capsys.readouterr().out
    assert "[1/1] fcn near seed 0: 0." in first
    assert "chance is 0.25" in first
    lines = (tmp_path / "results.jsonl").read_text().splitlines()
    (entry,) = [json.loads(line) for line in lines]
    assert (entry["head"], entry["mode"], entry["seed"], entry["steps"]) == ("fcn", "near", 0, 2)
    assert sum(entry["queries"]) == sum(entry["queries"][1:3]) == 512 * 4 * 3  # near: distances 1 and 2
    assert (tmp_path / "probe.png").read_bytes().startswith(b"\x89PNG")

    assert main(command) == 0
    again = capsys.readouterr().out
    assert "[1/" not in again
    assert again == first[first.index("Accuracy") :]
    assert (tmp_path / "results.jsonl").read_text().splitlines() == lines


def test_probe_command_refuses_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["probe", "ccnett"]) == 2
    assert 'Did you mean "ccnet"?' in capsys.readouterr().err
    (tmp_path / "results.jsonl").write_text('{"head": "fcn"\n')
    assert main(["probe", "fcn", "--out", str(tmp_path)]) == 2
    assert "results.jsonl, line 1: not a result" in capsys.readouterr().err


@pytest.mark.slow
def test_context_solves_what_the_baseline_cannot() -> None:
    scores = {slug: probe.train(probe.Run(slug, "anywhere", 0, 600)).recall for slug in ("fcn", "efficient_attention")}
    assert scores["fcn"].accuracy < 0.3
    assert min(scores["efficient_attention"].by_distance[1:]) > 0.95
