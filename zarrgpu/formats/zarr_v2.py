"""``.zarray``, ``.zgroup``, ``.zattrs`` and ``.zmetadata``: Zarr v2.

Spec: Zarr v2 storage specification. Filters and the compressor become one chain in encoding order;
order ``F`` becomes a reversed axis order, except where the elements are nested lists: numcodecs'
``json2`` and ``msgpack2`` write those in the order of the axes, whatever order the chunk has in
memory (zarr-python 2 writes so, and mixes the elements up when it reads them).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast

import numpy as np

from zarrgpu.formats.data_types import parse_v2_data_type
from zarrgpu.formats.document import Document, shown
from zarrgpu.formats.fill_values import parse_fill_value
from zarrgpu.formats.filters import NESTED_LISTS, check_objects, parse_filter
from zarrgpu.formats.group import GroupSpec
from zarrgpu.formats.image_codecs import parse_v2_codec
from zarrgpu.formats.nczarr import adapt_array, parse_dimension_names, parse_dimensions
from zarrgpu.grids import KeyEncoding
from zarrgpu.model import ArraySpec, CodecSpec, ObjectPerChunk


def parse_array(document: Document, attributes: Mapping[str, Any], path: str) -> ArraySpec:
    """Parse a ``.zarray`` found at `path` within its store."""
    _check_format(document)
    document = adapt_array(document, attributes)
    shape = document.lengths("shape", minimum=0)
    chunk_shape = document.lengths("chunks", minimum=1, ndim=len(shape))
    dtype = parse_v2_data_type(document)
    document.check_chunk("chunks", chunk_shape, dtype.itemsize)
    document.check_grid("chunks", shape, chunk_shape)
    codecs = _parse_codecs(document, dtype, chunk_shape)
    order = document.choice("order", ("C", "F"))
    if codecs and codecs[0].name in NESTED_LISTS:
        order = "C"
    axes = tuple(range(len(shape)))
    separator = document.choice("dimension_separator", (".", "/"), ".")
    return ArraySpec(
        source=document.source,
        shape=shape,
        dtype=dtype,
        chunk_shape=chunk_shape,
        fill_value=parse_fill_value(document, dtype, 2),
        codecs=codecs,
        axis_order=axes if order == "C" else axes[::-1],
        location=ObjectPerChunk(KeyEncoding("v2", cast("Literal['/', '.']", separator), path)),
        dimension_names=parse_dimension_names(attributes, document.value, len(shape)),
        attributes=attributes,
    )


def parse_group(document: Document, attributes: Mapping[str, Any]) -> GroupSpec:
    """Parse a ``.zgroup``."""
    _check_format(document)
    return GroupSpec(
        source=document.source,
        zarr_format=2,
        attributes=attributes,
        dimensions=parse_dimensions(attributes, document.value),
    )


def _check_format(document: Document) -> None:
    if document.require("zarr_format") != 2:
        raise document.fail(
            f"expected 2, got {shown(document.value['zarr_format'])}", "zarr_format"
        )


def _parse_codecs(
    document: Document, dtype: np.dtype[Any], chunk_shape: tuple[int, ...]
) -> tuple[CodecSpec, ...]:
    filters = document.value.get("filters")
    filters = [] if filters is None else filters
    if not isinstance(filters, list):
        raise document.fail(
            f"expected a list or null, got {shown(filters)}", "filters", kind="type"
        )
    compressor = document.require("compressor")
    named = [(f"filters.{i}", item) for i, item in enumerate(filters)]
    if compressor is not None:
        named.append(("compressor", compressor))
    codecs: list[CodecSpec] = []
    encoded_dtype = dtype
    for key, item in named:
        child = document.child(key, item)
        image = parse_v2_codec(child, encoded_dtype, chunk_shape)
        codecs.append(image or parse_filter(child, encoded_dtype))
        encoded_dtype = np.dtype(codecs[-1].configuration.get("encoded_dtype", encoded_dtype))
    check_objects(document, dtype, codecs)
    return tuple(codecs)
