"""Which levels are written: the source's, and those to be made of the one before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from zarrgpu.convert import jpeg_tiles
from zarrgpu.convert.downsample import halved_shape
from zarrgpu.convert.layout import Layout, make_layout
from zarrgpu.convert.settings import ConvertOptions
from zarrgpu.convert.source import Source
from zarrgpu.errors import UnsupportedFormatError

_MAX_LEVELS: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Level:
    """One level to write.

    Attributes
    ----------
    number : int
    layout : Layout
    halved : str
        Axes that are halved, of a level that is made of the one before; empty for the source's.
    step : tuple of int, or None
        Elements of level 0 per element of a level that is made, along each axis.
    """

    number: int
    layout: Layout
    halved: str
    step: tuple[int, ...] | None


def plan_levels(image: Source, options: ConvertOptions) -> list[Level]:
    """Levels of the source, and those to be made."""

    def layout(number: int, shape: tuple[int, ...]) -> Layout:
        if options.copy_tiles:
            return jpeg_tiles.tile_layout(image, number, options.shard_px)
        return make_layout(image, shape, options)

    generate = options.pyramid == "generate" or (
        options.pyramid == "auto" and len(image.arrays) == 1 and not options.copy_tiles
    )
    levels = [
        Level(number=k, layout=layout(k, image.shape(k)), halved="", step=None)
        for k in range(1 if generate else len(image.arrays))
    ]
    check_types(image, len(levels))
    if not generate:
        return levels
    chunk = dict(zip(image.axes, levels[0].layout.chunk, strict=True))
    step = (1,) * len(image.axes)
    while len(levels) < _MAX_LEVELS:
        shape = levels[-1].layout.shape
        sizes = dict(zip(image.axes, shape, strict=True))
        long = [a for a in "zyx" if a in sizes and chunk[a] > 1 and sizes[a] > chunk[a]]
        if not long:
            break
        # both axes of a plane at once, so that pixels stay square
        halved = "yx" + ("z" if "z" in long else "")
        step = tuple(2 * s if a in halved else s for s, a in zip(step, image.axes, strict=True))
        shape = halved_shape(shape, image.axes, halved)
        made = layout(len(levels), shape)
        levels.append(Level(number=len(levels), layout=made, halved=halved, step=step))
    return levels


def check_types(image: Source, count: int) -> None:
    """Refuse levels that are to be kept and are of another type than the first."""
    for k, array in enumerate(image.arrays[:count]):
        if array.dtype != image.arrays[0].dtype:
            msg = (
                f"{image.name!r}: level {k} is of {array.dtype}, and level 0 of "
                f"{image.arrays[0].dtype}; levels can be made instead (--pyramid generate)"
            )
            raise UnsupportedFormatError(msg)
