"""Write docs/claims.md: what the articles say, the trainings that decide it, and which differences hold.

    contextzoo sweep recipes/context_probe --variants recipes/claims/variants --seeds 3 --out runs/sweep/probe
    python scripts/claims.py runs/sweep/probe

Takes what the sweeps in these folders came to into docs/results/claims, the validation images counted one by one, and
writes the page of all that is there. Without a folder it writes the page anew. It can be run in mid-sweep too.
"""

import argparse
import json
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
from lightning_app.tools.sweep_counts import SweepCounts
from lightning_app.tools.sweep_statistics import ALPHA, Difference, Values
from lightning_app.util.errors import InputError
from lightning_app.util.files import replacing

PAGE: Final = Path("docs/claims.md")
RESULTS: Final = Path("docs/results/claims")
PLAIN: Final = "fcn"  # what disturbed images are compared with
INTRODUCTION: Final = """# Claims put to the test

What the articles that this project began with say of context heads, each with the trainings that decide it. Written by
`python scripts/claims.py` of the trainings' own files (`docs/results/claims`). Cells are mIoU of both and
their difference in points ± its standard error: over validation images by a paired bootstrap, over seeds by their
deviation, pooled over all variants. A difference **holds** where its p, by Holm's rule for all pairs of the setting, is
below 5 %; **not seen** says no more than that: the lines below tell how small a difference could have been seen.
An empty cell has not been trained. On ContextProbe a training either finds the way to ask or it does not, so that seeds
of one variant lie together and those of another 20 points apart: there the pooled deviation is a rough measure.
"""


@dataclass(frozen=True)
class Setting:
    """One sweep: a recipe, what it was given besides, and its variants' scores, one of each seed."""

    name: str
    command: str
    scores: Mapping[str, Sequence[float]]
    found: Mapping[tuple[str, str], Difference]
    counted: bool

    @classmethod
    def read(cls, path: Path, pairs: Sequence[tuple[str, str]], names: Mapping[str, str] | None = None) -> "Setting":
        """What a file of results says of the pairs.

        Args:
            names: variant -> what the sweep calls it, where that is not the same.
        """
        trainings = json.loads(path.read_text())["trainings"]
        counted = path.with_suffix(".npz").is_file()
        if counted:
            counts = SweepCounts.read(path.with_suffix(".npz"))
            scores, resampled = counts.means(), counts.resampled()
        else:
            scores = {}
            for each in trainings:
                scores.setdefault(each["head"], []).append(each["mIoU"])
            resampled = {head: [_still(value) for value in values] for head, values in scores.items()}
        called = {sweep_name: variant for variant, sweep_name in (names or {}).items()}
        scores = {called.get(head, head): values for head, values in scores.items()}
        resampled = {called.get(head, head): values for head, values in resampled.items()}
        found = sweep_statistics.differences(scores, resampled, pairs)
        first = trainings[0]
        options = [f"--{name}={first[name]}" for name in ("options", "variants") if first.get(name)]
        seeds = str(1 + max(each["seed"] for each in trainings))
        command = shlex.join(["contextzoo", "sweep", first["recipe"], *options, "--seeds", seeds, *first["words"]])
        name = path.stem if names is None else f"{path.stem}, as heads were compared"
        return cls(name, command, scores, {(each.head, each.other): each for each in found}, counted)

    def in_words(self) -> str:
        """Its command, and how small a difference it can see."""
        deviation, freedom = sweep_statistics.pooled_deviation(self.scores)
        count = sum(map(len, self.scores.values()))
        scatter = f"seeds scatter by {100 * deviation:.2f} points, {freedom} degrees of freedom"
        begin = f"- **{self.name}**, `{self.command}`, {count} trainings: "
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
    settings = [Setting.read(path, pairs) for path in sorted(RESULTS.glob("*.json"))]
    settings += [Setting.read(RESULTS / file, pairs, names) for file, names in content["known"].items()]
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
    seeds = max(map(len, first.means().values()))
    lines = [
        f"Trained heads of one frozen backbone (seeds: {seeds}) on {len(first.names)} validation images, "
        f"by `scripts/robustness.py`: {PLAIN}'s mIoU, each head's difference to it ± its error over images.",
        "",
        f"| | {PLAIN} | {' | '.join(heads)} |",
        f"|---|{'---|' * (1 + len(heads))}",
    ]
    for name in sorted(files, key=_kind_and_strength):
        means = {head: 100 * mean(values) for head, values in files[name].means().items()}
        clouds = {head: 100 * np.mean(values, axis=0) for head, values in files[name].resampled().items()}
        errors = {head: np.std(clouds[head] - clouds[PLAIN], ddof=1) for head in heads}
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
