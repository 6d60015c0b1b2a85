"""`AbstractSlide`: what `OpenSlide` and `ImageSlide` have in common, and Pillow."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from zarrgpu.closing import Closing
from zarrgpu.color_profile import open_profile
from zarrgpu.errors import MissingDependencyError

_BACKGROUND = "openslide.background-color"


class AbstractSlide(Closing, ABC):
    """A slide that gives Pillow's images."""

    @abstractmethod
    def close(self) -> None:
        """Close the slide."""

    @property
    def level_count(self) -> int:
        """Number of levels."""
        return len(self.level_dimensions)

    @property
    @abstractmethod
    def level_dimensions(self) -> tuple[tuple[int, int], ...]:
        """(width, height) of each level."""

    @property
    def dimensions(self) -> tuple[int, int]:
        """(width, height) of level 0."""
        return self.level_dimensions[0]

    @property
    @abstractmethod
    def level_downsamples(self) -> tuple[float, ...]:
        """Downsample of each level."""

    @property
    @abstractmethod
    def properties(self) -> Mapping[str, str]:
        """Metadata under OpenSlide's keys."""

    @property
    @abstractmethod
    def associated_images(self) -> Mapping[str, Any]:
        """Name to ``PIL.Image``."""

    @property
    @abstractmethod
    def icc_profile(self) -> bytes | None:
        """Colour profile, in ``info["icc_profile"]`` of the images too."""

    @property
    def color_profile(self) -> Any:
        """``PIL.ImageCms.ImageCmsProfile``, or None."""
        return open_profile(self.icc_profile)

    @abstractmethod
    def get_best_level_for_downsample(self, downsample: float) -> int:
        """Level to read for a given downsample."""

    @abstractmethod
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

    def get_thumbnail(self, size: tuple[int, int]) -> Any:
        """Slide within `size` as an RGB ``PIL.Image``, shrunk with Lanczos' filter as there."""
        downsample = max(full / most for full, most in zip(self.dimensions, size, strict=True))
        level = self.get_best_level_for_downsample(downsample)
        tile = self.read_region((0, 0), level, self.level_dimensions[level])
        thumbnail = on_background(tile, self.properties)
        thumbnail.thumbnail(size, pillow().Resampling.LANCZOS)
        return with_profile(thumbnail, self.icc_profile)


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


def with_profile(image: Any, profile: bytes | None) -> Any:
    """Give an image the colour profile that it is to be shown with."""
    if profile is not None:
        image.info["icc_profile"] = profile
    return image
