"""Laws of fill values.

1. What zarr-python reads from a JSON value, zarrgpu reads, to the bit.
2. A value that the specification writes in hexadecimal keeps every bit, NaN payloads too, all the
   way into the result of a read: on the host, and on a CUDA device.
3. Whatever JSON stands for a fill value gives one of the array's type, or an error that names the
   place within it.
"""

from __future__ import annotations

import base64
import json
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import zarr.core.dtype
from hypothesis import given, settings
from hypothesis import strategies as st

import zarrgpu as zg
from zarrgpu.errors import MetadataError
from zarrgpu.formats import zarr_v2, zarr_v3
from zarrgpu.formats.document import Document
from zarrgpu.formats.fill_values import parse_fill_value
from zarrgpu.model import ArraySpec, native_dtype

MOST = (1 << 64) - 1


def named(name: str, **configuration: Any) -> dict[str, Any]:
    return {"name": name, "configuration": configuration}


SECONDS = named("numpy.datetime64", unit="s", scale_factor=10)
GENERIC = named("numpy.datetime64", unit="generic", scale_factor=1)
SPAN = named("numpy.timedelta64", unit="D", scale_factor=1)
TEXT = named("fixed_length_utf32", length_bytes=12)
ASCII = named("null_terminated_bytes", length_bytes=4)
RAW = named("raw_bytes", length_bytes=3)
POINT = named("struct", fields=[["y", "float32"], ["x", "float32"]])
RECORD = named("struct", fields=[["id", "int32"], {"name": "at", "data_type": POINT}])


def v3_spec(data_type: Any, value: Any, **changes: Any) -> ArraySpec:
    codecs = {"string": ["vlen-utf8"], "bytes": ["vlen-bytes"]}
    little = named("bytes", endian="little")
    key = data_type if isinstance(data_type, str) else ""
    document = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [4],
        "data_type": data_type,
        "chunk_grid": named("regular", chunk_shape=[4]),
        "chunk_key_encoding": "default",
        "fill_value": value,
        "codecs": codecs.get(key, [little]),
    } | changes
    spec = zarr_v3.parse_node(Document("s://a", document), "")
    assert isinstance(spec, ArraySpec)
    return spec


def v2_document(dtype: Any, value: Any, *filters: str) -> dict[str, Any]:
    return {
        "zarr_format": 2,
        "shape": [4],
        "chunks": [4],
        "dtype": dtype,
        "fill_value": value,
        "order": "C",
        "filters": [{"id": name} for name in filters] or None,
        "compressor": None,
    }


def v2_spec(dtype: Any, value: Any, *filters: str) -> ArraySpec:
    return zarr_v2.parse_array(Document("s://a", v2_document(dtype, value, *filters)), {}, "")


def same_scalar(got: Any, wanted: Any, dtype: np.dtype[Any]) -> None:
    if dtype.hasobject:
        assert (type(got), got) == (type(wanted), wanted)
        return
    native = dtype.newbyteorder("=")
    assert np.array([got], native).tobytes() == np.array([wanted]).astype(native).tobytes()


FLOATS = [0, -1.5, 1, 1e300, "NaN", "Infinity", "-Infinity", 0.1, -0.0, 16777217]
V3_CASES: list[tuple[Any, list[Any]]] = [
    ("bool", [True, False]),
    ("int8", [0, -128, 127, 5.0]),
    ("uint64", [0, MOST, 1 << 63, 1e18]),
    ("int64", [-(1 << 63), (1 << 63) - 1, (1 << 53) + 1]),
    ("float16", [*FLOATS, "0x3c01"]),
    ("float32", [*FLOATS, "0x3f800001"]),
    ("float64", [*FLOATS, "0x3ff0000000000001", (1 << 53) + 1, 10**300]),
    ("complex64", [[0, 1.5], ["NaN", "-Infinity"], ["0x3f800001", -1]]),
    ("complex128", [[0, 1.5], ["NaN", "0x3ff0000000000001"]]),
    (SECONDS, [0, 5, -7, "NaT", -(1 << 63)]),
    (SPAN, [0, 5, -7, "NaT"]),
    (GENERIC, ["NaT"]),
    (TEXT, ["", "abc", "\u00e9\U0001f600"]),
    (ASCII, ["", "YWI=", "YWJjZA=="]),
    (RAW, ["YWJj"]),
    ("string", ["", "abc", "NaN", "\u00e9\U0001f600"]),
    ("bytes", ["", "YWI="]),
]


