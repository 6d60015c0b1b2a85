"""The data path in one place: plan -> fetch -> decode -> gather -> deliver.

`open` gives sources (`opening`); arrays, slides and loaders turn what they are asked into a
`ReadRequest` and call `read`. The same plan runs on every device and gives the same bytes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from zarrgpu import cuda_engine, host_engine
from zarrgpu.devices.cuda import CudaDevice
from zarrgpu.devices.driver import DeviceMemory
from zarrgpu.devices.resolve import DeviceLike, resolve_device
from zarrgpu.devices.ring import SlotRing
from zarrgpu.errors import DataError, SelectionError
from zarrgpu.fetch import (
    ArraySource,
    check_encoded_sizes,
    fetch_shard_indexes,
    sources_of,
    unreadable_shards,
)
from zarrgpu.model import ReadOptions, Sharded
from zarrgpu.output import OutputFormat
from zarrgpu.plan.cuts import Cut
from zarrgpu.plan.locate import locate_chunks, shard_of_chunks
from zarrgpu.plan.planner import build_plan, plan_touches
from zarrgpu.plan.request import ReadRequest
from zarrgpu.plan.tables import ReadPlan
from zarrgpu.stats import ReadStats
from zarrgpu.stores.cancellable import CancellableStore

OnError = Literal["raise", "mask"]


def plan_read(
    sources: Sequence[ArraySource],
    request: ReadRequest,
    *,
    options: ReadOptions,
    allow_direct: bool = False,
    narrow: bool = False,
    cut: Cut | None = None,
) -> ReadPlan:
    """Plan a read: fetches the shard indexes that it needs and are not known yet, nothing else.

    With `narrow`, chunks are read in part where that pays: for devices that place parts, and where
    the rest is not wanted for a cache.
    """
    touched = plan_touches(request, cut)
    locations = []
    for touch in touched:
        source = sources[touch.array]
        indexes = None
        if isinstance(source.spec.location, Sharded):
            shard_id, _ = shard_of_chunks(source.spec, touch.chunk_id)
            indexes = fetch_shard_indexes(source, shard_id, options)
        locations.append(locate_chunks(source.spec, touch.chunk_id, indexes))
    gap, cap = _coalescing(sources, options)
    return build_plan(
        request,
        touched,
        locations,
        max_gap_bytes=gap,
        max_coalesced_bytes=cap,
        allow_direct=allow_direct,
        narrow=[narrow and source.cache is None for source in sources],
    )


def read(
    sources: Sequence[ArraySource],
    request: ReadRequest,
    *,
    output: OutputFormat,
    layout: tuple[int, ...] | None = None,
    device: DeviceLike = None,
    options: ReadOptions | None = None,
    out: Any = None,
    stats: ReadStats | None = None,
    on_error: OnError = "raise",
    cancelled: Callable[[], bool] | None = None,
    cut: Cut | None = None,
) -> tuple[Any, NDArray[np.bool_]]:
    """Read N boxes.

    Parameters
    ----------
    sources : sequence of ArraySource
        One for each of the request's arrays.
    request : ReadRequest
    output : OutputFormat
    layout : tuple of int, optional
        Array axes in the order of the result's axes after the first; array order if None.
    device : device, optional
        Where the result lies; None takes a CUDA device if there is one.
    options : ReadOptions, optional
    out : array, optional
        Result to write into: of the device, C-contiguous, with the result's shape and type.
    stats : ReadStats, optional
        Added to.
    on_error : "raise" or "mask"
        Whether a box that cannot be read raises, or is marked, and what could not be read of it is
        the fill value.
    cancelled : callable, optional
        Asked before each request; once it says so the read ends with `ReadCancelledError`.
    cut : Cut, optional
        Pieces of a request of one array that is not of boxes alone; only these are placed, the
        rest of the result is left as it is.

    Returns
    -------
    result : array of the device, shape (N, *count in the order of `layout`)
    ok : bool array, shape (N,)
        False for boxes that could not be read (only with ``on_error="mask"``).
    """
    return start_read(
        sources,
        request,
        output=output,
        layout=layout,
        device=device,
        options=options,
        out=out,
        stats=stats,
        on_error=on_error,
        cancelled=cancelled,
        cut=cut,
    ).finish()


@dataclass(slots=True, eq=False)
class PendingRead:
    """A read that was started; its result is there once `finish` returns.

    On the host that is at once. On a CUDA device all is fetched and issued, and the last waves may
    still run: until it is finished, the next read can be started.

    Attributes
    ----------
    memory : DeviceMemory or None
        Of a result on a CUDA device, if it is not the caller's own.
    """

    memory: DeviceMemory | None
    _finish: Callable[[], tuple[Any, NDArray[np.bool_]]]
    _stats: ReadStats

    def then(
        self,
        change: Callable[[Any, NDArray[np.bool_]], tuple[Any, NDArray[np.bool_]]],
        memory: DeviceMemory | None = None,
    ) -> PendingRead:
        """Make of it a read that goes through `change` when it is finished.

        `memory` is that of the changed result, if it is other than that of this one.
        """
        return PendingRead(memory or self.memory, lambda: change(*self._finish()), self._stats)

    def finish(self) -> tuple[Any, NDArray[np.bool_]]:
        """Wait for the result; see `read` for what is returned and raised."""
        began = time.perf_counter()
        try:
            return self._finish()
        finally:
            self._stats.seconds += time.perf_counter() - began


def start_read(
    sources: Sequence[ArraySource],
    request: ReadRequest,
    *,
    output: OutputFormat,
    layout: tuple[int, ...] | None = None,
    device: DeviceLike = None,
    options: ReadOptions | None = None,
    out: Any = None,
    stats: ReadStats | None = None,
    on_error: OnError = "raise",
    cancelled: Callable[[], bool] | None = None,
    cut: Cut | None = None,
    ring: SlotRing | None = None,
) -> PendingRead:
    """Start a read; see `read` for the parameters.

    Parameters
    ----------
    ring : SlotRing, optional
        Of reads that follow one another on a CUDA device.

    Returns
    -------
    PendingRead
        To be finished, once, before its `ring` is closed.
    """
    began = time.perf_counter()
    options = options or ReadOptions()
    stats = stats if stats is not None else ReadStats()
    order = layout if layout is not None else tuple(range(len(request.count)))
    plain = all(output.is_plain(spec.dtype) for spec in request.arrays) and output.turns is None
    in_order = order == tuple(range(len(order)))
    if on_error not in ("raise", "mask"):
        msg = f"on_error must be raise or mask, got {on_error!r}"
        raise SelectionError(msg)
    ok = np.ones(request.num_boxes, np.bool_)
    where = resolve_device(device)
    given = sources
    if cancelled is not None:
        stopping = {source: _stopping(source, cancelled) for source in given}
        sources = [stopping[source] for source in given]
    plan_parts = partial(
        _checked_plan, allow_direct=plain and in_order, narrow=not isinstance(where, CudaDevice)
    )
    planned = (
        where.driver.annotate("zarrgpu plan") if isinstance(where, CudaDevice) else nullcontext()
    )
    with planned:
        try:
            plan = plan_parts(sources, request, options, cut=cut)
        except DataError:
            if on_error == "raise" or cut is not None:
                raise
            plan = plan_parts(sources, _readable(sources, request, options, ok), options)
    for kept, source in zip(given, sources, strict=True):
        kept.shard_indexes = source.shard_indexes
    stats.plan_seconds += time.perf_counter() - began
    shape = (request.num_boxes, *(request.count[axis] for axis in order))
    failed: list[tuple[int, DataError]] | None = [] if on_error == "mask" else None
    expanded = sources_of(plan, sources)
    memory: DeviceMemory | None = None
    if isinstance(where, CudaDevice):
        execution = cuda_engine.start(
            plan, expanded, shape, order, output, options, stats, failed, where, out, ring=ring
        )
        memory, complete = execution.memory, execution.finish
    else:
        result, view = host_engine.allocate(shape, order, output, out)
        host_engine.execute(plan, expanded, view, output, options, stats, failed)
        complete = partial(_as_it_is, result)

    def finish() -> tuple[Any, NDArray[np.bool_]]:
        result = complete()
        for row, _ in failed or ():
            first, last = plan.chunks.piece_start[row : row + 2].tolist()
            ok[plan.pieces.output[first:last]] = False
        stats.patches += request.num_boxes
        stats.delivered_bytes += plan.output_elements * output.dtype.itemsize
        return result, ok

    stats.seconds += time.perf_counter() - began
    return PendingRead(memory, finish, stats)


def _as_it_is(result: Any) -> Any:
    return result


def _stopping(source: ArraySource, cancelled: Callable[[], bool]) -> ArraySource:
    """`source` with a store that raises once it is cancelled, and so its substitute."""
    substitute = source.substitute
    if substitute is not None:
        substitute = _stopping(substitute, cancelled)
    store = CancellableStore(source.store, cancelled)
    return replace(source, store=store, substitute=substitute)


def _checked_plan(
    sources: Sequence[ArraySource],
    request: ReadRequest,
    options: ReadOptions,
    *,
    allow_direct: bool,
    narrow: bool = False,
    cut: Cut | None = None,
) -> ReadPlan:
    plan = plan_read(
        sources, request, options=options, allow_direct=allow_direct, narrow=narrow, cut=cut
    )
    check_encoded_sizes(plan, sources)
    return plan


def _readable(
    sources: Sequence[ArraySource],
    request: ReadRequest,
    options: ReadOptions,
    ok: NDArray[np.bool_],
) -> ReadRequest:
    """Request whose boxes that cannot be planned are moved outside; they are marked in `ok`."""
    ok[_in_unreadable_shards(sources, request, options)] = False
    request = _moved_outside(request, ~ok)
    ok[_unplannable(sources, request, options)] = False
    return _moved_outside(request, ~ok)


def _in_unreadable_shards(
    sources: Sequence[ArraySource], request: ReadRequest, options: ReadOptions
) -> NDArray[np.int32]:
    """Boxes that meet a shard without an index, each of which is tried but once more."""
    boxes = [np.empty(0, np.int32)]
    for touch in plan_touches(request):
        source = sources[touch.array]
        if isinstance(source.spec.location, Sharded):
            shard_id, _ = shard_of_chunks(source.spec, touch.chunk_id)
            bad = unreadable_shards(source, shard_id, options)
            rows, _ = touch.rows_of(np.flatnonzero(np.isin(shard_id, bad)))
            boxes.append(touch.pieces.output.take(rows))
    return np.concatenate(boxes)


def _unplannable(
    sources: Sequence[ArraySource], request: ReadRequest, options: ReadOptions
) -> list[int]:
    """Boxes whose chunk sizes are corrupt, found by halving."""
    bad, suspects = [], [np.arange(request.num_boxes)]
    while suspects:
        rows = suspects.pop()
        part = replace(request, array_index=request.array_index[rows], start=request.start[rows])
        try:
            _checked_plan(sources, part, options, allow_direct=False)
        except DataError:
            if len(rows) == 1:
                bad.append(int(rows[0]))
            else:
                suspects += np.array_split(rows, 2)
    return bad


def _moved_outside(request: ReadRequest, rows: NDArray[np.bool_]) -> ReadRequest:
    """Let some boxes begin beyond their arrays, so that all of them is the fill value."""
    start = request.start.copy()
    ends = np.array([spec.shape for spec in request.arrays], np.int64)
    start[rows] = ends[request.array_index[rows]]
    return replace(request, start=start)


def _coalescing(sources: Sequence[ArraySource], options: ReadOptions) -> tuple[int, int]:
    """Gap and size limits: what the caller says, else the most careful of the stores' own."""
    gap, cap = options.max_gap_bytes, options.max_coalesced_bytes
    return (
        gap if gap is not None else min(source.store.max_gap_bytes for source in sources),
        cap if cap is not None else min(source.store.max_coalesced_bytes for source in sources),
    )
