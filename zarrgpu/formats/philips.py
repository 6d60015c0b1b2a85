"""Philips TIFF: tiled pages, and an XML document that says what they are.

Facts from OpenSlide's reader (openslide-vendor-philips-tiff.c) and tifffile:

- page 0 is tiled, its Software starts with "Philips", its ImageDescription is a ``DataObject`` of
  type ``DPUfsImport``;
- levels are the tiled pages in file order. Coarser ones are padded to whole tiles: their true size
  is that of level 0 divided by the ratio of their DICOM_PIXEL_SPACING, a whole number;
- label and macro are stripped pages whose description starts with "Label" or "Macro", else JPEG
  files in base64 within the XML;
- slides of several regions of interest are sparse: tiles that are not stored are white here, where
  OpenSlide has them transparent.
"""

from __future__ import annotations

import binascii
import re
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import numpy as np

from zarrgpu.errors import MetadataError, RequestError, UnsupportedFormatError, ZarrGPUError
from zarrgpu.formats.ndpi_jpeg import read_level_jpeg
from zarrgpu.formats.quickhash import tiff_quickhash
from zarrgpu.formats.slide_properties import (
    level_properties,
    mpp_properties,
    number_text,
    tiff_properties,
)
from zarrgpu.formats.tiff import page_to_array_spec
from zarrgpu.formats.tiff_tags import Tag
from zarrgpu.formats.xml_document import children, parse_xml
from zarrgpu.model import ArraySpec, CodecSpec, Manifest
from zarrgpu.slide_model import SlideSpec

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

    from zarrgpu.formats.tiff_file import TiffFile
    from zarrgpu.formats.tiff_page import TiffPage

_IMAGES: Final = "PIM_DP_SCANNED_IMAGES"
_REPRESENTATIONS: Final = "PIIM_PIXEL_DATA_REPRESENTATION_SEQUENCE"
_WHITE: Final = 255
_REDUCED_IMAGE: Final = 1
_MAX_RATIO: Final = 1 << 20
_DEPTH: Final = 3
"""Objects within objects: the slide, its image, a level of it."""
_XML_IMAGES: Final = (("label", "LABELIMAGE"), ("macro", "MACROIMAGE"))


def is_philips(file: TiffFile) -> bool:
    """Whether a TIFF is a Philips slide."""
    first = file.first
    description = first.description
    return (
        first.tiled
        and first.text.get("Software", "").startswith("Philips")
        and "<DataObject" in description
        and "DPUfsImport" in description
    )


def philips_slide(file: TiffFile) -> SlideSpec:
    """Describe a Philips slide; levels have axes ``(y, x, c)``.

    Raises
    ------
    UnsupportedFormatError, UnsupportedCodecError
        Not exactly one whole-slide image, or pages that zarrgpu does not read.
    MetadataError
        The XML is no XML, or does not fit the pages.
    """
    where = ("ifd", 0, "ImageDescription")
    root = parse_xml(file.first.description, source=file.source, location=where)
    images = [
        image for image in _scanned_images(root) if _value(image, "PIM_DP_IMAGE_TYPE") == "WSI"
    ]
    if len(images) != 1:
        msg = f"{file.source!r}: Philips slide of {len(images)} whole-slide images, expected 1"
        raise UnsupportedFormatError(msg)
    pages = _level_pages(file)
    ratios = _ratios(file, images[0], len(pages))
    levels = [
        _level(file, page, index, int(ratio))
        for index, (page, ratio) in enumerate(zip(pages, ratios, strict=True))
    ]
    values = dict(_values(root, "philips", _DEPTH))
    spacing = _parse_spacing(values.get("philips.DICOM_PIXEL_SPACING"))
    mpp = (1e3 * spacing[1], 1e3 * spacing[0]) if spacing else (None, None)
    properties = {
        "openslide.vendor": "philips",
        **tiff_properties(file.first),
        **level_properties(levels),
        **{
            f"openslide.level[{index}].downsample": number_text(ratio)
            for index, ratio in enumerate(ratios)
        },
        **values,
        **mpp_properties(mpp),
    }
    # the document is taken apart into properties, and is megabytes long
    for name in ("openslide.comment", "tiff.ImageDescription"):
        properties.pop(name, None)
    power = _objective_power(values.get("philips.DICOM_DERIVATION_DESCRIPTION", ""))
    if power is not None:
        properties["openslide.objective-power"] = power
    associated, said = _associated(file, root)
    return SlideSpec(
        source=file.source,
        vendor="philips",
        levels=tuple(levels),
        axes=("y", "x", "c"),
        mpp=mpp,
        properties=properties | said,
        associated=associated,
        downsamples=ratios,
        quickhash=tiff_quickhash(file.key, pages[-1], file.first),
    )


