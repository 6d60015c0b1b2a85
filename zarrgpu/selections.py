"""The selections of zarr-python: basic, orthogonal, coordinates, masks, blocks and fields.

What users write becomes one of three values: a `Box` (regular on every axis), an `Orthogonal` (a
list of elements on at least one axis) or `Points`. The rules are those of zarr-python 3.1
(``zarr.core.indexing``); where it differs from NumPy (``a[0, :, [1, 2]]`` is orthogonal,
``a.vindex[1, 2]`` has shape ``(1,)``), zarr-python is followed. Only arithmetic on shapes: nothing
is read, nothing knows of chunks but `resolve_blocks`.
"""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from zarrgpu.errors import SelectionError
from zarrgpu.grids import grid_count, grid_start
from zarrgpu.indexing import Box, expand_ellipsis, normalise_selection, resolve_integer
from zarrgpu.model import ArraySpec, Sharded

Int64s = NDArray[np.int64]
Fields: TypeAlias = str | list[str] | tuple[str, ...]

_MAX_POINTS = (1 << 31) - 1
"""Plans number points in 32 bits."""


@dataclass(frozen=True, slots=True, eq=False)
class Orthogonal:
    """The product of what each axis selects.

    Attributes
    ----------
    box : Box
        Of the axes that are regular; its `count` and `dropped` are those of all axes.
    indices : tuple of (int64 array or None)
        Elements of the other axes: inside of the array, in any order, repeated or not.
    """

    box: Box
    indices: tuple[Int64s | None, ...]

    @property
    def result_shape(self) -> tuple[int, ...]:
        """Shape of the selected array."""
        return self.box.result_shape


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """Single elements.

    Attributes
    ----------
    index : int64 array, shape (ndim, N)
        Inside of the array, in any order, repeated or not.
    result_shape : tuple of int
        Shape of the selected array, of N elements.
    """

    index: Int64s
    result_shape: tuple[int, ...]


Selection: TypeAlias = Box | Orthogonal | Points


def pop_fields(selection: Any) -> tuple[Fields | None, Any]:
    """Take the names of fields out of a selection.

    >>> pop_fields(("red", slice(2)))
    ('red', slice(None, 2, None))
    """
    if isinstance(selection, str):
        return selection, ()
    if not isinstance(selection, tuple):
        return None, selection
    names = [item for item in selection if isinstance(item, str)]
    rest = tuple(item for item in selection if not isinstance(item, str))
    fields = names[0] if len(names) == 1 else names
    return fields or None, rest[0] if len(rest) == 1 else rest


def resolve(selection: Any, spec: ArraySpec) -> Selection:
    """Resolve what stands between the brackets of an array, without fields.

    Index arrays or lists for all axes, and a mask, select points; lists beside slices and integers
    select orthogonally; the rest is basic.
    """
    if not isinstance(selection, list) and _is_index_array(selection, "b"):
        return resolve_mask(selection, spec)
    arrays = _with_arrays(selection)
    if _is_pure_fancy(arrays, spec.ndim):
        return resolve_vindex(arrays, spec)
    if _is_pure_orthogonal(arrays, spec.ndim):
        return resolve_orthogonal(arrays, spec)
    return resolve_basic(selection, spec)


def resolve_basic(selection: Any, spec: ArraySpec) -> Box:
    """Integers, slices with steps of at least 1, one ellipsis."""
    return normalise_selection(selection, spec.shape, source=spec.source)


def resolve_orthogonal(selection: Any, spec: ArraySpec) -> Selection:
    """Per axis an integer, a slice, a list of integers or a mask; one ellipsis."""
    items = expand_ellipsis(selection, spec.ndim, spec.source)
    plain: list[Any] = []
    indices: list[Int64s | None] = []
    for axis, (item, size) in enumerate(zip(items, spec.shape, strict=True)):
        if _is_integer(item) or isinstance(item, slice):
            plain.append(item)
            indices.append(None)
            continue
        index = _axis_elements(item, size, axis, spec.source)
        regular = _as_slice(index)
        plain.append(regular if regular is not None else slice(0))
        indices.append(index if regular is None else None)
    box = normalise_selection(tuple(plain), spec.shape, source=spec.source)
    if all(index is None for index in indices):
        return box
    count = tuple(
        n if index is None else len(index) for n, index in zip(box.count, indices, strict=True)
    )
    return Orthogonal(Box(box.start, count, box.step, box.dropped), tuple(indices))


def resolve_vindex(selection: Any, spec: ArraySpec) -> Points:
    """A mask of the array's shape, or integers or integer arrays for all axes."""
    items = selection if isinstance(selection, tuple) else (selection,)
    if len(items) == 1:
        array = _to_index_array(items[0])
        if array is not None and array.dtype.kind == "b":
            return resolve_mask(array, spec)
    return resolve_coordinates(selection, spec)


