"""Resampling a batch of images on a CUDA device: two launches of ``kernels/resample.cu`` a part.

The first sums up along y, into float32 scratch memory; the second along x, into the result. A batch
is cut into parts whose scratch memory fits the budget.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zarrgpu.devices.cuda import ALIGNMENT, CudaDevice, Slot
from zarrgpu.devices.driver import ArrayView, Stream
from zarrgpu.devices.element_types import element_type
from zarrgpu.devices.kernels import ELEMENT_TILE, grid_blocks, tile_starts
from zarrgpu.devices.tables import RESAMPLE_JOB, JobStatus
from zarrgpu.output import OutputFormat
from zarrgpu.resampling import FilterTable, ResampleBatch
from zarrgpu.symmetries import NUM_SYMMETRIES, Turns

_SCRATCH_SHARE = 4
"""Scratch memory is at most this part of the budget."""


def resample_on_device(
    device: CudaDevice,
    batch: ResampleBatch,
    pixels: Any,
    out: Any,
    axes: tuple[int, int, int],
    output: OutputFormat,
    memory_nbytes: int,
    stream: Stream | None = None,
) -> None:
    """Resample images that lie on a device; when this returns the result is complete.

    Parameters
    ----------
    device : CudaDevice
    batch : ResampleBatch
    pixels : array of the device, shape (N, h, w, C)
        C-contiguous, native byte order.
    out : array of the device, shape (M, ...)
    axes : (int, int, int)
        Which axes of `out` are y, x and the channels.
    output : OutputFormat
    memory_nbytes : int
        Budget for scratch memory.
    stream : Stream, optional
        That the memory of `out` belongs to; the caller's current one otherwise.
    """
    driver = device.driver
    source, target = driver.view_array(pixels), driver.view_array(out)
    n, _, width, channels = source.shape
    height = batch.rows.first.shape[1]
    each = -(-height * width * channels * 4 // ALIGNMENT) * ALIGNMENT
    step = max(1, memory_nbytes // _SCRATCH_SHARE // max(each, 1))
    batch, strides = _target_strides(batch, target, axes, output)
    with device.lease(1) as (slot,):
        ready = driver.create_event()
        ready.record(stream if stream is not None else driver.current_stream())
        slot.stream.wait(ready)
        scratch = driver.allocate(max(each * min(step, n), 1), slot.stream)
        for begin in range(0, n, step):
            images = np.arange(begin, min(begin + step, n))
            room = scratch.ptr + np.arange(len(images)) * each
            _run_part(slot, batch, images, (source, target), room, strides, output)


def _target_strides(
    batch: ResampleBatch, target: ArrayView, axes: tuple[int, int, int], output: OutputFormat
) -> tuple[ResampleBatch, NDArray[np.int64]]:
    """Elements between neighbours along y, x and the channels, for each image: none is negative.

    Along an axis that is flipped the results are made in reversed order, by tables of their own.
    """
    strides = tuple(target.strides[axis] // target.dtype.itemsize for axis in axes)
    if output.turns is None:
        return batch, np.array([strides], np.int64).repeat(len(batch.result), axis=0)
    turns = Turns(output.turns.symmetry[batch.result], 0, 1)
    count = tuple(target.shape[axis] for axis in axes)
    by_symmetry = [turns.strides(s, strides, count)[1] for s in range(NUM_SYMMETRIES)]
    each = np.array(by_symmetry, np.int64)[turns.symmetry]
    flipped = each < 0
    batch = replace(
        batch,
        rows=batch.rows.with_reversed(),
        columns=batch.columns.with_reversed(),
        row_table=batch.row_table + flipped[:, 0] * len(batch.rows.first),
        column_table=batch.column_table + flipped[:, 1] * len(batch.columns.first),
    )
    return batch, np.abs(each)


def _run_part(
    slot: Slot,
    batch: ResampleBatch,
    images: NDArray[np.int64],
    views: tuple[ArrayView, ArrayView],
    room: NDArray[np.int64],
    strides: NDArray[np.int64],
    output: OutputFormat,
) -> None:
    """Resample some of the images; scratch memory of each is at `room`."""
    source, target = views
    _, height, width, channels = source.shape
    rows, row_of = _used(batch.rows, batch.row_table[images])
    columns, column_of = _used(batch.columns, batch.column_table[images])
    tall, wide = rows.first.shape[1], columns.first.shape[1]
    tables = slot.tables
    scaling = [v for v in (output.scale, output.offset) if v is not None]
    content = [rows.first, rows.weight, columns.first, columns.weight, *scaling]
    n = len(images)
    tables.reserve(
        sum(table.nbytes + ALIGNMENT for table in content)
        + 2 * (n * (RESAMPLE_JOB.itemsize + 4) + (n + 1) * 8 + 3 * ALIGNMENT)
    )
    at = [tables.place(table) for table in content]
    down = _jobs(rows, row_of, at[0], at[1])
    down["source"] = source.ptr + images * source.strides[0]
    down["source_nbytes"] = height * width * channels * source.dtype.itemsize
    down["source_type"] = element_type(source.dtype)
    down["target"], down["target_nbytes"] = room, tall * width * channels * 4
    down["target_strides"] = (0, width * channels, 1)
    down["target_type"] = element_type(np.dtype("f4"))
    down["outer"], down["n"], down["m"], down["inner"] = 1, height, tall, width * channels
    down["outer_inside"] = (0, 1)
    down["m_inside"] = (0, tall)
    across = _jobs(columns, column_of, at[2], at[3])
    across["source"], across["source_nbytes"] = room, tall * width * channels * 4
    across["source_type"] = element_type(np.dtype("f4"))
    across["target"] = target.ptr + batch.result[images] * target.strides[0]
    across["target_nbytes"] = target.strides[0]
    across["target_strides"] = strides[images]
    across["target_type"] = element_type(target.dtype)
    across["outer"], across["n"], across["m"], across["inner"] = tall, width, wide, channels
    across["outer_inside"] = rows.inside[row_of]
    across["m_inside"] = columns.inside[column_of]
    across["fill"] = batch.fill[images]
    if scaling and output.scale is not None:
        across["scale"], across["offset"] = at[4], at[5]
        across["n_channels"] = output.scale.size
    _launch(slot, (down, across), (tall * width * channels, tall * wide * channels))


def _used(table: FilterTable, of: NDArray[np.int64]) -> tuple[FilterTable, NDArray[np.int64]]:
    """Only those tables that are used, and which each image uses of them."""
    used, places = np.unique(of, return_inverse=True)
    return FilterTable(table.first[used], table.weight[used], table.inside[used]), places


def _jobs(table: FilterTable, of: NDArray[np.int64], first: int, weight: int) -> NDArray[np.void]:
    """Jobs that refer to the tables at two addresses."""
    jobs = np.zeros(len(of), RESAMPLE_JOB)
    _, n, taps = table.weight.shape
    jobs["first"], jobs["first_nbytes"] = first + of * n * 4, n * 4
    jobs["weight"], jobs["weight_nbytes"] = weight + of * n * taps * 4, n * taps * 4
    jobs["taps"] = taps
    return jobs


def _launch(
    slot: Slot, passes: tuple[NDArray[np.void], NDArray[np.void]], elements: tuple[int, int]
) -> None:
    """Run both passes of a part and check that no job was refused."""
    driver, tables = slot.driver, slot.tables
    placed = []
    for jobs, count in zip(passes, elements, strict=True):
        starts = tile_starts(np.full(len(jobs), count), ELEMENT_TILE)
        placed.append((tables.place(jobs), len(jobs), tables.place(starts), int(starts[-1])))
    statuses = [tables.result(4 * len(jobs)) for jobs in passes]
    tables.send()
    block = driver.block_threads
    for (jobs_at, n, starts_at, n_tiles), (_, status) in zip(placed, statuses, strict=True):
        args = (jobs_at, n, starts_at, ELEMENT_TILE, status)
        driver.launch("resample", grid_blocks(n_tiles, block), block, args, slot.stream)
    tables.fetch_results()
    slot.done.record(slot.stream)
    slot.done.synchronize()
    for (at, _), jobs in zip(statuses, passes, strict=True):
        wrong = tables.read(at, "<i4", len(jobs)).max(initial=0)
        if wrong:
            msg = (
                f"the resample kernel refused a job ({JobStatus(int(wrong)).name}); this is a bug "
                "in zarrgpu, please report it"
            )
            raise AssertionError(msg)
