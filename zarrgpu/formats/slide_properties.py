"""Properties of a slide under OpenSlide's names, with OpenSlide's number texts.

Source: https://openslide.org/properties/ and openslide-decode-tifflike.c.
"""

from __future__ import annotations

import math
import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import numpy as np

from zarrgpu.formats.tiff_tags import RESOLUTION_UNITS
from zarrgpu.model import MISSING_NBYTES, Manifest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zarrgpu.formats.tiff_page import TiffPage
    from zarrgpu.model import ArraySpec

_UNIT_UM: Final = MappingProxyType({2: 25_400.0, 3: 10_000.0})
"""Micrometres in an inch and in a centimetre, by ResolutionUnit."""

_NUMBER: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE | re.ASCII)


Z_SPACING: Final = "zarrgpu.mpp-z"
"""Property: micrometres between planes of z."""


def number_text(value: float) -> str:
    """Text of a number as OpenSlide writes it (g_ascii_dtostr): up to 17 significant digits.

    >>> number_text(0.499), number_text(20.0), number_text(0.225)
    ('0.499', '20', '0.22500000000000001')
    """
    return f"{value:.17g}"


def parse_number(text: str | None) -> float | None:
    """Read a number with a decimal point or comma; None if the whole text is not a finite one.

    >>> parse_number("0,4990"), parse_number("20x"), parse_number("")
    (0.499, None, None)
    """
    candidate = "" if text is None else text.strip().replace(",", ".")
    number = float(candidate) if _NUMBER.fullmatch(candidate) else math.inf
    return number if math.isfinite(number) else None


def tiff_properties(page: TiffPage) -> dict[str, str]:
    """``tiff.*`` tags of the first page, and ``openslide.comment``."""
    properties = {f"tiff.{name}": text for name, text in page.text.items()}
    properties |= {f"tiff.{name}": number_text(value) for name, value in page.numbers.items()}
    properties["tiff.ResolutionUnit"] = RESOLUTION_UNITS.get(page.resolution_unit, "unknown")
    if "ImageDescription" in page.text:
        properties["openslide.comment"] = page.description
    return properties


def level_properties(levels: Sequence[ArraySpec], y: int = 0) -> dict[str, str]:
    """Size, tile size and downsample of each level, whose axes `y` and ``y + 1`` are y and x.

    The downsample is the mean of the ratios of heights and of widths, not a power of two.
    """
    height, width = levels[0].shape[y : y + 2]
    properties = {"openslide.level-count": str(len(levels))}
    for index, level in enumerate(levels):
        down, across = level.shape[y : y + 2]
        values = {
            "downsample": number_text((height / down + width / across) / 2),
            "height": str(down),
            "width": str(across),
            "tile-height": str(level.chunk_shape[y]),
            "tile-width": str(level.chunk_shape[y + 1]),
        }
        properties |= {f"openslide.level[{index}].{name}": text for name, text in values.items()}
    return properties


def associated_properties(name: str, page: TiffPage, icc_nbytes: int) -> dict[str, str]:
    """Size of an associated image and of its colour profile."""
    prefix = f"openslide.associated.{name}"
    properties = {f"{prefix}.width": str(page.width), f"{prefix}.height": str(page.height)}
    if icc_nbytes:
        properties[f"{prefix}.icc-size"] = str(icc_nbytes)
    return properties


def scale_properties(mpp: float | None, objective_power: float | None) -> dict[str, str]:
    """Pixel size and magnification, where the file states them."""
    properties = {}
    if mpp is not None:
        properties["openslide.mpp-x"] = properties["openslide.mpp-y"] = number_text(mpp)
    if objective_power is not None:
        properties["openslide.objective-power"] = number_text(objective_power)
    return properties


def resolution_mpp(page: TiffPage) -> tuple[float | None, float | None]:
    """Micrometres per pixel in x and y by the resolution tags; None if either does not say it."""
    unit_um = _UNIT_UM.get(page.resolution_unit)
    per_unit = (page.numbers.get(tag) for tag in ("XResolution", "YResolution"))
    x, y = (unit_um / each if unit_um is not None and each else None for each in per_unit)
    return (None, None) if x is None or y is None else (x, y)


def mpp_properties(mpp: tuple[float | None, float | None]) -> dict[str, str]:
    """Pixel sizes that are known."""
    pairs = zip("xy", mpp, strict=True)
    return {f"openslide.mpp-{axis}": number_text(each) for axis, each in pairs if each is not None}


def bounds_properties(level: ArraySpec) -> dict[str, str]:
    """Smallest rectangle that holds all stored tiles of level 0, where it is not all of it.

    `level` has axes ``(y, x, c)`` and a manifest.
    """
    assert isinstance(level.location, Manifest)
    stored = (level.location.nbytes != MISSING_NBYTES).reshape(level.grid_shape).any(axis=2)
    properties, whole = {}, True
    for axis, (name, size) in enumerate((("y", "height"), ("x", "width"))):
        length, end = level.chunk_shape[axis], level.shape[axis]
        filled = np.flatnonzero(stored.any(axis=1 - axis))
        first = int(filled[0]) * length if filled.size else 0
        last = min((int(filled[-1]) + 1) * length, end) if filled.size else 0
        properties[f"openslide.bounds-{name}"] = str(first)
        properties[f"openslide.bounds-{size}"] = str(last - first)
        whole &= last - first == end
    return {} if whole else properties
