"""RoIAlign by products against torchvision's, forward and backward."""

import pytest
import torch
from torch import Tensor
from torchvision import ops

from lightning_app import kernels
from lightning_app.kernels.roi_align import roi_align


def boxes(count: int, dtype: torch.dtype) -> Tensor:
    """Of any size and place, some beyond the borders, some without an extent or the wrong way round."""
    torch.manual_seed(0)
    corners = torch.rand(count, 4, dtype=dtype) * torch.tensor([150.0, 120.0, 150.0, 120.0], dtype=dtype) - 25
    ordered = torch.cat(
        [torch.minimum(corners[:, :2], corners[:, 2:]), torch.maximum(corners[:, :2], corners[:, 2:])], 1
    )
    ordered[0, 2], ordered[1, 3] = ordered[0, 0], ordered[1, 1]
    ordered[2] = corners.new_tensor([90, 80, 20, 10])
    ordered[3] = corners.new_tensor([0, 0, 104, 72])
    ordered[4] = corners.new_tensor([5, 5, 5.5, 70])
    return torch.cat([torch.arange(count, dtype=dtype)[:, None] % 2, ordered], dim=1)


@pytest.mark.parametrize("samples", [0, 2])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_equals_torchvisions(samples: int, layout: torch.memory_format) -> None:
    regions = boxes(40, torch.float64)
    x = torch.randn(2, 5, 18, 26, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    for size in (7, 14):
        ours, theirs = roi_align(x, regions, size, 0.25, samples), ops.roi_align(x, regions, size, 0.25, samples, True)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
        cotangent = torch.randn_like(theirs)
        (grad,), (expected,) = (torch.autograd.grad(y, x, cotangent) for y in (ours, theirs))
        torch.testing.assert_close(grad, expected, rtol=0, atol=1e-11)


def test_no_boxes_and_half_precision() -> None:
    x = torch.randn(1, 3, 9, 9, dtype=torch.bfloat16)
    assert roi_align(x, torch.zeros(0, 5), 7, 0.5).shape == (0, 3, 7, 7)
    regions = torch.tensor([[0.0, 1.0, 2.0, 15.0, 17.0]])
    low = roi_align(x, regions, 7, 0.5)
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low, ops.roi_align(x.float(), regions, 7, 0.5, 0, True).bfloat16())


def test_the_switch_gives_torchvisions() -> None:
    x, regions = torch.randn(2, 3, 18, 26), boxes(8, torch.float32)
    with kernels.fast(False):
        plain = roi_align(x, regions, 7, 0.25)
    assert torch.equal(plain, ops.roi_align(x, regions, 7, 0.25, 0, True))
    torch.testing.assert_close(roi_align(x, regions, 7, 0.25), plain, rtol=0, atol=1e-4)


def test_autocast_rounds_no_sample() -> None:
    x, regions = torch.randn(1, 3, 20, 24), torch.tensor([[0, 3.3, 4.4, 60.2, 50.1]])
    with torch.autocast("cpu", torch.bfloat16):
        cells = roi_align(x, regions, 7, 0.25)
    assert torch.equal(cells, roi_align(x, regions, 7, 0.25))
