"""Write docs/claims.md: what the articles say, the trainings that decide it, and which differences hold.

    contextzoo sweep recipes/context_probe --variants recipes/claims/variants --seeds 3 --out runs/sweep/probe
    python scripts/claims.py runs/sweep/probe

Takes what the sweeps in these folders came to into docs/results/claims, the validation images counted one by one, and
writes the page of all that is there. Without a folder it writes the page anew. It can be run in mid-sweep too.
"""

import argparse
import json
import math
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any, Final

import numpy as np
import yaml

from lightning_app.tools import sweep_report, sweep_statistics
from lightning_app.tools.sweep_counts import Images, SweepCounts
from lightning_app.tools.sweep_statistics import ALPHA, Difference, Values
from lightning_app.util.errors import InputError
from lightning_app.util.files import replacing

PAGE: Final = Path("docs/claims.md")
RESULTS: Final = Path("docs/results/claims")
PLAIN: Final = "fcn"  # what disturbed images are compared with
Names = Mapping[str, str]
INTRODUCTION: Final = """# Claims put to the test

What the articles that this project began with say of context heads, each with the trainings that decide it. Written by
`python scripts/claims.py` of the trainings' own files (`docs/results/claims`). Cells are mIoU of both and
their difference in points ± its standard error: over validation images by a paired bootstrap, over seeds by their
deviation, pooled over all variants, or the variant's own where that is larger. A difference **holds** where its p, by
Holm's rule for all pairs of the setting, is below 5 %; **not seen** says no more than that: the lines below tell how
small a difference could have been seen. An empty cell has not been trained.
"""


@dataclass(frozen=True)
class Setting:
    """One column: the sweeps of one recipe that saw the same images, and their variants' scores, one of each seed."""

    name: str
    commands: Sequence[str]
    trainings: int
    scores: Mapping[str, Sequence[float]]
    found: Mapping[tuple[str, str], Difference]
    counted: bool

    @classmethod
    def read(cls, name: str, files: Mapping[str, Names | None], pairs: Sequence[tuple[str, str]]) -> "Setting":
        """What files of results say of the pairs.

        Args:
            files: file -> variant -> what its sweep calls it, or nothing where it calls them so itself.

        Raises:
            InputError: their trainings were validated on other images.
        """
        sweeps = [_Sweep.read(RESULTS / file, names) for file, names in files.items()]
        scores: Mapping[str, Sequence[float]]
        if counted := all(sweep.runs for sweep in sweeps):
            counts = SweepCounts.of(run for sweep in sweeps for run in sweep.runs)
            scores, resampled = counts.means(), counts.resampled()
        else:
            scores = {variant: values for sweep in sweeps for variant, values in sweep.scores.items()}
            resampled = {variant: [_still(value) for value in values] for variant, values in scores.items()}
        found = sweep_statistics.differences(scores, resampled, pairs)
        of_pairs = {(each.head, each.other): each for each in found}
        commands, trainings = [sweep.command for sweep in sweeps], sum(sweep.trainings for sweep in sweeps)
        return cls(name, commands, trainings, scores, of_pairs, counted)

    def in_words(self) -> str:
        """Its command, and how small a difference it can see."""
        deviation, freedom = sweep_statistics.pooled_deviation(self.scores)
        scatter = f"seeds scatter by {100 * deviation:.2f} points, {freedom} degrees of freedom"
        commands = " and ".join(f"`{command}`" for command in self.commands)
        begin = f"- **{self.name}**, {commands}, {self.trainings} trainings: "
        if not self.found:
            return f"{begin}too few to say that anything holds ({scatter})."
        errors = [each.error for each in self.found.values()]
        images = "" if self.counted else "; over seeds alone, for its images were not counted one by one"
        return (
            f"{begin}the smallest difference that it can see is {100 * sweep_statistics.smallest(errors):.1f} points "
            f"({len(errors)} pairs, a standard error of {100 * median(errors):.2f}; {scatter}{images})."
        )

    def cell(self, one: str, other: str) -> str:
        """What it says of a pair."""
        if not {one, other} <= self.scores.keys():
            return ""
        first, second = (100 * mean(self.scores[name]) for name in (one, other))
        both = f"{first:.1f}, {second:.1f}"
        if (found := self.found.get((one, other))) is None:
            return f"{both}: {first - second:+.1f}"
        holds = "**holds**" if found.p < ALPHA else "not seen"
        return f"{both}: {100 * found.mean:+.1f} ± {100 * found.error:.1f}, p {found.p:.2g}, {holds}"