def _level_pages(file: TiffFile) -> list[TiffPage]:
    pages = [page for page in file.pages if page.tiled]
    for finer, page in pairwise(pages):
        problem = ""
        if page.width > finer.width or page.height > finer.height:
            problem = f"is larger than ifd {finer.index}"
        elif not page.subfile_type & _REDUCED_IMAGE:
            problem = "is not marked as a reduced image"
        if problem:
            raise UnsupportedFormatError(f"ifd {page.index} of {file.source!r} {problem}")
    return pages


def _ratios(file: TiffFile, image: Element, count: int) -> tuple[float, ...]:
    """Level-0 pixels per pixel of each level, whole numbers."""
    spacings = [
        _parse_spacing(_value(representation, "DICOM_PIXEL_SPACING"))
        for representation in _array(image, _REPRESENTATIONS)
    ]
    where = ("ifd", 0, "ImageDescription", _REPRESENTATIONS)
    if len(spacings) != count or any(spacing is None for spacing in spacings):
        msg = f"expected the pixel spacing of {count} levels, got {spacings}"
        raise MetadataError(msg, source=file.source, location=where)
    known = [spacing for spacing in spacings if spacing is not None]
    h0, w0 = known[0]
    exact = [(w / w0 + h / h0) / 2 for h, w in known]
    ratios = tuple(np.floor(np.add(exact, 0.5)).tolist())
    if not all(1 <= ratio <= _MAX_RATIO for ratio in ratios):
        msg = f"levels coarser than level 0 by {ratios}"
        raise MetadataError(msg, source=file.source, location=where)
    return ratios


