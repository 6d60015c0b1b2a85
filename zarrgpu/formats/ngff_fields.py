"""Fields of OME-Zarr metadata, version by version, as tables of rules.

Source: the JSON Schemas of OME-NGFF 0.1 to 0.6 (https://ngff.openmicroscopy.org, ome/ngff-spec,
``schemas/``), to which `tests/test_ngff_validation.py` holds these tables. What the schemas leave
to the text of the specification is in `ngff_rules`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from zarrgpu.formats.ngff_plate_fields import plate_fields, well_fields
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
    recommended,
    versioned,
)
from zarrgpu.formats.ngff_systems_fields import (
    coordinate_system,
    image_with_systems,
    transformations,
)

KINDS = {
    "multiscales": "image",
    "image-label": "label",
    "plate": "plate",
    "well": "well",
    "scene": "scene",
    "labels": "labels",
    "series": "series",
    "bioformats2raw.layout": "bioformats2raw",
}
"""Member of the metadata that makes it of a kind -> the kind."""

_STRING = Text()
_SPACES = (2, 3)
_OLD = ("0.1", "0.2", "0.3")


@cache
def fields_of(kind: str, version: str, *, strict: bool = False) -> Rule:
    """Rule of the object that holds a kind of metadata: the attributes, or ``ome`` since 0.5.

    Parameters
    ----------
    kind : str
        One of the values of `KINDS`.
    version : str
        ``"0.1"`` to ``"0.6"``.
    strict : bool
        Whether what SHOULD be there must be.
    """
    member = next(name for name, of in KINDS.items() if of == kind)
    rule = _MAKERS[kind](version, strict=strict)
    rules: dict[str, Rule] = {member: rule}
    required: tuple[str, ...] = (member,)
    if kind == "image":
        rules["omero"] = _omero(version)
    if version >= "0.5":
        required = (member, "version")
        rules["version"] = _STRING
    return Fields(rules=rules, required=required)


def _image(version: str, *, strict: bool) -> Rule:
    required: tuple[str, ...] = ("datasets", "axes")
    if version in _OLD:
        rules = versioned(version, {"name": _STRING, "datasets": _old_datasets()})
        if version == "0.1":
            rules["metadata"] = Fields(rules={"method": _STRING, "version": _STRING})
        if version == "0.3":
            rules["axes"] = Items(item=Text(pattern="[xyzct]"), least=2)
        required = required if version == "0.3" else ("datasets",)
    elif version in ("0.4", "0.5"):
        steps = Items(item=_step(), least=1, together=(_one_scale,))
        dataset = Fields(
            rules={"path": _STRING, "coordinateTransformations": steps},
            required=("path", "coordinateTransformations"),
        )
        rules = versioned(
            version,
            {
                "name": _STRING,
                "datasets": Items(item=dataset, least=1),
                "axes": Items(item=_axis(), least=2, most=5, distinct=True, together=(_spaces,)),
                "coordinateTransformations": steps,
            },
        )
    else:
        rules, required = image_with_systems()
    required += recommended(version, "version", "metadata", "type", "name", strict=strict)
    return Items(item=Fields(rules=rules, required=required), least=1, distinct=True)


def _old_datasets() -> Rule:
    return Items(item=Fields(rules={"path": _STRING}, required=("path",)), least=1)


def _axis() -> Rule:
    """An axis of 0.4 and 0.5; a type of one's own is allowed."""
    return Fields(rules=dict.fromkeys(("name", "type", "unit"), _STRING), required=("name",))


def _spaces(axes: list[Any], at: Location) -> Problems:
    """Two or three axes are of space (0.4, "axes" metadata)."""
    count = sum(isinstance(axis, Mapping) and axis.get("type") == "space" for axis in axes)
    if not _SPACES[0] <= count <= _SPACES[1]:
        yield problem(at, "value", f"has {count} axes of type space, expected 2 or 3")


def _step() -> Rule:
    """A transformation of 0.4 and 0.5."""
    numbers = Items(item=Number(), least=2)
    return ByType(
        {name: Fields(rules={name: numbers}, required=(name,)) for name in ("scale", "translation")}
    )


def _one_scale(steps: list[Any], at: Location) -> Problems:
    count = sum(isinstance(step, Mapping) and step.get("type") == "scale" for step in steps)
    if count != 1:
        yield problem(at, "value", f"has {count} scales, expected exactly one")


def _omero(version: str) -> Rule:
    window = Fields(
        rules={name: Number() for name in ("start", "min", "end", "max")},
        required=("start", "min", "end", "max"),
    )
    rules: dict[str, Rule] = {
        "window": window, "label": _STRING, "family": _STRING, "color": _STRING, "active": Flag(),
    }  # fmt: skip
    required = ("window", "color") if version < "0.5" else ()
    channel = Fields(rules=rules, required=required)
    return Fields(rules={"channels": Items(item=channel)}, required=("channels",))


def _label(version: str, *, strict: bool) -> Rule:
    rgba = Items(item=Number(integer=True, least=0, most=255), least=4, most=4)
    color = Fields(rules={"label-value": Number(), "rgba": rgba}, required=("label-value",))
    value = Fields(rules={"label-value": Number(integer=True)}, required=("label-value",))
    rules: dict[str, Rule] = {
        "colors": Items(item=color, least=1, distinct=True),
        "properties": Items(item=value, least=1, distinct=True),
        "source": Fields(rules={"image": _STRING}),
    }
    return Fields(
        rules=versioned(version, rules),
        required=recommended(version, "version", "colors", strict=strict),
    )


def _scene(version: str, *, strict: bool) -> Rule:
    del version, strict
    end = Fields(rules={"name": _STRING, "path": _STRING}, required=("name",), closed=True)
    between = Fields(rules={"input": end, "output": end}, required=("input", "output"))
    return Fields(
        rules={
            "coordinateSystems": Items(item=coordinate_system(), distinct=True),
            "coordinateTransformations": Items(item=Both(transformations(), between), least=1),
        },
        required=("coordinateTransformations",),
    )


def _list_of_paths(version: str, *, strict: bool) -> Rule:
    """Members ``labels`` and ``series``."""
    del version, strict
    return Items(item=_STRING)


def _layout(version: str, *, strict: bool) -> Rule:
    del version, strict
    return Number(choices=(3,))


_MAKERS = {
    "image": _image,
    "label": _label,
    "plate": plate_fields,
    "well": well_fields,
    "scene": _scene,
    "labels": _list_of_paths,
    "series": _list_of_paths,
    "bioformats2raw": _layout,
}
