"""`Mask`: how much of a box a mask covers, and random points of it, from one summed-area table.

A mask may be of any resolution. Its pixels are squares with sharp edges: a box that cuts one
covers a part of it. Boxes are in units of mask pixels here; what a mask lies on is not known.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from zarrgpu.errors import SelectionError

Float64s = NDArray[np.float64]
Int64s = NDArray[np.int64]


class Mask:
    """A 2-D mask. Pickles as the mask alone; the table is made again.

    Parameters
    ----------
    pixels : array, shape (H, W)
        What is true belongs to the mask; at least one pixel must.
    """

    def __init__(self, pixels: Any) -> None:
        try:
            self.pixels = np.asarray(pixels).astype(np.bool_)
        except (TypeError, ValueError) as error:
            raise SelectionError(f"a mask must be a two-dimensional array: {error}") from error
        if self.pixels.ndim != 2:
            msg = f"a mask must be two-dimensional (y, x), got shape {self.pixels.shape}"
            raise SelectionError(msg)
        height, width = self.pixels.shape
        # a row and a column more than there are pixels on either side, so that k + 1 always exists
        small = self.pixels.size < 1 << 31
        self._table = np.zeros((height + 2, width + 2), np.int32 if small else np.int64)
        body = self._table[1:-1, 1:-1]
        np.cumsum(self.pixels, axis=0, dtype=body.dtype, out=body)
        np.cumsum(body, axis=1, out=body)
        self._table[-1] = self._table[-2]
        self._table[:, -1] = self._table[:, -2]
        if not self.count:
            msg = f"the mask of {width} x {height} px is empty: there is nothing to sample"
            raise SelectionError(msg)

    def __reduce__(self) -> tuple[Any, ...]:
        return Mask, (self.pixels,)

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width)."""
        height, width = self.pixels.shape
        return height, width

    @property
    def count(self) -> int:
        """Pixels in the mask."""
        return int(self._table[-1, -1])

    @property
    def mean(self) -> float:
        """Share of the pixels that is in the mask."""
        return self.count / self.pixels.size

    def covered(self, low: Float64s, high: Float64s) -> Float64s:
        """Area of the mask inside of boxes, in mask pixels.

        Differences of the table are taken as integers, before anything is multiplied: what is left
        out of a large mask does not blur what is inside of a small box.

        Parameters
        ----------
        low, high : float arrays, shape (N, 2)
            Corners (x, y); what lies outside of the mask counts as not covered.

        Returns
        -------
        float64 array, shape (N,)
        """
        x = _intervals(low[:, 0], high[:, 0], self.shape[1])
        y = _intervals(low[:, 1], high[:, 1], self.shape[0])
        total = np.zeros(len(low))
        for top, bottom, tall in y:
            for left, right, wide in x:
                total += tall * wide * self._count(left, top, right, bottom)
        return total

    def random_points(self, uniform: Float64s) -> Float64s:
        """Points (x, y) that are uniform over the mask.

        Parameters
        ----------
        uniform : float array, shape (N, 3)
            In [0, 1): which pixel of the mask, and where in it.
        """
        nth = np.minimum((uniform[:, 0] * self.count).astype(np.int64), self.count - 1)
        row = np.searchsorted(self._table[1:-1, -1], nth, side="right")
        nth -= self._table[row, -1]
        # the column at which the count of the row passes nth: bisection of all points at once
        low, high = np.zeros_like(row), np.full_like(row, self.shape[1] - 1)
        while (low < high).any():
            middle = (low + high) // 2
            passed = self._table[row + 1, middle + 1] - self._table[row, middle + 1] > nth
            low, high = np.where(passed, low, middle + 1), np.where(passed, middle, high)
        return np.stack([low, row], axis=1) + uniform[:, 1:]

    def _count(self, left: Int64s, top: Int64s, right: Int64s, bottom: Int64s) -> Int64s:
        """Mask pixels of whole-pixel boxes."""
        table = self._table
        return np.asarray(
            table[bottom, right] - table[top, right] - table[bottom, left] + table[top, left],
            np.int64,
        )


def _intervals(
    low: Float64s, high: Float64s, length: int
) -> list[tuple[Int64s, Int64s, Float64s | float]]:
    """Three whole-pixel intervals, with weights, that together are ``low .. high``.

    All pixels from that of `low` to before that of `high`, plus the part of the latter, minus the
    part of the former that lies before `low`.
    """
    low, high = np.clip(low, 0, length), np.clip(high, 0, length)
    first, last = low.astype(np.int64), high.astype(np.int64)
    return [(first, last, 1.0), (last, last + 1, high - last), (first, first + 1, first - low)]
