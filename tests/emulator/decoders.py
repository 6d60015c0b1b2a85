"""The library decoders of the emulated device: host codecs with nvCOMP's statuses."""

from __future__ import annotations

import zlib

import imagecodecs
import numcodecs.zstd
import numpy as np

CANNOT_DECOMPRESS, TOO_SMALL = 12, 15

# Temporary memory that nvCOMP 6.0 asks for, per decoded byte (facts/gpu-libraries.md).
TEMP_RATIO = {"zstd": 3.06, "lz4": 0.0, "snappy": 0.0, "deflate": 0.0, "gzip": 0.0}
SOURCE_ALIGNMENT = {"zstd": 1, "lz4": 1, "snappy": 1, "deflate": 4, "gzip": 1}


def decode(library_format: str, source: bytes, room: int) -> tuple[bytes, int]:
    """Decode one stream: its bytes (at most `room`) and status."""
    try:
        decoded = _DECODERS[library_format](source, room)
    except Exception:  # every codec has its own errors; nvCOMP has one status
        return b"", CANNOT_DECOMPRESS
    return (decoded, 0) if len(decoded) <= room else (b"", TOO_SMALL)


def _zstd(source: bytes, room: int) -> bytes:
    return bytes(numcodecs.zstd.decompress(source))


def _lz4(source: bytes, room: int) -> bytes:
    return bytes(imagecodecs.lz4_decode(source, out=np.empty(room, np.uint8)))


def _snappy(source: bytes, room: int) -> bytes:
    return bytes(imagecodecs.snappy_decode(source))


def _inflate(wbits: int) -> object:
    def decode_stream(source: bytes, room: int) -> bytes:
        decoder = zlib.decompressobj(wbits)
        decoded = decoder.decompress(source, room + 1)
        if not decoder.eof and len(decoded) <= room:
            msg = "truncated"
            raise zlib.error(msg)
        return decoded

    return decode_stream


_DECODERS = {
    "zstd": _zstd,
    "lz4": _lz4,
    "snappy": _snappy,
    "deflate": _inflate(-15),
    "gzip": _inflate(31),
}