@pytest.mark.filterwarnings("ignore")  # zarr-python's, of types without a specification
@pytest.mark.parametrize(
    ("data_type", "value"), [(t, value) for t, values in V3_CASES for value in values], ids=repr
)
def test_v3_as_zarr_python(data_type, value):
    wanted = zarr.core.dtype.get_data_type_from_json(data_type, zarr_format=3)
    spec = v3_spec(data_type, value)
    assert native_dtype(spec.dtype) == wanted.to_native_dtype()
    with np.errstate(all="ignore"):
        same_scalar(spec.fill_scalar, wanted.from_json_scalar(value, zarr_format=3), spec.dtype)


FIELDS = [["a", ">i4"], ["b", "|S2"]]
V2_CASES: list[tuple[Any, str | None, list[Any]]] = [
    ("|b1", None, [True, False, 0, 1]),
    (">i4", None, [0, -7, 5.0, "-12"]),
    ("<u8", None, [MOST, 1 << 63]),
    (">f4", None, [*FLOATS, "1.5", "1e3", "-2"]),
    ("<f8", None, FLOATS),
    ("<c8", None, [[0, 1.5], ["NaN", "-Infinity"]]),
    ("|S4", None, ["", "YWI=", "YWJjZA=="]),
    (">U3", None, ["", "abc"]),
    ("|V3", None, ["YWJj"]),
    (">M8[10s]", None, [0, 5, -7, "NaT"]),
    ("<m8", None, [0, 5, "NaT"]),
    ("<M8", None, ["NaT"]),
    ("|O", "vlen-utf8", ["", "abc", 0, 1.5]),
    ("|O", "vlen-bytes", ["", "YWI="]),
    (FIELDS, None, [base64.b64encode(b"\0\0\1\2ab").decode()]),
]


@pytest.mark.parametrize(
    ("dtype", "codec", "value"), [(t, c, v) for t, c, vs in V2_CASES for v in vs], ids=repr
)
def test_v2_as_zarr_python(dtype, codec, value):
    name = {"name": dtype, "object_codec_id": codec}
    wanted = zarr.core.dtype.get_data_type_from_json(name, zarr_format=2)
    spec = v2_spec(dtype, value, *([codec] if codec else []))
    assert spec.dtype == wanted.to_native_dtype()
    with np.errstate(all="ignore"):
        same_scalar(spec.fill_scalar, wanted.from_json_scalar(value, zarr_format=2), spec.dtype)


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        (lambda: v3_spec("r24", [1, 2, 255]), np.void(b"\1\2\xff")),
        (lambda: v3_spec(ASCII, [97, 98]), np.bytes_(b"ab")),
        (lambda: v3_spec("bytes", [0, 255]), b"\0\xff"),
        (lambda: v3_spec("bytes", ""), b""),
        (lambda: v3_spec(SECONDS, 7.0), np.datetime64(7, "10s")),
        (lambda: v3_spec("complex_float32", [2, 1]), np.complex64(2 + 1j)),
        (lambda: v3_spec("int4", -8), ml_dtypes.int4(-8)),
        (lambda: v3_spec("uint2", 3.0), ml_dtypes.uint2(3)),
        (lambda: v3_spec("bfloat16", 1.5), ml_dtypes.bfloat16(1.5)),
        (lambda: v3_spec("float8_e5m2", "-Infinity"), ml_dtypes.float8_e5m2("-inf")),
        (lambda: v3_spec("float8_e8m0fnu", 4), ml_dtypes.float8_e8m0fnu(4)),
        (lambda: v3_spec("float4_e2m1fn", 6), ml_dtypes.float4_e2m1fn(6)),
        (lambda: v2_spec("|S4", 0), np.bytes_(b"")),
        (lambda: v2_spec("<U3", 0), np.str_("")),
        (lambda: v2_spec("|V2", 0), np.void(b"\0\0")),
        (lambda: v2_spec("<c16", 2), np.complex128(2)),
        (lambda: v2_spec("|O", 0, "vlen-bytes"), b""),
        (lambda: v2_spec("|O", {"a": [1]}, "json2"), {"a": [1]}),
        (lambda: v2_spec("|O", [1, 2], "msgpack2"), [1, 2]),
        (lambda: v2_spec("|O", 0, "json2"), 0),
    ],
)  # fmt: skip
def test_other_forms(spec, wanted):
    got = spec()
    got = got.fill_scalar if isinstance(got, ArraySpec) else got
    assert got == wanted


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        (lambda: v2_spec("<f4", None), np.float32(0)),
        (lambda: v2_spec("<M8[s]", None), np.datetime64(0, "s")),
        (lambda: v2_spec(FIELDS, None), np.zeros(1, [("a", "<i4"), ("b", "S2")])[0]),
        (lambda: v2_spec("<U3", None), ""),
        (lambda: v2_spec("|O", None, "vlen-utf8"), ""),
        (lambda: v2_spec("|O", None, "vlen-bytes"), b""),
        (lambda: v2_spec("|O", None, "json2"), None),
    ],
)
def test_null_of_v2_is_undefined_and_reads_as_nothing(spec, wanted):
    assert spec().fill_value is None
    assert spec().fill_scalar == wanted


