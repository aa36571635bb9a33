"""What ``contextzoo infer`` writes of the keypoints in a photograph."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from lightning_app.data.bad_file import BadFile
from lightning_app.data.pose.facts import PERSON
from lightning_app.tasks.infer import Advance, Infer, named, score
from lightning_app.tasks.pose.network import PoseEstimator
from lightning_app.util.errors import InputError, suggest

WHOLE = "whole"
PERSON_CLASS = "person"  # as COCO calls them
SHOWN = 0.5  # the score from which on an object is looked at


class PoseInfer(Infer):
    """Writes skeletons (NAME_overlay.jpg), and keypoints as COCO's results (NAME.json)."""

    options: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "--boxes": {
            "metavar": "FILE.json|whole",
            "help": "where to look: {photo's name: [[left, top, right, bottom], ...]}, or what infer wrote of one "
            "photo with a detector's weights; default: whole, one thing that fills the photo",
        },
        "--detector": {
            "metavar": "ID|PATH",
            "help": "look where these weights of the task instance find something, such as a Mask R-CNN of the zoo",
        },
        "--detector-class": {
            "metavar": "NAME",
            "help": "only at what the detector calls so; default: person for keypoints of people, else anything",
        },
        "--score": {
            "type": score,
            "metavar": "SCORE",
            "help": f"objects below are left out; default: {SHOWN}",
        },
    }
    others: ClassVar[Mapping[str, str]] = {"--detector": "instance"}
    writes = ("_overlay.jpg", ".json")
    done = "looked at"

    def __init__(self, network: PoseEstimator, typed: argparse.Namespace) -> None:
        self.network = network
        if typed.boxes is not None and typed.detector is not None:
            raise InputError("--boxes and --detector both say where to look: leave one of them out")
        for name in ("detector_class", "score"):
            if getattr(typed, name) is not None and typed.detector is None:
                raise InputError(f"--{name.replace('_', '-')} goes with --detector ID")
        self.detector, self.score = typed.detector, SHOWN if typed.score is None else typed.score
        self.seen = self._class(typed.detector_class) if self.detector is not None else None
        self.path = None if typed.boxes in (None, WHOLE) else Path(typed.boxes)
        self.boxes = _read(self.path) if self.path else {}
        self.first: Path | None = None

    def image(self, source: Path, target: Path, advance: Advance) -> str:
        try:
            poses = self.network.predict(source, self._of(source))
        except InputError as error:
            if self.path is None or isinstance(error, BadFile):
                raise
            raise InputError(f"{self.path}, {source.name}: {error}") from None
        finally:
            advance(1.0)
        picture = named(target, "_overlay.jpg")
        poses.save_overlay(picture)
        poses.save(named(target, ".json"))
        sure = f", scores {poses.scores.min():.2f} to {poses.scores.max():.2f}" if len(poses) else ""
        told = (
            f"{len(poses)} pose{'s' * (len(poses) != 1)} of {len(self.network.known.keypoints.names)} keypoints{sure}"
        )
        return f"{source}: {told} -> {picture}"

    def _of(self, source: Path) -> Any:
        """The boxes of a photograph; None looks at the whole of it."""
        if self.detector is not None:
            found = self.detector.predict(source).above(self.score)
            wide = (found.boxes[:, 2:] > found.boxes[:, :2]).all(1)
            return found.boxes[wide & np.array([self.seen in (None, name) for name in found.names], dtype=bool)]
        if self.path is None:
            return None
        self.first = self.first or source
        if isinstance(self.boxes, list) and source != self.first:
            raise BadFile(source, ("No boxes",), f"{self.path} is of one photo: give {{photo's name: boxes}}.")
        boxes = self.boxes if isinstance(self.boxes, list) else self.boxes.get(source.name)
        if boxes is None:
            raise BadFile(source, ("No boxes",), f"{self.path} has none of {source.name}: add them.")
        return boxes

    def _class(self, name: str | None) -> str | None:
        """What the detector is to find; None is anything."""
        classes, people = self.detector.known.classes, [*self.network.known.keypoints.names[: len(PERSON)]] == PERSON
        self.detector.tell_from(self.score)
        self.detector.masks = False  # which nobody looks at
        if name is None:
            return PERSON_CLASS if people and PERSON_CLASS in classes else None
        if name not in classes:
            raise InputError(
                f'--detector-class {name}: {self.detector.known.name} finds no "{name}".{suggest(name, classes)} '
                f"(it finds {', '.join(classes[:5])}{', ...' * (len(classes) > 5)})"
            )
        return name


def _read(path: Path) -> dict[str, Any] | list[Any]:
    """Boxes by the photograph's name, or those of one photograph.

    Raises:
        InputError: no such file, or it has no boxes.
    """
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise InputError(f"--boxes {path}: {error.strerror}. Give a JSON file, or {WHOLE}") from None
    except (ValueError, RecursionError):
        raise InputError(f"--boxes {path} is not JSON: give a JSON file, or {WHOLE}") from None
    if not isinstance(content, dict):
        raise InputError(f"--boxes {path}: give {{photo's name: [[left, top, right, bottom], ...]}}")
    objects = content.get("objects")
    if objects is None:
        return content
    try:
        sides = [[float(side) for side in each["bbox"]] for each in objects]
        return [[left, top, left + width, top + height] for left, top, width, height in sides]
    except (KeyError, TypeError, ValueError, OverflowError):
        raise InputError(f"--boxes {path}: its objects have no bbox [left, top, width, height]") from None
