"""Law 4 on the host: a fast path equals the general path.

Direct decoding and gathering, one thread and many, one process and its children, coalesced or not:
the same bytes. Failures are raised, or masked patch by patch.
"""

from __future__ import annotations

import gzip
import json
import multiprocessing
import pickle
import signal
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import zarrgpu as zg
from tests.zarr_cases import CHAINS, MemoryStore, Recipe, encode, expected, values, write
from zarrgpu import host_engine, reader
from zarrgpu.devices.host import run_threads, scratch
from zarrgpu.errors import (
    ChunkDecodeError,
    MemoryBudgetError,
    ReadCancelledError,
    SelectionError,
    StoreError,
)
from zarrgpu.output import output_format
from zarrgpu.plan.request import ReadRequest
from zarrgpu.stats import ReadStats


def request_of(arrays: list[zg.Array], index: list[int], starts, count, step=None) -> ReadRequest:
    return ReadRequest(
        arrays=tuple(a.spec for a in arrays), array_index=np.array(index, np.int32),
        start=np.array(starts, np.int64).reshape(len(index), len(count)), count=tuple(count),
        step=tuple(step or (1,) * len(count)),
    )  # fmt: skip


def run(
    arrays: list[zg.Array], request: ReadRequest, *, direct: bool, threads: int
) -> tuple[np.ndarray, int]:
    """Result of a plan, and how many of its chunks were decoded in place."""
    sources = tuple(a.source for a in arrays)
    options = zg.ReadOptions(num_threads=threads, io_concurrency=threads)
    plan = reader.plan_read(sources, request, options=options, allow_direct=direct)
    output = output_format(arrays[0].spec.dtype)
    result, view = host_engine.allocate(
        request.output_shape, tuple(range(len(request.count))), output, None
    )
    result.view(np.uint8).fill(0xA5)
    host_engine.execute(plan, sources, view, output, options, ReadStats(), None)
    return result, int(plan.chunks.direct.sum())


@settings(max_examples=60)
@given(st.data())
def test_direct_equals_gathered_for_any_number_of_threads(data):
    ndim = data.draw(st.integers(1, 3))
    chunks = tuple(data.draw(st.integers(1, 5)) for _ in range(ndim))
    shards = tuple(2 * c for c in chunks) if data.draw(st.booleans()) else None
    chain = CHAINS[
        data.draw(st.sampled_from(["none", "zstd", "blosc-lz4-shuffle", "gzip", "crc32c"]))
    ]
    arrays, wholes = [], []
    for seed in range(data.draw(st.integers(1, 3))):
        shape = tuple(data.draw(st.integers(1, 4 * c)) for c in chunks)
        recipe = Recipe(
            chunks=chunks,
            shards=shards,
            codecs=chain,
            fill_value=3,
            missing=frozenset([(0,) * ndim]),
        )
        whole = values(shape, "u2", seed)
        arrays.append(zg.open(MemoryStore(encode(whole, recipe))))
        wholes.append(expected(whole, recipe))
    index = data.draw(st.lists(st.integers(0, len(arrays) - 1), min_size=1, max_size=8))
    starts = [[c * data.draw(st.integers(0, 4)) for c in chunks] for _ in index]
    request = request_of(arrays, index, starts, chunks)
    fast, _ = run(arrays, request, direct=True, threads=3)
    slow, num_direct = run(arrays, request, direct=False, threads=1)
    assert num_direct == 0
    np.testing.assert_array_equal(fast, slow)
    for box, (array, start) in enumerate(zip(index, starts, strict=True)):
        padded = np.full(tuple(s + n for s, n in zip(start, chunks, strict=True)), 3, "u2")
        inside = tuple(slice(0, n) for n in padded.shape)
        part = wholes[array][inside]
        padded[tuple(map(slice, part.shape))] = part
        np.testing.assert_array_equal(fast[box], padded[tuple(slice(s, None) for s in start)])


def test_aligned_reads_use_the_fast_path():
    data = values((32, 32), "u2")
    array = zg.open(MemoryStore(encode(data, Recipe(chunks=(8, 32), codecs=CHAINS["zstd"]))))
    result, num_direct = run(
        [array], request_of([array], [0], [[0, 0]], (32, 32)), direct=True, threads=2
    )
    assert num_direct == 4
    np.testing.assert_array_equal(result[0], data)


