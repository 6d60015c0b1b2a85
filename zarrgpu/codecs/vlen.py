"""Strings, byte strings and arrays of any length, as numcodecs interleaves them.

Spec: zarr-extensions ``vlen-utf8`` and ``vlen-bytes``; numcodecs ``vlen-array``, which has the
``dtype`` of the arrays. All little-endian: the number of elements (uint32), then for each
its number of bytes (uint32) and the bytes. The first codec of its chain. Example:
``{"name": "vlen-utf8"}``.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from zarrgpu.codecs.base import CodecError
from zarrgpu.model import ByteArray

_LENGTH = struct.Struct("<I")


def _check(encoded: ByteArray, count: int) -> None:
    """Refuse what does not hold `count` elements and nothing else, before memory is taken."""
    data = encoded.data
    if len(data) < _LENGTH.size:
        raise CodecError(f"has {len(data)} bytes, expected a count of elements")
    (stored,) = _LENGTH.unpack_from(data)
    if stored != count:
        raise CodecError(f"holds {stored} elements, expected {count}")
    length_of, at = _LENGTH.unpack_from, _LENGTH.size
    try:
        for _ in range(count):
            at += _LENGTH.size + length_of(data, at)[0]
    except struct.error as error:
        raise CodecError(f"is cut off: {len(data)} bytes, an element begins at {at}") from error
    if at != len(data):
        raise CodecError(f"has {len(data)} bytes, its {count} elements end at {at}")


def _decode(decoder: Any, encoded: ByteArray, count: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    _check(encoded, count)
    try:
        elements: NDArray[Any] = decoder.decode(encoded)
        return elements.astype(dtype, copy=False)
    except (ValueError, TypeError) as error:  # UnicodeDecodeError is a ValueError
        raise CodecError(str(error)) from error


@dataclass(frozen=True, slots=True)
class VlenBytesCodec:
    """Byte strings."""

    name: ClassVar[str] = "vlen-bytes"

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, Any]) -> Self:
        """Has no options."""
        del configuration
        return cls()

    def decode_objects(self, encoded: ByteArray, count: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        """Decode to `bytes` objects."""
        from numcodecs import VLenBytes

        return _decode(VLenBytes(), encoded, count, dtype)


@dataclass(frozen=True, slots=True)
class VlenUtf8Codec:
    """Unicode strings in UTF-8."""

    name: ClassVar[str] = "vlen-utf8"

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, Any]) -> Self:
        """Has no options."""
        del configuration
        return cls()

    def decode_objects(self, encoded: ByteArray, count: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        """Decode to `str` objects, or to NumPy's own strings where the array has them."""
        from numcodecs import VLenUTF8

        return _decode(VLenUTF8(), encoded, count, dtype)


@dataclass(frozen=True, slots=True)
class VlenArrayCodec:
    """One-dimensional arrays of one type.

    Attributes
    ----------
    item_dtype : numpy.dtype
    """

    name: ClassVar[str] = "vlen-array"
    item_dtype: np.dtype[Any]

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, Any]) -> Self:
        """Take ``item_dtype``."""
        return cls(np.dtype(configuration["item_dtype"]))

    def decode_objects(self, encoded: ByteArray, count: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        """Decode to arrays of `item_dtype`."""
        from numcodecs import VLenArray

        return _decode(VLenArray(self.item_dtype), encoded, count, dtype)
