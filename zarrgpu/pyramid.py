"""`Pyramid`: the geometry of a multi-resolution image, without reading any of it.

Two frames are used. Locations are in pixels of level 0, as in OpenSlide. Pixels are read from a
level's own grid, so a location becomes the nearest pixel of that grid: `level_pixels`, and back by
`level0_locations`. One number, the level's downsample, serves both axes, as in OpenSlide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from secrets import randbits
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zarrgpu.array import Array
from zarrgpu.errors import MetadataError, SelectionError
from zarrgpu.rendered_tiles import RenderedTiles
from zarrgpu.slide_model import SlideSpec

Int64s = NDArray[np.int64]


class Pyramid:
    """Levels of one image, finest first.

    Parameters
    ----------
    spec : SlideSpec
    levels : tuple of Array

    Raises
    ------
    MetadataError
        If the levels cannot be levels of one image: one without pixels, one larger than level 0,
        or one with another number of channels.
    """

    def __init__(self, spec: SlideSpec, levels: tuple[Array, ...]) -> None:
        self.spec = spec
        self.levels = levels
        _check_levels(spec, levels)
        y, x = spec.axes.index("y"), spec.axes.index("x")
        self._dimensions = tuple((level.shape[x], level.shape[y]) for level in levels)
        self._downsamples = spec.downsamples or mean_downsamples(self._dimensions)
        self._filled: dict[bytes, Pyramid] = {}

    @property
    def level_count(self) -> int:
        """Number of levels."""
        return len(self.levels)

    @property
    def dimensions(self) -> tuple[int, int]:
        """(width, height) of level 0 in pixels."""
        return self._dimensions[0]

    @property
    def level_dimensions(self) -> tuple[tuple[int, int], ...]:
        """(width, height) of each level in its own pixels."""
        return self._dimensions

    @property
    def level_downsamples(self) -> tuple[float, ...]:
        """Level-0 pixels per pixel of each level.

        The mean ratio of both axes, as OpenSlide has it, or what the file states.
        """
        return self._downsamples

    @property
    def mpp(self) -> tuple[float | None, float | None]:
        """Micrometres per pixel of level 0 in x and y; None where the file does not say."""
        return self.spec.mpp

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the axes of every level, such as ``("y", "x", "c")``."""
        return self.spec.axes

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type of level 0 in native byte order."""
        return self.levels[0].dtype

    @property
    def channel_count(self) -> int:
        """Channels of a region; 1 where the image has no channel axis."""
        return self.levels[0].shape[self.axes.index("c")] if "c" in self.axes else 1

    def get_best_level_for_downsample(self, downsample: float) -> int:
        """Level to read for a given downsample, by OpenSlide's rule.

        The level before the first one that is coarser than `downsample`; 0 where `downsample` is
        below 1, the last level where none is coarser.
        """
        return best_level(self._downsamples, downsample)

    def filled(self, fill_value: Any) -> Pyramid:
        """Make the same pyramid with another fill value; this one for None.

        Raises
        ------
        SelectionError
            If the pixels' type cannot hold it.
        """
        if fill_value is None:
            return self
        values = [_fill_scalar(fill_value, level.dtype, self.spec.source) for level in self.levels]
        key = b"".join(value.tobytes() for value in values)
        found = self._filled.get(key)
        if found is None:
            levels: list[Array] = []
            for level, value in zip(self.levels, values, strict=True):
                levels.append(_with_fill(level, value, levels[-1] if levels else None))
            spec = replace(self.spec, levels=tuple(level.source.spec for level in levels))
            found = Pyramid(spec, tuple(levels))
            self._filled.clear()  # one is kept: who changes it with each read has to pay
            self._filled[key] = found
        return found


def mean_downsamples(dimensions: Sequence[tuple[int, int]]) -> tuple[float, ...]:
    """Downsample of each level: the mean of both axes, as OpenSlide has it."""
    width, height = dimensions[0]
    return tuple((width / w + height / h) / 2 for w, h in dimensions)


def best_level(downsamples: Sequence[float], downsample: float) -> int:
    """The level before the first one that is coarser; see `get_best_level_for_downsample`."""
    for level, factor in enumerate(downsamples):
        if downsample < factor:
            return max(level - 1, 0)
    return len(downsamples) - 1


def _fill_scalar(value: Any, dtype: np.dtype[Any], source: str) -> Any:
    """`value` as an element of `dtype`, which must hold it."""
    with np.errstate(all="ignore"):
        try:
            made = None if np.ndim(value) else np.asarray(value).astype(dtype)[()]
        except (TypeError, ValueError, OverflowError):
            made = None
    both_nan = made is not None and made != made and value != value
    if made is None or not (made == value or both_nan):
        msg = f"{source!r}: fill_value must be one value of {dtype}, got {value!r}"
        raise SelectionError(msg)
    return made


def _with_fill(level: Array, value: Any, finer: Array | None) -> Array:
    """The same array with another fill value; `finer` is the level before it, filled already."""
    source, spec = level.source, level.source.spec
    substitute = source.substitute
    if substitute is not None:
        missing, tiles = replace(substitute.spec, fill_value=value), substitute.store
        if finer is not None and isinstance(tiles, RenderedTiles):
            tiles = tiles.over(missing, finer.source)
        # not the tiles that a cache may hold of the other fill value
        substitute = replace(substitute, spec=missing, store=tiles, cache_key=randbits(62))
    changed = replace(
        spec, fill_value=value, substitute=None if substitute is None else substitute.spec
    )
    return Array(replace(source, spec=changed, substitute=substitute), level.path)


def level_pixels(locations: NDArray[Any], downsample: Any) -> Int64s:
    """Nearest pixel of a level to locations in the level-0 frame; halves go up.

    Parameters
    ----------
    locations : int array
    downsample : float, or array that broadcasts
        Of the level.
    """
    return np.asarray(np.floor(locations / downsample + 0.5), np.int64)


def level0_locations(pixels: NDArray[Any], downsample: Any) -> Int64s:
    """Locations in the level-0 frame from which `level_pixels` gives `pixels` again."""
    return np.asarray(np.floor(pixels * downsample + 0.5), np.int64)


def _check_levels(spec: SlideSpec, levels: tuple[Array, ...]) -> None:
    first = levels[0].shape
    for index, level in enumerate(levels):
        shape = level.shape
        sizes = dict(zip(spec.axes, shape, strict=True))
        problem = ""
        if 0 in shape:
            problem = "has no pixels"
        elif any(sizes[axis] > first[spec.axes.index(axis)] for axis in "xy"):
            problem = f"is larger than level 0 of shape {first}; levels go from fine to coarse"
        elif "c" in sizes and sizes["c"] != first[spec.axes.index("c")]:
            problem = f"has another number of channels than level 0 of shape {first}"
        if problem:
            message = f"level {index} of shape {shape} (axes {', '.join(spec.axes)}) {problem}"
            raise MetadataError(message, source=spec.source, location=("level", index))
