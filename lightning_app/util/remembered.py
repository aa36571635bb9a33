"""What takes seconds to find out, kept in the user's cache for the next time."""

import json
import os
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any


def cache_folder(name: str) -> Path:
    """Where things of one kind are remembered."""
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "contextzoo" / name


def recall(path: Path) -> Any:
    """What was remembered there; None where nothing was."""
    with suppress(OSError, ValueError, RecursionError):
        return json.loads(path.read_text())
    return None


def remember(path: Path, content: Any) -> None:
    """Write it, whole or not at all; where that cannot be done it costs only time."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
            json.dump(content, file)
        Path(file.name).replace(path)
