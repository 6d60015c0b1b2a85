"""Regions of one size of many slides in one call: by level, or at a pixel size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from zarrgpu.devices.resolve import DeviceLike
from zarrgpu.errors import SelectionError
from zarrgpu.magnification import mpp_step, read_scaled_patches
from zarrgpu.model import ReadOptions, StoredBytes
from zarrgpu.output import output_format
from zarrgpu.patches import (
    Layout,
    box_request,
    parse_locations,
    parse_size,
    read_boxes,
    read_slide_patches,
)
from zarrgpu.pyramid import Pyramid
from zarrgpu.reader import OnError
from zarrgpu.stats import ReadStats
from zarrgpu.stores.base import read_stored
from zarrgpu.thumbnail import reduce_bands, reduce_rows, source_rows, thumbnail_size

_THUMBNAIL_STRIP_NBYTES = 64 << 20


def read_regions(
    slides: Sequence[Pyramid],
    slide_index: ArrayLike,
    locations: ArrayLike,
    size: tuple[int, int],
    *,
    level: int | Sequence[int] | None = None,
    mpp: Any = None,
    position: Mapping[str, int] | None = None,
    layout: Layout = "NHWC",
    dtype: DTypeLike | None = None,
    normalize: tuple[ArrayLike, ArrayLike] | None = None,
    fill_value: Any = None,
    device: DeviceLike = None,
    out: Any = None,
    options: ReadOptions | None = None,
    on_error: OnError = "raise",
    symmetries: ArrayLike | None = None,
    stats: ReadStats | None = None,
) -> Any:
    """Read regions of several slides: each tile is fetched and decoded once.

    Parameters
    ----------
    slides : sequence of Slide
        With the same axes and number of channels.
    slide_index : int array, shape (N,)
        Which of the slides each region is of.
    locations : int array, shape (N, 2)
        (x, y) of each upper left corner in its slide's level-0 frame; may be negative.
    size : (int, int)
        (width, height) in pixels of the level, or of `mpp`.
    level : int or sequence of int, optional
        Of all slides, or of each; default 0.
    mpp : float or (float, float), optional
        Instead of `level`: micrometres per pixel of the result, of both axes or of x and y. See
        `Slide.read_regions_mpp`.
    position, layout, dtype, normalize, fill_value, device, out, options, on_error, stats
        As for `Slide.read_regions`.
    symmetries : int array (N,), optional
        How each region is flipped and turned: as a `Batch.symmetries` says, for the labels of
        augmented patches.

    Returns
    -------
    regions : array of the device, shape (N, height, width, channels) or (N, channels, height,
        width)
    ok : bool array, shape (N,)
        Only with ``on_error="mask"``.
    """
    points = parse_locations(locations)
    if not len(slides) or not all(isinstance(slide, Pyramid) for slide in slides):
        kinds = ", ".join(type(slide).__name__ for slide in slides) or "none"
        msg = f"read_regions takes one slide or more, as open_slide gives them; got {kinds}"
        raise SelectionError(msg)
    slides = tuple(slide.filled(fill_value) for slide in slides)
    how: dict[str, Any] = {
        "position": position, "layout": layout, "dtype": dtype, "normalize": normalize,
        "device": device, "out": out, "options": options, "on_error": on_error,
        "symmetries": symmetries, "stats": stats,
    }  # fmt: skip
    if mpp is not None:
        if level is not None:
            msg = f"give a level or an mpp, not both (got level {level!r} and mpp {mpp!r})"
            raise SelectionError(msg)
        steps = [mpp_step(slide, mpp) for slide in slides]
        result, ok = read_scaled_patches(
            slides, slide_index, points, steps, parse_size(size), **how
        )
    else:
        level = 0 if level is None else level
        levels = tuple(level) if isinstance(level, Sequence) else (level,) * len(slides)
        if len(levels) != len(slides):
            msg = f"got {len(levels)} levels for {len(slides)} slides; give one, or one for each"
            raise SelectionError(msg)
        result, ok = read_slide_patches(slides, slide_index, points, levels, size, **how)
    return (result, ok) if on_error == "mask" else result


def read_icc_profile(slide: Pyramid) -> bytes | None:
    """ICC profile of an image, or else of level 0; that of a file is read when it is asked for."""
    profile, first = slide.spec.icc_profile, slide.levels[0]
    if isinstance(profile, StoredBytes):
        return read_stored(first.source.store, profile)
    return profile or first.icc_profile


def read_thumbnail(slide: Pyramid, size: tuple[int, int]) -> NDArray[Any]:
    """Whole slide, reduced by averaging to fit into `size`; see `Slide.get_thumbnail`."""
    limit = parse_size(size, "thumbnail size", least=1)
    sides = zip(slide.dimensions, limit, strict=True)
    level = slide.get_best_level_for_downsample(max(full / most for full, most in sides))
    return read_reduced(slide, level, thumbnail_size(slide.level_dimensions[level], limit))


def read_reduced(slide: Pyramid, level: int, size: tuple[int, int]) -> NDArray[Any]:
    """Whole level, reduced to `size` by averaging; on the host, shape (height, width, channels)."""
    full, (width, height) = slide.level_dimensions[level], size
    spec = slide.levels[level].source.spec
    row_nbytes = full[0] * slide.channel_count * spec.dtype.itemsize * full[1] // height
    step = max(1, _THUMBNAIL_STRIP_NBYTES // row_nbytes)
    strips = []
    for first in range(0, height, step):
        rows = (first, min(first + step, height))
        source = source_rows(*rows, full[1], height)
        if row_nbytes <= _THUMBNAIL_STRIP_NBYTES:
            pixels = _read_rows(slide, level, *source)
            strips.append(reduce_rows(pixels, rows, (full[1], full[0]), (height, width)))
            continue
        down = max(1, (source[1] - source[0]) * _THUMBNAIL_STRIP_NBYTES // row_nbytes)
        bands = (
            _read_rows(slide, level, top, min(top + down, source[1]))
            for top in range(*source, down)
        )
        strips.append(reduce_bands(bands, first, (full[1], full[0]), (height, width), spec.dtype))
    return np.concatenate(strips)


def _read_rows(slide: Pyramid, level: int, first: int, last: int) -> NDArray[Any]:
    """Whole rows of a level, on the host, shape (last - first, width, channels)."""
    size = (slide.level_dimensions[level][0], last - first)
    corner = np.array([[0, first]], np.int64)
    request = box_request((slide,), np.zeros(1, np.int32), corner, (level,), size)
    output = output_format(slide.levels[level].source.spec.dtype)
    pixels, _ = read_boxes((slide,), (level,), request, layout="NHWC", output=output, device="cpu")
    return np.asarray(pixels[0])
