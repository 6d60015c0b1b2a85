"""``sharding_indexed``: shards as objects whose inner chunks are located, or as whole chunks.

Spec: Zarr v3 codec ``sharding_indexed``. A shard that is an object of its own becomes a `Sharded`
location, and the array's chunks are its inner chunks. A shard within a shard, or one with other
codecs around it, becomes a codec that decodes it whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np

from zarrgpu.errors import UnsupportedCodecError
from zarrgpu.formats.chunk_grid import check_divides, chunk_entries
from zarrgpu.formats.codec_chain import CodecList, parse_codec_list
from zarrgpu.formats.document import Document, shown
from zarrgpu.grids import AxisStarts, KeyEncoding
from zarrgpu.model import CodecSpec, Sharded

_INDEX_ENTRY_NBYTES = 16
_FIXED_SIZE_INDEX_CODECS = {"crc32c": 4}
_MAX_DEPTH = 8
"""Shards within shards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Index:
    """How the index of a shard is stored."""

    codecs: tuple[CodecSpec, ...]
    endian: Literal["little", "big"]
    location: Literal["start", "end"]
    nbytes: int
    decoded_nbytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkCodecs:
    """How the independently decodable chunks of an array are stored.

    Attributes
    ----------
    location : Sharded or None
        Where the chunks are inner chunks of shards.
    chunk_shape, axis_order, dtype, codecs
        As in `ArraySpec`.
    """

    location: Sharded | None
    chunk_shape: tuple[int, ...]
    axis_order: tuple[int, ...]
    dtype: np.dtype[Any]
    codecs: tuple[CodecSpec, ...]


def parse_chunk_codecs(
    document: Document,
    dtype: np.dtype[Any],
    chunk_shape: tuple[int, ...],
    chunk_starts: AxisStarts | None,
    fill: Any,
    key_encoding: KeyEncoding,
) -> ChunkCodecs:
    """Parse the ``codecs`` of an array whose grid has chunks of `chunk_shape`.

    Parameters
    ----------
    document : Document
        Of the array.
    dtype : numpy.dtype
    chunk_shape, chunk_starts
        Of the chunk grid, as `chunk_grid.parse_chunk_grid` gives them.
    fill : scalar
        Fill value.
    key_encoding : KeyEncoding
    """
    outer = parse_codec_list(document, "codecs", dtype, chunk_shape)
    if outer.sharding is None:
        codecs = outer.codecs
    elif outer.codecs or outer.axis_order != tuple(range(len(chunk_shape))):
        codecs = _whole_shard(outer, fill, depth=1)
    else:
        return _located(outer, outer.sharding, chunk_shape, chunk_starts, fill, key_encoding)
    if chunk_starts is not None:
        _refuse_shape_dependent(document, codecs)
    return ChunkCodecs(
        location=None,
        chunk_shape=chunk_shape,
        axis_order=outer.axis_order,
        dtype=outer.dtype,
        codecs=codecs,
    )


def _located(
    outer: CodecList,
    sharding: Document,
    shard_shape: tuple[int, ...],
    shard_starts: AxisStarts | None,
    fill: Any,
    key_encoding: KeyEncoding,
) -> ChunkCodecs:
    """Shards that are objects: their inner chunks are the array's."""
    inner_shape = sharding.lengths("chunk_shape", minimum=1, ndim=len(shard_shape))
    check_divides(sharding, inner_shape, shard_shape, shard_starts)
    inner = parse_codec_list(sharding, "codecs", outer.inner_dtype, inner_shape)
    index = _parse_index(sharding, inner_shape, shard_shape)
    location = Sharded(
        key_encoding=key_encoding,
        shard_shape=shard_shape,
        index_codecs=index.codecs,
        index_endian=index.endian,
        index_nbytes=index.nbytes,
        index_location=index.location,
        shard_starts=shard_starts,
    )
    return ChunkCodecs(
        location=location,
        chunk_shape=inner_shape,
        axis_order=inner.axis_order,
        dtype=inner.dtype,
        codecs=inner.codecs if inner.sharding is None else _whole_shard(inner, fill, depth=1),
    )