def test_batches_over_several_arrays_of_other_chunks_and_codecs():
    recipes = [
        Recipe(chunks=(7, 9), codecs=CHAINS["zstd"], fill_value=1),
        Recipe(
            chunks=(16, 16),
            shards=(32, 32),
            codecs=CHAINS["blosc-lz4-bitshuffle"],
            order=(1, 0),
            fill_value=2,
        ),
        Recipe(chunks=(64, 3), big_endian=True, fill_value=3),
    ]
    wholes = [values((60 - 9 * i, 50 + 7 * i), "f4", i) for i in range(3)]
    arrays = [zg.open(MemoryStore(encode(w, r))) for w, r in zip(wholes, recipes, strict=True)]
    rng = np.random.default_rng(3)
    index = rng.integers(0, 3, 40).tolist()
    starts = rng.integers(-10, 60, (40, 2))
    request = request_of(arrays, index, starts, (12, 10), (2, 3))
    got, ok = reader.read(
        tuple(a.source for a in arrays), request, output=output_format(np.dtype("f4")), device="cpu"
    )
    assert ok.all()
    for box, (array, (y, x)) in enumerate(zip(index, starts, strict=True)):
        padded = np.full((200, 200), recipes[array].fill_value, "f4")
        h, w = wholes[array].shape
        padded[50 : 50 + h, 50 : 50 + w] = wholes[array]
        np.testing.assert_array_equal(got[box], padded[50 + y : 74 + y : 2, 50 + x : 80 + x : 3])


def test_masked_failures_leave_the_other_patches():
    data = values((32, 32), "u2")
    objects = encode(data, Recipe(chunks=(8, 8), codecs=CHAINS["zstd-checksum"], fill_value=7))
    objects["c/1/1"] = objects["c/1/1"][:-1]
    array = zg.open(MemoryStore(objects))
    starts = [[0, 0], [4, 4], [8, 8], [16, 16], [30, 30]]
    request = request_of([array], [0] * 5, starts, (8, 8))
    output = output_format(array.dtype)
    with pytest.raises(ChunkDecodeError, match="c/1/1"):
        reader.read((array.source,), request, output=output, device="cpu")
    stats = ReadStats()
    got, ok = reader.read(
        (array.source,), request, output=output, device="cpu", on_error="mask", stats=stats
    )
    assert ok.tolist() == [True, False, False, True, True]
    np.testing.assert_array_equal(got[0], data[:8, :8])
    np.testing.assert_array_equal(got[3], data[16:24, 16:24])
    assert (got[2] == 7).all()
    np.testing.assert_array_equal(got[1][:4], data[4:8, 4:12])
    assert (got[1][4:, 4:] == 7).all()
    assert stats.patches == 5


class LostStore(MemoryStore):
    """Gives some shards' indexes only."""

    lost: Callable[[str], bool]

    def get_suffix(self, key: str, nbytes: int) -> Any:
        found = super().get_suffix(key, nbytes)
        if self.lost(key):
            msg = f"{key} is lost"
            raise StoreError(msg)
        return found


def test_a_shard_that_cannot_be_had_is_asked_for_few_times():
    data = values((64, 64), "u2")
    store = LostStore(encode(data, Recipe(chunks=(4, 4), shards=(8, 8), fill_value=7)))
    store.lost = lambda key: key.startswith("c/1/")
    array = zg.open(store)
    starts = np.random.default_rng(0).integers(0, 60, (200, 2))
    request = request_of([array], [0] * 200, starts, (3, 3))
    store.requests.clear()
    got, ok = reader.read(
        (array.source,), request, output=output_format(array.dtype), device="cpu", on_error="mask"
    )
    lost = (starts[:, 0] + 2 >= 8) & (starts[:, 0] < 16)
    np.testing.assert_array_equal(ok, ~lost)
    for patch, start, bad in zip(got, starts, lost, strict=True):
        y, x = start
        np.testing.assert_array_equal(patch, 7 if bad else data[y : y + 3, x : x + 3])
    asked = Counter(key for key, offset, nbytes in store.requests if offset is None and nbytes)
    assert set(asked.values()) <= {1, 2, 3}


