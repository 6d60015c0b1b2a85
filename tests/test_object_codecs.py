"""Law: strings, byte strings and objects read back as numcodecs and zarr-python decode them; a
damaged chunk is objects or `CodecError`, and takes no memory beyond what it holds.
"""

from __future__ import annotations

import importlib.util
import json
import tracemalloc
from typing import Any

import numcodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import zarrgpu as zg
from tests.chain_cases import assert_same
from tests.zarr_cases import MemoryStore
from zarrgpu.codecs.base import CodecError, ObjectCodec
from zarrgpu.codecs.registry import OBJECT_CODECS, build_chain
from zarrgpu.errors import MetadataError, MissingDependencyError, UnsupportedCodecError
from zarrgpu.formats.document import Document
from zarrgpu.formats.filters import check_objects, parse_filter
from zarrgpu.model import CodecSpec

N = numcodecs
OBJECT = np.dtype(object)
STRING = np.dtypes.StringDType()
HAS_MSGPACK = importlib.util.find_spec("msgpack") is not None


def object_codec(codec: Any) -> ObjectCodec:
    """Ours for a numcodecs codec, by way of its v2 metadata."""
    spec = parse_filter(Document("m://a", json.loads(json.dumps(codec.get_config()))), OBJECT)
    chain = build_chain([spec], 0, source="m://a")
    assert chain.codecs == ()
    assert isinstance(chain.object_codec, ObjectCodec)
    return chain.object_codec


def objects(items: list[Any]) -> np.ndarray:
    array = np.empty(len(items), OBJECT)
    for i, item in enumerate(items):
        array[i] = item
    return array


CASES: dict[str, tuple[Any, list[Any]]] = {
    "vlen-utf8": (N.VLenUTF8(), ["é", "", "a\0b", "日本" * 100]),
    "vlen-bytes": (N.VLenBytes(), [b"", b"\0", bytes(range(256))]),
    "vlen-array": (N.VLenArray("<i4"), [np.arange(5), np.arange(0), np.arange(1)]),
    "vlen-array big-endian": (N.VLenArray(">f8"), [np.arange(5), np.arange(2)]),
    "json2": (N.JSON(), ["x", None, 3, 1.5, {"a": [1]}, True]),
    "json2 of lists": (N.JSON(), [{}, "é", -1]),
    "json2 utf-16": (N.JSON(encoding="utf-16"), ["x", "é"]),
    "categorize": (N.Categorize(["a", "bc"], object), ["a", "bc", "", "a"]),
    "categorize wide": (N.Categorize(["a", "bc"], object, "<u4"), ["a", "bc", "", "a"]),
}
if HAS_MSGPACK:
    CASES["msgpack2"] = (N.MsgPack(), ["x", None, 3, 1.5, {"a": [1]}, True, b"b"])
    CASES["msgpack2 raw"] = (N.MsgPack(raw=True), [b"x", 3])


@pytest.mark.parametrize("name", CASES)
def test_objects_are_numcodecs(name: str) -> None:
    codec, items = CASES[name]
    array = objects(items)
    encoded = np.frombuffer(bytes(np.asarray(codec.encode(array)).data), np.uint8)
    got = object_codec(codec).decode_objects(encoded, array.size, OBJECT)
    assert_same(got, codec.decode(bytes(encoded)))


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=20))
def test_any_strings(items: list[str]) -> None:
    for codec in (N.VLenUTF8(), N.JSON()):
        encoded = np.frombuffer(codec.encode(objects(items)), np.uint8)
        if items or codec.codec_id != "json2":
            got = object_codec(codec).decode_objects(encoded, len(items), STRING)
            assert got.dtype == STRING
            assert got.tolist() == items


def test_labels_of_long_strings_take_no_memory_for_those_that_are_not_used() -> None:
    labels = [f"{n:04}" for n in range(2000)]
    codec = N.Categorize(labels, "<U100000", "<u2")
    spec = parse_filter(Document("m://a", codec.get_config()), np.dtype("<U100000"))
    chain = build_chain([spec], 3 * 400_000, source="m://a")
    encoded = np.array([7, 0, 2000], "<u2").view(np.uint8)
    tracemalloc.start()
    try:
        got = chain.codecs[0].decode_host(encoded, 3 * 400_000, None).view("<U100000")
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    assert got.tolist() == ["0006", "", "1999"]


def test_axes_and_order_of_nested_lists() -> None:
    array = np.array([["a", "b", "c"], ["d", "e", "f"]], object)
    encoded = np.frombuffer(N.JSON().encode(array), np.uint8)
    assert object_codec(N.JSON()).decode_objects(encoded, 6, OBJECT).tolist() == list("abcdef")
    lists = objects([[1, 2], [3, 4]])  # which numcodecs itself cannot decode
    encoded = np.frombuffer(N.JSON().encode(lists), np.uint8)
    assert object_codec(N.JSON()).decode_objects(encoded, 2, OBJECT).tolist() == [[1, 2], [3, 4]]
    scalar = np.frombuffer(N.JSON().encode(np.array("x", object)), np.uint8)
    assert object_codec(N.JSON()).decode_objects(scalar, 1, OBJECT).tolist() == ["x"]


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("codec_id", ["json2", "msgpack2", "vlen-utf8"])
def test_chunks_of_either_order_hold_the_strings_that_were_written(
    codec_id: str, order: str
) -> None:
    """As numcodecs is given a chunk by zarr-python 2, which could not read the nested ones."""
    if codec_id == "msgpack2" and not HAS_MSGPACK:
        pytest.skip("needs msgpack")
    data = np.array([["a", "b", "cé"], ["d", "e", "f"]], object)
    codec = N.get_codec({"id": codec_id})
    document = {
        "zarr_format": 2, "shape": [2, 3], "chunks": [2, 3], "dtype": "|O", "fill_value": None,
        "order": order, "filters": [codec.get_config()], "compressor": None,
    }  # fmt: skip
    objects = {
        ".zarray": json.dumps(document).encode(),
        "0.0": bytes(codec.encode(data.astype(object, order=order))),
    }
    assert zg.open(MemoryStore(objects)).read(device="cpu").tolist() == data.tolist()


