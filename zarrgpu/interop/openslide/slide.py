"""`OpenSlide`: a slide that gives Pillow's images."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from zarrgpu.array import Array
from zarrgpu.chunk_cache import ChunkCache
from zarrgpu.errors import NodeNotFoundError, UnsupportedFormatError, ZarrGPUError
from zarrgpu.interop.openslide.abstract import AbstractSlide, pillow, with_profile
from zarrgpu.interop.openslide.image_slide import ImageSlide
from zarrgpu.interop.openslide.rgba import to_rgba
from zarrgpu.model import MISSING_NBYTES, Manifest
from zarrgpu.opening import detect_format
from zarrgpu.opening import open as open_zarrgpu
from zarrgpu.opening import open_slide as open_zarrgpu_slide
from zarrgpu.pyramid import level_pixels
from zarrgpu.slide import Slide
from zarrgpu.stores.public import public_address

DEFAULT_CACHE_NBYTES: Final = 32 << 20
"""Of decoded chunks that a slide keeps unless told otherwise, as OpenSlide's do."""

Filename: TypeAlias = str | bytes | os.PathLike[str] | os.PathLike[bytes]


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


class OpenSlide(AbstractSlide):
    """An open whole-slide image.

    Parameters
    ----------
    filename : path or URL
    **options
        As for `zarrgpu.open_slide`. With a `fill_value` tiles that are not stored are that; without
        one they are transparent, as there. Unless `cache` is given, 32 MiB of decoded chunks are
        kept; None for none.

    Attributes
    ----------
    slide : Slide
        What reads it: arrays, batches, pixel sizes.

    Raises
    ------
    OpenSlideUnsupportedFormatError
        If there is no such file, or none that is read.
    MissingDependencyError
        Without Pillow.
    """

    def __init__(self, filename: Filename, **options: Any) -> None:
        pillow()
        self._filename = filename
        options.setdefault("cache", DEFAULT_CACHE_NBYTES)
        try:
            self.slide: Slide = open_zarrgpu_slide(os.fsdecode(filename), **options)
        except NodeNotFoundError as error:
            raise UnsupportedFormatError(str(error)) from error
        self._shows_holes = options.get("fill_value") is None

    def __repr__(self) -> str:
        name = self._filename
        shown = public_address(name) if isinstance(name, str) else name
        return f"{type(self).__name__}({shown!r})"

    @classmethod
    def detect_format(cls, filename: Filename) -> str | None:
        """Vendor of a file; None if it is no slide."""
        return detect_format(os.fsdecode(filename))

    def close(self) -> None:
        """Close the slide; nothing is held open between reads."""
        self.slide.close()

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

    @cached_property
    def icc_profile(self) -> bytes | None:
        """Colour profile, in ``info["icc_profile"]`` of the images too; read once."""
        return self.slide.icc_profile

    def get_best_level_for_downsample(self, downsample: float) -> int:
        """Level to read for a given downsample."""
        return self.slide.get_best_level_for_downsample(downsample)

    def read_region(self, location: tuple[int, int], level: int, size: tuple[int, int]) -> Any:
        """Read a region as an RGBA ``PIL.Image``; see `AbstractSlide.read_region`.

        Transparent are what lies outside of the slide, and tiles that are not stored.
        """
        pixels = self._read(location, level, size)
        rgba = to_rgba(pixels, self.slide.levels[level].source.spec)
        holes = self._not_stored(pixels, location, level, size)
        if holes is not None:
            rgba[holes] = 0
        corner = level_pixels(np.array(location), self.level_downsamples[level])
        for axis, start, full in zip((1, 0), corner, self.level_dimensions[level], strict=True):
            view = rgba.swapaxes(0, axis)
            view[: max(-start, 0)] = 0
            view[max(full - start, 0) :] = 0
        return with_profile(pillow().fromarray(rgba), self.icc_profile)

    def set_cache(self, cache: OpenSlideCache | ChunkCache) -> None:
        """Keep decoded chunks in `cache`, in place of a cache of the slide's own."""
        self.slide.set_cache(cache.chunks if isinstance(cache, OpenSlideCache) else cache)

    def _position(self, level: int) -> dict[str, int]:
        """Focal plane that OpenSlide shows, where it is not the first."""
        if "z" not in self.slide.axes:
            return {}
        axis, levels = self.slide.axes.index("z"), self.slide.levels
        middle = self.properties.get("zarrgpu.argos.middle-z", "0")
        if not (middle.isdecimal() and 0 <= level < len(levels)):
            return {"z": 0}
        # of a converted slide the property may be anything, and z may have been halved
        first, planes = levels[0].shape[axis], levels[level].shape[axis]
        return {"z": min(int(middle[:9]), first - 1) * planes // first}

    def _read(
        self, location: tuple[int, int], level: int, size: tuple[int, int], **options: Any
    ) -> NDArray[Any]:
        options["position"] = self._position(level)
        return np.asarray(self.slide.read_region(location, level, size, device="cpu", **options))

    @cached_property
    def _lacking(self) -> tuple[bool, ...]:
        """Which levels show that tiles of theirs are not stored."""
        return tuple(self._shows_holes and _lacks_tiles(level) for level in self.slide.levels)

    def _not_stored(
        self, pixels: NDArray[Any], location: tuple[int, int], level: int, size: tuple[int, int]
    ) -> NDArray[np.bool_] | None:
        """Which of a region's pixels are of no tile, if any: those that another fill changes.

        So a region of a slide that lacks tiles is read twice, unless it shows that it lacks none.
        """
        spec = self.slide.levels[level].source.spec
        # a tile that is made from a finer level may cover what is missing there
        made = spec.substitute is not None
        if not any(self._lacking[0 if made else level : level + 1]):
            return None
        fill = spec.fill_scalar
        if not made and not (pixels == fill).all(axis=2).any():
            return None
        other = 0 if fill else 1
        again = self._read(location, level, size, fill_value=other)
        changed: NDArray[np.bool_] = (pixels != again).any(axis=2)
        return changed


def open_slide(filename: Filename, **options: Any) -> OpenSlide | ImageSlide:
    """Open a whole-slide image, or an ordinary one with Pillow; see `OpenSlide`, `ImageSlide`.

    Raises
    ------
    OSError
        If a local file is neither, or not there.
    OpenSlideError
        If it is a slide that is damaged or not read, or an address with no slide.
    """
    try:
        return OpenSlide(filename, **options)
    except UnsupportedFormatError:
        if "://" in os.fsdecode(filename):  # Pillow would look for a local file of that name
            raise
        image = ImageSlide(filename)
        if image.format == "TIFF" and not _is_plain_tiff(filename):
            image.close()
            raise
        return image


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
        rgba = pillow().fromarray(to_rgba(pixels, image.source.spec))
        return with_profile(rgba, image.icc_profile)


def _lacks_tiles(level: Array) -> bool:
    """Whether a level of a slide has tiles that are neither stored nor made from a finer level."""
    spec = level.source.spec
    if spec.substitute is not None or not isinstance(spec.location, Manifest):
        return False
    return bool((spec.location.nbytes == MISSING_NBYTES).any())


def _is_plain_tiff(filename: Filename) -> bool:
    """Whether a TIFF is of no vendor: Pillow would show any page of a slide that is not read."""
    try:
        open_zarrgpu(os.fsdecode(filename))
    except UnsupportedFormatError:
        return False
    except ZarrGPUError:
        return True
    return True
