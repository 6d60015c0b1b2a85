"""Blocks of N5 in "default" mode: a header with the block's own shape, then its elements.

Spec: zarr-extensions ``n5_default``; N5 4.0.0, "chunk format". All big-endian: mode (uint16, 0),
number of axes (uint16), length of each axis (uint32), then the elements in Fortran order, through
at most one compressor. Example: ``{"name": "n5_default", "configuration": {"codecs": [{"name":
"transpose", "configuration": {"order": [1, 0]}}, {"name": "bytes", "configuration": {"endian":
"big"}}, {"name": "gzip", "configuration": {"level": 5}}]}}``.

A block at the edge of the array may be shorter than the chunk; what it lacks is beyond the array.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from zarrgpu.codecs.base import Codec, CodecError, checked
from zarrgpu.codecs.registry import build_codec
from zarrgpu.model import ByteArray

_MAX_GROWTH = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class N5DefaultCodec:
    """Decode a block, and pad or cut it to the chunk.

    Attributes
    ----------
    dtype : numpy.dtype
        Of the decoded elements.
    shape : tuple of int
        Of the chunk.
    compressor : Codec or None
    """

    name: ClassVar[str] = "n5_default"
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    compressor: Codec | None

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, Any]) -> Self:
        """Take ``dtype``, ``shape`` and ``codecs`` (a list of no or one `CodecSpec`)."""
        specs = configuration["codecs"]
        return cls(
            dtype=np.dtype(configuration["dtype"]),
            shape=tuple(configuration["shape"]),
            compressor=build_codec(specs[0], source="n5_default") if specs else None,
        )

    def encoded_nbytes(self, decoded_nbytes: int) -> None:
        """Depends on the block."""
        del decoded_nbytes

    def decode_host(self, encoded: ByteArray, nbytes: int, out: ByteArray | None) -> ByteArray:
        """Decode with the codec of the block."""
        size = checked(math.prod(self.shape) * self.dtype.itemsize, nbytes, exact=out is not None)
        block_shape, data = self._split(encoded)
        block_nbytes = math.prod(block_shape) * self.dtype.itemsize
        if block_nbytes > _MAX_GROWTH * size:
            raise CodecError(f"block has shape {list(block_shape)}, the chunk {list(self.shape)}")
        if self.compressor is not None:
            data = self.compressor.decode_host(data, block_nbytes, None)
        checked(data.size, block_nbytes, exact=True)
        block = data.view(self.dtype.newbyteorder(">")).reshape(block_shape[::-1]).T
        target = np.empty(size, np.uint8) if out is None else out
        elements = target.view(self.dtype).reshape(self.shape)
        common = tuple(map(slice, map(min, block_shape, self.shape)))
        if block_shape != self.shape:
            elements[...] = np.zeros((), self.dtype)
        elements[common] = block[common]
        return target

    def _split(self, encoded: ByteArray) -> tuple[tuple[int, ...], ByteArray]:
        """Shape of the block, and its bytes."""
        ndim = len(self.shape)
        start = 4 + 4 * ndim
        if encoded.size < start:
            raise CodecError(f"has {encoded.size} bytes, expected a header of {start}")
        mode, axes = encoded[:4].view(">u2").tolist()
        if mode != 0:
            raise CodecError(f"block has mode {mode}, only 0 (default) is read")
        if axes != ndim:
            raise CodecError(f"block has {axes} axes, expected {ndim}")
        return tuple(encoded[4:start].view(">u4").tolist()), encoded[start:]
