"""Reads follow one another on a device without gaps, and nobody's memory is written too early.

A read that was started leaves its last waves running; the next is fetched under them. Results are
complete when they are handed over, and their memory is not used again before the streams are done
that it was used on. The lazy emulated device, which does nothing before someone waits for it, shows
a missing wait as wrong bytes; waits are left out on purpose here to see that it does.
"""

from __future__ import annotations

import re
import threading
from contextlib import nullcontext

import numpy as np
import pytest

import zarrgpu as zg
from tests.emulator import decoders
from tests.emulator.memory import EmulatedMemory, EmulationError
from tests.emulator.streams import EmulatedStream
from tests.gpu.cases import ome_image
from tests.gpu.devices import empty, open_device, same
from tests.zarr_cases import CHAINS, MemoryStore, Recipe, encode, store_of, values
from zarrgpu import reader
from zarrgpu.devices.batches import library_parts
from zarrgpu.devices.cuda import CudaDevice
from zarrgpu.devices.cupy_errors import typed_error
from zarrgpu.devices.lent import Lent
from zarrgpu.devices.ring import SLOTS, SlotRing
from zarrgpu.errors import (
    ChunkDecodeError,
    DeviceLostError,
    DeviceUnavailableError,
    MemoryBudgetError,
)
from zarrgpu.output import output_format
from zarrgpu.plan.request import ReadRequest
from zarrgpu.read_explanation import explain_read
from zarrgpu.stats import ReadStats

MIB = 1 << 20


def start(array, device, ring=None, **how):
    """Start to read a whole array."""
    how.update(device=device, ring=ring, output=output_format(array.dtype))
    return reader.start_read((array.source,), whole(array), **how)


def whole(array):
    """Request of a whole array."""
    spec = array.spec
    return ReadRequest(
        arrays=(spec,), array_index=np.zeros(1, np.int32),
        start=np.zeros((1, spec.ndim), np.int64), count=spec.shape, step=(1,) * spec.ndim,
    )  # fmt: skip


class Watched(MemoryStore):
    """Calls `at_fetch` before each chunk is given."""

    at_fetch = staticmethod(lambda: None)

    def get(self, key, *args, **kwargs):
        if not key.endswith("json"):
            self.at_fetch()
        return super().get(key, *args, **kwargs)


# ---- one read after the other --------------------------------------------------------------------


def test_the_next_read_is_fetched_before_the_last_is_decoded():
    device = open_device("lazy")
    launches, seen = device.driver.launches, []
    data = values((40, 40), "u2")
    store = Watched(encode(data, Recipe(chunks=(10, 10), codecs=CHAINS["zstd"])))
    array = zg.open(store)
    ring = SlotRing(device)
    first = start(array, device, ring)
    store.at_fetch = lambda: seen.append("gather" in launches)
    second = start(array, device, ring)
    assert seen == [False] * 16  # all was fetched, and the first was not waited for
    same(second.finish()[0][0], data, device=device)
    same(first.finish()[0][0], data, device=device)
    ring.close()


@pytest.mark.parametrize("chain", ["zstd", "blosc-lz4-shuffle"])
@pytest.mark.parametrize("budget", [1 << 30, 3_000])
def test_reads_on_one_ring_equal_reads_apart(cuda, chain, budget):
    device = CudaDevice(cuda.driver)
    arrays = [
        zg.open(store_of(values((30 + n, 50), "u2", n), chunks=(10, 10), codecs=CHAINS[chain]))
        for n in range(4)
    ]
    options = zg.ReadOptions(memory_budget_bytes=budget)
    wanted = [array.read(device="cpu") for array in arrays]
    ring = SlotRing(device, device.delivery_stream)
    pending = [start(array, device, ring, options=options) for array in arrays]
    for n in (0, 2, 1, 3):  # in any order
        same(pending[n].finish()[0][0], wanted[n], device=device)
    ring.close()
    assert 1 <= len(device._free) <= SLOTS


