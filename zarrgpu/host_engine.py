"""Running a plan on the CPU: threads take one range after the other (`host_run`).

Chunks are decoded into memory that the thread uses again for the next, while it is in cache, or
straight into the output where the plan says so. So a read holds one range and one chunk per thread,
whatever its size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zarrgpu.chunk_cache import CachedChunk
from zarrgpu.decode import read_keys
from zarrgpu.devices.host import run_threads
from zarrgpu.errors import DataError, MemoryBudgetError, SelectionError
from zarrgpu.fetch import ArraySource, num_io_threads
from zarrgpu.gather import gather_fills
from zarrgpu.host_run import converts_elements, make_run, pieces_as_fills
from zarrgpu.model import ReadOptions
from zarrgpu.native_engine import native_run
from zarrgpu.output import OutputFormat
from zarrgpu.plan.tables import ReadPlan
from zarrgpu.recycled import aligned_empty
from zarrgpu.stats import ReadStats


def _cached_chunks(
    plan: ReadPlan, sources: tuple[ArraySource, ...]
) -> list[CachedChunk | None] | None:
    """Chunks that caches hold, by row of the chunk table; None if no array has a cache."""
    if all(source.cache is None for source in sources):
        return None
    found: list[CachedChunk | None] = [None] * len(plan.chunks)
    for index in np.unique(plan.chunks.array).tolist():
        source = sources[index]
        if source.cache is None or source.spec.dtype.hasobject:
            continue
        first, last = np.searchsorted(plan.chunks.array, [index, index + 1]).tolist()
        ids = plan.chunks.chunk_id[first:last].tolist()
        found[first:last] = source.cache.get_many([(source.cache_key, each) for each in ids])
    return found


def allocate(
    shape: tuple[int, ...], order: tuple[int, ...], output: OutputFormat, out: Any
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Make or check the result, and view it with its axes in array order.

    Parameters
    ----------
    shape : tuple of int
        Of the result, ``(N, ...)``.
    order : tuple of int
        Array axis of each result axis after the first.
    output : OutputFormat
    out : array or None

    Returns
    -------
    result : array of `shape`
    view : the same memory, shape (N, *count)
    """
    if out is None:
        try:
            apart = output.dtype.hasobject or not output.dtype.itemsize
            make = np.empty if apart else aligned_empty
            result = make(shape, output.dtype)
        except (MemoryError, ValueError) as error:
            msg = f"no memory for a result of shape {shape} and type {output.dtype}: {error}"
            raise MemoryBudgetError(msg) from error
    elif not isinstance(out, np.ndarray):
        msg = f"out must be a NumPy array to read on the CPU, got {type(out).__name__}"
        raise SelectionError(msg)
    elif (
        out.dtype != output.dtype
        or out.size != math.prod(shape)
        or not (out.flags.c_contiguous and out.flags.writeable)
    ):
        msg = (
            f"out must be a writable C-contiguous array of shape {shape} and type {output.dtype}, "
            f"got shape {out.shape} and type {out.dtype}"
        )
        raise SelectionError(msg)
    else:
        result = out.reshape(shape)
    return result, result.transpose(0, *(1 + axis for axis in np.argsort(order)))


def _fitting_threads(
    plan: ReadPlan, converted_itemsize: int, threads: int, options: ReadOptions
) -> int:
    """At most `threads`, so that what they hold fits the budget; refuse a chunk that does not."""
    if not len(plan.chunks):
        return 1
    whole = np.array([spec.chunk_nbytes for spec in plan.arrays], np.int64)[plan.chunks.array]
    sizes = whole
    if plan.chunks.windows is not None:  # parts of these take the room of the whole
        names = {"zstd", "jpeg", "jpeg2k"}
        roomy = np.array([any(c.name in names for c in s.codecs) for s in plan.arrays], np.bool_)
        sizes = np.where(roomy[plan.chunks.array], whole, plan.chunks.windows.nbytes)
    decoded = int(np.where(plan.chunks.direct, 0, sizes).max())
    if decoded > options.memory_budget_bytes:
        spec = plan.arrays[plan.chunks.array[int(np.argmax(sizes))]]
        msg = (
            f"{spec.source!r}: a chunk of {list(spec.chunk_shape)} takes {decoded} bytes, "
            f"memory_budget_bytes is {options.memory_budget_bytes}; raise it in ReadOptions"
        )
        raise MemoryBudgetError(msg)
    encoded = max(int(plan.reads.nbytes.max()), int(whole.max()) if plan.num_unsized_reads else 0)
    converted = converted_itemsize * max(math.prod(s.chunk_shape) for s in plan.arrays)
    held = decoded + encoded + converted
    return max(1, min(threads, options.memory_budget_bytes // max(1, held)))


def execute(
    plan: ReadPlan,
    sources: tuple[ArraySource, ...],
    out: NDArray[Any],
    output: OutputFormat,
    options: ReadOptions,
    stats: ReadStats,
    failed: list[tuple[int, DataError]] | None,
) -> None:
    """Carry out a plan.

    Parameters
    ----------
    plan : ReadPlan
    sources : tuple of ArraySource
        One for each of the plan's arrays.
    out : array, shape (N, *count), axes in array order
        C-contiguous if the plan has direct chunks; otherwise any strides.
    output : OutputFormat
    options : ReadOptions
    stats : ReadStats
        Added to.
    failed : list, or None
        Gets (chunk row, error) of what could not be read, whose pieces become the fill value; None
        raises the first.
    """
    keys, cached = read_keys(plan), _cached_chunks(plan, sources)
    native = native_run(plan, sources, keys, out, output, cached) if options.native else None
    threads = max((num_io_threads(source.store, options) for source in sources), default=1)
    converts = native is None and converts_elements(plan, out, output)
    threads = _fitting_threads(plan, output.dtype.itemsize * converts, threads, options)
    reads: Sequence[int] = range(len(plan.reads))
    if native is not None and native.is_local:
        reads = native.drain(threads)
        stats.fetched_bytes += native.fetched_nbytes
        stats.chunks_decoded += native.num_decoded
        stats.chunks_missing += native.num_missing
    if reads:
        run = make_run(plan, sources, out, output, failed, keys, cached, native)
        for fetched, decoded, missing in run_threads(run.read, reads, threads):
            stats.fetched_bytes += fetched
            stats.chunks_decoded += decoded
            stats.chunks_missing += missing
    if native is not None and native.fills:
        native.fill()
    else:
        gather_fills(plan.fills, plan, out, output)
    for row, _ in failed or ():
        gather_fills(pieces_as_fills(plan, row), plan, out, output)
    stats.chunks_cached += sum(chunk is not None for chunk in cached or ())
    stats.decoded_bytes += plan.decoded_nbytes
