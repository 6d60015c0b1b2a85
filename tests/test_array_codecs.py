"""Law: what zarr-python wrote with any array codec, filter, checksum or compressor reads back as
zarr-python and numcodecs decode it, bit for bit; a damaged chunk is right data or `CodecError`.
"""

from __future__ import annotations

import bz2
import importlib.util
import itertools
import json
import lzma
import time
import tracemalloc
from typing import Any

import numcodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.chain_cases import (
    Objects,
    assert_same,
    chain_of,
    chunk_keys,
    decode,
    parse,
    read,
    read_with_zarr,
    write,
)
from tests.zarr_cases import values
from zarrgpu.codecs import delta
from zarrgpu.codecs.base import CodecError
from zarrgpu.codecs.registry import build_codec
from zarrgpu.errors import MissingDependencyError, UnsupportedCodecError
from zarrgpu.model import CodecSpec

N = numcodecs


def v3(name: str, **configuration: Any) -> dict[str, Any]:
    return {"name": name, "configuration": configuration}


def nc(name: str, **configuration: Any) -> dict[str, Any]:
    return v3(f"numcodecs.{name}", **configuration)


LZMA_RAW = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 16}]


def ramp(dtype: str, shape: tuple[int, ...] = (7, 9)) -> np.ndarray:
    return (np.arange(np.prod(shape)).reshape(shape) * 3 % 101).astype(dtype)


def dates() -> np.ndarray:
    return ramp("<i8").view("<M8[ns]")


def words() -> np.ndarray:
    return np.array(list("abcx") * 4, "<U1").reshape(4, 4)


V2_CASES: dict[str, tuple[np.ndarray, list[Any], Any]] = {
    "delta i4 -> i2": (ramp("<i4"), [N.Delta("<i4", "<i2")], None),
    "delta wraps": (values((7, 9), "u1"), [N.Delta("u1")], N.Zlib()),
    "delta i8 extremes": (values((7, 9), "i8"), [N.Delta("<i8")], N.Zstd()),
    "delta big-endian": (ramp(">i4"), [N.Delta(">i4", ">i2")], None),
    "delta big-endian differences": (ramp("<i4"), [N.Delta("<i4", ">i2")], None),
    "delta f4": (values((7, 9), "f4"), [N.Delta("<f4")], None),
    "delta f8 -> f4": (ramp("<f8") / 7, [N.Delta("<f8", "<f4")], None),
    "delta f2": (ramp("<f2"), [N.Delta("<f2")], None),
    "delta of dates": (dates(), [N.Delta("<i8")], N.Zlib()),
    "delta of bits of floats": (values((7, 9), "f4"), [N.Delta("<i4")], None),
    "delta twice": (ramp("<i4"), [N.Delta("<i4"), N.Delta("<i4", "<i2")], N.Blosc()),
    "fixedscaleoffset f8 -> u1": (
        ramp("<f8") / 10 + 1000, [N.FixedScaleOffset(1000, 10, "<f8", "u1")], None),
    "fixedscaleoffset large scale": (
        ramp("<f8") / 10, [N.FixedScaleOffset(0, 1000, "<f8", "<i2")], None),
    "fixedscaleoffset f4 -> i2": (
        ramp("<f4") / 10, [N.FixedScaleOffset(1.5, 100.25, "<f4", "<i2")], N.Zlib()),
    "fixedscaleoffset big-endian": (
        ramp(">f8"), [N.FixedScaleOffset(-3, 7, ">f8", ">u2")], None),
    "fixedscaleoffset f4 stays": (ramp("<f4"), [N.FixedScaleOffset(-3, 7, "<f4")], None),
    "fixedscaleoffset of integers": (
        ramp("<i4"), [N.FixedScaleOffset(5, 2, "<i4", "<i2")], None),
    "quantize f8 -> f4": (values((7, 9), "f8"), [N.Quantize(2, "<f8", "<f4")], N.Zstd()),
    "quantize big-endian": (ramp(">f4") / 7, [N.Quantize(1, ">f4")], None),
    "bitround": (values((7, 9), "f4"), [N.BitRound(5)], N.Zlib()),
    "astype i2": (ramp("<f4"), [N.AsType("<i2", "<f4")], None),
    "astype wider": (values((7, 9), "i1"), [N.AsType(">f8", "i1")], None),
    "astype of text": (ramp("<i4"), [N.AsType("S4", "<i4")], None),
    "astype complex": (values((7, 9), "f4"), [N.AsType("<c8", "<f4")], None),
    "astype twice": (ramp("<f8"), [N.AsType("<f4", "<f8"), N.AsType("<i2", "<f4")], None),
    "packbits": (values((7, 9), "bool"), [N.PackBits()], N.Zlib()),
    "packbits whole bytes": (values((4, 8), "bool"), [N.PackBits()], None),
    "shuffle": (values((7, 9), "f8"), [N.Shuffle(8)], N.Zlib()),
    "shuffle by default": (values((8, 8), "u2"), [N.Shuffle()], None),
    "shuffle of bytes": (values((7, 9), "u1"), [N.Shuffle(1)], None),
    "delta + shuffle": (ramp("<i4"), [N.Delta("<i4"), N.Shuffle(4)], N.Blosc(shuffle=0)),
    "categorize": (words(), [N.Categorize(["a", "b", "cd"], "<U1")], None),
    "categorize wide": (words(), [N.Categorize(["a", "b"], "<U1", "<i4")], N.Zlib()),
    "fletcher32": (values((7, 9), "u2"), [N.Fletcher32()], None),
    "fletcher32 of an odd length": (values((7, 9), "u1"), [N.Fletcher32()], None),
    "crc32": (values((7, 9), "u2"), [N.CRC32()], None),
    "crc32 at the end": (values((7, 9), "u2"), [N.CRC32(location="end")], None),
    "adler32": (values((7, 9), "u2"), [N.Adler32()], N.Zlib()),
    "adler32 at the end": (values((7, 9), "u2"), [N.Adler32(location="end")], None),
    "crc32c": (values((7, 9), "u2"), [N.CRC32C()], None),
    "crc32c at the start": (values((7, 9), "u2"), [N.CRC32C(location="start")], None),
    "jenkins_lookup3": (values((7, 9), "u2"), [N.JenkinsLookup3()], None),
    "jenkins_lookup3 seeded": (values((7, 9), "u2"), [N.JenkinsLookup3(initval=1 << 31)], None),
    "base64": (values((7, 9), "u2"), [N.Base64()], None),
    "bz2": (values((7, 9), "u2"), [], N.BZ2()),
    "lzma": (values((7, 9), "u2"), [], N.LZMA()),
    "lzma alone": (values((7, 9), "u2"), [], N.LZMA(format=lzma.FORMAT_ALONE)),
    "lzma raw": (values((7, 9), "u2"), [], N.LZMA(format=lzma.FORMAT_RAW, filters=LZMA_RAW)),
    "gzip": (values((7, 9), "u2"), [], N.GZip()),
    "lz4": (values((7, 9), "u2"), [], N.LZ4()),
    "two compressors": (values((7, 9), "u2"), [N.BZ2()], N.LZMA()),
}  # fmt: skip


