"""Element types that NumPy has only through ml_dtypes: their names, parts and bytes.

Source: zarr-extensions, data types ``bfloat16``, ``float8_*``, ``int4`` and their kin.

ml_dtypes' types misbehave in foreign byte order (0.6: scalars and complex numbers come out swapped
wrongly), and its floats of 4 and 6 bits do not pass over the upper bits of their byte as the
specification asks. So arrays always have these types in native order, and where the stored bytes
are others, a codec of ours puts them in order (`element_bytes`).
"""

from __future__ import annotations

import sys
from typing import Any, Literal

import numpy as np

from zarrgpu.errors import MissingDependencyError, UnsupportedFormatError

EXTENDED_TYPES = {
    **{
        name: name
        for name in [
            "bfloat16",
            "float4_e2m1fn",
            "float6_e2m3fn",
            "float6_e3m2fn",
            "float8_e3m4",
            "float8_e4m3",
            "float8_e4m3b11fnuz",
            "float8_e4m3fn",
            "float8_e4m3fnuz",
            "float8_e5m2",
            "float8_e5m2fnuz",
            "float8_e8m0fnu",
            "int2",
            "int4",
            "uint2",
            "uint4",
        ]
    },
    "complex_float16": "complex32",
    "complex_bfloat16": "bcomplex32",
}
"""Name in Zarr -> name in ml_dtypes."""

_COMPLEX_PARTS = {"complex32": "float16", "bcomplex32": "bfloat16"}
_STORED_BITS = {"float4_e2m1fn": 4, "float6_e2m3fn": 6, "float6_e3m2fn": 6}
_MAX_REORDERED_NBYTES = 1 << 16


def extended_type(name: str, source: str) -> np.dtype[Any]:
    """Type of ml_dtypes that Zarr calls `name`.

    Raises
    ------
    MissingDependencyError
        If ml_dtypes is not installed, or too old to have it.
    """
    try:
        import ml_dtypes
    except ImportError as error:
        msg = f"{source!r}: elements of {name} need ml_dtypes: pip install 'zarrgpu[extended]'"
        raise MissingDependencyError(msg) from error
    scalar = getattr(ml_dtypes, EXTENDED_TYPES[name], None)
    if scalar is None:
        msg = (
            f"{source!r}: elements of {name} need a newer ml_dtypes than {ml_dtypes.__version__}: "
            "pip install 'ml_dtypes>=0.6'"
        )
        raise MissingDependencyError(msg)
    dtype: np.dtype[Any] = np.dtype(scalar)
    return dtype


def is_extended(dtype: np.dtype[Any]) -> bool:
    """Whether a type is not NumPy's own, or a field of it is not."""
    if dtype.subdtype is not None:
        return is_extended(dtype.base)
    if dtype.fields is not None:
        return any(is_extended(field[0]) for field in dtype.fields.values())
    return dtype.isbuiltin == 2


def complex_part(dtype: np.dtype[Any]) -> np.dtype[Any] | None:
    """Type of the real and of the imaginary part; None for other than complex numbers."""
    if dtype.kind == "c":
        return np.dtype(f"f{dtype.itemsize // 2}")
    part = _COMPLEX_PARTS.get(dtype.name)
    if part is None or not is_extended(dtype):
        return None
    return np.dtype(part) if part == "float16" else extended_type(part, dtype.name)


def integer_bounds(dtype: np.dtype[Any]) -> tuple[int, int] | None:
    """Least and greatest value of an integer of few bits; None for other types of ml_dtypes."""
    name, _, bits = dtype.name.partition("int")
    if name not in ("", "u") or not bits:
        return None
    half = 1 << int(bits) - 1
    return (0, 2 * half - 1) if name else (-half, half - 1)


def with_endian(dtype: np.dtype[Any], endian: Literal["little", "big"]) -> np.dtype[Any]:
    """`dtype` stored with the given byte order; types of one byte, or of ml_dtypes, have none."""
    if is_extended(dtype):
        return dtype
    return dtype.newbyteorder("<" if endian == "little" else ">")


def type_string(dtype: np.dtype[Any]) -> str:
    """NumPy type string; for types that have none, that of as many plain bytes."""
    return f"|V{dtype.itemsize}" if is_extended(dtype) else dtype.str


def element_bytes(
    dtype: np.dtype[Any], endian: Literal["little", "big"], source: str
) -> dict[str, Any] | None:
    """Configuration of the codec ``element_bytes`` for elements stored with a byte order.

    Returns
    -------
    dict or None
        ``order``: stored place of each byte of an element; ``mask``: its bits that count. None for
        NumPy's own types, whose byte order is a part of them, and where bytes are as they should.

    Raises
    ------
    UnsupportedFormatError
        If an element is too large for such a list.
    """
    if not is_extended(dtype):
        return None
    if dtype.itemsize > _MAX_REORDERED_NBYTES:
        msg = (
            f"{source!r}: {dtype.name} elements of {dtype.itemsize} bytes are not read, at most "
            f"{_MAX_REORDERED_NBYTES} with fields of ml_dtypes"
        )
        raise UnsupportedFormatError(msg)
    words, bits = _words(dtype)
    order: list[int] = []
    mask: list[int] = []
    for nbytes, used in zip(words, bits, strict=True):
        places = range(len(order), len(order) + nbytes)
        order += places if endian == sys.byteorder else reversed(places)
        mask += [(1 << used) - 1] * nbytes
    if order == list(range(dtype.itemsize)) and set(mask) == {255}:
        return None
    return {"order": order, "mask": mask}


def _words(dtype: np.dtype[Any]) -> tuple[list[int], list[int]]:
    """Sizes in bytes of what byte order applies to, one after the other, and bits used of each."""
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        words, bits = _words(base)
        count = int(np.prod(shape))
        return words * count, bits * count
    if dtype.names is not None and dtype.fields is not None:  # packed, as parsers make them
        parts = [_words(dtype.fields[name][0]) for name in dtype.names]
        return [w for words, _ in parts for w in words], [b for _, bits in parts for b in bits]
    part = complex_part(dtype)
    if part is not None:
        return [part.itemsize] * 2, [8] * 2
    if dtype.kind == "U":
        return [4] * (dtype.itemsize // 4), [8] * (dtype.itemsize // 4)
    if dtype.kind in "SV" and not is_extended(dtype):
        return [1] * dtype.itemsize, [8] * dtype.itemsize
    return [dtype.itemsize], [_STORED_BITS.get(dtype.name, 8)]
