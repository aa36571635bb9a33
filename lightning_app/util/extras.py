"""How to install what is optional: by its packages' names, since the program may come from a clone or from a file."""

import re
from importlib.metadata import PackageNotFoundError, requires
from typing import Final

PROGRAM: Final = "contextzoo"


def install(extra: str) -> str:
    """The command that brings an extra of ``pyproject.toml``, wherever this program was installed from."""
    try:
        lines = requires(PROGRAM) or []
    except PackageNotFoundError:  # run from its sources, without being installed
        lines = []
    wanted = [line.partition(";") for line in lines]
    packages = [name.strip() for name, _, marker in wanted if re.search(rf"extra == ['\"]{extra}['\"]", marker)]
    if not packages:
        return f"pip install '.[{extra}]' in a clone of {PROGRAM}"
    return f"pip install {' '.join(repr(package) for package in packages)} (extra {extra})"
