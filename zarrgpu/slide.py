"""`Slide`: a pyramid of 2-D images under OpenSlide's names.

A whole-slide TIFF and a multiscale OME-Zarr image look the same here. Locations and sizes are ``(x,
y)`` and ``(width, height)``; locations are in the frame of level 0, sizes in pixels of the level
read, as in OpenSlide. Results are ``(height, width, channels)`` in the stored type, without an
alpha channel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from zarrgpu import reader
from zarrgpu.array import Array, ExplainedPlan
from zarrgpu.devices.resolve import DeviceLike
from zarrgpu.errors import SelectionError
from zarrgpu.group import Group
from zarrgpu.model import ReadOptions, SlideSpec
from zarrgpu.output import OutputFormat, output_format
from zarrgpu.plan.request import ReadRequest
from zarrgpu.stats import ReadStats

Layout = Literal["NHWC", "NCHW"]
_THUMBNAIL_STRIP_NBYTES = 64 << 20


class Slide:
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
        self.spec = spec
        self.levels = levels
        self.associated_images = associated_images
        self.group = group

    def __repr__(self) -> str:
        width, height = self.dimensions
        return (
            f"<zarrgpu.Slide {self.spec.source!r} ({self.spec.vendor}) {width} x {height} px, "
            f"{self.level_count} level(s), {self.channel_count} channel(s) of {self.dtype}>"
        )

    @property
    def level_count(self) -> int:
        """Number of levels."""
        return len(self.levels)

    @property
    def dimensions(self) -> tuple[int, int]:
        """(width, height) of level 0 in pixels."""
        return self.level_dimensions[0]

    @property
    def level_dimensions(self) -> tuple[tuple[int, int], ...]:
        """(width, height) of each level in its own pixels."""
        y, x = self.axes.index("y"), self.axes.index("x")
        return tuple((level.shape[x], level.shape[y]) for level in self.levels)

    @property
    def level_downsamples(self) -> tuple[float, ...]:
        """Level-0 pixels per pixel of each level: the mean of both axes, as OpenSlide has it."""
        width, height = self.dimensions
        return tuple((width / w + height / h) / 2 for w, h in self.level_dimensions)

    @property
    def mpp(self) -> tuple[float | None, float | None]:
        """Micrometres per pixel of level 0 in x and y; None where the file does not say."""
        return self.spec.mpp

    @property
    def properties(self) -> Mapping[str, str]:
        """Vendor properties under OpenSlide's keys."""
        return self.spec.properties

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the axes of every level, such as ``("y", "x", "c")``."""
        return self.spec.axes

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type in native byte order."""
        return self.levels[0].dtype

    @property
    def channel_count(self) -> int:
        """Channels of a region; 1 where the image has no channel axis."""
        return self.levels[0].shape[self.axes.index("c")] if "c" in self.axes else 1

    @property
    def icc_profile(self) -> bytes | None:
        """ICC profile of the image, if it carries one."""
        return self.spec.icc_profile

    def get_best_level_for_downsample(self, downsample: float) -> int:
        """Coarsest level that is not coarser than `downsample` (OpenSlide's rule)."""
        fitting = [i for i, d in enumerate(self.level_downsamples) if d <= downsample * (1 + 1e-9)]
        return fitting[-1] if fitting else 0

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
            As for `read_regions`.

        Returns
        -------
        array, shape (height, width, channels), or (channels, height, width) for ``layout="NCHW"``
        """
        return self.read_regions([location], level, size, **options)[0]

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
            (x, y) of each upper left pixel in the level-0 frame. At a coarser level the nearest
            pixel of that level is taken. What lies outside of the slide is its fill value.
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
            C-contiguous array of the device to read into.
        options : ReadOptions, optional

        Returns
        -------
        array of the device, shape (N, height, width, channels) or (N, channels, height, width)

        Raises
        ------
        SelectionError, DataError, DeviceUnavailableError
        """
        points = np.asarray(locations)
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
        points = np.asarray(locations)
        request = patch_request(
            (self,), np.zeros(len(points), np.int32), points, (level,), size, position
        )
        source = self.levels[level].source
        plan = reader.plan_read((source,), request, options=ReadOptions())
        return ExplainedPlan(plan, (source,), output_format(source.spec.dtype), device)

    def get_thumbnail(self, size: tuple[int, int]) -> NDArray[Any]:
        """Whole slide, reduced by averaging to fit into `size`.

        Parameters
        ----------
        size : (int, int)
            Largest (width, height).

        Returns
        -------
        NumPy array, shape (height, width, channels), stored type
        """
        width, height = self.dimensions
        if min(size) < 1:
            msg = f"thumbnail size must be at least 1 x 1, got {size}"
            raise SelectionError(msg)
        wanted = max(width / size[0], height / size[1], 1.0)
        level = self.get_best_level_for_downsample(wanted)
        level_width, level_height = self.level_dimensions[level]
        factor = int(np.ceil(max(level_width / size[0], level_height / size[1], 1.0)))
        row_nbytes = level_width * self.channel_count * self.dtype.itemsize * factor
        strip = factor * max(1, _THUMBNAIL_STRIP_NBYTES // row_nbytes)
        downsample = self.level_downsamples[level]
        strips = [
            self.read_region(
                (0, round(top * downsample)),
                level,
                (level_width, min(strip, level_height - top)),
                device="cpu",
            )
            for top in range(0, level_height, strip)
        ]
        return np.concatenate([_average_blocks(pixels, factor) for pixels in strips])


def patch_request(
    slides: Sequence[Slide],
    slide_index: NDArray[np.int32],
    locations: NDArray[Any],
    levels: Sequence[int],
    size: tuple[int, int],
    position: Mapping[str, int] | None = None,
) -> ReadRequest:
    """Turn patch locations into boxes of the slides' level arrays.

    Parameters
    ----------
    slides : sequence of Slide
        With the same axes and number of channels.
    slide_index : int32 array, shape (N,)
    locations : int array, shape (N, 2)
        (x, y) in the level-0 frame of each patch's slide.
    levels : sequence of int
        Level to read of each slide.
    size : (int, int)
        (width, height) in pixels of the level.
    position : mapping of str to int, optional
        Index on the other axes.
    """
    first = slides[0]
    _check_patches(slides, locations, levels, size)
    axes = first.axes
    extents = {"x": int(size[0]), "y": int(size[1]), "c": first.channel_count}
    scale = np.array([s.level_downsamples[lv] for s, lv in zip(slides, levels, strict=True)])
    starts = locations.astype(np.int64)
    if (scale != 1.0).any():
        starts = np.floor(locations / scale[slide_index, None] + 0.5).astype(np.int64)
    start = np.zeros((len(starts), len(axes)), np.int64)
    start[:, axes.index("x")] = starts[:, 0]
    start[:, axes.index("y")] = starts[:, 1]
    for name, index in (position or {}).items():
        if name not in axes or name in extents:
            msg = f"{first.spec.source!r} has no axis {name!r} to take a position on; axes: {axes}"
            raise SelectionError(msg)
        lengths = [
            s.levels[lv].shape[axes.index(name)] for s, lv in zip(slides, levels, strict=True)
        ]
        if not 0 <= index < min(lengths):
            msg = f"{first.spec.source!r}: {name}={index} is outside of 0..{min(lengths) - 1}"
            raise SelectionError(msg)
        start[:, axes.index(name)] = index
    return ReadRequest(
        arrays=tuple(s.levels[lv].source.spec for s, lv in zip(slides, levels, strict=True)),
        array_index=slide_index,
        start=start,
        count=tuple(extents.get(name, 1) for name in axes),
        step=(1,) * len(axes),
    )


def read_slide_patches(
    slides: Sequence[Slide],
    slide_index: NDArray[np.int32],
    locations: NDArray[Any],
    levels: Sequence[int],
    size: tuple[int, int],
    *,
    position: Mapping[str, int] | None = None,
    layout: Layout = "NHWC",
    dtype: DTypeLike | None = None,
    normalize: tuple[ArrayLike, ArrayLike] | None = None,
    device: DeviceLike = None,
    out: Any = None,
    options: ReadOptions | None = None,
    stats: ReadStats | None = None,
    on_error: reader.OnError = "raise",
) -> tuple[Any, NDArray[np.bool_]]:
    """Read patches of several slides in one plan; parameters as `patch_request` and `read_regions`.

    Returns ------- patches : array of the device, shape (N, height, width, channels) or (N,
    channels, height, width) ok : bool array, shape (N,)
    """
    request = patch_request(slides, slide_index, locations, levels, size, position)
    axes = slides[0].axes
    result, ok = reader.read(
        tuple(s.levels[lv].source for s, lv in zip(slides, levels, strict=True)),
        request,
        output=patch_format(slides, dtype, normalize),
        layout=_axis_layout(axes, layout),
        device=device,
        out=out,
        options=options,
        stats=stats,
        on_error=on_error,
    )
    width, height = size
    channels = slides[0].channel_count
    shape = (height, width, channels) if layout == "NHWC" else (channels, height, width)
    return result.reshape(len(locations), *shape), ok


def patch_format(
    slides: Sequence[Slide],
    dtype: DTypeLike | None,
    normalize: tuple[ArrayLike, ArrayLike] | None,
) -> OutputFormat:
    """Output format of patches; slides of different types need a floating `dtype`."""
    formats = [
        output_format(
            slide.levels[0].source.spec.dtype,
            dtype=dtype,
            normalize=normalize,
            channel_axis=slide.axes.index("c") if "c" in slide.axes else None,
            channels=slide.channel_count,
        )
        for slide in slides
    ]
    if len({made.dtype for made in formats}) > 1:
        kinds = ", ".join(sorted({str(slide.dtype) for slide in slides}))
        msg = f"slides have different types ({kinds}): give dtype='float32' to read them together"
        raise SelectionError(msg)
    return formats[0]


def _axis_layout(axes: tuple[str, ...], layout: Layout) -> tuple[int, ...]:
    """Array axis of each result axis; axes of length 1 that the layout does not name come last."""
    if layout not in ("NHWC", "NCHW"):
        msg = f"layout must be NHWC or NCHW, got {layout!r}"
        raise SelectionError(msg)
    named = ("y", "x", "c") if layout == "NHWC" else ("c", "y", "x")
    present = [axes.index(name) for name in named if name in axes]
    return (*present, *(i for i in range(len(axes)) if i not in present))


def _check_patches(
    slides: Sequence[Slide], locations: NDArray[Any], levels: Sequence[int], size: tuple[int, int]
) -> None:
    first = slides[0]
    for slide, level in zip(slides, levels, strict=True):
        where = slide.spec.source
        if not 0 <= level < slide.level_count:
            msg = f"{where!r}: level {level} is outside of 0..{slide.level_count - 1}"
            raise SelectionError(msg)
        if slide.axes != first.axes or slide.channel_count != first.channel_count:
            msg = (
                f"{where!r} has axes {slide.axes} and {slide.channel_count} channels, "
                f"{first.spec.source!r} {first.axes} and {first.channel_count}; read them apart"
            )
            raise SelectionError(msg)
    if locations.ndim != 2 or locations.shape[1] != 2 or locations.dtype.kind not in "iu":
        msg = (
            "locations must be integers (x, y) of shape (N, 2), "
            f"got shape {locations.shape} of {locations.dtype}"
        )
        raise SelectionError(msg)
    if min(size) < 0:
        msg = f"size must be (width, height) of at least 0, got {size}"
        raise SelectionError(msg)


def _average_blocks(pixels: NDArray[Any], factor: int) -> NDArray[Any]:
    """Mean over blocks of ``factor x factor`` pixels; short blocks at the lower and right edges."""
    if factor == 1:
        return pixels
    height, width = pixels.shape[:2]
    rows, columns = np.arange(0, height, factor), np.arange(0, width, factor)
    sums = np.add.reduceat(pixels, rows, axis=0, dtype=np.float64)
    sums = np.add.reduceat(sums, columns, axis=1)
    area = np.diff(np.append(rows, height))[:, None] * np.diff(np.append(columns, width))[None, :]
    means = sums / area[..., None]
    if pixels.dtype.kind in "iu":
        means = np.floor(means + 0.5)
    return np.asarray(means.astype(pixels.dtype))
