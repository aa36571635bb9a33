"""One head trained on ContextProbe, and its answers counted by the distance of the cue."""

import inspect
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR

from lightning_app.backbones.patchify import Patchify
from lightning_app.blocks._layers import resize
from lightning_app.data.base import ImageDataset
from lightning_app.data.semantic.base import Sample
from lightning_app.data.semantic.context_probe import CELL, ContextProbe, Layout, Mode, ProbeDataset
from lightning_app.heads.base import ContextHead
from lightning_app.registry import HEADS
from lightning_app.tasks.semantic.losses import CrossEntropy, Presence
from lightning_app.tasks.semantic.network import Segmentor

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
