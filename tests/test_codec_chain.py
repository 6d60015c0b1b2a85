"""Law: a codec list becomes one flat chain over bytes, in which every codec knows its elements;
what cannot be decoded is refused by name and place before anything is read.
"""

from __future__ import annotations

import gzip
import json
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.chain_cases import assert_same, chain_of, decode, parse, read, write
from zarrgpu.codecs.base import CodecError
from zarrgpu.errors import MetadataError, UnsupportedCodecError, ZarrGPUError
from zarrgpu.formats import zarr_v2
from zarrgpu.formats.codec_chain import CodecList, parse_codec_list
from zarrgpu.formats.document import Document
from zarrgpu.model import CodecSpec


def codec(name: str, **configuration: Any) -> dict[str, Any]:
    return {"name": name, "configuration": configuration}


BIG, LITTLE = codec("bytes", endian="big"), codec("bytes", endian="little")
SWAP = codec("transpose", order=[1, 0])
DELTA = codec("numcodecs.delta", dtype="<i4", astype="<i2")
NARROW = codec("numcodecs.astype", encode_dtype="i2", decode_dtype="f8")


def parse_list(*items: Any, dtype: Any = "i4", shape: tuple[int, ...] = (3, 4)) -> CodecList:
    document = Document("m://a", {"codecs": list(items)})
    return parse_codec_list(document, "codecs", np.dtype(dtype), shape)


def names(parsed: CodecList) -> list[str]:
    return [spec.name for spec in parsed.codecs]


def test_transposes_that_come_first_move_nothing() -> None:
    cycle = codec("transpose", order=[1, 2, 0])
    parsed = parse_list(cycle, cycle, LITTLE, shape=(2, 3, 4))
    assert parsed.axis_order == (2, 0, 1)
    assert parsed.codecs == ()
    assert parsed.inner_shape == (4, 2, 3)
    assert parse_list(codec("transpose", order="F"), LITTLE).axis_order == (1, 0)
    assert parse_list(codec("transpose", order="C"), LITTLE).axis_order == (0, 1)


@given(st.lists(st.permutations(range(3)), max_size=4), st.integers(0, 4))
def test_transposes_anywhere_are_numpys(orders: list[list[int]], split: int) -> None:
    data = np.arange(24, dtype="<i4").reshape(2, 3, 4)
    items = [codec("transpose", order=order) for order in orders]
    items.insert(min(split, len(items)), codec("reshape", shape=[[0], [1], [2]]))
    stored = data
    for order in orders:
        stored = stored.transpose(order)
    parsed = parse_list(*items, BIG, dtype="i4", shape=data.shape)
    objects = write(data, data.shape, zarr_format=3)
    document = json.loads(objects["zarr.json"]) | {"codecs": [*items, BIG]}
    spec = parse({"zarr.json": json.dumps(document).encode()})
    assert spec.axis_order == parsed.axis_order
    encoded = np.frombuffer(stored.astype(">i4").tobytes(), np.uint8)
    assert_same(decode(spec, chain_of(spec), encoded), data)


def test_byte_order_goes_to_the_last_codec_that_computes() -> None:
    assert parse_list(BIG).dtype == np.dtype(">i4")
    assert parse_list(codec("bitround", keepbits=3), BIG, dtype="f4").dtype == np.dtype(">f4")
    parsed = parse_list(DELTA, BIG)
    assert parsed.dtype == np.dtype("<i4")
    assert parsed.codecs == (CodecSpec("delta", {"dtype": "<i4", "encoded_dtype": ">i2"}),)
    parsed = parse_list(SWAP, DELTA, SWAP, BIG)
    assert parsed.axis_order == (1, 0)
    assert parsed.codecs[0].configuration["encoded_dtype"] == ">i2"
    assert parsed.codecs[1].configuration == {
        "dtype": ">i2", "encoded_dtype": ">i2", "order": [1, 0], "shape": [4, 3],
    }  # fmt: skip
    assert (parsed.inner_shape, parsed.inner_dtype) == ((3, 4), np.dtype("i2"))


