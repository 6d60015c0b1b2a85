"""From what NumPy users write between brackets to a regular box.

Only arithmetic on shapes; what the box means for chunks is the planner's business.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zarrgpu.errors import SelectionError


@dataclass(frozen=True, slots=True)
class Box:
    """A regular N-D selection: ``start + k * step`` for ``k < count`` on every axis.

    Attributes
    ----------
    start, count, step : tuple of int
        One per array axis; steps are positive, and 1 where at most one element is selected.
    dropped : tuple of int
        Axes that were selected by an integer and do not appear in the result.
    """

    start: tuple[int, ...]
    count: tuple[int, ...]
    step: tuple[int, ...]
    dropped: tuple[int, ...]

    @property
    def result_shape(self) -> tuple[int, ...]:
        """Shape of the selected array."""
        return tuple(n for axis, n in enumerate(self.count) if axis not in self.dropped)


def normalise_selection(selection: Any, shape: tuple[int, ...], *, source: str = "array") -> Box:
    """Resolve a basic selection (integers, slices with positive steps, one ellipsis).

    >>> normalise_selection((..., slice(0, 10, 3), -1), (4, 8, 5))
    Box(start=(0, 0, 4), count=(4, 3, 1), step=(1, 3, 1), dropped=(2,))

    Raises
    ------
    SelectionError
        For another form, too many indices, an index out of bounds or a step below 1.
    """
    items = expand_ellipsis(selection, len(shape), source)
    start, count, step, dropped = [], [], [], []
    for axis, (item, size) in enumerate(zip(items, shape, strict=True)):
        if isinstance(item, slice):
            first, n, stride = _resolve_slice(item, size, axis, source)
        else:
            first, n, stride = resolve_integer(item, size, axis, source), 1, 1
            dropped.append(axis)
        start.append(first)
        count.append(n)
        step.append(stride)
    return Box(tuple(start), tuple(count), tuple(step), tuple(dropped))


def expand_ellipsis(selection: Any, ndim: int, source: str) -> list[Any]:
    """One item per axis, the ellipsis and what is left out as whole slices."""
    items = list(selection) if isinstance(selection, tuple) else [selection]
    ellipses = sum(item is Ellipsis for item in items)
    if ellipses > 1:
        msg = f"{source!r}: a selection may have one ellipsis, got {ellipses}"
        raise SelectionError(msg)
    given = len(items) - ellipses
    if given > ndim:
        msg = f"{source!r}: too many indices, got {given} for {ndim} axes"
        raise SelectionError(msg)
    at = next((i for i, item in enumerate(items) if item is Ellipsis), len(items))
    return [*items[:at], *[slice(None)] * (ndim - given), *items[at + ellipses :]]


def _resolve_slice(item: slice, size: int, axis: int, source: str) -> tuple[int, int, int]:
    try:
        start, stop, step = item.indices(size)
    except (TypeError, ValueError) as error:
        msg = f"{source!r} axis {axis}: {item} is not a slice of integers: {error}"
        raise SelectionError(msg) from error
    if step < 1:
        msg = f"{source!r} axis {axis}: slice step must be at least 1, got {step}"
        raise SelectionError(msg)
    count = max(0, -(-(stop - start) // step))
    return start, count, step if count > 1 else 1


def resolve_integer(item: Any, size: int, axis: int, source: str) -> int:
    """Element that an integer names, those from the end made positive."""
    if isinstance(item, bool):
        msg = f"{source!r} axis {axis}: a boolean is not an index; a mask is an array"
        raise SelectionError(msg)
    try:
        index = operator.index(item)
    except TypeError:
        msg = (
            f"{source!r} axis {axis}: {type(item).__name__} is not a basic index; "
            "use integers, slices and one ellipsis, or oindex and vindex for lists and masks"
        )
        raise SelectionError(msg) from None
    if not -size <= index < size:
        msg = f"{source!r} axis {axis}: index {index} is out of bounds for size {size}"
        raise SelectionError(msg)
    return index % size


def expand_counts(count: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Number the members of groups of given sizes: each one's group, and its place in it.

    >>> [column.tolist() for column in expand_counts(np.array([2, 0, 3]))]
    [[0, 0, 2, 2, 2], [0, 1, 0, 1, 2]]
    """
    group = np.repeat(np.arange(len(count)), count)
    return group, np.arange(len(group)) - (np.cumsum(count) - count).take(group)
