"""Merging neighbouring byte ranges, so that a store is asked a few times for much."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from zarrgpu.plan.tables import Int64s


def coalesce_ranges(
    object_id: Int64s,
    offset: Int64s,
    nbytes: Int64s,
    *,
    max_gap_bytes: int,
    max_coalesced_bytes: int,
) -> Int64s:
    """Assign ranges sorted by (object, offset) to reads.

    Two neighbours share a read if they are of one object, at most `max_gap_bytes` apart, and begin
    in the same window of `max_coalesced_bytes` from the run's start. So a read grows to at most
    that size plus one range. A range of unknown size (negative) is always a read of its own.

    Returns
    -------
    int64 array, shape (C,)
        Read number of each range, from 0, ascending.
    """
    if not len(offset):
        return np.empty(0, np.int64)
    end = offset + np.maximum(nbytes, 0)
    changed = np.ones(len(offset), np.bool_)
    changed[1:] = (object_id[1:] != object_id[:-1]) | (nbytes[1:] < 0) | (nbytes[:-1] < 0)
    reached = _reached(changed, offset, end)
    starts_run = changed.copy()
    starts_run[1:] |= offset[1:] - reached[:-1] > max_gap_bytes
    run_start = offset[starts_run][np.cumsum(starts_run) - 1]
    window = (offset - run_start) // max_coalesced_bytes
    starts_read = starts_run.copy()
    starts_read[1:] |= window[1:] != window[:-1]
    return np.cumsum(starts_read) - 1


def _reached(changed: NDArray[np.bool_], offset: Int64s, end: Int64s) -> Int64s:
    """Furthest end so far since the last change, so that overlapping ranges stay together."""
    if not (~changed[1:] & (offset[1:] < end[:-1])).any():
        return end
    # ends by their rank, so that a large shift per group cannot overflow
    distinct, rank = np.unique(end, return_inverse=True)
    shift = np.cumsum(changed) * len(end)
    reached: Int64s = distinct[np.maximum.accumulate(rank + shift) - shift]
    return reached
