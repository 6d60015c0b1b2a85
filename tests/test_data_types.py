"""Laws of data types.

1. An array of any type, in either format and byte order, is read as zarr-python reads it, or as
   TensorStore does where zarr-python has no such type: same type, same bytes.
2. Whatever JSON stands for a type gives a type of bounded size, or an error that names the place.
3. A CUDA device refuses by name what a CuPy array cannot hold.
"""

from __future__ import annotations

import json
import math
import time
import warnings
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tensorstore
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

import zarrgpu as zg
from zarrgpu.codecs.base import CodecError
from zarrgpu.codecs.element_bytes import ElementBytesCodec
from zarrgpu.errors import (
    MetadataError,
    MissingDependencyError,
    SelectionError,
    UnsupportedCodecError,
    UnsupportedFormatError,
)
from zarrgpu.formats.data_types import object_data_type, parse_v2_data_type, parse_v3_data_type
from zarrgpu.formats.document import Document
from zarrgpu.formats.extended_types import EXTENDED_TYPES, element_bytes
from zarrgpu.formats.fill_values import parse_fill_value

SHAPE, CHUNKS = (7, 5), (3, 2)
SELECTIONS = [(), (slice(1, 6, 2), slice(None, 4)), (3, slice(1, 3)), (6, 4)]

NESTED = np.dtype([("id", "<i4"), ("at", [("y", "<f4"), ("x", "<f4")]), ("name", "S3")])
FIXED_TYPES = [
    *(np.dtype(o + code) for code in ("i2", "u8", "f2", "f8", "c8", "c16") for o in "<>"),
    *map(np.dtype, ["?", "i1", "S5", "<U3", ">U3", "V6"]),
    *map(np.dtype, ["<M8[ns]", ">M8[10us]", "<m8[s]", ">m8[D]", "<M8", "<m8", "<M8[7M]"]),
    np.dtype([("a", "u1"), ("u", "<U2"), ("c", "<c8"), ("b", "?"), ("f", "<f2")]),
    np.dtype([("a", "u1"), ("u", ">U2"), ("c", ">c8"), ("b", "?"), ("f", "<f2")]),
]  # fmt: skip


def values(dtype: np.dtype[Any], shape: tuple[int, ...] = SHAPE, seed: int = 0) -> np.ndarray:
    """Any bits that are a value of the type: NaNs with payloads, NaT, strings with zeros inside."""
    count = math.prod(shape)
    bits = np.random.default_rng(seed).integers(0, 256, (count, dtype.itemsize), np.uint8)
    data = np.ascontiguousarray(bits).reshape(-1).view(dtype)
    for name, field in _leaves(dtype):
        target = data
        for part in name:
            target = target[part]
        if field.kind == "U":
            target[...] = np.random.default_rng(seed).choice(["", "ab", "\u00e9\U0001f600"], count)
        elif field.kind == "b":
            target[...] = np.arange(count) % 3 == 0
    return data.reshape(shape)


def _leaves(dtype: np.dtype[Any]) -> list[tuple[tuple[str, ...], np.dtype[Any]]]:
    if dtype.names is None:
        return [((), dtype)]
    parts = [(name, dtype.fields[name][0]) for name in dtype.names]
    return [((name, *inner), leaf) for name, part in parts for inner, leaf in _leaves(part)]


def same(got: Any, wanted: Any) -> None:
    """Same type and bytes, up to byte order."""
    got, wanted = np.asarray(got), np.asarray(wanted)
    assert got.dtype == wanted.dtype.newbyteorder("=")
    assert got.dtype.isnative
    assert got.shape == wanted.shape
    assert got.tobytes() == wanted.astype(got.dtype).tobytes()


