"""Augmentation against torchvision's own, and what must hold for any draw."""

import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from lightning_app.data.transforms import LUMA, PADDING, PhotometricJitter, RandomScaleCrop

SQUARE = (0.9, 1.1)


def picture(height: int, width: int, low: int = 90, high: int = 160) -> tv_tensors.Image:
    """Mid-tones, so that nothing clips on the way."""
    return tv_tensors.Image(torch.randint(low, high, (3, height, width), dtype=torch.uint8))


@pytest.mark.parametrize("seed", range(5))
def test_one_matrix_equals_the_chain_of_three(seed: int) -> None:
    torch.manual_seed(seed)
    image = picture(48, 64)
    jitter = PhotometricJitter(0.3, 0.3, 0.3, 0)
    torch.manual_seed(seed)
    brightness, contrast, saturation = (0.7 + 0.6 * torch.rand(()).item() for _ in range(3))
    expected = F.adjust_saturation(image.float() / 255, saturation)
    expected = F.adjust_contrast(F.adjust_brightness(expected, brightness), contrast) * 255
    torch.manual_seed(seed)
    torch.testing.assert_close(jitter(image).float(), expected.as_subclass(torch.Tensor), atol=1.5, rtol=0)


def test_hue_turns_colour_and_keeps_luma() -> None:
    image = picture(32, 32, 110, 140)
    turned = PhotometricJitter(0, 0, 0, 0.5)(image)
    assert (turned.int() - image.int()).abs().max() > 5

    def luma(x: torch.Tensor) -> torch.Tensor:
        return torch.einsum("c,chw->hw", LUMA, x.as_subclass(torch.Tensor).float())

    torch.testing.assert_close(luma(turned), luma(image), atol=1, rtol=0)
    grey = tv_tensors.Image(torch.full((3, 8, 8), 77, dtype=torch.uint8))
    torch.testing.assert_close(PhotometricJitter(0, 0, 0, 0.5)(grey).int(), grey.int(), atol=1, rtol=0)


def test_no_jitter_changes_nothing_and_masks_are_left_alone() -> None:
    image, mask = picture(16, 16, 0, 256), tv_tensors.Mask(torch.randint(256, (16, 16), dtype=torch.uint8))
    same, untouched = PhotometricJitter(0, 0, 0, 0)(image, mask)
    assert (same.int() - image.int()).abs().max() <= 1
    _, untouched = PhotometricJitter(0.9, 0.9, 0.9, 0.4)(image, mask)
    assert torch.equal(untouched, mask)


def coordinates(height: int, width: int) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
    """An image that holds its own row and column, and a mask of its rows."""
    rows = torch.arange(height).view(-1, 1).expand(height, width)
    columns = torch.arange(width).expand(height, width)
    image = torch.stack([rows, columns, rows * 0]).to(torch.uint8)
    return tv_tensors.Image(image), tv_tensors.Mask(rows.to(torch.uint8))


def test_a_crop_is_a_window_of_the_image() -> None:
    image, mask = coordinates(60, 80)
    places = set()
    for _ in range(20):
        a, b = RandomScaleCrop((20, 30), scale=(1, 1), cat_max_ratio=1)(image, mask)
        top, left = int(a[0, 0, 0]), int(a[1, 0, 0])
        assert torch.equal(a, image[:, top : top + 20, left : left + 30])
        assert torch.equal(b, mask[top : top + 20, left : left + 30])
        places.add((top, left))
    assert len(places) > 10


@pytest.mark.parametrize("scale", [0.5, 0.8, 1.3, 2.0])
def test_image_and_mask_stay_on_one_grid(scale: float) -> None:
    image, mask = coordinates(100, 120)
    for _ in range(5):
        a, b = RandomScaleCrop((40, 40), scale=(scale, scale), cat_max_ratio=1)(image, mask)
        shift = a[0, 4:-4].float() - b[4:-4].float()
        assert shift.abs().max() <= 1
        assert shift.mean().abs() < 0.3  # NEAREST, half a step off, would show here
        assert a[0, -1, 0] - a[0, 0, 0] == pytest.approx(39 / scale, abs=2)


def test_what_lies_outside_the_image_is_ignored() -> None:
    image, mask = picture(10, 12), tv_tensors.Mask(torch.ones(10, 12, dtype=torch.uint8))
    a, b = RandomScaleCrop((32, 30), scale=(2, 2), ignore_index=254)(image, mask)
    assert a.shape == (3, 32, 30)
    assert (b[:20, :24] == 1).all()
    assert (b[20:] == 254).all()
    assert (b[:, 24:] == 254).all()
    assert torch.equal(a[:, 25, 25], torch.tensor(PADDING, dtype=torch.uint8))


def test_a_crop_of_one_class_is_drawn_again() -> None:
    mask = torch.zeros(64, 64, dtype=torch.uint8)
    mask[:, 56:] = 1  # one window in eight holds both classes in a fair share
    image = picture(64, 64)
    shares = {}
    for ratio in (1.0, 0.75):
        crop = RandomScaleCrop((16, 16), scale=(1, 1), cat_max_ratio=ratio)
        torch.manual_seed(0)
        drawn = [crop(image, tv_tensors.Mask(mask))[1] for _ in range(200)]
        shares[ratio] = sum(bool((m == 1).float().mean() >= 0.25) for m in drawn) / 200
    assert shares[1.0] < 0.2
    assert shares[0.75] > 0.6
