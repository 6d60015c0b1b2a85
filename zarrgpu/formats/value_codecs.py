"""Rules of the v3 codecs that compute each element from another: casts, scales, differences.

Specs: zarr-extensions ``bitround``, ``scale_offset``, ``cast_value``; numcodecs 0.16 for
``numcodecs.*``. See `array_codecs`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from zarrgpu.errors import MetadataError, UnsupportedCodecError
from zarrgpu.formats import filters
from zarrgpu.formats.codec_fields import NUMBERS, element_type, refuse_others
from zarrgpu.formats.data_types import parse_v3_data_type
from zarrgpu.formats.document import Document, shown
from zarrgpu.formats.extended_types import is_extended
from zarrgpu.formats.fill_values import parse_fill_value
from zarrgpu.formats.stage import Rule, Shape, Stage

_ROUNDINGS = (
    "nearest-even", "towards-zero", "towards-positive", "towards-negative", "nearest-away",
)  # fmt: skip


def _bitround(configuration: Document, dtype: np.dtype[Any], shape: Shape) -> Stage:
    filters.check_keepbits(configuration)
    return Stage(
        name="bitround", dtype=dtype, encoded_dtype=dtype, encoded_shape=shape, moves_only=True
    )


def _seen_as(configuration: Document, key: str, kinds: str, dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Type under `key` that numcodecs views the elements as.

    Its byte order is passed over: v3 has no type with one. zarr-python gives the decoded values of
    this type to an array of the true one, so that only integers, booleans and times of one size are
    the same either way; all else would come out as other values than went in.
    """
    seen = element_type(configuration, key, kinds, dtype.newbyteorder("<")).newbyteorder("=")
    native = dtype.newbyteorder("=")
    alike = seen.itemsize == native.itemsize and {seen.kind, native.kind} <= set("biumM")
    if seen != native and not alike:
        raise configuration.fail(f"expected {native}, the elements here, got {seen}", key)
    return seen


def _conversion(name: str, encoded: str, decoded: str, kinds: str) -> Rule:
    """Numcodecs' filters from one element type to another, by the names of their two members."""

    def rule(configuration: Document, dtype: np.dtype[Any], shape: Shape) -> Stage:
        options = {}
        if name == "fixedscaleoffset":
            options = filters.fixedscaleoffset_options(configuration)
        elif name == "quantize":
            filters.check_digits(configuration)
        seen = _seen_as(configuration, decoded, kinds, dtype)
        default = None if name == "astype" else seen
        return Stage(
            name=name,
            dtype=seen,
            encoded_dtype=element_type(configuration, encoded, kinds, default).newbyteorder("="),
            encoded_shape=shape,
            configuration=options,
        )

    return rule


def _scale_offset(configuration: Document, dtype: np.dtype[Any], shape: Shape) -> Stage:
    if dtype.kind not in "iuf":
        raise configuration.fail(f"scales integers and floats, the elements here are {dtype}")
    refuse_others(configuration, ("offset", "scale"))
    offset = _scalar(configuration, "offset", dtype, 0)
    scale = _scalar(configuration, "scale", dtype, 1)
    if scale == 0:
        raise configuration.fail("expected anything but zero", "scale")
    return Stage(
        name="scale_offset",
        dtype=dtype,
        encoded_dtype=dtype,
        encoded_shape=shape,
        configuration={"offset": offset, "scale": scale},
    )


def _scalar(
    configuration: Document, key: str, dtype: np.dtype[Any], default: int | None = None
) -> int | float:
    """Number under `key` in the encoding of fill values, exactly."""
    value = configuration.require(key) if default is None else configuration.value.get(key, default)
    try:
        parsed = parse_fill_value(Document(configuration.source, {"fill_value": value}), dtype)
    except MetadataError as error:
        raise configuration.fail(f"{shown(value)} is not a value of {dtype}", key) from error
    if parsed is None:
        raise configuration.fail(f"expected a value of {dtype}, got null", key, kind="type")
    number: int | float = parsed.item()
    return number


def _cast_value(configuration: Document, dtype: np.dtype[Any], shape: Shape) -> Stage:
    refuse_others(configuration, ("data_type", "rounding", "out_of_range", "scalar_map"))
    encoded_dtype = parse_v3_data_type(configuration)
    for side in (dtype, encoded_dtype):
        if side.kind not in "iuf" or is_extended(side):
            place = ".".join(map(str, configuration.location))
            msg = (
                f"{configuration.source!r} {place}: cast_value from {dtype} to {encoded_dtype} is "
                "not read, only NumPy's integers and floats are"
            )
            raise UnsupportedCodecError(msg)
    out_of_range = configuration.choice("out_of_range", ("error", "clamp", "wrap"), "error")
    if out_of_range == "wrap" and encoded_dtype.kind == "f":
        raise configuration.fail(f"{encoded_dtype} does not wrap", "out_of_range")
    return Stage(
        name="cast_value",
        dtype=dtype,
        encoded_dtype=encoded_dtype,
        encoded_shape=shape,
        configuration={
            "rounding": configuration.choice("rounding", _ROUNDINGS, "nearest-even"),
            "out_of_range": out_of_range,
            "scalar_map": _scalar_map(configuration, encoded_dtype, dtype),
        },
    )


def _scalar_map(
    configuration: Document, encoded: np.dtype[Any], decoded: np.dtype[Any]
) -> list[list[int | float]]:
    """Pairs of ``scalar_map.decode``: encoded value, decoded value."""
    scalar_map = configuration.value.get("scalar_map")
    if scalar_map is None:
        return []
    maps = configuration.child("scalar_map", scalar_map)
    pairs = maps.value.get("decode")
    pairs = [] if pairs is None else pairs
    if not isinstance(pairs, list) or not all(isinstance(p, list) and len(p) == 2 for p in pairs):
        raise maps.fail(f"expected a list of pairs, got {shown(pairs)}", "decode", kind="type")
    result: list[list[int | float]] = []
    for index, (key, value) in enumerate(pairs):
        pair = Document(
            maps.source,
            {"encoded": key, "decoded": value},
            (*maps.location, "decode", index),
        )
        result.append([_scalar(pair, "encoded", encoded), _scalar(pair, "decoded", decoded)])
    return result


VALUE_RULES: dict[str, Rule] = {
    "bitround": _bitround,
    "cast_value": _cast_value,
    "numcodecs.astype": _conversion("astype", "encode_dtype", "decode_dtype", NUMBERS + "SUmM"),
    "numcodecs.bitround": _bitround,
    "numcodecs.delta": _conversion("delta", "astype", "dtype", NUMBERS + "m"),
    "numcodecs.fixedscaleoffset": _conversion("fixedscaleoffset", "astype", "dtype", NUMBERS),
    "numcodecs.quantize": _conversion("quantize", "astype", "dtype", "f"),
    "scale_offset": _scale_offset,
}
"""By their name in v3 metadata."""