def _whole_shard(outer: CodecList, fill: Any, depth: int) -> tuple[CodecSpec, ...]:
    """Codecs of a chunk that is a shard."""
    sharding = outer.sharding
    assert sharding is not None
    if depth > _MAX_DEPTH:
        msg = f"{sharding.source!r}: shards are nested more than {_MAX_DEPTH} deep"
        raise UnsupportedCodecError(msg)
    if outer.array_codecs or outer.inner_dtype.hasobject:
        what = outer.array_codecs[0].name if outer.array_codecs else f"{outer.inner_dtype} elements"
        msg = (
            f"{sharding.source!r} codecs: {what} around or in a shard that is decoded whole is not "
            "read, only transpose before it and bytes codecs after it"
        )
        raise UnsupportedCodecError(msg)
    shape = outer.inner_shape
    inner_shape = sharding.lengths("chunk_shape", minimum=1, ndim=len(shape))
    check_divides(sharding, inner_shape, shape, None)
    inner = parse_codec_list(sharding, "codecs", outer.inner_dtype, inner_shape)
    index = _parse_index(sharding, inner_shape, shape)
    codecs = inner.codecs if inner.sharding is None else _whole_shard(inner, fill, depth + 1)
    configuration = {
        "source": sharding.source,
        "shape": shape,
        "chunk_shape": inner_shape,
        "dtype": outer.dtype,
        "fill": np.array(fill).astype(outer.dtype).tobytes(),
        "inner_dtype": inner.dtype,
        "axis_order": inner.axis_order,
        "codecs": codecs,
        "index_codecs": index.codecs,
        "index_endian": index.endian,
        "index_location": index.location,
        "index_nbytes": index.nbytes,
        "index_decoded_nbytes": index.decoded_nbytes,
    }
    return (CodecSpec("sharding_indexed", configuration), *outer.bytes_codecs)


def _parse_index(
    sharding: Document, inner_shape: tuple[int, ...], shard_shape: tuple[int, ...]
) -> _Index:
    """Index of shards of `shard_shape`, whose codecs must be of fixed size."""
    per_shard = tuple(s // c for s, c in zip(shard_shape, inner_shape, strict=True))
    index = parse_codec_list(sharding, "index_codecs", np.dtype(np.uint64), (*per_shard, 2))
    in_order = index.axis_order == tuple(range(len(per_shard) + 1))
    if index.sharding is not None or not in_order or index.array_codecs:
        msg = f"{sharding.source!r} index_codecs: only bytes and crc32c are read"
        raise UnsupportedCodecError(msg)
    decoded = nbytes = _INDEX_ENTRY_NBYTES * chunk_entries(inner_shape, shard_shape)
    for codec in index.bytes_codecs:
        if codec.name not in _FIXED_SIZE_INDEX_CODECS:
            msg = f"{sharding.source!r} index_codecs: {shown(codec.name)} is not read, only crc32c"
            raise UnsupportedCodecError(msg)
        nbytes += _FIXED_SIZE_INDEX_CODECS[codec.name]
    location = sharding.choice("index_location", ("start", "end"), "end")
    return _Index(
        codecs=index.bytes_codecs,
        endian="little" if index.dtype == np.dtype("<u8") else "big",
        location=cast("Literal['start', 'end']", location),
        nbytes=nbytes,
        decoded_nbytes=decoded,
    )


def _refuse_shape_dependent(document: Document, codecs: tuple[CodecSpec, ...]) -> None:
    """A codec that knows one chunk shape cannot serve chunks of many."""
    for codec in codecs:
        if "shape" in codec.configuration:
            msg = (
                f"{document.source!r} codecs: {codec.name} depends on the shape of a chunk, which "
                "is not read in a rectilinear chunk grid"
            )
            raise UnsupportedCodecError(msg)
