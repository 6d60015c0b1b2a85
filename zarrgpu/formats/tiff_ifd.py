"""The bytes of a TIFF's directory chain: header, image file directories (IFDs), field values.

Classic TIFF and BigTIFF, both byte orders. Steps: read the head of the file once; follow the chain
from IFD to IFD, fetching a block where the cache does not reach; values that lie outside their IFD
are fetched only for tags that are asked for, neighbours together. Nothing here knows what a tag
means, and no image data is read.

Every offset and count comes from the file and is checked against its size before it is used.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from zarrgpu.errors import MetadataError
from zarrgpu.formats.range_cache import RangeCache, ReadRange
from zarrgpu.formats.tiff_tags import (
    BYTE_TYPES,
    FIELD_NBYTES,
    INTEGER_TYPES,
    NUMBER_TYPES,
    RATIONAL_TYPE,
    Tag,
)
from zarrgpu.model import ByteRange

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "Field",
    "Ifd",
    "Layout",
    "RangeCache",
    "ReadRange",
    "is_tiff",
    "read_ifds",
    "read_sub_ifds",
]

_MERGE_GAP_NBYTES: Final = 32 << 10
"""Values of a directory this far apart are read at once."""

MAX_IFDS: Final = 1 << 16
"""Stacks have thousands; the bound is for chains that a hostile file makes up."""

MAX_SUB_IFDS: Final = 256
MAX_FIELDS: Final = 4096
MAX_SMALL_NBYTES: Final = 16 << 20
"""Largest value of a tag that is not a chunk table: OME-XML is the largest met, a few MB."""

_SHORT_TYPES: Final = frozenset({3, 4})
_INT64_MAX: Final = (1 << 63) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One directory entry: where its values are, not the values.

    Attributes
    ----------
    field_type, count : int
    byte_range : ByteRange
        Of the values; inside the entry itself when they fit there.
    """

    field_type: int
    count: int
    byte_range: ByteRange


