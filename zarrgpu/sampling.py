"""Where patches come from: every patch of an epoch, as a table, from a seed.

A sampler gives the whole epoch at once, so that ranks, workers and resumed runs agree by
construction: each takes its rows of the same table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from zarrgpu.errors import SelectionError
from zarrgpu.magnification import (
    level_for_step,
    level_ratios,
    mpp_step,
)
from zarrgpu.masks import Mask
from zarrgpu.patches import check_level, parse_integer, parse_size
from zarrgpu.pyramid import level0_locations
from zarrgpu.slide import Slide

_ROUNDING = 1e-9
_TOUCHING = 1e-6
_ROUND_MIN, _ROUND_MAX = 1 << 8, 1 << 17
_HOPELESS_TRIES = 1 << 19
_HOPELESS_SHARE = 2e-3
"""Drawing stops after so many tries, if no larger a share of them was good."""


@dataclass(frozen=True, slots=True, eq=False)
class PatchTable:
    """Patches of one epoch, in order (N rows).

    Attributes
    ----------
    slide : int32 (N,)
    location : int64 (N, 2)
        (x, y) of the upper left pixel in the slide's level-0 frame.
    """

    slide: NDArray[np.int32]
    location: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.slide)


class Sampler(Protocol):
    """What `PatchLoader` needs of a sampler.

    One that reads at a pixel size also has `steps`: float (slides, 2), level-0 pixels per patch
    pixel in x and y of each slide; `levels` is not used then.
    """

    slides: tuple[Slide, ...]
    size: tuple[int, int]
    levels: tuple[int, ...]

    def __len__(self) -> int:
        """Patches of one epoch."""

    def epoch_patches(self, epoch: int) -> PatchTable:
        """All patches of an epoch; the same for the same epoch, whoever asks."""


class _SlidePatches:
    """Slides, patch size and masks: what both samplers share.

    Patches are drawn on the pixels of the level that is read. `footprints` is what a patch covers
    there: `size`, or more or less of it where it is resampled.
    """

    def __init__(
        self,
        slides: Slide | Sequence[Slide],
        size: int | tuple[int, int],
        level: int,
        mpp: float | tuple[float, float] | None,
        mask: Any,
        min_mask_fraction: float,
    ) -> None:
        self.slides = _slide_tuple(slides)
        self.size = _pair(size, "patch size")
        if not 0.0 <= min_mask_fraction <= 1.0:
            msg = f"min_mask_fraction must lie in 0..1, got {min_mask_fraction}"
            raise SelectionError(msg)
        self.mpp = mpp
        self.steps: NDArray[np.float64] | None = None
        if mpp is None:
            self.levels = tuple(
                check_level(level, slide.level_count, slide.spec.source) for slide in self.slides
            )
        else:
            if level != 0:
                msg = f"give a level or an mpp, not both (got level {level!r} and mpp {mpp!r})"
                raise SelectionError(msg)
            self.steps = np.array([mpp_step(slide, mpp) for slide in self.slides])
            pairs = zip(self.slides, self.steps, strict=True)
            self.levels = tuple(level_for_step(*pair) for pair in pairs)
        self.footprints = [self._footprint(index) for index in range(len(self.slides))]
        self.min_mask_fraction = min_mask_fraction
        self.masks = _masks(mask, len(self.slides))

    def extent(self, slide: int) -> tuple[float, float]:
        """(width, height) of a patch in level-0 pixels of a slide."""
        if self.steps is not None:
            x, y = self.steps[slide].tolist()
            return self.size[0] * x, self.size[1] * y
        downsample = self.slides[slide].level_downsamples[self.levels[slide]]
        return self.size[0] * downsample, self.size[1] * downsample

    def mask_fraction(self, slide: int, location: NDArray[np.int64]) -> NDArray[np.float64]:
        """Share of each patch, shape (N,), that its slide's mask covers; 1 without a mask.

        What reaches beyond the slide is not covered.
        """
        mask = self.masks[slide]
        if mask is None:
            return np.ones(len(location))
        scale = np.array(mask.shape[::-1]) / self.slides[slide].dimensions
        low = location * scale
        extent = np.array(self.extent(slide)) * scale
        return np.asarray(mask.covered(low, low + extent) / np.prod(extent))

    def _qualifies(self, fraction: NDArray[np.float64]) -> NDArray[np.bool_]:
        return np.asarray((fraction > 0) & (fraction >= self.min_mask_fraction - _ROUNDING))

    def _ratios(self, slide: int) -> NDArray[np.float64]:
        """Level-0 pixels per pixel of the level that is read, in x and y."""
        if self.steps is not None:
            return np.asarray(level_ratios(self.slides[slide])[self.levels[slide]])
        return np.full(2, self.slides[slide].level_downsamples[self.levels[slide]])

    def _footprint(self, slide: int) -> tuple[int, int]:
        """(width, height) in whole pixels of the level read that holds a patch."""
        if self.steps is None:
            return self.size
        exact = np.array(self.extent(slide)) / self._ratios(slide)
        width, height = np.ceil(exact - _ROUNDING).astype(int).tolist()
        return width, height

    def _room(self, slide: int) -> tuple[int, int]:
        """Number of columns and rows of the level at which a patch inside of it can begin."""
        width, height = self.slides[slide].level_dimensions[self.levels[slide]]
        across, down = self.footprints[slide]
        if width < across or height < down:
            at = f"level {self.levels[slide]}"
            if self.mpp is not None:
                at = f"an mpp of {self.mpp}, {across} x {down} px of {at},"
            msg = (
                f"{self.slides[slide].spec.source!r}: patches of {self.size[0]} x {self.size[1]} "
                f"px do not fit into {at} of {width} x {height} px; take a "
                f"smaller size or a finer {'level' if self.mpp is None else 'mpp'}"
            )
            raise SelectionError(msg)
        return width - across + 1, height - down + 1

    def _locations(self, slide: int, pixels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Level-0 locations of patches that begin at pixels of the slide's level."""
        return level0_locations(pixels, self._ratios(slide))


