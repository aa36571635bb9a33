"""Where the numbers of the reference implementations lie."""

import os
from functools import cache
from pathlib import Path
from zipfile import ZipFile

SHIPPED = Path(__file__).parent / "goldens"
SHARED = Path(__file__).parents[2] / "shared" / "golden"  # where present


def golden_files(area: str, *beginnings: str) -> list[Path]:
    """Every golden of an area whose name has one of the beginnings, by name; without beginnings all of the area.

    They are shipped, and the larger ones lie beside the checkout. ``CONTEXTZOO_GOLDENS`` names another folder, with the
    files in it, of one area or of several, or in a subfolder of the area's name; then it alone counts.
    """
    own = os.environ.get("CONTEXTZOO_GOLDENS")
    folders = (Path(own) / area, Path(own)) if own else (SHARED / area, SHIPPED / area)
    found = {path.name: path for folder in folders for path in folder.glob("*.npz") if area_of(path) == area}
    return [found[name] for name in sorted(found) if name.startswith(beginnings or "")]


@cache
def area_of(path: Path) -> str:
    """The area of a golden, by what stands in it.

    Raises:
        ValueError: of none that is known here.
    """
    with ZipFile(path) as file:
        names = {name.removesuffix(".npy") for name in file.namelist()}
    if "row" in names:
        return "whole_more"
    if "kwargs_json" in names:
        return "openmmlab" if "out/0" in names else "successors"
    if "meta" in names:
        of_detection = "out64/0" in names or {"config", "image"} <= names or path.stem.startswith("pieces")
        return "detection" if of_detection else "pose"
    raise ValueError(f"{path}: a golden of no area that is known here")
