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
from zarrgpu.slide import Slide

_MAX_ROUNDS = 200


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
    """What `PatchLoader` needs of a sampler."""

    slides: tuple[Slide, ...]
    size: tuple[int, int]
    levels: tuple[int, ...]

    def __len__(self) -> int:
        """Patches of one epoch."""

    def epoch_patches(self, epoch: int) -> PatchTable:
        """All patches of an epoch; the same for the same epoch, whoever asks."""


class _SlidePatches:
    """Slides, patch size and masks: what both samplers share."""

    def __init__(
        self,
        slides: Slide | Sequence[Slide],
        size: int | tuple[int, int],
        level: int,
        mask: Any,
        min_mask_fraction: float,
    ) -> None:
        self.slides = (slides,) if isinstance(slides, Slide) else tuple(slides)
        if not self.slides:
            msg = "a sampler needs at least one slide"
            raise SelectionError(msg)
        self.size = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
        if min(self.size) < 1:
            msg = f"patch size must be at least 1 x 1, got {self.size}"
            raise SelectionError(msg)
        if not 0.0 <= min_mask_fraction <= 1.0:
            msg = f"min_mask_fraction must lie in 0..1, got {min_mask_fraction}"
            raise SelectionError(msg)
        self.levels = (level,) * len(self.slides)
        self.min_mask_fraction = min_mask_fraction
        for slide in self.slides:
            if not 0 <= level < slide.level_count:
                msg = (
                    f"{slide.spec.source!r}: level {level} is outside of 0..{slide.level_count - 1}"
                )
                raise SelectionError(msg)
        self.masks = self._check_masks(mask)

    def _check_masks(self, mask: Any) -> tuple[NDArray[np.bool_] | None, ...]:
        if mask is None:
            return (None,) * len(self.slides)
        masks = [mask] if isinstance(mask, np.ndarray) and mask.ndim == 2 else list(mask)
        if len(masks) != len(self.slides):
            msg = f"got {len(masks)} masks for {len(self.slides)} slides"
            raise SelectionError(msg)
        checked = [None if m is None else np.asarray(m, np.bool_) for m in masks]
        for m in checked:
            if m is not None and (m.ndim != 2 or not m.any()):
                msg = f"a mask must be two-dimensional and not empty, got shape {m.shape}"
                raise SelectionError(msg)
        return tuple(checked)

    def extent(self, slide: int) -> tuple[float, float]:
        """(width, height) of a patch in level-0 pixels of a slide."""
        downsample = self.slides[slide].level_downsamples[self.levels[slide]]
        return self.size[0] * downsample, self.size[1] * downsample

    def last_location(self, slide: int) -> tuple[int, int]:
        """Largest (x, y) at which a patch lies inside the slide."""
        width, height = self.slides[slide].level_dimensions[self.levels[slide]]
        if width < self.size[0] or height < self.size[1]:
            msg = (
                f"{self.slides[slide].spec.source!r}: patches of {self.size} px do not fit into "
                f"level {self.levels[slide]} of {width} x {height} px; take a smaller size or a "
                "finer level"
            )
            raise SelectionError(msg)
        downsample = self.slides[slide].level_downsamples[self.levels[slide]]
        return (
            int(np.floor((width - self.size[0]) * downsample)),
            int(np.floor((height - self.size[1]) * downsample)),
        )

    def mask_fraction(self, slide: int, location: NDArray[np.int64]) -> NDArray[np.float64]:
        """Share of each patch, shape (N,), that its slide's mask covers."""
        mask = self.masks[slide]
        if mask is None:
            return np.ones(len(location))
        table = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1))
        table[1:, 1:] = mask.cumsum(0).cumsum(1)
        scale = np.array(mask.shape[::-1]) / self.slides[slide].dimensions
        low = location * scale
        high = np.maximum((location + np.array(self.extent(slide))) * scale, low + 1e-9)
        covered = (
            _interpolate(table, high[:, 0], high[:, 1])
            - _interpolate(table, low[:, 0], high[:, 1])
            - _interpolate(table, high[:, 0], low[:, 1])
            + _interpolate(table, low[:, 0], low[:, 1])
        )
        return np.asarray(covered / np.prod(high - low, axis=1))


