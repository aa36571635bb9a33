"""The table of a sweep: a row per head or variant, how far it is from the plain one, and which differences hold."""

from collections.abc import Mapping, Sequence
from statistics import mean, median, stdev
from typing import Any

from lightning_app.tools import sweep_statistics
from lightning_app.tools.sweep_counts import SweepCounts
from lightning_app.tools.sweep_statistics import Difference

HEAD, VARIANT = "fcn", "none"  # the head, or the variant, without context, which the others are held against
BESIDE: Mapping[str, tuple[str, ...]] = {  # what else a table has of a figure
    "mIoU": ("mAcc",),
    "AP": ("AP50", "PCK"),
    "mask_AP": ("mask_AP50", "box_AP"),
}

Result = dict[str, Any]  # of a training


def summarise(results: Sequence[Result], counts: SweepCounts | None = None) -> list[dict[str, Any]]:
    """A row per head, the best first: mean and sample deviation of its figure over seeds, means of others, the cost.

    Scores are shares between 0 and 1. ``minus_plain``: difference of the means to the ``plain`` one; with the counts of
    each image, ``error``: its standard error, ``p``: of no difference, by Holm's correction. ``images_per_s``: median
    over seeds; ``gflop`` and ``memory_mb``: the largest, memory of the process, or of the GPU where it trained on one.
    """
    heads: dict[str, list[Result]] = {}
    for result in results:
        heads.setdefault(result["head"], []).append(result)
    figure, nothing = figure_of(results), plain_of(results)
    scores = {head: _scores(mine, figure) for head, mine in heads.items()}
    found: dict[str, Difference] = {}
    if counts is not None:
        scores = counts.means()
        pairs = [(head, nothing) for head in scores if head != nothing]
        found = {each.head: each for each in sweep_statistics.differences(scores, counts.resampled(), pairs)}
    plain = mean(scores[nothing]) if nothing in scores else None
    rows = []
    for head, mine in heads.items():
        costly = max(mine, key=lambda result: result["gflop"])  # a detector's cost grows with what it finds
        best, seed = max(zip(scores[head], sorted({result["seed"] for result in mine}), strict=True))
        speeds = [result["images_per_s"] for result in mine if result["images_per_s"] is not None]
        memory = [each for result in mine if (each := result["device_memory_mb"] or result["peak_memory_mb"])]
        difference = found.get(head)
        rows.append(
            {
                "head": head,
                "seeds": len(scores[head]),
                "figure": figure,
                "plain": nothing,
                figure: mean(scores[head]),
                "deviation": stdev(scores[head]) if len(scores[head]) > 1 else None,
                **{name: mean(result[name] for result in mine) for name in BESIDE.get(figure, ())},
                "best": best,
                "best_seed": seed,
                "minus_plain": None if plain is None else mean(scores[head]) - plain,
                "error": difference and difference.error,
                "p": difference and difference.p,
                "parameters": costly["parameters"],
                "head_parameters": costly["head_parameters"],
                "gflop": costly["gflop"],
                "images_per_s": median(speeds) if speeds else None,
                "memory_mb": max(memory) if memory else None,
            }
        )
    return sorted(rows, key=lambda row: row[figure], reverse=True)


def figure_of(results: Sequence[Mapping[str, Any]]) -> str:
    """What they are ranked by, the figure of their task; results of before there were several tasks do not say."""
    return next((str(each["figure"]) for each in results if "figure" in each), "mIoU")


def plain_of(results: Sequence[Mapping[str, Any]]) -> str:
    """What the others are held against: FCN, or of variants without one by that name the one that adds nothing."""
    of_variants = any(each.get("variants") for each in results)
    return VARIANT if of_variants and all(each["head"] != HEAD for each in results) else HEAD


def _scores(mine: Sequence[Result], figure: str) -> list[float]:
    """Of one head, for each seed; of a seed's folds the mean."""
    seeds = sorted({result["seed"] for result in mine})
    return [mean(result[figure] for result in mine if result["seed"] == seed) for seed in seeds]


def _interval(row: Mapping[str, Any]) -> tuple[float, float]:
    """Of the difference to the plain one, in points."""
    half = sweep_statistics.NORMAL.inv_cdf(0.975) * row["error"]
    return 100 * (row["minus_plain"] - half), 100 * (row["minus_plain"] + half)


