"""One wave on a CUDA device: fetch into pinned memory, copy, decode, gather.

A wave is as many chunks as its slot's share of the memory budget holds. What a cache has on the
device is only gathered; what it has not it gets a copy of, once decoded. All tables are NumPy
columns; nothing here runs once per chunk but what the host decodes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zarrgpu.cuda_cache import WaveCache, without_cached
from zarrgpu.cuda_decode import Results, WaveContext, decode_works, wave_tables
from zarrgpu.cuda_fetch import ABSENT, DECODED, WaveFetcher, WaveRows
from zarrgpu.cuda_work import Columns, Work, gather_work, step_work, submit
from zarrgpu.devices.cuda import ALIGNMENT, Slot
from zarrgpu.gather_tables import gather_table
from zarrgpu.indexing import expand_counts
from zarrgpu.plan.tables import Int64s, PieceTable, ReadPlan
from zarrgpu.stats import clocked


def start_wave(
    context: WaveContext, slot: Slot, rows: Int64s, fills: PieceTable | None
) -> Callable[[], Int64s]:
    """Fetch a wave and issue its work.

    Parameters
    ----------
    context : WaveContext
    slot : Slot
        Idle.
    rows : int64 array
        Ascending rows of the chunk table.
    fills : PieceTable, optional
        Fill pieces to place with this wave.

    Returns
    -------
    callable
        To be called, once, when ``slot.done`` is: gives the chunk rows that went wrong, sorted. It
        also lets go of what the caches hold for this wave.
    """
    cache = WaveCache(
        context.plan,
        context.sources,
        context.driver,
        rows,
        verified=context.options.verify_checksums,
    )
    try:
        return _start(context, slot, rows, fills, cache)
    except BaseException:
        slot.settles()  # what is already queued may read or write what the caches hold
        cache.release()
        raise


def _start(
    context: WaveContext, slot: Slot, rows: Int64s, fills: PieceTable | None, cache: WaveCache
) -> Callable[[], Int64s]:
    if not context.retries:
        cache.find()
    held = cache.address != 0
    fetcher = WaveFetcher(
        _plan_of_fetch(context, rows, held),
        context.sources,
        context.chains,
        slot,
        context.options,
        context.failed,
    )
    fetched = rows[~held]
    here = ~fetcher.choose_direct(fetched)
    slot.payload.reset(_payload_estimate(context, fetched[here]))
    with context.driver.annotate("zarrgpu fetch"), clocked(context.stats, "fetch_seconds"):
        wave = fetcher.fetch(fetched)
        placed, work_nbytes = wave_tables(context, slot, fetcher, wave)
    context.stats.fetched_bytes += fetcher.fetched_bytes
    context.stats.direct_bytes += fetcher.direct_bytes
    context.stats.chunks_decoded += int((wave.state != ABSENT).sum())
    context.stats.chunks_missing += int((wave.state == ABSENT).sum())
    payload_nbytes = -(-slot.payload.used // ALIGNMENT) * ALIGNMENT
    payload = slot.data(payload_nbytes + work_nbytes)
    slot.clock.start(slot.stream)
    if slot.payload.used:
        context.driver.copy_to_device(payload, slot.payload.ptr, slot.payload.used, slot.stream)
    decoded = Results(
        np.where(wave.state == DECODED, payload + wave.offset, 0),
        np.zeros(len(wave.row), np.int64),
    )
    works = decode_works(context, slot, wave, placed, decoded, payload, payload + payload_nbytes)
    wave, results = _with_held(wave, decoded, rows, cache)
    works += _keep_works(context, slot, wave, results, cache, held)
    cache.wait(slot.stream)
    gather = _gather_work(context, slot, wave, results, fills)
    failed_rows = submit(slot, [*works, gather] if gather is not None else works)
    if not context.retries:
        context.stats.chunks_cached += cache.count()

    def finish() -> Int64s:
        wrong = failed_rows()
        cache.publish(wrong, results.shuffle_block_nbytes)
        cache.release()
        return wrong

    return finish


def _plan_of_fetch(context: WaveContext, rows: Int64s, held: NDArray[np.bool_]) -> ReadPlan:
    """The plan, without reads of what is held."""
    if not held.any() or held.all():
        return context.plan
    gap = context.options.max_gap_bytes
    if gap is None:
        gap = min(source.store.max_gap_bytes for source in context.sources)
    return without_cached(context.plan, rows[~held], gap)


def _with_held(
    wave: WaveRows, decoded: Results, rows: Int64s, cache: WaveCache
) -> tuple[WaveRows, Results]:
    """Join what was fetched with what is held: rows, states and results of all chunks."""
    if len(wave.row) == len(rows):
        return wave, decoded
    results = Results(cache.address.copy(), cache.shuffle_block_nbytes.copy())
    fetched = np.flatnonzero(cache.address == 0)
    state = np.full(len(rows), DECODED, np.int8)
    state[fetched] = wave.state
    results.address[fetched] = decoded.address
    results.shuffle_block_nbytes[fetched] = decoded.shuffle_block_nbytes
    offset, nbytes = np.zeros((2, len(rows)), np.int64)
    offset[fetched], nbytes[fetched] = wave.offset, wave.nbytes
    return replace(wave, row=rows, state=state, offset=offset, nbytes=nbytes), results


def _keep_works(
    context: WaveContext,
    slot: Slot,
    wave: WaveRows,
    results: Results,
    cache: WaveCache,
    held: NDArray[np.bool_],
) -> list[Work]:
    """Copies of newly decoded chunks into the caches of their arrays."""
    target = cache.reserve((wave.state != ABSENT) & ~held)
    kept = np.flatnonzero(target)
    if not len(kept):
        return []
    sizes = np.array([spec.chunk_nbytes for spec in context.plan.arrays], np.int64)
    columns: Columns = {
        "row": wave.row[kept],
        "source": results.address[kept],
        "target": target[kept],
        "nbytes": sizes[context.plan.chunks.array[wave.row[kept]]],
    }
    return [step_work(context.driver, "copy_segments", columns, slot.stream)]


def _payload_estimate(context: WaveContext, rows: Int64s) -> int:
    chunks = context.plan.chunks
    decoded = np.array([spec.chunk_nbytes for spec in context.plan.arrays], np.int64)
    on_host = np.array([chain is None for chain in context.chains], np.bool_)
    array, stored = chunks.array[rows], chunks.nbytes[rows]
    sizes = np.where(on_host[array] | (stored < 0), decoded[array], stored)
    return int((sizes + ALIGNMENT).sum())


def _gather_work(
    context: WaveContext,
    slot: Slot,
    wave: WaveRows,
    results: Results,
    fills: PieceTable | None,
) -> Work | None:
    """The gather of all pieces of a wave: those of decoded chunks, and fills."""
    plan = context.plan
    place, rows = _piece_rows(plan, wave.row)
    pieces = plan.pieces.take(rows)
    array = plan.chunks.array[pieces.chunk]
    absent = wave.state[place] == ABSENT
    layouts: list[NDArray[Any]] = []
    jobs: list[NDArray[Any]] = []
    owners: list[Int64s] = []
    for index, spec in enumerate(plan.arrays):
        mine = (array == index) & ~absent
        groups = [(pieces.take(mine), False)] if mine.any() else []
        missing = [pieces.take((array == index) & absent)]
        if fills is not None:
            missing.append(fills.take(fills.chunk == index))
        joined = PieceTable.concatenate(missing, spec.ndim)
        if len(joined):
            groups.append((joined, True))
        for group, fill in groups:
            layout, made = gather_table(
                spec,
                plan.request,
                group,
                context.target,
                context.output,
                layout=sum(map(len, layouts)),
                fill=fill,
            )
            if not fill:
                at = place[mine]
                made["source"] = results.address[at]
                made["source_nbytes"] = spec.chunk_nbytes
                made["shuffle_block_nbytes"] = results.shuffle_block_nbytes[at]
            layouts.append(layout)
            jobs.append(made)
            owners.append(
                np.full(len(made), -1, np.int64) if fill else group.chunk.astype(np.int64)
            )
    if not jobs:
        return None
    return gather_work(
        context.driver,
        np.concatenate(owners),
        np.concatenate(jobs),
        np.concatenate(layouts),
        slot.stream,
    )


def _piece_rows(plan: ReadPlan, rows: Int64s) -> tuple[Int64s, Int64s]:
    """For every piece of the given chunks: the chunk's place among them, and the piece's row."""
    start = plan.chunks.piece_start[rows]
    place, local = expand_counts(plan.chunks.piece_start[rows + 1] - start)
    return place, start[place] + local