# ---- every bit, as far as the result -------------------------------------------------------------

PAYLOADS = {
    "float16": ["0x7e00", "0x7c01", "0xfe7f", "0x8000", "0x0001"],
    "float32": ["0x7fc00000", "0x7f800001", "0xffc12345", "0x80000000", "0x00000001"],
    "float64": ["0x7ff8000000000000", "0x7ff0000000000001", "0xfff8dead0000beef"],
    "bfloat16": ["0x7fc0", "0x7f81", "0xffff", "0x8000"],
    "float8_e5m2": ["0x7e", "0x7d", "0xff"],
    "float8_e4m3fn": ["0x7f", "0xff", "0x80"],
    "float8_e8m0fnu": ["0xff", "0x00"],
    "float4_e2m1fn": ["0x0f", "0x08"],
}
PARTS = {
    **{name: (name, 1) for name in PAYLOADS},
    "complex64": ("float32", 2),
    "complex128": ("float64", 2),
    "complex_float16": ("float16", 2),
    "complex_bfloat16": ("bfloat16", 2),
}


def bits_of(name: str) -> list[tuple[Any, bytes]]:
    """Fill values in hexadecimal, and their little-endian bytes."""
    part, count = PARTS[name]
    cases = []
    for number, text in enumerate(PAYLOADS[part]):
        texts = [text, PAYLOADS[part][number - 1]][:count]
        data = b"".join(bytes.fromhex(t[2:])[::-1] for t in texts)
        cases.append((texts if count == 2 else text, data))
    return cases


def empty_array(tmp_path: Any, document: dict[str, Any], name: str = "zarr.json") -> Any:
    (tmp_path / name).write_text(json.dumps(document))
    return zg.open(tmp_path)


@pytest.mark.parametrize("name", sorted(PARTS))
def test_every_bit_arrives_on_the_host(name, tmp_path):
    for value, data in bits_of(name):
        for endian in ("little", "big"):
            array = empty_array(
                tmp_path,
                {
                    "zarr_format": 3,
                    "node_type": "array",
                    "shape": [3, 40],
                    "data_type": name,
                    "chunk_grid": named("regular", chunk_shape=[2, 4]),
                    "chunk_key_encoding": "default",
                    "fill_value": value,
                    "codecs": [named("bytes", endian=endian)],
                },
            )
            assert array.fill_value.tobytes() == data
            assert array[...].tobytes() == data * 120
            assert array.oindex[[0, 2], list(range(0, 40, 2))].tobytes() == data * 40
            assert array.read_patches([(-1, -1)], (2, 2)).tobytes() == data * 4


