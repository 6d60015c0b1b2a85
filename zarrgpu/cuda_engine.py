"""Running a plan on a CUDA device, wave after wave.

Slots take turns (`devices.ring`): while the device decodes one wave, the next is copied to it and
the host fetches the one after. A read is started, which issues all of its waves, and finished,
which waits for them; in between the next read may be started on the same ring, so that the device
has work while the first wave of that one is fetched.

Statuses are read back when a wave is finished. A chunk that the device could not decode, or whose
checksum is wrong, is decoded on the host instead, which either succeeds or says what is wrong with
it. A wave that does not fit the memory that the device has left is cut into smaller ones.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zarrgpu.codecs.device import DeviceChain, device_chain
from zarrgpu.codecs.device_calls import possible_calls
from zarrgpu.cuda_budget import (
    TEMPORARY_SHARE,
    chunk_costs,
    cut_waves,
    no_memory_error,
    slots_for,
    smaller_wave,
)
from zarrgpu.cuda_decode import WaveContext, refuse_host_decoded
from zarrgpu.cuda_delivery import Delivery
from zarrgpu.cuda_direct import check_files, gds_in_use
from zarrgpu.cuda_wave import start_wave
from zarrgpu.cuda_work import calls_of
from zarrgpu.devices.cuda import CudaDevice
from zarrgpu.devices.driver import DeviceMemory
from zarrgpu.devices.ring import RunningWave, SlotRing
from zarrgpu.errors import DataError, MemoryBudgetError, UnsupportedCodecError
from zarrgpu.fetch import ArraySource
from zarrgpu.gather_tables import check_device_dtype
from zarrgpu.model import ReadOptions
from zarrgpu.output import OutputFormat
from zarrgpu.plan.tables import Int64s, PieceTable, ReadPlan
from zarrgpu.stats import ReadStats

KEPT = 1 << 20
"""Level of the copies that caches keep: after all others."""


def start(
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
    *,
    ring: SlotRing | None = None,
) -> Execution:
    """Fetch what a plan needs and issue all work; call `finish` of what is returned.

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
    ring : SlotRing, optional
        Shared with the reads before and after; its own otherwise.
    """
    for spec in plan.arrays:
        check_device_dtype(spec.dtype, spec.source)
    chains = [device_chain(source.chain, device.driver.image_formats) for source in sources]
    if options.strict:
        _refuse_host_decoding(plan, chains, sources)
    if gds_in_use(device.driver, options):
        check_files(sources, options)
    cost = chunk_costs(plan, chains, options)
    with device.driver.activate():  # a forked child is refused before anything is made in it
        pass
    shared = ring is not None
    ring = ring if ring is not None else SlotRing(device)
    try:
        delivery = _deliver(ring, shape, order, output, out)
        context = WaveContext(
            plan, sources, chains, delivery.target, output, options, stats, failed, device.driver
        )
        execution = Execution(context, delivery, ring, cost, shared=shared)
        execution.issue()
    except BaseException:
        if not shared:
            ring.close()
        raise
    return execution


class Execution:
    """A read in progress; made by `start`.

    Attributes
    ----------
    memory : DeviceMemory or None
        Of the result; None for a caller's own `out`.
    """

    def __init__(
        self,
        context: WaveContext,
        delivery: Delivery,
        ring: SlotRing,
        cost: NDArray[np.float64],
        *,
        shared: bool,
    ) -> None:
        self._context = context
        self._delivery = delivery
        self._ring = ring
        self._shared = shared
        self._cost = cost
        self._slots = slots_for(cost, context.options)
        self._wave_nbytes = context.options.memory_budget_bytes / self._slots
        self._waves: list[RunningWave] = []

    @property
    def memory(self) -> DeviceMemory | None:
        """Of the result; None for a caller's own `out`."""
        return self._delivery.memory

    def issue(self) -> None:
        """Fetch and issue all waves; only the last ones are still running then."""
        try:
            self._issue()
        except BaseException:
            # nothing of this read may run on when its result is gone
            self._abandon()
            raise

    def finish(self) -> Any:
        """Wait for the device; return the result, which is complete then."""
        try:
            wrong = [np.empty(0, np.int64), *(self._finished(wave) for wave in self._waves)]
            rows = np.concatenate(wrong)
            if len(rows):
                self._decode_again(rows)
        finally:
            if not self._shared:
                self._ring.close()
        self._context.stats.decoded_bytes += self._context.plan.decoded_nbytes
        return self._delivery.result

    def _issue(self) -> None:
        plan = self._context.plan
        fills = plan.fills if len(plan.fills) else None
        waves = self._cut(0)
        if not waves and fills is not None:
            waves.append(np.empty(0, np.int64))
        while waves:
            rows = waves[0]
            try:
                self._waves.append(self._start(self._context, rows, fills))
            except MemoryBudgetError as error:
                # what others hold is not ours to take: as much as is left must do
                self._ring.drain()
                if self._slots > 1:
                    self._slots = 1
                    continue
                if len(rows) <= 1:
                    raise no_memory_error(
                        self._context.driver, self._context.plan, rows, self._cost, error
                    ) from error
                self._wave_nbytes = smaller_wave(self._cost, rows)
                waves = self._cut(int(rows[0]))
                continue
            waves.popleft()
            fills = None

    def _cut(self, first_row: int) -> deque[Int64s]:
        plan, waves = cut_waves(
            self._context.plan, self._cost, self._wave_nbytes, first_row=first_row
        )
        self._context = replace(self._context, plan=plan)
        return deque(waves)

    def _start(self, context: WaveContext, rows: Int64s, fills: PieceTable | None) -> RunningWave:
        """Issue one wave; nothing is counted of one that cannot be issued."""
        self._ring.finish_done()
        slot = self._ring.take(self._slots)
        slot.launches, slot.temp_nbytes = 0, TEMPORARY_SHARE * self._wave_nbytes
        attempt = replace(context, stats=ReadStats(), failed=None if context.failed is None else [])
        try:
            slot.stream.wait(self._delivery.ready)
            wave = RunningWave(slot, start_wave(attempt, slot, rows, fills), self._delivery)
        except BaseException:
            self._ring.give_back(slot)
            raise
        attempt.stats.launches += slot.launches
        self._ring.run(wave)
        context.stats.add(attempt.stats)
        context.stats.waves += 1
        if context.failed is not None:
            context.failed.extend(attempt.failed or ())
        return wave

    def _finished(self, wave: RunningWave) -> Int64s:
        rows = wave.finish()
        stats, seconds = self._context.stats, wave.seconds
        stats.copy_seconds += seconds["copy"]
        stats.decode_seconds += seconds["decode"]
        stats.gather_seconds += seconds["gather"]
        if len(rows) and rows[0] < 0:
            msg = "the gather kernel refused a fill job; this is a bug in zarrgpu, please report it"
            raise AssertionError(msg)
        return rows

    def _decode_again(self, rows: Int64s) -> None:
        """Decode chunks on the host that the device got wrong, and gather them anew."""
        context = self._context
        on_host = replace(context, chains=[None] * len(context.sources), retries=True)
        sizes = np.array([spec.chunk_nbytes for spec in context.plan.arrays], np.int64)
        spent = np.cumsum(sizes[context.plan.chunks.array[rows]])
        part = spent // max(context.options.memory_budget_bytes // self._slots, 1)
        for some in np.split(rows, np.flatnonzero(np.diff(part)) + 1):
            try:
                self._place_anew(on_host, some)
            except MemoryBudgetError:
                self._ring.drain()
                for row in some:
                    self._place_alone(on_host, np.array([row]))
        context.stats.chunks_retried += len(rows)
        if context.options.strict:
            refuse_host_decoded(context, rows)

    def _place_anew(self, context: WaveContext, rows: Int64s) -> None:
        if len(self._finished(self._start(context, rows, None))):
            msg = "the gather kernel refused a job; this is a bug in zarrgpu, please report it"
            raise AssertionError(msg)

    def _place_alone(self, context: WaveContext, row: Int64s) -> None:
        try:
            self._place_anew(context, row)
        except MemoryBudgetError as error:
            raise no_memory_error(context.driver, context.plan, row, self._cost, error) from error

    def _abandon(self) -> None:
        """Wait for what was issued, whatever became of it."""
        for wave in self._waves:
            wave.slot.settles()


