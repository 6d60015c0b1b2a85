"""Laws of recycled memory.

1. No two results that are in use share memory, whoever refers to them and however.
2. What nothing refers to is used again; no more is kept than was said.
"""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zarrgpu.host_engine import allocate
from zarrgpu.output import OutputFormat
from zarrgpu.recycled import RecycledMemory, aligned_empty

U2 = np.dtype("u2")


def address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def test_memory_is_used_again_once_it_is_free():
    memory = RecycledMemory(2)
    first = memory.take((3, 5), U2)
    assert (first.shape, first.dtype, first.flags.c_contiguous) == ((3, 5), U2, True)
    where = address(first)
    del first
    again = memory.take((2, 2), U2)
    assert address(again) == where


@pytest.mark.parametrize(
    "refer",
    [
        lambda a: a,
        lambda a: a[1:],
        lambda a: a.T.reshape(-1)[3:],
        memoryview,
        lambda a: a.view("u1")[::2],
        np.from_dlpack,
    ],
)
def test_any_reference_keeps_memory(refer):
    memory = RecycledMemory(2)
    kept = refer(memory.take((6, 6), U2))
    other = memory.take((6, 6), U2)
    assert not np.shares_memory(np.asarray(kept), other)


def test_a_tensor_keeps_memory():
    torch = pytest.importorskip("torch")
    memory = RecycledMemory(2)
    tensor = torch.from_numpy(memory.take((4, 4), np.dtype("f4"))).mul_(0).add_(7)
    memory.take((4, 4), np.dtype("f4"))[...] = 0
    assert tensor.eq(7).all()


def test_no_more_is_kept_than_was_said():
    memory = RecycledMemory(1)
    results = [memory.take((8,), U2) for _ in range(5)]
    assert len({address(r) for r in results}) == 5
    assert len(memory._held) == 1


def test_larger_results_replace_smaller_memory():
    memory = RecycledMemory(1)
    memory.take((8,), U2)
    large = memory.take((800,), U2)
    where = address(large)
    del large
    assert address(memory.take((700,), U2)) == where


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 5)), max_size=40))
def test_results_in_use_never_share(steps):
    memory = RecycledMemory(3)
    kept: dict[int, tuple[np.ndarray, int]] = {}
    for number, (n, slot) in enumerate(steps):
        result = memory.take((n,), U2)
        result[...] = number
        kept[slot] = (result, number)
        del result
        for array, value in kept.values():
            assert (array == value).all()


def test_threads_never_share():
    memory = RecycledMemory(3)

    def use(number: int) -> bool:
        result = memory.take((500,), U2)
        result[...] = number
        return bool((result == number).all())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(use, range(2000)))


def test_a_copy_begins_empty():
    memory = RecycledMemory(3)
    memory.take((5,), U2)
    copy = pickle.loads(pickle.dumps(memory))
    assert (copy.max_results, copy._held) == (3, [])


def test_results_of_types_without_bytes_are_made():
    output = OutputFormat(dtype=np.dtype("V0"))
    result, view = allocate((2, 3), (0,), output, None)
    assert (result.shape, view.shape, result.dtype.itemsize) == ((2, 3), (2, 3), 0)


@pytest.mark.parametrize("shape", [(0,), (1,), (3, 5), (1 << 19, 9)])
def test_results_begin_with_a_line_of_the_cache(shape):
    memory = RecycledMemory(2)
    for made in (aligned_empty(shape, U2), memory.take(shape, U2), memory.take(shape, U2)):
        assert not made.size or address(made) % 64 == 0
        assert (made.shape, made.dtype, made.flags.c_contiguous) == (shape, U2, True)
        made[...] = 7
