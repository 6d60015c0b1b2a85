"""One wave on a CUDA device: fetch into pinned memory, copy, decode, gather.

A wave is as many chunks as its slot's share of the memory budget holds. What a cache has on the
device is only gathered; what it has not it gets a copy of, once decoded. All tables are NumPy
columns; nothing here runs once per chunk but what the host decodes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zarrgpu.codecs.device import DeviceChain, decode_tables
from zarrgpu.codecs.device_headers import chain_headers
from zarrgpu.codecs.device_steps import NOWHERE, POSITIONS, WORK, DecodeTables
from zarrgpu.cuda_cache import WaveCache, without_cached
from zarrgpu.cuda_fetch import ABSENT, ARRIVED, DECODED, ENCODED, WaveFetcher, WaveRows
from zarrgpu.cuda_headers import Arrived, bring_headers
from zarrgpu.cuda_work import Columns, Work, gather_work, step_work, submit
from zarrgpu.decode import chunk_name
from zarrgpu.devices.cuda import ALIGNMENT, Slot
from zarrgpu.devices.driver import Driver
from zarrgpu.devices.landing import landing_of
from zarrgpu.errors import DataError, UnsupportedCodecError
from zarrgpu.fetch import ArraySource, encoded_limit
from zarrgpu.gather_tables import Target, gather_table
from zarrgpu.indexing import expand_counts
from zarrgpu.model import ArraySpec, ByteArray, ReadOptions
from zarrgpu.output import OutputFormat
from zarrgpu.plan.chunk_shapes import inside_nbytes
from zarrgpu.plan.tables import Int64s, PieceTable, ReadPlan
from zarrgpu.stats import ReadStats, clocked


@dataclass(frozen=True, slots=True, eq=False)
class WaveContext:
    """What all waves of a read share.

    Attributes
    ----------
    retries : bool
        The chunks were looked for in the caches before, and what they hold, if anything, was bad.
    """

    plan: ReadPlan
    sources: tuple[ArraySource, ...]
    chains: list[DeviceChain | None]
    target: Target
    output: OutputFormat
    options: ReadOptions
    stats: ReadStats
    failed: list[tuple[int, DataError]] | None
    driver: Driver
    retries: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class _Group:
    """Encoded chunks that are decoded alike: of one array, by one chain, from one place."""

    array: int
    chain: DeviceChain
    place: Int64s
    arrived: bool


@dataclass(slots=True, eq=False)
class _Placed:
    """Decode tables of one array with the chunk rows and the start of its work area."""

    row: Int64s
    tables: DecodeTables
    work_start: int
    arrived: bool


@dataclass(slots=True, eq=False)
class _Results:
    """Where each chunk of the wave is once decoded (n rows)."""

    address: Int64s
    shuffle_block_nbytes: Int64s


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
        placed, work_nbytes = _decode_tables(context, slot, fetcher, wave)
    context.stats.fetched_bytes += fetcher.fetched_bytes
    context.stats.direct_bytes += fetcher.direct_bytes
    context.stats.chunks_decoded += int((wave.state != ABSENT).sum())
    context.stats.chunks_missing += int((wave.state == ABSENT).sum())
    payload_nbytes = -(-slot.payload.used // ALIGNMENT) * ALIGNMENT
    payload = slot.data(payload_nbytes + work_nbytes)
    slot.clock.start(slot.stream)
    if slot.payload.used:
        context.driver.copy_to_device(payload, slot.payload.ptr, slot.payload.used, slot.stream)
    decoded = _Results(
        np.where(wave.state == DECODED, payload + wave.offset, 0),
        np.zeros(len(wave.row), np.int64),
    )
    works = _decode_works(context, slot, wave, placed, decoded, payload, payload + payload_nbytes)
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
    wave: WaveRows, decoded: _Results, rows: Int64s, cache: WaveCache
) -> tuple[WaveRows, _Results]:
    """Join what was fetched with what is held: rows, states and results of all chunks."""
    if len(wave.row) == len(rows):
        return wave, decoded
    results = _Results(cache.address.copy(), cache.shuffle_block_nbytes.copy())
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
    results: _Results,
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


def _decode_tables(
    context: WaveContext, slot: Slot, fetcher: WaveFetcher, wave: WaveRows
) -> tuple[list[_Placed], int]:
    """Decode tables of each array's encoded chunks; what no device takes is decoded on the host."""
    placed: list[_Placed] = []
    work_nbytes = 0
    groups, refused = _groups(context, wave)
    mirror, unknown = _headers_of_arrived(context, slot, fetcher, wave, groups)
    refused.append(unknown)
    for group in groups:
        places = np.setdiff1d(group.place, unknown) if group.arrived else group.place
        tables = decode_tables(
            group.chain,
            mirror if group.arrived else slot.payload.array,
            wave.offset[places],
            wave.nbytes[places],
            itemsize=context.plan.arrays[group.array].dtype.itemsize,
            verify_checksums=context.options.verify_checksums,
        )
        refused.append(places[~tables.on_device])
        placed.append(_Placed(places, tables, work_nbytes, group.arrived))
        work_nbytes += tables.work_nbytes
    on_host = np.concatenate(refused)
    fetcher.decode_on_host(wave, on_host)
    if context.options.strict:
        refuse_host_decoded(context, wave.row[on_host])
    return placed, work_nbytes