@pytest.mark.parametrize(
    ("dtype", "codec", "value", "wanted"),
    [
        ("|O", "vlen-utf8", "a\u00e9", "a\u00e9"),
        ("|O", "vlen-bytes", "YQBiAA==", b"a\0b\0"),
        ("|O", "json2", [1, {"a": None}], [1, {"a": None}]),
        ("|O", "json2", None, None),
        (">U3", None, "abc", "abc"),
        ("|S3", None, "YQBi", b"a\0b"),
    ],
)
def test_strings_and_objects_arrive(dtype, codec, value, wanted, tmp_path):
    filters = [codec] if codec else []
    array = empty_array(tmp_path, v2_document(dtype, value, *filters), ".zarray")
    assert array[...].tolist() == [wanted] * 4
    assert array.oindex[[3, 1]].tolist() == [wanted] * 2


@pytest.mark.parametrize("name", ["float16", "float32", "float64", "complex64", "complex128"])
def test_every_bit_arrives_on_the_device(name, tmp_path, cuda):
    for value, data in bits_of(name):
        dtype = {"float16": ">f2", "float32": "<f4", "float64": ">f8"}.get(name, f">c{len(data)}")
        array = empty_array(tmp_path, v2_document(dtype, value) | {"shape": [5]}, ".zarray")
        got = array.read(device=cuda)
        assert np.asarray(cuda_to_host(got)).tobytes() == data * 5


def cuda_to_host(array: Any) -> Any:
    return array.get() if hasattr(array, "get") else array


def test_every_bit_arrives_in_a_structure():
    dtype = named("struct", fields=[["h", "float16"], ["c", "complex64"], ["b", "bfloat16"]])
    spec = v3_spec(dtype, {"h": "0x7c01", "c": ["0x7f800001", "0xffc00123"], "b": "0x7f81"})
    assert spec.fill_scalar.tobytes().hex() == "017c" + "0100807f2301c0ff" + "817f"


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_structures_in_base64(zarr_format):
    # bytes as the array has them: the fields' order in v2, little-endian in v3
    stored = np.array([(-7, (1.5, np.nan))], [("id", "<i4"), ("at", [("y", "<f4"), ("x", "<f4")])])
    if zarr_format == 2:
        big = stored.astype(stored.dtype.newbyteorder(">"))
        fields = [["id", ">i4"], ["at", [["y", ">f4"], ["x", ">f4"]]]]
        spec = v2_spec(fields, base64.b64encode(big.tobytes()).decode())
    else:
        text = base64.b64encode(stored.tobytes()).decode()
        spec = v3_spec(RECORD, text, codecs=[named("bytes", endian="big")])
    assert spec.fill_scalar.tobytes() == stored.tobytes()