class BrokenStore(MemoryStore):
    """Fails for some chunks."""

    def get(self, key: str, *limits: Any, **named: Any) -> Any:
        found = super().get(key, *limits, **named)
        if key == "c/1/0":
            msg = f"{key} is broken"
            raise StoreError(msg)
        return found


def test_a_chunk_that_cannot_be_had_is_asked_for_once(cuda):
    data = values((8, 8), "u2")
    array = zg.open(BrokenStore(encode(data, Recipe(chunks=(4, 4), codecs=CHAINS["zstd"]))))
    for device in ("cpu", cuda):
        array.source.store.requests.clear()
        with pytest.raises(StoreError, match=r"chunk 'c/1/0' of 'dict://test' cannot be fetched"):
            array.read(device=device)
        assert [r[0] for r in array.source.store.requests].count("c/1/0") == 1


def test_a_read_is_cancelled_while_it_is_planned():
    objects = encode(values((64, 64), "u2"), Recipe(chunks=(4, 4), shards=(8, 8)))
    array = zg.open(MemoryStore(objects))
    request = request_of([array], [0], [[0, 0]], (64, 64))
    output = output_format(array.dtype)
    with pytest.raises(ReadCancelledError):
        reader.read((array.source,), request, output=output, device="cpu", cancelled=lambda: True)
    assert array.source.shard_indexes is None
    for _ in range(2):  # the second finds the shards' indexes known
        array.source.store.requests.clear()
        reader.read((array.source,), request, output=output, device="cpu", cancelled=lambda: False)
        suffixes = [r for r in array.source.store.requests if r[1] is None]
    assert suffixes == []


def test_results_depend_on_no_earlier_read():
    # scratch memory is used again: a failed or larger read must leave no trace in the next
    big = zg.open(
        MemoryStore(encode(values((64, 64), "u4"), Recipe(chunks=(64, 64), codecs=CHAINS["gzip"])))
    )
    data = values((5, 5), "u1")
    small = zg.open(MemoryStore(encode(data, Recipe(chunks=(3, 3), codecs=CHAINS["lz4"]))))
    objects = encode(data, Recipe(chunks=(3, 3), codecs=CHAINS["blosc-zstd-shuffle"]))
    broken = zg.open(MemoryStore({**objects, "c/0/0": objects["c/0/0"][:-2]}))
    for _ in range(3):
        big.read(device="cpu")
        with pytest.raises(ChunkDecodeError):
            broken.read(device="cpu")
        np.testing.assert_array_equal(small.read(device="cpu"), data)


def test_the_budget_bounds_chunks_and_says_how_to_raise_it():
    data = values((64, 64), "u4")
    array = zg.open(MemoryStore(encode(data, Recipe(chunks=(48, 48), codecs=CHAINS["zstd"]))))
    with pytest.raises(
        MemoryBudgetError, match=r"takes 9216 bytes, memory_budget_bytes is 9000; raise it"
    ):
        array.read(device="cpu", options=zg.ReadOptions(memory_budget_bytes=9000))
    got = array.read(device="cpu", options=zg.ReadOptions(memory_budget_bytes=10_000))
    np.testing.assert_array_equal(got, data)


def test_the_budget_counts_whole_objects_that_are_decoded_in_part(monkeypatch):
    blosc = ("blosc", {"cname": "lz4", "clevel": 1, "shuffle": "noshuffle", "blocksize": 4096})
    data = np.random.default_rng(0).integers(0, 255, (1024, 256)).astype(np.uint8)
    array = zg.open(MemoryStore(encode(data, Recipe(chunks=(256, 256), codecs=(blosc,)))))
    used: list[int] = []
    real = host_engine.run_threads
    monkeypatch.setattr(
        host_engine,
        "run_threads",
        lambda work, items, threads: used.append(threads) or real(work, items, threads),
    )
    options = zg.ReadOptions(memory_budget_bytes=150_000, num_threads=4)
    got = array.read(slice(None, None, 256), device="cpu", options=options)
    np.testing.assert_array_equal(got, data[::256])
    assert used == [2]


