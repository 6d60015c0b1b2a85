"""Tiles at places of their own, which may overlap, as a grid of cells of one tile each.

Each tile paints a rectangle of the level, later ones over earlier ones. The edges of all rectangles
cut the level into rows and columns of cells, so that each cell shows one tile or none. Rows that
show the same as the row above are joined with it, and columns likewise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from zarrgpu.errors import MetadataError, UnsupportedFormatError
from zarrgpu.model import MISSING_NBYTES, ArraySpec, Manifest, Placement

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MAX_CELLS: Final = 1 << 24
_MAX_PAINTED: Final = 1 << 28
"""Cells that all tiles take together, those below others included: a second of painting."""
_MAX_SIDE: Final = (1 << 31) - 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlacedTiles:
    """Rectangles of tiles, in the order in which they are painted (T rows).

    Attributes
    ----------
    chunk : int64 (T,)
        Position of the tile in the page's table. May repeat: a tile may be cut into several.
    start : int64 (2, T)
        First row and column within the level.
    extent : int64 (2, T)
        Rows and columns that are painted, at least 1.
    origin : int64 (2, T)
        First row and column within the tile.
    """

    chunk: NDArray[np.int64]
    start: NDArray[np.int64]
    extent: NDArray[np.int64]
    origin: NDArray[np.int64]

    def take(self, rows: NDArray[np.intp]) -> PlacedTiles:
        """Some of the tiles, in the given order."""
        return PlacedTiles(
            chunk=self.chunk[rows],
            start=self.start[:, rows],
            extent=self.extent[:, rows],
            origin=self.origin[:, rows],
        )


def place_tiles(spec: ArraySpec, tiles: PlacedTiles, size: tuple[int, int]) -> ArraySpec:
    """Give an array of tiles ``(y, x, c)`` the places of its tiles.

    Parameters
    ----------
    spec : ArraySpec
        As `tiff.page_to_array_spec` makes it; tiles that are not stored paint nothing.
    tiles : PlacedTiles
    size : (int, int)
        Rows and columns of the result.

    Raises
    ------
    MetadataError
        A tile lies outside of the result, or is not one of the page.
    UnsupportedFormatError
        Samples are stored apart, or there are so many tiles in so irregular places that planning
        would take too long.
    """
    location = spec.location
    if not isinstance(location, Manifest):
        raise TypeError  # pragma: no cover - pages have manifests
    image = spec.attributes.get("image")
    if spec.grid_shape[2] != 1:
        msg = f"{image} of {spec.source!r}: overlapping tiles of samples stored apart"
        raise UnsupportedFormatError(msg)
    if not all(0 < side <= _MAX_SIDE for side in size):
        msg = f"{image}: tiles cover {size[1]} x {size[0]} pixels"
        raise MetadataError(msg, source=spec.source)
    end = tiles.start + tiles.extent
    inside = (tiles.start >= 0).all() and (end <= np.array(size)[:, None]).all()
    known = ((tiles.chunk >= 0) & (tiles.chunk < len(location.nbytes))).all()
    if not inside or not known:
        msg = f"{image}: tiles lie outside of its {size[1]} x {size[0]} pixels, or are not there"
        raise MetadataError(msg, source=spec.source)
    tiles = tiles.take(np.flatnonzero(location.nbytes[tiles.chunk] != MISSING_NBYTES))
    starts = [_breaks(tiles, axis, size[axis]) for axis in (0, 1)]
    cells = tuple(len(each) - 1 for each in starts)
    shown = _paint(tiles, starts, cells) if cells[0] * cells[1] <= _MAX_CELLS else None
    if shown is None:
        msg = f"{image} of {spec.source!r}: {len(tiles.chunk)} tiles in places that form no grid"
        raise UnsupportedFormatError(msg)
    kept = [_kept(shown), _kept(shown.T)]
    shown = shown[np.ix_(*kept)]
    edges = [np.append(each[rows], each[-1]) for each, rows in zip(starts, kept, strict=True)]
    return _with_cells(spec, location, tiles, shown, edges, size)


def _breaks(tiles: PlacedTiles, axis: int, size: int) -> NDArray[np.int64]:
    """Where along an axis a tile begins or ends, and both ends of the axis."""
    start = tiles.start[axis]
    return np.unique(np.concatenate([[0, size], start, start + tiles.extent[axis]]))


def _paint(
    tiles: PlacedTiles, starts: list[NDArray[np.int64]], cells: tuple[int, ...]
) -> NDArray[np.int64] | None:
    """Tile that each cell shows, -1 for none; None if so many tiles lie over one another."""
    first = [np.searchsorted(starts[a], tiles.start[a]) for a in (0, 1)]
    last = [np.searchsorted(starts[a], tiles.start[a] + tiles.extent[a]) for a in (0, 1)]
    if int(((last[0] - first[0]) * (last[1] - first[1])).sum()) > _MAX_PAINTED:
        return None
    shown = np.full(cells, -1, np.int64)
    edges = (edge.tolist() for edge in (*first, *last))
    for tile, (top, left, bottom, right) in enumerate(zip(*edges, strict=True)):
        shown[top:bottom, left:right] = tile
    return shown


def _kept(shown: NDArray[np.int64]) -> NDArray[np.intp]:
    """Rows that show other tiles than the row before: a tile is one rectangle, so they continue."""
    differs = np.ones(len(shown), np.bool_)
    differs[1:] = (shown[1:] != shown[:-1]).any(axis=1)
    return np.flatnonzero(differs)


def _with_cells(
    spec: ArraySpec,
    location: Manifest,
    tiles: PlacedTiles,
    shown: NDArray[np.int64],
    edges: list[NDArray[np.int64]],
    size: tuple[int, int],
) -> ArraySpec:
    """The array with the cells that `shown` and `edges` describe."""
    flat = shown.reshape(-1)
    empty = flat < 0
    missing = len(location.nbytes)  # a row behind the last tile
    chunk = np.where(empty, missing, tiles.chunk[flat]) if len(tiles.chunk) else flat * 0 + missing
    objects = location.object_id
    origin = np.zeros((3, flat.size), np.int64)
    if len(tiles.chunk):
        begins = np.meshgrid(edges[0][:-1], edges[1][:-1], indexing="ij")
        for axis in (0, 1):
            within = begins[axis].reshape(-1) - tiles.start[axis][flat] + tiles.origin[axis][flat]
            origin[axis] = np.where(empty, 0, within)
    return replace(
        spec,
        shape=(*size, spec.shape[2]),
        location=replace(
            location,
            offsets=np.append(location.offsets, 0),
            nbytes=np.append(location.nbytes, MISSING_NBYTES),
            object_id=None if objects is None else np.append(objects, 0),
        ),
        chunk_starts=(edges[0], edges[1], None),
        placement=Placement(spec.grid_shape, chunk, origin),
    )
