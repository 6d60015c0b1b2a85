"""Law: ``cast_value`` and ``scale_offset`` decode bit for bit as zarr-python 3.4.2 (cast-value-rs
0.4.2) does, for every pair of types and rounding, and refuse what it refuses.

Its answers are in `oracles/zarr342.json`: it runs on Python 3.12 and later only.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.chain_cases import assert_same, chain_of, chunk_keys, decode, parse, read
from zarrgpu.codecs.base import CodecError
from zarrgpu.codecs.cast_value import CastValueCodec
from zarrgpu.codecs.rounding import floats_to_floats, integers_to_floats, round_to_integers
from zarrgpu.codecs.scale_offset import ScaleOffsetCodec

ORACLE: dict[str, Any] = json.loads((Path(__file__).parent / "oracles/zarr342.json").read_text())
ROUNDINGS = (
    "nearest-even", "towards-zero", "towards-positive", "towards-negative", "nearest-away",
)  # fmt: skip


def from_text(text: str, dtype: Any) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype)


def cast(values: np.ndarray, target: str, rounding: str, beyond: str) -> np.ndarray:
    codec = CastValueCodec(
        dtype=np.dtype(target),
        encoded_dtype=values.dtype,
        rounding=rounding,  # type: ignore[arg-type]
        out_of_range=beyond,  # type: ignore[arg-type]
    )
    nbytes = values.size * np.dtype(target).itemsize
    return codec.decode_host(values.view(np.uint8), nbytes, None).view(target)


@pytest.mark.parametrize(
    ("source", "target", "beyond", "digest"),
    [pytest.param(*row, id="-".join(row[:3])) for row in ORACLE["casts"]],
)
def test_casts_are_the_oracles(source: str, target: str, beyond: str, digest: str) -> None:
    values = from_text(ORACLE["samples"][source], source)
    if beyond == "clamp" and "int" in target:
        values = values[~np.isinf(values)]
    ours = hashlib.sha256()
    for rounding in ROUNDINGS:
        for at in range(values.size):
            try:
                ours.update(cast(values[at : at + 1], target, rounding, beyond).tobytes())
            except CodecError:
                ours.update(b"error")
    assert ours.hexdigest()[:16] == digest


@pytest.mark.parametrize("row", ORACLE["arrays"])
def test_arrays_of_zarr_python_342(row: dict[str, Any]) -> None:
    objects = {key: base64.b64decode(value) for key, value in row["objects"].items()}
    got = read(objects)
    assert_same(got, from_text(row["read"], row["dtype"]).reshape(got.shape))


def test_many_values_are_cast_as_one_by_one() -> None:
    for source, target in itertools.product(("float32", "float64", "int64"), ("int8", "float16")):
        values = from_text(ORACLE["samples"][source], source)
        values = values[~np.isnan(values)]
        for rounding in ROUNDINGS:
            single = [
                cast(values[i : i + 1], target, rounding, "clamp") for i in range(values.size)
            ]
            assert cast(values, target, rounding, "clamp").tobytes() == b"".join(
                part.tobytes() for part in single
            )


def test_infinity_clamps_to_the_limits_of_an_integer() -> None:
    values = np.array([np.inf, -np.inf, 3], "f4")
    assert cast(values, "int8", "nearest-even", "clamp").tolist() == [127, -128, 3]


def exactly(value: Fraction, bits: int, rounding: str) -> Fraction:
    """`value` with `bits` significant bits: the definition, in rational numbers."""
    if not value:
        return value
    unit = Fraction(1)
    while abs(value) >= unit * 2**bits:
        unit *= 2
    while abs(value) < unit * 2 ** (bits - 1):
        unit /= 2
    return to_integer(value / unit, rounding) * unit


def to_integer(value: Fraction, rounding: str) -> Fraction:
    low = value.numerator // value.denominator
    rest = value - low
    if rounding == "nearest-even":
        return Fraction(round(value))
    if rounding == "nearest-away":
        up = rest > Fraction(1, 2) or (rest == Fraction(1, 2) and value > 0)
    else:
        up = rest > 0 and (
            rounding == "towards-positive" or (rounding == "towards-zero" and value < 0)
        )
    return Fraction(low + up)


@given(st.integers(-(2**63), 2**64 - 1), st.sampled_from(ROUNDINGS))
def test_integers_to_floats_by_definition(value: int, rounding: Any) -> None:
    array = np.array([value], np.uint64 if value >= 0 else np.int64)
    for dtype, bits in (("f4", 24), ("f8", 53)):
        got = integers_to_floats(array, np.dtype(dtype), rounding)[0]
        assert Fraction(float(got)) == exactly(Fraction(value), bits, rounding)


@given(st.floats(2.0**-100, 2.0**100), st.booleans(), st.sampled_from(ROUNDINGS))
def test_floats_to_floats_by_definition(value: float, negative: bool, rounding: Any) -> None:
    value = -value if negative else value
    got = floats_to_floats(np.array([value]), np.dtype("f4"), rounding)[0]
    assert Fraction(float(got)) == exactly(Fraction(value), 24, rounding)


@given(st.floats(allow_nan=False, allow_infinity=False), st.sampled_from(ROUNDINGS))
def test_floats_to_integers_by_definition(value: float, rounding: Any) -> None:
    got = round_to_integers(np.array([value]), rounding)[0]
    assert Fraction(float(got)) == to_integer(Fraction(value), rounding)


def test_scalar_map_goes_before_the_cast() -> None:
    codec = CastValueCodec(
        dtype=np.dtype("f4"),
        encoded_dtype=np.dtype(">i2"),
        scalar_map=[[-1, float("nan")], [7, float("inf")]],
    )
    encoded = np.array([-1, 7, 8], ">i2").view(np.uint8)
    got = codec.decode_host(encoded, 12, None).view("f4")
    assert_same(got, np.array([np.nan, np.inf, 8], "f4"))
    back = CastValueCodec(
        dtype=np.dtype("i2"), encoded_dtype=np.dtype("f4"), scalar_map=[[float("nan"), -1]]
    )
    values = np.array([np.nan, 2.5], "f4").view(np.uint8)
    assert back.decode_host(values, 4, None).view("i2").tolist() == [-1, 2]


@pytest.mark.parametrize(
    ("dtype", "scale", "offset", "values", "expected"),
    [
        ("i4", 3, 5, [0, -9, 12], [5, 2, 9]),
        ("i1", -1, -1, [-128, 5], [127, -6]),
        ("i1", 1, -100, [-28, 100], [-128, 0]),
        ("u8", 2, 2**63, [0, 2**63], [2**63, 2**63 + 2**62]),
        ("i8", -(2**62), 0, [-(2**63), 2**62], [2, -1]),
        (">i2", 2, 1, [4, -4], [3, -1]),
    ],
)
def test_scale_offset_of_integers(
    dtype: str, scale: int, offset: int, values: list[int], expected: list[int]
) -> None:
    codec = ScaleOffsetCodec(
        dtype=np.dtype(dtype), encoded_dtype=np.dtype(dtype), scale=scale, offset=offset
    )
    encoded = np.array(values, dtype).view(np.uint8)
    assert codec.decode_host(encoded, encoded.size, None).view(dtype).tolist() == expected


@pytest.mark.parametrize(
    ("dtype", "scale", "offset", "value", "message"),
    [
        ("i4", 3, 0, 4, "non-zero remainder by 3"),
        ("u1", 1, 200, 100, "outside the range of dtype uint8"),
        ("i1", -1, 0, -128, "outside the range of dtype int8"),
        ("u8", 1, 1, 2**64 - 1, "outside the range of dtype uint64"),
    ],
)
def test_scale_offset_refuses_what_its_type_cannot_hold(
    dtype: str, scale: int, offset: int, value: int, message: str
) -> None:
    codec = ScaleOffsetCodec(
        dtype=np.dtype(dtype), encoded_dtype=np.dtype(dtype), scale=scale, offset=offset
    )
    encoded = np.array([value], dtype).view(np.uint8)
    with pytest.raises(CodecError, match=message):
        codec.decode_host(encoded, encoded.size, None)


def test_damaged_chunks_are_data_or_codec_errors() -> None:
    rng = np.random.default_rng(0)
    for row in ORACLE["arrays"]:
        objects = {key: base64.b64decode(value) for key, value in row["objects"].items()}
        spec = parse(objects)
        good = np.frombuffer(objects[chunk_keys(objects)[0]], np.uint8)
        for at in range(good.size):
            bad = good.copy()
            bad[at] ^= int(rng.integers(1, 256))
            try:
                assert decode(spec, chain_of(spec), bad).shape == spec.chunk_shape
            except CodecError:
                continue
