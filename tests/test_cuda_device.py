"""A CUDA device serves many reads: in waves, from many threads, with memory that they share.

Memory stays within the budget, slots are reused and come back, and a result is complete when it is
returned.
"""

from __future__ import annotations

import threading
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

import zarrgpu as zg
from tests.gpu.devices import empty, open_device, same, to_host
from tests.zarr_cases import CHAINS, MemoryStore, Recipe, encode, store_of, values
from tests.zstd_cases import SKIPPABLE_FRAME
from zarrgpu import reader
from zarrgpu.cuda_budget import cut_waves
from zarrgpu.devices.cuda import ALIGNMENT, CudaDevice, PinnedArena, Slot, TableArena
from zarrgpu.devices.ring import SLOTS
from zarrgpu.errors import (
    MemoryBudgetError,
)
from zarrgpu.output import output_format
from zarrgpu.plan.request import ReadRequest
from zarrgpu.stats import ReadStats

MIB = 1 << 20
SHARDED = ("zstd", "blosc-lz4-shuffle", "none", "gzip", "zstd+crc32c")


# ---- waves ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("chain", SHARDED)
def test_many_waves_give_the_bytes_of_one(cuda, chain):
    data = values((60, 70), "u2")
    store = store_of(
        data, chunks=(10, 10), shards=(30, 70), codecs=CHAINS[chain], missing=frozenset([(1, 1)])
    )
    array = zg.open(store)
    wanted = array.read(device="cpu")
    reads = []
    for budget in (1 << 30, 20_000, 3_000):
        store.requests.clear()
        options = zg.ReadOptions(memory_budget_bytes=budget, max_gap_bytes=1000)
        same(array.read(device=cuda, options=options), wanted, device=cuda)
        reads.append(len(store.requests))
    assert reads[0] < reads[2] < 42  # one read a shard, then reads cut between waves


def test_no_wave_exceeds_the_budget_however_well_chunks_compress():
    """Empty chunks of one shard are one small range, and gigabytes once decoded."""
    device = open_device("emulated")
    data = np.zeros((64, 128, 256), "u1")  # 64 chunks of 32 KiB in some hundred bytes each
    array = zg.open(
        store_of(data, chunks=(1, 128, 256), shards=(64, 128, 256), codecs=CHAINS["zstd"])
    )
    budget = 1 * MIB
    before = device.driver.registry.live_nbytes("device")
    device.driver.registry.peak_nbytes = before
    out = empty(device, data.shape, data.dtype)
    array.read(device=device, out=out, options=zg.ReadOptions(memory_budget_bytes=budget))
    same(out, data, device=device)
    used = device.driver.registry.peak_nbytes - before - data.nbytes
    assert device.driver.launches.count("gather") >= 8
    # arenas are whole MiB: for each slot one for tables, one for data, and temporary memory
    assert used <= 2 * SLOTS * MIB + budget


def test_a_chunk_beyond_the_budget_is_refused_and_one_of_half_of_it_is_not(cuda):
    data = values((100, 100), "u1")
    array = zg.open(store_of(data, chunks=(100, 100), codecs=CHAINS["zstd"]))
    with pytest.raises(MemoryBudgetError, match=r"chunk of \[100, 100\] takes 53000 bytes"):
        array.read(device=cuda, options=zg.ReadOptions(memory_budget_bytes=52_999))
    options = zg.ReadOptions(memory_budget_bytes=53_000)
    same(array.read(device=cuda, options=options), data, device=cuda)


def test_chunks_of_more_than_half_of_the_budget_take_turns(cuda):
    """Two at a time would exceed it; and so three of more than a third."""
    data = values((100, 400), "u1")
    array = zg.open(store_of(data, chunks=(100, 100), codecs=CHAINS["zstd"]))
    for budget, slots in ((53_000 * 2 - 1, 1), (53_000 * 2, 2), (53_000 * 3, 3)):
        device = CudaDevice(cuda.driver)
        options = zg.ReadOptions(memory_budget_bytes=budget)
        same(array.read(device=device, options=options), data, device=device)
        assert len(device._free) == slots


