"""Plates and wells of high-content screening: which images lie where.

Spec: https://ngff.openmicroscopy.org/0.5/ ``plate`` and ``well``. A plate is a grid of rows and
columns with wells at some of its places; a well has images, one a field of view.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from zarrgpu.formats.document import Document, shown
from zarrgpu.formats.ngff_transforms import children
from zarrgpu.formats.ngff_version import metadata_of, release, version_of

_TIMES = (("start_time", "starttime"), ("end_time", "endtime"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Acquisition:
    """One run of the microscope over a plate.

    Attributes
    ----------
    id : int
        What fields of wells refer to.
    name, description : str
        Empty where not stated.
    maximum_field_count : int or None
        Most fields of view that a well has of it.
    start_time, end_time : int or None
        Seconds since the epoch.
    """

    id: int
    name: str = ""
    description: str = ""
    maximum_field_count: int | None = None
    start_time: int | None = None
    end_time: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WellPlace:
    """A well of a plate: its path below the plate, its row and its column by index."""

    path: str
    row: int
    column: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PlateSpec:
    """What a plate's metadata says.

    Attributes
    ----------
    source, version, name : str
    rows, columns : tuple of str
        Names, in order of the grid.
    wells : tuple of WellPlace
    acquisitions : tuple of Acquisition
    field_count : int or None
        Most fields of view that a well has.
    """

    source: str
    version: str
    name: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    wells: tuple[WellPlace, ...]
    acquisitions: tuple[Acquisition, ...]
    field_count: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldPlace:
    """A field of view of a well: its path below the well, and the id of its acquisition."""

    path: str
    acquisition: int | None


def is_plate(attributes: Mapping[str, Any]) -> bool:
    """Whether group attributes describe a plate."""
    return "plate" in metadata_of(attributes, "").value


def is_well(attributes: Mapping[str, Any]) -> bool:
    """Whether group attributes describe a well."""
    return "well" in metadata_of(attributes, "").value


def parse_plate(attributes: Mapping[str, Any], source: str) -> PlateSpec:
    """Parse the plate of a group's attributes.

    Raises
    ------
    MetadataError
        With the place of what is malformed, or contradicts itself.
    UnsupportedFormatError
        For a version that is not known.
    """
    root = metadata_of(attributes, source)
    version = release(version_of(root), source)
    plate = root.child("plate", root.require("plate"))
    rows, columns = _names(plate, "rows"), _names(plate, "columns")
    wells = tuple(_well(each, rows, columns, version) for each in children(plate, "wells"))
    _check_distinct(plate, "wells", [well.path for well in wells])
    _check_distinct(plate, "wells", [(well.row, well.column) for well in wells])
    acquisitions: tuple[Acquisition, ...] = ()
    if plate.value.get("acquisitions"):
        acquisitions = tuple(map(_acquisition, children(plate, "acquisitions")))
        _check_distinct(plate, "acquisitions", [each.id for each in acquisitions])
    return PlateSpec(
        source=source,
        version=version,
        name=_text(plate, "name", ""),
        rows=rows,
        columns=columns,
        wells=wells,
        acquisitions=acquisitions,
        field_count=_count(plate, "field_count"),
    )


def parse_well(attributes: Mapping[str, Any], source: str) -> tuple[FieldPlace, ...]:
    """Parse the fields of view of a well from its group's attributes; errors as `parse_plate`."""
    root = metadata_of(attributes, source)
    release(version_of(root), source)
    well = root.child("well", root.require("well"))
    fields = [
        FieldPlace(path=_path(image, parts=1), acquisition=_count(image, "acquisition"))
        for image in children(well, "images")
    ]
    _check_distinct(well, "images", [field.path for field in fields])
    return tuple(fields)


def _names(plate: Document, key: str) -> tuple[str, ...]:
    names = [_text(line, "name", None) for line in children(plate, key)]
    _check_distinct(plate, key, names)
    return tuple(names)


def _well(
    well: Document, rows: tuple[str, ...], columns: tuple[str, ...], version: str
) -> WellPlace:
    """Place of a well: by its indices, which came with 0.4, else by the names in its path."""
    path = _path(well, parts=2)
    named = path.split("/")
    places = []
    for key, lines, name in (
        ("rowIndex", rows, named[0]),
        ("columnIndex", columns, named[1]),
    ):
        index = _count(well, key)
        if index is None:
            if name not in lines:
                raise well.fail(f"{shown(path)} is of no row and column of the plate", "path")
            index = lines.index(name)
        if index >= len(lines):
            raise well.fail(f"is {index}, and the plate has {len(lines)}", key)
        # the official suite of 0.4 has wells whose path is not that of their indices
        if version >= "0.5" and lines[index] != name:
            message = f"{shown(path)} is not of {shown(lines[index])}, which {key} says"
            raise well.fail(message, "path")
        places.append(index)
    return WellPlace(path=path, row=places[0], column=places[1])


def _acquisition(each: Document) -> Acquisition:
    number = _count(each, "id")
    if number is None:
        raise each.fail("is missing", "id", kind="missing")
    return Acquisition(
        id=number,
        name=_text(each, "name", ""),
        description=_text(each, "description", ""),
        maximum_field_count=_count(each, "maximumfieldcount"),
        **{name: _count(each, key) for name, key in _TIMES},
    )


def _path(owner: Document, *, parts: int) -> str:
    path = _text(owner, "path", None)
    pieces = path.split("/")
    if len(pieces) != parts or any(p in ("", ".", "..") or "\\" in p for p in pieces):
        wanted = "row/column" if parts == 2 else "a name"
        raise owner.fail(f"expected {wanted}, got {shown(path)}", "path")
    return path


def _text(owner: Document, key: str, default: str | None) -> str:
    value = owner.require(key) if default is None else owner.value.get(key, default)
    if not isinstance(value, str):
        raise owner.fail(f"expected a string, got {shown(value)}", key, kind="type")
    return value


def _count(owner: Document, key: str) -> int | None:
    """Integer of at least 0; None where there is none."""
    value = owner.value.get(key)
    if value is None:
        return None
    whole = isinstance(value, float) and value.is_integer()
    if not (type(value) is int or whole) or not 0 <= value < 1 << 53:
        raise owner.fail(f"expected an integer of at least 0, got {shown(value)}", key, kind="type")
    return int(value)


def _check_distinct(owner: Document, key: str, values: list[Any]) -> None:
    seen = set()
    for index, value in enumerate(values):
        if value in seen:
            raise owner.fail(f"repeats {shown(value)}", key, index)
        seen.add(value)
