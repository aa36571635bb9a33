"""Masks from disk: raw values to train ids."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lightning_app.data.bad_file import AGAIN, BadFile, regular_file
from lightning_app.data.images import read_header, upright

UNLISTED = -1
LOSSY, PNG = "A mask saved as JPEG, which is lossy", "Save it as PNG, from the original labels."


class MaskReader:
    """Mask file -> train ids; whatever ``label_map`` does not list is an error.

    Args:
        label_map: raw value -> train id; with ``colour_coded`` masks a raw value is 0xRRGGBB.
    """

    def __init__(self, label_map: Mapping[int, int], *, colour_coded: bool = False) -> None:
        self.colour_coded = colour_coded
        self._table = np.full(max(label_map) + 2, UNLISTED, dtype=np.int16)  # its last entry stands for all beyond
        self._table[list(label_map)] = list(label_map.values())

    def raw(self, path: Path) -> NDArray[np.uint32]:
        """The values as they stand in the file. Shape: (H, W)."""
        if path.suffix == ".mat":
            return _read_mat(path)
        with upright(path) as (image, header):
            if self.colour_coded:
                red, green, blue = np.moveaxis(np.array(image.convert("RGB"), dtype=np.uint32), -1, 0)
                packed: NDArray[np.uint32] = red << 16 | green << 8 | blue
                return packed
            values = np.array(image)
            if values.ndim == 3 and image.mode in ("RGB", "RGBA", "LA"):
                values = values if image.mode == "LA" else values[..., :3]
                if image.mode != "LA" and (values != values[..., :1]).any():
                    if header.lossy:
                        raise BadFile(path, (LOSSY,), PNG)
                    fix = 'Give its colours in label_map ({"#rrggbb": class}).'
                    raise BadFile(path, ("Colour mask where label_map lists numbers",), fix)
                values = values[..., 0]
            if values.ndim != 2 or values.dtype.kind not in "bui":
                raise BadFile(path, (f"Not a mask (mode {image.mode})",), "Save it as one channel of whole numbers.")
            return values.astype(np.uint32)

    def __call__(self, path: Path) -> NDArray[np.uint8]:
        """Train ids. Shape: (H, W)."""
        raw = self.raw(path)
        ids = self._table[np.minimum(raw, len(self._table) - 1)]
        if ids.min(initial=0) == UNLISTED:
            values = [f"#{v:06x}" if self.colour_coded else str(v) for v in np.unique(raw[ids == UNLISTED])]
            if path.suffix != ".mat" and read_header(path).lossy:
                detail = f"{len(values)} raw value{'s' * (len(values) > 1)} in no class, such as {values[0]}"
                raise BadFile(path, (LOSSY,), PNG, detail)
            problems = tuple(f"Raw value {value}: in no class" for value in values[:10])
            raise BadFile(path, problems, "Add it to label_map (255 to ignore it) or correct the mask.")
        return ids.astype(np.uint8)


def _read_mat(path: Path) -> NDArray[np.uint32]:
    try:
        from scipy.io import loadmat  # type: ignore[import-untyped]
    except ImportError:
        raise BadFile(path, ("Reading .mat files needs scipy",), "pip install scipy") from None
    with regular_file(path) as file:
        try:
            return np.asarray(loadmat(file)["S"], dtype=np.uint32)
        except Exception as error:  # whatever a damaged file makes its reader raise
            reason = " ".join(str(error).split()) or type(error).__name__
            raise BadFile(path, ("Unreadable",), AGAIN, reason) from error
