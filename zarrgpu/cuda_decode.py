"""What a device does to decode a wave: which chunks, by which tables, in which calls.

Chunks of one array, chain and place are one group. Its tables say what to do to each of them
(`codecs.device`); what they refuse is decoded on the host. Steps of all groups that are alike make
one call.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zarrgpu.codecs.device import DeviceChain, decode_tables
from zarrgpu.codecs.device_headers import chain_headers
from zarrgpu.codecs.device_steps import NOWHERE, POSITIONS, WORK, DecodeTables
from zarrgpu.cuda_fetch import ARRIVED, ENCODED, WaveFetcher, WaveRows
from zarrgpu.cuda_headers import Arrived, bring_headers
from zarrgpu.cuda_work import Columns, Work, step_work
from zarrgpu.decode import chunk_name
from zarrgpu.devices.cuda import Slot
from zarrgpu.devices.driver import Driver
from zarrgpu.devices.landing import landing_of
from zarrgpu.errors import DataError, UnsupportedCodecError
from zarrgpu.fetch import ArraySource, encoded_limit
from zarrgpu.gather_tables import Target
from zarrgpu.model import ArraySpec, ByteArray, ReadOptions
from zarrgpu.output import OutputFormat
from zarrgpu.plan.chunk_shapes import inside_nbytes
from zarrgpu.plan.tables import Int64s, ReadPlan
from zarrgpu.stats import ReadStats


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
class Placed:
    """Decode tables of one array with the chunk rows and the start of its work area."""

    row: Int64s
    tables: DecodeTables
    work_start: int
    arrived: bool


@dataclass(slots=True, eq=False)
class Results:
    """Where each chunk of the wave is once decoded (n rows)."""

    address: Int64s
    shuffle_block_nbytes: Int64s


def wave_tables(
    context: WaveContext, slot: Slot, fetcher: WaveFetcher, wave: WaveRows
) -> tuple[list[Placed], int]:
    """Decode tables of each array's encoded chunks; what no device takes is decoded on the host."""
    placed: list[Placed] = []
    work_nbytes = 0
    groups, refused = _groups(context, wave)
    mirror, unknown = _headers_of_arrived(context, slot, fetcher, wave, groups)
    if len(unknown):  # these go on as if they had been fetched here
        fetcher.bring_back(wave, unknown)
        groups, refused = _groups(context, wave)
    for group in groups:
        places = group.place
        tables = decode_tables(
            group.chain,
            mirror if group.arrived else slot.payload.array,
            wave.offset[places],
            wave.nbytes[places],
            itemsize=context.plan.arrays[group.array].dtype.itemsize,
            verify_checksums=context.options.verify_checksums,
        )
        refused.append(places[~tables.on_device])
        placed.append(Placed(places, tables, work_nbytes, group.arrived))
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
    """What the host must see of chunks that are on the device only; those of which that is all."""
    arrived = []
    for group in groups:
        if group.arrived:
            headers = chain_headers(group.chain)
            assert headers is not None
            place = group.place
            arrived.append(Arrived(headers, place, wave.offset[place], wave.nbytes[place]))
    if not arrived:
        return np.empty(0, np.uint8), np.empty(0, np.int64)
    landing = landing_of(slot)
    found = bring_headers(context.driver, landing, fetcher.arriving_nbytes, arrived)
    slot.launches += landing.slot.launches
    return found


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


def decode_works(
    context: WaveContext,
    slot: Slot,
    wave: WaveRows,
    placed: list[Placed],
    results: Results,
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
