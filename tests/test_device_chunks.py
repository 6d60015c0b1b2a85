"""Laws of the memory of cached chunks on a device.

1. It never holds more than its bound; within a size the least recently used chunk goes first, and
   sizes give way to one another slab by slab.
2. What is pinned stays where it is and as it is; no two chunks in use ever overlap.
3. Memory that the device does not have is done without, for a while.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.gpu.devices import open_device
from zarrgpu.devices.chunk_slots import _PATIENCE
from zarrgpu.devices.device_chunks import DeviceChunks, give_back_caches

KIB = 1 << 10


@pytest.fixture
def driver():
    return open_device("emulated").driver


def numbers(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def keep(cache: DeviceChunks, *chunks: int, size: int = KIB, owner: int = 7) -> list[bool]:
    """What a wave that decoded chunks does once it is done; which of them were kept."""
    ids = numbers(*chunks)
    slots, clears = cache.reserve(np.full(len(ids), size))
    there = slots.slot >= 0
    owners = np.full(there.sum(), owner)
    none = np.zeros(there.sum(), np.int64)
    cache.publish(slots.slot[there], owners, ids[there], none, verified=True, clears=clears)
    cache.release(slots.slot)
    check(cache)
    return there.tolist()


def held(cache: DeviceChunks, *chunks: int, owner: int = 7) -> list[bool]:
    found = cache.find(np.full(len(chunks), owner), numbers(*chunks), verified=True)
    cache.release(found.slot)
    check(cache)
    assert ((found.slot >= 0) == (found.address > 0)).all()
    return (found.slot >= 0).tolist()


def check(cache: DeviceChunks) -> None:
    """What must hold whatever was done."""
    memory, table = cache._memory, cache._memory.table
    free = sorted(slot for slots in memory._free.values() for slot in slots)
    assert cache.nbytes == sum(slab.memory.nbytes for slab in memory.slabs.values())
    assert cache.nbytes <= cache.max_bytes
    assert (table["pins"] >= 0).all()
    live = table["slab"] >= 0
    used = (table["pins"] > 0) | table["published"]
    assert not (used & ~live).any()
    assert free == np.flatnonzero(live & ~used).tolist()
    assert sorted(memory._spare) == np.flatnonzero(~live).tolist()
    assert sorted(cache._index.values()) == np.flatnonzero(table["published"]).tolist()
    for (owner, chunk), slot in cache._index.items():
        assert (owner, chunk) == (table["owner"][slot], table["chunk"][slot])
    places = np.sort(table[live], order="address")
    assert (places["address"][1:] >= (places["address"] + places["nbytes"])[:-1]).all()
    for number, slab in memory.slabs.items():
        inside = table[slab.slots]
        assert (inside["slab"] == number).all()
        assert (inside["address"] >= slab.memory.ptr).all()
        assert (inside["address"] + inside["nbytes"] <= slab.memory.ptr + slab.memory.nbytes).all()


def test_the_least_recently_used_goes_first(driver):
    cache = DeviceChunks(driver, 4 * KIB)
    assert keep(cache, 0, 1, 2, 3) == [True] * 4
    assert held(cache, 1, 0) == [True, True]
    keep(cache, 4, 5)
    assert held(cache, 0, 1, 2, 3, 4, 5) == [True, True, False, False, True, True]
    keep(cache, 6)
    assert held(cache, 0, 1, 4, 5, 6) == [False, True, True, True, True]
    assert len(cache) == 4
    assert cache.nbytes == 4 * KIB


def test_more_than_fits_is_kept_in_part(driver):
    cache = DeviceChunks(driver, 3 * KIB)
    assert sum(keep(cache, *range(5))) == 3
    assert sum(keep(cache, *range(10, 15))) == 3
    assert len(cache) == 3
    assert keep(cache, 99, size=4 * KIB) == [False]
    assert keep(DeviceChunks(driver, 0), 1) == [False]


def test_chunks_fill_the_bound_whatever_their_size(driver):
    cache = DeviceChunks(driver, 1000)
    assert keep(cache, 5, size=1000) == [True]
    assert cache.nbytes == 1000
    odd = DeviceChunks(driver, 10_000)
    assert sum(keep(odd, *range(20), size=1000)) == 10


def test_memory_is_few_large_pieces(driver):
    cache = DeviceChunks(driver, 4096 * KIB)
    before = len(driver.registry.live("device"))
    for first in range(0, 4096, 256):
        keep(cache, *range(first, first + 256))
    assert len(cache) == 4096
    assert len(driver.registry.live("device")) - before <= 34


def test_sizes_give_way_to_one_another(driver):
    cache = DeviceChunks(driver, 64 * KIB)
    keep(cache, *range(64))
    for number in range(100, 140):
        assert keep(cache, number, size=3 * KIB) == [True]
    large = sum(held(cache, *range(100, 140)))
    small = sum(held(cache, *range(64)))
    assert large >= 10
    assert small + 3 * large <= 64
    keep(cache, *range(64, 96))  # and back
    assert all(held(cache, *range(64, 96)))


def test_what_is_pinned_stays(driver):
    cache = DeviceChunks(driver, 2 * KIB)
    keep(cache, 0, 1)
    found = cache.find(numbers(7), numbers(0), verified=True)
    assert keep(cache, 2) == [True]
    assert held(cache, 0, 1, 2) == [True, False, True]
    other = cache.find(numbers(7), numbers(2), verified=True)
    assert keep(cache, 3) == [False]
    cache.release(found.slot)
    cache.release(other.slot)
    assert keep(cache, 3) == [True]
    assert held(cache, 0, 2, 3) == [False, True, True]


def test_what_is_cleared_in_use_is_freed_later_and_not_found(driver):
    cache = DeviceChunks(driver, 2 * KIB)
    keep(cache, 0)
    found = cache.find(numbers(7, 7), numbers(0, 0), verified=True)
    assert (cache._memory.table["pins"] == 2).sum() == 1
    reserved, clears = cache.reserve(numbers(KIB))
    cache.clear()
    check(cache)
    assert held(cache, 0) == [False]
    assert cache.nbytes == 2 * KIB
    args = numbers(7), numbers(1), numbers(0)
    cache.publish(reserved.slot, *args, verified=True, clears=clears)
    for slots in (found, reserved):
        cache.release(slots.slot)
        check(cache)
    assert held(cache, 1) == [False]  # read before the clearing: it may be out of date
    cache.clear()
    assert cache.nbytes == 0
    assert keep(cache, 4, 5) == [True, True]


def test_of_chunks_that_two_waves_decoded_one_is_kept(driver):
    cache = DeviceChunks(driver, 3 * KIB)
    first, clears = cache.reserve(numbers(KIB, KIB))
    again, _ = cache.reserve(numbers(KIB))
    for slots, ids in ((first, numbers(0, 0)), (again, numbers(0))):
        owner, none = np.full(len(ids), 7), np.zeros(len(ids), np.int64)
        cache.publish(slots.slot, owner, ids, none, verified=True, clears=clears)
        cache.release(slots.slot)
        check(cache)
    assert len(cache) == 1


def test_chunks_without_verified_checksums_are_for_who_asks_for_none(driver):
    cache = DeviceChunks(driver, 4 * KIB)
    slots, clears = cache.reserve(numbers(KIB))
    key = numbers(7), numbers(0)
    cache.publish(slots.slot, *key, numbers(512), verified=False, clears=clears)
    cache.release(slots.slot)
    assert held(cache, 0) == [False]
    found = cache.find(*key, verified=False)
    assert found.shuffle_block_nbytes.tolist() == [512]
    cache.release(found.slot)
    keep(cache, 0)
    assert held(cache, 0) == [True]
    assert cache.find(*key, verified=False).shuffle_block_nbytes.tolist() == [0]


def test_memory_that_is_not_there_is_done_without_for_a_while():
    driver = open_device("emulated", total_nbytes=5 * KIB).driver
    cache = DeviceChunks(driver, 32 * KIB)
    assert sum(keep(cache, *range(8))) == 5
    taken = cache.nbytes
    driver.total_nbytes = 1 << 30
    for number in range(_PATIENCE):
        assert cache.nbytes == taken
        assert keep(cache, 100 + number) == [True]
    assert cache.nbytes > taken


def test_a_read_without_memory_gets_that_of_the_caches(driver):
    cache, other = DeviceChunks(driver, 4 * KIB), DeviceChunks(driver, 4 * KIB)
    keep(cache, 0, 1, 2, 3)
    keep(other, 0)
    found = cache.find(numbers(7), numbers(2), verified=True)
    give_back_caches(driver)
    for each in (cache, other):
        check(each)
    assert (cache.nbytes, other.nbytes) == (KIB, 0)
    assert held(cache, 0, 1, 2, 3) == [False, False, True, False]
    cache.release(found.slot)
    keep(cache, 5, 6, 7)
    assert cache.nbytes == 2 * KIB
    give_back_caches(open_device("emulated").driver)
    assert cache.nbytes == 2 * KIB


@settings(max_examples=60, deadline=None)
@example(seed=11071, kib=100)
@given(seed=st.integers(0, 1 << 32), kib=st.sampled_from([3, 17, 100]))
def test_whatever_is_done_in_any_order(seed, kib):
    """Finds, waves that succeed and fail, clearings, in any order and overlapping."""
    rng = np.random.default_rng(seed)
    cache = DeviceChunks(open_device("emulated").driver, kib * KIB)
    content: dict[tuple[int, int], int] = {}  # slot's address by key, of what was published
    running: list[tuple] = []
    for _ in range(40):
        action = rng.integers(0, 10)
        owner, ids = rng.integers(0, 3, (2, rng.integers(0, 12)))
        ids = ids + rng.integers(0, 9)
        if action < 4:
            found = cache.find(owner, ids, verified=True)
            for key, address in zip(zip(owner, ids, strict=True), found.address, strict=True):
                assert address == 0 or content[key] == address
            running.append((found, None, None, None))
        elif action < 7:
            slots, clears = cache.reserve(np.array([200, KIB, 5000])[owner])
            running.append((slots, clears, owner, ids))
        elif action < 9 and running:
            slots, clears, owner, ids = running.pop(int(rng.integers(len(running))))
            if clears is not None and rng.random() < 0.8:
                there = slots.slot >= 0
                args = slots.slot[there], owner[there], ids[there], slots.slot[there] * 0
                cache.publish(*args, verified=True, clears=clears)
                kept = zip(owner[there], ids[there], slots.address[there], strict=True)
                if clears == cache._clears:  # what was reserved before a clearing is not kept
                    content.update({(o, i): int(address) for o, i, address in kept})
            cache.release(slots.slot)
        elif action == 9 and rng.random() < 0.3:
            cache.clear() if rng.random() < 0.5 else cache.give_back()
        check(cache)
        pinned = [s for slots, *_ in running for s in np.unique(slots.slot[slots.slot >= 0])]
        assert np.bincount(pinned, minlength=1).max(initial=0) <= len(running)
