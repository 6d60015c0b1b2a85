"""One DICOM file: its data elements up to the pixels, and where the frames of a slide lie.

Spec: PS3.10, section 7; PS3.3, C.7.6.16 (functional groups), C.8.12.6.1 (plane positions). What
every frame says of itself is read item by item and not kept, but for the frame's place.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final

from zarrgpu.errors import UnsupportedFormatError
from zarrgpu.formats.dicom_elements import (
    MAGIC,
    PREAMBLE_NBYTES,
    UNDEFINED_NBYTES,
    Element,
    ElementReader,
)
from zarrgpu.formats.dicom_syntaxes import BIG_ENDIAN, DEFLATED, IMPLICIT, syntax_name
from zarrgpu.formats.dicom_values import Attributes, decimal, split_texts

if TYPE_CHECKING:
    from zarrgpu.formats.dicom_elements import Elements, ReadRange

TRANSFER_SYNTAX_UID: Final = 0x00020010
SERIES_INSTANCE_UID: Final = 0x0020000E
DIMENSION_ORGANIZATION_TYPE: Final = 0x00209311

_PER_FRAME: Final = 0x52009230
_PLANE_POSITION: Final = 0x0048021A
_COLUMN, _ROW, _Z_OFFSET = 0x0048021E, 0x0048021F, 0x0040074A
_PATH_IDENTIFICATION, _PATH = 0x00480207, 0x00480106
_PIXELS: Final = frozenset((0x7FE00008, 0x7FE00009, 0x7FE00010))
_FILE_META_GROUP: Final = 0x0002
_INT32: Final = struct.Struct("<i")


@dataclass(slots=True)
class FramePositions:
    """Where the frames of a file are in the slide, a value per frame.

    Attributes
    ----------
    columns, rows : list of int
        Of the upper left pixel, from 1; 0 where a frame does not say.
    z : list of float
        Offset from the slide's surface; 0 where a frame does not say.
    paths : list of str
        Identifier of the optical path; empty where a frame does not say.
    """

    columns: list[int] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    z: list[float] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    def add(self, item: Elements) -> None:
        """Take the place of the next frame from its functional groups."""
        position = _first_item(item, _PLANE_POSITION) or {}
        path = (_first_item(item, _PATH_IDENTIFICATION) or {}).get(_PATH)
        height = position.get(_Z_OFFSET)
        self.columns.append(_signed(position.get(_COLUMN)))
        self.rows.append(_signed(position.get(_ROW)))
        z = None if height is None else decimal(split_texts(height)[0])
        self.z.append(0.0 if z is None else z)
        self.paths.append("" if path is None else split_texts(path)[0].strip(" "))

    @property
    def stated(self) -> bool:
        """Whether any frame says where it is."""
        return any(self.columns)


def _first_item(item: Elements, tag: int) -> Elements | None:
    element = item.get(tag)
    return element.items[0] if element is not None and element.items else None


def _signed(element: Element | None) -> int:
    if element is None or element.vr != "SL" or element.value is None or element.nbytes != 4:
        return 0
    value: int = _INT32.unpack(element.value)[0]
    return value


class DicomFile:
    """A DICOM file whose elements are read once, when somebody asks for them.

    Parameters
    ----------
    read_range : callable
        ``(offset, nbytes)`` to exactly these bytes of the file, or an error.
    size : int
        Bytes in the file.
    source : str
        Path or URL, for messages.
    key : str
        The file's key in its store.
    """

    def __init__(self, read_range: ReadRange, size: int, *, source: str, key: str) -> None:
        self.read_range = read_range
        self.size = size
        self.source = source
        self.key = key
        self.pixels: Element | None = None
        self.positions = FramePositions()
        self._reader = ElementReader(read_range, size, source=source)
        self._elements: Elements = {}
        self._at = 0
        self._done = False

    @cached_property
    def meta(self) -> Attributes:
        """File meta information (group 0002)."""
        reader, found = self._reader, dict[int, Element]()
        if reader.read(PREAMBLE_NBYTES, 4) != MAGIC:
            raise reader.fail("not a DICOM file: no 'DICM' at byte 128")
        at = PREAMBLE_NBYTES + 4
        while int.from_bytes(reader.read(at, 2), "little") == _FILE_META_GROUP:
            tag, element, at = reader.element(at, self.size)
            if tag & 0xFFFF:
                found[tag] = element
        self._at = at
        return Attributes(found, self.source)

    @cached_property
    def syntax(self) -> str:
        """Transfer syntax UID; `UnsupportedFormatError` for one whose elements are not read."""
        uid = self.meta.required_text(TRANSFER_SYNTAX_UID)
        if uid in (BIG_ENDIAN, DEFLATED):
            msg = (
                f"{self.source!r} has transfer syntax {uid} ({syntax_name(uid)}), which is not "
                "read; rewrite it with one that is, for example by dcmconv"
            )
            raise UnsupportedFormatError(msg)
        self._reader.explicit = uid != IMPLICIT
        return uid

    @cached_property
    def series_uid(self) -> str:
        """Series that the file belongs to; empty if it does not say."""
        self._read(SERIES_INSTANCE_UID)
        return Attributes(self._elements, self.source).text(SERIES_INSTANCE_UID)

    @cached_property
    def attributes(self) -> Attributes:
        """All elements before the pixels but those of single frames, which `positions` sums up."""
        self._read(None)
        return Attributes(self._elements, self.source)

    def _read(self, until: int | None) -> None:
        """Read on, to the end of the element `until` or to the pixels."""
        syntax = self.syntax
        reader = self._reader
        reader.explicit = syntax != IMPLICIT
        while self._at < self.size and not self._done:
            tag, vr, nbytes, value_at = reader.header(self._at, self.size)
            if until is not None and tag > until:
                return
            if tag in _PIXELS:
                self.pixels = Element(vr, value_at, nbytes)
                self._elements[tag] = self.pixels
                self._done = True
            elif tag == _PER_FRAME:
                self._at = self._read_frames(nbytes, value_at)
            else:
                _, self._elements[tag], self._at = reader.element(self._at, self.size)
        self._done = self._done or self._at >= self.size

    def _read_frames(self, nbytes: int, at: int) -> int:
        kind = Attributes(self._elements, self.source).text(DIMENSION_ORGANIZATION_TYPE)
        if kind == "TILED_FULL" and nbytes != UNDEFINED_NBYTES:
            return at + nbytes  # frames are in order, and say so
        return self._reader.walk_items(_PER_FRAME, nbytes, at, self.size, self.positions.add)
