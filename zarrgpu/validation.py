"""`validate`: every problem of OME-Zarr metadata at a path, and of what lies below it.

Each group's attributes are judged by `formats.ngff_validation`. Then what they point to is looked
up, and judged in turn: levels of an image, its labels, wells of a plate, fields of a well, images
of a series or a scene. No pixel is read.

The text of the specification demands of the store: Zarr 2 up to 0.4 and Zarr 3 since; arrays of as
many axes as the metadata, of one type (0.6), from large to small; in 0.5 `dimension_names` that are
the names of the axes; a label image of as many levels as its image; and where a plate lists several
acquisitions, that each field says of which it is.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from zarrgpu.errors import MetadataError, NodeNotFoundError, UnsupportedFormatError, ZarrGPUError
from zarrgpu.formats.group import GroupSpec
from zarrgpu.formats.ngff_schema import Location, Problem
from zarrgpu.formats.ngff_validation import kinds_of, validate_attributes
from zarrgpu.formats.ngff_version import (
    is_nested,
    metadata_of,
    release_of,
    stated_versions,
    version_of,
)
from zarrgpu.hierarchy import Hierarchy, NodeSpec, join, normalise_path
from zarrgpu.model import ArraySpec
from zarrgpu.stores.base import Store
from zarrgpu.stores.resolve import resolve_store

__all__ = ["Problem", "validate"]

_Reference: TypeAlias = tuple[Location, Any, str]
"""Where a path stands, the path, and what must be there: array, group, or a kind of metadata."""

_MAX_DEPTH = 16


def validate(
    target: Any,
    *,
    strict: bool = False,
    deep: bool = True,
    filesystem: Any = None,
    storage_options: dict[str, Any] | None = None,
) -> tuple[Problem, ...]:
    """Find every problem of the OME-Zarr metadata at a path.

    Parameters
    ----------
    target : path, URL, Store, or what `open` gave
        A group of OME-Zarr 0.1 to 0.6: an image, label image, plate, well, series or scene.
    strict : bool
        Whether what the specification recommends (SHOULD) must be there too.
    deep : bool
        Whether to look at what the metadata points to as well: one request or a few for each node.
    filesystem, storage_options
        As for `open`.

    Returns
    -------
    tuple of Problem
        With ``source``, ``location``, ``kind`` and ``message``; none if all is well.

    Raises
    ------
    NodeNotFoundError
        If nothing is there.
    UnsupportedFormatError
        If it is no Zarr group.
    StoreError
        If the store fails.
    """
    group = getattr(target, "group", None) or target
    if hasattr(group, "hierarchy") and hasattr(group, "metadata"):
        checker = _Checker(group.hierarchy, strict=strict, deep=deep)
        return tuple(checker.group_problems(group.path, group.metadata))
    if not isinstance(target, (str, os.PathLike, Store)):
        msg = f"cannot validate a {type(target).__name__}: give a path, a URL or an OME-Zarr group"
        raise UnsupportedFormatError(msg)
    store = resolve_store(target, filesystem=filesystem, storage_options=storage_options)
    hierarchy = Hierarchy(store)
    try:
        spec = hierarchy.root("")
    except MetadataError as error:
        return (_problem_of(error),)
    if spec is None:
        msg = f"{store.url!r}: no Zarr group here: no zarr.json and no .zgroup; check the path"
        raise NodeNotFoundError(msg)
    if not isinstance(spec, GroupSpec):
        msg = f"{store.url!r} is an array; OME-Zarr metadata is of groups"
        raise UnsupportedFormatError(msg)
    return tuple(_Checker(hierarchy, strict=strict, deep=deep).group_problems("", spec))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Expectation:
    """What a group must be because of who points to it."""

    kind: str | None = None
    version: str | None = None
    integers: bool = False
    levels: int | None = None
    acquisitions: tuple[Any, ...] = ()


class _Checker:
    """Walks a hierarchy from group to group."""

    def __init__(self, hierarchy: Hierarchy, *, strict: bool, deep: bool) -> None:
        self._hierarchy = hierarchy
        self._strict = strict
        self._deep = deep
        self._seen: set[str] = set()

    def group_problems(
        self, path: str, spec: GroupSpec, expected: _Expectation | None = None, depth: int = 0
    ) -> Iterator[Problem]:
        """Problems of a group and of what lies below it."""
        if path in self._seen:
            return
        self._seen.add(path)
        expected = expected or _Expectation()
        kinds = kinds_of(spec.attributes)
        kind = None if expected.kind in kinds else expected.kind
        yield from validate_attributes(
            spec.attributes, kind=kind, strict=self._strict, source=spec.source
        )
        metadata = metadata_of(spec.attributes, spec.source)
        version = expected.version
        if kinds and (version is None or any(stated_versions(metadata))):
            version = release_of(version_of(metadata))
        if expected.version and version != expected.version:
            message = f"is of version {version}, and the group above it of {expected.version}"
            yield Problem(location=(), kind="value", message=message, source=spec.source)
        if kinds and version and spec.zarr_format != (wanted := 3 if version >= "0.5" else 2):
            message = (
                f"is a group of Zarr {spec.zarr_format}; OME-Zarr {version} is of Zarr {wanted}"
            )
            yield Problem(location=(), kind="value", message=message, source=spec.source)
        if kinds and version and is_nested(metadata) != (version >= "0.5"):
            message = f"lies {'under' if is_nested(metadata) else 'above'} 'ome', unlike {version}"
            at = metadata.location
            yield Problem(location=at, kind="value", message=message, source=spec.source)
        if self._deep and depth < _MAX_DEPTH:
            yield from self._below(path, spec, kinds, replace(expected, version=version), depth)

    def _below(
        self,
        path: str,
        spec: GroupSpec,
        kinds: Iterable[str],
        expected: _Expectation,
        depth: int,
    ) -> Iterator[Problem]:
        root = metadata_of(spec.attributes, spec.source)
        for kind in kinds:
            if kind == "image":
                yield from self._image(path, spec, expected)
                labels = self._child(path, spec, "labels")
                if isinstance(labels, GroupSpec):
                    count = _level_count(root.value)
                    below = _Expectation(kind="labels", version=expected.version, levels=count)
                    place = join(path, "labels")
                    yield from self.group_problems(place, labels, below, depth + 1)
            if kind == "well":
                for at, problem, message in _field_problems(root.value, expected.acquisitions):
                    at = (*root.location, *at)
                    yield Problem(location=at, kind=problem, message=message, source=spec.source)
            for location, name, wanted in _references(
                kind,
                root.value,
                self._paths_of_series(path, spec) if kind == "bioformats2raw" else (),
            ):
                below = _Expectation(
                    kind=wanted,
                    version=expected.version,
                    integers=kind == "labels",
                    levels=expected.levels if kind == "labels" else None,
                    acquisitions=_acquisitions(root.value) if kind == "plate" else (),
                )
                at = (*root.location, *location)
                yield from self._follow(path, spec, (at, name, wanted), below, depth)

    def _follow(
        self, path: str, spec: GroupSpec, reference: _Reference, below: _Expectation, depth: int
    ) -> Iterator[Problem]:
        """Problems of a group that another one points to."""
        at, name, wanted = reference
        child = self._child(path, spec, name)
        if isinstance(child, Problem):
            yield child
        elif not isinstance(child, GroupSpec):
            message = f"names {name!r}, and there is no {wanted} group"
            yield Problem(location=at, kind="missing", message=message, source=spec.source)
        else:
            place = join(path, normalise_path(name))
            yield from self.group_problems(place, child, below, depth + 1)

    def _image(self, path: str, spec: GroupSpec, expected: _Expectation) -> Iterator[Problem]:
        """Levels are arrays of as many axes as the metadata says, from large to small."""
        root = metadata_of(spec.attributes, spec.source)
        images = root.value["multiscales"]
        for index, image in enumerate(images if isinstance(images, list) else ()):
            if not isinstance(image, Mapping):
                continue
            names, first = _axis_names(image), None
            datasets = image.get("datasets")
            datasets = datasets if isinstance(datasets, list) else []
            if expected.levels is not None and datasets and len(datasets) != expected.levels:
                at = (*root.location, "multiscales", index, "datasets")
                message = f"lists {len(datasets)} levels, and the labelled image {expected.levels}"
                yield Problem(location=at, kind="value", message=message, source=spec.source)
            for number, dataset in enumerate(datasets):
                name = dataset.get("path") if isinstance(dataset, Mapping) else None
                at = (*root.location, "multiscales", index, "datasets", number, "path")
                if not isinstance(name, str):
                    continue
                level = self._child(path, spec, name)
                if isinstance(level, Problem):
                    yield level
                    continue
                for kind, message in _level_problems(level, name, names, first, expected):
                    yield Problem(location=at, kind=kind, message=message, source=spec.source)
                if isinstance(level, ArraySpec) and first is None:
                    first = level

    def _child(self, path: str, spec: GroupSpec, name: str) -> NodeSpec | Problem | None:
        """Node below a group, or the problem of its metadata."""
        try:
            return self._hierarchy.child(path, spec, normalise_path(name))
        except NodeNotFoundError:
            return None
        except MetadataError as error:
            return _problem_of(error)
        except (UnsupportedFormatError, NotImplementedError) as error:
            return Problem(location=(), kind="unknown", message=str(error), source=spec.source)

    def _paths_of_series(self, path: str, spec: GroupSpec) -> list[str]:
        """Images of bioformats2raw's layout: those that ``OME`` lists, else the numbered ones."""
        ome = self._child(path, spec, "OME")
        if isinstance(ome, GroupSpec):
            paths = metadata_of(ome.attributes, ome.source).value.get("series")
            if isinstance(paths, list):
                return [each for each in paths if isinstance(each, str)]
        found: list[str] = []
        while isinstance(self._child(path, spec, str(len(found))), GroupSpec):
            found.append(str(len(found)))
        return found


