"""Pieces of a plan as jobs of the gather kernel: strides, merged axes, bounds.

A job has up to six axes. Axes of length one are dropped, neighbours that are contiguous on both
sides are merged, so that a 256-px RGB patch is two axes: rows, and runs of 768 bytes. Boxes that
are flipped or turned have other strides, a layout for each symmetry; an axis that is flipped is
gone through backwards in the source, so that writes go forwards.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zarrgpu.devices.element_types import element_type, swap_nbytes
from zarrgpu.devices.tables import GATHER_JOB, GATHER_LAYOUT, MAX_DIMS
from zarrgpu.errors import SelectionError
from zarrgpu.model import ArraySpec, native_dtype
from zarrgpu.output import OutputFormat
from zarrgpu.plan.request import ReadRequest
from zarrgpu.plan.tables import Int64s, PieceTable

_MAX_VOLUME = (1 << 31) - 1
_DEVICE_KINDS = "biufc"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Target:
    """Device memory that a read delivers into.

    Attributes
    ----------
    ptr, nbytes : int
        Of the whole result.
    strides : tuple of int
        Elements, of (output, *array axes).
    scale, offset : int
        Device addresses of the normalisation tables, 0 without.
    """

    ptr: int
    nbytes: int
    strides: tuple[int, ...]
    scale: int
    offset: int


def check_device_dtype(dtype: np.dtype[Any], source: str) -> None:
    """Refuse element types that CuPy arrays cannot have, ml_dtypes' and long doubles among them."""
    # 2 is a type of another package; byte orders of one type are 0 or 1
    foreign = dtype.isbuiltin == 2 or dtype.char in "gG"
    if dtype.kind not in _DEVICE_KINDS or foreign:
        msg = f"{source!r}: elements of type {dtype} cannot lie on a GPU; read with device='cpu'"
        raise SelectionError(msg)


