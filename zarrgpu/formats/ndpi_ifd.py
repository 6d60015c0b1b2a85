"""Directories of Hamamatsu NDPI: classic TIFF with room for offsets beyond 4 GiB.

Facts from tifffile's and OpenSlide's readers. A directory is that of classic TIFF, but

- the offset of the first directory in the header, and of the next one, has 8 bytes;
- behind the offset of the next directory come 4 bytes for each entry: the upper half of its value
  or offset;
- text lies outside of the entry, however short it is.

In a file of up to 4 GiB all upper halves are 0, and it is read as the classic TIFF that it is.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal

from zarrgpu.errors import MetadataError
from zarrgpu.formats.range_cache import RangeCache
from zarrgpu.formats.tiff_ifd import MAX_FIELDS, MAX_IFDS, Field, Ifd
from zarrgpu.formats.tiff_tags import FIELD_NBYTES, Tag
from zarrgpu.model import ByteRange

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zarrgpu.formats.tiff_file import TiffFile

_ENTRY_NBYTES: Final = 12
_4_GIB: Final = 1 << 32
_ASCII: Final = 2
_NUMBER_FORMATS: Final = MappingProxyType(
    {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 11: "f", 12: "d"}
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NdpiDirectory:
    """One directory.

    Attributes
    ----------
    ifd : Ifd
        Its fields, with offsets made whole.
    offset : int
        Of the directory in a file beyond 4 GiB, else 0.
    high : mapping of int to int
        Tag to the upper half of its value, which is meant where the value is in the entry.
    """

    ifd: Ifd
    offset: int
    high: Mapping[int, int]

    def number(self, tag: Tag) -> float | int | None:
        """First value of a tag of any plain numeric type; None if absent or of another type."""
        field = self.ifd.fields.get(tag)
        code = None if field is None else _NUMBER_FORMATS.get(field.field_type)
        if field is None or code is None or field.count < 1:
            return None
        nbytes = struct.calcsize(code)
        where = ("ifd", self.ifd.index, tag.name)
        raw = self.ifd.cache.read(field.byte_range.offset, nbytes, where)
        value: float | int = struct.unpack(self.ifd.byte_order + code, raw)[0]
        return value

    def large_integer(self, tag: Tag) -> int:
        """Value of a tag that may have an upper half."""
        low = self.ifd.integer(tag)
        return low + (self.high.get(tag, 0) << 32)


def read_first(file: TiffFile) -> NdpiDirectory | None:
    """Directory 0 if the file is an NDPI: of classic TIFF, with a tag that only these have."""
    if file.size <= _4_GIB:
        found: NdpiDirectory | None = _of_small_file(file.ifds[0])
    else:
        found = _first_beyond_4_gib(file)
    flag = None if found is None else found.ifd.fields.get(Tag.NdpiFormatFlag)
    return found if flag is not None and flag.count else None


def _of_small_file(ifd: Ifd) -> NdpiDirectory:
    """A directory of classic TIFF, with short text where NDPI has it."""
    fields = dict(ifd.fields)
    for tag, field in ifd.fields.items():
        place, nbytes = field.byte_range.offset, field.byte_range.nbytes
        if field.field_type == _ASCII and nbytes <= 4:
            raw = ifd.cache.read(place, 4, ("ifd", ifd.index))
            (place,) = struct.unpack(ifd.byte_order + "I", raw)
            fields[tag] = replace(field, byte_range=ByteRange(place, nbytes))
    return NdpiDirectory(ifd=replace(ifd, fields=fields), offset=0, high={})


def _first_beyond_4_gib(file: TiffFile) -> NdpiDirectory | None:
    """Directory 0 of a classic TIFF that is too large to be one; None if it is none."""
    head = file.read_range(0, 12)
    orders: dict[bytes, Literal["<", ">"]] = {b"II*\0": "<", b"MM\0*": ">"}
    order = orders.get(bytes(head[:4]))
    if order is None:
        return None
    (offset,) = struct.unpack_from(order + "Q", head, 4)
    if not 8 <= offset < file.size - 2:
        return None
    try:
        return _directory(RangeCache(file.read_range, file.size, file.source), order, offset, 0)[0]
    except MetadataError:
        return None


def read_directories(file: TiffFile) -> tuple[NdpiDirectory, ...]:
    """Directories in the order of the file; none if it is not an NDPI.

    Raises
    ------
    MetadataError
        The chain leaves the file, loops or is absurdly long.
    """
    first = read_first(file)
    if first is None:
        return ()
    if file.size <= _4_GIB:
        return tuple(map(_of_small_file, file.ifds))
    cache, order = first.ifd.cache, first.ifd.byte_order
    found: list[NdpiDirectory] = []
    seen: set[int] = set()
    offset = first.offset
    while offset:
        where = ("ifd", len(found))
        if offset in seen:
            msg = f"the directory chain loops back to offset {offset}"
            raise MetadataError(msg, source=cache.source, location=where)
        if len(found) == MAX_IFDS:
            msg = f"more than {MAX_IFDS} directories"
            raise MetadataError(msg, source=cache.source, location=where)
        seen.add(offset)
        directory, offset = _directory(cache, order, offset, len(found))
        found.append(directory)
    return tuple(found)


def _directory(
    cache: RangeCache, order: Literal["<", ">"], offset: int, index: int
) -> tuple[NdpiDirectory, int]:
    """Read the directory at `offset`; also the offset of the next one, 0 for none."""
    where = ("ifd", index)
    (count,) = struct.unpack(order + "H", cache.read(offset, 2, where))
    if not 0 < count <= MAX_FIELDS:
        msg = f"directory at offset {offset} claims {count} entries, expected 1 to {MAX_FIELDS}"
        raise MetadataError(msg, source=cache.source, location=where)
    cache.count_directory(count * _ENTRY_NBYTES, where)
    begin = offset + 2
    body = cache.read(begin, count * _ENTRY_NBYTES + 8, where)
    (following,) = struct.unpack_from(order + "Q", body, count * _ENTRY_NBYTES)
    raw = cache.read(begin + len(body), 4 * count, where)
    upper = struct.unpack(f"{order}{count}I", raw)
    fields: dict[int, Field] = {}
    high: dict[int, int] = {}
    for number in range(count):
        at = number * _ENTRY_NBYTES
        tag, field_type, values = struct.unpack_from(order + "HHI", body, at)
        nbytes = FIELD_NBYTES.get(field_type, 0) * values
        place = begin + at + 8
        if nbytes > 4 or field_type == _ASCII:
            (place,) = struct.unpack_from(order + "I", body, at + 8)
            place += upper[number] << 32
        field = Field(field_type=field_type, count=values, byte_range=ByteRange(place, nbytes))
        fields.setdefault(tag, field)
        high.setdefault(tag, upper[number])
    ifd = Ifd(index=index, byte_order=order, fields=fields, cache=cache)
    return NdpiDirectory(ifd=ifd, offset=offset, high=high), following
