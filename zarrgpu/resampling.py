"""Resampling of images to another pixel size: the filter as tables, and its reference in NumPy.

The filter is separable and antialiased: a triangle, as Pillow's ``BILINEAR`` and torch's
``interpolate(mode="bilinear", antialias=True)`` have it. Along an axis, result ``i`` lies at
``c = corner + (i + 0.5) * step`` in source pixels, and source pixel ``j`` at ``j + 0.5`` weighs
``max(0, 1 - |j + 0.5 - c| / max(step, 1))``. So a smaller result averages all that it covers, and
a larger one (``step < 1``) is interpolated linearly. Pixels outside of the image have no weight;
weights are then divided by their sum. A result whose centre lies outside of the image is the fill
value.

Bit for bit: weights are computed in float64 and rounded to float32. Sums run along y first, then
along x; tap by tap from the lowest pixel on, in float32, product and sum rounded separately, taps
of weight 0 left out. Integer results are ``floor(x + 0.5)``. ``kernels/resample.cu`` does the same.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zarrgpu.errors import SelectionError
from zarrgpu.model import native_dtype
from zarrgpu.output import OutputFormat, quiet

RESAMPLED_TYPES = ("u1", "i1", "u2", "i2", "f2", "f4")
"""Element types that float32 holds exactly."""


@dataclass(frozen=True, slots=True, eq=False)
class FilterTable:
    """What K images take from their sources along one axis.

    Attributes
    ----------
    first : int32 (K, n)
        Lowest source pixel of each result, from the source's start.
    weight : float32 (K, n, taps)
        Of the source pixels from `first` on; 0 for those that are not taken.
    inside : int32 (K, 2)
        Results whose centre is in the image: from, to.
    """

    first: NDArray[np.int32]
    weight: NDArray[np.float32]
    inside: NDArray[np.int32]

    def with_reversed(self) -> FilterTable:
        """Make a table of twice as many axes, the second half of results in reversed order."""
        return FilterTable(
            np.concatenate([self.first, self.first[:, ::-1]]),
            np.concatenate([self.weight, self.weight[:, ::-1]]),
            np.concatenate([self.inside, self.first.shape[1] - self.inside[:, ::-1]]),
        )


@dataclass(frozen=True, slots=True, eq=False)
class ResampleBatch:
    """Images of one size to resample to one size.

    Attributes
    ----------
    rows, columns : FilterTable
        Of the y and the x axis.
    row_table, column_table : int array (N,)
        Which tables each image uses.
    fill : float32 (N,)
        Of results outside of each image.
    result : int array (N,)
        Place of each image in the result.
    """

    rows: FilterTable
    columns: FilterTable
    row_table: NDArray[np.int64]
    column_table: NDArray[np.int64]
    fill: NDArray[np.float32]
    result: NDArray[np.int64]


def is_exact(dtype: np.dtype[Any]) -> bool:
    """Whether elements are resampled as they are; others only as float32.

    >>> is_exact(np.dtype(">u2")), is_exact(np.dtype("f8"))
    (True, False)
    """
    return f"{dtype.kind}{dtype.itemsize}" in RESAMPLED_TYPES


def check_resampled(
    dtype: np.dtype[Any], source: str, delivered: np.dtype[Any] | None = None
) -> None:
    """Raise for elements that are not resampled, or not to the type that is to be delivered.

    Real numbers that float32 does not hold are rounded to it first, which is for the caller to ask
    for: by a result of floats of no more than 4 bytes.
    """
    if not is_exact(dtype):
        real = dtype.kind in "biuf" or (dtype.isbuiltin == 2 and np.can_cast(dtype, np.float32))
        asked = delivered is not None and delivered.kind not in "biu" and delivered.itemsize <= 4
        if not (real and asked):
            names = ", ".join(str(np.dtype(name)) for name in RESAMPLED_TYPES)
            hint = ", or have them rounded to float32 with dtype='float32'" if real else ""
            msg = (
                f"{source!r}: pixels of {dtype} are not resampled as they are, only {names}; read "
                f"a level as it is (read_region){hint}"
            )
            raise SelectionError(msg)
    elif delivered is not None and delivered.kind in "iu" and delivered != native_dtype(dtype):
        msg = (
            f"{source!r}: what is resampled is delivered as {native_dtype(dtype)} or as floats, "
            f"not as {delivered}; labels are not interpolated: read a level as it is (read_region)"
        )
        raise SelectionError(msg)


def source_length(n: int, step: float) -> int:
    """Source pixels that `n` results can need.

    >>> source_length(256, 2.0)
    516
    """
    return int((n - 1) * step + 2 * max(step, 1.0)) + 2 if n else 0


def source_start(corner: NDArray[np.float64], step: Any) -> NDArray[np.int64]:
    """First source pixel that results from `corner` on need."""
    lowest = corner + step / 2 - np.maximum(step, 1.0) - 0.5
    return np.asarray(np.ceil(lowest), np.int64)


def filter_table(
    corner: NDArray[np.float64],
    step: NDArray[np.float64],
    low: NDArray[np.int64],
    high: NDArray[np.int64],
    n: int,
    length: int,
) -> FilterTable:
    """Compute the weights of K images along one axis.

    Parameters
    ----------
    corner : float64 (K,)
        Upper or left edge of the result, in source pixels from the source's start.
    step : float64 (K,)
        Source pixels per result pixel.
    low, high : int64 (K,)
        Source pixels that the image has: from, to. They may lie outside of the source.
    n : int
        Results.
    length : int
        Pixels of the source.
    """
    step, support = step[:, None], np.maximum(step, 1.0)[:, None]
    taps = min(int(2 * support.max(initial=1.0)) + 1, max(length, 1))
    centre = corner[:, None] + (np.arange(n) + 0.5) * step
    first = np.clip(np.ceil(centre - support - 0.5), 0, length - taps)
    place = first[..., None] + np.arange(taps)
    weight = np.maximum(0.0, 1.0 - np.abs(place + 0.5 - centre[..., None]) / support[..., None])
    weight[(place < low[:, None, None]) | (place >= high[:, None, None])] = 0
    total = weight.sum(axis=2, keepdims=True)
    weight = np.divide(weight, total, out=weight, where=total > 0)
    ends = [(centre < end[:, None]).sum(axis=1) for end in (low, high)]
    return FilterTable(
        first.astype(np.int32), weight.astype(np.float32), np.stack(ends, 1).astype(np.int32)
    )


def filter_tables(
    corner: NDArray[np.float64],
    step: NDArray[np.float64],
    low: NDArray[np.int64],
    high: NDArray[np.int64],
    n: int,
    length: int,
) -> tuple[FilterTable, NDArray[np.int64]]:
    """Filter tables of patches along an axis, equal ones once, and which each patch uses."""
    # what lies further out than the source does not matter
    keys = np.stack([corner, step, np.maximum(low, 0), np.minimum(high, length)], axis=1)
    whole = (low <= 0) & (high >= length)
    keys[~whole, 2:] = np.stack([low, high], axis=1)[~whole]
    unique, which = np.unique(keys, axis=0, return_inverse=True)
    ends = unique[:, 2:].astype(np.int64)
    made = filter_table(unique[:, 0], unique[:, 1], ends[:, 0], ends[:, 1], n, length)
    return made, which.reshape(-1)


def resample(
    pixels: NDArray[Any],
    rows: FilterTable,
    columns: FilterTable,
    tables: tuple[int, int],
    out: NDArray[Any],
    output: OutputFormat,
    fill: Any,
) -> None:
    """Resample one image on the host.

    Parameters
    ----------
    pixels : array, shape (h, w, C)
        Native byte order, one of `RESAMPLED_TYPES`.
    rows, columns : FilterTable
        Of the y and the x axis.
    tables : (int, int)
        Which rows of the two tables this image uses.
    out : array, shape (H, W, C)
        Of the output's type; any strides.
    output : OutputFormat
    fill : scalar
        For results outside of the image; converted as pixels are.
    """
    y, x = tables
    height, width, channels = pixels.shape
    flat = np.ascontiguousarray(pixels).reshape(height, width * channels)
    with quiet():
        tall = _weighted(flat, rows.first[y], rows.weight[y])
        wide = tall.reshape(-1, width, channels).swapaxes(0, 1)
        made = _weighted(wide, columns.first[x], columns.weight[x]).swapaxes(0, 1)
    (top, bottom), (left, right) = rows.inside[y], columns.inside[x]
    for outside in (np.s_[:top], np.s_[bottom:], np.s_[:, :left], np.s_[:, right:]):
        made[outside] = fill
    convert(made, out, output)


def convert(values: NDArray[np.float32], out: NDArray[Any], output: OutputFormat) -> None:
    """Deliver float32 values of shape (..., C) as the output format has it."""
    if out.dtype.kind in "iu":
        info = np.iinfo(out.dtype)
        out[...] = np.clip(np.floor(values + np.float32(0.5)), info.min, info.max)
        return
    output = replace(output, channel_axis=None if output.channel_axis is None else values.ndim - 1)
    output.write(values, out, 0)


def _weighted(
    source: NDArray[Any], first: NDArray[np.int32], weight: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Sum up weighted slices of the first axis: ``(n, ...)`` to ``(len(first), ...)``."""
    inner = source.shape[1:]
    total = np.zeros((len(first), *inner), np.float32)
    product = np.empty_like(total)
    column = (-1,) + (1,) * len(inner)
    for tap in range(weight.shape[1]):
        used = weight[:, tap] != 0
        if used.all():
            np.multiply(source[first + tap], weight[:, tap].reshape(column), out=product)
            total += product
        elif used.any():
            part = source[first[used] + tap] * weight[used, tap].reshape(column)
            total[used] += part
    return total
