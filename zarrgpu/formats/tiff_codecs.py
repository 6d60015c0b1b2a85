"""Which codecs a TIFF page's chunks were encoded with, and which numbers come out.

In encoding order:

``short_chunk``   only where the last strip has fewer rows than the others
``tiff_bits`` | ``tiff_predictor``   tags 258; 317 with LZW, deflate, LZMA and Zstandard
the compression   tag 259, by the tables below
``tiff_fill_order``   tag 266, except for image codecs, whose streams are never reversed

Colour comes from the photometric tag and the compression code, never from the stream. Only YCbCr of
JPEG and JPEG 2000 is converted, to RGB; all other samples stay as they are stored.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from zarrgpu.errors import UnsupportedCodecError, UnsupportedFormatError
from zarrgpu.formats.tiff_tags import COMPRESSION_NAMES, PHOTOMETRIC_NAMES
from zarrgpu.model import CodecSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zarrgpu.formats.tiff_page import TiffPage

JPEG: Final = 7
JPEG2K_YCBCR: Final = 33003
JPEG2K_RGB: Final = 33005
_LERC: Final = 34887
_PACKBITS: Final = 32773
_YCBCR: Final = 6

_BYTE_COMPRESSIONS: Final[Mapping[int, CodecSpec]] = MappingProxyType(
    {
        5: CodecSpec("lzw"),
        8: CodecSpec("zlib"),
        32946: CodecSpec("zlib"),
        _PACKBITS: CodecSpec("tiff_packbits"),
        34925: CodecSpec("lzma", {"format": 1, "filters": None}),
        50000: CodecSpec("zstd"),
    }
)
"""Compressions that know nothing of pixels. LZMA is lzma.FORMAT_XZ."""

_JPEG2K_COMPRESSIONS: Final = frozenset({JPEG2K_YCBCR, JPEG2K_RGB, 34712})
_IMAGE_FORMATS: Final = MappingProxyType(
    {_LERC: "lerc", 50001: "webp", 50002: "jpegxl", 52546: "jpegxl"}
)
_LERC_SECOND: Final = MappingProxyType({0: None, 1: "deflate", 2: "zstd"})
_SAMPLE_KINDS: Final = MappingProxyType({1: "u", 2: "i", 3: "f", 4: "u", 6: "c"})
_SAMPLE_BITS: Final = MappingProxyType(
    {"u": (8, 16, 32, 64), "i": (8, 16, 32, 64), "f": (16, 32, 64), "c": (64, 128)}
)
_PACKED_BITS: Final = frozenset(range(1, 16)) - {8}


def chunk_samples(page: TiffPage) -> int:
    """Samples of a pixel in one chunk: one where planes are stored apart."""
    return page.samples // page.planes


def page_dtype(page: TiffPage) -> np.dtype[Any]:
    """Dtype of the samples as they leave the last decoder.

    Raises
    ------
    UnsupportedFormatError
        Mixed samples, or of bits or a format that zarrgpu does not read.
    """
    if page.image_depth != 1:
        msg = f"{page.where}: ImageDepth {page.image_depth} is not read, only 1"
        raise UnsupportedFormatError(msg)
    if len({*page.sample_format}) > 1:
        msg = f"{page.where}: mixed sample formats {page.sample_format} are not read"
        raise UnsupportedFormatError(msg)
    kind = _SAMPLE_KINDS.get(page.sample_format[0])
    bits = page.bits[0]
    if len({*page.bits}) == 1 and kind == "u" and bits in _PACKED_BITS:
        return np.dtype(np.bool_ if bits == 1 else f"=u{1 if bits < 8 else 2}")
    if kind is None or bits not in _SAMPLE_BITS[kind] or len({*page.bits}) > 1:
        msg = (
            f"{page.where}: samples of {page.bits} bits in format {page.sample_format} are not "
            f"read; all of one size are, of whole bytes or unsigned of 1 to 15 bits"
        )
        raise UnsupportedFormatError(msg)
    # image codecs decode to numbers, byte codecs to the file's own bytes
    order = "=" if _is_image(page) else page.byte_order
    return np.dtype(f"{order}{kind}{bits // 8}")


def page_codecs(page: TiffPage, dtype: np.dtype[Any]) -> tuple[CodecSpec, ...]:
    """Codecs of a page's chunks.

    Raises
    ------
    UnsupportedFormatError, UnsupportedCodecError
        By name: a compression, or samples that it is not read with.
    """
    samples = chunk_samples(page)
    codecs: list[CodecSpec] = []
    if short_rows := _short_rows(page):
        short_nbytes = short_rows * page.chunk_width * samples * dtype.itemsize
        codecs.append(CodecSpec("short_chunk", {"short_nbytes": short_nbytes}))
    if page.compression == JPEG:
        return (*codecs, _jpeg(page, dtype))
    if page.compression in _JPEG2K_COMPRESSIONS:
        return (*codecs, _jpeg2k(page, dtype))
    if page.predictor != 1 and page.compression in (_LERC, _PACKBITS):
        raise _disputed_predictor(page)
    if page.compression in _IMAGE_FORMATS:
        return (*codecs, _image(page, dtype))
    if page.compression != 1 and page.compression not in _BYTE_COMPRESSIONS:
        name = COMPRESSION_NAMES.get(page.compression, "unknown")
        msg = f"{page.where}: TIFF compression {page.compression} ({name}) has no decoder"
        raise UnsupportedCodecError(msg)
    _check_stored_colours(page)
    if page.bits[0] in _PACKED_BITS:
        configuration = {"bits": page.bits[0], "row_samples": page.chunk_width * samples}
        codecs.append(CodecSpec("tiff_bits", configuration))
    if page.compression != 1:
        codecs.extend(_predictor(page, dtype))
        codecs.append(_BYTE_COMPRESSIONS[page.compression])
    return (*codecs, *_fill_order(page))


def is_converted(page: TiffPage) -> bool:
    """Whether YCbCr is stored and RGB is what is decoded."""
    if page.compression in (JPEG2K_YCBCR, JPEG2K_RGB):
        return page.compression == JPEG2K_YCBCR
    return page.photometric == _YCBCR and _is_image(page)


def _is_image(page: TiffPage) -> bool:
    compression = page.compression
    return compression in (JPEG, *_JPEG2K_COMPRESSIONS) or compression in _IMAGE_FORMATS


def _short_rows(page: TiffPage) -> int:
    return 0 if page.tiled else page.height % page.chunk_height


def _check_stored_colours(page: TiffPage) -> None:
    """Refuse subsampled YCbCr: its samples are no grid of pixels."""
    if page.photometric == _YCBCR and page.ycbcr_subsampling != (1, 1):
        compression = COMPRESSION_NAMES.get(page.compression, str(page.compression))
        msg = (
            f"{page.where}: photometric interpretation 6 ({PHOTOMETRIC_NAMES[6]}) with subsampling "
        )
        msg += f"{page.ycbcr_subsampling} and compression {compression} is not read"
        raise UnsupportedFormatError(msg)


def _fill_order(page: TiffPage) -> tuple[CodecSpec, ...]:
    if page.fill_order not in (1, 2):
        raise UnsupportedFormatError(f"{page.where}: FillOrder {page.fill_order} is not read")
    return () if page.fill_order == 1 else (CodecSpec("tiff_fill_order"),)


def _disputed_predictor(page: TiffPage) -> UnsupportedCodecError:
    """Refusal of what libtiff reads as if it had no predictor, and tifffile writes with one."""
    name = COMPRESSION_NAMES[page.compression]
    msg = f"{page.where}: predictor {page.predictor} with {name} is not read: some writers mean "
    return UnsupportedCodecError(msg + "it and some readers do not; compress with deflate or LZW")


def _predictor(page: TiffPage, dtype: np.dtype[Any]) -> list[CodecSpec]:
    # all of these compressions have predictors in libtiff: LZW, deflate, LZMA and Zstandard
    if page.predictor == 1:
        return []
    kinds = {2: "iuf", 3: "f"}.get(page.predictor, "")
    if dtype.kind not in kinds or page.bits[0] in _PACKED_BITS:
        samples = f"{page.bits[0]} bits" if page.bits[0] in _PACKED_BITS else str(dtype)
        msg = f"{page.where}: predictor {page.predictor} with samples of {samples} is not read"
        raise UnsupportedCodecError(msg)
    configuration = {
        "predictor": page.predictor,
        "width": page.chunk_width,
        "samples": chunk_samples(page),
        "dtype": dtype.str,
    }
    return [CodecSpec("tiff_predictor", configuration)]


def _image_configuration(page: TiffPage) -> dict[str, Any]:
    configuration: dict[str, Any] = {
        "height": page.chunk_height,
        "width": page.chunk_width,
        "samples": chunk_samples(page),
    }
    if short_rows := _short_rows(page):
        configuration["short_height"] = short_rows
    return configuration


def _colorspace(page: TiffPage) -> str:
    """What the stream holds; `UnsupportedCodecError` for YCbCr of other than three samples."""
    samples = chunk_samples(page)
    if is_converted(page):
        if samples != 3 or page.planes > 1:
            planes = " in planes" if page.planes > 1 else ""
            msg = f"{page.where}: {page.samples} samples per pixel in ycbcr{planes} are not read"
            raise UnsupportedCodecError(msg)
        return "ycbcr"
    if samples == 1:
        return "gray"
    return "rgb" if page.photometric == 2 and samples == 3 else "unknown"


def _jpeg(page: TiffPage, dtype: np.dtype[Any]) -> CodecSpec:
    if dtype != np.uint8 or page.bits[0] != 8:
        what = f"{page.bits[0]} bits" if dtype.kind == "u" else str(dtype)
        raise UnsupportedCodecError(f"{page.where}: JPEG with samples of {what} is not read")
    if chunk_samples(page) > 4:
        msg = f"{page.where}: JPEG with {page.samples} samples per pixel is not read, at most 4 are"
        raise UnsupportedCodecError(msg)
    configuration = {**_image_configuration(page), "colorspace": _colorspace(page)}
    return CodecSpec("jpeg", {**configuration, "tables": page.jpeg_tables})


def _jpeg2k(page: TiffPage, dtype: np.dtype[Any]) -> CodecSpec:
    if dtype.kind not in "iu" or dtype.itemsize > 2:
        raise UnsupportedCodecError(f"{page.where}: JPEG 2000 with samples of {dtype} is not read")
    configuration = {**_image_configuration(page), "colorspace": _colorspace(page)}
    if dtype.kind == "i":
        configuration["signed"] = True
    return CodecSpec("jpeg2k", {**configuration, "bits": dtype.itemsize * 8})


def _image(page: TiffPage, dtype: np.dtype[Any]) -> CodecSpec:
    name = COMPRESSION_NAMES[page.compression]
    if is_converted(page) or page.bits[0] in _PACKED_BITS:
        photometric = PHOTOMETRIC_NAMES.get(page.photometric or 0, "unknown")
        msg = (
            f"{page.where}: {name} with samples of {page.bits[0]} bits in {photometric} is not read"
        )
        raise UnsupportedCodecError(msg)
    configuration: dict[str, Any] = {"format": _IMAGE_FORMATS[page.compression]}
    configuration |= {**_image_configuration(page), "dtype": dtype.str}
    if page.compression == _LERC:
        if page.lerc_compression not in _LERC_SECOND:
            msg = f"{page.where}: LERC compressed with {page.lerc_compression} is not read"
            raise UnsupportedCodecError(msg)
        configuration["second"] = _LERC_SECOND[page.lerc_compression]
    return CodecSpec("tiff_image", configuration)
