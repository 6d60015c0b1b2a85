"""A store that stops answering once its reader does not want the result any more."""

from __future__ import annotations

from collections.abc import Callable

from zarrgpu.errors import ReadCancelledError
from zarrgpu.model import ByteArray, ByteRange
from zarrgpu.stores.base import Allocate, Store, local_file, new_bytes


class CancellableStore:
    """Another store, until it is cancelled: then reads raise `ReadCancelledError`.

    So every engine stops at its next fetch, and none has to know of it.

    Parameters
    ----------
    store : Store
    cancelled : callable
        Asked before each read, from any thread.
    """

    def __init__(self, store: Store, cancelled: Callable[[], bool]) -> None:
        self.store = store
        self._cancelled = cancelled
        self.url = store.url
        self.io_concurrency = store.io_concurrency
        self.max_gap_bytes = store.max_gap_bytes
        self.max_coalesced_bytes = store.max_coalesced_bytes

    def get(
        self, key: str, allocate: Allocate = new_bytes, max_nbytes: int | None = None
    ) -> ByteArray | None:
        """Whole object; see `Store.get`."""
        self.check()
        return self.store.get(key, allocate, max_nbytes)

    def get_range(
        self, key: str, byte_range: ByteRange, allocate: Allocate = new_bytes
    ) -> ByteArray | None:
        """Bytes of `byte_range`; see `Store.get_range`."""
        self.check()
        return self.store.get_range(key, byte_range, allocate)

    def get_suffix(self, key: str, nbytes: int) -> ByteArray | None:
        """Last `nbytes` bytes; see `Store.get_suffix`."""
        self.check()
        return self.store.get_suffix(key, nbytes)

    def size(self, key: str) -> int | None:
        """Size of the object; see `Store.size`."""
        self.check()
        return self.store.size(key)

    def local_file(self, key: str) -> str | None:
        """Path of an object's file; see `base.local_file`."""
        self.check()
        return local_file(self.store, key)

    def list_dir(self, prefix: str) -> list[str]:
        """Names directly under `prefix`; see `Store.list_dir`."""
        return self.store.list_dir(prefix)

    def check(self) -> None:
        """Raise `ReadCancelledError` if the read was cancelled."""
        if self._cancelled():
            msg = f"{self.url!r}: the read was cancelled"
            raise ReadCancelledError(msg)
