"""Laws of parts of chunks.

1. A read that takes parts of chunks gives what reading them whole gives (law 4), for uncompressed
   and Blosc chunks, sharded or not, of any order, step and byte order.
2. It fetches, or decodes, only the part.
3. A stored chunk of the wrong size is an error, also where only a part of it is read.
"""

from __future__ import annotations

import itertools

import google_crc32c
import numcodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import zarrgpu as zg
from tests.zarr_cases import BLOSC_INNER, CHAINS, MemoryStore, Recipe, encode
from zarrgpu.codecs.base import CodecError
from zarrgpu.codecs.blosc import BloscCodec, BloscHeader
from zarrgpu.errors import ChunkDecodeError, DataError
from zarrgpu.model import ReadOptions
from zarrgpu.plan import windows
from zarrgpu.reader import plan_read

RAW = Recipe(chunks=(64, 64))
SHAPE = (128, 128)
DATA = np.arange(128 * 128, dtype=np.uint32).reshape(SHAPE)
OPTIONS = ReadOptions(max_gap_bytes=0)


def blosc(inner: str = "lz4", shuffle: str = "shuffle", blocksize: int = 4096) -> tuple:
    options = {"cname": inner, "clevel": 5, "shuffle": shuffle, "blocksize": blocksize}
    return (("blosc", options),)


@pytest.fixture
def small_windows(monkeypatch):
    monkeypatch.setattr(windows, "_LEAST_NBYTES", 1)


@st.composite
def cases(draw):
    ndim = draw(st.integers(1, 3))
    chunks = tuple(draw(st.integers(1, 9)) for _ in range(ndim))
    shape = tuple(draw(st.integers(1, 20)) for _ in range(ndim))
    shards = tuple(c * draw(st.integers(1, 3)) for c in chunks) if draw(st.booleans()) else None
    parts = [(), blosc(blocksize=64), blosc("zstd", "bitshuffle", 32), CHAINS["zstd"]]
    codecs = draw(st.sampled_from([*parts, CHAINS["zstd-checksum"]]))
    recipe = Recipe(
        chunks=chunks,
        shards=shards,
        codecs=codecs,
        order=tuple(draw(st.permutations(range(ndim)))),
        big_endian=draw(st.booleans()),
    )
    selections = [
        tuple(
            slice(a, draw(st.integers(a, n)), draw(st.integers(1, 3)))
            for a, n in ((draw(st.integers(0, n - 1)), n) for n in shape)
        )
        for _ in range(3)
    ]
    return shape, recipe, selections


