"""Valid OME-Zarr metadata of every version and kind, made by rule, to validate, damage and read."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import strategies as st

VERSIONS = ("0.1", "0.2", "0.3", "0.4", "0.5", "0.6")
JUNK: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 1.0, 1.5, -0.25, 10**30, float("nan"), float("inf"), "", "x",
    "space", "scale", "A/1", "../x", "..", [], [1], [1.0, 1.0], [[1]], {}, {"type": "scale"},
    {"name": "x"}, {"path": "0", "name": "physical"}, {"a": {"b": []}},
)  # fmt: skip
KNOWN = {"t": "time", "c": "channel"}


def axes_of(names: str) -> list[dict[str, str]]:
    return [
        {"name": n, "type": KNOWN.get(n, "space")} | ({} if n in KNOWN else {"unit": "micrometer"})
        for n in names
    ]


def system(name: str, axes: list[dict[str, str]]) -> dict[str, Any]:
    return {"name": name, "axes": axes}


def edge(kind: str, source: str, target: str, **fields: Any) -> dict[str, Any]:
    """A transformation of 0.6 between two named coordinate systems."""
    return {"type": kind, "input": {"name": source}, "output": {"name": target}, **fields}


def datasets_06(scales: list[list[float]], target: str = "physical") -> list[dict[str, Any]]:
    return [
        {
            "path": f"s{i}",
            "coordinateTransformations": [
                {
                    "type": "scale", "scale": scale, "input": {"path": f"s{i}"},
                    "output": {"name": target},
                }
            ],
        }
        for i, scale in enumerate(scales)
    ]  # fmt: skip


def all_transformations() -> list[dict[str, Any]]:
    """One of each type of 0.6, in three dimensions."""
    shift = {"type": "translation", "translation": [1.0, -2.0, 3]}
    return [
        {"type": "identity"},
        {"type": "mapAxis", "mapAxis": [2, 0, 1]},
        {"type": "projectAxis", "droppedInputs": [0], "createdOutputs": [2]},
        {"type": "scale", "scale": [2.0, 0.5, 1]},
        shift,
        {"type": "affine", "affine": [[1, 0.5, 0, 3], [0, 2, 0, -1], [0, 0, 1.5, 0]]},
        {"type": "affine", "path": "coordinateTransformations/affine"},
        {"type": "rotation", "rotation": [[0, -1, 0], [1, 0, 0], [0, 0, 1]]},
        {"type": "rotation", "path": "coordinateTransformations/rotation"},
        {"type": "bijection", "forward": shift, "inverse": {"type": "identity"}},
        {"type": "sequence", "transformations": [{"type": "scale", "scale": [1, 1, 2]}, shift]},
        {
            "type": "byDimension",
            "transformations": [
                {"transformation": {"type": "scale", "scale": [2.0]}, "inputAxes": [0],
                 "outputAxes": [2]},
                {"transformation": {"type": "translation", "translation": [1.0, 2.0]},
                 "inputAxes": [1, 2], "outputAxes": [0, 1]},
            ],
        },
        {"type": "displacements", "path": "coordinateTransformations/field"},
        {"type": "coordinates", "path": "coordinateTransformations/field",
         "interpolation": "nearest"},
    ]  # fmt: skip


def image(version: str) -> dict[str, Any]:
    window = {"start": 0, "end": 255.0, "min": 0, "max": 65535}
    omero = {
        "channels": [
            {"label": "DAPI", "color": "0000FF", "active": True, "window": window},
            {"color": "FF8000", "window": dict(window), "family": "linear"},
        ]
    }
    document: dict[str, Any] = {"name": "image"}
    if version >= "0.6":
        document["coordinateSystems"] = [
            system("physical", axes_of("zyx")), system("other", axes_of("zyx")),
        ]  # fmt: skip
        document["datasets"] = datasets_06([[2.0, 0.5, 0.5], [2.0, 1.0, 1.0]])
        document["coordinateTransformations"] = [
            {**edge("", "physical", "other"), **step} for step in all_transformations()
        ]
        return wrap(version, multiscales=[document], omero=omero)
    document["datasets"] = [{"path": "0"}, {"path": "1"}]
    if version == "0.3":
        document["axes"] = ["t", "c", "y", "x"]
    if version >= "0.4":
        document["axes"] = axes_of("tcyx")
        document["coordinateTransformations"] = [{"type": "scale", "scale": [0.1, 1, 1, 1]}]
        for index, dataset in enumerate(document["datasets"]):
            dataset["coordinateTransformations"] = [
                {"type": "scale", "scale": [1, 1, 0.5 * 2**index, 0.5 * 2**index]},
                {"type": "translation", "translation": [0, 0, 0.25 * index, 0.25 * index]},
            ]
    if version < "0.5":
        document["version"] = version
    return wrap(version, multiscales=[document], omero=omero)


def label(version: str) -> dict[str, Any]:
    value = {
        "colors": [{"label-value": 1, "rgba": [255, 0, 0, 128]}, {"label-value": 4}],
        "properties": [{"label-value": 1, "class": "nucleus"}, {"label-value": 4}],
        "source": {"image": "../../"},
    }
    return wrap(version, **{"image-label": value | own_version(version)})


def plate(version: str) -> dict[str, Any]:
    value = {
        "name": "plate",
        "rows": [{"name": "A"}, {"name": "B"}],
        "columns": [{"name": "1"}, {"name": "2"}, {"name": "10"}],
        "wells": [
            {"path": "A/1", "rowIndex": 0, "columnIndex": 0},
            {"path": "B/10", "rowIndex": 1, "columnIndex": 2},
        ],
        "acquisitions": [
            {"id": 0, "name": "first", "maximumfieldcount": 2, "starttime": 1_700_000_000},
            {"id": 3, "endtime": 1_700_000_001, "starttime": 5},
        ],
        "field_count": 2,
    }
    return wrap(version, plate=value | own_version(version))


def well(version: str) -> dict[str, Any]:
    value = {"images": [{"path": "0", "acquisition": 0}, {"path": "1"}]}
    return wrap(version, well=value | own_version(version))


def scene(version: str) -> dict[str, Any]:
    steps = [
        {**step, "input": {"path": "a", "name": "physical"}, "output": {"name": "world"}}
        for step in all_transformations()
    ]
    value = {"coordinateSystems": [system("world", axes_of("zyx"))]}
    return wrap(version, scene=value | {"coordinateTransformations": steps})


def wrap(version: str, **metadata: Any) -> dict[str, Any]:
    """Attributes of a group: as they are, or under ``ome``."""
    return {"ome": {"version": version, **metadata}} if version >= "0.5" else metadata


def own_version(version: str) -> dict[str, str]:
    return {"version": version} if version < "0.5" else {}


CASES = {
    (version, kind): make(version)
    for version in VERSIONS
    for kind, make in (
        ("image", image), ("label", label), ("plate", plate), ("well", well), ("scene", scene),
    )
    if kind != "scene" or version >= "0.6"
}  # fmt: skip


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place within a document, except its root."""
    inner = list(value.items()) if isinstance(value, dict) else []
    inner = list(enumerate(value)) if isinstance(value, list) else inner
    found = [(*at, key) for key, _ in inner]
    for key, member in inner:
        found += places(member, (*at, key))
    return found


