"""Trestle TIFF (MedScan): levels whose tiles overlap by whole pixels.

Facts from OpenSlide's reader (openslide-vendor-trestle.c): all pages are tiled levels; the
description of page 0 is ``key=value;key=value``; ``OverlapsXY= x0 y0 x1 y1 ...`` are the pixels by
which the tiles of each level overlap, and of what overlaps the tile further down and to the right
is shown; the resolution tags are micrometres per pixel. The macro image beside the slide, a file
``.Full``, is not read.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import numpy as np

from zarrgpu.errors import MetadataError
from zarrgpu.formats.quickhash import tiff_quickhash
from zarrgpu.formats.slide_properties import level_properties, number_text, tiff_properties
from zarrgpu.formats.tiff import page_to_array_spec
from zarrgpu.formats.tile_placement import PlacedTiles, place_tiles
from zarrgpu.model import ArraySpec
from zarrgpu.slide_model import SlideSpec

if TYPE_CHECKING:
    from zarrgpu.formats.tiff_file import TiffFile

_OVERLAPS: Final = "OverlapsXY="
_BACKGROUND: Final = "Background Color="


def is_trestle(file: TiffFile) -> bool:
    """Whether a TIFF is a Trestle slide."""
    text = file.first.text
    if not text.get("Software", "").startswith("MedScan") or "ImageDescription" not in text:
        return False
    return all(page.tiled for page in file.pages)


def trestle_slide(file: TiffFile) -> SlideSpec:
    """Describe a Trestle slide.

    Levels have axes ``(y, x, c)``. Properties are those of OpenSlide by name and value.

    Raises
    ------
    UnsupportedFormatError, UnsupportedCodecError
        A level uses what zarrgpu does not read.
    MetadataError
        Tags contradict one another or leave the file.
    """
    first = file.first
    overlaps = parse_overlaps(first.description)
    levels = []
    for index, page in enumerate(file.pages):
        spec = page_to_array_spec(page, key=file.key, image=f"level {index}")
        overlap = overlaps[index] if index < len(overlaps) else (0, 0)
        levels.append(_placed(spec, overlap))
    mpp = tuple(first.numbers.get(tag) for tag in ("XResolution", "YResolution"))
    properties = {
        "openslide.vendor": "trestle",
        **tiff_properties(first),
        **level_properties(levels),
        **_described(first.description),
        **{
            f"openslide.mpp-{axis}": number_text(value)
            for axis, value in zip("xy", mpp, strict=True)
            if value is not None
        },
    }
    if any(x or y for x, y in overlaps[: len(levels)]):
        for index in range(len(levels)):
            for side in ("width", "height"):
                del properties[f"openslide.level[{index}].tile-{side}"]
    return SlideSpec(
        source=file.source,
        vendor="trestle",
        levels=tuple(levels),
        axes=("y", "x", "c"),
        mpp=(mpp[0] or None, mpp[1] or None),
        properties=properties,
        associated={},
        quickhash=tiff_quickhash(file.key, file.pages[len(levels) - 1], first),
    )


def parse_overlaps(description: str) -> list[tuple[int, int]]:
    """Overlap in x and y of each level; what is no number counts as 0, as in OpenSlide.

    >>> parse_overlaps("Objective Power=20;OverlapsXY= 8 4 2 1 0")
    [(8, 4), (2, 1)]
    """
    numbers: list[int] = []
    for part in description.split(";"):
        if part.startswith(_OVERLAPS):
            words = part.split(" ")[1:]
            numbers = [int(w) if re.fullmatch(r"\d{1,9}", w, re.ASCII) else 0 for w in words]
    return list(zip(numbers[::2], numbers[1::2], strict=False))


def _placed(spec: ArraySpec, overlap: tuple[int, int]) -> ArraySpec:
    """Let the tiles of a level overlap."""
    if overlap == (0, 0):
        return spec
    grid, tile, stored = spec.grid_shape[:2], spec.chunk_shape[:2], spec.shape[:2]
    shared = (overlap[1], overlap[0])
    size = []
    for axis in (0, 1):
        if shared[axis] >= tile[axis] and grid[axis] > 1:
            msg = f"tiles of {tile[axis]} pixels that overlap by {shared[axis]}"
            where = ("ifd", 0, "ImageDescription")
            raise MetadataError(msg, source=spec.source, location=where)
        size.append(stored[axis] - (grid[axis] - 1) * shared[axis])
    number = np.indices(grid).reshape(2, -1).astype(np.int64)
    sides = np.array(tile)[:, None]
    start = number * (sides - np.array(shared)[:, None])
    extent = np.minimum(sides, np.array(stored)[:, None] - number * sides)
    # the tile before a last one that is narrower than the overlap reaches beyond the level
    extent = np.minimum(extent, np.array(size)[:, None] - start)
    tiles = PlacedTiles(
        chunk=np.arange(grid[0] * grid[1]),
        start=start,
        extent=extent,
        origin=np.zeros_like(number),
    )
    return place_tiles(spec, tiles, (size[0], size[1]))


def _described(description: str) -> dict[str, str]:
    """Keys of the description, and what follows from them."""
    properties: dict[str, str] = {}
    for part in description.split(";"):
        key, equals, value = part.partition("=")
        if equals:
            properties[f"trestle.{key.strip()}"] = value.strip()
        color = part.removeprefix(_BACKGROUND)
        if color != part and re.fullmatch(r"[0-9A-Fa-f]{1,6}", color.strip(), re.ASCII):
            properties["openslide.background-color"] = f"{int(color, 16):06X}"
    power = properties.get("trestle.Objective Power", "")
    if re.fullmatch(r"[+-]?\d{1,18}", power, re.ASCII):
        properties["openslide.objective-power"] = str(int(power))
    return properties
