"""Any fsspec filesystem (http, s3, gs, memory ...) as a store.

Requests are issued from several threads at once; fsspec's asynchronous filesystems run them on one
event loop, so a thread costs little while it waits. That loop's thread is not in a forked process:
there a filesystem is made anew.
"""

from __future__ import annotations

import os
import selectors
import sys
import threading
from contextlib import nullcontext
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from zarrgpu.errors import ObjectTooLargeError, StoreError
from zarrgpu.model import ByteArray, ByteRange
from zarrgpu.stores.base import Allocate, check_range, check_size, new_bytes
from zarrgpu.stores.http import read_http
from zarrgpu.stores.public import public_address
from zarrgpu.stores.retry import attempt, http_status

_HTTP = frozenset({"http", "https"})
_RANGES = _HTTP | {"s3", "gs", "gcs", "abfs", "az", "memory"}
"""Protocols whose filesystem reads a range by one request, clipped at the object's end."""

_SUFFIXES = _HTTP | {"s3", "gs", "gcs"}
"""Those that can ask for the last bytes as well."""

_archive_locks: WeakKeyDictionary[Any, threading.Lock] = WeakKeyDictionary()
"""Archives (tar, or zip as the caller's filesystem) have one file position for all threads: from
Python 3.12 on ``zipfile`` seeks from wherever another thread left it, and gives that thread's bytes
without an error."""

_of_the_parent: list[Any] = []
"""Filesystems that a fork left behind; what would close them shall not run here."""

_loops: list[Any] = []
"""Fsspec's loop, while the process forks."""


class FsspecStore:
    """Objects of an fsspec filesystem below `root`.

    Whole objects are asked for by a range as long as they may be, so that a larger one is refused
    after that many bytes; over http the body itself is cut off there, whatever the server answers.
    Filesystems that are not known to read ranges are asked for the size first.

    Parameters
    ----------
    filesystem : fsspec.AbstractFileSystem
    root : str
        Path within it, as the filesystem writes it (protocol stripped).
    query : str
        Of http: what follows ``?`` in every address, such as the signature of a presigned one. It
        may stand in `root` as well, and is in no message.
    """

    io_concurrency = 32
    max_gap_bytes = 1 << 20
    max_coalesced_bytes = 8 << 20

    def __init__(self, filesystem: Any, root: str, query: str = "") -> None:
        self._filesystem, self._pid = filesystem, os.getpid()
        protocol = filesystem.protocol
        self.protocol = protocol if isinstance(protocol, str) else protocol[0]
        if self.protocol in _HTTP and not query:
            root, _, query = root.partition("?")
        self.root, self.query = root.rstrip("/"), query
        self._has_parent = bool(root)
        url = self.root if "://" in self.root else f"{self.protocol}://{self.root}"
        self.url = public_address(url) if self.protocol in _HTTP else url
        self._has_suffixes = self.protocol in _SUFFIXES

    def __repr__(self) -> str:
        return f"FsspecStore({self.url!r})"

    def __reduce__(self) -> tuple[object, ...]:
        return FsspecStore, (self._filesystem, self.root, self.query)

    @property
    def filesystem(self) -> Any:
        """The filesystem, made anew after a fork."""
        if self._pid != os.getpid():
            _of_the_parent.append(self._filesystem)  # if fsspec does not hold it
            self._filesystem, self._pid = _anew(self._filesystem), os.getpid()
        return self._filesystem

    def get(
        self, key: str, allocate: Allocate = new_bytes, max_nbytes: int | None = None
    ) -> ByteArray | None:
        """Whole object, or None if there is none."""
        del allocate  # fsspec gives bytes of its own
        if max_nbytes is None:
            return self._cat(key, None, None)
        if self.protocol not in _RANGES:
            size = self.size(key)
            if size is not None:
                check_size(self.url, key, size, max_nbytes)
            data = self._cat(key, None, None)
        else:
            try:
                # over http without a range: servers answer 416 where the object is empty
                first = None if self.protocol in _HTTP else 0
                data = self._cat(key, first, max_nbytes + 1)
            except StoreError as error:
                if http_status(error) != 416 or self.size(key) != 0:
                    raise
                return np.empty(0, np.uint8)  # no range lies in an empty object
        if data is not None:
            check_size(self.url, key, data.size, max_nbytes)
        return data

    def get_range(
        self, key: str, byte_range: ByteRange, allocate: Allocate = new_bytes
    ) -> ByteArray | None:
        """Exactly the bytes of `byte_range`, or None if there is no such object."""
        del allocate  # fsspec gives bytes of its own
        if byte_range.nbytes == 0:
            return None if self._info(key) is None else np.empty(0, np.uint8)
        data = self._cat(key, byte_range.offset, byte_range.end)
        if data is not None and data.size > byte_range.nbytes:
            msg = (
                f"{self.url!r} key {key!r}: asked for bytes {byte_range.offset}-{byte_range.end}, "
                f"got more than {byte_range.nbytes} bytes; the server ignores byte ranges: copy "
                "the data to one that does not"
            )
            raise ObjectTooLargeError(msg)
        if data is not None:
            check_range(self.url, key, byte_range, data.size)
        return data

    def get_suffix(self, key: str, nbytes: int) -> ByteArray | None:
        """Last `nbytes` bytes or the whole object, or None if there is none."""
        if self._has_suffixes and nbytes:
            try:
                data = self._cat(key, -nbytes, None)
            except StoreError as error:
                if http_status(error) not in (400, 416, 501):
                    raise
            else:
                if data is None or data.size <= nbytes:
                    return data
            self._has_suffixes = False  # Azure's http knows no suffixes, for one
        info = self._info(key)
        if info is None:
            return None
        if info.get("size") is None:
            msg = f"{self.url!r} key {key!r}: the server does not tell its size, nor its last bytes"
            raise StoreError(msg)
        start = max(0, int(info["size"]) - nbytes)
        return self.get_range(key, ByteRange(start, int(info["size"]) - start))

    def size(self, key: str) -> int | None:
        """Size of the object in bytes; None if there is none, or the server does not tell."""
        info = self._info(key)
        return None if info is None or info.get("size") is None else int(info["size"])

    def _info(self, key: str) -> dict[str, Any] | None:
        """What the filesystem knows of an object, or None if there is none."""

        def request(path: str) -> Any:
            try:
                return self.filesystem.info(path)
            except FileNotFoundError as error:  # over http it says so whatever failed
                cause = error.__cause__
                if cause is None or http_status(cause) == 404 or self.protocol not in _HTTP:
                    raise
                raise cause from None

        info: dict[str, Any] | None = self._attempt(key, request)
        return None if info is None or info.get("type") == "directory" else info

    def list_dir(self, prefix: str) -> list[str]:
        """Names directly under `prefix`, sorted."""
        found = self._attempt(prefix, lambda path: self.filesystem.ls(path, detail=False))
        base = self._path(prefix).rstrip("/")
        names = {self._name(str(path), base) for path in found or ()} - {""}
        return sorted(names - {base.rsplit("/", 1)[-1]} if base in (found or ()) else names)

    def _name(self, path: str, base: str) -> str:
        """Last part of a path that was listed; empty of a page's link to itself, sorted anew."""
        if self.protocol in _HTTP:  # fsspec puts links behind the query that was asked with
            path = path.removeprefix(f"{base}/").partition("?")[0]
        return path.rstrip("/").rsplit("/", 1)[-1]

    def _path(self, key: str) -> str:
        # the root of an archive is empty, and its names begin without a slash
        path = (f"{self.root}/{key}" if self._has_parent else key) if key else self.root
        return f"{path}?{self.query}" if self.query else path

    def _cat(self, key: str, start: int | None, end: int | None) -> ByteArray | None:
        filesystem = self.filesystem

        def request(path: str) -> bytes:
            if self.protocol in _HTTP:
                data = read_http(filesystem, path, start, end)
                if data is not None:
                    return data
            cat: bytes = filesystem.cat_file(path, start=start, end=end)
            return cat

        data = self._attempt(key, request)
        return None if data is None else np.frombuffer(data, np.uint8)

    def _attempt(self, key: str, request: Any) -> Any:
        path, lock = self._path(key), _lock_of(self.filesystem)

        def locked() -> Any:
            with lock:
                return request(path)

        return attempt(locked, f"{self.url!r} key {key!r}")


