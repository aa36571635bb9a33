"""Pictures too large for memory, and those that lie on a map: TIFFs that are read and written by windows (rasterio)."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_app.data.bad_file import AGAIN, BadFile
from lightning_app.util.errors import InputError
from lightning_app.util.extras import install
from lightning_app.util.files import replacing

SUFFIXES: Final = (".tif", ".tiff", ".btf", ".tf2", ".tf8")
LARGE: Final = 2**26  # pixels: a TIFF without a place on a map is read by windows where it has more
CACHE: Final = 64  # megabytes that GDAL may hold of blocks
BLOCK: Final = 512  # rows and columns of a block that is written
NO_CLASS: Final = 255
Slices = tuple[slice, slice]


def is_raster(path: Path) -> bool:
    """Whether a file is read by windows: a TIFF that lies on a map, is large, or has other bands than grey or RGB.

    False where rasterio is not installed.
    """
    if path.suffix.lower() not in SUFFIXES or not path.is_file() or find_spec("rasterio") is None:
        return False
    try:
        with _opened(path) as file:
            placed = bool(file.crs or file.gcps[0] or file.rpcs) or not file.transform.is_identity
            return placed or file.width * file.height > LARGE or file.count not in (1, 3) or len(file.subdatasets) > 1
    except BadFile:  # Pillow, whose turn it is now, says what is wrong with it
        return False


class Raster:
    """One image (1, C, H, W), whose windows are read when they are asked for: ``raster[..., rows, columns]``.

    Use it in a ``with``. What has no data, or is transparent, is filled with ``mean``.

    Args:
        channels: how many a network takes. A single band is repeated; bands beyond them are left out.
        mean: of each channel, in 0..1.

    Raises:
        BadFile: no TIFF, fewer bands than channels, more than 8 bits, a colour table, or a stack of pages.
    """

    def __init__(self, path: Path, channels: int, mean: Sequence[float]) -> None:
        if find_spec("rasterio") is None:
            raise InputError(f"{path} is read by windows, which needs rasterio: {install('geo')}")
        self.path, self._stack = path, ExitStack()
        self.mean = np.array(mean)[:, None, None]
        with ExitStack() as stack:
            self.file = stack.enter_context(_opened(path))
            pages = [stack.enter_context(_opened(Path(page), path)) for page in self.file.subdatasets[1:]]
            self.bands = self._bands(pages, channels)
            named = [number for number, meaning in enumerate(self.file.colorinterp, 1) if meaning.name == "alpha"]
            self.alpha = (self.file, named[0]) if named else None
            self.transparent = self.alpha[1] if self.alpha is not None and self.alpha not in self.bands else None
            self._stack = stack.pop_all()
        self.shape = (1, channels, self.file.height, self.file.width)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def __len__(self) -> int:
        return 1

    def __getitem__(self, place: tuple[Any, slice, slice]) -> Tensor:
        """Bytes of a window, (1, C, h, w)."""
        pixels, seen = self.read((place[1], place[2]))
        pixels[:, ~seen] = np.broadcast_to(np.rint(self.mean[:, 0] * 255), (len(pixels), (~seen).sum()))
        return torch.from_numpy(pixels)[None]

    def read(self, place: Slices) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """A window as (C, h, w), and where it has data (h, w)."""
        window = tuple((part.start, part.stop) for part in place)
        try:
            each = [file.read(band, window=window) for file, band in self.bands]
            seen = self._seen(place)
        except Exception as error:
            raise _bad(self.path, error) from error
        return np.stack(each if len(each) == self.shape[1] else each * self.shape[1]), seen

    def _seen(self, place: Slices) -> NDArray[np.bool_]:
        """Where a window has data, (h, w)."""
        window = tuple((part.start, part.stop) for part in place)
        if self.transparent is None and self.alpha in self.bands:  # a fourth band that the network takes, by that name
            return np.ones([part.stop - part.start for part in place], dtype=np.bool_)
        if self.transparent is not None:
            values = self.file.read(self.transparent, window=window)
        else:
            values = self.file.dataset_mask(window=window)
        seen: NDArray[np.bool_] = values > 0
        return seen

    @property
    def left_out(self) -> int:
        """Bands that no channel takes, transparency aside."""
        own = sum(source is self.file for source, _ in self.bands)
        return int(self.file.count - own - (self.transparent is not None))

    def _bands(self, pages: Sequence[Any], channels: int) -> list[tuple[Any, int]]:
        file = self.file
        sizes = {(page.height, page.width) for page in pages} | {(file.height, file.width)}
        if pages and len(sizes) == 1:  # OME-TIFF: a page for each channel
            bands = [(page, 1) for page in (file, *pages)]
            if file.count > 1 or len(bands) != channels:
                fix = (
                    f"The network takes {channels} channels: write the pages that it shall see to a file of their own."
                )
                raise BadFile(self.path, ("A stack of pages",), fix, f"{len(bands)} of {file.count} bands")
        else:
            bands = [(file, band) for band in range(1, file.count + 1)]
        if {source.dtypes[band - 1] for source, band in bands} != {"uint8"}:
            fix = "Scale the values you need to 0..255: gdal_translate -ot Byte -scale LOW HIGH 0 255 IN OUT."
            raise BadFile(self.path, ("Other numbers than bytes",), fix, ", ".join(sorted(set(file.dtypes))))
        if file.colorinterp[0].name == "palette":
            raise BadFile(self.path, ("A colour table",), "gdal_translate -expand rgb IN OUT.")
        grey = len(bands) == 1 or (len(bands) == 2 and file.colorinterp[1].name == "alpha")
        if grey and channels in (1, 3):
            return bands[:1]
        if len(bands) < channels:
            fix = f"The network takes {channels} channels: give a file that has them."
            raise BadFile(self.path, ("Too few bands",), fix, str(len(bands)))
        return bands[:channels]


@contextmanager
def writing(target: Path, like: Raster, palette: Sequence[Sequence[int]], tags: Mapping[str, str]) -> Iterator[Any]:
    """A TIFF of class numbers that lies where ``like`` does, whole or not there.

    What is given, ``write(rows, columns, ids)``, fills it block by block; overviews are made at the end.
    """
    import rasterio
    from rasterio.enums import Resampling

    source = like.file
    profile = {
        "driver": "GTiff",
        "dtype": "uint8",
        "count": 1,
        "height": source.height,
        "width": source.width,
        "nodata": NO_CLASS,
        "crs": source.crs or source.gcps[1],
        "transform": source.transform,
        "tiled": True,
        "blockxsize": BLOCK,
        "blockysize": BLOCK,
        "compress": "deflate",
        "bigtiff": "if_safer",
        "photometric": "palette",
    }
    if source.gcps[0]:
        del profile["transform"]
        profile["gcps"] = source.gcps[0]
    with replacing(target) as temporary, quiet(), rasterio.Env(GDAL_CACHEMAX=CACHE):
        with rasterio.open(temporary, "w", **profile) as file:
            file.write_colormap(1, {number: (*colour, 255) for number, colour in enumerate(palette)})
            file.update_tags(**tags)
            if source.rpcs:
                file.rpcs = source.rpcs

            def write(rows: slice, columns: slice, ids: NDArray[np.uint8]) -> None:
                file.write(ids, 1, window=((rows.start, rows.stop), (columns.start, columns.stop)))

            yield write
        smaller = [2**level for level in range(1, 12) if max(source.height, source.width) > 256 * 2**level]
        if smaller:
            with rasterio.open(temporary, "r+", driver="GTiff") as file:
                file.build_overviews(smaller, Resampling.nearest)


@contextmanager
def quiet() -> Iterator[None]:
    """Without rasterio's warning that a TIFF lies on no map."""
    from rasterio.errors import NotGeoreferencedWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


@contextmanager
def _opened(path: Path, named: Path | None = None) -> Iterator[Any]:
    """The open TIFF, and no other format; ``named`` is the file that an error tells of."""
    import rasterio

    with ExitStack() as stack:
        try:
            stack.enter_context(quiet())
            stack.enter_context(rasterio.Env(GDAL_CACHEMAX=CACHE))
            file = stack.enter_context(rasterio.open(path, driver="GTiff"))
        except Exception as error:
            raise _bad(named or path, error) from error
        yield file


def _bad(path: Path, error: Exception) -> BadFile:
    return BadFile(path, ("Unreadable",), AGAIN, " ".join(str(error).split()) or type(error).__name__)