def resolve_coordinates(selection: Any, spec: ArraySpec) -> Points:
    """Integers or integer arrays for all axes, broadcast against each other."""
    items = selection if isinstance(selection, tuple) else (selection,)
    arrays = [_to_index_array(item) for item in items]
    if (
        not spec.ndim
        or len(items) != spec.ndim
        or any(a is None or a.dtype.kind == "b" for a in arrays)
    ):
        msg = (
            f"{spec.source!r}: points need an integer or an array of integers for each of "
            f"{spec.ndim} axes, or one mask of shape {spec.shape}; got {_described(items)}"
        )
        raise SelectionError(msg)
    columns = [
        _inside(array, size, axis, spec.source)
        for axis, (array, size) in enumerate(zip(arrays, spec.shape, strict=True))
        if array is not None
    ]
    try:
        broadcast = np.broadcast_arrays(*columns)
    except ValueError as error:
        shapes = ", ".join(str(column.shape) for column in columns)
        msg = f"{spec.source!r}: index arrays of shapes {shapes} do not broadcast to one shape"
        raise SelectionError(msg) from error
    shape = broadcast[0].shape or (1,)
    if math.prod(shape) > _MAX_POINTS:  # before they take memory
        msg = (
            f"{spec.source!r}: {math.prod(shape)} points of shape {shape} are more than the "
            f"{_MAX_POINTS} that one read takes; read in parts"
        )
        raise SelectionError(msg)
    return Points(np.stack([column.reshape(-1) for column in broadcast]), shape)


def resolve_mask(mask: Any, spec: ArraySpec) -> Points:
    """Elements where a mask of the array's shape is true, in C order."""
    mask = mask[0] if isinstance(mask, tuple) and len(mask) == 1 else mask
    array = _to_index_array(mask)
    if array is None or array.dtype.kind != "b" or array.shape != spec.shape or not spec.ndim:
        msg = (
            f"{spec.source!r}: a mask must be booleans of the array's shape {spec.shape}, "
            f"of at least one axis; got {_described((mask,))}"
        )
        raise SelectionError(msg)
    if array.size > _MAX_POINTS and np.count_nonzero(array) > _MAX_POINTS:
        msg = f"{spec.source!r}: a mask may select {_MAX_POINTS} points at once; read in parts"
        raise SelectionError(msg)
    index = np.stack([axis.astype(np.int64, copy=False) for axis in np.nonzero(array)])
    return Points(index, (index.shape[1],))


def resolve_blocks(selection: Any, spec: ArraySpec) -> Box:
    """Integers and slices of step 1 that count chunks, or shards of a sharded array.

    Every axis is kept.
    """
    items = expand_ellipsis(selection, spec.ndim, spec.source)
    slices = [_block_slice(spec, axis, item) for axis, item in enumerate(items)]
    return normalise_selection(tuple(slices), spec.shape, source=spec.source)


def _block_slice(spec: ArraySpec, axis: int, item: Any) -> slice:
    """Elements of the chunks or shards that one axis of a block selection names."""
    if isinstance(spec.location, Sharded):
        length = spec.location.shard_shape[axis]
        all_starts = spec.location.shard_starts
    else:
        length = spec.chunk_shape[axis]
        all_starts = spec.chunk_starts
    starts = all_starts[axis] if all_starts is not None else None
    size = spec.shape[axis]
    blocks = grid_count(length, starts, size)
    if _is_integer(item):
        first = resolve_integer(item, blocks, axis, f"{spec.source}, blocks")
        last = first + 1
    elif isinstance(item, slice) and item.step in {1, None}:
        first, last = _block_bounds(item, blocks, axis, spec.source)
    else:
        msg = (
            f"{spec.source!r} axis {axis}: blocks are selected by integers and slices of step 1, "
            f"got {item!r}"
        )
        raise SelectionError(msg)
    ends = (int(grid_start(length, starts, n)) for n in (first, max(first, min(last, blocks))))
    return slice(*(min(end, size) for end in ends))


def _block_bounds(item: slice, blocks: int, axis: int, source: str) -> tuple[int, int]:
    first = 0 if item.start is None else item.start
    last = blocks if item.stop is None else item.stop
    if not (_is_integer(first) and _is_integer(last)):
        msg = f"{source!r} axis {axis}: {item} is not a slice of integers"
        raise SelectionError(msg)
    first, last = (int(n) + blocks if n < 0 else int(n) for n in (first, last))
    if not 0 <= first < blocks:  # as zarr-python: a slice must begin at a block
        msg = f"{source!r} axis {axis}: blocks {item} begin out of bounds for {blocks} blocks"
        raise SelectionError(msg)
    return first, last


def check_fields(fields: Fields | None, dtype: np.dtype[Any], source: str) -> Fields | None:
    """Refuse fields that a type does not have; None where all of it is wanted.

    Raises
    ------
    SelectionError
    """
    if fields is None or (isinstance(fields, list | tuple) and not fields):
        return None
    names: Any = [fields] if isinstance(fields, str) else fields
    if not isinstance(names, list | tuple) or not all(isinstance(n, str) for n in names):
        msg = f"{source!r}: fields must be a name or a list of names, got {fields!r}"
        raise SelectionError(msg)
    unknown = [name for name in names if name not in (dtype.names or ())]
    if unknown or len(set(names)) < len(names):
        has = f"fields {list(dtype.names)}" if dtype.names else f"no fields (its type is {dtype})"
        msg = f"{source!r}: no such fields, or one twice: {names}; the array has {has}"
        raise SelectionError(msg)
    return fields


