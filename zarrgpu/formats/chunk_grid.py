"""``chunk_grid`` of Zarr v3: regular and rectilinear.

Spec: Zarr core 3.1, "Regular grids"; zarr-extensions, chunk-grids/rectilinear (2026-03): per axis
``chunk_shapes`` has one length for all chunks, or a list of lengths and ``[length, count]`` runs
that reach at least the end of the axis.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zarrgpu.errors import UnsupportedFormatError
from zarrgpu.formats.document import Document, shown
from zarrgpu.grids import AxisStarts, grid_count

_MAX_CHUNKS_PER_AXIS = 1 << 22
"""Of a rectilinear axis, whose chunks are listed one by one."""

_MAX_LENGTH = 1 << 62


def parse_chunk_grid(
    name: str, configuration: Document, shape: tuple[int, ...]
) -> tuple[tuple[int, ...], AxisStarts | None]:
    """Parse the grid of an array of `shape`.

    Returns
    -------
    chunk_shape : tuple of int
        Of the largest chunk.
    chunk_starts : tuple of (int64 array or None), or None
        See `ArraySpec.chunk_starts`; None where all chunks are equal.
    """
    if name == "regular":
        return configuration.lengths("chunk_shape", minimum=1, ndim=len(shape)), None
    if name != "rectilinear":
        msg = (
            f"{configuration.source!r} chunk_grid: {shown(name)} is not read, only 'regular' and "
            "'rectilinear'"
        )
        raise UnsupportedFormatError(msg)
    configuration.choice("kind", ("inline",))
    edges = configuration.require("chunk_shapes")
    if not isinstance(edges, list) or len(edges) != len(shape):
        raise configuration.fail(
            f"expected a list for {len(shape)} axes, got {shown(edges)}", "chunk_shapes"
        )
    pairs = zip(edges, shape, strict=True)
    axes = [_parse_axis(configuration, i, *pair) for i, pair in enumerate(pairs)]
    counts = [grid_count(*axis, size) for axis, size in zip(axes, shape, strict=True)]
    if math.prod(counts) > _MAX_LENGTH:
        raise configuration.fail("cuts the array into more than 2**62 chunks", "chunk_shapes")
    starts = tuple(axis[1] for axis in axes)
    return tuple(axis[0] for axis in axes), starts if any(s is not None for s in starts) else None


def _parse_axis(
    configuration: Document, axis: int, value: Any, size: int
) -> tuple[int, NDArray[np.int64] | None]:
    """Longest chunk of an axis, and where its chunks start if they differ."""
    place = ("chunk_shapes", axis)
    if _is_length(value):
        return value, None
    if not isinstance(value, list):
        raise configuration.fail(f"expected a length or a list, got {shown(value)}", *place)
    runs: list[tuple[int, int]] = []
    for item in value:
        pair = item if isinstance(item, list) else [item, 1]
        if len(pair) != 2 or not all(_is_length(n) for n in pair):
            message = f"expected lengths and [length, count] pairs of at least 1, got {shown(item)}"
            raise configuration.fail(message, *place)
        runs.append((pair[0], pair[1]))
    count = sum(run[1] for run in runs)
    total = sum(run[0] * run[1] for run in runs)
    if count > _MAX_CHUNKS_PER_AXIS or total >= _MAX_LENGTH:
        raise configuration.fail(
            f"has {count} chunks of {total} elements, at most {_MAX_CHUNKS_PER_AXIS} are read",
            *place,
        )
    if total < size:
        raise configuration.fail(
            f"chunks reach {total}, the axis has {size} elements", *place, kind="value"
        )
    lengths = np.repeat([run[0] for run in runs], [run[1] for run in runs]).astype(np.int64)
    if not len(lengths):  # an empty list on an axis without elements
        return 1, None
    starts = np.append(0, np.cumsum(lengths))
    inside = max(1, int(np.searchsorted(starts, size)))  # those beyond the end hold nothing
    lengths, starts = lengths[:inside], starts[: inside + 1]
    longest = int(lengths.max())
    return longest, None if (lengths == longest).all() else starts


def _is_length(value: Any) -> bool:
    return type(value) is int and 1 <= value < _MAX_LENGTH


def check_divides(
    configuration: Document,
    inner_shape: tuple[int, ...],
    shard_shape: tuple[int, ...],
    shard_starts: AxisStarts | None,
) -> None:
    """Refuse shards that are not of whole inner chunks."""
    for axis, (chunk, shard) in enumerate(zip(inner_shape, shard_shape, strict=True)):
        starts = None if shard_starts is None else shard_starts[axis]
        if shard % chunk if starts is None else (starts % chunk).any():
            lengths = shard if starts is None else np.unique(np.diff(starts)).tolist()
            raise configuration.fail(
                f"{list(inner_shape)} does not divide the shard, axis {axis}: {shown(lengths)}",
                "chunk_shape",
            )


def chunk_entries(inner_shape: tuple[int, ...], shard_shape: tuple[int, ...]) -> int:
    """Inner chunks of a shard."""
    return math.prod(s // c for s, c in zip(shard_shape, inner_shape, strict=True))
