"""Casts between numbers with a stated rounding, exact for all of NumPy's integers and floats.

Spec: zarr-extensions ``cast_value``; IEEE 754 rounding directions. A value is rounded as if the
target's exponent had no bound; what then lies beyond the target's range is reported, not cast.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Rounding: TypeAlias = Literal[
    "nearest-even", "towards-zero", "towards-positive", "towards-negative", "nearest-away"
]
Bools: TypeAlias = NDArray[np.bool_]

_PRECISION = {2: 11, 4: 24, 8: 53}
"""Significant bits of a float by its size."""


def round_to_integers(values: NDArray[np.float64], rounding: Rounding) -> NDArray[np.float64]:
    """Round to integers that are still floats; NaN and infinities stay."""
    if rounding == "nearest-even":
        return np.rint(values)
    if rounding == "towards-positive":
        return np.ceil(values)
    if rounding == "towards-negative":
        return np.floor(values)
    cut = np.trunc(values)
    if rounding == "nearest-away":
        cut += np.copysign(np.abs(values - cut) >= 0.5, values)
    return cut


def integers_to_floats(
    values: NDArray[Any], dtype: np.dtype[Any], rounding: Rounding
) -> NDArray[Any]:
    """Round integers of any type to floats; infinite where they are beyond the range."""
    negative = values < 0
    magnitude = values.astype(np.uint64)
    magnitude = np.where(negative, np.uint64(0) - magnitude, magnitude)
    length = np.frexp(magnitude.astype(np.float64))[1].astype(np.int64)
    # a magnitude that rounds up to a power of two seems a bit longer than it is
    too_long = (length > 0) & ((magnitude >> (np.maximum(length, 1) - 1).astype(np.uint64)) == 0)
    cut = np.maximum(length - too_long - _PRECISION[dtype.itemsize], 0)
    shift = cut.astype(np.uint64)
    kept = magnitude >> shift
    rest = magnitude - (kept << shift)
    kept += _rounds_up(kept, rest, np.uint64(1) << shift, negative, rounding)
    rounded = np.ldexp(kept.astype(np.float64), cut)
    result: NDArray[Any] = np.where(negative, -rounded, rounded).astype(dtype)
    return result


def _rounds_up(
    kept: NDArray[np.uint64],
    rest: NDArray[np.uint64],
    unit: NDArray[np.uint64],
    negative: Bools,
    rounding: Rounding,
) -> Bools:
    """Whether a magnitude of `kept` units and a `rest` grows to the next unit."""
    if rounding == "towards-zero":
        return np.zeros(kept.shape, bool)
    if rounding == "towards-positive":
        return (rest > 0) & ~negative
    if rounding == "towards-negative":
        return (rest > 0) & negative
    half = unit >> np.uint64(1)
    tie_up = kept % 2 == 1 if rounding == "nearest-even" else np.ones(kept.shape, bool)
    result: Bools = (rest > half) | ((rest == half) & (rest > 0) & tie_up)
    return result


def floats_to_floats(
    values: NDArray[np.float64], dtype: np.dtype[Any], rounding: Rounding
) -> NDArray[Any]:
    """Round float64 to another float; infinite where the rounded value is beyond the range."""
    nearest = values.astype(dtype)
    if rounding == "nearest-even" or dtype.itemsize == 8:
        return nearest
    wide = nearest.astype(np.float64)
    below, above, negative = wide < values, wide > values, values < 0
    up = np.nextafter(nearest, dtype.type(np.inf))
    down = np.nextafter(nearest, dtype.type(-np.inf))
    if rounding == "towards-positive":
        above = np.zeros_like(above)
    elif rounding == "towards-negative":
        below = np.zeros_like(below)
    elif rounding == "towards-zero":
        below, above = below & negative, above & ~negative
    else:  # only ties differ from nearest-even
        limit = 2.0 ** np.finfo(dtype).maxexp  # what follows the largest value
        below &= ~negative & (values - wide == _finite(up, limit) - values)
        above &= negative & (wide - values == values - _finite(down, limit))
    rounded = np.where(below, up, np.where(above, down, nearest))
    beyond = np.abs(values) >= 2.0 ** np.finfo(dtype).maxexp
    result: NDArray[Any] = np.where(beyond, np.copysign(dtype.type(np.inf), values), rounded)
    return result.astype(dtype, copy=False)


def _finite(values: NDArray[Any], limit: float) -> NDArray[np.float64]:
    """As float64, and infinities as `limit`."""
    wide = values.astype(np.float64)
    return np.where(np.isinf(wide), np.copysign(limit, wide), wide)