def create(path: Path, dtype: Any, **options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of types that zarr-python calls unstable
        options = {"shape": SHAPE, "chunks": CHUNKS} | options
        return zarr.create_array(path, dtype=dtype, **options)


def open_peer(path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return zarr.open_array(path, mode="r")


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("dtype", FIXED_TYPES, ids=str)
def test_types_of_fixed_size(dtype, zarr_format, tmp_path):
    data = values(dtype)
    if zarr_format == 3 and dtype.names is not None:
        dtype = dtype.newbyteorder("<")  # zarr-python 3.1 would not say in which order it wrote
        data = data.astype(dtype)
    fill = {"fill_value": np.datetime64("NaT")} if dtype == np.dtype("M8") else {}
    order = "CF"[zarr_format == 2]
    peer = create(tmp_path, dtype, zarr_format=zarr_format, order=order, **fill)
    peer[:6] = data[:6]  # the last chunks hold fill values, or are not there
    array = zg.open(tmp_path)
    if not fill:  # zarr-python 3.1 does not open again what it wrote
        peer = open_peer(tmp_path)
    assert array.dtype == dtype.newbyteorder("=")
    for selection in SELECTIONS:
        same(array[selection], peer[selection])
    same(array[:6], data[:6])
    same(array.read_patches([(0, 0), (2, 1), (3, 3)], (2, 2))[1], data[2:4, 1:3])


@pytest.mark.parametrize("dtype", ["u1", "<U3", "<M8[s]"])
def test_types_in_shards(dtype, tmp_path):
    data = values(np.dtype(dtype))
    create(tmp_path, dtype, shape=(8, 4), chunks=(2, 2), shards=(4, 4), zarr_format=3)
    zarr.open_array(tmp_path)[:7, :4] = data[:, :4]
    same(zg.open(tmp_path)[:7], data[:, :4])


def v3(path: Path, data_type: Any, data: np.ndarray, fill_value: Any, endian: str | None) -> None:
    """One chunk of v3, written by hand: `data` in the byte order that it shall be stored in."""
    bytes_codec: dict[str, Any] = {"name": "bytes"}
    if endian is not None:
        bytes_codec["configuration"] = {"endian": endian}
    document = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [*data.shape[:-1], data.shape[-1] + 1],
        "data_type": data_type,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(data.shape)}},
        "chunk_key_encoding": {"name": "default"},
        "fill_value": fill_value,
        "codecs": [bytes_codec],
    }
    path.mkdir(exist_ok=True)
    (path / "zarr.json").write_text(json.dumps(document))
    (path / "c" / "0").mkdir(parents=True, exist_ok=True)
    (path / "c" / "0" / "0").write_bytes(data.tobytes())


STRUCT_FIELDS = [
    {"name": "id", "data_type": "int32"},
    {
        "name": "at",
        "data_type": {
            "name": "struct",
            "configuration": {"fields": [["y", "float32"], ["x", {"name": "float32"}]]},
        },
    },
    ["name", {"name": "null_terminated_bytes", "configuration": {"length_bytes": 3}}],
]


@pytest.mark.parametrize("endian", ["little", "big", None])
@pytest.mark.parametrize("name", ["struct", "structured"])
def test_structures_of_v3(name, endian, tmp_path):
    # by the registry's page: packed, all fields in one byte order, little-endian where none is said
    data = values(NESTED.newbyteorder(">" if endian == "big" else "<"))
    fill = {"id": -7, "at": {"y": "NaN", "x": "0x7fc00123"}, "name": "YWI="}
    v3(tmp_path, {"name": name, "configuration": {"fields": STRUCT_FIELDS}}, data, fill, endian)
    array = zg.open(tmp_path)
    assert array.dtype == NESTED
    same(array[:, :-1], data)
    filled = array[0, -1]
    assert (filled["id"], filled["name"]) == (-7, b"ab")
    assert np.asarray(filled["at"]).tobytes() == np.array([0x7FC00000, 0x7FC00123], "<u4").tobytes()


V2_STRUCTURES = {
    "shapes": [["rgb", ">u2", [2, 3]], ["", "|V1"], ["z", [["re", "<f4", 2]]]],
    "nested": [["id", ">i4"], ["at", [["y", "<f4"], ["t", ">M8[10s]"]]], ["name", "|S3"]],
}


@pytest.mark.parametrize("name", V2_STRUCTURES)
def test_structures_of_v2(name, tmp_path):
    # zarr-python 3.1 cannot write these; the specification has them, and zarr-python 2 wrote them
    def of(fields):
        if isinstance(fields, str):
            return fields
        return [(f[0], of(f[1]), *(tuple(np.atleast_1d(n)) for n in f[2:])) for f in fields]

    dtype = np.dtype(of(V2_STRUCTURES[name]))
    data = values(dtype, (4,))
    document = {
        "zarr_format": 2,
        "shape": [4],
        "chunks": [4],
        "dtype": V2_STRUCTURES[name],
        "fill_value": None,
        "order": "C",
        "filters": None,
        "compressor": None,
    }
    (tmp_path / ".zarray").write_text(json.dumps(document))
    (tmp_path / "0").write_bytes(data.tobytes())
    same(zg.open(tmp_path)[...], data)