def v2_objects(name: str, order: str = "C") -> Objects:
    data, filters, compressor = V2_CASES[name]
    return write(
        data, (4, 5), zarr_format=2, filters=filters or None, compressors=compressor, order=order
    )


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("name", V2_CASES)
def test_v2_filters_and_compressors(name: str, order: str) -> None:
    objects = v2_objects(name, order)
    assert_same(read(objects), read_with_zarr(objects))


V3_CASES: dict[str, tuple[np.ndarray, list[Any], list[Any]]] = {
    "delta": (ramp("i4"), [nc("delta", dtype="<i4", astype="<i2")], []),
    "delta of its own type": (values((7, 9), "u1"), [nc("delta", dtype="uint8")], [nc("zlib")]),
    "delta of signed for unsigned": (ramp("u2"), [nc("delta", dtype="<i2")], []),
    "fixedscaleoffset": (
        ramp("f8"), [nc("fixedscaleoffset", offset=3, scale=10, dtype="<f8", astype="<u2")], []),
    "fixedscaleoffset without dtype": (
        ramp("f4"), [nc("fixedscaleoffset", offset=3, scale=10, astype="int16")], [nc("lz4")]),
    "quantize": (values((7, 9), "f8"), [nc("quantize", digits=2, dtype="f8")], []),
    "quantize without dtype": (values((7, 9), "f4"), [nc("quantize", digits=2)], [nc("zstd")]),
    "bitround": (values((7, 9), "f4"), [nc("bitround", keepbits=3)], [nc("blosc")]),
    "astype": (ramp("f4"), [nc("astype", encode_dtype="<i2", decode_dtype="<f4")], []),
    "astype twice": (
        ramp("f8"), [nc("astype", encode_dtype="f4", decode_dtype="f8"),
                     nc("astype", encode_dtype="i2", decode_dtype="f4")], []),
    "shuffle": (values((7, 9), "f8"), [], [nc("shuffle")]),
    "shuffle of 2": (values((7, 9), "f8"), [], [nc("shuffle", elementsize=2), nc("zlib")]),
    "shuffle of what astype made": (
        ramp("f8"), [nc("astype", encode_dtype="i2", decode_dtype="f8")], [nc("shuffle")]),
    "bz2": (values((7, 9), "u2"), [], [nc("bz2")]),
    "lzma": (values((7, 9), "u2"), [], [nc("lzma")]),
    "gzip": (values((7, 9), "u2"), [], [nc("gzip")]),
    "crc32": (values((7, 9), "u2"), [], [nc("crc32")]),
    "crc32c": (values((7, 9), "u2"), [], [nc("crc32c")]),
    "adler32": (values((7, 9), "u2"), [], [nc("adler32"), nc("zlib")]),
    "fletcher32": (values((7, 9), "u2"), [], [nc("zlib"), nc("fletcher32")]),
    "jenkins_lookup3": (values((7, 9), "u2"), [], [nc("jenkins_lookup3", initval=7)]),
    "transpose last": (
        ramp("f8"), [nc("astype", encode_dtype="i2", decode_dtype="f8"),
                     v3("transpose", order=[1, 0])], []),
    "transpose on both sides": (
        ramp("f8"), [v3("transpose", order=[1, 0]), nc("bitround", keepbits=3),
                     v3("transpose", order=[1, 0])], []),
    "transpose of three axes": (
        ramp("f8", (3, 4, 5)), [v3("transpose", order=[2, 0, 1]), nc("bitround", keepbits=30),
                                v3("transpose", order=[2, 0, 1])], [nc("zlib")]),
}  # fmt: skip