def _anew(filesystem: Any) -> Any:
    """Make a filesystem, and those that it reads from, again for this process."""
    from fsspec import AbstractFileSystem

    def fresh(value: Any) -> Any:
        return _anew(value) if isinstance(value, AbstractFileSystem) else value

    make, (kind, args, options) = filesystem.__reduce__()[:2]
    return make(
        kind, tuple(map(fresh, args)), {name: fresh(value) for name, value in options.items()}
    )


def _before_fork() -> None:
    """Note fsspec's loop, which it forgets in the child."""
    if "fsspec.asyn" in sys.modules:
        _loops.append(sys.modules["fsspec.asyn"].loop[0])


def _after_fork_in_parent() -> None:
    _loops.clear()


def _after_fork_in_child() -> None:
    """Keep this process away from the sockets of its parent.

    An epoll is shared by a fork. A connection that is collected here would take itself out of it,
    and the parent would never hear an answer: so the loop gets a selector of nothing. And what
    fsspec would drop at its first use here is held.
    """
    if not _loops:
        return
    for loop in _loops:
        if hasattr(loop, "_selector"):
            loop._selector = selectors.SelectSelector()
    _of_the_parent.extend(_loops)
    _loops.clear()
    from fsspec import AbstractFileSystem

    kinds = [AbstractFileSystem]
    while kinds:
        kind = kinds.pop()
        kinds.extend(kind.__subclasses__())
        _of_the_parent.extend(getattr(kind, "_cache", {}).values())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )


def _lock_of(filesystem: Any) -> Any:
    """Lock of a filesystem that may serve one thread only; others need none."""
    from fsspec.archive import AbstractArchiveFileSystem

    if not isinstance(filesystem, AbstractArchiveFileSystem):
        return nullcontext()
    return _archive_locks.setdefault(filesystem, threading.Lock())