def test_reads_may_be_finished_by_another_thread(cuda):
    device = CudaDevice(cuda.driver)
    data = values((40, 40), "u2")
    array = zg.open(store_of(data, chunks=(10, 10), codecs=CHAINS["zstd"]))
    options = zg.ReadOptions(memory_budget_bytes=3_000)
    ring, got, begun = SlotRing(device), [], []

    def finish(pending):
        got.append(pending.finish()[0])

    for _ in range(5):
        thread = threading.Thread(
            target=finish, args=(start(array, device, ring, options=options),)
        )
        thread.start()
        begun.append(thread)
    for thread in begun:
        thread.join()
    ring.close()
    for result in got:
        same(result[0], data, device=device)
    assert len(got) == 5


def test_reads_in_flight_share_one_budget():
    device = open_device("lazy")
    data = np.zeros((16, MIB), "u1") + np.arange(16, dtype="u1")[:, None]
    array = zg.open(store_of(data, chunks=(1, MIB), codecs=CHAINS["lz4"]))
    options = zg.ReadOptions(memory_budget_bytes=24 * MIB)
    ring = SlotRing(device)
    registry = device.driver.registry
    pending = [start(array, device, ring, options=options) for _ in range(3)]
    # arenas grow by a quarter, and tables are whole MiB
    assert registry.peak_nbytes <= 3 * data.nbytes + 24 * MIB * 1.25 + 2 * SLOTS * MIB
    for read in pending:
        same(read.finish()[0][0], data, device=device)
    ring.close()


def test_an_unfinished_read_writes_to_nobody_elses_memory():
    """A read that is dropped while its waves run: its result lives until they are done."""
    device = open_device("lazy")
    data = values((40, 40), "u2")
    array = zg.open(store_of(data, chunks=(10, 10), codecs=CHAINS["zstd"]))
    ring = SlotRing(device)
    start(array, device, ring)  # the emulator refuses writes to memory that was released
    same(start(array, device, ring).finish()[0][0], data, device=device)
    start(array, device, ring)
    ring.close()
    device.driver.synchronize()
    assert all(slot.settles() for slot in device._free)


def test_chunks_that_fail_on_the_device_are_retried_while_the_next_read_runs(monkeypatch):
    device = open_device("lazy")
    data = values((40, 40), "u2")
    array = zg.open(store_of(data, chunks=(10, 10), codecs=CHAINS["zstd"]))
    monkeypatch.setitem(decoders._DECODERS, "zstd", lambda source, room: b"")
    for budget in (1 << 30, 3_000):
        ring, stats = SlotRing(device), ReadStats()
        options = zg.ReadOptions(memory_budget_bytes=budget)
        pending = [start(array, device, ring, options=options, stats=stats) for _ in range(3)]
        for read in pending:
            same(read.finish()[0][0], data, device=device)
        ring.close()
        assert stats.chunks_retried == 3 * 16


def test_an_error_while_another_read_runs_is_that_reads_alone(cuda):
    device = CudaDevice(cuda.driver)
    data = values((40, 40), "u2")
    good = zg.open(store_of(data, chunks=(10, 10), codecs=CHAINS["zstd"]))
    store = store_of(data, chunks=(10, 10), codecs=CHAINS["zstd"])
    store.objects["c/3/1"] = b"garbage" * 5
    ring = SlotRing(device)
    options = zg.ReadOptions(memory_budget_bytes=3_000)
    first = start(good, device, ring, options=options)
    with pytest.raises(ChunkDecodeError, match="c/3/1"):
        start(zg.open(store), device, ring, options=options)
    last = start(good, device, ring, options=options)
    for read in (first, last):
        same(read.finish()[0][0], data, device=device)
    ring.close()


# ---- the loader ----------------------------------------------------------------------------------


def slide_of(data, store=MemoryStore, **recipe):
    image = ome_image(data, Recipe(codecs=CHAINS["zstd"], **recipe))
    store_of_image = image.levels[0].source.store
    if store is not MemoryStore:
        image.levels[0].source.store = store(store_of_image.objects)
    return image


def loader_of(slide, device, **options):
    sampler = zg.RandomPatches(slide, size=16, num_patches=24, seed=4)
    options = {"batch_size": 4, "window_batches": 1, **options}
    return zg.PatchLoader(sampler, device=device, **options)


@pytest.fixture(scope="module")
def pixels():
    return values((3, 64, 64), "u1")


