"""`DeepZoomGenerator` with Pillow's images, shrunk as openslide-python shrinks them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zarrgpu import deepzoom
from zarrgpu.errors import SelectionError
from zarrgpu.interop.openslide.abstract import AbstractSlide, on_background, pillow
from zarrgpu.interop.openslide.slide import OpenSlide


class DeepZoomGenerator(deepzoom.DeepZoomGenerator):
    """Tiles and metadata of a Deep Zoom image.

    Parameters
    ----------
    osr : OpenSlide or ImageSlide
        Of `zarrgpu.interop.openslide`.
    tile_size, overlap, limit_bounds
        As for `zarrgpu.DeepZoomGenerator`, which gives arrays, many tiles at a time.
    """

    def __init__(
        self,
        osr: AbstractSlide,
        tile_size: int = 254,
        overlap: int = 1,
        limit_bounds: bool = False,  # noqa: FBT001, FBT002 - openslide-python's signature
    ) -> None:
        slide: Any = osr.slide if isinstance(osr, OpenSlide) else osr
        super().__init__(slide, tile_size, overlap, limit_bounds)
        self._osr = osr

    def get_tiles(
        self, level: int, addresses: Sequence[tuple[int, int]], **options: Any
    ) -> list[Any]:
        """Tiles as arrays (`zarrgpu.DeepZoomGenerator`); not of an `ImageSlide`."""
        if not isinstance(self._osr, OpenSlide):
            msg = f"{self._osr!r} has no tiles as arrays; get_tile gives images"
            raise SelectionError(msg)
        return super().get_tiles(level, addresses, **options)

    def get_tile(self, level: int, address: tuple[int, int], **options: Any) -> Any:
        """RGB ``PIL.Image`` of a tile; with options an array (`zarrgpu.DeepZoomGenerator`)."""
        if options:
            return super().get_tile(level, address, **options)
        region = self._osr.read_region(*self.get_tile_coordinates(level, address))
        tile = on_background(region, self._osr.properties)
        size = self.get_tile_dimensions(level, address)
        if tile.size != size:
            tile.thumbnail(size, pillow().Resampling.LANCZOS)
        if "icc_profile" in region.info:
            tile.info["icc_profile"] = region.info["icc_profile"]
        return tile
