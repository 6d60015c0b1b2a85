"""Pieces of selections that are not equal boxes: index lists per axis, and single points.

What each axis of an orthogonal selection selects is made into *runs*: consecutive elements within
one chunk. Their product is the pieces. A point is a piece of one element. Both come as one `Cut`
after the other where they are too many for one plan, cut between chunks, so that each chunk is
still decoded once.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from zarrgpu.model import ArraySpec
from zarrgpu.plan.tables import Int64s, PieceTable

CUT_PIECES = 1 << 19
"""Pieces of a cut; a plan takes a few hundred bytes for each while it is made."""


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """Pieces of one array, ready for `planner.plan_touches`.

    Attributes
    ----------
    chunk_id : int64 array, shape (P,)
    pieces : PieceTable with P rows
        Its ``chunk`` column is zero.
    """

    chunk_id: Int64s
    pieces: PieceTable


@dataclass(frozen=True, slots=True, eq=False)
class AxisRuns:
    """What is selected along one axis, as runs within chunks, chunk after chunk (R rows).

    Attributes
    ----------
    coord : int64 (R,)
        Coordinate of the chunk.
    src : int64 (R,)
        First element within the chunk.
    dst : int64 (R,)
        First element within the result.
    extent : int64 (R,)
        Elements, the axis's step apart in the chunk.
    """

    coord: Int64s
    src: Int64s
    dst: Int64s
    extent: Int64s

    def __len__(self) -> int:
        return len(self.coord)

    def __getitem__(self, rows: slice) -> AxisRuns:
        return AxisRuns(self.coord[rows], self.src[rows], self.dst[rows], self.extent[rows])


def count_crossed(spec: ArraySpec, axis: int, start: int, count: int, step: int) -> int:
    """Chunks of an axis from the first to the last element of a regular selection."""
    if not count:
        return 0
    last = spec.chunk_of(axis, start + (count - 1) * step)
    return int(last) - int(spec.chunk_of(axis, start)) + 1


def listed_runs(spec: ArraySpec, axis: int, index: Int64s) -> AxisRuns:
    """Runs of a list of elements in any order, which may repeat."""
    coord = spec.chunk_of(axis, index)
    begins = np.ones(len(index), np.bool_)
    begins[1:] = (np.diff(index) != 1) | (np.diff(coord) != 0)
    dst = np.flatnonzero(begins)
    extent = np.diff(dst, append=len(index))
    order = np.argsort(coord.take(dst), kind="stable")
    dst = dst.take(order)
    coord = coord.take(dst)
    return AxisRuns(coord, index.take(dst) - spec.chunk_start(axis, coord), dst, extent.take(order))


def regular_runs(
    spec: ArraySpec, axis: int, start: int, count: int, step: int, chunks: range
) -> AxisRuns:
    """Runs of ``start + k * step`` for ``k < count`` in a range of the chunks that they cross."""
    first = int(spec.chunk_of(axis, start))
    coord = np.arange(first + chunks.start, first + chunks.stop)
    begin = spec.chunk_start(axis, coord) - start
    end = spec.chunk_start(axis, coord + 1) - start
    k0 = np.maximum(-(-begin // step), 0)
    k1 = np.minimum(-(-end // step), count)
    kept = np.flatnonzero(k1 > k0)  # a step may jump over a chunk
    k0 = k0.take(kept)
    return AxisRuns(coord.take(kept), k0 * step - begin.take(kept), k0, k1.take(kept) - k0)


@dataclass(frozen=True, slots=True, eq=False)
class _Axis:
    """One axis of an orthogonal selection: a list, or a regular one whose runs are made late."""

    spec: ArraySpec
    axis: int
    listed: AxisRuns | None
    regular: tuple[int, int, int]
    num_runs: int

    def runs(self, rows: range) -> AxisRuns:
        if self.listed is not None:
            return self.listed[rows.start : rows.stop]
        return regular_runs(self.spec, self.axis, *self.regular, rows)

    def ranges(self, block: int) -> list[range]:
        """Cut the runs into ranges of at most `block`, between chunks where there is one."""
        cuts = [0]
        while cuts[-1] < self.num_runs:
            end = cuts[-1] + block
            if self.listed is not None and end < self.num_runs:
                coord = self.listed.coord
                here = int(np.searchsorted(coord, coord[end]))
                end = here if here > cuts[-1] else end
            cuts.append(min(end, self.num_runs))
        return [range(a, b) for a, b in itertools.pairwise(cuts)]


def _make_axis(
    spec: ArraySpec, axis: int, index: Int64s | None, start: int, count: int, step: int
) -> _Axis:
    crossed = count_crossed(spec, axis, start, count, step)
    if index is None and count < crossed:  # most chunks are jumped over
        index = start + step * np.arange(count, dtype=np.int64)
    listed = None if index is None else listed_runs(spec, axis, index)
    num_runs = crossed if listed is None else len(listed)
    return _Axis(spec, axis, listed, (start, count, step), num_runs)


def orthogonal_cuts(
    spec: ArraySpec,
    start: Sequence[int],
    count: Sequence[int],
    step: Sequence[int],
    indices: Sequence[Int64s | None],
    *,
    max_pieces: int = CUT_PIECES,
) -> Iterator[Cut]:
    """Pieces of the product of what each axis selects; at least one cut.

    Parameters
    ----------
    spec : ArraySpec
    start, count, step : sequence of int
        Of the axes that are regular; `count` of all. All elements lie inside of the array.
    indices : sequence of int64 arrays or None
        Elements of the others.
    max_pieces : int
        Most pieces of one cut.
    """
    if 0 in count:
        yield Cut(np.empty(0, np.int64), PieceTable.concatenate([], spec.ndim))
        return
    axes = [
        _make_axis(spec, axis, *rest)
        for axis, rest in enumerate(zip(indices, start, count, step, strict=True))
    ]
    block = [axis.num_runs for axis in axes]
    while math.prod(block) > max_pieces:  # about as long on every axis, to cut few chunks in two
        longest = max(range(len(block)), key=lambda a: block[a])
        block[longest] = -(-block[longest] // 2)
    ranges = [axis.ranges(n) for axis, n in zip(axes, block, strict=True)]
    for part in itertools.product(*ranges):
        yield _product(spec, [axis.runs(rows) for axis, rows in zip(axes, part, strict=True)])


def _product(spec: ArraySpec, runs: Sequence[AxisRuns]) -> Cut:
    grid = tuple(len(axis) for axis in runs)
    total = math.prod(grid)
    src, dst, extent = (np.empty((spec.ndim, total), np.int64) for _ in range(3))
    chunk_id = np.zeros(grid, np.int64)
    for a, (axis, chunks) in enumerate(zip(runs, spec.grid_shape, strict=True)):
        along = tuple(-1 if b == a else 1 for b in range(spec.ndim))
        for table, column in ((src, axis.src), (dst, axis.dst), (extent, axis.extent)):
            table[a].reshape(grid)[...] = column.reshape(along)
        chunk_id *= chunks
        chunk_id += axis.coord.reshape(along)
    none = np.zeros(total, np.int32)
    return Cut(chunk_id.reshape(-1), PieceTable(none, none, src, dst, extent))


def point_cuts(spec: ArraySpec, index: Int64s, *, max_pieces: int = CUT_PIECES) -> Iterator[Cut]:
    """Pieces of single elements, each an output box of its own; at least one cut.

    Parameters
    ----------
    spec : ArraySpec
    index : int64 array, shape (ndim, N)
        Inside of the array.
    max_pieces : int
        Most pieces of one cut.
    """
    total = index.shape[1]
    chunk_id, src = np.zeros(total, np.int64), np.empty_like(index)
    for axis, chunks in enumerate(spec.grid_shape):
        coord = spec.chunk_of(axis, index[axis])
        np.subtract(index[axis], spec.chunk_start(axis, coord), out=src[axis])
        chunk_id = chunk_id * chunks + coord
    output = np.arange(total, dtype=np.int32)
    if total <= max_pieces:
        yield _points(chunk_id, src, output)
        return
    order = np.argsort(chunk_id, kind="stable")
    ascending = chunk_id.take(order)
    first = 0
    while first < total:
        last = min(first + max_pieces, total)
        if last < total:  # not within a chunk, unless it alone has too many
            here = int(np.searchsorted(ascending, ascending[last]))
            last = here if here > first else last
        rows = order[first:last]
        yield _points(ascending[first:last], src[:, rows], output[rows])
        first = last


def _points(
    chunk_id: Int64s, src: Int64s, output: np.ndarray[tuple[int], np.dtype[np.int32]]
) -> Cut:
    pieces = PieceTable(
        np.zeros(len(output), np.int32), output, src, np.zeros_like(src), np.ones_like(src)
    )
    return Cut(chunk_id, pieces)