def _references(
    kind: str, metadata: Mapping[str, Any], series: Iterable[str]
) -> Iterator[_Reference]:
    """Groups that metadata of a kind points to."""
    if kind == "plate":
        yield from _listed(metadata.get("plate"), ("plate", "wells"), "well")
    elif kind == "well":
        yield from _listed(metadata.get("well"), ("well", "images"), "image")
    elif kind == "labels":
        names = metadata["labels"]
        for index, name in enumerate(names if isinstance(names, list) else ()):
            if isinstance(name, str):
                yield ("labels", index), name, "image"
    elif kind == "bioformats2raw" and "plate" not in metadata and "multiscales" not in metadata:
        for name in series:
            yield ("bioformats2raw.layout",), name, "image"
    elif kind == "scene":
        scene = metadata["scene"]
        steps = scene.get("coordinateTransformations") if isinstance(scene, Mapping) else None
        for index, step in enumerate(steps if isinstance(steps, list) else ()):
            for end in ("input", "output"):
                value = step.get(end) if isinstance(step, Mapping) else None
                path = value.get("path") if isinstance(value, Mapping) else None
                if isinstance(path, str) and path:
                    at = ("scene", "coordinateTransformations", index, end, "path")
                    yield at, path, "image"


def _listed(owner: Any, at: tuple[str, str], kind: str) -> Iterator[_Reference]:
    rows = owner.get(at[1]) if isinstance(owner, Mapping) else None
    for index, row in enumerate(rows if isinstance(rows, list) else ()):
        path = row.get("path") if isinstance(row, Mapping) else None
        if isinstance(path, str):
            yield (*at, index, "path"), path, kind


