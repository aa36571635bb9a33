"""The table of a sweep: a row per head, how far it is from FCN, and which of these differences hold."""

from collections.abc import Mapping, Sequence
from statistics import mean, median, stdev
from typing import Any

from lightning_app.tools import sweep_statistics
from lightning_app.tools.sweep_counts import SweepCounts
from lightning_app.tools.sweep_statistics import Difference

PLAIN = "fcn"  # the head without context, which the others are held against

Result = dict[str, Any]  # of a training


def summarise(results: Sequence[Result], counts: SweepCounts | None = None) -> list[dict[str, Any]]:
    """A row per head, the best first: mean and sample deviation of mIoU over seeds, mean of mAcc, and the cost.

    Scores are shares between 0 and 1. ``minus_fcn``: difference of the means; with the counts of each image,
    ``error``: its standard error, ``p``: of no difference, by Holm's correction. ``images_per_s``: median over seeds;
    ``memory_mb``: the largest, of the process, or of the GPU where it trained on one.
    """
    heads: dict[str, list[Result]] = {}
    for result in results:
        heads.setdefault(result["head"], []).append(result)
    scores = {head: _scores(mine) for head, mine in heads.items()}
    found: dict[str, Difference] = {}
    if counts is not None:
        scores = counts.means()
        found = {each.head: each for each in sweep_statistics.differences(scores, counts.resampled(), PLAIN)}
    plain = mean(scores[PLAIN]) if PLAIN in scores else None
    rows = []
    for head, mine in heads.items():
        best = max(mine, key=lambda result: result["mIoU"])
        speeds = [result["images_per_s"] for result in mine if result["images_per_s"] is not None]
        difference = found.get(head)
        rows.append(
            {
                "head": head,
                "seeds": len(scores[head]),
                "mIoU": mean(scores[head]),
                "deviation": stdev(scores[head]) if len(scores[head]) > 1 else None,
                "mAcc": mean(result["mAcc"] for result in mine),
                "best_mIoU": best["mIoU"],
                "best_seed": best["seed"],
                "minus_fcn": None if plain is None else mean(scores[head]) - plain,
                "error": difference and difference.error,
                "p": difference and difference.p,
                "parameters": best["parameters"],
                "head_parameters": best["head_parameters"],
                "gflop": best["gflop"],
                "images_per_s": median(speeds) if speeds else None,
                "memory_mb": max(result["device_memory_mb"] or result["peak_memory_mb"] for result in mine),
            }
        )
    return sorted(rows, key=lambda row: row["mIoU"], reverse=True)


def _scores(mine: Sequence[Result]) -> list[float]:
    """Of one head, for each seed; of a seed's folds the mean."""
    seeds = sorted({result["seed"] for result in mine})
    return [mean(result["mIoU"] for result in mine if result["seed"] == seed) for seed in seeds]


def _interval(row: Mapping[str, Any]) -> tuple[float, float]:
    """Of the difference to FCN, in points."""
    half = sweep_statistics.NORMAL.inv_cdf(0.975) * row["error"]
    return 100 * (row["minus_fcn"] - half), 100 * (row["minus_fcn"] + half)


COST = ("mAcc", "parameters", "of the head", "GFLOP", "images/s", "memory")


def columns(rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Behind the head's name."""
    sure = ("95 %", "p (Holm)") if any(row["p"] is not None for row in rows) else ()
    return ("mIoU", "best (seed)", "to FCN", *sure, *COST)


def cells(row: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """A row of ``summarise`` as people read it: per cent, millions, MB."""
    deviation = "" if row["deviation"] is None else f" ± {100 * row['deviation']:.1f}"
    texts = {
        "mIoU": f"{100 * row['mIoU']:.1f}{deviation}",
        "best (seed)": f"{100 * row['best_mIoU']:.1f} ({row['best_seed']})",
        "to FCN": "" if row["minus_fcn"] is None or row["head"] == PLAIN else f"{100 * row['minus_fcn']:+.1f}",
        "95 %": "" if row["p"] is None else "{:+.1f} to {:+.1f}".format(*_interval(row)),
        "p (Holm)": "" if row["p"] is None else f"{row['p']:.2g}",
        "mAcc": f"{100 * row['mAcc']:.1f}",
        "parameters": f"{row['parameters'] / 1e6:.2f} M",
        "of the head": f"{row['head_parameters'] / 1e6:.2f} M",
        "GFLOP": f"{row['gflop']:.3g}",
        "images/s": "" if row["images_per_s"] is None else f"{row['images_per_s']:.1f}",
        "memory": f"{row['memory_mb']:.0f} MB",
    }
    return [row["head"], *(texts[name] for name in names)]


def compared(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Those whose difference to FCN has an interval."""
    return [row for row in rows if row["p"] is not None]


def smallest(rows: Sequence[Mapping[str, Any]]) -> float:
    return sweep_statistics.smallest([row["error"] for row in compared(rows)])


def what_can_be_seen(rows: Sequence[Mapping[str, Any]], counts: SweepCounts | None) -> list[str]:
    """How small a difference this sweep can tell from none, said before its table."""
    if counts is None:
        return []
    tested = compared(rows)
    deviation, freedom = sweep_statistics.pooled_deviation(counts.means())
    scatter = f"{100 * deviation:.2f} points, pooled over heads, {freedom} degrees of freedom"
    if not tested:
        seen = f"have scattered by {scatter}, from which" if freedom else "have not been repeated, so that"
        return [f"No difference here is said to hold: seeds {seen} nothing can be told. Train more seeds.", ""]
    error = 100 * median(row["error"] for row in tested)
    return [
        f"The smallest difference that this can see is {100 * smallest(rows):.1f} points: where one head truly differs "
        f"from FCN by as much, {100 * sweep_statistics.POWER:.0f} % of such sweeps find it, p being corrected for "
        f"{len(tested)} heads by Holm's rule. A difference's standard error is {error:.2f} points (median), from "
        f"{sweep_statistics.RESAMPLES} bootstrap samples of the {len(counts.names)} images, the same ones for every "
        f"head, and the deviation over seeds ({scatter}). The 95 % intervals are of a head alone.",
        "",
    ]


def against_plain(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Who is above and below FCN, as far as that is known."""
    others = [row for row in rows if row["head"] != PLAIN and row["minus_fcn"] is not None]
    if tested := compared(rows):
        sure = [row for row in tested if row["p"] < sweep_statistics.ALPHA]
        above, below = (
            ", ".join(row["head"] for row in sure if (row["minus_fcn"] > 0) == up) or "none" for up in (True, False)
        )
        rest = len(tested) - len(sure)
        return [f"Surely above FCN: {above}. Surely below: {below}. The other {rest} cannot be told from it."]
    behind = [row["head"] for row in others if row["minus_fcn"] < 0]
    return [f"Below FCN: {', '.join(behind)}."] if behind else []
