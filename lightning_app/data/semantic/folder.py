"""Folder: the user's own images and masks."""

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only

from lightning_app.data.facts import Colour, DatasetFacts, default_palette
from lightning_app.data.listing import Listing, files, place_of, read_list, require
from lightning_app.data.semantic.pairs import FileDataModule
from lightning_app.util.errors import InputError, closest

IGNORE = 255
SHARED = ("train", "val")  # the splits of pictures that nobody split


class Folder(FileDataModule):
    """Your own data: ``images/`` and ``masks/``, whose files pair by name whatever their extensions.

    Splits are sub-folders (``images/train``, ``masks/train``, ...) or lists of names (``train.txt``, ...) in the root.
    Without either a share of the pictures is for validation, chosen by their names, so that new ones move no others.

    Args:
        root: the folder that holds images/ and masks/.
        classes: the class names, or a text file of them, one a line; none = classes.txt in the root.
        label_map: raw value -> class index, 255 to ignore it. A raw value is a number (an index in a palette PNG), or a
            colour written "#rrggbb" or "r,g,b"; a value that is not listed is an error. None = number i is class i,
            and 255 is ignored.
        palette: one RGB colour per class; none = the colours of label_map, or some that are easy to tell apart.
        val_share: of the pictures that are for validation where there are no splits.
    """

    def __init__(
        self,
        root: Path = Path("data"),
        *,
        classes: list[str] | Path | None = None,
        label_map: dict[int | str, int] | None = None,
        palette: list[Colour] | None = None,
        val_share: float = 0.2,
        **options: Any,
    ) -> None:
        root = Path(root).expanduser()
        if not 0 < val_share < 1:
            raise InputError(f"data.val_share is {val_share}: give a share between 0 and 1")
        if not isinstance(classes, list) and not root.is_dir():
            state = "is not a folder" if root.exists() else "does not exist"
            raise InputError(f"{root} {state}: the root of the data. Give the right --data.root.")
        names = tuple(classes if isinstance(classes, list) else _read_classes(Path(classes or root / "classes.txt")))
        raw, colour_coded = _parse_label_map(label_map, len(names))
        if palette is None and colour_coded:
            colour_of = {train: value for value, train in reversed(raw.items())}
            palette = [_unpack(colour_of.get(i, 0)) for i in range(len(names))]
        if palette is not None and len(palette) != len(names):
            raise InputError(f"palette has {len(palette)} colours for {len(names)} classes: give one for each class")
        facts = DatasetFacts(
            name="Folder",
            classes=names,
            palette=tuple(palette or default_palette(len(names))),
            label_map=raw,
            ignore_index=IGNORE,
            colour_coded=colour_coded,
        )
        super().__init__(facts, root, **options)
        self.val_share, self._has_spoken = val_share, False

    def listing(self, split: str) -> tuple[Listing, Listing]:
        images = require(self.root / "images", self.facts, "the images")
        masks = require(self.root / "masks", self.facts, "the masks")
        if (images / split).is_dir():
            return files(images / split), files(require(masks / split, self.facts, f'the masks of split "{split}"'))
        listed = self.root / f"{split}.txt"
        if not listed.exists():
            return self._share(split)
        all_images, all_masks = files(images), files(masks)
        keys = [_key(name, all_images) for name in read_list(listed)]
        chosen = all_images.only(keys)
        chosen.update({key: images / key for key in keys if key not in chosen})
        return chosen, all_masks.only(keys)

    def _share(self, split: str) -> tuple[Listing, Listing]:
        """The pictures of a split where nobody made splits: each name's hash says for ever where it belongs."""
        images, masks = self.root / "images", self.root / "masks"
        names = {path.name for path in images.iterdir() if path.is_dir()}
        known = sorted({*names, *(path.stem for path in self.root.glob("*.txt"))} - {"classes"})
        if split not in SHARED or {*SHARED} & {*known} or closest(split, known):
            raise self.unknown_split(split, known or SHARED)
        all_images, all_masks = files(images), files(masks)
        keys = sorted({*all_images, *all_masks}, key=place_of)
        count = sum(place_of(key) < self.val_share for key in keys)
        count = min(max(count, 1), len(keys) - 1) if len(keys) > 1 else 0  # of few names, each side still gets one
        if not self._has_spoken and keys:
            self._has_spoken = True
            rank_zero_only(print)(
                f"{self.root} has no splits: {len(keys) - count} pictures to train and {count} to val, by their names "
                f"(--data.val_share {self.val_share:g})",
                file=sys.stderr,
            )
        chosen = keys[:count] if split == "val" else keys[count:]
        return all_images.only(chosen), all_masks.only(chosen)


def _key(name: str, known: Mapping[str, Path]) -> str:
    """A listed name is a file's, with or without its extension."""
    return name if name in known else Path(name).with_suffix("").as_posix()


def _read_classes(path: Path) -> Sequence[str]:
    if not path.exists():
        raise InputError(f"{path} does not exist: write one class name a line there, or give --data.classes.")
    names = read_list(path)
    if not names:
        raise InputError(f"{path} is empty: write one class name a line.")
    return names


def _parse_label_map(label_map: Mapping[int | str, int] | None, classes: int) -> tuple[dict[int, int], bool]:
    if not 1 <= classes <= IGNORE:
        raise InputError(f"{classes} classes: give 1 to {IGNORE}")
    if label_map is None:
        return {**{i: i for i in range(classes)}, IGNORE: IGNORE}, False
    colour_coded = any(_is_colour(key) for key in label_map)
    parsed: dict[int, int] = {}
    for key, train in label_map.items():
        if not (0 <= train < classes or train == IGNORE):
            raise InputError(f"label_map {key}: {train} is no class: give 0 to {classes - 1}, or {IGNORE} to ignore")
        raw = _pack(key) if colour_coded else _number(key)
        if raw is None:
            wanted = 'colours ("#rrggbb" or "r,g,b")' if colour_coded else "numbers from 0 to 65535"
            raise InputError(f'label_map key "{key}": all keys must be {wanted}')
        parsed[raw] = train
    return parsed, colour_coded


def _is_colour(key: int | str) -> bool:
    return isinstance(key, str) and not key.isdecimal()


def _number(key: int | str) -> int | None:
    text = str(key)
    return int(text) if text.isdecimal() and int(text) < 1 << 16 else None


def _pack(key: int | str) -> int | None:
    """0xRRGGBB of "#rrggbb" or "r,g,b"."""
    text = str(key).strip()
    if re.fullmatch(r"#[0-9a-fA-F]{6}", text):
        return int(text[1:], 16)
    parts = [part.strip() for part in text.strip("()[]").split(",")]
    if len(parts) != 3 or not all(part.isdecimal() and int(part) < 256 for part in parts):
        return None
    red, green, blue = map(int, parts)
    return red << 16 | green << 8 | blue


def _unpack(colour: int) -> Colour:
    return colour >> 16, colour >> 8 & 255, colour & 255