@settings(max_examples=120, deadline=None)
@given(cases())
def test_parts_give_what_the_whole_gives(case):
    shape, recipe, selections = case
    data = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    array = zg.open(MemoryStore(encode(data, recipe)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windows, "_LEAST_NBYTES", 1)
        patch.setattr(windows, "_ZSTD_LEAST_NBYTES", 1)
        for selection in selections:
            got = array.read(selection, device="cpu", options=OPTIONS)
            np.testing.assert_array_equal(got, data[selection])
        starts = np.array([[s.start for s in selection] for selection in selections])
        count = tuple(max(1, n // 3) for n in shape)
        got = array.read_patches(starts, count, device="cpu", options=OPTIONS)
    whole = zg.open(MemoryStore(encode(data, recipe)), cache=1 << 20)  # a cache takes chunks whole
    np.testing.assert_array_equal(got, whole.read_patches(starts, count, device="cpu"))


@pytest.mark.parametrize("shards", [None, (128, 128)])
@pytest.mark.usefixtures("small_windows")
def test_rows_of_an_uncompressed_chunk_are_fetched_alone(shards):
    store = MemoryStore(encode(DATA, Recipe(chunks=(64, 64), shards=shards)))
    array = zg.open(store)
    got = array.read((slice(70, 72), slice(3, 9)), device="cpu", options=OPTIONS)
    np.testing.assert_array_equal(got, DATA[70:72, 3:9])
    key, offset, nbytes = store.requests[-1]
    assert nbytes == 2 * 64 * 4
    assert offset == (6 * 64 * 4) + (0 if shards is None else 2 * 64 * 64 * 4)
    assert key == ("c/1/0" if shards is None else "c/0/0")


@pytest.mark.usefixtures("small_windows")
def test_columns_of_a_transposed_chunk_are_fetched_alone():
    store = MemoryStore(encode(DATA, Recipe(chunks=(64, 64), order=(1, 0))))
    got = zg.open(store).read((slice(None), 5), device="cpu", options=OPTIONS)
    np.testing.assert_array_equal(got, DATA[:, 5])
    assert [request[2] for request in store.requests[-2:]] == [64 * 4, 64 * 4]


@pytest.mark.parametrize("compiled", [True, False])
def test_a_zstd_chunk_is_decoded_no_further_than_needed(compiled):
    """Seen by what lies behind: damage there is not noticed, unless there is a checksum."""
    random = np.random.default_rng(1)
    data = random.integers(0, 50, (512, 512)).astype(np.uint16)  # four blocks of 128 KiB
    options = ReadOptions(native=compiled)
    for chain, noticed in (("zstd", False), ("zstd-checksum", True)):
        objects = encode(data, Recipe(chunks=(512, 512), codecs=CHAINS[chain]))
        bad = bytearray(objects["c/0/0"])
        bad[-200:-100] = bytes(100)
        array = zg.open(MemoryStore({**objects, "c/0/0": bytes(bad)}))
        part = (slice(20, 90), slice(3, 500))
        if noticed:
            with pytest.raises(ChunkDecodeError):
                array.read(part, device="cpu", options=options)
        else:
            got = array.read(part, device="cpu", options=options)
            np.testing.assert_array_equal(got, data[part])
        with pytest.raises(ChunkDecodeError):
            array.read((slice(500, 512),), device="cpu", options=options)


def test_a_chunk_larger_than_the_budget_is_read_in_part():
    store = MemoryStore(encode(DATA, Recipe(chunks=SHAPE)))
    options = ReadOptions(memory_budget_bytes=4096, max_gap_bytes=0)
    got = zg.open(store).read(slice(40, 44), device="cpu", options=options)
    np.testing.assert_array_equal(got, DATA[40:44])


@pytest.mark.parametrize("shards", [None, (128, 128)])
@pytest.mark.usefixtures("small_windows")
def test_a_chunk_of_the_wrong_size_is_an_error(shards):
    objects = encode(DATA.astype(np.uint16), Recipe(chunks=(64, 64), shards=shards))
    objects["zarr.json"] = encode(DATA, Recipe(chunks=(64, 64), shards=shards))["zarr.json"]
    array = zg.open(MemoryStore(objects))
    with pytest.raises(DataError, match="16384"):
        array.read((slice(1, 2), slice(0, 9)), device="cpu", options=OPTIONS)


@pytest.mark.usefixtures("small_windows")
def test_chunks_that_are_not_stored_are_the_fill_value_in_part_too():
    recipe = Recipe(chunks=(64, 64), fill_value=7, missing=frozenset({(1, 0)}))
    got = zg.open(MemoryStore(encode(DATA, recipe))).read((slice(70, 72), 0), device="cpu")
    np.testing.assert_array_equal(got, [7, 7])


@pytest.mark.parametrize("rows", list(itertools.permutations((50, 150, 100, 200))))
def test_windows_of_chunks_that_share_their_bytes(rows):
    """A shard may list the same bytes for equal inner chunks."""
    chunk = np.random.default_rng(0).integers(0, 1 << 31, (256, 64)).astype("<u4")
    objects = encode(np.tile(chunk, (4, 1)), Recipe(chunks=(256, 64), shards=(1024, 64)))
    index = np.array([(0, chunk.nbytes)] * 4, "<u8").tobytes()
    checksum = google_crc32c.value(index).to_bytes(4, "little")
    array = zg.open(MemoryStore({**objects, "c/0/0": chunk.tobytes() + index + checksum}))
    starts = [[256 * number + row, 0] for number, row in enumerate(rows)]
    for gap in (0, 1 << 14):
        options = ReadOptions(max_gap_bytes=gap)
        got = array.read_patches(starts, (4, 64), device="cpu", options=options)
        for patch, row in zip(got, rows, strict=True):
            np.testing.assert_array_equal(patch, chunk[row : row + 4])


# ---- blosc --------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(
    inner=st.sampled_from(BLOSC_INNER),
    shuffle=st.integers(0, 2),
    typesize=st.sampled_from([1, 2, 3, 4, 8, 16]),
    blocksize=st.sampled_from([0, 32, 100, 1000, 4096]),
    n=st.integers(1, 300_000),  # numcodecs' blocks have 64 KiB or more
    noise=st.integers(0, 256),
    data=st.data(),
)
def test_any_part_of_a_blosc_container(inner, shuffle, typesize, blocksize, n, noise, data):
    plain = np.random.default_rng(n).integers(0, noise + 1, n).astype(np.uint8)
    plain = np.resize(plain, max(1, n // typesize) * typesize)
    encoded = np.frombuffer(
        numcodecs.Blosc(inner, 5, shuffle, blocksize).encode(plain.view(f"V{typesize}")), np.uint8
    )
    start = data.draw(st.integers(0, plain.size - 1))
    nbytes = data.draw(st.integers(1, plain.size - start))
    got = BloscCodec().decode_part_host(encoded, start, nbytes, plain.size)
    np.testing.assert_array_equal(got, plain[start : start + nbytes])


def test_blocks_that_threads_wrote_out_of_order():
    plain = np.random.default_rng(0).integers(0, 9, 1 << 20).astype(np.uint8)
    threads = numcodecs.blosc.set_nthreads(4)
    try:
        for _ in range(20):
            encoded = np.frombuffer(
                numcodecs.blosc.compress(plain.tobytes(), b"lz4", 5, 1, 1 << 14), np.uint8
            )
            blocks = -(-plain.size // BloscHeader.parse(encoded).blocksize)
            table = encoded[16 : 16 + 4 * blocks].copy().view("<i4")
            got = BloscCodec().decode_part_host(encoded, 70_000, 50_000, plain.size)
            np.testing.assert_array_equal(got, plain[70_000:120_000])
            if (np.diff(table) < 0).any():
                break
    finally:
        numcodecs.blosc.set_nthreads(threads)


@settings(max_examples=200, deadline=None)
@given(at=st.integers(0, 400), bit=st.integers(0, 7), cut=st.integers(0, 50))
def test_a_damaged_container_gives_bytes_or_an_error(at, bit, cut):
    plain = (np.arange(4000) // 7 % 50).astype(np.uint8)
    encoded = np.frombuffer(numcodecs.Blosc("lz4", 5, 1, 512).encode(plain), np.uint8).copy()
    encoded[at % encoded.size] ^= 1 << bit
    try:
        got = BloscCodec().decode_part_host(encoded[: encoded.size - cut], 600, 900, plain.size)
    except CodecError:
        return
    assert got.size == 900


def test_blocks_that_begin_at_the_end_of_the_container_are_an_error():
    plain = (np.arange(400_000) // 9).astype(np.uint16)
    encoded = np.frombuffer(numcodecs.blosc.compress(plain, b"lz4", 5, 1, 8192), np.uint8).copy()
    blocksize = BloscHeader.parse(encoded).blocksize
    assert plain.nbytes > 4 * blocksize
    for place in (encoded.size, encoded.size + 1, -1):
        encoded[16 + 8 : 16 + 12] = np.array([place], "<i4").view(np.uint8)
        with pytest.raises(CodecError, match="outside of the container"):
            BloscCodec().decode_part_host(encoded, 2 * blocksize, 900, plain.nbytes)


@pytest.mark.usefixtures("small_windows")
def test_only_some_blocks_are_decoded(monkeypatch):
    data = np.random.default_rng(0).integers(0, 50, (16384, 64)).astype(np.uint16)
    store = MemoryStore(encode(data, Recipe(chunks=(16384, 64), codecs=blosc())))
    array = zg.open(store)
    decoded = []
    whole = BloscCodec.decode_host
    header = BloscHeader.parse(np.frombuffer(store.objects["c/0/0"], np.uint8))
    assert data.nbytes // header.blocksize > 8

    def counting(self, encoded, nbytes, out):
        decoded.append(nbytes)
        return whole(self, encoded, nbytes, out)

    monkeypatch.setattr(BloscCodec, "decode_host", counting)
    np.testing.assert_array_equal(array.read(slice(100, 140), device="cpu"), data[100:140])
    assert sum(decoded) < data.nbytes / 4


def test_a_plan_says_what_it_decodes():
    array = zg.open(MemoryStore(encode(DATA, RAW)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windows, "_LEAST_NBYTES", 1)
        patch.setattr(windows, "_ZSTD_LEAST_NBYTES", 1)
        part = array.plan(slice(0, 2), device="cpu").plan
    assert part.chunks.windows is not None
    assert part.decoded_nbytes == 2 * 128 * 4
    whole = plan_read([array.source], part.request, options=ReadOptions())
    assert whole.chunks.windows is None
    assert whole.decoded_nbytes == 2 * 64 * 64 * 4


def test_damage_is_named(tmp_path):
    objects = encode(DATA, Recipe(chunks=(128, 128), codecs=blosc(blocksize=1024)))
    bad = bytearray(objects["c/0/0"])
    bad[16:20] = b"\xff\xff\xff\x7f"
    array = zg.open(MemoryStore({**objects, "c/0/0": bytes(bad)}))
    with pytest.raises(ChunkDecodeError, match="c/0/0"):
        array.read(slice(0, 2), device="cpu")
