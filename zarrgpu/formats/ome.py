"""Multiscale images of OME-Zarr (NGFF) 0.1 to 0.6.

Spec: https://ngff.openmicroscopy.org/0.6/ ``multiscales``: axes, datasets from fine to coarse, and
how their pixels lie in space. Version 0.5 and later keep it under the attribute ``ome``, earlier
ones at the top. Since 0.6 axes belong to named coordinate systems: the one that all datasets lead
to is the *intrinsic* one, and further transformations lead from there to others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from zarrgpu.errors import MetadataError, SelectionError, UnsupportedFormatError
from zarrgpu.formats.document import Document, shown
from zarrgpu.formats.ngff_axes import (
    Axis,
    CoordinateSystem,
    called,
    micrometres,
    parse_axes,
    parse_systems,
)
from zarrgpu.formats.ngff_graph import Edge, find_matrix, parse_edges, parse_end
from zarrgpu.formats.ngff_transforms import LoadArray, Matrix, children, transformation_matrix
from zarrgpu.formats.ngff_version import is_nested, metadata_of, release, stated

_SIMPLE = ("scale", "translation", "identity")
_SAME_FACTOR = 1e-6
"""Scales are decimal numbers: factors that differ by no more are the same."""

_SLIVER = 1e-3
"""Part of a pixel that a level may lack of level 0."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Multiscale:
    """One multiscale image.

    Attributes
    ----------
    version, name : str
        The version as stated.
    axes : tuple of str
        Axis names in array order; contains ``y`` and ``x`` (`ngff_axes.called`).
    types, units : tuple of (str or None)
        Of each axis, as stated: ``"space"``, ``"micrometer"``.
    paths : tuple of str
        Array of each level below the group, finest first.
    mpp : tuple of (float or None)
        Micrometres per pixel of level 0 in x and y; None where no length unit is given.
    channels : tuple of mapping
        ``omero.channels`` as found; empty where one is no object.
    affines : tuple of (float64 array, shape (n + 1, n + 1), or None)
        Of each level: from array indices to the intrinsic coordinate system, whose axes are those
        of the array. None where the document does not say.
    named : tuple of (float64 array, shape (n + 1, n + 1), or None)
        Of each level: from array indices to the system that `axes` and `units` are of, a row for
        each array axis. Another one than the intrinsic one where that has no names (0.6).
    coordinate_systems : tuple of CoordinateSystem
        The intrinsic one first.
    edges : tuple of Edge
        Transformations between coordinate systems.
    location : tuple of (str | int)
        Place of the image within the group's attributes.
    """

    version: str
    name: str
    axes: tuple[str, ...]
    types: tuple[str | None, ...]
    units: tuple[str | None, ...]
    paths: tuple[str, ...]
    mpp: tuple[float | None, float | None]
    channels: tuple[Mapping[str, Any], ...]
    affines: tuple[Matrix | None, ...]
    named: tuple[Matrix | None, ...]
    coordinate_systems: tuple[CoordinateSystem, ...]
    edges: tuple[Edge, ...] = ()
    location: tuple[str | int, ...] = field(default=())

    def affine(
        self, level: int = 0, system: str | None = None, load: LoadArray | None = None
    ) -> Matrix:
        """Matrix from array indices of a level to a coordinate system.

        Parameters
        ----------
        level : int
        system : str, optional
            Name of a coordinate system; default the intrinsic one.
        load : callable, optional
            Gives the arrays in which matrices are kept.

        Returns
        -------
        float64 array, shape (m + 1, n + 1)
            For homogeneous coordinates: ``affine @ (*index, 1)`` is ``(*point, 1)``.

        Raises
        ------
        SelectionError
            If there is no such level or system, or the image does not say how it lies in space.
        UnsupportedFormatError
            If the transformation is no matrix (``displacements``, ``coordinates``).
        MetadataError
            If it is malformed.
        """
        if not 0 <= level < len(self.affines):
            msg = f"level {level!r} is outside of 0..{len(self.affines) - 1}"
            raise SelectionError(msg)
        matrix = self.affines[level]
        if matrix is None:
            msg = f"image {self.name!r} has no transformation of level {level} to physical space"
            raise SelectionError(msg)
        sizes = {("", each.name): len(each.axes) for each in self.coordinate_systems}
        first = self.coordinate_systems[0].name
        if system is None or system == first:
            return matrix.copy()
        if ("", system) not in sizes:
            names = [each.name for each in self.coordinate_systems]
            msg = f"image {self.name!r} has no coordinate system {system!r}, only {names}"
            raise SelectionError(msg)
        ndim = len(self.axes)
        return find_matrix(self.edges, ("", first), ("", system), ndim, sizes, load) @ matrix

    def scale(self, level: int = 0) -> tuple[float, ...] | None:
        """Distance of pixels along each axis, in its unit; None where the document does not say."""
        matrix = self.named[level]
        return None if matrix is None else tuple(np.diagonal(matrix)[:-1].tolist())

    def translation(self, level: int = 0) -> tuple[float, ...] | None:
        """Place of the first pixel's centre; None where the document does not say."""
        matrix = self.named[level]
        return None if matrix is None else tuple(matrix[:-1, -1].tolist())

    def downsamples(self, sizes: Sequence[tuple[int, int]]) -> tuple[float, ...] | None:
        """Level-0 pixels per pixel of each level, by the scales; None where sizes say it as well.

        Sizes are rounded at each level: that of 101 halved thrice is 13, though a pixel is 8 wide.
        Scales are taken if x and y agree, and if by them each level holds all of level 0, and less
        than a pixel more. Of a level that was rounded down sizes are as good: its last pixels stand
        for what it lacks.

        Parameters
        ----------
        sizes : sequence of (int, int)
            (width, height) of each level.
        """
        factors = []
        for level, size in enumerate(sizes):
            if self.affines[0] is None or self.affines[level] is None:
                return None
            x, y = (_whole(self._step(level, axis) / self._step(0, axis)) for axis in ("x", "y"))
            over = [n - full / by for full, by, n in zip(sizes[0], (x, y), size, strict=True)]
            if abs(x - y) > _SAME_FACTOR * x or min(over) < -_SLIVER or max(over) >= 1:
                return None
            factors.append(x)
        return tuple(factors)

    def _step(self, level: int, axis: str) -> float:
        """Distance of pixels along an array axis."""
        matrix, index = self.affines[level], self.axes.index(axis)
        assert matrix is not None
        return float(matrix[index, index])