def _level(file: TiffFile, page: TiffPage, index: int, ratio: int) -> ArraySpec:
    """Array of a page without the padding that its size includes."""
    spec = page_to_array_spec(page, key=file.key, image=f"level {index}")
    height = min(file.first.height // ratio, page.height) if index else page.height
    width = min(file.first.width // ratio, page.width) if index else page.width
    if not height or not width:
        msg = f"level of ratio {ratio} to level 0 has no pixels"
        raise MetadataError(msg, source=file.source, location=("ifd", page.index))
    return cropped(replace(spec, fill_value=_WHITE), height, width)


def cropped(spec: ArraySpec, height: int, width: int) -> ArraySpec:
    """The upper left part of an array with axes ``(y, x, c)`` and a manifest."""
    assert isinstance(spec.location, Manifest)
    rows, columns = -(-height // spec.chunk_shape[0]), -(-width // spec.chunk_shape[1])
    grid = spec.grid_shape
    tables = [
        table.reshape(grid)[:rows, :columns].reshape(-1)
        for table in (spec.location.offsets, spec.location.nbytes)
    ]
    location = replace(spec.location, offsets=tables[0], nbytes=tables[1])
    return replace(spec, shape=(height, width, *spec.shape[2:]), location=location)


def _attribute(data_object: Element, name: str) -> Element | None:
    found = (a for a in children(data_object, "Attribute") if a.get("Name") == name)
    return next(found, None)


def _value(data_object: Element, name: str) -> str | None:
    attribute = _attribute(data_object, name)
    return None if attribute is None else "".join(attribute.itertext())


def _array(data_object: Element, name: str) -> list[Element]:
    """Objects in the array that an attribute holds."""
    attribute = _attribute(data_object, name)
    return [] if attribute is None else children(attribute, "Array", "DataObject")


def _scanned_images(root: Element) -> list[Element]:
    return _array(root, _IMAGES)


def _values(data_object: Element, prefix: str, depth: int) -> list[tuple[str, str]]:
    """Names and values of attributes: those of the slide and its image, and of every level."""
    pairs: list[tuple[str, str]] = []
    for attribute in children(data_object, "Attribute"):
        name = attribute.get("Name")
        if name == _IMAGES:
            images = children(attribute, "Array", "DataObject")
            wsi = [i for i in images if _value(i, "PIM_DP_IMAGE_TYPE") == "WSI"]
            pairs += _values(wsi[0], prefix, depth - 1) if wsi and depth > 1 else []
        elif name == _REPRESENTATIONS:
            inner = children(attribute, "Array", "DataObject") if depth > 1 else []
            for index, each in enumerate(inner):
                pairs += _values(each, f"{prefix}.{name}[{index}]", depth - 1)
        elif name and not len(attribute):
            pairs.append((f"{prefix}.{name}", attribute.text or ""))
    return pairs


def _parse_spacing(text: str | None) -> tuple[float, float] | None:
    """Millimetres per pixel, (rows, columns), from ``"0.00025" "0.00025"``."""
    parts = (text or "").replace('"', " ").split()
    try:
        rows, columns = (float(part) for part in parts)
    except ValueError:
        return None
    return (rows, columns) if 0 < rows < np.inf and 0 < columns < np.inf else None


def _objective_power(derivation: str) -> str | None:
    """First of the magnifications in ``...-levels=40,20,10...``, if it can be one."""
    for item in derivation.split("-"):
        key, _, value = item.partition("=")
        if key == "sourceFilename":
            return None  # may contain dashes
        first = value.split(",")[0]
        if key == "levels":
            return (
                str(int(first))
                if re.fullmatch("[0-9]{1,9}", first) and 0 < int(first) <= 200
                else None
            )
    return None


def _associated(file: TiffFile, root: Element) -> tuple[dict[str, ArraySpec], dict[str, str]]:
    """Label and macro, from pages or from the XML, and what is to be said of them."""
    found: dict[str, ArraySpec] = {}
    said: dict[str, str] = {}
    for page in file.pages:
        name = page.description[:5].lower()
        if page.tiled or name not in ("label", "macro") or name in found:
            continue
        try:
            found[name] = page_to_array_spec(page, key=file.key, image=name)
        except (RequestError, MetadataError) as error:
            said[f"zarrgpu.associated.{name}.unsupported"] = str(error)
    for name, kind in _XML_IMAGES:
        image = next(
            (i for i in _scanned_images(root) if _value(i, "PIM_DP_IMAGE_TYPE") == kind), None
        )
        text = None if image is None else _value(image, "PIM_DP_IMAGE_DATA")
        if name in found or not text:
            continue
        try:
            found[name] = _image_in_xml(file, text, name)
        except ZarrGPUError as error:
            said[f"zarrgpu.associated.{name}.unsupported"] = str(error)
    for name, spec in found.items():
        prefix = f"openslide.associated.{name}"
        said |= {f"{prefix}.width": str(spec.shape[1]), f"{prefix}.height": str(spec.shape[0])}
    return found, said


def _image_in_xml(file: TiffFile, text: str, name: str) -> ArraySpec:
    """Array of one chunk: the base64 text of a JPEG file, where it lies in the slide."""
    field = file.ifds[0].fields[Tag.ImageDescription].byte_range
    raw = file.read(field.offset, field.nbytes, "ImageDescription")
    encoded = text.strip().encode()
    at = raw.find(encoded)
    if at < 0 or len(encoded) % 4:
        msg = f"{name} of {file.source!r}: its base64 text is not one run of the file"
        raise UnsupportedFormatError(msg)
    jpeg = _decoded(file, encoded, name)
    header = read_level_jpeg(
        lambda begin, n: jpeg[begin : begin + n], len(jpeg), what=name, source=file.source
    )
    shape = (header.height, header.width, header.samples)
    if not header.height or not header.width or header.precision != 8:
        raise UnsupportedFormatError(f"{name} of {file.source!r}: JPEG of shape {shape}")
    configuration = {
        "height": header.height,
        "width": header.width,
        "samples": header.samples,
        "colorspace": header.colorspace,
        "tables": b"",
    }
    return ArraySpec(
        source=file.source,
        shape=shape,
        dtype=np.dtype(np.uint8),
        chunk_shape=shape,
        fill_value=0,
        codecs=(CodecSpec("jpeg", configuration), CodecSpec("base64")),
        axis_order=(0, 1, 2),
        location=Manifest(
            key=file.key,
            offsets=np.array([field.offset + at], np.int64),
            nbytes=np.array([len(encoded)], np.int64),
        ),
        dimension_names=("y", "x", "c"),
        attributes={"image": name},
    )


def _decoded(file: TiffFile, encoded: bytes, name: str) -> bytes:
    try:
        return binascii.a2b_base64(encoded, strict_mode=True)
    except ValueError as error:
        msg = f"{name}: not base64: {error}"
        raise MetadataError(msg, source=file.source, location=("ifd", 0)) from error
