"""All problems of a group's OME-Zarr metadata at once, from its attributes alone.

First the fields, by the tables of `ngff_fields`; then what those parts that are right must be to
each other, by `ngff_rules`. Nothing is raised: a document can be wrong in many places, and a person
who repairs it wants to know them all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from zarrgpu.formats.document import Document, shown
from zarrgpu.formats.ngff_fields import KINDS, fields_of
from zarrgpu.formats.ngff_rules import Sound, more_problems
from zarrgpu.formats.ngff_schema import Problem, Problems, problem
from zarrgpu.formats.ngff_version import (
    is_nested,
    metadata_of,
    release_of,
    stated_versions,
    version_of,
)


def kinds_of(attributes: Mapping[str, Any]) -> tuple[str, ...]:
    """Kinds of OME-Zarr metadata that attributes hold, such as ``("image", "label")``."""
    metadata = metadata_of(attributes, "")
    return tuple(kind for member, kind in KINDS.items() if member in metadata.value)


def validate_attributes(
    attributes: Any, *, kind: str | None = None, strict: bool = False, source: str = ""
) -> tuple[Problem, ...]:
    """Every problem of a group's attributes, as OME-Zarr metadata of the version that they state.

    Parameters
    ----------
    attributes : mapping
        Of a group: ``.zattrs``, or ``attributes`` of ``zarr.json``.
    kind : str, optional
        What they must describe: image, label, plate, well, scene, labels, series, bioformats2raw.
        By default whatever is there, and it is a problem if nothing is.
    strict : bool
        Whether what the specification recommends (SHOULD) must be there too.
    source : str
        For the problems.
    """
    try:
        found = tuple(_problems(attributes, kind, strict=strict))
    except RecursionError:
        found = (problem((), "value", "is nested too deeply"),)
    return tuple(replace(each, source=source) for each in found)


def _problems(attributes: Any, kind: str | None, *, strict: bool) -> Problems:
    if not isinstance(attributes, Mapping):
        yield problem((), "type", f"expected an object, got {shown(attributes)}")
        return
    metadata = metadata_of(attributes, "")
    kinds = (kind,) if kind else kinds_of(attributes)
    if not kinds:
        wanted = ", ".join(KINDS)
        yield problem(metadata.location, "missing", f"has no OME-Zarr metadata: none of {wanted}")
        return
    release = release_of(version_of(metadata))
    yield from _version_problems(metadata, release)
    for each in kinds:
        yield from _kind_problems(metadata, each, release or "0.4", strict=strict)


def _version_problems(metadata: Document, release: str | None) -> Problems:
    """One version, that is known, that lies where it belongs."""
    nested = is_nested(metadata)
    for place, version in stated_versions(metadata):
        own = release_of(version)
        at = (*metadata.location, *place)
        if not isinstance(version, str):
            yield problem(at, "type", f"expected a string, got {shown(version)}")
        elif own is None:
            yield problem(at, "value", f"is a version that is not known: {shown(version)}")
        elif nested != (own >= "0.5"):
            message = f"is {version}: metadata lies under 'ome' since 0.5, and not before"
            yield problem(at, "value", message)
        elif own != release:
            yield problem(at, "value", f"is {version}, and another object says {release}")


def _kind_problems(metadata: Document, kind: str, release: str, *, strict: bool) -> Problems:
    nested = is_nested(metadata)
    version = release if nested == (release >= "0.5") else ("0.5" if nested else "0.4")
    value = metadata.value if not _is_preview(metadata) else with_objects(metadata.value)
    rule = fields_of(kind, version, strict=strict)
    found = [
        each
        for each in rule.problems(value, metadata.location)
        if each.location[-1:] != ("version",) or each.kind == "missing"
    ]
    yield from found
    yield from more_problems(kind, version, value, metadata.location, Sound(found))


def _is_preview(metadata: Document) -> bool:
    version = metadata.value.get("version")
    return isinstance(version, str) and version.startswith(("0.6.dev", "0.6-dev", "0.6dev"))


def with_objects(value: Any, key: str = "") -> Any:
    """Metadata of a development version of 0.6 as 0.6 writes it.

    Coordinate systems that are named by a string become objects, and ``input_axes`` is renamed.
    """
    if isinstance(value, Mapping):
        names = {"input_axes": "inputAxes", "output_axes": "outputAxes"}
        return {names.get(name, name): _end(name, member, value) for name, member in value.items()}
    if isinstance(value, list):
        return [with_objects(item, key) for item in value]
    return value


def _end(name: str, member: Any, owner: Mapping[str, Any]) -> Any:
    if name in ("input", "output") and isinstance(member, str) and "type" in owner:
        return {"name": member, "path": member} if name == "input" else {"name": member}
    return with_objects(member, name)
