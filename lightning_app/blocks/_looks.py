"""Where a position of a block's result looks: what a block that attends may say of itself.

A block says it by a method ``looks(at, *inputs)``: of one image's inputs and of the row and column ``at`` of its result
the maps of weights, by the paper's own formula.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

At = tuple[int, int]  # row and column


class Look(NamedTuple):
    """One map of weights.

    Args:
        name: what the map is, for people.
        weights: (h, w) over the block's input, or over what that was shrunk to.
        kind: "share" is 0 or more and sums to one, "gate" lies in 0..1 for each position, "signed" has both signs.
    """

    name: str
    weights: Tensor
    kind: Literal["share", "gate", "signed"] = "share"


def softmax_of(query: Tensor, key: Tensor, scale: float, at: At) -> Tensor:
    """softmax_j(scale q_at.k_j): (1, d, H, W), (1, d, h, w) -> (h, w)."""
    return (scale * dots(query, key, at)).flatten().softmax(0).view(key.shape[-2:])


def dots(query: Tensor, key: Tensor, at: At) -> Tensor:
    """q_at.k_j: (1, d, H, W), (1, d, h, w) -> (h, w)."""
    return torch.einsum("d,dhw->hw", query[0, :, at[0], at[1]], key[0])


def by_parts(what: str, asked: Tensor, gathered: Tensor, *, signed: bool = False, most: int = 3) -> list[Look]:
    """Of a block that goes by K parts: the way through all of them, sum_k asked_k gathered_k, and the parts asked most.

    Args:
        what: a part, in a word.
        asked: (K,) how much the position takes of each.
        gathered: (K, h, w) where each takes it from.
    """
    kind: Literal["share", "signed"] = "signed" if signed else "share"
    looks = [Look(f"through {len(asked)} {what}s", torch.einsum("k,khw->hw", asked, gathered), kind)]
    for part in asked.abs().topk(min(most, len(asked))).indices.tolist():
        of = f"{asked[part]:+.2g}" if signed else f"{100 * asked[part]:.0f} %"
        looks.append(Look(f"{what} {part}, asked for {of}", gathered[part], kind))
    return looks


def shrunk(at: At, size: Sequence[int], to: Sequence[int], *, align_corners: bool = False) -> At:
    """The position of a map of the size ``to`` that serves ``at`` of a map of ``size``."""

    def one(place: int, long: int, short: int) -> int:
        if align_corners:
            return round(place * (short - 1) / max(long - 1, 1))
        return min(int((place + 0.5) * short / long), short - 1)

    return one(at[0], size[0], to[0]), one(at[1], size[1], to[1])
