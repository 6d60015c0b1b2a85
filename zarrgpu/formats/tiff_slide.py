"""Which kind of slide a TIFF is: the table of what is read.

A vendor is a line of `VENDORS`: whether a file is of that kind, and what describes it. The first
that says yes reads the file; a TIFF of no vendor is a plain pyramid, or the images that it holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from zarrgpu.errors import UnsupportedFormatError
from zarrgpu.formats.aperio import aperio_slide, is_aperio
from zarrgpu.formats.argos import argos_slide, is_argos
from zarrgpu.formats.huron import huron_slide, is_huron
from zarrgpu.formats.leica import is_leica, leica_slide
from zarrgpu.formats.ndpi import is_ndpi, ndpi_slide
from zarrgpu.formats.ome_tiff import is_ome_tiff, ome_tiff_slide
from zarrgpu.formats.philips import is_philips, philips_slide
from zarrgpu.formats.qptiff import is_qptiff, qptiff_slide
from zarrgpu.formats.tiff_file import TiffFile
from zarrgpu.formats.tiff_images import pyramid, pyramid_slide, read_images
from zarrgpu.formats.trestle import is_trestle, trestle_slide
from zarrgpu.formats.ventana import is_ventana, ventana_slide
from zarrgpu.model import ArraySpec
from zarrgpu.slide_model import SlideSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from zarrgpu.formats.tiff_ifd import ReadRange


@dataclass(frozen=True, slots=True)
class Vendor:
    """A kind of slide.

    Attributes
    ----------
    name : str
    detect : callable
        ``(file) -> bool``; looks at as little as it can, such as ``file.first``.
    read : callable
        ``(file) -> SlideSpec``, or a typed error.
    """

    name: str
    detect: Callable[[TiffFile], bool]
    read: Callable[[TiffFile], SlideSpec]


VENDORS: Final = (
    # its directories are not quite those of a TIFF, so it is asked before any is read
    Vendor("Hamamatsu NDPI", is_ndpi, ndpi_slide),
    Vendor("Aperio", is_aperio, aperio_slide),
    Vendor("Ventana BIF", is_ventana, ventana_slide),
    Vendor("Trestle TIFF", is_trestle, trestle_slide),
    Vendor("Philips TIFF", is_philips, philips_slide),
    Vendor("Leica SCN", is_leica, leica_slide),
    Vendor("OME-TIFF", is_ome_tiff, ome_tiff_slide),
    Vendor("QPTIFF", is_qptiff, qptiff_slide),
    Vendor("Huron", is_huron, huron_slide),
    Vendor("Argos AVS", is_argos, argos_slide),
)
"""In the order in which they are asked."""


def read_tiff_slide(read_range: ReadRange, size: int, *, source: str, key: str) -> SlideSpec:
    """Open one file by its bytes; see `read_slide`. Parameters are those of `TiffFile`."""
    return read_slide(TiffFile(read_range, size, source=source, key=key))


def read_tiff_file(file: TiffFile) -> SlideSpec | ArraySpec | tuple[ArraySpec, ...]:
    """Open a TIFF as a slide of the vendor that made it, or as the images that it holds.

    Raises as `read_slide`; a TIFF of no vendor need not be tiled.
    """
    for vendor in VENDORS:
        if vendor.detect(file):
            return vendor.read(file)
    return read_images(file)


def read_slide(file: TiffFile) -> SlideSpec:
    """Open a TIFF as a slide of the vendor that made it, or as a plain pyramid (``generic-tiff``).

    Raises
    ------
    UnsupportedFormatError, UnsupportedCodecError
        Not tiled, of a vendor that zarrgpu does not read, or with an unread compression; by name.
    MetadataError
        The file is damaged.
    """
    for vendor in VENDORS:
        if vendor.detect(file):
            return vendor.read(file)
    first = file.first
    if "ImageJ=" in first.description:
        msg = f"{file.source!r} is an ImageJ stack and no slide; open() reads it as an array"
        raise UnsupportedFormatError(msg)
    if not first.tiled:
        msg = f"{file.source!r} is a stripped TIFF and no slide; open() reads it as an array"
        raise UnsupportedFormatError(msg)
    return pyramid_slide(file, pyramid(file.pages))
