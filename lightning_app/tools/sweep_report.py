"""What the trainings of ``contextzoo sweep`` came to: a table on the screen, as files, and as a picture."""

import csv
import json
import shlex
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

from lightning_app.app import configs
from lightning_app.util.errors import InputError
from lightning_app.util.files import replacing
from lightning_app.util.tables import print_table

RESULT = "result.json"
PLAIN = "fcn"  # the head without context, which the others are held against

Result = dict[str, Any]  # of a training


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


def summarise(results: Sequence[Result]) -> list[dict[str, Any]]:
    """A row per head, the best first: mean and sample deviation of mIoU over seeds, mean of mAcc, and the cost.

    Scores are shares between 0 and 1. ``minus_fcn``: difference of the means; ``images_per_s``: median over seeds;
    ``memory_mb``: the largest, of the process, or of the GPU where it trained on one.
    """
    heads: dict[str, list[Result]] = {}
    for result in results:
        heads.setdefault(result["head"], []).append(result)
    plain = mean(result["mIoU"] for result in heads[PLAIN]) if PLAIN in heads else None
    rows = []
    for head, mine in heads.items():
        scores = [result["mIoU"] for result in mine]
        best = max(mine, key=lambda result: result["mIoU"])
        speeds = [result["images_per_s"] for result in mine if result["images_per_s"] is not None]
        rows.append(
            {
                "head": head,
                "seeds": len(mine),
                "mIoU": mean(scores),
                "deviation": stdev(scores) if len(scores) > 1 else None,
                "mAcc": mean(result["mAcc"] for result in mine),
                "best_mIoU": best["mIoU"],
                "best_seed": best["seed"],
                "minus_fcn": None if plain is None else mean(scores) - plain,
                "parameters": best["parameters"],
                "head_parameters": best["head_parameters"],
                "gflop": best["gflop"],
                "images_per_s": median(speeds) if speeds else None,
                "memory_mb": max(result["device_memory_mb"] or result["peak_memory_mb"] for result in mine),
            }
        )
    return sorted(rows, key=lambda row: row["mIoU"], reverse=True)


COLUMNS = ("mIoU", "best (seed)", "to FCN", "mAcc", "parameters", "of the head", "GFLOP", "images/s", "memory")


def cells(row: Mapping[str, Any]) -> list[str]:
    """A row of ``summarise`` as people read it: per cent, millions, MB."""
    deviation = "" if row["deviation"] is None else f" ± {100 * row['deviation']:.1f}"
    return [
        row["head"],
        f"{100 * row['mIoU']:.1f}{deviation}",
        f"{100 * row['best_mIoU']:.1f} ({row['best_seed']})",
        "" if row["minus_fcn"] is None or row["head"] == PLAIN else f"{100 * row['minus_fcn']:+.1f}",
        f"{100 * row['mAcc']:.1f}",
        f"{row['parameters'] / 1e6:.2f} M",
        f"{row['head_parameters'] / 1e6:.2f} M",
        f"{row['gflop']:.3g}",
        "" if row["images_per_s"] is None else f"{row['images_per_s']:.1f}",
        f"{row['memory_mb']:.0f} MB",
    ]


def write(places: Sequence[Path], page: Path | None) -> None:
    """Print the table of each sweep and write its files; with ``page``, one page of all of them too.

    Args:
        places: folders of sweeps, or files that an earlier call wrote as ``results.json``, wherever they are now.
    """
    sections = []
    for place, results in [(place, _results(place)) for place in places]:
        done = [result for result in results if "error" not in result]
        failures = [result for result in results if "error" in result]
        rows = summarise(done)
        title = Path(results[0]["recipe"]).stem
        if rows:
            print(f"\n{title}: {_about(done)}")
            print_table(("head", *COLUMNS), map(cells, rows), right=COLUMNS)
        for failure in failures:
            print(_said(failure))
        if page:
            sections.append(_section(rows, results, page.with_name(f"{page.stem}-{place.stem}.png")))
        if place.is_dir():
            with replacing(place / "results.csv") as path, path.open("w", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]) if rows else [])
                writer.writeheader()
                writer.writerows(rows)
            with replacing(place / "results.json") as path:
                path.write_text(json.dumps({"heads": rows, "trainings": done, "failures": failures}, indent=1) + "\n")
            with replacing(place / "results.md") as path:
                path.write_text(_section(rows, results, place / "results.png"))
            print(f"Wrote {place}/results.md, with .csv, .json and .png beside it")
    if page:
        with replacing(page) as path:
            command = shlex.join(["contextzoo", "sweep", "--report", *map(str, places), "--to", str(page)])
            path.write_text(f"# Heads compared\n\nWritten by `{command}`.\n\n" + "\n".join(sections))
        print(f"Wrote {page}")


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


