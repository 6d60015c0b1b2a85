"""Leica SCN: several images of one slide, each a pyramid of its own, placed in one frame.

Facts from OpenSlide's reader (openslide-vendor-leica.c):

- page 0 is tiled, its ImageDescription is XML of Leica's namespace (`leica_xml`);
- an image that covers all of the collection is the macro image; the others, in transmitted light,
  make up the slide. A level is as large as the collection; each image lies in it where its view
  begins, and of two that overlap the first one is shown;
- what no image covers is 0 here, and transparent in OpenSlide.

Images lie at the nearest pixel of a level. Where images have several focal planes, so has the
slide, as axis z; OpenSlide shows the first.
"""

from __future__ import annotations

import binascii
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

from zarrgpu.errors import MetadataError, RequestError, UnsupportedFormatError
from zarrgpu.formats.leica_xml import Collection, Dimension, ScnImage, parse_collection
from zarrgpu.formats.planes import check_entries, manifest_of, stack_placed
from zarrgpu.formats.quickhash import tiff_quickhash
from zarrgpu.formats.slide_properties import (
    associated_properties,
    mpp_properties,
    number_text,
    parse_number,
    resolution_mpp,
    tiff_properties,
)
from zarrgpu.formats.tiff import page_to_array_spec
from zarrgpu.formats.tile_placement import PlacedTiles, place_tiles
from zarrgpu.model import MISSING_NBYTES, ArraySpec, Manifest
from zarrgpu.slide_model import Quickhash, SlideSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from zarrgpu.formats.tiff_file import TiffFile
    from zarrgpu.formats.tiff_page import TiffPage

_NAMESPACE: Final = "http://www.leica-microsystems.com/scn"
_CENTIMETRE: Final = 3
_MAX_UNLIKE: Final = 0.02
"""Images may differ in resolution by this much, which rounding explains."""


def is_leica(file: TiffFile) -> bool:
    """Whether a TIFF is a Leica SCN."""
    return file.first.tiled and _NAMESPACE in file.first.description


def leica_slide(file: TiffFile) -> SlideSpec:
    """Describe a Leica slide; levels have axes ``(y, x, c)``, or ``(z, y, x, c)``.

    Raises
    ------
    UnsupportedFormatError, UnsupportedCodecError
        No image in transmitted light, images that do not go together, pages that are not read.
    MetadataError
        The XML is damaged or does not fit the pages.
    """
    collection = parse_collection(file.first.description, source=file.source)
    images = [i for i in collection.images if i.is_brightfield and not collection.is_macro(i)]
    if not images:
        msg = f"{file.source!r}: Leica slide without an image in transmitted light (brightfield)"
        raise UnsupportedFormatError(msg)
    claimed = sum(len(image.dimensions) for image in collection.images)
    if claimed > len(file.pages):
        msg = f"{claimed} resolutions of images in {len(file.pages)} pages"
        location = ("ifd", 0, "ImageDescription")
        raise MetadataError(msg, source=file.source, location=location)
    areas = [_areas(file, image) for image in images]
    depth, planes = _check_alike(file, images, areas)
    levels = []
    for level in range(depth):
        stack = [
            _frame(file, collection, [each[z][level] for each in areas], images, level)
            for z in range(planes)
        ]
        levels.append(stack_placed(stack) if planes > 1 else stack[0])
    first = _page(file, areas[0][0][0])
    associated, said = _macro(file, collection)
    # OpenSlide takes a resolution per centimetre only, as the scanner writes it
    mpp = resolution_mpp(first) if first.resolution_unit == _CENTIMETRE else (None, None)
    properties = {
        "openslide.vendor": "leica",
        **tiff_properties(first),
        **_level_sizes(levels),
        **mpp_properties(mpp),
        **_barcode(collection),
        **_regions(file, images, [each[0][0] for each in areas]),
        **{f"leica.{name}": text for name, text in images[0].texts.items()},
        **said,
    }
    for name in ("openslide.comment", "tiff.ImageDescription"):
        properties.pop(name, None)
    power = parse_number(images[0].texts.get("objective"))
    if power is not None:
        properties["openslide.objective-power"] = number_text(power)
    return SlideSpec(
        source=file.source,
        vendor="leica",
        levels=tuple(levels),
        axes=("z", "y", "x", "c")[-levels[0].ndim :],
        mpp=mpp,
        properties=properties,
        associated=associated,
        quickhash=_quickhash(file, collection, first),
    )


