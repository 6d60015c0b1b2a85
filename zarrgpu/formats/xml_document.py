"""Reading the XML that slides carry: bounded, without entities, with an error that says where."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from zarrgpu.errors import MetadataError

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element


def parse_xml(text: str, *, source: str, location: tuple[str | int, ...]) -> Element:
    """Root element of a document.

    Document types are refused: slides have none, and entities can grow without bound.

    Raises
    ------
    MetadataError
        At `location` of `source`.
    """
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        msg = "XML with a document type or entities is not read"
        raise MetadataError(msg, source=source, location=location, kind="syntax")
    try:
        # the text is decoded already, whatever encoding the document claims
        return ET.fromstring(text.strip().encode("utf-8", "replace"), _utf8_parser())
    except (ET.ParseError, RecursionError, ValueError) as error:
        msg = f"not XML: {error}"
        raise MetadataError(msg, source=source, location=location, kind="syntax") from error


def _utf8_parser() -> ET.XMLParser:
    return ET.XMLParser(encoding="utf-8")


def local_name(element: Element) -> str:
    """Tag without its namespace."""
    return str(element.tag).rpartition("}")[2]


def children(element: Element, *names: str) -> list[Element]:
    """Elements below `element` by the local names of a path.

    >>> root = ET.fromstring("<a><b><c/><c/></b><b><c/></b><d/></a>")
    >>> len(children(root, "b", "c"))
    3
    """
    found = [element]
    for name in names:
        found = [child for parent in found for child in parent if local_name(child) == name]
    return found


def text_of(element: Element, *names: str) -> str | None:
    """Text of the first element of a path, None if there is none or it is empty."""
    found = children(element, *names)
    return (found[0].text or "").strip() or None if found else None
