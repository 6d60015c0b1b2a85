"""Which version of OME-Zarr a group's attributes are of, and where in them the metadata lies.

Since 0.5 the metadata is under ``ome``, with one ``version``. Up to 0.4 it is at the top, and each
object may carry a version of its own. Rules for what is not plain:

- a release candidate or development version of 0.6 (``0.6rc0``, ``0.6.dev3``) is read as 0.6; those
  before dev4 name coordinate systems by a string where 0.6 has an object;
- metadata of before 0.5 without a version is 0.4 if its axes are objects, else the oldest that has
  what is there;
- any other version is refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from zarrgpu.errors import UnsupportedFormatError
from zarrgpu.formats.document import Document, shown

VERSIONS = ("0.1", "0.2", "0.3", "0.4", "0.5", "0.6")
_PREVIEW = re.compile(r"0\.6(?:rc\d+|\.?-?dev\d*)")


def metadata_of(attributes: Mapping[str, Any], source: str) -> Document:
    """Give the object that holds a group's OME-Zarr metadata: ``ome``, or the attributes."""
    root = Document(source, attributes)
    ome = attributes.get("ome")
    return root.child("ome", ome) if isinstance(ome, Mapping) else root


def is_nested(metadata: Document) -> bool:
    """Whether the metadata lies under ``ome``, as it does since 0.5."""
    return metadata.location == ("ome",)


def release_of(version: Any) -> str | None:
    """Version by whose rules a stated one is read; None for one that is not read.

    >>> release_of("0.4"), release_of("0.6.dev3"), release_of("0.9.dev1")
    ('0.4', '0.6', None)
    """
    text = stated(version)
    if text in VERSIONS:
        return text
    # patch releases of the specification (0.1.1, say) change no field
    if re.fullmatch(r"0\.[1-5]\.\d+", text):
        return text.rpartition(".")[0]
    return "0.6" if _PREVIEW.fullmatch(text) else None


def stated(version: Any) -> str:
    """A version as it stands; a number, as some writers put it, in digits."""
    return version if isinstance(version, str) else shown(version)


def release(version: Any, source: str) -> str:
    """As `release_of`; a version that is not read is an error."""
    found = release_of(version)
    if found is None:
        msg = (
            f"{source!r}: OME-Zarr version {shown(version)} is not read yet, only 0.1 to 0.6; "
            "open its arrays one by one"
        )
        raise UnsupportedFormatError(msg)
    return found


def stated_versions(metadata: Document) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Places and values of the versions that metadata states, in the order of its kinds."""
    if is_nested(metadata):
        if "version" in metadata.value:
            yield ("version",), metadata.value["version"]
        return
    images = metadata.value.get("multiscales")
    for index, image in enumerate(images if isinstance(images, list) else ()):
        if isinstance(image, Mapping) and "version" in image:
            yield ("multiscales", index, "version"), image["version"]
    for name in ("image-label", "plate", "well"):
        value = metadata.value.get(name)
        if isinstance(value, Mapping) and "version" in value:
            yield (name, "version"), value["version"]


def version_of(metadata: Document) -> Any:
    """Version that metadata states first, or that it must be of."""
    for _, version in stated_versions(metadata):
        return version
    if is_nested(metadata):
        return "0.5"
    images = metadata.value.get("multiscales")
    image = images[0] if isinstance(images, list) and images else None
    axes = image.get("axes") if isinstance(image, Mapping) else []
    if isinstance(axes, list) and all(isinstance(axis, str) for axis in axes) and axes:
        return "0.3"
    return "0.1" if axes is None else "0.4"