def is_multiscale(attributes: Mapping[str, Any]) -> bool:
    """Whether group attributes describe a multiscale image."""
    return "multiscales" in metadata_of(attributes, "").value


def multiscale_names(attributes: Mapping[str, Any], source: str) -> tuple[str, ...]:
    """Names of all multiscale images of a group; empty ones where they have none."""
    images = _images(metadata_of(attributes, source))
    return tuple(
        image["name"] if isinstance(image, Mapping) and isinstance(image.get("name"), str) else ""
        for image in images
    )


def parse_multiscale(attributes: Mapping[str, Any], source: str, index: int = 0) -> Multiscale:
    """Parse a multiscale image of a group's attributes: the first, or the one at `index`."""
    root = metadata_of(attributes, source)
    images = _images(root)
    if not 0 <= index < len(images):
        msg = f"{source!r}: multiscale {index} is outside of 0..{len(images) - 1}"
        raise SelectionError(msg)
    image = Document(source, {}, (*root.location, "multiscales")).child(str(index), images[index])
    # beside an image of before 0.5, "version" would be a user's own attribute
    owner = root if is_nested(root) else image
    default = "0.5" if is_nested(root) else ("0.4" if _has_objects(image) else "0.1")
    version = owner.value.get("version", image.value.get("version", default))
    number = release(version, source)
    if number >= "0.6" and not is_nested(root):
        msg = f"{source!r}: OME-Zarr metadata of {shown(version)} lies under 'ome', not at the top"
        raise UnsupportedFormatError(msg)
    datasets = children(image, "datasets")
    omero = root.value.get("omero")
    channels = omero.get("channels") if isinstance(omero, Mapping) else None
    name = image.value.get("name", "")
    space = _space_of_06(image, datasets) if number >= "0.6" else _space(image, datasets, number)
    return Multiscale(
        version=stated(version),
        name=name if isinstance(name, str) else shown(name),
        paths=tuple(_parse_path(dataset) for dataset in datasets),
        # one that is malformed keeps its place, so that the others keep theirs
        channels=tuple(c if isinstance(c, Mapping) else {} for c in _items(channels)),
        location=image.location,
        **space,
    )


