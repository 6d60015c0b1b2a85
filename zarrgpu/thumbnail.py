"""Reducing pixels to a thumbnail by area averaging: each result is the mean of what it covers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray


def thumbnail_size(full: tuple[int, int], limit: tuple[int, int]) -> tuple[int, int]:
    """Largest (width, height) within `limit` with the aspect ratio of `full`, never larger than it.

    Of the two whole numbers beside the exact side the one is taken that keeps the ratio better, as
    Pillow's ``Image.thumbnail`` does.

    >>> thumbnail_size((2220, 2967), (1024, 1024))
    (766, 1024)
    """
    width, height = full
    if width <= limit[0] and height <= limit[1]:
        return full
    if limit[0] * height >= limit[1] * width:
        down = int(limit[1] * width / height)
        sides = [(max(w, 1), limit[1]) for w in (down, down + 1)]
    else:
        down = int(limit[0] * height / width)
        sides = [(limit[0], max(h, 1)) for h in (down, down + 1)]
    fitting = [(w, h) for w, h in sides if w <= limit[0] and h <= limit[1]]
    return min(fitting, key=lambda side: abs(width / height - side[0] / side[1]))


def source_rows(first: int, last: int, full: int, reduced: int) -> tuple[int, int]:
    """Rows of the source that rows ``first .. last - 1`` of the reduced image cover."""
    return first * full // reduced, -(-last * full // reduced)


def reduce_rows(
    pixels: NDArray[Any], rows: tuple[int, int], full: tuple[int, int], reduced: tuple[int, int]
) -> NDArray[Any]:
    """Average the source of some rows of a reduced image.

    Parameters
    ----------
    pixels : array, shape (n, W, C)
        The rows `source_rows` of the source.
    rows : (int, int)
        First row of the reduced image, and one past the last.
    full, reduced : (int, int)
        (height, width) of the whole source and of the whole result, which is not larger.

    Returns
    -------
    array, shape (rows[1] - rows[0], reduced width, C), type of `pixels`
    """
    if full == reduced:
        return pixels
    sums = _reduce(pixels, range(rows[0], rows[1] + 1), full[0], reduced[0], axis=0)
    return _means(sums, full, reduced, pixels.dtype)


def reduce_bands(
    bands: Iterable[NDArray[Any]],
    row: int,
    full: tuple[int, int],
    reduced: tuple[int, int],
    dtype: np.dtype[Any],
) -> NDArray[Any]:
    """Average the source of one row of a reduced image, which comes in bands of rows.

    As `reduce_rows`, for a row that covers more than memory should hold.

    Parameters
    ----------
    bands : iterable of arrays, shape (n, W, C)
        Together the rows `source_rows` of the source, in order.
    row : int
        Of the reduced image.
    full, reduced : (int, int)
        As for `reduce_rows`.
    dtype : dtype
        Of the source and the result.
    """
    (first, before), (last, after) = (divmod(r * full[0], reduced[0]) for r in (row, row + 1))
    kind = np.result_type(dtype, np.float64)
    sums: Any = np.zeros((), kind)
    head, tail = sums, sums  # what the edges cut off the first row, and leave of the last
    at = first
    for band in bands:
        sums = sums + np.add.reduce(band[: max(last - at, 0)], axis=0, dtype=kind)
        if before and at == first:
            head = before / reduced[0] * band[0]
        if after and at <= last < at + len(band):
            tail = after / reduced[0] * band[last - at]
        at += len(band)
    return _means(np.asarray(sums + tail - head)[None], full, reduced, dtype)


def _means(
    sums: NDArray[Any], full: tuple[int, int], reduced: tuple[int, int], dtype: np.dtype[Any]
) -> NDArray[Any]:
    """Finish the sums of rows: sum up columns, divide, round."""
    sums = _reduce(sums, range(reduced[1] + 1), full[1], reduced[1], axis=1)
    means = sums * (reduced[0] * reduced[1] / (full[0] * full[1]))
    if dtype.kind in "iub":
        means = np.floor(means + 0.5)
    return np.asarray(means.astype(dtype))


def _reduce(values: NDArray[Any], edges: range, full: int, reduced: int, axis: int) -> NDArray[Any]:
    """Sum between neighbouring edges, which cut elements at fractions: edge k is at k*full/reduced.

    `values` begins with the element that the first edge cuts.
    """
    position = np.array(edges, np.int64) * full
    whole, part = position // reduced, position % reduced / reduced
    whole -= whole[0]
    kind = np.result_type(values.dtype, np.float64)
    stop = [slice(None)] * values.ndim
    stop[axis] = slice(0, int(whole[-1]))
    sums = np.add.reduceat(values[tuple(stop)], whole[:-1], axis=axis, dtype=kind)
    cut = np.take(values, np.minimum(whole, values.shape[axis] - 1), axis=axis)
    share = part.reshape([-1 if k == axis else 1 for k in range(values.ndim)])
    cut = np.where(share > 0, share * cut, 0)  # what an edge does not cut may well be infinite
    count = np.arange(len(whole) - 1)
    return np.asarray(sums + cut.take(count + 1, axis) - cut.take(count, axis))
