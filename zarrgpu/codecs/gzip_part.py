"""A part of what a gzip stream holds: the voxels of a ``.nii.gz`` behind its header.

Spec: RFC 1952; zarrgpu's own codec, no Zarr name. Example: ``CodecSpec("gzip_part", {"start":
352})``. Members follow one another, as gzip, pigz and bgzip write them. What comes after the part
must decode too, so that every checksum is verified; it is not kept.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Self

import numpy as np

from zarrgpu.codecs.base import CodecError
from zarrgpu.errors import UnsupportedCodecError
from zarrgpu.model import ByteArray

_STEP_NBYTES: Final = 1 << 20
_FED_NBYTES: Final = 256 << 10
_GZIP_WINDOW: Final = 31
_MOST_BEHIND_NBYTES: Final = 64 << 20
"""Decoded bytes behind the part; more is no padding but another image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GzipPartCodec:
    """Decode from byte `start` of the decoded stream on."""

    name: ClassVar[str] = "gzip_part"
    start: int

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, Any]) -> Self:
        """Take ``start``."""
        start = configuration.get("start")
        if type(start) is not int or start < 0:
            msg = f"codec {cls.name!r}: start must be an integer of at least 0, got {start!r}"
            raise UnsupportedCodecError(msg)
        return cls(start=start)

    def encoded_nbytes(self, decoded_nbytes: int) -> None:
        """Depends on the data."""

    def decode_host(self, encoded: ByteArray, nbytes: int, out: ByteArray | None) -> ByteArray:
        """Decode `nbytes` bytes of the stream from `start` on, in steps: no more is held."""
        if out is None:
            out = np.empty(nbytes, np.uint8)
        at = -self.start
        for block in _blocks(np.ascontiguousarray(encoded).data):
            low, high = max(at, 0), min(at + len(block), nbytes)
            if low < high:
                out[low:high] = np.frombuffer(block, np.uint8)[low - at : high - at]
            at += len(block)
            if at > nbytes + _MOST_BEHIND_NBYTES:
                raise CodecError(f"decodes to far more than {self.start + nbytes} bytes")
        if at < nbytes:
            msg = f"decodes to {at + self.start} bytes, expected {self.start + nbytes}"
            raise CodecError(msg)
        return out


def _blocks(data: memoryview) -> Iterator[bytes]:
    """Decoded blocks of all members of a stream; zeros behind the last are padding."""
    at = 0
    while True:
        decoder = zlib.decompressobj(_GZIP_WINDOW)
        while not decoder.eof:
            if at >= len(data):
                raise CodecError("gzip stream is cut off")
            fed = data[at : at + _FED_NBYTES]
            at += len(fed)
            yield from _decoded(decoder, fed)
        at -= len(decoder.unused_data)
        if not bytes(data[at:]).strip(b"\0"):
            return


def _decoded(decoder: Any, fed: memoryview) -> Iterator[bytes]:
    """Blocks that some bytes of a stream decode to."""
    rest: Any = fed
    while rest and not decoder.eof:
        try:
            block = decoder.decompress(rest, _STEP_NBYTES)
        except zlib.error as error:
            raise CodecError(f"gzip stream: {error}") from error
        rest = decoder.unconsumed_tail
        yield block