def _groups(context: WaveContext, wave: WaveRows) -> tuple[list[_Group], list[Int64s]]:
    """Encoded chunks that are decoded alike, and those that the host must decode."""
    groups: list[_Group] = []
    refused = [np.empty(0, np.int64)]
    array = context.plan.chunks.array[wave.row]
    encoded = (wave.state == ENCODED) | (wave.state == ARRIVED)
    for index in np.unique(array[encoded]).tolist():
        chain, spec = context.chains[index], context.plan.arrays[index]
        if chain is None:  # nothing of it is left encoded
            continue
        limit = encoded_limit(context.sources[index])
        mine = (array == index) & encoded
        refused.append(np.flatnonzero(mine & (wave.nbytes > limit)))
        fitting = np.flatnonzero(mine & (wave.nbytes <= limit))
        chunk_id = context.plan.chunks.chunk_id[wave.row[fitting]]
        for part, places in _by_size(chain, spec, chunk_id, fitting):
            if part is None:
                refused.append(places)
                continue
            arrived = wave.state[places] == ARRIVED
            for some, there in ((places[~arrived], False), (places[arrived], True)):
                if len(some):
                    groups.append(_Group(index, part, some, there))
    return groups, refused


def _by_size(
    chain: DeviceChain, spec: ArraySpec, chunk_id: Int64s, places: Int64s
) -> list[tuple[DeviceChain | None, Int64s]]:
    """Chunks with what decodes them: at the end of an array they may be stored with fewer rows."""
    if chain.short_nbytes is None or spec.placement is not None:
        return [(chain, places)]
    short = inside_nbytes(spec, chunk_id) == chain.short_nbytes
    return [(chain, places[~short]), (chain.short, places[short])]


def _headers_of_arrived(
    context: WaveContext,
    slot: Slot,
    fetcher: WaveFetcher,
    wave: WaveRows,
    groups: list[_Group],
) -> tuple[ByteArray, Int64s]:
    """What the host must see of chunks that are on the device only, and those that it must have."""
    arrived = []
    for group in groups:
        if group.arrived:
            headers = chain_headers(group.chain)
            assert headers is not None
            place = group.place
            arrived.append(Arrived(headers, place, wave.offset[place], wave.nbytes[place]))
    if not arrived:
        return np.empty(0, np.uint8), np.empty(0, np.int64)
    return bring_headers(context.driver, landing_of(slot), fetcher.arriving_nbytes, arrived)


def refuse_host_decoded(context: WaveContext, rows: Int64s) -> None:
    """Raise for chunks that the host decoded and the device did not; those that fail are known."""
    failed = [row for row, _ in context.failed or ()]
    rows = np.setdiff1d(rows, np.array(failed, np.int64))
    if len(rows):
        row = int(rows[0])
        index = context.plan.chunks.array[row]
        spec = context.plan.arrays[index]
        name = chunk_name(spec, int(context.plan.chunks.chunk_id[row]))
        codecs = context.sources[index].chain.names
        msg = (
            f"chunk {name!r} of {spec.source!r} ({codecs}): the device has no decoder for this "
            "stream, and strict is set; read with strict=False to decode it on the host"
        )
        raise UnsupportedCodecError(msg)


def _decode_works(
    context: WaveContext,
    slot: Slot,
    wave: WaveRows,
    placed: list[_Placed],
    results: _Results,
    payload: int,
    work: int,
) -> list[Work]:
    """Library and kernel calls that decode a wave, each for all arrays together."""
    calls: dict[tuple[int, str], list[Columns]] = {}
    for part in placed:
        tables, base = part.tables, work + part.work_start
        encoded = landing_of(slot).address if part.arrived else payload
        here = part.row[tables.on_device]
        results.address[here] = _addresses(tables.result, encoded, base)[tables.on_device]
        results.shuffle_block_nbytes[here] = tables.shuffle_block_nbytes[tables.on_device]
        for step in tables.live_steps():
            columns = dict(step.columns, row=wave.row[part.row][step.columns["row"]])
            for name in set(POSITIONS) & columns.keys():
                columns[name] = _addresses(columns[name], encoded, base)
            if "bitstream" in columns:  # libraries for images read host memory
                columns["bitstream"] = columns["bitstream"] + slot.payload.ptr
            calls.setdefault((step.level, step.name), []).append(columns)
    return [
        step_work(context.driver, name, _joined(calls[level, name]), slot.stream)
        for level, name in sorted(calls)
    ]


def _addresses(position: Int64s, payload: int, work: int) -> Int64s:
    """Device addresses of positions; see `codecs.device_steps`."""
    address = np.where(position >= WORK, position - WORK + work, position + payload)
    return np.where(position == NOWHERE, 0, address)


def _joined(parts: list[Columns]) -> Columns:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _gather_work(
    context: WaveContext,
    slot: Slot,
    wave: WaveRows,
    results: _Results,
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