def _areas(file: TiffFile, image: ScnImage) -> list[list[Dimension]]:
    """Pages of an image by focal plane and level."""
    by_plane: dict[int, list[Dimension]] = {}
    for each in image.dimensions:
        if each.channel == 0:
            by_plane.setdefault(each.z, []).append(each)
    planes = sorted(by_plane)
    areas = [by_plane[z] for z in planes]
    sizes = [[(each.width, each.height) for each in area] for area in areas]
    if not areas or planes != list(range(len(planes))) or any(s != sizes[0] for s in sizes):
        msg = f"{file.source!r}: focal planes {planes} of an image with levels {sizes}"
        raise UnsupportedFormatError(msg)
    return areas


def _check_alike(
    file: TiffFile, images: Sequence[ScnImage], areas: Sequence[list[list[Dimension]]]
) -> tuple[int, int]:
    """Levels and focal planes of all images, which must be the same."""
    depth, planes = len(areas[0][0]), len(areas[0])
    for image, each in zip(images[1:], areas[1:], strict=True):
        unlike = [
            abs(1 - _clicks(image, d) / _clicks(images[0], first)) > _MAX_UNLIKE
            for d, first in zip(each[0], areas[0][0], strict=False)
        ]
        same_lens = image.texts.get("objective") == images[0].texts.get("objective")
        if (len(each[0]), len(each)) != (depth, planes) or any(unlike) or not same_lens:
            msg = f"{file.source!r}: Leica slide of images with unlike levels or objectives"
            raise UnsupportedFormatError(msg)
    return depth, planes


def _clicks(image: ScnImage, dimension: Dimension) -> float:
    """Clicks per pixel."""
    return image.width / dimension.width


def _page(file: TiffFile, dimension: Dimension) -> TiffPage:
    if dimension.ifd >= len(file.pages):
        msg = f"names page {dimension.ifd} of {len(file.pages)}"
        location = ("ifd", 0, "ImageDescription", "ifd")
        raise MetadataError(msg, source=file.source, location=location)
    page = file.pages[dimension.ifd]
    if not page.tiled:
        raise UnsupportedFormatError(f"{page.where}: a level in strips is not read")
    return page


def _frame(
    file: TiffFile,
    collection: Collection,
    areas: Sequence[Dimension],
    images: Sequence[ScnImage],
    level: int,
) -> ArraySpec:
    """One level: the pages of all images, each in its place."""
    what = f"level {level}"
    pairs = list(zip(images, areas, strict=True))
    clicks = min(_clicks(image, area) for image, area in pairs)
    size = (math.ceil(collection.height / clicks), math.ceil(collection.width / clicks))
    specs = [page_to_array_spec(_page(file, area), key=file.key, image=what) for area in areas]
    table, first_rows = _joined(file, specs, what)
    placed = []
    # what is painted later hides what was painted before: the first image comes last
    for image, spec, row in reversed(list(zip(images, specs, first_rows, strict=True))):
        corner = [math.floor(at / clicks + 0.5) for at in (image.top, image.left)]
        placed.append(_tiles(spec, corner, size, row, table.grid_shape[1]))
    tiles = PlacedTiles(
        chunk=np.concatenate([each.chunk for each in placed]),
        start=np.concatenate([each.start for each in placed], axis=1),
        extent=np.concatenate([each.extent for each in placed], axis=1),
        origin=np.concatenate([each.origin for each in placed], axis=1),
    )
    return place_tiles(table, tiles, size)


def _joined(file: TiffFile, specs: Sequence[ArraySpec], what: str) -> tuple[ArraySpec, list[int]]:
    """Chunk tables one below the other, as rows of one grid; first row of each."""
    first = specs[0]
    columns = max(spec.grid_shape[1] for spec in specs)
    stored = sum(len(manifest_of(spec).nbytes) for spec in specs)
    check_entries(columns * sum(spec.grid_shape[0] for spec in specs), stored, first)
    offsets, nbytes, rows = [], [], [0]
    for spec in specs:
        for name in ("dtype", "chunk_shape", "codecs"):
            if getattr(spec, name) != getattr(first, name) or spec.grid_shape[2] != 1:
                msg = f"{what} of {file.source!r}: its images differ in {name}"
                raise UnsupportedFormatError(msg)
        table, grid = manifest_of(spec), spec.grid_shape[:2]
        rest = ((0, 0), (0, columns - grid[1]))
        offsets.append(np.pad(table.offsets.reshape(grid), rest))
        missing = np.int64(MISSING_NBYTES)
        nbytes.append(np.pad(table.nbytes.reshape(grid), rest, constant_values=missing))
        rows.append(rows[-1] + grid[0])
    height, width, samples = first.chunk_shape
    location = Manifest(
        key=file.key,
        offsets=np.concatenate(offsets).reshape(-1),
        nbytes=np.concatenate(nbytes).reshape(-1),
    )
    shape = (rows[-1] * height, columns * width, samples)
    return replace(first, shape=shape, location=location), rows[:-1]


