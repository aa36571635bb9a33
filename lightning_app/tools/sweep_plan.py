"""What ``contextzoo sweep`` trains: heads or variants, seeds and folds, and this process's part of them."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lightning_app.app import configs, own_modules
from lightning_app.tools import sweep_report
from lightning_app.util.errors import InputError, suggest


@dataclass(frozen=True)
class Training:
    """One head with one seed, in cross-validation on one fold of the images, and its run's folder."""

    head: str
    seed: int
    fold: int | None
    folder: Path

    @property
    def log(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.log")

    @property
    def last(self) -> Path:
        """The checkpoint from which an interrupted training goes on."""
        return self.folder / "checkpoints" / "last.ckpt"

    def result(self) -> dict[str, Any] | None:
        """What was recorded: a result, or a failure with its ``error``; None before the training's end."""
        return sweep_report.read(self.folder) if (self.folder / sweep_report.RESULT).is_file() else None


def read_classes(slugs: Sequence[str]) -> dict[str, str]:
    """Slug -> class of the heads that were named. From their configurations: their code would load torch in here."""
    files = [name for name in configs.names() if name.startswith("head/")]
    known = {name.removeprefix("head/"): _class_in(configs.find(name)) for name in files}
    slugs = [slug for words in slugs for slug in words.replace(",", " ").split()]
    if own_modules.names() or not {*slugs} <= {"all", *known}:
        from lightning_app.registry import HEADS

        known |= {
            slug: f"{entry.cls.__module__}.{entry.cls.__qualname__}"
            for slug, entry in HEADS.items()
            if slug not in known
        }
        slugs = slugs if "all" in slugs else HEADS.names(slugs)
    return known if "all" in slugs else {slug: known[slug] for slug in slugs}


def _class_in(config: Path) -> str:
    return str(yaml.safe_load(config.read_text())["model"]["head"]["class_path"])


def read_options(name: str | None, heads: Iterable[str]) -> dict[str, list[str]]:
    """Slug -> words of ``fit`` for the heads that a file of options names."""
    if name is None:
        return {}
    path = configs.find(name)
    try:
        options = yaml.safe_load(path.read_text())
        given = {
            head: [f"--model.head.{option}={_typed(value)}" for option, value in arguments.items()]
            for head, arguments in options.items()
        }
    except (AttributeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: write HEAD: {{OPTION: VALUE}} on each line ({error})") from error
    read_classes(list(given))  # says where a name is wrong
    return given


def _typed(value: Any) -> str:
    """A value as it is typed behind an option."""
    return value if isinstance(value, str) else json.dumps(value)


def read_variants(name: str, only: Sequence[str] | None = None) -> dict[str, list[str]]:
    """Name -> words of ``fit`` of each variant in a file, or of those that are named."""
    path = configs.find(name)
    try:
        variants = yaml.safe_load(path.read_text())
        words = {
            str(variant): [f"--{option}={_typed(value)}" for option, value in options.items()]
            for variant, options in variants.items()
        }
    except (AttributeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: write NAME: {{OPTION: VALUE}} on each line ({error})") from error
    for variant in words:
        if not re.fullmatch(r"\w[\w.-]*", variant):
            raise InputError(f"{path}: {variant!r} cannot name a folder: use letters, digits, _ and -")
    for variant in only or ():
        if variant not in words:
            raise InputError(f"{path} has no variant {variant!r}.{suggest(variant, words)} It has: {', '.join(words)}")
    return words if only is None else {variant: words[variant] for variant in only}


def plan(
    heads: Iterable[str], seeds: int, out: Path, environment: Mapping[str, str], folds: int | None = None
) -> list[Training]:
    """What this process trains: every n-th training by torchrun's or SLURM's variables; all heads' first seed first."""
    parts: list[int | None] = [*range(folds)] if folds else [None]
    each = [(head, seed, part) for seed in range(seeds) for head in heads for part in parts]
    trainings = [Training(*one, out / sweep_report.run_name(*one)) for one in each]
    first, step = int(environment.get("RANK", 0)), int(environment.get("WORLD_SIZE", 1))
    if "SLURM_ARRAY_TASK_ID" in environment:
        task, least, stride, count = (
            int(environment.get(f"SLURM_ARRAY_TASK_{name}", default))
            for name, default in (("ID", 0), ("MIN", 0), ("STEP", 1), ("COUNT", 1))
        )
        first, step = first + (task - least) // stride * step, step * count
    return trainings[first::step]
