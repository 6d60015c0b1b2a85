"""Laws of the chunk cache on a CUDA device.

1. Reads with a cache give the bytes of reads without one, whatever it holds and however small it
   is; what it holds is neither fetched nor decoded.
2. Hits are counted exactly; only whole chunks that decoded are kept.
3. What an unfinished wave reads or writes is not given to another: memory that is given up is
   overwritten here at once, which on a GPU somebody else would do later.
4. Device memory that the cache cannot have, or has and a read needs, fails no read.
"""

from __future__ import annotations

import ctypes
import os
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import zarrgpu as zg
from tests import tiff_arrays
from tests.gpu.cases import boxes, ome_image, read_options, slices, stored_arrays
from tests.gpu.devices import is_emulated, open_device, same, to_host
from tests.synthetic_slides import tissue
from tests.zarr_cases import CHAINS, MemoryStore, Recipe, corrupt, encode, store_of, values, write
from zarrgpu import cuda_direct, reader
from zarrgpu.codecs.device_images import TOLERANCE
from zarrgpu.cuda_cache import without_cached
from zarrgpu.demo.svs import write_svs
from zarrgpu.devices.chunk_slots import ChunkSlots, _slab_stream
from zarrgpu.devices.cuda import CudaDevice
from zarrgpu.devices.device_chunks import DeviceChunks
from zarrgpu.errors import ChunkDecodeError, DeviceUnavailableError, MemoryBudgetError
from zarrgpu.output import output_format
from zarrgpu.plan.request import ReadRequest
from zarrgpu.plan.tables import ReadPlan
from zarrgpu.stats import ReadStats

MIB = 1 << 20
DATA = values((64, 80), "u2", 3)
CHUNK_NBYTES = 16 * 16 * 2  # 4 x 5 of them


def opened(cache: zg.ChunkCache | int, data: np.ndarray = DATA, **recipe) -> zg.Array:
    return zg.open(MemoryStore(encode(data, Recipe(chunks=(16, 16), **recipe))), cache=cache)


def part(array: zg.Array, device: CudaDevice) -> DeviceChunks:
    return array.cache.on_device(device.driver, DeviceChunks)


def is_at_rest(array: zg.Array, device: CudaDevice) -> bool:
    return not part(array, device)._memory.table["pins"].any()


def read_stats(array: zg.Array, device: CudaDevice, starts, size, **how) -> ReadStats:
    """Read patches, hold them equal to NumPy's, and say what it cost."""
    stats = ReadStats()
    request = ReadRequest(
        arrays=(array.spec,), array_index=np.zeros(len(starts), np.int32),
        start=np.array(starts, np.int64), count=size, step=(1, 1),
    )  # fmt: skip
    got, _ = reader.read(
        (array.source,),
        request,
        output=output_format(array.dtype),
        device=device,
        stats=stats,
        **how,
    )
    wanted = [DATA[y : y + size[0], x : x + size[1]] for y, x in starts]
    same(got, np.stack(wanted), device=device)
    return stats


@pytest.fixture
def poisoned(monkeypatch):
    """Overwrite slots on the emulated device as soon as they are free."""
    set_free = ChunkSlots.set_free

    def poison(self: ChunkSlots, slot: np.ndarray) -> None:
        for row in slot.tolist():
            place = self.table[row]
            ctypes.memset(int(place["address"]), 0xEE, int(place["nbytes"]))
        set_free(self, slot)

    monkeypatch.setattr(ChunkSlots, "set_free", poison)


# ---- the same bytes ------------------------------------------------------------------------------


@settings(max_examples=12, deadline=None)
@given(stored_arrays(), st.integers(0, 20), st.data())
def test_a_cache_changes_nothing(cuda, case, max_chunks, data):
    whole, array = case
    array.source.cache = zg.ChunkCache(0, max_chunks * array.spec.chunk_nbytes)
    options = data.draw(read_options(array.spec))
    for _ in range(3):
        selection = tuple(data.draw(slices(n)) for n in whole.shape)
        wanted = array.read(selection, device="cpu")
        same(array.read(selection, device=cuda, options=options), wanted, device=cuda)
        starts, count = data.draw(boxes(whole.shape))
        wanted = array.read_patches(starts, count, device="cpu")
        same(array.read_patches(starts, count, device=cuda, options=options), wanted, device=cuda)
    same(array.read(device=cuda, options=options), whole, device=cuda)
    held = part(array, cuda)
    assert held.nbytes <= held.max_bytes
    assert is_at_rest(array, cuda)


