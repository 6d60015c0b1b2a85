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

MIN_PIECES = 16
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
                    src, target = self._indices(part, elements)
                    out[target] = source if fill else source[src]

    def _indices(
        self, rows: slice, volume: Int64s | None
    ) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """Index some pieces of a chunk, in it and in the output.

        `volume` is None if all are of one element on the scattered axes.
        """
        pieces, depth = self._pieces, self._depth
        output = pieces.output[rows]
        src = [pieces.src[axis][rows] for axis in range(depth)]
        dst = [pieces.dst[axis][rows] for axis in range(depth)]
        if volume is not None:
            piece, local = expand_counts(volume)
            output = output.take(piece)
            for axis in reversed(range(depth)):
                src[axis], dst[axis] = src[axis].take(piece), dst[axis].take(piece)
                extent = pieces.extent[axis][rows]
                if (extent == 1).all():
                    continue
                width = extent.take(piece)
                rest = local // width
                k = local - rest * width
                src[axis] += k * self._step[axis]
                dst[axis] += k
                local = rest
        tail = range(depth, len(pieces.extent))
        return (
            (*src, *(self._src_slice(axis, rows.start) for axis in tail)),
            (output, *dst, *(self._dst_slice(axis, rows.start) for axis in tail)),
        )

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
