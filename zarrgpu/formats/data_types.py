"""Data types of Zarr v2 and v3 as NumPy sees them.

Spec: Zarr core 3.1, "Data types", and the data types of zarr-extensions; Zarr v2, "Data type
encoding". Strings and byte strings of any length are NumPy's ``StringDType`` and ``object``, as
zarr-python has them. Types that NumPy lacks are ml_dtypes' (`extended_types`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Container
from typing import Any

import numpy as np

from zarrgpu.errors import MetadataError, UnsupportedFormatError
from zarrgpu.formats.document import Document, shown
from zarrgpu.formats.extended_types import EXTENDED_TYPES, extended_type

_CORE_TYPES = {
    **{
        name: np.dtype(name)
        for name in [
            "bool",
            "int8",
            "int16",
            "int32",
            "int64",
            "uint8",
            "uint16",
            "uint32",
            "uint64",
            "float16",
            "float32",
            "float64",
            "complex64",
            "complex128",
        ]
    },
    "complex_float32": np.dtype("c8"),
    "complex_float64": np.dtype("c16"),
    "string": np.dtypes.StringDType(),
    "variable_length_utf8": np.dtypes.StringDType(),
    "bytes": np.dtype(object),
    "variable_length_bytes": np.dtype(object),
}
_MICROSECONDS = {"\u03bcs": "us", "\u00b5s": "us"}
_TIME_UNITS = (
    "Y", "M", "W", "D", "h", "m", "s", "ms", "us", *_MICROSECONDS, "ns", "ps", "fs", "as",
    "generic",
)  # fmt: skip
_MAX_SCALE = (1 << 31) - 1
_MAX_ELEMENT_NBYTES = 1 << 24
"""Of one element: a fill value of it is held in memory, whatever the array's size."""
_MAX_DEPTH = 16
"""Structures within structures."""
_V2_TYPE = re.compile(r"[<>|](?:[biufcSVU][0-9]+|[mM]8?(?:\[[^\]]+\])?|O8?)")
OBJECT_FILTERS = (
    "vlen-utf8", "vlen-bytes", "vlen-array", "json2", "msgpack2", "pickle", "categorize",
)  # fmt: skip
"""numcodecs' filters that encode objects; one of them must come first for a v2 type ``|O``."""


def parse_v3_data_type(document: Document) -> np.dtype[Any]:
    """Data type of a v3 array in native byte order; the ``bytes`` codec sets the stored one.

    Raises
    ------
    MetadataError, UnsupportedFormatError, MissingDependencyError
    """
    return _parse_v3(document, "data_type", document.require("data_type"), 0)


