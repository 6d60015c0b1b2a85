"""Argos AVS: a pyramid for each focal plane, one after the other, and XML in a private tag.

Facts from OpenSlide's reader (openslide-vendor-argos.c):

- tag 65000 of page 0 holds an ``Argos.Scan.Metadata`` document, whose leaves are the properties;
- tiled pages are the levels, finest first; where a page is as wide as the one before it or wider,
  the next focal plane begins. There are MaxZ - MinZ + 1 of them, here as axis z; OpenSlide shows
  the one in the middle, number ``zarrgpu.argos.middle-z``; its tags and bounds are properties;
- the last stripped page but one is the thumbnail, the last one the macro image.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from zarrgpu.errors import MetadataError, RequestError, UnsupportedFormatError
from zarrgpu.formats.planes import stack_planes
from zarrgpu.formats.quickhash import tiff_quickhash
from zarrgpu.formats.slide_properties import (
    associated_properties,
    bounds_properties,
    level_properties,
    mpp_properties,
    number_text,
    parse_number,
    resolution_mpp,
    tiff_properties,
)
from zarrgpu.formats.tiff import page_to_array_spec
from zarrgpu.formats.tiff_tags import BYTE_TYPES, Tag
from zarrgpu.formats.xml_document import local_name, parse_xml
from zarrgpu.model import ArraySpec
from zarrgpu.slide_model import Quickhash, SlideSpec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from xml.etree.ElementTree import Element

    from zarrgpu.formats.tiff_file import TiffFile
    from zarrgpu.formats.tiff_page import TiffPage

_ROOT = "Argos.Scan.Metadata"
_MAX_DEPTH = 16


def is_argos(file: TiffFile) -> bool:
    """Whether a TIFF is an Argos slide."""
    field = file.first.ifd.fields.get(Tag.ArgosMetadata)
    if field is None or field.field_type not in BYTE_TYPES or not file.first.tiled:
        return False  # the tag is private: others may use it for something else
    return _ROOT in (file.first.ifd.text(Tag.ArgosMetadata) or "")


def argos_slide(file: TiffFile) -> SlideSpec:
    """Describe an Argos slide; levels have axes ``(y, x, c)``, or ``(z, y, x, c)``.

    Raises
    ------
    UnsupportedFormatError, UnsupportedCodecError
        Focal planes of different levels, pages that zarrgpu does not read.
    MetadataError
        The XML is damaged, or does not say how many focal planes there are.
    """
    where = ("ifd", 0, Tag.ArgosMetadata.name)
    text = file.first.ifd.text(Tag.ArgosMetadata) or ""
    said = dict(_leaves(parse_xml(text, source=file.source, location=where), "argos", _MAX_DEPTH))
    least, most = parse_number(said.get("argos.MinZ")), parse_number(said.get("argos.MaxZ"))
    if least is None or most is None or most < least:
        msg = f"focal planes from {said.get('argos.MinZ')!r} to {said.get('argos.MaxZ')!r}"
        raise MetadataError(msg, source=file.source, location=where)
    planes = _planes(file)
    if any(len(plane) != len(planes[0]) for plane in planes):
        depths = [len(plane) for plane in planes]
        msg = f"{file.source!r}: Argos slide of focal planes with {depths} levels"
        raise UnsupportedFormatError(msg)
    levels = tuple(
        _level(file, [plane[index] for plane in planes], index) for index in range(len(planes[0]))
    )
    middle = int(min((most - least) / 2, len(planes) - 1))
    shown = planes[middle]
    first = shown[0]
    mpp = resolution_mpp(first)
    associated, images = _associated(file)
    bounds = bounds_properties(page_to_array_spec(first, key=file.key))
    properties = {
        "openslide.vendor": "argos",
        **tiff_properties(first),
        **level_properties(levels, levels[0].ndim - 3),
        **bounds,
        **mpp_properties(mpp),
        **said,
        **images,
        "zarrgpu.argos.middle-z": str(middle),
    }
    power = parse_number(said.get("argos.ObjectiveMagnification"))
    if power is not None:
        properties["openslide.objective-power"] = number_text(power)
    if "argos.Barcode" in said:
        properties["openslide.barcode"] = said["argos.Barcode"]
    return SlideSpec(
        source=file.source,
        vendor="argos",
        levels=levels,
        axes=("z", "y", "x", "c")[-levels[0].ndim :],
        mpp=mpp,
        properties=properties,
        associated=associated,
        quickhash=_quickhash(file, shown),
    )


def _quickhash(file: TiffFile, shown: list[TiffPage]) -> Quickhash | None:
    """Of the focal plane in the middle, and of the XML as it is stored."""
    found = tiff_quickhash(file.key, shown[-1], shown[0])
    if found is None:
        return None
    xml = file.first.ifd.stored_text(Tag.ArgosMetadata)
    return replace(found, text=found.text + xml + b"\0")


def _leaves(element: Element, prefix: str, depth: int) -> Iterator[tuple[str, str]]:
    """Elements with text and nothing else, by the names on the way to them."""
    for child in element if depth else ():
        name = f"{prefix}.{local_name(child)}"
        yield from _leaves(child, name, depth - 1)
        if not child.attrib and not len(child) and child.text:
            yield name, child.text


def _planes(file: TiffFile) -> list[list[TiffPage]]:
    """Levels of each focal plane."""
    planes: list[list[TiffPage]] = []
    for page in file.pages:
        if page.tiled:
            if not planes or page.width >= planes[-1][-1].width:
                planes.append([])
            planes[-1].append(page)
    return planes


def _level(file: TiffFile, pages: list[TiffPage], index: int) -> ArraySpec:
    what = f"level {index}"
    specs = [page_to_array_spec(page, key=file.key, image=what) for page in pages]
    return stack_planes(specs, (("z", len(specs)),) if len(specs) > 1 else (), what=what)


def _associated(file: TiffFile) -> tuple[dict[str, ArraySpec], dict[str, str]]:
    found: dict[str, ArraySpec] = {}
    said: dict[str, str] = {}
    for name, page in zip(("thumbnail", "macro"), file.pages[-2:], strict=False):
        if page.tiled:
            continue
        try:
            found[name] = page_to_array_spec(page, key=file.key, image=name)
        except (RequestError, MetadataError) as error:
            said[f"zarrgpu.associated.{name}.unsupported"] = str(error)
        else:
            nbytes = page.icc_profile.nbytes if page.icc_profile else 0
            said |= associated_properties(name, page, nbytes)
    return found, said