# ---- what is none --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data_type", "value", "message"),
    [
        ("int8", 128, "at fill_value: 128 is not a value of int8: expected -128 to 127"),
        ("uint64", 18446744073709551616, "expected 0 to 18446744073709551615"),
        ("uint64", 18446744073709551615.0, "expected 0 to 18446744073709551615"),
        ("int4", 8, "expected -8 to 7"),
        ("uint2", -1, "expected 0 to 3"),
        ("int4", True, "expected an integer"),
        ("float32", "0x7fc0", "0x and 8 digits"),
        ("bfloat16", "0x7fc00000", "0x and 4 digits"),
        ("bfloat16", [1], "expected a number"),
        ("float4_e2m1fn", "NaN", "the type has no such number, its largest is 6.0"),
        ("float4_e2m1fn", "Infinity", "its largest is 6.0"),
        ("float6_e2m3fn", 8, "its largest is 7.5"),
        ("float8_e4m3fn", 1e9, "its largest is 448"),
        ("float8_e8m0fnu", -1, "the type has no such number"),
        ("complex64", [1, 2, 3], "expected two numbers"),
        ("complex_bfloat16", [1], "expected two numbers"),
        ("complex_float16", ["x", 1], "0x and 4 digits"),
        ("r16", [1, 2, 3], "has 3 bytes, the type 2"),
        (RAW, "YQ==", "has 1 bytes, the type 3"),
        (RAW, "Y*Q=", "fill_value"),
        (RAW, 0, "expected base64"),
        (ASCII, "YWJjZGU=", "has 5 bytes, the type 4"),
        (ASCII, "\u00e9", "fill_value"),
        (TEXT, "abcd", "has 4 characters, the type 3"),
        (TEXT, 0, "expected a string"),
        (SECONDS, 1.5, "expected an integer"),
        (SECONDS, 1 << 63, "expected -9223372036854775808 to"),
        (SECONDS, "1970", "expected an integer"),
        ("string", 1, "expected a string"),
        ("string", "\ud800", "fill_value"),
        ("bytes", 0, "expected base64"),
        ("string", None, "fill_value"),
        (RECORD, {"id": 1}, "at fill_value.at: .* it is missing"),
        (RECORD, {"id": 1, "at": {"y": 0, "x": "a"}}, "at fill_value.at.x: .*8 digits"),
        (RECORD, {"id": 1, "at": {"y": 0, "x": 0, "z": 0}}, "at fill_value.at.z: .*no such field"),
        (RECORD, [1, [0, 0]], "at fill_value: .*has 2 bytes|fill_value"),
        (RECORD, 0, "at fill_value: .*expected base64"),
    ],
    ids=repr,
)
def test_refusals(data_type, value, message):
    with pytest.raises(MetadataError, match=message):
        v3_spec(data_type, value)


def test_fields_of_many_elements_are_not_given_one_by_one():
    with pytest.raises(MetadataError, match=r"at fill_value.a: .*expected base64 of the whole"):
        v2_spec([["a", "<i4", [2]]], {"a": [1, 2]})


DTYPES = [
    *map(
        np.dtype, ["?", "i1", "u8", "f2", "f4", "f8", "f16", "c8", "c16", "c32", "S3", "U2", "V2"]
    ),
    *map(np.dtype, [">i4", ">f8", ">c8", ">U2", "M8", "m8[s]", ">M8[10us]", "O"]),
    np.dtypes.StringDType(),
    *(
        np.dtype(getattr(ml_dtypes, n))
        for n in ("bfloat16", "int4", "float8_e8m0fnu", "bcomplex32")
    ),
    np.dtype([("a", "i1"), ("b", [("c", ">f4"), ("d", ml_dtypes.int2)]), ("e", "i2", 2)]),
    np.dtype([("a", "S2"), ("b", "M8[s]")]),
]
ANY_JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(1 << 70), 1 << 70),
        st.sampled_from([10**400, -(1 << 63), 0, 1, "NaT", "NaN", "Infinity", "9" * 5000, "0x7f"]),
        st.floats(),
        st.text(max_size=6),
        st.binary(max_size=12).map(lambda data: base64.b64encode(data).decode()),
        st.from_regex(r"0x[0-9a-f]{1,32}", fullmatch=True),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from("abcde"), inner, max_size=5)
    ),
    max_leaves=6,
)


@settings(max_examples=500, deadline=None)
@given(dtype=st.sampled_from(DTYPES), value=ANY_JSON, zarr_format=st.sampled_from([2, 3]))
def test_any_json_is_a_value_or_an_error(dtype, value, zarr_format):
    document = Document("s://a", {"fill_value": value, "filters": [{"id": "vlen-bytes"}]})
    try:
        got = parse_fill_value(document, dtype, zarr_format)
    except MetadataError as error:
        place = error.location
    else:
        place = ()
    if place:
        assert place[0] == "fill_value"
    elif value is None or dtype.hasobject:
        assert got is None or isinstance(got, (str, bytes))
    else:
        assert np.array([got], dtype.newbyteorder("=")).dtype == dtype.newbyteorder("=")
        assert got.dtype.kind == dtype.kind
