"""Fields of plates and wells of high-content screening, version by version.

Source: ``plate.schema`` and ``well.schema`` of OME-NGFF 0.1 to 0.6
(https://ngff.openmicroscopy.org).
"""

from __future__ import annotations

from zarrgpu.formats.ngff_schema import Fields, Items, Number, Rule, Text, recommended, versioned

_OLD = ("0.1", "0.2", "0.3")
_STRING = Text()
_NAME = Text(pattern="[A-Za-z0-9]+")
_POSITIVE = Number(integer=True, above=0)
_INDEX = Number(integer=True, least=0)


def plate_fields(version: str, *, strict: bool) -> Rule:
    """Rule of ``plate``."""
    if version in _OLD:
        return _old_plate(version)
    acquisition = Fields(
        rules={
            "id": _INDEX, "maximumfieldcount": _POSITIVE, "name": _STRING, "description": _STRING,
            "starttime": _INDEX, "endtime": _INDEX,
        },
        required=("id", *recommended(version, "name", "maximumfieldcount", strict=strict)),
    )  # fmt: skip
    line = Items(item=Fields(rules={"name": _NAME}, required=("name",)), least=1, distinct=True)
    path = Text(pattern="[A-Za-z0-9]+/[A-Za-z0-9]+")
    well = Fields(
        rules={"path": path, "rowIndex": _INDEX, "columnIndex": _INDEX},
        required=("path", "rowIndex", "columnIndex"),
    )
    rules: dict[str, Rule] = {
        "acquisitions": Items(item=acquisition), "field_count": _POSITIVE, "name": _STRING,
        "columns": line, "rows": line, "wells": Items(item=well, least=1, distinct=True),
    }  # fmt: skip
    required = ("columns", "rows", "wells", *recommended(version, "name", "version", strict=strict))
    return Fields(rules=versioned(version, rules), required=required)


def _old_plate(version: str) -> Rule:
    whole = Number(integer=version != "0.1")
    times: dict[str, Rule] = {"starttime": Number()}
    if version != "0.1":
        times = {"starttime": _INDEX, "endtime": _INDEX}
    acquisition = Fields(
        rules={
            "id": whole, "maximumfieldcount": whole, "name": _STRING, "description": _STRING,
            **times,
        },
        required=("id",),
    )  # fmt: skip
    line = Items(item=Fields(rules={"name": _STRING}, required=("name",)), least=1, distinct=True)
    well = Fields(rules={"path": _STRING}, required=("path",))
    rules: dict[str, Rule] = {
        "acquisitions": Items(item=acquisition, least=1, distinct=True), "name": _STRING,
        "columns": line, "rows": line, "wells": Items(item=well, least=1, distinct=True),
    }  # fmt: skip
    required = ("version", "columns", "rows", "wells")
    return Fields(rules=versioned(version, rules), required=required)


def well_fields(version: str, *, strict: bool) -> Rule:
    """Rule of ``well``."""
    path = Text(pattern="[A-Za-z0-9]+")
    if version >= "0.6":
        path = Text(pattern="[A-Za-z0-9_.-]+", unlike=r"\.+\Z|__", least=1)
    image = Fields(rules={"acquisition": Number(integer=True), "path": path}, required=("path",))
    rules: dict[str, Rule] = {"images": Items(item=image, least=1, distinct=True)}
    required = ("images", *recommended(version, "version", strict=strict))
    return Fields(rules=versioned(version, rules), required=required)
