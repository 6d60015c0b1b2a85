"""From a request to a plan, in two steps with the shard indexes between them.

1. `plan_touches`: cut the boxes at chunk boundaries; find the distinct chunks of each array.
2. `build_plan`: with every chunk's place known, drop chunks that are not stored (their pieces
   become fills, or pieces of the array's substitute), order the rest by place, coalesce their
   ranges and mark what can be decoded in place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from zarrgpu.model import ArraySpec, is_native
from zarrgpu.plan.chunk_shapes import split_by_chunk_shape
from zarrgpu.plan.coalesce import coalesce_ranges
from zarrgpu.plan.cuts import Cut
from zarrgpu.plan.locate import ChunkLocations, is_missing
from zarrgpu.plan.placed import placed
from zarrgpu.plan.request import ReadRequest
from zarrgpu.plan.substitutes import substitute_missing
from zarrgpu.plan.tables import (
    ChunkTable,
    Int64s,
    PieceTable,
    ReadPlan,
    ReadTable,
    group_starts,
)
from zarrgpu.plan.touches import ArrayTouches, padding, touch_chunks
from zarrgpu.plan.windows import find_windows, in_windows, narrowed

Columns: TypeAlias = tuple[NDArray[np.int32], Int64s, ChunkLocations]
"""Array, chunk id and place of chunks."""


def plan_touches(request: ReadRequest, cut: Cut | None = None) -> list[ArrayTouches]:
    """Cut all boxes of a request at chunk boundaries.

    With `cut`, the pieces of a request of one array, these are taken instead.
    """
    touched = []
    for index, spec in enumerate(request.arrays):
        boxes = None
        start = request.start
        if len(request.arrays) > 1:
            boxes = np.flatnonzero(request.array_index == index)
            start = start[boxes]
        if not len(start) or 0 in request.count:
            continue
        if cut is not None:
            chunk_id, pieces = cut.chunk_id, cut.pieces
            fills = PieceTable.concatenate([], spec.ndim)
        else:
            chunk_id, pieces = touch_chunks(spec, start, request.count, request.step)
            fills = padding(spec, start, request.count, request.step)
        if spec.placement is not None:
            chunk_id, pieces = placed(spec.placement, chunk_id, pieces)
        fills = replace(fills, chunk=np.full(len(fills), index, np.int32))
        if boxes is not None:
            renumber = boxes.astype(np.int32)
            pieces = replace(pieces, output=renumber[pieces.output])
            fills = replace(fills, output=renumber[fills.output])
        order = np.argsort(chunk_id)
        ascending = chunk_id.take(order)
        first = np.flatnonzero(np.diff(ascending, prepend=-1))
        piece_start = np.append(first, len(order))
        touched.append(
            ArrayTouches(index, ascending.take(first), pieces, order, piece_start, fills)
        )
    return touched


def build_plan(
    request: ReadRequest,
    touched: Sequence[ArrayTouches],
    locations: Sequence[ChunkLocations],
    *,
    max_gap_bytes: int,
    max_coalesced_bytes: int,
    allow_direct: bool,
    narrow: Sequence[bool] = (),
) -> ReadPlan:
    """Join touches and locations into a plan.

    Parameters
    ----------
    request : ReadRequest
    touched : sequence of ArrayTouches
        From `plan_touches`.
    locations : sequence of ChunkLocations
        Of the chunks of each element of `touched`.
    max_gap_bytes, max_coalesced_bytes : int
        See `coalesce.coalesce_ranges`.
    allow_direct : bool
        Whether outputs take decoded bytes as they are (no cast, no other layout).
    narrow : sequence of bool, optional
        Of which of the request's arrays a chunk may be read in part (`windows.find_windows`).
    """
    ndim = len(request.count)
    fills = [touch.fills for touch in touched if len(touch.fills)]
    request, touched, locations, base = split_by_chunk_shape(request, touched, locations)
    request, touched, locations, base = substitute_missing(request, touched, locations, base)
    columns, pieces, missing = _sorted_by_place(touched, locations)
    fills += missing
    joined = PieceTable.concatenate(pieces, ndim)
    array, chunk_id, located = _joined_columns(columns)
    piece_start = group_starts(joined.chunk, len(array))
    windows = None
    if any(narrow):
        windows = find_windows(
            request,
            [narrow[index] for index in base],
            array,
            located.nbytes,
            joined,
            piece_start,
            least_saved_bytes=max_gap_bytes,
        )
    if windows is not None:
        joined, located = in_windows(joined, windows), narrowed(request, array, located, windows)
    chunks = ChunkTable(
        array,
        chunk_id,
        located.object_id,
        located.offset,
        located.nbytes,
        _reads(array, located, max_gap_bytes, max_coalesced_bytes),
        _direct_chunks(request, array, joined, piece_start)
        if allow_direct
        else np.zeros(len(array), np.bool_),
        piece_start,
        windows,
    )
    reads = ReadTable.of_chunks(chunks)
    return ReadPlan(request, reads, chunks, joined, PieceTable.concatenate(fills, ndim), base)


def _sorted_by_place(
    touched: Sequence[ArrayTouches], locations: Sequence[ChunkLocations]
) -> tuple[list[Columns], list[PieceTable], list[PieceTable]]:
    """Stored chunks of each array in the order of the store, their pieces, fills for the others."""
    columns: list[Columns] = []
    pieces: list[PieceTable] = []
    fills: list[PieceTable] = []
    first = 0
    for touch, location in zip(touched, locations, strict=True):
        missing = is_missing(location)
        stored = _place_order(location, np.flatnonzero(~missing))
        columns.append(
            (
                np.full(len(stored), touch.array, np.int32),
                touch.chunk_id.take(stored),
                ChunkLocations(
                    location.object_id.take(stored),
                    location.offset.take(stored),
                    location.nbytes.take(stored),
                ),
            )
        )
        kept = touch.pieces_of(stored)
        pieces.append(replace(kept, chunk=kept.chunk + np.int32(first)) if first else kept)
        first += len(stored)
        if missing.any():
            fills.append(_as_fills(touch.pieces_of(np.flatnonzero(missing)), touch.array))
    return columns, pieces, fills


def _as_fills(pieces: PieceTable, array: int) -> PieceTable:
    """Pieces of chunks that are not stored, as fills of their array."""
    return replace(
        pieces, chunk=np.full(len(pieces), array, np.int32), src=np.zeros_like(pieces.src)
    )


def _place_order(location: ChunkLocations, stored: NDArray[np.intp]) -> NDArray[np.intp]:
    """Sort the rows `stored` by object and offset."""
    object_id, offset = location.object_id.take(stored), location.offset.take(stored)
    step = np.diff(object_id)
    if not ((step < 0) | ((step == 0) & (offset[1:] < offset[:-1]))).any():
        return stored
    span = int(offset.max()) + 1
    if int(object_id.max()) < (1 << 62) // span:  # one key sorts faster than two
        return stored.take(np.argsort(object_id * span + offset))
    return stored.take(np.lexsort((offset, object_id)))


def _joined_columns(columns: list[Columns]) -> Columns:
    """Array, chunk id and place of all chunks of a plan."""
    if len(columns) == 1:
        return columns[0]
    none = np.empty(0, np.int64)
    return (
        np.concatenate([np.empty(0, np.int32), *(c[0] for c in columns)]),
        np.concatenate([none, *(c[1] for c in columns)]),
        ChunkLocations(
            np.concatenate([none, *(c[2].object_id for c in columns)]),
            np.concatenate([none, *(c[2].offset for c in columns)]),
            np.concatenate([none, *(c[2].nbytes for c in columns)]),
        ),
    )


def _reads(
    array: NDArray[np.int32],
    located: ChunkLocations,
    max_gap_bytes: int,
    max_coalesced_bytes: int,
) -> NDArray[np.int32]:
    """Read of each chunk, numbered from 0 over all arrays."""
    read, first_read = np.empty(len(array), np.int32), 0
    for index in np.unique(array):  # few: arrays, not chunks
        rows = slice(*np.searchsorted(array, [index, index + 1]))
        read[rows] = first_read + coalesce_ranges(
            located.object_id[rows],
            located.offset[rows],
            located.nbytes[rows],
            max_gap_bytes=max_gap_bytes,
            max_coalesced_bytes=max_coalesced_bytes,
        )
        first_read = int(read[rows][-1]) + 1
    return read


def _direct_chunks(
    request: ReadRequest, array: NDArray[np.int32], pieces: PieceTable, piece_start: Int64s
) -> NDArray[np.bool_]:
    """Chunks with one piece that is the whole chunk and one contiguous run of the output."""
    direct = np.zeros(len(array), np.bool_)
    if max(request.step, default=1) > 1:
        return direct
    plain = np.array([_stored_like_output(spec) for spec in request.arrays], np.bool_)
    chunk = np.flatnonzero((np.diff(piece_start) == 1) & plain[array])
    row = piece_start[chunk]
    shapes = np.array([spec.chunk_shape for spec in request.arrays], np.int64).reshape(
        len(request.arrays), len(request.count)
    )
    for axis in range(len(request.count)):  # few chunks outlive the first axis
        whole = pieces.extent[axis, row] == shapes[array[chunk], axis]
        chunk, row = chunk[whole], row[whole]
        if not len(chunk):
            return direct
    # contiguous: from the right, full axes; then one partial axis; then only single elements
    partial_seen = np.zeros(len(row), np.bool_)
    contiguous = np.ones(len(row), np.bool_)
    for axis in reversed(range(len(request.count))):
        extent = pieces.extent[axis, row]
        contiguous &= ~partial_seen | (extent == 1)
        partial_seen |= extent != request.count[axis]
    direct[chunk[contiguous]] = True
    return direct


def _stored_like_output(spec: ArraySpec) -> bool:
    """Whether decoded bytes are C-ordered native elements."""
    native = is_native(spec.dtype) and not spec.dtype.hasobject
    return native and spec.axis_order == tuple(range(spec.ndim))