class RandomPatches(_SlidePatches):
    """Random patches inside of the slides, which see every part of the masks equally often.

    A patch is drawn by a random point of the masked area of all slides and a random place of that
    point in the patch. So slides come in proportion to their masked area, and a location in
    proportion to the mask that its patch covers, if that is at least `min_mask_fraction` of the
    patch; without a mask all locations are equally likely. Patches begin at whole pixels of the
    level that is read.

    Parameters
    ----------
    slides : Slide or sequence of Slide
    size : int or (width, height)
        Pixels of `level`, or of `mpp`.
    level : int
    mpp : float or (float, float), optional
        Instead of `level`: micrometres per pixel of a patch, of both axes or of x and y. Patches
        are resampled from each slide's nearest finer level; see `Slide.read_regions_mpp`.
    mask : bool array or sequence of (bool array or None), optional
        One 2-D array (y, x) per slide, of any resolution, that covers the whole slide.
    num_patches : int
        Per epoch.
    min_mask_fraction : float
        Share of a patch's area that must lie in the mask.
    seed : int
        Same seed and epoch, same patches, in any process; at least 0.

    Raises
    ------
    SelectionError
        If the patches do not fit a slide, or (when drawing) hardly any lies in a mask.
    """

    def __init__(
        self,
        slides: Slide | Sequence[Slide],
        *,
        size: int | tuple[int, int] = 256,
        level: int = 0,
        mpp: float | tuple[float, float] | None = None,
        mask: Any = None,
        num_patches: int = 1024,
        min_mask_fraction: float = 0.5,
        seed: int = 0,
    ) -> None:
        super().__init__(slides, size, level, mpp, mask, min_mask_fraction)
        self.num_patches = parse_integer(num_patches, "num_patches", least=1)
        self.seed = parse_integer(seed, "seed", least=0)
        self._rooms = [self._room(i) for i in range(len(self.slides))]

    def __len__(self) -> int:
        return self.num_patches

    def epoch_patches(self, epoch: int) -> PatchTable:
        """Draw the patches of an epoch."""
        seeds = np.random.SeedSequence([self.seed, parse_integer(epoch, "epoch", least=0)])
        # only `random` is asked of it: NumPy may change how other distributions use the bits
        random = np.random.Generator(np.random.Philox(seeds))
        bounds = np.cumsum(self._weights())
        drawn = np.searchsorted(bounds, random.random(self.num_patches) * bounds[-1], side="right")
        slide = np.minimum(drawn, len(self.slides) - 1).astype(np.int32)
        location = np.empty((self.num_patches, 2), np.int64)
        for index in range(len(self.slides)):
            rows = np.flatnonzero(slide == index)
            location[rows] = self._draw(index, len(rows), random)
        return PatchTable(slide, location)

    def _weights(self) -> list[float]:
        """Masked level-0 pixels of each slide."""
        areas = []
        for slide, mask in zip(self.slides, self.masks, strict=True):
            width, height = slide.dimensions
            areas.append(width * height * (1.0 if mask is None else mask.mean))
        return areas

    def _draw(self, slide: int, n: int, random: np.random.Generator) -> NDArray[np.int64]:
        """Draw `n` locations of one slide."""
        drawn = [np.empty((0, 2), np.int64)]
        found = tries = 0
        while found < n:
            if tries >= _HOPELESS_TRIES and found < _HOPELESS_SHARE * tries:
                raise self._too_little_mask(slide, found, tries)
            share = max(found, 1) / tries if tries else 1.0
            count = min(max(int(1.1 * (n - found) / share), _ROUND_MIN), _ROUND_MAX)
            drawn.append(self._try(slide, count, random))
            found += len(drawn[-1])
            tries += count
        return np.concatenate(drawn)[:n]

    def _try(self, slide: int, n: int, random: np.random.Generator) -> NDArray[np.int64]:
        """Draw `n` candidates and keep those that are inside of the slide and of enough mask."""
        room = np.array(self._rooms[slide])
        mask = self.masks[slide]
        if mask is None:
            return self._locations(slide, _whole(random.random((n, 2)), room))
        width, height = self.slides[slide].level_dimensions[self.levels[slide]]
        # Two ways to draw in proportion to the mask covered; take the one that wastes fewer tries.
        if np.prod(room / (width, height)) < mask.mean:
            location = self._locations(slide, _whole(random.random((n, 2)), room))
            fraction = self.mask_fraction(slide, location)
            return location[self._qualifies(fraction) & (random.random(n) < fraction)]
        point = mask.random_points(random.random((n, 3)))
        pixel = np.floor(point * (np.array([width, height]) / mask.shape[::-1])).astype(np.int64)
        pixel -= _whole(random.random((n, 2)), np.array(self.footprints[slide]))
        location = self._locations(slide, pixel[((pixel >= 0) & (pixel < room)).all(axis=1)])
        return location[self._qualifies(self.mask_fraction(slide, location))]

    def _too_little_mask(self, slide: int, found: int, tries: int) -> SelectionError:
        at = f"level {self.levels[slide]}" if self.mpp is None else f"an mpp of {self.mpp}"
        msg = (
            f"{self.slides[slide].spec.source!r}: of {tries} patches of {self.size[0]} x "
            f"{self.size[1]} px at {at}, {found} were inside of the slide "
            f"with {self.min_mask_fraction:.0%} of their area in the mask; lower "
            "min_mask_fraction, take a smaller size, or leave the slide out"
        )
        return SelectionError(msg)


