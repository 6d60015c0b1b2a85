"""One wave on a CUDA device: fetch into pinned memory, copy, decode, gather.

A wave is as many chunks as half of the memory budget holds. All of its tables are NumPy columns;
nothing here runs once per chunk but what the host decodes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zarrgpu.codecs.device import DeviceChain, decode_tables
from zarrgpu.codecs.device_steps import NOWHERE, POSITIONS, WORK, DecodeTables
from zarrgpu.cuda_fetch import ABSENT, DECODED, ENCODED, WaveFetcher, WaveRows
from zarrgpu.cuda_work import Columns, Work, gather_work, step_work, submit
from zarrgpu.decode import chunk_name
from zarrgpu.devices.cuda import ALIGNMENT, Slot
from zarrgpu.devices.driver import Driver
from zarrgpu.errors import DataError, UnsupportedCodecError
from zarrgpu.fetch import ArraySource, encoded_limit
from zarrgpu.gather_tables import Target, gather_table
from zarrgpu.indexing import expand_counts
from zarrgpu.model import ReadOptions
from zarrgpu.output import OutputFormat
from zarrgpu.plan.tables import Int64s, PieceTable, ReadPlan
from zarrgpu.stats import ReadStats


@dataclass(frozen=True, slots=True, eq=False)
class WaveContext:
    """What all waves of a read share."""

    plan: ReadPlan
    sources: tuple[ArraySource, ...]
    chains: list[DeviceChain | None]
    target: Target
    output: OutputFormat
    options: ReadOptions
    stats: ReadStats
    failed: list[tuple[int, DataError]] | None
    driver: Driver


@dataclass(slots=True, eq=False)
class _Placed:
    """Decode tables of one array with the chunk rows and the start of its work area."""

    row: Int64s
    tables: DecodeTables
    work_start: int


@dataclass(slots=True, eq=False)
class _Results:
    """Where each chunk of the wave is once decoded (n rows)."""

    address: Int64s
    shuffle_block_nbytes: Int64s


def start_wave(
    context: WaveContext, slot: Slot, rows: Int64s, fills: PieceTable | None
) -> Callable[[], Int64s]:
    """Fetch a wave and issue its work; see `cuda_work.submit` for what is returned.

    Parameters
    ----------
    context : WaveContext
    slot : Slot
        Idle.
    rows : int64 array
        Ascending rows of the chunk table.
    fills : PieceTable, optional
        Fill pieces to place with this wave.
    """
    slot.payload.reset(_payload_estimate(context, rows))
    fetcher = WaveFetcher(
        context.plan, context.sources, context.chains, slot, context.options, context.failed
    )
    wave = fetcher.fetch(rows)
    placed, work_nbytes = _decode_tables(context, slot, fetcher, wave)
    context.stats.fetched_bytes += fetcher.fetched_bytes
    context.stats.chunks_decoded += int((wave.state != ABSENT).sum())
    context.stats.chunks_missing += int((wave.state == ABSENT).sum())
    payload_nbytes = -(-slot.payload.used // ALIGNMENT) * ALIGNMENT
    payload = slot.data(payload_nbytes + work_nbytes)
    if slot.payload.used:
        context.driver.copy_to_device(payload, slot.payload.ptr, slot.payload.used, slot.stream)
    results = _Results(
        np.where(wave.state == DECODED, payload + wave.offset, 0), np.zeros(len(rows), np.int64)
    )
    works = _decode_works(context, slot, wave, placed, results, payload, payload + payload_nbytes)
    gather = _gather_work(context, slot, wave, results, fills)
    return submit(slot, [*works, gather] if gather is not None else works)


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
    array = context.plan.chunks.array[wave.row]
    refused = [np.empty(0, np.int64)]
    for index in np.unique(array[wave.state == ENCODED]).tolist():
        chain, spec = context.chains[index], context.plan.arrays[index]
        if chain is None:  # nothing of it is left encoded
            continue
        limit = encoded_limit(context.sources[index])
        encoded = (array == index) & (wave.state == ENCODED)
        refused.append(np.flatnonzero(encoded & (wave.nbytes > limit)))
        places = np.flatnonzero(encoded & (wave.nbytes <= limit))
        tables = decode_tables(
            chain,
            slot.payload.array,
            wave.offset[places],
            wave.nbytes[places],
            itemsize=spec.dtype.itemsize,
            verify_checksums=context.options.verify_checksums,
        )
        refused.append(places[~tables.on_device])
        placed.append(_Placed(places, tables, work_nbytes))
        work_nbytes += tables.work_nbytes
    on_host = np.concatenate(refused)
    fetcher.decode_on_host(wave, on_host)
    if context.options.strict:
        refuse_host_decoded(context, wave.row[on_host])
    return placed, work_nbytes


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
        here = part.row[tables.on_device]
        results.address[here] = _addresses(tables.result, payload, base)[tables.on_device]
        results.shuffle_block_nbytes[here] = tables.shuffle_block_nbytes[tables.on_device]
        for step in tables.live_steps():
            columns = dict(step.columns, row=wave.row[part.row][step.columns["row"]])
            for name in set(POSITIONS) & columns.keys():
                columns[name] = _addresses(columns[name], payload, base)
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
                layout=len(layouts),
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
