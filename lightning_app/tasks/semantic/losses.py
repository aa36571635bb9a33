"""Losses on logits at label size, weighted sums of them, and class weights from pixel counts.

Every loss takes logits (B, K, H, W) and a target (B, H, W) of int64 class numbers, and is 0 with zero gradients where
no pixel has a label: a crop that is all ``ignore_index`` trains on.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_app.util.errors import InputError, suggest


class CrossEntropy(nn.Module):
    """Softmax cross-entropy, averaged over the pixels that have a label.

    L = sum_i w_i CE_i / sum_i w_i over the labelled pixels i, w_i = class_weights[target_i], or 1 without them.

    Shape: logits (B, K, H, W), target (B, H, W) -> ().

    Args:
        class_weights: (K,), one weight per class.
        count_ignored: let each ignored pixel add 1 to the divisor. mmsegmentation divides so: its published recipes and
            learning rates go with a loss that shrinks as more of the image is ignored.
    """

    class_weights: Tensor | None

    def __init__(
        self, *, ignore_index: int = 255, class_weights: Tensor | None = None, count_ignored: bool = False
    ) -> None:
        super().__init__()
        self.ignore_index = ignore_index
        self.count_ignored = count_ignored
        self.register_buffer("class_weights", class_weights, persistent=False)  # a setting, not a thing learnt

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        losses, weights, labelled = self.per_pixel(logits, target)
        return self.average(losses, weights, labelled)

    def per_pixel(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Cross-entropy (0 where ignored), weight (1 where ignored) and whether there is a label, each (B, H, W)."""
        losses = F.cross_entropy(_full(logits), target, ignore_index=self.ignore_index, reduction="none")
        labelled = target != self.ignore_index
        if self.class_weights is None:
            return losses, torch.ones_like(losses), labelled
        weights = self.class_weights.to(losses.dtype)[target.where(labelled, 0)]
        return losses, weights.where(labelled, 1), labelled

    def average(self, losses: Tensor, weights: Tensor, counted: Tensor) -> Tensor:
        """Weighted mean over the pixels that are counted."""
        kept = weights * counted
        divisor = weights.sum() if self.count_ignored else kept.sum()
        return (losses * kept).sum() / divisor.clamp(min=torch.finfo(losses.dtype).tiny)


class OHEM(CrossEntropy):
    """Cross-entropy on the hardest pixels only (online hard example mining).

    With a threshold: keep the pixels whose true class has a probability p < max(threshold, q), q the element at index
    min(B min_kept, n - 1) of the n labelled pixels' p in rising order. Without: keep the B min_kept largest losses.
    The average runs over the kept pixels, or over all pixels with ``count_ignored``.

    Shape: logits (B, K, H, W), target (B, H, W) -> ().

    Args:
        threshold: probability under which a pixel is hard; ``None`` keeps a fixed number.
        min_kept: pixels kept per image at least, where that many have a label.

    Paper: arXiv:1604.03540 (for boxes). Consulted: CCNet's criterion and mmsegmentation's OHEMPixelSampler, whose two
    rules these are.
    """

    def __init__(
        self,
        *,
        threshold: float | None = 0.7,
        min_kept: int = 100_000,
        ignore_index: int = 255,
        class_weights: Tensor | None = None,
        count_ignored: bool = False,
    ) -> None:
        super().__init__(ignore_index=ignore_index, class_weights=class_weights, count_ignored=count_ignored)
        self.threshold = threshold
        self.min_kept = min_kept

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        losses, weights, labelled = self.per_pixel(logits, target)
        return self.average(losses, weights, self.hardest(losses, weights, labelled))

    @torch.no_grad()
    def hardest(self, losses: Tensor, weights: Tensor, labelled: Tensor) -> Tensor:
        """Which pixels count, (B, H, W) of 0 and 1."""
        wanted = self.min_kept * len(losses)
        n = int(labelled.sum())
        if n == 0:
            return labelled
        if self.threshold is None:
            hardness = (losses * weights).masked_fill(~labelled, -1).flatten()
            kept = hardness.topk(min(wanted, n), sorted=False).indices
            return torch.zeros_like(hardness).index_fill_(0, kept, 1).view_as(losses)
        probability = losses.neg().exp()
        q = probability[labelled].kthvalue(min(wanted, n - 1) + 1).values
        return labelled & (probability < q.clamp(min=self.threshold))


