"""Files under a folder, or one file: plain positional reads that release the GIL."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import TypeVar

from zarrgpu.errors import StoreError
from zarrgpu.model import ByteArray, ByteRange
from zarrgpu.stores.base import Allocate, check_size, new_bytes

Result = TypeVar("Result")

_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR}


class LocalStore:
    """Objects are files below `root`; keys are relative paths with ``/``.

    Parameters
    ----------
    root : path
        Folder. It need not exist: then every object is missing.
    """

    io_concurrency = 1
    """Page-cache reads do not wait, so decoding threads read for themselves."""

    max_gap_bytes = 16 << 10
    max_coalesced_bytes = 512 << 10
    """Small, so that a read's chunks spread over the decoding threads."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = os.path.abspath(root)  # noqa: PTH100 - a string is faster to join with
        self.url = self.root

    def __repr__(self) -> str:
        return f"LocalStore({self.root!r})"

    def get(
        self, key: str, allocate: Allocate = new_bytes, max_nbytes: int | None = None
    ) -> ByteArray | None:
        """Whole file, or None if there is none."""

        def whole(fd: int, size: int) -> ByteArray:
            check_size(self.url, key, size, max_nbytes)
            return self._read(fd, key, 0, size, size, allocate)

        return self._opened(key, whole)

    def get_range(
        self, key: str, byte_range: ByteRange, allocate: Allocate = new_bytes
    ) -> ByteArray | None:
        """Exactly the bytes of `byte_range`, or None if there is no such file."""
        offset, nbytes = byte_range.offset, byte_range.nbytes
        return self._opened(
            key, lambda fd, size: self._read(fd, key, offset, nbytes, size, allocate)
        )

    def get_suffix(self, key: str, nbytes: int) -> ByteArray | None:
        """Last `nbytes` bytes or the whole file, or None if there is none."""

        def suffix(fd: int, size: int) -> ByteArray:
            start = max(0, size - nbytes)
            return self._read(fd, key, start, size - start, size, new_bytes)

        return self._opened(key, suffix)

    def size(self, key: str) -> int | None:
        """Size of the file in bytes, or None if there is none."""
        return self._opened(key, lambda _, size: size)

    def local_file(self, key: str) -> str | None:
        """Path of an object's file; None for a key that leaves the store."""
        return None if ".." in key.split("/") else self._path(key)

    def list_dir(self, prefix: str) -> list[str]:
        """Names directly under `prefix`, sorted."""
        try:
            return sorted(os.listdir(self._path(prefix)))  # noqa: PTH208 - names, not Paths
        except OSError as error:
            if error.errno in _ABSENT:
                return []
            raise self._error(prefix, error) from error
        except ValueError as error:
            msg = f"{self.url!r} key {prefix!r}: {error}"
            raise StoreError(msg) from error

    def _path(self, key: str) -> str:
        if ".." in key.split("/"):
            msg = f"key {key!r} leaves the store {self.url!r}"
            raise StoreError(msg)
        return f"{self.root}/{key}" if key else self.root

    def _opened(self, key: str, work: Callable[[int, int], Result]) -> Result | None:
        """Result of `work` on a file's descriptor and size, or None where there is no such file."""
        try:  # without waiting for the writer of a pipe
            fd = os.open(self._path(key), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            if error.errno in _ABSENT:
                return None
            raise self._error(key, error) from error
        except ValueError as error:  # a name that no file can have
            msg = f"{self.url!r} key {key!r}: {error}"
            raise StoreError(msg) from error
        try:
            found = os.fstat(fd)
            if stat.S_ISREG(found.st_mode):
                return work(fd, found.st_size)
            if stat.S_ISDIR(found.st_mode):
                return None
            msg = f"{self.url!r} key {key!r}: is no regular file"
            raise StoreError(msg)
        except OSError as error:
            if isinstance(error, StoreError):
                raise
            raise self._error(key, error) from error
        finally:
            os.close(fd)

    def _read(
        self, fd: int, key: str, offset: int, nbytes: int, size: int, allocate: Allocate
    ) -> ByteArray:
        """Bytes of a file of `size`, all of them or an error."""
        if offset + nbytes > size:
            msg = (
                f"{self.url!r} key {key!r}: bytes {offset}-{offset + nbytes} lie beyond the end of "
                f"the object ({size} bytes); the file is truncated or its index is wrong"
            )
            raise StoreError(msg)
        out = allocate(nbytes)
        view, done = out.data, 0
        while done < nbytes:
            got = os.preadv(fd, [view[done:] if done else view], offset + done)
            if got == 0:
                msg = f"{self.url!r} key {key!r}: the object shrank while it was read"
                raise StoreError(msg)
            done += got
        return out

    def _error(self, key: str, error: OSError) -> StoreError:
        return StoreError(f"{self.url!r} key {key!r}: {error.strerror or error}")