def test_layouts_are_transposed_results():
    data = values((20, 30, 3), "u1")
    array = zg.open(MemoryStore(encode(data, Recipe(chunks=(8, 8, 3)))))
    request = request_of([array], [0, 0], [[2, 3, 0], [10, 20, 0]], (9, 10, 3))
    output = output_format(array.dtype)
    plain, _ = reader.read((array.source,), request, output=output, device="cpu")
    for layout in ((2, 0, 1), (1, 0, 2), (0, 1, 2), (2, 1, 0), (1, 2, 0)):
        out = np.zeros((2, *[(9, 10, 3)[a] for a in layout]), "u1")
        got, _ = reader.read(
            (array.source,), request, output=output, layout=layout, device="cpu", out=out
        )
        np.testing.assert_array_equal(got, plain.transpose(0, *(a + 1 for a in layout)))
        assert got.flags.c_contiguous
        assert np.shares_memory(got, out)


def test_out_must_be_of_numpy():
    with pytest.raises(SelectionError, match="NumPy array"):
        host_engine.allocate((1, 2), (0,), output_format(np.dtype("u1")), bytearray(2))


# ---- threads and processes ----------------------------------------------------------------------


def stored(tmp_path) -> tuple[zg.Array, np.ndarray]:
    data = values((64, 64), "f4")
    recipe = Recipe(chunks=(8, 8), shards=(32, 32), codecs=CHAINS["blosc-lz4-shuffle"])
    return zg.open(write(tmp_path, encode(data, recipe))), data


def test_pickled_arrays_read_the_same(tmp_path):
    array, data = stored(tmp_path)
    before = pickle.loads(pickle.dumps(array))
    array.read(device="cpu")
    after = pickle.loads(pickle.dumps(array))  # with its shard indexes
    for copy in (before, after):
        np.testing.assert_array_equal(copy.read(device="cpu"), data)
        assert (copy.shape, copy.attrs, copy.path) == (array.shape, array.attrs, array.path)


def read_into(array: zg.Array, results: multiprocessing.Queue) -> None:
    results.put(array.read(device="cpu", options=zg.ReadOptions(num_threads=3)).tobytes())


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_children_read_after_their_parent_has(method, tmp_path):
    array, data = stored(tmp_path)
    array.read(
        device="cpu", options=zg.ReadOptions(num_threads=3)
    )  # the parent has a thread pool now
    context = multiprocessing.get_context(method)
    results = context.Queue()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 on forks of threads
        child = context.Process(target=read_into, args=(array, results), daemon=True)
        child.start()
    assert results.get(timeout=60) == data.tobytes()
    child.join(timeout=60)
    assert child.exitcode == 0
    np.testing.assert_array_equal(array.read(device="cpu"), data)


def test_threads_take_every_item_once_and_raise_the_first_error():
    for threads in (1, 2, 7, 50):
        assert sorted(run_threads(lambda n: n * n, range(30), threads)) == [
            n * n for n in range(30)
        ]
    assert run_threads(lambda n: n, [], 4) == []
    done: list[int] = []

    def work(n: int) -> None:
        done.append(n)
        if n == 3:
            raise ValueError("three")

    with pytest.raises(ValueError, match="three"):
        run_threads(work, range(100_000), 2)
    assert len(done) < 100_000


def test_reads_of_any_number_of_items_share_few_threads():
    """Each keeps the memory that it decoded into."""
    before = threading.active_count()
    for n in [*range(2, 33), *range(2, 33)]:
        assert len(run_threads(lambda k: k, range(n), 32)) == n
    assert threading.active_count() - before <= 2 + 4 + 8 + 16 + 32


def test_work_on_threads_may_itself_use_threads():
    """Each waits only for threads that have begun, so that all do not wait for one another."""

    def outer(n: int) -> int:
        return sum(run_threads(lambda k: time.sleep(0.001) or n, range(3), 3))

    got: list[int] = []
    thread = threading.Thread(target=lambda: got.extend(run_threads(outer, range(3), 3)))
    thread.daemon = True
    thread.start()
    thread.join(timeout=20)
    assert sorted(got) == [0, 3, 6]


