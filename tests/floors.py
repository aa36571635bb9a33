"""The floors of the house, in their order: a room imports from its own and from those of the floors below it."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
TASKS = sorted(path.parent.name for path in (ROOT / "lightning_app" / "tasks").glob("*/task.py"))


def _each(pattern: str) -> set[str]:
    """A room for each task."""
    return {pattern.format(task) for task in TASKS}


FLOORS = (
    {"zoo", "util", "_moved"},
    {"reading", "kernels"},
    {"runs", "registry"},
    {"blocks"},
    {"backbones", "data"},
    {"data.semantic"},
    _each("data.{}") - {"data.semantic"},
    {"heads", "data.__init__"},
    {"tasks"},
    _each("tasks.{}"),
    {"weights"},
    {"tasks.base"} | _each("tasks.{}.weights"),
    _each("tasks.{}.task"),
    {"callbacks", "export"},
    {"app"},
    {"tools"},
    {"app.cli"},
    {"__main__"},
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def room_of(module: str) -> str | None:
    """The room of a module, named as below lightning_app or with zoo: the longest name that its own begins with."""
    return max((room for room in FLOOR if f"{module}.".startswith(f"{room}.")), key=len, default=None)


def modules() -> dict[Path, str]:
    """File -> module, of all that stand in a room."""
    files = [path for package in ("zoo", "lightning_app") for path in sorted((ROOT / package).rglob("*.py"))]
    parts = {path: path.relative_to(ROOT).with_suffix("").parts for path in files}
    return {path: ".".join(each if each[0] == "zoo" else each[1:]) for path, each in parts.items()}
