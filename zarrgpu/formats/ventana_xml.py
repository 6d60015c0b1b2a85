"""What the XML of a Ventana slide says: areas of interest, and how their tiles overlap.

Facts from OpenSlide's reader (openslide-vendor-ventana.c). ``EncodeInfo``, in the XMLPacket of
level 0, has an ``ImageInfo`` for each area that was scanned, and its origin under ``AoiOrigin``.
Tiles of an area are numbered from its lower left corner, row by row, every second row from right to
left. A ``TileJointInfo`` says by how much two neighbours overlap. As in OpenSlide all tiles of a
slide are the same distance apart, the mean of what the joints say, weighted by their confidence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from zarrgpu.errors import MetadataError, UnsupportedFormatError
from zarrgpu.formats.slide_properties import parse_number
from zarrgpu.formats.xml_document import children, local_name, parse_xml

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_MAX_TILES: Final = 1 << 22
_MAX_PIXELS: Final = 1 << 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Area:
    """One area of interest.

    Attributes
    ----------
    x, y : float
        Place of its upper left corner within the slide, pixels of level 0.
    column, row : int
        Of its first tile among the tiles of the TIFF.
    across, down : int
        Tiles.
    """

    x: float
    y: float
    column: int
    row: int
    across: int
    down: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where the tiles of a slide lie.

    Attributes
    ----------
    areas : tuple of Area
    advance_x, advance_y : float
        Pixels from one tile to the next.
    """

    areas: tuple[Area, ...]
    advance_x: float
    advance_y: float


@dataclass(slots=True)
class _Joints:
    """Sums over the joints of all areas; x and y."""

    total: list[float]
    weight: list[int]

    def advance(self, axis: int, tile: int) -> float:
        """Distance of tiles of a size."""
        weight = self.weight[axis]
        return tile - self.total[axis] / weight if weight else float(tile)


def find_iscan(packet: str, *, source: str) -> Element | None:
    """Element that describes the scan in the XMLPacket of page 0, None if there is none."""
    root = parse_xml(packet, source=source, location=("ifd", 0, "XMLPacket"))
    if local_name(root) == "iScan":
        return root
    found = children(root, "iScan") if local_name(root) == "Metadata" else []
    return found[0] if found else None


def parse_layout(packet: str, tile: tuple[int, int], *, source: str, ifd: int) -> Layout:
    """Read the XMLPacket of level 0.

    Parameters
    ----------
    packet : str
    tile : (int, int)
        Width and height of a tile.
    source : str
    ifd : int
        Where the packet is.

    Raises
    ------
    MetadataError
        Something is missing or contradicts the rest.
    UnsupportedFormatError
        Joints in directions that OpenSlide does not know either.
    """
    where = ("ifd", ifd, "XMLPacket")
    root = parse_xml(packet, source=source, location=where)
    infos = children(root, "SlideStitchInfo", "ImageInfo")
    origins = [each for parent in children(root, "AoiOrigin") for each in parent]
    if local_name(root) != "EncodeInfo" or not infos or len(infos) != len(origins):
        msg = f"{len(infos)} areas and {len(origins)} origins of areas in a {local_name(root)}"
        raise MetadataError(msg, source=source, location=where)
    joints = _Joints([0.0, 0.0], [0, 0])
    reader = _Reader(source, where)
    areas = [
        _area(reader, info, origin, tile, joints)
        for info, origin in zip(infos, origins, strict=True)
        if reader.integer(info, "AOIScanned")
    ]
    if not areas:
        raise MetadataError("no area was scanned", source=source, location=where, kind="missing")
    tiles = sum(area.across * area.down for area in areas)
    if tiles > _MAX_TILES:
        msg = f"{len(areas)} areas of {tiles} tiles, expected at most {_MAX_TILES}"
        raise MetadataError(msg, source=source, location=where)
    advance = (joints.advance(0, tile[0]), joints.advance(1, tile[1]))
    if not (0 < advance[0] <= 2 * tile[0] and 0 < advance[1] <= 2 * tile[1]):
        msg = (
            f"tiles of {tile[0]} x {tile[1]} pixels that are {advance[0]:g} x {advance[1]:g} apart"
        )
        raise MetadataError(msg, source=source, location=where)
    return Layout(
        areas=_turned(areas, advance[1], tile[1]), advance_x=advance[0], advance_y=advance[1]
    )