def test_names_are_canonical_and_defaults_filled_in() -> None:
    start = codec("numcodecs.crc32c", location="start")
    shuffle = codec("numcodecs.shuffle")
    items = [shuffle, "numcodecs.zlib", "numcodecs.fletcher32", start, "numcodecs.crc32", "crc32c"]
    parsed = parse_list(NARROW, LITTLE, *items, dtype="f8")
    assert names(parsed) == [
        "astype", "shuffle", "zlib", "fletcher32", "crc32c_start", "crc32", "crc32c",
    ]  # fmt: skip
    assert parsed.codecs[1].configuration == {"elementsize": 2}
    assert parsed.codecs[5].configuration == {"location": "start"}
    assert names(parse_list("packbits", dtype="bool")) == ["packbits"]
    assert names(parse_list(codec("endian", endian="big"))) == []


def test_sharding_is_handed_over_with_what_is_around_it() -> None:
    sharding = codec("sharding_indexed", chunk_shape=[2, 2], codecs=[BIG])
    parsed = parse_list(SWAP, NARROW, sharding, "crc32c", dtype="f8", shape=(4, 6))
    assert parsed.sharding is not None
    assert parsed.sharding.value["chunk_shape"] == [2, 2]
    assert parsed.sharding.location == ("codecs", "2", "configuration")
    assert (parsed.inner_shape, parsed.inner_dtype) == ((6, 4), np.dtype("i2"))
    assert parsed.axis_order == (1, 0)
    assert [spec.name for spec in parsed.array_codecs] == ["astype"]
    assert [spec.name for spec in parsed.bytes_codecs] == ["crc32c"]


def test_strings_begin_their_chain() -> None:
    parsed = parse_list(SWAP, "vlen-utf8", "zstd", dtype=np.dtypes.StringDType())
    assert names(parsed) == ["vlen-utf8", "zstd"]
    assert (parsed.dtype, parsed.axis_order) == (np.dtypes.StringDType(), (1, 0))


