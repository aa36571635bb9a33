"""Runs on this machine: where they lie, and which file of theirs a word means."""

import re
from pathlib import Path

from lightning_app.reading import checkpoints
from lightning_app.runs import RUNS
from lightning_app.util.errors import InputError

CHECKPOINTS = "checkpoints"  # of a run's folder
WORDS = ("best", "last", "previous")


def newest(word: str, run: str | None = None) -> Path | None:
    """The best or last checkpoint of a run, of the one that wrote last where none is named."""
    found = RUNS.glob(f"{run or '*'}/{CHECKPOINTS}/{word}.ckpt")
    return max(found, key=lambda file: file.stat().st_mtime, default=None)


def weights_of(word: str) -> Path | None:
    """The weights that a word means: best or last of the newest run, a run's name, its folder, or a published folder.

    None where it means no run.

    Raises:
        InputError: the run has no weights yet, or there is no run at all.
    """
    if word in WORDS:
        if path := newest(word):
            return path
        raise InputError(f"{word}: no {RUNS}/*/{CHECKPOINTS}/{word}.ckpt here; name a run, its folder or a file")
    for folder in (Path(word), RUNS / word):
        if folder.is_dir():
            return _in(folder)
    return None


def names() -> list[str]:
    """Every run that has checkpoints."""
    return sorted(path.parent.name for path in RUNS.glob(f"*/{CHECKPOINTS}"))


def run_of(checkpoint: Path) -> Path | None:
    """The folder of the run that wrote a checkpoint."""
    return checkpoint.parent.parent if checkpoint.parent.name == CHECKPOINTS else None


def go_on(folder: Path, checkpoint: str = "last", verb: str = "fit") -> str:
    """The command that goes on with a run."""
    if folder.is_relative_to(RUNS):
        return f"contextzoo {verb} --run {folder.relative_to(RUNS)} --ckpt_path {checkpoint}"
    return f"contextzoo {verb} --ckpt_path {folder.absolute() / CHECKPOINTS / checkpoint}.ckpt"


def good_ones(damaged: Path, verb: str) -> str:
    """Which checkpoints beside a damaged one are whole, the newest first, and how to go on from there."""
    steps = {}
    others = set(damaged.parent.glob("*.ckpt")) - {damaged}
    for path in sorted(others, key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            steps[path] = checkpoints.read(path)["global_step"]
        except InputError:
            continue
    if not steps:
        return "No whole checkpoint lies beside it."
    whole = ", ".join(f"{path.name} (step {step})" for path, step in steps.items())
    first = max(steps, key=lambda path: steps[path])
    word = first.stem if first.stem in WORDS else str(first)
    folder = run_of(first)
    command = go_on(folder, word, verb) if folder else f"--ckpt_path {first}"
    return f"Whole: {whole}. Go on with {command}"


def _in(folder: Path) -> Path:
    for place in (folder / CHECKPOINTS, folder):
        for word in WORDS:
            if (path := place / f"{word}.ckpt").is_file():
                return path
        if others := list(place.glob("*.ckpt")):  # of a trainer that names them by epoch
            return max(others, key=lambda file: file.stat().st_mtime)
    published = list(folder.glob("*.safetensors"))
    if len(published) == 1:
        return published[0]
    raise InputError(f"{folder} holds no weights: neither {CHECKPOINTS}/best.ckpt nor last.ckpt, nor one .safetensors")


def check_name(name: str) -> None:
    """Raise an InputError unless ``name`` is of a folder below runs/: plain words, joined by / in a sweep."""
    plain = r"(?!(?i:con|prn|aux|nul|com\d|lpt\d)(?:\.|$))\w[\w .+=,@-]*(?<![. ])"
    if len(name) > 200 or not re.fullmatch(rf"{plain}(/{plain})*", name):
        raise InputError(f'--run cannot be "{name[:80]}": give a plain name, such as ccnet-2')
