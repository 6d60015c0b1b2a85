"""Which chunks each box touches, and which of their elements: vectorised over all boxes.

Box ``b`` selects elements ``start + k * step`` for ``k < count`` on every axis; chunk ``c`` holds
elements ``c * C`` to ``(c + 1) * C - 1``. Per axis the valid ``k`` form an interval; every chunk
that it crosses gives one piece. What lies outside of the array is cut into at most two fill boxes
per axis, so that pieces and fills cover each output element exactly once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from zarrgpu.errors import MemoryBudgetError
from zarrgpu.indexing import expand_counts
from zarrgpu.model import ArraySpec
from zarrgpu.plan.tables import Int64s, PieceTable

MAX_PIECES = 1 << 24
"""A plan's tables take about 100 bytes a piece."""


@dataclass(frozen=True, slots=True, eq=False)
class ArrayTouches:
    """What a request touches of one array.

    Attributes
    ----------
    array : int
        Index of the array in the request.
    chunk_id : int64 (C,)
        Distinct chunks, ascending.
    pieces : PieceTable
        As they were cut, box by box; their ``chunk`` column means nothing yet.
    piece_order : int (P,)
        Rows of `pieces`, sorted by chunk.
    piece_start : int64 (C + 1,)
        Chunk ``c`` has rows ``piece_order[piece_start[c]:piece_start[c + 1]]``.
    fills : PieceTable
    """

    array: int
    chunk_id: Int64s
    pieces: PieceTable
    piece_order: NDArray[np.intp]
    piece_start: Int64s
    fills: PieceTable

    def rows_of(self, chunks: NDArray[np.intp]) -> tuple[NDArray[np.intp], Int64s]:
        """Rows of `pieces` of the given elements of `chunk_id`, and which element each is of."""
        start = self.piece_start[:-1].take(chunks)
        number, local = expand_counts(self.piece_start[1:].take(chunks) - start)
        return self.piece_order.take(start.take(number) + local), number

    def pieces_of(self, chunks: NDArray[np.intp]) -> PieceTable:
        """Pieces of the given elements of `chunk_id`, sorted by and numbering these."""
        rows, number = self.rows_of(chunks)
        return replace(self.pieces.take(rows), chunk=number.astype(np.int32))


