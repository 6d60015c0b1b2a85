"""From one coordinate system to another by the transformations that a document states.

Systems are the nodes of a graph, transformations its edges; an edge is taken backwards where its
transformation has an inverse. Of several ways the one with the fewest steps is taken.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from zarrgpu.errors import SelectionError, UnsupportedFormatError
from zarrgpu.formats.document import Document, shown
from zarrgpu.formats.ngff_transforms import (
    LoadArray,
    Matrix,
    inverse_matrix,
    transformation_matrix,
)

System: TypeAlias = tuple[str, str]
"""(path of the image below the group, or empty for the group itself; name of the system)."""

_MAX_EDGES = 10_000


@dataclass(frozen=True, slots=True, eq=False)
class Edge:
    """A transformation between two coordinate systems."""

    source: System
    target: System
    step: Document

    @property
    def name(self) -> str:
        """What the document calls it; empty where it does not."""
        name = self.step.value.get("name")
        return name if isinstance(name, str) else ""

    @property
    def type(self) -> str:
        """Its type, such as ``"affine"``."""
        return str(self.step.value.get("type"))


@dataclass(frozen=True, slots=True)
class _Way:
    """An edge and the direction in which it is taken."""

    edge: Edge
    forward: bool


def parse_edges(owner: Document, key: str = "coordinateTransformations") -> tuple[Edge, ...]:
    """Parse the transformations of an image or a scene; each names its two ends."""
    value = owner.value.get(key, [])
    if not isinstance(value, list) or len(value) > _MAX_EDGES:
        raise owner.fail(f"expected a list, got {shown(value)}", key, kind="type")
    parent = Document(owner.source, {}, (*owner.location, key))
    steps = [parent.child(str(index), item) for index, item in enumerate(value)]
    return tuple(Edge(parse_end(step, "input"), parse_end(step, "output"), step) for step in steps)


def parse_end(step: Document, key: str) -> System:
    """``input`` or ``output`` of a transformation: an object; a name in development versions."""
    value = step.require(key)
    if isinstance(value, str):
        return "", value
    end = step.child(key, value)
    path, name = end.value.get("path", ""), end.value.get("name", "")
    if not isinstance(name, str) or not (isinstance(path, str) or path is None):
        raise end.fail(f"expected a path and a name, got {shown(value)}", kind="type")
    return (path or "").strip("/"), name


def find_matrix(
    edges: Sequence[Edge],
    source: System,
    target: System,
    ndim: int,
    sizes: Mapping[System, int],
    load: LoadArray | None = None,
) -> Matrix:
    """Matrix from one coordinate system to another.

    Parameters
    ----------
    edges : sequence of Edge
    source, target : System
    ndim : int
        Axes of `source`.
    sizes : mapping
        Axes of the systems that are known.
    load : callable, optional
        Gives the arrays in which matrices are kept.

    Raises
    ------
    SelectionError
        If no transformations lead there.
    UnsupportedFormatError
        If those that do are no matrices, or have no inverse where it is needed.
    MetadataError
        If one is malformed, or does not fit its systems.
    """
    refused: dict[_Way, UnsupportedFormatError] = {}
    while (ways := _shortest(edges, source, target, refused)) is not None:
        matrix = np.eye(ndim + 1)
        for way in ways:
            try:
                step = _along(way, len(matrix) - 1, sizes, load)
            except UnsupportedFormatError as error:
                refused[way] = error
                break
            end = way.edge.target if way.forward else way.edge.source
            if len(step) - 1 != sizes.get(end, len(step) - 1):
                message = f"gives {len(step) - 1} coordinates, {end[1]!r} has {sizes[end]}"
                raise way.edge.step.fail(message)
            matrix = step @ matrix
        else:
            return matrix
    if refused:
        raise next(iter(refused.values()))
    msg = f"no transformations lead from {source} to {target}"
    raise SelectionError(msg)


def _shortest(
    edges: Sequence[Edge], source: System, target: System, refused: Container[_Way]
) -> list[_Way] | None:
    """Fewest transformations that lead from one system to another, leaving some out."""
    reached: dict[System, list[_Way]] = {source: []}
    queue = deque([source])
    while queue and target not in reached:
        here = queue.popleft()
        for edge in edges:
            for way, start, end in (
                (_Way(edge, forward=True), edge.source, edge.target),
                (_Way(edge, forward=False), edge.target, edge.source),
            ):
                if start == here and end not in reached and way not in refused:
                    reached[end] = [*reached[here], way]
                    queue.append(end)
    return reached.get(target)


def _along(way: _Way, ndim: int, sizes: Mapping[System, int], load: LoadArray | None) -> Matrix:
    edge = way.edge
    if way.forward:
        return transformation_matrix(edge.step, ndim, load)
    matrix = None
    if sizes.get(edge.source, ndim) == ndim:
        matrix = inverse_matrix(edge.step, ndim, load)
    if matrix is None:
        where = ".".join(map(str, edge.step.location))
        msg = f"{edge.step.source!r} at {where}: {edge.type} has no inverse"
        raise UnsupportedFormatError(msg)
    return matrix