def _parse_v3(document: Document, key: str, value: Any, depth: int) -> np.dtype[Any]:
    name, configuration = document.extension(key, value)
    if name in ("struct", "structured"):
        return _checked(configuration, _parse_struct(configuration, depth), "fields")
    if name in _PARAMETRIC_TYPES:
        return _PARAMETRIC_TYPES[name](configuration)
    if configuration.value:
        raise configuration.fail(
            f"{shown(name)} has no configuration, got {shown(dict(configuration.value))}",
            kind="unknown",
        )
    if name in _CORE_TYPES:
        return _CORE_TYPES[name]
    if name in EXTENDED_TYPES:
        return extended_type(name, document.source)
    if raw := re.fullmatch(r"r([1-9][0-9]{0,9})", name):
        if int(raw[1]) % 8:
            raise document.fail(f"raw type must have whole bytes, got {shown(name)}", key)
        return _sized(document, key, "V", int(raw[1]) // 8)
    known = ", ".join(
        [*_CORE_TYPES, "r<bits>", "struct", "structured", *_PARAMETRIC_TYPES, *EXTENDED_TYPES]
    )
    place = ".".join(map(str, (*document.location, key)))
    msg = f"{document.source!r} {place}: {shown(name)} is not read; zarrgpu reads {known}"
    raise UnsupportedFormatError(msg)


def _parse_struct(configuration: Document, depth: int) -> np.dtype[Any]:
    """Fields as objects (``struct``) or as pairs (``structured``), which are found under both."""
    fields = configuration.require("fields")
    if not isinstance(fields, list) or not fields:
        raise configuration.fail(f"expected a list of fields, got {shown(fields)}", "fields")
    _refuse_depth(configuration, depth)
    parsed: dict[str, np.dtype[Any]] = {}
    for index, field in enumerate(fields):
        place = Document(configuration.source, {}, (*configuration.location, "fields", index))
        if isinstance(field, list) and len(field) == 2:
            field = dict(zip(("name", "data_type"), field, strict=True))
        if not isinstance(field, dict):
            raise place.fail(f"expected an object or a pair, got {shown(field)}", kind="type")
        place = Document(place.source, field, place.location)
        name = place.require("name")
        _check_name(place, name, parsed)
        dtype = _parse_v3(place, "data_type", place.require("data_type"), depth + 1)
        if dtype.hasobject:
            raise place.fail(f"{dtype} has no fixed size, as fields must have", "data_type")
        parsed[name] = dtype
    return np.dtype(list(parsed.items()))


def _check_name(place: Document, name: Any, others: Container[str]) -> None:
    if not isinstance(name, str) or not name:
        raise place.fail(f"expected a name, got {shown(name)}", "name", kind="type")
    if name in others:
        raise place.fail(f"is the name of another field too: {shown(name)}", "name")


def _refuse_depth(document: Document, depth: int) -> None:
    if depth >= _MAX_DEPTH:
        msg = f"{document.source!r}: structures are nested more than {_MAX_DEPTH} deep"
        raise UnsupportedFormatError(msg)


def _refuse_unknown(configuration: Document, known: tuple[str, ...]) -> None:
    for key in configuration.value:
        if key not in known:
            raise configuration.fail(f"expected {' and '.join(known)} only", key, kind="unknown")


def _bytes_type(kind: str, unit: int) -> Callable[[Document], np.dtype[Any]]:
    """Types with a ``length_bytes``, in units of so many bytes."""

    def parse(configuration: Document) -> np.dtype[Any]:
        _refuse_unknown(configuration, ("length_bytes",))
        nbytes = configuration.require("length_bytes")
        if type(nbytes) is not int or nbytes < 0 or nbytes % unit:
            raise configuration.fail(
                f"expected a number of bytes, a multiple of {unit}, got {shown(nbytes)}",
                "length_bytes",
            )
        _sized(configuration, "length_bytes", "V", nbytes)
        return np.dtype(f"{kind}{nbytes // unit}")

    return parse


def _time_type(kind: str) -> Callable[[Document], np.dtype[Any]]:
    def parse(configuration: Document) -> np.dtype[Any]:
        _refuse_unknown(configuration, ("unit", "scale_factor"))
        unit = configuration.choice("unit", _TIME_UNITS)
        scale = configuration.require("scale_factor")
        if type(scale) is not int or not 1 <= scale <= _MAX_SCALE:
            raise configuration.fail(
                f"expected an integer of 1 to {_MAX_SCALE}, got {shown(scale)}", "scale_factor"
            )
        if unit == "generic":  # NumPy has no scale without a unit
            return np.dtype(f"{kind}8")
        return np.dtype(f"{kind}8[{scale}{_MICROSECONDS.get(unit, unit)}]")

    return parse


_PARAMETRIC_TYPES: dict[str, Callable[[Document], np.dtype[Any]]] = {
    "fixed_length_utf32": _bytes_type("U", 4),
    "null_terminated_bytes": _bytes_type("S", 1),
    "raw_bytes": _bytes_type("V", 1),
    "numpy.datetime64": _time_type("M"),
    "numpy.timedelta64": _time_type("m"),
}


def _sized(document: Document, key: str, kind: str, nbytes: int) -> np.dtype[Any]:
    """Type of `nbytes` bytes, which must be one to as many as an element may have."""
    if not 1 <= nbytes <= _MAX_ELEMENT_NBYTES:
        raise document.fail(
            f"elements of {nbytes} bytes are not read, only 1 to {_MAX_ELEMENT_NBYTES}", key
        )
    return np.dtype(f"{kind}{nbytes}")


def _checked(document: Document, dtype: np.dtype[Any], key: str) -> np.dtype[Any]:
    _sized(document, key, "V", dtype.itemsize)
    return dtype


def parse_v2_data_type(document: Document) -> np.dtype[Any]:
    """Data type of a v2 array, byte order included.

    For ``|O`` it depends on the filters of the same document (`object_data_type`).

    Raises
    ------
    MetadataError, UnsupportedFormatError, MissingDependencyError
    """
    dtype = _parse_v2(document, document.require("dtype"), 0)
    return object_data_type(document, object_filter(document)) if dtype.hasobject else dtype


def object_filter(document: Document) -> str | None:
    """Id of the filter or compressor that a v2 array's elements go through first."""
    filters = document.value.get("filters")
    items = [*(filters if isinstance(filters, list) else []), document.value.get("compressor")]
    first = items[0]
    found = first.get("id") if isinstance(first, dict) else None
    return found if isinstance(found, str) else None


def object_data_type(document: Document, codec_id: str | None) -> np.dtype[Any]:
    """Type of the elements of a v2 array ``|O`` whose first filter is `codec_id`.

    Raises
    ------
    MetadataError
        If that is no filter that encodes objects.
    """
    if codec_id not in OBJECT_FILTERS:
        raise document.fail(
            f"{shown(document.value.get('dtype'))} needs one of {', '.join(OBJECT_FILTERS)} as its "
            f"first filter, got {shown(codec_id)}",
            "filters",
        )
    return np.dtypes.StringDType() if codec_id == "vlen-utf8" else np.dtype(object)


def _parse_v2(document: Document, value: Any, depth: int, *keys: int) -> np.dtype[Any]:
    if isinstance(value, list):
        return _parse_v2_fields(document, value, depth, *keys)
    if isinstance(value, str) and value in EXTENDED_TYPES:  # as TensorStore writes them
        return extended_type(value, document.source)
    if not isinstance(value, str) or not _V2_TYPE.fullmatch(value):
        raise document.fail(
            f"expected a NumPy type string, got {shown(value)}", "dtype", *keys, kind="type"
        )
    try:
        dtype = np.dtype(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise _not_numpy(document, value, error, *keys) from error
    if dtype.kind in "mM" and np.datetime_data(dtype)[1] == 0:
        raise document.fail(f"not a NumPy type: {shown(value)} counts in zeros", "dtype", *keys)
    _check_v2_size(document, dtype.itemsize, *keys)
    return dtype


def _parse_v2_fields(document: Document, value: list[Any], depth: int, *keys: int) -> np.dtype[Any]:
    """Structured type: a list of [name, type] or [name, type, shape]."""
    _refuse_depth(document, depth)
    fields: list[tuple[str, np.dtype[Any], tuple[int, ...]]] = []
    for index, field in enumerate(value):
        place = (*keys, index)
        if not isinstance(field, list) or len(field) not in (2, 3) or not isinstance(field[0], str):
            raise document.fail(
                f"expected [name, type] or [name, type, shape], got {shown(field)}", "dtype", *place
            )
        dtype = _parse_v2(document, field[1], depth + 1, *place, 1)
        if dtype.hasobject:
            msg = f"{document.source!r} dtype: objects in a structure are not read: {shown(field)}"
            raise UnsupportedFormatError(msg)
        shape = field[2] if len(field) == 3 else []
        shape = [shape] if type(shape) is int else shape
        if not isinstance(shape, list) or not all(type(n) is int and n > 0 for n in shape):
            raise document.fail(f"expected a shape, got {shown(shape)}", "dtype", *place, 2)
        _check_v2_size(document, dtype.itemsize * math.prod(shape), *place)
        fields.append((field[0], dtype, tuple(shape)))
    _check_v2_size(document, sum(d.itemsize * math.prod(s) for _, d, s in fields), *keys)
    try:
        return np.dtype([(n, d, s) if s else (n, d) for n, d, s in fields])
    except (TypeError, ValueError) as error:  # two fields of one name, too many dimensions
        raise _not_numpy(document, value, error, *keys) from error


def _check_v2_size(document: Document, nbytes: int, *keys: int) -> None:
    if not 1 <= nbytes <= _MAX_ELEMENT_NBYTES:
        raise document.fail(
            f"elements of {nbytes} bytes are not read, only 1 to {_MAX_ELEMENT_NBYTES}",
            "dtype",
            *keys,
        )


def _not_numpy(document: Document, value: Any, error: Exception, *keys: int) -> MetadataError:
    return document.fail(f"not a NumPy type: {shown(value)} ({error})", "dtype", *keys)
