"""Coordinate transformations of OME-Zarr as matrices.

A matrix acts on a point in homogeneous coordinates, ``(*point, 1)``, with a row per output axis and
a last row ``(0, ..., 0, 1)``; axes are in array order, and the centre of the first pixel is the
origin. Spec: https://ngff.openmicroscopy.org/0.6/ "coordinateTransformations" (RFC-5).

Not every transformation is a matrix: ``displacements`` and ``coordinates`` are fields of vectors in
an array. They are refused by name; the array can be read as what it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, TypeGuard

import numpy as np
from numpy.typing import NDArray

from zarrgpu.errors import UnsupportedFormatError
from zarrgpu.formats.document import Document, shown

Matrix: TypeAlias = NDArray[np.float64]
"""Shape (outputs + 1, inputs + 1)."""

LoadArray: TypeAlias = Callable[[str], NDArray[Any]]
"""Gives the array at a path below the group of the metadata."""

MAX_AXES = 32
_MAX_DEPTH = 64
_MAX_NUMBER = 1e100
_ROTATION_TOLERANCE = 1e-4
"""Rotations that were computed in float32 are still rotations."""


def transformation_matrix(step: Document, ndim: int, load: LoadArray | None = None) -> Matrix:
    """Matrix of a transformation of points of `ndim` coordinates.

    Parameters
    ----------
    step : Document
        The transformation's object.
    ndim : int
        Axes of its input.
    load : callable, optional
        For ``affine`` and ``rotation`` that keep their numbers in an array.

    Raises
    ------
    MetadataError
        If it is malformed, or does not fit `ndim` axes; with its place.
    UnsupportedFormatError
        If it is no matrix, or of a type that is not known; or kept in an array and there is no
        `load`.
    """
    return _matrix(step, ndim, load, 0)


def inverse_matrix(step: Document, ndim: int, load: LoadArray | None = None) -> Matrix | None:
    """Matrix of the inverse of a transformation of `ndim` coordinates, or None if it has none.

    A ``bijection`` states its own. Parameters and errors are those of `transformation_matrix`.
    """
    if step.value.get("type") == "bijection":
        forward = transformation_matrix(step, ndim, load)
        inverse = step.child("inverse", step.require("inverse"))
        matrix = _matrix(inverse, len(forward) - 1, load, 1)
        if len(matrix) != ndim + 1:
            message = f"gives {len(matrix) - 1} coordinates, expected {ndim}"
            raise step.fail(message, "inverse")
        return matrix
    return inverted(transformation_matrix(step, ndim, load))


def inverted(matrix: Matrix) -> Matrix | None:
    """Inverse of a matrix, or None where it has none to working precision."""
    if matrix.shape[0] != matrix.shape[1]:
        return None
    # rows and columns are brought to size 1 first: pixel sizes in metres are no singularity
    rows = np.abs(matrix[:-1, :-1]).max(axis=1, initial=0.0)
    if not np.all(rows > 0):
        return None
    scaled = matrix[:-1, :-1] / rows[:, None]
    columns = np.abs(scaled).max(axis=0, initial=0.0)
    if not np.all(columns > 0) or np.linalg.cond(scaled / columns) > 1 / np.finfo(float).eps:
        return None
    found = np.eye(len(matrix))
    found[:-1, :-1] = np.linalg.inv(scaled / columns) / columns[:, None] / rows
    found[:-1, -1] = -found[:-1, :-1] @ matrix[:-1, -1]
    return found if np.isfinite(found).all() else None


def _matrix(step: Document, ndim: int, load: LoadArray | None, depth: int) -> Matrix:
    kind = step.require("type")
    make = _MATRICES.get(kind) if isinstance(kind, str) else None
    if make is None:
        if kind in ("displacements", "coordinates"):
            path = shown(step.value.get("path"))
            msg = (
                f"{step.source!r} at {'.'.join(map(str, step.location))}: {kind} at {path} is a "
                "field of vectors, not a matrix; read that array and apply it"
            )
            raise UnsupportedFormatError(msg)
        msg = (
            f"{step.source!r} at {'.'.join(map(str, step.location))}: transformation of type "
            f"{shown(kind)} is not known"
        )
        raise UnsupportedFormatError(msg)
    if depth > _MAX_DEPTH:
        raise step.fail(f"is nested more than {_MAX_DEPTH} deep")
    return make(step, ndim, load, depth)


def _identity(step: Document, ndim: int, load: LoadArray | None, depth: int) -> Matrix:
    del step, load, depth
    return np.eye(ndim + 1)


def _scale(step: Document, ndim: int, load: LoadArray | None, depth: int) -> Matrix:
    del load, depth
    factors = vector(step, "scale", ndim)
    if not np.all(factors > 0):
        shown_value = shown(step.value["scale"])
        raise step.fail(f"must have {ndim} positive numbers, got {shown_value}", "scale")
    return np.diag([*factors, 1.0])


def _translation(step: Document, ndim: int, load: LoadArray | None, depth: int) -> Matrix:
    del load, depth
    matrix = np.eye(ndim + 1)
    matrix[:-1, -1] = vector(step, "translation", ndim)
    return matrix


def _map_axis(step: Document, ndim: int, load: LoadArray | None, depth: int) -> Matrix:
    del load, depth
    order = _indices(step, "mapAxis")
    if sorted(order) != list(range(ndim)):
        message = f"must have each of 0 to {ndim - 1} once, got {shown(order)}"
        raise step.fail(message, "mapAxis")
    return np.eye(ndim + 1)[[*order, ndim]]


def _project_axis(step: Document, ndim: int, load: LoadArray | None, depth: int) -> Matrix:
    """Drop input axes, then put zeros at the places of the created ones."""
    del load, depth
    dropped = _indices(step, "droppedInputs") if "droppedInputs" in step.value else []
    created = _indices(step, "createdOutputs") if "createdOutputs" in step.value else []
    if not dropped and not created:
        raise step.fail("needs droppedInputs or createdOutputs", kind="missing")
    kept = [axis for axis in range(ndim) if axis not in dropped]
    count = len(kept) + len(created)
    for name, numbers, most in (
        ("droppedInputs", dropped, ndim),
        ("createdOutputs", created, count),
    ):
        if len(set(numbers)) != len(numbers) or any(n >= most for n in numbers):
            raise step.fail(f"must be different numbers below {most}, got {shown(numbers)}", name)
    matrix = np.zeros((count + 1, ndim + 1))
    matrix[-1, -1] = 1.0
    matrix[[row for row in range(count) if row not in created], kept] = 1.0
    return matrix


def _affine(step: Document, ndim: int, load: LoadArray | None, depth: int) -> Matrix:
    del depth
    rows = _table(step, "affine", load)
    if rows.shape[1] != ndim + 1:
        message = f"has {rows.shape[1]} columns, expected {ndim + 1} for {ndim} axes"
        raise step.fail(message, "affine")
    return np.vstack([rows, np.eye(ndim + 1)[-1]])


def _rotation(step: Document, ndim: int, load: LoadArray | None, depth: int) -> Matrix:
    del depth
    rows = _table(step, "rotation", load)
    if rows.shape != (ndim, ndim):
        message = f"has shape {rows.shape}, expected {(ndim, ndim)}"
        raise step.fail(message, "rotation")
    with np.errstate(over="ignore", invalid="ignore"):
        square, sign = rows @ rows.T, np.linalg.det(rows)
    if not (np.allclose(square, np.eye(ndim), atol=_ROTATION_TOLERANCE) and sign > 0):
        raise step.fail("is no rotation: rows must be orthonormal, determinant 1", "rotation")
    matrix = np.eye(ndim + 1)
    matrix[:-1, :-1] = rows
    return matrix


def _sequence(step: Document, ndim: int, load: LoadArray | None, depth: int) -> Matrix:
    matrix = np.eye(ndim + 1)
    for part in children(step, "transformations"):
        matrix = _checked(step, _matrix(part, len(matrix) - 1, load, depth + 1) @ matrix)
    return matrix


def _by_dimension(step: Document, ndim: int, load: LoadArray | None, depth: int) -> Matrix:
    """Lower-dimensional transformations side by side: each output axis is of exactly one."""
    found: dict[int, Any] = {}
    for part in children(step, "transformations"):
        inner = part.child("transformation", part.require("transformation"))
        inputs = _indices(part, "inputAxes", "input_axes")
        outputs = _indices(part, "outputAxes", "output_axes")
        if len(set(inputs)) != len(inputs) or any(axis >= ndim for axis in inputs):
            message = f"must be different axes below {ndim}, got {shown(inputs)}"
            raise part.fail(message, "inputAxes")
        matrix = _matrix(inner, len(inputs), load, depth + 1)
        if len(outputs) != len(matrix) - 1:
            message = f"has {len(outputs)} axes, and the transformation gives {len(matrix) - 1}"
            raise part.fail(message, "outputAxes")
        for axis, row in zip(outputs, matrix, strict=False):
            if axis in found:
                raise part.fail(f"axis {axis} is of two transformations", "outputAxes")
            found[axis] = np.zeros(ndim + 1)
            found[axis][[*inputs, ndim]] = row
    if sorted(found) != list(range(len(found))) or not found:
        message = f"outputs must be 0 to {max(len(found) - 1, 0)}, got {shown(sorted(found))}"
        raise step.fail(message, "transformations")
    return np.vstack([*(found[axis] for axis in sorted(found)), np.eye(ndim + 1)[-1]])


def _bijection(step: Document, ndim: int, load: LoadArray | None, depth: int) -> Matrix:
    step.child("inverse", step.require("inverse"))
    return _matrix(step.child("forward", step.require("forward")), ndim, load, depth + 1)


_MATRICES: Mapping[str, Callable[[Document, int, LoadArray | None, int], Matrix]] = {
    "identity": _identity,
    "scale": _scale,
    "translation": _translation,
    "mapAxis": _map_axis,
    "projectAxis": _project_axis,
    "affine": _affine,
    "rotation": _rotation,
    "sequence": _sequence,
    "byDimension": _by_dimension,
    "bijection": _bijection,
}


def children(owner: Document, key: str) -> list[Document]:
    """Objects of a list that must be there."""
    value = owner.require(key)
    if not isinstance(value, list) or not value:
        raise owner.fail(f"expected a list of objects, got {shown(value)}", key, kind="type")
    parent = Document(owner.source, {}, (*owner.location, key))
    return [parent.child(str(index), item) for index, item in enumerate(value)]


def vector(step: Document, key: str, ndim: int) -> NDArray[np.float64]:
    """List of `ndim` numbers."""
    value = step.value.get(key)
    if value is None and isinstance(step.value.get("path"), str):
        msg = (
            f"{step.source!r} at {'.'.join(map(str, step.location))}: {key} that is kept in an "
            f"array ({shown(step.value['path'])}) is not read"
        )
        raise UnsupportedFormatError(msg)
    numbers = value if isinstance(value, list) and all(map(_is_number, value)) else []
    if len(numbers) != ndim:
        raise step.fail(f"must have {ndim} numbers, got {shown(value)}", key)
    return np.array(numbers, np.float64)


def _table(step: Document, key: str, load: LoadArray | None) -> NDArray[np.float64]:
    """Rows of a matrix, from the document or from an array."""
    value = step.value.get(key)
    path = step.value.get("path")
    if value is None and isinstance(path, str):
        if load is None:
            msg = (
                f"{step.source!r} at {'.'.join(map(str, step.location))}: {key} is kept in the "
                f"array {shown(path)}, which was not read"
            )
            raise UnsupportedFormatError(msg)
        table = np.asarray(load(path))
        if table.ndim != 2 or table.dtype.kind not in "iuf" or not np.isfinite(table).all():
            message = f"array {shown(path)} is no matrix: {table.dtype} of shape {table.shape}"
            raise step.fail(message, "path")
        return table.astype(np.float64)
    rows: list[Any] = value if isinstance(value, list) and value else [None]
    if not all(isinstance(row, list) and len(row) == len(rows[0]) for row in rows) or not all(
        _is_number(number) for row in rows for number in row
    ):
        raise step.fail(f"expected rows of numbers, got {shown(value)}", key, kind="type")
    return np.array(rows, np.float64).reshape(len(rows), -1)


def _indices(step: Document, key: str, older: str = "") -> list[int]:
    """List of axes; `older` is how development versions of 0.6 call it."""
    key = older if older in step.value and key not in step.value else key
    value = step.require(key)
    numbers = value if isinstance(value, list) and len(value) <= MAX_AXES else [None]
    found = [int(n) for n in numbers if _is_number(n) and n == int(n) and n >= 0]
    if len(found) != len(numbers):
        raise step.fail(f"expected a list of axis numbers, got {shown(value)}", key, kind="type")
    return found


def _checked(step: Document, matrix: Matrix) -> Matrix:
    if not np.all(np.abs(matrix) < _MAX_NUMBER):
        raise step.fail("is a matrix of numbers too large to compute with")
    return matrix


def _is_number(value: Any) -> TypeGuard[float]:
    return type(value) in (int, float) and -_MAX_NUMBER < value < _MAX_NUMBER
