"""The last strip of a TIFF page, which may hold fewer rows than the others.

zarrgpu's own, no Zarr name. TIFF 6.0 (RowsPerStrip): the last strip has ``ImageLength modulo
RowsPerStrip`` rows; some writers pad it to the full height. Innermost codec of such pages.
Example: ``CodecSpec("short_chunk", {"short_nbytes": 1161})``.

A codec does not know which chunk it decodes, so a damaged strip in the middle that decodes without
error to exactly the short size is not noticed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from zarrgpu.codecs.base import CodecError
from zarrgpu.codecs.configuration import positive_int

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zarrgpu.model import ByteArray


@dataclass(frozen=True, slots=True, kw_only=True)
class ShortChunkCodec:
    """Pad a chunk of exactly `short_nbytes` with zeros that lie beyond the image."""

    name: ClassVar[str] = "short_chunk"
    short_nbytes: int

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, Any]) -> Self:
        """Take ``short_nbytes``."""
        return cls(short_nbytes=positive_int(cls.name, configuration, "short_nbytes"))

    def encoded_nbytes(self, decoded_nbytes: int) -> None:
        """Either of two sizes, so unknown."""

    def decode_host(self, encoded: ByteArray, nbytes: int, out: ByteArray | None) -> ByteArray:
        """Return `encoded`, padded to `nbytes` if it is short."""
        if encoded.size not in (self.short_nbytes, nbytes):
            msg = (
                f"decodes to {encoded.size} bytes, expected {nbytes}, or {self.short_nbytes} in "
                "the last strip"
            )
            raise CodecError(msg)
        if out is None:
            if encoded.size == nbytes:
                return encoded
            out = np.empty(nbytes, np.uint8)
        out[: encoded.size] = encoded
        out[encoded.size :] = 0
        return out