Choose = Callable[[Sequence[Any]], Any]
"""Picks one of several, by hypothesis or by a seed."""


@st.composite
def damaged(draw: Any, document: dict[str, Any]) -> dict[str, Any]:
    """`document` with one or two members dropped, replaced, repeated or added."""
    return damage(document, lambda options: draw(st.sampled_from(options)))


def damage(document: dict[str, Any], choose: Choose) -> dict[str, Any]:
    """As `damaged`, with choices made by `choose`."""
    document = copy.deepcopy(document)
    for _ in range(choose([1, 2])):
        found = places(document)
        if not found:
            break
        *path, last = choose(found)
        owner: Any = document
        for key in path:
            owner = owner[key]
        how = choose(["drop", "replace", "repeat", "add"])
        if how == "drop":
            del owner[last]
        elif how == "replace":
            owner[last] = copy.deepcopy(choose(JUNK))
        elif how == "repeat" and isinstance(owner, list):
            owner.append(copy.deepcopy(owner[last]))
        elif isinstance(owner[last], list):
            owner[last].append(copy.deepcopy(choose(JUNK)))
        elif isinstance(owner[last], dict):
            key = choose(["type", "name", "path", "version", "affine", "axes", "x"])
            owner[last][key] = copy.deepcopy(choose(JUNK))
    return document
