"""``zarr.json``: arrays and groups of Zarr v3.

Spec: Zarr core 3.1. Unknown members are errors unless they say ``"must_understand": false``, as the
spec demands.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, cast

import numpy as np

from zarrgpu.errors import UnsupportedCodecError, UnsupportedFormatError
from zarrgpu.formats.codec_chain import CodecList, parse_codec_list
from zarrgpu.formats.consolidated import parse_inline
from zarrgpu.formats.data_types import parse_fill_value, parse_v3_data_type
from zarrgpu.formats.document import Document, shown
from zarrgpu.formats.group import GroupSpec
from zarrgpu.formats.nczarr import parse_dimensions
from zarrgpu.model import (
    ArraySpec,
    ChunkLocation,
    KeyEncoding,
    ObjectPerChunk,
    Sharded,
)

_ARRAY_MEMBERS = {
    "zarr_format", "node_type", "shape", "data_type", "chunk_grid", "chunk_key_encoding",
    "fill_value", "codecs", "attributes", "storage_transformers", "dimension_names",
}  # fmt: skip
_GROUP_MEMBERS = {"zarr_format", "node_type", "attributes", "consolidated_metadata"}
_INDEX_ENTRY_NBYTES = 16
_FIXED_SIZE_INDEX_CODECS = {"crc32c": 4}


def parse_node(document: Document, path: str) -> ArraySpec | GroupSpec:
    """Parse a ``zarr.json`` found at `path` within its store."""
    if document.require("zarr_format") != 3:
        raise document.fail(
            f"expected 3, got {shown(document.value['zarr_format'])}", "zarr_format"
        )
    if document.choice("node_type", ("array", "group")) == "group":
        return _parse_group(document)
    return _parse_array(document, path)


def _parse_group(document: Document) -> GroupSpec:
    _refuse_unknown(document, _GROUP_MEMBERS)
    attributes = document.attributes("attributes")
    return GroupSpec(
        source=document.source,
        zarr_format=3,
        attributes=attributes,
        consolidated=parse_inline(document),
        dimensions=parse_dimensions(attributes, {}),
    )


def _parse_array(document: Document, path: str) -> ArraySpec:
    _refuse_unknown(document, _ARRAY_MEMBERS)
    if document.value.get("storage_transformers"):
        msg = f"{document.source!r}: storage transformers are not supported by any known reader"
        raise UnsupportedFormatError(msg)
    shape = document.lengths("shape", minimum=0)
    dtype = parse_v3_data_type(document)
    chunk_shape = _parse_chunk_grid(document, len(shape))
    document.check_chunk("chunk_grid", chunk_shape, dtype.itemsize)
    chain = parse_codec_list(document, "codecs", dtype, chunk_shape)
    chunked = ObjectPerChunk(_parse_key_encoding(document, path))
    location: ChunkLocation = chunked
    if chain.sharding is not None:
        location, chunk_shape, chain = _parse_sharding(chunked, chunk_shape, chain)
    document.check_grid("chunk_grid", shape, chunk_shape)
    return ArraySpec(
        source=document.source,
        shape=shape,
        dtype=chain.dtype,
        chunk_shape=chunk_shape,
        fill_value=_parse_fill_value(document, dtype),
        codecs=chain.codecs,
        axis_order=chain.axis_order,
        location=location,
        dimension_names=_parse_dimension_names(document, len(shape)),
        attributes=document.attributes("attributes"),
    )


def _parse_fill_value(document: Document, dtype: np.dtype[Any]) -> np.generic:
    value = parse_fill_value(document, dtype)
    if value is None:  # only v2 may leave it undefined
        raise document.fail(f"expected a value of {dtype}, got null", "fill_value", kind="type")
    return value


def _refuse_unknown(document: Document, known: set[str]) -> None:
    for key, value in document.value.items():
        if key not in known and not (
            isinstance(value, Mapping) and value.get("must_understand") is False
        ):
            raise document.fail("is not a member that this reader understands", key, kind="unknown")


def _parse_chunk_grid(document: Document, ndim: int) -> tuple[int, ...]:
    name, configuration = document.extension("chunk_grid", document.require("chunk_grid"))
    if name != "regular":
        msg = f"{document.source!r} chunk_grid: {shown(name)} is not read yet, only 'regular'"
        raise UnsupportedFormatError(msg)
    return configuration.lengths("chunk_shape", minimum=1, ndim=ndim)


def _parse_key_encoding(document: Document, path: str) -> KeyEncoding:
    name, configuration = document.extension(
        "chunk_key_encoding", document.require("chunk_key_encoding")
    )
    if name not in ("default", "v2"):
        msg = f"{document.source!r} chunk_key_encoding: {shown(name)} is not default or v2"
        raise UnsupportedFormatError(msg)
    separator = configuration.choice("separator", ("/", "."), "/" if name == "default" else ".")
    return KeyEncoding(
        cast("Literal['default', 'v2']", name), cast("Literal['/', '.']", separator), path
    )


def _parse_sharding(
    location: ObjectPerChunk, shard_shape: tuple[int, ...], outer: CodecList
) -> tuple[Sharded, tuple[int, ...], CodecList]:
    configuration = outer.sharding
    assert configuration is not None
    ndim = len(shard_shape)
    if outer.codecs or outer.axis_order != tuple(range(ndim)):
        msg = (
            f"{configuration.source!r}: codecs around sharding_indexed (a transposed or compressed "
            "shard) are not read yet"
        )
        raise UnsupportedCodecError(msg)
    inner_shape = configuration.lengths("chunk_shape", minimum=1, ndim=ndim)
    if any(s % c for s, c in zip(shard_shape, inner_shape, strict=True)):
        raise configuration.fail(
            f"{list(inner_shape)} does not divide the shard {list(shard_shape)}", "chunk_shape"
        )
    inner = parse_codec_list(configuration, "codecs", outer.inner_dtype, inner_shape)
    if inner.sharding is not None:
        msg = f"{configuration.source!r}: shards within shards are not read yet"
        raise UnsupportedCodecError(msg)
    per_shard = tuple(s // c for s, c in zip(shard_shape, inner_shape, strict=True))
    index = parse_codec_list(configuration, "index_codecs", np.dtype(np.uint64), (*per_shard, 2))
    if (
        index.sharding is not None
        or index.axis_order != tuple(range(ndim + 1))
        or index.array_codecs
    ):
        msg = f"{configuration.source!r} index_codecs: only bytes and crc32c are read"
        raise UnsupportedCodecError(msg)
    index_nbytes = _INDEX_ENTRY_NBYTES * math.prod(per_shard)
    for codec in index.bytes_codecs:
        if codec.name not in _FIXED_SIZE_INDEX_CODECS:
            shown_name = shown(codec.name)
            msg = f"{configuration.source!r} index_codecs: {shown_name} is not read, only crc32c"
            raise UnsupportedCodecError(msg)
        index_nbytes += _FIXED_SIZE_INDEX_CODECS[codec.name]
    sharded = Sharded(
        key_encoding=location.key_encoding,
        shard_shape=shard_shape,
        index_codecs=index.bytes_codecs,
        index_endian="little" if index.dtype == np.dtype("<u8") else "big",
        index_nbytes=index_nbytes,
        index_location=cast(
            "Literal['start', 'end']",
            configuration.choice("index_location", ("start", "end"), "end"),
        ),
    )
    return sharded, inner_shape, inner


def _parse_dimension_names(document: Document, ndim: int) -> tuple[str | None, ...]:
    names = document.value.get("dimension_names")
    if names is None:
        return (None,) * ndim
    if not isinstance(names, list) or not all(n is None or isinstance(n, str) for n in names):
        raise document.fail(f"expected a list of names, got {shown(names)}", "dimension_names")
    if len(names) != ndim:
        raise document.fail(f"has {len(names)} names for {ndim} axes", "dimension_names")
    return tuple(names)
