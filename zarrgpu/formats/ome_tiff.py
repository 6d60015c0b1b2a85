"""OME-TIFF: the planes of an image are pages, its coarser levels their SubIFDs.

Spec: https://docs.openmicroscopy.org/ome-model/ (OME-TIFF specification; pyramids since 6.0). The
image with the most pixels is the slide; images of one plane with other names are associated images.
Axes are those of the file without z, t and c of length 1; samples of a page are c.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

from zarrgpu.errors import MetadataError, RequestError, UnsupportedFormatError
from zarrgpu.formats.ome_xml import OmeDocument, OmeImage, parse_ome
from zarrgpu.formats.planes import stack_planes
from zarrgpu.formats.slide_properties import (
    Z_SPACING,
    level_properties,
    mpp_properties,
    number_text,
    parse_number,
)
from zarrgpu.formats.tiff import page_to_array_spec
from zarrgpu.formats.tiff_page import read_sub_pages
from zarrgpu.model import ArraySpec
from zarrgpu.slide_model import SlideSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zarrgpu.formats.tiff_file import TiffFile
    from zarrgpu.formats.tiff_page import TiffPage

_ROOT: Final = re.compile(r"<([A-Za-z]+:)?OME\s")

_MAX_REPEATED: Final = 4

_Plane = tuple["TiffFile", "TiffPage"]


def is_ome_tiff(file: TiffFile) -> bool:
    """Whether page 0 holds OME-XML."""
    return _ROOT.search(file.first.description[:4096]) is not None


def ome_tiff_slide(file: TiffFile) -> SlideSpec:
    """Describe the slide of an OME-TIFF.

    Properties: ``openslide.*`` and the names and sizes of all images as ``ome.image[i].*``.

    Raises
    ------
    UnsupportedFormatError, UnsupportedCodecError
        Planes that are stored in different ways, another file that cannot be opened from here.
    MetadataError
        The XML is damaged or does not fit the pages.
    """
    document = parse_ome(file.first.description, source=file.source)
    if not document.images:
        raise MetadataError("OME-XML without an image", source=file.source)
    image = max(document.images, key=lambda each: each.width * each.height)
    files = _Files(file, document)
    planes = files.planes(image)
    levels = _levels(image, planes)
    associated, said = _associated(document, image, files)
    properties = {
        "openslide.vendor": "ome-tiff",
        **level_properties(levels, _y(levels[0])),
        **mpp_properties(image.mpp),
        **said,
    }
    power = parse_number(image.magnification)
    if power is not None:
        properties["openslide.objective-power"] = number_text(power)
    if image.z_um is not None:
        properties[Z_SPACING] = number_text(image.z_um)
    for index, each in enumerate(document.images):
        sizes = {**dict(each.axes), "y": each.height, "x": each.width}
        properties[f"ome.image[{index}].name"] = each.name
        properties[f"ome.image[{index}].size"] = ", ".join(f"{k}={v}" for k, v in sizes.items())
    return SlideSpec(
        source=file.source,
        vendor="ome-tiff",
        levels=levels,
        axes=_axis_names(levels[0]),
        mpp=image.mpp,
        properties=properties,
        associated=associated,
        channels=image.channels,
    )


def _axis_names(spec: ArraySpec) -> tuple[str, ...]:
    return tuple(str(name) for name in spec.dimension_names)


def _y(spec: ArraySpec) -> int:
    """Which axis is y; x is the next."""
    return spec.dimension_names.index("y")


class _Files:
    """The files of one image, each opened once."""

    def __init__(self, file: TiffFile, document: OmeDocument) -> None:
        self._file = file
        self._uuid = document.uuid
        self._others: dict[str, TiffFile] = {}

    def planes(self, image: OmeImage) -> list[_Plane | None]:
        """Page of each plane, None for those that the file does not have."""
        planes: list[_Plane | None] = [None] * image.num_planes
        if not image.runs:
            pages = self._file.pages[: image.num_planes]
            return [*((self._file, page) for page in pages), *planes[len(pages) :]]
        left = max(_MAX_REPEATED * image.num_planes, len(image.runs))
        for run in image.runs:
            file = self._open(run.uuid, run.filename)
            count = len(file.pages) - run.ifd if run.count is None else run.count
            if run.count is None:
                count = min(count, image.num_planes - run.first)
            if run.first + count > image.num_planes or run.ifd + count > len(file.pages):
                msg = (
                    f"TiffData names planes {run.first} to {run.first + count} of "
                    f"{image.num_planes}, in pages from {run.ifd} on of {len(file.pages)}"
                )
                location = ("ifd", 0, "ImageDescription")
                raise MetadataError(msg, source=file.source, location=location)
            left -= count
            if left < 0:
                msg = f"TiffData names the {image.num_planes} planes over and over"
                raise MetadataError(msg, source=file.source, location=("ifd", 0))
            for index in range(count):
                planes[run.first + index] = (file, file.pages[run.ifd + index])
        if all(plane is None for plane in planes):
            msg = f"{self._file.source!r}: no page holds a plane of image {image.name!r}"
            raise UnsupportedFormatError(msg)
        return planes

    def _open(self, uuid: str | None, filename: str | None) -> TiffFile:
        own = PurePosixPath(self._file.key).name
        if uuid is None or uuid == self._uuid or filename is None or filename == own:
            return self._file
        if filename not in self._others:
            there = None
            if (
                self._file.sibling is not None
                and filename not in ("", ".", "..")
                and not ({"/", "\\"} & set(filename))
            ):
                there = self._file.sibling(filename)
            if there is None:
                msg = (
                    f"{self._file.source!r} has planes in {filename!r}, which is not beside it; "
                    "all files of an OME-TIFF lie in one folder"
                )
                raise UnsupportedFormatError(msg)
            self._others[filename] = there
        return self._others[filename]


def _levels(image: OmeImage, planes: Sequence[_Plane | None]) -> tuple[ArraySpec, ...]:
    """Level 0 of the pages, coarser ones of their SubIFDs, as many as all planes have."""
    subs = [None if plane is None else read_sub_pages(plane[1]) for plane in planes]
    depth = min((len(sub) for sub in subs if sub is not None), default=0)
    levels = [_stack(image, planes, "level 0")]
    for level in range(depth):
        pages = [
            None if plane is None or sub is None else (plane[0], sub[level])
            for plane, sub in zip(planes, subs, strict=True)
        ]
        levels.append(_stack(image, pages, f"level {level + 1}"))
    first, y = levels[0], _y(levels[0])
    if first.shape[y : y + 2] != (image.height, image.width):
        msg = f"OME-XML says {image.width} x {image.height} pixels, pages have {first.shape[y:]}"
        raise MetadataError(msg, source=first.source, location=("ifd", 0))
    return tuple(levels)


def _stack(image: OmeImage, planes: Sequence[_Plane | None], what: str) -> ArraySpec:
    specs = [
        None if plane is None else page_to_array_spec(plane[1], key=plane[0].key, image=what)
        for plane in planes
    ]
    axes = tuple((name, length) for name, length in image.axes if length > 1)
    return stack_planes(specs, axes, what=what)


def _associated(
    document: OmeDocument, main: OmeImage, files: _Files
) -> tuple[dict[str, ArraySpec], dict[str, str]]:
    """Images of one plane by their names, and why others are left out."""
    found: dict[str, ArraySpec] = {}
    said: dict[str, str] = {}
    for index, image in enumerate(document.images):
        if image is main:
            continue
        name = image.name or f"image {index}"
        if image.num_planes > 1 or name in found:
            reason = f"image {index} has {image.num_planes} planes, or another one its name"
            said[f"zarrgpu.associated.{name}.unsupported"] = reason
            continue
        try:
            spec = _stack(image, files.planes(image), name)
        except (RequestError, MetadataError) as error:
            said[f"zarrgpu.associated.{name}.unsupported"] = str(error)
            continue
        if spec.shape[:2] == (image.height, image.width):
            found[name] = spec
        else:  # such as an image that does not say which page it is
            reason = f"the XML says {image.width} x {image.height} pixels, its page has "
            reason += f"{spec.shape[1]} x {spec.shape[0]}"
            said[f"zarrgpu.associated.{name}.unsupported"] = reason
    for name, spec in found.items():
        prefix = f"openslide.associated.{name}"
        said |= {f"{prefix}.width": str(spec.shape[1]), f"{prefix}.height": str(spec.shape[0])}
    return found, said
