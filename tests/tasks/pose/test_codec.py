"""What a codec promises beside the reference's numbers."""

from typing import Any

import pytest
import torch

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


def test_the_first_of_equal_maxima_counts() -> None:
    maps = torch.zeros(1, 16, 12)
    maps[0, 3, 7] = maps[0, 3, 9] = maps[0, 8, 2] = 1.0
    found, _ = Codec("msra", (64, 48)).decode(maps)
    assert found.tolist() == [[28.0, 12.0]]


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
