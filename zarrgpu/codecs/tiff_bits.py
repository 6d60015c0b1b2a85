"""Samples of fewer or other bits than a whole byte, and bytes with their bits in reverse.

Spec: TIFF 6.0 (BitsPerSample, FillOrder). TIFF tags 258 and 266; no Zarr names. Examples:
``CodecSpec("tiff_bits", {"bits": 1, "row_samples": 250})`` and ``CodecSpec("tiff_fill_order")``.

Samples lie one after another, most significant bit first, and each row begins with a new byte.
One bit becomes a bool, others the next larger unsigned integer in native byte order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Self

import numpy as np

from zarrgpu.codecs.base import CodecError, checked
from zarrgpu.codecs.configuration import positive_int
from zarrgpu.errors import UnsupportedCodecError
from zarrgpu.model import ByteArray

_REVERSED: Final = np.packbits(
    np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)[:, ::-1], axis=1
).reshape(-1)
_MAX_BITS: Final = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class TiffBitsCodec:
    """Unpack the samples of whole rows.

    Attributes
    ----------
    bits : int
        Of a sample: 1 to 15, not 8.
    row_samples : int
        Of a row of the chunk: its pixels times their samples.
    """

    name: ClassVar[str] = "tiff_bits"
    bits: int
    row_samples: int

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, Any]) -> Self:
        """Take ``bits`` and ``row_samples``."""
        bits = positive_int(cls.name, configuration, "bits")
        if bits > _MAX_BITS or bits == 8:
            msg = f"codec {cls.name!r}: bits must be 1 to {_MAX_BITS} and not 8, got {bits}"
            raise UnsupportedCodecError(msg)
        return cls(bits=bits, row_samples=positive_int(cls.name, configuration, "row_samples"))

    @property
    def _row_nbytes(self) -> int:
        return -(-self.row_samples * self.bits // 8)

    @property
    def _itemsize(self) -> int:
        return 1 if self.bits < 8 else 2

    def encoded_nbytes(self, decoded_nbytes: int) -> int:
        """Rows of whole bytes."""
        return decoded_nbytes // (self.row_samples * self._itemsize) * self._row_nbytes

    def decode_host(self, encoded: ByteArray, nbytes: int, out: ByteArray | None) -> ByteArray:
        """Unpack into `out`."""
        rows, rest = divmod(encoded.size, self._row_nbytes)
        if rest:
            msg = f"{encoded.size} bytes are not whole rows of {self._row_nbytes} bytes"
            raise CodecError(msg)
        size = rows * self.row_samples * self._itemsize
        checked(size, nbytes, exact=out is not None)
        if out is None:
            out = np.empty(size, np.uint8)
        count = self.row_samples * self.bits
        bits = np.unpackbits(encoded.reshape(rows, -1), axis=1, count=count)
        if self.bits == 1:
            out[:] = bits.reshape(-1)
            return out
        target = out.view(f"=u{self._itemsize}").reshape(rows, self.row_samples)
        target[:] = 0
        for bit in np.moveaxis(bits.reshape(rows, self.row_samples, self.bits), -1, 0):
            np.left_shift(target, 1, out=target)
            np.bitwise_or(target, bit, out=target)
        return out


@dataclass(frozen=True, slots=True)
class TiffFillOrderCodec:
    """Put the bits of each byte in their usual order (FillOrder 2 stores the lowest first)."""

    name: ClassVar[str] = "tiff_fill_order"

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, Any]) -> Self:
        """Nothing to configure."""
        del configuration
        return cls()

    def encoded_nbytes(self, decoded_nbytes: int) -> int:
        """Byte for byte."""
        return decoded_nbytes

    def decode_host(self, encoded: ByteArray, nbytes: int, out: ByteArray | None) -> ByteArray:
        """Reverse each byte."""
        checked(encoded.size, nbytes, exact=out is not None)
        return np.take(_REVERSED, encoded, out=out)