def _images(root: Document) -> list[Any]:
    images = root.require("multiscales")
    if not isinstance(images, list) or not images:
        message = f"expected a list of images, got {shown(images)}"
        raise root.fail(message, "multiscales", kind="type")
    return images


def _has_objects(image: Document) -> bool:
    """Whether axes are objects, as they are since 0.4."""
    axes = image.value.get("axes")
    return isinstance(axes, list) and any(isinstance(axis, Mapping) for axis in axes)


def _parse_path(dataset: Document) -> str:
    path = dataset.require("path")
    if not isinstance(path, str):
        raise dataset.fail(f"expected a string, got {shown(path)}", "path", kind="type")
    return path


# ----------------------------------------------------------------------------------- up to 0.5


def _space(image: Document, datasets: Sequence[Document], number: str) -> dict[str, Any]:
    """Axes and transformations of an image of 0.1 to 0.5: scales and translations."""
    stated = parse_axes(image, optional=number < "0.4")
    axes = called(stated)
    if axes is None:
        names = shown([axis.name for axis in stated])
        raise image.fail(f"must contain y and x, or two axes of type space; got {names}", "axes")
    affines = tuple(_steps_matrix((dataset, image), len(axes)) for dataset in datasets)
    return {
        "axes": tuple(axis.name for axis in axes),
        "types": tuple(axis.type for axis in axes),
        "units": tuple(axis.unit for axis in axes),
        "affines": affines,
        "named": affines,
        "coordinate_systems": (CoordinateSystem(name="", axes=stated),),
        "mpp": _mpp(affines[0], axes),
    }


def _steps_matrix(owners: Sequence[Document], ndim: int) -> Matrix | None:
    """Matrix of a dataset's transformations and then its image's; None if they do not say.

    A list with a step that 0.4 does not know says nothing that can be relied on.
    """
    matrix, found = np.eye(ndim + 1), False
    for owner in owners:
        key = "coordinateTransformations"
        for index, step in enumerate(_items(owner.value.get(key))):
            if not isinstance(step, Mapping) or step.get("type") not in _SIMPLE:
                return None
            parent = Document(owner.source, {}, (*owner.location, key))
            with np.errstate(over="ignore", invalid="ignore"):
                matrix = transformation_matrix(parent.child(str(index), step), ndim) @ matrix
            found = found or step["type"] == "scale"
    if not np.isfinite(matrix).all():
        raise owners[0].fail("makes numbers too large to compute with", "coordinateTransformations")
    return matrix if found else None


# ---------------------------------------------------------------------------------- since 0.6


def _space_of_06(image: Document, datasets: Sequence[Document]) -> dict[str, Any]:
    """Coordinate systems of an image of 0.6, and which of their axes those of the array are."""
    systems = {system.name: system for system in parse_systems(image)}
    steps = [_only_step(dataset) for dataset in datasets]
    name = parse_end(steps[0], "output")[1]
    if name not in systems:
        message = f"names the coordinate system {shown(name)}, which is not there"
        raise steps[0].fail(message, "output")
    intrinsic = systems[name]
    for step in steps:
        other = parse_end(step, "output")[1]
        if other != name:
            message = f"leads to {shown(other)} and the first level to {shown(name)}"
            raise step.fail(message, "output")
    affines = tuple(_dataset_matrix(step, len(intrinsic.axes)) for step in steps)
    edges = parse_edges(image)
    ordered = (intrinsic, *(each for each in systems.values() if each is not intrinsic))
    axes, named = _named_axes(image, ordered, edges, affines)
    return {
        "axes": tuple(axis.name for axis in axes),
        "types": tuple(axis.type for axis in axes),
        "units": tuple(axis.unit for axis in axes),
        "affines": affines,
        "named": named,
        "coordinate_systems": ordered,
        "edges": edges,
        "mpp": _mpp(named[0], axes),
    }


