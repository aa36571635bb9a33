"""Configuration files by name: ``recipes/camvid_cpu`` is a file that ships with the package."""

import os
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Final

import yaml

from lightning_app.registry import TASKS
from lightning_app.util.errors import InputError, closest

_PACKAGE = Path(__file__).parents[1]
FOLDER = next(path for path in (_PACKAGE / "configs", _PACKAGE.parent / "configs") if path.is_dir())  # wheel, checkout

MOST: Final = 10_000  # values
DEEPEST: Final = 40  # values in one another


def names() -> list[str]:
    """Every shipped configuration, as ``axis/name``, or ``recipes/task/name``."""
    files = [*FOLDER.glob("*/*.yaml"), *(file for task in TASKS for file in FOLDER.glob(f"recipes/{task}/*.yaml"))]
    return sorted(path.relative_to(FOLDER).with_suffix("").as_posix() for path in files)


def of_task(slug: str) -> Path:
    """What runs of a task start from besides base.yaml; there need be none."""
    return FOLDER / "task" / f"{slug}.yaml"


def find(name: str) -> Path:
    """The file that ``name`` stands for: a path of the user's, or a shipped configuration.

    Raises:
        InputError: neither exists.
    """
    path = Path(name)
    if os.path.isfile(path):  # noqa: PTH113, which raises nothing where a name is too long
        return path
    shipped = FOLDER / f"{name.removesuffix('.yaml')}.yaml"
    if os.path.isfile(shipped):  # noqa: PTH113
        return shipped
    stem = path.stem
    close = closest(name, names(), most=3) or [known for known in names() if known.endswith(f"/{stem}")]
    hint = f" Did you mean {', '.join(close)}?" if close else " (contextzoo fit --help lists them)"
    raise InputError(f'No configuration "{name[:80]}": neither a file nor a shipped one.{hint}')


def checked(path: Path) -> Path:
    """``path`` where it holds YAML with keys, no more of it than a configuration needs.

    Raises:
        InputError: it does not.
    """
    if path.exists() and not path.is_file():  # reading a pipe may never end
        raise InputError(f"{path} is no file: give one that holds YAML")
    too_much = InputError(f"{path} is no configuration: it holds more than {MOST} values, or {DEEPEST} in one another")
    try:
        if path.stat().st_size > 100 * MOST:
            raise too_much
        node = yaml.compose(path.read_text(), yaml.SafeLoader)
        if node is not None and _size(node) > MOST:
            raise too_much
        content = yaml.safe_load(path.read_text())
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InputError(f"{path}, line {line}, is not YAML: {error.problem}") from error
    except RecursionError as error:
        raise too_much from error
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, yaml.YAMLError) as error:  # bytes that are no text, a date that is none
        raise InputError(f"{path} is not text") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no configuration: write keys and values, such as model: {{lr: 0.01}}")
    return path


def with_included(path: Path) -> list[Path]:
    """``path`` and the files that it includes, ``config: other.yaml``, all checked; what comes later wins.

    Raises:
        InputError: one of them is no configuration, or they include one another without end.
    """
    return _with_included(path, ())


def _with_included(path: Path, above: tuple[Path, ...]) -> list[Path]:
    if path.resolve() in above:
        raise InputError(f"{path} includes itself")
    included = yaml.safe_load(checked(path).read_text()).get("config")
    names = [name for name in (included if isinstance(included, list) else [included]) if isinstance(name, str)]
    below = [_with_included(path.parent / name, (*above, path.resolve())) for name in names]
    return [*chain.from_iterable(below), path]


def _size(root: yaml.Node) -> int:
    """How many values stand in a document once every alias is written out; past MOST where they are too deep."""

    @cache
    def size(node: yaml.Node) -> int:
        if node in above:  # an alias of what it stands in
            raise RecursionError
        above.append(node)
        if len(above) > DEEPEST:
            raise RecursionError
        if isinstance(node, yaml.MappingNode):
            count = sum(size(key) + size(value) for key, value in node.value)
        else:
            count = sum(map(size, node.value)) if isinstance(node, yaml.SequenceNode) else 0
        above.pop()
        return 1 + count

    above: list[yaml.Node] = []
    return size(root)
