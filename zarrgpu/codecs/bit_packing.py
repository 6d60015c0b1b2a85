"""Elements of few bits, packed without gaps.

Spec: zarr-extensions ``packbits``, and numcodecs ``packbits`` (v2 ``{"id": "packbits"}``, v3
``numcodecs.packbits``), which is the case of one bit for each bool, highest bit first. Example:
``{"name": "packbits", "configuration": {"padding_encoding": "none", "last_bit": 3}}``.
TIFF's PackBits is another thing (`packbits`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from zarrgpu.codecs.base import CodecError, checked
from zarrgpu.model import ByteArray

_BLOCK = 1 << 16
"""Values unpacked at a time, so that their bits, a byte each, do not multiply the chunk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BitPackingCodec:
    """Unpack values.

    Attributes
    ----------
    component_bits : int
        Of a decoded value in memory, a multiple of 8: a real or imaginary part, or an element.
    value_bits : int
        That it really has.
    first_bit, last_bit : int
        Those that are stored, from the lowest, inclusive.
    signed : bool
        Whether the bits above `last_bit` repeat it, up to `value_bits`; else they are zero.
    bit_order : "little" or "big"
        Whether the first value is in the lowest or the highest bits of a byte.
    padding : "none", "first_byte" or "last_byte"
        Where the number of unused bits at the end stands.
    """

    name: ClassVar[str] = "packbits"
    component_bits: int
    value_bits: int
    first_bit: int
    last_bit: int
    signed: bool
    bit_order: Literal["little", "big"]
    padding: Literal["none", "first_byte", "last_byte"]

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, Any]) -> Self:
        """Take all attributes; the parser has worked them out from the elements' type."""
        types = ("dtype", "encoded_dtype")
        return cls(**{key: value for key, value in configuration.items() if key not in types})

    @property
    def packed_bits(self) -> int:
        """Bits of a stored value."""
        return self.last_bit - self.first_bit + 1

    def encoded_nbytes(self, decoded_nbytes: int) -> int:
        """Bits rounded up to bytes, and the byte that counts the padding."""
        bits = decoded_nbytes * 8 // self.component_bits * self.packed_bits
        return -(-bits // 8) + (self.padding != "none")

    def decode_host(self, encoded: ByteArray, nbytes: int, out: ByteArray | None) -> ByteArray:
        """Unpack with NumPy."""
        packed, padding_bits = self._split(encoded, nbytes)
        count, rest = divmod(8 * packed.size - padding_bits, self.packed_bits)
        if rest or count < 0:
            msg = f"{encoded.size} bytes hold no whole values of {self.packed_bits} bits"
            raise CodecError(msg)
        size = checked(count * self.component_bits // 8, nbytes, exact=out is not None)
        target = np.empty(size, np.uint8) if out is None else out
        width = self.component_bits // 8
        for start in range(0, count, _BLOCK):
            stop = min(start + _BLOCK, count)
            part = packed[start * self.packed_bits // 8 : -(-stop * self.packed_bits // 8)]
            target[start * width : stop * width] = self._unpack(part, stop - start)
        return target

    def _split(self, encoded: ByteArray, nbytes: int) -> tuple[ByteArray, int]:
        """Packed bytes, and how many bits at their end are padding."""
        if self.padding == "none":
            expected = self.encoded_nbytes(nbytes)
            if encoded.size != expected:
                raise CodecError(f"has {encoded.size} bytes, expected {expected}")
            return encoded, 8 * encoded.size - nbytes * 8 // self.component_bits * self.packed_bits
        if not encoded.size:
            raise CodecError("is empty, expected a byte that counts the padding")
        first = self.padding == "first_byte"
        bits = int(encoded[0 if first else -1])
        if bits > 7:
            raise CodecError(f"says that {bits} bits are padding, expected at most 7")
        return (encoded[1:] if first else encoded[:-1]), bits

    def _unpack(self, packed: ByteArray, count: int) -> NDArray[np.uint8]:
        """`count` values as bytes, little-endian."""
        bits = np.unpackbits(packed, count=count * self.packed_bits, bitorder=self.bit_order)
        if self.component_bits == 8 and self.last_bit == 0 and not self.signed:
            return bits
        wide = np.zeros((count, self.component_bits), np.uint8)
        wide[:, self.first_bit : self.last_bit + 1] = bits.reshape(count, self.packed_bits)
        if self.signed:
            sign = wide[:, self.last_bit : self.last_bit + 1]
            wide[:, self.last_bit + 1 : self.value_bits] = sign
        return np.packbits(wide, axis=1, bitorder="little").reshape(-1)