@pytest.mark.parametrize("nbytes", [1, 7, 100, 1e9])
def test_waves_hold_every_chunk_once_and_reads_stay_consistent(nbytes):
    data = values((40, 30), "u1")
    store = store_of(
        data, chunks=(5, 5), shards=(20, 30), codecs=CHAINS["zstd"], missing=frozenset([(2, 2)])
    )
    source = zg.open(store).source
    request = ReadRequest(
        arrays=(source.spec,), array_index=np.zeros(1, np.int32), start=np.zeros((1, 2), np.int64),
        count=(40, 30), step=(1, 1),
    )  # fmt: skip
    plan = reader.plan_read((source,), request, options=zg.ReadOptions(max_gap_bytes=1000))
    cost = np.random.default_rng(0).uniform(1, 6, len(plan.chunks))
    cut, waves = cut_waves(plan, np.minimum(cost, nbytes), nbytes)
    assert np.concatenate(waves).tolist() == list(range(len(plan.chunks)))
    assert max(np.minimum(cost, nbytes)[rows].sum() for rows in waves) <= nbytes
    for read in range(len(cut.reads)):
        rows = np.arange(*cut.reads.chunk_start[read : read + 2])
        assert (cut.chunks.read[rows] == read).all()
        assert len({i for i, wave in enumerate(waves) if np.isin(rows, wave).any()}) == 1
        begin, end = cut.reads.offset[read], cut.reads.offset[read] + cut.reads.nbytes[read]
        assert (cut.chunks.offset[rows] >= begin).all()
        assert (cut.chunks.offset[rows] + cut.chunks.nbytes[rows]).max() == end
        assert (cut.chunks.object_id[rows] == cut.reads.object_id[read]).all()
    assert cut.reads.nbytes.sum() <= plan.reads.nbytes.sum()


# ---- slots ---------------------------------------------------------------------------------------


def test_slots_are_reused_and_grow():
    device = open_device("emulated")
    driver = device.driver
    small, large = (zg.open(store_of(values((n, n), "u1"), chunks=(64, 64))) for n in (64, 2048))
    small.read(device=device)
    first = {a.ptr for a in driver.registry.live("device")}
    small.read(device=device)
    assert {a.ptr for a in driver.registry.live("device")} == first  # nothing was allocated
    same(large.read(device=device), values((2048, 2048), "u1"), device=device)
    grown = {a.ptr for a in driver.registry.live("device")}
    same(small.read(device=device), values((64, 64), "u1"), device=device)
    assert {a.ptr for a in driver.registry.live("device")} == grown
    assert len(driver._streams) == 2  # one wave each: one slot


def test_the_pinned_arena_takes_more_than_it_was_told(cuda):
    arena = PinnedArena(cuda.driver)
    assert (arena.ptr, arena.used, arena.array.size) == (0, 0, 0)
    rng = np.random.default_rng(0)
    for told in (0, 100, 3 * MIB):
        arena.reset(told)
        parts = []
        for n in (1, 17, 2 * MIB, 0, 5, 3 * MIB, 33):
            at, memory = arena.take(n)
            assert at % ALIGNMENT == 0
            assert memory.size == n
            memory[:] = rng.integers(0, 256, n, dtype=np.uint8)
            parts.append((at, memory.copy()))
        arena.settle()
        arena.settle()
        assert arena.array.size == arena.used
        for at, part in parts:
            np.testing.assert_array_equal(arena.array[at : at + part.size], part)


def test_chunks_that_outgrow_the_pinned_arena_are_read_all_the_same(cuda):
    """Streams of two frames are decoded on the host, into room that nobody planned for."""
    device = CudaDevice(cuda.driver)
    data = np.zeros((8, 1024, 512), "u1") + np.arange(8, dtype="u1")[:, None, None]
    store = store_of(data, chunks=(1, 1024, 512), codecs=CHAINS["zstd"])
    for key in store.objects.keys() - {"zarr.json"}:
        store.objects[key] += SKIPPABLE_FRAME
    array = zg.open(store)
    same(array.read(device=device), data, device=device)


