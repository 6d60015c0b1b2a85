"""Laws of slabs.

1. Rooms lie within their slab and never overlap, whoever takes them, on however many threads.
2. One read goes on where the last one ended; what nothing refers to is used again, and only a
   few slabs stay with the process.
3. Little of a slab stays empty.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zarrgpu.slabs import SLAB_NBYTES, Slabs


def address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def intervals(rooms, nbytes):
    return [(address(slab) + at, address(slab) + at + nbytes, slab) for slab, at in rooms]


def check_apart(taken):
    """No two rooms that are alive overlap, and each lies within its slab."""
    ordered = sorted(taken, key=lambda room: room[:2])
    for (_, end, _), (begin, _, _) in pairwise(ordered):
        assert end <= begin
    for begin, end, slab in taken:
        assert address(slab) <= begin
        assert end <= address(slab) + slab.size


@given(
    st.integers(1, 5000),
    st.lists(st.tuples(st.integers(1, 3000), st.integers(0, 7)), max_size=12),
)
def test_rooms_are_apart(slab_nbytes, requests):
    slabs = Slabs(slab_nbytes)
    taken = []
    for nbytes, count in requests:
        rooms = slabs.take(nbytes, count)
        assert len(rooms) == count
        taken += intervals(rooms, nbytes)
    check_apart(taken)


def test_threads_get_rooms_of_their_own():
    slabs = Slabs(1 << 16)
    with ThreadPoolExecutor(8) as pool:
        taken = [x for rooms in pool.map(lambda _: slabs.take(700, 9), range(64)) for x in rooms]
    check_apart(intervals(taken, 700))


def test_reads_share_a_slab():
    slabs = Slabs(1 << 16)
    (first, _), (second, at) = *slabs.take(1000, 1), *slabs.take(1000, 1)
    assert first is second
    assert at == 1024
    slabs.forget()
    assert slabs.take(1000, 1)[0][0] is not first


def test_full_slabs_are_used_again_once_nothing_refers_to_them():
    first = Slabs(SLAB_NBYTES).take(1 << 20, 1)[0][0]
    where = address(first)
    assert address(Slabs(SLAB_NBYTES).take(1 << 20, 1)[0][0]) != where
    del first
    found = [Slabs(SLAB_NBYTES).take(1 << 20, 1)[0][0] for _ in range(3)]
    assert where in map(address, found)


@pytest.mark.parametrize("nbytes", [1, 1000, 3 << 20, 17 << 20, SLAB_NBYTES, SLAB_NBYTES + 1])
@pytest.mark.parametrize("slab_nbytes", [1, 1 << 20, SLAB_NBYTES, 1 << 40])
def test_little_of_a_slab_stays_empty(nbytes, slab_nbytes):
    slab, _ = Slabs(slab_nbytes).take(nbytes, 1)[0]
    step = -(-nbytes // 64) * 64
    rooms = slab.size // step
    assert rooms * step >= slab.size * 7 / 8
    assert slab.size <= max(step, min(slab_nbytes, SLAB_NBYTES))
