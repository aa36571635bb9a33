"""Prediction protocols on models whose answer is known."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_app.tasks.semantic.inference import predict, predict_classes
from lightning_app.tasks.semantic.protocol import EvaluationProtocol
from lightning_app.tasks.semantic.windows import sliding_window
from lightning_app.util.errors import InputError


def pixelwise(images: Tensor) -> Tensor:
    """Logits that depend on the pixel alone."""
    return torch.cat([images, images.square() - 1, images.sin()], dim=1)


def coarse(images: Tensor) -> Tensor:
    """Logits at half the size, as a head without the final resize gives them."""
    return F.avg_pool2d(pixelwise(images), 2, ceil_mode=True)


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 1, 13, 17, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("offload", [False, True])
@pytest.mark.parametrize(
    ("crop", "stride"),
    [((6, 8), None), ((6, 8), (5, 3)), ((4, 4), (4, 4)), ((13, 5), (1, 2)), ((20, 6), (20, 4)), ((99, 99), None)],
)
def test_windows_of_a_pixelwise_model_equal_the_whole(
    images: Tensor, crop: tuple[int, int], stride: tuple[int, int] | None, offload: bool
) -> None:
    slide = EvaluationProtocol("slide", crop=crop, stride=stride, offload=offload)
    torch.testing.assert_close(predict(pixelwise, images, (13, 17), slide), pixelwise(images))


def test_windows_stand_where_the_field_puts_them() -> None:
    positions = torch.arange(13 * 17, dtype=torch.float64).view(1, 1, 13, 17)
    seen: list[tuple[int, int, int, int]] = []

    def model(view: Tensor) -> Tensor:
        first = int(view[0, 0, 0, 0])
        seen.append((first // 17, first % 17, *view.shape[-2:]))
        return torch.full_like(view, len(seen))

    logits = sliding_window(model, positions, (6, 8), (5, 6))
    tops, lefts = (0, 5, 7), (0, 6, 9)  # the last ones moved back to the border
    assert seen == [(top, left, 6, 8) for top in tops for left in lefts]
    assert logits[0, 0, 0, 0] == 1
    assert logits[0, 0, 0, 7] == (1 + 2) / 2  # columns 6 and 7 belong to windows 1 and 2
    assert logits[0, 0, 5, 9] == (2 + 3 + 5 + 6) / 4  # rows 5 and columns 9 .. 13: two windows down, two across


def test_default_stride_is_two_thirds() -> None:
    calls: list[int] = []

    def model(view: Tensor) -> Tensor:
        calls.append(view.shape[-1])
        return view

    sliding_window(model, torch.zeros(1, 1, 769, 1539), (769, 769))
    assert calls == [769] * 3  # 0, 513 and 770 of 769 / 513, the published setting


def test_logits_are_resized_to_the_label(images: Tensor) -> None:
    for align_corners in (False, True):
        logits = predict(coarse, images, (26, 31), EvaluationProtocol(align_corners=align_corners))
        expected = F.interpolate(coarse(images), (26, 31), mode="bilinear", align_corners=align_corners)
        torch.testing.assert_close(logits, expected)


def test_views_average_probabilities(images: Tensor) -> None:
    size = (13, 17)

    def lopsided(view: Tensor) -> Tensor:
        return pixelwise(view) * torch.linspace(0, 1, view.shape[-1], dtype=view.dtype)

    smaller = F.interpolate(images, (6, 8), mode="bilinear")
    views = [
        lopsided(images),
        lopsided(images.flip(-1)).flip(-1),
        F.interpolate(lopsided(smaller), size, mode="bilinear"),
        F.interpolate(lopsided(smaller.flip(-1)).flip(-1), size, mode="bilinear"),
    ]
    mean = torch.stack([view.softmax(1) for view in views]).mean(0)
    logits = predict(lopsided, images, size, EvaluationProtocol(scales=(1.0, 0.5), flip=True))
    torch.testing.assert_close(logits.softmax(1), mean)
    torch.testing.assert_close(logits.exp(), mean)


def test_flip_of_a_pixelwise_model_changes_nothing(images: Tensor) -> None:
    flipped = predict(pixelwise, images, (13, 17), EvaluationProtocol("slide", crop=(6, 6), flip=True))
    torch.testing.assert_close(flipped.exp(), pixelwise(images).softmax(1))


def test_half_precision_is_summed_in_single() -> None:
    logits = predict(
        lambda view: view.bfloat16(), torch.ones(1, 2, 8, 8), (16, 16), EvaluationProtocol("slide", crop=(4, 4))
    )
    assert logits.dtype == torch.float32


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "slide"}, "need a crop"),
        ({"mode": "slide", "crop": (0, 4)}, "need a crop"),
        ({"mode": "slide", "crop": (4, 4), "stride": (5, 4)}, "leave gaps"),
        ({"mode": "slide", "crop": (4, 4), "stride": (0, 4)}, "leave gaps"),
        ({"scales": ()}, "positive factors"),
        ({"scales": (1.0, 0.0)}, "positive factors"),
    ],
)
def test_bad_protocol(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        EvaluationProtocol(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", [(13, 17), (29, 40), (9, 30)])
@pytest.mark.parametrize(
    "protocol",
    [
        {},
        {"mode": "slide", "crop": (6, 8)},
        {"mode": "slide", "crop": (6, 8), "stride": (4, 7), "batch": 3},
        {"mode": "slide", "crop": (6, 8), "scales": (0.7, 1.0, 1.6), "flip": True},
        {"scales": (0.6, 1.3), "flip": True, "offload": True},
        {"fit": (30, 20), "mode": "slide", "crop": (9, 9)},
    ],
)
def test_tiles_put_together_are_the_whole(
    images: Tensor, size: tuple[int, int], protocol: dict[str, Any], align_corners: bool
) -> None:
    how = EvaluationProtocol(**protocol, align_corners=align_corners)
    weight = torch.randn(5, 3, 3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def model(views: Tensor) -> Tensor:  # sees its neighbours, so that windows differ where they overlap
        return F.conv2d(coarse(views), weight, padding=1)

    together = torch.full((2, *size), -1)
    for place, classes in predict_classes(model, images, size, how, tile=(7, 9)):
        assert classes.shape[1] <= 7
        assert classes.shape[2] <= 9
        together[(..., *place)] = classes
    assert torch.equal(together, predict(model, images, size, how).argmax(1))


@pytest.mark.parametrize(
    ("how", "tile", "windows"),
    [
        (EvaluationProtocol("slide", crop=(6, 8), stride=(2, 3)), (6, 17), 5 * 4),
        (EvaluationProtocol("slide", crop=(6, 8), stride=(4, 5), batch=3), (6, 17), 3 * 3),
        (
            EvaluationProtocol("slide", crop=(6, 8), stride=(6, 3)),
            (6, 9),
            3 * (4 + 2),
        ),  # two reach into both tiles
        (EvaluationProtocol("slide", crop=(4, 4), stride=(4, 4), flip=True), (8, 8), 2 * 3 * 4),
    ],
)
def test_no_window_is_looked_at_twice_without_need(
    images: Tensor, how: EvaluationProtocol, tile: tuple[int, int], windows: int
) -> None:
    seen: list[int] = []

    def model(views: Tensor) -> Tensor:
        seen.append(len(views) // 2)
        return pixelwise(views)

    size = (12, 16) if how.flip else (13, 17)
    images = images[..., : size[0], : size[1]]
    together = torch.full((2, *size), -1)
    for place, classes in predict_classes(model, images, size, how, tile):
        assert classes.shape[1] <= tile[0]
        together[(..., *place)] = classes
    assert torch.equal(together, pixelwise(images).argmax(1))
    assert sum(seen) == windows


def test_windows_go_together(images: Tensor) -> None:
    seen: list[int] = []

    def model(views: Tensor) -> Tensor:
        seen.append(len(views))
        return pixelwise(views)

    torch.testing.assert_close(sliding_window(model, images, (6, 8), (5, 5), batch=4), pixelwise(images))
    assert seen == [8, 8, 2]  # two images at nine places


@pytest.mark.parametrize(
    ("fit", "shape"), [((2048, 1024), (1024, 1536)), ((2048, 512), (512, 768)), ((300, 300), (200, 300))]
)
def test_images_fill_a_box_and_keep_their_ratio(fit: tuple[int, int], shape: tuple[int, int]) -> None:
    seen: list[tuple[int, ...]] = []

    def model(views: Tensor) -> Tensor:
        seen.append(tuple(views.shape[-2:]))
        return views

    for height, width in ((400, 600), (600, 400)):
        logits = predict(model, torch.rand(1, 3, height, width), (height, width), EvaluationProtocol(fit=fit))
        assert logits.shape == (1, 3, height, width)
    assert seen == [shape, shape[::-1]]


@pytest.mark.parametrize("fit", [(512, 2048), (512, 0)])
def test_a_box_has_a_longer_and_a_shorter_side(fit: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="longer and the shorter side"):
        EvaluationProtocol(fit=fit)


@pytest.mark.parametrize(("shape", "size"), [((0, 3, 4, 4), (4, 4)), ((1, 3, 0, 4), (4, 4)), ((1, 3, 4, 4), (4, 0))])
@pytest.mark.parametrize("mode", ["whole", "slide"])
def test_nothing_to_predict(mode: str, shape: tuple[int, ...], size: tuple[int, int]) -> None:
    protocol = EvaluationProtocol(mode, crop=(2, 2))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="nothing to see"):
        predict(pixelwise, torch.zeros(shape), size, protocol)
    with pytest.raises(InputError, match="nothing to see"):
        list(predict_classes(pixelwise, torch.zeros(shape), size, protocol, (2, 2)))
