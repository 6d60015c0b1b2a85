"""What netCDF's NCZarr adds to Zarr v2: shared dimensions, and which of them an array uses.

Source: netcdf-c, ``docs/nczarr.md`` and ``libnczarr/zinternal.h``. Today's netcdf-c (4.9.3 on)
writes ``_nczarr_group`` and ``_nczarr_array`` into ``.zattrs``; earlier ones wrote them into
``.zgroup`` and ``.zarray``, before 2022 in capitals, and with other member names::

    {"dimensions": [{"name": "t", "size": 3, "unlimited": 1}], "arrays": ["v"], "groups": []}
    {"dims": {"t": 3, "x": {"size": 4, "unlimited": 0}}, "vars": ["v"], "groups": []}
    {"dimension_references": ["/t", "/g/x"], "storage": "chunked"}
    {"dimrefs": ["/t", "/g/x"], "storage": "scalar"}

These are annotations: what is malformed in them is passed over, and the array is read all the same.
A scalar has shape ``[1]`` and the dimension ``_scalar_``; it is read as the array that it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from zarrgpu.formats.group import Dimension

_SCALAR = "_scalar_"


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
        return (_SCALAR,)
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
    if isinstance(value, str) and value.isdecimal() and len(value) < 20:
        value = int(value)
    return value if type(value) is int and value >= 0 else None


def _parse_names(value: Any, ndim: int) -> tuple[str, ...] | None:
    if isinstance(value, list) and len(value) == ndim and all(isinstance(n, str) for n in value):
        return tuple(value)
    return None
