"""Find where on a thumbnail the specimen is, and how much of it is there.

Bright field (RGB on white glass): Otsu's threshold on saturation, because glass is colourless
whatever its brightness. Everything else (one channel or many, any dtype, bright on dark): Otsu's
threshold on the brightest channel after each was stretched to its own range. Pure NumPy, on a
thumbnail of a million pixels or so.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Map: TypeAlias = NDArray[np.float32]
Mask: TypeAlias = NDArray[np.bool_]

BLACK_LEVEL = 24
"""Bright-field pixels darker than this are scanner padding; their saturation is rounding noise."""


def is_brightfield(thumbnail: NDArray[Any]) -> bool:
    """Tell whether `thumbnail` (h, w, c) is a stained section on a light ground, RGB uint8."""
    if thumbnail.shape[2] != 3 or thumbnail.dtype != np.uint8:
        return False
    brightest = thumbnail.max(axis=2)
    seen = brightest[brightest >= BLACK_LEVEL]
    return seen.size > 0 and float(np.median(seen)) > 110


def foreground_mask(thumbnail: NDArray[Any]) -> Mask:
    """Mask of the specimen: shape (h, w), True on tissue or cells.

    Parameters
    ----------
    thumbnail : array of shape (h, w, c), any real dtype

    Returns
    -------
    bool array of shape (h, w)
        All True where the image is constant: then there is nothing to tell apart.
    """
    brightfield = is_brightfield(thumbnail)
    signal = saturation(thumbnail) if brightfield else stretch(thumbnail).max(axis=2)
    signal = _box_mean(signal, 2)
    if float(np.ptp(signal)) <= 1e-6:
        return np.ones(signal.shape, np.bool_)
    mask = signal > otsu_threshold(signal)
    return _close(_majority(mask, 3), max(mask.shape) // 56)


def density_map(thumbnail: NDArray[Any]) -> Map:
    """Amount of stain or light per pixel: shape (h, w), 0 on empty ground.

    Mean optical density over R, G, B in bright field, mean of the stretched channels elsewhere.
    """
    if is_brightfield(thumbnail):
        ground = np.percentile(thumbnail.reshape(-1, 3), 99, axis=0).astype(np.float32)
        shade = np.minimum((thumbnail + np.float32(1)) / (ground + 1), 1)
        density: Map = np.asarray(-np.log(shade).mean(axis=2), np.float32)
        density[thumbnail.max(axis=2) < BLACK_LEVEL] = 0
        return density
    return np.asarray(stretch(thumbnail).mean(axis=2), np.float32)


def saturation(rgb: NDArray[np.uint8]) -> Map:
    """Saturation of HSV in 0 ... 1: shape (h, w); 0 where the pixel is all but black."""
    high = rgb.max(axis=2).astype(np.float32)
    low = rgb.min(axis=2).astype(np.float32)
    result: Map = np.where(high >= BLACK_LEVEL, (high - low) / np.maximum(high, 1), np.float32(0))
    return result


def stretch(image: NDArray[Any], *, low: float = 1.0, high: float = 99.8) -> Map:
    """Map each channel's percentiles `low` ... `high` to 0 ... 1: shape (h, w, c), clipped.

    Values that are not finite count as 0; a constant channel becomes 0.
    """
    values = np.nan_to_num(image.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    bounds = np.percentile(values, (low, high), axis=(0, 1)).astype(np.float32)
    # A channel that is sparse (a few bright cells) has equal percentiles but is not constant.
    flat = bounds[1] <= bounds[0]
    bounds[0] = np.where(flat, values.min(axis=(0, 1)), bounds[0])
    bounds[1] = np.where(flat, values.max(axis=(0, 1)), bounds[1])
    span = bounds[1] - bounds[0]
    scaled = (values - bounds[0]) / np.where(span > 0, span, 1)
    result: Map = np.clip(scaled, 0, 1, dtype=np.float32)
    return result


def otsu_threshold(values: NDArray[np.float32], *, bins: int = 256) -> float:
    """Threshold that splits `values` into two classes of least variance within (Otsu 1979)."""
    counts, edges = np.histogram(values, bins=bins)
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)[:-1].astype(np.float64)
    above = values.size - below
    sums = np.cumsum(counts * centres)
    mean_below = sums[:-1] / np.maximum(below, 1)
    mean_above = (sums[-1] - sums[:-1]) / np.maximum(above, 1)
    between = below * above * (mean_above - mean_below) ** 2
    # Empty bins between two clear classes all score the same: take the middle of that plateau.
    best = np.flatnonzero(between >= between.max() * (1 - 1e-9))
    return float(edges[1:-1][best].mean())


def box_sums(values: NDArray[Any]) -> NDArray[np.float64]:
    """Summed-area table: shape (h + 1, w + 1); entry (i, j) sums ``values[:i, :j]``."""
    table = np.zeros((values.shape[0] + 1, values.shape[1] + 1))
    np.cumsum(values, axis=0, dtype=np.float64, out=table[1:, 1:])
    np.cumsum(table[1:, 1:], axis=1, out=table[1:, 1:])
    return table


def _majority(mask: Mask, radius: int) -> Mask:
    """Drop specks and fill pinholes: each pixel takes the vote of its neighbourhood."""
    return _box_mean(mask.astype(np.float32), radius) > 0.5


def _close(mask: Mask, radius: int) -> Mask:
    """Close gaps of up to 2 `radius` pixels: pale stroma between stained glands is specimen too."""
    if radius < 1 or min(mask.shape) <= 4 * radius:
        return mask
    margin = np.pad(mask, radius)
    grown = _box_mean(margin.astype(np.float32), radius) > 0
    shrunk: Mask = _box_mean(grown.astype(np.float32), radius) > 1 - 1e-6
    closed = shrunk[radius:-radius, radius:-radius] | mask
    return _majority(closed, max(1, radius // 2))  # rounds the corners of the square window


def _box_mean(values: Map, radius: int) -> Map:
    """Mean over a square window clipped at the edges; leaves images smaller than it as they are."""
    if min(values.shape) <= 4 * radius:
        return values
    table = box_sums(values)
    low, high = [], []
    for n in values.shape:
        at = np.arange(n)
        low.append(np.maximum(at - radius, 0))
        high.append(np.minimum(at + radius + 1, n))
    (y0, x0), (y1, x1) = low, high
    total = (
        table[np.ix_(y1, x1)]
        - table[np.ix_(y0, x1)]
        - table[np.ix_(y1, x0)]
        + table[np.ix_(y0, x0)]
    )
    area = np.outer(y1 - y0, x1 - x0)
    result: Map = (total / area).astype(np.float32)
    return result
