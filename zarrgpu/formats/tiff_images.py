"""A TIFF that no slide scanner made: one image, a pyramid of it, a stack of equal pages, or pages.

What is read as what:

- page 0 with overviews (NewSubfileType 1, or its SubIFDs) or masks (4, 5): a pyramid, as COGs are;
- a single page: an array;
- several pages that are stored alike: one array with a first axis ``page``, or ImageJ's t, z, c;
- other pages: arrays, one by one. Overviews of all but page 0 are left out then.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from zarrgpu.errors import UnsupportedFormatError
from zarrgpu.formats.geotiff import scaled_geotransform
from zarrgpu.formats.planes import MAX_PLANES, manifest_of, stack_planes
from zarrgpu.formats.quickhash import tiff_quickhash
from zarrgpu.formats.slide_properties import (
    bounds_properties,
    level_properties,
    mpp_properties,
    resolution_mpp,
    tiff_properties,
)
from zarrgpu.formats.tiff import page_to_array_spec, read_sub_pages
from zarrgpu.formats.tiff_tags import Tag
from zarrgpu.model import ArraySpec
from zarrgpu.slide_model import SlideSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zarrgpu.formats.tiff_file import TiffFile
    from zarrgpu.formats.tiff_page import TiffPage

_REDUCED, _MASK = 1, 4
"""Bits of NewSubfileType."""

_IMAGEJ_AXES: Final = (("t", "frames"), ("z", "slices"), ("c", "channels"))


def read_images(file: TiffFile) -> ArraySpec | SlideSpec | tuple[ArraySpec, ...]:
    """Describe what a TIFF holds, as the module says.

    Raises
    ------
    UnsupportedFormatError, UnsupportedCodecError
        A page is stored in a way that zarrgpu does not read, by name.
    MetadataError
        The file is damaged.
    """
    pages = file.pages
    images = [pages[0], *(page for page in pages[1:] if not page.subfile_type & (_REDUCED | _MASK))]
    if len(images) == 1:
        levels, masks = pyramid(pages), _masks(pages)
        if len(levels) > 1 or masks:
            return pyramid_slide(file, levels, masks)
    names = [f"page {page.index}" for page in images] if len(images) > 1 else ["image"]
    arrays = [
        page_to_array_spec(page, key=file.key, image=name)
        for page, name in zip(images, names, strict=True)
    ]
    described = _imagej(pages[0].description)
    if len(arrays) == 1 and int(described.get("images", "1")) > 1:
        arrays = _contiguous_planes(file, pages[0], arrays[0], int(described["images"]))
    if len(arrays) == 1:
        return arrays[0]
    return _stack(arrays, described)


def pyramid_slide(
    file: TiffFile, levels: Sequence[TiffPage], masks: Sequence[TiffPage] = ()
) -> SlideSpec:
    """Describe a pyramid (``generic-tiff``) and its masks (associated ``mask``, ``mask-1`` ...)."""
    first = levels[0]
    arrays = [
        page_to_array_spec(page, key=file.key, image=f"level {i}") for i, page in enumerate(levels)
    ]
    arrays = [arrays[0], *(_placed(arrays[0], array) for array in arrays[1:])]
    icc_profile = arrays[0].icc_profile
    mpp = resolution_mpp(first)
    properties = {
        "openslide.vendor": "generic-tiff",
        **tiff_properties(first),
        **level_properties(arrays),
        **bounds_properties(arrays[0]),
        **mpp_properties(mpp),
    }
    if icc_profile:
        properties["openslide.icc-size"] = str(len(icc_profile))
    # OpenSlide sees the chain of pages alone
    smallest = [page for page in levels if page.sub_index is None][-1]
    associated = {}
    for number, mask in enumerate(masks):
        name = f"mask-{number}" if number else "mask"
        associated[name] = page_to_array_spec(mask, key=file.key, image=name)
    return SlideSpec(
        source=first.source,
        vendor="generic-tiff",
        levels=tuple(arrays),
        axes=("y", "x", "c"),
        mpp=mpp,
        properties=properties,
        associated=associated,
        icc_profile=icc_profile,
        quickhash=tiff_quickhash(file.key, smallest, first),
    )


def pyramid(pages: Sequence[TiffPage]) -> list[TiffPage]:
    """Page 0 and what is a reduced image of it, by its tags or as its SubIFD; finest first."""
    first, others = pages[0], pages[1:]
    marked = [p for p in others if p.subfile_type & (_REDUCED | _MASK) == _REDUCED]
    # where each image has its overviews behind it, those of the next one are not of this one
    end = next((page.index for page in others if _is_equal(first, page)), len(pages))
    marked = [page for page in marked if page.index < end] or marked
    candidates = [page for page in marked if page.tiled or not first.tiled]
    if Tag.SubIFDs in first.ifd.fields:
        candidates += read_sub_pages(first)
    reduced = [
        page
        for page in candidates
        if not page.subfile_type & _MASK
        and page.width <= first.width
        and page.height <= first.height
        and (page.samples, page.bits) == (first.samples, first.bits)
    ]
    return [first, *sorted(reduced, key=lambda page: -page.width)]


def _is_equal(first: TiffPage, page: TiffPage) -> bool:
    """Whether a page is an image by itself and not smaller than page 0."""
    size = page.width >= first.width and page.height >= first.height
    return size and not page.subfile_type & (_REDUCED | _MASK)


def _masks(pages: Sequence[TiffPage]) -> list[TiffPage]:
    """Transparency masks of page 0 and its overviews, largest first."""
    masks = [page for page in pages[1:] if page.subfile_type & _MASK]
    return sorted(masks, key=lambda page: -page.width)


def _placed(first: ArraySpec, overview: ArraySpec) -> ArraySpec:
    """`overview` with the geotransform that follows from level 0, where it states none."""
    transform = first.attributes.get("geotransform")
    if transform is None or "geotransform" in overview.attributes:
        return overview
    ratios = first.shape[1] / overview.shape[1], first.shape[0] / overview.shape[0]
    known = {"geotransform": scaled_geotransform(transform, *ratios)}
    known |= {name: first.attributes[name] for name in ("crs",) if name in first.attributes}
    return replace(overview, attributes={**overview.attributes, **known})


def _imagej(description: str) -> dict[str, str]:
    r"""Numbers of an ImageJ description as text; empty for any other.

    >>> _imagej("ImageJ=1.53t\nimages=6\nslices=3\nloop=false")
    {'images': '6', 'slices': '3'}
    """
    if not description.startswith("ImageJ="):
        return {}
    pairs = (line.partition("=") for line in description.splitlines())
    return {name: value for name, _, value in pairs if value.isdecimal() and len(value) < 10}


def _contiguous_planes(
    file: TiffFile, page: TiffPage, first: ArraySpec, count: int
) -> list[ArraySpec]:
    """Planes of an ImageJ stack that has one directory: they follow one another, uncompressed."""
    if count > MAX_PLANES:
        msg = f"{page.where}: ImageJ states {count} images, at most {MAX_PLANES} are read"
        raise UnsupportedFormatError(msg)
    location = manifest_of(first)
    ends = location.offsets + location.nbytes
    begin, nbytes = int(location.offsets[0]), page.height * page.width * page.samples
    nbytes *= first.dtype.itemsize
    whole = (
        page.compression == 1
        and not page.tiled
        and page.planes == 1
        and np.array_equal(ends[:-1], location.offsets[1:])
        and int(ends[-1]) - begin == nbytes
    )
    if not whole or begin + count * nbytes > file.size:
        msg = (
            f"{page.where}: ImageJ states {count} images, but the file has one directory, and not "
            f"{count} planes of {nbytes} bytes behind offset {begin}"
        )
        raise page.ifd.error(Tag.ImageDescription, msg)
    return [
        replace(first, location=replace(location, offsets=location.offsets + index * nbytes))
        for index in range(count)
    ]


def _stack(arrays: list[ArraySpec], described: dict[str, str]) -> ArraySpec | tuple[ArraySpec, ...]:
    """Pages as one array if they are alike, else as they are."""
    lengths = [(axis, int(described.get(name, "1"))) for axis, name in _IMAGEJ_AXES]
    axes: list[tuple[str, int]] = [(axis, length) for axis, length in lengths if length > 1]
    samples = arrays[0].shape[2]
    if math.prod(length for _, length in axes) != len(arrays) or (
        samples > 1 and axes[-1][0] == "c"
    ):
        axes = [("page", len(arrays))]
    try:
        stack = stack_planes(arrays, axes, what="stack")
    except UnsupportedFormatError:
        return tuple(arrays)
    kept: dict[str, Any] = {**arrays[0].attributes, "image": "stack"}
    return replace(stack, attributes=kept)