TENSORSTORE_TYPES = [
    "bfloat16", "float4_e2m1fn", "float8_e3m4", "float8_e4m3b11fnuz", "float8_e4m3fn",
    "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "int2", "int4",
]  # fmt: skip
INTEGERS = {"int2": (-2, 2), "int4": (-8, 8), "uint2": (0, 4), "uint4": (0, 16)}


def extended_values(name: str, dtype: np.dtype[Any], shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    rng = np.random.default_rng(3)
    if name in INTEGERS:
        return rng.integers(*INTEGERS[name], shape).astype(dtype)
    if name.startswith("complex"):
        parts = rng.integers(-8, 8, (*shape, 2)).astype(np.float32) / 2
        return parts.view(np.complex64)[..., 0].astype(dtype)
    return (2.0 ** rng.integers(-1, 2, shape)).astype(dtype)


@pytest.mark.parametrize("endian", ["little", "big"])
@pytest.mark.parametrize("name", TENSORSTORE_TYPES)
def test_types_of_ml_dtypes_as_tensorstore_writes_them(name, endian, tmp_path):
    codecs = [{"name": "bytes", "configuration": {"endian": endian}}, {"name": "zstd"}]
    peer = tensorstore.open(
        {
            "driver": "zarr3",
            "kvstore": {"driver": "file", "path": str(tmp_path)},
            "metadata": {
                "data_type": name,
                "shape": SHAPE,
                "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": CHUNKS}},
                "codecs": codecs,
                "fill_value": 1,
            },
        },
        create=True,
    ).result()
    dtype = peer.dtype.numpy_dtype
    data = extended_values(name, dtype)
    peer[:5].write(data[:5]).result()
    array = zg.open(tmp_path)
    assert array.dtype == dtype
    for selection in SELECTIONS:
        same(array[selection], peer[selection].read().result())
    same(array[:5], data[:5])


@pytest.mark.parametrize("name", ["bfloat16", "float8_e5m2", "int4", "float6_e2m3fn"])
def test_types_of_ml_dtypes_as_float32(name, tmp_path):
    data = extended_values(name, np.dtype(getattr(ml_dtypes, name)))
    v3(tmp_path, name, data, 1, "little")
    array = zg.open(tmp_path)
    got = array.read(dtype="float32")
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got[:, :-1], data.astype(np.float32))
    assert (got[:, -1] == 1).all()


def test_complex_numbers_of_ml_dtypes_are_not_cast(tmp_path):
    v3(tmp_path, "complex_float16", np.zeros((2, 2), "V4"), [1, 1], "little")
    with pytest.raises(SelectionError, match="cannot deliver complex32 as float32"):
        zg.open(tmp_path).read(dtype="float32")


def test_bfloat16_of_v2_as_tensorstore_writes_it(tmp_path):
    spec = {
        "driver": "zarr",
        "kvstore": {"driver": "file", "path": str(tmp_path)},
        "metadata": {"dtype": "bfloat16", "shape": SHAPE, "chunks": CHUNKS},
    }
    data = extended_values("bfloat16", np.dtype(ml_dtypes.bfloat16))
    tensorstore.open(spec, create=True).result().write(data).result()
    same(zg.open(tmp_path)[...], data)


