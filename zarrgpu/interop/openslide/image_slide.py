"""`ImageSlide`: an ordinary image, a file or one of Pillow's, under OpenSlide's names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from zarrgpu.errors import SelectionError
from zarrgpu.interop.openslide.abstract import AbstractSlide, pillow, with_profile


class ImageSlide(AbstractSlide):
    """An image as a slide of one level, read by Pillow.

    Parameters
    ----------
    file : path or PIL.Image.Image
        An image that was opened before stays open when this is closed.

    Raises
    ------
    OSError
        If Pillow does not open the file.
    """

    def __init__(self, file: Any) -> None:
        self._file_arg = file
        self._owned = not isinstance(file, pillow().Image)
        self._opened = pillow().open(file) if self._owned else file

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._file_arg!r})"

    @classmethod
    def detect_format(cls, filename: str | bytes | os.PathLike[Any]) -> str | None:
        """Name of an image's format, as Pillow has it; None if it is none."""
        try:
            with pillow().open(filename) as image:
                name: str | None = image.format
                return name
        except OSError:
            return None

    @property
    def _image(self) -> Any:
        if self._opened is None:
            msg = "Cannot read from a closed slide"
            raise ValueError(msg)
        return self._opened

    @property
    def format(self) -> str | None:
        """Name of the image's format, as Pillow has it."""
        name: str | None = self._image.format
        return name

    def close(self) -> None:
        """Close the file, if it was opened here."""
        if self._owned and self._opened is not None:
            self._opened.close()
        self._opened = None

    @property
    def level_dimensions(self) -> tuple[tuple[int, int]]:
        """(width, height) of the image."""
        return (self._image.size,)

    @property
    def level_downsamples(self) -> tuple[float]:
        """One level."""
        return (1.0,)

    @property
    def properties(self) -> Mapping[str, str]:
        """Empty, as there."""
        return {}

    @property
    def associated_images(self) -> Mapping[str, Any]:
        """Empty."""
        return {}

    @property
    def icc_profile(self) -> bytes | None:
        """What the file carries."""
        profile: bytes | None = self._image.info.get("icc_profile")
        return profile

    def get_best_level_for_downsample(self, downsample: float) -> int:
        """Level 0, the only one."""
        return 0

    def read_region(self, location: tuple[int, int], level: int, size: tuple[int, int]) -> Any:
        """Cut a region out as an RGBA ``PIL.Image``; see `AbstractSlide.read_region`."""
        if level != 0:
            msg = f"{self._file_arg!r}: level {level!r} is outside of 0..0"
            raise SelectionError(msg)
        if min(size) < 0:
            msg = f"size must be (width, height) of at least 0, got {size!r}"
            raise SelectionError(msg)
        image = self._image
        tile = pillow().new("RGBA", tuple(size), (0, 0, 0, 0))
        begin = [min(max(at, 0), full) for at, full in zip(location, image.size, strict=True)]
        ends = zip(location, size, image.size, strict=True)
        end = [min(max(at + extent, 0), full) for at, extent, full in ends]
        if begin[0] < end[0] and begin[1] < end[1]:
            offset = tuple(first - at for first, at in zip(begin, location, strict=True))
            tile.paste(image.crop((*begin, *end)), offset)
        return with_profile(tile, self.icc_profile)

    def set_cache(self, cache: Any) -> None:
        """Do nothing: the whole image is in memory. There for OpenSlide's sake."""
