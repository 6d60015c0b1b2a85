"""What the text of the OME-Zarr specification demands and its JSON Schemas do not say.

Each rule looks at parts whose fields are known to be right, and compares them: names that must
differ, numbers that must fit the axes, paths that must fit rows and columns. The official
suite of 0.4 calls two things valid that its text does not: a scale of another length than the axes,
and a well whose path is not that of its row and column. So these two are held from 0.5 on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from zarrgpu.formats.ngff_schema import Location, Problem, Problems, problem

_COLOR = re.compile("[0-9A-Fa-f]{6}")
_ORDER = {"time": 0, "channel": 1, "space": 2}


class Sound:
    """Which parts of metadata are right as far as their fields go, so that rules can look at them.

    Parameters
    ----------
    found : iterable of Problem
        Of the fields.
    """

    def __init__(self, found: Iterable[Problem] = ()) -> None:
        self._places = [each.location for each in found]

    def here(self, at: Location) -> bool:
        """Whether there is no problem at a place or above: it is there, and of its type."""
        return not any(at[: len(place)] == place for place in self._places)

    def below(self, at: Location) -> bool:
        """Whether there is none below the place either."""
        return self.here(at) and not any(place[: len(at)] == at for place in self._places)


def more_problems(
    kind: str, version: str, owner: Mapping[str, Any], at: Location, sound: Sound | None = None
) -> Problems:
    """Problems of what is right as far as its fields go.

    Parameters
    ----------
    kind, version : str
        As for `ngff_fields.fields_of`.
    owner : mapping
        The attributes, or ``ome`` since 0.5.
    at : tuple
        Place of `owner` in the document.
    sound : Sound, optional
        By default all fields are right.
    """
    for rule in _RULES.get(kind, ()):
        yield from rule(version, owner, at, sound or Sound())


def _image(version: str, owner: Mapping[str, Any], at: Location, sound: Sound) -> Problems:
    if version >= "0.4" and "omero" in owner and sound.here((*at, "omero", "channels")):
        yield from _channels(version, owner["omero"], (*at, "omero"), sound)
    if not sound.here((*at, "multiscales")):
        return
    for index, image in enumerate(owner["multiscales"]):
        where = (*at, "multiscales", index)
        if not sound.here(where):
            continue
        if version in ("0.4", "0.5"):
            ndim = None
            if sound.below((*where, "axes")):
                yield from _axes(image["axes"], (*where, "axes"))
                ndim = len(image["axes"]) if version >= "0.5" else None
            yield from _steps(image, ndim, where, sound)
        elif version >= "0.6" and sound.below((*where, "coordinateSystems")):
            yield from _systems(image, where)
            if sound.below((*where, "datasets")):
                yield from _datasets(image, where)
            if sound.below((*where, "coordinateTransformations")):
                yield from _additional(image, where)


def _channels(version: str, omero: Mapping[str, Any], at: Location, sound: Sound) -> Problems:
    """Every channel has a colour of six hexadecimal digits and a window ("omero" metadata)."""
    for index, channel in enumerate(omero.get("channels", [])):
        place = (*at, "channels", index)
        if not sound.here(place):
            continue
        for name in ("color", "window"):
            if version >= "0.5" and name not in channel:
                yield problem((*place, name), "missing", "is missing")
        color = channel.get("color")
        if color is not None and sound.here((*place, "color")) and not _COLOR.fullmatch(color):
            message = f"expected six hexadecimal digits, got {color!r}"
            yield problem((*place, "color"), "value", message)


def _axes(axes: list[Mapping[str, Any]], at: Location) -> Problems:
    """Names differ, and time comes before channel before space ("axes" metadata)."""
    yield from _distinct((axis["name"] for axis in axes), "axis name", at)
    ranks = [_ORDER.get(axis.get("type", "channel"), _ORDER["channel"]) for axis in axes]
    if ranks != sorted(ranks):
        yield problem(at, "value", "must be ordered by type: time, channel or custom, space")


def _steps(image: Mapping[str, Any], ndim: int | None, at: Location, sound: Sound) -> Problems:
    """Every vector has a number per axis; a translation follows the scale, once."""
    datasets = image["datasets"] if sound.here((*at, "datasets")) else []
    owners = [((*at, "datasets", i), dataset) for i, dataset in enumerate(datasets)]
    for where, owner in (*owners, (at, image)):
        place = (*where, "coordinateTransformations")
        if not sound.below(place):
            continue
        steps = owner.get("coordinateTransformations", [])
        if ndim is not None:
            for index, step in enumerate(steps):
                yield from _length(step, ndim, (*place, index))
        names = [step["type"] for step in steps]
        if names and names not in (["scale"], ["scale", "translation"]):
            message = f"expected a scale and then at most one translation, got {', '.join(names)}"
            yield problem(place, "value", message)


def _length(step: Mapping[str, Any], ndim: int, at: Location) -> Problems:
    name = step["type"]
    if name in ("scale", "translation") and len(step[name]) != ndim:
        message = f"has {len(step[name])} numbers for {ndim} axes"
        yield problem((*at, name), "value", message)


def _systems(image: Mapping[str, Any], at: Location) -> Problems:
    """Names of coordinate systems and of the axes of each differ."""
    place = (*at, "coordinateSystems")
    systems = image["coordinateSystems"]
    yield from _distinct((system["name"] for system in systems), "name", place)
    for index, system in enumerate(systems):
        yield from _axes_06(system["axes"], (*place, index, "axes"))


def _axes_06(axes: list[Mapping[str, Any]], at: Location) -> Problems:
    yield from _distinct((axis["name"] for axis in axes), "axis name", at)


def _datasets(image: Mapping[str, Any], at: Location) -> Problems:
    """All levels go to one coordinate system, which is there, with a number per axis of it."""
    sizes = {system["name"]: len(system["axes"]) for system in image["coordinateSystems"]}
    first = image["datasets"][0]["coordinateTransformations"][0]["output"]["name"]
    for index, dataset in enumerate(image["datasets"]):
        (step,) = dataset["coordinateTransformations"]
        place = (*at, "datasets", index, "coordinateTransformations", 0)
        name = step["output"]["name"]
        if name not in sizes:
            message = f"names the coordinate system {name!r}, which is not among {list(sizes)}"
            yield problem((*place, "output", "name"), "value", message)
            continue
        if name != first:
            message = f"goes to {name!r} and the first dataset to {first!r}; all go to one"
            yield problem((*place, "output", "name"), "value", message)
        parts = step["transformations"] if step["type"] == "sequence" else [step]
        for part in parts:
            yield from _length(part, sizes[name], place)
        if step["type"] == "sequence" and parts[0]["type"] != "scale":
            yield problem(place, "value", "expected a scale and then a translation")


def _additional(image: Mapping[str, Any], at: Location) -> Problems:
    """What follows goes between coordinate systems that are there."""
    names = [system["name"] for system in image["coordinateSystems"]]
    for index, step in enumerate(image.get("coordinateTransformations", [])):
        for end in ("input", "output"):
            name = step[end]["name"]
            if not step[end].get("path") and name not in names:
                place = (*at, "coordinateTransformations", index, end, "name")
                message = f"names the coordinate system {name!r}, which is not among {names}"
                yield problem(place, "value", message)


def _label(version: str, owner: Mapping[str, Any], at: Location, sound: Sound) -> Problems:
    """A label value has one colour ("labels" metadata: unique label values)."""
    del version
    for name in ("colors", "properties"):
        place = (*at, "image-label", name)
        if sound.below(place):
            rows = owner["image-label"].get(name, [])
            yield from _distinct((row["label-value"] for row in rows), "label value", place)


def _plate(version: str, owner: Mapping[str, Any], at: Location, sound: Sound) -> Problems:
    """Names of rows and columns differ, and each well lies where its path says."""
    place = (*at, "plate")
    if not sound.here(place):
        return
    plate = owner["plate"]
    names = {"rows": "name", "columns": "name", "wells": "path", "acquisitions": "id"}
    for part, name in names.items():
        if sound.below((*place, part)):
            yield from _distinct((row[name] for row in plate.get(part, [])), name, (*place, part))
    if version >= "0.5" and all(sound.below((*place, name)) for name in ("rows", "columns")):
        lines = {name: [line["name"] for line in plate[name]] for name in ("rows", "columns")}
        for index, well in enumerate(plate["wells"] if sound.here((*place, "wells")) else ()):
            if sound.below((*place, "wells", index)):
                yield from _well_place(well, lines, (*place, "wells", index))


def _well_place(well: Mapping[str, Any], lines: Mapping[str, list[str]], at: Location) -> Problems:
    given = []
    for name, member in (("rows", "rowIndex"), ("columns", "columnIndex")):
        index = int(well[member])
        if index >= len(lines[name]):
            message = f"is {index}, and there are {len(lines[name])} {name}"
            yield problem((*at, member), "value", message)
            return
        given.append(lines[name][index])
    if "/".join(given) != well["path"]:
        message = f"is {well['path']!r}, and row and column are {'/'.join(given)!r}"
        yield problem((*at, "path"), "value", message)


def _well(version: str, owner: Mapping[str, Any], at: Location, sound: Sound) -> Problems:
    """Fields of a well lie at different paths."""
    del version
    place = (*at, "well", "images")
    if sound.below(place):
        paths = (image["path"] for image in owner["well"]["images"])
        yield from _distinct(paths, "path", place)


def _scene(version: str, owner: Mapping[str, Any], at: Location, sound: Sound) -> Problems:
    """Names of a scene's own coordinate systems differ, and those it refers to are there."""
    del version
    place = (*at, "scene")
    if not sound.below((*place, "coordinateSystems")):
        return
    scene = owner["scene"]
    names = [system["name"] for system in scene.get("coordinateSystems", [])]
    yield from _distinct(names, "name", (*place, "coordinateSystems"))
    if not sound.below((*place, "coordinateTransformations")):
        return
    for index, step in enumerate(scene["coordinateTransformations"]):
        for end in ("input", "output"):
            name = step[end]["name"]
            if not step[end].get("path") and name not in names:
                where = (*place, "coordinateTransformations", index, end, "name")
                message = f"names the coordinate system {name!r}, which is not among {names}"
                yield problem(where, "value", message)


def _distinct(values: Iterable[Any], noun: str, at: Location) -> Problems:
    seen = set()
    for index, value in enumerate(values):
        if value in seen:
            yield problem((*at, index), "value", f"repeats the {noun} {value!r}")
        seen.add(value)


_RULES: Mapping[str, tuple[Callable[[str, Mapping[str, Any], Location, Sound], Problems], ...]] = {
    "image": (_image,),
    "label": (_label,),
    "plate": (_plate,),
    "well": (_well,),
    "scene": (_scene,),
}