@pytest.mark.parametrize("endian", ["little", "big"])
@pytest.mark.parametrize("name", sorted(EXTENDED_TYPES))
def test_types_of_ml_dtypes_by_the_letter(name, endian, tmp_path):
    # what TensorStore has not, too: bytes of each part in the order said
    dtype = np.dtype(getattr(ml_dtypes, EXTENDED_TYPES[name]))
    data = extended_values(name, dtype)
    word = dtype.itemsize // 2 if name.startswith("complex") else dtype.itemsize
    stored = data.view(f"u{word}").astype(f"{'<>'[endian == 'big']}u{word}")
    fill = [1, 0.5] if name.startswith("complex") else 1
    v3(tmp_path, name, stored.view(f"V{dtype.itemsize}"), fill, endian)
    array = zg.open(tmp_path)
    same(array[:, :-1], data)
    wanted = complex(1, 0.5) if name.startswith("complex") else 1
    assert complex(array[0, -1]) == wanted
    structure = np.dtype([("a", "<i4"), ("b", dtype), ("c", dtype)])
    records = np.zeros(data.shape, structure)
    records["a"], records["b"], records["c"] = 1 << 20, data, data
    swapped = np.zeros(
        data.shape, [("a", f"{'<>'[endian == 'big']}i4"), ("bc", f"V{dtype.itemsize}", 2)]
    )
    swapped["a"] = records["a"]
    swapped["bc"] = stored.view(f"V{dtype.itemsize}")[..., None]
    fields = [["a", "int32"], ["b", name], ["c", name]]
    data_type = {"name": "struct", "configuration": {"fields": fields}}
    v3(tmp_path, data_type, swapped, {"a": 0, "b": fill, "c": fill}, endian)
    same(zg.open(tmp_path)[:, :-1], records)


@pytest.mark.parametrize(
    ("name", "bits"), [("float4_e2m1fn", 4), ("float6_e2m3fn", 6), ("float6_e3m2fn", 6)]
)
def test_upper_bits_of_small_floats_do_not_count(name, bits, tmp_path):
    stored = np.arange(256, dtype=np.uint8).reshape(16, 16)
    v3(tmp_path, name, stored, 0, None)
    wanted = (stored & ((1 << bits) - 1)).view(getattr(ml_dtypes, name))
    same(zg.open(tmp_path)[:, :-1], wanted)


@pytest.mark.parametrize("name", ["int2", "int4", "uint2", "uint4"])
def test_upper_bits_of_small_integers_do_not_count(name, tmp_path):
    stored = np.arange(256, dtype=np.uint8).reshape(16, 16)
    v3(tmp_path, name, stored, 0, None)
    bits, (low, high) = int(name[-1]), INTEGERS[name]
    wanted = stored.astype(int) % (1 << bits)
    wanted = np.where(wanted >= high, wanted - (high - low), wanted)
    np.testing.assert_array_equal(zg.open(tmp_path)[:, :-1].astype(int), wanted)


def test_transposed_types_of_ml_dtypes(tmp_path):
    data = extended_values("float8_e5m2", np.dtype(ml_dtypes.float8_e5m2), (4, 6))
    v3(tmp_path, "float8_e5m2", data, 0, "big")
    document = json.loads((tmp_path / "zarr.json").read_text())
    reshape = {"name": "reshape", "configuration": {"shape": [[0], [1]]}}
    transpose = {"name": "transpose", "configuration": {"order": [1, 0]}}
    document["codecs"] = [reshape, transpose, *document["codecs"]]
    (tmp_path / "zarr.json").write_text(json.dumps(document))
    (tmp_path / "c/0/0").write_bytes(np.ascontiguousarray(data.T).tobytes())
    same(zg.open(tmp_path)[:, :-1], data)


@pytest.mark.parametrize(
    ("name", "bits"), [("int4", 4), ("uint2", 2), ("float6_e3m2fn", 6), ("bfloat16", 16)]
)
def test_packed_types_of_ml_dtypes(name, bits, tmp_path):
    data = extended_values(name, np.dtype(getattr(ml_dtypes, name)), (3, 5))
    each = data.reshape(-1, 1).view(np.uint8)
    packed = np.packbits(
        np.unpackbits(each, axis=1, bitorder="little")[:, :bits], bitorder="little"
    )
    v3(tmp_path, name, data, 0, "little")
    document = json.loads((tmp_path / "zarr.json").read_text()) | {"codecs": ["packbits"]}
    (tmp_path / "zarr.json").write_text(json.dumps(document))
    (tmp_path / "c/0/0").write_bytes(packed.tobytes())
    got = zg.open(tmp_path)[:, :-1]
    np.testing.assert_array_equal(got.astype(float), data.astype(float))


