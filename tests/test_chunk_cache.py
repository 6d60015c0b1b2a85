"""Laws of the chunk cache.

1. Reads through a cache give what reads without one give, whatever it holds, for any number of
   threads and any bound; hits are neither fetched nor decoded.
2. It never holds more than its bound; the least recently used goes first.
3. What one process or array cached is not another's.
"""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import zarrgpu as zg
from tests.zarr_cases import CHAINS, MemoryStore, Recipe, encode
from zarrgpu import ChunkCache
from zarrgpu.chunk_cache import CachedChunk

DATA = np.random.default_rng(0).integers(0, 99, (60, 70, 3)).astype(np.uint16)
CHUNK_NBYTES = 16 * 16 * 3 * 2


def put(cache, key, elements):
    cache.put_many([(key, CachedChunk(elements, 0))])


def stored(**recipe) -> MemoryStore:
    return MemoryStore(encode(DATA, Recipe(chunks=(16, 16, 3), **recipe)))


@settings(max_examples=60, deadline=None)
@given(
    chain=st.sampled_from(["none", "zstd", "blosc-lz4-shuffle", "zstd+crc32c"]),
    shards=st.sampled_from([None, (32, 32, 3)]),
    max_chunks=st.integers(0, 30),
    big_endian=st.booleans(),
    starts=st.lists(
        st.tuples(st.integers(-5, 62), st.integers(-5, 72), st.just(0)), min_size=1, max_size=12
    ),
    dtype=st.sampled_from([None, "f4"]),
)
def test_a_cache_changes_nothing(chain, shards, max_chunks, big_endian, starts, dtype):
    store = stored(codecs=CHAINS[chain], shards=shards, big_endian=big_endian)
    plain, cached = zg.open(store), zg.open(store, cache=max_chunks * CHUNK_NBYTES)
    for first in range(0, len(starts), 3):
        some = starts[first : first + 3]
        want = plain.read_patches(some, (20, 9, 3), device="cpu", dtype=dtype)
        for _ in range(2):
            got = cached.read_patches(some, (20, 9, 3), device="cpu", dtype=dtype)
            np.testing.assert_array_equal(got, want)
    assert cached.cache.nbytes <= cached.cache.max_bytes
    np.testing.assert_array_equal(cached.read(device="cpu"), DATA)
    np.testing.assert_array_equal(cached.read(device="cpu"), DATA)


def test_what_is_cached_is_not_fetched_again():
    store = stored(codecs=CHAINS["zstd"])
    array = zg.open(store, cache=1 << 20)
    np.testing.assert_array_equal(array.read(slice(0, 20), device="cpu"), DATA[:20])
    asked = len(store.requests)
    np.testing.assert_array_equal(array.read(slice(3, 30), device="cpu"), DATA[3:30])
    assert len(store.requests) == asked
    assert (array.cache.hits, array.cache.misses) == (10, 10)
    array.cache.clear()
    assert len(array.cache) == 0
    np.testing.assert_array_equal(array.read(slice(0, 2), device="cpu"), DATA[:2])
    assert len(store.requests) > asked


def test_ranges_of_a_shard_are_fetched_for_what_is_missing_only():
    store = stored(shards=(64, 80, 3), codecs=CHAINS["zstd"])
    array = zg.open(store, cache=1 << 20)
    array.read((slice(0, 16), slice(0, 16)), device="cpu")
    asked = len(store.requests)
    np.testing.assert_array_equal(array.read(slice(0, 16), device="cpu"), DATA[:16])
    assert len(store.requests) == asked + 1


def test_the_least_recently_used_goes_first():
    cache = ChunkCache(100)
    chunks = [np.full(40, i, np.uint8) for i in range(3)]
    put(cache, (0, 0), chunks[0])
    put(cache, (0, 1), chunks[1])
    assert cache.get_many([(0, 0)])[0].elements is chunks[0]
    put(cache, (0, 2), chunks[2])
    assert [e is None for e in cache.get_many([(0, 0), (0, 1), (0, 2)])] == [False, True, False]
    put(cache, (0, 3), np.zeros(101, np.uint8))
    assert (cache.nbytes, len(cache)) == (80, 2)
    with pytest.raises(ValueError, match="read-only"):
        chunks[0][0] = 9


def test_memory_that_chunks_share_counts_until_the_last_is_gone():
    cache, memory = ChunkCache(100), np.zeros(60, np.uint8)
    put(cache, (0, 0), memory[:30])
    put(cache, (0, 1), memory[30:])
    assert cache.nbytes == 60
    put(cache, (0, 2), np.zeros(50, np.uint8))
    assert (len(cache), cache.nbytes) == (1, 50)
    cache.clear()
    assert (len(cache), cache.nbytes) == (0, 0)


def test_arrays_that_share_a_cache_do_not_share_chunks():
    cache = ChunkCache(1 << 20)
    other = MemoryStore(encode(DATA[::-1].copy(), Recipe(chunks=(16, 16, 3))))
    first, second = zg.open(stored(), cache=cache), zg.open(other, cache=cache)
    for _ in range(2):
        np.testing.assert_array_equal(first.read(device="cpu"), DATA)
        np.testing.assert_array_equal(second.read(device="cpu"), DATA[::-1])
    assert first.cache is second.cache is cache


def test_a_copy_begins_empty():
    array = zg.open(stored(), cache=1 << 20)
    array.read(device="cpu")
    copy = pickle.loads(pickle.dumps(array))
    assert copy.cache.max_bytes == 1 << 20
    assert len(copy.cache) == 0
    np.testing.assert_array_equal(copy.read(device="cpu"), DATA)


def test_many_threads_share_a_cache():
    array = zg.open(stored(codecs=CHAINS["blosc-lz4-shuffle"]), cache=7 * CHUNK_NBYTES)
    random = np.random.default_rng(1)
    corners = [(int(y), int(x), 0) for y, x in random.integers(0, 40, (200, 2))]

    def right(corner: tuple[int, int, int]) -> bool:
        y, x, _ = corner
        got = array.read_patches([corner], (18, 18, 3), device="cpu")[0]
        return np.array_equal(got, DATA[y : y + 18, x : x + 18])

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(right, corners))
    assert array.cache.nbytes <= array.cache.max_bytes


@pytest.mark.parametrize("max_bytes", [-1, 1.5, "1", True])
def test_bounds_that_are_none(max_bytes):
    with pytest.raises(ValueError, match="max_bytes"):
        ChunkCache(max_bytes)
