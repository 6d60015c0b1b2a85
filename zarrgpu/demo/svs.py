"""Write an Aperio-style SVS: what a ScanScope leaves behind, down to its habits.

Rules from OpenSlide's aperio driver and a real file (``CMU-1-Small-Region.svs``): tiled levels,
finest first, with the stripped thumbnail as the second directory; label (LZW, predictor 2, subfile
type 1) and macro (JPEG, subfile type 9) last; JPEG tiles stored abbreviated, their tables once per
directory in tag 347; colour plain RGB (photometric 2) although the component ids 0, 1, 2 make a
stock JPEG decoder guess YCbCr, and although YCbCrSubSampling says (2, 2). Only the demo and the
tests write; zarrgpu itself reads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from zarrgpu.errors import MissingDependencyError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Image: TypeAlias = NDArray[np.uint8]

HEADER = "Aperio Image Library v12.0.15 \r\n"
_SOI, _EOI = b"\xff\xd8", b"\xff\xd9"
_DQT, _DHT, _SOF0, _SOS, _APP14 = 0xDB, 0xC4, 0xC0, 0xDA, 0xEE


def write_svs(
    path: Path,
    image: Image,
    *,
    label: Image,
    macro: Image,
    thumbnail: Image,
    downsamples: tuple[int, ...] = (1, 4, 16),
    tile_px: int = 240,
    quality: int = 80,
    mpp: float = 0.5,
    app_mag: int = 20,
) -> None:
    """Write `image` (h, w, 3) with its pyramid and associated images (h, w, 3), all RGB uint8.

    Parameters
    ----------
    downsamples : tuple of int
        Box filter of each level against level 0; the first is 1.
    tile_px : int
        Tile side in pixels; a multiple of 8.
    quality : int
        JPEG quality, 1 to 100.
    mpp, app_mag
        Micrometres per pixel and objective power, for the description.
    """
    try:
        import tifffile
    except ImportError as error:
        msg = "writing the demo's slide needs tifffile: pip install 'zarrgpu[demo]'"
        raise MissingDependencyError(msg) from error
    height, width = image.shape[:2]
    facts = (
        f"|AppMag = {app_mag}|MPP = {mpp:.4f}|ScanScope ID = zarrgpu demo|Filename = {path.stem}"
    )
    small_height, small_width = thumbnail.shape[:2]
    tiling = f"({tile_px}x{tile_px}) JPEG/RGB Q={quality}"
    with tifffile.TiffWriter(path, bigtiff=False, byteorder="<") as tiff:
        for index, factor in enumerate(downsamples):
            level = box_filter(image, factor)
            size = f"{width}x{height} [0,0 {width}x{height}] {tiling}"
            if index:
                size = f"{width}x{height} {tiling} -> {level.shape[1]}x{level.shape[0]} {tiling}"
            _write_jpeg(tiff, level, HEADER + size + facts, quality, tile_px=tile_px)
            if index == 0:
                size = f"{width}x{height} -> {small_width}x{small_height} - "
                _write_jpeg(tiff, thumbnail, HEADER + size + facts, quality)
        text = f"{HEADER}label {label.shape[1]}x{label.shape[0]}"
        tiff.write(label, compression="lzw", predictor=True, rowsperstrip=8, **_common(text, 1))
        text = f"{HEADER}macro {macro.shape[1]}x{macro.shape[0]}"
        _write_jpeg(tiff, macro, text, quality, subfile_type=9)


def box_filter(image: Image, factor: int) -> Image:
    """Mean over `factor` x `factor` pixels; rows and columns left over are dropped."""
    if factor == 1:
        return image
    h, w = (n // factor for n in image.shape[:2])
    out = np.empty((h, w, image.shape[2]), image.dtype)
    for row in range(h):  # a row at a time keeps the wide sums small
        strip = image[row * factor : (row + 1) * factor, : w * factor]
        sums = strip.sum(axis=0, dtype=np.uint32).reshape(w, factor, -1).sum(axis=1)
        out[row] = (sums + factor * factor // 2) // (factor * factor)
    return out


def _common(description: str, subfile_type: int) -> dict[str, Any]:
    """Arguments of every directory."""
    return {
        "photometric": "rgb",
        "description": description,
        "subfiletype": subfile_type,
        "metadata": None,
        "software": False,
    }


def _write_jpeg(
    tiff: Any,
    image: Image,
    description: str,
    quality: int,
    *,
    tile_px: int | None = None,
    subfile_type: int = 0,
) -> None:
    """Add one directory of abbreviated JPEG tiles, or of 16-row strips."""
    layout = {"tile": (tile_px, tile_px)} if tile_px else {"rowsperstrip": 16}
    parts = _tiles(image, tile_px) if tile_px else _strips(image, 16)
    tables, _ = _encode(np.zeros((16, 16, 3), np.uint8), quality)
    tiff.write(
        (_encode(part, quality)[1] for part in parts),
        shape=image.shape,
        dtype=image.dtype,
        compression="jpeg",
        compressionargs={"outcolorspace": "RGB"},  # becomes photometric 2
        jpegtables=tables,
        **layout,
        **_common(description, subfile_type),
    )


def _tiles(image: Image, tile: int) -> Iterator[Image]:
    """Cut full-size tiles in row-major order; the last row and column repeat the edge pixels."""
    h, w = image.shape[:2]
    for y in range(0, h, tile):
        for x in range(0, w, tile):
            part = image[y : y + tile, x : x + tile]
            missing = (tile - part.shape[0], tile - part.shape[1])
            yield np.pad(part, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")


def _strips(image: Image, rows: int) -> Iterator[Image]:
    """Cut strips of `rows` rows; the last one may be shorter."""
    for y in range(0, image.shape[0], rows):
        yield image[y : y + rows]


def _encode(part: Image, quality: int) -> tuple[bytes, bytes]:
    """Encode RGB without a colour transform: the tables, and the stream without them."""
    try:
        from imagecodecs import jpeg8_encode
    except ImportError as error:
        msg = "writing the demo's slide needs imagecodecs: pip install 'zarrgpu[demo]'"
        raise MissingDependencyError(msg) from error
    stream = bytes(
        jpeg8_encode(
            np.ascontiguousarray(part), level=quality, colorspace="RGB", outcolorspace="RGB"
        )
    )
    tables, frame = bytearray(_SOI), bytearray(_SOI)
    at = 2
    while True:
        marker = stream[at + 1]
        end = at + 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
        segment = bytearray(stream[at:end])
        if marker in {_DQT, _DHT}:
            tables += segment
        elif marker == _SOF0:  # component ids 'R', 'G', 'B' become 0, 1, 2, as Aperio has them
            segment[10::3] = bytes(range(segment[9]))
            frame += segment
        elif marker == _SOS:
            segment[5 : 5 + 2 * segment[4] : 2] = bytes(range(segment[4]))
            return bytes(tables + _EOI), bytes(frame + segment) + stream[end:]
        elif marker != _APP14:
            frame += segment
        at = end
