"""Data elements of a DICOM file (PS3.10), read forwards in a few requests, pixels never.

Spec: PS3.5, sections 7 (data elements, sequences of items) and A (transfer syntaxes); PS3.10,
section 7 (preamble and file meta information). Little endian only: big endian is retired.

A value of more than `MAX_VALUE_NBYTES` stays in the file: its place is noted. A sequence of
undefined length ends with a delimiter, so its items are walked; one of defined length may be
skipped. Sequences of unknown type and undefined length (``UN``) hold items of implicit type.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from zarrgpu.errors import MetadataError
from zarrgpu.formats.dicom_dictionary import representation_of, tag_name

if TYPE_CHECKING:
    from collections.abc import Callable

UNDEFINED_NBYTES: Final = 0xFFFFFFFF
MAX_VALUE_NBYTES: Final = 64 << 10
"""A larger value is not read before somebody asks for it."""

MAX_HEADER_NBYTES: Final = 1 << 28
"""What is read of one file before its pixels, at most; more is refused."""

PREAMBLE_NBYTES: Final = 128
MAGIC: Final = b"DICM"

ITEM: Final = 0xFFFEE000
SEQUENCE_END: Final = 0xFFFEE0DD

_HEAD_NBYTES: Final = 16 << 10
_LEAST_NBYTES: Final = 8 << 10
_MOST_NBYTES: Final = 1 << 20
_MAX_DEPTH: Final = 16
_MAX_ITEMS: Final = 1 << 16
_LONG: Final = frozenset(
    (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
)
"""Representations whose length has 32 bits in explicit syntaxes."""

_SHORT: Final = frozenset(
    (b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN",
     b"SH", b"SL", b"SS", b"ST", b"TM", b"UI", b"UL", b"US")
)  # fmt: skip

_SHORT_HEADER: Final = struct.Struct("<HH2sH")

ReadRange: TypeAlias = "Callable[[int, int], bytes]"
"""``(offset, nbytes)`` to exactly these bytes of the file, or an error."""


@dataclass(slots=True)
class Element:
    """One data element.

    Attributes
    ----------
    vr : str
        Value representation, two letters.
    offset : int
        First byte of the value.
    nbytes : int
        As stated, which may be `UNDEFINED_NBYTES`.
    value : bytes or None
        None where it was not read.
    items : list of dict
        Of a sequence.
    """

    vr: str
    offset: int
    nbytes: int
    value: bytes | None = None
    items: list[Elements] | None = None


Elements: TypeAlias = "dict[int, Element]"
"""Tag to element."""


def is_dicom(head: bytes) -> bool:
    """Whether a file's first bytes, at least 132, are those of a DICOM file.

    >>> is_dicom(bytes(128) + b"DICM")
    True
    """
    return head[PREAMBLE_NBYTES : PREAMBLE_NBYTES + 4] == MAGIC


class ElementReader:
    """Reads elements from `offset` on; what lies before cannot be read again.

    Parameters
    ----------
    read_range : callable
    size : int
        Bytes in the file.
    source : str
        Path or URL, for messages.
    """

    def __init__(self, read_range: ReadRange, size: int, *, source: str) -> None:
        self.size = size
        self.source = source
        self.explicit = True
        self._read_range = read_range
        self._start = 0
        self._block = b""
        self._total = 0
        self._path: list[str | int] = []

    def fail(self, message: str, tag: int | None = None) -> MetadataError:
        """Error about the element that is being read, or its member `tag`."""
        last = () if tag is None else (tag_name(tag),)
        return MetadataError(message, source=self.source, location=(*self._path, *last))

    def read(self, offset: int, nbytes: int, tag: int | None = None) -> bytes:
        """Bytes ``[offset, offset + nbytes)``; `MetadataError` if they leave the file."""
        at = offset - self._start
        if at < 0 or at + nbytes > len(self._block):
            self._fill(offset, nbytes, tag)
            at = 0
        return self._block[at : at + nbytes]

    def _fill(self, offset: int, nbytes: int, tag: int | None) -> None:
        if offset + nbytes > self.size:
            msg = (
                f"bytes {offset} to {offset + nbytes} lie beyond the end of the file "
                f"({self.size} bytes); the file is truncated or damaged"
            )
            raise self.fail(msg, tag)
        ahead = _LEAST_NBYTES if self._block else _HEAD_NBYTES - PREAMBLE_NBYTES
        if self._start <= offset <= self._start + len(self._block):
            ahead = max(ahead, min(2 * len(self._block), _MOST_NBYTES))
        wanted = min(max(nbytes, ahead), self.size - offset)
        self._total += wanted
        if self._total > MAX_HEADER_NBYTES:
            msg = f"more than {MAX_HEADER_NBYTES} bytes of data elements, which is not read"
            raise self.fail(msg, tag)
        block = bytes(self._read_range(offset, wanted))
        if len(block) != wanted:
            msg = f"asked for {wanted} bytes at {offset}, got {len(block)}; is the file changing?"
            raise self.fail(msg, tag)
        self._start, self._block = offset, block

    def header(self, offset: int, end: int) -> tuple[int, str, int, int]:
        """Tag, representation, stated length and value's offset of the element at `offset`."""
        place = offset - self._start
        if place < 0 or place + 8 > len(self._block):
            self._fill(offset, 8, None)
            place = 0
        group, element, vr, short = _SHORT_HEADER.unpack_from(self._block, place)
        tag = group << 16 | element
        if group == 0xFFFE or not self.explicit:
            nbytes = int.from_bytes(self._block[place + 4 : place + 8], "little")
            name = "" if group == 0xFFFE else representation_of(tag)
            at = offset + 8
        elif vr in _SHORT:
            name, nbytes, at = vr.decode(), short, offset + 8
        elif vr in _LONG:
            nbytes = int.from_bytes(self.read(offset + 8, 4, tag), "little")
            name, at = vr.decode(), offset + 12
        else:
            msg = f"{vr!r} at byte {offset + 4} is no value representation; the file is damaged"
            raise self.fail(msg, tag)
        if nbytes != UNDEFINED_NBYTES and at + nbytes > end:
            what = "the file" if end == self.size else "what it is part of"
            msg = (
                f"its {nbytes} bytes from {at} on lie beyond the end of {what} ({end}); the file "
                "is truncated or damaged"
            )
            raise self.fail(msg, tag)
        return tag, name, nbytes, at

    def element(self, offset: int, end: int) -> tuple[int, Element, int]:
        """Tag and element at `offset`, and where the next one begins."""
        tag, vr, nbytes, at = self.header(offset, end)
        if tag >> 16 == 0xFFFE:
            raise self.fail(f"item or delimiter at byte {offset}, where there is no sequence", tag)
        if vr == "SQ" or (nbytes == UNDEFINED_NBYTES and vr == "UN"):
            return self._sequence(tag, vr, nbytes, at, end)
        if nbytes == UNDEFINED_NBYTES:
            raise self.fail(f"{vr} of undefined length, which only sequences and pixels have", tag)
        value = self.read(at, nbytes, tag) if nbytes <= MAX_VALUE_NBYTES else None
        return tag, Element(vr, at, nbytes, value), at + nbytes

    def _sequence(
        self, tag: int, vr: str, nbytes: int, at: int, end: int
    ) -> tuple[int, Element, int]:
        explicit, self.explicit = self.explicit, self.explicit and vr == "SQ"
        items: list[Elements] = []

        def take(item: Elements) -> None:
            if len(items) == _MAX_ITEMS:
                raise self.fail(f"more than {_MAX_ITEMS} items")
            items.append(item)

        stop = self.walk_items(tag, nbytes, at, end, take)
        self.explicit = explicit
        return tag, Element("SQ", at, nbytes, None, items), stop

    def walk_items(
        self, tag: int, nbytes: int, at: int, end: int, take: Callable[[Elements], None]
    ) -> int:
        """Give the items of a sequence to `take` one by one; return the offset behind it."""
        defined = nbytes != UNDEFINED_NBYTES
        end = at + nbytes if defined else end
        self._path += [tag_name(tag), 0]
        if len(self._path) > 2 * _MAX_DEPTH:
            raise self.fail(f"sequences are nested more than {_MAX_DEPTH} deep")
        number = 0
        while at < end or not defined:
            self._path[-1] = number
            kind, _, length, at = self.header(at, end)
            if kind == SEQUENCE_END and not defined:
                break
            if kind != ITEM:
                raise self.fail(f"element {tag_name(kind)} before byte {at}, expected an item")
            item, at = self._dataset(length, at, end)
            take(item)
            number += 1
        del self._path[-2:]
        return at

    def _dataset(self, nbytes: int, at: int, end: int) -> tuple[Elements, int]:
        """Elements of one item, and the offset behind it."""
        defined = nbytes != UNDEFINED_NBYTES
        end = at + nbytes if defined else end
        found: Elements = {}
        while at < end or not defined:
            if not defined and self.read(at, 4) == b"\xfe\xff\x0d\xe0":
                at += 8
                break
            tag, element, at = self.element(at, end)
            found[tag] = element
        return found, at
