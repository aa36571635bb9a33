"""Index files as text and as tables; what is wrong is named with its line."""

import difflib
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from zoo.errors import ZooError, shown
from zoo.files import open_plain

_LONGEST_NAME: Final = 200  # characters of what was typed that are compared with names
_LARGEST_FILE: Final = 10**6  # bytes of an index file; the largest of ours has 30 kB
_MOST_DOTS: Final = 200  # in a line: the time to read a dotted key grows with the square of its parts


def suggest(name: str, known: Iterable[str]) -> str:
    """' Did you mean "x"?', or nothing. Upper case and blanks around the name do not matter."""
    names = {each.lower(): each for each in known}
    close = difflib.get_close_matches(name[:_LONGEST_NAME].strip().lower(), names, n=1, cutoff=0.5)
    return f' Did you mean "{shown(names[close[0]])}"?' if close else ""


def text_of(path: Path) -> str:
    """The text of one index file.

    Raises:
        ZooError: it cannot be read.
    """
    try:
        with open_plain(path) as file:
            content = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise ZooError(f"{path}: {error.strerror}") from None
    if len(content) > _LARGEST_FILE:
        raise ZooError(f"{path}: over {_LARGEST_FILE / 1e6:g} MB, which no index file has")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ZooError(f"{path}:{content.count(10, 0, error.start) + 1}: not UTF-8") from None


def parse(path: Path, text: str) -> dict[str, Any]:
    """The tables of a file's text.

    Raises:
        ZooError: it is no TOML.
    """
    for number, line in enumerate(text.split("\n"), 1):
        if line.count(".") > _MOST_DOTS:
            raise ZooError(f"{path}:{number}: over {_MOST_DOTS} dots in a line")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ZooError(f"{path}: tables inside tables without end") from None
    except ValueError as error:  # of TOML, or of a number with more digits than Python reads
        place = re.search(r"at line (\d+)", str(error))
        raise ZooError(f"{path}:{place[1] if place else text.count(chr(10))}: {shown(str(error))}") from None


def line_of(text: str, header: str, key: str = "") -> int:
    """Number of the line where ``key`` stands in the table ``[header]``; of the header where it does not."""
    lines = text.splitlines()
    start = lines.index(f"[{header}]") if f"[{header}]" in lines else 0
    for number, line in enumerate(lines[start:], start + 1):
        if key and re.match(rf"{re.escape(key)}\s*=", line):
            return number
        if line.startswith("[") and number > start + 1:
            break
    return start + 1
