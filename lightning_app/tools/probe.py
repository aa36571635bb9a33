"""``contextzoo probe``: from how far each head brings news, by training it on ContextProbe.

The backbone sees one cell, and every convolution of a head's skeleton is made 1x1, so that only the paper's operator
can connect cells. Accuracy on queries is 1 / textures without context, and is counted by the distance of the cue.
"""

import argparse
import importlib.util
import inspect
import json
import math
import multiprocessing
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR

from lightning_app.app import own_modules
from lightning_app.backbones.patchify import Patchify
from lightning_app.blocks._layers import resize
from lightning_app.data.base import ImageDataset
from lightning_app.data.semantic.base import Sample
from lightning_app.data.semantic.context_probe import CELL, ContextProbe, Layout, Mode, ProbeDataset
from lightning_app.heads.base import ContextHead
from lightning_app.registry import HEADS
from lightning_app.tasks.semantic.losses import CrossEntropy, Presence
from lightning_app.tasks.semantic.network import Segmentor
from lightning_app.tools.parser import Parser
from lightning_app.util.errors import InputError
from lightning_app.util.extras import install
from lightning_app.util.files import replacing
from lightning_app.util.tables import print_table

MODES: tuple[Mode, ...] = get_args(Mode)
LAYOUT = Layout()
CHANNELS = 64
NARROWER = 8  # the papers' 512 channels are 64 here, and all their other widths shrink alike
LEARNING_RATE = 5e-3
BATCH = 32
BACKGROUND_WEIGHT = 0.1
OPTIONS: dict[str, dict[str, Any]] = {  # what a map of 12 x 12 cells asks for, and widths that are no "channels"
    "dpt": {"widths": (12, 24, 48, 96), "scales": (1, 1, 1, 1)},
    "emanet": {"bases": 16},
    "knet": {"feedforward": 256},
    "lightham": {"bases": 16},
    "mask2former": {"feedforward": 256, "encoder_feedforward": 128},
    "maskformer": {"feedforward": 256},
    "psanet": {"mask_size": (2 * LAYOUT.cells // 2 - 1,) * 2},
    "pointrend": {"strides": (CELL,) * 4},
    "semantic_fpn": {"strides": (CELL,) * 4},
}


class Recall(NamedTuple):
    """Right answers and questions by the distance of the cue; entry d of each list counts distance d."""

    hits: list[int]
    queries: list[int]

    @property
    def accuracy(self) -> float:
        """Share of all queries that are answered right."""
        return sum(self.hits) / sum(self.queries)

    @property
    def by_distance(self) -> list[float]:
        """The same for each distance, nan where nothing was asked."""
        return [hit / asked if asked else float("nan") for hit, asked in zip(self.hits, self.queries, strict=True)]


def recall(logits: Tensor, mask: Tensor, distance: Tensor) -> Recall:
    """Count answers on query pixels; the background does not count.

    Shape: logits (B, K, H, W), mask (B, H, W), distance (B, H, W) in cells.
    """
    asked = mask > 0
    right = asked & (logits.argmax(1) == mask)
    longest = int(distance.max())
    hits, queries = (torch.bincount(distance[pixels].long(), minlength=longest + 1) for pixels in (right, asked))
    return Recall(hits.tolist(), queries.tolist())


@dataclass(frozen=True)
class Run:
    """One training of one head."""

    head: str
    mode: Mode
    seed: int
    steps: int


class Result(NamedTuple):
    """What came of a run."""

    recall: Recall
    parameters: int  # of the head
    seconds: float  # of the CPU


def pointwise(module: nn.Module) -> None:
    """Make every convolution below ``module`` 1x1, but leave the papers' operators (``lightning_app.blocks``) alone."""
    for name, child in module.named_children():
        home = type(child).__module__
        if home.startswith("lightning_app.blocks.") and not home.endswith("._layers"):
            continue
        if isinstance(child, nn.Conv2d) and child.kernel_size != (1, 1):
            conv = nn.Conv2d(child.in_channels, child.out_channels, 1, groups=child.groups, bias=child.bias is not None)
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
            setattr(module, name, conv)
        else:
            pointwise(child)


def network(slug: str) -> Segmentor:
    """A head as the probe trains it, behind the backbone that sees one cell.

    No dropout and PyTorch's own start of the classifier: the question is what the operator can carry, and the papers'
    small start costs most of 600 steps.
    """
    cls = HEADS[slug].cls
    widths = {
        name: parameter.default // NARROWER
        for name, parameter in inspect.signature(cls).parameters.items()
        if name.endswith("channels") and isinstance(parameter.default, int)
    }
    backbone = Patchify(CHANNELS, CELL, depth=1)  # the head's own first layer is the next
    head = cls(backbone.channels, 1 + LAYOUT.textures, **widths | OPTIONS.get(slug, {}))
    assert isinstance(head, ContextHead)
    pointwise(head)
    head.dropout.p = 0.0
    if isinstance(head.classifier, nn.Conv2d):  # a head whose classes are tokens has none
        head.classifier.reset_parameters()
    return Segmentor(backbone, head)


def train(run: Run) -> Result:
    """Train on the fixed batches of the run's mode and seed, and count the answers on the test images."""
    started = time.process_time()
    torch.set_num_threads(1)
    torch.manual_seed(run.seed)
    net = network(run.head)
    data = ContextProbe(run.mode, seed=run.seed)
    batches = [(images, mask) for images, mask, _ in _cells(data.dataset("train"))]
    weights = torch.ones(1 + LAYOUT.textures)
    weights[0] = BACKGROUND_WEIGHT
    cross_entropy = CrossEntropy(class_weights=weights)
    losses = {"pixels": cross_entropy, "presence": Presence()}
    optimizer = AdamW(net.parameters(), LEARNING_RATE)
    schedule = OneCycleLR(optimizer, LEARNING_RATE, total_steps=run.steps)

    for step in range(run.steps):
        images, mask = batches[step % len(batches)]
        logits, auxiliary = net.head.outputs(net.features(images))
        loss = cross_entropy(resize(logits, mask.shape[-2:]), mask)
        for side, weight, kind in auxiliary:
            loss = loss + weight * losses[kind](side, mask)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()

    net.eval()
    with torch.no_grad():
        parts = [
            (resize(net.head(net.features(images)), mask.shape[-2:]), mask, distance)
            for images, mask, distance in _cells(data.dataset("test"))
        ]
    answers = recall(*(torch.cat(part) for part in zip(*parts, strict=True)))
    parameters = sum(parameter.numel() for parameter in net.head.parameters())
    return Result(answers, parameters, round(time.process_time() - started, 1))


def _cells(dataset: ImageDataset[Sample]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Batches of images in 0..1 with mask and distance, one entry per cell."""
    assert isinstance(dataset, ProbeDataset)
    for start in range(0, len(dataset), BATCH):
        part = slice(start, start + BATCH)
        masks, distances = dataset.masks[part, ::CELL, ::CELL], dataset.distances[part, ::CELL, ::CELL]
        yield dataset.images[part].float() / 255, masks.long(), distances


def main(args: list[str]) -> int:
    """Run the command; 1 where a head could not be trained."""
    options = _parse(args)
    slugs = HEADS.names(options.heads) or list(HEADS)
    wanted = [
        Run(slug, mode, seed, options.steps)
        for seed in range(options.seeds)
        for mode in options.modes
        for slug in slugs
    ]
    options.out.mkdir(parents=True, exist_ok=True)
    store = options.out / "results.jsonl"
    results = _load(store)
    failed = _train_all([run for run in wanted if run not in results], results, store, options.jobs)
    done = {run: results[run] for run in wanted if run in results}
    if done:
        _show(done)
        _draw(done, options.out / "probe.png")
    return int(failed)


def _parse(args: list[str]) -> argparse.Namespace:
    parser = Parser(
        prog="contextzoo probe",
        description="Train each head on ContextProbe and count its answers by the distance of the cue.",
        epilog="example: contextzoo probe fcn nonlocal_net ccnet --modes anywhere cross --jobs 2",
    )
    add = parser.add_argument
    add("heads", nargs="*", metavar="HEAD", help="slugs; default all")
    add("--modes", nargs="+", choices=MODES, default=MODES, metavar="MODE", help="anywhere, cross, near; default all")
    add("--seeds", type=int, default=3, metavar="N", help="trainings of each head and mode; default 3")
    add("--steps", type=int, default=600, metavar="N", help="of a training; default 600")
    add("--jobs", type=int, default=1, metavar="N", help="trainings side by side, one thread each; default 1")
    add("--out", type=Path, default=Path("runs/probe"), metavar="DIR", help="results, kept; default runs/probe")
    options = parser.parse_args(args)
    for name in ("seeds", "steps", "jobs"):
        if getattr(options, name) < 1:
            raise InputError(f"--{name} is {getattr(options, name)}: give a positive number")
    if importlib.util.find_spec("matplotlib") is None:
        raise InputError(f"probe draws with matplotlib: {install('plot')}")
    return options


def _load(store: Path) -> dict[Run, Result]:
    """Results of earlier calls."""
    results = {}
    for number, line in enumerate(store.read_text().splitlines() if store.exists() else [], 1):
        try:
            entry = json.loads(line)
            run = Run(*(entry[name] for name in ("head", "mode", "seed", "steps")))
            results[run] = Result(Recall(entry["hits"], entry["queries"]), entry["parameters"], entry["seconds"])
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{store}, line {number}: not a result ({error!r}). Remove the line.") from error
    return results


def _train_all(runs: Sequence[Run], results: dict[Run, Result], store: Path, jobs: int) -> bool:
    """Add the results of ``runs``, each stored as soon as it is there; whether any failed."""
    failed = False
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), initializer=own_modules.import_named)
    try:
        futures = {pool.submit(train, run): run for run in runs}
        for count, future in enumerate(as_completed(futures), 1):
            run = futures[future]
            place = f"[{count}/{len(runs)}] {run.head} {run.mode} seed {run.seed}"
            try:
                result = future.result()
            except (RuntimeError, ValueError, TypeError) as error:
                failed = True
                print(f"{place} could not be trained: {str(error).partition(chr(10))[0]}", file=sys.stderr)
                continue
            results[run] = result
            entry = asdict(run) | result.recall._asdict()
            with store.open("a") as file:
                file.write(json.dumps(entry | {"parameters": result.parameters, "seconds": result.seconds}) + "\n")
            print(f"{place}: {result.recall.accuracy:.3f} in {result.seconds:.0f} s of CPU time", flush=True)
    finally:
        pool.shutdown(cancel_futures=True)
    return failed


def _show(results: Mapping[Run, Result]) -> None:
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


def _draw(results: Mapping[Run, Result], path: Path) -> None:
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