class GridPatches(_SlidePatches):
    """All patches of a regular grid, row by row, slide by slide.

    Parameters
    ----------
    slides, size, level, mpp, mask, min_mask_fraction
        As for `RandomPatches`. With a mask, patches without any of it are left out, whatever
        `min_mask_fraction` is; there may be none left.
    stride : int or (x, y), optional
        Pixels of `level`, or of `mpp`, between neighbours; default `size`.
    edge : "drop" or "pad"
        Whether patches that reach beyond the slide are left out, or padded with its fill value:
        then every pixel is in a patch, if `stride` is not larger than `size`.

    Raises
    ------
    SelectionError
        If the patches do not fit a slide and are not padded.
    """

    def __init__(
        self,
        slides: Slide | Sequence[Slide],
        *,
        size: int | tuple[int, int] = 256,
        stride: int | tuple[int, int] | None = None,
        level: int = 0,
        mpp: float | tuple[float, float] | None = None,
        mask: Any = None,
        min_mask_fraction: float = 0.5,
        edge: Literal["drop", "pad"] = "drop",
    ) -> None:
        super().__init__(slides, size, level, mpp, mask, min_mask_fraction)
        self.stride = self.size if stride is None else _pair(stride, "stride")
        if edge not in ("drop", "pad"):
            msg = f"edge must be drop or pad, got {edge!r}"
            raise SelectionError(msg)
        tables = [self._grid(index, pad=edge == "pad") for index in range(len(self.slides))]
        self._table = PatchTable(
            np.repeat(np.arange(len(tables), dtype=np.int32), [len(t) for t in tables]),
            np.concatenate(tables),
        )

    def __len__(self) -> int:
        return len(self._table)

    def epoch_patches(self, epoch: int) -> PatchTable:
        """Every epoch is the same grid."""
        del epoch
        return self._table

    def _grid(self, slide: int, *, pad: bool) -> NDArray[np.int64]:
        inside = self._room(slide) if not pad else None
        full = self.slides[slide].level_dimensions[self.levels[slide]]
        room, stride = np.array(inside or full, np.float64), np.array(self.stride, np.float64)
        if self.steps is not None:  # the grid is one of patch pixels
            ratios = self._ratios(slide)
            stride *= self.steps[slide] / ratios
            if not pad:
                room = np.array(full) - np.array(self.extent(slide)) / ratios + _TOUCHING
        counts = np.maximum(np.ceil((room - _ROUNDING) / stride), 0).astype(int).tolist()
        x, y = (np.arange(n) * step for n, step in zip(counts, stride.tolist(), strict=True))
        columns, rows = np.meshgrid(x, y)
        location = self._locations(slide, np.stack([columns.ravel(), rows.ravel()], axis=1))
        if self.masks[slide] is not None:
            location = location[self._qualifies(self.mask_fraction(slide, location))]
        return location


