"""The picture of a sweep: scores against cost, and how far each head is from FCN."""

import math
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from lightning_app.tools.sweep_statistics import ALPHA, NORMAL
from lightning_app.util.files import replacing

FAR = 3  # half lines of text between a point and its name: a fan of longer lines cannot be followed


def draw_costs(rows: Sequence[Mapping[str, Any]], title: str, plain: str, picture: Path) -> None:
    """Scores against GFLOP and against parameters, a point per head, named where there is room; a line at ``plain``."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib import ticker

    figure_name = rows[0]["figure"]
    scores = [100 * row[figure_name] for row in rows]
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
            if row["head"] == plain:
                axis.axhline(score, linestyle=":", color="tab:blue", linewidth=1)
        axis.grid(alpha=0.3)
        axis.margins(0.1)
    axes[0].set_ylabel(f"validation {figure_name}, per cent: mean and deviation over seeds")
    figure.suptitle(title)
    figure.canvas.draw()  # the layout settles, and with it where the points are
    told = {row["head"] for row in rows if row["p"] is None or row["p"] < ALPHA}  # the plain one has no p
    for axis, costs in zip(axes, panels.values(), strict=True):
        _name(axis, {row["head"]: point for row, *point in zip(rows, costs, scores, strict=True)}, told)
    with replacing(picture) as path:
        figure.savefig(path, dpi=110, format="png")
    plt.close(figure)


def draw_differences(rows: Sequence[Mapping[str, Any]], title: str, plain: str, smallest: float, picture: Path) -> None:
    """Difference to ``plain`` with its 95 % interval, a line per head, the best on top; grey is what cannot be seen.

    Args:
        rows: those that have a difference.
        smallest: difference that the sweep can see.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 1.2 + 0.22 * len(rows)), layout="constrained")
    axis.axvspan(-100 * smallest, 100 * smallest, color="0.93", label="less than the sweep can see")
    axis.axvline(0, color="0.4", linewidth=1)
    for place, row in enumerate(sorted(rows, key=lambda row: row["minus_plain"])):
        sure = row["p"] < ALPHA
        axis.errorbar(
            100 * row["minus_plain"],
            place,
            xerr=100 * NORMAL.inv_cdf(0.975) * row["error"],
            fmt="o",
            markersize=5,
            color="tab:blue",
            markerfacecolor="tab:blue" if sure else "white",
            linewidth=1,
        )
    axis.set_yticks(range(len(rows)), [row["head"] for row in sorted(rows, key=lambda row: row["minus_plain"])])
    axis.set(
        xlabel=f"mIoU less that of {plain}, points\nmean over seeds, 95 % interval over images and seeds", title=title
    )
    axis.set_ylim(-1, len(rows))
    axis.grid(axis="x", alpha=0.3)
    axis.plot([], [], "o", color="tab:blue", label="holds after Holm's correction")
    axis.plot([], [], "o", color="tab:blue", markerfacecolor="white", label=f"cannot be told from {plain}")
    axis.legend(fontsize=8, loc="upper left")  # the best stand on top, to the right
    with replacing(picture) as path:
        figure.savefig(path, dpi=110, format="png")
    plt.close(figure)


def _name(axis: Any, points: Mapping[str, Sequence[float]], told: Set[str]) -> None:
    """Write a name near each point, with a line where it is not beside it; none where there is no room.

    The names that are ``told`` come first, then those of points that stand apart.
    """
    from matplotlib.transforms import Bbox

    pixel = axis.figure.dpi / 72
    line = {"arrowstyle": "-", "linewidth": 0.4, "color": "grey", "shrinkA": 0, "shrinkB": 0}
    height, letter, gap = 10 * pixel, 4.8 * pixel, 5 * pixel  # of text of 8 points
    places = dict(zip(points, axis.transData.transform(list(points.values())).tolist(), strict=True))
    taken = [Bbox.from_bounds(x - gap / 2, y - gap / 2, gap, gap) for x, y in places.values()]

    def order(name: str) -> tuple[bool, float]:
        others = (math.dist(places[name], place) for other, place in places.items() if other != name)
        return name not in told, -min(others, default=0.0)

    steps = sorted(range(-FAR, FAR + 1), key=abs)
    nameless = 0
    offsets = [(side * (gap + abs(step)), step * height / 2) for step in steps for side in (1, -1)]
    for name in sorted(points, key=order):
        x, y = places[name]
        width = letter * len(name)
        boxes = {
            (dx, dy): Bbox.from_bounds(x + dx - (width if dx < 0 else 0), y + dy - height / 2, width, height)
            for dx, dy in offsets
        }
        free = (
            each
            for each, box in boxes.items()
            if not box.count_overlaps(taken) and axis.bbox.x0 < box.x0 and box.x1 < axis.bbox.x1
        )
        if (offset := next(free, None)) is None:
            nameless += 1
            continue
        dx, dy = offset
        taken.append(boxes[dx, dy])
        axis.annotate(
            name,
            points[name],
            xytext=(dx / pixel, dy / pixel),
            textcoords="offset points",
            fontsize=8,
            ha="left" if dx > 0 else "right",
            va="center",
            arrowprops={**line, "relpos": (0 if dx > 0 else 1, 0.5)} if dy else None,
        )
    if nameless:
        said = f"{nameless} without a name, where points crowd: the table has all"
        axis.text(0.01, 0.01, said, transform=axis.transAxes, fontsize=8, color="grey")
