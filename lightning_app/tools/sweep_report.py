"""What the trainings of ``contextzoo sweep`` came to: a table on the screen, as files, and as a picture."""

import csv
import json
import shlex
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from lightning_app.app import configs
from lightning_app.tools import sweep_picture, sweep_rankings, sweep_table
from lightning_app.tools.sweep_counts import FILE, Images, SweepCounts
from lightning_app.tools.sweep_table import Result
from lightning_app.util.errors import InputError
from lightning_app.util.files import replacing
from lightning_app.util.tables import print_table

RESULT = "result.json"


def run_name(head: str, seed: int, fold: int | None) -> str:
    """The folder of a training."""
    return f"{head}-{seed}" if fold is None else f"{head}-{seed}-fold{fold}"


def read(run: Path) -> Result:
    """What a run's ``result.json`` holds.

    Raises:
        InputError: it is not of a sweep.
    """
    path = run / RESULT
    try:
        result: Result = json.loads(path.read_text())
        if not {"head", "seed", "recipe", "options", "words"} <= result.keys():
            raise ValueError("head, seed, recipe, options or words missing")
    except (AttributeError, ValueError) as error:
        raise InputError(f"{path} holds no result of a sweep ({error}): remove it and train anew") from error
    return result


def portable(words: Sequence[str]) -> list[str]:
    """``words`` without the place of the data, which differs between machines."""
    kept, replace = [], False
    for word in words:
        option, equals, _ = word.partition("=")
        kept.append("DIR" if replace else "--data.root=DIR" if option == "--data.root" and equals else word)
        replace = word == "--data.root"
    return kept


def write(places: Sequence[Path], page: Path | None, *, per_image: bool = False) -> None:
    """Print the table of each sweep and write its files; with ``page``, one page of all of them too.

    Args:
        places: folders of sweeps, or files that an earlier call wrote as ``results.json``, wherever they are now.
        per_image: count the validation images of the trainings in folders, so that the table says what holds.

    Raises:
        InputError: one of them holds no results, or two have the same name, and one would hide the other.
    """
    sections, rankings = [], {}
    titles = [_title(place) for place in places]
    if twice := [str(place) for place, title in zip(places, titles, strict=True) if titles.count(title) > 1]:
        raise InputError(f"{' and '.join(twice)} have the same name, which stands for a sweep on the page: rename one")
    for place, title, results in zip(places, titles, [_results(place) for place in places], strict=True):
        done = [result for result in results if "error" not in result]
        failures = [result for result in results if "error" in result]
        counts = _counts(place, done, count=per_image)
        rows = sweep_table.summarise(done, counts)
        if rows:
            print(f"\n{title}: {_about(done)}")
            names = sweep_table.columns(rows)
            print_table((_kind(results), *names), [sweep_table.cells(row, names) for row in rows], right=names)
            if _kind(results) == "head":
                rankings[title] = {row["head"]: row[row["figure"]] for row in rows}
        for failure in failures:
            print(_said(failure))
        if page:
            sections.append(_section(title, rows, results, counts, page.with_name(f"{page.stem}-{title}.png")))
        if place.is_dir():
            with replacing(place / "results.csv") as path, path.open("w", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]) if rows else [])
                writer.writeheader()
                writer.writerows(rows)
            with replacing(place / "results.json") as path:
                path.write_text(json.dumps({"heads": rows, "trainings": done, "failures": failures}, indent=1) + "\n")
            if counts is not None:
                counts.write(place / "results.npz")
            with replacing(place / "results.md") as path:
                path.write_text(_section(title, rows, results, counts, place / "results.png"))
            print(f"Wrote {place}/results.md, with .csv, .json and .png beside it")
    if page:
        with replacing(page) as path:
            command = shlex.join(["contextzoo", "sweep", "--report", *map(str, places), "--to", str(page)])
            path.write_text(
                f"# Heads compared\n\nWritten by `{command}`.\n\n"
                + "\n".join([*sections, *sweep_rankings.section(rankings)])
            )
        print(f"Wrote {page}")


def _title(place: Path) -> str:
    """A sweep's folder, or its file of results where that was given a name of its own."""
    place = place.absolute()
    if place.name == "results.json":
        return place.parent.name
    return place.stem if place.suffix == ".json" else place.name


def is_of_class_maps(place: Path) -> bool:
    """Whether its figure comes of the pixels of each image, which can be counted."""
    return sweep_table.figure_of(_results(place)) == "mIoU"


def _counts(place: Path, done: Sequence[Result], *, count: bool) -> SweepCounts | None:
    """Of each image: counted now, or as they lie beside a file of results or in the runs of a folder."""
    if place.is_file():
        path = place.with_suffix(".npz")
        return SweepCounts.read(path) if path.is_file() else None
    runs = [
        (each["head"], each["seed"], place / run_name(each["head"], each["seed"], each.get("fold"))) for each in done
    ]
    missing = [run for *_, run in runs if not (run / FILE).is_file()]
    if not runs or (missing and not count):
        return None
    if missing:
        if not is_of_class_maps(place):
            raise InputError(f"{place} is of {sweep_table.figure_of(done)}: --per-image counts pixels of class maps")
        from lightning_app.tools.sweep_images import count_images  # imports torch

        for run in missing:
            count_images(run)
    return SweepCounts.of((head, seed, Images.read(run / FILE)) for head, seed, run in runs)


