"""Cutting a read into waves that fit the memory budget."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from zarrgpu.codecs.device import DeviceChain
from zarrgpu.devices.driver import Driver
from zarrgpu.devices.ring import SLOTS
from zarrgpu.errors import MemoryBudgetError
from zarrgpu.model import ReadOptions
from zarrgpu.plan.tables import Int64s, ReadPlan, ReadTable

_PIECES_SHARE = 0.2
"""Device memory for tables, as a share of decoded bytes."""


TEMPORARY_SHARE = 0.6
"""Of a wave's memory, what a library's temporary memory may take: zstd's takes 3.1 parts of the 5.3
that a decoded byte is reckoned with."""


def chunk_costs(
    plan: ReadPlan, chains: list[DeviceChain | None], options: ReadOptions
) -> NDArray[np.float64]:
    """Device memory for each chunk; refuse a chunk that does not fit the budget."""
    each = np.array(
        [
            spec.chunk_nbytes * (1 + _PIECES_SHARE) + (chain.device_nbytes if chain else 0)
            for spec, chain in zip(plan.arrays, chains, strict=True)
        ]
    )
    cost = each[plan.chunks.array]
    if cost.max(initial=0) > options.memory_budget_bytes:
        spec = plan.arrays[plan.chunks.array[int(np.argmax(cost))]]
        msg = (
            f"{spec.source!r}: decoding a chunk of {list(spec.chunk_shape)} takes "
            f"{cost.max():.0f} bytes on a GPU, memory_budget_bytes is "
            f"{options.memory_budget_bytes}; raise it in ReadOptions"
        )
        raise MemoryBudgetError(msg)
    return cost


def cut_waves(
    plan: ReadPlan, cost: NDArray[np.float64], nbytes: float, *, first_row: int = 0
) -> tuple[ReadPlan, list[Int64s]]:
    """Cut the chunk table where a wave would exceed `nbytes`.

    A range that is read for two waves becomes two: encoded bytes say little about decoded ones,
    and one coalesced range of empty chunks can be worth gigabytes.

    Parameters
    ----------
    plan : ReadPlan
    cost : float64 array
        Memory for each chunk, at most `nbytes`.
    nbytes : float
        Memory of a wave.
    first_row : int
        Rows before it need no wave any more.

    Returns
    -------
    plan : ReadPlan
        With a read table that was cut too.
    waves : list of int64 arrays
        Rows of the chunk table, from `first_row` on.
    """
    chunks = plan.chunks
    if first_row >= len(chunks):
        return plan, []
    spent = np.cumsum(cost)
    cuts = [0, first_row] if first_row else [0]
    while cuts[-1] < len(chunks):
        before = spent[cuts[-1] - 1] if cuts[-1] else 0.0
        end = int(np.searchsorted(spent, before + nbytes, side="right"))
        cuts.append(max(end, cuts[-1] + 1))
    waves = np.split(np.arange(len(chunks)), cuts[1:-1])
    new_wave = np.zeros(len(chunks) - 1, np.bool_)
    new_wave[np.array(cuts[1:-1], np.int64) - 1] = True
    read = np.zeros(len(chunks), np.int32)
    np.cumsum(new_wave | (np.diff(chunks.read) > 0), out=read[1:])
    waves = waves[1:] if first_row else waves
    if read[-1] + 1 == len(plan.reads):
        return plan, waves
    chunks = replace(chunks, read=read)
    return replace(plan, reads=ReadTable.of_chunks(chunks), chunks=chunks), waves


def slots_for(cost: NDArray[np.float64], options: ReadOptions) -> int:
    """Slots of which each holds the largest chunk within its share of the budget."""
    fitting = int(options.memory_budget_bytes // max(cost.max(initial=1), 1))
    return min(max(fitting, 1), SLOTS)


def smaller_wave(cost: NDArray[np.float64], rows: Int64s) -> float:
    """Memory of waves of about half of the chunks of one that did not fit."""
    return float(max(cost[rows].sum() / 2, cost[rows].max()))


def no_memory_error(
    driver: Driver, plan: ReadPlan, rows: Int64s, cost: NDArray[np.float64], error: Exception
) -> MemoryBudgetError:
    """Error for a device without the memory to decode a single chunk."""
    free, total = driver.memory_info()
    memory = f"{free} of {total} bytes of device memory are free"
    if not len(rows):
        return MemoryBudgetError(f"{driver.name}: {memory}, too few for this read ({error})")
    row = int(rows[0])
    spec = plan.arrays[plan.chunks.array[row]]
    msg = (
        f"{driver.name}: decoding one chunk of {list(spec.chunk_shape)} of {spec.source!r} takes "
        f"{cost[row]:.0f} bytes besides the result, and {memory} ({error}); free some, or read "
        "less at once"
    )
    return MemoryBudgetError(msg)