@pytest.mark.parametrize(
    ("items", "dtype", "error", "message"),
    [
        ([], "i4", MetadataError, "codecs.*expected a list"),
        ([SWAP], "i4", MetadataError, "codecs: has no array-to-bytes codec"),
        ([SWAP, "gzip", LITTLE], "i4", UnsupportedCodecError, "codecs.1.*'gzip' is no array codec"),
        (["nope"], "i4", UnsupportedCodecError, "codecs.0.*'nope'.*expected one of.*bytes"),
        ([{"name": "nope", "must_understand": False}, LITTLE], "i4", UnsupportedCodecError, "nope"),
        ([LITTLE, SWAP], "i4", MetadataError, "codecs.1.*transpose works on elements"),
        ([LITTLE, DELTA], "i4", MetadataError, "codecs.1.*delta works on elements"),
        ([LITTLE, LITTLE], "i4", MetadataError, "codecs.1.*bytes works on elements"),
        (["bytes"], "i4", MetadataError, "codecs.0.endian: is missing"),
        ([codec("bytes", endian="middle")], "i4", MetadataError, "endian.*'middle'"),
        (["bytes"], "O", MetadataError, "cannot store elements of object"),
        (["vlen-utf8"], "i4", MetadataError, "codecs.0.*vlen-utf8.*elements here are int32"),
        ([DELTA, "vlen-utf8"], "O", MetadataError, "numcodecs.delta works on numbers"),
        ([codec("transpose", order=[0, 0]), LITTLE], "i4", MetadataError, "not a permutation"),
        ([codec("transpose", order=[0]), LITTLE], "i4", MetadataError, "order: has 1 elements"),
        ([codec("numcodecs.delta", dtype="<f4"), LITTLE], "i4", MetadataError,
         "dtype: expected int32, the elements here, got float32"),
        ([codec("numcodecs.delta", dtype="<i2"), LITTLE], "i4", MetadataError, "expected int32"),
        ([codec("numcodecs.delta", dtype=4), LITTLE], "i4", MetadataError,
         "codecs.0.configuration.dtype: expected a NumPy type string, got 4"),
        ([codec("numcodecs.delta", astype="i3"), LITTLE], "i4", MetadataError, "'i3'"),
        ([codec("numcodecs.delta", astype="O"), LITTLE], "i4", MetadataError, "astype"),
        ([codec("numcodecs.fixedscaleoffset", scale=1), LITTLE], "i4", MetadataError,
         "offset: is missing"),
        ([codec("numcodecs.fixedscaleoffset", scale="1", offset=0), LITTLE], "i4", MetadataError,
         "scale: expected a number, got '1'"),
        ([codec("numcodecs.quantize", digits=1), LITTLE], "i4", MetadataError, "dtype.*int32"),
        ([codec("numcodecs.astype", decode_dtype="i4"), LITTLE], "i4", MetadataError,
         "encode_dtype: is missing"),
        ([codec("bitround", keepbits="3"), LITTLE], "f4", MetadataError, "keepbits.*integer of 0"),
        ([codec("bitround"), LITTLE], "f4", MetadataError, "keepbits: is missing"),
        (["numcodecs.packbits", LITTLE], "i4", MetadataError, "packs booleans.*int32"),
        ([codec("packbits", last_bit=40)], "i4", MetadataError, "last_bit.*0 to 31"),
        ([codec("packbits", first_bit=5, last_bit=4)], "i4", MetadataError, "last_bit.*5 to 31"),
        ([codec("packbits", padding_encoding="x")], "bool", MetadataError, "padding_encoding"),
        (["packbits"], "U3", MetadataError, "packs numbers"),
        ([codec("scale_offset", scale=0), LITTLE], "f4", MetadataError, "scale.*zero"),
        ([codec("scale_offset", offset=300), LITTLE], "u1", MetadataError, "offset: 300 is not a"),
        ([codec("scale_offset", more=1), LITTLE], "f4", MetadataError, "more: is none of"),
        (["scale_offset", LITTLE], "c8", MetadataError, "integers and floats.*complex64"),
        (["cast_value", LITTLE], "f4", MetadataError, "data_type: is missing"),
        ([codec("cast_value", data_type="bool"), LITTLE], "f4", UnsupportedCodecError, "cast_v"),
        ([codec("cast_value", data_type="int8", rounding="up"), LITTLE], "f4", MetadataError,
         "rounding.*nearest-even.*'up'"),
        ([codec("cast_value", data_type="float32", out_of_range="wrap"), LITTLE], "f8",
         MetadataError, "out_of_range: float32 does not wrap"),
        ([codec("cast_value", data_type="int8", scalar_map={"decode": [[300, 0]]}), LITTLE], "f4",
         MetadataError, "scalar_map.decode.0.encoded: 300 is not a value of int8"),
        ([codec("cast_value", data_type="int8", scalar_map={"decode": [3]}), LITTLE], "f4",
         MetadataError, "expected a list of pairs"),
        ([codec("reshape", shape=[5]), LITTLE], "f4", MetadataError, "does not keep the 12"),
        ([codec("reshape", shape=[[1], [0]]), LITTLE], "f4", MetadataError, "need a transpose"),
        ([codec("reshape", shape=[[1], 3]), LITTLE], "f4", MetadataError, "need a transpose"),
        ([codec("reshape", shape=[-1, -1]), LITTLE], "f4", MetadataError, "does not keep"),
        ([codec("reshape", shape=[7, -1]), LITTLE], "f4", MetadataError, "does not keep"),
        ([codec("reshape", shape=[[2]]), LITTLE], "f4", MetadataError, "axes below 2"),
        ([codec("reshape", shape="x"), LITTLE], "f4", MetadataError, "list of sizes"),
        ([LITTLE, codec("numcodecs.shuffle", elementsize=-1)], "f4", MetadataError, "elementsize"),
        ([LITTLE, codec("numcodecs.crc32", location="middle")], "f4", MetadataError, "location"),
        ([LITTLE, codec("numcodecs.jenkins_lookup3", initval=-1)], "f4", MetadataError, "initval"),
        ([LITTLE, codec("numcodecs.jenkins_lookup3", prefix="x")], "f4", MetadataError, "prefix"),
        ([LITTLE, codec("numcodecs.lzma", format=4)], "f4", MetadataError, "format.*0 to 3"),
        ([LITTLE, codec("numcodecs.lzma", format=3)], "f4", MetadataError, "filters: is missing"),
        ([LITTLE, codec("numcodecs.lzma", format=3, filters=[{"id": 9}])], "f4", MetadataError,
         "not filters of LZMA"),
        ([LITTLE, codec("numcodecs.lzma", format=3, filters=[{"id": 33, "dict_size": 1 << 31}])],
         "f4", MetadataError, "dictionary above"),
        (["numcodecs.zfpy"], "f4", UnsupportedCodecError, "codecs.0.*zfpy is refused.*damaged"),
        (["zfp"], "f4", UnsupportedCodecError, "codecs.0: zfp is refused"),
        (["numcodecs.pcodec"], "bool", MetadataError, "pcodec holds.*bool"),
        ([codec("n5_default", codecs=[SWAP, LITTLE])], "i4", MetadataError, "big-endian"),
        ([codec("n5_default", codecs=[BIG])], "i4", MetadataError, "reverses the axes"),
        ([codec("n5_default", codecs=[codec("n5_default", codecs=[SWAP, BIG])])], "i4",
         MetadataError, "codecs.0.configuration.codecs: n5_default holds no n5_default"),
        ([codec("n5_default", codecs=["n5_default"])], "i4", MetadataError, "holds no n5_default"),
    ],
)  # fmt: skip
def test_refusals_name_place_and_reason(items: Any, dtype: str, error: Any, message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        parse_list(*items, dtype=dtype)
    assert "m://a" in str(caught.value)


V2 = {
    "zarr_format": 2, "shape": [4], "chunks": [4], "dtype": "<f8", "fill_value": 0, "order": "C",
    "filters": None, "compressor": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("codec_id", "options", "message"),
    [
        ("delta", {}, "filters.0.dtype: is missing"),
        ("delta", {"dtype": "<x4"}, "filters.0.dtype.*'<x4'"),
        ("delta", {"dtype": "<i4", "astype": [1]}, "astype"),
        ("delta", {"dtype": "|S4"}, "not a type that this codec works on"),
        ("fixedscaleoffset", {"dtype": "<f8", "offset": 1}, "scale: is missing"),
        ("fixedscaleoffset", {"dtype": "<f8", "scale": True, "offset": 1}, "expected a number"),
        ("quantize", {"dtype": "<f8", "digits": "many"}, "digits: expected an integer"),
        ("quantize", {"dtype": "<i8", "digits": 1}, "dtype: int64 is not a type"),
        ("astype", {"decode_dtype": "<f8"}, "encode_dtype: is missing"),
        ("bitround", {"keepbits": -1}, "keepbits"),
        ("shuffle", {"elementsize": 2.5}, "elementsize"),
        ("categorize", {"labels": "ab", "dtype": "<U1"}, "labels: expected a list"),
        ("categorize", {"labels": [], "dtype": "<i1"}, "dtype"),
        ("adler32", {"location": 3}, "location"),
        ("lzma", {"filters": 3}, "filters.0.filters"),
        ("vlen-array", {}, "dtype: is missing"),
        ("vlen-utf8", {}, "object array only"),
    ],
)
def test_v2_filters_that_are_wrong(codec_id: str, options: dict[str, Any], message: str) -> None:
    document = V2 | {"filters": [{"id": codec_id, **options}]}
    with pytest.raises(MetadataError, match=message) as caught:
        zarr_v2.parse_array(Document("m://a", document), {}, "")
    assert "m://a" in str(caught.value)
    assert "filters" in str(caught.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 70000) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=5,
)
VALID = [
    (DELTA, "i4"), (codec("numcodecs.fixedscaleoffset", scale=2, offset=1, astype="i2"), "f8"),
    (codec("numcodecs.quantize", digits=2), "f8"), (NARROW, "f8"),
    (codec("bitround", keepbits=3), "f8"), (codec("scale_offset", offset=1, scale=2), "f8"),
    (codec("cast_value", data_type="int8", rounding="towards-zero", out_of_range="clamp",
           scalar_map={"decode": [[1, 2]]}), "f8"),
    (codec("reshape", shape=[[0], 2, -1]), "f8"), (codec("transpose", order=[1, 0]), "f8"),
    (codec("packbits", first_bit=1, last_bit=2, padding_encoding="first_byte"), "i4"),
    (codec("numcodecs.lzma", format=1, filters=[{"id": 33}]), "i4"),
    (codec("numcodecs.crc32", location="end"), "i4"),
    (codec("numcodecs.shuffle", elementsize=4), "i4"),
    (codec("numcodecs.jenkins_lookup3", initval=4, prefix=None), "i4"),
    (codec("n5_default", codecs=[SWAP, BIG, "gzip"]), "i4"),
]  # fmt: skip


