"""Running a plan on a CUDA device, wave after wave.

Two slots take turns: while the device decodes one wave, the host fetches the next into the other.
Statuses are read back when a slot comes round again. A chunk that the device could not decode, or
whose checksum is wrong, is decoded on the host instead, which either succeeds or says what is wrong
with it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zarrgpu.codecs.device import DeviceChain, device_chain
from zarrgpu.cuda_wave import WaveContext, refuse_host_decoded, start_wave
from zarrgpu.devices.cuda import CudaDevice, Slot
from zarrgpu.devices.driver import DeviceMemory, Driver, PinnedMemory
from zarrgpu.errors import DataError, MemoryBudgetError, SelectionError, UnsupportedCodecError
from zarrgpu.fetch import ArraySource
from zarrgpu.gather_tables import Target, check_device_dtype
from zarrgpu.model import ReadOptions
from zarrgpu.output import OutputFormat
from zarrgpu.plan.tables import Int64s, ReadPlan, ReadTable
from zarrgpu.stats import ReadStats

SLOTS = 2
"""Waves in flight: one fetched while the other is decoded."""

_PIECES_SHARE = 0.2
"""Device memory for tables, as a share of decoded bytes."""


def execute(
    plan: ReadPlan,
    sources: tuple[ArraySource, ...],
    shape: tuple[int, ...],
    order: tuple[int, ...],
    output: OutputFormat,
    options: ReadOptions,
    stats: ReadStats,
    failed: list[tuple[int, DataError]] | None,
    device: CudaDevice,
    out: Any,
) -> Any:
    """Carry out a plan; when this returns the result is complete.

    Parameters
    ----------
    plan, sources, output, options, stats, failed
        As for `host_engine.execute`.
    shape : tuple of int
        Of the result, ``(N, ...)``.
    order : tuple of int
        Array axis of each result axis after the first.
    device : CudaDevice
    out : array of the device, or None
        C-contiguous, of the result's size and type.

    Returns
    -------
    array of the device, of `shape`
    """
    for spec in plan.arrays:
        check_device_dtype(spec.dtype, spec.source)
    chains = [device_chain(source.chain) for source in sources]
    if options.strict:
        _refuse_host_decoding(plan, chains, sources)
    cost = _chunk_costs(plan, chains, options)
    n_slots = SLOTS if cost.max(initial=0) <= options.memory_budget_bytes / SLOTS else 1
    plan, waves = cut_waves(plan, cost, options.memory_budget_bytes / n_slots)
    driver = device.driver
    with device.lease(n_slots) as slots:
        delivered = _Delivery(driver, shape, order, output, out)
        for slot in slots:
            slot.stream.wait(delivered.ready)
        context = WaveContext(
            plan, sources, chains, delivered.target, output, options, stats, failed, driver
        )
        wrong = _run_waves(context, slots, waves)
        if len(wrong):
            _decode_again(context, slots[0], wrong)
        stats.decoded_bytes += plan.decoded_nbytes
        return delivered.result


class _Delivery:
    """The result's memory and the normalisation tables, ready for other streams to use.

    Memory comes from the caller's current stream, so that what the caller frees is not handed out
    again before the work that it queued there is done.
    """

    def __init__(
        self,
        driver: Driver,
        shape: tuple[int, ...],
        order: tuple[int, ...],
        output: OutputFormat,
        out: Any,
    ) -> None:
        stream = driver.current_stream()
        nbytes = math.prod(shape) * output.dtype.itemsize
        if out is None:
            memory = driver.allocate(nbytes, stream)
            self.result = driver.to_array(memory, 0, shape, output.dtype)
            ptr = memory.ptr
        else:
            view = driver.view_array(out)
            _check_out(view.shape, view.strides, view.dtype, shape, output.dtype)
            self.result, ptr = view.array.reshape(shape), view.ptr
        self._tables: list[tuple[DeviceMemory, PinnedMemory]] = []
        # a result without elements is delivered before a copy would be done
        used = (output.scale, output.offset) if nbytes else (None, None)
        scale, offset = (self._upload(driver, values, stream) for values in used)
        self.ready = driver.create_event()
        self.ready.record(stream)
        strides = _element_strides(shape)
        by_axis = {axis: strides[1 + place] for place, axis in enumerate(order)}
        self.target = Target(
            ptr=ptr,
            nbytes=nbytes,
            strides=(strides[0], *(by_axis[axis] for axis in range(len(order)))),
            scale=scale,
            offset=offset,
        )

    def _upload(self, driver: Driver, values: NDArray[np.float32] | None, stream: Any) -> int:
        if values is None:
            return 0
        pinned = driver.allocate_pinned(values.nbytes)
        pinned.array.view(np.float32)[:] = values
        memory = driver.allocate(values.nbytes, stream)
        driver.copy_to_device(memory.ptr, pinned.ptr, values.nbytes, stream)
        self._tables.append((memory, pinned))  # alive until the read is done
        return memory.ptr


def _check_out(
    got_shape: tuple[int, ...],
    got_strides: tuple[int, ...],
    got_dtype: np.dtype[Any],
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
) -> None:
    contiguous = tuple(n * dtype.itemsize for n in _element_strides(got_shape))
    # axes of one element, and arrays of none, may have any strides
    used = [n > 1 and 0 not in got_shape for n in got_shape]
    strided = [s for s, counts in zip(got_strides, used, strict=True) if counts]
    expected = [s for s, counts in zip(contiguous, used, strict=True) if counts]
    if got_dtype != dtype or math.prod(got_shape) != math.prod(shape) or strided != expected:
        msg = (
            f"out must be a C-contiguous array of shape {shape} and type {dtype}, "
            f"got shape {got_shape}, strides {got_strides} and type {got_dtype}"
        )
        raise SelectionError(msg)


def _element_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))


def _refuse_host_decoding(
    plan: ReadPlan, chains: list[DeviceChain | None], sources: tuple[ArraySource, ...]
) -> None:
    for index in np.unique(plan.chunks.array).tolist():
        if chains[index] is None:
            names = sources[index].chain.names
            msg = f"{plan.arrays[index].source!r}: {names} has no device decoder, and strict is set"
            raise UnsupportedCodecError(msg)


def _run_waves(context: WaveContext, slots: list[Slot], waves: list[Int64s]) -> Int64s:
    """Run all waves; return the chunk rows that the device got wrong."""
    fills = context.plan.fills if len(context.plan.fills) else None
    if not waves and fills is not None:
        waves = [np.empty(0, np.int64)]
    running: deque[tuple[Slot, Callable[[], Int64s]]] = deque()
    wrong = [np.empty(0, np.int64)]
    for number, rows in enumerate(waves):
        if len(running) == len(slots):
            wrong.append(_finish(*running.popleft()))
        slot = slots[number % len(slots)]
        running.append((slot, start_wave(context, slot, rows, fills if number == 0 else None)))
    while running:
        wrong.append(_finish(*running.popleft()))
    return np.concatenate(wrong)


def _finish(slot: Slot, failed_rows: Callable[[], Int64s]) -> Int64s:
    slot.done.synchronize()
    rows = failed_rows()
    if len(rows) and rows[0] < 0:
        msg = "the gather kernel refused a fill job; this is a bug in zarrgpu, please report it"
        raise AssertionError(msg)
    return rows


def _chunk_costs(
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
    plan: ReadPlan, cost: NDArray[np.float64], nbytes: float
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

    Returns
    -------
    plan : ReadPlan
        With a read table that was cut too.
    waves : list of int64 arrays
        Rows of the chunk table.
    """
    chunks = plan.chunks
    if not len(chunks):
        return plan, []
    spent = np.cumsum(cost)
    cuts = [0]
    while cuts[-1] < len(chunks):
        before = spent[cuts[-1] - 1] if cuts[-1] else 0.0
        end = int(np.searchsorted(spent, before + nbytes, side="right"))
        cuts.append(max(end, cuts[-1] + 1))
    waves = np.split(np.arange(len(chunks)), cuts[1:-1])
    new_wave = np.zeros(len(chunks) - 1, np.bool_)
    new_wave[np.array(cuts[1:-1], np.int64) - 1] = True
    read = np.zeros(len(chunks), np.int32)
    np.cumsum(new_wave | (np.diff(chunks.read) > 0), out=read[1:])
    if read[-1] + 1 == len(plan.reads):
        return plan, waves
    chunks = replace(chunks, read=read)
    return replace(plan, reads=ReadTable.of_chunks(chunks), chunks=chunks), waves


def _decode_again(context: WaveContext, slot: Slot, rows: Int64s) -> None:
    """Decode chunks on the host that the device got wrong, and gather them anew."""
    on_host = replace(context, chains=[None] * len(context.sources))
    sizes = np.array([spec.chunk_nbytes for spec in context.plan.arrays], np.int64)
    spent = np.cumsum(sizes[context.plan.chunks.array[rows]])
    wave = spent // max(context.options.memory_budget_bytes // 2, 1)
    for part in np.split(rows, np.flatnonzero(np.diff(wave)) + 1):
        still_wrong = _finish(slot, start_wave(on_host, slot, part, None))
        if len(still_wrong):
            msg = "the gather kernel refused a job; this is a bug in zarrgpu, please report it"
            raise AssertionError(msg)
    if context.options.strict:
        refuse_host_decoded(context, rows)
