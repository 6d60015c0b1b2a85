"""Multiscale images of OME-Zarr (NGFF) 0.1 to 0.5.

Spec: https://ngff.openmicroscopy.org/0.5/ ``multiscales``: axes, datasets from fine to coarse,
scale transformations. Version 0.5 keeps it under the attribute ``ome``, earlier ones at the top.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zarrgpu.errors import UnsupportedFormatError
from zarrgpu.formats.document import Document, shown

_MICROMETRES = {
    "angstrom": 1e-4, "nanometer": 1e-3, "micrometer": 1.0, "micron": 1.0, "millimeter": 1e3,
    "centimeter": 1e4, "meter": 1e6,
}  # fmt: skip
_MAX_SCALE = 1e100
_OLD_AXES = ("t", "c", "z", "y", "x")


@dataclass(frozen=True, slots=True, kw_only=True)
class Multiscale:
    """One multiscale image.

    Attributes
    ----------
    version, name : str
    axes : tuple of str
        Axis names in array order; contains ``y`` and ``x``.
    paths : tuple of str
        Array of each level below the group, finest first.
    mpp : tuple of (float or None)
        Micrometres per pixel of level 0 in x and y; None where no length unit is given.
    channels : tuple of mapping
        ``omero.channels`` as found.
    location : tuple of (str | int)
        Place of the image within the group's attributes.
    """

    version: str
    name: str
    axes: tuple[str, ...]
    paths: tuple[str, ...]
    mpp: tuple[float | None, float | None]
    channels: tuple[Mapping[str, Any], ...]
    location: tuple[str | int, ...]


def is_multiscale(attributes: Mapping[str, Any]) -> bool:
    """Whether group attributes describe a multiscale image."""
    ome = attributes.get("ome")
    return "multiscales" in (ome if isinstance(ome, Mapping) else attributes)


def parse_multiscale(attributes: Mapping[str, Any], source: str) -> Multiscale:
    """Parse the first multiscale image of a group's attributes."""
    root = Document(source, attributes)
    ome = attributes.get("ome")
    if isinstance(ome, Mapping):
        root = root.child("ome", ome)
    images = root.require("multiscales")
    if not isinstance(images, list) or not images:
        raise root.fail(
            f"expected a list of images, got {shown(images)}", "multiscales", kind="type"
        )
    image = Document(source, {}, (*root.location, "multiscales")).child("0", images[0])
    # beside an image of before 0.5, "version" would be a user's own attribute
    owner, default = (root, "0.5") if isinstance(ome, Mapping) else (image, "0.1")
    version = _text(owner.value.get("version", image.value.get("version", default)))
    if version.split(".")[:2] not in [["0", str(minor)] for minor in range(1, 6)]:
        msg = f"{source!r}: OME-Zarr version {shown(version)} is not read yet, only 0.1 to 0.5"
        raise UnsupportedFormatError(msg)
    axes, units = _parse_axes(image, optional=version.split(".")[1] in "123")
    datasets = _parse_datasets(image)
    omero = root.value.get("omero")
    channels = omero.get("channels") if isinstance(omero, Mapping) else None
    return Multiscale(
        version=version,
        name=_text(image.value.get("name", "")),
        axes=axes,
        paths=tuple(_parse_path(dataset) for dataset in datasets),
        mpp=_parse_mpp(image, datasets[0], axes, units),
        channels=tuple(c for c in _items(channels) if isinstance(c, Mapping)),
        location=image.location,
    )


def _parse_axes(image: Document, *, optional: bool) -> tuple[tuple[str, ...], dict[str, str]]:
    """Axis names in order, and the units of those that have one; since 0.4 they must be there."""
    value = image.value.get("axes", list(_OLD_AXES)) if optional else image.require("axes")
    if not isinstance(value, list):
        raise image.fail(f"expected a list, got {shown(value)}", "axes", kind="type")
    names: list[str] = []
    units: dict[str, str] = {}
    for index, axis in enumerate(value):
        name = axis.get("name") if isinstance(axis, Mapping) else axis
        if not isinstance(name, str):
            raise image.fail(f"has no name: {shown(axis)}", "axes", index, kind="missing")
        names.append(name)
        if isinstance(axis, Mapping) and isinstance(axis.get("unit"), str):
            units[name] = axis["unit"]
    if len(set(names)) != len(names) or not {"y", "x"} <= set(names):
        raise image.fail(f"must be distinct and contain y and x, got {shown(names)}", "axes")
    return tuple(names), units


def _parse_datasets(image: Document) -> list[Document]:
    value = image.require("datasets")
    if not isinstance(value, list) or not value:
        raise image.fail(f"expected a list of levels, got {shown(value)}", "datasets", kind="type")
    parent = Document(image.source, {}, (*image.location, "datasets"))
    return [parent.child(str(index), item) for index, item in enumerate(value)]


def _parse_path(dataset: Document) -> str:
    path = dataset.require("path")
    if not isinstance(path, str):
        raise dataset.fail(f"expected a string, got {shown(path)}", "path", kind="type")
    return path


def _parse_mpp(
    image: Document, dataset: Document, axes: tuple[str, ...], units: dict[str, str]
) -> tuple[float | None, float | None]:
    """Pixel size of the finest level: its scale times the image's own."""
    scale = [1.0] * len(axes)
    found = False
    for owner in (dataset, image):
        for step in _items(owner.value.get("coordinateTransformations")):
            if isinstance(step, Mapping) and step.get("type") == "scale":
                factors = _parse_scale(owner, step.get("scale"), len(axes))
                scale = [a * b for a, b in zip(scale, factors, strict=True)]
                found = True

    def size(axis: str) -> float | None:
        factor = _MICROMETRES.get(units.get(axis, ""))
        return scale[axes.index(axis)] * factor if found and factor is not None else None

    return size("x"), size("y")


def _parse_scale(owner: Document, value: Any, ndim: int) -> list[float]:
    numbers = [float(v) for v in _items(value) if type(v) in (int, float) and 0 < v < _MAX_SCALE]
    if len(numbers) != ndim or len(value) != ndim:
        message = f"scale must have {ndim} positive numbers, got {shown(value)}"
        raise owner.fail(message, "coordinateTransformations")
    return numbers


def _text(value: Any) -> str:
    """A string as it is; a number, as some writers put it, in digits."""
    return value if isinstance(value, str) else shown(value)


def _items(value: Any) -> Sequence[Any]:
    """Items of an optional list; nothing else has any."""
    return value if isinstance(value, list) else ()