def _results(place: Path) -> list[Result]:
    """Of all trainings whose runs lie in a folder, or that a file holds."""
    if place.is_file():
        try:
            content = json.loads(place.read_text())
            results: list[Result] = content["trainings"] + content["failures"]
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{place} is no results.json of a sweep ({error!r}): give that, or its folder") from error
    else:
        results = [_portable(read(path.parent)) for path in sorted(place.glob(f"*/{RESULT}"))]
    if not results:
        raise InputError(f"{place} holds no results: give the folder of a sweep, such as runs/sweep/camvid_cpu")
    return results


def _portable(result: Result) -> Result:
    typed = shlex.join(portable(shlex.split(result["command"])))
    return result | {"words": portable(result["words"]), "command": typed}


def _about(done: Sequence[Result]) -> str:
    """Where and when the trainings ran, and on what code."""
    machines = sorted({f"{result['device']}, threads: {result['threads']}" for result in done})
    commits = sorted({result["commit"] for result in done if result["commit"]})
    days = sorted({result["date"][:10] for result in done})
    parts = [f"{len(done)} trainings on {' and '.join(machines)}", " to ".join(dict.fromkeys((days[0], days[-1])))]
    return ", ".join(parts + ([f"commit {' '.join(commits)}"] if commits else [])) + "."


def _said(failure: Result) -> str:
    return f"{failure['head']} seed {failure['seed']} failed: {failure['error']} ({failure['log']})"


def _description(recipe: str, words: Sequence[str]) -> list[str]:
    """What the comment on top of a recipe says of it, its commands left out; of other data that would be untrue."""
    for place, word in enumerate(words):
        option, equals, value = word.partition("=")
        if option in ("--data", "--data.class_path"):
            other = value if equals else " ".join(words[place + 1 : place + 2])
            return [f"The recipe {Path(recipe).stem} on other data than its own: {other}.", ""]
    try:
        text = configs.find(recipe).read_text()
    except InputError:  # the recipe of an old sweep may have gone
        return []
    comment = [line.removeprefix("# ") for line in takewhile(lambda line: line.startswith("# "), text.splitlines())]
    said = [line for line in comment if not line.startswith("contextzoo ")]
    return [*said, ""] if said else []


def _kind(results: Sequence[Result]) -> str:
    """What is compared."""
    return "variant" if results[0].get("variants") else "head"


def _section(
    title: str,
    rows: Sequence[Mapping[str, Any]],
    results: Sequence[Result],
    counts: SweepCounts | None,
    picture: Path,
) -> str:
    """A sweep in Markdown; draws its picture."""
    first = results[0]
    seeds = 1 + max(result["seed"] for result in results)
    options = ["--options", first["options"]] if first["options"] else []
    options += ["--variants", first["variants"]] if first.get("variants") else []
    if first.get("folds"):
        options += ["--folds", str(first["folds"])]
    elif counts is not None:
        options += ["--per-image"]  # which folds imply
    command = shlex.join(["contextzoo", "sweep", first["recipe"], *options, "--seeds", str(seeds), *first["words"]])
    lines = [f"## {title}", "", *_description(first["recipe"], first["words"]), f"`{command}`", ""]
    if rows:
        done = [result for result in results if "error" not in result]
        height, width = done[0]["image_size"]
        figure, plain = rows[0]["figure"], rows[0]["plain"]
        sweep_picture.draw_costs(rows, title, plain, picture)
        lines += [
            f"{_about(done)} {figure} of the best epoch on the validation split in per cent: mean ± sample deviation "
            "over seeds, which change dropout and weights that begin anew, not the order of images or augmentation. "
            f"Parameters of the whole network; GFLOP of its forward pass on {height} x {width}, 2 per multiply-add; "
            "images/s in training, the median; peak memory, where measured, of the process, or of the GPU.",
            "",
            *sweep_table.what_can_be_seen(rows, counts),
            f"| {' | '.join((_kind(results), 'seeds', *sweep_table.columns(rows)))} |",
            f"|---|{'---:|' * (1 + len(sweep_table.columns(rows)))}",
        ]
        for row in rows:
            head, *figures = sweep_table.cells(row, sweep_table.columns(rows))
            lines.append(f"| {' | '.join((head, str(row['seeds']), *figures))} |")
        lines += ["", *sweep_table.against_plain(rows)]
        lines += ["", f"![{figure} against GFLOP and parameters]({picture.name})", ""]
        if compared := sweep_table.compared(rows):
            differences = picture.with_stem(f"{picture.stem}-differences")
            plain = sweep_table.said(plain)
            sweep_picture.draw_differences(compared, title, plain, sweep_table.smallest(rows), differences)
            lines += [f"![Difference to {plain} of each, with its 95 % interval]({differences.name})", ""]
    failures = [f"- {_said(result)}" for result in results if "error" in result]
    return "\n".join(lines + (["Failed:", "", *failures, ""] if failures else []))
