"""How far the rankings of heads agree: of one sweep with another, and with what others published."""

import math
from collections.abc import Mapping
from typing import Final

import zoo
from lightning_app.tools.sweep_statistics import spearman

Ranking = Mapping[str, float]  # head -> score
FEWEST: Final = 8  # heads; the order of fewer says nothing

MMSEGMENTATION: Final = {  # their entries under one recipe each: name -> end of the id
    "Cityscapes, R50, 80k (mmsegmentation)": "_r50-d8_cityscapes-512x1024_80k",
    "Cityscapes, R101, 80k (mmsegmentation)": "_r101-d8_cityscapes-512x1024_80k",
    "ADE20K, R50, 80k (mmsegmentation)": "_r50-d8_ade20k-512x512_80k",
    "ADE20K, R50, 160k (mmsegmentation)": "_r50-d8_ade20k-512x512_160k",
    "VOC, R50, 40k (mmsegmentation)": "_r50-d8_voc12aug-512x512_40k",
}
# mIoU on VOC, ADE20K and Cityscapes with ResNet-50 at stride 8, one seed: the model zoo of sssegmentation
# (github.com/SegmentationBLWX/sssegmentation), the one comparison under one recipe that was found.
SSSEGMENTATION: Final = {
    "pspnet": (77.93, 42.64, 79.05),
    "deeplabv3plus": (77.43, 44.51, 80.38),
    "ccnet": (77.43, 42.47, 79.15),
    "dmnet": (77.38, 43.54, 79.17),
    "nonlocal_net": (77.08, 42.15, 78.34),
    "psanet": (77.06, 41.99, 78.88),
    "isanet": (76.99, 42.60, 79.34),
    "dnlnet": (76.73, 43.50, 79.75),
    "ann": (76.68, 41.75, 78.36),
    "gcnet": (76.50, 42.53, 78.69),
    "danet": (76.39, 42.90, 79.47),
    "emanet": (75.29, 41.77, 77.96),
    "fcn": (67.80, 36.96, 75.16),
}


def published() -> dict[str, Ranking]:
    """What others measured, a ranking for each recipe."""
    entries = {entry.id: entry for entry in zoo.list_entries()}
    found: dict[str, Ranking] = {}
    for name, end in MMSEGMENTATION.items():
        found[name] = {each.head: each.metrics["mIoU"] for id, each in entries.items() if id == f"{each.head}{end}"}
    for place, dataset in enumerate(("VOC", "ADE20K", "Cityscapes")):
        found[f"{dataset}, R50 (sssegmentation)"] = {head: scores[place] for head, scores in SSSEGMENTATION.items()}
    return found


def section(sweeps: Mapping[str, Ranking]) -> list[str]:
    """Rank correlations in Markdown: a row for each ranking, a column for each sweep."""
    if not sweeps:
        return []
    rows = {**sweeps, **published()}
    lines = [
        "## Rankings compared",
        "",
        "Spearman's rank correlation of the heads' mIoU, over the heads that both rankings hold (their number): 1 is "
        "the same order, 0 none, -1 the opposite one. With 12 heads |0.59| and more are beyond chance at 5 %, with 32 "
        f"heads |0.35|; of fewer than {FEWEST} none is told. FCN is left out: that it comes last elsewhere would be "
        "most of the agreement.",
        "",
        f"| | {' | '.join(sweeps)} |",
        f"|---|{'---:|' * len(sweeps)}",
    ]
    for name, ranking in rows.items():
        lines.append(f"| {name} | {' | '.join(_cell(name, ranking, *each) for each in sweeps.items())} |")
    return [*lines, ""]


def _cell(name: str, ranking: Ranking, other: str, sweep: Ranking) -> str:
    if name == other:
        return ""
    rho, heads = spearman(_without_fcn(ranking), _without_fcn(sweep))
    return "-" if math.isnan(rho) or heads < FEWEST else f"{rho:+.2f} ({heads})"


def _without_fcn(ranking: Ranking) -> Ranking:
    return {head: score for head, score in ranking.items() if head != "fcn"}
