"""Label patches with a question that every image can answer about itself.

A patch is *dense* when its box holds more stain (or light) than the median patch, *sparse*
otherwise. The answer is read off the low-resolution thumbnail; the model must find it in the
full-resolution pixels. Half of the patches are dense by construction, whatever the image. Where
patches are validated is decided by place: a line cuts one side off the specimen, with a gap a patch
wide, so that no pixel is both learned from and tested on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from zarrgpu.demo.foreground import Map, Mask, box_sums

Locations: TypeAlias = NDArray[np.int64]
"""Shape (N, 2): level-0 x, y of each patch's upper left pixel."""

CLASS_NAMES = ("sparse", "dense")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Labeller:
    """Says of each patch whether it is dense.

    Attributes
    ----------
    table : float64 array
        Summed-area table of the density map.
    dimensions : tuple of int
        Level-0 width and height that the map covers.
    size : tuple of int
        Width and height of a patch in the level-0 frame.
    threshold : float
        Density above which a patch is dense.
    """

    table: NDArray[np.float64]
    dimensions: tuple[int, int]
    size: tuple[int, int]
    threshold: float = 0.0

    @classmethod
    def fit(
        cls,
        density: Map,
        *,
        dimensions: tuple[int, int],
        size: tuple[int, int],
        locations: Locations,
    ) -> Labeller:
        """Take the median density of the patches at `locations` as the threshold."""
        unset = cls(table=box_sums(density), dimensions=dimensions, size=size)
        values = unset.densities(locations)
        threshold = float(np.median(values)) if values.size else 0.0
        return cls(table=unset.table, dimensions=dimensions, size=size, threshold=threshold)

    def densities(self, locations: Locations) -> NDArray[np.float64]:
        """Mean of the density map in each patch's box: shape (N,)."""
        rows, columns = (n - 1 for n in self.table.shape)
        low, high = [], []
        for axis, cells in ((0, columns), (1, rows)):
            scale = cells / self.dimensions[axis]
            start = np.rint(locations[:, axis] * scale).astype(np.int64)
            stop = np.rint((locations[:, axis] + self.size[axis]) * scale).astype(np.int64)
            start = np.clip(start, 0, cells - 1)
            low.append(start)
            high.append(np.clip(stop, start + 1, cells))
        (x0, y0), (x1, y1) = low, high
        total = self.table[y1, x1] - self.table[y0, x1] - self.table[y1, x0] + self.table[y0, x0]
        mean: NDArray[np.float64] = total / ((x1 - x0) * (y1 - y0))
        return mean

    def __call__(self, locations: Locations) -> NDArray[np.int64]:
        """Class of each patch: shape (N,), 1 where it is dense."""
        # Strictly above, with a margin for rounding: on a constant image all patches are sparse.
        margin = 1e-9 * (1 + abs(self.threshold))
        return (self.densities(locations) > self.threshold + margin).astype(np.int64)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Split:
    """Masks of the ground to train and to validate on, each (h, w) like the thumbnail.

    Attributes
    ----------
    train, validation : bool arrays
    side : "left", "right", "top", "bottom" or None
        Where the validation ground lies; None where the image is too small to cut, so that both
        masks are the whole foreground.
    boundary : float
        Where the line runs, as a fraction of the width or height; 0 where there is none.
    """

    train: Mask
    validation: Mask
    side: str | None = None
    boundary: float = 0.0


def split_by_place(
    mask: Mask, density: Map, *, patch_fractions: tuple[float, float], validation: float = 0.25
) -> Split:
    """Cut off about a quarter of the foreground for validation, on one of the four sides.

    The side is the one that is most like the whole: where the share of dense pixels is nearest
    to half, so that both classes are validated.

    Parameters
    ----------
    mask : bool array of shape (h, w)
        The foreground.
    density : float32 array of shape (h, w)
    patch_fractions : (float, float)
        Width and height of a patch over those of the image. Half a patch may stick out of a mask
        on either side of the line, hence the gap of one patch.
    validation : float
        Share of the foreground to validate on.
    """
    if not mask.any():
        return Split(train=mask, validation=mask)
    middle = float(np.median(density[mask]))
    best, least = Split(train=mask, validation=mask), np.inf
    for side in ("right", "left", "bottom", "top"):
        split = _cut(mask, side, patch_fractions, validation)
        if split is not None:
            skew = abs(float((density[split.validation] > middle).mean()) - 0.5)
            if skew < least - 0.02:  # the earlier side wins where it hardly matters
                best, least = split, skew
    return best


def _cut(
    mask: Mask, side: str, patch_fractions: tuple[float, float], validation: float
) -> Split | None:
    """Cut one side off; None where a part would be too narrow for a patch."""
    turned = _turn(mask, side)
    fractions = patch_fractions if side in ("left", "right") else patch_fractions[::-1]
    width = turned.shape[1]
    gap = int(np.ceil(fractions[0] * width))
    share = np.cumsum(turned.sum(axis=0, dtype=np.float64))
    line = int(np.searchsorted(share, (1 - validation) * share[-1]))
    start = max(line - gap // 2, 0)
    stop = min(start + gap, width)
    if min(start, width - stop) < gap:
        return None
    train, test = turned.copy(), turned.copy()
    train[:, start:] = False
    test[:, :stop] = False
    if not (has_room(train, fractions) and has_room(test, fractions)):
        return None
    boundary = (start + stop) / (2 * width)
    return Split(
        train=_turn(train, side),
        validation=_turn(test, side),
        side=side,
        boundary=boundary if side in ("right", "bottom") else 1 - boundary,
    )


def has_room(mask: Mask, patch_fractions: tuple[float, float]) -> bool:
    """Tell whether some patch lies at least half in `mask`; sizes as for `split_by_place`."""
    h, w = mask.shape
    width, height = (
        min(n, max(1, round(f * n))) for f, n in zip(patch_fractions, (w, h), strict=True)
    )
    table = box_sums(mask)
    inside = (table[height:, width:] - table[:-height, width:] - table[height:, :-width]) + table[
        :-height, :-width
    ]
    return bool((inside >= 0.5 * width * height).any())


def _turn(mask: Mask, side: str) -> Mask:
    """Turn `side` to the right; its own inverse."""
    if side == "left":
        return mask[:, ::-1]
    if side == "bottom":
        return mask.T
    if side == "top":
        return mask[::-1, ::-1].T
    return mask
