"""Where the numbers of the reference implementations lie."""

import os
from pathlib import Path

SHIPPED = Path(__file__).parent / "goldens"
SHARED = Path(__file__).parents[2] / "shared" / "golden"  # where present


def golden_files(area: str, *beginnings: str) -> list[Path]:
    """Every golden of an area whose name has one of the beginnings, by name.

    They are shipped, and the larger ones lie beside the checkout. ``CONTEXTZOO_GOLDENS`` names another folder, with the
    files in it or in a subfolder of the area's name; then it alone counts.
    """
    own = os.environ.get("CONTEXTZOO_GOLDENS")
    folders = (Path(own) / area, Path(own)) if own else (SHARED / area, SHIPPED / area)
    found = {path.name: path for folder in folders for path in folder.glob("*.npz")}
    return [found[name] for name in sorted(found) if name.startswith(beginnings)]
