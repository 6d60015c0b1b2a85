"""Law: metadata is refused exactly where the official suites and schemas of OME-Zarr refuse it,
with every problem and its place; whatever is in a document, judging it never raises.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from tests.ngff_cases import CASES, axes_of, damaged, datasets_06, edge, image, plate, system, wrap
from zarrgpu.formats.ngff_fields import fields_of
from zarrgpu.formats.ngff_validation import kinds_of, validate_attributes

SCHEMAS = json.loads((Path(__file__).parent / "data/ngff-schemas.json").read_text())["schemas"]
REGISTRY = Registry().with_resources(
    (schema["$id"], Resource.from_contents(schema, default_specification=DRAFT202012))
    for schemas in SCHEMAS.values()
    for schema in schemas.values()
)

MAX_EXAMPLES = 60
SUITES = {"0.4": (92, 22), "0.5": (86, 21)}
"""Cases of each official suite, and how many of them are valid."""


def places_of(problems: Any) -> list[str]:
    return [".".join(map(str, each.location)) for each in problems]


# ---------------------------------------------------------------------------------- official suites


@pytest.mark.parametrize("version", SUITES)
def test_the_official_suites_pass_completely(shared_data, version):
    folder = shared_data / "ngff" / version
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    judged, valid = 0, 0
    for path in sorted(folder.glob("*_suite.json")):
        name = path.name.removesuffix("_suite.json")
        for case in json.loads(path.read_text())["tests"]:
            kind = name.removeprefix("strict_")
            found = validate_attributes(
                case["data"], kind=kind, strict=name.startswith("strict_"), source="s"
            )
            assert (not found) == case["valid"], (path.name, case["formerly"], found)
            assert all(p.message and p.source == "s" for p in found)
            judged, valid = judged + 1, valid + case["valid"]
    assert (judged, valid) == SUITES[version]


# ------------------------------------------------------------------------------------- JSON Schemas


def official(version: str, kind: str, attributes: Any) -> bool:
    """Verdict of the JSON Schema of a version and kind."""
    schema = SCHEMAS[version].get(kind) or SCHEMAS["0.4"][kind]
    return Draft202012Validator(schema, registry=REGISTRY).is_valid(attributes)


def ours(version: str, kind: str, attributes: Any, *, strict: bool = False) -> bool:
    """Verdict of the table of fields alone, without the rules of the text."""
    value = attributes["ome"] if version >= "0.5" else attributes
    rule = fields_of(kind, version, strict=strict)
    return not list(rule.problems(value, ()))


WITH_SCHEMA = [(v, k) for v, k in CASES if k != "label" or v >= "0.4"]


def test_every_kind_of_every_version_has_a_schema():
    assert len(WITH_SCHEMA) == 22
    assert all(kind in SCHEMAS[version] for version, kind in WITH_SCHEMA)


@pytest.mark.parametrize(("version", "kind"), CASES)
def test_what_is_valid_is_valid_to_all(version, kind):
    document = CASES[version, kind]
    assert kinds_of(document) == (kind,)
    assert validate_attributes(document) == ()
    if (version, kind) in WITH_SCHEMA:
        assert official(version, kind, document)


def untyped(value: Any, at: tuple[Any, ...] = ()) -> bool:
    """Whether an axis or transformation has no type of its own.

    There the schemas follow no text: an axis without one counts as space in 0.4, and one with a
    unit that is no text does not; a transformation without one is an identity.
    """
    if isinstance(value, list):
        return any(untyped(item, (*at, i)) for i, item in enumerate(value))
    if not isinstance(value, dict):
        return False
    listed = len(at) >= 2 and at[-2] in ("axes", "coordinateTransformations", "transformations")
    single = at[-1:] in (("transformation",), ("forward",), ("inverse",))
    if (listed or single) and not isinstance(value.get("type"), str) and "inputAxes" not in value:
        return True
    if not isinstance(value.get("unit", ""), str):
        return True
    return any(untyped(member, (*at, name)) for name, member in value.items())


def either(value: Any) -> bool:
    """Whether a matrix is given twice, in place and by path: the schemas overlook a wrong path."""
    if isinstance(value, list):
        return any(map(either, value))
    if not isinstance(value, dict):
        return False
    return ("path" in value and ("affine" in value or "rotation" in value)) or any(
        map(either, value.values())
    )


@pytest.mark.parametrize(("version", "kind"), WITH_SCHEMA)
@settings(max_examples=MAX_EXAMPLES, deadline=None)
@given(data=st.data())
def test_damaged_metadata_is_judged_as_the_schema_judges_it(version, kind, data):
    document = CASES[version, kind]
    nested = version >= "0.5"
    inner = data.draw(damaged(document["ome"] if nested else document))
    attributes = {"ome": inner} if nested else inner
    assert isinstance(validate_attributes(attributes), tuple)
    stated = (inner.get("version") == version) if nested else True
    member = {"image": "multiscales", "label": "image-label"}.get(kind, kind)
    # up to 0.4 the schemas of label, plate and well are satisfied by a group that has none
    if not stated or member not in inner or untyped(inner) or either(inner):
        return
    if any(word in json.dumps(inner) for word in ("NaN", "Infinity")):  # no JSON: ours refuse it
        return
    assert ours(version, kind, attributes) == official(version, kind, attributes)


@pytest.mark.parametrize("version", ["0.4", "0.5", "0.6"])
@pytest.mark.parametrize("kind", ["image", "label", "plate", "well"])
def test_strict_is_the_strict_schema(version, kind):
    document = copy.deepcopy(CASES[version, kind])
    if kind == "plate":
        owner = document["ome"] if version >= "0.5" else document
        owner["plate"]["acquisitions"].pop()
    full = copy.deepcopy(document)
    owner = full["ome"] if version >= "0.5" else full
    if kind == "image":
        owner["multiscales"][0] |= {"type": "mean", "metadata": {}}
    assert official(version, f"strict_{kind}", full)
    assert validate_attributes(full, strict=True) == ()
    member = owner[{"image": "multiscales", "label": "image-label"}.get(kind, kind)]
    targets = [member[0]] if kind == "image" else [member]
    for target in targets + (member["acquisitions"] if kind == "plate" else []):
        for name in list(target):
            value = target.pop(name)
            expected = official(version, f"strict_{kind}", full)
            assert ours(version, kind, full, strict=True) == expected, name
            target[name] = value


# -------------------------------------------------------------------------------- rules of the text


def test_all_problems_come_at_once_with_their_places():
    document = image("0.5")
    ome = document["ome"]
    ome["multiscales"][0]["axes"][2].pop("name")
    ome["multiscales"][0]["datasets"][1]["path"] = 7
    ome["multiscales"][0]["datasets"][0]["coordinateTransformations"][0]["scale"] = ["a", 1]
    ome["omero"]["channels"][1]["window"]["end"] = "9"
    ome["image-label"] = {"colors": [{"rgba": [0, 0, 0, 999]}]}
    found = validate_attributes(document, source="s3://b/i.zarr")
    assert sorted((".".join(map(str, p.location)), p.kind) for p in found) == [
        ("ome.image-label.colors.0.label-value", "missing"),
        ("ome.image-label.colors.0.rgba.3", "value"),
        ("ome.multiscales.0.axes.2.name", "missing"),
        ("ome.multiscales.0.datasets.0.coordinateTransformations.0.scale.0", "type"),
        ("ome.multiscales.0.datasets.1.path", "type"),
        ("ome.omero.channels.1.window.end", "type"),
    ]
    assert all(p.source == "s3://b/i.zarr" for p in found)
    (wrong,) = [p for p in found if p.location[-2:] == ("datasets", 1) or p.location[-1] == "path"]
    assert str(wrong) == (
        "s3://b/i.zarr: ome.multiscales.0.datasets.1.path expected a string, got 7"
    )


def test_what_is_wrong_with_a_field_hides_no_problem_of_the_parts_beside_it():
    document = image("0.5")
    ome = document["ome"] | plate("0.5")["ome"]
    ome["multiscales"][0]["axes"][3] = {"name": "y", "type": "space"}
    ome["multiscales"][0]["datasets"][0]["coordinateTransformations"][0]["scale"] = [1, 1]
    ome["multiscales"][0]["datasets"][1]["path"] = 7
    ome["multiscales"].append({"axes": 3})
    ome["omero"]["channels"][0]["window"]["min"] = "0"
    ome["omero"]["channels"][1]["color"] = "#FF8000"
    ome["plate"]["rows"][0] = {}
    ome["plate"]["acquisitions"][1]["id"] = 0
    assert sorted(places_of(validate_attributes({"ome": ome}))) == [
        "ome.multiscales.0.axes.3",
        "ome.multiscales.0.datasets.0.coordinateTransformations.0.scale",
        "ome.multiscales.0.datasets.1.path",
        "ome.multiscales.1.axes",
        "ome.multiscales.1.datasets",
        "ome.omero.channels.0.window.min",
        "ome.omero.channels.1.color",
        "ome.plate.acquisitions.1",
        "ome.plate.rows.0.name",
    ]


def changed(version: str, kind: str, path: str, value: Any) -> dict[str, Any]:
    document = copy.deepcopy(CASES[version, kind])
    *parts, last = [int(p) if p.isdigit() else p for p in path.split(".")]
    owner: Any = document
    for part in parts:
        owner = owner[part]
    owner[last] = value
    return document


M5, M6 = "ome.multiscales.0", "ome.multiscales.0"
SHIFT = {"type": "translation", "translation": [0, 0, 0, 0]}


@pytest.mark.parametrize(
    ("version", "kind", "path", "value", "place"),
    [
        ("0.5", "image", f"{M5}.axes.3.name", "y", f"{M5}.axes.3"),
        ("0.5", "image", f"{M5}.axes.0.type", "space", f"{M5}.axes"),
        ("0.5", "image", f"{M5}.datasets.0.coordinateTransformations.0.scale", [1, 1],
         f"{M5}.datasets.0.coordinateTransformations.0.scale"),
        ("0.5", "image", f"{M5}.datasets.0.coordinateTransformations",
         [SHIFT, {"type": "scale", "scale": [1] * 4}],
         f"{M5}.datasets.0.coordinateTransformations"),
        ("0.5", "label", "ome.image-label.colors.1.label-value", 1, "ome.image-label.colors.1"),
        ("0.5", "image", "ome.omero.channels.1", {"color": "FF8000"},
         "ome.omero.channels.1.window"),
        ("0.6", "image", "ome.omero.channels.0.color", "#0000FF", "ome.omero.channels.0.color"),
        ("0.4", "image", "omero.channels.0.color", "blue", "omero.channels.0.color"),
        ("0.5", "plate", "ome.plate.wells.1.columnIndex", 1, "ome.plate.wells.1.path"),
        ("0.5", "plate", "ome.plate.wells.1.columnIndex", 3, "ome.plate.wells.1.columnIndex"),
        ("0.5", "plate", "ome.plate.acquisitions.1.id", 0, "ome.plate.acquisitions.1"),
        ("0.5", "well", "ome.well.images.1.path", "0", "ome.well.images.1"),
        ("0.6", "image", f"{M6}.coordinateSystems.1.name", "physical", f"{M6}.coordinateSystems.1"),
        ("0.6", "image", f"{M6}.datasets.1.coordinateTransformations.0.output.name", "other",
         f"{M6}.datasets.1.coordinateTransformations.0.output.name"),
        ("0.6", "image", f"{M6}.datasets.1.coordinateTransformations.0.scale", [1],
         f"{M6}.datasets.1.coordinateTransformations.0.scale"),
        ("0.6", "image", f"{M6}.coordinateTransformations.0.output.name", "no",
         f"{M6}.coordinateTransformations.0.output.name"),
        ("0.6", "scene", "ome.scene.coordinateTransformations.0.output.name", "no",
         "ome.scene.coordinateTransformations.0.output.name"),
        ("0.4", "image", "multiscales.0.version", "foo", "multiscales.0.version"),
        ("0.4", "image", "multiscales.0.version", "0.5", "multiscales.0.version"),
        ("0.5", "image", "ome.version", "0.9.dev1", "ome.version"),
        ("0.5", "image", "ome.version", "0.4", "ome.version"),
        ("0.5", "image", "ome.version", 0.5, "ome.version"),
    ],
)  # fmt: skip
def test_what_the_text_demands_is_demanded(version, kind, path, value, place):
    found = validate_attributes(changed(version, kind, path, value))
    assert place in places_of(found), found


def test_systems_of_an_array_with_the_physical_one_behind_are_valid():
    arrays = [{"name": f"dim_{i}", "type": "array"} for i in range(2)]
    document = {
        "coordinateSystems": [system("physical", axes_of("yx")), system("pixels", arrays)],
        "datasets": datasets_06([[1.0, 1.0]], "pixels"),
        "coordinateTransformations": [edge("scale", "pixels", "physical", scale=[2.0, 0.5])],
    }
    attributes = wrap("0.6", multiscales=[document])
    assert validate_attributes(attributes) == ()
    assert official("0.6", "image", attributes)


def test_development_versions_of_0_6_name_systems_by_strings():
    document = image("0.6")
    text = json.dumps(document)
    for name in ("physical", "other"):
        text = text.replace(f'{{"name": "{name}"}}', f'"{name}"')
    text = text.replace('{"path": "s0"}', '"s0"').replace('{"path": "s1"}', '"s1"')
    older = json.loads(text)
    assert older != document
    older["ome"]["version"] = "0.6.dev3"
    assert validate_attributes(older) == ()
    older["ome"]["version"] = "0.6"
    assert len(validate_attributes(older)) > 10


@pytest.mark.parametrize("value", [None, [], 5, "x", {}, {"ome": {}}, {"ome": 5}, {"a": 1}])
def test_no_metadata_is_a_problem(value):
    (found,) = validate_attributes(value)
    assert found.kind in ("missing", "type")


def test_depth_is_a_problem_not_a_crash():
    step: dict[str, Any] = {"type": "identity"}
    for _ in range(5000):
        step = {"type": "sequence", "transformations": [step]}
    document = image("0.6")
    document["ome"]["multiscales"][0]["coordinateTransformations"] = [
        {**edge("", "physical", "other"), **step}
    ]
    found = validate_attributes(document)
    assert any("deep" in p.message for p in found)


def test_a_plate_whose_rows_hold_anything_is_judged_by_its_well_paths():
    document = plate("0.5")
    for bad in ("A/1/2", "A1", "A/", "/1", "A\n/1", "A/1\n", "Ä/1"):
        document["ome"]["plate"]["wells"][0]["path"] = bad
        assert places_of(validate_attributes(document)) == ["ome.plate.wells.0.path"], bad
