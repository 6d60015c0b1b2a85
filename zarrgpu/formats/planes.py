"""Pages that are the planes of one array: channels, focal planes, time points."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from zarrgpu.errors import UnsupportedFormatError
from zarrgpu.model import MISSING_NBYTES, ArraySpec, Manifest, Placement

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_PLANES = 1 << 16
_MAX_EMPTY_ENTRIES = 1 << 22
"""Of chunk tables: a few missing planes are fine, millions of claimed ones are not."""


def stack_planes(
    planes: Sequence[ArraySpec | None], axes: Sequence[tuple[str, int]], *, what: str
) -> ArraySpec:
    """Make one array of planes that are stored alike.

    Parameters
    ----------
    planes : sequence of (ArraySpec or None)
        In C order of `axes`, each with axes ``(y, x, c)`` and a manifest; None is not stored. At
        least one is there.
    axes : sequence of (str, int)
        Name and length of the axes that the planes make up, slowest first.
    what : str
        For messages.

    Returns
    -------
    ArraySpec
        Axes: those of `axes`, then y and x, then c of the planes' samples unless `axes` has a c.

    Raises
    ------
    UnsupportedFormatError
        The planes differ in more than where they lie.
    """
    known = [plane for plane in planes if plane is not None]
    first = known[0]
    for plane in known[1:]:
        differs = _difference(first, plane)
        if differs:
            msg = (
                f"{what} of {first.source!r}: the planes in ifd {first.attributes.get('tiff_ifd')} "
                f"and ifd {plane.attributes.get('tiff_ifd')} differ in {differs}"
            )
            raise UnsupportedFormatError(msg)
    lengths = tuple(length for _, length in axes)
    assert math.prod(lengths) == len(planes)
    channels = any(name == "c" for name, _ in axes)
    if channels and first.shape[2] != 1:
        msg = f"{what} of {first.source!r}: channels in planes of {first.shape[2]} samples each"
        raise UnsupportedFormatError(msg)
    inner = 2 if channels else 3
    names = (*(name for name, _ in axes), *("y", "x", "c")[:inner])
    return replace(
        first,
        shape=(*lengths, *first.shape[:inner]),
        chunk_shape=(*(1 for _ in axes), *first.chunk_shape[:inner]),
        axis_order=tuple(range(len(names))),
        dimension_names=names,
        location=_joined(planes, first),
    )


def _difference(first: ArraySpec, other: ArraySpec) -> str:
    for name in ("shape", "dtype", "chunk_shape", "codecs", "axis_order", "fill_value"):
        mine, theirs = getattr(first, name), getattr(other, name)
        both_nan = name == "fill_value" and mine != mine and theirs != theirs
        if mine != theirs and not both_nan:
            return name
    return ""


def _joined(planes: Sequence[ArraySpec | None], first: ArraySpec) -> Manifest:
    """Chunk tables one after the other, in as many objects as they name."""
    n_chunks = math.prod(first.grid_shape)
    check_entries(len(planes) * n_chunks, sum(p is not None for p in planes) * n_chunks, first)
    offsets = np.zeros((len(planes), n_chunks), np.int64)
    nbytes = np.full((len(planes), n_chunks), MISSING_NBYTES, np.int64)
    objects = np.zeros((len(planes), n_chunks), np.int64)
    keys: dict[str, int] = {}
    for index, plane in enumerate(planes):
        if plane is None:
            continue
        location = manifest_of(plane)
        offsets[index], nbytes[index] = location.offsets, location.nbytes
        objects[index] = keys.setdefault(location.key, len(keys))
    several = len(keys) > 1
    return Manifest(
        key=next(iter(keys)),
        offsets=offsets.reshape(-1),
        nbytes=nbytes.reshape(-1),
        keys=tuple(keys) if several else (),
        object_id=objects.reshape(-1) if several else None,
    )


def check_entries(claimed: int, stored: int, spec: ArraySpec) -> None:
    """Refuse chunk tables that are nearly all made up; `claimed` entries, `stored` in the file."""
    if claimed > max(_MAX_EMPTY_ENTRIES, 16 * stored):
        msg = (
            f"{spec.attributes.get('image')} of {spec.source!r}: {claimed} chunks, "
            f"of which the file holds {stored}"
        )
        raise UnsupportedFormatError(msg)


def stack_placed(planes: Sequence[ArraySpec]) -> ArraySpec:
    """Focal planes whose tiles lie in the same places, as one array ``(z, y, x, c)``."""
    first = planes[0]
    assert first.placement is not None
    assert first.chunk_starts is not None
    _, columns, _ = first.placement.grid_shape
    # the table ends with an entry for cells of no tile: a row of it, so that names are right
    rows = -(-len(manifest_of(first).nbytes) // columns)
    offsets = np.zeros((len(planes), rows * columns), np.int64)
    nbytes = np.full(offsets.shape, MISSING_NBYTES, np.int64)
    chunk = []
    for index, plane in enumerate(planes):
        table = manifest_of(plane)
        if not _lies_alike(first, plane):
            msg = f"{first.attributes['image']} of {first.source!r}: unlike focal planes"
            raise UnsupportedFormatError(msg)
        assert plane.placement is not None
        offsets[index, : len(table.nbytes)] = table.offsets
        nbytes[index, : len(table.nbytes)] = table.nbytes
        chunk.append(plane.placement.chunk + index * rows * columns)
    origin = np.tile(first.placement.origin, len(planes))
    return replace(
        first,
        shape=(len(planes), *first.shape),
        chunk_shape=(1, *first.chunk_shape),
        axis_order=(0, 1, 2, 3),
        dimension_names=("z", *first.dimension_names),
        location=replace(
            manifest_of(first), offsets=offsets.reshape(-1), nbytes=nbytes.reshape(-1)
        ),
        chunk_starts=(None, *first.chunk_starts),
        placement=Placement(
            (len(planes), rows, columns, 1),
            np.concatenate(chunk),
            np.concatenate([np.zeros((1, origin.shape[1]), np.int64), origin]),
        ),
    )


def manifest_of(spec: ArraySpec) -> Manifest:
    """Location of an array of a TIFF."""
    assert isinstance(spec.location, Manifest)
    return spec.location


def _lies_alike(first: ArraySpec, other: ArraySpec) -> bool:
    """Whether two placed arrays have the same cells of equally stored tiles."""
    cells = zip(first.chunk_starts or (), other.chunk_starts or (), strict=True)
    same = all(
        a is b or (a is not None and b is not None and np.array_equal(a, b)) for a, b in cells
    )
    stored = (first.codecs, first.dtype, first.chunk_shape)
    return same and stored == (other.codecs, other.dtype, other.chunk_shape)
