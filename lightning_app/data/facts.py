"""What a dataset is, apart from its pixels."""

from collections.abc import Mapping
from dataclasses import dataclass, field

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class DatasetFacts:
    """The facts of one dataset; its datamodule stands beside them in the same file.

    Args:
        classes: names in the order of the train ids 0, 1, ...
        palette: one RGB colour per class.
        label_map: every raw value that a mask may hold -> train id, those that map to ``ignore_index`` included. With
            ``colour_coded`` masks a raw value is 0xRRGGBB.
        splits: official split -> number of its images.
        val_split, test_split: what to validate and test on unless told otherwise.
        url: where to get it.
        terms: under which terms it may be used.
    """

    name: str
    classes: tuple[str, ...]
    palette: tuple[Colour, ...]
    label_map: Mapping[int, int]
    ignore_index: int = 255
    colour_coded: bool = False
    splits: Mapping[str, int] = field(default_factory=dict)
    val_split: str = "val"
    test_split: str = "val"
    url: str = ""
    terms: str = ""


def names(text: str) -> tuple[str, ...]:
    """Class names written with commas between them."""
    return tuple(" ".join(name.split()) for name in text.split(","))


def voc_palette(count: int) -> tuple[Colour, ...]:
    """The colours of PASCAL VOC: bit k of red, green, blue from the top is bit 3k, 3k+1, 3k+2 of the class index."""

    def channel(index: int, offset: int) -> int:
        return sum((index >> (3 * k + offset) & 1) << (7 - k) for k in range(8))

    return tuple((channel(i, 0), channel(i, 1), channel(i, 2)) for i in range(count))


def palette_from_hex(colours: str) -> tuple[Colour, ...]:
    """Colours written as rrggbb, with blanks between them."""
    return tuple((int(c[:2], 16), int(c[2:4], 16), int(c[4:], 16)) for c in colours.split())
