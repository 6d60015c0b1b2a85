"""Codecs of Python's standard library: bzip2, LZMA and base64.

``bz2``   v2 ``{"id": "bz2", "level": 1}``, v3 ``numcodecs.bz2``; CRC-32 verified
``lzma``  v2 ``{"id": "lzma", "format": 1, "check": -1, "preset": null, "filters": null}``, v3
          ``numcodecs.lzma``; formats 0 (whichever it is), 1 (xz, its check verified), 2 (alone, no
          check), 3 (raw: the filters are in the configuration, no check)
``base64``  v2 ``{"id": "base64"}``

Several streams may follow one another. Output stops one byte past what is expected.
"""

from __future__ import annotations

import binascii
import bz2
import lzma
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

import numpy as np

from zarrgpu.codecs.base import CodecError, Compressor, place
from zarrgpu.model import ByteArray

_MEMORY_LIMIT_NBYTES = 1 << 28
"""For a dictionary; xz's highest preset takes a quarter of it."""
_WINDOW_NBYTES = 32 << 10


class _Decompressor(Protocol):
    """What `bz2.BZ2Decompressor` and `lzma.LZMADecompressor` have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: Any, max_length: int = -1) -> bytes: ...


def _decode(start: Callable[[], _Decompressor], encoded: ByteArray, nbytes: int) -> ByteArray:
    """Decode all streams, stopping one byte past `nbytes`.

    What follows the last good stream and starts no other is passed over, as Python's own functions
    do. Input is fed by windows: what a stream leaves over is copied, and a chunk may have many.
    """
    parts: list[bytes] = []
    at = total = 0
    while total <= nbytes and (at < encoded.size or not at):
        begun = total
        try:
            stream = start()
            while not stream.eof and total <= nbytes:
                window = encoded[at : at + _WINDOW_NBYTES] if stream.needs_input else encoded[:0]
                if stream.needs_input and not window.size:
                    msg = f"stream is cut off: {total} bytes decoded, expected {nbytes}"
                    raise CodecError(msg)
                parts.append(stream.decompress(window.data, nbytes + 1 - total))
                total += len(parts[-1])
                at += window.size - len(stream.unused_data)
        except (OSError, EOFError, ValueError, MemoryError, lzma.LZMAError) as error:
            if begun and total == begun:
                break
            raise CodecError(str(error) or type(error).__name__) from error
    return np.frombuffer(b"".join(parts), np.uint8)


@dataclass(frozen=True, slots=True)
class Bz2Codec(Compressor):
    """Bzip2."""

    name: ClassVar[str] = "bz2"

    def decode_host(self, encoded: ByteArray, nbytes: int, out: ByteArray | None) -> ByteArray:
        """Decode with libbz2."""
        return place(_decode(bz2.BZ2Decompressor, encoded, nbytes), nbytes, out)


@dataclass(frozen=True, slots=True)
class Base64Codec(Compressor):
    """Base64 text."""

    name: ClassVar[str] = "base64"

    def decode_host(self, encoded: ByteArray, nbytes: int, out: ByteArray | None) -> ByteArray:
        """Decode with binascii, which wants the text to be canonical."""
        if encoded.size > 4 * nbytes // 3 + 4:
            raise CodecError(f"has {encoded.size} characters, expected at most {nbytes} bytes")
        try:
            decoded = binascii.a2b_base64(encoded.data, strict_mode=True)
        except ValueError as error:
            raise CodecError(str(error)) from error
        return place(np.frombuffer(decoded, np.uint8), nbytes, out)


@dataclass(frozen=True, slots=True, kw_only=True)
class LzmaCodec:
    """LZMA and LZMA2.

    Attributes
    ----------
    format : int
        One of lzma's ``FORMAT_*``.
    filters : list of dict, or None
        Of a raw stream.
    """

    name: ClassVar[str] = "lzma"
    format: int
    filters: list[dict[str, Any]] | None

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, Any]) -> Self:
        """Take ``format`` and ``filters``."""
        return cls(format=configuration["format"], filters=configuration["filters"])

    def encoded_nbytes(self, decoded_nbytes: int) -> None:
        """Depends on the data."""
        del decoded_nbytes

    def decode_host(self, encoded: ByteArray, nbytes: int, out: ByteArray | None) -> ByteArray:
        """Decode with liblzma, whose dictionary is bounded."""
        return place(_decode(self._start, encoded, nbytes), nbytes, out)

    def _start(self) -> _Decompressor:
        if self.format == lzma.FORMAT_RAW:
            return lzma.LZMADecompressor(lzma.FORMAT_RAW, None, self.filters)
        return lzma.LZMADecompressor(self.format, _MEMORY_LIMIT_NBYTES)