@dataclass(frozen=True, slots=True)
class Layout:
    """How classic TIFF and BigTIFF differ: widths of counts and offsets."""

    byte_order: Literal["<", ">"]
    first_ifd: int
    count_format: str
    entry_format: str
    pointer_format: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ifd:
    """One image file directory; values are read, checked and converted on demand.

    Attributes
    ----------
    index : int
        Position in the chain, from 0; what error messages name.
    sub_index : int or None
        Position among the sub-directories of directory `index`, None for that one itself.
    byte_order : "<" or ">"
    layout : Layout or None
        Of the file, by which sub-directories are read; None where there can be none.
    fields : mapping of int to Field
        The first entry of each tag, as libtiff takes it.
    cache : RangeCache
    """

    index: int
    byte_order: Literal["<", ">"]
    fields: Mapping[int, Field]
    cache: RangeCache
    layout: Layout | None = None
    sub_index: int | None = None

    @property
    def location(self) -> tuple[str | int, ...]:
        """Where it is, for errors."""
        if self.sub_index is None:
            return ("ifd", self.index)
        return ("ifd", self.index, "SubIFDs", self.sub_index)

    def error(self, tag: Tag, message: str, kind: str = "value") -> MetadataError:
        """Error that names this directory and `tag`."""
        location = (*self.location, tag.name)
        return MetadataError(message, source=self.cache.source, location=location, kind=kind)

    def prefetch(self, tags: Iterable[Tag], *, max_nbytes: int) -> None:
        """Fetch the values of `tags`, those that lie close together in one request.

        Values above `max_nbytes` or outside the file are left to fail where they are asked for.
        """
        ranges = [self.fields[tag].byte_range for tag in tags if tag in self.fields]
        todo = sorted(
            (r.offset, r.end)
            for r in ranges
            if r.nbytes <= max_nbytes and r.end <= self.cache.size and not self.cache.holds(r)
        )
        merged: list[tuple[int, int]] = []
        for offset, end in todo:
            if merged and offset <= merged[-1][1] + _MERGE_GAP_NBYTES:
                merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
            else:
                merged.append((offset, end))
        for offset, end in merged:
            self.cache.read(offset, end - offset, self.location)

    def integers(self, tag: Tag, *, max_count: int = 4096) -> NDArray[np.int64] | None:
        """Values of an unsigned integer tag, None if it is absent."""
        field = self.fields.get(tag)
        if field is None:
            return None
        kind = INTEGER_TYPES.get(field.field_type)
        if kind is None:
            raise self.error(tag, f"expected an integer field, got type {field.field_type}", "type")
        if not 0 < field.count <= max_count:
            raise self.error(tag, f"expected 1 to {max_count} values, got {field.count}")
        values = np.frombuffer(self._bytes(tag, field), self.byte_order + kind)
        if kind == "u8" and values.max() > _INT64_MAX:
            raise self.error(tag, f"value {values.max()} does not fit a signed 64-bit integer")
        return values.astype(np.int64)

    def numbers(self, tag: Tag, *, max_count: int = 1 << 16) -> NDArray[np.float64] | None:
        """Values of a tag of any plain number type as float64, None if it is absent."""
        field = self.fields.get(tag)
        if field is None:
            return None
        kind = NUMBER_TYPES.get(field.field_type)
        if kind is None:
            raise self.error(tag, f"expected numbers, got field type {field.field_type}", "type")
        if not 0 < field.count <= max_count:
            raise self.error(tag, f"expected 1 to {max_count} values, got {field.count}")
        values = np.frombuffer(self._bytes(tag, field), self.byte_order + kind)
        return values.astype(np.float64)

    def integer(self, tag: Tag, default: int | None = None) -> int:
        """First value of an integer tag; `default`, or `MetadataError`, if it is absent."""
        field = self.fields.get(tag)
        if field is not None and field.count == 1 and field.field_type in _SHORT_TYPES:
            # nearly all of them, in little time
            raw = self._bytes(tag, field)
            return int.from_bytes(raw, "little" if self.byte_order == "<" else "big")
        values = self.integers(tag)
        if values is not None:
            return int(values[0])
        if default is None:
            raise self.error(tag, "required tag is missing", "missing")
        return default

    def binary(self, tag: Tag, *, max_nbytes: int = MAX_SMALL_NBYTES) -> bytes:
        """Bytes of an ASCII, BYTE or UNDEFINED tag; empty if it is absent."""
        field = self.fields.get(tag)
        if field is None:
            return b""
        if field.field_type not in BYTE_TYPES:
            raise self.error(tag, f"expected a byte field, got type {field.field_type}", "type")
        if field.count > max_nbytes:
            raise self.error(tag, f"expected at most {max_nbytes} bytes, got {field.count}")
        return self._bytes(tag, field)

    def text(self, tag: Tag) -> str | None:
        """Text up to the first NUL, UTF-8 or else Latin-1; None if the tag is absent."""
        if tag not in self.fields:
            return None
        raw = self.stored_text(tag)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            return raw.decode("latin-1")

    def stored_text(self, tag: Tag) -> bytes:
        """Text as it is stored, up to the first NUL; empty if the tag is absent."""
        return self.binary(tag).split(b"\0", 1)[0]

    def rational(self, tag: Tag) -> float | None:
        """First value of a RATIONAL tag, a double as OpenSlide 4 has it; None if unusable.

        Such tags only describe, so an odd type or a zero denominator is no reason to refuse.
        """
        field = self.fields.get(tag)
        if field is None or field.field_type != RATIONAL_TYPE or field.count < 1:
            return None
        raw = self.cache.read(field.byte_range.offset, 8, (*self.location, tag.name))
        numerator, denominator = struct.unpack(self.byte_order + "II", raw)
        return float(numerator / denominator) if denominator else None

    def _bytes(self, tag: Tag, field: Field) -> bytes:
        at = field.byte_range
        return self.cache.read(at.offset, at.nbytes, (*self.location, tag.name))


def is_tiff(head: bytes) -> bool:
    r"""Whether `head`, the first 4 bytes or more of a file, is that of a TIFF or BigTIFF.

    >>> is_tiff(b"II*\0"), is_tiff(b"MM\0+"), is_tiff(b"\x89PNG")
    (True, True, False)
    """
    return bytes(head[:4]) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def read_ifds(read_range: ReadRange, size: int, *, source: str) -> tuple[Ifd, ...]:
    """Read the directory chain of a TIFF.

    Parameters
    ----------
    read_range : ReadRange
    size : int
        Bytes in the file.
    source : str
        Path or URL, for messages.

    Raises
    ------
    MetadataError
        Not a TIFF, or the chain leaves the file, loops or is absurdly long.
    """
    cache = RangeCache(read_range, size, source)
    layout = _header(cache)
    ifds: list[Ifd] = []
    seen: set[int] = set()
    offset = layout.first_ifd
    while offset:
        where = ("ifd", len(ifds))
        if offset in seen:
            msg = f"the directory chain loops back to offset {offset}"
            raise MetadataError(msg, source=source, location=where)
        if len(ifds) == MAX_IFDS:
            msg = f"more than {MAX_IFDS} directories"
            raise MetadataError(msg, source=source, location=where)
        seen.add(offset)
        fields, offset = _directory(cache, layout, offset, where)
        ifds.append(
            Ifd(
                index=len(ifds),
                byte_order=layout.byte_order,
                fields=fields,
                cache=cache,
                layout=layout,
            )
        )
    if not ifds:
        raise MetadataError("the file has no directory", source=source, kind="missing")
    return tuple(ifds)


