"""``zarr.json``: arrays and groups of Zarr v3.

Spec: Zarr core 3.1. Unknown members are errors unless they say ``"must_understand": false``, as the
spec demands.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast

import numpy as np

from zarrgpu.errors import UnsupportedFormatError
from zarrgpu.formats.chunk_grid import parse_chunk_grid
from zarrgpu.formats.consolidated import parse_inline
from zarrgpu.formats.data_types import parse_v3_data_type
from zarrgpu.formats.document import Document, shown
from zarrgpu.formats.fill_values import parse_fill_value
from zarrgpu.formats.group import GroupSpec
from zarrgpu.formats.nczarr import parse_dimensions
from zarrgpu.formats.sharding import parse_chunk_codecs
from zarrgpu.grids import KeyEncoding
from zarrgpu.model import ArraySpec, ObjectPerChunk

_ARRAY_MEMBERS = {
    "zarr_format", "node_type", "shape", "data_type", "chunk_grid", "chunk_key_encoding",
    "fill_value", "codecs", "attributes", "storage_transformers", "dimension_names",
}  # fmt: skip
_GROUP_MEMBERS = {"zarr_format", "node_type", "attributes", "consolidated_metadata"}


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
    fill_value = _parse_fill_value(document, dtype)
    grid = document.extension("chunk_grid", document.require("chunk_grid"))
    chunk_shape, chunk_starts = parse_chunk_grid(*grid, shape)
    document.check_chunk("chunk_grid", chunk_shape, dtype.itemsize)
    key_encoding = _parse_key_encoding(document, path)
    chunks = parse_chunk_codecs(
        document, dtype, chunk_shape, chunk_starts, fill_value, key_encoding
    )
    document.check_grid("chunk_grid", shape, chunks.chunk_shape)
    return ArraySpec(
        source=document.source,
        shape=shape,
        dtype=chunks.dtype,
        chunk_shape=chunks.chunk_shape,
        fill_value=fill_value,
        codecs=chunks.codecs,
        axis_order=chunks.axis_order,
        location=chunks.location or ObjectPerChunk(key_encoding),
        dimension_names=_parse_dimension_names(document, len(shape)),
        attributes=document.attributes("attributes"),
        chunk_starts=None if chunks.location else chunk_starts,
    )


def _parse_fill_value(document: Document, dtype: np.dtype[Any]) -> Any:
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


def _parse_dimension_names(document: Document, ndim: int) -> tuple[str | None, ...]:
    names = document.value.get("dimension_names")
    if names is None:
        return (None,) * ndim
    if not isinstance(names, list) or not all(n is None or isinstance(n, str) for n in names):
        raise document.fail(f"expected a list of names, got {shown(names)}", "dimension_names")
    if len(names) != ndim:
        raise document.fail(f"has {len(names)} names for {ndim} axes", "dimension_names")
    return tuple(names)
