"""A store of the ``obstore`` package (S3, GCS, Azure, http, local, memory) as a store.

https://developmentseed.org/obstore. It retries by itself (its ``retry_config``), and gives memory
of its own, which is not copied. Its threads do not survive a fork, after which a request would wait
for ever: that is an error here.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from zarrgpu.errors import StoreError
from zarrgpu.model import ByteArray, ByteRange
from zarrgpu.stores.base import Allocate, check_range, check_size, new_bytes
from zarrgpu.stores.public import public_text
from zarrgpu.stores.retry import public_error

T = TypeVar("T")

_used_in: set[int] = set()
"""Process that made the first request, which started obstore's threads."""


def is_obstore(value: object) -> bool:
    """Whether a value is a store of obstore, which need not be installed to ask."""
    return any(kind.__module__ == "obstore.store" for kind in type(value).__mro__)


class ObjectStore:
    """Objects of an obstore store below `root`.

    Parameters
    ----------
    store : obstore.store.ObjectStore
    root : str
        Prefix within it.
    """

    io_concurrency = 32
    max_gap_bytes = 1 << 20
    max_coalesced_bytes = 8 << 20

    def __init__(self, store: Any, root: str = "") -> None:
        self.store = store
        self.root = root.strip("/")
        name = public_text(repr(store))
        name = f"obstore.{type(store).__name__}" if name.startswith("<") else name
        self.url = f"{name}/{self.root}" if self.root else name

    def __repr__(self) -> str:
        return f"ObjectStore({self.url!r})"

    def get(
        self, key: str, allocate: Allocate = new_bytes, max_nbytes: int | None = None
    ) -> ByteArray | None:
        """Whole object, or None if there is none."""
        del allocate  # obstore brings memory of its own
        import obstore

        found = self._ask(key, lambda path: obstore.get(self.store, path))
        if found is None:
            return None
        check_size(self.url, key, found.meta["size"], max_nbytes)  # its body is not read yet
        return _bytes(self._ask(key, lambda _: found.bytes()))

    def get_range(
        self, key: str, byte_range: ByteRange, allocate: Allocate = new_bytes
    ) -> ByteArray | None:
        """Exactly the bytes of `byte_range`, or None if there is no such object."""
        import obstore

        del allocate  # obstore brings memory of its own
        if byte_range.nbytes == 0:
            return None if self.size(key) is None else np.empty(0, np.uint8)
        start, end = byte_range.offset, byte_range.end
        data = _bytes(
            self._ask(
                key,
                lambda path: obstore.get_range(self.store, path, start=start, end=end),
                f"bytes {start}-{end}",
            )
        )
        if data is not None:
            check_range(self.url, key, byte_range, data.size)
        return data

    def get_suffix(self, key: str, nbytes: int) -> ByteArray | None:
        """Last `nbytes` bytes or the whole object, or None if there is none."""
        import obstore

        if nbytes:
            options = {"range": {"suffix": nbytes}}
            try:
                found = self._ask(key, lambda path: obstore.get(self.store, path, options=options))
                return None if found is None else _bytes(self._ask(key, lambda _: found.bytes()))
            except StoreError:  # Azure knows no suffixes, and an empty object may have none
                pass
        size = self.size(key)
        if size is None:
            return None
        start = max(0, size - nbytes)
        return self.get_range(key, ByteRange(start, size - start))

    def size(self, key: str) -> int | None:
        """Size of the object in bytes, or None if there is none."""
        import obstore

        meta = self._ask(key, lambda path: obstore.head(self.store, path))
        return None if meta is None else int(meta["size"])

    def list_dir(self, prefix: str) -> list[str]:
        """Names directly under `prefix`, sorted."""
        import obstore

        found = self._ask(prefix, lambda path: obstore.list_with_delimiter(self.store, path))
        if found is None:
            return []
        paths = [*found["common_prefixes"], *(meta["path"] for meta in found["objects"])]
        return sorted({str(path).rstrip("/").rsplit("/", 1)[-1] for path in paths})

    def _ask(self, key: str, request: Callable[[str], T], what: str = "") -> T | None:
        """Answer of a request, or None where the object is missing."""
        path = f"{self.root}/{key}".strip("/")
        where = f"{self.url!r} key {key!r}" + (f" {what}" if what else "")
        if ".." in path.split("/"):
            msg = f"key {key!r} leaves the store {self.url!r}"
            raise StoreError(msg)
        _used_in.add(os.getpid())
        if len(_used_in) > 1:
            msg = (
                f"{where}: obstore was used before this process was forked, and its threads are "
                "not here; start processes by 'spawn' or 'forkserver', or read it by a URL"
            )
            raise StoreError(msg)
        try:
            return request(path)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None
        except PermissionError as error:
            raise StoreError(f"{where}: access denied: {_first_line(error)}") from public_error(
                error
            )
        except Exception as error:
            raise StoreError(
                f"{where}: {type(error).__name__}: {_first_line(error)}"
            ) from public_error(error)


def _first_line(error: BaseException) -> str:
    """Message of an error without the debug text that obstore adds."""
    return public_text(str(error).split("\n", 1)[0])


def _bytes(data: Any) -> ByteArray | None:
    return None if data is None else np.frombuffer(data, np.uint8)
