"""`Plate` and `Well`: high-content screening data of OME-Zarr, read many wells at a time.

A plate is a mapping of the paths of its wells (``"A/1"``) to `Well`, a well one of the paths of its
fields of view (``"0"``) to images. Nothing is opened before it is asked for. Regions of many wells
and fields are read by one plan: each chunk once, all stores' requests in flight together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from zarrgpu.devices.host import run_threads
from zarrgpu.errors import SelectionError, UnsupportedFormatError
from zarrgpu.formats.ngff_plate import Acquisition, FieldPlace, PlateSpec, parse_plate, parse_well
from zarrgpu.group import Group
from zarrgpu.hierarchy import join
from zarrgpu.ome_image import OmeZarrImage
from zarrgpu.patches import parse_locations
from zarrgpu.regions import read_regions


class Well(Mapping[str, OmeZarrImage]):
    """A well: its fields of view, by path or by index. Made by `Plate` or `zarrgpu.open`.

    Parameters
    ----------
    group : Group
    """

    def __init__(self, group: Group) -> None:
        self.group = group
        self.fields: tuple[FieldPlace, ...] = parse_well(group.attrs, group.metadata.source)

    def __repr__(self) -> str:
        return f"<zarrgpu.Well {self.group.metadata.source!r} of {len(self)} field(s)>"

    @property
    def attrs(self) -> Mapping[str, Any]:
        """User attributes of the group."""
        return self.group.attrs

    def __len__(self) -> int:
        return len(self.fields)

    def __iter__(self) -> Iterator[str]:
        """Paths of the fields, in order."""
        return iter(field.path for field in self.fields)

    def __contains__(self, field: object) -> bool:
        return any(each.path == field for each in self.fields)

    def __getitem__(self, field: str | int) -> OmeZarrImage:
        """Open a field of view by its path or its index.

        Raises
        ------
        SelectionError
            If there is none; also an IndexError.
        MetadataError, NodeNotFoundError, StoreError, UnsupportedCodecError
            If it cannot be read.
        """
        path = field
        if isinstance(field, (int, np.integer)) and not isinstance(field, bool):
            if not -len(self.fields) <= field < len(self.fields):
                msg = f"{self!r} has no field {field!r}, only {len(self)}"
                raise SelectionError(msg)
            path = self.fields[field].path
        elif field not in self:
            msg = f"{self!r} has no field {field!r}, only {list(self)}"
            raise SelectionError(msg)
        image = self.group[str(path)]
        if not isinstance(image, OmeZarrImage):
            msg = f"field {field!r} of {self.group.metadata.source!r} is no multiscale image"
            raise UnsupportedFormatError(msg)
        return image

    def get(self, field: Any, default: Any = None) -> Any:
        """Field of view, or `default` where there is none."""
        try:
            return self[field]
        except SelectionError:
            return default

    def acquired(self, acquisition: int) -> tuple[str, ...]:
        """Paths of the fields of one acquisition, by its id."""
        return tuple(each.path for each in self.fields if each.acquisition == acquisition)


class Plate(Mapping[str, Well]):
    """A plate of wells: a mapping of their paths to `Well`. Made by `zarrgpu.open`; may be pickled.

    ``plate["A/1"]`` and ``plate["A", 1]`` are the well of row A and column 1 (or ``"01"``),
    ``plate["A/1/0"]`` its field ``0``. Not every place of the grid has a well: ``"A/2" in plate``
    says so.

    Parameters
    ----------
    group : Group
    """

    def __init__(self, group: Group) -> None:
        self.group = group
        self.spec: PlateSpec = parse_plate(group.attrs, group.metadata.source)
        self._places = {well.path: (well.row, well.column) for well in self.spec.wells}
        self._paths = {place: path for path, place in self._places.items()}

    def __repr__(self) -> str:
        return (
            f"<zarrgpu.Plate {self.spec.source!r} {len(self.rows)} x {len(self.columns)}, "
            f"{len(self)} well(s)>"
        )

    @property
    def name(self) -> str:
        """Name of the plate; empty where it has none."""
        return self.spec.name

    @property
    def rows(self) -> tuple[str, ...]:
        """Names of the rows."""
        return self.spec.rows

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns."""
        return self.spec.columns

    @property
    def acquisitions(self) -> tuple[Acquisition, ...]:
        """Runs of the microscope over the plate, where it lists them."""
        return self.spec.acquisitions

    @property
    def attrs(self) -> Mapping[str, Any]:
        """User attributes of the group."""
        return self.group.attrs

    def __len__(self) -> int:
        """Number of wells that are there."""
        return len(self._places)

    def __iter__(self) -> Iterator[str]:
        """Paths of the wells, in the order of the metadata."""
        return iter(self._places)

    def __contains__(self, well: object) -> bool:
        try:
            return self._path(well) in self._places
        except SelectionError:
            return False

    def place(self, well: Any) -> tuple[int, int]:
        """(row, column) of a well in the grid, by index."""
        return self._places[self._path(well)]

    def __getitem__(self, well: Any) -> Any:
        """Open a well by its path or by row and column, or a field by its path.

        Raises
        ------
        SelectionError
            If the plate has no such row, column or well; also an IndexError.
        MetadataError, NodeNotFoundError, StoreError
            If it cannot be read.
        """
        if isinstance(well, str) and well.strip("/").count("/") == 2:
            path, _, field = well.strip("/").rpartition("/")
            return self[path][field]
        path = self._path(well)
        node = self.group[path]
        if not isinstance(node, Well):
            msg = f"{path!r} of {self.spec.source!r} has no well metadata"
            raise UnsupportedFormatError(msg)
        return node

    def get(self, well: Any, default: Any = None) -> Any:
        """Well, or `default` where the plate has none there."""
        try:
            return self[well]
        except SelectionError:
            return default

    def images(
        self,
        wells: Iterable[Any] | None = None,
        *,
        fields: int | str | Iterable[int | str] | None = 0,
        acquisition: int | None = None,
    ) -> dict[str, OmeZarrImage]:
        """Open fields of view of many wells, as many at a time as the store likes.

        Parameters
        ----------
        wells : iterable, optional
            Paths or (row, column); default all.
        fields : int, str, or iterable of these, optional
            Fields of each well, by index or path; default the first, None for all.
        acquisition : int, optional
            Only fields of this acquisition; indices count within it.

        Returns
        -------
        dict of str to OmeZarrImage
            Path below the plate (``"A/1/0"``) -> image, well by well.

        Raises
        ------
        SelectionError
            If a well or field is not there.
        """
        paths = [self._path(well) for well in (self if wells is None else wells)]
        chosen: list[int | str] | None = None
        if isinstance(fields, (int, str)):
            chosen = [fields]
        elif fields is not None:
            chosen = list(fields)
        concurrency = max(1, self.group.store.io_concurrency)
        opened = run_threads(lambda path: (path, self[path]), paths, concurrency)
        wanted = [
            (join(path, field), well, field)
            for path, well in opened
            for field in _fields(well, chosen, acquisition)
        ]
        images = run_threads(lambda item: (item[0], item[1][item[2]]), wanted, concurrency)
        return dict(images)

    def read_regions(
        self,
        locations: ArrayLike,
        level: int,
        size: tuple[int, int],
        *,
        wells: Iterable[Any] | None = None,
        fields: int | str | Iterable[int | str] | None = 0,
        acquisition: int | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """Read the same regions of many wells and fields in one plan.

        Parameters
        ----------
        locations : int array, shape (N, 2)
            (x, y) of each upper left pixel in the level-0 frame of every field.
        level : int
        size : (int, int)
            (width, height) in pixels of `level`.
        wells, fields, acquisition
            As for `images`.
        **options
            ``position``, ``layout``, ``dtype``, ``normalize``, ``device`` and ``options`` of
            `Slide.read_regions`.

        Returns
        -------
        dict of str to array of the device
            Path of the field below the plate -> its regions, shape (N, height, width, channels) or
            (N, channels, height, width): parts of one array.

        Raises
        ------
        SelectionError
            If a well or field is not there, or the fields differ in axes, channels or type.
        DataError
            If what is stored cannot be read.
        """
        for name in ("out", "on_error", "mpp"):
            if name in options:
                msg = f"{name} is of zarrgpu.read_regions; give it the slides of plate.images()"
                raise SelectionError(msg)
        images = self.images(wells, fields=fields, acquisition=acquisition)
        if not images:
            return {}
        points = parse_locations(locations)
        count = len(points)
        regions = read_regions(
            tuple(images.values()),
            np.repeat(np.arange(len(images), dtype=np.int32), count),
            np.tile(points, (len(images), 1)),
            size,
            level=level,
            **options,
        )
        return {
            path: regions[index * count : (index + 1) * count] for index, path in enumerate(images)
        }

    def _path(self, well: Any) -> str:
        """Path of a well that is there."""
        if isinstance(well, str):
            path = well.strip("/")
            if path in self._places:
                return path
        elif isinstance(well, tuple) and len(well) == 2:
            row, column = _line(self.rows, well[0]), _line(self.columns, well[1])
            if (row, column) in self._paths:
                return self._paths[row, column]
        msg = f"{self!r} has no well {well!r}; rows are {self.rows}, columns {self.columns}"
        raise SelectionError(msg)


def _line(names: tuple[str, ...], name: Any) -> int:
    """Index of a row or column by its name, or by its number: 3 is ``"3"`` or ``"03"``; else -1."""
    if str(name) in names:
        return names.index(str(name))
    if not isinstance(name, (int, np.integer)) or isinstance(name, bool):
        return -1
    padded = [k for k, each in enumerate(names) if each.isdecimal() and int(each) == name]
    return padded[0] if len(padded) == 1 else -1


def _fields(well: Well, chosen: list[int | str] | None, acquisition: int | None) -> list[str]:
    """Paths of those fields of a well that are asked for."""
    paths = list(well) if acquisition is None else list(well.acquired(acquisition))
    if chosen is None:
        return paths
    found = []
    for field in chosen:
        if isinstance(field, str):
            index = paths.index(field) if field in paths else len(paths)
        else:
            index = int(field)
        if not -len(paths) <= index < len(paths):
            of = "" if acquisition is None else f" of acquisition {acquisition}"
            msg = f"{well!r} has no field {field!r}{of}, only {paths}"
            raise SelectionError(msg)
        found.append(paths[index])
    return found
