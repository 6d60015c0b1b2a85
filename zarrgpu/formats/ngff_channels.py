"""Channels and label images of OME-Zarr: names, colours, windows, properties.

Spec: https://ngff.openmicroscopy.org/0.5/ ``omero`` (transitional) and ``image-label``. Display
metadata does not say which pixels are read, so what is malformed in it is None rather than an
error; `zarrgpu.validate` tells of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from zarrgpu.formats.ngff_schema import is_number, is_whole
from zarrgpu.formats.ngff_version import metadata_of

_MAX_NUMBER = 1e300
_COLOR = re.compile(r"#?([0-9A-Fa-f]{6})(?:[0-9A-Fa-f]{2})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """How a channel is called and shown.

    Attributes
    ----------
    name : str
        Its label; empty where it has none.
    color : (int, int, int) or None
        Red, green, blue, 0 to 255.
    window : (float, float) or None
        Stored values that are shown as black and as full colour (``start``, ``end``).
    limits : (float, float) or None
        Least and greatest value of the window (``min``, ``max``).
    active : bool
        Whether it is shown at first.
    """

    name: str
    color: tuple[int, int, int] | None
    window: tuple[float, float] | None
    limits: tuple[float, float] | None
    active: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLabel:
    """What a label image says of its values.

    Attributes
    ----------
    colors : mapping of int to (int, int, int, int)
        Red, green, blue, alpha, 0 to 255, of label values that have a colour.
    properties : mapping of int to mapping
        What else is known of label values.
    source : str
        Path of the labelled image from the label image's group.
    """

    colors: Mapping[int, tuple[int, int, int, int]]
    properties: Mapping[int, Mapping[str, Any]]
    source: str


def parse_channel(fields: Mapping[str, Any]) -> Channel:
    """Parse one of ``omero.channels``."""
    name, color, window = fields.get("label"), fields.get("color"), fields.get("window")
    window = window if isinstance(window, Mapping) else {}
    return Channel(
        name=name if isinstance(name, str) else "",
        color=_parse_color(color),
        window=_pair(window, "start", "end"),
        limits=_pair(window, "min", "max"),
        active=fields.get("active") is not False,
    )


def parse_image_label(attributes: Mapping[str, Any]) -> ImageLabel | None:
    """Parse ``image-label`` of a group's attributes; None where there is none."""
    value = metadata_of(attributes, "").value.get("image-label")
    if not isinstance(value, Mapping):
        return None
    colors, properties = {}, {}
    for label, row in _rows(value, "colors"):
        rgba = row.get("rgba")
        if isinstance(rgba, list) and len(rgba) == 4 and all(map(_is_byte, rgba)):
            colors[label] = (int(rgba[0]), int(rgba[1]), int(rgba[2]), int(rgba[3]))
    for label, row in _rows(value, "properties"):
        properties[label] = {k: v for k, v in row.items() if k != "label-value"}
    source = value.get("source")
    image = source.get("image") if isinstance(source, Mapping) else None
    return ImageLabel(
        colors=MappingProxyType(colors),
        properties=MappingProxyType(properties),
        source=image if isinstance(image, str) else "../../",
    )


def _parse_color(value: Any) -> tuple[int, int, int] | None:
    found = _COLOR.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return None
    red, green, blue = bytes.fromhex(found[1])
    return red, green, blue


def _pair(window: Mapping[str, Any], low: str, high: str) -> tuple[float, float] | None:
    first, last = window.get(low), window.get(high)
    if is_number(first) and is_number(last) and max(abs(first), abs(last)) < _MAX_NUMBER:
        return float(first), float(last)
    return None


def _rows(value: Mapping[str, Any], name: str) -> list[tuple[int, Mapping[str, Any]]]:
    rows = value.get(name)
    found = []
    for row in rows if isinstance(rows, list) else ():
        label = row.get("label-value") if isinstance(row, Mapping) else None
        if is_number(label) and is_whole(label):
            found.append((int(label), row))
    return found


def _is_byte(value: Any) -> bool:
    return is_number(value) and is_whole(value) and 0 <= value <= 255