@pytest.mark.parametrize(
    "codec",
    [
        {"name": "numcodecs.delta", "configuration": {"dtype": "<f4"}},
        {"name": "scale_offset", "configuration": {"offset": 1}},
        {"name": "cast_value", "configuration": {"data_type": "int8"}},
    ],
)
def test_no_codec_computes_with_ml_dtypes(codec, tmp_path):
    data_type = "float8_e5m2"  # NumPy takes it for a float of its own
    v3(tmp_path, data_type, np.zeros((2, 2), np.uint8), 0, "little")
    document = json.loads((tmp_path / "zarr.json").read_text())
    document["codecs"].insert(0, codec)
    (tmp_path / "zarr.json").write_text(json.dumps(document))
    with pytest.raises((UnsupportedCodecError, MetadataError), match=r"float8_e5m2"):
        zg.open(tmp_path)


def test_missing_ml_dtypes_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ml_dtypes", None)
    with pytest.raises(MissingDependencyError, match=r"bfloat16.*pip install 'zarrgpu.extended"):
        parse_v3_data_type(Document("s://a", {"data_type": "bfloat16"}))


def test_old_ml_dtypes_is_named(monkeypatch):
    monkeypatch.delattr(ml_dtypes, "bcomplex32")
    with pytest.raises(MissingDependencyError, match="newer ml_dtypes than"):
        parse_v3_data_type(Document("s://a", {"data_type": "complex_bfloat16"}))


@pytest.mark.parametrize(
    "dtype",
    [np.dtype(t) for t in ("S3", "<U3", "V4", "<M8[s]", "<m8[s]")]
    + [NESTED, *(np.dtype(getattr(ml_dtypes, EXTENDED_TYPES[n])) for n in sorted(EXTENDED_TYPES))],
    ids=str,
)
def test_cuda_refuses_what_no_cupy_array_holds(dtype, tmp_path, cuda):
    names = {EXTENDED_TYPES[n]: n for n in EXTENDED_TYPES}
    if dtype.name in names:
        v3(
            tmp_path,
            names[dtype.name],
            np.zeros((2, 2), dtype),
            [1, 1] if "complex" in dtype.name else 1,
            "little",
        )
    else:
        create(tmp_path, dtype, zarr_format=2)
    with pytest.raises(
        SelectionError, match="cannot lie on a GPU; read with device='cpu'"
    ) as error:
        zg.open(tmp_path).read(device=cuda)
    assert str(dtype) in str(error.value)


@pytest.mark.parametrize(
    "configuration",
    [
        {},
        {"order": [0], "mask": None},
        {"order": [], "mask": []},
        {"order": [0, 0], "mask": [255, 255]},
        {"order": [0, 1], "mask": [255, 256]},
        {"order": [0, 1], "mask": [255]},
        {"order": [True, 0], "mask": [255, 255]},
        {"order": [["a"], 0], "mask": [255, 255]},
    ],
)
def test_the_order_of_bytes_is_not_for_documents(configuration, tmp_path):
    v3(tmp_path, "uint16", np.zeros((2, 2), "<u2"), 0, "little")
    document = json.loads((tmp_path / "zarr.json").read_text())
    document["codecs"].append(named("element_bytes", **configuration))
    (tmp_path / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(UnsupportedCodecError, match="'element_bytes' has no decoder"):
        zg.open(tmp_path)


def test_order_of_bytes_keeps_whole_elements():
    codec = ElementBytesCodec.from_configuration({"order": [2, 0, 1], "mask": [255, 15, 255]})
    encoded = np.arange(250, 256, dtype=np.uint8)
    wanted = [252, 250 & 15, 251, 255, 253 & 15, 254]
    out = np.empty(6, np.uint8)
    assert codec.decode_host(encoded, 6, None).tolist() == wanted
    assert codec.decode_host(encoded, 6, out) is out
    assert out.tolist() == wanted
    assert codec.encoded_nbytes(6) == 6
    for size in (3, 7):
        with pytest.raises(CodecError):
            codec.decode_host(np.zeros(size, np.uint8), 6, out)
    with pytest.raises(CodecError, match="not whole elements of 3"):
        codec.decode_host(np.zeros(4, np.uint8), 6, None)


# ---- what is a type, and what is not ------------------------------------------------------------


def of_v3(value: Any) -> np.dtype[Any]:
    return parse_v3_data_type(Document("s://a", {"data_type": value}))


def of_v2(value: Any, *filters: str, compressor: Any = None) -> np.dtype[Any]:
    return parse_v2_data_type(
        Document(
            "s://a",
            {"dtype": value, "filters": [{"id": f} for f in filters], "compressor": compressor},
        )
    )


def named(name: str, **configuration: Any) -> dict[str, Any]:
    return {"name": name, "configuration": configuration}


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("string", np.dtypes.StringDType()),
        ({"name": "string"}, np.dtypes.StringDType()),
        ("variable_length_utf8", np.dtypes.StringDType()),
        ("bytes", np.dtype(object)),
        ("variable_length_bytes", np.dtype(object)),
        ("complex_float32", np.dtype("c8")),
        ("complex_float64", np.dtype("c16")),
        ("r24", np.dtype("V3")),
        (named("numpy.datetime64", unit="generic", scale_factor=1), np.dtype("M8")),
        (named("numpy.datetime64", unit="\u03bcs", scale_factor=10), np.dtype("M8[10us]")),
        (named("numpy.timedelta64", unit="\u00b5s", scale_factor=1), np.dtype("m8[us]")),
        (
            named("numpy.timedelta64", unit="Y", scale_factor=2147483647),
            np.dtype("m8[2147483647Y]"),
        ),
        (named("raw_bytes", length_bytes=1 << 24), np.dtype(f"V{1 << 24}")),
    ],
)
def test_v3_forms(value, wanted):
    assert of_v3(value) == wanted


