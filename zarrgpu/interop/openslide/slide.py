"""`OpenSlide`: a slide that gives Pillow's images."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from zarrgpu.array import Array
from zarrgpu.chunk_cache import ChunkCache
from zarrgpu.errors import MissingDependencyError, SelectionError
from zarrgpu.opening import detect_format
from zarrgpu.opening import open_slide as open_zarrgpu_slide
from zarrgpu.slide import Slide

_BACKGROUND = "openslide.background-color"


class OpenSlideCache:
    """Decoded chunks kept between reads, shared by the slides that it is set to.

    Parameters
    ----------
    capacity : int
        Bytes.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self.chunks = ChunkCache(capacity)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._capacity!r})"


class OpenSlide:
    """An open whole-slide image.

    Parameters
    ----------
    filename : path or URL
    **options
        As for `zarrgpu.open_slide`.

    Attributes
    ----------
    slide : Slide
        What reads it: arrays, batches, pixel sizes.

    Raises
    ------
    MissingDependencyError
        Without Pillow.
    """

    def __init__(self, filename: str | os.PathLike[str], **options: Any) -> None:
        pillow()
        self._filename = filename
        self.slide: Slide = open_zarrgpu_slide(filename, **options)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._filename!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @classmethod
    def detect_format(cls, filename: str | os.PathLike[str]) -> str | None:
        """Vendor of a file; None if it is no slide."""
        return detect_format(filename)

    def close(self) -> None:
        """Close the slide; nothing is held open between reads."""
        self.slide.close()

    @property
    def level_count(self) -> int:
        """Number of levels."""
        return self.slide.level_count

    @property
    def dimensions(self) -> tuple[int, int]:
        """(width, height) of level 0."""
        return self.slide.dimensions

    @property
    def level_dimensions(self) -> tuple[tuple[int, int], ...]:
        """(width, height) of each level."""
        return self.slide.level_dimensions

    @property
    def level_downsamples(self) -> tuple[float, ...]:
        """Downsample of each level."""
        return self.slide.level_downsamples

    @property
    def properties(self) -> Mapping[str, str]:
        """Metadata under OpenSlide's keys."""
        return self.slide.properties

    @property
    def associated_images(self) -> Mapping[str, Any]:
        """Name to RGBA ``PIL.Image``, read when asked for."""
        return _AssociatedImages(self.slide.associated_images)

    @property
    def color_profile(self) -> Any:
        """``PIL.ImageCms.ImageCmsProfile``, or None."""
        return self.slide.color_profile

    def get_best_level_for_downsample(self, downsample: float) -> int:
        """Level to read for a given downsample."""
        return self.slide.get_best_level_for_downsample(downsample)

    def read_region(self, location: tuple[int, int], level: int, size: tuple[int, int]) -> Any:
        """Read a region as an RGBA ``PIL.Image``, transparent outside of the slide.

        Parameters
        ----------
        location : (int, int)
            (x, y) of the upper left pixel in the level-0 frame.
        level : int
        size : (int, int)
            (width, height) in pixels of the level.
        """
        pixels = np.asarray(self.slide.read_region(location, level, size, device="cpu"))
        rgba = _rgba(pixels, self.slide.spec.source)
        corner = np.floor(np.array(location) / self.level_downsamples[level] + 0.5)
        for axis, start, full in zip((1, 0), corner, self.level_dimensions[level], strict=True):
            place = start + np.arange(size[1 - axis])
            outside = (place < 0) | (place >= full)
            rgba[(slice(None),) * axis + (outside,)] = 0
        return self._with_profile(pillow().fromarray(rgba))

    def get_thumbnail(self, size: tuple[int, int]) -> Any:
        """Slide within `size` as an RGB ``PIL.Image``, shrunk with Lanczos' filter as there."""
        downsample = max(full / most for full, most in zip(self.dimensions, size, strict=True))
        level = self.get_best_level_for_downsample(downsample)
        tile = self.read_region((0, 0), level, self.level_dimensions[level])
        thumbnail = on_background(tile, self.properties)
        thumbnail.thumbnail(size, pillow().Resampling.LANCZOS)
        return self._with_profile(thumbnail)

    def set_cache(self, cache: OpenSlideCache | ChunkCache) -> None:
        """Keep decoded chunks in `cache`; by default nothing is kept."""
        self.slide.set_cache(cache.chunks if isinstance(cache, OpenSlideCache) else cache)

    def _with_profile(self, image: Any) -> Any:
        profile = self.slide.icc_profile
        if profile is not None:
            image.info["icc_profile"] = profile
        return image


def open_slide(filename: str | os.PathLike[str], **options: Any) -> OpenSlide:
    """Open a whole-slide image; see `OpenSlide`."""
    return OpenSlide(filename, **options)


def pillow() -> Any:
    """Give the module ``PIL.Image``."""
    try:
        from PIL import Image
    except ImportError as error:
        msg = "zarrgpu.interop.openslide gives Pillow's images: pip install pillow"
        raise MissingDependencyError(msg) from error
    return Image


def on_background(image: Any, properties: Mapping[str, str]) -> Any:
    """Lay an RGBA image on the slide's background colour (white, if it says none)."""
    solid = pillow().new("RGB", image.size, "#" + properties.get(_BACKGROUND, "ffffff"))
    solid.paste(image, None, image)
    return solid


class _AssociatedImages(Mapping[str, Any]):
    """Associated images as Pillow's."""

    def __init__(self, images: Mapping[str, Array]) -> None:
        self._images = images

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {list(self._images)}>"

    def __len__(self) -> int:
        return len(self._images)

    def __iter__(self) -> Iterator[str]:
        return iter(self._images)

    def __getitem__(self, name: str) -> Any:
        image = self._images[name]
        pixels = np.asarray(image.read(..., device="cpu"))
        return pillow().fromarray(_rgba(pixels, image.source.spec.source))


def _rgba(pixels: NDArray[Any], source: str) -> NDArray[np.uint8]:
    """8-bit pixels of 1, 3 or 4 channels as RGBA."""
    height, width, channels = pixels.shape
    if pixels.dtype != np.uint8 or channels not in (1, 3, 4):
        msg = (
            f"{source!r}: {channels} channel(s) of {pixels.dtype} make no RGBA image, expected 1, "
            "3 or 4 of uint8; read arrays with zarrgpu.open_slide"
        )
        raise SelectionError(msg)
    rgba = np.full((height, width, 4), 255, np.uint8)
    rgba[..., : max(channels, 3)] = pixels
    return rgba
