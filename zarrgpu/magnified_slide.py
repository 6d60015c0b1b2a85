"""`MagnifiedSlide`: a slide whose level 0 has the pixel size that one asks for."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from zarrgpu.array import Array
from zarrgpu.closing import Closing
from zarrgpu.color_profile import open_profile
from zarrgpu.magnification import LEVEL_TOLERANCE, level_ratios, read_scaled_patches
from zarrgpu.patches import check_level, parse_locations, parse_size
from zarrgpu.pyramid import Pyramid, best_level
from zarrgpu.regions import read_icc_profile, read_reduced
from zarrgpu.thumbnail import thumbnail_size


class MagnifiedSlide(Closing):
    """A slide seen at a pixel size, under OpenSlide's names. Made by `Slide.at_mpp`.

    Level 0 is resampled from the slide's nearest finer level; the levels after it are the slide's
    own coarser ones. Locations are in pixels of this level 0.

    Parameters
    ----------
    slide : Pyramid
    step : (float, float)
        Pixels of the slide's level 0, in x and y, per pixel of this one's.
    associated_images : mapping of str to Array
    """

    def __init__(
        self, slide: Pyramid, step: tuple[float, float], associated_images: Mapping[str, Array]
    ) -> None:
        self.slide = slide
        self.associated_images = associated_images
        ratios = level_ratios(slide)
        wanted = np.array(step)
        coarser = np.flatnonzero((ratios > wanted * (1 + LEVEL_TOLERANCE)).all(axis=1)).tolist()
        self._steps = np.array([wanted, *(ratios[level] for level in coarser)])
        width, height = (
            max(1, int(n / s + 0.5)) for n, s in zip(slide.dimensions, step, strict=True)
        )
        own = [slide.level_dimensions[level] for level in coarser]
        self._dimensions = ((width, height), *own)
        # of the steps that are read with: sizes are rounded
        x, y = (self._steps / self._steps[0]).T.tolist()
        self._downsamples = tuple((a + b) / 2 for a, b in zip(x, y, strict=True))

    def __repr__(self) -> str:
        width, height = self.dimensions
        x, y = self.mpp
        return (
            f"<zarrgpu.MagnifiedSlide {self.slide.spec.source!r} {width} x {height} px of "
            f"{x} x {y} um, {self.level_count} level(s)>"
        )

    @property
    def level_count(self) -> int:
        """Number of levels."""
        return len(self._dimensions)

    @property
    def dimensions(self) -> tuple[int, int]:
        """(width, height) of level 0: the slide's, divided by the step and rounded."""
        return self._dimensions[0]

    @property
    def level_dimensions(self) -> tuple[tuple[int, int], ...]:
        """(width, height) of each level in its own pixels."""
        return self._dimensions

    @property
    def level_downsamples(self) -> tuple[float, ...]:
        """Level-0 pixels per pixel of each level: the mean of both axes."""
        return self._downsamples

    @property
    def mpp(self) -> tuple[float | None, float | None]:
        """Micrometres per pixel of level 0 in x and y."""
        x, y = (
            None if own is None else own * float(step)
            for own, step in zip(self.slide.mpp, self._steps[0], strict=True)
        )
        return x, y

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type of a region."""
        return self.slide.dtype

    @property
    def channel_count(self) -> int:
        """Channels of a region."""
        return self.slide.channel_count

    @property
    def icc_profile(self) -> bytes | None:
        """ICC profile of the image, if it carries one."""
        return read_icc_profile(self.slide)

    @property
    def color_profile(self) -> Any:
        """ICC profile as ``PIL.ImageCms.ImageCmsProfile``, or None."""
        return open_profile(self.icc_profile)

    @property
    def properties(self) -> Mapping[str, str]:
        """The slide's, with pixel size and levels as they are here."""
        changed = ("openslide.level", "openslide.mpp-", "openslide.objective-power")
        kept = {k: v for k, v in self.slide.spec.properties.items() if not k.startswith(changed)}
        kept = {k: v for k, v in kept.items() if not k.startswith("openslide.bounds-")}
        for axis, size in zip("xy", self.mpp, strict=True):
            if size is not None:
                kept[f"openslide.mpp-{axis}"] = repr(size)
        kept["openslide.level-count"] = str(self.level_count)
        for level, (width, height) in enumerate(self._dimensions):
            kept[f"openslide.level[{level}].width"] = str(width)
            kept[f"openslide.level[{level}].height"] = str(height)
            kept[f"openslide.level[{level}].downsample"] = repr(self._downsamples[level])
        return MappingProxyType(kept)

    def get_best_level_for_downsample(self, downsample: float) -> int:
        """Level to read for a given downsample, by OpenSlide's rule."""
        return best_level(self._downsamples, downsample)

    def read_region(
        self, location: tuple[int, int], level: int, size: tuple[int, int], **options: Any
    ) -> Any:
        """Read one region; as `Slide.read_region`, with locations in pixels of this level 0."""
        out = options.pop("out", None)
        if out is not None:
            self.read_regions([location], level, size, out=out[None], **options)
            return out
        return self.read_regions([location], level, size, **options)[0]

    def read_regions(
        self, locations: ArrayLike, level: int, size: tuple[int, int], **options: Any
    ) -> Any:
        """Read N regions of one size; as `Slide.read_regions`, but resampled.

        Raises
        ------
        SelectionError
            As there, and for pixels of a type that is not resampled.
        """
        level = check_level(level, self.level_count, self.slide.spec.source)
        step = self._steps[level] / self._steps[0]
        masked = options.get("on_error") == "mask"
        result, ok = self.read_scaled(parse_locations(locations), step, size, **options)
        return (result, ok) if masked else result

    def read_scaled(
        self, corners: ArrayLike, step: ArrayLike, size: tuple[int, int], **options: Any
    ) -> tuple[Any, NDArray[np.bool_]]:
        """Read regions at any scale; as `Slide.read_scaled`, in pixels of this level 0."""
        points = np.asarray(corners, np.float64).reshape(-1, 2) * self._steps[0]
        slide = self.slide.filled(options.pop("fill_value", None))
        index, steps = np.zeros(len(points), np.int32), (np.asarray(step) * self._steps[0])[None]
        return read_scaled_patches((slide,), index, points, steps, parse_size(size), **options)

    def get_thumbnail(self, size: tuple[int, int]) -> NDArray[Any]:
        """Whole slide, reduced by averaging to fit into `size`; as `Slide.get_thumbnail`."""
        limit = parse_size(size, "thumbnail size", least=1)
        width, height = thumbnail_size(self.dimensions, limit)
        full = self.slide.dimensions
        level = self.slide.get_best_level_for_downsample(min(full[0] / width, full[1] / height))
        most = self.slide.level_dimensions[level]
        return read_reduced(self.slide, level, (min(width, most[0]), min(height, most[1])))
