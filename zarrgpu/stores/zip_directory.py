"""What a zip archive holds: its central directory, read by few ranges of any store.

The end of the archive comes first: in most archives it holds the whole directory. `zipfile` parses
it from there; what it says is then checked against the archive's size, so that nothing is read or
allocated on the word of a directory that lies. It knows nothing of Zarr.

Format: https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT, sections 4.3.7 (local header),
4.3.12 (central directory), 4.3.14-16 (end of it), 4.5.3 (zip64).
"""

from __future__ import annotations

import io
import struct
import zipfile
from contextlib import suppress
from dataclasses import dataclass

from zarrgpu.errors import NodeNotFoundError, StoreError
from zarrgpu.model import ByteRange
from zarrgpu.stores.base import Store

STORED, DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED
MAX_DIRECTORY_NBYTES = 256 << 20
"""Some three million entries; a larger directory is refused before it is read."""

LOCAL_HEADER_NBYTES = 30
_LOCAL_HEADER = struct.Struct("<4s5H3L2H")
_TAIL_NBYTES = 256 << 10
_ENCRYPTED, _PATCHED, _STRONG_ENCRYPTION, _UTF8 = 0x1, 0x20, 0x40, 0x800
_SIZES_FOLLOW = 0x8
_IN_ZIP64_EXTRA = 0xFFFFFFFF
_MAX_INFLATION = 1040
"""Deflate writes a byte for at most 1,032 equal ones."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One object of an archive, as the central directory describes it.

    Attributes
    ----------
    offset : int
        Of the local header in the archive.
    room_end : int
        Where the next entry or the directory begins: the entry must end before.
    stored_name : bytes
        Name as the archive spells it.
    method, flags, crc : int
        Compression method, general purpose flags, CRC-32 of the object.
    stored_nbytes, nbytes : int
        Size in the archive and size of the object.
    """

    offset: int
    room_end: int
    stored_name: bytes
    method: int
    flags: int
    crc: int
    stored_nbytes: int
    nbytes: int

    def problem(self) -> str | None:
        """Why the entry cannot be read, or None."""
        if self.flags & (_ENCRYPTED | _STRONG_ENCRYPTION):
            return "is encrypted, which is not supported; write the archive without a password"
        if self.flags & _PATCHED:
            return "is compressed patch data, which is not supported"
        if self.method not in (STORED, DEFLATED):
            return (
                f"uses zip compression method {self.method}; stored (0) and deflated (8) are "
                "supported: write the archive with zip's -0"
            )
        if self.offset < 0:
            return "is said to begin before the archive; the archive is corrupt"
        end = self.offset + LOCAL_HEADER_NBYTES + len(self.stored_name) + self.stored_nbytes
        if end > self.room_end:
            return (
                f"ends at byte {end} or later, what follows it begins at {self.room_end}; "
                "the archive is corrupt"
            )
        if self.method == STORED and self.nbytes != self.stored_nbytes:
            return f"is stored in {self.stored_nbytes} bytes and said to have {self.nbytes}"
        if self.method == DEFLATED and not (
            self.nbytes <= self.stored_nbytes * _MAX_INFLATION
            and self.stored_nbytes <= 2 * self.nbytes + 65536
        ):
            return f"cannot have {self.nbytes} bytes when it is deflated to {self.stored_nbytes}"
        return None

    def data_offset(self, header: bytes) -> int | str:
        """Offset of the data after the local header, or what is wrong with the header.

        Parameters
        ----------
        header : bytes
            Of at least `header_nbytes(header)` bytes.
        """
        fields = _LOCAL_HEADER.unpack_from(header)
        flags, method, stored_nbytes, nbytes = fields[2], fields[3], fields[7], fields[8]
        at = LOCAL_HEADER_NBYTES + int(fields[9])
        if header[LOCAL_HEADER_NBYTES:at] != self.stored_name or method != self.method:
            return "is another entry than the directory says; the archive is corrupt"
        extra = _extra_fields(header[at : at + fields[10]])
        if extra is None:
            return "has a malformed local header; the archive is corrupt"
        if not flags & _SIZES_FOLLOW:
            zip64 = extra.get(1, b"")
            sizes = (stored_nbytes, nbytes)
            if len(zip64) >= 16 and _IN_ZIP64_EXTRA in sizes:
                second, first = struct.unpack_from("<2Q", zip64)
                sizes = (
                    first if stored_nbytes == _IN_ZIP64_EXTRA else stored_nbytes,
                    second if nbytes == _IN_ZIP64_EXTRA else nbytes,
                )
            if sizes != (self.stored_nbytes, self.nbytes):
                return (
                    f"has {sizes[0]} bytes for {sizes[1]} by its local header, "
                    f"{self.stored_nbytes} for {self.nbytes} by the directory"
                )
        data = self.offset + at + int(fields[10])
        if data + self.stored_nbytes > self.room_end:
            return f"ends beyond byte {self.room_end}, where what follows it begins"
        return data