@dataclass(frozen=True)
class _Sweep:
    """One sweep's command, and what its variants came to: counts of each image where there are some, or else scores."""

    command: str
    trainings: int
    runs: Sequence[tuple[str, int, Images]]
    scores: Mapping[str, Sequence[float]]

    @classmethod
    def read(cls, path: Path, names: Names | None) -> "_Sweep":
        trainings = json.loads(path.read_text())["trainings"]
        called = {sweep_name: variant for variant, sweep_name in (names or {}).items()}
        if called:  # other heads are in no pair, but tell how far seeds lie apart
            called = {each["head"]: called.get(each["head"], f"head {each['head']}") for each in trainings}
        runs = []
        if path.with_suffix(".npz").is_file():
            counts = SweepCounts.read(path.with_suffix(".npz"))
            runs = [
                (called.get(head, head), seed, Images(counts.names, counts.truth, *both))
                for (head, seed), both in counts.trainings.items()
            ]
        scores: dict[str, list[float]] = {}
        for each in trainings:
            scores.setdefault(called.get(each["head"], each["head"]), []).append(each["mIoU"])
        first = trainings[0]
        options = [f"--{name}={first[name]}" for name in ("options", "variants", "folds") if first.get(name)]
        options += ["--seeds", str(1 + max(each["seed"] for each in trainings)), *first["words"]]
        command = shlex.join(["contextzoo", "sweep", first["recipe"], *options])
        return cls(command, len(trainings), runs, scores)


def main(args: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="Write docs/claims.md.", allow_abbrev=False)
    parser.add_argument("sweep", nargs="*", type=Path, metavar="FOLDER", help="as given to contextzoo sweep --out")
    try:
        for sweep in parser.parse_args(args).sweep:
            sweep_report.write([sweep], None, per_image=True)
            for ending in (".json", ".npz"):
                shutil.copyfile((sweep / "results").with_suffix(ending), RESULTS / f"{sweep.name}{ending}")
        with replacing(PAGE) as path:
            path.write_text(page())
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"Wrote {PAGE}")
    return 0


def page() -> str:
    """All claims, the settings that they were tested in, and a table for each."""
    content: dict[str, Any] = yaml.safe_load((RESULTS / "claims.yaml").read_text())
    claims: dict[str, Any] = content["claims"]
    pairs = list(dict.fromkeys((one, other) for claim in claims.values() for one, other in claim["pairs"]))
    columns: dict[str, Mapping[str, Names | None]] = content["columns"]
    known = {file for files in columns.values() for file in files}
    columns |= {path.stem: {path.name: None} for path in sorted(RESULTS.glob("*.json")) if path.name not in known}
    settings = [Setting.read(name, files, pairs) for name, files in columns.items()]
    lines = [INTRODUCTION, *(setting.in_words() for setting in settings), ""]
    for letter, claim in claims.items():
        lines += [f"## ({letter}) {claim['claim']}", ""]
        lines += _of_pairs(claim["pairs"], settings) if claim["pairs"] else _of_disturbances()
        lines += ["", *([claim["said"].strip(), ""] if "said" in claim else [])]
    return "\n".join(lines)


def _of_pairs(pairs: Sequence[tuple[str, str]], settings: Sequence[Setting]) -> list[str]:
    """A row for each pair, a column for each setting."""
    lines = [f"| | {' | '.join(each.name for each in settings)} |", f"|---|{'---|' * len(settings)}"]
    for one, other in pairs:
        lines.append(f"| {one} against {other} | {' | '.join(each.cell(one, other) for each in settings)} |")
    return lines


def _of_disturbances() -> list[str]:
    """A row for each way to disturb the images: FCN's mIoU, and the difference of each head to it."""
    files = {path.stem: SweepCounts.read(path) for path in (RESULTS / "disturbed").glob("*.npz")}
    if not files:
        return ["Not evaluated yet: `scripts/robustness.py`."]
    first = next(iter(files.values()))
    heads = [head for head in first.means() if head != PLAIN]
    (seeds,) = {len(values) for values in first.means().values()}
    lines = [
        f"Trained heads of one frozen backbone (seeds: {seeds}) on {len(first.names)} validation images, "
        f"by `scripts/robustness.py`: {PLAIN}'s mIoU, each head's difference to it ± its standard error over images "
        "and seeds.",
        "",
        f"| | {PLAIN} | {' | '.join(heads)} |",
        f"|---|{'---|' * (1 + len(heads))}",
    ]
    for name in sorted(files, key=_kind_and_strength):
        scores = {head: [100 * value for value in values] for head, values in files[name].means().items()}
        means = {head: mean(values) for head, values in scores.items()}
        clouds = {head: 100 * np.mean(values, axis=0) for head, values in files[name].resampled().items()}
        over_seeds = {head: sweep_statistics.deviation_of(values) / math.sqrt(seeds) for head, values in scores.items()}
        over_images = {head: np.std(clouds[head] - clouds[PLAIN], ddof=1) for head in heads}
        errors = {head: math.hypot(over_images[head], over_seeds[head], over_seeds[PLAIN]) for head in heads}
        cells = [f"{means[head] - means[PLAIN]:+.1f} ± {errors[head]:.1f}" for head in heads]
        lines.append(f"| {name.replace('-', ' ')} | {means[PLAIN]:.1f} | {' | '.join(cells)} |")
    return lines


def _kind_and_strength(name: str) -> tuple[bool, str, int]:
    """The order of rows: the images as they are, then each kind from its smallest number."""
    kind, _, strength = name.partition("-")
    return kind != "none", kind, int(strength)


def _still(value: float) -> Values:
    """A score that no choice of images moves."""
    return np.full(2, value)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