@dataclass(frozen=True, slots=True)
class _Reader:
    """Attributes as numbers, with errors that say where they are."""

    source: str
    where: tuple[str | int, ...]

    def error(self, element: Element, message: str) -> MetadataError:
        location = (*self.where, local_name(element))
        return MetadataError(message, source=self.source, location=location)

    def number(self, element: Element, name: str) -> float:
        text = element.get(name)
        value = parse_number(text)
        if value is None or abs(value) > _MAX_PIXELS:
            raise self.error(element, f"attribute {name} is no number: {str(text)[:40]!r}")
        return value

    def integer(self, element: Element, name: str) -> int:
        value = self.number(element, name)
        if value != int(value):
            raise self.error(element, f"attribute {name} is no integer: {value!r}")
        return int(value)


def _area(
    reader: _Reader, info: Element, origin: Element, tile: tuple[int, int], joints: _Joints
) -> Area:
    """One scanned area, with the height of its lower edge in place of y; adds to `joints`."""
    size = (reader.integer(info, "Width"), reader.integer(info, "Height"))
    start = (reader.integer(origin, "OriginX"), reader.integer(origin, "OriginY"))
    count = (reader.integer(info, "NumCols"), reader.integer(info, "NumRows"))
    if size != tile:
        raise reader.error(info, f"tiles of {size}, those of the TIFF are {tile}")
    if start[0] % tile[0] or start[1] % tile[1] or min(start) < 0:
        raise reader.error(origin, f"origin {start} is no multiple of the tiles' size {tile}")
    if min(count) < 1 or count[0] * count[1] > _MAX_TILES:
        raise reader.error(info, f"{count[0]} x {count[1]} tiles")
    for joint in children(info, "TileJointInfo"):
        _add_joint(reader, joint, count, joints)
    return Area(
        x=int(reader.number(info, "Pos-X")),
        y=int(reader.number(info, "Pos-Y")),
        column=start[0] // tile[0],
        row=start[1] // tile[1],
        across=count[0],
        down=count[1],
    )


def _add_joint(reader: _Reader, joint: Element, count: tuple[int, int], joints: _Joints) -> None:
    """Add the overlap of two neighbours to the sums."""
    first, second = (_tile_place(reader, joint, name, count) for name in ("Tile1", "Tile2"))
    direction = joint.get("Direction")
    if direction == "RIGHT":
        axis, expected = 0, (first[0] + 1, first[1])
    elif direction == "UP":
        axis, expected = 1, (first[0], first[1] - 1)
    else:
        msg = f"{reader.source!r}: Ventana tiles joined in direction {direction!r} are not read"
        raise UnsupportedFormatError(msg)
    if second != expected:
        raise reader.error(joint, f"{direction} of tile {first} lies {second}, not {expected}")
    overlap = reader.number(joint, ("OverlapX", "OverlapY")[axis])
    weight = reader.integer(joint, "Confidence")
    if weight < 0:
        raise reader.error(joint, f"confidence {weight} is negative")
    joints.total[axis] += weight * overlap
    joints.weight[axis] += weight


def _tile_place(
    reader: _Reader, joint: Element, name: str, count: tuple[int, int]
) -> tuple[int, int]:
    """Column and row, from above, of a tile by its number."""
    number = reader.integer(joint, name) - 1
    if not 0 <= number < count[0] * count[1]:
        raise reader.error(joint, f"tile {number + 1} of {count[0] * count[1]}")
    row, column = divmod(number, count[0])
    return (column if row % 2 == 0 else count[0] - 1 - column), count[1] - 1 - row


def _turned(areas: list[Area], advance_y: float, tile_height: int) -> tuple[Area, ...]:
    """Areas with y from above: the file counts it from below all of them."""
    heights = [int((area.down - 1) * advance_y + tile_height) for area in areas]
    top = max([0, *(int(area.y) + height for area, height in zip(areas, heights, strict=True))])
    return tuple(
        Area(
            x=area.x,
            y=top - area.y - height,
            column=area.column,
            row=area.row,
            across=area.across,
            down=area.down,
        )
        for area, height in zip(areas, heights, strict=True)
    )
