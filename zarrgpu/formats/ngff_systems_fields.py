"""Fields of coordinate systems and transformations, which came with OME-Zarr 0.6.

Source: ``image.schema``, ``axes.schema``, ``coordinate_systems.schema`` and
``coordinate_transformations.schema`` of OME-NGFF 0.6 (https://ngff.openmicroscopy.org).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from zarrgpu.formats.ngff_schema import (
    Both,
    ByType,
    Fields,
    Flag,
    Items,
    Location,
    Number,
    Problems,
    Rule,
    Text,
    problem,
)

_STRING = Text()
_SPACES = (2, 3)


def image_with_systems() -> tuple[dict[str, Rule], tuple[str, ...]]:
    """Members of an image since 0.6."""
    transformation = transformations()
    ends = Fields(
        rules={
            "input": Fields(rules={"name": _STRING, "path": _STRING}, required=("path",)),
            "output": Fields(rules={"name": _STRING, "path": _STRING}, required=("name",)),
            "name": _STRING,
        },
        required=("input", "output"),
    )
    names = Fields(rules={"name": _STRING}, required=("name",))
    between = Fields(rules={"input": names, "output": names}, required=("input", "output"))
    simple = {name: transformation.cases[name] for name in ("scale", "translation", "identity")}
    pair = ByType({name: simple[name] for name in ("scale", "translation")})
    simple["sequence"] = Fields(
        rules={"transformations": Items(item=pair, least=2, most=2)}, required=("transformations",)
    )
    to_intrinsic = ByType({name: simple[name] for name in ("scale", "identity", "sequence")})
    dataset = Fields(
        rules={
            "path": _STRING,
            "coordinateTransformations": Items(item=Both(to_intrinsic, ends), least=1, most=1),
        },
        required=("path", "coordinateTransformations"),
    )
    rules: dict[str, Rule] = {
        "name": _STRING,
        "datasets": Items(item=dataset, least=1),
        "coordinateSystems": Items(item=coordinate_system(), least=1),
        "coordinateTransformations": Items(item=Both(transformation, between), least=1),
    }
    return rules, ("datasets", "coordinateSystems")


def coordinate_system() -> Rule:
    """Rule of one of ``coordinateSystems``."""
    axis = Fields(
        rules={
            "name": Text(least=1), "longName": _STRING, "type": _STRING, "discrete": Flag(),
            "unit": _STRING,
        },
        required=("name",),
    )  # fmt: skip
    axes = Items(item=axis, least=1, most=5, distinct=True, together=(_spaces_or_arrays,))
    return Fields(rules={"name": Text(least=1), "axes": axes}, required=("name", "axes"))


def _spaces_or_arrays(axes: list[Any], at: Location) -> Problems:
    """Two or three axes are of space, or two or more of an array (0.6, ``axes.schema``)."""
    kinds = [axis.get("type") for axis in axes if isinstance(axis, Mapping)]
    space, array = kinds.count("space"), kinds.count("array")
    if (_SPACES[0] <= space <= _SPACES[1]) == (array >= _SPACES[0]):
        message = f"has {space} axes of type space and {array} of type array"
        yield problem(at, "value", f"{message}, expected 2 or 3 of space, or 2 or more of array")


@cache
def transformations() -> ByType:
    """Rule of a coordinate transformation of 0.6; some hold others."""
    rule = ByType()
    indices = Items(item=Number(integer=True, least=0, most=4), least=1, most=3, distinct=True)
    part = Fields(
        rules={
            "transformation": rule,
            "inputAxes": Items(item=Number()),
            "outputAxes": Items(item=Number()),
        },
        required=("transformation", "inputAxes", "outputAxes"),
    )
    matrix = Items(item=Items(item=Number()))
    place = {
        "path": _STRING,
        "interpolation": Text(choices=("nearest", "linear", "cubic")),
    }
    cases: dict[str, tuple[dict[str, Rule], dict[str, Any]]] = {
        "identity": ({}, {}),
        "mapAxis": ({"mapAxis": _axis_map()}, {"required": ("mapAxis",)}),
        "projectAxis": (
            {"droppedInputs": indices, "createdOutputs": indices},
            {"any_of": ("droppedInputs", "createdOutputs")},
        ),
        "scale": ({"scale": Items(item=Number(above=0))}, {"required": ("scale",)}),
        "translation": ({"translation": Items(item=Number())}, {"required": ("translation",)}),
        "affine": ({"affine": matrix, "path": _STRING}, {"one_of": ("affine", "path")}),
        "rotation": (
            {"rotation": Items(item=Items(item=Number()), least=2, most=5, together=(_square,)),
             "path": _STRING},
            {"one_of": ("rotation", "path")},
        ),
        "bijection": ({"forward": rule, "inverse": rule}, {"required": ("forward", "inverse")}),
        "sequence": ({"transformations": Items(item=rule)}, {"required": ("transformations",)}),
        "byDimension": ({"transformations": Items(item=part)}, {"required": ("transformations",)}),
        "displacements": (dict(place), {"required": ("path",)}),
        "coordinates": (dict(place), {"required": ("path",)}),
    }  # fmt: skip
    for name, (rules, demands) in cases.items():
        rule.cases[name] = Fields(rules={"name": _STRING, **rules}, **demands)
    return rule


def _axis_map() -> Rule:
    number = Number(integer=True, least=0, most=4)
    return Items(item=number, least=2, most=5, distinct=True)


def _square(rows: list[Any], at: Location) -> Problems:
    for index, row in enumerate(rows):
        if isinstance(row, list) and len(row) != len(rows):
            message = f"has {len(row)} numbers, expected {len(rows)}: a rotation is square"
            yield problem((*at, index), "value", message)
