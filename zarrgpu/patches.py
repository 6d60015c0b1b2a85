"""Patches of pyramids: from locations and a level to one read of boxes of the levels' arrays."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from zarrgpu import reader
from zarrgpu.errors import SelectionError
from zarrgpu.output import OutputFormat, output_format
from zarrgpu.plan.request import ReadRequest
from zarrgpu.pyramid import Int64s, Pyramid, level_pixels
from zarrgpu.symmetries import Turns, parse_symmetries

Layout = Literal["NHWC", "NCHW"]

_FAR = 1 << 61
"""Further from the origin than any image or patch reaches, and clear of overflow."""


def patch_request(
    slides: Sequence[Pyramid],
    slide_index: ArrayLike,
    locations: ArrayLike,
    levels: Sequence[int],
    size: tuple[int, int],
    position: Mapping[str, int] | None = None,
) -> ReadRequest:
    """Turn patch locations into boxes of the slides' level arrays.

    Parameters
    ----------
    slides : sequence of Slide
        With the same axes and number of channels.
    slide_index : int array, shape (N,)
    locations : int array, shape (N, 2)
        (x, y) in the level-0 frame of each patch's slide.
    levels : sequence of int
        Level to read of each slide.
    size : (int, int)
        (width, height) in pixels of the level.
    position : mapping of str to int, optional
        Index on the other axes.

    Raises
    ------
    SelectionError
    """
    points = parse_locations(locations)
    index = check_slide_index(slide_index, len(points), len(slides))
    levels = [
        check_level(level, slide.level_count, slide.spec.source)
        for slide, level in zip(slides, levels, strict=True)
    ]
    _check_alike(slides)
    scale = np.array([s.level_downsamples[lv] for s, lv in zip(slides, levels, strict=True)])
    pixels = points if (scale == 1.0).all() else level_pixels(points, scale[index, None])
    # where a level is as fine as level 0, locations are exact beyond what a float holds
    pixels = np.where(scale[index, None] == 1.0, points, pixels)
    return box_request(slides, index, pixels, levels, size, position)


def box_request(
    slides: Sequence[Pyramid],
    slide_index: NDArray[np.int32],
    pixels: Int64s,
    levels: Sequence[int],
    size: tuple[int, int],
    position: Mapping[str, int] | None = None,
    *,
    of_level0: bool = False,
) -> ReadRequest:
    """Turn corners in pixels of the level read, (x, y), into boxes; see `patch_request`.

    With `of_level0` the position is one of level 0, as whoever did not choose the level means it:
    what is read is the level's plane that holds the centre of that of level 0.
    """
    axes = slides[0].axes
    width, height = parse_size(size)
    extents = {"x": width, "y": height, "c": slides[0].channel_count}
    start = np.zeros((len(pixels), len(axes)), np.int64)
    start[:, axes.index("x")] = pixels[:, 0]
    start[:, axes.index("y")] = pixels[:, 1]
    frames = [0] * len(slides) if of_level0 else levels
    for name, index in _check_position(slides, frames, position or {}).items():
        axis = axes.index(name)
        pairs = zip(slides, frames, levels, strict=True)
        planes = [_plane(slide, axis, index, frame, level) for slide, frame, level in pairs]
        start[:, axis] = np.array(planes, np.int64)[slide_index]
    return ReadRequest(
        arrays=tuple(s.levels[lv].source.spec for s, lv in zip(slides, levels, strict=True)),
        array_index=slide_index,
        start=start,
        count=tuple(extents.get(name, 1) for name in axes),
        step=(1,) * len(axes),
    )


def read_slide_patches(
    slides: Sequence[Pyramid],
    slide_index: ArrayLike,
    locations: ArrayLike,
    levels: Sequence[int],
    size: tuple[int, int],
    **how: Any,
) -> tuple[Any, NDArray[np.bool_]]:
    """Read patches of several slides in one plan; see `start_slide_patches`.

    Returns
    -------
    patches : array of the device, shape (N, height, width, channels) or (N, channels, height,
        width)
    ok : bool array, shape (N,)
    """
    return start_slide_patches(slides, slide_index, locations, levels, size, **how).finish()


def start_slide_patches(
    slides: Sequence[Pyramid],
    slide_index: ArrayLike,
    locations: ArrayLike,
    levels: Sequence[int],
    size: tuple[int, int],
    *,
    position: Mapping[str, int] | None = None,
    layout: Layout = "NHWC",
    dtype: DTypeLike | None = None,
    normalize: tuple[ArrayLike, ArrayLike] | None = None,
    symmetries: ArrayLike | None = None,
    **how: Any,
) -> reader.PendingRead:
    """Start to read patches of several slides in one plan.

    Parameters
    ----------
    slides, slide_index, locations, levels, size, position
        As for `patch_request`.
    layout, dtype, normalize, device, out, options
        As for `Slide.read_regions`.
    stats : ReadStats, optional
        Added to.
    on_error : "raise" or "mask"
        Whether a patch that cannot be read raises, or is marked; its pixels are then the fill value
        where they could not be read.
    cancelled : callable, optional
        As for `reader.read`.
    symmetries : int array (N,), optional
        How each patch is flipped and turned; see `zarrgpu.symmetries`.
    ring : SlotRing, optional
        As for `reader.start_read`.
    """
    request = patch_request(slides, slide_index, locations, levels, size, position)
    output = patch_format(slides, dtype, normalize, levels)
    output = turned_format(output, slides[0].axes, symmetries, request.num_boxes, size)
    return start_boxes(slides, levels, request, layout=layout, output=output, **how)


def read_boxes(
    slides: Sequence[Pyramid], levels: Sequence[int], request: ReadRequest, **how: Any
) -> tuple[Any, NDArray[np.bool_]]:
    """Read the boxes of `box_request`; `how` and the result are those of `read_slide_patches`."""
    return start_boxes(slides, levels, request, **how).finish()


def start_boxes(
    slides: Sequence[Pyramid],
    levels: Sequence[int],
    request: ReadRequest,
    *,
    layout: Layout,
    output: OutputFormat,
    out: Any = None,
    **how: Any,
) -> reader.PendingRead:
    """Start what `read_boxes` does; `how` may also have a `ring` (`reader.start_read`)."""
    axes = slides[0].axes
    order = axis_layout(axes, layout)
    count = dict(zip(axes, request.count, strict=True))
    height, width, channels = count["y"], count["x"], count.get("c", 1)
    inner = (height, width, channels) if layout == "NHWC" else (channels, height, width)
    shape = (request.num_boxes, *inner)
    if out is not None and tuple(getattr(out, "shape", ())) != shape:
        msg = f"out must have shape {shape}, got {getattr(out, 'shape', type(out).__name__)}"
        raise SelectionError(msg)
    pending = reader.start_read(
        tuple(s.levels[lv].source for s, lv in zip(slides, levels, strict=True)),
        request,
        output=output,
        layout=order,
        out=out,
        **how,
    )
    return pending.then(lambda result, ok: (result.reshape(shape) if out is None else out, ok))


def patch_format(
    slides: Sequence[Pyramid],
    dtype: DTypeLike | None,
    normalize: tuple[ArrayLike, ArrayLike] | None,
    levels: Sequence[int],
) -> OutputFormat:
    """Output format of patches; slides of different types need a floating `dtype`."""
    specs = [s.levels[lv].source.spec for s, lv in zip(slides, levels, strict=True)]
    formats = [
        output_format(
            spec.dtype,
            dtype=dtype,
            normalize=normalize,
            channel_axis=slide.axes.index("c") if "c" in slide.axes else None,
            channels=slide.channel_count,
        )
        for slide, spec in zip(slides, specs, strict=True)
    ]
    if len({made.dtype for made in formats}) > 1:
        kinds = ", ".join(sorted({str(spec.dtype) for spec in specs}))
        msg = f"slides have different types ({kinds}): give dtype='float32' to read them together"
        raise SelectionError(msg)
    return formats[0]


def turned_format(
    output: OutputFormat,
    axes: tuple[str, ...],
    symmetries: ArrayLike | None,
    n: int,
    size: tuple[int, int],
) -> OutputFormat:
    """Output format of `n` patches of `size`, each flipped and turned as `symmetries` says."""
    if symmetries is None:
        return output
    values = parse_symmetries(symmetries, n, size)
    if not values.any():
        return output
    return replace(output, turns=Turns(values, axes.index("y"), axes.index("x")))


def parse_locations(locations: ArrayLike) -> Int64s:
    """Locations as int64 of shape (N, 2); an empty list is N = 0."""
    try:
        points = np.asarray(locations)
    except (TypeError, ValueError) as error:
        msg = f"locations must be integers (x, y) of shape (N, 2): {error}"
        raise SelectionError(msg) from error
    if points.shape in ((0,), (0, 2)):
        return np.empty((0, 2), np.int64)
    if points.ndim != 2 or points.shape[1] != 2 or points.dtype.kind not in "iu":
        msg = (
            "locations must be integers (x, y) of shape (N, 2), "
            f"got shape {points.shape} of {points.dtype}"
        )
        raise SelectionError(msg)
    least = -_FAR if points.dtype.itemsize == 8 and points.dtype.kind == "i" else None
    most = _FAR if points.dtype.itemsize == 8 else None
    if least is not None or most is not None:
        points = np.clip(points, least, most)
    return points.astype(np.int64)


def parse_size(size: Any, name: str = "size", *, least: int = 0) -> tuple[int, int]:
    """(width, height) from a pair of integers."""
    try:
        width, height = (operator.index(n) for n in size)
    except (TypeError, ValueError) as error:
        msg = f"{name} must be two integers (width, height), got {size!r}"
        raise SelectionError(msg) from error
    if min(width, height) < least:
        msg = f"{name} must be (width, height) of at least {least}, got {size}"
        raise SelectionError(msg)
    return width, height


def parse_integer(value: Any, name: str, *, least: int) -> int:
    """Check one integer argument."""
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if number < least:
        msg = f"{name} must be an integer of at least {least}, got {value!r}"
        raise SelectionError(msg)
    return number


def check_slide_index(slide_index: ArrayLike, n: int, num_slides: int) -> NDArray[np.int32]:
    """Which slide each of `n` locations is of."""
    index = np.asarray(slide_index)
    whole = index.dtype.kind in "iu" or not index.size
    if not whole or index.shape != (n,) or not ((index >= 0) & (index < num_slides)).all():
        msg = f"slide_index must be {n} integers in 0..{num_slides - 1}, one a location"
        raise SelectionError(msg)
    return index.astype(np.int32)


def check_level(level: Any, level_count: int, source: str) -> int:
    """`level` as an int that a slide has."""
    try:
        index = operator.index(level)
    except TypeError:
        index = -1
    if not 0 <= index < level_count:
        msg = f"{source!r}: level {level!r} is outside of 0..{level_count - 1}"
        raise SelectionError(msg)
    return index


def _check_alike(slides: Sequence[Pyramid]) -> None:
    first = slides[0]
    for slide in slides[1:]:
        if slide.axes != first.axes or slide.channel_count != first.channel_count:
            msg = (
                f"{slide.spec.source!r} has axes {slide.axes} and {slide.channel_count} channels, "
                f"{first.spec.source!r} {first.axes} and {first.channel_count}; read them apart"
            )
            raise SelectionError(msg)


def _check_position(
    slides: Sequence[Pyramid], levels: Sequence[int], position: Mapping[str, int]
) -> dict[str, int]:
    first = slides[0]
    checked = {}
    for name, value in position.items():
        if name not in first.axes or name in ("x", "y", "c"):
            others = [axis for axis in first.axes if axis not in ("x", "y", "c")]
            msg = f"{first.spec.source!r} has no axis {name!r} to take a position on, only {others}"
            raise SelectionError(msg)
        axis = first.axes.index(name)
        length = min(s.levels[lv].shape[axis] for s, lv in zip(slides, levels, strict=True))
        try:
            checked[name] = operator.index(value)
        except TypeError:
            checked[name] = -1
        if not 0 <= checked[name] < length:
            msg = f"{first.spec.source!r}: {name}={value!r} is outside of 0..{length - 1}"
            raise SelectionError(msg)
    return checked


def _plane(slide: Pyramid, axis: int, index: int, frame: int, level: int) -> int:
    """Index on an axis of `level` for one of `frame`, which may have more of them."""
    full, own = slide.levels[frame].shape[axis], slide.levels[level].shape[axis]
    ratio = full / own
    if abs(full / round(ratio) - own) < 1:  # sizes are rounded
        ratio = round(ratio)
    return min(int((index + 0.5) / ratio), own - 1)


def axis_layout(axes: tuple[str, ...], layout: Layout) -> tuple[int, ...]:
    """Array axis of each result axis; axes of length 1 that the layout does not name come last."""
    if layout not in ("NHWC", "NCHW"):
        msg = f"layout must be NHWC or NCHW, got {layout!r}"
        raise SelectionError(msg)
    named = ("y", "x", "c") if layout == "NHWC" else ("c", "y", "x")
    present = [axes.index(name) for name in named if name in axes]
    return (*present, *(i for i in range(len(axes)) if i not in present))