CHOSEN = ("none", "zstd", "blosc-lz4-shuffle", "blosc-zstd-bitshuffle", "zlib", "crc32c+gzip")


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 1 << 30), st.integers(0, 60), st.booleans())
def test_arrays_of_several_kinds_share_a_cache(cuda, seed, kib, several):
    """Other types, codecs and chunk sizes, read one by one or together."""
    rng = np.random.default_rng(seed)
    cache = zg.ChunkCache(0, kib << 10)
    data, arrays = [], []
    for number, dtype in enumerate(("u1", "i2", "f4", "u2")):
        data.append(values((40, 50), dtype, number + 1))
        recipe = Recipe(
            chunks=tuple(rng.integers(5, 30, 2).tolist()),
            codecs=CHAINS[CHOSEN[int(rng.integers(len(CHOSEN)))]],
            big_endian=bool(rng.integers(2)), missing=frozenset([(0, 1)]), fill_value=3,
        )  # fmt: skip
        arrays.append(zg.open(MemoryStore(encode(data[-1], recipe)), cache=cache))
    for _ in range(4):
        chosen = rng.integers(0, 4, 6)
        starts = rng.integers(-5, 45, (6, 2))
        if several:
            request = ReadRequest(
                arrays=tuple(a.spec for a in arrays), array_index=chosen.astype(np.int32),
                start=starts, count=(13, 17), step=(1, 2),
            )  # fmt: skip
            output = output_format(np.dtype("u1"), dtype="f4")
            read = [tuple(a.source for a in arrays), request]
            got, _ = reader.read(*read, output=output, device=cuda)
            wanted, _ = reader.read(*read, output=output, device="cpu")
            same(got, wanted, device=cuda, converted=True)
            continue
        for number, start in zip(chosen.tolist(), starts, strict=True):
            read = [[start], (13, 17)]
            wanted = arrays[number].read_patches(*read, device="cpu")
            same(arrays[number].read_patches(*read, device=cuda), wanted, device=cuda)
    assert cache.device_nbytes.get(cuda.name, 0) <= kib << 10


def test_patches_of_slides_and_loaders_use_it(cuda):
    slide = ome_image(values((3, 90, 100), "u1"), Recipe(chunks=(3, 16, 16), codecs=CHAINS["zstd"]))
    sampler = zg.RandomPatches([slide], size=(24, 20), num_patches=60, seed=1)
    options = {"batch_size": 8, "window_batches": 1, "fixed_epoch": 0}
    without = zg.PatchLoader(sampler, device=cuda, **options)
    plain = [to_host(batch.images) for batch in without]
    slide.set_cache(zg.ChunkCache(MIB))
    loader = zg.PatchLoader(sampler, device=cuda, **options)
    for _ in range(2):
        for wanted, batch in zip(plain, loader, strict=True):
            np.testing.assert_array_equal(to_host(batch.images), wanted)
    # windows that are read at the same time may both decode a chunk; in the second epoch none does
    assert loader.stats.chunks_decoded <= without.stats.chunks_decoded
    assert loader.stats.chunks_cached >= without.stats.chunks_decoded
    region = slide.read_regions([(3, 5)], 0, (30, 30), device="cpu")
    same(slide.read_regions([(3, 5)], 0, (30, 30), device=cuda), region, device=cuda)


