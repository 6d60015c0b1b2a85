"""From a TIFF page to an `ArraySpec`: a grid of encoded chunks at known byte ranges.

A page becomes an array with axes ``(y, x, c)``; a chunk is one tile or one strip, of one sample
where a file stores planes apart. `tiff_codecs` says how chunks decode.

Samples mean what the file says they mean, which ``photometric`` in the attributes repeats: "white
is zero" is not inverted, and an image with a palette is its indexes, with the palette beside them.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, Final

import numpy as np

from zarrgpu.formats.geotiff import geo_attributes, parse_nodata
from zarrgpu.formats.tiff_codecs import chunk_samples, is_converted, page_codecs, page_dtype
from zarrgpu.formats.tiff_ifd import ReadRange, is_tiff
from zarrgpu.formats.tiff_page import TiffPage, read_sub_pages, read_tiff
from zarrgpu.formats.tiff_strips import split_strips
from zarrgpu.formats.tiff_tags import EXTRA_SAMPLE_NAMES, PHOTOMETRIC_NAMES, Tag
from zarrgpu.model import MISSING_NBYTES, ArraySpec, Manifest, StoredBytes

__all__ = ["ReadRange", "TiffPage", "is_tiff", "page_to_array_spec", "read_sub_pages", "read_tiff"]

PALETTE: Final = 3
_LEAST_SAMPLES: Final = MappingProxyType({2: 3, 6: 3, 8: 3})
_MAX_PALETTE_BITS: Final = 16


def page_to_array_spec(page: TiffPage, *, key: str, image: str = "image") -> ArraySpec:
    """Describe one page as an array.

    Parameters
    ----------
    page : TiffPage
    key : str
        The file's key in its store.
    image : str
        What the page is to users, such as ``level 2`` or ``label``; errors name it.

    Returns
    -------
    ArraySpec
        Shape ``(height, width, samples)``, located by a `Manifest`. Chunks with no bytes are
        missing. They read as 0, as OpenSlide gives them at level 0, or as GDAL's nodata where the
        file states one. Attributes: ``tiff_ifd``, ``image``, ``photometric``; where they apply,
        ``tiff_sub_ifd``, ``bits_per_sample`` (packed samples), ``extra_samples``, ``color_map``
        (``(n, 3)`` lists of red, green, blue, 16 bits), ``orientation`` (tag 274 if it is not 1:
        pixels are as they are stored) and those of `geotiff.geo_attributes`.

    Raises
    ------
    UnsupportedFormatError, UnsupportedCodecError
        A layout or compression that zarrgpu does not read, by name.
    MetadataError
        Tags contradict one another.
    """
    dtype = page_dtype(page)
    if page.photometric is None:
        raise page.ifd.error(Tag.PhotometricInterpretation, "required tag is missing", "missing")
    least = _LEAST_SAMPLES.get(page.photometric, 1)
    if page.samples < least:
        name = PHOTOMETRIC_NAMES[page.photometric]
        msg = f"expected at least {least} samples per pixel for {name}, got {page.samples}"
        raise page.ifd.error(Tag.SamplesPerPixel, msg)
    page = split_strips(page)
    offsets, nbytes = _chunk_order(page, page.offsets), _chunk_order(page, page.nbytes)
    attributes = _attributes(page, image, dtype)
    return ArraySpec(
        source=page.source,
        shape=(page.height, page.width, page.samples),
        dtype=dtype,
        chunk_shape=(page.chunk_height, page.chunk_width, chunk_samples(page)),
        fill_value=parse_nodata(attributes.get("nodata"), dtype),
        codecs=page_codecs(page, dtype),
        axis_order=(0, 1, 2),
        location=Manifest(
            key=key,
            offsets=offsets,
            nbytes=np.where(nbytes == 0, np.int64(MISSING_NBYTES), nbytes),
        ),
        dimension_names=("y", "x", "c"),
        attributes=attributes,
        icc_profile=stored_profile(page, key),
    )


def stored_profile(page: TiffPage, key: str) -> StoredBytes | None:
    """Embedded colour profile of a page, None if there is none or the file is cut off before it."""
    at = page.icc_profile
    if at is None or not at.nbytes or at.end > page.ifd.cache.size:
        return None
    return StoredBytes(key=key, byte_range=at)


def _chunk_order(page: TiffPage, table: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A chunk table in C order of the grid (y, x, c); a file stores plane after plane."""
    if page.planes == 1:
        return table
    return np.ascontiguousarray(table.reshape(page.planes, -1).T).reshape(-1)


def _attributes(page: TiffPage, image: str, dtype: np.dtype[Any]) -> dict[str, Any]:
    photometric = 2 if is_converted(page) else page.photometric
    attributes: dict[str, Any] = {
        "tiff_ifd": page.index,
        "image": image,
        "photometric": PHOTOMETRIC_NAMES.get(photometric or 0, str(photometric)),
    }
    if page.sub_index is not None:
        attributes["tiff_sub_ifd"] = page.sub_index
    if page.bits[0] != 8 * dtype.itemsize:
        attributes["bits_per_sample"] = page.bits[0]
    if Tag.Orientation in page.ifd.fields:
        orientation = page.ifd.integer(Tag.Orientation)
        if orientation != 1:
            attributes["orientation"] = orientation
    if page.extra_samples:
        names = [EXTRA_SAMPLE_NAMES.get(code, str(code)) for code in page.extra_samples]
        attributes["extra_samples"] = names
    if page.photometric == PALETTE:
        attributes["color_map"] = _color_map(page)
    return attributes | geo_attributes(page)


def _color_map(page: TiffPage) -> list[list[int]]:
    """Red, green and blue, 0 to 65535, of each index."""
    count = 3 << min(page.bits[0], _MAX_PALETTE_BITS)
    values = page.ifd.integers(Tag.ColorMap, max_count=count)
    if values is None or values.size != count:
        got = "none" if values is None else values.size
        msg = f"expected {count} values for a palette of {page.bits[0]} bits, got {got}"
        raise page.ifd.error(Tag.ColorMap, msg)
    colors: list[list[int]] = values.reshape(3, -1).T.tolist()
    return colors