@pytest.mark.parametrize("name", CASES)
def test_damaged_chunks_are_objects_or_codec_errors(name: str) -> None:
    codec, items = CASES[name]
    good = np.frombuffer(bytes(np.asarray(codec.encode(objects(items))).data), np.uint8)
    decoder = object_codec(codec)
    rng = np.random.default_rng(5)
    damaged = [good[:n] for n in range(0, good.size, max(1, good.size // 30))]
    damaged += [np.append(good, good), np.append(good, np.uint8(0))]
    for at in rng.integers(0, good.size, 200):
        bad = good.copy()
        bad[at] ^= int(rng.integers(1, 256))
        damaged.append(bad)
    for bad in damaged:
        try:
            assert decoder.decode_objects(bad, len(items), OBJECT).shape == (len(items),)
        except CodecError:
            continue


def test_lengths_that_lie() -> None:
    utf8 = object_codec(N.VLenUTF8())
    good = N.VLenUTF8().encode(objects(["ab", "c"]))
    for bad, message in [
        (b"", "expected a count"), (good[:3], "expected a count"),
        (b"\xff\xff\xff\xff" + good[4:], "holds 4294967295 elements, expected 2"),
        (good[:4] + b"\xff\xff\xff\xff" + good[8:], "cut off"),
        (good[:-1], "its 2 elements end at"), (good + b"\0", "its 2 elements end at"),
        (good[:8] + b"\xff\xff" + good[10:], "utf-8"),
    ]:  # fmt: skip
        with pytest.raises(CodecError, match=message):
            utf8.decode_objects(np.frombuffer(bad, np.uint8), 2, OBJECT)


def test_a_small_chunk_does_not_take_much_memory() -> None:
    bombs = {
        "json2": b'["x","|O",[1000000000]]',
        "vlen-utf8": b"\xff\xff\xff\x7f",
        "vlen-bytes": b"\xff\xff\xff\x7f",
    }
    tracemalloc.start()
    for name, bomb in bombs.items():
        decoder = build_chain([CodecSpec(name)], 0, source="a").object_codec
        assert decoder is not None
        for count in (1, 0x7FFFFFFF, 1000000000):
            with pytest.raises(CodecError):
                decoder.decode_objects(np.frombuffer(bomb, np.uint8), count, OBJECT)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "not JSON"), ("{}", "does not end with the shape"), ("[1]", "does not end"),
        ('["a","|O",[2]]', "expected 1 elements"), ('["a","|O",["1"]]', "does not end"),
        ('["a","b","|O",[1]]', "2 items along the first axis"),
        ('["a","|O",[1,1]]', "no nested list"), ("[" * 100_000, "not JSON"),
        ("[" * 100_000 + "]" * 100_000, "not JSON"), ('["a","|O",[-1]]', "does not end"),
        ("9" * 10_000, "not JSON"),
    ],
)  # fmt: skip
def test_json_that_is_no_array(text: str, message: str) -> None:
    encoded = np.frombuffer(text.encode(), np.uint8)
    with pytest.raises(CodecError, match=message):
        object_codec(N.JSON()).decode_objects(encoded, 1, OBJECT)


def test_what_strings_cannot_hold_is_an_error() -> None:
    encoded = np.frombuffer(N.JSON().encode(objects([3])), np.uint8)
    with pytest.raises(CodecError, match="holds what is no"):
        object_codec(N.JSON()).decode_objects(encoded, 1, np.dtypes.StringDType(coerce=False))


def test_pickle_is_refused_with_the_reason() -> None:
    with pytest.raises(UnsupportedCodecError, match=r"m://a.*filters.0.*runs whatever code"):
        parse_filter(Document("m://a", {"id": "pickle", "protocol": 5}, ("filters", 0)), OBJECT)


def test_msgpack_says_what_to_install() -> None:
    if HAS_MSGPACK:
        assert object_codec(N.MsgPack()).name == "msgpack2"
        return
    with pytest.raises(MissingDependencyError, match="pip install msgpack"):
        build_chain([CodecSpec("msgpack2")], 0, source="a")


def test_objects_and_their_filters_must_agree() -> None:
    document = Document("m://a", {})
    vlen, delta = CodecSpec("vlen-utf8"), CodecSpec("delta")
    for dtype, codecs in [
        (OBJECT, []), (OBJECT, [delta]), (OBJECT, [delta, vlen]), (OBJECT, [vlen, vlen]),
        (np.dtype("U5"), [vlen]), (np.dtype("i4"), [delta, vlen]),
    ]:  # fmt: skip
        with pytest.raises(MetadataError, match=r"m://a.*filters.*objects"):
            check_objects(document, dtype, codecs)
    check_objects(document, OBJECT, [vlen, CodecSpec("zlib")])
    check_objects(document, STRING, [vlen])
    check_objects(document, np.dtype("i4"), [delta])


def test_object_codecs_of_the_table_have_a_case() -> None:
    tested = {object_codec(codec).name for codec, _ in CASES.values()}
    assert tested | {"msgpack2"} == set(OBJECT_CODECS)