def valid_interval(
    start: Int64s, count: Int64s, step: Int64s, size: Int64s
) -> tuple[Int64s, Int64s]:
    """First and last-plus-one ``k`` inside an array of `size` elements; arrays broadcast.

    Where nothing is inside, both are equal.
    """
    low = np.minimum(np.maximum(-(start // step), 0), count)  # ceil(-start / step)
    high = np.minimum(-((start - size) // step), count)
    return low, np.maximum(low, high)


def touch_chunks(
    spec: ArraySpec, start: Int64s, count: tuple[int, ...], step: tuple[int, ...]
) -> tuple[Int64s, PieceTable]:
    """Cut N boxes of one array at its chunk boundaries.

    Parameters
    ----------
    spec : ArraySpec
    start : int64 array, shape (N, ndim)
    count, step : tuple of int

    Returns
    -------
    chunk_id : int64 array, shape (P,)
    pieces : PieceTable with P rows
        Its ``chunk`` column is zero, ``output`` numbers the N boxes.
    """
    ndim = spec.ndim
    # one contiguous row per axis: all that follows reads rows
    start = np.ascontiguousarray(start.T)
    counts, strides, sizes = _columns(count, step, spec.shape)
    low, high = valid_interval(start, counts, strides, sizes)
    first = _chunk_coords(spec, start + low * strides)
    last = _chunk_coords(spec, start + (high - 1) * strides)
    crossed = np.where(high > low, last - first + 1, 0)
    per_box = np.prod(crossed, axis=0, dtype=np.int64)
    total = int(per_box.sum(dtype=np.float64))
    if total > MAX_PIECES:
        msg = (
            f"{spec.source!r}: the selection crosses {total} chunks of {list(spec.chunk_shape)}, "
            f"at most {MAX_PIECES} are planned at once; read fewer elements at a time"
        )
        raise MemoryBudgetError(msg)
    box, coords = _expand(per_box, crossed, first)
    chunk_id, grid_shape = np.zeros(total, np.int64), spec.grid_shape
    src, dst, extent = (np.empty((ndim, total), np.int64) for _ in range(3))
    for axis in range(ndim):
        coord, s = coords[axis], step[axis]
        origin = start[axis].take(box)
        begin = spec.chunk_start(axis, coord) - origin
        end = spec.chunk_start(axis, coord + 1) - origin
        k0 = np.maximum(low[axis].take(box), -(-begin // s) if s > 1 else begin, out=dst[axis])
        k1 = np.minimum(high[axis].take(box), -(-end // s) if s > 1 else end)
        np.subtract(k0 * s if s > 1 else k0, begin, out=src[axis])
        np.subtract(k1, k0, out=extent[axis])
        chunk_id = chunk_id * grid_shape[axis] + coord
    pieces = PieceTable(np.zeros(total, np.int32), box.astype(np.int32), src, dst, extent)
    if max(step, default=1) > 1:  # a step may jump over a chunk
        kept = np.flatnonzero((extent > 0).all(axis=0))
        return chunk_id[kept], pieces.take(kept)
    return chunk_id, pieces


def _chunk_coords(spec: ArraySpec, index: Int64s) -> Int64s:
    """Chunk coordinates of elements, one row per axis."""
    if spec.chunk_starts is None:
        coords: Int64s = index // _columns(spec.chunk_shape)[0]
        return coords
    rows = [spec.chunk_of(axis, index[axis]) for axis in range(spec.ndim)]
    return np.array(rows, np.int64).reshape(index.shape)


def _columns(*values: tuple[int, ...]) -> list[Int64s]:
    """Values per axis, to broadcast against one row per axis."""
    return [np.array(value, np.int64)[:, None] for value in values]


def _expand(per_box: Int64s, crossed: Int64s, first: Int64s) -> tuple[Int64s, list[Int64s]]:
    """Box number and chunk coordinates of every (box, chunk) pair, last axis fastest."""
    box, local = expand_counts(per_box)
    ndim = len(crossed)
    coords: list[Int64s] = [local] * ndim
    for axis in reversed(range(ndim)):
        coords[axis] = first[axis].take(box)
        if (crossed[axis] <= 1).all():
            continue
        width = crossed[axis].take(box)
        rest = local // width
        coords[axis] += local - rest * width
        local = rest
    return box, coords


def padding(
    spec: ArraySpec, start: Int64s, count: tuple[int, ...], step: tuple[int, ...]
) -> PieceTable:
    """Fill boxes for what N boxes select outside of the array.

    On axis ``a`` the slabs below and above the valid interval are taken with axes before ``a``
    restricted to theirs, so that no element is covered twice.
    """
    counts = np.array(count, np.int64)
    low, high = valid_interval(
        start, counts, np.array(step, np.int64), np.array(spec.shape, np.int64)
    )
    ndim = spec.ndim
    tables: list[PieceTable] = []
    if ((low > 0) | (high < counts)).any():
        for axis in range(ndim):
            for begin, end in (
                (np.zeros_like(low[:, axis]), low[:, axis]),
                (high[:, axis], np.broadcast_to(counts[axis], high[:, axis].shape)),
            ):
                dst = np.concatenate([low[:, :axis], np.zeros_like(low[:, axis:])], axis=1)
                extent = np.concatenate(
                    [(high - low)[:, :axis], np.broadcast_to(counts[axis:], low[:, axis:].shape)],
                    axis=1,
                )
                dst[:, axis], extent[:, axis] = begin, end - begin
                rows = np.flatnonzero((extent > 0).all(axis=1))
                tables.append(_fill_table(rows, dst[rows].T, extent[rows].T))
    return PieceTable.concatenate(tables, ndim)


def _fill_table(output: Int64s, dst: Int64s, extent: Int64s) -> PieceTable:
    return PieceTable(
        np.zeros(len(output), np.int32), output.astype(np.int32), np.zeros_like(dst), dst, extent
    )