class RandomPatches(_SlidePatches):
    """Random patches, uniform over the masked area of all slides.

    Parameters
    ----------
    slides : Slide or sequence of Slide
    size : int or (width, height)
        Pixels of `level`.
    level : int
    mask : bool array or sequence of (bool array or None), optional
        One 2-D array (y, x) per slide, of any resolution, that covers the whole slide.
    num_patches : int
        Per epoch.
    min_mask_fraction : float
        Share of a patch that must lie in the mask.
    seed : int
        Same seed and epoch, same patches.
    """

    def __init__(
        self,
        slides: Slide | Sequence[Slide],
        *,
        size: int | tuple[int, int] = 256,
        level: int = 0,
        mask: Any = None,
        num_patches: int = 1024,
        min_mask_fraction: float = 0.5,
        seed: int = 0,
    ) -> None:
        super().__init__(slides, size, level, mask, min_mask_fraction)
        if num_patches < 1:
            msg = f"num_patches must be at least 1, got {num_patches}"
            raise SelectionError(msg)
        self.num_patches = num_patches
        self.seed = seed
        self._last = [self.last_location(i) for i in range(len(self.slides))]

    def __len__(self) -> int:
        return self.num_patches

    def epoch_patches(self, epoch: int) -> PatchTable:
        """Draw the patches of an epoch."""
        random = np.random.Generator(np.random.Philox(np.random.SeedSequence([self.seed, epoch])))
        slide = random.choice(len(self.slides), self.num_patches, p=self._weights()).astype(
            np.int32
        )
        location = np.empty((self.num_patches, 2), np.int64)
        for index in range(len(self.slides)):
            rows = np.flatnonzero(slide == index)
            location[rows] = self._draw(index, len(rows), random)
        return PatchTable(slide, location)

    def _weights(self) -> NDArray[np.float64]:
        """Share of each slide in the sampled area."""
        areas = []
        for slide, mask in zip(self.slides, self.masks, strict=True):
            width, height = slide.dimensions
            areas.append(width * height * (1.0 if mask is None else float(mask.mean())))
        return np.asarray(areas / np.sum(areas))

    def _draw(self, slide: int, n: int, random: np.random.Generator) -> NDArray[np.int64]:
        """Draw `n` locations of one slide, rejecting those with too little mask."""
        drawn = [np.empty((0, 2), np.int64)]
        left = n
        for _ in range(_MAX_ROUNDS):
            candidates = self._candidates(slide, max(64, 2 * left), random)
            kept = candidates[
                self.mask_fraction(slide, candidates) >= self.min_mask_fraction - 1e-9
            ]
            drawn.append(kept)
            left -= len(kept)
            if left <= 0:
                return np.concatenate(drawn)[:n]
        msg = (
            f"{self.slides[slide].spec.source!r}: found only {n - left} of {n} patches of "
            f"{self.size} px with {self.min_mask_fraction:.0%} of their area in the mask; lower "
            "min_mask_fraction"
        )
        raise SelectionError(msg)

    def _candidates(self, slide: int, n: int, random: np.random.Generator) -> NDArray[np.int64]:
        """Locations whose centres are uniform over the mask, moved inside the slide."""
        last = np.array(self._last[slide], np.int64)
        mask = self.masks[slide]
        if mask is None:
            return random.integers(0, last + 1, (n, 2))
        rows, columns = np.nonzero(mask)
        pick = random.integers(0, len(rows), n)
        pixel = np.stack([columns[pick], rows[pick]], axis=1) + random.random((n, 2))
        centre = pixel * (np.array(self.slides[slide].dimensions) / mask.shape[::-1])
        corner = np.floor(centre - np.array(self.extent(slide)) / 2).astype(np.int64)
        return np.clip(corner, 0, last)


class GridPatches(_SlidePatches):
    """All patches of a regular grid, row by row, slide by slide.

    Parameters
    ----------
    slides, size, level, mask, min_mask_fraction
        As for `RandomPatches`.
    stride : int or (x, y), optional
        Pixels of `level` between neighbours; default `size`.
    edge : "drop" or "pad"
        Whether patches that reach beyond the slide are left out or padded with its fill value.
    """

    def __init__(
        self,
        slides: Slide | Sequence[Slide],
        *,
        size: int | tuple[int, int] = 256,
        stride: int | tuple[int, int] | None = None,
        level: int = 0,
        mask: Any = None,
        min_mask_fraction: float = 0.5,
        edge: Literal["drop", "pad"] = "drop",
    ) -> None:
        super().__init__(slides, size, level, mask, min_mask_fraction)
        step = self.size if stride is None else stride
        self.stride = (step, step) if isinstance(step, int) else (int(step[0]), int(step[1]))
        if min(self.stride) < 1:
            msg = f"stride must be at least 1, got {self.stride}"
            raise SelectionError(msg)
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
        level = self.levels[slide]
        width, height = self.slides[slide].level_dimensions[level]
        stop = (width, height) if pad else (width - self.size[0] + 1, height - self.size[1] + 1)
        x = np.arange(0, max(stop[0], 0), self.stride[0])
        y = np.arange(0, max(stop[1], 0), self.stride[1])
        columns, rows = np.meshgrid(x, y)
        points = np.stack([columns.ravel(), rows.ravel()], axis=1)
        downsample = self.slides[slide].level_downsamples[level]
        location: NDArray[np.int64] = np.floor(points * downsample + 0.5).astype(np.int64)
        if self.masks[slide] is not None:
            kept = self.mask_fraction(slide, location) >= self.min_mask_fraction - 1e-9
            location = location[kept]
        return location


def _interpolate(
    table: NDArray[np.float64], x: NDArray[np.float64], y: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Bilinear look-up in a summed-area table: exact for masks that are constant within a pixel."""
    x = np.clip(x, 0, table.shape[1] - 1)
    y = np.clip(y, 0, table.shape[0] - 1)
    x0 = np.minimum(x.astype(np.int64), table.shape[1] - 2)
    y0 = np.minimum(y.astype(np.int64), table.shape[0] - 2)
    fx, fy = x - x0, y - y0
    top = table[y0, x0] * (1 - fx) + table[y0, x0 + 1] * fx
    bottom = table[y0 + 1, x0] * (1 - fx) + table[y0 + 1, x0 + 1] * fx
    return np.asarray(top * (1 - fy) + bottom * fy)