def _slide_tuple(slides: Slide | Sequence[Slide]) -> tuple[Slide, ...]:
    given: tuple[Any, ...] = (slides,) if isinstance(slides, Slide) else tuple(slides)
    if not given:
        msg = "a sampler needs at least one slide"
        raise SelectionError(msg)
    for slide in given:
        if not isinstance(slide, Slide):
            msg = f"a sampler needs slides, got {type(slide).__name__}; open them with open_slide"
            raise SelectionError(msg)
    return given


def _masks(mask: Any, n: int) -> tuple[Mask | None, ...]:
    if mask is None:
        return (None,) * n
    masks = [mask] if isinstance(mask, np.ndarray) and mask.ndim == 2 else list(mask)
    if len(masks) != n:
        msg = f"got {len(masks)} masks for {n} slides; give one for each, or None"
        raise SelectionError(msg)
    return tuple(None if m is None else Mask(m) for m in masks)


def _pair(value: Any, name: str) -> tuple[int, int]:
    """(x, y) from one integer or two."""
    one = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    return parse_size((value, value) if one else value, name, least=1)


def _whole(uniform: NDArray[np.float64], bound: NDArray[np.int64]) -> NDArray[np.int64]:
    """Integers that are uniform in ``0 .. bound - 1``, from numbers uniform in [0, 1)."""
    return np.minimum((uniform * bound).astype(np.int64), bound - 1)
