"""Laws of the compiled executor.

1. With it and without it a read gives the same bytes and the same counts, for every codec, type,
   byte order, axis order, shard, step, patch and layout (law 4), from files and from other stores.
2. It does what it is said to do: it leaves nothing that it knows to the general path.
3. Whatever is stored, damaged or cut off, both give the same result or both give an error (law 5).
4. Its tables are those of ``kernels/host``, field by field.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import zarrgpu as zg
from tests.zarr_cases import CHAINS, DTYPES, MemoryStore, Recipe, encode, expected
from zarrgpu import native_engine, native_tables
from zarrgpu.devices import native
from zarrgpu.devices.host import run_threads
from zarrgpu.devices.kernel_sources import kernels_folder
from zarrgpu.errors import DataError, ReadCancelledError, StoreError
from zarrgpu.model import ReadOptions
from zarrgpu.output import output_format
from zarrgpu.plan import windows
from zarrgpu.plan.request import ReadRequest
from zarrgpu.reader import read
from zarrgpu.stats import ReadStats

LIBRARY = native.native_library()
pytestmark = pytest.mark.skipif(LIBRARY is None, reason="the host executor was not compiled")

COMPILED, GENERAL = ReadOptions(), ReadOptions(native=False)


def write(folder: Path, objects: dict[str, bytes]) -> Path:
    for key, value in objects.items():
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(value)
    return folder


def numbers(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    bits = np.random.default_rng(3).integers(0, 99, (*shape, np.dtype(dtype).itemsize), np.uint8)
    if np.dtype(dtype) == bool:
        bits &= 1
    return bits.reshape(-1).view(dtype).reshape(shape)


class Left(list):
    """Reads, and those of each call."""

    def __init__(self):
        super().__init__()
        self.calls = []


@pytest.fixture
def left(monkeypatch):
    """Reads that the executor left to the general path."""
    rest = Left()

    def drain(self, num_threads, wrapped=native_engine.NativeRun.drain):
        left = wrapped(self, num_threads)
        rest.calls.append(left)
        rest.extend(left)
        return left

    monkeypatch.setattr(native_engine.NativeRun, "drain", drain)
    return rest


# --- law 1: the same bytes


@st.composite
def cases(draw):
    ndim = draw(st.integers(1, 3))
    chunks = tuple(draw(st.integers(1, 9)) for _ in range(ndim))
    shape = tuple(draw(st.integers(1, 20)) for _ in range(ndim))
    shards = tuple(c * draw(st.integers(1, 3)) for c in chunks) if draw(st.booleans()) else None
    grid = [range(-(-n // c)) for n, c in zip(shape, chunks, strict=True)]
    missing = {tuple(draw(st.sampled_from(axis)) for axis in grid) for _ in range(2)}
    recipe = Recipe(
        chunks=chunks,
        shards=shards,
        codecs=CHAINS[draw(st.sampled_from(sorted(CHAINS)))],
        order=tuple(draw(st.permutations(range(ndim)))),
        big_endian=draw(st.booleans()),
        missing=frozenset(missing if draw(st.booleans()) else ()),
        fill_value=draw(st.sampled_from([0, 1])),
    )
    start = tuple(draw(st.integers(0, n - 1)) for n in shape)
    box = tuple(
        slice(a, draw(st.integers(a, n)), draw(st.integers(1, 3)))
        for a, n in zip(start, shape, strict=True)
    )
    return numbers(shape, draw(st.sampled_from(DTYPES))), recipe, box


def read_boxes(arrays, index, starts, count, **keywords):
    """Boxes of several arrays in one plan, and which could be read."""
    request = ReadRequest(
        arrays=tuple(array.source.spec for array in arrays),
        array_index=np.array(index, np.int32),
        start=np.array(starts, np.int64),
        count=count,
        step=(1,) * len(count),
    )
    output = output_format(arrays[0].dtype)
    sources = [array.source for array in arrays]
    return read(sources, request, output=output, device="cpu", **keywords)


def results(array, box, options):
    """A selection and two patches, one of which leaves the array."""
    stats = ReadStats()
    count = tuple(max(1, n // 2) for n in array.shape)
    starts = [(-1,) * array.ndim, tuple(n // 2 for n in array.shape)]
    patches, _ = read_boxes([array], [0, 0], starts, count, options=options, stats=stats)
    return [array.read(box, device="cpu", options=options), patches], stats


def counts(stats):
    return (stats.chunks_decoded, stats.chunks_missing, stats.chunks_cached, stats.fetched_bytes)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(case=cases(), small=st.booleans())
def test_compiled_equals_general(case, small, tmp_path_factory):
    data, recipe, box = case
    objects = encode(data, recipe)
    folder = write(tmp_path_factory.mktemp("array"), objects)
    truth = expected(data, recipe)[box]
    with pytest.MonkeyPatch.context() as patch:
        if small:
            patch.setattr(windows, "_LEAST_NBYTES", 1)
            patch.setattr(windows, "_ZSTD_LEAST_NBYTES", 1)
        for make in (lambda: zg.open(folder), lambda: zg.open(MemoryStore(objects))):
            got, stats = results(make(), box, COMPILED)
            general, counted = results(make(), box, GENERAL)
            assert got[0].tobytes() == truth.tobytes()
            for ours, theirs in zip(got, general, strict=True):
                assert ours.tobytes() == theirs.tobytes()
            assert counts(stats) == counts(counted)
        kept = zg.open(folder, cache=1 << 20)
        for _ in range(2):
            for ours, theirs in zip(results(kept, box, COMPILED)[0], got, strict=True):
                assert ours.tobytes() == theirs.tobytes()


@st.composite
def conversions(draw):
    shape = (draw(st.integers(1, 40)), draw(st.integers(1, 40)), draw(st.integers(1, 4)))
    chunks = (draw(st.integers(1, 40)), draw(st.integers(1, 40)), draw(st.integers(1, shape[2])))
    dtype = draw(st.sampled_from(["u1", "i1", "u2", "i2", "f4"]))
    normalize = None
    if draw(st.booleans()):
        n = draw(st.sampled_from([1, shape[2]]))
        normalize = [draw(st.lists(st.floats(0.5, 300), min_size=n, max_size=n)) for _ in "ms"]
    recipe = Recipe(
        chunks=chunks,
        codecs=CHAINS[draw(st.sampled_from(["none", "zstd"]))],
        order=tuple(draw(st.permutations(range(3)))),
        big_endian=draw(st.booleans()),
        missing=frozenset([(0, 0, 0)] if draw(st.booleans()) else []),
        fill_value=draw(st.integers(0, 9)),
    )
    layout = tuple(draw(st.permutations(range(3))))
    return numbers(shape, dtype), recipe, normalize, draw(st.sampled_from(["f2", "f4"])), layout


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(case=conversions(), streams=st.booleans())
def test_casts_and_normalisation_are_bit_for_bit(case, streams, tmp_path_factory):
    data, recipe, normalize, dtype, layout = case
    array = zg.open(write(tmp_path_factory.mktemp("array"), encode(data, recipe)))
    output = output_format(
        data.dtype, dtype=dtype, normalize=normalize, channel_axis=2, channels=data.shape[2]
    )
    request = ReadRequest(
        arrays=(array.source.spec,),
        array_index=np.zeros(2, np.int32),
        start=np.array([[0, 0, 0], [-2, data.shape[1] // 2, 0]], np.int64),
        count=data.shape,
        step=(1, 1, 1),
    )
    with pytest.MonkeyPatch.context() as patch:
        if streams:
            patch.setattr(native_tables, "_CACHED_NBYTES", 0)
        assert native_engine.runs_compiled(array.source, output)
        got, general = (
            read(
                [array.source], request,
                output=output, layout=layout, device="cpu", options=options,
            )[0]
            for options in (COMPILED, GENERAL)
        )  # fmt: skip
    assert got.dtype == general.dtype == dtype
    assert got.tobytes() == general.tobytes()


def test_a_cache_is_filled_and_used(tmp_path):
    data = numbers((40, 30), "u2")
    folder = write(tmp_path, encode(data, Recipe(chunks=(16, 16), codecs=CHAINS["zstd"])))
    kept, other = zg.open(folder, cache=1 << 20), ReadStats()
    first, again = ReadStats(), ReadStats()
    starts = [(0, 0), (10, 10)]
    for stats in (first, again):
        got, _ = read_boxes([kept], [0, 0], starts, (20, 20), stats=stats)
        np.testing.assert_array_equal(got, [data[:20, :20], data[10:30, 10:30]])
    assert counts(first)[:3] == (4, 0, 0)
    assert counts(again) == (0, 0, 4, 0)
    read_boxes([kept], [0, 0], starts, (20, 20), stats=other, options=GENERAL)
    assert counts(other) == (0, 0, 4, 0)


def test_a_small_result_from_a_cache_wakes_no_thread(tmp_path, monkeypatch):
    folder = write(tmp_path, encode(numbers((40, 30), "u2"), Recipe(chunks=(16, 16))))
    array, turns = zg.open(folder, cache=1 << 20), []

    def counted(work, items, num_threads):
        turns.append(len(items))
        return run_threads(work, items, num_threads)

    monkeypatch.setattr(native_engine, "run_threads", counted)
    for _ in range(2):
        read_boxes([array], [0], [(0, 0)], (20, 20), options=ReadOptions(num_threads=2))
    assert turns == [2, 1]


def test_layouts_and_slides_of_several_files(tmp_path):
    arrays = []
    for name in "ab":
        data = numbers((60, 50, 3), "u1")
        recipe = Recipe(chunks=(16, 16, 3), codecs=CHAINS["blosc-lz4-shuffle"])
        arrays.append(zg.open(write(tmp_path / name, encode(data, recipe))))
    starts = [[0, 0, 0], [-5, 30, 0], [50, 3, 0]]
    both = [
        read_boxes(arrays, [0, 1, 0], starts, (20, 20, 3), layout=(2, 0, 1), options=options)[0]
        for options in (COMPILED, GENERAL)
    ]
    assert both[0].shape == (3, 3, 20, 20)
    np.testing.assert_array_equal(*both)


# --- law 2: it does the work


@pytest.mark.parametrize("chain", sorted(CHAINS))
@pytest.mark.parametrize("shards", [None, (32, 32)])
def test_known_codecs_leave_nothing(chain, shards, tmp_path, left, monkeypatch):
    recipe = Recipe(chunks=(16, 16), shards=shards, codecs=CHAINS[chain], big_endian=True)
    folder = write(tmp_path, encode(numbers((40, 33), "u4"), recipe))
    ran = []
    made = native_engine.NativeRun
    monkeypatch.setattr(
        "zarrgpu.native_engine.NativeRun", lambda *a: ran.append(made(*a)) or ran[-1]
    )
    zg.open(folder).read(device="cpu")
    assert ran[0].is_local == (chain != "crc32c+gzip")
    assert left == []
    assert (ran[0].status == native.DONE).all()  # what it cannot decode it places


def test_the_library_has_all_its_codecs():
    assert {"bytes", "zstd", "blosc", "lz4", "jpeg2k"} <= LIBRARY.codecs
    pytest.importorskip("imagecodecs")
    assert LIBRARY.codecs == set(native.CODEC_NUMBERS) - {"unknown"}


def test_without_the_library_reads_are_the_same(tmp_path, monkeypatch):
    data = numbers((20, 20), "f4")
    folder = write(tmp_path, encode(data, Recipe(chunks=(8, 8), codecs=CHAINS["lz4"])))
    monkeypatch.setattr(native_engine, "native_library", lambda: None)
    np.testing.assert_array_equal(zg.open(folder).read(device="cpu").view("u1"), data.view("u1"))


def test_a_library_that_cannot_be_loaded_is_none(tmp_path, monkeypatch):
    (tmp_path / "broken.so").write_bytes(b"no library")
    monkeypatch.setattr(native, "LIBRARY", tmp_path / "broken.so")
    assert native.native_library.__wrapped__() is None


def test_non_ascii_keys(tmp_path):
    data = numbers((20, 20), "u1")
    folder = write(tmp_path / "żółw 日本", encode(data, Recipe(chunks=(8, 8))))
    np.testing.assert_array_equal(zg.open(folder).read(device="cpu"), data)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="names are bytes on Linux")
def test_names_that_are_no_text(tmp_path, left):
    data, name = numbers((20, 20), "u1"), os.fsdecode(b"caf\xe9")
    write(tmp_path / name, encode(data, Recipe(chunks=(8, 8))))
    (tmp_path / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group"}')
    calls = len(left.calls)
    np.testing.assert_array_equal(zg.open(tmp_path)[name].read(device="cpu"), data)
    assert len(left.calls) == calls + 1
    assert left == []


# --- memory that is held


def resident_nbytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="Linux says what is resident")
def test_normalising_keeps_no_memory_that_grows_with_chunks(tmp_path):
    data = numbers((1500, 1500, 3), "u1")
    array = zg.open(write(tmp_path, encode(data, Recipe(chunks=data.shape))))
    output = output_format(
        data.dtype, dtype="f2", normalize=([1, 2, 3], [4, 5, 6]), channel_axis=2, channels=3
    )
    request = ReadRequest(
        arrays=(array.source.spec,),
        array_index=np.zeros(1, np.int32),
        start=np.zeros((1, 3), np.int64),
        count=data.shape,
        step=(1, 1, 1),
    )
    out = np.zeros((1, *data.shape), np.float16)
    before = resident_nbytes()
    read([array.source], request, output=output, device="cpu", out=out)
    held = resident_nbytes() - before
    truth = np.zeros_like(out[0])
    output.write(data, truth, 0)
    np.testing.assert_array_equal(out[0], truth)
    assert held < 3 * data.nbytes  # the chunk, and what else comes and goes


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="Linux says what is resident")
@pytest.mark.parametrize("options", [COMPILED, GENERAL], ids=["compiled", "general"])
def test_a_large_chunk_leaves_no_memory_behind(options, tmp_path):
    data = np.zeros((100 << 10, 1 << 10), np.uint8)
    data[500, 600] = 9
    folder = write(tmp_path, encode(data, Recipe(chunks=data.shape, codecs=CHAINS["lz4"])))
    array = zg.open(folder)
    before = resident_nbytes()
    assert array.read((slice(500, 503), slice(600, 603)), device="cpu", options=options).sum() == 9
    assert resident_nbytes() - before < data.nbytes // 4


def test_arrays_that_share_a_cache_take_its_memory_once(tmp_path, monkeypatch):
    made, cache = [], zg.ChunkCache(20 * 256)
    rooms = native_engine.make_rooms
    monkeypatch.setattr(native_engine, "make_rooms", lambda *a: made.append(rooms(*a)) or made[-1])
    arrays = []
    for name in "abcd":
        data = numbers((64, 64), "u1") + ord(name)
        recipe = Recipe(chunks=(16, 16), codecs=CHAINS["zstd"])
        arrays.append((zg.open(write(tmp_path / name, encode(data, recipe)), cache=cache), data))
    got, _ = read_boxes([a for a, _ in arrays], range(4), [[0, 0]] * 4, (64, 64))
    np.testing.assert_array_equal(got, [data for _, data in arrays])
    pieces = {id(memory): memory.nbytes for memory, _ in made[0].memory.values()}
    assert 0 < sum(pieces.values()) <= cache.max_bytes
    assert 0 < cache.nbytes <= cache.max_bytes


# --- law 3: bad input


def outcome(folder, options, on_error="raise"):
    try:
        array = zg.open(folder)
        return array.read(device="cpu", options=options).tobytes()
    except DataError as error:
        return str(error)


@pytest.mark.parametrize("chain", [name for name in sorted(CHAINS) if "blosclz" not in name])
def test_mutated_chunks_end_alike(chain, tmp_path):
    data = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
    folder = write(tmp_path, encode(data, Recipe(chunks=(64, 64), codecs=CHAINS[chain])))
    path = folder / "c" / "0" / "0"
    good = path.read_bytes()
    random = np.random.default_rng(5)
    ends = {"good": 0, "error": 0}
    for turn in range(60):
        bad = bytearray(good)
        if turn % 3 == 0:
            bad = bad[: random.integers(0, len(bad))]
        elif turn % 3 == 1:
            bad += bytes(random.integers(1, 20))
        for at in random.integers(0, max(1, min(len(bad), 40 if turn % 2 else 1 << 30)), 2):
            if bad:
                bad[at] ^= 1 << int(random.integers(0, 8))
        path.write_bytes(bytes(bad))
        compiled, general = outcome(folder, COMPILED), outcome(folder, GENERAL)
        assert compiled == general
        ends["error" if isinstance(general, str) else "good"] += 1
    assert ends["error"] > 10


@pytest.mark.parametrize("shards", [None, (32, 32)])
def test_a_file_cut_off_or_too_long_or_gone(shards, tmp_path):
    data = numbers((32, 32), "u2")
    objects = encode(data, Recipe(chunks=(16, 16), shards=shards, codecs=CHAINS["zstd"]))
    folder = write(tmp_path, objects)
    path = folder / "c/0/0"
    array = zg.open(folder)
    array.read(device="cpu")  # knows the index from here on
    for content in (b"", objects["c/0/0"][:40], objects["c/0/0"] + bytes(4 << 20)):
        path.write_bytes(content)
        texts = []
        for options in (COMPILED, GENERAL):
            try:
                texts.append(array.read(device="cpu", options=options).tobytes())
            except DataError as error:
                texts.append(str(error))
        assert texts[0] == texts[1]
    path.unlink()
    if shards:
        with pytest.raises(DataError, match="gone from the store"):
            array.read(device="cpu")
    else:
        assert not array.read(device="cpu")[:16, :16].any()


def test_what_is_no_file(tmp_path):
    data = numbers((8, 8), "u1")
    folder = write(tmp_path, encode(data, Recipe(chunks=(8, 8))))
    path = folder / "c/0/0"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(StoreError, match="no regular file"):
        zg.open(folder).read(device="cpu")
    path.unlink()
    path.mkdir()
    assert not zg.open(folder).read(device="cpu").any()


def test_one_bad_chunk_of_a_batch_is_masked(tmp_path):
    data = numbers((32, 32), "u2")
    folder = write(tmp_path, encode(data, Recipe(chunks=(16, 16), codecs=CHAINS["zstd"])))
    (folder / "c/1/0").write_bytes(b"nonsense")
    array = zg.open(folder)
    from zarrgpu.patches import box_request  # noqa: F401 - the request below is made by hand

    got, ok = read_boxes([array], [0, 0], [[0, 0], [16, 0]], (16, 16), on_error="mask")
    assert ok.tolist() == [True, False]
    np.testing.assert_array_equal(got[0], data[:16, :16])
    assert not got[1].any()


def test_a_cancelled_read_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(native_engine, "_READS_AT_A_TIME", 1)
    folder = write(tmp_path, encode(numbers((64, 64), "u1"), Recipe(chunks=(8, 8))))
    array = zg.open(folder)
    asked = []
    with pytest.raises(ReadCancelledError):
        read_boxes(
            [array], [0], [[0, 0]], (64, 64), cancelled=lambda: asked.append(1) or len(asked) > 3
        )
    assert len(asked) < 64


def test_a_thread_that_stops_stops_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr(native_engine, "_READS_AT_A_TIME", 1)
    folder = write(tmp_path, encode(numbers((320, 320), "u1"), Recipe(chunks=(8, 8))))
    array, asked, raised = zg.open(folder), [], []

    def once() -> bool:
        asked.append(threading.get_ident())
        if len(set(asked)) < 2:
            time.sleep(0.001)  # until another thread is at work
        elif not raised:
            raised.append(1)
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        read_boxes(
            [array], [0], [[0, 0]], (320, 320), cancelled=once, options=ReadOptions(num_threads=4)
        )
    assert len(asked) < 800  # of 1600 reads


def test_many_readers_at_once(tmp_path):
    data = numbers((200, 200), "u2")
    folder = write(tmp_path, encode(data, Recipe(chunks=(16, 16), codecs=CHAINS["zstd"])))
    array, barrier = zg.open(folder), threading.Barrier(4)

    def work(_):
        barrier.wait()
        return [np.array_equal(array.read(device="cpu"), data) for _ in range(10)]

    assert all(map(all, run_threads(work, range(4), 4)))


# --- law 4: tables, and small parts


def fields(name: str) -> list[str]:
    """Fields of a structure of tables.h or codecs.h, in order."""
    text = "".join(
        (kernels_folder() / "host" / file).read_text()
        for file in ("tables.h", "codecs.h", "jpeg.h")
    )
    body = re.search(rf"struct {name} {{(.*?)\n}};", text, re.DOTALL)[1]
    body = re.sub(r"//[^\n]*", "", body)
    found = []
    for line in body.split(";"):
        if pointer := re.search(r"\(\*(\w+)\)", line):
            found.append(pointer[1])
        elif line.strip():
            found.append(re.search(r"(\w+)\s*$", line)[1])
    return found


def test_tables_have_the_fields_of_the_sources():
    pieces = fields("Pieces")
    plan = []
    for name in fields("Plan"):
        plan += [f"{name}_{p}" for p in pieces] if name in ("pieces", "fills") else [name]
    assert list(native.ARRAY) == fields("Array")
    assert list(native.PIECES) == pieces
    assert list(native.PLAN) == plan
    assert len(native.LIBRARIES) == len(fields("Libraries"))
    assert list(native.IMAGE) == fields("Image")
    assert len(native.JPEG_LIBRARY) == len(fields("JpegLibrary"))
    mirrored = (native.ARRAY, native.PIECES, native.PLAN, native.LIBRARIES, native.IMAGE)
    mirrored += (native.JPEG_LIBRARY,)
    assert [LIBRARY.sizes(i) for i in range(6)] == [8 * len(m) for m in mirrored]


@pytest.mark.parametrize("by_tables", [0, 1])
def test_crc32c(by_tables):
    data = np.random.default_rng(1).integers(0, 256, 3000, np.uint8)
    for start in (0, 1, 3):
        for nbytes in (0, 1, 7, 8, 9, 63, 64, 65, 1000, 2048):
            part = data[start : start + nbytes]
            got = LIBRARY.crc32c(native.address(part), nbytes, by_tables)
            assert got & 0xFFFFFFFF == google_crc32c.value(part.tobytes())


def test_floats_become_the_nearest_halves():
    random = np.random.default_rng(2)
    bits = random.integers(0, 1 << 32, 30_000, np.uint64).astype(np.uint32)
    ends = np.array([0x33000000, 0x387FFFFF, 0x38800000, 0x477FEFFF, 0x477FF000, 0x7F800000])
    near = (ends[:, None] + np.arange(-2, 3)).astype(np.uint32).ravel()
    halves = np.arange(1 << 16, dtype=np.uint16).view("f2").astype("f4").view("u4")
    ties = halves[halves < 0x7F000000] + np.uint32(0x1000)
    for part in (bits, near, halves, ties, ties | np.uint32(1 << 31)):
        values = part.view("f4")
        part = part[~np.isnan(values)]
        with np.errstate(over="ignore"):
            expected = part.view("f4").astype("f2").view("u2")
        got = np.array([LIBRARY.half_bits(int(b)) for b in part.tolist()], np.uint16)
        np.testing.assert_array_equal(got, expected)
    assert LIBRARY.half_bits(0x7F800001) & 0x7FFF > 0x7C00
