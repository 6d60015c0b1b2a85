"""Fill values of Zarr v2 and v3, bit for bit.

Spec: Zarr core 3.1, "Fill value list", and the data types of zarr-extensions; Zarr v2, "Fill value
encoding". Where these are silent, as zarr-python reads it: strings in v2 are also given as
numbers, structures as base64 of their bytes.

A fill value comes out as a scalar of the array's type in native byte order. It is made from bytes
where it was given as bytes, so that a NaN keeps its payload.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from zarrgpu.formats.data_types import object_filter
from zarrgpu.formats.document import Document, shown
from zarrgpu.formats.extended_types import complex_part, integer_bounds, is_extended
from zarrgpu.model import native_dtype

_SPECIAL_FLOATS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_DECIMAL = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_TIME_RANGE = (-(1 << 63), (1 << 63) - 1)


class _FieldError(ValueError):
    """What is wrong with the value of a field, and where."""

    def __init__(self, path: tuple[str, ...], message: str) -> None:
        self.path = path
        super().__init__(message)


def parse_fill_value(document: Document, dtype: np.dtype[Any], zarr_format: int = 3) -> Any:
    """Member ``fill_value`` as a scalar of `dtype` in native order; None where it says ``null``.

    Parameters
    ----------
    document : Document
        Of the array.
    dtype : numpy.dtype
        Of the array, for v2 as stored.
    zarr_format : int
        2 or 3.

    Returns
    -------
    numpy scalar; str for strings, bytes or any JSON value for objects; or None

    Raises
    ------
    MetadataError
        If it is not a value of the type.
    """
    value = document.require("fill_value")
    if value is None:
        return None
    try:
        if dtype.hasobject:
            return _parse_object(document, value, dtype, zarr_format)
        return _parse(_lenient(value, dtype) if zarr_format == 2 else value, dtype)
    except (TypeError, ValueError, OverflowError) as error:
        path = error.path if isinstance(error, _FieldError) else ()
        raise document.fail(
            f"{shown(value)} is not a value of {native_dtype(dtype)}: {error}", "fill_value", *path
        ) from error


def _parse_object(document: Document, value: Any, dtype: np.dtype[Any], zarr_format: int) -> Any:
    if isinstance(dtype, np.dtypes.StringDType):
        if zarr_format == 2 and isinstance(value, (int, float)):
            value = str(value)
        return str(np.array([_string(value)], dtype)[0])
    if zarr_format == 2 and object_filter(document) != "vlen-bytes":
        return value
    return b"" if _is_zero(value) and zarr_format == 2 else _raw_bytes(value)


def _lenient(value: Any, dtype: np.dtype[Any]) -> Any:
    """Forms that only v2 has: numbers as strings, 0 for all bytes zero."""
    if isinstance(value, str) and dtype.kind in "iuf" and _DECIMAL.fullmatch(value):
        return float(value) if set(value) & set(".eE") else int(value)
    if dtype.kind in "SVU" and not is_extended(dtype) and _is_zero(value):
        return ""
    return value


def _is_zero(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, (int, float)) and value == 0


def _parse(value: Any, dtype: np.dtype[Any]) -> Any:
    """Scalar of the type of `dtype` in native order; only bytes are in the order of `dtype`."""
    if dtype.subdtype is not None:
        msg = "a field of many elements cannot be given by itself, expected base64 of the whole"
        raise ValueError(msg)
    if dtype.names is not None and isinstance(value, Mapping):
        return _parse_struct(value, dtype)
    if is_extended(dtype) and dtype.names is None:
        return _parse_extended(value, dtype)
    return _PARSERS[dtype.kind](value, dtype)


def _parse_struct(value: Mapping[str, Any], dtype: np.dtype[Any]) -> Any:
    """An object with the value of each field, all of which must be given."""
    assert dtype.names is not None
    assert dtype.fields is not None
    result = np.zeros(1, native_dtype(dtype))
    for name in dtype.names:
        if name not in value:
            raise _FieldError((name,), "it is missing")
        try:
            scalar = _parse(value[name], dtype.fields[name][0])
        except _FieldError as error:
            raise _FieldError((name, *error.path), str(error)) from error
        except (TypeError, ValueError, OverflowError) as error:
            raise _FieldError((name,), str(error)) from error
        # bytes are copied, since NumPy would read some scalars as numbers and lose a NaN's payload
        field = result[name]
        field[...] = np.array([scalar], field.dtype)
    for name in value:
        if name not in dtype.fields:
            raise _FieldError((name,), "the type has no such field")
    return result[0]


def _parse_bool(value: Any, dtype: np.dtype[Any]) -> Any:
    if value not in (0, 1):
        msg = "expected true or false"
        raise ValueError(msg)
    return dtype.type(value)


def _integer(value: Any, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != int(value):
        msg = "expected an integer"
        raise ValueError(msg)
    if not low <= value <= high:
        msg = f"expected {low} to {high}"
        raise ValueError(msg)
    return int(value)


def _parse_integer(value: Any, dtype: np.dtype[Any]) -> Any:
    limits = np.iinfo(dtype)
    return dtype.type(_integer(value, int(limits.min), int(limits.max)))


def _parse_float(value: Any, dtype: np.dtype[Any]) -> Any:
    native = native_dtype(dtype)
    if isinstance(value, str) and value not in _SPECIAL_FLOATS:
        return _from_digits(value, native)
    if isinstance(value, str):
        value = _SPECIAL_FLOATS[value]
    elif isinstance(value, bool) or not isinstance(value, (int, float)):
        msg = "expected a number"
        raise TypeError(msg)
    with np.errstate(all="ignore"):  # a decimal beyond the type's range is its infinity
        return np.array([float(value)]).astype(native)[0]


def _from_digits(text: str, dtype: np.dtype[Any]) -> Any:
    """Bits of a number in hexadecimal."""
    digits = 2 * dtype.itemsize
    if not re.fullmatch(rf"0x[0-9a-fA-F]{{{digits}}}", text):
        msg = f"expected a number, NaN, Infinity, -Infinity or 0x and {digits} digits"
        raise ValueError(msg)
    return (
        np.frombuffer(bytes.fromhex(text[2:]), f">u{dtype.itemsize}")
        .astype(f"u{dtype.itemsize}")
        .view(dtype)[0]
    )


def _parse_complex(value: Any, dtype: np.dtype[Any]) -> Any:
    """Real and imaginary part; a single number has no imaginary one."""
    native = native_dtype(dtype)
    part = complex_part(native)
    assert part is not None
    parse = _parse_extended_float if is_extended(part) else _parse_float
    pair = value if isinstance(value, list) else [value, 0]
    if len(pair) != 2:
        msg = "expected two numbers"
        raise ValueError(msg)
    return np.array([parse(number, part) for number in pair], part).view(native)[0]


def _parse_extended(value: Any, dtype: np.dtype[Any]) -> Any:
    bounds = integer_bounds(dtype)
    if bounds is not None:
        return np.array([_integer(value, *bounds)], dtype)[0]
    if complex_part(dtype) is not None:
        return _parse_complex(value, dtype)
    return _parse_extended_float(value, dtype)


def _parse_extended_float(value: Any, dtype: np.dtype[Any]) -> Any:
    """Number of a type that may have no infinity or no NaN: then that, or too large a one, is none.

    The one type without a zero has NaN in its place, as TensorStore does.
    """
    scalar = _parse_float(value, dtype)
    if isinstance(value, str) and value not in _SPECIAL_FLOATS:
        return scalar
    wanted, got = float(_SPECIAL_FLOATS.get(value, value)), float(scalar)
    with np.errstate(all="ignore"):
        has_infinity = bool(np.isinf(np.array([math.inf]).astype(dtype).astype(np.float64))[0])
    if math.isnan(wanted):
        kept = math.isnan(got)
    else:
        in_range = has_infinity or abs(wanted) <= _largest(dtype)
        kept = in_range and not (math.isnan(got) and wanted < 0)
    if not kept:
        msg = f"the type has no such number, its largest is {_largest(dtype)}"
        raise ValueError(msg)
    return scalar


def _largest(dtype: np.dtype[Any]) -> float:
    import ml_dtypes

    limits: Any = ml_dtypes.finfo
    return float(limits(dtype).max)


def _parse_time(value: Any, dtype: np.dtype[Any]) -> Any:
    count = _TIME_RANGE[0] if value == "NaT" else _integer(value, *_TIME_RANGE)
    return np.array([count], np.int64).view(native_dtype(dtype))[0]


def _string(value: Any) -> str:
    if not isinstance(value, str):
        msg = "expected a string"
        raise TypeError(msg)
    return value


def _parse_text(value: Any, dtype: np.dtype[Any]) -> Any:
    if len(_string(value)) > dtype.itemsize // 4:
        msg = f"has {len(value)} characters, the type {dtype.itemsize // 4}"
        raise ValueError(msg)
    return np.array([value], native_dtype(dtype))[0]


def _raw_bytes(value: Any) -> bytes:
    """Bytes as base64, or as a list of integers."""
    if isinstance(value, list):
        return bytes(value)
    if not isinstance(value, str):
        msg = "expected base64 or a list of integers"
        raise TypeError(msg)
    return base64.b64decode(value, validate=True)


def _parse_bytes(value: Any, dtype: np.dtype[Any]) -> Any:
    data = _raw_bytes(value)
    if len(data) > dtype.itemsize or (dtype.kind == "V" and 0 < len(data) < dtype.itemsize):
        msg = f"has {len(data)} bytes, the type {dtype.itemsize}"
        raise ValueError(msg)
    stored = np.frombuffer(data.ljust(dtype.itemsize, b"\0"), np.uint8).view(dtype)
    return stored.astype(native_dtype(dtype))[0]


_PARSERS: dict[str, Callable[[Any, np.dtype[Any]], Any]] = {
    "b": _parse_bool,
    "i": _parse_integer,
    "u": _parse_integer,
    "f": _parse_float,
    "c": _parse_complex,
    "m": _parse_time,
    "M": _parse_time,
    "S": _parse_bytes,
    "U": _parse_text,
    "V": _parse_bytes,
}
"""By NumPy's kind of type."""
