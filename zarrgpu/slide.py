"""`Slide`: a pyramid of 2-D images under OpenSlide's names.

A whole-slide TIFF and a multiscale OME-Zarr image look the same here. Locations and sizes are ``(x,
y)`` and ``(width, height)``; locations are in the frame of level 0, sizes in pixels of the level
read, as in OpenSlide. Results are ``(height, width, channels)`` in the stored type, without an
alpha channel: what OpenSlide gives as transparent black is the fill value here, which is 0 for
slides and the array's own for OME-Zarr.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from zarrgpu import reader
from zarrgpu.array import Array
from zarrgpu.devices.resolve import DeviceLike
from zarrgpu.group import Group
from zarrgpu.model import ReadOptions, SlideSpec, StoredBytes
from zarrgpu.output import output_format
from zarrgpu.patches import (
    Layout,
    box_request,
    parse_locations,
    parse_size,
    patch_request,
    read_boxes,
    read_slide_patches,
)
from zarrgpu.pyramid import Pyramid
from zarrgpu.selection_reads import ExplainedPlan
from zarrgpu.thumbnail import reduce_rows, source_rows, thumbnail_size

_THUMBNAIL_STRIP_NBYTES = 64 << 20


class Slide(Pyramid):
    """A pyramid image. Made by `zarrgpu.open` or `zarrgpu.open_slide`; may be pickled.

    Parameters
    ----------
    spec : SlideSpec
    levels : tuple of Array
        Finest first.
    associated_images : mapping of str to Array
        Label, macro, thumbnail; axes (y, x, c).
    group : Group, optional
        The Zarr group of an OME-Zarr image.
    """

    def __init__(
        self,
        spec: SlideSpec,
        levels: tuple[Array, ...],
        associated_images: Mapping[str, Array],
        group: Group | None = None,
    ) -> None:
        super().__init__(spec, levels)
        self.associated_images = associated_images
        self.group = group

    def __repr__(self) -> str:
        width, height = self.dimensions
        return (
            f"<zarrgpu.Slide {self.spec.source!r} ({self.spec.vendor}) {width} x {height} px, "
            f"{self.level_count} level(s), {self.channel_count} channel(s) of {self.dtype}>"
        )

    @property
    def properties(self) -> Mapping[str, str]:
        """Vendor properties under OpenSlide's keys."""
        return self.spec.properties

    @property
    def icc_profile(self) -> bytes | None:
        """ICC profile of the image, if it carries one; a file's is read when it is asked for."""
        profile = self.spec.icc_profile
        if not isinstance(profile, StoredBytes):
            return profile
        data = self.levels[0].source.store.get_range(profile.key, profile.byte_range)
        return None if data is None else data.tobytes()

    def read_region(
        self,
        location: tuple[int, int],
        level: int,
        size: tuple[int, int],
        **options: Any,
    ) -> Any:
        """Read one region.

        Parameters
        ----------
        location : (int, int)
            (x, y) of the upper left pixel in the level-0 frame.
        level : int
        size : (int, int)
            (width, height) in pixels of `level`.
        **options
            As for `read_regions`; `out` has the shape of the result here.

        Returns
        -------
        array, shape (height, width, channels), or (channels, height, width) for ``layout="NCHW"``
        """
        out = options.pop("out", None)
        if out is None:
            return self.read_regions([location], level, size, **options)[0]
        self.read_regions([location], level, size, out=out[None], **options)
        return out

    def read_regions(
        self,
        locations: ArrayLike,
        level: int,
        size: tuple[int, int],
        *,
        position: Mapping[str, int] | None = None,
        layout: Layout = "NHWC",
        dtype: DTypeLike | None = None,
        normalize: tuple[ArrayLike, ArrayLike] | None = None,
        device: DeviceLike = None,
        out: Any = None,
        options: ReadOptions | None = None,
    ) -> Any:
        """Read N regions of one size in one plan: each tile is fetched and decoded once.

        Parameters
        ----------
        locations : int array, shape (N, 2)
            (x, y) of each upper left pixel in the level-0 frame; may be negative. What lies outside
            of the slide is its fill value. At a coarser level the region begins at the nearest
            pixel of that level, ``floor(location / downsample + 0.5)``: nothing is interpolated,
            where OpenSlide shifts by the fraction of a pixel. An empty list gives N = 0.
        level : int
        size : (int, int)
            (width, height) in pixels of `level`.
        position : mapping of str to int, optional
            Index on the axes other than y, x and c (``{"z": 3, "t": 0}``); 0 where not given.
        layout : "NHWC" or "NCHW"
        dtype : dtype, optional
            float16, float32 or float64 to convert to; default the stored type.
        normalize : (mean, std), optional
            Scalars or one value per channel, in stored units; the result is float32 unless
            `dtype` says otherwise.
        device : None, str or Device
        out : array, optional
            C-contiguous array of the device, with the shape of the result, to read into.
        options : ReadOptions, optional

        Returns
        -------
        array of the device, shape (N, height, width, channels) or (N, channels, height, width)

        Raises
        ------
        SelectionError
            For locations that are no integers of shape (N, 2), a negative size, a level or
            position that is not there, or an `out` that does not fit.
        DataError
            If what is stored cannot be read; the message names file, level and tile.
        DeviceUnavailableError
        """
        points = parse_locations(locations)
        result, _ = read_slide_patches(
            (self,),
            np.zeros(len(points), np.int32),
            points,
            (level,),
            size,
            position=position,
            layout=layout,
            dtype=dtype,
            normalize=normalize,
            device=device,
            out=out,
            options=options,
        )
        return result

    def plan_regions(
        self,
        locations: ArrayLike,
        level: int,
        size: tuple[int, int],
        *,
        position: Mapping[str, int] | None = None,
        device: DeviceLike = None,
    ) -> ExplainedPlan:
        """Plan a `read_regions` without doing it; `explain` says what it would do."""
        points = parse_locations(locations)
        request = patch_request(
            (self,), np.zeros(len(points), np.int32), points, (level,), size, position
        )
        source = self.levels[level].source
        plan = reader.plan_read((source,), request, options=ReadOptions())
        return ExplainedPlan(plan, (source,), output_format(source.spec.dtype), device)

    def get_thumbnail(self, size: tuple[int, int]) -> NDArray[Any]:
        """Whole slide, reduced by averaging to fit into `size`; never enlarged.

        The result has the size that OpenSlide's has; each of its pixels is the mean of the area
        that it covers, where OpenSlide resamples with Lanczos' filter.

        Parameters
        ----------
        size : (int, int)
            Largest (width, height).

        Returns
        -------
        NumPy array, shape (height, width, channels), stored type
        """
        limit = parse_size(size, "thumbnail size", least=1)
        sides = zip(self.dimensions, limit, strict=True)
        level = self.get_best_level_for_downsample(max(full / most for full, most in sides))
        full = self.level_dimensions[level]
        width, height = thumbnail_size(full, limit)
        spec = self.levels[level].source.spec
        row_nbytes = full[0] * self.channel_count * spec.dtype.itemsize * full[1] // height
        step = max(1, _THUMBNAIL_STRIP_NBYTES // row_nbytes)
        strips = []
        for first in range(0, height, step):
            rows = (first, min(first + step, height))
            pixels = self._read_rows(level, *source_rows(*rows, full[1], height))
            strips.append(reduce_rows(pixels, rows, (full[1], full[0]), (height, width)))
        return np.concatenate(strips)

    def _read_rows(self, level: int, first: int, last: int) -> NDArray[Any]:
        """Whole rows of a level, on the host, shape (last - first, width, channels)."""
        size = (self.level_dimensions[level][0], last - first)
        corner = np.array([[0, first]], np.int64)
        request = box_request((self,), np.zeros(1, np.int32), corner, (level,), size)
        output = output_format(self.levels[level].source.spec.dtype)
        pixels, _ = read_boxes(
            (self,), (level,), request, layout="NHWC", output=output, device="cpu"
        )
        return np.asarray(pixels[0])