def read_sub_ifds(ifd: Ifd) -> tuple[Ifd, ...]:
    """Read the sub-directories of a directory (tag 330), in the order of the tag.

    What a sub-directory names as its next one or as its own sub-directories is not followed: in
    pyramids it is what the others of the tag are.

    Raises
    ------
    MetadataError
        One leaves the file, or is the directory itself or another one of the same tag.
    """
    offsets = ifd.integers(Tag.SubIFDs, max_count=MAX_SUB_IFDS)
    if offsets is None or ifd.layout is None:
        return ()
    if np.unique(offsets).size != offsets.size:
        raise ifd.error(Tag.SubIFDs, "the same sub-directory twice")
    found = []
    for sub_index, offset in enumerate(offsets.tolist()):
        where = (*ifd.location, "SubIFDs", sub_index)
        fields, _ = _directory(ifd.cache, ifd.layout, offset, where)
        found.append(replace(ifd, fields=fields, sub_index=sub_index))
    return tuple(found)


def _header(cache: RangeCache) -> Layout:
    head = cache.read(0, min(16, cache.size), ("header",))
    if not is_tiff(head) or len(head) < 8:
        msg = f"not a TIFF: starts with {head[:4]!r}"
        raise MetadataError(msg, source=cache.source, location=("header",), kind="syntax")
    order: Literal["<", ">"] = "<" if head[:1] == b"I" else ">"
    if 42 in head[2:4]:
        (first,) = struct.unpack_from(order + "I", head, 4)
        return Layout(order, first, "H", "HHI", "I")
    if len(head) < 16 or struct.unpack_from(order + "HH", head, 4) != (8, 0):
        msg = f"damaged BigTIFF header: {head.hex()}"
        raise MetadataError(msg, source=cache.source, location=("header",), kind="syntax")
    (first,) = struct.unpack_from(order + "Q", head, 8)
    return Layout(order, first, "Q", "HHQ", "Q")


def _directory(
    cache: RangeCache, layout: Layout, offset: int, where: tuple[str | int, ...]
) -> tuple[dict[int, Field], int]:
    """Entries of the directory at `offset`, and the offset of the next one (0 for none)."""
    order = layout.byte_order
    count_nbytes = struct.calcsize("=" + layout.count_format)
    pointer = order + layout.pointer_format
    inline_nbytes = struct.calcsize(pointer)
    key_nbytes = struct.calcsize("=" + layout.entry_format)
    entry_nbytes = key_nbytes + inline_nbytes
    raw_count = cache.read(offset, count_nbytes, where)
    (n_fields,) = struct.unpack(order + layout.count_format, raw_count)
    if not 0 < n_fields <= MAX_FIELDS:
        msg = f"directory at offset {offset} claims {n_fields} entries, expected 1 to {MAX_FIELDS}"
        raise MetadataError(msg, source=cache.source, location=where)
    cache.count_directory(n_fields * entry_nbytes, where)
    begin = offset + count_nbytes
    body = cache.read(begin, n_fields * entry_nbytes + inline_nbytes, where)
    fields: dict[int, Field] = {}
    for at in range(0, n_fields * entry_nbytes, entry_nbytes):
        tag, field_type, count = struct.unpack_from(order + layout.entry_format, body, at)
        nbytes = FIELD_NBYTES.get(field_type, 0) * count
        value_offset = begin + at + key_nbytes
        if nbytes > inline_nbytes:
            (value_offset,) = struct.unpack_from(
                order + layout.pointer_format, body, at + key_nbytes
            )
        field = Field(
            field_type=field_type, count=count, byte_range=ByteRange(value_offset, nbytes)
        )
        fields.setdefault(tag, field)
    (next_offset,) = struct.unpack_from(
        order + layout.pointer_format, body, n_fields * entry_nbytes
    )
    return fields, next_offset
