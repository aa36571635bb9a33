"""Weighted sums over windows: equal to the unfolded form, whatever the slabs they are computed in."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_app.kernels import windows
from lightning_app.kernels.windows import window_sum


def unfolded(x: Tensor, weights: Tensor, stride: int, dilation: int) -> Tensor:
    maps, taps, sums, height, width = weights.shape
    kernel = round(taps**0.5)
    half, after = kernel // 2 * dilation, (kernel - 1 - kernel // 2) * dilation
    windows = F.unfold(F.pad(x, [half, after, half, after]), kernel, dilation=dilation, stride=stride)
    windows = windows.view(maps, x.shape[1], taps, 1, height, width)
    return (windows * weights.view(maps, 1, taps, sums, height, width)).sum(2)


@pytest.mark.parametrize("slab", [1, 8 * 4 * 35 * 2, 8 * 4 * 35 * 3 * 2, 2**18], ids=["channel", "two", "maps", "all"])
@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(3, 1, 1), (5, 1, 2), (2, 1, 1), (3, 2, 1)])
def test_window_sum_equals_the_unfolded_form(
    slab: int, kernel: int, stride: int, dilation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "SLAB_BYTES", slab)
    size = (5 // stride + 5 % stride, 7 // stride + 7 % stride)
    x = torch.randn(5, 3, 5, 7, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(5, kernel**2, 4, *size, dtype=torch.float64, requires_grad=True)
    ours, plain = window_sum(x, weights, stride=stride, dilation=dilation), unfolded(x, weights, stride, dilation)
    torch.testing.assert_close(ours, plain)
    direction = torch.randn_like(plain)
    for mine, reference in zip(
        torch.autograd.grad(ours, (x, weights), direction),
        torch.autograd.grad(plain, (x, weights), direction),
        strict=True,
    ):
        torch.testing.assert_close(mine, reference)


def test_window_sum_of_half_precision_maps_is_taken_in_the_weights_precision() -> None:
    x, weights = torch.randn(1, 2, 6, 6).bfloat16(), torch.randn(1, 9, 1, 6, 6)
    out = window_sum(x, weights)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, unfolded(x.float(), weights, 1, 1))