class Region(nn.Module):
    """A loss of segmentation-models-pytorch (dice, focal, jaccard, lovasz, tversky) on multiclass logits.

    Shape: logits (B, K, H, W), target (B, H, W) -> ().
    """

    names = ("dice", "focal", "jaccard", "lovasz", "tversky")

    def __init__(self, name: str, *, ignore_index: int = 255) -> None:
        super().__init__()
        from segmentation_models_pytorch import losses  # costs seconds

        self.ignore_index = ignore_index
        self.loss: nn.Module = getattr(losses, f"{name.capitalize()}Loss")("multiclass", ignore_index=ignore_index)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        logits = logits.float()  # smp's lovasz takes no other
        if not (target != self.ignore_index).any():
            return logits.sum() * 0
        loss: Tensor = self.loss(logits, target)
        return loss


class Presence(nn.Module):
    """Binary cross-entropy of "this class is in this image": EncNet's semantic encoding loss.

    L = mean over images and classes of BCE(sigmoid(logits_bk), 1 if a pixel of image b has label k else 0); an image
    without any label is left out.

    Shape: logits (B, K), target (B, H, W) -> ().

    Paper: arXiv:1803.08904. Consulted: mmsegmentation's EncHead.
    """

    def __init__(self, *, ignore_index: int = 255) -> None:
        super().__init__()
        self.ignore_index = ignore_index

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        logits = _full(logits)
        images, classes = logits.shape
        pixels = target.where(target != self.ignore_index, classes).flatten(1)
        present = logits.new_zeros(images, classes + 1).scatter_(1, pixels, 1)[:, :classes]
        labelled = present.amax(1, keepdim=True)
        losses = F.binary_cross_entropy_with_logits(logits, present, labelled, reduction="sum")
        return losses / (labelled.sum() * classes).clamp(min=1)


class Sum(nn.Module):
    """Weighted sum of losses: L = sum_j weights[j] losses[j](logits, target).

    Shape: logits (B, K, H, W), target (B, H, W) -> ().
    """

    def __init__(self, losses: Mapping[str, nn.Module], weights: Mapping[str, float]) -> None:
        super().__init__()
        self.losses = nn.ModuleDict(losses)
        self.weights = dict(weights)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return torch.stack(list(self.terms(logits, target).values())).sum()

    def terms(self, logits: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Each loss by its name, weighted."""
        return {name: self.weights[name] * loss(logits, target) for name, loss in self.losses.items()}


def build_loss(
    weights: Mapping[str, float],
    *,
    num_classes: int,
    ignore_index: int = 255,
    class_weights: Tensor | None = None,
    ohem_threshold: float | None = 0.7,
    ohem_min_kept: int = 100_000,
    count_ignored: bool = False,
) -> Sum:
    """The loss that ``weights`` names, such as ``{"cross_entropy": 1, "dice": 0.5}``.

    Args:
        weights: name -> weight; names are cross_entropy, ohem, dice, focal, jaccard, lovasz, tversky.
        class_weights: (num_classes,), for cross_entropy and ohem.
        count_ignored: see ``CrossEntropy``; for cross_entropy and ohem.

    Raises:
        InputError: an unknown name, no name at all, a weight that is not positive, class weights of the wrong number or
            without a loss that takes them.
    """
    names = ("cross_entropy", "ohem", *Region.names)
    for name, weight in weights.items():
        if name not in names:
            raise InputError(f'Unknown loss "{name}".{suggest(name, names)} (one or more of: {", ".join(names)})')
        if not weight > 0:
            raise InputError(f"The weight of loss {name} is {weight}: give a positive number or leave the loss out")
    if not weights:
        raise InputError(f"No loss is named: give one or more of {', '.join(names)} with their weights")
    if class_weights is not None:
        if class_weights.shape != (num_classes,):
            raise InputError(f"{class_weights.numel()} class weights for {num_classes} classes: give one per class")
        if not {"cross_entropy", "ohem"} & set(weights):
            raise InputError(f"Class weights go with cross_entropy and ohem, the loss is {', '.join(weights)}")

    def build(name: str) -> nn.Module:
        if name in Region.names:
            return Region(name, ignore_index=ignore_index)
        if name == "ohem":
            return OHEM(
                threshold=ohem_threshold,
                min_kept=ohem_min_kept,
                ignore_index=ignore_index,
                class_weights=class_weights,
                count_ignored=count_ignored,
            )
        return CrossEntropy(ignore_index=ignore_index, class_weights=class_weights, count_ignored=count_ignored)

    return Sum({name: build(name) for name in weights}, weights)


def _full(logits: Tensor) -> Tensor:
    """Logits in single precision at least: half precision cannot sum a million pixels."""
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