def test_a_window_is_fetched_before_the_one_before_is_waited_for(pixels):
    """A window is finished only once the fetch of the next has begun; in turns none would be."""
    device = open_device("lazy")
    slide = slide_of(pixels, Watched, chunks=(3, 16, 16))
    store = slide.levels[0].source.store
    loader = loader_of(slide, device, prefetch=1)
    begun = [threading.Event() for _ in range(len(loader))]
    numbers, finished = iter(begun), iter(begun[1:])
    finish, start_window = loader._finish_window, loader._start_window

    def starting(*args):
        store.at_fetch = next(numbers).set
        return start_window(*args)

    def finishing(window):
        following = next(finished, None)
        assert following is None or following.wait(timeout=30), "the next one is not fetched"
        return finish(window)

    loader._start_window, loader._finish_window = starting, finishing
    got = [np.array(batch.images) for batch in loader]
    host = [np.array(batch.images) for batch in loader_of(slide, "cpu")]
    np.testing.assert_array_equal(got, host)


@pytest.mark.parametrize("prefetch", [0, 1, 3])
@pytest.mark.parametrize("kind", ["emulated", "lazy"])
def test_batches_equal_the_hosts_at_every_depth(kind, prefetch, pixels):
    slide = slide_of(pixels, chunks=(3, 16, 16))
    device = open_device(kind)
    host = [np.array(batch.images) for batch in loader_of(slide, "cpu")]
    loader = loader_of(slide, device, prefetch=prefetch, fixed_epoch=0)
    for _ in range(2):
        got = [np.array(batch.images) for batch in loader]
        np.testing.assert_array_equal(got, host)
    assert loader.stats.patches == 48
    assert 1 <= len(device._free) <= SLOTS


def test_a_loader_left_early_gives_its_slots_back(pixels):
    device = open_device("lazy")
    slide = slide_of(pixels, chunks=(3, 16, 16))
    for prefetch in (0, 1, 3):
        iterator = iter(loader_of(slide, device, prefetch=prefetch))
        next(iterator)
        iterator.close()
        assert 1 <= len(device._free) <= SLOTS
    list(loader_of(slide, device))


def test_a_loader_that_its_own_thread_lets_go_of_gives_its_slots_back(pixels):
    """The garbage collector comes by on any thread, also while a window is fetched there."""
    device = open_device("lazy")
    slide = slide_of(pixels, Watched, chunks=(3, 16, 16))
    loader, let_go, slots = loader_of(slide, device), threading.Event(), []
    start_window, store = loader._start_window, slide.levels[0].source.store
    windows = []

    def close():
        if not slots and let_go.wait(timeout=30):
            slots.append(len(device._free))
            iterator.close()
            slots.append(len(device._free))

    def starting(*args):
        windows.append(threading.current_thread())
        if len(windows) == 2:
            store.at_fetch = close
        return start_window(*args)

    loader._start_window = starting
    iterator = iter(loader)
    next(iterator)
    let_go.set()
    windows[0].join(timeout=30)
    assert slots == [0, 0], "they are not given back while the thread fetches into one of them"
    assert 1 <= len(device._free) <= SLOTS


# ---- whose memory it is --------------------------------------------------------------------------


def copies_on(device, loader, use):
    """Copy each batch to the host by a stream of the consumer's, who then lets go of it at once."""
    driver, copies = device.driver, []
    for batch in loader:
        stream = use(batch)
        view = driver.view_array(batch.images)
        pinned = driver.allocate_pinned(batch.images.nbytes)
        driver.copy_to_host(pinned.ptr, view.ptr, batch.images.nbytes, stream)
        copies.append((pinned, batch.images.shape, batch.images.dtype))
        del batch, view
    return copies


def host_copies(copies):
    return [pinned.array.view(dtype).reshape(shape) for pinned, shape, dtype in copies]


