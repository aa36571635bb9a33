"""What ``contextzoo infer`` writes of the objects in a photograph."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from lightning_app.tasks.infer import Advance, Infer, named, score
from lightning_app.tasks.instance.network import InstanceSegmentor
from lightning_app.tasks.instance.objects import SHOWN


class InstanceInfer(Infer):
    """Writes outlines with names and scores (NAME_overlay.jpg), and boxes and masks in COCO's words (NAME.json)."""

    options: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "--score": {
            "type": score,
            "default": SHOWN,
            "metavar": "SCORE",
            "help": f"objects below are left out; default: {SHOWN}",
        },
    }
    writes = ("_overlay.jpg", ".json")
    done = "looked at"

    def __init__(self, network: InstanceSegmentor, typed: argparse.Namespace) -> None:
        self.network, self.score = network, typed.score
        network.tell_from(self.score)

    def image(self, source: Path, target: Path, advance: Advance) -> str:
        try:
            objects = self.network.predict(source).above(self.score)
        finally:
            advance(1.0)
        picture = named(target, "_overlay.jpg")
        objects.save_overlay(picture, self.score)
        objects.save(named(target, ".json"))
        counts = list(objects.counts.items())[:5]
        told = ", ".join(f"{count} {name}" for name, count in counts) or "nothing found"
        return f"{source}: {told} -> {picture}"
