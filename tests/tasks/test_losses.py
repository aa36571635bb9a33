"""Losses against plain loops and hand-computed numbers."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_app.data.semantic.class_weights import balanced_weights, log_frequency_weights
from lightning_app.tasks.semantic.losses import (
    OHEM,
    CrossEntropy,
    Presence,
    Region,
    build_loss,
)
from lightning_app.util.errors import InputError

IGNORE = 255


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    """Two images of 5 x 7, four classes, about a third ignored."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, 5, 7, generator=generator, dtype=torch.float64, requires_grad=True)
    target = torch.randint(4, (2, 5, 7), generator=generator)
    target[torch.rand(2, 5, 7, generator=generator) < 0.3] = IGNORE
    return logits, target


def per_pixel(logits: Tensor, target: Tensor) -> list[tuple[float, int]]:
    """Cross-entropy and class of each labelled pixel, by the formula."""
    pixels = zip(logits.detach().permute(0, 2, 3, 1).reshape(-1, 4).tolist(), target.flatten().tolist(), strict=True)
    return [(math.log(sum(map(math.exp, z))) - z[k], k) for z, k in pixels if k != IGNORE]


def test_cross_entropy_averages_over_labelled_pixels(batch: tuple[Tensor, Tensor]) -> None:
    losses = [ce for ce, _ in per_pixel(*batch)]
    assert CrossEntropy()(*batch).item() == pytest.approx(sum(losses) / len(losses), rel=1e-12)
    assert CrossEntropy(count_ignored=True)(*batch).item() == pytest.approx(sum(losses) / 70, rel=1e-12)


def test_class_weights_weigh_losses_and_divisor(batch: tuple[Tensor, Tensor]) -> None:
    weights = torch.tensor([0.5, 1.0, 2.0, 4.0], dtype=torch.float64)
    loss = CrossEntropy(class_weights=weights)(*batch)
    torch.testing.assert_close(loss, F.cross_entropy(*batch, weight=weights, ignore_index=IGNORE))
    (grad,) = torch.autograd.grad(loss, batch[0])
    (plain,) = torch.autograd.grad(F.cross_entropy(*batch, weight=weights, ignore_index=IGNORE), batch[0])
    torch.testing.assert_close(grad, plain)


@pytest.mark.parametrize("threshold", [0.05, 0.2, 0.7])
@pytest.mark.parametrize("min_kept", [0, 3, 15, 1000])
def test_ohem_threshold_rule(batch: tuple[Tensor, Tensor], threshold: float, min_kept: int) -> None:
    losses = [ce for ce, _ in per_pixel(*batch)]
    rising = sorted(math.exp(-ce) for ce in losses)
    cut = max(rising[min(min_kept * 2, len(rising) - 1)], threshold)
    kept = [ce for ce in losses if math.exp(-ce) < cut - 1e-12]
    loss = OHEM(threshold=threshold, min_kept=min_kept)(*batch)
    assert loss.item() == pytest.approx(sum(kept) / max(len(kept), 1), rel=1e-9)
    published = OHEM(threshold=threshold, min_kept=min_kept, count_ignored=True)(*batch)
    assert published.item() == pytest.approx(sum(kept) / 70, rel=1e-9)


@pytest.mark.parametrize("min_kept", [1, 9, 1000])
def test_ohem_without_threshold_keeps_the_largest_losses(batch: tuple[Tensor, Tensor], min_kept: int) -> None:
    weights = [0.5, 1.0, 2.0, 4.0]
    falling = sorted(((ce * weights[k], weights[k]) for ce, k in per_pixel(*batch)), reverse=True)[: 2 * min_kept]
    loss = OHEM(threshold=None, min_kept=min_kept, class_weights=torch.tensor(weights))(*batch)
    assert loss.item() == pytest.approx(sum(ce for ce, _ in falling) / sum(w for _, w in falling), rel=1e-6)


def test_dice_by_hand() -> None:
    logits = torch.tensor([0.75, 0.25, 0.5]).log()  # probability of class 0 at three pixels, the last one ignored
    logits = torch.stack([logits, torch.tensor([0.25, 0.75, 0.5]).log()]).view(1, 2, 1, 3)
    target = torch.tensor([[[0, 0, IGNORE]]])
    # class 0: 2 (0.75 + 0.25) / (1 + 2); class 1 is absent and adds nothing
    assert Region("dice")(logits, target).item() == pytest.approx((1 - 2 / 3) / 2, rel=1e-5)


@pytest.mark.parametrize("name", Region.names)
def test_region_losses_ignore_and_learn(name: str, batch: tuple[Tensor, Tensor]) -> None:
    logits, target = batch
    loss = Region(name)(logits, target)
    (grad,) = torch.autograd.grad(loss, logits)
    ignored = (target == IGNORE).unsqueeze(1).expand_as(grad)
    assert loss > 0
    assert grad[ignored].abs().max() == 0
    assert grad[~ignored].abs().max() > 0


