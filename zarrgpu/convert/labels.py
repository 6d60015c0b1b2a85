"""Label images below an OME-Zarr image: written below what is written of it, level by level."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

from zarrgpu.convert.layout import make_layout
from zarrgpu.convert.levels import Level, check_types
from zarrgpu.convert.settings import ConvertOptions
from zarrgpu.convert.source import Source, open_source
from zarrgpu.errors import UnsupportedFormatError, ZarrGPUError
from zarrgpu.hierarchy import join, normalise_path
from zarrgpu.ome_image import OmeZarrImage

LABELS: Final = "labels"
"""Group of the label images."""


def label_sources(node: Any, name: str, options: ConvertOptions) -> Iterator[tuple[str, Source]]:
    """Paths and sources of the label images that are to be written.

    Raises
    ------
    UnsupportedFormatError
        If one cannot be read, or has no integers.
    """
    if not isinstance(node, OmeZarrImage) or not options.labels:
        return
    for each in node.labels:
        path = f"{LABELS}/{each}"
        try:
            path = join(LABELS, normalise_path(each))
            source = open_source(node.labels[each], f"{name.rstrip('/')}/{path}", None)
        except ZarrGPUError as error:
            msg = f"{name!r}: {path!r} cannot be converted: {error}; leave labels out (--no-labels)"
            raise UnsupportedFormatError(msg) from error
        if source.dtype.kind not in "iu":
            msg = f"{source.name!r} has pixels of {source.dtype}; leave labels out (--no-labels)"
            raise UnsupportedFormatError(msg)
        yield path, replace(source, labels=True)


def label_levels(
    labels: Source, image: Source, levels: Sequence[Level], options: ConvertOptions
) -> list[Level]:
    """As many levels as the image has: the label image's own, or every second element.

    What is halved is what is halved of the image, to as many elements.
    """

    def level(number: int, shape: tuple[int, ...], halved: str, step: Any) -> Level:
        layout = make_layout(labels, shape, options)
        return Level(number=number, layout=layout, halved=halved, step=step)

    own = len(labels.arrays) == len(levels) and all(each.step is None for each in levels)
    kept = len(levels) if own else 1
    check_types(labels, kept)
    made = [level(k, labels.shape(k), "", None) for k in range(kept)]
    step = (1,) * len(labels.axes)
    for number in range(kept, len(levels)):
        shape, halved = _next_shape(labels, made[-1].layout.shape, image, levels, number)
        step = tuple(2 * s if a in halved else s for s, a in zip(step, labels.axes, strict=True))
        made.append(level(number, shape, halved, step))
    return made


def _next_shape(
    labels: Source,
    finer: tuple[int, ...],
    image: Source,
    levels: Sequence[Level],
    number: int,
) -> tuple[tuple[int, ...], str]:
    """Shape of a level of labels that is made, and the axes that are halved for it."""
    before = dict(zip(image.axes, levels[number - 1].layout.shape, strict=True))
    wanted = dict(zip(image.axes, levels[number].layout.shape, strict=True))
    shape, halved = [], ""
    for axis, size in zip(labels.axes, finer, strict=True):
        if axis not in "zyx" or size == 1 or wanted.get(axis) == before.get(axis):
            shape.append(size)
            continue
        halved += axis
        half = -(-size // 2)
        same = before[axis] == size and wanted[axis] == size // 2  # some round down
        shape.append(wanted[axis] if same else half)
    return tuple(shape), halved