def _deliver(
    ring: SlotRing,
    shape: tuple[int, ...],
    order: tuple[int, ...],
    output: OutputFormat,
    out: Any,
) -> Delivery:
    """Make room for the result, with the memory of idle slots where there is none else."""
    driver = ring.device.driver
    own = ring.stream if out is None else None  # the caller's memory is in use on the caller's
    stream = own if own is not None else driver.current_stream()
    try:
        return Delivery(driver, shape, order, output, out, stream)
    except MemoryBudgetError:
        ring.drain()
        return Delivery(driver, shape, order, output, out, stream)


def _refuse_host_decoding(
    plan: ReadPlan, chains: list[DeviceChain | None], sources: tuple[ArraySource, ...]
) -> None:
    for index in np.unique(plan.chunks.array).tolist():
        if chains[index] is None:
            names = sources[index].chain.names
            msg = f"{plan.arrays[index].source!r}: {names} has no device decoder, and strict is set"
            raise UnsupportedCodecError(msg)


def describe_launches(
    plan: ReadPlan, sources: tuple[ArraySource, ...], options: ReadOptions, device: CudaDevice
) -> str:
    """Say how many waves a plan is cut into, and which calls each makes at most.

    Parameters
    ----------
    plan, sources, options, device
        As for `start`.
    """
    chains = [device_chain(source.chain, device.driver.image_formats) for source in sources]
    try:
        cost = chunk_costs(plan, chains, options)
    except MemoryBudgetError as error:
        return f"none: {error}"
    nbytes = options.memory_budget_bytes / slots_for(cost, options)
    _, waves = cut_waves(plan, cost, nbytes)
    calls: set[tuple[int, str]] = set()
    for index in np.unique(plan.chunks.array).tolist():
        chain = chains[index]
        calls |= possible_calls(chain) if chain is not None else set()
        if sources[index].cache is not None:  # what a cache keeps is copied once more
            calls.add((KEPT, "copy_segments"))
    names = [name for _, name in sorted(calls)]
    number = sum(calls_of(name) for name in names) + 1
    count = max(len(waves), 1 if len(plan.fills) else 0)
    return (
        f"{count} wave{'' if count == 1 else 's'} of at most {number} calls: "
        f"{', '.join(dict.fromkeys([*names, 'gather']))}"
    )
