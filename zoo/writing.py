"""Write to the index: one process at a time, and whole files only."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import tomlkit

from zoo import files, index
from zoo.errors import ZooError
from zoo.toml import parse, text_of

TRAINED_HERE: Final = "# Trained here"  # the line of an index file below which our own entries stand
_LOCK: Final = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the index for this process, which may ask again inside; the system lets go of it when the process ends.

    Raises:
        ZooError: the folder cannot be written to.
    """
    from filelock import FileLock

    path = folder / _LOCK
    files.clear(path)
    lock = FileLock(path, is_singleton=True)
    try:
        lock.acquire()
    except OSError as error:
        raise ZooError(f"{folder}: {error.strerror}") from None
    try:
        yield
    finally:
        lock.release()


def add(id: str, task: str, head: str, name: str, paper: str, values: Mapping[str, Any], folder: Path) -> Path:
    """Append an entry of weights trained here to ``folder/<task>/<head>.toml``; returns that path.

    Args:
        values: the fields of ``ZooEntry`` and of the task's details, as the file spells them; those that the index
            derives are left out.

    Raises:
        ZooError: the entry would be wrong, or the id is taken; nothing is written.
    """
    path = folder / task / f"{head}.toml"
    with locked(folder):
        files.make_folder(path.parent)
        text = text_of(path) if path.exists() else tomlkit.dumps({"name": name, "paper": paper})
        if f"[entry.{id}]" in text.splitlines():
            raise ZooError(f"{path}: {id} is taken; give another id")
        if f"\n{TRAINED_HERE}\n" not in text:
            text += f"\n{TRAINED_HERE}\n"
        text += "\n" + format_table(f"entry.{id}", values)
        index.parse(path, text)
        _replace(path, text)
    index.read.cache_clear()
    return path


def replace(old: str, new: str) -> Path:
    """Take an entry out of the index: its id answers with the entry that does better; returns the file.

    Raises:
        ZooError: one of them is not there, they are not of one task and one dataset, or the old one's table shares its
            lines with others; nothing is written.
    """
    gone, better = index.get(old), index.get(new)
    if (gone.task, gone.dataset) != (better.task, better.dataset):
        raise ZooError(f"{new} cannot stand in for {old}: they are of other tasks or datasets")
    path = index.file_of(gone.task, gone.head)
    with locked(index.INDEX):
        text = f"{text_of(path).rstrip()}\n"
        before = parse(path, text)
        entries = {id: entry for id, entry in before["entry"].items() if id != old}
        answers = {id: new if answer == old else answer for id, answer in before.get("replaced", {}).items()}
        answers[old] = new
        text = _without(_without(text, f"entry.{old}"), "replaced")
        text = f"{text.rstrip()}\n\n{format_table('replaced', answers)}"
        if parse(path, text) != before | {"entry": entries, "replaced": answers}:
            raise ZooError(f"{path}: [entry.{old}] has no lines of its own there; take it out by hand")
        index.parse(path, text)
        _replace(path, text)
    index.read.cache_clear()
    return path


def _without(text: str, table: str) -> str:
    """The text less that table: its lines up to the next table, or to a comment that begins a line."""
    return re.sub(rf"^\[{re.escape(table)}\]\n(?:(?![\[#]).*\n)*", "", text, flags=re.MULTILINE)


def _replace(path: Path, text: str) -> None:
    """The text under that name, or the one before; nothing between, whenever this stops."""
    part = path.with_name(f".{path.name}.part")
    try:
        with files.open_own(part) as file:
            file.truncate(0)
            rest = memoryview(text.encode())
            while rest:
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise ZooError(f"{path}: {error.strerror}; the index is as it was") from None


def format_table(header: str, values: Mapping[str, Any]) -> str:
    """A table in TOML; of a list of tables, each stands on its own line. None is left out."""
    lines = [_pair(key, value) for key, value in values.items() if value is not None]
    return "\n".join([f"[{header}]", *lines, ""])


def _pair(key: str, value: Any) -> str:
    return f"{tomlkit.key(key).as_string()} = {_text(value)}"


def _text(value: Any) -> str:
    """A value in one line; a list of tables with a line for each. The same in every release of tomlkit."""
    if isinstance(value, Mapping):
        return f"{{ {', '.join(_pair(key, each) for key, each in value.items())} }}"
    if isinstance(value, list | tuple):
        parts = [_text(each) for each in value]
        if value and isinstance(value[0], Mapping):
            return "\n".join(["[", *(f"    {part}," for part in parts), "]"])
        return f"[{', '.join(parts)}]"
    return str(tomlkit.item(value).as_string())
