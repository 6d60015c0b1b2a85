"""Any fsspec filesystem (http, s3, gs, memory, zip ...) as a store.

Requests are issued from several threads at once; fsspec's asynchronous filesystems run them on one
event loop, so a thread costs little while it waits.
"""

from __future__ import annotations

import threading
from contextlib import nullcontext
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from zarrgpu.errors import StoreError
from zarrgpu.model import ByteArray, ByteRange
from zarrgpu.stores.base import Allocate, check_size, new_bytes

ATTEMPTS = 3
"""How often a request is tried before its failure is reported."""

_archive_locks: WeakKeyDictionary[Any, threading.Lock] = WeakKeyDictionary()
"""Archives (zip, tar) have one file position for all threads: from Python 3.12 on ``zipfile`` seeks
from wherever another thread left it, and gives that thread's bytes without an error."""


class FsspecStore:
    """Objects of an fsspec filesystem below `root`.

    Parameters
    ----------
    filesystem : fsspec.AbstractFileSystem
    root : str
        Path within it, as the filesystem writes it (protocol stripped).
    """

    io_concurrency = 32
    max_gap_bytes = 1 << 20
    max_coalesced_bytes = 8 << 20

    def __init__(self, filesystem: Any, root: str) -> None:
        self.filesystem = filesystem
        self.root = root.rstrip("/")
        self._has_parent = bool(root)
        protocol = filesystem.protocol
        self.protocol = protocol if isinstance(protocol, str) else protocol[0]
        self.url = self.root if "://" in self.root else f"{self.protocol}://{self.root}"

    def __repr__(self) -> str:
        return f"FsspecStore({self.url!r})"

    def get(
        self, key: str, allocate: Allocate = new_bytes, max_nbytes: int | None = None
    ) -> ByteArray | None:
        """Whole object, or None if there is none."""
        del allocate  # fsspec gives bytes of its own
        data = self._cat(key, None, None)
        if data is not None:
            check_size(self.url, key, data.size, max_nbytes)
        return data

    def get_range(
        self, key: str, byte_range: ByteRange, allocate: Allocate = new_bytes
    ) -> ByteArray | None:
        """Exactly the bytes of `byte_range`, or None if there is no such object."""
        del allocate  # fsspec gives bytes of its own
        if byte_range.nbytes == 0:
            return None if self.size(key) is None else np.empty(0, np.uint8)
        data = self._cat(key, byte_range.offset, byte_range.end)
        if data is not None and data.size != byte_range.nbytes:
            msg = (
                f"{self.url!r} key {key!r}: asked for bytes {byte_range.offset}-{byte_range.end}, "
                f"got {data.size} bytes; the object is truncated or its index is wrong"
            )
            raise StoreError(msg)
        return data

    def get_suffix(self, key: str, nbytes: int) -> ByteArray | None:
        """Last `nbytes` bytes or the whole object, or None if there is none."""
        size = self.size(key)
        if size is None:
            return None
        start = max(0, size - nbytes)
        return self.get_range(key, ByteRange(start, size - start))

    def size(self, key: str) -> int | None:
        """Size of the object in bytes, or None if there is none."""
        info = self._attempt(key, self.filesystem.info)
        if info is None or info.get("type") == "directory":
            return None
        return None if info.get("size") is None else int(info["size"])

    def list_dir(self, prefix: str) -> list[str]:
        """Names directly under `prefix`, sorted."""
        found = self._attempt(prefix, lambda path: self.filesystem.ls(path, detail=False))
        base = self._path(prefix).rstrip("/")
        names = {str(path).rstrip("/").rsplit("/", 1)[-1] for path in found or ()}
        return sorted(names - {base.rsplit("/", 1)[-1]} if base in (found or ()) else names)

    def _path(self, key: str) -> str:
        if not key:
            return self.root
        # the root of an archive is empty, and its names begin without a slash
        return f"{self.root}/{key}" if self._has_parent else key

    def _cat(self, key: str, start: int | None, end: int | None) -> ByteArray | None:
        data = self._attempt(key, lambda path: self.filesystem.cat_file(path, start=start, end=end))
        return None if data is None else np.frombuffer(data, np.uint8)

    def _attempt(self, key: str, request: Any) -> Any:
        """Run a request, again after a passing failure; None where the object is missing."""
        path, lock = self._path(key), _lock_of(self.filesystem)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                with lock:
                    return request(path)
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
                return None
            except PermissionError as error:
                msg = f"{self.url!r} key {key!r}: access denied: {error}"
                raise StoreError(msg) from error
            except Exception as error:
                # filesystems raise their client library's own errors; none is worth leaking
                if attempt == ATTEMPTS:
                    msg = (
                        f"{self.url!r} key {key!r}: failed {ATTEMPTS} times, last with "
                        f"{type(error).__name__}: {error}"
                    )
                    raise StoreError(msg) from error
        return None


def _lock_of(filesystem: Any) -> Any:
    """Lock of a filesystem that may serve one thread only; others need none."""
    from fsspec.archive import AbstractArchiveFileSystem

    if not isinstance(filesystem, AbstractArchiveFileSystem):
        return nullcontext()
    return _archive_locks.setdefault(filesystem, threading.Lock())
