"""The XML of a Leica SCN: a collection of images, each a field of the slide at several resolutions.

Lengths are in the scanner's clicks (nanometres); facts from openslide-vendor-leica.c.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from zarrgpu.errors import MetadataError
from zarrgpu.formats.xml_document import children, parse_xml, text_of

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_MAX_CLICKS = 1 << 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Dimension:
    """One resolution of an image: its page and size, in which focal plane and channel."""

    ifd: int
    width: int
    height: int
    z: int
    channel: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ScnImage:
    """A field of the slide.

    Attributes
    ----------
    texts : mapping of str to str
        ``aperture``, ``creation-date``, ``device-model``, ``device-version``,
        ``illumination-source`` and ``objective``, where they are said.
    width, height, left, top : int
        Clicks.
    dimensions : tuple of Dimension
        Widest first.
    """

    texts: dict[str, str]
    width: int
    height: int
    left: int
    top: int
    dimensions: tuple[Dimension, ...]

    @property
    def is_brightfield(self) -> bool:
        """Whether colours are those of transmitted light."""
        return self.texts.get("illumination-source") == "brightfield"


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """All images of a slide; `width` and `height` of the whole of it in clicks."""

    barcode: str | None
    width: int
    height: int
    images: tuple[ScnImage, ...]

    def is_macro(self, image: ScnImage) -> bool:
        """Whether an image shows all of the slide."""
        return (image.left, image.top, image.width, image.height) == (0, 0, self.width, self.height)


def parse_collection(text: str, *, source: str) -> Collection:
    """Parse the description of page 0; `MetadataError` if it is not what it should be."""
    location = ("ifd", 0, "ImageDescription")
    root = parse_xml(text, source=source, location=location)
    found = children(root, "collection")
    if not found:
        raise MetadataError("XML without a collection", source=source, location=location)
    collection = found[0]
    return Collection(
        barcode=text_of(collection, "barcode"),
        width=_integer(collection, "sizeX", source, least=1),
        height=_integer(collection, "sizeY", source, least=1),
        images=tuple(_image(image, source) for image in children(collection, "image")),
    )


def _image(image: Element, source: str) -> ScnImage:
    views = children(image, "view")
    if not views:
        location = ("ifd", 0, "ImageDescription", "image")
        raise MetadataError("image without a view", source=source, location=location)
    settings = ("scanSettings", "illuminationSettings")
    device = next(iter(children(image, "device")), None)
    texts = {
        "aperture": text_of(image, *settings, "numericalAperture"),
        "creation-date": text_of(image, "creationDate"),
        "device-model": None if device is None else device.get("model"),
        "device-version": None if device is None else device.get("version"),
        "illumination-source": text_of(image, *settings, "illuminationSource"),
        "objective": text_of(image, "scanSettings", "objectiveSettings", "objective"),
    }
    dimensions = [
        Dimension(
            ifd=_integer(each, "ifd", source),
            width=_integer(each, "sizeX", source, least=1),
            height=_integer(each, "sizeY", source, least=1),
            z=_integer(each, "z", source) if "z" in each.attrib else 0,
            channel=_integer(each, "c", source) if "c" in each.attrib else 0,
        )
        for each in children(image, "pixels", "dimension")
    ]
    return ScnImage(
        texts={name: value for name, value in texts.items() if value is not None},
        width=_integer(views[0], "sizeX", source, least=1),
        height=_integer(views[0], "sizeY", source, least=1),
        left=_integer(views[0], "offsetX", source),
        top=_integer(views[0], "offsetY", source),
        dimensions=tuple(sorted(dimensions, key=lambda each: -each.width)),
    )


def _integer(element: Element, name: str, source: str, least: int = 0) -> int:
    text = (element.get(name) or "").strip()
    value = int(text) if text.isascii() and text.isdigit() and len(text) < 17 else -1
    if not least <= value <= _MAX_CLICKS:
        location = ("ifd", 0, "ImageDescription", name)
        msg = f"got {element.get(name)!r}, expected a number from {least} on"
        raise MetadataError(msg, source=source, location=location)
    return value
