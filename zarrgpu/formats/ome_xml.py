"""OME-XML: what the images of an OME-TIFF are, and which page holds which of their planes.

Spec: https://docs.openmicroscopy.org/ome-model/ (OME-TIFF specification, OME schema 2016-06). Older
schemas name the same elements; namespaces are ignored.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from zarrgpu.errors import MetadataError, UnsupportedFormatError
from zarrgpu.formats.planes import MAX_PLANES
from zarrgpu.formats.xml_document import children, local_name, parse_xml

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any
    from xml.etree.ElementTree import Element

_UM: Final = MappingProxyType(
    {"m": 1e6, "dm": 1e5, "cm": 1e4, "mm": 1e3, "µm": 1.0, "μm": 1.0, "um": 1.0, "nm": 1e-3,
     "pm": 1e-6, "fm": 1e-9, "Å": 1e-4, "in": 25_400.0, "ft": 304_800.0, "thou": 25.4, "mil": 25.4,
     "line": 25_400 / 12, "pt": 25_400 / 72}
)  # fmt: skip
"""Micrometres in a unit of length; "pixel" and "reference frame" are no lengths."""

_ORDERS: Final = ("XYZCT", "XYZTC", "XYCTZ", "XYCZT", "XYTCZ", "XYTZC")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaneRun:
    """Planes that follow one another, in pages that do.

    Attributes
    ----------
    first : int
        First plane, in C order of the image's axes.
    count : int or None
        How many; None for all pages of the file from `ifd` on.
    ifd : int
        Page of the first.
    uuid, filename : str or None
        The file, if it is named.
    """

    first: int
    count: int | None
    ifd: int
    uuid: str | None
    filename: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OmeImage:
    """One image.

    Attributes
    ----------
    name : str
    axes : tuple of (str, int)
        Of planes, slowest first: ``(("t", 1), ("c", 3), ("z", 5))``. Where a page holds several
        samples, c counts pages.
    samples : int
        Per pixel of a page.
    width, height : int
    mpp : tuple of (float or None)
    z_um : float or None
        Micrometres between planes of z.
    magnification : str or None
        Nominal, of the objective.
    channels : tuple of mapping
        With ``label`` and ``color`` as OME-Zarr has them, where the file says so.
    runs : tuple of PlaneRun
        Empty: all pages in their order.
    """

    name: str
    axes: tuple[tuple[str, int], ...]
    samples: int
    width: int
    height: int
    mpp: tuple[float | None, float | None]
    z_um: float | None
    magnification: str | None
    channels: tuple[Mapping[str, Any], ...]
    runs: tuple[PlaneRun, ...]

    @property
    def num_planes(self) -> int:
        """Pages that the image needs."""
        return math.prod(length for _, length in self.axes)


@dataclass(frozen=True, slots=True, kw_only=True)
class OmeDocument:
    """UUID of the file and its images."""

    uuid: str | None
    images: tuple[OmeImage, ...]


class _Reader:
    """Reads attributes of elements with errors that say where."""

    def __init__(self, source: str) -> None:
        self.source = source

    def integer(
        self, element: Element, name: str, default: int | None = None, least: int = 0
    ) -> int:
        text = element.get(name)
        if text is None and default is not None:
            return default
        digits = (text or "").strip()
        value = int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 19 else -1
        if value < least:
            msg = f"{local_name(element)} has {name}={text!r}, expected a number from {least} on"
            raise self.error(msg)
        return value

    def error(self, message: str) -> MetadataError:
        location = ("ifd", 0, "ImageDescription")
        return MetadataError(message, source=self.source, location=location)


def parse_ome(text: str, *, source: str) -> OmeDocument:
    """Parse the OME-XML of a file.

    Raises
    ------
    MetadataError
        Not XML, or sizes and indexes that cannot be.
    UnsupportedFormatError
        The metadata are in another file, or channels have different numbers of samples.
    """
    root = parse_xml(text, source=source, location=("ifd", 0, "ImageDescription"))
    for reference in children(root, "BinaryOnly"):
        where = reference.get("MetadataFile")
        msg = f"{source!r} holds planes of an image that {where!r} describes; open that one"
        raise UnsupportedFormatError(msg)
    powers = {
        objective.get("ID"): objective.get("NominalMagnification")
        for objective in children(root, "Instrument", "Objective")
    }
    reader = _Reader(source)
    images = tuple(
        _image(reader, image, pixels, powers)
        for image in children(root, "Image")
        for pixels in children(image, "Pixels")[:1]
    )
    return OmeDocument(uuid=root.get("UUID"), images=images)


def _image(
    reader: _Reader, image: Element, pixels: Element, powers: Mapping[str | None, str | None]
) -> OmeImage:
    order = pixels.get("DimensionOrder", "XYZCT")
    if order not in _ORDERS:
        raise reader.error(f"DimensionOrder {order!r}, expected one of {', '.join(_ORDERS)}")
    channels = children(pixels, "Channel")
    counts = {reader.integer(channel, "SamplesPerPixel", 1, least=1) for channel in channels}
    if len(counts) > 1:
        msg = f"{reader.source!r}: channels of {sorted(counts)} samples per pixel in one image"
        raise UnsupportedFormatError(msg)
    samples = counts.pop() if counts else 1
    sizes = {axis: reader.integer(pixels, f"Size{axis}", least=1) for axis in "XYZCT"}
    if sizes["C"] % samples:
        raise reader.error(f"SizeC {sizes['C']} is no multiple of {samples} samples per pixel")
    sizes["C"] //= samples
    axes = tuple((axis.lower(), sizes[axis]) for axis in reversed(order[2:]))
    if math.prod(length for _, length in axes) > MAX_PLANES:
        raise reader.error(f"image of {axes} planes, more than {MAX_PLANES}")
    objectives = [found.get("ID") for found in children(image, "ObjectiveSettings")]
    return OmeImage(
        name=image.get("Name") or "",
        axes=axes,
        samples=samples,
        width=sizes["X"],
        height=sizes["Y"],
        mpp=(_mpp(pixels, "X"), _mpp(pixels, "Y")),
        z_um=_mpp(pixels, "Z"),
        magnification=powers.get(objectives[0]) if objectives else None,
        channels=tuple(_channel(channel) for channel in channels),
        runs=tuple(_runs(reader, pixels, axes)),
    )


def _mpp(pixels: Element, axis: str) -> float | None:
    """Micrometres per pixel; None if not said, not a length or not positive."""
    factor = _UM.get(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
    try:
        size = float(pixels.get(f"PhysicalSize{axis}", ""))
    except ValueError:
        return None
    return size * factor if factor is not None and 0 < size < math.inf else None


def _channel(channel: Element) -> Mapping[str, Any]:
    """Name and colour; OME has colours as a signed number of 32 bits, RGBA."""
    found: dict[str, Any] = {}
    if channel.get("Name"):
        found["label"] = channel.get("Name")
    try:
        rgba = int(channel.get("Color", ""))
    except ValueError:
        return found
    if -(1 << 31) <= rgba < 1 << 32:
        found["color"] = f"{(rgba & 0xFFFFFFFF) >> 8:06X}"
    return found


def _runs(
    reader: _Reader, pixels: Element, axes: tuple[tuple[str, int], ...]
) -> Iterator[PlaneRun]:
    for data in children(pixels, "TiffData"):
        first = 0
        for axis, length in axes:
            index = reader.integer(data, f"First{axis.upper()}", 0)
            if index >= length:
                raise reader.error(f"TiffData has First{axis.upper()}={index}, of {length}")
            first = first * length + index
        alone = 1 if data.get("IFD") is not None else None
        count = alone
        for name in ("NumPlanes", "PlaneCount"):
            if data.get(name) is not None:
                count = reader.integer(data, name)
        uuid = next(iter(children(data, "UUID")), None)
        yield PlaneRun(
            first=first,
            count=count,
            ifd=reader.integer(data, "IFD", 0),
            uuid=None if uuid is None else (uuid.text or "").strip(),
            filename=None if uuid is None else uuid.get("FileName"),
        )
