"""Huron: pages as Aperio lays them out, described by lines of ``key = value``.

Facts from the reader that Huron wrote for OpenSlide (openslide-vendor-huron.c), which OpenSlide's
releases do not have: they open these files as plain pyramids.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zarrgpu.formats.aperio import aperio_like_slide
from zarrgpu.formats.slide_properties import parse_number

if TYPE_CHECKING:
    from zarrgpu.formats.tiff_file import TiffFile
    from zarrgpu.slide_model import SlideSpec


def is_huron(file: TiffFile) -> bool:
    """Whether a TIFF is a Huron slide."""
    return file.first.tiled and file.first.text.get("Make", "").startswith("Huron")


def huron_slide(file: TiffFile) -> SlideSpec:
    """Describe a Huron slide.

    The pixel size is the ``Resolution`` of the description (``0.25 um``). There is no objective:
    that reader takes one from a table of pixel sizes, which would be a guess.
    """
    pairs = (line.partition("=") for line in file.first.description.splitlines())
    described = {key.strip(): value.strip() for key, equals, value in pairs if equals}
    number, _, unit = described.get("Resolution", "").partition(" ")
    mpp = parse_number(number) if unit.strip().lower() in ("um", "\u00b5m", "\u03bcm", "") else None
    return aperio_like_slide(file, "huron", described, mpp=mpp, objective_power=None)
