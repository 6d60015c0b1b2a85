"""Patches at any pixel size: read of the nearest finer level, resampled as they are delivered.

A result pixel is `step` level-0 pixels wide and high, a number for each axis, so that little here
knows micrometres. Of the levels the coarsest is read that is not coarser than the result, up to
`LEVEL_TOLERANCE`; it covers the area of level 0, unless its file states a downsample. `resampling`
says what a result pixel is. Slides of different pixel sizes are read together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from zarrgpu import reader
from zarrgpu.cuda_resample import resample_on_device
from zarrgpu.devices.cuda import CudaDevice
from zarrgpu.devices.driver import DeviceMemory
from zarrgpu.devices.resolve import Device, DeviceLike, resolve_device
from zarrgpu.devices.ring import SlotRing
from zarrgpu.errors import MemoryBudgetError, SelectionError
from zarrgpu.host_engine import allocate
from zarrgpu.host_resample import resample_on_host
from zarrgpu.model import ReadOptions, native_dtype
from zarrgpu.output import OutputFormat
from zarrgpu.patches import (
    Layout,
    axis_layout,
    box_request,
    check_slide_index,
    patch_format,
    start_boxes,
    turned_format,
)
from zarrgpu.pyramid import Pyramid
from zarrgpu.resampling import (
    ResampleBatch,
    check_resampled,
    filter_tables,
    is_exact,
    source_length,
    source_start,
)
from zarrgpu.stats import ReadStats

Steps = NDArray[np.float64]
"""Level-0 pixels per result pixel in x and y, shape (slides, 2)."""

LEVEL_TOLERANCE = 0.01
"""A level so much coarser than the result counts as finer: files state rounded pixel sizes."""

_SAME_STEP = 1e-9
_MAX_STEP = 1e9
_ALIKE = 1.25
"""Slides whose source patches differ in area by no more than this are read as one size."""


def mpp_step(slide: Pyramid, mpp: Any) -> tuple[float, float]:
    """Level-0 pixels, in x and y, that a pixel of `mpp` micrometres is wide and high.

    Parameters
    ----------
    slide : Pyramid
    mpp : float or (float, float)
        For both axes, or for x and y.

    Raises
    ------
    SelectionError
        If the slide does not state its pixel size, or `mpp` is none.
    """
    wanted = parse_mpp(mpp)
    steps = []
    for name, size, own in zip("xy", wanted, slide.mpp, strict=True):
        if own is None:
            msg = (
                f"{slide.spec.source!r} does not state its pixel size in {name} (mpp is None), so "
                "it cannot be read at one; read by level, or open it with mpp=(x, y)"
            )
            raise SelectionError(msg)
        steps.append(size / own)
    return steps[0], steps[1]


def parse_mpp(mpp: Any) -> tuple[float, float]:
    """Micrometres per pixel in x and y, from one positive number or two."""
    try:
        pair = (float(mpp), float(mpp)) if np.ndim(mpp) == 0 else tuple(float(v) for v in mpp)
    except (TypeError, ValueError):
        pair = ()
    if len(pair) != 2 or not all(math.isfinite(v) and v > 0 for v in pair):
        msg = f"mpp must be one or two positive numbers of micrometres per pixel, got {mpp!r}"
        raise SelectionError(msg)
    return pair[0], pair[1]


def level_ratios(slide: Pyramid) -> Steps:
    """Level-0 pixels per pixel of each level in x and y, shape (levels, 2)."""
    stated = slide.spec.downsamples
    if stated is not None:
        return np.repeat(np.array(stated, np.float64)[:, None], 2, axis=1)
    sizes = np.array(slide.level_dimensions, np.float64)
    return np.asarray(sizes[0] / sizes)


def level_for_step(slide: Pyramid, step: ArrayLike) -> int:
    """Level to resample from: the coarsest that is not coarser than the result; else level 0."""
    finer = (level_ratios(slide) <= np.asarray(step) * (1 + LEVEL_TOLERANCE)).all(axis=1)
    found = np.flatnonzero(finer)
    return int(found[-1]) if len(found) else 0


def source_size(slide: Pyramid, step: ArrayLike, size: tuple[int, int]) -> tuple[int, int]:
    """(width, height) that is read of a level to make a patch of `size`."""
    steps = _level_step(slide, level_for_step(slide, step), np.asarray(step, np.float64))
    return source_length(size[0], float(steps[0])), source_length(size[1], float(steps[1]))


def _level_step(slide: Pyramid, level: int, step: Steps) -> Steps:
    """Pixels of the level per result pixel; exactly 1 where only rounding is between."""
    steps = step / level_ratios(slide)[level]
    return np.asarray(np.where(np.abs(steps - 1) < _SAME_STEP, 1.0, steps))


def read_scaled_patches(
    slides: Sequence[Pyramid],
    slide_index: ArrayLike,
    corners: ArrayLike,
    steps: ArrayLike,
    size: tuple[int, int],
    **how: Any,
) -> tuple[Any, NDArray[np.bool_]]:
    """Read patches of several slides, each at its pixel size; see `start_scaled_patches`.

    Returns
    -------
    patches, ok
        As `patches.read_slide_patches` gives them.
    """
    return start_scaled_patches(slides, slide_index, corners, steps, size, **how).finish()


def start_scaled_patches(
    slides: Sequence[Pyramid],
    slide_index: ArrayLike,
    corners: ArrayLike,
    steps: ArrayLike,
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
    cancelled: Callable[[], bool] | None = None,
    symmetries: ArrayLike | None = None,
    ring: SlotRing | None = None,
) -> reader.PendingRead:
    """Start to read patches of several slides, each at its pixel size.

    What is resampled is started as far as its first part is read; the rest is done to finish it.

    Parameters
    ----------
    slides : sequence of Pyramid
    slide_index : int array (N,)
    corners : float array (N, 2)
        (x, y) of each patch's upper left corner in level-0 pixels, between pixels or not.
    steps : float array (slides, 2)
        Level-0 pixels per result pixel in x and y, for each slide.
    size : (int, int)
        (width, height) of the results.
    position : mapping of str to int, optional
        Index on the other axes, of level 0.
    layout, dtype, normalize, device, out, options, stats, on_error, cancelled, symmetries
        As for `patches.read_slide_patches`.
    ring : SlotRing, optional
        As for `reader.start_read`.

    Raises
    ------
    SelectionError
        Also for pixels of a type that is not resampled.
    MemoryBudgetError
        If the source of a single patch exceeds the memory budget.
    """
    options = options or ReadOptions()
    stats = stats if stats is not None else ReadStats()
    where = resolve_device(device)
    scaled = _Scaled(slides, steps, size, position)
    output = patch_format(slides, dtype, normalize, scaled.levels)
    index, places = scaled.places(slide_index, corners)
    output = turned_format(output, slides[0].axes, symmetries, len(index), size)
    how: dict[str, Any] = {
        "position": position, "options": options, "stats": stats, "on_error": on_error,
        "cancelled": cancelled, "device": where, "ring": ring,
    }  # fmt: skip
    if scaled.is_plain(index, places):
        request = box_request(
            slides, index, places.astype(np.int64), scaled.levels, size, how.pop("position"),
            of_level0=True,
        )  # fmt: skip
        return start_boxes(
            slides, scaled.levels, request, layout=layout, output=output, out=out, **how
        )
    for slide, level in zip(slides, scaled.levels, strict=True):
        check_resampled(slide.levels[level].source.spec.dtype, slide.spec.source, output.dtype)
    axis_layout(slides[0].axes, layout)
    axes = (1, 2, 3) if layout == "NHWC" else (2, 3, 1)
    width, height = size
    channels = slides[0].channel_count
    inner = (height, width, channels) if layout == "NHWC" else (channels, height, width)
    if out is not None and tuple(getattr(out, "shape", ())) != (len(index), *inner):
        msg = f"out must have shape {(len(index), *inner)}, got {getattr(out, 'shape', None)}"
        raise SelectionError(msg)
    result, memory = _allocate((len(index), *inner), output, where, out, ring)
    ok = np.ones(len(index), np.bool_)
    parts = scaled.parts(index, options) if 0 not in size else []

    def start(rows: NDArray[np.int64]) -> reader.PendingRead:
        return scaled.start(rows, index, places, result, axes, output, where, how)

    if not parts:
        return reader.PendingRead(memory, lambda: (result, ok), stats)
    first = start(parts[0])

    def others(_: Any, first_ok: NDArray[np.bool_]) -> tuple[Any, NDArray[np.bool_]]:
        ok[parts[0]] = first_ok
        spent = stats.seconds
        for rows in parts[1:]:
            ok[rows] = start(rows).finish()[1]
        stats.seconds = spent  # who finishes this counts its time
        return result, ok

    return first.then(others, memory)


class _Scaled:
    """Patches of one size of slides, each of which has a level and a step of its own."""

    def __init__(
        self,
        slides: Sequence[Pyramid],
        steps: ArrayLike,
        size: tuple[int, int],
        position: Mapping[str, int] | None,
    ) -> None:
        self.slides, self.size, self.position = slides, size, position
        wanted = np.asarray(steps, np.float64).reshape(len(slides), 2)
        if not ((wanted > 1 / _MAX_STEP) & (wanted < _MAX_STEP)).all():
            msg = (
                f"{slides[0].spec.source!r}: pixels of {wanted.tolist()} level-0 pixels are none "
                "that a slide is read at; give mpp in micrometres"
            )
            raise SelectionError(msg)
        self.levels = [level_for_step(s, step) for s, step in zip(slides, wanted, strict=True)]
        pairs = zip(slides, self.levels, strict=True)
        self.ratios = np.array([level_ratios(slide)[level] for slide, level in pairs])
        self.steps = np.array(
            [_level_step(*each) for each in zip(slides, self.levels, wanted, strict=True)]
        )
        self.lengths = np.array(
            [[source_length(n, s) for n, s in zip(size, step, strict=True)] for step in self.steps]
        )
        # checks slides, size and position
        none = np.empty(0, np.int32), np.empty((0, 2), np.int64)
        box_request(slides, *none, self.levels, size, position, of_level0=True)

    def places(
        self, slide_index: ArrayLike, corners: ArrayLike
    ) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        """Slide of each patch, and its corner in pixels of the level read."""
        points = np.asarray(corners, np.float64).reshape(-1, 2)
        index = check_slide_index(slide_index, len(points), len(self.slides))
        return index, points / self.ratios[index]

    def is_plain(self, index: NDArray[np.int32], places: NDArray[np.float64]) -> bool:
        """Whether every result pixel is a pixel of the level that is read."""
        return bool((self.steps == 1).all() and (places == np.floor(places)).all())

    def parts(self, index: NDArray[np.int32], options: ReadOptions) -> list[NDArray[np.int64]]:
        """Rows read together: of slides with sources of about one size, within the budget."""
        areas = self.lengths.prod(axis=1)
        group = np.zeros(len(areas), np.int64)
        least, number = -1.0, -1
        for slide in np.argsort(areas, kind="stable").tolist():
            if number < 0 or areas[slide] > _ALIKE * least:
                least, number = float(areas[slide]), number + 1
            group[slide] = number
        parts = []
        for number in np.unique(group[index]).tolist():
            rows = np.flatnonzero(group[index] == number)
            most = max(
                1, options.memory_budget_bytes // 2 // max(self._nbytes(rows, index, options), 1)
            )
            parts += [rows[i : i + most] for i in range(0, len(rows), most)]
        return parts

    def _nbytes(
        self, rows: NDArray[np.int64], index: NDArray[np.int32], options: ReadOptions
    ) -> int:
        """Bytes of one source patch; one that is too large is refused."""
        used = np.unique(index[rows]).tolist()
        slide = max(used, key=lambda i: int(self.lengths[i].prod()))
        spec = self.slides[slide].levels[self.levels[slide]].source.spec
        width, height = self.lengths[used].max(axis=0).tolist()
        nbytes = width * height * self.slides[slide].channel_count * spec.dtype.itemsize
        if nbytes > options.memory_budget_bytes:
            msg = (
                f"{spec.source!r}: a patch of {self.size[0]} x {self.size[1]} px takes {width} x "
                f"{height} px of level {self.levels[slide]}, {nbytes} bytes; memory_budget_bytes "
                f"is {options.memory_budget_bytes}: take a finer mpp or a smaller size"
            )
            raise MemoryBudgetError(msg)
        return int(nbytes)

    def start(
        self,
        rows: NDArray[np.int64],
        index: NDArray[np.int32],
        places: NDArray[np.float64],
        result: Any,
        axes: tuple[int, int, int],
        output: OutputFormat,
        device: Device,
        how: dict[str, Any],
    ) -> reader.PendingRead:
        """Start to read some patches; finishing it resamples them into the result."""
        used, local = np.unique(index[rows], return_inverse=True)
        slides = [self.slides[i] for i in used.tolist()]
        levels = [self.levels[i] for i in used.tolist()]
        steps, lengths = self.steps[used], self.lengths[used].max(axis=0)
        start = source_start(places[rows], steps[local])
        how = dict(how)
        request = box_request(
            slides, local.astype(np.int32), start, levels, tuple(lengths.tolist()),
            how.pop("position"), of_level0=True,
        )  # fmt: skip
        specs = [slide.levels[lv].source.spec for slide, lv in zip(slides, levels, strict=True)]
        stored = OutputFormat(dtype=native_dtype(specs[0].dtype))
        alike = all(native_dtype(spec.dtype) == stored.dtype for spec in specs)
        if not (alike and is_exact(stored.dtype)):
            stored = OutputFormat(dtype=np.dtype("f4"))
        pending = start_boxes(slides, levels, request, layout="NHWC", output=stored, **how)
        ends = np.array([s.level_dimensions[lv] for s, lv in zip(slides, levels, strict=True)])
        tables, of = [], []
        for axis in (1, 0):
            made, which = filter_tables(
                places[rows, axis] - start[:, axis], steps[local, axis], -start[:, axis],
                ends[local, axis] - start[:, axis], self.size[axis], int(lengths[axis]),
            )  # fmt: skip
            tables.append(made)
            of.append(which)
        fills = np.array([np.float32(spec.fill_scalar) for spec in specs], np.float32)[local]
        batch = ResampleBatch(tables[0], tables[1], of[0], of[1], fills, rows)

        def resample(pixels: Any, ok: NDArray[np.bool_]) -> tuple[Any, NDArray[np.bool_]]:
            if isinstance(device, CudaDevice):
                budget, ring = how["options"].memory_budget_bytes, how["ring"]
                stream = None if ring is None else ring.stream
                resample_on_device(device, batch, pixels, result, axes, output, budget, stream)
            else:
                resample_on_host(batch, pixels, result, axes, output, how["options"])
            return result, ok

        return pending.then(resample)


def _allocate(
    shape: tuple[int, ...], output: OutputFormat, device: Device, out: Any, ring: SlotRing | None
) -> tuple[Any, DeviceMemory | None]:
    """Make or check the result, on the device; its memory there, if it is new."""
    if not isinstance(device, CudaDevice):
        return allocate(shape, (0, 1, 2), output, out)[0], None
    if out is not None:
        view = device.driver.view_array(out)
        strides = [math.prod(shape[axis + 1 :]) * view.dtype.itemsize for axis in range(4)]
        if view.dtype != output.dtype or list(view.strides) != strides:
            msg = (
                f"out must be a C-contiguous array of shape {shape} and type {output.dtype}, got "
                f"strides {view.strides} and type {view.dtype}"
            )
            raise SelectionError(msg)
        return out, None
    driver = device.driver
    nbytes = math.prod(shape) * output.dtype.itemsize
    stream = ring.stream if ring is not None else None
    memory = driver.allocate(nbytes, stream if stream is not None else driver.current_stream())
    return driver.to_array(memory, 0, shape, output.dtype), memory