def test_pages_and_slides_of_files(cuda, tmp_path):
    """Short last strips, JPEG tiles and the levels of one slide, one cache for all."""
    image = tissue(70, 90, seed=1)
    write_svs(
        tmp_path / "a.svs", image, label=image[:16, :16], macro=image[:32, :32],
        thumbnail=image[::4, ::4], downsamples=(1, 2), tile_px=32,
    )  # fmt: skip
    cache = zg.ChunkCache(0, MIB)
    slide, plain = (zg.open_slide(tmp_path / "a.svs", cache=kept) for kept in (cache, None))
    strips = tiff_arrays.write(image, rowsperstrip=32, compression=8)
    (tmp_path / "b.tif").write_bytes(strips)
    page = zg.open(tmp_path / "b.tif", cache=cache)
    image = zg.open(tmp_path / "b.tif").read(device="cpu")
    for _ in range(3):
        for level, dtype in ((0, None), (1, "f2"), (0, "f4")):
            where = [[(3, 5), (40, 30), (-4, 60)], level, (40, 33)]
            how = {"device": cuda, "dtype": dtype}
            got, wanted = (to_host(s.read_regions(*where, **how)) for s in (slide, plain))
            # libraries may choose another decoder for a smaller batch
            limit = 0 if is_emulated(cuda) else 2 * TOLERANCE["jpeg"]
            np.testing.assert_allclose(got.astype("f4"), wanted.astype("f4"), atol=limit, rtol=0)
        same(page.read(device=cuda), image, device=cuda)
    assert cache.hits >= 2 * cache.misses


@pytest.mark.parametrize("chain", ["none", "zstd", "blosc-lz4-shuffle"])
def test_chunks_that_came_straight_from_files(chain, tmp_path, monkeypatch):
    monkeypatch.setattr(cuda_direct, "MIN_DIRECT_NBYTES", 1)
    device = open_device("lazy", gds=True)
    objects = encode(DATA, Recipe(chunks=(16, 16), shards=(32, 80), codecs=CHAINS[chain]))
    array = zg.open(write(tmp_path / "a.zarr", objects), cache=zg.ChunkCache(0, MIB))
    options = zg.ReadOptions(gds=True, max_gap_bytes=0)
    first = read_stats(array, device, [(0, 0), (20, 20)], (20, 20), options=options)
    assert (first.direct_bytes, first.chunks_decoded) == (first.fetched_bytes, 7)
    for decoded in (13, 0):
        stats = read_stats(array, device, [(0, 0)], (64, 80), options=options)
        assert (stats.chunks_decoded, stats.chunks_cached) == (decoded, 20 - decoded)
        assert stats.direct_bytes == stats.fetched_bytes


# ---- what is held is not read again, and counted -------------------------------------------------


def test_hits_are_counted_and_neither_fetched_nor_decoded(cuda):
    array = opened(MIB, codecs=CHAINS["zstd"])
    first = read_stats(array, cuda, [(0, 0), (10, 10)], (20, 20))
    assert (first.chunks_decoded, first.chunks_cached) == (4, 0)
    again = read_stats(array, cuda, [(0, 0), (10, 10)], (20, 20))
    assert (again.chunks_decoded, again.chunks_cached, again.fetched_bytes) == (0, 4, 0)
    more = read_stats(array, cuda, [(0, 0), (10, 20)], (20, 20))
    assert (more.chunks_decoded, more.chunks_cached) == (2, 4)
    assert (array.cache.hits, array.cache.misses) == (8, 6)
    assert len(array.cache) == 6
    asked = len(array.source.store.requests)
    array.read((slice(0, 32), slice(0, 32)), device=cuda)
    assert len(array.source.store.requests) == asked
    array.cache.clear()
    assert array.cache.device_nbytes == {cuda.name: 0}
    assert read_stats(array, cuda, [(0, 0)], (16, 16)).chunks_decoded == 1


def test_small_budgets_count_the_same(cuda):
    array = opened(MIB, codecs=CHAINS["blosc-lz4-shuffle"])
    options = zg.ReadOptions(memory_budget_bytes=9 * CHUNK_NBYTES)
    for decoded, cached in ((20, 0), (0, 20)):
        stats = read_stats(array, cuda, [(0, 0)], (64, 80), options=options)
        assert (stats.chunks_decoded, stats.chunks_cached) == (decoded, cached)
    assert (array.cache.hits, array.cache.misses) == (20, 20)


