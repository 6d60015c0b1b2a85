"""Coarser levels: each element is the mean of the two along each halved axis that it covers.

Labels have no mean: of them every second is taken.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def halved_shape(shape: tuple[int, ...], axes: str, halved: str) -> tuple[int, ...]:
    """Shape of the next level; an odd end is an element of its own.

    >>> halved_shape((3, 101, 100), "cyx", "yx")
    (3, 51, 50)
    """
    return tuple(-(-n // 2) if axis in halved else n for n, axis in zip(shape, axes, strict=True))


def halve(pixels: NDArray[Any], axes: str, halved: str, *, labels: bool = False) -> NDArray[Any]:
    """Average pairs along some axes; the last of an odd number stands for itself.

    Integers are averaged exactly and rounded half up, whatever their size. A bool is true where at
    least half of what it covers is.

    Parameters
    ----------
    pixels : array
    axes, halved : str
        Names of the axes, and of those that are halved.
    labels : bool
        Take the first of each pair instead.

    Returns
    -------
    array, type of `pixels`
    """
    if labels:
        return pixels[tuple(slice(None, None, 2 if axis in halved else 1) for axis in axes)]
    dtype = pixels.dtype
    parts = [pixels]
    for axis, name in enumerate(axes):
        if name in halved:
            parts = [half for part in parts for half in _pairs(part, axis)]
    n = len(parts)
    if dtype.kind in "iub":
        return _integer_mean(parts, dtype)
    wider = np.result_type(dtype, np.float64)
    return np.asarray(sum(part.astype(wider) for part in parts) / n).astype(dtype)


def _integer_mean(parts: list[NDArray[Any]], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Mean of 2, 4 or 8 arrays of integers, rounded half up; shifts round down, negatives too."""
    n, bits = len(parts), len(parts).bit_length() - 1
    if dtype.itemsize < 8:
        wide = np.int32 if dtype.itemsize < 4 else np.int64
        total: Any = parts[0].astype(wide)
        total += wide(n // 2)
        for part in parts[1:]:
            total += part
        total >>= bits
        return np.asarray(total, dtype)
    # sums of quotients and of remainders: a plain sum might not fit
    whole: Any = parts[0] >> bits
    rest: Any = parts[0] & dtype.type(n - 1)
    for part in parts[1:]:
        whole += part >> bits
        rest += part & dtype.type(n - 1)
    return np.asarray(whole + ((rest + dtype.type(n // 2)) >> bits), dtype)


def _pairs(pixels: NDArray[Any], axis: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Elements with even, and with odd, numbers along an axis, as many of both."""
    every: list[Any] = [slice(None)] * pixels.ndim
    every[axis] = slice(0, None, 2)
    even = pixels[tuple(every)]
    every[axis] = slice(1, None, 2)
    odd = pixels[tuple(every)]
    if odd.shape[axis] < even.shape[axis]:
        every[axis] = slice(-1, None)
        odd = np.concatenate([odd, even[tuple(every)]], axis=axis)
    return even, odd