def header_nbytes(header: bytes) -> int | None:
    """Size of a local header by its first 30 bytes, or None if they are none."""
    fields = _LOCAL_HEADER.unpack_from(header)
    if fields[0] != b"PK\x03\x04":
        return None
    return LOCAL_HEADER_NBYTES + int(fields[9]) + int(fields[10])


def _extra_fields(extra: bytes) -> dict[int, bytes] | None:
    """Extra fields by id, or None if they do not fill their place (padding zeros may remain)."""
    fields, at = {}, 0
    while at + 4 <= len(extra):
        kind, nbytes = struct.unpack_from("<HH", extra, at)
        at += 4
        if at + nbytes > len(extra):
            return None
        fields[kind] = extra[at : at + nbytes]
        at += nbytes
    return None if any(extra[at:]) else fields


def read_directory(store: Store, key: str, where: str, size: int | None) -> dict[str, Entry]:
    """Read the central directory of the archive `key` of `store`: entries by name.

    Of entries with one name the last counts. Folders are left out.

    Parameters
    ----------
    where : str
        The archive, for messages.
    size : int or None
        Of the archive, if it is known.

    Raises
    ------
    NodeNotFoundError
        If there is no such archive.
    StoreError
        If it is no zip archive, its directory is corrupt or too large, or the store fails.
    """
    if size is None:
        size = store.size(key)
    if size is None:
        msg = f"{where!r}: there is no such archive (or its size is not known); check the path"
        raise NodeNotFoundError(msg)
    file = _RangeFile(store, key, where, size)
    file.load(max(0, size - _TAIL_NBYTES), size)  # errors of the store are not zipfile's to judge
    try:
        with zipfile.ZipFile(file) as archive:
            infos, start = archive.infolist(), archive.start_dir
    except Exception as error:
        if file.failure is not None:
            raise file.failure from error
        msg = f"{where!r} cannot be read as a zip archive: {type(error).__name__}: {error}"
        raise StoreError(msg) from error
    return _entries(infos, start, size)


def _entries(infos: list[zipfile.ZipInfo], start: int, size: int) -> dict[str, Entry]:
    entries, room_end, last_offset = {}, {}, -1
    end = min(start, size)
    for offset in sorted((info.header_offset for info in infos), reverse=True):
        if offset != last_offset:
            room_end[offset] = end
            end, last_offset = min(end, offset), offset
    for info in infos:
        stored_name = info.orig_filename.encode("utf-8" if info.flag_bits & _UTF8 else "cp437")
        name = _name(info, stored_name)
        if not name or name.endswith("/"):
            continue
        entries[name] = Entry(
            offset=info.header_offset,
            room_end=room_end[info.header_offset],
            stored_name=stored_name,
            method=info.compress_type,
            flags=info.flag_bits,
            crc=info.CRC,
            stored_nbytes=info.compress_size,
            nbytes=info.file_size,
        )
    return entries


def _name(info: zipfile.ZipInfo, stored_name: bytes) -> str:
    """Name of an entry; Info-ZIP on Unix writes UTF-8 and does not say so."""
    if info.filename == info.orig_filename and not info.flag_bits & _UTF8:
        with suppress(UnicodeDecodeError):
            return stored_name.decode()
    return info.filename


class _RangeFile(io.RawIOBase):
    """Read-only file over one object of a store, for one thread; keeps what it read last.

    Attributes
    ----------
    failure : StoreError or None
        What went wrong, which `zipfile` would report as "not a zip file".
    """

    def __init__(self, store: Store, key: str, where: str, size: int) -> None:
        self._store, self._key, self._where, self._size = store, key, where, size
        self._position = 0
        self._start, self._bytes = 0, b""
        self.failure: StoreError | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            msg = f"seek to {base + offset}"
            raise OSError(msg)  # as files do: zipfile relies on it with short archives
        self._position = base + offset
        return self._position

    def read(self, nbytes: int | None = -1) -> bytes:
        left = max(0, self._size - self._position)
        end = self._position + (left if nbytes is None or nbytes < 0 else min(nbytes, left))
        if self._position < self._start or end > self._start + len(self._bytes):
            self.load(self._position, end)
        first = self._position - self._start
        data = self._bytes[first : first + end - self._position]
        self._position = end
        return data

    def load(self, start: int, end: int) -> None:
        """Hold the bytes from `start` to `end`."""
        try:
            if end - start > MAX_DIRECTORY_NBYTES:
                msg = (
                    f"{self._where!r}: its central directory is said to take {end - start} bytes, "
                    f"{MAX_DIRECTORY_NBYTES} are accepted; the archive is corrupt or too large"
                )
                raise StoreError(msg)
            data = self._store.get_range(self._key, ByteRange(start, end - start))
            if data is None:
                msg = f"{self._where!r} vanished while it was opened"
                raise StoreError(msg)
        except StoreError as error:
            self.failure = error
            raise
        self._start, self._bytes = start, data.tobytes()
