"""What a dataset is, apart from its pixels."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from zoo.datasets import datasets

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


def of_zoo(slug: str, label_map: Mapping[int, int], **options: Any) -> DatasetFacts:
    """Facts of a dataset that the zoo has weights of: names, colours and address stand in ``zoo/datasets.toml``.

    Args:
        slug: its name in the zoo.
        label_map, options: as ``DatasetFacts`` takes them.
    """
    dataset = datasets()[slug]
    palette = palette_from_hex(" ".join(dataset.palette))
    return DatasetFacts(dataset.data, dataset.classes, palette, label_map, url=dataset.url or "", **options)


def voc_palette(count: int) -> tuple[Colour, ...]:
    """The colours of PASCAL VOC: bit k of red, green, blue from the top is bit 3k, 3k+1, 3k+2 of the class index."""

    def channel(index: int, offset: int) -> int:
        return sum((index >> (3 * k + offset) & 1) << (7 - k) for k in range(8))

    return tuple((channel(i, 0), channel(i, 1), channel(i, 2)) for i in range(count))


def palette_from_hex(colours: str) -> tuple[Colour, ...]:
    """Colours written as rrggbb, with blanks between them."""
    return tuple((int(c[:2], 16), int(c[2:4], 16), int(c[4:], 16)) for c in colours.split())


def default_palette(count: int) -> tuple[Colour, ...]:
    """Colours for classes that bring none, all different and none as dark as a photograph's shadows.

    The first seven are those of Okabe and Ito, 2008, without their black; the eighth is of Tol, 2021: the
    colour-blind tell these eight apart too. Each of the others was chosen as far as may be, in Oklab and as the colour
    blind see it, from all before.
    """
    return palette_from_hex(
        """
        0072b2 e69f00 009e73 cc79a7 56b4e9 d55e00 f0e442 882255 a500ff 004b00 0f00b4 87ffff ffb4d2 00d24b c300a5 ff3cf0
        5a693c 002dff 9678f0 a5b496 5a0087 00ff00 b41e00 ff0078 965a78 3c4b78 693cc3 d296ff 96e196 691e00 a5d2ff 878700
        ff7869 3c69ff 7896a5 ffe1ff c3ffb4 00d2c3 f0c378 ff87c3 a5785a 871e96 0096e1 00b400 c34bd2 69005a 875ab4 b4d21e
        b4965a 006969 5a4b2d 008700 d22d4b 004bb4 d2e1c3 697896 a596d2 00b4a5 006900 965a00 d24b96 b41e69 96b42d 87ff78
        5a00b4 784b87 00f0d2 f0a587 ff001e ff5ab4 b400d2 4b00e1 f000b4 785ae1 b4b4e1 692dff 96000f d296a5 a569a5 69a54b
        1e4b4b 874b4b d269ff 5a2d3c 69c378 008778 6978d2 1e2d87 e100ff e15a69 0fd2ff 005ae1 4b2d69 8700e1 d2ff00 8796ff
        e1b4ff 0ff078 69875a a5d2c3 5a3c96 87b4c3 b44bff c3b469 ff5a2d e15ad2 d28700 693c69 b478d2 b45a3c fff096 ff78ff
        b48787 2d87b4 87695a 4b6987 ffb40f e1c3b4 78002d 87a578 b46978 4b3c0f ffc3ff 69781e 87d269 a5f000 873c00 0f5a2d
        962db4 4b5ab4 d2785a 780f78 5ae100 3c962d ff96f0 a53c96 8787c3 d20f87 5a87ff 0000e1 c3e169 ffd2a5 5a5a00 1effa5
        3c5a4b 4ba5c3 c3e1ff 3c00a5 e1a5d2 960f78 e178d2 00e1a5 2d3c5a c3c396 a51e3c d2c3e1 1e782d 783c3c a59600 ff5a87
        2d2db4 96b4ff 9669d2 ff965a b47800 ff7800 78e1e1 5a785a a5f0b4 e100d2 b44b87 00a5ff 6900d2 d2c34b a54b5a 5a69c3
        5a9687 c33c00 b487f0 963cd2 00b469 782d0f a5690f ff8796 789669 7869ff c34b69 2df0ff 5a5a96 4b3ce1 963c78 78c3e1
        c30ff0 e17887 1e5a96 d2f087 785a69 b4ffe1 873cf0 8700c3 69ffd2 4bc3a5 87783c 967887 0f78d2 a5c32d 0096a5 e1875a
        005a69 c3004b 7887e1 e14b3c 007869 b44bb4 d2d296 e10069 96c3c3 d26987 f0d25a 69c300 d296d2 2dc35a 1ec3d2 ff69e1
        a587a5 783ca5 e1f0c3 d25ab4 ffd2e1 c3694b 87d2a5 4b2d87 6969a5 69a596 694b5a ff1ed2 d24bf0 4b5a78 d2b4a5 ffa5b4
        a5874b 00a50f 691e96 875a3c c387c3 96f0e1 b43c3c b4a578 87e15a 3c4bff 96f087 ff3c96 4b4b00 4b3cb4 2d874b a54be1
        """
    )[:count]