def _only_step(dataset: Document) -> Document:
    steps = children(dataset, "coordinateTransformations")
    if len(steps) != 1:
        message = f"has {len(steps)} transformations, expected one to the intrinsic system"
        raise dataset.fail(message, "coordinateTransformations")
    return steps[0]


def _dataset_matrix(step: Document, ndim: int) -> Matrix:
    """Matrix of a level: a scale, an identity, or a sequence of scale and translation."""
    kinds = [step]
    if step.value.get("type") == "sequence":
        kinds = children(step, "transformations")
    for part in kinds:
        if part.value.get("type") not in _SIMPLE:
            found = shown(part.value.get("type"))
            raise part.fail(f"expected a scale, translation or identity, got {found}", "type")
    return transformation_matrix(step, ndim)


def _named_axes(
    image: Document,
    systems: Sequence[CoordinateSystem],
    edges: Sequence[Edge],
    affines: Sequence[Matrix],
) -> tuple[tuple[Axis, ...], tuple[Matrix, ...]]:
    """Axes of the array by the names of a system, and the matrix of each level to it, a row each.

    That is the intrinsic one. Where that has the axes of an array ("dim_0"), it is the first one
    with axes y and x, or then of space, to which array axes lead one to one.
    """
    sizes = {("", each.name): len(each.axes) for each in systems}
    found = [(each, called(each.axes)) for each in systems]
    plain = [(each, axes) for each, axes in found if axes == each.axes]
    for system, axes in [*plain, *(pair for pair in found if pair not in plain)]:
        start, end = ("", systems[0].name), ("", system.name)
        if axes is None:
            continue
        try:
            way = find_matrix(edges, start, end, len(affines[0]) - 1, sizes)
        except (UnsupportedFormatError, SelectionError, MetadataError):
            continue
        with np.errstate(over="ignore", invalid="ignore"):
            matrices = [way @ affine for affine in affines]
        used = matrices[0][:-1, :-1] != 0
        alone = (used.sum(axis=0) == 1).all() and (used.sum(axis=1) == 1).all()
        if alone and np.isfinite(matrices).all():
            order = used.argmax(axis=0).tolist()
            named = tuple(matrix[[*order, -1]] for matrix in matrices)
            return tuple(axes[row] for row in order), named
    names = [[axis.name for axis in system.axes] for system in systems]
    message = (
        "no coordinate system names the axes of the array y and x, or has two or three of space; "
        f"got {shown(names)}"
    )
    raise image.fail(message, "coordinateSystems")


def _mpp(matrix: Matrix | None, axes: Sequence[Axis]) -> tuple[float | None, float | None]:
    """Distance of neighbouring pixels of level 0 in x and y, where its unit is a length."""
    names = [axis.name for axis in axes]

    def size(name: str) -> float | None:
        if matrix is None:
            return None
        row = names.index(name)
        factor = micrometres(axes[row].unit)
        return None if factor is None else float(abs(matrix[row, row])) * factor

    return size("x"), size("y")


def _items(value: Any) -> Sequence[Any]:
    """Items of an optional list; nothing else has any."""
    return value if isinstance(value, list) else ()


def _whole(factor: float) -> float:
    """A factor that is a whole number but for rounding, as that number."""
    nearest = float(round(factor))
    return nearest if abs(factor - nearest) <= _SAME_FACTOR * factor else factor
