"""``zarr.json``: arrays and groups of Zarr v3.

Spec: Zarr core 3.1. Unknown members are errors unless they say ``"must_understand": false``, as the
spec demands.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np

from zarrgpu.errors import UnsupportedCodecError, UnsupportedFormatError
from zarrgpu.formats.data_types import parse_fill_value, parse_v3_data_type, with_endian
from zarrgpu.formats.document import Document, shown
from zarrgpu.formats.group import GroupSpec
from zarrgpu.model import (
    ArraySpec,
    ChunkLocation,
    CodecSpec,
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


@dataclass(frozen=True, slots=True)
class _Chain:
    """A codec list, split at its array-to-bytes codec."""

    axis_order: tuple[int, ...]
    endian: Literal["little", "big"]
    sharding: Document | None
    bytes_codecs: tuple[CodecSpec, ...]


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
    consolidated = document.value.get("consolidated_metadata")
    nodes: Mapping[str, Mapping[str, Any]] | None = None
    if consolidated is not None:
        inline = document.child("consolidated_metadata", consolidated)
        if inline.value.get("kind") == "inline":
            nodes = inline.child("metadata", inline.require("metadata")).value
    return GroupSpec(
        source=document.source,
        zarr_format=3,
        attributes=document.attributes("attributes"),
        consolidated=nodes,
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
    multibyte = dtype.itemsize > 1 and dtype.kind != "V"
    chain = _parse_codecs(document, "codecs", len(shape), multibyte=multibyte)
    chunked = ObjectPerChunk(_parse_key_encoding(document, path))
    location: ChunkLocation = chunked
    if chain.sharding is not None:
        location, chunk_shape, chain = _parse_sharding(
            chunked, chunk_shape, chain, multibyte=multibyte
        )
    document.check_grid("chunk_grid", shape, chunk_shape)
    return ArraySpec(
        source=document.source,
        shape=shape,
        dtype=with_endian(dtype, chain.endian),
        chunk_shape=chunk_shape,
        fill_value=_parse_fill_value(document, dtype),
        codecs=chain.bytes_codecs,
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


def _extension(document: Document, key: str, value: Any) -> tuple[str, Document]:
    """Name and configuration of an extension object, which may be a bare string."""
    if isinstance(value, str):
        return value, Document(document.source, {}, (*document.location, key))
    child = document.child(key, value)
    name = child.require("name")
    if not isinstance(name, str):
        raise child.fail(f"expected a string, got {shown(name)}", "name", kind="type")
    return name, child.child("configuration", child.value.get("configuration", {}))


def _parse_chunk_grid(document: Document, ndim: int) -> tuple[int, ...]:
    name, configuration = _extension(document, "chunk_grid", document.require("chunk_grid"))
    if name != "regular":
        msg = f"{document.source!r} chunk_grid: {shown(name)} is not read yet, only 'regular'"
        raise UnsupportedFormatError(msg)
    return configuration.lengths("chunk_shape", minimum=1, ndim=ndim)


def _parse_key_encoding(document: Document, path: str) -> KeyEncoding:
    name, configuration = _extension(
        document, "chunk_key_encoding", document.require("chunk_key_encoding")
    )
    if name not in ("default", "v2"):
        msg = f"{document.source!r} chunk_key_encoding: {shown(name)} is not default or v2"
        raise UnsupportedFormatError(msg)
    separator = configuration.choice("separator", ("/", "."), "/" if name == "default" else ".")
    return KeyEncoding(
        cast("Literal['default', 'v2']", name), cast("Literal['/', '.']", separator), path
    )


def _parse_codecs(document: Document, key: str, ndim: int, *, multibyte: bool) -> _Chain:
    """Split a codec list into transposes, the array-to-bytes codec and the bytes codecs.

    Elements that are `multibyte` must be given a byte order.
    """
    value = document.require(key)
    if not isinstance(value, list) or not value:
        raise document.fail(f"expected a list of codecs, got {shown(value)}", key, kind="type")
    parent = Document(document.source, {}, (*document.location, key))
    axis_order: tuple[int, ...] = tuple(range(ndim))
    endian: Literal["little", "big"] = "little"
    sharding: Document | None = None
    serialised = False
    bytes_codecs: list[CodecSpec] = []
    for index, item in enumerate(value):
        name, configuration = _extension(parent, str(index), item)
        if serialised:
            bytes_codecs.append(CodecSpec(name, dict(configuration.value)))
        elif name == "transpose":
            order = _parse_transpose(configuration, ndim)
            axis_order = tuple(axis_order[k] for k in order)
        elif name in ("bytes", "endian"):
            serialised = True
            endian = cast(
                "Literal['little', 'big']",
                configuration.choice("endian", ("little", "big"), None if multibyte else "little"),
            )
        elif name == "sharding_indexed":
            serialised, sharding = True, configuration
        else:
            msg = (
                f"{document.source!r} codecs.{index}: {shown(name)} is no array codec that zarrgpu "
                "decodes, expected transpose, bytes or sharding_indexed"
            )
            raise UnsupportedCodecError(msg)
    if not serialised:
        raise document.fail("has no array-to-bytes codec (bytes or sharding_indexed)", key)
    return _Chain(axis_order, endian, sharding, tuple(bytes_codecs))


def _parse_transpose(configuration: Document, ndim: int) -> tuple[int, ...]:
    """Order as a permutation; the older forms ``"C"`` and ``"F"`` are still found."""
    value = configuration.require("order")
    if value in ("C", "F"):
        order = tuple(range(ndim))
        return order if value == "C" else order[::-1]
    order = configuration.lengths("order", minimum=0, ndim=ndim)
    if sorted(order) != list(range(ndim)):
        raise configuration.fail(f"{list(order)} is not a permutation of {ndim} axes", "order")
    return order


def _parse_sharding(
    location: ObjectPerChunk, shard_shape: tuple[int, ...], outer: _Chain, *, multibyte: bool
) -> tuple[Sharded, tuple[int, ...], _Chain]:
    configuration = outer.sharding
    assert configuration is not None
    ndim = len(shard_shape)
    if outer.bytes_codecs or outer.axis_order != tuple(range(ndim)):
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
    inner = _parse_codecs(configuration, "codecs", ndim, multibyte=multibyte)
    if inner.sharding is not None:
        msg = f"{configuration.source!r}: shards within shards are not read yet"
        raise UnsupportedCodecError(msg)
    index = _parse_codecs(configuration, "index_codecs", ndim + 1, multibyte=True)
    if index.sharding is not None or index.axis_order != tuple(range(ndim + 1)):
        msg = f"{configuration.source!r} index_codecs: only bytes and crc32c are read"
        raise UnsupportedCodecError(msg)
    index_nbytes = _INDEX_ENTRY_NBYTES * math.prod(
        s // c for s, c in zip(shard_shape, inner_shape, strict=True)
    )
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
        index_endian=index.endian,
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
