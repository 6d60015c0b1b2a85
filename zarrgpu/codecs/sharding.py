"""A whole shard as one chunk: shards within shards, and shards that other codecs wrap.

Spec: Zarr v3 codec ``sharding_indexed``. Where a shard is an object of its own, its inner chunks
are found by its index and fetched one by one (`plan.locate`). This decoder serves where that cannot
be: the shard lies within a shard, is compressed or checksummed as a whole, or its axes are
transposed. Example of the metadata: ``{"name": "sharding_indexed", "configuration":
{"chunk_shape": [32, 32], "codecs": [...], "index_codecs": [...], "index_location": "end"}}``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from zarrgpu.codecs.base import CodecChain, CodecError, checked
from zarrgpu.codecs.run import decode_chunk
from zarrgpu.codecs.shard_index import decode_shard_index
from zarrgpu.model import ByteArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ShardingCodec:
    """Decode all inner chunks of a shard.

    Attributes
    ----------
    shape : tuple of int
        Of the shard, axes as this codec is given them.
    chunk_shape : tuple of int
        Of an inner chunk; divides `shape`.
    dtype : numpy.dtype
        Of the elements that come out.
    fill : bytes
        One element of `dtype`, for inner chunks that are not stored.
    chain, index_chain : CodecChain
    inner_dtype : numpy.dtype
        What `chain` decodes to: as `dtype`, up to byte order.
    axis_order : tuple of int
        Stored order of an inner chunk's axes.
    index_endian : "little" or "big"
    index_location : "start" or "end"
    index_nbytes : int
    """

    name: ClassVar[str] = "sharding_indexed"
    shape: tuple[int, ...]
    chunk_shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fill: bytes
    chain: CodecChain
    index_chain: CodecChain
    inner_dtype: np.dtype[Any]
    axis_order: tuple[int, ...]
    index_endian: Literal["little", "big"]
    index_location: Literal["start", "end"]
    index_nbytes: int

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, Any]) -> Self:
        """Take what `formats.sharding` makes of the metadata."""
        from zarrgpu.codecs.registry import build_chain

        options = dict(configuration)
        source = options.pop("source")
        chunk_nbytes = math.prod(options["chunk_shape"]) * options["inner_dtype"].itemsize
        entries_nbytes = options.pop("index_decoded_nbytes")
        return cls(
            chain=build_chain(options.pop("codecs"), chunk_nbytes, source=source),
            index_chain=build_chain(options.pop("index_codecs"), entries_nbytes, source=source),
            **options,
        )

    def encoded_nbytes(self, decoded_nbytes: int) -> None:
        """Depends on the data."""

    @property
    def widest_nbytes(self) -> int:
        """Largest size known of a shard: its index, and inner chunks that codecs may have widened.

        Inner chunks may be few bytes each, so that the index is most of it.
        """
        count = math.prod(self.shape) // math.prod(self.chunk_shape)
        return self.index_nbytes + count * self.chain.widest_nbytes

    def decode_host(self, encoded: ByteArray, nbytes: int, out: ByteArray | None) -> ByteArray:
        """Decode the index, then every inner chunk that is stored."""
        checked(math.prod(self.shape) * self.dtype.itemsize, nbytes, exact=out is not None)
        offsets, sizes = self._index(encoded)
        if out is None:
            out = np.empty(nbytes, np.uint8)
        elements = out.view(self.dtype).reshape(self.shape)
        grid = tuple(s // c for s, c in zip(self.shape, self.chunk_shape, strict=True))
        if (sizes < 0).any():
            elements[...] = np.frombuffer(self.fill, self.dtype)[0]
        room = np.empty(self.chain.decoded_nbytes, np.uint8)
        for number in np.flatnonzero(sizes >= 0).tolist():
            coords = tuple(int(c) for c in np.unravel_index(number, grid)) if grid else ()
            start, end = int(offsets[number]), int(offsets[number] + sizes[number])
            if end > encoded.size:
                msg = f"inner chunk {coords} lies at {start}-{end} of {encoded.size} bytes"
                raise CodecError(msg)
            elements[self._box(coords)] = self._inner(coords, encoded[start:end], room)
        return out

    def _index(self, encoded: ByteArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        if encoded.size < self.index_nbytes:
            msg = f"shard has {encoded.size} bytes, its index alone takes {self.index_nbytes}"
            raise CodecError(msg)
        at = 0 if self.index_location == "start" else encoded.size - self.index_nbytes
        try:
            return decode_shard_index(
                self.index_chain,
                encoded[at : at + self.index_nbytes],
                endian=self.index_endian,
                chunk_nbytes=self.chain.widest_nbytes,
            )
        except CodecError as error:
            raise CodecError(f"shard index: {error}") from error

    def _box(self, coords: tuple[int, ...]) -> tuple[slice, ...]:
        return tuple(
            slice(i * c, (i + 1) * c) for i, c in zip(coords, self.chunk_shape, strict=True)
        )

    def _inner(self, coords: tuple[int, ...], encoded: ByteArray, room: ByteArray) -> NDArray[Any]:
        """Elements of one inner chunk, axes in this codec's order."""
        try:
            decoded = decode_chunk(self.chain, encoded, room)
        except CodecError as error:
            raise CodecError(f"inner chunk {coords}: {error}") from error
        stored = tuple(self.chunk_shape[axis] for axis in self.axis_order)
        return decoded.view(self.inner_dtype).reshape(stored).transpose(np.argsort(self.axis_order))
