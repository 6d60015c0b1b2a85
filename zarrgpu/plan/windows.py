"""The part of each chunk that a plan needs, where a part can be had.

A window is a run of whole rows of a stored chunk: single elements on the slowest axes, a range on
the next, everything on the rest, so that its bytes are one range of the decoded chunk. Of an
uncompressed chunk only that range is fetched; of a Blosc chunk only its blocks are decoded; of a
zstd chunk nothing after it; of a JPEG image nothing after it, and of what comes before only the
entropy code; of a JPEG 2000 image the code-blocks that it depends on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from zarrgpu.model import ArraySpec
from zarrgpu.plan.locate import ChunkLocations
from zarrgpu.plan.request import ReadRequest
from zarrgpu.plan.tables import ChunkWindows, Int64s, PieceTable

_IMAGES = ("jpeg", "jpeg2k")
_DECODED_IN_PARTS = ("blosc", "zstd", *_IMAGES)
_LEAST_NBYTES = 16 << 10
"""Decoded bytes that a window must save, whatever the store says."""

_ZSTD_LEAST_NBYTES = 48 << 10
"""The same of a zstd chunk, which is decoded in blocks of 128 KiB."""


def find_windows(
    request: ReadRequest,
    narrow: Sequence[bool],
    array: NDArray[np.int32],
    stored_nbytes: Int64s,
    pieces: PieceTable,
    piece_start: Int64s,
    *,
    least_saved_bytes: int,
) -> ChunkWindows | None:
    """Find the windows of all chunks of a plan; None if all of them are needed whole.

    Parameters
    ----------
    request : ReadRequest
    narrow : sequence of bool
        Whether parts may be read, of each of the request's arrays.
    array : int32 (C,)
        Of each chunk, ascending.
    stored_nbytes : int64 (C,)
        Encoded size of each chunk, negative where it is not known.
    pieces : PieceTable
    piece_start : int64 (C + 1,)
    least_saved_bytes : int
        A window that leaves out less than this, or less than half, is not worth a range.
    """
    shapes = np.array([spec.chunk_shape for spec in request.arrays], np.int64)
    shapes = shapes.reshape(len(request.arrays), len(request.count))
    sizes = np.array([spec.chunk_nbytes for spec in request.arrays], np.int64)
    n = len(array)
    box = np.zeros((len(request.count), n), np.int64)
    windows = ChunkWindows(
        box, box.copy(), np.zeros(n, np.int64), np.zeros(n, np.int64), np.ones(n, np.bool_)
    )
    for index in np.unique(array).tolist():
        spec = request.arrays[index]
        if not (narrow[index] and _has_parts(spec)):
            continue
        rows = slice(*np.searchsorted(array, [index, index + 1]).tolist())
        _fill_windows(windows, rows, spec, request.step, pieces, piece_start, least_saved_bytes)
        if not spec.codecs:  # a chunk of another size is read whole, and refused
            stored = stored_nbytes[rows]
            windows.whole[rows] |= (stored >= 0) & (stored != spec.chunk_nbytes)
    _widen(windows, shapes[array].T, sizes[array])
    return None if windows.whole.all() else windows


def _widen(windows: ChunkWindows, shape: Int64s, nbytes: Int64s) -> None:
    """Let the windows of whole chunks be all of them."""
    whole = windows.whole
    windows.origin[:, whole], windows.start[whole] = 0, 0
    windows.shape[:, whole], windows.nbytes[whole] = shape[:, whole], nbytes[whole]


def _is_zstd(spec: ArraySpec) -> bool:
    return tuple(codec.name for codec in spec.codecs) == ("zstd",)


def _is_image(spec: ArraySpec) -> bool:
    return tuple(codec.name for codec in spec.codecs) in {(name,) for name in _IMAGES}


def _has_parts(spec: ArraySpec) -> bool:
    names = tuple(codec.name for codec in spec.codecs)
    in_parts = not names or (len(names) == 1 and names[0] in _DECODED_IN_PARTS)
    return in_parts and not spec.dtype.hasobject


def _fill_windows(
    windows: ChunkWindows,
    rows: slice,
    spec: ArraySpec,
    step: tuple[int, ...],
    pieces: PieceTable,
    piece_start: Int64s,
    least_saved_bytes: int,
) -> None:
    """Set the windows of the chunks of one array."""
    first = piece_start[rows.start : rows.stop]
    last = int(piece_start[rows.stop])
    n = rows.stop - rows.start
    outer = np.ones(n, np.bool_)  # single elements on all axes so far
    start, nbytes = np.zeros(n, np.int64), np.full(n, spec.dtype.itemsize, np.int64)
    origin, shape = np.zeros((spec.ndim, n), np.int64), np.ones((spec.ndim, n), np.int64)
    for axis in spec.axis_order:
        src = pieces.src[axis, first[0] : last]
        end = src + (pieces.extent[axis, first[0] : last] - 1) * step[axis] + 1
        low = np.minimum.reduceat(src, first - first[0])
        high = np.maximum.reduceat(end, first - first[0])
        size = spec.chunk_shape[axis]
        low, high = np.where(outer, low, 0), np.where(outer, high, size)
        start = start * size + low
        nbytes = nbytes * (high - low)
        origin[axis], shape[axis] = low, high - low
        outer &= high - low == 1
    # a zstd chunk is decoded from its beginning
    needed = start * spec.dtype.itemsize + nbytes if _is_zstd(spec) else nbytes
    saved = spec.chunk_nbytes - needed
    least = max(_LEAST_NBYTES, least_saved_bytes if not spec.codecs else 0)
    windows.origin[:, rows], windows.shape[:, rows] = origin, shape
    windows.start[rows], windows.nbytes[rows] = start * spec.dtype.itemsize, nbytes
    windows.whole[rows] = saved < (_ZSTD_LEAST_NBYTES if _is_zstd(spec) else least)
    if not (_is_zstd(spec) or _is_image(spec)):  # whose parts cost nothing more than the whole
        windows.whole[rows] |= 2 * nbytes > spec.chunk_nbytes


def in_windows(pieces: PieceTable, windows: ChunkWindows) -> PieceTable:
    """Pieces whose ``src`` counts from the origin of their chunk's window."""
    return replace(pieces, src=pieces.src - windows.origin[:, pieces.chunk])


def narrowed(
    request: ReadRequest,
    array: NDArray[np.int32],
    locations: ChunkLocations,
    windows: ChunkWindows,
) -> ChunkLocations:
    """Byte ranges of the windows of uncompressed chunks; other chunks are fetched whole."""
    raw = np.array([not spec.codecs for spec in request.arrays], np.bool_)[array]
    part = raw & ~windows.whole
    return ChunkLocations(
        locations.object_id,
        locations.offset + np.where(part, windows.start, 0),
        np.where(part, windows.nbytes, locations.nbytes),
    )
