"""Bytes of elements put in order, where their NumPy type cannot say how they are stored.

Not a codec of any specification: `formats.extended_types` adds it where elements of ml_dtypes'
types are stored in foreign byte order, or with bits that do not count. Decoding takes byte
``order[k]`` of each stored element for byte ``k``, and of it the bits of ``mask[k]``. Example:
``CodecSpec("element_bytes", {"order": [1, 0], "mask": [255, 255]})``. No checksum.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from zarrgpu.codecs.base import CodecError, checked
from zarrgpu.errors import UnsupportedCodecError
from zarrgpu.model import ByteArray


@dataclass(frozen=True, slots=True, kw_only=True)
class ElementBytesCodec:
    """Reorder and mask the bytes of each element.

    Attributes
    ----------
    order : tuple of int
        A permutation, as long as an element has bytes.
    mask : tuple of int
        0 to 255 each.
    """

    name: ClassVar[str] = "element_bytes"
    order: tuple[int, ...]
    mask: tuple[int, ...]

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, Any]) -> Self:
        """Take order and mask; a document that names this codec gets no further than this."""
        order, mask = configuration.get("order"), configuration.get("mask")
        if (
            not isinstance(order, list)
            or not isinstance(mask, list)
            or not all(type(n) is int for n in order + mask)
            or not order
            or sorted(order) != list(range(len(mask)))
            or not all(0 <= bits <= 255 for bits in mask)
        ):
            msg = f"codec {cls.name!r} is not one of Zarr's, and its order and mask do not fit"
            raise UnsupportedCodecError(msg)
        return cls(order=tuple(order), mask=tuple(mask))

    def encoded_nbytes(self, decoded_nbytes: int) -> int:
        """As many."""
        return decoded_nbytes

    def decode_host(self, encoded: ByteArray, nbytes: int, out: ByteArray | None) -> ByteArray:
        """Decode whole elements."""
        size = checked(encoded.size, nbytes, exact=out is not None)
        if size % len(self.order):
            msg = f"has {size} bytes, which are not whole elements of {len(self.order)}"
            raise CodecError(msg)
        decoded = np.empty(size, np.uint8) if out is None else out
        elements = decoded.reshape(-1, len(self.order))
        stored = encoded.reshape(elements.shape)
        for place, (source, bits) in enumerate(zip(self.order, self.mask, strict=True)):
            np.bitwise_and(stored[:, source], np.uint8(bits), out=elements[:, place])
        return decoded
