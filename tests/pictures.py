"""One small picture of every kind that users meet, made here: name -> bytes of the file."""

import io
import random
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, features

SIZE = (37, 23)  # width and height, odd, so that rows are padded
DEEP = "deep_"  # how the names of pictures of more than 8 bits a channel begin


def scene(mode: str = "RGB", size: tuple[int, int] = SIZE) -> Image.Image:
    """Four quarters of one colour each, so that a turned or mirrored picture is another one."""
    width, height = size
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[: height // 2, : width // 2] = 200, 40, 40
    pixels[: height // 2, width // 2 :] = 40, 160, 60
    pixels[height // 2 :, : width // 2] = 50, 70, 190
    pixels[height // 2 :, width // 2 :] = 240, 240, 240
    return Image.fromarray(pixels).convert(mode)


def corpus() -> dict[str, bytes]:
    """All of them; the suffix is the format."""
    return dict([*_bmp(), *_png(), *_tiff(), *_jpeg(), *_others(), *_turned()])


def write_corpus(folder: Path) -> list[Path]:
    """All of them as files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in corpus().items():
        (folder / name).write_bytes(content)
    return sorted(folder.iterdir())


def damaged(content: bytes, seed: int, head: int = 300) -> bytes:
    """A header that lies: one to four of the first bytes are others, or the file ends early."""
    dice = random.Random(seed)
    if seed % 4 == 0:
        return content[: dice.randrange(len(content))]
    lying = bytearray(content)
    for _ in range(dice.randint(1, 4)):
        place = dice.randrange(min(len(lying), head if seed % 2 else 60))
        lying[place] = dice.choice((0, 1, 0x7F, 0x80, 0xFF, dice.randrange(256)))
    return bytes(lying)


def turned(orientation: int) -> Image.Exif:
    """EXIF data that say so."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png(width: int, height: int, bits: int, colour: int, rows: bytes | None = None, *, after: bytes = b"") -> bytes:
    """A PNG of any depth, which Pillow itself cannot write; ``after`` are chunks behind the pixels."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    stride = (width * channels * bits + 7) // 8
    rows = rows if rows is not None else b"".join(b"\0" + bytes(stride) for _ in range(height))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    palette = chunk(b"PLTE", bytes(range(3 * 2**bits))) if colour == 3 else b""
    pixels = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + header + palette + pixels + after + chunk(b"IEND", b"")


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def bmp(width: int, height: int, bits: int, pixels: bytes, *, compression: int = 0, palette: bytes = b"") -> bytes:
    """A BMP with BITMAPINFOHEADER; a negative height is top-down."""
    offset = 54 + len(palette)
    head = b"BM" + struct.pack("<IHHI", offset + len(pixels), 0, 0, offset)
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(pixels), 2835, 2835, 0, 0)
    return head + info + palette + pixels


def tiff(width: int, height: int, bits: tuple[int, ...], pixels: bytes, **tags: int) -> bytes:
    """An uncompressed little-endian TIFF, of one strip or one for each plane; ``tags`` such as t339=3 are SHORTs."""
    channels = len(bits)
    strips = channels if tags.get("t284") == 2 else 1
    length = len(pixels) // strips
    entries: dict[int, tuple[str, list[int]]] = {
        256: ("H", [width]),
        257: ("H", [height]),
        258: ("H", list(bits)),
        259: ("H", [1]),
        262: ("H", [2 if channels == 3 else 1]),
        273: ("I", [0] * strips),
        277: ("H", [channels]),
        278: ("H", [height]),
        279: ("I", [length] * strips),
    } | {int(name[1:]): ("H", [value]) for name, value in tags.items()}
    end = 8 + 2 + 12 * len(entries) + 4
    room = sum(struct.calcsize(f"{len(values)}{kind}") for kind, values in entries.values())  # more than is needed
    entries[273][1][:] = [end + room + place * length for place in range(strips)]
    body, extra = b"II*\0" + struct.pack("<IH", 8, len(entries)), b""
    for tag, (kind, values) in sorted(entries.items()):
        packed = struct.pack(f"<{len(values)}{kind}", *values)
        if len(packed) > 4:
            packed, extra = struct.pack("<I", end + len(extra)), extra + packed
        body += struct.pack("<HHI", tag, 3 if kind == "H" else 4, len(values)) + packed.ljust(4, b"\0")
    return body + bytes(4) + extra.ljust(room, b"\0") + pixels


def _bmp() -> Iterator[tuple[str, bytes]]:
    width, height = SIZE
    for mode in ("1", "L", "P", "RGB", "RGBA"):
        yield f"{mode}.bmp", saved(scene(mode), "BMP")
    yield "wide_grey.bmp", saved(scene("L", (1600, 3)), "BMP")  # its row stride has the digits 16
    yield "video_still.bmp", saved(scene("RGB", (720, 480)), "BMP")  # 2160 bytes a row
    for bits in (4, 8, 16, 24, 32):
        stride = (width * bits + 31) // 32 * 4
        palette = bytes(range(4 * 2**bits % 256 or 1)) * 16 if bits <= 8 else b""
        palette = (palette * 64)[: 4 * 2**bits] if bits <= 8 else b""
        for name, rows in ((f"{bits}bit.bmp", height), (f"{bits}bit_top_down.bmp", -height)):
            yield name, bmp(width, rows, bits, bytes(stride * height), palette=palette)
    runs = b"".join(bytes((width, row % 4, 0, 0)) for row in range(height)) + b"\0\1"
    yield "rle8.bmp", bmp(width, height, 8, runs, compression=1, palette=bytes(range(256)) * 4)
    yield "rle4.bmp", bmp(width, height, 4, runs, compression=2, palette=bytes(range(64)))


def _png() -> Iterator[tuple[str, bytes]]:
    for colour, depths in ((0, (1, 2, 4, 8, 16)), (2, (8, 16)), (3, (1, 2, 4, 8)), (4, (8, 16)), (6, (8, 16))):
        for bits in depths:
            if colour == 3 and bits == 8:
                continue
            yield f"{DEEP * (bits > 8)}type{colour}_{bits}bit.png", png(*SIZE, bits, colour)
    yield "palette.png", saved(scene("P"), "PNG")
    yield "transparent_colour.png", saved(scene(), "PNG", transparency=(40, 160, 60))
    yield "transparent_palette.png", saved(scene("P"), "PNG", transparency=bytes(range(256)))
    yield "animated.png", saved(scene(), "PNG", save_all=True, append_images=[scene("RGB").rotate(180)])
    yield f"{DEEP}grey.png", saved(Image.fromarray(np.full(SIZE[::-1], 999, dtype=np.uint16)), "PNG")
    width, height = 8, 8
    interlaced = bytearray(png(width, height, 8, 0, rows=_adam7(width, height)))
    interlaced[28] = 1
    interlaced[29:33] = struct.pack(">I", zlib.crc32(bytes(interlaced[12:29])))
    yield "interlaced.png", bytes(interlaced)


def _adam7(width: int, height: int) -> bytes:
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    rows = b""
    for left, top, across, down in passes:
        columns = len(range(left, width, across))
        rows += b"".join(b"\0" + bytes(columns) for _ in range(top, height, down)) if columns else b""
    return rows


def _tiff() -> Iterator[tuple[str, bytes]]:
    width, height = SIZE
    for mode in ("1", "L", "P", "RGB", "RGBA", "CMYK"):
        yield f"{mode}.tif", saved(scene(mode), "TIFF")
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits"):
        for mode in ("L", "RGB"):
            yield f"{mode}_{compression}.tif", saved(scene(mode), "TIFF", compression=compression)
    for compression in ("group3", "group4", "tiff_ccitt"):
        yield f"{compression}.tif", saved(scene("1"), "TIFF", compression=compression)
    # each strip begins elsewhere, at offsets with the digits 16 too
    yield "strips.tif", saved(scene(size=(300, 200)), "TIFF", compression="tiff_lzw", tiffinfo={278: 4})
    yield "pages.tif", saved(scene(), "TIFF", save_all=True, append_images=[scene("L")])
    yield "big.tif", saved(scene(), "TIFF", big_tiff=True)
    pixels = np.asarray(scene())
    yield "planar.tif", tiff(width, height, (8, 8, 8), np.moveaxis(pixels, -1, 0).tobytes(), t284=2)
    yield "raw.tif", tiff(width, height, (8, 8, 8), pixels.tobytes())
    deep = np.asarray(scene("L")).astype(np.uint16) * 257
    yield f"{DEEP}12.tif", tiff(width, height, (12,), bytes((width * 12 + 7) // 8 * height))
    yield f"{DEEP}16.tif", tiff(width, height, (16,), deep.tobytes())
    yield f"{DEEP}16_rgb.tif", tiff(width, height, (16,) * 3, pixels.astype("<u2").tobytes())
    yield f"{DEEP}big_endian.tif", saved(Image.fromarray(deep.astype(">u2")), "TIFF")
    yield f"{DEEP}float.tif", saved(scene("F"), "TIFF")
    yield f"{DEEP}32.tif", saved(scene("I"), "TIFF")


def _jpeg() -> Iterator[tuple[str, bytes]]:
    for mode in ("L", "RGB", "CMYK"):
        yield f"{mode}.jpg", saved(scene(mode), "JPEG", quality=95)
    yield "progressive.jpg", saved(scene(), "JPEG", progressive=True)
    yield "ycck.jpg", saved(scene("CMYK"), "JPEG", quality=95, keep_rgb=False)
    yield "several.mpo", saved(scene(), "MPO", save_all=True, append_images=[scene()])


def _others() -> Iterator[tuple[str, bytes]]:
    for name, options in (("lossy", {}), ("lossless", {"lossless": True})):
        yield f"{name}.webp", saved(scene(), "WEBP", **options)
    yield "alpha.webp", saved(scene("RGBA"), "WEBP")
    yield "animated.webp", saved(scene(), "WEBP", save_all=True, append_images=[scene("L")])
    yield "one.gif", saved(scene("P"), "GIF")
    yield "animated.gif", saved(scene("P"), "GIF", save_all=True, append_images=[scene("P").rotate(90)])
    for mode, suffix in (("1", "pbm"), ("L", "pgm"), ("RGB", "ppm")):
        yield f"{mode}.{suffix}", saved(scene(mode), "PPM")
    yield "plain.ppm", b"P3\n2 2\n255\n" + b"1 2 3 " * 4
    yield f"{DEEP}grey.pgm", b"P5\n37 23\n65535\n" + bytes(2 * 37 * 23)
    yield f"{DEEP}grey_12.pgm", b"P5\n37 23\n4095\n" + bytes(2 * 37 * 23)
    yield f"{DEEP}colour.ppm", b"P6\n37 23\n65535\n" + bytes(6 * 37 * 23)
    yield f"{DEEP}plain.pgm", b"P2\n2 2\n1000\n1 2 3 1000\n"
    for mode in ("L", "RGB", "RGBA"):
        yield f"{mode}.tga", saved(scene(mode), "TGA")
    yield "rle.tga", saved(scene(), "TGA", compression="tga_rle")
    if features.check("jpg_2000"):
        yield "colour.jp2", saved(scene(), "JPEG2000")
        yield f"{DEEP}grey.jp2", saved(Image.fromarray(np.full(SIZE[::-1], 999, dtype=np.uint16)), "JPEG2000")
    if features.check("avif"):
        yield "colour.avif", saved(scene(), "AVIF")


def _turned() -> Iterator[tuple[str, bytes]]:
    """By all orientations, in all formats that hold one."""
    for orientation in range(1, 9):
        kinds = [("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp")] + [("AVIF", "avif")] * features.check("avif")
        for kind, suffix in kinds:
            lossless = {"lossless": True} if kind == "WEBP" else {}
            yield f"turned{orientation}.{suffix}", saved(scene(), kind, exif=turned(orientation), **lossless)
        yield f"turned{orientation}.tif", saved(scene(), "TIFF", tiffinfo={0x0112: orientation})
        yield (
            f"turned{orientation}_lzw.tif",
            saved(scene(), "TIFF", tiffinfo={0x0112: orientation}, compression="tiff_lzw"),
        )
        rows = b"".join(b"\0" + row.tobytes() for row in np.asarray(scene()))
        late = chunk(b"eXIf", turned(orientation).tobytes()[6:])  # behind the pixels, as the format allows
        yield f"turned{orientation}_late.png", png(*SIZE, 8, 2, rows, after=late)
