"""Which weights no others beat: the Pareto front of a figure against parameters and GFLOP."""

from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.entry import ZooEntry
from zoo.errors import ZooError

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def front(entries: Sequence[ZooEntry]) -> list[ZooEntry]:
    """Those that no other beats, by parameters: none has as high a figure, as few parameters and as few GFLOP.

    Of those that are equal in all three, the first counts. Entries whose costs are not known are left out.
    """
    found: list[ZooEntry] = []
    for entry in sorted(entries, key=lambda entry: (-entry.figure, entry.parameters or 0, entry.gflop or 0)):
        if entry.parameters is None or entry.gflop is None:
            continue
        if not any(_costs(other) <= entry.parameters and (other.gflop or 0) <= entry.gflop for other in found):
            found.append(entry)
    return sorted(found, key=_costs)


def _costs(entry: ZooEntry) -> int:
    return entry.parameters or 0


def plot(front: Sequence[ZooEntry], entries: Sequence[ZooEntry], path: Path) -> None:
    """Figure against parameters and against GFLOP: all entries, and the front among them by name.

    Raises:
        ZooError: matplotlib or the folder is not there.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ZooError("--plot needs matplotlib: pip install 'contextzoo[plot]'") from None
    if not path.parent.is_dir():
        raise ZooError(f"Cannot write {path}: the folder {path.parent} is not there")
    figure = Figure(figsize=(14, 6), layout="constrained")
    title = next(iter(front[0].details.metrics.values()), "figure")
    axes: tuple[Axes, Axes] = figure.subplots(1, 2, sharey=True)
    _panel(axes[0], front, entries, lambda entry: (entry.parameters or 0) / 1e6, "million parameters")
    _panel(axes[1], front, entries, lambda entry: entry.gflop or 0, "GFLOP of one training crop, 2 per multiply-add")
    axes[0].set_ylabel(f"{title}, %")
    figure.suptitle(f"{front[0].dataset}: {len(front)} of {len(entries)} that no other beats in all three")
    picture = BytesIO()
    try:
        figure.savefig(picture, dpi=120, format=path.suffix.removeprefix(".") or "png")
        path.write_bytes(picture.getvalue())
    except (OSError, ValueError) as error:
        raise ZooError(f"Cannot write {path}: {error}") from None


def _panel(
    axes: "Axes", front: Sequence[ZooEntry], entries: Sequence[ZooEntry], cost: Callable[[ZooEntry], float], name: str
) -> None:
    known = [entry for entry in entries if cost(entry)]
    axes.scatter([cost(entry) for entry in known], [entry.figure for entry in known], s=8, color="0.7")
    axes.scatter([cost(entry) for entry in front], [entry.figure for entry in front], s=22, color="tab:red", zorder=3)
    for number, entry in enumerate(sorted(front, key=cost)):  # names above on the left and below on the right, by turns
        above = number % 2 == 0
        axes.annotate(
            entry.id.partition(f"_{entry.dataset}")[0],
            (cost(entry), entry.figure),
            xytext=(-4, 4) if above else (4, -9),
            textcoords="offset points",
            ha="right" if above else "left",
            fontsize=7,
        )
    axes.set(xscale="log", xlabel=name)
    axes.margins(x=0.18)
    for axis in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        axis(lambda value, place: f"{value:g}")
    axes.grid(alpha=0.3)
