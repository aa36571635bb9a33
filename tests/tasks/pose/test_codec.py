"""What a codec promises beside the reference's numbers."""

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from lightning_app.tasks.pose.blur import blurred_around, gaussian_blur
from lightning_app.tasks.pose.codec import KINDS, Codec, Kind
from lightning_app.util.errors import InputError


def points(codec: Codec, count: int = 40) -> torch.Tensor:
    """Points well inside the crop."""
    torch.manual_seed(0)
    height, width = codec.input_size
    return torch.rand(count, 2, dtype=torch.float64) * torch.tensor([width - 60, height - 60]) + 30


@pytest.mark.parametrize(("kind", "most"), [("msra", 2.0), ("dark", 0.01), ("udp", 0.01), ("udp_combined", 1e-9)])
def test_decode_finds_what_was_encoded(kind: Kind, most: float) -> None:
    codec = Codec(kind, (256, 192))
    given = points(codec)
    maps, weights = codec.encode(given, torch.ones(len(given), dtype=torch.float64))
    found, scores = codec.decode(maps)
    assert weights.eq(1).all()
    assert scores.gt(0.2).all()
    shrink = given.new_tensor([191 / 192, 255 / 256] if codec.udp else [1.0, 1.0])  # UDP counts intervals, then pixels
    assert (found * shrink - given).abs().max() < most


@pytest.mark.parametrize("kind", KINDS)
def test_mirrored_maps_come_back(kind: Kind) -> None:
    codec = Codec(kind, (64, 48))
    maps = torch.rand(2, 4 * codec.maps_per_point, 16, 12)
    there = codec.flip(maps, [1, 0, 3, 2], shift=False)
    assert torch.equal(codec.flip(there, [1, 0, 3, 2], shift=False), maps)
    assert not torch.equal(there, maps)


@pytest.mark.parametrize("kind", KINDS)
def test_maps_of_half_precision_and_without_anything_are_decoded(kind: Kind) -> None:
    codec = Codec(kind, (64, 48))
    maps = torch.zeros(3, 4 * codec.maps_per_point, 16, 12, dtype=torch.bfloat16)
    found, scores = codec.decode(maps)
    assert found.dtype == torch.float32
    assert found.isfinite().all()
    assert found.lt(0).all()
    assert scores.eq(0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_mixed_precision_costs_keypoints_nothing(kind: Kind) -> None:
    """Faint maps too, which UDP blurs as a whole."""
    codec = Codec(kind, (64, 48))
    maps = torch.rand(2, 3 * (1 + 2 * (kind == "udp_combined")), 16, 12) * 1e-3
    points, scores = codec.decode(maps)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = codec.decode(maps)
    assert torch.equal(mixed[0], points)
    assert torch.equal(mixed[1], scores)


@pytest.mark.parametrize("joints", [1, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_one_person_is_decoded_as_among_many(kind: Kind, joints: int) -> None:
    """To the last bit: 60 persons are several pieces, and one is less than a piece."""
    codec = Codec(kind)
    maps = torch.rand(60, joints * codec.maps_per_point, *codec.maps)
    points, scores = codec.decode(maps)
    for place in (0, 30, 59):
        alone = codec.decode(maps[place])
        assert torch.equal(alone[0], points[place])
        assert torch.equal(alone[1], scores[place])


def test_the_first_of_equal_maxima_counts() -> None:
    maps = torch.zeros(1, 16, 12)
    maps[0, 3, 7] = maps[0, 3, 9] = maps[0, 8, 2] = 1.0
    found, _ = Codec("msra", (64, 48)).decode(maps)
    assert found.tolist() == [[28.0, 12.0]]


@pytest.mark.parametrize("size", [(16, 12), (64, 48), (5, 3)])
@pytest.mark.parametrize("reach", [1, 2])
def test_the_blur_beside_points_is_that_of_the_whole_map(size: tuple[int, int], reach: int) -> None:
    torch.manual_seed(0)
    height, width = size
    maps = torch.rand(2, 50, *size, dtype=torch.float64)
    points = torch.stack([torch.randint(width, (2, 50)), torch.randint(height, (2, 50))], dim=-1).double()
    near = blurred_around(maps, points, 11, reach)
    whole = gaussian_blur(maps, 11, border="zeros")
    steps = torch.arange(-reach, reach + 1)
    x = (points[..., 0, None].long() + steps).clamp(0, width - 1)
    y = (points[..., 1, None].long() + steps).clamp(0, height - 1)
    rows = whole.gather(-2, y[..., None].expand(*y.shape, width))
    assert torch.allclose(near, rows.gather(-1, x[..., None, :].expand(2, 50, 2 * reach + 1, 2 * reach + 1)))


@pytest.mark.parametrize("height", [1e-4, 2e-3, 0.5, 60.0, 1e4])
def test_udp_clamps_maps_as_high_as_before_the_blur(height: float) -> None:
    torch.manual_seed(0)
    codec = Codec("udp", (64, 48))
    points = torch.rand(30, 2, dtype=torch.float64) * torch.tensor([44.0, 60.0])
    maps = height * codec.encode(points, torch.ones(30))[0]
    whole = gaussian_blur(maps, 11, border="zeros")
    raised = whole * (maps.amax((-2, -1)) / whole.amax((-2, -1)))[:, None, None]
    for each, high, (x, y) in zip(maps, raised, codec.decode(maps)[0] * torch.tensor([11 / 48, 15 / 64]), strict=True):
        column, row = int(each.argmax()) % 12, int(each.argmax()) // 12
        logs = F.pad(high.clamp(1e-3, 50.0).log()[None, None], (1, 1, 1, 1), mode="replicate")[0, 0]
        (nw, n, _), (w, c, e), (_, s, se) = logs[row : row + 3, column : column + 3]
        cross = 0.5 * (se - e - s + 2 * c - w - n + nw)
        hessian = torch.tensor([[e - 2 * c + w, cross], [cross, s - 2 * c + n]]) + torch.eye(2) * 2.0**-23
        step = torch.linalg.solve(hessian.double(), 0.5 * torch.stack([e - w, s - n]))
        assert (x.item(), y.item()) == pytest.approx(((column - step[0]).item(), (row - step[1]).item()), abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "simcc"}, 'codec cannot be "simcc"'),
        ({"input_size": (192,)}, r"input_size \(192,\) is no height and width"),
        ({"blur_kernel": 10}, "blur_kernel 10 is not an odd number"),
        ({"sigma": 0.0}, "sigma 0.0 and radius 0.0546875 must be larger than 0"),
    ],
)
def test_what_cannot_be_is_one_line(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Codec(**arguments)