@pytest.mark.parametrize("hand_over", ["current stream", "dlpack"])
@pytest.mark.parametrize("forget", [False, True])
def test_memory_is_not_reused_under_the_consumers_stream(monkeypatch, pixels, hand_over, forget):
    device = open_device("lazy")
    driver = device.driver
    slide = slide_of(pixels, chunks=(3, 16, 16))
    host = [np.array(batch.images) for batch in loader_of(slide, "cpu")]
    mine = driver.create_stream()
    if forget:  # a planted fault: nobody notes who uses the memory
        monkeypatch.setattr(EmulatedMemory, "record_stream", lambda self, stream: None)

    def export(batch):
        batch.__dlpack__(stream=mine.handle)
        return mine

    current = driver.use_stream(mine) if hand_over == "current stream" else nullcontext()
    with current:
        use = export if hand_over == "dlpack" else lambda batch: mine
        copies = copies_on(device, loader_of(slide, device), use)
    # the memory's own stream goes on, as it does when it is handed out again
    device.delivery_stream.synchronize()
    found = pytest.raises(EmulationError, match="not within live") if forget else nullcontext()
    with found:
        mine.synchronize()
    assert all(map(np.array_equal, host_copies(copies), host)) is not forget


@pytest.mark.gpu
@pytest.mark.parametrize("hand_over", ["current stream", "dlpack"])
def test_a_slow_consumer_sees_its_own_batches(pixels, hand_over):
    """On a GPU: each batch is used long after it was let go of, on a stream of the consumer's."""
    cupy = pytest.importorskip("cupy")
    device = open_device("cuda")
    slide = slide_of(pixels, chunks=(3, 16, 16))
    host = [np.array(batch.images) for batch in loader_of(slide, "cpu")]
    mine = cupy.cuda.Stream(non_blocking=True)
    iterator, sums, work = iter(loader_of(slide, device)), [], cupy.ones(1 << 24, "f4")
    for _ in host:
        with mine if hand_over == "current stream" else nullcontext():
            batch = next(iterator)
        with mine:
            images = cupy.from_dlpack(batch) if hand_over == "dlpack" else batch.images
            for _ in range(20):
                work = cupy.sqrt(work)
            sums.append(images + (work[0] * 0).astype("u1"))
        del batch, images
    mine.synchronize()
    np.testing.assert_array_equal([s.get() for s in sums], host)


def test_consumers_that_order_themselves_are_not_noted(pixels):
    device = open_device("lazy")
    stream = device.driver.create_stream()
    memory = device.driver.allocate(16, stream)
    lent = Lent(device.driver, memory)
    lent.to_stream(-1)
    assert memory.users == {}
    lent.to_stream(None)
    lent.to_stream(stream.handle)
    lent.to_current_stream()
    assert sorted(memory.users) == [0, stream.handle]


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("forget", [False, True])
def test_a_missing_wait_for_the_callers_stream_is_found(monkeypatch, forget, ahead):
    """`out` is still in use on the caller's stream when it is read into, also on a ring's slots."""
    device = open_device("lazy")
    driver = device.driver
    data = values((64, 64), "u2")
    array = zg.open(store_of(data, chunks=(16, 16)))
    out = empty(device, data.shape, data.dtype)
    pinned = driver.allocate_pinned(data.nbytes)
    pinned.array[:] = 0
    mine = driver.create_stream()
    if forget:
        monkeypatch.setattr(EmulatedStream, "wait", lambda self, event: None)
    with driver.use_stream(mine):
        driver.copy_to_device(driver.view_array(out).ptr, pinned.ptr, data.nbytes, mine)
        ring = SlotRing(device, device.delivery_stream if ahead else None)
        start(array, device, ring, out=out).finish()
        mine.synchronize()
    ring.close()
    assert np.array_equal(out, data) is not forget


# ---- temporary memory ----------------------------------------------------------------------------


@pytest.mark.parametrize("bound", [0, 1_000, 40_000, 1 << 40])
def test_library_batches_are_cut_to_their_temporary_memory(bound):
    driver = open_device("emulated").driver
    rng = np.random.default_rng(3)
    for n in (1, 2, 7, 300):
        nbytes = rng.integers(1, 900, n)
        parts = library_parts(driver, "zstd", nbytes, bound)
        assert [row for a, b in parts for row in range(a, b)] == list(range(n))
        for a, b in parts:
            taken = driver.decompress_temp_nbytes("zstd", b - a, 0, int(nbytes[a:b].sum()))
            assert taken <= bound or b - a == 1
        fewest = decoders.TEMP_RATIO["zstd"] * nbytes.sum() / max(bound, 1)
        assert len(parts) <= min(n, 4 * fewest + 2)
        assert library_parts(driver, "lz4", nbytes, bound) == [(0, n)]  # takes none