@given(st.sampled_from(VALID), JSON, st.data())
def test_any_value_anywhere_is_read_or_refused(case: Any, value: Any, data: Any) -> None:
    item, dtype = case
    key = data.draw(st.sampled_from(sorted(item["configuration"])))
    changed = {**item, "configuration": {**item["configuration"], key: value}}
    after = item["name"] in ("packbits", "n5_default")
    before = item["name"].startswith("numcodecs.") and item["name"][10:] in (
        "lzma", "crc32", "shuffle", "jenkins_lookup3",
    )  # fmt: skip
    items = [changed] if after else [LITTLE, changed] if before else [changed, LITTLE]
    try:
        assert isinstance(parse_list(*items, dtype=dtype), CodecList)
    except ZarrGPUError as error:
        assert "m://a" in str(error)  # noqa: PT017


@pytest.mark.parametrize("name", ["int2", "int4", "uint2", "uint4"])
def test_packbits_of_small_integers(name: str) -> None:
    dtype = np.dtype(getattr(ml_dtypes, name))
    bits = int(name[-1])
    numbers = [n if name[0] == "u" else n - (1 << bits - 1) for n in range(1 << bits)]
    data = np.array(numbers, np.int8).astype(dtype)
    packed = sum((n % (1 << bits)) << (i * bits) for i, n in enumerate(numbers))
    encoded = packed.to_bytes(len(numbers) * bits // 8, "little")
    document = {
        "zarr_format": 3, "node_type": "array", "shape": [len(numbers)], "data_type": name,
        "chunk_grid": codec("regular", chunk_shape=[len(numbers)]), "fill_value": 0,
        "chunk_key_encoding": "default", "codecs": ["packbits"],
    }  # fmt: skip
    got = read({"zarr.json": json.dumps(document).encode(), "c/0": encoded})
    assert got.dtype == dtype
    assert got.astype(np.int8).tolist() == data.astype(np.int8).tolist()


def n5_block(data: np.ndarray, compress: bool = True) -> bytes:
    header = np.array([0, data.ndim], ">u2").tobytes() + np.array(data.shape, ">u4").tobytes()
    stored = data.T.astype(data.dtype.newbyteorder(">")).tobytes()
    return header + (gzip.compress(stored) if compress else stored)


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("dtype", ["i2", "f8", "u1"])
def test_n5_blocks_whole_cut_and_padded(dtype: str, compress: bool) -> None:
    data = np.arange(35).reshape(5, 7).astype(dtype)
    inner = [SWAP, BIG, codec("gzip", level=5)][: 3 if compress else 2]
    objects = write(data, (3, 4), zarr_format=3)
    document = json.loads(objects["zarr.json"]) | {"codecs": [codec("n5_default", codecs=inner)]}
    padded = np.zeros((6, 9), dtype)
    padded[:5, :7] = data
    blocks = {
        "c/0/0": data[:3, :4], "c/0/1": data[:3, 4:], "c/1/0": padded[3:, :4],
        "c/1/1": padded[3:, 4:9],
    }  # fmt: skip
    stored = {key: n5_block(block, compress) for key, block in blocks.items()}
    stored["zarr.json"] = json.dumps(document).encode()
    assert_same(read(stored), data)
    spec = parse(stored)
    chain = chain_of(spec)
    good = np.frombuffer(stored["c/0/0"], np.uint8)
    for at in range(good.size):
        bad = good.copy()
        bad[at] ^= 0x41
        try:
            assert decode(spec, chain, bad).shape == (3, 4)
        except CodecError:
            continue
    for cut in (0, 3, 11, 13):
        with pytest.raises(CodecError):
            decode(spec, chain, good[:cut])
    with pytest.raises(CodecError, match="mode 1"):
        decode(spec, chain, np.frombuffer(b"\0\1" + stored["c/0/0"][2:], np.uint8))
    with pytest.raises(CodecError, match="block has shape"):
        decode(spec, chain, np.frombuffer(b"\0\0\0\2" + b"\xff" * 8 + b"x" * 9, np.uint8))
