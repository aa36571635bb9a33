"""What is known of keypoints apart from where they are: names, bones, mirror pairs, and how exactly they are marked."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from lightning.pytorch.utilities import rank_zero_only

from lightning_app.data.coco import CocoFile
from lightning_app.data.coco_records import CocoCategory
from lightning_app.util.errors import InputError

Pair = tuple[int, int]
SIGMA = 0.05  # of every keypoint where nobody says better: about the mean of COCO's 17

SIDES = ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
PERSON = ["nose", *(f"{side}_{part}" for part in SIDES for side in ("left", "right"))]  # COCO's
PERSON_SKELETON = (
    *((15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8)),
    *((7, 9), (8, 10), (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6)),
)
PERSON_SIGMAS = (26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89)  # thousandths


@dataclass(frozen=True)
class Keypoints:
    """The facts of one kind of thing, such as people or bees.

    Args:
        names: of the points, in their order.
        skeleton: pairs of points, counted from 0, that a line joins in a drawing.
        flip_pairs: pairs of points that swap under a mirror.
        sigmas: the constant of each point in OKS: how far apart two people mark it, over the square root of the area.
        upper: points of the upper half, which the half-body augmentation needs; none = it is left out.

    Raises:
        InputError: a number of sigmas that is not the number of points, or a pair of points that are none.
    """

    names: tuple[str, ...]
    skeleton: tuple[Pair, ...] = ()
    flip_pairs: tuple[Pair, ...] = ()
    sigmas: tuple[float, ...] = ()
    upper: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for fault in faults(self):
            raise InputError(fault)

    @property
    def flip_indices(self) -> list[int]:
        """For each point the one that it becomes in a mirror."""
        order = list(range(len(self.names)))
        for left, right in self.flip_pairs:
            order[left], order[right] = right, left
        return order


def faults(facts: Keypoints) -> list[str]:
    """All that is wrong with facts, a line each."""
    count, found = len(facts.names), []
    if len(facts.sigmas) != count:
        found.append(f"{len(facts.sigmas)} sigmas for {count} keypoints: give one for each")
    if bad := [sigma for sigma in facts.sigmas if not sigma > 0]:
        found.append(f"sigma {bad[0]}: give numbers above 0")
    for what, pairs in (("skeleton", facts.skeleton), ("flip_pairs", facts.flip_pairs)):
        for pair in pairs:
            if len(pair) != 2 or not all(0 <= point < count for point in pair):
                found.append(f"{what} {list(pair)}: keypoints are counted from 0 to {count - 1}")
    flipped = [point for pair in facts.flip_pairs for point in pair]
    twice = sorted({point for point in flipped if flipped.count(point) > 1})
    if twice and not found:
        found.append(f"flip_pairs: {facts.names[twice[0]]} is in two pairs, or in one with itself")
    if any(not 0 <= point < count for point in facts.upper):
        found.append(f"upper {list(facts.upper)}: keypoints are counted from 0 to {count - 1}")
    return found


def person_facts(names: Sequence[str]) -> Keypoints:
    """The facts of people whose first points are COCO's 17, and that may have more."""
    assert [*names[: len(PERSON)]] == PERSON
    sigmas = [sigma / 1000 for sigma in PERSON_SIGMAS] + [SIGMA] * (len(names) - len(PERSON))
    return Keypoints(tuple(names), PERSON_SKELETON, tuple(pairs_by_name(names)), tuple(sigmas), tuple(range(11)))


def read_facts(
    file: CocoFile,
    category: CocoCategory,
    *,
    sigmas: Sequence[float] | None = None,
    flip_pairs: Sequence[Pair] | None = None,
) -> Keypoints:
    """The facts that an annotation file gives, and loud defaults for what it does not say.

    ``flip_pairs``, counted from 0, ``sigmas`` and ``upper`` stand in the file's ``info``.

    Args:
        category: of the file, the one with the keypoints.
        sigmas, flip_pairs: what wins over the file.

    Raises:
        InputError: what the file says cannot be.
    """
    names, info, path = category.keypoints, file.info, file.path
    person = [name.lower() for name in names] == PERSON
    upper = info.get("upper", range(11) if person else ())
    sigmas = info.get("sigmas") if sigmas is None else sigmas
    flip_pairs = info.get("flip_pairs") if flip_pairs is None else flip_pairs
    if sigmas is None:
        sigmas = [sigma / 1000 for sigma in PERSON_SIGMAS] if person else [SIGMA] * len(names)
        said = "COCO's for people" if person else f"{SIGMA} for every keypoint, and AP hangs on them"
        _say(f"{path} has no sigmas: {said} (info.sigmas in the file, or --data.sigmas)")
    if flip_pairs is None:
        flip_pairs = pairs_by_name(names)
        said = ", ".join(f"{names[a]} and {names[b]}" for a, b in flip_pairs[:3]) or "none swap"
        more = ", ..." if len(flip_pairs) > 3 else ""
        _say(f"{path} has no flip_pairs: by the names {said}{more} (info.flip_pairs in the file, or --data.flip_pairs)")
    try:
        pairs = tuple((int(a), int(b)) for a, b in flip_pairs)
        numbers = tuple(float(each) for each in sigmas)
        return Keypoints(names, category.skeleton, pairs, numbers, tuple(int(each) for each in upper))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (TypeError, ValueError):
        raise InputError(f"{path}: flip_pairs are pairs of whole numbers, sigmas are numbers") from None


def pairs_by_name(names: Sequence[str]) -> list[Pair]:
    """Points whose names differ in left and right alone."""
    places = {name.lower(): place for place, name in enumerate(names)}
    found = []
    for name, place in places.items():
        other = places.get(name.replace("left", "right"))
        if "left" in name and other is not None:
            found.append((place, other))
    return found


@rank_zero_only
def _say(line: str) -> None:
    print(line, file=sys.stderr)
