"""Values of DICOM data elements: numbers and texts, checked, and as OpenSlide's properties.

Spec: PS3.5, section 6.2 (value representations). Which values are split at backslashes, and how
numbers are written, is OpenSlide's (libdicom's) choice, so that properties are the same.
"""

from __future__ import annotations

import math
import re
import struct
from typing import TYPE_CHECKING, Final

from zarrgpu.errors import MetadataError
from zarrgpu.formats.dicom_dictionary import keyword_of, tag_name
from zarrgpu.formats.slide_properties import number_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from zarrgpu.formats.dicom_elements import Element, Elements

_INTEGERS: Final[Mapping[str, str]] = {
    "AT": "H", "SL": "i", "SS": "h", "SV": "q", "UL": "I", "US": "H", "UV": "Q",
}  # fmt: skip
"""Representation -> `struct` format; a tag (AT) is two numbers of 16 bits."""

_DECIMALS: Final[Mapping[str, str]] = {"FD": "d", "FL": "f"}
_TEXTS_SPLIT: Final = frozenset(("AE", "AS", "CS", "DA", "DS", "DT", "IS", "PN", "SH", "TM", "UI"))
_TEXTS_WHOLE: Final = frozenset(("LO", "LT", "ST", "UC", "UR", "UT"))
_INTEGER_TEXT: Final = re.compile(r"[+-]?[0-9]{1,12}")
_MAX_VALUES: Final = 4096
"""Values of one element that become properties."""


def split_texts(element: Element) -> list[str]:
    """Texts of an element that may have several; one byte of padding is dropped, as by libdicom.

    Not UTF-8 is taken for Latin-1, the most common of the other character sets.
    """
    raw = (element.value or b"").removesuffix(b" ").split(b"\0")[0]
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    if element.vr in _TEXTS_WHOLE:
        return [text]
    return text.split("\\")


def numbers(element: Element) -> list[int] | list[float] | None:
    """Binary numbers of an element; None if its length is not a multiple of theirs."""
    code = _INTEGERS.get(element.vr) or _DECIMALS.get(element.vr)
    raw = element.value
    if code is None or raw is None:
        return None
    nbytes = struct.calcsize(code)
    if len(raw) % nbytes:
        return None
    return list(struct.unpack(f"<{len(raw) // nbytes}{code}", raw))


class Attributes:
    """Elements of a data set, or of an item of a sequence, by tag.

    Parameters
    ----------
    elements : mapping of int to Element
    source : str
        Path or URL, for messages.
    location : tuple of (str or int)
        Where the data set is in the file.
    """

    def __init__(
        self, elements: Elements, source: str, location: tuple[str | int, ...] = ()
    ) -> None:
        self.elements = elements
        self.source = source
        self.location = location

    def fail(self, tag: int, message: str, kind: str = "value") -> MetadataError:
        """Error about an element."""
        location = (*self.location, tag_name(tag))
        return MetadataError(message, source=self.source, location=location, kind=kind)

    def texts(self, tag: int) -> list[str]:
        """Texts of an element, each without blanks around it; empty if it is absent or empty."""
        element = self.elements.get(tag)
        if element is None or not element.nbytes:
            return []
        if element.value is None or element.vr not in _TEXTS_SPLIT | _TEXTS_WHOLE:
            message = f"{element.nbytes} bytes of type {element.vr}, expected a short text"
            raise self.fail(tag, message)
        return [text.strip(" ") for text in split_texts(element)]

    def text(self, tag: int) -> str:
        """First text of an element, or an empty one."""
        return next(iter(self.texts(tag)), "")

    def required_text(self, tag: int) -> str:
        """First text of an element; `MetadataError` if there is none."""
        text = self.text(tag)
        if not text:
            raise self.fail(tag, "is missing or empty", "missing")
        return text

    def integer(self, tag: int, least: int, most: int, default: int | None = None) -> int:
        """Integer of an element, within bounds; without a default it must be there."""
        element = self.elements.get(tag)
        if element is None or not element.nbytes:
            if default is None:
                raise self.fail(tag, "is missing or empty", "missing")
            return default
        if element.vr == "IS":
            text = self.text(tag)
            value = int(text) if _INTEGER_TEXT.fullmatch(text) else None
        else:
            found = numbers(element) if element.vr in _INTEGERS else None
            value = int(found[0]) if found else None
        if value is None:
            shown = repr(element.value)[:40]
            raise self.fail(tag, f"expected an integer, got {shown} ({element.vr})", "type")
        if not least <= value <= most:
            raise self.fail(tag, f"expected {least} to {most}, got {value}")
        return value

    def items(self, tag: int) -> list[Attributes]:
        """Items of a sequence; none if it is absent."""
        element = self.elements.get(tag)
        if element is None:
            return []
        if element.items is None:
            raise self.fail(tag, f"expected a sequence, got {element.vr}", "type")
        location = (*self.location, tag_name(tag))
        return [
            Attributes(item, self.source, (*location, index))
            for index, item in enumerate(element.items)
        ]


def decimal(text: str) -> float | None:
    """Finite number of a decimal string; None if the whole text is not one."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def properties(elements: Elements, prefix: str = "dicom") -> Iterator[tuple[str, str]]:
    """Names and texts of all values whose elements have keywords, as OpenSlide gives them.

    Binary values are left out, and what was too large to be read.
    """
    for tag, element in elements.items():
        keyword = keyword_of(tag)
        if keyword is None:
            continue
        name = f"{prefix}.{keyword}"
        if element.items is not None:
            for index, item in enumerate(element.items):
                yield from properties(item, f"{name}[{index}]")
            continue
        values = _value_texts(element)
        if len(values) == 1:
            yield name, values[0]
            continue
        for index, value in enumerate(values[:_MAX_VALUES]):
            yield f"{name}[{index}]", value


def _value_texts(element: Element) -> list[str]:
    if element.value is None:
        return []
    if element.vr in _TEXTS_SPLIT | _TEXTS_WHOLE:
        return split_texts(element)
    found = numbers(element)
    if found is None:
        return []
    return [number_text(n) if isinstance(n, float) else str(n) for n in found]
