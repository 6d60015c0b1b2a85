"""Tiles that a scanner lost: which are missing, and from which level they are made instead.

OpenSlide's rule for Aperio (openslide-vendor-aperio.c), which opentile follows too: a tile of zero
bytes is missing, and so is the tile of the next level that covers it, because such tiles were made
from nothing and are often corrupt. A missing tile is rendered from the level before it; at level 0
it stays empty.

A level with missing tiles gets a `substitute`: an array of uncompressed chunks in an object that no
store has. `rendered_tiles` makes its bytes from the finer level when they are read, so that a level
without missing tiles costs nothing, and engines see but another array.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

from zarrgpu.model import MISSING_NBYTES, ArraySpec, Manifest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

RENDERED_KEY: Final = "rendered from the finer level"
_MAX_SPACING_NBYTES: Final = 1 << 40
"""Between chunks of the object: more than any gap that is worth reading over."""

_MAX_SHRINK: Final = 64
_MAX_DOWNSAMPLE: Final = 256
_MAX_DEPTH: Final = 16
"""Levels further apart, coarser or deeper keep the fill value: no scanner writes them, and each of
their pixels would read thousands."""


def substitute_missing_tiles(levels: Sequence[ArraySpec]) -> tuple[ArraySpec, ...]:
    """Mark the tiles that cover missing ones as missing too, and let finer levels supply them.

    Parameters
    ----------
    levels : sequence of ArraySpec
        With axes ``(y, x, c)`` and manifests, finest first.
    """
    if any(level.chunk_shape[2] < level.shape[2] for level in levels):
        return tuple(levels)  # planes stored apart, which no scanner writes
    result = list(levels[:1])
    for depth, level in enumerate(levels[1:], start=1):
        finer = result[-1]
        marked = _covering(finer, level)
        shrink, downsample = (
            max(other.shape[axis] / level.shape[axis] for axis in (0, 1))
            for other in (finer, levels[0])
        )
        missing = np.flatnonzero(_manifest(marked).nbytes == MISSING_NBYTES)
        usual = 1 <= shrink <= _MAX_SHRINK and downsample <= _MAX_DOWNSAMPLE
        if missing.size and usual and depth <= _MAX_DEPTH:
            marked = replace(marked, substitute=_substitute(marked, missing))
        result.append(marked)
    return tuple(result)


def _manifest(level: ArraySpec) -> Manifest:
    assert isinstance(level.location, Manifest)
    return level.location


def _covering(finer: ArraySpec, level: ArraySpec) -> ArraySpec:
    """`level` without the tiles that cover a missing one of `finer`."""
    missing = np.flatnonzero(_manifest(finer).nbytes == MISSING_NBYTES)
    if not missing.size:
        return level
    rows, columns = finer.grid_shape[:2]
    down, across = level.grid_shape[:2]
    # tiles of the finer level per tile of this one, as OpenSlide counts them
    tall, wide = max(int(rows / down + 0.5), 1), max(int(columns / across + 0.5), 1)
    row, column = missing // columns // tall, missing % columns // wide
    inside = (row < down) & (column < across)
    nbytes = _manifest(level).nbytes.copy()
    nbytes[row[inside] * across + column[inside]] = MISSING_NBYTES
    return replace(level, location=replace(_manifest(level), nbytes=nbytes))


def _substitute(level: ArraySpec, missing: NDArray[np.intp]) -> ArraySpec:
    """Array of the level's missing chunks, uncompressed, far from one another in their object."""
    n = int(_manifest(level).nbytes.size)
    spacing = max(level.chunk_nbytes, min(_MAX_SPACING_NBYTES, (1 << 61) // missing.size))
    offsets, nbytes = np.zeros(n, np.int64), np.full(n, MISSING_NBYTES, np.int64)
    offsets[missing] = np.arange(missing.size) * spacing
    nbytes[missing] = level.chunk_nbytes
    return replace(
        level,
        dtype=level.dtype.newbyteorder("="),
        codecs=(),
        location=Manifest(key=RENDERED_KEY, offsets=offsets, nbytes=nbytes),
    )