def _axis_names(image: Mapping[str, Any]) -> tuple[Any, ...] | None:
    """Names of the axes that an image says it has."""
    axes = image.get("axes")
    systems = image.get("coordinateSystems")
    if isinstance(systems, list) and systems and isinstance(systems[0], Mapping):
        axes = systems[0].get("axes")
    if not isinstance(axes, list):
        return None
    return tuple(axis.get("name") if isinstance(axis, Mapping) else axis for axis in axes)


def _level_count(metadata: Mapping[str, Any]) -> int | None:
    """Levels of the image of a group that has one."""
    images = metadata["multiscales"]
    image = images[0] if isinstance(images, list) and len(images) == 1 else None
    datasets = image.get("datasets") if isinstance(image, Mapping) else None
    return len(datasets) if isinstance(datasets, list) else None


def _acquisitions(metadata: Mapping[str, Any]) -> tuple[Any, ...]:
    """Ids of the acquisitions that a plate lists."""
    plate = metadata["plate"]
    rows = plate.get("acquisitions") if isinstance(plate, Mapping) else None
    rows = rows if isinstance(rows, list) else []
    return tuple(row.get("id") for row in rows if isinstance(row, Mapping))


def _field_problems(
    metadata: Mapping[str, Any], acquisitions: tuple[Any, ...]
) -> Iterator[tuple[Location, str, str]]:
    """Fields of a well say of which acquisition they are, where the plate lists several."""
    well = metadata["well"]
    rows = well.get("images") if isinstance(well, Mapping) else None
    for index, row in enumerate(rows if isinstance(rows, list) else ()):
        if not isinstance(row, Mapping) or not acquisitions:
            continue
        at = ("well", "images", index, "acquisition")
        if "acquisition" not in row:
            if len(acquisitions) > 1:
                yield at, "missing", f"is missing; the plate lists acquisitions {acquisitions}"
        elif row["acquisition"] not in acquisitions:
            message = f"is {row['acquisition']!r}; the plate lists acquisitions {acquisitions}"
            yield at, "value", message