def _tiles(
    spec: ArraySpec, corner: list[int], size: tuple[int, int], first_row: int, columns: int
) -> PlacedTiles:
    """Tiles of one image as they lie in the frame, without what overhangs image or frame."""
    rows, across = np.meshgrid(*(np.arange(n) for n in spec.grid_shape[:2]), indexing="ij")
    index: NDArray[np.int64] = np.stack([rows.reshape(-1), across.reshape(-1)])
    tile = np.array(spec.chunk_shape[:2])[:, None]
    start = index * tile
    end = np.minimum(start + tile, np.array(spec.shape[:2])[:, None])
    at = np.array(corner)[:, None]
    end = np.minimum(end, np.array(size)[:, None] - at)
    inside = np.flatnonzero((end > start).all(axis=0))
    start, end, index = start[:, inside], end[:, inside], index[:, inside]
    return PlacedTiles(
        chunk=(index[0] + first_row) * columns + index[1],
        start=start + at,
        extent=end - start,
        origin=np.zeros_like(start),
    )


def _level_sizes(levels: Sequence[ArraySpec]) -> dict[str, str]:
    """Properties of levels, which have no one tile size."""
    height, width = levels[0].shape[-3:-1]
    properties = {"openslide.level-count": str(len(levels))}
    for index, level in enumerate(levels):
        down, across = level.shape[-3:-1]
        prefix = f"openslide.level[{index}]"
        properties[f"{prefix}.downsample"] = number_text((height / down + width / across) / 2)
        properties |= {f"{prefix}.height": str(down), f"{prefix}.width": str(across)}
    return properties


def _barcode(collection: Collection) -> dict[str, str]:
    """Barcode, which is base64 text; empty if it is none."""
    if collection.barcode is None:
        return {}
    try:
        text = binascii.a2b_base64(collection.barcode, strict_mode=True).decode()
    except ValueError:
        text = ""
    return {"leica.barcode": text, "openslide.barcode": text}


def _regions(
    file: TiffFile, images: Sequence[ScnImage], areas: Sequence[Dimension]
) -> dict[str, str]:
    """Where the images lie at level 0, and all of them together."""
    clicks = min(_clicks(image, area) for image, area in zip(images, areas, strict=True))
    boxes = []
    for image, area in zip(images, areas, strict=True):
        page = _page(file, area)
        boxes.append((int(image.left / clicks), int(image.top / clicks), page.width, page.height))
    left, top = min(box[0] for box in boxes), min(box[1] for box in boxes)
    right = max(x + width for x, _, width, _ in boxes)
    bottom = max(y + height for _, y, _, height in boxes)
    names = ("x", "y", "width", "height")
    whole = zip(names, (left, top, right - left, bottom - top), strict=True)
    properties = {f"openslide.bounds-{name}": str(value) for name, value in whole}
    for index, box in enumerate(boxes):
        for name, value in zip(names, box, strict=True):
            properties[f"openslide.region[{index}].{name}"] = str(value)
    return properties


def _quickhash(file: TiffFile, collection: Collection, first: TiffPage) -> Quickhash | None:
    """Of the coarsest page of the image, or of the macro image where there are several images."""
    macros = [image for image in collection.images if collection.is_macro(image)]
    images = [image for image in collection.images if not collection.is_macro(image)]
    alone = len(images) == 1 and images[0].is_brightfield and len(macros) <= 1
    hashed = images if alone else [image for image in macros if image.is_brightfield]
    pages = [each for image in hashed for each in image.dimensions if each.z == 0]
    return tiff_quickhash(file.key, _page(file, pages[-1]), first) if pages else None


def _macro(file: TiffFile, collection: Collection) -> tuple[dict[str, ArraySpec], dict[str, str]]:
    """Largest page of the macro image, and what is to be said of it."""
    images = [i for i in collection.images if i.is_brightfield and collection.is_macro(i)]
    if len(images) > 1:
        raise UnsupportedFormatError(f"{file.source!r}: Leica slide of several macro images")
    if not images or not images[0].dimensions:
        return {}, {}
    page = _page(file, images[0].dimensions[0])
    try:
        spec = page_to_array_spec(page, key=file.key, image="macro")
    except (RequestError, MetadataError) as error:
        return {}, {"zarrgpu.associated.macro.unsupported": str(error)}
    nbytes = page.icc_profile.nbytes if page.icc_profile else 0
    return {"macro": spec}, associated_properties("macro", page, nbytes)
