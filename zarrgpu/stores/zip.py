"""Zarr in a zip archive, on any other store: no file position, so threads and forks can share it.

zarr-python's ``ZipStore`` files, ``*.zarr.zip`` and OME-Zarr's ``*.ozx`` (RFC-9,
https://ngff.openmicroscopy.org/rfc/9) are meant to be *stored*: an object is then a run of bytes of
the archive, and a byte range of it, such as an inner chunk of a shard, is one request.
"""

from __future__ import annotations

import zlib

import numpy as np

from zarrgpu.errors import StoreError
from zarrgpu.model import ByteArray, ByteRange
from zarrgpu.stores.base import Allocate, Store, check_size, new_bytes
from zarrgpu.stores.zip_directory import (
    LOCAL_HEADER_NBYTES,
    STORED,
    Entry,
    header_nbytes,
    read_directory,
)

_HEADER_SLACK_NBYTES = 64
"""For the local header's extra fields, whose size the directory does not tell."""

_MAX_KEPT_NBYTES = 64 << 20


class ZipStore:
    """Objects are the entries of a zip archive, which is an object of another store.

    The directory is read once, at the first use: two requests where it lies in the archive's last
    256 KiB. Stored entries are read by range. The first request for one brings its local header
    too; a deflated one is read and inflated whole, and the last one is kept for its next range.

    What was read as a whole is checked against its CRC-32, which is cheap. A range of a stored
    entry cannot be: a changed byte in it goes unseen here, as in any store of plain files, and is
    the codecs' to find (zstd's and Blosc's lengths, crc32c). A changed name in the directory makes
    the object missing.

    Parameters
    ----------
    store : Store
        Where the archive is.
    key : str
        Of the archive in it.
    prefix : str
        Folder in the archive that keys are relative to.
    size : int, optional
        Of the archive, where it is known already.

    Raises
    ------
    StoreError
        From any method: if there is no such archive, it is corrupt, or an entry is encrypted or
        compressed by another method than deflate. Always names the archive, and the entry.
    """

    def __init__(
        self, store: Store, key: str, prefix: str = "", *, size: int | None = None
    ) -> None:
        self._store = store
        self._key = key
        self.prefix = prefix.strip("/")
        self._size = size
        self.archive = f"{store.url}/{key}"
        self.url = f"{self.archive}/{self.prefix}" if self.prefix else self.archive
        self.io_concurrency = store.io_concurrency
        self.max_gap_bytes = store.max_gap_bytes
        self.max_coalesced_bytes = store.max_coalesced_bytes
        self._forget()

    def _forget(self) -> None:
        # Filled in without a lock, which another thread may hold when the process forks: threads
        # that come at once do the same work twice, and each assignment is whole.
        self._entries: dict[str, Entry] | None = None
        self._folders: dict[str, list[str]] | None = None
        self._data_offset: dict[str, int] = {}
        self._inflated: tuple[str, ByteArray] | None = None

    def __repr__(self) -> str:
        return f"ZipStore({self.url!r})"

    def __reduce__(self) -> tuple[object, ...]:
        return ZipStore, (self._store, self._key, self.prefix)

    def at(self, prefix: str) -> ZipStore:
        """Give the same archive, seen from another folder of it."""
        other = ZipStore(self._store, self._key, prefix, size=self._size)
        other._entries, other._folders = self._entries, self._folders
        other._data_offset = self._data_offset
        return other

    def get(
        self, key: str, allocate: Allocate = new_bytes, max_nbytes: int | None = None
    ) -> ByteArray | None:
        """Whole object, or None if there is none."""
        name = self._name(key)
        entry = self._entry(name)
        if entry is None:
            return None
        check_size(self.url, key, entry.nbytes, max_nbytes)
        if entry.method != STORED:
            return self._inflate(name, entry)
        data = self._read(name, entry, ByteRange(0, entry.nbytes), allocate)
        self._check(name, entry, data)
        return data

    def get_range(
        self, key: str, byte_range: ByteRange, allocate: Allocate = new_bytes
    ) -> ByteArray | None:
        """Exactly the bytes of `byte_range`, or None if there is no such object."""
        name = self._name(key)
        entry = self._entry(name)
        if entry is None:
            return None
        if byte_range.end > entry.nbytes:
            reason = (
                f"bytes {byte_range.offset}-{byte_range.end} lie beyond the end of the object "
                f"({entry.nbytes} bytes); it is truncated or its index is wrong"
            )
            raise self._error(name, reason)
        if entry.method != STORED:
            return self._inflate(name, entry)[byte_range.offset : byte_range.end]
        return self._read(name, entry, byte_range, allocate)

    def get_suffix(self, key: str, nbytes: int) -> ByteArray | None:
        """Last `nbytes` bytes or the whole object, or None if there is none."""
        entry = self._entry(self._name(key))
        if entry is None:
            return None
        start = max(0, entry.nbytes - nbytes)
        return self.get_range(key, ByteRange(start, entry.nbytes - start))

    def size(self, key: str) -> int | None:
        """Size of the object in bytes, or None if there is none."""
        entry = self._directory().get(self._name(key))
        return None if entry is None else entry.nbytes

    def list_dir(self, prefix: str) -> list[str]:
        """Names directly under `prefix`, sorted."""
        if self._folders is None:
            self._folders = _folders_of(self._directory())
        return list(self._folders.get(self._name(prefix).rstrip("/"), ()))

    def _name(self, key: str) -> str:
        if not self.prefix:
            return key
        return f"{self.prefix}/{key}" if key else self.prefix

    def _directory(self) -> dict[str, Entry]:
        if self._entries is None:
            self._entries = read_directory(self._store, self._key, self.archive, self._size)
        return self._entries

    def _entry(self, name: str) -> Entry | None:
        """Entry of a name, or None; one that cannot be read is an error."""
        entry = self._directory().get(name)
        problem = None if entry is None else entry.problem()
        if problem is not None:
            raise self._error(name, problem)
        return entry

    def _inflate(self, name: str, entry: Entry) -> ByteArray:
        """Whole deflated object, verified."""
        kept = self._inflated
        if kept is not None and kept[0] == name:
            return kept[1]
        stored = self._read(name, entry, ByteRange(0, entry.stored_nbytes), new_bytes)
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        try:  # a limit of zero would mean none
            data = inflater.decompress(stored.data, entry.nbytes + 1)
        except zlib.error as error:
            raise self._error(name, f"cannot be inflated: {error}") from error
        if len(data) != entry.nbytes or not inflater.eof or inflater.unused_data:
            reason = f"its {stored.size} bytes do not inflate to the {entry.nbytes} of its size"
            raise self._error(name, reason)
        result = np.frombuffer(data, np.uint8)
        self._check(name, entry, result)
        if result.size <= _MAX_KEPT_NBYTES:
            self._inflated = name, result
        return result

    def _check(self, name: str, entry: Entry, data: ByteArray) -> None:
        crc = zlib.crc32(data.data)
        if crc != entry.crc:
            reason = f"CRC-32 is {crc:08x}, the directory says {entry.crc:08x}; it is corrupt"
            raise self._error(name, reason)

    def _read(
        self, name: str, entry: Entry, byte_range: ByteRange, allocate: Allocate
    ) -> ByteArray:
        """Bytes of an entry as it is stored."""
        data_offset = self._data_offset.get(name)
        if data_offset is None:
            # where requests wait, the range comes with the header if it is near; where they do
            # not, the range shall lie in the memory that the caller offers
            waits = self._store.io_concurrency > 1
            ahead = byte_range.end if waits and byte_range.offset <= self.max_gap_bytes else 0
            data_offset, head = self._find_data(name, entry, ahead)
            self._data_offset[name] = data_offset
            start = data_offset - entry.offset + byte_range.offset
            if start + byte_range.nbytes <= head.size:
                return head[start : start + byte_range.nbytes]
        where = ByteRange(data_offset + byte_range.offset, byte_range.nbytes)
        return self._range(name, where, allocate)

    def _find_data(self, name: str, entry: Entry, ahead: int) -> tuple[int, ByteArray]:
        """Offset of an entry's data, and what was read from its header on to know it."""
        guess = LOCAL_HEADER_NBYTES + len(entry.stored_name) + _HEADER_SLACK_NBYTES + ahead
        room = entry.room_end - entry.offset
        head = self._range(name, ByteRange(entry.offset, min(guess, room)), new_bytes)
        nbytes = header_nbytes(head[:LOCAL_HEADER_NBYTES].tobytes())
        if nbytes is None or nbytes > room:
            raise self._error(name, f"no local header at byte {entry.offset}; it is corrupt")
        if nbytes > head.size:
            head = self._range(name, ByteRange(entry.offset, nbytes), new_bytes)
        found = entry.data_offset(head[:nbytes].tobytes())
        if isinstance(found, str):
            raise self._error(name, found)
        return found, head

    def _range(self, name: str, byte_range: ByteRange, allocate: Allocate) -> ByteArray:
        """Bytes of the archive."""
        try:
            data = self._store.get_range(self._key, byte_range, allocate)
        except StoreError as error:
            raise self._error(name, str(error)) from error
        if data is None:
            raise self._error(name, "the archive vanished")
        return data

    def _error(self, name: str, reason: str) -> StoreError:
        return StoreError(f"entry {name!r} of the zip archive {self.archive!r}: {reason}")


def _folders_of(names: dict[str, Entry]) -> dict[str, list[str]]:
    """Sorted names in each folder; names that no key can have are left out."""
    found: dict[str, set[str]] = {"": set()}
    for name in names:
        if name.startswith("/") or "//" in name:
            continue
        while True:
            folder, _, last = name.rpartition("/")
            siblings = found.setdefault(folder, set())
            if last in siblings:
                break
            siblings.add(last)
            if not folder:
                break
            name = folder
    return {folder: sorted(members) for folder, members in found.items()}
