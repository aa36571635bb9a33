"""An export of any tool that is known."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from lightning_app.data import coco
from lightning_app.data.bad_file import BadFile
from lightning_app.data.labels import coco_tools, labelme, yolo
from lightning_app.data.labels.records import Export
from lightning_app.util.errors import InputError

FORMATS: Final = ("coco", "labelme", "yolo")
Reader = Callable[[Path], Export]


def read(source: Path, format: str | None = None) -> tuple[str, Export]:
    """What lies in a folder, or in the folder of one JSON file; its format, where none is said, is found out.

    Raises:
        InputError: nothing there is an export.
    """
    if not source.exists():
        raise InputError(f"{source} does not exist: give the folder of an export, or its JSON file")
    root = source if source.is_dir() else source.parent
    found = [source] if source.is_file() else sorted(path for path in root.rglob("*.json") if path.is_file())
    format = format or _format(root, found)
    if format == "yolo":
        return format, yolo.read(root)
    files = [path for path in found if format == "coco" or labelme.is_labelme(coco.read_json(path))]
    if not files:
        raise InputError(f"{source} has no {'LabelMe file' if format == 'labelme' else 'JSON file'}")
    return format, (coco_tools if format == "coco" else labelme).read(files, root)


def _format(root: Path, files: list[Path]) -> str:
    for path in files:
        try:
            content = coco.read_json(path)
        except BadFile:
            if len(files) == 1:
                raise
            continue
        if labelme.is_labelme(content):
            return "labelme"
        if isinstance(content, dict) and isinstance(content.get("annotations"), list):
            return "coco"
    if any(path.parent.name == "labels" or "labels" in path.relative_to(root).parts for path in root.rglob("*.txt")):
        return "yolo"
    raise InputError(
        f"{root} has no export that is known: COCO JSON (of CVAT, Label Studio, Roboflow), LabelMe's JSON files, or "
        "YOLO's images/ and labels/"
    )
