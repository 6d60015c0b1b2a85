"""Which frame shows which tile: the order that `TILED_FULL` fixes, or the places that frames state.

Spec: PS3.3, C.7.6.17.3 (`TILED_FULL`: columns, then rows, then focal planes, then optical paths)
and C.8.12.6.1 (plane position). Tiles lie on a grid, or are not read. What no frame shows is
missing, and reads as the slide's fill value; OpenSlide gives it as transparent black.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from zarrgpu.errors import UnsupportedFormatError
from zarrgpu.formats.dicom_file import DIMENSION_ORGANIZATION_TYPE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from zarrgpu.formats.dicom_file import DicomFile, FramePositions

MAX_TILES: Final = 1 << 26
"""Tiles of a level; more is refused as absurd."""

MAX_SPARSE_TILES: Final = 1 << 20
MAX_TILES_PER_FRAME: Final = 64
"""A grid of more tiles than the one is refused if it has more than the other for each frame."""

_HEIGHT, _WIDTH = 0x00480007, 0x00480006
_PLANES, _N_PATHS, _PATHS = 0x00480303, 0x00480302, 0x00480105
_PATH_IDENTIFIER, _PATH_DESCRIPTION = 0x00480106, 0x00480107
_NUMBER_OF_FRAMES: Final = 0x00280008
_PER_FRAME: Final = 0x52009230
_COLUMN, _ROW = 0x0048021E, 0x0048021F
_MAX_SIDE: Final = (1 << 32) - 1
_MAX_PLANES: Final = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class TileGrid:
    """Size of a level, and of the grid of tiles that cover it.

    Attributes
    ----------
    height, width : int
        Pixels.
    paths : tuple of str
        Optical paths: identifiers, in order.
    path_names : tuple of str
        Their descriptions, or the identifiers.
    planes : int
        Focal planes that are stated.
    down, across : int
        Tiles.
    """

    height: int
    width: int
    paths: tuple[str, ...]
    path_names: tuple[str, ...]
    planes: int
    down: int
    across: int

    @property
    def n_tiles(self) -> int:
        """Tiles of all planes and optical paths."""
        return len(self.paths) * self.planes * self.down * self.across


def tile_grid(file: DicomFile, rows: int, columns: int) -> TileGrid:
    """Grid of a file whose tiles have `rows` and `columns`; `MetadataError` if it is absurd."""
    at = file.attributes
    height, width = at.integer(_HEIGHT, 1, _MAX_SIDE), at.integer(_WIDTH, 1, _MAX_SIDE)
    paths = at.items(_PATHS)
    count = at.integer(_N_PATHS, 1, _MAX_PLANES, max(len(paths), 1))
    if paths and count != len(paths):
        raise at.fail(_N_PATHS, f"is {count}, but {len(paths)} optical paths are described")
    identifiers = [path.text(_PATH_IDENTIFIER) for path in paths] or [""] * count
    names = [path.text(_PATH_DESCRIPTION) for path in paths] or [""] * count
    grid = TileGrid(
        height=height,
        width=width,
        paths=tuple(identifiers),
        path_names=tuple(n or i for n, i in zip(names, identifiers, strict=True)),
        planes=at.integer(_PLANES, 1, _MAX_PLANES, 1),
        down=-(-height // rows),
        across=-(-width // columns),
    )
    if grid.n_tiles > MAX_TILES:
        message = f"{grid.n_tiles} tiles of {rows} x {columns}, expected at most {MAX_TILES}"
        raise at.fail(_WIDTH, message)
    return grid


def number_of_frames(file: DicomFile) -> int:
    """Frames that a file states to have."""
    return file.attributes.integer(_NUMBER_OF_FRAMES, 1, MAX_TILES, 1)


def place_frames(
    files: Sequence[DicomFile], grid: TileGrid, tile: tuple[int, int]
) -> NDArray[np.int64]:
    """Frame of each tile, or -1; frames of all `files`, which are parts of one image, in order.

    Parameters
    ----------
    files : sequence of DicomFile
    grid : TileGrid
    tile : (int, int)
        Rows and columns.

    Returns
    -------
    int64 array, shape (paths, planes, down, across)

    Raises
    ------
    MetadataError
        Frames are too few, too many, in one another's place or outside of the slide.
    UnsupportedFormatError
        Tiles that do not lie on the grid; an organization that is not tiled.
    """
    first = files[0]
    kind = first.attributes.text(DIMENSION_ORGANIZATION_TYPE)
    n_frames = sum(number_of_frames(file) for file in files)
    if kind not in ("", "TILED_FULL", "TILED_SPARSE", "3D"):
        msg = f"{first.source!r}: frames organized as {kind[:40]!r} are not read, only tiles are"
        raise UnsupportedFormatError(msg)
    stated = any(file.positions.stated for file in files)
    if kind == "TILED_FULL" or not (stated or kind == "TILED_SPARSE"):
        if n_frames != grid.n_tiles:
            what = f"{len(grid.paths)} optical paths, {grid.planes} focal planes"
            message = (
                f"{n_frames} frames, expected {grid.n_tiles}: {grid.down} x {grid.across} tiles, "
                f"{what}"
            )
            raise first.attributes.fail(_NUMBER_OF_FRAMES, message)
        shape = (len(grid.paths), grid.planes, grid.down, grid.across)
        return np.arange(n_frames, dtype=np.int64).reshape(shape)
    for file in files:
        if len(file.positions.columns) != number_of_frames(file):
            message = f"has {len(file.positions.columns)} items for {number_of_frames(file)} frames"
            raise file.attributes.fail(_PER_FRAME, message)
    return _sparse(files, grid, tile)


def _sparse(files: Sequence[DicomFile], grid: TileGrid, tile: tuple[int, int]) -> NDArray[np.int64]:
    first = files[0]
    positions = [file.positions for file in files]
    row = _coordinate(first, [p.rows for p in positions], tile[0], grid.down, _ROW)
    column = _coordinate(first, [p.columns for p in positions], tile[1], grid.across, _COLUMN)
    path = _path_index(first, grid, positions)
    z = np.array([value for p in positions for value in p.z], np.float64)
    cells = (path * grid.down + row) * grid.across + column
    if len(np.unique(cells)) == len(cells):
        planes, plane = 1, np.zeros(len(cells), np.int64)  # heights follow the tissue
    else:
        heights, plane = np.unique(z, return_inverse=True)
        planes = len(heights)
    shape = (len(grid.paths), planes, grid.down, grid.across)
    most = min(max(MAX_SPARSE_TILES, MAX_TILES_PER_FRAME * len(cells)), MAX_TILES)
    if math.prod(shape) > most:
        message = f"{math.prod(shape)} tiles in {planes} focal planes, of which {len(cells)} are "
        raise first.attributes.fail(_PER_FRAME, message + f"there; expected at most {most}")
    frames: NDArray[np.int64] = np.full(shape, -1, np.int64)
    index = np.arange(len(cells), dtype=np.int64)
    place = (path, plane.reshape(-1), row, column)
    frames[place] = index
    doubled = np.flatnonzero(frames[place] != index)
    if len(doubled):
        frame = int(doubled[0])
        other = int(frames[tuple(axis[frame] for axis in place)])
        message = f"frames {frame} and {other} are in one place"
        raise first.attributes.fail(_PER_FRAME, message)
    return frames


def _coordinate(
    file: DicomFile, positions: list[list[int]], length: int, count: int, tag: int
) -> NDArray[np.int64]:
    """Tile coordinate of each frame along an axis."""
    start = np.array([value for values in positions for value in values], np.int64) - 1
    outside = np.flatnonzero((start < 0) | (start >= count * length))
    if len(outside):
        frame = int(outside[0])
        message = f"frame {frame} begins at {start[frame] + 1}, expected 1 to {count * length}"
        raise file.attributes.fail(tag, message)
    coordinate, rest = np.divmod(start, length)
    if rest.any():
        frame = int(np.flatnonzero(rest)[0])
        msg = (
            f"{file.source!r}: frame {frame} begins at {start[frame] + 1}, which is not on the "
            f"grid of tiles of {length}; such slides are not read"
        )
        raise UnsupportedFormatError(msg)
    return coordinate


def _path_index(
    file: DicomFile, grid: TileGrid, positions: Sequence[FramePositions]
) -> NDArray[np.int64]:
    names = [name for p in positions for name in p.paths]
    if len(grid.paths) == 1:
        return np.zeros(len(names), np.int64)
    index = {name: number for number, name in enumerate(grid.paths)}
    unknown = [frame for frame, name in enumerate(names) if name not in index]
    if unknown:
        frame = unknown[0]
        message = f"frame {frame} is of optical path {names[frame][:40]!r}, expected one of "
        raise file.attributes.fail(_PER_FRAME, message + f"{grid.paths}")
    return np.array([index[name] for name in names], np.int64)
