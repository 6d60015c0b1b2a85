"""What netCDF's NCZarr adds to Zarr v2: shared dimensions, which of them an array uses, and quirks.

Source: netcdf-c, ``docs/nczarr.md`` and ``libnczarr/zinternal.h``. Today's netcdf-c (4.9.3 on)
writes ``_nczarr_group`` and ``_nczarr_array`` into ``.zattrs``; earlier ones wrote them into
``.zgroup`` and ``.zarray``, before 2022 in capitals, and with other member names::

    {"dimensions": [{"name": "t", "size": 3, "unlimited": 1}], "arrays": ["v"], "groups": []}
    {"dims": {"t": 3, "x": {"size": 4, "unlimited": 0}}, "vars": ["v"], "groups": []}
    {"dimension_references": ["/t", "/g/x"], "storage": "chunked"}
    {"dimrefs": ["/t", "/g/x"], "storage": "scalar"}

These are annotations: what is malformed in them is passed over, and the array is read all the same.
A scalar has shape ``[1]`` and the dimension ``_scalar_``; it is read as the array that it is.

Three things that netcdf-c writes mean something else to numcodecs and zarr-python
(``tests/nczarr_files.json`` holds files of netcdf-c 4.9.0 and 4.10.1):

- the shuffle filter with ``elementsize`` 0, which stands for the size of the array's type (4.10.1);
- numbers of a codec as text (``"elementsize": "4"``; ``H5Zshuffle`` of earlier versions);
- characters of one byte with the type ``<U1``, which has four (4.9.0).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from zarrgpu.formats.document import Document
from zarrgpu.formats.group import Dimension

SCALAR = "_scalar_"
"""Dimension of scalars, which is nobody's."""

_MAX_DIGITS = 20
_NUMBER = re.compile(r"[<>|][biufcSV]([0-9]{1,9})", re.ASCII)


def parse_dimension_names(
    attributes: Mapping[str, Any], document: Mapping[str, Any], ndim: int
) -> tuple[str | None, ...]:
    """Names of an array's dimensions, or None for each.

    From xarray's ``_ARRAY_DIMENSIONS`` where they fit, otherwise from NCZarr's references.

    >>> parse_dimension_names({"_nczarr_array": {"dimension_references": ["/g/t", "/x"]}}, {}, 2)
    ('t', 'x')
    """
    names = _parse_names(attributes.get("_ARRAY_DIMENSIONS"), ndim)
    if names is not None:
        return names
    array = _annotation("_nczarr_array", attributes, document)
    for key in ("dimension_references", "dimrefs", "dimensions"):
        references = _parse_names(array.get(key), ndim)
        if references is not None:
            return tuple(reference.rpartition("/")[2] for reference in references)
    if ndim == 1 and (array.get("storage") == "scalar" or array.get("scalar") in (1, "1")):
        return (SCALAR,)
    return (None,) * ndim


def parse_dimensions(
    attributes: Mapping[str, Any], document: Mapping[str, Any]
) -> dict[str, Dimension]:
    """Dimensions that a group declares.

    >>> parse_dimensions({"_nczarr_group": {"dims": {"t": "3"}}}, {})
    {'t': Dimension(size=3, unlimited=False)}
    """
    group = _annotation("_nczarr_group", attributes, document)
    found = group.get("dimensions", group.get("dims", {}))
    if isinstance(found, Mapping):
        found = [
            {"name": name, **(value if isinstance(value, Mapping) else {"size": value})}
            for name, value in found.items()
        ]
    dimensions = {}
    for item in found if isinstance(found, list) else []:
        if not isinstance(item, Mapping) or not isinstance(item.get("name"), str):
            continue
        size = _parse_size(item.get("size"))
        if size is not None:
            unlimited = item.get("unlimited") in (1, "1", "true")
            dimensions[item["name"]] = Dimension(size, unlimited)
    return dimensions


def adapt_array(document: Document, attributes: Mapping[str, Any]) -> Document:
    """Give an array's document with netCDF's quirks in Zarr's words.

    Raises
    ------
    MetadataError
        If a shuffle filter says ``elementsize`` 0 and nothing tells whether netCDF wrote it.
    """
    value = dict(document.value)
    annotated = bool(_annotation("_nczarr_array", attributes, value))
    if annotated and value.get("dtype") in ("<U1", ">U1", "|U1"):
        value["dtype"] = "|S1"
    itemsize = _itemsize(value.get("dtype"))
    if isinstance(value.get("compressor"), Mapping):
        codec = document.child("compressor", value["compressor"])
        value["compressor"] = _adapt_codec(codec, itemsize, annotated=annotated)
    if isinstance(value.get("filters"), list):
        value["filters"] = [
            _adapt_codec(document.child(f"filters.{i}", item), itemsize, annotated=annotated)
            if isinstance(item, Mapping)
            else item
            for i, item in enumerate(value["filters"])
        ]
    return Document(document.source, value, document.location)


def _adapt_codec(codec: Document, itemsize: int | None, *, annotated: bool) -> dict[str, Any]:
    adapted = {
        key: int(value)
        if isinstance(value, str) and value.isdecimal() and len(value) < _MAX_DIGITS
        else value
        for key, value in codec.value.items()
    }
    if adapted.get("id") == "shuffle" and adapted.get("elementsize") == 0 and itemsize != 1:
        if not annotated or itemsize is None:
            message = (
                "0 stands for the size of the array's type where netCDF wrote it, and for no "
                "shuffling elsewhere; write the size that is meant"
            )
            raise codec.fail(message, "elementsize")
        adapted["elementsize"] = itemsize
    return adapted


def _itemsize(dtype: Any) -> int | None:
    """Bytes of an element, of those types that netCDF has; wrong types are complained of later."""
    found = _NUMBER.fullmatch(dtype) if isinstance(dtype, str) else None
    return None if found is None else int(found[1])


def _annotation(
    name: str, attributes: Mapping[str, Any], document: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Object that NCZarr stored under `name`, wherever its version put it; empty if none."""
    for holder in (attributes, document):
        for key in (name, name.upper()):
            value = holder.get(key)
            if isinstance(value, str):  # some versions store the JSON as text
                try:
                    value = json.loads(value)
                except (ValueError, RecursionError):
                    continue
            if isinstance(value, Mapping):
                return value
    return {}


def _parse_size(value: Any) -> int | None:
    if isinstance(value, str) and value.isdecimal() and len(value) < _MAX_DIGITS:
        value = int(value)
    return value if type(value) is int and value >= 0 else None


def _parse_names(value: Any, ndim: int) -> tuple[str, ...] | None:
    if isinstance(value, list) and len(value) == ndim and all(isinstance(n, str) for n in value):
        return tuple(value)
    return None
