"""Data types and fill values of Zarr v2 and v3 as NumPy sees them.

Spec: Zarr core 3.1, "Data types" and "Fill value list"; Zarr v2, "Data type encoding" and "Fill
value encoding".
"""

from __future__ import annotations

import base64
import re
from typing import Any, Literal, cast

import numpy as np

from zarrgpu.errors import UnsupportedFormatError
from zarrgpu.formats.document import Document, shown

_V3_NAMES = {
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
}
_SPECIAL_FLOATS = {"NaN": np.nan, "Infinity": np.inf, "-Infinity": -np.inf}


def parse_v3_data_type(document: Document) -> np.dtype[Any]:
    """Data type of a v3 array in native byte order; the ``bytes`` codec sets the stored one."""
    name = document.require("data_type")
    if isinstance(name, str) and name in _V3_NAMES:
        return _V3_NAMES[name]
    if isinstance(name, str) and (raw := re.fullmatch(r"r([1-9][0-9]*)", name)):
        bits = int(raw[1])
        if bits % 8 == 0 and bits <= 1 << 20:
            return np.dtype(f"V{bits // 8}")
        raise document.fail(f"raw type must have whole bytes, got {shown(name)}", "data_type")
    extension = name.get("name") if isinstance(name, dict) else name
    known = ", ".join(_V3_NAMES)
    msg = f"{document.source!r} data_type: {shown(extension)} is not read; zarrgpu reads {known}"
    raise UnsupportedFormatError(msg)


def with_endian(dtype: np.dtype[Any], endian: Literal["little", "big"]) -> np.dtype[Any]:
    """`dtype` stored with the given byte order; one-byte types have none."""
    return dtype.newbyteorder("<" if endian == "little" else ">")


def parse_v2_data_type(document: Document) -> np.dtype[Any]:
    """Data type of a v2 array, byte order included."""
    value = document.require("dtype")
    if isinstance(value, list):
        msg = f"{document.source!r} dtype: structured types are not read yet, got {shown(value)}"
        raise UnsupportedFormatError(msg)
    if not isinstance(value, str) or not re.fullmatch(
        r"[<>|][biufcSVUmMO][0-9]*(\[[^\]]+\])?", value
    ):
        raise document.fail(
            f"expected a NumPy type string, got {shown(value)}", "dtype", kind="type"
        )
    try:
        dtype = np.dtype(value)
    except (TypeError, ValueError) as error:
        raise document.fail(f"not a NumPy type: {shown(value)} ({error})", "dtype") from error
    if dtype.itemsize == 0:
        raise document.fail(f"elements of {value!r} have no bytes", "dtype")
    if dtype.hasobject:
        msg = f"{document.source!r} dtype: object arrays are not read yet, got {shown(value)}"
        raise UnsupportedFormatError(msg)
    return dtype


def parse_fill_value(document: Document, dtype: np.dtype[Any]) -> np.generic | None:
    """Fill value as a scalar of `dtype` in native order; None where v2 says ``null``."""
    value = document.require("fill_value")
    native = dtype.newbyteorder("=")
    if value is None:
        return None
    try:
        parsed = _parse_scalar(value, native)
    except (TypeError, ValueError, OverflowError) as error:
        raise document.fail(
            f"{shown(value)} is not a value of {native}: {error}", "fill_value"
        ) from error
    return cast("np.generic", parsed)


def _parse_scalar(value: Any, dtype: np.dtype[Any]) -> Any:
    kind = dtype.kind
    if kind == "c" and isinstance(value, list) and len(value) == 2:
        part = np.dtype(f"f{dtype.itemsize // 2}")
        pair = np.array([_parse_scalar(v, part) for v in value], part)
        return pair.view(dtype)[0]
    if kind == "V" and isinstance(value, list):
        return _from_bytes(bytes(value), dtype)
    if kind in "SV" and isinstance(value, str):
        return _from_bytes(base64.standard_b64decode(value), dtype)
    if kind in "SV" and value == 0:
        return _from_bytes(b"", dtype)
    if kind == "f":
        return _parse_float(value, dtype)
    if kind == "b" and not isinstance(value, bool) and value not in (0, 1):
        msg = "expected true or false"
        raise ValueError(msg)
    if kind in "iu":
        return _parse_integer(value, dtype)
    if kind == "U" and not isinstance(value, str):
        value = "" if value == 0 else str(value)
    if kind in "mM" and isinstance(value, int):
        return np.array([value], np.int64).view(dtype)[0]
    if isinstance(value, (list, dict)) or kind in "SV":
        msg = "expected one value of this type"
        raise TypeError(msg)
    return np.asarray(value).astype(dtype)[()]


def _parse_float(value: Any, dtype: np.dtype[Any]) -> Any:
    if isinstance(value, str):
        return _parse_float_text(value, dtype)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        msg = "expected a number"
        raise TypeError(msg)
    with np.errstate(over="ignore"):  # a decimal beyond the type's range is its infinity
        return np.asarray(float(value)).astype(dtype)[()]


def _parse_integer(value: Any, dtype: np.dtype[Any]) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != int(value):
        msg = "expected an integer"
        raise ValueError(msg)
    return dtype.type(int(value))


def _parse_float_text(text: str, dtype: np.dtype[Any]) -> Any:
    if text in _SPECIAL_FLOATS:
        return dtype.type(_SPECIAL_FLOATS[text])
    if not re.fullmatch(rf"0x[0-9a-fA-F]{{{2 * dtype.itemsize}}}", text):
        msg = f"expected a number, NaN, Infinity, -Infinity or 0x and {2 * dtype.itemsize} digits"
        raise ValueError(msg)
    return np.array([int(text, 16)], f"u{dtype.itemsize}").view(dtype)[0]


def _from_bytes(data: bytes, dtype: np.dtype[Any]) -> Any:
    if len(data) > dtype.itemsize:
        msg = f"has {len(data)} bytes, the type {dtype.itemsize}"
        raise ValueError(msg)
    return np.frombuffer(data.ljust(dtype.itemsize, b"\0"), dtype)[0]
