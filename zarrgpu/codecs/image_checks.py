"""What the header of an image stream must say before its decoder may run.

A decoder given ``out`` compares its shape with the stream's, most of them before they allocate
anything (measured: imagecodecs 2026.3.6, streams of 36 million pixels). Checked here is what the
others would allocate, and what makes a library hang or abort on damaged data (found by changing
bytes at random): cut-off JPEG-LS, size markers of JPEG 2000, sizes of Pcodec.

Specs: ITU-T T.81 (JPEG), T.87 (JPEG-LS), T.800 (JPEG 2000); GIF89a; ISO/IEC 23008-12 (``ispe``);
qoiformat.org; Pcodec's docs/format.md.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from zarrgpu.codecs.base import CodecError
from zarrgpu.codecs.jpeg import check_end, read_header
from zarrgpu.codecs.jpeg2k_stream import read_codestream

_EOI: Final = b"\xff\xd9"
_EXTENSION, _IMAGE, _TRAILER = b"\x21", b"\x2c", b"\x3b"
_QOI_END: Final = bytes(7) + b"\1"
_SOT, _QCD, _QCC = 0x90, 0x5C, 0x5D
_MAX_EXPONENT: Final = 28
_TIFF_SHORT: Final = 3
_JPEGXR_TAGS: Final = (0xBC80, 0xBC81, 0xBCC0, 0xBCC1)
"""Width, height, offset and length of the codestream."""
_ALPHA_OFFSET, _ALPHA_NBYTES = 0xBCC2, 0xBCC3
_JPEGXR_DEPTHS: Final = (0, 1, 2, 3, 4, 6, 7)
"""1, 8, 16 bits, 16 signed, half, 32 signed, float (T.832, table 25)."""
_JPEGXR_COLORS: Final = {0: (0,), 4: (4,), 7: (0, 1, 2, 3), 8: (1, 2, 3)}
"""Colours of the result (grey, CMYK, RGB, RGBE) -> colours that may be coded for it."""


def _refuse(what: str, got: int, count: int) -> None:
    if got > count:
        msg = f"{what} of {got} samples, expected at most {count}"
        raise CodecError(msg)


def check_jpeg(data: bytes, count: int) -> None:
    """Size, and an end-of-image marker: libjpeg fills a cut-off image with grey."""
    header = read_header(data)
    _refuse("JPEG", header.height * header.width * header.samples, count)
    check_end(data, header)


def _check_ljpeg(data: bytes, count: int) -> None:
    header = read_header(data)
    _refuse("lossless JPEG", header.height * header.width * header.samples, count)
    check_end(data, header)  # the decoder goes on with zeros


def _check_jpegls(data: bytes, count: int) -> None:
    """CharLS never returns from a cut-off stream; FF D9 cannot occur within a scan."""
    del count  # compared by imagecodecs before anything is allocated
    if not data.startswith(b"\xff\xd8\xff"):
        msg = f"not a JPEG-LS stream: starts with {data[:4].hex() or 'nothing'}"
        raise CodecError(msg)
    if _EOI not in data[-4:]:
        raise CodecError("JPEG-LS stream is cut off: no end-of-image marker")


def _check_jpeg2k(data: bytes, count: int) -> None:
    stream = read_codestream(data)
    _refuse("JPEG 2000", stream.height * stream.width * len(stream.subsampling), count)


def _check_htj2k(data: bytes, count: int) -> None:
    """OpenJPH writes outside its memory when quantisation steps have a larger exponent.

    What it finds wrong within a tile, imagecodecs 2026.3.6 prints and does not raise.
    """
    _check_jpeg2k(data, count)
    at = 2
    while data[at : at + 1] == b"\xff" and data[at + 1] != _SOT:
        nbytes = int.from_bytes(data[at + 2 : at + 4], "big")
        body = data[at + 4 : at + 2 + nbytes]
        if data[at + 1] in (_QCD, _QCC):
            style = body[1 if len(body) % 2 == 0 else 0] if data[at + 1] == _QCC else body[0]
            steps = body[-(len(body) // 2) * 2 :: 2] if style & 31 else b""
            if any(step >> 3 > _MAX_EXPONENT for step in steps):
                raise CodecError("damaged JPEG 2000 quantisation marker")
        at += 2 + nbytes


def _check_jpegxr(data: bytes, count: int) -> None:
    """Container and codestream must agree: jxrlib writes what the codestream says.

    A cut-off stream decodes to garbage without an error, so its length is checked as well.
    """
    if data[:4] != b"II\xbc\x01" or len(data) < 10:
        msg = f"not a JPEG XR file: starts with {data[:4].hex() or 'nothing'}"
        raise CodecError(msg)
    (ifd,) = struct.unpack_from("<I", data, 4)
    entries = int.from_bytes(data[ifd : ifd + 2], "little")
    tags: dict[int, int] = {}
    for at in range(ifd + 2, min(ifd + 2 + 12 * entries, len(data) - 11), 12):
        tag, kind, _, value = struct.unpack_from("<HHII", data, at)
        tags[tag] = value & 0xFFFF if kind == _TIFF_SHORT else value
    width, height, start, nbytes = (tags.get(tag, 0) for tag in _JPEGXR_TAGS)
    _refuse("JPEG XR", width * height, count)
    if start + nbytes > len(data):
        msg = f"JPEG XR file of {len(data)} bytes is cut off, it needs {start + nbytes}"
        raise CodecError(msg)
    _check_wmphoto(data, start, (width, height))
    if (alpha := tags.get(_ALPHA_OFFSET, 0)) != 0:
        # jxrlib writes where the alpha plane ends in place of its length
        if max(alpha, tags.get(_ALPHA_NBYTES, 0)) > len(data):
            raise CodecError("JPEG XR file is cut off in its alpha plane")
        _check_wmphoto(data, alpha, (width, height))


def _check_wmphoto(data: bytes, start: int, size: tuple[int, int]) -> None:
    """Compare a codestream's header with the width and height of its container."""
    head = data[start : start + 24]
    if len(head) < 24 or not head.startswith(b"WMPHOTO\0"):
        msg = f"JPEG XR file without a codestream at byte {start}"
        raise CodecError(msg)
    short, output, depth = head[10] & 0x80, head[11] >> 4, head[11] & 15
    width, height = struct.unpack_from(">HH" if short else ">II", head, 12)
    internal = head[16 if short else 20] >> 5
    if (width + 1, height + 1) != size or depth not in _JPEGXR_DEPTHS:
        msg = f"JPEG XR codestream of {width + 1} x {height + 1} (depth {depth}), expected {size}"
        raise CodecError(msg)
    if internal not in _JPEGXR_COLORS.get(output, ()):
        msg = f"damaged JPEG XR codestream: colours {internal} coded for colours {output}"
        raise CodecError(msg)


