"""From a TIFF page to an `ArraySpec`: a grid of encoded chunks at known byte ranges.

A page becomes an array with axes ``(y, x, c)``; a chunk is one tile or one strip. Codecs, in
encoding order:

``short_chunk``   only where the last strip has fewer rows than the others
``tiff_predictor``   tag 317, with LZW, deflate and Zstandard
``lzw`` | ``zlib`` | ``zstd`` | ``tiff_packbits`` | ``jpeg`` | ``jpeg2k``   tag 259

Colour comes from the photometric tag and the compression code, never from the stream.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, Final

import numpy as np

from zarrgpu.errors import MetadataError, UnsupportedCodecError, UnsupportedFormatError
from zarrgpu.formats.tiff_ifd import ReadRange, is_tiff
from zarrgpu.formats.tiff_page import TiffPage, read_tiff
from zarrgpu.formats.tiff_tags import COMPRESSION_NAMES, PHOTOMETRIC_NAMES
from zarrgpu.model import MISSING_NBYTES, ArraySpec, CodecSpec, Manifest

__all__ = ["ReadRange", "TiffPage", "is_tiff", "page_to_array_spec", "read_tiff"]

BYTE_COMPRESSIONS: Final = MappingProxyType(
    {5: "lzw", 8: "zlib", 32946: "zlib", 32773: "tiff_packbits", 50000: "zstd"}
)
"""Compressions that know nothing of pixels."""

JPEG: Final = 7
JPEG2K_YCBCR: Final = 33003
JPEG2K_COMPRESSIONS: Final = (JPEG2K_YCBCR, 33005, 34712)
_IMAGE_COMPRESSIONS: Final = (JPEG, *JPEG2K_COMPRESSIONS)

_COLORSPACES: Final = MappingProxyType({1: "gray", 2: "rgb", 6: "ycbcr"})
_COLORSPACE_SAMPLES: Final = MappingProxyType({"gray": 1, "rgb": 3, "ycbcr": 3})
_SAMPLE_KINDS: Final = MappingProxyType({1: "u", 2: "i", 3: "f"})
_SAMPLE_BITS: Final = MappingProxyType(
    {"u": (8, 16, 32, 64), "i": (8, 16, 32, 64), "f": (16, 32, 64)}
)


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
        missing and read as 0, as OpenSlide gives them at level 0 and GDAL for sparse files.

    Raises
    ------
    UnsupportedFormatError, UnsupportedCodecError
        A layout or compression that zarrgpu does not read, by name.
    MetadataError
        Tags contradict one another.
    """
    dtype = _dtype(page)
    _check_photometric(page)
    chunk_shape = (page.chunk_height, page.chunk_width, page.samples)
    nbytes = np.where(page.nbytes == 0, np.int64(MISSING_NBYTES), page.nbytes)
    return ArraySpec(
        source=page.source,
        shape=(page.height, page.width, page.samples),
        dtype=dtype,
        chunk_shape=chunk_shape,
        fill_value=0,
        codecs=_codecs(page, dtype),
        axis_order=(0, 1, 2),
        location=Manifest(key=key, offsets=page.offsets, nbytes=nbytes),
        dimension_names=("y", "x", "c"),
        attributes={"tiff_ifd": page.index, "image": image},
    )


def _where(page: TiffPage) -> str:
    return f"ifd {page.index} of {page.source!r}"


def _dtype(page: TiffPage) -> np.dtype[Any]:
    """Dtype of the samples as they leave the last decoder."""
    if page.planar_config != 1:
        msg = f"{_where(page)}: PlanarConfiguration {page.planar_config} (planes) is not read"
        raise UnsupportedFormatError(msg)
    if page.fill_order != 1:
        raise UnsupportedFormatError(f"{_where(page)}: FillOrder {page.fill_order} is not read")
    kind = _SAMPLE_KINDS.get(page.sample_format[0])
    bits = page.bits[0]
    if kind is None or bits not in _SAMPLE_BITS[kind] or len({*page.bits}) > 1:
        msg = (
            f"{_where(page)}: samples of {page.bits} bits in format {page.sample_format} are not "
            f"read; whole bytes of one size are"
        )
        raise UnsupportedFormatError(msg)
    if len({*page.sample_format}) > 1:
        msg = f"{_where(page)}: mixed sample formats {page.sample_format} are not read"
        raise UnsupportedFormatError(msg)
    # image codecs decode to numbers, byte codecs to the file's own bytes
    order = "=" if page.compression in _IMAGE_COMPRESSIONS else page.byte_order
    return np.dtype(f"{order}{kind}{bits // 8}")


