"""Configuration files by name: ``recipes/camvid_cpu`` is a file that ships with the package."""

import difflib
from pathlib import Path

from lightning_app.errors import InputError

_PACKAGE = Path(__file__).parent
FOLDER = next(path for path in (_PACKAGE / "configs", _PACKAGE.parent / "configs") if path.is_dir())  # wheel, checkout


def names() -> list[str]:
    """Every shipped configuration, as ``axis/name``."""
    return sorted(path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.glob("*/*.yaml"))


def find(name: str) -> Path:
    """The file that ``name`` stands for: a path of the user's, or a shipped configuration.

    Raises:
        InputError: neither exists.
    """
    path = Path(name)
    if path.is_file():
        return path
    shipped = FOLDER / f"{name.removesuffix('.yaml')}.yaml"
    if shipped.is_file():
        return shipped
    stem = path.stem
    close = difflib.get_close_matches(name, names(), n=3) or [known for known in names() if known.endswith(f"/{stem}")]
    hint = f" Did you mean {', '.join(close)}?" if close else " (contextzoo fit --help lists them)"
    raise InputError(f'No configuration "{name}": neither a file nor a shipped one.{hint}')