def _check_avif(data: bytes, count: int) -> None:
    """Every image of the file states its size in a box of its own."""
    at = data.find(b"ispe")
    while at >= 0 and at + 16 <= len(data):
        width, height = struct.unpack_from(">II", data, at + 8)
        _refuse("AVIF", width * height, count)
        at = data.find(b"ispe", at + 16)


def _check_qoi(data: bytes, count: int) -> None:
    if not data.startswith(b"qoif") or len(data) < 14:
        msg = f"not a QOI stream: starts with {data[:4].hex() or 'nothing'}"
        raise CodecError(msg)
    width, height, channels = struct.unpack_from(">IIB", data, 4)
    _refuse("QOI", width * height * max(channels, 3), count)
    if not data.endswith(_QOI_END):
        raise CodecError("QOI stream is cut off: no end marker")


def _check_gif(data: bytes, count: int) -> None:
    """Walk the blocks: giflib allocates every image that the file describes."""
    if data[:3] != b"GIF" or len(data) < 13:
        msg = f"not a GIF stream: starts with {data[:4].hex() or 'nothing'}"
        raise CodecError(msg)
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    _refuse("GIF", width * height, count)
    at = 13 + _gif_palette_nbytes(flags)
    total = 0
    while data[at : at + 1] not in (_TRAILER, b""):
        kind = data[at : at + 1]
        if kind == _IMAGE and at + 10 <= len(data):
            width, height, flags = struct.unpack_from("<HHB", data, at + 5)
            total += width * height
            _refuse("GIF", total, count)
            at += 11 + _gif_palette_nbytes(flags)
        elif kind == _EXTENSION:
            at += 2
        else:
            msg = f"damaged GIF: no block starts with {kind.hex()} at byte {at}"
            raise CodecError(msg)
        while data[at : at + 1] not in (b"\0", b""):
            at += 1 + data[at]
        at += 1
    if at >= len(data):
        msg = f"GIF stream of {len(data)} bytes is cut off"
        raise CodecError(msg)


def _gif_palette_nbytes(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


CHECKS: Final[Mapping[str, Callable[[bytes, int], None]]] = MappingProxyType(
    {
        "avif_decode": _check_avif,
        "gif_decode": _check_gif,
        "htj2k_decode": _check_htj2k,
        "jpeg2k_decode": _check_jpeg2k,
        "jpeg8_decode": check_jpeg,
        "jpegls_decode": _check_jpegls,
        "jpegxr_decode": _check_jpegxr,
        "ljpeg_decode": _check_ljpeg,
        "qoi_decode": _check_qoi,
    }
)
"""Decoder of imagecodecs -> check of a stream that must hold so many samples; `CodecError`."""