def gather_table(
    spec: ArraySpec,
    request: ReadRequest,
    pieces: PieceTable,
    target: Target,
    output: OutputFormat,
    *,
    layout: int,
    fill: bool,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Make the layouts and the jobs for pieces of one array.

    Parameters
    ----------
    spec : ArraySpec
    request : ReadRequest
    pieces : PieceTable
        All of `spec`.
    target : Target
    output : OutputFormat
    layout : int
        Index that the first layout will have.
    fill : bool
        Whether the pieces are the fill value.

    Returns
    -------
    layouts : GATHER_LAYOUT array, shape (1,), or one for each symmetry that occurs
    jobs : GATHER_JOB array, shape (P,)
        ``source``, ``source_nbytes`` and ``shuffle_block_nbytes`` are left zero, as fills have
        them.
    """
    _check_volumes(spec, pieces)
    turns = output.turns
    if turns is None:
        return _table_of(spec, request, pieces, target, output, 0, layout=layout, fill=fill)
    jobs = np.zeros(len(pieces), GATHER_JOB)
    layouts = [np.zeros(0, GATHER_LAYOUT)]
    symmetry = turns.symmetry[pieces.output]
    for number, each in enumerate(np.unique(symmetry).tolist(), layout):
        rows = np.flatnonzero(symmetry == each)
        offset, strides = turns.strides(each, target.strides[1:], request.count)
        turned = replace(target, strides=(target.strides[0], *strides))
        made, jobs[rows] = _table_of(
            spec, request, pieces.take(rows), turned, output, offset, layout=number, fill=fill
        )
        layouts.append(made)
    return np.concatenate(layouts), jobs


def _table_of(
    spec: ArraySpec,
    request: ReadRequest,
    pieces: PieceTable,
    target: Target,
    output: OutputFormat,
    target_offset: int,
    *,
    layout: int,
    fill: bool,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Make the layout and the jobs of boxes that begin at `target_offset` and have its strides."""
    base = _chunk_strides(spec)
    channel = output.channel_axis if output.scale is not None and output.scale.size > 1 else None
    source = [0 if fill else base[a] * request.step[a] for a in range(spec.ndim)]
    strides = list(target.strides[1:])
    jobs = np.zeros(len(pieces), GATHER_JOB)
    jobs["target_offset"] = target_offset + _dot([pieces.output, *pieces.dst], target.strides)
    if not fill and spec.ndim:
        jobs["source_offset"] = _dot(list(pieces.src), base)
    for a in (a for a, stride in enumerate(strides) if stride < 0):
        jobs["target_offset"] += (pieces.extent[a] - 1) * strides[a]
        jobs["source_offset"] += (pieces.extent[a] - 1) * source[a]
        strides[a], source[a] = -strides[a], -source[a]
    axes = _merge_axes(pieces.extent, source, tuple(strides), channel)
    if len(axes) > MAX_DIMS:
        msg = (
            f"{spec.source!r}: a selection with {len(axes)} axes that cannot be merged is more "
            f"than the {MAX_DIMS} that a GPU gathers; read with device='cpu'"
        )
        raise SelectionError(msg)
    jobs["layout"] = layout
    jobs["extents"] = 1
    made = np.zeros(1, GATHER_LAYOUT)
    made["channel_dim"] = -1
    for place, axis in enumerate(axes, MAX_DIMS - len(axes)):
        jobs["extents"][:, place] = axis.extent
        made["source_strides"][0, place] = axis.source_stride
        made["target_strides"][0, place] = axis.target_stride
        if axis.is_channel:
            made["channel_dim"] = place
    if channel is not None:
        jobs["channel_start"] = pieces.dst[channel]
    made["target"], made["target_nbytes"] = target.ptr, target.nbytes
    made["scale"], made["offset"] = target.scale, target.offset
    made["n_channels"] = 0 if output.scale is None else output.scale.size
    made["ndim"] = max(1, len(axes))
    native = native_dtype(spec.dtype)
    made["source_type"] = element_type(native)
    made["target_type"] = element_type(output.dtype)
    made["swap_nbytes"] = 0 if fill else swap_nbytes(spec.dtype)
    value = np.frombuffer(np.asarray(spec.fill_scalar, native).tobytes(), np.uint8)
    made["fill"][0, : value.size] = value
    return made, jobs


@dataclass(frozen=True, slots=True, eq=False)
class _Axis:
    extent: Int64s
    source_stride: int
    target_stride: int
    is_channel: bool


def _chunk_strides(spec: ArraySpec) -> list[int]:
    """Elements between neighbours along each array axis of a decoded chunk."""
    strides = [0] * spec.ndim
    step = 1
    for axis in reversed(spec.axis_order):
        strides[axis] = step
        step *= spec.chunk_shape[axis]
    return strides


def _merge_axes(
    extent: Int64s, source: list[int], target: tuple[int, ...], channel: int | None
) -> list[_Axis]:
    """Axes with anything to do, slowest in the target first, merged where both sides allow."""
    order = sorted(range(len(source)), key=lambda a: -target[a])
    merged: list[_Axis] = []
    for a in order:
        axis = _Axis(extent[a], source[a], target[a], a == channel)
        if (axis.extent == 1).all() and not axis.is_channel:
            continue
        outer = merged[-1] if merged else None
        length = int(axis.extent[0]) if len(axis.extent) else 0
        if (
            outer is not None
            and not (outer.is_channel or axis.is_channel)
            and (axis.extent == length).all()
            and outer.source_stride == length * axis.source_stride
            and outer.target_stride == length * axis.target_stride
        ):
            merged[-1] = _Axis(
                outer.extent * axis.extent, axis.source_stride, axis.target_stride, is_channel=False
            )
        else:
            merged.append(axis)
    return merged


def _dot(columns: list[Any], strides: tuple[int, ...] | list[int]) -> Int64s:
    total = np.zeros(len(columns[0]), np.int64)
    for column, stride in zip(columns, strides, strict=True):
        total += np.asarray(column, np.int64) * stride
    return total


def _check_volumes(spec: ArraySpec, pieces: PieceTable) -> None:
    # in floating point, where a product of many axes does not wrap around
    largest = np.prod(pieces.extent, axis=0, dtype=np.float64).max(initial=0)
    if largest > _MAX_VOLUME:
        msg = (
            f"{spec.source!r}: one piece has {largest:.0f} elements, a GPU gathers at most "
            f"{_MAX_VOLUME} at once; read in parts"
        )
        raise SelectionError(msg)
