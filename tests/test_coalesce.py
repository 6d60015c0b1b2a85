"""Law 2: coalesced reads bring the bytes of single reads; gaps and caps are respected."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zarrgpu.plan.coalesce import coalesce_ranges

RANGES = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 300), st.integers(-1, 60)), max_size=40
).map(sorted)


def columns(ranges: list[tuple[int, int, int]]) -> tuple[np.ndarray, ...]:
    table = np.array(ranges, np.int64).reshape(-1, 3)
    return table[:, 0], table[:, 1], table[:, 2]


def coalesce_one_by_one(ranges: list[tuple[int, int, int]], gap: int, cap: int) -> list[int]:
    """The rule as a loop: the slow obvious path that tests the vectorised one."""
    reads: list[int] = []
    last_object, run_start, reached, window, sized = -1, 0, 0, 0, False
    for object_id, offset, nbytes in ranges:
        same_run = object_id == last_object and sized and nbytes >= 0 and offset - reached <= gap
        if not same_run:
            run_start, reached = offset, offset
        new_window = (offset - run_start) // cap
        starts_read = not same_run or new_window != window
        reads.append((reads[-1] + 1 if starts_read else reads[-1]) if reads else 0)
        reached = max(reached, offset + max(nbytes, 0))
        last_object, window, sized = object_id, new_window, nbytes >= 0
    return reads


@given(RANGES, st.integers(0, 40), st.integers(1, 200))
def test_rule_is_the_loops(ranges, gap, cap):
    read = coalesce_ranges(*columns(ranges), max_gap_bytes=gap, max_coalesced_bytes=cap)
    assert read.tolist() == coalesce_one_by_one(ranges, gap, cap)


@given(RANGES, st.integers(0, 40), st.integers(1, 200))
def test_every_range_lies_in_its_read_and_limits_hold(ranges, gap, cap):
    objects, offset, nbytes = columns(ranges)
    read = coalesce_ranges(objects, offset, nbytes, max_gap_bytes=gap, max_coalesced_bytes=cap)
    assert len(read) == len(ranges)
    for number in range(int(read[-1]) + 1 if len(read) else 0):
        rows = np.flatnonzero(read == number)
        assert len(rows)
        assert len(set(objects[rows])) == 1
        if (nbytes[rows] < 0).any():
            assert len(rows) == 1
            continue
        start, end = offset[rows[0]], (offset + nbytes)[rows].max()
        assert end - start < cap + nbytes[rows].max() + 1
        covered = np.zeros(end - start, bool)
        for row in rows:
            covered[offset[row] - start : offset[row] + nbytes[row] - start] = True
        holes = "".join("x" if c else " " for c in covered).split("x")
        assert max(map(len, holes), default=0) <= gap


@pytest.mark.parametrize("num_objects", [1, 40_000, 140_000])
def test_gap_holds_for_any_number_of_objects(num_objects):
    # two ranges per object, far apart: two reads per object, however many objects there are
    objects = np.repeat(np.arange(num_objects), 2)
    offset = np.tile(np.array([0, 1 << 40]), num_objects)
    nbytes = np.full(2 * num_objects, 10)
    read = coalesce_ranges(objects, offset, nbytes, max_gap_bytes=100, max_coalesced_bytes=1 << 42)
    assert read.tolist() == list(range(2 * num_objects))
    near = np.tile(np.array([0, 50]), num_objects)
    read = coalesce_ranges(objects, near, nbytes, max_gap_bytes=100, max_coalesced_bytes=1 << 42)
    assert read.tolist() == objects.tolist()


def test_overlapping_and_contained_ranges_share_a_read():
    offset = np.array([0, 10, 90, 100])
    nbytes = np.array([95, 5, 10, 1])  # the first contains the second and overlaps the third
    read = coalesce_ranges(
        np.zeros(4, np.int64), offset, nbytes, max_gap_bytes=0, max_coalesced_bytes=1000
    )
    assert read.tolist() == [0, 0, 0, 0]
