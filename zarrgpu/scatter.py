"""Placing many small pieces of a chunk at once, where one by one each costs more than its copy.

Points and index lists give pieces of a few elements, thousands to a chunk. Their element numbers
are expanded into index arrays, and one indexed assignment of NumPy places them. Trailing axes on
which all pieces of a chunk are alike stay slices.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from zarrgpu.indexing import expand_counts
from zarrgpu.output import quiet
from zarrgpu.plan.tables import Int64s, PieceTable

MIN_PIECES = 32
"""Pieces of a chunk, on average, from which indexed assignment pays."""

MAX_ELEMENTS = 16
"""Elements of a piece on its scattered axes, on average, up to which it pays."""

_LARGE_PIECE = 1024
_BLOCK_PIECES = 1 << 13


class Scatter:
    """Pieces to be placed by indexed assignment.

    Parameters
    ----------
    pieces : PieceTable
        Sorted by chunk.
    step : tuple of int
        Of the request.
    depth : int
        Leading axes on which the pieces of a chunk differ.
    """

    def __init__(self, pieces: PieceTable, step: tuple[int, ...], depth: int) -> None:
        self._pieces = pieces
        self._step = step
        self._depth = depth
        self._volume = np.prod(pieces.extent[:depth], axis=0, dtype=np.int64)
        self._single = bool((self._volume == 1).all())

    @classmethod
    def where_it_pays(cls, pieces: PieceTable, step: tuple[int, ...]) -> Scatter | None:
        """Look at all pieces once; None where they are few to a chunk, or large."""
        if len(pieces) < MIN_PIECES:
            return None
        same_chunk = pieces.chunk[1:] == pieces.chunk[:-1]
        n_chunks = len(pieces) - int(same_chunk.sum())
        if len(pieces) < MIN_PIECES * n_chunks:
            return None
        depth = _scattered_axes(pieces, same_chunk)
        volume = np.prod(pieces.extent[:depth], axis=0, dtype=np.float64)
        if volume.mean() > MAX_ELEMENTS:
            return None
        return cls(pieces, step, depth)

    def place(self, source: NDArray[Any], rows: range, out: NDArray[Any], *, fill: bool) -> None:
        """Write pieces `rows`, all of one chunk.

        Parameters
        ----------
        source : array
            Decoded chunk, or with `fill` the fill value, of no axes.
        rows : range
        out : array, shape (N, *count), array axes
        """
        with quiet():
            for first in range(rows.start, rows.stop, _BLOCK_PIECES):
                block = slice(first, min(first + _BLOCK_PIECES, rows.stop))
                volume = self._volume[block]
                if self._single:
                    parts = [(block, None)]
                elif (volume <= _LARGE_PIECE).all():
                    parts = [(block, volume)]
                else:  # their index arrays would be large too
                    parts = [
                        (slice(row, row + 1), self._volume[row : row + 1])
                        for row in range(block.start, block.stop)
                    ]
                for part, elements in parts:
                    self._place(source, part, elements, out, fill=fill)

    def _place(
        self,
        source: NDArray[Any],
        rows: slice,
        volume: Int64s | None,
        out: NDArray[Any],
        *,
        fill: bool,
    ) -> None:
        """Write some pieces of a chunk.

        `volume` is None if all are of one element on the scattered axes.
        """
        piece, inner = self._expand(rows, volume)
        target = _flat(out) if self._depth == len(self._pieces.extent) else None
        if target is not None and fill:
            flat, strides = target
            flat[self._flat_target(rows, strides, piece, inner)] = source
        elif target is not None and (chunk := _flat(source)) is not None:
            (flat, strides), (elements, steps) = target, chunk
            found = self._flat_source(rows, steps, piece, inner)
            flat[self._flat_target(rows, strides, piece, inner)] = elements.take(found)
        else:
            where = self._target(rows, piece, inner)
            out[where] = source if fill else source[self._source(rows, piece, inner)]

    def _expand(
        self, rows: slice, volume: Int64s | None
    ) -> tuple[NDArray[np.intp] | None, list[tuple[int, Int64s]]]:
        """Number the elements of pieces: the piece of each, and its place in it on some axes.

        On the axes that are not named it is 0, for all.
        """
        if volume is None:
            return None, []
        extents = self._pieces.extent[: self._depth, rows]
        axes = [axis for axis in range(self._depth) if (extents[axis] != 1).any()]
        if not axes:
            return None, []
        piece, local = expand_counts(volume)
        inner = []
        for axis in reversed(axes[1:]):
            width = extents[axis].take(piece)
            rest = local // width
            inner.append((axis, local - rest * width))
            local = rest
        inner.append((axes[0], local))  # the slowest is what is left
        return piece, inner

    def _flat_source(
        self, rows: slice, strides: list[int], piece: Any, inner: list[tuple[int, Int64s]]
    ) -> Int64s:
        place = _dot(self._pieces.src[:, rows], strides)
        place = place if piece is None else place.take(piece)
        for axis, k in inner:
            place += k * (strides[axis] * self._step[axis])
        return place

    def _flat_target(
        self, rows: slice, strides: list[int], piece: Any, inner: list[tuple[int, Int64s]]
    ) -> Int64s:
        place = _dot(self._pieces.dst[:, rows], strides[1:])
        place += self._pieces.output[rows] * np.int64(strides[0])
        place = place if piece is None else place.take(piece)
        for axis, k in inner:
            place += k * strides[1 + axis]
        return place

    def _source(self, rows: slice, piece: Any, inner: list[tuple[int, Int64s]]) -> tuple[Any, ...]:
        src = [self._pieces.src[axis, rows] for axis in range(self._depth)]
        src = src if piece is None else [column.take(piece) for column in src]
        for axis, k in inner:
            src[axis] += k * self._step[axis]
        tail = range(self._depth, len(self._pieces.extent))
        return (*src, *(self._src_slice(axis, rows.start) for axis in tail))

    def _target(self, rows: slice, piece: Any, inner: list[tuple[int, Int64s]]) -> tuple[Any, ...]:
        output = self._pieces.output[rows]
        dst = [self._pieces.dst[axis, rows] for axis in range(self._depth)]
        if piece is not None:
            output, dst = output.take(piece), [column.take(piece) for column in dst]
        for axis, k in inner:
            dst[axis] += k
        tail = range(self._depth, len(self._pieces.extent))
        return (output, *dst, *(self._dst_slice(axis, rows.start) for axis in tail))

    def _dst_slice(self, axis: int, row: int) -> slice:
        start = int(self._pieces.dst[axis, row])
        return slice(start, start + int(self._pieces.extent[axis, row]))

    def _src_slice(self, axis: int, row: int) -> slice:
        start, step = int(self._pieces.src[axis, row]), self._step[axis]
        return slice(start, start + (int(self._pieces.extent[axis, row]) - 1) * step + 1, step)


def _scattered_axes(pieces: PieceTable, same_chunk: NDArray[np.bool_]) -> int:
    """Leading axes up to the last on which pieces of one chunk differ."""
    for axis in reversed(range(len(pieces.extent))):
        for table in (pieces.src, pieces.dst, pieces.extent):
            if (same_chunk & (table[axis, 1:] != table[axis, :-1])).any():
                return axis + 1
    return 0


def _flat(array: NDArray[Any]) -> tuple[NDArray[Any], list[int]] | None:
    """One axis over the memory of an array, and strides in elements; None if there are gaps."""
    if not array.dtype.itemsize:
        return None
    order = np.argsort([-stride for stride in array.strides], kind="stable")
    run = array.transpose(order)
    if not run.flags.c_contiguous:
        return None
    return run.reshape(-1), [stride // array.dtype.itemsize for stride in array.strides]


def _dot(table: Int64s, strides: list[int]) -> Int64s:
    place = np.zeros(table.shape[1], np.int64)
    for row, stride in zip(table, strides, strict=True):
        place += row * stride
    return place