@pytest.mark.parametrize("codec_id", ["vlen-utf8", "vlen-bytes", "json2", "pickle", "categorize"])
def test_v2_objects_depend_on_their_filter(codec_id):
    wanted = np.dtypes.StringDType() if codec_id == "vlen-utf8" else np.dtype(object)
    assert of_v2("|O", codec_id, "zlib") == wanted
    assert of_v2("|O", compressor={"id": codec_id}) == wanted
    assert object_data_type(Document("s://a", {}), codec_id) == wanted


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (None, MetadataError, "at data_type: expected an object"),
        (7, MetadataError, "data_type"),
        ({}, MetadataError, "data_type.name: is missing"),
        ({"name": 1}, MetadataError, "data_type.name: expected a string"),
        ("complex_float8_e5m2", UnsupportedFormatError, "'complex_float8_e5m2' is not read"),
        ("r12", MetadataError, "whole bytes"),
        ("r0", UnsupportedFormatError, "'r0' is not read"),
        ("r99999999999", UnsupportedFormatError, "is not read"),
        ("r8589934592", MetadataError, "1073741824 bytes are not read"),
        (named("int8", bits=8), MetadataError, "'int8' has no configuration"),
        (named("raw_bytes"), MetadataError, "configuration.length_bytes: is missing"),
        (named("raw_bytes", length_bytes=0), MetadataError, "elements of 0 bytes"),
        (named("raw_bytes", length_bytes="4"), MetadataError, "length_bytes: expected a number"),
        (named("raw_bytes", length_bytes=True), MetadataError, "length_bytes: expected a number"),
        (named("raw_bytes", length_bytes=4, more=1), MetadataError, "more: expected length_bytes"),
        (named("fixed_length_utf32", length_bytes=6), MetadataError, "a multiple of 4, got 6"),
        (named("fixed_length_utf32", length_bytes=1 << 40), MetadataError, "bytes are not read"),
        (named("numpy.datetime64", scale_factor=1), MetadataError, "unit: is missing"),
        (named("numpy.datetime64", unit="s"), MetadataError, "scale_factor: is missing"),
        (named("numpy.datetime64", unit="x", scale_factor=1), MetadataError, "unit: expected one"),
        (named("numpy.datetime64", unit="s", scale_factor=0), MetadataError, "integer of 1 to"),
        (named("struct"), MetadataError, "fields: is missing"),
        (named("struct", fields=[]), MetadataError, "fields: expected a list"),
        (named("struct", fields=[1]), MetadataError, "fields.0: expected an object or a pair"),
        (named("struct", fields=[["a"]]), MetadataError, "fields.0"),
        (named("struct", fields=[["", "int8"]]), MetadataError, "fields.0.name: expected a name"),
        (named("struct", fields=[["a", "int8"]] * 2), MetadataError, "fields.1.name: is the name"),
        (named("struct", fields=[["a", "string"]]), MetadataError, "has no fixed size"),
        (named("struct", fields=[["a", "int9"]]), UnsupportedFormatError, "data_type: 'int9'"),
        (
            named("struct", fields=[[c, named("raw_bytes", length_bytes=1 << 23)] for c in "abc"]),
            MetadataError,
            "25165824 bytes are not read",
        ),
    ],
)  # fmt: skip
def test_v3_refusals(value, error, message):
    with pytest.raises(error, match=message):
        of_v3(value)


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ("<c", MetadataError, "expected a NumPy type string"),  # NumPy's type of one character
        ("|b", MetadataError, "expected a NumPy type string"),  # and its int8
        ("<M8[0s]", MetadataError, "counts in zeros"),
        ("<V99999999999", MetadataError, "not a NumPy type"),
        ("|S16777217", MetadataError, "16777217 bytes are not read"),
        ("|O", MetadataError, "at filters: .* needs one of vlen-utf8"),
        ([], MetadataError, "elements of 0 bytes"),
        ([["a", "<i4"], ["a", "<i4"]], MetadataError, "not a NumPy type"),
        ([["a", "<i4", [0]]], MetadataError, "at dtype.0.2: expected a shape"),
        ([["a", "<i4", [1 << 12, 1 << 12]]], MetadataError, "at dtype.0: elements of 67108864"),
        ([["a", [["b", "<i9"]]]], MetadataError, "at dtype.0.1.0.1: not a NumPy type"),
        ([["a", "|O"]], UnsupportedFormatError, "objects in a structure"),
        ([[["title", "a"], "<i4"]], MetadataError, "at dtype.0: expected .name, type"),
    ],
)
def test_v2_refusals(value, error, message):
    with pytest.raises(error, match=message):
        of_v2(value)


