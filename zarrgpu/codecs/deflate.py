"""Deflate in its two wrappers: gzip and zlib.

Spec: RFC 1950, 1951, 1952. Zarr v3 ``gzip``, v2 ``{"id": "gzip"}`` and ``{"id": "zlib"}`` (v3
``numcodecs.zlib``), TIFF compressions 8 and 32946 (zlib).
Example: ``{"name": "gzip", "configuration": {"level": 5}}``.

libdeflate (imagecodecs) is much faster than zlib, but decodes one member and wants the
exact size; where it declines, zlib gives the answer, so both always agree.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np

from zarrgpu.codecs.base import CodecError, Compressor, place
from zarrgpu.model import ByteArray

_GZIP_WBITS = 31
_ZLIB_WBITS = 15
_WINDOW_NBYTES = 32 << 10


@cache
def _libdeflate(name: str) -> Any:
    """Decoder of imagecodecs, or None where it is not installed."""
    try:
        import imagecodecs
    except ImportError:
        return None
    return getattr(imagecodecs, f"{name}_decode", None)


@cache
def _libdeflate_crc32() -> Any:
    try:
        import imagecodecs
    except ImportError:
        return None
    return getattr(imagecodecs, "deflate_crc32", None)


def _decode(
    name: str, wbits: int, encoded: ByteArray, nbytes: int, out: ByteArray | None
) -> ByteArray:
    if (
        out is not None
        and (wbits < _GZIP_WBITS or _gzip_ends_with(encoded, nbytes))
        and (fast := _libdeflate(name)) is not None
    ):
        try:
            whole = fast(encoded, out=out).size == nbytes
            if whole and (wbits < _GZIP_WBITS or _gzip_ends_as(encoded, out)):
                return out
        except Exception:
            pass
    return place(_decode_zlib(wbits, encoded, nbytes), nbytes, out)


def _gzip_ends_with(encoded: ByteArray, nbytes: int) -> bool:
    """Whether the last member says that it has `nbytes`: then it should be the only one."""
    return int.from_bytes(encoded[-4:].tobytes(), "little") == nbytes & 0xFFFFFFFF


def _gzip_ends_as(encoded: ByteArray, decoded: ByteArray) -> bool:
    """Whether the last member's CRC-32 is that of `decoded`: libdeflate looks at the first only."""
    checksum = _libdeflate_crc32() or zlib.crc32
    return bool(checksum(decoded.data) == int.from_bytes(encoded[-8:-4].tobytes(), "little"))


def _decode_zlib(wbits: int, encoded: ByteArray, nbytes: int) -> ByteArray:
    """Decode all members, stopping one byte past `nbytes`.

    Input is fed by windows: what a member leaves over is copied, and a chunk may have many members.
    """
    if not encoded.size:
        msg = "stream is empty"
        raise CodecError(msg)
    parts: list[bytes] = []
    at, total = 0, 0
    while at < encoded.size and total <= nbytes:
        stream = zlib.decompressobj(wbits)
        while not stream.eof and total <= nbytes:
            window = encoded[at : at + _WINDOW_NBYTES]
            if not window.size:
                msg = f"stream is cut off: {total} bytes decoded, expected {nbytes}"
                raise CodecError(msg)
            try:
                parts.append(stream.decompress(window.data, nbytes + 1 - total))
            except zlib.error as error:
                raise CodecError(str(error)) from error
            total += len(parts[-1])
            at += window.size - len(stream.unused_data)
        if wbits < _GZIP_WBITS:
            break
        while at < encoded.size and not encoded[at]:  # padding between and after members
            window = encoded[at : at + _WINDOW_NBYTES]
            at += int(np.argmax(window != 0)) or window.size
    return np.frombuffer(b"".join(parts), np.uint8)


@dataclass(frozen=True, slots=True)
class GzipCodec(Compressor):
    """Gzip members, CRC-32 verified."""

    name: ClassVar[str] = "gzip"

    def decode_host(self, encoded: ByteArray, nbytes: int, out: ByteArray | None) -> ByteArray:
        """Decode with libdeflate or zlib."""
        return _decode("gzip", _GZIP_WBITS, encoded, nbytes, out)


@dataclass(frozen=True, slots=True)
class ZlibCodec(Compressor):
    """A zlib stream, Adler-32 verified."""

    name: ClassVar[str] = "zlib"

    def decode_host(self, encoded: ByteArray, nbytes: int, out: ByteArray | None) -> ByteArray:
        """Decode with libdeflate or zlib."""
        return _decode("zlib", _ZLIB_WBITS, encoded, nbytes, out)