def _differ(names: tuple[Any, ...], axes: tuple[Any, ...] | None) -> bool:
    """Whether an array's names are not those of the axes; axes without names are told of before."""
    return axes is not None and all(isinstance(axis, str) for axis in axes) and names != axes


def _level_problems(
    level: Any,
    name: str,
    axes: tuple[Any, ...] | None,
    first: ArraySpec | None,
    expected: _Expectation,
) -> Iterator[tuple[str, str]]:
    if not isinstance(level, ArraySpec):
        yield "missing", f"names {name!r}, and there is no array"
        return
    if axes is not None and level.ndim != len(axes):
        yield "value", f"names an array of {level.ndim} axes, expected {len(axes)}"
    elif expected.version == "0.5" and _differ(level.dimension_names, axes):
        missing = not any(level.dimension_names)
        has = "no dimension_names" if missing else f"the dimension_names {level.dimension_names}"
        yield "missing" if missing else "value", f"names an array of {has}, expected {axes}"
    if expected.integers and level.dtype.kind not in "iu":
        yield "type", f"names an array of {level.dtype}, and labels are integers"
    if first is None or first.ndim != level.ndim:
        return
    if any(n > most for n, most in zip(level.shape, first.shape, strict=True)):
        yield "value", f"names an array of shape {level.shape}, larger than the first {first.shape}"
    if level.dtype != first.dtype:
        yield "value", f"names an array of {level.dtype}, and the first level is of {first.dtype}"


def _problem_of(error: ZarrGPUError) -> Problem:
    """Problem that an error tells of."""
    if isinstance(error, MetadataError):
        return Problem(
            location=error.location, kind=error.kind, message=str(error), source=error.source
        )
    return Problem(location=(), kind="value", message=str(error))