def _section(rows: Sequence[Mapping[str, Any]], results: Sequence[Result], picture: Path) -> str:
    """A sweep in Markdown; draws its picture."""
    first = results[0]
    title = Path(first["recipe"]).stem
    seeds = 1 + max(result["seed"] for result in results)
    options = ["--options", first["options"]] if first["options"] else []
    command = shlex.join(["contextzoo", "sweep", first["recipe"], *options, "--seeds", str(seeds), *first["words"]])
    lines = [f"## {title}", "", *_description(first["recipe"], first["words"]), f"`{command}`", ""]
    if rows:
        done = [result for result in results if "error" not in result]
        height, width = done[0]["image_size"]
        _draw(rows, title, picture)
        lines += [
            f"{_about(done)} mIoU of the best epoch on the validation split in per cent: mean ± sample deviation over "
            "seeds, which change initial weights and dropout, not the order of the images or their augmentation. "
            f"Parameters of the whole network; GFLOP of its forward pass on {height} x {width}, 2 per multiply-add; "
            "images/s in training, the median; memory at its peak, of the process, or of the GPU.",
            "",
            f"| {' | '.join(('head', 'seeds', *COLUMNS))} |",
            f"|---|{'---:|' * (1 + len(COLUMNS))}",
        ]
        for row in rows:
            head, *figures = cells(row)
            lines.append(f"| {' | '.join((head, str(row['seeds']), *figures))} |")
        behind = [row["head"] for row in rows if row["head"] != PLAIN and (row["minus_fcn"] or 0) < 0]
        if behind:
            lines += ["", f"Below FCN: {', '.join(behind)}."]
        lines += ["", f"![mIoU against GFLOP and parameters]({picture.name})", ""]
    failures = [f"- {_said(result)}" for result in results if "error" in result]
    return "\n".join(lines + (["Failed:", "", *failures, ""] if failures else []))


def _draw(rows: Sequence[Mapping[str, Any]], title: str, picture: Path) -> None:
    """mIoU against GFLOP and against parameters, a named point per head."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib import ticker

    scores = [100 * row["mIoU"] for row in rows]
    spread = [100 * (row["deviation"] or 0) for row in rows]
    panels = {
        "GFLOP of the network, forward": [row["gflop"] for row in rows],
        "parameters of the network, million": [row["parameters"] / 1e6 for row in rows],
    }
    figure, axes = plt.subplots(1, 2, figsize=(15, 8), sharey=True, layout="constrained")
    for axis, (label, costs) in zip(axes, panels.items(), strict=True):
        axis.errorbar(costs, scores, spread, fmt="o", markersize=4, color="tab:blue", ecolor="lightsteelblue")
        axis.set(xlabel=label, xscale="log")
        axis.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 3, 4, 6)))
        axis.xaxis.set_major_formatter("{x:.7g}")  # fewer digits would say the same of close ticks
        axis.xaxis.set_minor_locator(ticker.NullLocator())
        for row, score in zip(rows, scores, strict=True):
            if row["head"] == PLAIN:
                axis.axhline(score, linestyle=":", color="tab:blue", linewidth=1)
        axis.grid(alpha=0.3)
        axis.margins(0.1)
    axes[0].set_ylabel("validation mIoU, per cent: mean and deviation over seeds")
    figure.suptitle(title)
    figure.canvas.draw()  # the layout settles, and with it where the points are
    for axis, costs in zip(axes, panels.values(), strict=True):
        _name(axis, [row["head"] for row in rows], list(zip(costs, scores, strict=True)))
    with replacing(picture) as path:
        figure.savefig(path, dpi=110, format="png")
    plt.close(figure)


def _name(axis: Any, names: Sequence[str], points: Sequence[tuple[float, float]]) -> None:
    """Write a name beside each point, on the free place nearest to it, with a line where that is not beside it."""
    from matplotlib.transforms import Bbox

    pixel = axis.figure.dpi / 72
    line = {"arrowstyle": "-", "linewidth": 0.4, "color": "grey", "shrinkA": 0, "shrinkB": 0}
    height, letter, gap = 10 * pixel, 4.8 * pixel, 5 * pixel  # of text of 8 points
    places = axis.transData.transform(points)
    taken = [Bbox.from_bounds(x - gap / 2, y - gap / 2, gap, gap) for x, y in places]
    steps = sorted(range(-30, 31), key=abs)
    offsets = [(side * (gap + abs(step)), step * height / 2) for step in steps for side in (1, -1)]
    for name, point, (x, y) in zip(names, points, places, strict=True):
        width = letter * len(name)
        boxes = {
            (dx, dy): Bbox.from_bounds(x + dx - (width if dx < 0 else 0), y + dy - height / 2, width, height)
            for dx, dy in offsets
        }
        free = (
            offset
            for offset, box in boxes.items()
            if not box.count_overlaps(taken) and axis.bbox.x0 < box.x0 and box.x1 < axis.bbox.x1
        )
        dx, dy = next(free, offsets[0])
        taken.append(boxes[dx, dy])
        axis.annotate(
            name,
            point,
            xytext=(dx / pixel, dy / pixel),
            textcoords="offset points",
            fontsize=8,
            ha="left" if dx > 0 else "right",
            va="center",
            arrowprops={**line, "relpos": (0 if dx > 0 else 1, 0.5)} if dy else None,
        )
