"""``contextzoo demo``: what context is for, in two short trainings and one picture; nuclei in a photograph."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from lightning_app.app import configs
from lightning_app.app.training import train
from lightning_app.data.semantic.context_probe import ContextProbe
from lightning_app.runs import RUNS
from lightning_app.tasks.instance.objects import SHOWN
from lightning_app.util.errors import InputError
from lightning_app.util.files import replacing
from lightning_app.util.tables import print_table
from lightning_app.weights.load import load

HEADS = ("FCN", "NonLocal")
RECIPE = "recipes/context_probe"
ENLARGE = 4
MARGIN = 12
DETECTOR = "mask-rcnn_efficientnet-lite0_nuclei-256x256_600"
PHOTOGRAPH = Path(__file__).with_name("nuclei.png")  # of BBBC038 (CC0), which the detector was not trained on
DRAWN = 40  # nuclei in it that people have drawn


def main(args: list[str]) -> int:
    """Fit and test a head without and a head with context; what an earlier call has done is reused."""
    if args:
        raise InputError(f"contextzoo demo takes no arguments, got {' '.join(args)}")
    print("ContextProbe: a solid square's class is the texture of the one square of its colour, wherever that stands.")
    for head in HEADS:
        _fit_and_test(head)
    scores = {head: json.loads((_folder(head) / "test.json").read_text()) for head in HEADS}
    chance = 1 / (len(scores["FCN"]["classes"]) - 1)
    rows = [
        (head, f"{query_accuracy(score['confusion']):.3f}", f"{score['mIoU']:.3f}") for head, score in scores.items()
    ]
    print_table(("head", "right on queries", "mIoU"), [("chance", f"{chance:.3f}", "-"), *rows], title="Test scores")
    print(f"Picture: {_panel(RUNS / 'demo.png')}")
    photograph(RUNS / "demo-nuclei.jpg")
    return 0


def query_accuracy(confusion: list[list[int]]) -> float:
    """Share of query pixels, those of any class but background, that are right."""
    counts = np.array(confusion)[1:]
    return float(counts[:, 1:].trace() / counts.sum())


def _folder(head: str) -> Path:
    return RUNS / f"demo-{head.lower()}"


def _fit_and_test(head: str) -> None:
    folder = _folder(head)
    if (folder / "test.json").exists():
        print(f"{head}: {folder} is there already, delete it to train anew.")
        return
    started = (folder / "checkpoints" / "last.ckpt").exists()
    run = ["--run", folder.name]
    train("fit", ["-c", RECIPE, "--model.head", head, *run, *(["--ckpt_path", "last"] if started else [])])
    train("test", [*run, "--ckpt_path", "last"])


def photograph(path: Path) -> None:
    """Find the nuclei in a micrograph by weights that ship; pip does not install those, so they may be elsewhere."""
    try:
        objects = load(DETECTOR).predict(PHOTOGRAPH)
    except InputError as error:
        print(f"No photograph: {error}")
        return
    objects.save_overlay(path)
    print(f"Photograph: {len(objects.above(SHOWN).scores)} nuclei found where people drew {DRAWN}: {path}")


def _panel(path: Path, count: int = 3) -> Path:
    """One row per test image: input, truth, and what each head says."""
    data = ContextProbe(**yaml.safe_load(configs.find(RECIPE).read_text())["data"]["init_args"])
    dataset = data.make_dataset("test")
    scenes = [dataset[index] for index in range(20)]
    samples = sorted(scenes, key=lambda scene: -len(torch.unique(scene["mask"])))[:count]  # those that ask most
    images = torch.stack([sample["image"] for sample in samples])
    masks = torch.stack([sample["mask"] for sample in samples])
    columns = {"input": images.permute(0, 2, 3, 1).numpy()}
    palette = np.array(data.palette, dtype=np.uint8)
    columns["truth"] = palette[masks.numpy()]
    for head in HEADS:
        model = load(_folder(head) / "checkpoints" / "last.ckpt")
        with torch.no_grad():
            columns[head] = palette[model(images / 255).argmax(1).numpy()]
    return _draw(columns, path)


def _draw(columns: dict[str, NDArray[np.uint8]], path: Path) -> Path:
    side = next(iter(columns.values())).shape[1] * ENLARGE
    rows = len(next(iter(columns.values())))
    header = 40
    canvas = Image.new(
        "RGB", (len(columns) * (side + MARGIN) + MARGIN, header + rows * (side + MARGIN)), (255, 255, 255)
    )
    pen = ImageDraw.Draw(canvas)
    font: Any = ImageFont.load_default(22)
    for i, (title, pictures) in enumerate(columns.items()):
        left = MARGIN + i * (side + MARGIN)
        pen.text((left, 8), title, fill=(40, 40, 40), font=font)
        for j, picture in enumerate(pictures):
            big = Image.fromarray(picture).resize((side, side), Image.Resampling.NEAREST)
            canvas.paste(big, (left, header + j * (side + MARGIN)))
    with replacing(path) as temporary:
        canvas.save(temporary, "PNG")
    return path