def v3_objects(name: str, endian: str = "little") -> Objects:
    data, filters, compressors = V3_CASES[name]
    return write(
        data, (4, 5, 3)[: data.ndim], zarr_format=3, filters=filters, compressors=compressors,
        serializer=v3("bytes", endian=endian),
    )  # fmt: skip


@pytest.mark.parametrize("name", V3_CASES)
def test_v3_array_codecs(name: str) -> None:
    objects = v3_objects(name)
    assert_same(read(objects), read_with_zarr(objects))


@pytest.mark.parametrize("name", V3_CASES)
def test_v3_byte_order_in_the_store_changes_nothing(name: str) -> None:
    """zarr-python misreads some of what it writes so: the little-endian twin is the oracle."""
    assert_same(read(v3_objects(name, "big")), read_with_zarr(v3_objects(name)))


def test_v3_packbits_of_numcodecs() -> None:
    """zarr-python 3.1.6 cannot write it in v3, so the chunk is numcodecs' own."""
    data = values((3, 5), "bool")
    objects = write(data, (3, 5), zarr_format=3)
    document = json.loads(objects["zarr.json"])
    document["codecs"] = [{"name": "numcodecs.packbits", "configuration": {}}, {"name": "bytes"}]
    objects["zarr.json"] = json.dumps(document).encode()
    objects["c/0/0"] = bytes(N.PackBits().encode(data))
    assert_same(read(objects), data)


def test_v3_reshape() -> None:
    data = ramp("i4", (4, 6))
    objects = write(data, (4, 6), zarr_format=3)
    document = json.loads(objects["zarr.json"])
    reshape = {"name": "reshape", "configuration": {"shape": [[0], 2, -1]}}
    transpose = {"name": "transpose", "configuration": {"order": [2, 0, 1]}}
    big = {"name": "bytes", "configuration": {"endian": "big"}}
    document["codecs"] = [reshape, transpose, big]
    objects["zarr.json"] = json.dumps(document).encode()
    objects["c/0/0"] = data.reshape(4, 2, 3).transpose(2, 0, 1).astype(">i4").tobytes()
    assert_same(read(objects), data)


