"""Where the bytes of each frame are, from headers and offset tables only.

Spec: PS3.5, A.4 (encapsulated pixels, basic offset table); PS3.3, C.7.6.3.1.8 (extended offset
table). In order of preference:

1. uncompressed pixels: frame behind frame;
2. an extended offset table: one fragment per frame, of a stated length;
3. a basic offset table: the frame reaches to the next one, however many fragments it has, so the
   items' headers are part of the chunk (codec ``dicom_fragments``); only the last one is walked;
4. neither: the headers of all fragments are read, one small request each where they are far apart,
   at most `MAX_SCANNED_FRAGMENTS`. There must be one fragment per frame, or a single frame.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from zarrgpu.errors import MetadataError, UnsupportedFormatError
from zarrgpu.formats.dicom_elements import ITEM, SEQUENCE_END, UNDEFINED_NBYTES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from zarrgpu.formats.dicom_elements import Element
    from zarrgpu.formats.dicom_file import DicomFile

MAX_SCANNED_FRAGMENTS: Final = 1 << 20
MAX_TABLE_NBYTES: Final = 1 << 28

_PIXEL_DATA: Final = 0x7FE00010
_EXTENDED_OFFSETS, _EXTENDED_LENGTHS = 0x7FE00001, 0x7FE00002
_ITEM_NBYTES: Final = 8
_BLOCK_NBYTES: Final = 512
"""Read at once of a fragment's header: small frames' next headers may be in it."""


@dataclass(frozen=True, slots=True)
class FrameTable:
    """Byte range of each frame.

    Attributes
    ----------
    offsets, nbytes : int64 arrays, shape (frames,)
    with_headers : bool
        Whether the ranges hold items, with their headers, or what is in the only item.
    """

    offsets: NDArray[np.int64]
    nbytes: NDArray[np.int64]
    with_headers: bool

    def including_headers(self) -> FrameTable:
        """Make the same ranges with the headers of their items."""
        if self.with_headers:
            return self
        padded = self.nbytes + (self.nbytes & 1)
        return FrameTable(self.offsets - _ITEM_NBYTES, padded + _ITEM_NBYTES, with_headers=True)


def frame_table(file: DicomFile, n_frames: int, *, native_nbytes: int | None) -> FrameTable:
    """Find the frames of a file.

    Parameters
    ----------
    file : DicomFile
    n_frames : int
        As the file states it.
    native_nbytes : int or None
        Size of an uncompressed frame that is not in fragments.

    Raises
    ------
    MetadataError
        Tables contradict the number of frames, or leave the file.
    UnsupportedFormatError
        Frames of several fragments without an offset table.
    """
    attributes = file.attributes
    pixels = file.pixels
    if pixels is None or _PIXEL_DATA not in attributes.elements:
        message = "is missing: the file ends before it, or has pixels of another kind"
        raise attributes.fail(_PIXEL_DATA, message, "missing")
    encapsulated = pixels.nbytes == UNDEFINED_NBYTES
    if encapsulated != (native_nbytes is None):
        stored = "in fragments" if encapsulated else "not in fragments"
        message = f"pixels are {stored}, which transfer syntax {file.syntax} does not allow"
        raise attributes.fail(_PIXEL_DATA, message)
    if native_nbytes is not None:
        return _native(file, pixels, n_frames, native_nbytes)
    return _Fragments(file, pixels.offset, n_frames).table()


def _native(file: DicomFile, pixels: Element, n_frames: int, nbytes: int) -> FrameTable:
    expected = n_frames * nbytes
    if pixels.nbytes != expected + (expected & 1):
        message = (
            f"{pixels.nbytes} bytes of pixels, expected {expected}: {n_frames} frames of {nbytes}"
        )
        raise file.attributes.fail(_PIXEL_DATA, message)
    offsets = pixels.offset + nbytes * np.arange(n_frames, dtype=np.int64)
    return FrameTable(offsets, np.full(n_frames, nbytes, np.int64), with_headers=False)


class _Fragments:
    """The fragments of encapsulated pixels."""

    def __init__(self, file: DicomFile, start: int, n_frames: int) -> None:
        self.file = file
        self.n_frames = n_frames
        self._at, self._block = 0, b""
        kind, table_nbytes = self._item(start)
        if kind != ITEM:
            raise self._fail("do not begin with the item of an offset table")
        self._table_at, self._table_nbytes = start + _ITEM_NBYTES, table_nbytes
        self.base = self._table_at + table_nbytes

    def table(self) -> FrameTable:
        """Find the frames by the best table that there is."""
        elements = self.file.attributes.elements
        if _EXTENDED_OFFSETS in elements and elements[_EXTENDED_OFFSETS].nbytes:
            return self._extended()
        return self._basic() if self._table_nbytes else self._scanned()

    def _extended(self) -> FrameTable:
        offsets = self._numbers(_EXTENDED_OFFSETS) + (self.base + _ITEM_NBYTES)
        nbytes = self._numbers(_EXTENDED_LENGTHS)
        self._check_first(int(offsets[0]) - _ITEM_NBYTES, "an extended")
        self._check_order(offsets, offsets + nbytes, "an extended")
        # one fragment per frame, so each item begins where the one before ends
        gaps = np.diff(offsets) - nbytes[:-1] - (nbytes[:-1] & 1) - _ITEM_NBYTES
        if gaps.any():
            frame = int(np.flatnonzero(gaps)[0]) + 1
            message = f"have an extended offset table with a gap before frame {frame}, expected "
            raise self._fail(message + "one fragment for each frame, one behind the other")
        for frame in sorted({0, self.n_frames - 1}):
            at, size = int(offsets[frame]), int(nbytes[frame])
            kind, length = self._item(at - _ITEM_NBYTES)
            if kind != ITEM or not size <= length <= size + 1:
                message = f"the extended offset table does not lead to frame {frame}: "
                raise self._fail(message + f"no item of {size} bytes at {at - _ITEM_NBYTES}")
        return FrameTable(offsets, nbytes, with_headers=False)

    def _numbers(self, tag: int) -> NDArray[np.int64]:
        element = self.file.attributes.elements.get(tag)
        expected = 8 * self.n_frames
        if element is None or element.nbytes != expected:
            got = 0 if element is None else element.nbytes
            message = f"{got} bytes, expected {expected}: 8 for each of {self.n_frames} frames"
            raise self.file.attributes.fail(tag, message)
        raw = element.value
        return self._unsigned(raw if raw is not None else self._read_table(element), "<u8")

    def _read_table(self, element: Element) -> bytes:
        if element.nbytes > MAX_TABLE_NBYTES:
            raise self._fail(f"have an offset table of {element.nbytes} bytes")
        return bytes(self.file.read_range(element.offset, element.nbytes))

    def _unsigned(self, raw: bytes, dtype: str) -> NDArray[np.int64]:
        """Offsets or sizes; whatever is not within the file becomes its size + 1."""
        values: NDArray[Any] = np.frombuffer(raw, dtype)
        clipped: NDArray[np.int64] = np.minimum(values, self.file.size + 1).astype(np.int64)
        return clipped

    def _basic(self) -> FrameTable:
        if self._table_nbytes != 4 * self.n_frames:
            message = f"have a basic offset table of {self._table_nbytes} bytes, expected "
            raise self._fail(message + f"{4 * self.n_frames}: 4 for each frame")
        if self._table_at + self._table_nbytes > self.file.size:
            raise self._fail(f"end in their offset table: the file has {self.file.size} bytes")
        raw = self.file.read_range(self._table_at, self._table_nbytes)
        starts = self._unsigned(bytes(raw), "<u4") + self.base
        last = int(starts[-1])
        self._check_first(int(starts[0]), "a basic")
        self._check_order(starts, np.append(starts[1:], last + _ITEM_NBYTES), "a basic")
        ends = np.append(starts[1:], self._walk(last)[-1][1])
        return FrameTable(starts, ends - starts, with_headers=True)

    def _scanned(self) -> FrameTable:
        found = np.array(self._walk(self.base), np.int64).reshape(-1, 2)
        starts, ends = found[:, 0], found[:, 1]
        if len(found) == self.n_frames:
            nbytes = ends - starts - _ITEM_NBYTES
            return FrameTable(starts + _ITEM_NBYTES, nbytes, with_headers=False)
        if self.n_frames == 1:
            return FrameTable(starts[:1], ends[-1:] - starts[:1], with_headers=True)
        if len(found) < self.n_frames:
            raise self._fail(f"are {len(found)} fragments, fewer than {self.n_frames} frames")
        msg = (
            f"{self.file.source!r}: {self.n_frames} frames in {len(found)} fragments and no offset "
            "table that says which belong together, which is not read"
        )
        raise UnsupportedFormatError(msg)

    def _walk(self, at: int) -> list[tuple[int, int]]:
        """Start and end of the items from `at` to the delimiter, headers included."""
        found: list[tuple[int, int]] = []
        while True:
            kind, nbytes = self._item(at)
            if kind == SEQUENCE_END and found:
                return found
            end = at + _ITEM_NBYTES + nbytes
            if kind != ITEM or nbytes == UNDEFINED_NBYTES:
                raise self._fail(f"have no fragment at byte {at}, where one must begin")
            if end > self.file.size:
                message = f"end at byte {end}, beyond the file ({self.file.size} bytes); "
                raise self._fail(message + "it is truncated")
            found.append((at, end))
            if len(found) > MAX_SCANNED_FRAGMENTS:
                msg = (
                    f"{self.file.source!r}: more than {MAX_SCANNED_FRAGMENTS} fragments and no "
                    "offset table; rewrite the file with one"
                )
                raise UnsupportedFormatError(msg)
            at = end

    def _item(self, at: int) -> tuple[int, int]:
        """Tag and length of the item at `at`."""
        if at + _ITEM_NBYTES > self.file.size:
            message = f"end at byte {self.file.size}, where an item is expected; the file is "
            raise self._fail(message + "truncated")
        begin = at - self._at
        if begin < 0 or begin + _ITEM_NBYTES > len(self._block):
            wanted = min(_BLOCK_NBYTES, self.file.size - at)
            self._at, self._block, begin = at, bytes(self.file.read_range(at, wanted)), 0
        group, element, nbytes = struct.unpack_from("<HHI", self._block, begin)
        return group << 16 | element, nbytes

    def _check_first(self, first: int, what: str) -> None:
        """The first frame begins with the first fragment."""
        if first != self.base:
            message = f"have {what} offset table that puts frame 0 at byte {first}, but the first "
            raise self._fail(message + f"fragment begins at {self.base}")

    def _check_order(self, starts: NDArray[np.int64], ends: NDArray[np.int64], what: str) -> None:
        """Frames must follow one another, within the file."""
        wrong = np.flatnonzero((ends <= starts) | (ends > self.file.size))
        if not len(wrong):
            wrong = np.flatnonzero(starts[1:] < ends[:-1])
        if len(wrong):
            frame = int(wrong[0])
            message = (
                f"have {what} offset table that puts frame {frame} of {self.n_frames} at bytes "
                f"{starts[frame]} to {ends[frame]} of {self.file.size}; the file is truncated or "
                "the table is wrong"
            )
            raise self._fail(message)

    def _fail(self, message: str) -> MetadataError:
        return self.file.attributes.fail(_PIXEL_DATA, f"pixels in fragments {message}")