def test_a_cache_holds_chunks_where_reads_run(cuda):
    array = opened(zg.ChunkCache(MIB, MIB // 2), codecs=CHAINS["zstd"])
    array.read(device=cuda)
    assert (array.cache.nbytes, list(array.cache.device_nbytes)) == (0, [cuda.name])
    array.read(device="cpu")
    assert (array.cache.hits, array.cache.misses) == (0, 40)
    assert array.cache.nbytes >= DATA.nbytes
    for device in ("cpu", cuda):
        same(array.read(device=device), DATA, device=cuda)
    assert (array.cache.hits, array.cache.misses) == (40, 40)
    assert "40 chunks" not in repr(array.cache)
    assert f"of {MIB // 2} bytes, 20 chunks on {cuda.name}" in repr(array.cache)
    copy = pickle.loads(pickle.dumps(array))
    assert (copy.cache.max_bytes, copy.cache.device_bytes, len(copy.cache)) == (MIB, MIB // 2, 0)
    same(copy.read(device=cuda), DATA, device=cuda)


def test_an_explanation_says_what_is_kept_where(cuda):
    array = opened(zg.ChunkCache(MIB, MIB // 2), codecs=CHAINS["zstd"])
    on_gpu, on_cpu = (array.plan(device=device).explain() for device in (cuda, "cpu"))
    assert f"on {cuda.name}, at most 512.0 KiB of decoded chunks" in on_gpu
    assert "on cpu, at most 1.0 MiB of decoded chunks" in on_cpu
    assert "decoded chunks" not in zg.open(array.source.store).plan(device=cuda).explain()


def test_between_what_is_held_only_small_gaps_are_fetched(cuda):
    recipe = Recipe(chunks=(4, 100), shards=(64, 100), codecs=CHAINS["none"])
    data = values((64, 100), "u1")
    store = MemoryStore(encode(data, recipe))
    for gap, requests, nbytes in ((0, 2, 800), (400, 1, 1200), (100, 2, 800)):
        array = zg.open(store, cache=MIB)
        options = zg.ReadOptions(max_gap_bytes=gap)
        array.read(slice(8, 12), device=cuda)
        asked, stats = len(store.requests), ReadStats()
        request = ReadRequest(
            arrays=(array.spec,), array_index=np.zeros(1, np.int32),
            start=np.array([[4, 0]]), count=(12, 100), step=(1, 1),
        )  # fmt: skip
        got, _ = reader.read(
            (array.source,), request, output=output_format(array.dtype), device=cuda,
            options=options, stats=stats,
        )  # fmt: skip
        same(got, data[None, 4:16], device=cuda)
        assert (len(store.requests) - asked, stats.fetched_bytes) == (requests, nbytes)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 30), st.integers(0, 900))
def test_reads_without_what_is_held_bring_the_rest(seed, gap):
    """Each wanted chunk lies in its read, which spans wanted ones and small gaps only."""
    rng = np.random.default_rng(seed)
    array = opened(0, codecs=CHAINS["zstd"], shards=(32, 80))
    plan = reader.plan_read(
        [array.source],
        ReadRequest(
            arrays=(array.spec,), array_index=np.zeros(1, np.int32), start=np.zeros((1, 2), int),
            count=(64, 80), step=(1, 1),
        ),
        options=zg.ReadOptions(),
    )  # fmt: skip
    rows = np.flatnonzero(rng.random(len(plan.chunks)) < 0.6)
    rows = rows if len(rows) else np.array([0])
    cut: ReadPlan = without_cached(plan, rows, gap)
    chunks, reads = cut.chunks, cut.reads
    for read in np.unique(chunks.read[rows]):
        own = rows[chunks.read[rows] == read]
        begin, end = chunks.offset[own], chunks.offset[own] + chunks.nbytes[own]
        assert reads.offset[read] == begin[0]
        assert reads.offset[read] + reads.nbytes[read] == end[-1]
        assert reads.object_id[read] == chunks.object_id[own].min() == chunks.object_id[own].max()
        assert (begin[1:] - end[:-1] <= gap).all()
        assert reads.chunk_start[read] == own[0]
        assert reads.chunk_start[read + 1] == own[-1] + 1


# ---- what is kept --------------------------------------------------------------------------------


@pytest.mark.parametrize("chain", ["zstd", "blosc-lz4-shuffle", "crc32c", "zstd+crc32c"])
def test_chunks_that_fail_are_not_kept(cuda, chain):
    store = store_of(DATA, chunks=(16, 16), codecs=CHAINS[chain], missing=frozenset([(3, 3)]))
    good = corrupt(store, "c/1/2")
    array = zg.open(store, cache=MIB)
    for _ in range(2):
        with pytest.raises(ChunkDecodeError):
            array.read(device=cuda)
        assert is_at_rest(array, cuda)
    request = ReadRequest(
        arrays=(array.spec,), array_index=np.zeros(2, np.int32), start=np.array([(0, 0), (32, 0)]),
        count=(32, 80), step=(1, 1),
    )  # fmt: skip
    for _ in range(2):
        _, ok = reader.read(
            (array.source,),
            request,
            output=output_format(array.dtype),
            device=cuda,
            on_error="mask",
        )
        assert ok.tolist() == [False, True]
    assert len(array.cache) == 18  # neither the bad one nor the missing one
    store.objects["c/1/2"] = good
    same(array.read(device=cuda), zg.open(store).read(device="cpu"), device=cuda)
    assert len(array.cache) == 19


def test_chunks_that_the_host_decoded_are_kept(monkeypatch):
    """Those of codecs without a device decoder, and those that the device got wrong."""
    from tests.emulator import decoders

    for kind in ("emulated", "lazy"):
        device = open_device(kind)
        array = opened(MIB, codecs=(*CHAINS["zstd"], *CHAINS["gzip"]))
        for decoded in (20, 0):
            assert read_stats(array, device, [(0, 0)], (64, 80)).chunks_decoded == decoded
        monkeypatch.setitem(decoders._DECODERS, "zstd", lambda source, room: b"")
        array = opened(MIB, codecs=CHAINS["zstd"])
        read_stats(array, device, [(0, 0)], (64, 80))
        assert (array.cache.hits, array.cache.misses, len(array.cache)) == (0, 20, 20)
        assert read_stats(array, device, [(0, 0)], (64, 80)).chunks_decoded == 0
        monkeypatch.undo()


def test_checksums_that_were_not_verified_are_before_who_asks_for_them(cuda):
    array = opened(MIB, codecs=CHAINS["crc32c"])
    unsafe = zg.ReadOptions(verify_checksums=False)
    for options, decoded in ((unsafe, 20), (unsafe, 0), (None, 20), (None, 0), (unsafe, 0)):
        stats = read_stats(array, cuda, [(0, 0)], (64, 80), options=options)
        assert stats.chunks_decoded == decoded


# ---- memory that unfinished work uses ------------------------------------------------------------

ONE_CHUNK_EACH = zg.ReadOptions(memory_budget_bytes=4 * CHUNK_NBYTES)
FEW_CHUNKS_EACH = zg.ReadOptions(memory_budget_bytes=24 * CHUNK_NBYTES)


def read_over_a_full_cache(device: CudaDevice, n_chunks: int) -> bool:
    """Whether a read is right whose later waves want the room of what earlier waves found."""
    array = opened(zg.ChunkCache(0, n_chunks * CHUNK_NBYTES))
    array.read((slice(0, 16), slice(0, 16)), device=device)
    right = True
    for _ in range(3):
        got = array.read(device=device, options=ONE_CHUNK_EACH)
        right &= np.array_equal(to_host(got), DATA)
    assert is_at_rest(array, device)
    return right


@pytest.mark.parametrize("kind", ["emulated", "lazy"])
@pytest.mark.parametrize("n_chunks", [1, 2, 5, 19])
def test_eviction_leaves_running_waves_alone(poisoned, kind, n_chunks):
    assert read_over_a_full_cache(open_device(kind), n_chunks)


def test_without_pins_it_would_not(poisoned, monkeypatch):
    """The test above sees what it is there for."""
    monkeypatch.setattr(DeviceChunks, "_pin", lambda self, slot: None)
    monkeypatch.setattr(DeviceChunks, "release", lambda self, slot: None)
    assert not read_over_a_full_cache(open_device("lazy"), 1)


@pytest.mark.parametrize("kind", ["emulated", "lazy"])
def test_threads_share_a_cache(poisoned, kind):
    device = open_device(kind)
    cache = zg.ChunkCache(0, 7 * CHUNK_NBYTES)
    arrays = [opened(cache, codecs=CHAINS["blosc-lz4-shuffle"]), opened(cache, DATA[::-1].copy())]
    random = np.random.default_rng(1)

    def right(number: int) -> bool:
        y, x = random.integers(0, 46, 2).tolist()
        array, data = arrays[number % 2], DATA[:: 1 - 2 * (number % 2)]
        if number % 17 == 16:
            cache.clear()
        got = array.read_patches([(y, x)], (18, 18), device=device, options=FEW_CHUNKS_EACH)
        return np.array_equal(to_host(got)[0], data[y : y + 18, x : x + 18])

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(right, range(40)))
    assert is_at_rest(arrays[0], device)
    assert cache.device_nbytes[device.name] <= 7 * CHUNK_NBYTES


# ---- too little memory ---------------------------------------------------------------------------


@pytest.mark.parametrize("chain", ["none", "zstd"])
def test_a_cache_takes_what_the_device_has_and_gives_it_back(chain):
    data = values((48, 64, 512), "u1")  # 48 chunks of 32 KiB
    array_nbytes = data.nbytes
    device = open_device("emulated", total_nbytes=9 * MIB)
    store = store_of(data, chunks=(1, 64, 512), codecs=CHAINS[chain])
    array = zg.open(store, cache=zg.ChunkCache(0, 1 << 30))
    driver = device.driver
    options = zg.ReadOptions(memory_budget_bytes=MIB)
    same(array.read(device=device, options=options), data, device=device)
    held = array.cache.device_nbytes[device.name]
    assert 0 < held <= 9 * MIB
    # a neighbour takes all that is left, and then wants more than there is
    taken = [driver.allocate(driver.memory_info()[0], driver.current_stream())]
    del taken
    same(array.read(device=device, options=options), data, device=device)
    for n in (3, 4):
        wanted = np.concatenate([data] * n)
        got = array.read_patches([(0, 0, 0)] * n, data.shape, device=device, options=options)
        same(got.reshape(wanted.shape), wanted, device=device)
        del got
    assert array.cache.device_nbytes[device.name] <= 9 * MIB - 2 * array_nbytes
    assert is_at_rest(array, device)


@pytest.mark.parametrize("kind", ["emulated", "lazy"])
@pytest.mark.parametrize("fitting", [0, 3])
def test_allocations_of_the_cache_that_fail_fail_no_read(monkeypatch, kind, fitting):
    device = open_device(kind)
    array = opened(zg.ChunkCache(0, MIB), codecs=CHAINS["zstd"])
    own, allocate, given = _slab_stream(device.driver), device.driver.allocate, []

    def refuse(nbytes: int, stream):
        if stream is own:
            given.append(nbytes)
            if nbytes > fitting * CHUNK_NBYTES:
                raise MemoryBudgetError
        return allocate(nbytes, stream)

    monkeypatch.setattr(device.driver, "allocate", refuse)
    for _ in range(2):
        stats = read_stats(array, device, [(0, 0)], (64, 80))
        assert stats.chunks_decoded + stats.chunks_cached == 20
    assert given
    assert stats.chunks_cached == (20 if fitting else 0)


# ---- processes -----------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_is_told_and_may_use_the_host(cuda):
    array = opened(MIB, codecs=CHAINS["zstd"])
    array.read(device=cuda)
    held = part(array, cuda)
    received, sent = os.pipe()
    held._lock.acquire()  # as another thread of the parent may hold it at the fork
    child = os.fork()
    if child:
        held._lock.release()
    else:
        message = "nothing was raised"
        try:
            array.read(device=cuda)
        except DeviceUnavailableError as error:
            message = str(error)
            if not np.array_equal(array.read(device="cpu"), DATA):
                message = "wrong on the host"
            array.cache.clear()
            if len(array.cache) or array.cache.device_nbytes != {cuda.name: 0}:
                message = f"still holds {array.cache!r}"
        finally:
            os.write(sent, message.encode())
            os._exit(0)
    os.waitpid(child, 0)
    assert "used in its forked child" in os.read(received, 4096).decode()
    stats = read_stats(array, cuda, [(0, 0)], (64, 80))
    assert (stats.chunks_decoded, stats.chunks_cached) == (0, 20)


@pytest.mark.parametrize("bound", [-1, 1.5, True])
def test_bounds_that_are_none(bound):
    with pytest.raises(ValueError, match="device_bytes"):
        zg.ChunkCache(1, bound)