COST = ("parameters", "of the head", "GFLOP", "images/s", "memory")


def columns(rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Behind the head's name."""
    sure = ("95 %", "p (Holm)") if any(row["p"] is not None for row in rows) else ()
    figure, plain = (rows[0]["figure"], rows[0]["plain"]) if rows else ("mIoU", HEAD)
    return (figure, "best (seed)", f"to {said(plain)}", *sure, *BESIDE.get(figure, ()), *COST)


def said(plain: str) -> str:
    """The plain head or variant as a table calls it."""
    return "FCN" if plain == HEAD else plain


def cells(row: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """A row of ``summarise`` as people read it: per cent, millions, MB."""
    deviation = "" if row["deviation"] is None else f" ± {100 * row['deviation']:.1f}"
    apart = "" if row["minus_plain"] is None or row["head"] == row["plain"] else f"{100 * row['minus_plain']:+.1f}"
    texts = {
        row["figure"]: f"{100 * row[row['figure']]:.1f}{deviation}",
        "best (seed)": f"{100 * row['best']:.1f} ({row['best_seed']})",
        f"to {said(row['plain'])}": apart,
        "95 %": "" if row["p"] is None else "{:+.1f} to {:+.1f}".format(*_interval(row)),
        "p (Holm)": "" if row["p"] is None else f"{row['p']:.2g}",
        **{name: f"{100 * row[name]:.1f}" for name in BESIDE.get(row["figure"], ())},
        "parameters": f"{row['parameters'] / 1e6:.2f} M",
        "of the head": f"{row['head_parameters'] / 1e6:.2f} M",
        "GFLOP": f"{row['gflop']:.3g}",
        "images/s": "" if row["images_per_s"] is None else f"{row['images_per_s']:.1f}",
        "memory": "" if row["memory_mb"] is None else f"{row['memory_mb']:.0f} MB",
    }
    return [row["head"], *(texts[name] for name in names)]


def compared(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Those whose difference to the plain one has an interval."""
    return [row for row in rows if row["p"] is not None]


def smallest(rows: Sequence[Mapping[str, Any]]) -> float:
    return sweep_statistics.smallest([row["error"] for row in compared(rows)])


def what_can_be_seen(rows: Sequence[Mapping[str, Any]], counts: SweepCounts | None) -> list[str]:
    """How small a difference this sweep can tell from none, said before its table."""
    if counts is None:
        return []
    tested, plain = compared(rows), said(rows[0]["plain"])
    deviation, freedom = sweep_statistics.pooled_deviation(counts.means())
    scatter = f"{100 * deviation:.2f} points, pooled, {freedom} degrees of freedom"
    if not tested:
        seen = f"have scattered by {scatter}, from which" if freedom else "have not been repeated, so that"
        return [f"No difference here is said to hold: seeds {seen} nothing can be told. Train more seeds.", ""]
    error = 100 * median(row["error"] for row in tested)
    return [
        f"The smallest difference that this can see is {100 * smallest(rows):.1f} points: where one truly differs "
        f"from {plain} by as much, {100 * sweep_statistics.POWER:.0f} % of such sweeps find it, p being corrected for "
        f"{len(tested)} comparisons by Holm's rule. A difference's standard error is {error:.2f} points (median), from "
        f"{sweep_statistics.RESAMPLES} bootstrap samples of the {len(counts.names)} images, the same ones for all, "
        f"and the deviation over seeds ({scatter}; a head's own where that is larger). Each 95 % interval stands for "
        "itself.",
        "",
    ]


def against_plain(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Who is above and below the plain one, as far as that is known."""
    others = [row for row in rows if row["head"] != row["plain"] and row["minus_plain"] is not None]
    if tested := compared(rows):
        sure = [row for row in tested if row["p"] < sweep_statistics.ALPHA]
        above, below = (
            ", ".join(row["head"] for row in sure if (row["minus_plain"] > 0) == up) or "none" for up in (True, False)
        )
        rest, plain = len(tested) - len(sure), said(rows[0]["plain"])
        return [f"Surely above {plain}: {above}. Surely below: {below}. The other {rest} cannot be told from it."]
    behind = [row["head"] for row in others if row["minus_plain"] < 0]
    return [f"Below {said(rows[0]['plain'])}: {', '.join(behind)}."] if behind else []
