"""OME-Zarr 0.5 metadata of what is written, and an attribute ``zarrgpu`` for what it has no place.

Spec: https://ngff.openmicroscopy.org/0.5/ ``multiscales``. Coordinates are those of centres: where
a pixel covers d finer ones, its centre lies (d - 1) / 2 of them further, hence the translations.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zarrgpu.convert.source import Source, Transform, axis_documents
from zarrgpu.formats.ngff_channels import parse_channel

_MEMBERS: Mapping[str, type] = {"label": str, "family": str, "active": bool}


def ome_metadata(
    source: Source, shapes: Sequence[tuple[int, ...]], steps: Sequence[tuple[int, ...] | None]
) -> dict[str, Any]:
    """The attribute ``ome`` of the group.

    Parameters
    ----------
    source : Source
    shapes : sequence of tuple of int
        Of the levels.
    steps : sequence of (tuple of int or None)
        Elements of level 0 per element of a level that was made by averaging, along each axis; None
        for levels of the source.
    """
    datasets = []
    for level, (shape, step) in enumerate(zip(shapes, steps, strict=True)):
        if step is None and source.transforms is not None:
            scale, shift = source.transforms[level]
        else:
            factors = step or [a / b for a, b in zip(shapes[0], shape, strict=True)]
            scale, shift = _scaled(source, factors)
        transforms: list[dict[str, Any]] = [{"type": "scale", "scale": scale}]
        if any(shift):
            transforms.append({"type": "translation", "translation": shift})
        datasets.append({"path": str(level), "coordinateTransformations": transforms})
    name = source.described.get("name") or source.name.rstrip("/").rpartition("/")[2]
    image: dict[str, Any] = {"name": name, "axes": axis_documents(source), "datasets": datasets}
    made = any(step is not None for step in steps)
    if made and source.labels:
        image["type"] = "nearest"
        image["metadata"] = {"description": "every second element", "method": "zarrgpu.convert"}
    elif made:
        image["type"] = "mean"
        image["metadata"] = {
            "description": "means of 2 x 2 elements, x 2 in volumes",
            "method": "zarrgpu.convert",
        }
    else:  # how the source's levels were made
        image |= {name: value for name, value in source.described.items() if name != "name"}
    document: dict[str, Any] = {"version": "0.5", "multiscales": [image]}
    if source.image_label is not None:
        document["image-label"] = dict(source.image_label)
    if source.channels:
        channels = [_completed(channel, source.dtype) for channel in source.channels]
        document["omero"] = {**source.omero, "channels": channels}
    return document


def _completed(channel: Mapping[str, Any], dtype: np.dtype[Any]) -> dict[str, Any]:
    """A channel with all that 0.5 demands: where not stated, white, and the range of the type."""
    found = parse_channel(channel)
    kept = {k: v for k, v in channel.items() if isinstance(v, _MEMBERS.get(k, object))}
    if found.window is None or found.limits is None:
        least, most = 0.0, 1.0
        if dtype.kind in "iu":
            least, most = float(np.iinfo(dtype).min), float(np.iinfo(dtype).max)
        least, most = found.limits or (least, most)
        start, end = found.window or (least, most)
        kept["window"] = {"start": start, "end": end, "min": least, "max": most}
    color = (255, 255, 255) if found.color is None else found.color
    return {**kept, "color": bytes(color).hex().upper()}


def _scaled(source: Source, factors: Sequence[float]) -> Transform:
    """Scale and translation of a level whose elements cover so many of level 0."""
    first = source.transforms[0][1] if source.transforms else [0.0] * len(source.axes)
    scale = [size * factor for size, factor in zip(source.scale, factors, strict=True)]
    shift = [  # every second label stays where it is
        origin + (0.0 if source.labels else size * (factor - 1) / 2)
        for origin, size, factor in zip(first, source.scale, factors, strict=True)
    ]
    return scale, shift


def own_metadata(
    source: Source, icc_profile: bytes | None = None, associated: Sequence[str] = ()
) -> dict[str, Any]:
    """The attribute ``zarrgpu`` of the group."""
    from zarrgpu import __version__

    return {
        "converted_by": f"zarrgpu {__version__}",
        "source": source.name.rstrip("/").rpartition("/")[2],
        **source.attributes,
        "icc_profile": None if not icc_profile else base64.b64encode(icc_profile).decode(),
        "associated_images": {name: f"associated/{name}" for name in associated},
    }