def test_nobody_waits_for_threads_that_others_use():
    free, busy = threading.Event(), threading.Barrier(3)

    def hold(_: int) -> None:
        busy.wait()
        held.append(free.wait(timeout=5))

    held: list[bool] = []
    other = threading.Thread(target=run_threads, args=(hold, range(2), 2), daemon=True)
    other.start()
    busy.wait()  # the only thread of the pool is held
    assert run_threads(lambda n: n, range(2), 2) == [0, 1]
    free.set()
    other.join(timeout=20)
    assert held == [True, True]


def test_an_interrupted_read_does_not_go_on():
    done: list[int] = []

    def work(n: int) -> None:
        time.sleep(0.01)
        done.append(n)

    main = threading.main_thread().ident
    assert main is not None
    # a shell starts what it puts into the background with interrupts ignored
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.1, signal.pthread_kill, (main, signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        run_threads(work, range(2000), 2)
    timer.join()
    signal.signal(signal.SIGINT, before)
    worked = len(done)
    time.sleep(0.1)
    assert 0 < len(done) == worked < 2000


def test_scratch_belongs_to_its_thread_and_use():
    mine, other = scratch("a", 100), scratch("b", 100)
    assert not np.shares_memory(mine, other)
    assert np.shares_memory(mine, scratch("a", 50))
    theirs: list[np.ndarray] = []
    thread = threading.Thread(target=lambda: theirs.append(scratch("a", 100)))
    thread.start()
    thread.join()
    assert not np.shares_memory(mine, theirs[0])
    assert scratch("a", 1000).size == 1000


@pytest.mark.parametrize("shards", [None, (1 << 21,)])
def test_chunks_that_are_stored_wider_than_they_decode(shards):
    """A chunk of bytes kept as float64 is eight times its decoded size, and that is right."""
    data = np.arange(1 << 21, dtype=np.int64).astype(np.int8)
    objects = encode(data.astype("<f8"), Recipe(chunks=(1 << 21,), shards=shards))
    document = json.loads(objects["zarr.json"])
    document["data_type"] = "int8"
    configuration = {"decode_dtype": "|i1", "encode_dtype": "<f8"}
    codecs = document["codecs"]
    if shards:
        codecs = codecs[0]["configuration"]["codecs"]
    codecs.insert(0, {"name": "numcodecs.astype", "configuration": configuration})
    objects["zarr.json"] = json.dumps(document).encode()
    np.testing.assert_array_equal(zg.open(MemoryStore(objects)).read(device="cpu"), data)


def sharded(inner: list, length: int) -> list:
    little = {"name": "bytes", "configuration": {"endian": "little"}}
    configuration = {"chunk_shape": [length], "codecs": inner, "index_codecs": [little]}
    return [{"name": "sharding_indexed", "configuration": configuration}]


def shard_of(chunk: bytes | None) -> bytes:
    entry = [(1 << 64) - 1] * 2 if chunk is None else [0, len(chunk)]
    return (chunk or b"") + np.array(entry, "<u8").tobytes()


def test_shards_within_shards_may_be_larger_than_what_they_hold():
    """For the elements may be stored wider, and an index be longer than its chunks."""
    data = np.arange(1 << 20, dtype=np.int64).astype(np.int8)
    objects = encode(data, Recipe(chunks=data.shape))
    document = json.loads(objects["zarr.json"])
    astype = {"decode_dtype": "|i1", "encode_dtype": "<f8"}
    wide = [
        {"name": "numcodecs.astype", "configuration": astype},
        {"name": "bytes", "configuration": {"endian": "little"}},
    ]
    shard = shard_of(data.astype("<f8").tobytes())
    empty = np.full(2 * data.size, (1 << 64) - 1, "<u8").tobytes()
    gz = [{"name": "gzip", "configuration": {"level": 1}}]
    n = data.size
    for codecs, stored, wanted in (
        (sharded(sharded(wide, n), n), shard_of(shard), data),
        (sharded(wide, n) + gz, gzip.compress(shard, 1), data),
        (sharded(sharded(["bytes"], 1), n), shard_of(empty), np.zeros_like(data)),
        (sharded(["bytes"], 1) + gz, gzip.compress(empty, 1), np.zeros_like(data)),
    ):
        document["codecs"], objects["c/0"] = codecs, stored
        objects["zarr.json"] = json.dumps(document).encode()
        np.testing.assert_array_equal(zg.open(MemoryStore(objects)).read(device="cpu"), wanted)
