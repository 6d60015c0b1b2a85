"""Large Aperio slides of few different tiles, so that they are made in seconds."""

from __future__ import annotations

import itertools
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

TILE = 256
TILES = 110
"""Along each side."""

_JPEG, _JPEG2K = 7, 33005


def make_large_svs(path: Path, image: NDArray[np.uint8], *, jpeg2k: bool) -> None:
    """Write a slide of 28,160 pixels squared whose tiles repeat those of `image`, (h, w, 3).

    JPEG is YCbCr of 4:2:0 with quality 70; JPEG 2000 is RGB by the irreversible wavelet.
    """
    rows, columns = (size // TILE for size in image.shape[:2])
    encoded = {
        (r, c): _encoded(image[r * TILE : (r + 1) * TILE, c * TILE : (c + 1) * TILE], jpeg2k)
        for r, c in itertools.product(range(rows), range(columns))
    }
    tiles = (
        encoded[r % rows, c % columns] for r, c in itertools.product(range(TILES), range(TILES))
    )
    side = TILES * TILE
    kind = "J2K/KDU Q=30" if jpeg2k else "JPEG/YCC Q=70"
    description = (
        f"Aperio Image Library v11\r\n{side}x{side} [0,0 {side}x{side}] ({TILE}x{TILE}) {kind}"
        "|AppMag = 20|MPP = 0.5"
    )
    with tifffile.TiffWriter(path) as file:
        file.write(
            tiles, shape=(side, side, 3), dtype=np.uint8, tile=(TILE, TILE),
            compression=_JPEG2K if jpeg2k else _JPEG, photometric="rgb" if jpeg2k else "ycbcr",
            subsampling=None if jpeg2k else (2, 2), description=description, metadata=None,
            software=False,
        )  # fmt: skip


def _encoded(tile: NDArray[np.uint8], jpeg2k: bool) -> bytes:
    tile = np.ascontiguousarray(tile)
    if jpeg2k:
        return bytes(
            imagecodecs.jpeg2k_encode(
                tile, level=40, codecformat="j2k", reversible=False, mct=True, resolutions=6
            )
        )
    return bytes(imagecodecs.jpeg8_encode(tile, level=70, subsampling="420"))