def _check_photometric(page: TiffPage) -> None:
    """Refuse samples of another meaning than grey or RGB: palettes, inverted grey, raw YCbCr."""
    photometric = page.photometric
    if photometric is None:
        msg = "required tag is missing"
        location = ("ifd", page.index, "PhotometricInterpretation")
        raise MetadataError(msg, source=page.source, location=location, kind="missing")
    if photometric in (1, 2) or (photometric == 6 and page.compression in _IMAGE_COMPRESSIONS):
        return
    name = PHOTOMETRIC_NAMES.get(photometric, "unknown")
    compression = COMPRESSION_NAMES.get(page.compression, str(page.compression))
    msg = f"{_where(page)}: photometric interpretation {photometric} ({name}) with compression "
    raise UnsupportedFormatError(msg + f"{compression} is not read")


def _codecs(page: TiffPage, dtype: np.dtype[Any]) -> tuple[CodecSpec, ...]:
    codecs: list[CodecSpec] = []
    short_rows = page.height % page.chunk_height if not page.tiled else 0
    if short_rows:
        short_nbytes = short_rows * page.chunk_width * page.samples * dtype.itemsize
        codecs.append(CodecSpec("short_chunk", {"short_nbytes": short_nbytes}))
    if page.compression == JPEG:
        codecs.append(_jpeg(page, dtype, short_rows))
    elif page.compression in JPEG2K_COMPRESSIONS:
        codecs.append(_jpeg2k(page, dtype, short_rows))
    elif page.compression in BYTE_COMPRESSIONS:
        codecs.extend(_predictor(page, dtype))
        codecs.append(CodecSpec(BYTE_COMPRESSIONS[page.compression]))
    elif page.compression != 1:
        name = COMPRESSION_NAMES.get(page.compression, "unknown")
        msg = f"{_where(page)}: TIFF compression {page.compression} ({name}) has no decoder"
        raise UnsupportedCodecError(msg)
    return tuple(codecs)


def _predictor(page: TiffPage, dtype: np.dtype[Any]) -> list[CodecSpec]:
    # libtiff applies predictors with LZW, deflate and Zstandard only, and so do all writers
    if page.predictor == 1 or page.compression == 32773:
        return []
    if page.predictor not in (2, 3) or (page.predictor == 3) != (dtype.kind == "f"):
        msg = f"{_where(page)}: predictor {page.predictor} with samples of {dtype} is not read"
        raise UnsupportedCodecError(msg)
    configuration = {
        "predictor": page.predictor,
        "width": page.chunk_width,
        "samples": page.samples,
        "dtype": dtype.str,
    }
    return [CodecSpec("tiff_predictor", configuration)]


def _image_configuration(page: TiffPage, colorspace: str, short_rows: int) -> dict[str, Any]:
    if page.samples != _COLORSPACE_SAMPLES[colorspace]:
        msg = f"{_where(page)}: {page.samples} samples per pixel in {colorspace} are not read"
        raise UnsupportedCodecError(msg)
    configuration: dict[str, Any] = {
        "height": page.chunk_height,
        "width": page.chunk_width,
        "samples": page.samples,
        "colorspace": colorspace,
    }
    if short_rows:
        configuration["short_height"] = short_rows
    return configuration


def _jpeg(page: TiffPage, dtype: np.dtype[Any], short_rows: int) -> CodecSpec:
    if dtype != np.uint8:
        raise UnsupportedCodecError(f"{_where(page)}: JPEG with samples of {dtype} is not read")
    colorspace = _COLORSPACES[page.photometric or 0]
    configuration = _image_configuration(page, colorspace, short_rows)
    return CodecSpec("jpeg", {**configuration, "tables": page.jpeg_tables})


def _jpeg2k(page: TiffPage, dtype: np.dtype[Any], short_rows: int) -> CodecSpec:
    if dtype not in (np.uint8, np.uint16):
        raise UnsupportedCodecError(
            f"{_where(page)}: JPEG 2000 with samples of {dtype} is not read"
        )
    # Aperio's 33003 is YCbCr whatever the photometric tag says
    code = page.compression
    colorspace = "ycbcr" if code == JPEG2K_YCBCR else _COLORSPACES[page.photometric or 0]
    if code == 33005 and colorspace == "ycbcr":
        colorspace = "rgb"
    configuration = _image_configuration(page, colorspace, short_rows)
    return CodecSpec("jpeg2k", {**configuration, "bits": dtype.itemsize * 8})
