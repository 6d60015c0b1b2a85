"""Ventana BIF and TIFF: tiles that overlap, at places that the XML of level 0 gives.

Facts from OpenSlide's reader (openslide-vendor-ventana.c):

- the XMLPacket (tag 700) of page 0 has an ``iScan`` element, whose attributes are the properties;
- levels are the pages described by ``level=N mag=M quality=Q``; the macro image is called "Label
  Image" or "Label_Image", the thumbnail "Thumbnail";
- a BIF has the layout of its tiles in the XMLPacket of level 0 (`ventana_xml`); a Ventana TIFF has
  none, and its tiles do not overlap;
- a tile of a level that is n times coarser holds n x n *subtiles*, each made of a tile of level 0
  and placed like it, with its overlaps; of what overlaps, the tile further down and to the right is
  shown;
- no tag has the size of a level: it is as large as its tiles reach.

Where tiles would lie between pixels, OpenSlide interpolates; here they lie at the nearest pixel, so
that pixels are the stored ones. Level 0 is equal where the distance of tiles is whole.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

from zarrgpu.errors import MetadataError, RequestError, UnsupportedFormatError
from zarrgpu.formats.quickhash import tiff_quickhash
from zarrgpu.formats.slide_properties import (
    associated_properties,
    level_properties,
    number_text,
    parse_number,
    tiff_properties,
)
from zarrgpu.formats.tiff import page_to_array_spec
from zarrgpu.formats.tiff_ifd import MAX_SMALL_NBYTES
from zarrgpu.formats.tiff_tags import BYTE_TYPES, Tag
from zarrgpu.formats.tile_placement import PlacedTiles, place_tiles
from zarrgpu.formats.ventana_xml import Area, Layout, find_iscan, parse_layout
from zarrgpu.model import ArraySpec
from zarrgpu.slide_model import SlideSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from zarrgpu.formats.tiff_file import TiffFile
    from zarrgpu.formats.tiff_page import TiffPage

_ASSOCIATED: Final = {"Label Image": "macro", "Label_Image": "macro", "Thumbnail": "thumbnail"}
_MAX_SHRINK: Final = 1 << 10


def is_ventana(file: TiffFile) -> bool:
    """Whether a TIFF is a Ventana slide."""
    field = file.first.ifd.fields.get(Tag.XMLPacket)
    if field is None or field.field_type not in BYTE_TYPES or field.count > MAX_SMALL_NBYTES:
        return False  # others have the tag too, for what Adobe's programs write
    packet = _packet(file.first)
    if packet is None or "iScan" not in packet:
        return False
    try:
        return find_iscan(packet, source=file.source) is not None
    except MetadataError:
        return False


def ventana_slide(file: TiffFile) -> SlideSpec:
    """Describe a Ventana slide.

    Levels have axes ``(y, x, c)``. Properties are those of OpenSlide by name and value. What
    no tile covers reads as 0.

    Raises
    ------
    UnsupportedFormatError, UnsupportedCodecError
        A level uses what zarrgpu does not read.
    MetadataError
        Tags or XML contradict one another, or are damaged.
    """
    iscan = find_iscan(_packet(file.first) or "", source=file.source)
    if iscan is None:
        raise UnsupportedFormatError(f"{file.source!r} is not a Ventana slide: it has no iScan")
    pages, shrinks = _levels(file)
    first = pages[0]
    specs = [page_to_array_spec(p, key=file.key, image=f"level {i}") for i, p in enumerate(pages)]
    if len({spec.chunk_shape for spec in specs}) > 1:
        msg = f"levels have tiles of {sorted({spec.chunk_shape for spec in specs})}"
        raise MetadataError(msg, source=file.source)
    packet = _packet(first)
    layout = None
    if packet is not None:
        tile = (first.chunk_width, first.chunk_height)
        layout = parse_layout(packet, tile, source=file.source, ifd=first.index)
        if any(n != int(n) for n in shrinks):
            msg = f"{file.source!r}: levels that are {shrinks} times smaller, not whole times"
            raise UnsupportedFormatError(msg)
        specs = [_placed(spec, layout, int(n)) for spec, n in zip(specs, shrinks, strict=True)]
    associated, properties = _associated(file)
    described = {f"ventana.{name}": value for name, value in iscan.attrib.items() if value}
    profile = specs[0].icc_profile
    mpp = parse_number(described.get("ventana.ScanRes"))
    usable = mpp if mpp is not None and mpp > 0 else None
    return SlideSpec(
        source=file.source,
        vendor="ventana",
        levels=tuple(specs),
        axes=("y", "x", "c"),
        mpp=(usable, usable),
        properties={
            "openslide.vendor": "ventana",
            **tiff_properties(first),
            **_level_properties(specs, shrinks, placed=layout is not None),
            **described,
            **_scale_properties(mpp, described.get("ventana.Magnification")),
            **(_region_properties(layout, first) if layout is not None else {}),
            **({"openslide.icc-size": str(len(profile))} if profile is not None else {}),
            **properties,
        },
        associated=associated,
        downsamples=tuple(shrinks),
        quickhash=tiff_quickhash(file.key, pages[-1], first),
    )


def _packet(page: TiffPage) -> str | None:
    """XMLPacket of a page; None if there is none."""
    field = page.ifd.fields.get(Tag.XMLPacket)
    return page.ifd.text(Tag.XMLPacket) if field is not None and field.count else None


def _levels(file: TiffFile) -> tuple[list[TiffPage], list[float]]:
    """Pages of the levels, and by how much each is smaller than level 0."""
    pages: list[TiffPage] = []
    magnifications: list[float] = []
    for page in file.pages:
        if "level=" not in page.description:
            continue
        where = ("ifd", page.index, "ImageDescription")
        fields = dict(pair.split("=", 1) for pair in page.description.split(" ") if "=" in pair)
        number, magnification = (parse_number(fields.get(name)) for name in ("level", "mag"))
        if number != len(pages) or magnification is None or magnification <= 0:
            msg = f"expected level={len(pages)} and a magnification: {page.description[:80]!r}"
            raise MetadataError(msg, source=file.source, location=where)
        if magnifications and magnification >= magnifications[-1]:
            msg = f"magnification {magnification:g} after {magnifications[-1]:g}"
            raise MetadataError(msg, source=file.source, location=where)
        if not page.tiled:
            msg = f"level {len(pages)}, ifd {page.index} of {file.source!r}, is not tiled"
            raise UnsupportedFormatError(msg)
        pages.append(page)
        magnifications.append(magnification)
    if not pages:
        raise MetadataError("no page is a level", source=file.source, kind="missing")
    shrinks = [magnifications[0] / each for each in magnifications]
    if shrinks[-1] > _MAX_SHRINK:
        msg = (
            f"{file.source!r}: a level {shrinks[-1]:g} times smaller, at most {_MAX_SHRINK} is read"
        )
        raise UnsupportedFormatError(msg)
    return pages, shrinks


def _placed(spec: ArraySpec, layout: Layout, shrink: int) -> ArraySpec:
    """Give the tiles of a level their places."""
    parts = [_area_tiles(spec, layout, area, shrink) for area in layout.areas]
    rows, columns = (np.concatenate([part[n] for part in parts]) for n in (0, 1))
    tiles = PlacedTiles(
        chunk=np.concatenate([part[2].chunk for part in parts]),
        start=np.concatenate([part[2].start for part in parts], axis=1),
        extent=np.concatenate([part[2].extent for part in parts], axis=1),
        origin=np.concatenate([part[2].origin for part in parts], axis=1),
    )
    ends = [
        max(_reach(area, layout, spec, axis) / shrink for area in layout.areas) for axis in (0, 1)
    ]
    size = (math.ceil(ends[0]), math.ceil(ends[1]))
    # nothing is painted before the origin or, of a tile that was rounded up, behind the end
    before = np.minimum(tiles.start, 0)
    extent = np.minimum(tiles.extent + before, np.array(size)[:, None] - tiles.start + before)
    tiles = replace(tiles, start=tiles.start - before, extent=extent, origin=tiles.origin - before)
    order = np.lexsort((columns, rows))
    painted = (tiles.extent[:, order] > 0).all(axis=0)
    return place_tiles(spec, tiles.take(order[painted]), size)


def _reach(area: Area, layout: Layout, spec: ArraySpec, axis: int) -> float:
    """Where the last tile of an area ends, in pixels of level 0."""
    start, count, advance = (
        (area.y, area.down, layout.advance_y)
        if axis == 0
        else (area.x, area.across, layout.advance_x)
    )
    return start + (count - 1) * advance + spec.chunk_shape[axis]


def _area_tiles(
    spec: ArraySpec, layout: Layout, area: Area, shrink: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], PlacedTiles]:
    """Row and column of each subtile of an area, and its rectangle."""
    down, across = spec.grid_shape[:2]
    row = area.row + np.arange(area.down)
    column = area.column + np.arange(area.across)
    if row[-1] // shrink >= down or column[-1] // shrink >= across:
        msg = (
            f"{spec.attributes['image']}: an area of {area.across} x {area.down} tiles at column "
            f"{area.column}, row {area.row} lies outside of {across} x {down} tiles"
        )
        raise MetadataError(msg, source=spec.source)
    axes = [
        _axis(row, area.y, layout.advance_y, spec.chunk_shape[0], spec.shape[0], shrink),
        _axis(column, area.x, layout.advance_x, spec.chunk_shape[1], spec.shape[1], shrink),
    ]
    grids = [np.meshgrid(*(axis[n] for axis in axes), indexing="ij") for n in range(3)]
    start, extent, origin = (np.stack([g.reshape(-1) for g in grid]) for grid in grids)
    rows, columns = (grid.reshape(-1) for grid in np.meshgrid(row, column, indexing="ij"))
    chunk = rows // shrink * across + columns // shrink
    return rows, columns, PlacedTiles(chunk=chunk, start=start, extent=extent, origin=origin)


def _axis(
    number: NDArray[np.int64], first: float, advance: float, tile: int, size: int, shrink: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """First pixel, pixels, and first pixel within its tile, of each subtile along one axis."""
    part = number % shrink
    origin = _nearest(part * tile / shrink)
    end = _nearest((part + 1) * tile / shrink)
    # what lies beyond the stored image is not shown
    end = np.minimum(end, size - number // shrink * tile)
    extent = np.maximum(end - origin, 0)
    exact = (first + np.arange(len(number)) * advance) / shrink
    start = _nearest(exact)
    if advance <= tile:  # rounding must not tear gaps between neighbours
        start[1:] = np.minimum(start[1:], start[:-1] + extent[:-1])
    return start, extent, origin


def _nearest(values: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.floor(values + 0.5).astype(np.int64)


def _associated(file: TiffFile) -> tuple[dict[str, ArraySpec], dict[str, str]]:
    """Images beside the levels, and their properties."""
    found: dict[str, ArraySpec] = {}
    properties: dict[str, str] = {}
    for page in file.pages:
        name = _ASSOCIATED.get(page.description)
        if name is None or name in found:
            continue
        try:
            found[name] = page_to_array_spec(page, key=file.key, image=name)
        except (RequestError, MetadataError) as error:
            properties[f"zarrgpu.associated.{name}.unsupported"] = str(error)
        else:
            icc_nbytes = page.icc_profile.nbytes if page.icc_profile else 0
            properties |= associated_properties(name, page, icc_nbytes)
    return found, properties


def _level_properties(
    levels: list[ArraySpec], shrinks: list[float], *, placed: bool
) -> Mapping[str, str]:
    """Properties of the levels: the stated downsample, no tile size where tiles overlap."""
    properties = level_properties(levels)
    for index, shrink in enumerate(shrinks):
        prefix = f"openslide.level[{index}]"
        properties[f"{prefix}.downsample"] = number_text(shrink)
        if placed:
            del properties[f"{prefix}.tile-width"], properties[f"{prefix}.tile-height"]
    return properties


def _scale_properties(mpp: float | None, magnification: str | None) -> dict[str, str]:
    properties = {}
    if mpp is not None:
        properties["openslide.mpp-x"] = properties["openslide.mpp-y"] = number_text(mpp)
    power = parse_number(magnification)
    if power is not None and power == int(power):
        properties["openslide.objective-power"] = str(int(power))
    return properties


def _region_properties(layout: Layout, page: TiffPage) -> dict[str, str]:
    """``openslide.region[N]``: areas as they would lie if all began where their tiles do."""
    properties: dict[str, str] = {}
    for index, area in enumerate(layout.areas):
        values = {
            "x": int(layout.advance_x * area.column),
            "y": int(layout.advance_y * area.row),
            "width": math.ceil(layout.advance_x * (area.across - 1) + page.chunk_width),
            "height": math.ceil(layout.advance_y * (area.down - 1) + page.chunk_height),
        }
        properties |= {f"openslide.region[{index}].{k}": str(v) for k, v in values.items()}
    return properties
