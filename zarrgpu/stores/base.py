"""What a store is: named objects whose byte ranges can be read, from several threads at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np

from zarrgpu.errors import ObjectTooLargeError, StoreError
from zarrgpu.model import ByteArray, ByteRange, StoredBytes

Allocate: TypeAlias = Callable[[int], ByteArray]
"""Gives writable memory of a size: recycled or pinned memory of the caller."""


def new_bytes(nbytes: int) -> ByteArray:
    """Give fresh memory."""
    return np.empty(nbytes, np.uint8)


MAX_DOCUMENT_NBYTES = 64 << 20
"""A metadata document that is larger is refused before it is read."""


def check_size(url: str, key: str, nbytes: int, max_nbytes: int | None) -> None:
    """Refuse an object of `nbytes` bytes where at most `max_nbytes` are wanted."""
    if max_nbytes is not None and nbytes > max_nbytes:
        raise too_large(url, key, max_nbytes)


def check_range(url: str, key: str, byte_range: ByteRange, nbytes: int) -> None:
    """Refuse `nbytes` bytes that a server gave, where they are not all of `byte_range`."""
    if nbytes != byte_range.nbytes:
        msg = (
            f"{url!r} key {key!r}: asked for bytes {byte_range.offset}-{byte_range.end}, "
            f"got {nbytes} bytes; the object is truncated or its index is wrong"
        )
        raise StoreError(msg)


def too_large(url: str, key: str, max_nbytes: int) -> ObjectTooLargeError:
    """Error for an object that is larger than it may be."""
    msg = f"{url!r} key {key!r}: takes more than the {max_nbytes} bytes that it may have"
    return ObjectTooLargeError(msg)


@runtime_checkable
class Store(Protocol):
    """Read-only access to objects by key.

    Keys use ``/`` and are relative to the store's root. Methods may be called from any thread. A
    missing object is an answer (None), not an error; everything else that fails raises
    `StoreError` with the key and the range.

    `allocate` offers memory for the result. A store that reads into memory of the caller's choice
    takes it; one whose client library brings its own memory returns that.
    """

    url: str
    """Root, for messages."""

    io_concurrency: int
    """Requests that are worth having in flight at once."""

    max_gap_bytes: int
    """Bytes that are cheaper to read and drop than to ask around."""

    max_coalesced_bytes: int
    """Size at which one request is large enough."""

    def get(
        self, key: str, allocate: Allocate = new_bytes, max_nbytes: int | None = None
    ) -> ByteArray | None:
        """Whole object, or None if there is none. The array may be read-only.

        An object of more than `max_nbytes` bytes is an `ObjectTooLargeError`, raised before more
        than that is held in memory wherever the store can.
        """

    def get_range(
        self, key: str, byte_range: ByteRange, allocate: Allocate = new_bytes
    ) -> ByteArray | None:
        """Exactly the bytes of `byte_range`, or None if there is no such object.

        Raises `StoreError` if the object ends before the range does.
        """

    def get_suffix(self, key: str, nbytes: int) -> ByteArray | None:
        """Last `nbytes` bytes (the whole object if it is shorter), or None if there is none."""

    def size(self, key: str) -> int | None:
        """Size of the object in bytes, or None if there is none."""

    def list_dir(self, prefix: str) -> list[str]:
        """Names of the objects and folders directly under `prefix`, sorted; empty if none."""


def local_file(store: Store, key: str) -> str | None:
    """Path of the file that an object is in this file system, whether it is there or not.

    Its bytes are those of the object. None where objects are no files of their own, or are
    elsewhere. Stores that know say so with a method of this name.
    """
    find = getattr(store, "local_file", None)
    path = None if find is None else find(key)
    return path if isinstance(path, str) else None


def read_stored(store: Store, stored: StoredBytes) -> bytes | None:
    """Bytes that lie in an object; None if that is not there."""
    data = store.get_range(stored.key, stored.byte_range)
    return None if data is None else data.tobytes()


def range_reader(
    store: Store, key: str, source: str, head: bytes = b""
) -> Callable[[int, int], bytes]:
    """Give what reads bytes of an object that is there, by offset and size.

    Parameters
    ----------
    store : Store
    key : str
    source : str
        Names the object in messages.
    head : bytes
        First bytes of it, that have been read already.
    """

    def read_range(offset: int, nbytes: int) -> bytes:
        if offset + nbytes <= len(head):
            return head[offset : offset + nbytes]
        data = store.get_range(key, ByteRange(offset, nbytes))
        if data is None:
            msg = f"{source!r} vanished while it was opened"
            raise StoreError(msg)
        return data.tobytes()

    return read_range