def test_a_library_that_takes_more_than_it_is_reckoned_with_stays_in_the_budget(monkeypatch):
    monkeypatch.setitem(decoders.TEMP_RATIO, "zstd", 30.0)
    device = open_device("emulated")
    data = np.zeros((96, 64, 1024), "u1") + np.arange(96, dtype="u1")[:, None, None]  # 6 MiB
    array = zg.open(store_of(data, chunks=(1, 64, 1024), codecs=CHAINS["zstd"]))
    budget, stats = 24 * MIB, ReadStats()
    options = zg.ReadOptions(memory_budget_bytes=budget)
    got, _ = start(array, device, options=options, stats=stats).finish()
    same(got[0], data, device=device)
    assert device.driver.registry.peak_nbytes - data.nbytes <= budget * 1.25 + 2 * SLOTS * MIB
    assert stats.launches == len(device.driver.launches) > 3 * stats.waves


# ---- lost devices, several devices ---------------------------------------------------------------


@pytest.mark.parametrize("budget", [1 << 30, 3_000])
@pytest.mark.parametrize("call", ["launch", "copy_to_device", "decompress", "copy_to_host"])
def test_a_lost_device_is_an_error_of_its_own_and_not_the_end(monkeypatch, call, budget):
    device = open_device("lazy")
    driver = device.driver
    data = values((40, 40), "u2")
    array = zg.open(store_of(data, chunks=(10, 10), codecs=CHAINS["zstd"]))
    options = zg.ReadOptions(memory_budget_bytes=budget)
    same(array.read(device=device, options=options), data, device=device)
    original = getattr(driver, call)

    def fails(*args, **kwargs):
        driver.lose()
        return original(*args, **kwargs)

    monkeypatch.setattr(driver, call, fails)
    for _ in range(2):
        with pytest.raises(DeviceLostError, match="lost"):
            array.read(device=device, options=options)
    np.testing.assert_array_equal(array.read(device="cpu"), data)
    monkeypatch.undo()
    driver.replace_lost()
    for _ in range(2):
        device._free = [slot for slot in device._free if not slot.stream.lost]
        same(array.read(device=device, options=options), data, device=device)


def test_a_device_lost_while_it_decodes_drops_its_slots():
    device = open_device("lazy")
    data = values((40, 40), "u2")
    array = zg.open(store_of(data, chunks=(10, 10), codecs=CHAINS["zstd"]))
    pending = start(array, device)
    device.driver.lose()
    with pytest.raises(DeviceLostError):
        pending.finish()
    assert device._free == []
    device.driver.replace_lost()
    same(array.read(device=device), data, device=device)


def test_cudas_errors_are_ours():
    for status, kind, text in (
        (2, MemoryBudgetError, "memory_budget_bytes"),
        (3, DeviceUnavailableError, "spawn"),
        (700, DeviceLostError, "start anew"),
        (719, DeviceLostError, "lost"),
        (999, DeviceLostError, "lost"),
        (35, DeviceUnavailableError, "driver is too old"),
        (None, DeviceUnavailableError, "driver is too old"),
    ):
        error = typed_error("cuda:1", status, "driver is too old")
        assert type(error) is kind
        assert str(error).startswith("cuda:1: ")
        assert text in str(error)


def test_two_devices_do_not_touch_each_other():
    first, second = (open_device("lazy", device_id=n) for n in (0, 1))
    data = values((40, 40), "u2")
    array = zg.open(store_of(data, chunks=(10, 10), codecs=CHAINS["blosc-lz4-shuffle"]))
    results = [(device, array.read(device=device)) for device in (second, first, second)]
    for device, result in results:
        same(result, data, device=device)
    assert (first.name, second.name) == ("emulated:0", "emulated:1")
    pending = [start(array, device) for device in (first, second)]
    for device, read in zip((first, second), pending, strict=True):
        result, _ = read.finish()
        device.driver.view_array(result)  # it is there
        other = second if device is first else first
        with pytest.raises(DeviceUnavailableError, match="not on this device"):
            array.read(device=other, out=result[0])


