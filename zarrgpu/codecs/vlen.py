"""Strings, byte strings and arrays of any length, as numcodecs interleaves them.

Spec: zarr-extensions ``vlen-utf8`` and ``vlen-bytes``; numcodecs ``vlen-array``. All little-endian:
the number of elements (uint32), then for each its number of bytes (uint32) and the bytes. The first
codec of its chain. Example: ``{"name": "vlen-utf8"}``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from zarrgpu.codecs.base import CodecError
from zarrgpu.model import ByteArray

_LENGTH_NBYTES = 4


def _items(encoded: ByteArray, count: int) -> Iterator[bytes]:
    """Bytes of each element; every length is checked before anything is taken."""
    data = encoded.tobytes()
    if len(data) < _LENGTH_NBYTES:
        raise CodecError(f"has {len(data)} bytes, expected a count of elements")
    stored = int.from_bytes(data[:_LENGTH_NBYTES], "little")
    if stored != count:
        raise CodecError(f"holds {stored} elements, expected {count}")
    at = _LENGTH_NBYTES
    for index in range(count):
        start = at + _LENGTH_NBYTES
        end = start + int.from_bytes(data[at:start], "little")
        if start > len(data) or end > len(data):
            raise CodecError(f"element {index} ends at byte {end}, the chunk at {len(data)}")
        yield data[start:end]
        at = end
    if at != len(data):
        raise CodecError(f"has {len(data) - at} bytes after its {count} elements")


def _as_objects(items: Iterator[Any], count: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    elements = np.empty(count, dtype)
    for index, item in enumerate(items):
        elements[index] = item
    return elements


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
        return _as_objects(_items(encoded, count), count, dtype)


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
        """Decode to `str` objects, or NumPy's own strings where the array has them."""
        try:
            strings = [item.decode() for item in _items(encoded, count)]
        except UnicodeDecodeError as error:
            raise CodecError(f"not UTF-8: {error}") from error
        return _as_objects(iter(strings), count, dtype)