def test_deep_structures_are_refused():
    v3_type, v2_type = "int8", "<i4"
    for _ in range(200):
        v3_type = named("struct", fields=[["a", v3_type]])
        v2_type = [["a", v2_type]]
    for parse, value in ((of_v3, v3_type), (of_v2, v2_type)):
        with pytest.raises(UnsupportedFormatError, match="nested more than"):
            parse(value)


def test_structures_of_many_fields_take_linear_time():
    names = [f"f{n}" for n in range(20_000)]
    began = time.process_time()
    dtype = of_v3(named("struct", fields=[[name, "int8"] for name in names]))
    assert dtype.names == tuple(names)
    document = Document("s://a", {"fill_value": dict.fromkeys(names, 3)})
    assert set(parse_fill_value(document, dtype).tolist()) == {3}
    assert time.process_time() - began < 5


def test_large_structures_of_ml_dtypes_are_refused():
    dtype = np.dtype([("a", ml_dtypes.bfloat16), ("b", "V70000")])
    with pytest.raises(UnsupportedFormatError, match="70002 bytes are not read"):
        element_bytes(dtype, "big", "s://a")


WORDS = [
    *("name", "configuration", "fields", "data_type", "length_bytes", "unit", "scale_factor"),
    *("struct", "structured", "raw_bytes", "fixed_length_utf32", "numpy.datetime64", "int8", "s"),
    *("bfloat16", "string", "r8", "r16777216", "<i4", "|S3", ">U2", "<M8[s]", "|O", "<V4", "id"),
    *("<M8[3h/7]", "<m8[\u03bcs]", "|O8", "<f16", "\ud800", "vlen-utf8", "a"),
]
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 70), 1 << 70),
    st.floats(),
    st.sampled_from(WORDS),
    st.text(max_size=6),
    st.from_regex(r"[<>|][biufcSVUmMO][0-9]{0,12}(\[[a-zA-Z0-9/]{0,6}\])?", fullmatch=True),
)
ANY_JSON = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
        st.fixed_dictionaries({"name": st.sampled_from(WORDS), "configuration": inner}),
        st.fixed_dictionaries({"name": st.just("struct"), "configuration": st.fixed_dictionaries(
            {"fields": st.lists(st.tuples(st.text(max_size=2), inner).map(list), max_size=3)}
        )}),
        st.lists(st.tuples(st.text(max_size=2), inner).map(list), min_size=1, max_size=3),
    ),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(value=ANY_JSON, v2=st.booleans())
def test_any_json_is_a_type_or_an_error(value, v2):
    try:
        dtype = of_v2(value, "vlen-utf8") if v2 else of_v3(value)
    except (MetadataError, UnsupportedFormatError):
        pass
    else:
        assert 1 <= dtype.itemsize <= 1 << 24
