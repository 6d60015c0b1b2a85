"""`DeepZoomGenerator`: a slide as Deep Zoom tiles, under openslide-python's names.

Level 0 is one pixel, the last is the slide; each is half as large as the next, rounded up. Tiles
are made from the slide's nearest finer level, as `magnification` says, where openslide-python
shrinks what it has read of a tile with Lanczos' filter: geometry is the same, pixels differ a
little. As there, the last column and row of a level stretch to the slide's edge.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from io import BytesIO
from typing import Any, TypeAlias
from xml.etree.ElementTree import Element, ElementTree, SubElement

import numpy as np

from zarrgpu.errors import SelectionError
from zarrgpu.magnified_slide import MagnifiedSlide
from zarrgpu.slide import Slide

Pair: TypeAlias = tuple[int, int]

_BOUNDS = "openslide.bounds-"
_NAMESPACE = "http://schemas.microsoft.com/deepzoom/2008"


class DeepZoomGenerator:
    """Tiles and metadata of a Deep Zoom image.

    Parameters
    ----------
    osr : Slide or MagnifiedSlide
        The parameters' names are openslide-python's.
    tile_size : int
        Width and height of a tile without overlap.
    overlap : int
        Pixels added to each inner edge of a tile.
    limit_bounds : bool
        Whether to show only what the slide's ``openslide.bounds-*`` name.

    Raises
    ------
    ValueError
        For a tile size below 1 or a negative overlap.
    """

    def __init__(
        self,
        osr: Slide | MagnifiedSlide,
        tile_size: int = 254,
        overlap: int = 1,
        limit_bounds: bool = False,  # noqa: FBT001, FBT002 - openslide-python's signature
    ) -> None:
        if tile_size < 1 or overlap < 0:
            msg = f"tile_size must be at least 1 and overlap at least 0, got {tile_size}, {overlap}"
            raise ValueError(msg)
        self._slide = osr
        self._tile_size, self._overlap, self._limit_bounds = tile_size, overlap, limit_bounds
        self._offset, self._slide_sizes = (0, 0), tuple(osr.level_dimensions)
        if limit_bounds:
            self._offset, self._slide_sizes = _bounds(osr)
        sizes = [self._slide_sizes[0]]
        while max(sizes[-1]) > 1:
            width, height = sizes[-1]
            sizes.append((max(1, -(-width // 2)), max(1, -(-height // 2))))
        self._sizes: tuple[Pair, ...] = tuple(reversed(sizes))
        self._tiles = tuple((-(-w // tile_size), -(-h // tile_size)) for w, h in self._sizes)
        self._downsamples = [1 << level for level in reversed(range(len(sizes)))]
        self._slide_level = [osr.get_best_level_for_downsample(d) for d in self._downsamples]

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self._slide!r}, tile_size={self._tile_size!r}, "
            f"overlap={self._overlap!r}, limit_bounds={self._limit_bounds!r})"
        )

    @property
    def level_count(self) -> int:
        """Number of Deep Zoom levels."""
        return len(self._sizes)

    @property
    def level_tiles(self) -> tuple[Pair, ...]:
        """(columns, rows) of tiles of each level."""
        return self._tiles

    @property
    def level_dimensions(self) -> tuple[Pair, ...]:
        """(width, height) of each level in its pixels."""
        return self._sizes

    @property
    def tile_count(self) -> int:
        """Tiles of all levels."""
        return sum(columns * rows for columns, rows in self._tiles)

    def get_tile(self, level: int, address: Pair, **options: Any) -> Any:
        """Read one tile; see `get_tiles`."""
        return self.get_tiles(level, [address], **options)[0]

    def get_tiles(self, level: int, addresses: Sequence[Pair], **options: Any) -> list[Any]:
        """Read tiles of a level, those of one size in one plan.

        Parameters
        ----------
        level : int
            Of Deep Zoom: 0 is one pixel.
        addresses : sequence of (int, int)
            (column, row) of each tile.
        **options
            As for `Slide.read_regions`, but `out` and `on_error`.

        Returns
        -------
        list of arrays of the device, each of shape (height, width, channels), or (channels, height,
        width) for ``layout="NCHW"``
            As `addresses`; `get_tile_dimensions` says how large each is.

        Raises
        ------
        ValueError
            For a level or an address that is not there.
        SelectionError
            For pixels of a type that is not resampled.
        """
        for name in {"out", "on_error"} & options.keys():
            msg = f"get_tiles takes no {name}"
            raise SelectionError(msg)
        boxes = [self._box(level, address) for address in addresses]
        tiles: list[Any] = [None] * len(boxes)
        # by size and step, which is another one where a tile is stretched to the edge
        for kind in dict.fromkeys((size, step) for _, size, step in boxes):
            rows = [row for row, (_, size, step) in enumerate(boxes) if (size, step) == kind]
            corners = np.array([boxes[row][0] for row in rows], np.float64)
            read, _ = self._slide.read_scaled(corners, kind[1], kind[0], **options)
            for row, tile in zip(rows, read, strict=True):
                tiles[row] = tile
        return tiles

    def get_tile_coordinates(self, level: int, address: Pair) -> tuple[Pair, int, Pair]:
        """Arguments of `read_region` for what a tile shows, as openslide-python has them.

        Returns
        -------
        location, level, size
            Of the slide; a tile is read with other, exact ones.
        """
        starts, sizes = self._span(level, address)
        slide_level = self._slide_level[level]
        own = self._slide.level_downsamples[slide_level]
        ratio = self._downsamples[level] / own
        location, size = [], []
        for axis in (0, 1):
            start = ratio * starts[axis]
            location.append(int(own * start + self._offset[axis]))
            most = self._slide_sizes[slide_level][axis] - math.ceil(start)
            size.append(int(min(math.ceil(ratio * sizes[axis]), most)))
        return (location[0], location[1]), slide_level, (size[0], size[1])

    def get_tile_dimensions(self, level: int, address: Pair) -> Pair:
        """(width, height) of a tile in pixels."""
        return self._span(level, address)[1]

    def get_dzi(self, format: str) -> str:
        """XML of the ``.dzi`` file.

        Parameters
        ----------
        format : str
            Of the tiles: ``"png"`` or ``"jpeg"``.
        """
        image = Element(
            "Image",
            TileSize=str(self._tile_size),
            Overlap=str(self._overlap),
            Format=format,
            xmlns=_NAMESPACE,
        )
        width, height = self._sizes[-1]
        SubElement(image, "Size", Width=str(width), Height=str(height))
        text = BytesIO()
        ElementTree(element=image).write(text, encoding="UTF-8")
        return text.getvalue().decode("UTF-8")

    def _span(self, level: int, address: Pair) -> tuple[Pair, Pair]:
        """First pixel and size of a tile, overlaps included, in pixels of the Deep Zoom level."""
        if not 0 <= level < self.level_count:
            msg = f"Invalid level: {level!r} is outside of 0..{self.level_count - 1}"
            raise ValueError(msg)
        starts, sizes = [], []
        for place, count, full in zip(address, self._tiles[level], self._sizes[level], strict=True):
            if not 0 <= place < count:
                msg = f"Invalid address: {address!r}, level {level} has {self._tiles[level]} tiles"
                raise ValueError(msg)
            before = self._overlap if place else 0
            after = self._overlap if place != count - 1 else 0
            start = place * self._tile_size
            starts.append(start - before)
            sizes.append(min(self._tile_size, full - start) + before + after)
        return (starts[0], starts[1]), (sizes[0], sizes[1])

    def _box(
        self, level: int, address: Pair
    ) -> tuple[tuple[float, float], Pair, tuple[float, float]]:
        """Corner of a tile in level-0 pixels, its size, and level-0 pixels per pixel."""
        starts, sizes = self._span(level, address)
        downsample = self._downsamples[level]
        corner, step = [], []
        for axis in (0, 1):
            begin = starts[axis] * downsample
            end = min(begin + sizes[axis] * downsample, self._slide_sizes[0][axis])
            corner.append(float(begin + self._offset[axis]))
            step.append((end - begin) / sizes[axis])
        return (corner[0], corner[1]), sizes, (step[0], step[1])


def _bounds(slide: Slide | MagnifiedSlide) -> tuple[Pair, tuple[Pair, ...]]:
    """Corner of the slide's bounds and the size of each level within them."""
    properties = slide.properties
    offset = [int(properties.get(_BOUNDS + axis, 0)) for axis in "xy"]
    full = slide.dimensions
    scale = [
        int(properties.get(_BOUNDS + name, most)) / most
        for name, most in zip(("width", "height"), full, strict=True)
    ]
    sizes = tuple(
        (math.ceil(w * scale[0]), math.ceil(h * scale[1])) for w, h in slide.level_dimensions
    )
    return (offset[0], offset[1]), sizes
