"""openslide-python's interface over zarrgpu: change one import, get Pillow's images as before.

``from zarrgpu.interop import openslide`` instead of ``import openslide``, and
``from zarrgpu.interop.openslide.deepzoom import DeepZoomGenerator``. What zarrgpu does not read is
an `OpenSlideUnsupportedFormatError`; what it reads besides (OME-Zarr, URLs) opens too. Differences:
a coarser level begins at its nearest pixel, where OpenSlide shifts by the fraction of one; a level
that is not there is an error; an error does not close the slide; all vendors have their profiles.

Needs Pillow.
"""

from __future__ import annotations

from typing import Final

from zarrgpu import __version__
from zarrgpu.interop.openslide import lowlevel
from zarrgpu.interop.openslide.abstract import AbstractSlide
from zarrgpu.interop.openslide.image_slide import ImageSlide
from zarrgpu.interop.openslide.lowlevel import (
    OpenSlideError,
    OpenSlideUnsupportedFormatError,
    OpenSlideVersionError,
)
from zarrgpu.interop.openslide.slide import OpenSlide, OpenSlideCache, open_slide

__library_version__ = __version__
"""Of what reads the slides: zarrgpu."""

PROPERTY_NAME_BACKGROUND_COLOR: Final = "openslide.background-color"
PROPERTY_NAME_BARCODE: Final = "openslide.barcode"
PROPERTY_NAME_BOUNDS_HEIGHT: Final = "openslide.bounds-height"
PROPERTY_NAME_BOUNDS_WIDTH: Final = "openslide.bounds-width"
PROPERTY_NAME_BOUNDS_X: Final = "openslide.bounds-x"
PROPERTY_NAME_BOUNDS_Y: Final = "openslide.bounds-y"
PROPERTY_NAME_COMMENT: Final = "openslide.comment"
PROPERTY_NAME_MPP_X: Final = "openslide.mpp-x"
PROPERTY_NAME_MPP_Y: Final = "openslide.mpp-y"
PROPERTY_NAME_OBJECTIVE_POWER: Final = "openslide.objective-power"
PROPERTY_NAME_QUICKHASH1: Final = "openslide.quickhash-1"
PROPERTY_NAME_VENDOR: Final = "openslide.vendor"

__all__ = [
    "PROPERTY_NAME_BACKGROUND_COLOR",
    "PROPERTY_NAME_BARCODE",
    "PROPERTY_NAME_BOUNDS_HEIGHT",
    "PROPERTY_NAME_BOUNDS_WIDTH",
    "PROPERTY_NAME_BOUNDS_X",
    "PROPERTY_NAME_BOUNDS_Y",
    "PROPERTY_NAME_COMMENT",
    "PROPERTY_NAME_MPP_X",
    "PROPERTY_NAME_MPP_Y",
    "PROPERTY_NAME_OBJECTIVE_POWER",
    "PROPERTY_NAME_QUICKHASH1",
    "PROPERTY_NAME_VENDOR",
    "AbstractSlide",
    "ImageSlide",
    "OpenSlide",
    "OpenSlideCache",
    "OpenSlideError",
    "OpenSlideUnsupportedFormatError",
    "OpenSlideVersionError",
    "__library_version__",
    "__version__",
    "lowlevel",
    "open_slide",
]