@pytest.mark.parametrize(
    ("name", "objects"),
    [(n, v2_objects) for n in V2_CASES] + [(n, v3_objects) for n in V3_CASES],
)  # fmt: skip
def test_damaged_chunks_are_data_or_codec_errors(name: str, objects: Any) -> None:
    stored = objects(name)
    spec = parse(stored)
    chain = chain_of(spec)
    key = chunk_keys(stored)[0]
    good = np.frombuffer(stored[key], np.uint8)
    rng = np.random.default_rng(3)
    damaged = [good[:n] for n in (0, 1, 3, good.size // 2, good.size - 1)]
    damaged.append(np.append(good, good))
    for at in range(good.size) if good.size < 40 else rng.integers(0, good.size, 40):
        damaged.append(good.copy())
        damaged[-1][at] ^= int(rng.integers(1, 256))
    for chunk in damaged:
        try:
            assert decode(spec, chain, chunk).shape == spec.chunk_shape
        except CodecError:
            continue


@pytest.mark.parametrize(
    "name",
    ["fletcher32", "crc32", "crc32 at the end", "adler32 at the end", "crc32c at the start",
     "jenkins_lookup3 seeded", "bz2", "lzma"],
)  # fmt: skip
def test_checksums_find_every_changed_byte(name: str) -> None:
    objects = v2_objects(name)
    spec = parse(objects)
    chain = chain_of(spec)
    good = np.frombuffer(objects["0.0"], np.uint8)
    expected = decode(spec, chain, good).tobytes()
    for at in range(good.size):
        bad = good.copy()
        bad[at] ^= 0x11
        try:
            assert decode(spec, chain, bad).tobytes() == expected
        except CodecError:
            continue


def codec(name: str, **configuration: Any) -> Any:
    return build_codec(CodecSpec(name, configuration), source="a")


def run(name: str, encoded: Any, nbytes: int, **configuration: Any) -> bytes:
    """Decode twice, with and without `out`, from memory that is not aligned."""
    raw = np.frombuffer(bytes(encoded), np.uint8)
    shifted = np.zeros(raw.size + 1, np.uint8)
    shifted[1:] = raw
    decoder = codec(name, **configuration)
    memory = np.zeros(nbytes + 3, np.uint8)
    out = memory[3:]
    assert decoder.decode_host(shifted[1:], nbytes, out).tobytes() == out.tobytes()
    assert decoder.decode_host(raw, nbytes, None).tobytes() == out.tobytes()
    if (size := decoder.encoded_nbytes(nbytes)) is not None:
        assert size == raw.size
    return out.tobytes()


FLOATS = hnp.arrays(np.float64, st.integers(0, 40), elements=st.floats(width=64))


def arrays(dtype: str) -> st.SearchStrategy[np.ndarray]:
    return hnp.arrays(np.dtype(dtype), st.integers(1, 40))


@given(data=st.data())
def test_delta_is_numcodecs(data: st.DataObject) -> None:
    decoded = data.draw(st.sampled_from(["<i4", ">i2", "u1", "<u8", "<f4", ">f8", "<f2", "<c8"]))
    encoded = data.draw(st.sampled_from([decoded, "<i2", "i1", "<f4"]))
    if np.dtype(encoded).kind == "f" and np.dtype(decoded).kind in "iu":
        return
    array = data.draw(arrays(encoded))
    with np.errstate(all="ignore"):
        expected = N.Delta(decoded, encoded).decode(array)
    got = run("delta", array.tobytes(), expected.nbytes, dtype=decoded, encoded_dtype=encoded)
    assert got == expected.tobytes()


@pytest.mark.parametrize("encoded", ["i1", "u2", ">i4", "bool"])
@pytest.mark.parametrize("decoded", ["u1", "i2", "u4", "i8"])
def test_delta_is_the_same_without_imagecodecs(
    decoded: str, encoded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = values((1003,), encoded)
    options = {"dtype": decoded, "encoded_dtype": encoded}
    nbytes = array.size * np.dtype(decoded).itemsize
    with_it = run("delta", array.tobytes(), nbytes, **options)
    monkeypatch.setattr(delta, "_imagecodecs_delta", lambda: None)
    assert run("delta", array.tobytes(), nbytes, **options) == with_it


NUMBER = st.one_of(
    st.integers(-(10**6), 10**6).filter(bool), st.floats(1e-6, 1e6), st.floats(-1e6, -1e-6)
)


@given(data=st.data(), scale=NUMBER, offset=NUMBER)
def test_fixedscaleoffset_is_numcodecs(data: st.DataObject, scale: float, offset: float) -> None:
    decoded = data.draw(st.sampled_from(["<f8", ">f4", "<f2", "<i4", "u1"]))
    encoded = data.draw(st.sampled_from(["u1", "<i2", ">u4", "<i8", "<f4", ">f8", "<f2"]))
    array = data.draw(arrays(encoded))
    with np.errstate(all="ignore"):
        expected = N.FixedScaleOffset(offset, scale, decoded, encoded).decode(array)
    got = run(
        "fixedscaleoffset", array.tobytes(), expected.nbytes,
        dtype=decoded, encoded_dtype=encoded, scale=scale, offset=offset,
    )  # fmt: skip
    assert got == expected.tobytes()


@given(data=st.data())
def test_casts_are_numcodecs(data: st.DataObject) -> None:
    types = ["u1", "<i2", ">i4", "<u8", "<f2", ">f4", "<f8", "bool"]
    decoded, encoded = data.draw(st.sampled_from(types)), data.draw(st.sampled_from(types))
    array = data.draw(arrays(encoded))
    with np.errstate(all="ignore"):
        expected = N.AsType(encoded, decoded).decode(array)
    got = run("astype", array.tobytes(), expected.nbytes, dtype=decoded, encoded_dtype=encoded)
    assert got == expected.tobytes()


def packed(numbers: list[int], width: int) -> bytes:
    """The spec, literally: a sequence of bits, element after element, each from its lowest bit."""
    bits = "".join(format(n % (1 << width), f"0{width}b")[::-1] for n in numbers)
    bits += "0" * (-len(bits) % 8)
    return bytes(int(bits[i : i + 8][::-1], 2) for i in range(0, len(bits), 8))


@given(data=st.data())
def test_packbits_is_its_specification(data: st.DataObject) -> None:
    dtype = np.dtype(data.draw(st.sampled_from(["<u1", "<i1", "<u2", "<i4", "<u8", "<i8"])))
    bits = 8 * dtype.itemsize
    first = data.draw(st.integers(0, bits - 1))
    last = data.draw(st.integers(first, bits - 1))
    padding = data.draw(st.sampled_from(["none", "first_byte", "last_byte"]))
    low = -(1 << last) if dtype.kind == "i" else 0
    high = (1 << last) - 1 if dtype.kind == "i" else (1 << last + 1) - 1
    numbers = data.draw(st.lists(st.integers(low, high), max_size=30))
    numbers = [n >> first << first for n in numbers]
    width = last - first + 1
    encoded = packed([n >> first for n in numbers], width)
    count = bytes([-width * len(numbers) % 8])
    encoded = {"none": encoded, "first_byte": count + encoded, "last_byte": encoded + count}[
        padding
    ]
    got = run(
        "packbits", encoded, dtype.itemsize * len(numbers), component_bits=bits, value_bits=bits,
        first_bit=first, last_bit=last, signed=dtype.kind == "i", bit_order="little",
        padding=padding,
    )  # fmt: skip
    assert np.frombuffer(got, dtype).tolist() == numbers


def test_packbits_of_more_values_than_a_block() -> None:
    numbers = np.random.default_rng(0).integers(0, 8, 70_001)
    options = {
        "component_bits": 8, "value_bits": 4, "first_bit": 0, "last_bit": 2, "signed": False,
        "bit_order": "little", "padding": "none",
    }  # fmt: skip
    got = run("packbits", packed(numbers.tolist(), 3), numbers.size, **options)
    assert np.frombuffer(got, np.uint8).tolist() == numbers.tolist()


def test_packbits_padding_must_be_right() -> None:
    options = {
        "component_bits": 8, "value_bits": 1, "first_bit": 0, "last_bit": 0, "signed": False,
        "bit_order": "big", "padding": "first_byte",
    }  # fmt: skip
    assert run("packbits", b"\x05\xe0", 3, **options) == b"\1\1\1"
    for encoded, message in [
        (b"\x04\xe0", "4 bytes, expected 3"), (b"\x08\xe0", "8 bits are padding"),
        (b"", "empty"), (b"\x05", "no whole values"),
    ]:  # fmt: skip
        with pytest.raises(CodecError, match=message):
            codec("packbits", **options).decode_host(
                np.frombuffer(encoded, np.uint8), 3, np.empty(3, np.uint8)
            )


@pytest.mark.parametrize(("name", "compress"), [("bz2", bz2.compress), ("lzma", lzma.compress)])
def test_streams_one_after_another_and_what_follows_them(name: str, compress: Any) -> None:
    options = {"format": 1, "filters": None} if name == "lzma" else {}
    parts = [b"abc" * 20_000, b"", b"d" * 5]
    whole = b"".join(map(compress, parts))
    decoder = codec(name, **options)
    for tail in (b"", bytes(16), b"no stream at all"):
        encoded = np.frombuffer(whole + tail, np.uint8)
        assert decoder.decode_host(encoded, 60_005, None).tobytes() == b"".join(parts)
    with pytest.raises(CodecError, match="cut off"):
        decoder.decode_host(np.frombuffer(whole[: len(whole) // 2], np.uint8), 60_005, None)
    with pytest.raises(CodecError, match="cut off"):
        decoder.decode_host(np.empty(0, np.uint8), 5, None)


@pytest.mark.parametrize(("name", "compress"), [("bz2", bz2.compress), ("lzma", lzma.compress)])
def test_a_bomb_stops_at_the_expected_size(name: str, compress: Any) -> None:
    options = {"format": 1, "filters": None} if name == "lzma" else {}
    bomb = np.frombuffer(compress(bytes(64 << 20)), np.uint8)
    decoder = codec(name, **options)
    tracemalloc.start()
    with pytest.raises(CodecError, match="1001 bytes, expected"):
        decoder.decode_host(bomb, 1000, np.empty(1000, np.uint8))
    assert tracemalloc.get_traced_memory()[1] < 16 << 20  # a dictionary of xz, and little else
    tracemalloc.stop()


def test_many_empty_streams_take_no_quadratic_time() -> None:
    encoded = np.frombuffer(bz2.compress(b"") * 20_000, np.uint8)
    start = time.perf_counter()
    assert codec("bz2").decode_host(encoded, 10, None).size == 0
    assert time.perf_counter() - start < 5


def test_array_codecs_report_their_exact_sizes() -> None:
    """So that the size of each stage, and of the stored chunk, is known before anything is read."""
    for name, objects in itertools.chain(
        ((n, v2_objects(n)) for n in V2_CASES), ((n, v3_objects(n)) for n in V3_CASES)
    ):
        size = chain_of(parse(objects)).encoded_nbytes
        if size is not None:
            assert {len(objects[key]) for key in chunk_keys(objects)} == {size}, name


NUMBERS = ("u2", "u4", "u8", "i2", "i4", "i8", "f2", "f4", "f8")


@pytest.mark.parametrize("dtype", NUMBERS)
def test_pcodec_or_the_package_that_is_absent(dtype: str) -> None:
    document = V2_DOCUMENT | {"dtype": np.dtype(dtype).str, "compressor": {"id": "pcodec"}}
    objects = {".zarray": json.dumps(document).encode()}
    if importlib.util.find_spec("pcodec") is None:
        with pytest.raises(MissingDependencyError, match="pip install pcodec"):
            chain_of(parse(objects))
        return
    pcodec = importlib.import_module("pcodec")
    data = values((50,), dtype)
    encoded = pcodec.standalone.simple_compress(data, pcodec.ChunkConfig())
    assert_same(read(objects | {"0": encoded}), data)
    spec = parse(objects)
    good = np.frombuffer(encoded, np.uint8)
    rng = np.random.default_rng(0)
    short = pcodec.standalone.simple_compress(data[:49], pcodec.ChunkConfig())
    long = pcodec.standalone.simple_compress(np.append(data, data), pcodec.ChunkConfig())
    for whole in (short, long):
        with pytest.raises(CodecError):
            decode(spec, chain_of(spec), np.frombuffer(whole, np.uint8))
    for at in rng.integers(0, good.size, 200):
        bad = good[: rng.integers(good.size + 1)].copy() if at % 3 == 0 else good.copy()
        if bad.size:
            bad[at % bad.size] ^= int(rng.integers(1, 256))
        try:
            assert decode(spec, chain_of(spec), bad).shape == (50,)
        except CodecError:
            continue


V2_DOCUMENT: dict[str, Any] = {
    "zarr_format": 2, "shape": [50], "chunks": [50], "fill_value": 0, "order": "C", "filters": None,
}  # fmt: skip


@pytest.mark.parametrize("codec_id", ["zfpy", "pickle"])
def test_codecs_that_are_not_safe_are_refused_with_the_reason(codec_id: str) -> None:
    document = V2_DOCUMENT | {"dtype": "<f4", "compressor": {"id": codec_id}}
    with pytest.raises(UnsupportedCodecError, match=rf"m://a.*compressor.*{codec_id} is refused"):
        parse({".zarray": json.dumps(document).encode()})
