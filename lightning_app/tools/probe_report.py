"""What a probe found: a table, and a picture of accuracy against distance."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import get_args

from lightning_app.data.semantic.context_probe import Mode
from lightning_app.tools.probe_training import LAYOUT, Recall, Result, Run
from lightning_app.util.files import replacing
from lightning_app.util.tables import print_table

MODES: tuple[Mode, ...] = get_args(Mode)


def show(results: Mapping[Run, Result]) -> None:
    modes = _present(results)
    rows = []
    for slug in _ranking(results):
        mine = [result for run, result in results.items() if run.head == slug]
        cells = [_summary(_accuracies(results, slug, mode)) for mode in modes]
        rows.append((slug, str(mine[0].parameters), *cells, f"{mean(result.seconds for result in mine):.0f}"))
    numbers = ("parameters", *modes, "CPU s")
    print(f"Accuracy on queries, mean over seeds; chance is {1 / LAYOUT.textures:.2f}")
    print_table(("head", *numbers), rows, right=numbers)


def _present(results: Mapping[Run, Result]) -> list[Mode]:
    return [mode for mode in MODES if any(run.mode == mode for run in results)]


def _accuracies(results: Mapping[Run, Result], slug: str, mode: Mode) -> list[float]:
    return [result.recall.accuracy for run, result in results.items() if (run.head, run.mode) == (slug, mode)]


def _ranking(results: Mapping[Run, Result]) -> list[str]:
    """Heads from the best to the worst in the first mode, then the next."""

    def key(slug: str) -> list[float]:
        return [round(mean(_accuracies(results, slug, mode) or [0]), 2) for mode in _present(results)]

    return sorted(sorted({run.head for run in results}), key=key, reverse=True)


def _summary(accuracies: Sequence[float]) -> str:
    """The mean, with the range where the seeds disagree."""
    if not accuracies:
        return "-"
    low, high = min(accuracies), max(accuracies)
    spread = f" ({low:.2f}..{high:.2f})" if high - low > 0.05 else ""
    return f"{mean(accuracies):.2f}{spread}"


def draw(results: Mapping[Run, Result], path: Path) -> None:
    """Accuracy against distance: a row per head, a panel per mode."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    modes, slugs = _present(results), _ranking(results)
    longest = {mode: LAYOUT.cells - 1 if mode != "near" else LAYOUT.radius for mode in modes}
    figure, axes = plt.subplots(
        1,
        len(modes),
        figsize=(3 + 0.36 * sum(longest.values()), 1.4 + 0.26 * len(slugs)),
        width_ratios=list(longest.values()),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axis, mode in zip(axes[0], modes, strict=True):
        table = [_by_distance(results, slug, mode, longest[mode]) for slug in slugs]
        extent = (0.5, longest[mode] + 0.5, len(slugs) - 0.5, -0.5)
        image = axis.imshow(table, vmin=1 / LAYOUT.textures, vmax=1, aspect="auto", extent=extent)
        for row, values in enumerate(table):
            for distance, value in enumerate(values, 1):
                if not math.isnan(value):
                    shade = "black" if value > 0.7 else "white"
                    axis.text(distance, row, f"{100 * value:.0f}", ha="center", va="center", fontsize=7, color=shade)
        axis.set_title(mode, fontsize=10)
        axis.set_xticks(range(1, longest[mode] + 1))
        axis.tick_params(labelsize=8, length=0)
        axis.set_yticks(range(len(slugs)), slugs)
    figure.supxlabel("distance of the cue in cells", fontsize=9)
    bar = figure.colorbar(image, ax=axes, pad=0.01)
    bar.set_label("accuracy on queries, from chance to 1", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=160, format=path.suffix.removeprefix(".") or "png")
    plt.close(figure)
    print(f"Wrote {path}")


def _by_distance(results: Mapping[Run, Result], slug: str, mode: Mode, longest: int) -> list[float]:
    """Accuracy at distances 1 to ``longest`` over all seeds, nan where nothing was asked."""
    hits, queries = [0] * (longest + 1), [0] * (longest + 1)
    for run, result in results.items():
        if (run.head, run.mode) == (slug, mode):
            for distance, (hit, asked) in enumerate(zip(*result.recall, strict=True)):
                hits[distance] += hit
                queries[distance] += asked
    return Recall(hits, queries).by_distance[1:]