@pytest.mark.gpu
def test_the_current_device_is_left_as_it_was():
    cupy = pytest.importorskip("cupy")
    if cupy.cuda.runtime.getDeviceCount() < 2:
        pytest.skip("one GPU")
    data = values((40, 40), "u2")
    array = zg.open(store_of(data, chunks=(10, 10), codecs=CHAINS["zstd"]))
    with cupy.cuda.Device(0):
        result = array.read(device="cuda:1")
        assert cupy.cuda.runtime.getDevice() == 0
        assert result.device.id == 1
        with pytest.raises(DeviceUnavailableError, match="cuda:1"):
            array.read(device="cuda:0", out=result)
    np.testing.assert_array_equal(result.get(), data)


# ---- what a read has cost ------------------------------------------------------------------------


def test_stages_are_timed_and_shown_to_profilers(cuda, pixels):
    stats = ReadStats()
    array = zg.open(store_of(values((40, 40), "u2"), chunks=(10, 10), codecs=CHAINS["zstd"]))
    options = zg.ReadOptions(memory_budget_bytes=3_000)
    start(array, cuda, options=options, stats=stats).finish()
    assert stats.waves > 3
    assert stats.launches >= 2 * stats.waves
    for name in ("plan", "fetch", "copy", "decode", "gather"):
        assert 0 < getattr(stats, f"{name}_seconds") < 60, name
    assert stats.plan_seconds + stats.fetch_seconds < stats.seconds
    total = ReadStats(patches=2)
    total.add(stats)
    assert total.patches == 3
    assert total.launches == stats.launches
    on_host = ReadStats()
    start(array, "cpu", stats=on_host).finish()
    assert on_host.plan_seconds > 0
    assert on_host.waves == on_host.copy_seconds == on_host.fetch_seconds == 0


def test_ranges_are_named():
    device = open_device("emulated")
    array = zg.open(store_of(values((40, 40), "u2"), chunks=(10, 10), codecs=CHAINS["zstd"]))
    start(array, device).finish()
    assert device.driver.ranges == [
        f"zarrgpu {name}" for name in ("plan", "fetch", "copy", "zstd", "gather")
    ]


@pytest.mark.parametrize("chain", CHAINS)
def test_an_explanation_names_all_calls_that_are_made(chain):
    """Whatever streams turn out to hold: names are a superset, the number an upper bound."""
    device = open_device("emulated")
    data = values((40, 400), "u2")
    recipe = Recipe(chunks=(10, 100), codecs=CHAINS[chain], missing=frozenset([(1, 1)]))
    array = zg.open(MemoryStore(encode(data, recipe)))
    wanted = array.read(device="cpu")
    for budget in (1 << 30, 40_000)[list(CHAINS).index(chain) % 2 :]:
        options, stats = zg.ReadOptions(memory_budget_bytes=budget), ReadStats()
        plan = reader.plan_read((array.source,), whole(array), options=options)
        text = explain_read(
            plan, (array.source,), output_format(array.dtype), device=device, options=options
        )
        said = re.search(r"launch +(\d+) waves? of at most (\d+) calls: (.*)", text)
        device.driver.ranges.clear()
        same(
            start(array, device, options=options, stats=stats).finish()[0][0], wanted, device=device
        )
        made = {name.removeprefix("zarrgpu ") for name in device.driver.ranges}
        assert made - {"plan", "fetch", "copy"} <= set(said[3].split(", "))
        assert stats.waves == int(said[1])
        assert stats.launches <= stats.waves * int(said[2])


def test_whoever_reads_may_ask_what_it_cost(pixels):
    device = open_device("emulated")
    array = zg.open(store_of(pixels, chunks=(3, 16, 16), codecs=CHAINS["zstd"]))
    slide = slide_of(pixels, chunks=(3, 16, 16))
    for read in (
        array.read,
        lambda **how: array.read(([0, 2], [5, 60], [1, 3]), **how),
        lambda **how: array.read_patches([(0, 0, 0)], (3, 16, 16), **how),
        lambda **how: slide.read_regions([(3, 4)], 0, (20, 20), **how),
        lambda **how: zg.read_regions([slide], [0], [(3, 4)], (20, 20), **how),
    ):
        stats = zg.ReadStats()
        read(device=device, stats=stats)
        assert stats.fetched_bytes > 0
        assert stats.delivered_bytes > 0
        assert stats.gather_seconds > 0
        assert stats.launches >= 2