ALL: dict[str, Callable[[], nn.Module]] = {
    "cross_entropy": CrossEntropy,
    "cross_entropy over all pixels": lambda: CrossEntropy(count_ignored=True),
    "weighted": lambda: CrossEntropy(class_weights=torch.ones(4)),
    "ohem": OHEM,
    "ohem without threshold": lambda: OHEM(threshold=None),
    **{name: lambda name=name: Region(name) for name in Region.names},
    "sum": lambda: build_loss({"cross_entropy": 1, "focal": 0.5}, num_classes=4),
}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nothing_labelled_is_zero_with_zero_gradients(name: str, dtype: torch.dtype) -> None:
    logits = torch.randn(2, 4, 3, 3).to(dtype).requires_grad_()
    loss = ALL[name]()(logits, torch.full((2, 3, 3), IGNORE))
    loss.backward()
    assert loss.shape == ()
    assert loss.item() == 0
    assert logits.grad is not None
    assert logits.grad.abs().max() == 0


@pytest.mark.parametrize("name", ALL)
def test_half_precision_under_autocast_stays_close(name: str, batch: tuple[Tensor, Tensor]) -> None:
    logits, target = batch[0].detach().bfloat16(), batch[1]
    full = ALL[name]()(logits.float(), target)
    with torch.autocast("cpu", torch.bfloat16):
        loss = ALL[name]()(logits, target)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, full)


def test_presence_by_hand() -> None:
    logits = torch.tensor([[2.0, -1.0, 0.5], [0.3, 0.2, 0.1]], requires_grad=True)
    target = torch.tensor([[[0, 0], [2, IGNORE]], [[IGNORE, IGNORE], [IGNORE, IGNORE]]])
    sigmoid = [1 / (1 + math.exp(-z)) for z in (2.0, -1.0, 0.5)]
    expected = -(math.log(sigmoid[0]) + math.log(1 - sigmoid[1]) + math.log(sigmoid[2])) / 3
    loss = Presence()(logits, target)
    assert loss.item() == pytest.approx(expected, rel=1e-6)  # the second image says nothing
    assert Presence()(logits, torch.full((2, 2, 2), IGNORE)).item() == 0


def test_sum_weighs_its_parts(batch: tuple[Tensor, Tensor]) -> None:
    loss = build_loss({"cross_entropy": 1.0, "dice": 0.5}, num_classes=4)
    expected = CrossEntropy()(*batch) + 0.5 * Region("dice")(*batch)
    torch.testing.assert_close(loss(*batch), expected)


def test_build_loss_passes_arguments_on(batch: tuple[Tensor, Tensor]) -> None:
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0])
    built = build_loss(
        {"ohem": 2.0}, num_classes=4, class_weights=weights, ohem_threshold=0.3, ohem_min_kept=5, count_ignored=True
    )
    plain = OHEM(threshold=0.3, min_kept=5, class_weights=weights, count_ignored=True)
    torch.testing.assert_close(built(*batch), 2 * plain(*batch))
    assert not built.state_dict()


@pytest.mark.parametrize(
    ("weights", "class_weights", "message"),
    [
        ({"cross_entrpy": 1.0}, None, 'Unknown loss "cross_entrpy". Did you mean "cross_entropy"?'),
        ({"Dice": 1.0}, None, 'Did you mean "dice"?'),
        ({}, None, "No loss is named"),
        ({"dice": 0.0}, None, "weight of loss dice is 0.0"),
        ({"dice": float("nan")}, None, "weight of loss dice is nan"),
        ({"cross_entropy": 1.0}, torch.ones(3), "3 class weights for 4 classes"),
        ({"dice": 1.0}, torch.ones(4), "Class weights go with cross_entropy and ohem, the loss is dice"),
    ],
)
def test_bad_input(weights: dict[str, float], class_weights: Tensor | None, message: str) -> None:
    with pytest.raises(InputError, match=message.replace("?", r"\?")):
        build_loss(weights, num_classes=4, class_weights=class_weights)


def test_weights_from_counts() -> None:
    counts = torch.tensor([600, 100, 0, 300])
    torch.testing.assert_close(balanced_weights(counts), torch.tensor([0.5, 3.0, 3.0, 1.0]))
    expected = [1 / math.log(1.02 + share) for share in (0.6, 0.1, 0.1, 0.3)]
    torch.testing.assert_close(log_frequency_weights(counts), torch.tensor(expected))
    with pytest.raises(InputError, match="No pixel has a label"):
        balanced_weights(torch.zeros(3))
