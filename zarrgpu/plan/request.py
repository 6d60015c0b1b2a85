"""What a read asks for: equally shaped boxes of one or more arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zarrgpu.errors import SelectionError
from zarrgpu.model import ArraySpec


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReadRequest:
    """N boxes, each of one array; the result has shape ``(N, *count)``.

    Attributes
    ----------
    arrays : tuple of ArraySpec
        All with the same number of axes.
    array_index : int32 array, shape (N,)
        Which array each box reads.
    start : int64 array, shape (N, ndim)
        First element on every axis; may be negative or beyond the array: what lies outside is
        padded with the array's fill value.
    count : tuple of int
        Elements per axis, the same for all boxes.
    step : tuple of int
        Distance between elements per axis, at least 1.
    """

    arrays: tuple[ArraySpec, ...]
    array_index: NDArray[np.int32]
    start: NDArray[np.int64]
    count: tuple[int, ...]
    step: tuple[int, ...]

    def __post_init__(self) -> None:
        ndim = len(self.count)
        if not self.arrays:
            msg = "a read needs at least one array"
            raise SelectionError(msg)
        for spec in self.arrays:
            if spec.ndim != ndim:
                msg = f"{spec.source!r} has {spec.ndim} axes, the box has {ndim}"
                raise SelectionError(msg)
        if self.start.shape != (len(self.array_index), ndim):
            msg = (
                f"starts have shape {self.start.shape}, expected ({len(self.array_index)}, {ndim})"
            )
            raise SelectionError(msg)
        if any(n < 0 for n in self.count) or any(s < 1 for s in self.step):
            msg = f"counts must be at least 0 and steps at least 1: {self.count}, {self.step}"
            raise SelectionError(msg)
        if self.array_index.size and not (
            self.array_index.min() >= 0 and self.array_index.max() < len(self.arrays)
        ):
            msg = f"array_index must lie in 0..{len(self.arrays) - 1}"
            raise SelectionError(msg)

    @property
    def num_boxes(self) -> int:
        """Number of boxes."""
        return len(self.array_index)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the result, axes in array order."""
        return (self.num_boxes, *self.count)
