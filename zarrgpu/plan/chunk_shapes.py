"""Arrays whose chunks differ in shape, as several arrays of one chunk shape each.

All that comes after planning decodes and places chunks of one known size per array. So a plan lists
a rectilinear array once more for each chunk shape that the request meets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from zarrgpu.errors import MemoryBudgetError
from zarrgpu.model import ArraySpec
from zarrgpu.plan.locate import ChunkLocations
from zarrgpu.plan.request import ReadRequest
from zarrgpu.plan.tables import Int64s
from zarrgpu.plan.touches import ArrayTouches

MAX_CHUNK_SHAPES = 1 << 14
"""Of one plan: each is an object, where chunks are rows."""


def split_by_chunk_shape(
    request: ReadRequest, touched: Sequence[ArrayTouches], locations: Sequence[ChunkLocations]
) -> tuple[ReadRequest, list[ArrayTouches], list[ChunkLocations], tuple[int, ...]]:
    """Give the chunks of each shape of a rectilinear array an array of their own.

    Returns
    -------
    request : ReadRequest
        With the added arrays behind those that were asked for.
    touched, locations
        Of one chunk shape each.
    base : tuple of int
        Which of the arrays that were asked for each array is.
    """
    arrays, base = list(request.arrays), list(range(len(request.arrays)))
    if not any(map(_has_many_shapes, arrays)):
        return request, list(touched), list(locations), tuple(base)
    split: list[tuple[ArrayTouches, ChunkLocations]] = []
    for touch, location in zip(touched, locations, strict=True):
        spec = request.arrays[touch.array]
        if not _has_many_shapes(spec) or not len(touch.chunk_id):
            split.append((touch, location))
            continue
        shapes, number = np.unique(chunk_shapes(spec, touch.chunk_id), axis=1, return_inverse=True)
        if shapes.shape[1] + len(arrays) > MAX_CHUNK_SHAPES:
            msg = (
                f"{spec.source!r}: the selection meets chunks of {shapes.shape[1]} shapes, at most "
                f"{MAX_CHUNK_SHAPES} are planned at once; read fewer elements at a time"
            )
            raise MemoryBudgetError(msg)
        order = np.argsort(number.reshape(-1), kind="stable")
        ends = np.cumsum(np.bincount(number.reshape(-1)))
        for shape, rows in zip(shapes.T.tolist(), np.split(order, ends[:-1]), strict=True):
            split.append((part_of(touch, rows, len(arrays)), rows_of(location, rows)))
            arrays.append(replace(spec, chunk_shape=tuple(shape)))
            base.append(touch.array)
    split.sort(key=lambda pair: pair[0].array)  # tables are sorted by array
    request = replace(request, arrays=tuple(arrays))
    return request, [pair[0] for pair in split], [pair[1] for pair in split], tuple(base)


def _has_many_shapes(spec: ArraySpec) -> bool:
    """Whether chunks differ in shape; those of cells that a placement cuts do not."""
    return spec.chunk_starts is not None and spec.placement is None


def chunk_shapes(spec: ArraySpec, chunk_id: Int64s) -> Int64s:
    """Shapes of chunks, one row per axis."""
    coords = np.unravel_index(chunk_id, spec.grid_shape)
    rows = [
        spec.chunk_start(axis, coord + 1) - spec.chunk_start(axis, coord)
        for axis, coord in enumerate(coords)
    ]
    return np.array(rows, np.int64)


def inside_nbytes(spec: ArraySpec, chunk_id: Int64s) -> Int64s:
    """Bytes of chunks that lie inside the array, decoded; of a grid that no placement cuts."""
    sizes = np.full(len(chunk_id), spec.dtype.itemsize, np.int64)
    for axis, coord in enumerate(np.unravel_index(chunk_id, spec.grid_shape)):
        end = np.minimum(spec.chunk_start(axis, coord + 1), spec.shape[axis])
        sizes *= end - spec.chunk_start(axis, coord)
    return sizes


def part_of(touch: ArrayTouches, chunks: NDArray[np.intp], array: int) -> ArrayTouches:
    """Some chunks of what a request touches, as those of another array."""
    rows, number = touch.rows_of(chunks)
    start = np.append(0, np.cumsum(np.bincount(number, minlength=len(chunks))))
    return replace(
        touch,
        array=array,
        chunk_id=touch.chunk_id.take(chunks),
        piece_order=rows,
        piece_start=start,
    )


def rows_of(location: ChunkLocations, rows: NDArray[np.intp]) -> ChunkLocations:
    """Locations of some chunks."""
    return ChunkLocations(
        location.object_id.take(rows), location.offset.take(rows), location.nbytes.take(rows)
    )
