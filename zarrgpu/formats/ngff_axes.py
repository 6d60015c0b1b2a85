"""Axes and coordinate systems of OME-Zarr, and what their units are in micrometres."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from zarrgpu.formats.document import Document, shown

OLD_AXES = ("t", "c", "z", "y", "x")
"""Of 0.1 and 0.2, which have these five and do not say so."""

_SPACE = ("z", "y", "x")
_FEWEST = 2
_OLD_TYPES = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}
_PREFIXES = {
    "yocto": -24, "zepto": -21, "atto": -18, "femto": -15, "pico": -12, "nano": -9, "micro": -6,
    "milli": -3, "centi": -2, "deci": -1, "": 0, "deca": 1, "hecto": 2, "kilo": 3, "mega": 6,
    "giga": 9, "tera": 12, "peta": 15, "exa": 18, "zetta": 21, "yotta": 24,
}  # fmt: skip
_MICROMETRES = {
    **{f"{name}met{end}": float(f"1e{power + 6}")
       for name, power in _PREFIXES.items() for end in ("er", "re")},
    "angstrom": 1e-4, "micron": 1.0, "nm": 1e-3, "um": 1.0, "\u00b5m": 1.0, "\u03bcm": 1.0,
    "mm": 1e3, "inch": 25_400.0, "foot": 304_800.0, "yard": 914_400.0, "mile": 1_609_344_000.0,
    "parsec": 3.0856775814913673e22,
}  # fmt: skip
"""Lengths that the specification names (those of UDUNITS-2), and common short forms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """One axis of a coordinate system.

    Attributes
    ----------
    name : str
    type : str or None
        ``"space"``, ``"time"``, ``"channel"``, ``"array"`` or one's own; None where not stated.
    unit : str or None
        As stated.
    """

    name: str
    type: str | None = None
    unit: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CoordinateSystem:
    """A named space that points lie in (OME-Zarr 0.6).

    Attributes
    ----------
    name : str
        Empty before 0.6, where an image has one without a name.
    axes : tuple of Axis
    """

    name: str
    axes: tuple[Axis, ...]


def micrometres(unit: str | None) -> float | None:
    """Micrometres in a unit of length; None for anything else.

    >>> micrometres("nanometer"), micrometres("second"), micrometres(None)
    (0.001, None, None)
    """
    return _MICROMETRES.get(unit) if unit is not None else None


def called(axes: Sequence[Axis]) -> tuple[Axis, ...] | None:
    """Axes by the names that images are read by; None where there is no plane among them.

    Names are free in OME-Zarr. Y and X are y and x, wherever they stand. Where none is y or x,
    types tell: two or three axes of space are (z,) y, x in their order, which is what the text
    recommends, and a channel is c, a time t.
    """
    names = [axis.name for axis in axes]
    if {"y", "x"} <= set(names):
        return tuple(axes)
    small = [name.lower() if name.lower() in OLD_AXES else name for name in names]
    if {"y", "x"} <= set(small):
        return _renamed(axes, small)
    space = [index for index, axis in enumerate(axes) if axis.type == "space"]
    if {"y", "x"} & set(names) or not _FEWEST <= len(space) <= len(_SPACE):
        return None
    for index, name in zip(space, _SPACE[-len(space) :], strict=True):
        if names[index].lower() in _SPACE and names[index].lower() != name:
            return None  # another order than the one that is recommended
        names[index] = name
    for kind, name in (("time", "t"), ("channel", "c")):
        found = [index for index, axis in enumerate(axes) if axis.type == kind]
        if len(found) == 1:
            names[found[0]] = name
    return _renamed(axes, names)


def _renamed(axes: Sequence[Axis], names: Sequence[str]) -> tuple[Axis, ...] | None:
    if len(set(names)) != len(names):
        return None
    return tuple(replace(axis, name=name) for axis, name in zip(axes, names, strict=True))


def parse_axes(owner: Document, *, optional: bool) -> tuple[Axis, ...]:
    """Parse the ``axes`` of an image or coordinate system: objects, or names in 0.3.

    Parameters
    ----------
    owner : Document
    optional : bool
        Whether they are those of 0.1 where there are none.
    """
    value = owner.value.get("axes", list(OLD_AXES)) if optional else owner.require("axes")
    if not isinstance(value, list) or not value:
        raise owner.fail(f"expected a list, got {shown(value)}", "axes", kind="type")
    axes = [_parse_axis(owner, index, axis) for index, axis in enumerate(value)]
    names = [axis.name for axis in axes]
    if len(set(names)) != len(names):
        raise owner.fail(f"names must be distinct, got {shown(names)}", "axes")
    return tuple(axes)


def parse_systems(owner: Document) -> tuple[CoordinateSystem, ...]:
    """Parse the ``coordinateSystems`` of an image or a scene."""
    value = owner.value.get("coordinateSystems", [])
    if not isinstance(value, list):
        message = f"expected a list, got {shown(value)}"
        raise owner.fail(message, "coordinateSystems", kind="type")
    parent = Document(owner.source, {}, (*owner.location, "coordinateSystems"))
    systems: dict[str, CoordinateSystem] = {}
    for index, item in enumerate(value):
        system = parent.child(str(index), item)
        name = system.require("name")
        if not isinstance(name, str) or not name:
            raise system.fail(f"expected a name, got {shown(name)}", "name", kind="type")
        if name in systems:
            raise system.fail(f"repeats {shown(name)}", "name")
        systems[name] = CoordinateSystem(name=name, axes=parse_axes(system, optional=False))
    return tuple(systems.values())


def _parse_axis(owner: Document, index: int, axis: Any) -> Axis:
    if isinstance(axis, str):
        return Axis(name=axis, type=_OLD_TYPES.get(axis))
    name = axis.get("name") if isinstance(axis, Mapping) else None
    if not isinstance(name, str):
        raise owner.fail(f"has no name: {shown(axis)}", "axes", index, kind="missing")
    kind, unit = axis.get("type"), axis.get("unit")
    return Axis(
        name=name,
        type=kind if isinstance(kind, str) else None,
        unit=unit if isinstance(unit, str) else None,
    )