def test_tables_are_never_longer_on_the_host_than_on_the_device():
    """Out of memory between the two allocations of a table arena must not be forgotten."""
    device = open_device("emulated", total_nbytes=4 * MIB)
    slot = Slot(device.driver)
    slot.tables.reserve(100)
    with pytest.raises(MemoryBudgetError):
        slot.tables.reserve(64 * MIB)
    slot.tables.reserve(1000)
    slot.tables.place(np.arange(100))
    slot.tables.send()
    with pytest.raises(AssertionError, match="exceed the room"):
        TableArena(slot).result(1 << 40)


def test_concurrent_reads_do_not_share_slots(cuda):
    data = values((96, 96), "u2")
    chains = ["zstd", "blosc-lz4-shuffle", "none", "gzip"]
    arrays = [zg.open(store_of(data, chunks=(16, 16), codecs=CHAINS[c])) for c in chains]
    options = zg.ReadOptions(memory_budget_bytes=20_000)
    wrong: list[BaseException] = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        try:
            for array in arrays:
                starts = rng.integers(0, 60, (5, 2))
                got = to_host(array.read_patches(starts, (36, 36), device=cuda, options=options))
                for patch, (y, x) in zip(got, starts, strict=True):
                    np.testing.assert_array_equal(patch, data[y : y + 36, x : x + 36])
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong, wrong


def test_a_forgotten_synchronisation_is_found(monkeypatch):
    """What the lazy driver is for: without the wait for a slot, nothing has been done yet."""
    from tests.emulator.streams import EmulatedEvent

    device = open_device("lazy")
    data = values((30, 30), "u2")
    array = zg.open(store_of(data, chunks=(8, 8)))
    same(array.read(device=device), data, device=device)
    monkeypatch.setattr(EmulatedEvent, "synchronize", lambda self: None)
    with pytest.raises(AssertionError):
        same(array.read(device=device), data, device=device)


# ---- what surrounds a read -----------------------------------------------------------------------


def test_counters_are_those_of_the_host(cuda):
    data = values((40, 40), "u2")
    store = store_of(
        data, chunks=(10, 10), shards=(20, 40), codecs=CHAINS["zstd"], missing=frozenset([(0, 0)])
    )
    source = zg.open(store).source
    request = ReadRequest(
        arrays=(source.spec,), array_index=np.zeros(2, np.int32), start=np.array([(0, 0), (-5, 3)]),
        count=(30, 30), step=(1, 1),
    )  # fmt: skip
    found = []
    for device in ("cpu", cuda):
        stats = ReadStats()
        reader.read(
            (source,),
            request,
            output=output_format(source.spec.dtype),
            device=device,
            stats=stats,
        )
        found.append(stats)
    names = [field.name for field in fields(ReadStats)]
    counted = [n for n in names if "seconds" not in n and n not in ("waves", "launches")]
    assert [getattr(found[0], n) for n in counted] == [getattr(found[1], n) for n in counted]


def test_local_files_are_read_into_pinned_memory(cuda, tmp_path: Path):
    from tests.zarr_cases import write

    data = values((50, 60), "u2")
    for number, chain in enumerate(("none", "zstd", "gzip")):
        for shards in (None, (20, 30)):
            objects = encode(data, Recipe(chunks=(10, 10), codecs=CHAINS[chain], shards=shards))
            path = write(tmp_path / f"{number}{shards is None}", objects)
            same(zg.open(path).read(device=cuda), data, device=cuda)


def test_a_store_that_asks_for_memory_and_does_not_use_it_is_read_right(cuda):
    class Wasteful(MemoryStore):
        def get(self, key, allocate=None, max_nbytes=None):
            data = super().get(key, allocate, max_nbytes)
            if allocate is not None and data is not None:
                allocate(data.size)[:] = 1
                allocate(data.size)[:] = 2
            return data

    data = values((50, 60), "u2")
    array = zg.open(Wasteful(encode(data, Recipe(chunks=(10, 10), codecs=CHAINS["zstd"]))))
    same(array.read(device=cuda), data, device=cuda)


def test_names_and_explanations(cuda):
    array = zg.open(store_of(values((4, 4), "u1"), chunks=(2, 2), codecs=CHAINS["zstd"]))
    assert cuda.name in repr(cuda)
    text = array.plan(device=cuda).explain()
    assert cuda.name in text
    assert "nvCOMP" in text
