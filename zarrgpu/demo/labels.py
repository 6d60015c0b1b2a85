"""Label patches with a question that every image can answer about itself.

A patch is *dense* when its box holds more stain (or light) than the median patch, *sparse*
otherwise. The answer is read off the low-resolution thumbnail; the model must find it in the
full-resolution pixels. Half of the patches are dense by construction, whatever the image. Where
patches are validated is decided by place: the specimen is cut in two by an upright line, with a gap
a patch wide, so that no pixel is both learned from and tested on.
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
    boundary : float or None
        Where the line runs, as a fraction of the width; None where the image is too small to cut,
        so that both masks are the whole foreground.
    """

    train: Mask
    validation: Mask
    boundary: float | None


def split_by_place(mask: Mask, *, patch_fraction: float, validation: float = 0.25) -> Split:
    """Cut the foreground so that about a quarter of it, on the right, is for validation.

    Parameters
    ----------
    mask : bool array of shape (h, w)
        The foreground.
    patch_fraction : float
        Width of a patch over the width of the image. Half a patch may stick out of a mask on either
        side of the line, hence the gap of one patch.
    validation : float
        Share of the foreground to validate on.
    """
    width = mask.shape[1]
    whole = Split(train=mask, validation=mask, boundary=None)
    gap = int(np.ceil(patch_fraction * width))
    share = np.cumsum(mask.sum(axis=0, dtype=np.float64))
    if gap >= width // 4 or share[-1] == 0:
        return whole
    line = int(np.searchsorted(share, (1 - validation) * share[-1]))
    left, right = max(line - gap // 2, 0), min(line - gap // 2 + gap, width)
    train, test = mask.copy(), mask.copy()
    train[:, left:] = False
    test[:, :right] = False
    # Narrower than a patch, a side has no room for one.
    if min(left, width - right) < gap or not train.any() or not test.any():
        return whole
    return Split(train=train, validation=test, boundary=(left + right) / (2 * width))
