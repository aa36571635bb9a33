"""The weights that come with the repository: whole, small, with what tells how they came about, and they work."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torchvision.ops import box_iou

import zoo
from lightning_app.app.cli import main
from lightning_app.registry import HEADS
from lightning_app.weights import shared
from lightning_app.weights.load import load
from lightning_app.weights.published import SHIPS
from zoo import ZooEntry, cache
from zoo.datasets import datasets
from zoo.entry import SHIPPED

ENTRIES = [entry for entry in zoo.list_entries() if entry.url.startswith(SHIPPED)]
CAMVID = Path(__file__).parents[3] / "shared" / "camvid"
DETECTOR = "mask-rcnn_efficientnet-lite0_nuclei-256x256_600"
IMAGENET = {  # whole networks, larger than those from scratch, and the bytes that each may have
    "fcn_efficientnet-lite0_camvid-240x320_1260": 9.5e6,
    "fcn_efficientnet-lite2_camvid-240x320_1260": 12.5e6,
    DETECTOR: 9.5e6,
}
BLOCKS = tuple(entry.id for entry in ENTRIES if entry.task == "instance" and entry.id != DETECTOR)
BESIDE = pytest.mark.skipif(not CAMVID.is_dir(), reason="CamVid is not beside the repository")


def test_a_head_with_shipped_weights_has_them_of_camvid_and_of_the_probe() -> None:
    """Those of the survey, at least; heads that came later may have none yet."""
    counts = Counter((entry.head, entry.dataset) for entry in ENTRIES if entry.task == "semantic")
    heads = {head for head, _ in counts}
    assert heads <= set(HEADS)
    assert len(heads) >= 33
    assert counts.keys() == {(head, dataset) for head in heads for dataset in ("camvid", "context-probe")}


def test_what_camvid_taught_is_for_research() -> None:
    """CamVid states no licence: free for research is all that is known of it."""
    assert {entry.weights_licence for entry in ENTRIES if entry.dataset == "camvid"} == {"CC-BY-NC-4.0"}


def test_they_are_small_and_all_there_is() -> None:
    files = {path for path in SHIPS.glob("*/*") if path.parent.name not in ("downloads", shared.FOLDER)}
    assert sum(path.stat().st_size for path in files if path.parent.name not in {*IMAGENET, *BLOCKS}) <= 120 * 2**20
    assert {path.parent.name for path in files} == {entry.id for entry in ENTRIES}
    parts = {path.relative_to(SHIPS.parent).as_posix() for path in SHIPS.glob(f"{shared.FOLDER}/*")}
    assert parts == {part for entry in ENTRIES for part in entry.shared}


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.id)
@torch.no_grad()
def test_shipped_weights(entry: ZooEntry) -> None:
    path = cache.shipped(entry)
    assert path is not None
    assert cache.intact(entry, path)
    assert path.stat().st_size <= IMAGENET.get(entry.id, 8e6 if entry.id in BLOCKS else 6.5e6)
    config = yaml.safe_load((path.parent / "config.yaml").read_text())
    semantic = entry.task == "semantic"
    assert not semantic or config["model"]["head"]["class_path"].endswith(f".{entry.name}")
    assert "root" not in config["data"]["init_args"]
    scored = "val/mIoU" if semantic else "val/mask_AP"
    assert any(scored in log.read_text() for log in path.parent.glob("metrics_*.csv"))  # several of a resumed run
    card = (path.parent / "README.md").read_text()
    assert f"{entry.figure:.2f}" in card
    assert ("; frozen: " in card) is bool(config["model"].get("freeze"))

    model = load(entry.id)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    generator = torch.Generator().manual_seed(0)
    if not semantic:
        objects = model.predict(torch.rand(3, 64, 64, generator=generator))
        assert objects.masks.shape == (len(objects.scores), 64, 64)
        return
    logits = model(torch.rand(1, 3, *entry.details.crop, generator=generator))
    assert logits.shape[1] == len(datasets()[entry.dataset].classes)
    assert logits.isfinite().all()


@pytest.mark.parametrize(
    ("id", "typed"),
    [
        ("nonlocal_net_patchify_context-probe-64x64_960", "--data ContextProbe"),
        pytest.param(
            "fcn_resnet10t_camvid-180x240_990",
            f"--data CamVid --data.root {CAMVID}",
            marks=BESIDE,
        ),
        *(
            pytest.param(id, f"--data CamVid --data.root {CAMVID}", marks=(BESIDE, pytest.mark.slow))
            for id in IMAGENET
            if "camvid" in id
        ),
    ],
)
def test_the_figure_of_the_index_is_measured_again(
    id: str, typed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["test", "--weights", id, *typed.split(), "--run", "again"]) == 0
    measured = json.loads((tmp_path / "runs/again/test.json").read_text())
    assert 100 * measured["mIoU"] == pytest.approx(zoo.get(id).figure, abs=0.1)


@torch.inference_mode()
def test_a_detector_finds_the_same_in_bf16() -> None:
    """Bright discs in the dark: what its backbone's norms magnify most."""
    dice = np.random.default_rng(0)
    ys, xs = np.mgrid[:200, :200]
    picture = dice.normal(12, 2, (200, 200))
    for y in range(25, 200, 30):
        for x in range(25, 200, 30):
            size = dice.uniform(5, 11)
            picture += dice.uniform(40, 150) / (1 + np.exp(np.hypot(ys - y, xs - x) - size))
    image = torch.from_numpy(picture).float().clamp(0, 255).expand(3, -1, -1) / 255
    model = load(DETECTOR).eval()
    (exact,) = model([image])
    with torch.autocast("cpu", torch.bfloat16):
        (found,) = model([image])
    sure = exact[exact.scores > 0.3]
    assert len(sure) >= 20
    overlaps = box_iou(sure.boxes, found.boxes).amax(dim=1)
    assert (overlaps >= 0.95).float().mean() >= 0.97
