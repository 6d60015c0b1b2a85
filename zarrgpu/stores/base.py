"""What a store is: named objects whose byte ranges can be read, from several threads at once."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from zarrgpu.model import ByteArray, ByteRange


@runtime_checkable
class Store(Protocol):
    """Read-only access to objects by key.

    Keys use ``/`` and are relative to the store's root. Methods may be called from any thread. A
    missing object is an answer (None), not an error; everything else that fails raises
    `StoreError` with the key and the range.
    """

    url: str
    """Root, for messages."""

    io_concurrency: int
    """Requests that are worth having in flight at once."""

    max_gap_bytes: int
    """Bytes that are cheaper to read and drop than to ask around."""

    max_coalesced_bytes: int
    """Size at which one request is large enough."""

    def get(self, key: str) -> ByteArray | None:
        """Whole object, or None if there is none. The array may be read-only."""

    def get_range(self, key: str, byte_range: ByteRange) -> ByteArray | None:
        """Exactly the bytes of `byte_range`, or None if there is no such object.

        Raises `StoreError` if the object ends before the range does.
        """

    def get_suffix(self, key: str, nbytes: int) -> ByteArray | None:
        """Last `nbytes` bytes (the whole object if it is shorter), or None if there is none."""

    def size(self, key: str) -> int | None:
        """Size of the object in bytes, or None if there is none."""

    def list_dir(self, prefix: str) -> list[str]:
        """Names of the objects and folders directly under `prefix`, sorted; empty if none."""
