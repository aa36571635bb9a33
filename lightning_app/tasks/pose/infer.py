"""What ``contextzoo infer`` writes of the keypoints in a photograph."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from lightning_app.data.bad_file import BadFile
from lightning_app.tasks.infer import Advance, Infer, named
from lightning_app.tasks.pose.network import PoseEstimator
from lightning_app.util.errors import InputError

WHOLE = "whole"


class PoseInfer(Infer):
    """Writes skeletons (NAME_overlay.jpg), and keypoints as COCO's results (NAME.json)."""

    options: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "--boxes": {
            "default": WHOLE,
            "metavar": "FILE.json|whole",
            "help": "where to look: {photo's name: [[left, top, right, bottom], ...]}, or what infer wrote of one "
            "photo with a detector's weights; default: whole, one thing that fills the photo",
        },
    }
    writes = ("_overlay.jpg", ".json")
    done = "looked at"

    def __init__(self, network: PoseEstimator, typed: argparse.Namespace) -> None:
        self.network = network
        self.path = None if typed.boxes == WHOLE else Path(typed.boxes)
        self.boxes = _read(self.path) if self.path else {}

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
        if self.path is None:
            return None
        boxes = self.boxes if isinstance(self.boxes, list) else self.boxes.get(source.name)
        if boxes is None:
            raise BadFile(source, ("No boxes",), f"{self.path} has none of {source.name}: add them.")
        return boxes


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
    except (KeyError, TypeError, ValueError):
        raise InputError(f"--boxes {path}: its objects have no bbox [left, top, width, height]") from None
