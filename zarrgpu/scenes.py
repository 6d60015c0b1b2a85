"""Scenes and series: groups of OME-Zarr images that belong together.

A *scene* (0.6) says how its images lie to each other. A *series* is what bioformats2raw writes for
a file of several images: numbered groups, in the order of ``OME/METADATA.ome.xml``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zarrgpu.array import Array
from zarrgpu.errors import (
    MetadataError,
    NodeNotFoundError,
    SelectionError,
    UnsupportedFormatError,
)
from zarrgpu.formats.document import shown
from zarrgpu.formats.group import GroupSpec
from zarrgpu.formats.ngff_axes import parse_systems
from zarrgpu.formats.ngff_graph import Edge, System, find_matrix, parse_edges
from zarrgpu.formats.ngff_transforms import MAX_AXES, Matrix
from zarrgpu.formats.ngff_version import metadata_of, release, version_of
from zarrgpu.formats.ome import is_multiscale, multiscale_names, parse_multiscale
from zarrgpu.formats.xml_document import children, parse_xml
from zarrgpu.group import Group
from zarrgpu.hierarchy import Hierarchy, join, normalise_path
from zarrgpu.stores.base import MAX_DOCUMENT_NBYTES

_MAX_SERIES = 1_000_000
_SHOWN = 8
_LAYOUT = "bioformats2raw.layout"


class Scene(Group):
    """A group whose images lie in common coordinate systems (OME-Zarr 0.6). A `Group` as well.

    Made by `zarrgpu.open`. A coordinate system is named by its name alone where it is the scene's
    own, and by the path of an image and its name, ``("a", "physical")``, where it is an image's.
    """

    def __init__(self, hierarchy: Hierarchy, path: str, metadata: GroupSpec, make: Any) -> None:
        super().__init__(hierarchy, path, metadata, make)
        root = metadata_of(metadata.attributes, metadata.source)
        release(version_of(root), metadata.source)
        scene = root.child("scene", root.require("scene"))
        self._own = parse_systems(scene)
        self.transformations: tuple[Edge, ...] = parse_edges(scene)

    def __repr__(self) -> str:
        return f"<zarrgpu.Scene {self.metadata.source!r} of {len(self.images)} images>"

    @property
    def images(self) -> tuple[str, ...]:
        """Paths of the images that transformations name."""
        ends = (end for edge in self.transformations for end in (edge.source, edge.target))
        return tuple(dict.fromkeys(path for path, _ in ends if path))

    @property
    def coordinate_systems(self) -> tuple[System, ...]:
        """(path, name) of the coordinate systems that the scene has or names."""
        own = [("", system.name) for system in self._own]
        ends = [end for edge in self.transformations for end in (edge.source, edge.target)]
        return tuple(dict.fromkeys([*own, *ends]))

    def affine(self, source: str | System, target: str | System) -> Matrix:
        """Matrix from one coordinate system to another, backwards where there is an inverse.

        Parameters
        ----------
        source, target : str or (str, str)
            A system of the scene, or (path of an image, name of its system).

        Returns
        -------
        float64 array, shape (m + 1, n + 1)
            For homogeneous coordinates; combine it with the `affine` of an image.

        Raises
        ------
        SelectionError
            If no transformations lead there.
        UnsupportedFormatError
            If those that do are no matrices.
        MetadataError, NodeNotFoundError, StoreError
            If they or the images that they name are malformed, or cannot be read.
        """
        start, end = _system(source), _system(target)
        for system in (start, end):
            if system not in self.coordinate_systems:
                msg = f"{system} is no coordinate system of this scene: {self.coordinate_systems}"
                raise SelectionError(msg)
        sizes = {("", system.name): len(system.axes) for system in self._own}
        for system in self.coordinate_systems:
            if system[0] and system in (start, end):
                sizes[system] = self._size(system)
        if start not in sizes:
            msg = f"{self.metadata.source!r}: coordinate system {start} is not there"
            raise SelectionError(msg)

        def load(path: str) -> NDArray[Any]:
            return load_matrix(self, path)

        return find_matrix(self.transformations, start, end, sizes[start], sizes, load)

    def _size(self, system: System) -> int:
        """Axes of a coordinate system of an image."""
        path, name = system
        spec = self.hierarchy.child(self.path, self.metadata, normalise_path(path))
        if spec is None or not isinstance(spec, GroupSpec) or not is_multiscale(spec.attributes):
            msg = f"{self.metadata.source!r}: no image at {path!r}, which the scene names"
            raise NodeNotFoundError(msg)
        for index in range(len(multiscale_names(spec.attributes, spec.source))):
            image = parse_multiscale(spec.attributes, spec.source, index)
            for each in image.coordinate_systems:
                if each.name == name:
                    return len(each.axes)
        msg = f"has no coordinate system {name!r}, which the scene names"
        raise MetadataError(msg, source=spec.source, kind="missing")


class Series(Group):
    """Several images of one file, as bioformats2raw lays them out. A `Group` as well.

    Made by `zarrgpu.open`; ``series.images`` are their paths in order, ``series[path]`` opens one.
    """

    def __repr__(self) -> str:
        return f"<zarrgpu.Series {self.metadata.source!r} of {len(self.images)} images>"

    @property
    def images(self) -> tuple[SeriesImage, ...]:
        """The images in the order of the OME-XML.

        Those that ``OME`` lists as its ``series``, else the numbered groups from 0 on.

        Raises
        ------
        MetadataError
            If ``series`` is malformed, or the OME-XML describes another number of images.
        """
        paths = self._listed()
        if paths is None:
            paths = self._numbered()
        names: tuple[str, ...] = ("",) * len(paths)
        text = self.ome_xml
        if text is not None:
            names = _image_names(text, f"{self.metadata.source}/OME/METADATA.ome.xml")
            if len(names) != len(paths):
                message = f"describes {len(names)} images, the series has {len(paths)}"
                raise MetadataError(message, source=f"{self.metadata.source}/OME/METADATA.ome.xml")
        return tuple(
            SeriesImage(path=path, name=name) for path, name in zip(paths, names, strict=True)
        )

    @property
    def ome_xml(self) -> str | None:
        """Text of ``OME/METADATA.ome.xml``; None where there is none."""
        key = join(self.path, "OME/METADATA.ome.xml")
        data = self.store.get(key, max_nbytes=MAX_DOCUMENT_NBYTES)
        if data is None:
            return None
        try:
            return data.tobytes().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise MetadataError(
                f"is not UTF-8: {error}", source=f"{self.store.url}/{key}", kind="syntax"
            ) from error

    def _listed(self) -> tuple[str, ...] | None:
        spec = self.hierarchy.child(self.path, self.metadata, "OME")
        if not isinstance(spec, GroupSpec):
            return None
        root = metadata_of(spec.attributes, spec.source)
        if "series" not in root.value:
            return None
        paths = root.value["series"]
        if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
            message = f"expected a list of paths, got {shown(paths)}"
            raise root.fail(message, "series", kind="type")
        return tuple(paths)

    def _numbered(self) -> tuple[str, ...]:
        """Groups 0, 1, ... as far as they go."""
        paths: list[str] = []
        while len(paths) < _MAX_SERIES:
            spec = self.hierarchy.child(self.path, self.metadata, str(len(paths)))
            if not isinstance(spec, GroupSpec):
                break
            paths.append(str(len(paths)))
        return tuple(paths)


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesImage:
    """An image of a series: its path below the group, its name in the OME-XML (or empty)."""

    path: str
    name: str


def only_image(node: object) -> object:
    """Give the image of a series that has one, as bioformats2raw makes many; any other node itself.

    Raises
    ------
    UnsupportedFormatError
        If a series has another number of images; with their paths.
    """
    if not isinstance(node, Series):
        return node
    images = node.images
    if len(images) == 1:
        return node[images[0].path]
    msg = f"{node.metadata.source!r} is a series of {len(images)} images"
    if images:
        paths = ", ".join(f"{each.path} {each.name}".strip() for each in images[:_SHOWN])
        more = ", ..." if len(images) > _SHOWN else ""
        msg += f" ({paths}{more}); choose one, such as {node.metadata.source}/{images[0].path}"
    raise UnsupportedFormatError(msg)


def is_scene(attributes: Any) -> bool:
    """Whether group attributes describe a scene."""
    return "scene" in metadata_of(attributes, "").value


def is_series(attributes: Any) -> bool:
    """Whether group attributes are those of bioformats2raw's layout."""
    return metadata_of(attributes, "").value.get(_LAYOUT) == 3


def load_matrix(group: Group, path: str) -> NDArray[Any]:
    """Read the matrix that a transformation keeps in an array below a group.

    Raises
    ------
    MetadataError
        If it is no array, or larger than any matrix of axes.
    """
    node = group[path]
    if not isinstance(node, Array) or node.ndim != 2 or max(node.shape) > MAX_AXES + 1:
        message = f"{path!r} is no array of a matrix"
        raise MetadataError(message, source=group.metadata.source)
    return np.asarray(node.read((), device="cpu"))


def _system(value: str | System) -> System:
    if isinstance(value, str):
        return "", value
    path, name = value
    return path.strip("/"), name


def _image_names(text: str, source: str) -> tuple[str, ...]:
    """Names of the images of an OME-XML document, in order."""
    root = parse_xml(text, source=source, location=())
    return tuple(image.get("Name", "") for image in children(root, "Image"))