def _axis_elements(item: Any, size: int, axis: int, source: str) -> Int64s:
    """Elements of one axis that a list of integers or a mask selects."""
    array = _to_index_array(item)
    if array is None:
        msg = (
            f"{source!r} axis {axis}: {type(item).__name__} is not an index; use integers, slices, "
            "and one-dimensional lists of integers or booleans"
        )
        raise SelectionError(msg)
    if array.ndim != 1:
        msg = f"{source!r} axis {axis}: index arrays must have one axis, got shape {array.shape}"
        raise SelectionError(msg)
    if array.dtype.kind == "b":
        if len(array) != size:
            msg = f"{source!r} axis {axis}: a mask of {len(array)} for {size} elements"
            raise SelectionError(msg)
        return np.flatnonzero(array).astype(np.int64, copy=False)
    return _inside(array, size, axis, source)


def _inside(array: NDArray[Any], size: int, axis: int, source: str) -> Int64s:
    """Element numbers, those from the end made positive; the caller's array is left as it is."""
    if array.size:
        # unsigned numbers beyond int64 are compared before they are converted
        outside = array >= size if array.dtype.kind == "u" else (array >= size) | (array < -size)
        if outside.any():
            value = array[outside].flat[0]
            msg = f"{source!r} axis {axis}: index {value} is out of bounds for size {size}"
            raise SelectionError(msg)
    index = array.astype(np.int64, copy=False)
    negative = index < 0
    return np.where(negative, index + size, index) if negative.any() else index


def _as_slice(index: Int64s) -> slice | None:
    """The slice with the same elements, if there is one: boxes are cheaper than lists."""
    if len(index) < 2:
        return slice(int(index[0]), int(index[0]) + 1) if len(index) else slice(0)
    step = int(index[1] - index[0])
    if step < 1 or not (np.diff(index) == step).all():
        return None
    return slice(int(index[0]), int(index[-1]) + 1, step)


def _to_index_array(item: Any) -> NDArray[Any] | None:
    """Integers or booleans as a NumPy array, wherever they lie; None for anything else."""
    if _is_integer(item):
        return np.asarray([item])
    if isinstance(item, list):
        if not item:
            return np.empty(0, np.int64)
    elif not _is_array(item):
        return None
    try:
        array = item.get() if hasattr(item, "__cuda_array_interface__") else np.asarray(item)
    except (TypeError, ValueError):  # a ragged list
        return None
    return array if array.dtype.kind in "iub" else None


def _with_arrays(item: Any) -> Any:
    """Flat lists of integers or booleans as arrays, all else as it is."""
    if isinstance(item, tuple):
        return tuple(
            _with_arrays(member) if isinstance(member, list) else member for member in item
        )
    if not isinstance(item, list):
        return item
    array = _to_index_array(item)
    return array if array is not None and array.ndim == 1 else item


def _is_array(item: Any) -> bool:
    return hasattr(item, "dtype") and hasattr(item, "shape") and not _is_integer(item)


def _is_index_array(item: Any, kinds: str = "iub") -> bool:
    try:
        return _is_array(item) and np.dtype(item.dtype).kind in kinds
    except TypeError:  # a type of another library
        return False


def _is_integer(item: Any) -> bool:
    return isinstance(item, numbers.Integral) and not isinstance(item, bool | np.bool_)


def _is_pure_fancy(selection: Any, ndim: int) -> bool:
    """Whether a selection is of integers and at least one index array for all axes."""
    items = selection if isinstance(selection, tuple) else (selection,)
    if ndim == 1 and not isinstance(selection, tuple) and _is_index_array(selection):
        return True
    listed = [_is_index_array(item, "iu") for item in items]
    return (
        len(items) == ndim
        and any(listed)
        and all(known or _is_integer(item) for known, item in zip(listed, items, strict=True))
    )


def _is_pure_orthogonal(selection: Any, ndim: int) -> bool:
    """Whether a selection is of lists for all axes, or of slices, integers and one list."""
    items = selection if isinstance(selection, tuple) else (selection,)
    listed = [_is_index_array(item) for item in items]
    if len(items) > ndim:
        return False
    if len(items) == ndim and all(listed):
        return bool(ndim)
    return sum(listed) == 1 and all(
        known or _is_integer(item) or isinstance(item, slice)
        for known, item in zip(listed, items, strict=True)
    )


def _described(items: tuple[Any, ...]) -> str:
    """Items of a selection for a message, without their content."""
    shown = [
        f"{item.dtype} array of shape {tuple(item.shape)}"
        if hasattr(item, "shape") and hasattr(item, "dtype")
        else repr(item)[:40]
        for item in items[:8]
    ]
    return ", ".join(shown) or "nothing"
