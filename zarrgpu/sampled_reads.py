"""Reading a sampler's patches: at its level, or at its pixel size."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from zarrgpu.magnification import source_size, start_scaled_patches
from zarrgpu.patches import start_slide_patches
from zarrgpu.reader import PendingRead
from zarrgpu.sampling import Sampler


def read_sampled(
    sampler: Sampler, slide_index: ArrayLike, locations: ArrayLike, **how: Any
) -> tuple[Any, NDArray[np.bool_]]:
    """Read patches of a sampler's slides at its level or pixel size.

    Parameters
    ----------
    sampler : Sampler
    slide_index : int array (N,)
    locations : int array (N, 2)
    **how
        As for `patches.read_slide_patches`, which says what is returned.
    """
    return start_sampled(sampler, slide_index, locations, **how).finish()


def start_sampled(
    sampler: Sampler, slide_index: ArrayLike, locations: ArrayLike, **how: Any
) -> PendingRead:
    """Start what `read_sampled` does; `how` may also have a `ring` (`reader.start_read`)."""
    steps = getattr(sampler, "steps", None)
    if steps is None:
        return start_slide_patches(
            sampler.slides, slide_index, locations, sampler.levels, sampler.size, **how
        )
    return start_scaled_patches(sampler.slides, slide_index, locations, steps, sampler.size, **how)


def patch_source_nbytes(sampler: Sampler) -> int:
    """Bytes that are read to make a patch by resampling, of the slide with the largest; else 0."""
    steps = getattr(sampler, "steps", None)
    if steps is None:
        return 0
    sizes = [
        (slide, *source_size(slide, step, sampler.size))
        for slide, step in zip(sampler.slides, steps, strict=True)
    ]
    return max(w * h * slide.channel_count * slide.dtype.itemsize for slide, w, h in sizes)
