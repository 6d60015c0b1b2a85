"""Files under a folder, or one file: plain positional reads that release the GIL."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

from zarrgpu.errors import StoreError
from zarrgpu.model import ByteArray, ByteRange
from zarrgpu.stores.base import Allocate, check_size, new_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

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
        with self._opened(key) as fd:
            if fd is None:
                return None
            size = os.fstat(fd).st_size
            check_size(self.url, key, size, max_nbytes)
            return self._read(fd, key, ByteRange(0, size), allocate)

    def get_range(
        self, key: str, byte_range: ByteRange, allocate: Allocate = new_bytes
    ) -> ByteArray | None:
        """Exactly the bytes of `byte_range`, or None if there is no such file."""
        with self._opened(key) as fd:
            return None if fd is None else self._read(fd, key, byte_range, allocate)

    def get_suffix(self, key: str, nbytes: int) -> ByteArray | None:
        """Last `nbytes` bytes or the whole file, or None if there is none."""
        with self._opened(key) as fd:
            if fd is None:
                return None
            size = os.fstat(fd).st_size
            start = max(0, size - nbytes)
            return self._read(fd, key, ByteRange(start, size - start))

    def size(self, key: str) -> int | None:
        """Size of the file in bytes, or None if there is none."""
        with self._opened(key) as fd:
            return None if fd is None else os.fstat(fd).st_size

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

    @contextmanager
    def _opened(self, key: str) -> Iterator[int | None]:
        """Yield a descriptor, or None where there is no such file."""
        try:  # without waiting for the writer of a pipe
            fd = os.open(self._path(key), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            if error.errno in _ABSENT:
                yield None
                return
            raise self._error(key, error) from error
        except ValueError as error:  # a name that no file can have
            msg = f"{self.url!r} key {key!r}: {error}"
            raise StoreError(msg) from error
        try:
            mode = os.fstat(fd).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                msg = f"{self.url!r} key {key!r}: is no regular file"
                raise StoreError(msg)
            yield fd if stat.S_ISREG(mode) else None
        except OSError as error:
            if isinstance(error, StoreError):
                raise
            raise self._error(key, error) from error
        finally:
            os.close(fd)

    def _read(
        self, fd: int, key: str, byte_range: ByteRange, allocate: Allocate = new_bytes
    ) -> ByteArray:
        size = os.fstat(fd).st_size
        if byte_range.end > size:
            msg = (
                f"{self.url!r} key {key!r}: bytes {byte_range.offset}-{byte_range.end} lie beyond "
                f"the end of the object ({size} bytes); the file is truncated or its index is wrong"
            )
            raise StoreError(msg)
        out = allocate(byte_range.nbytes)
        view, done = out.data, 0
        while done < byte_range.nbytes:
            got = os.preadv(fd, [view[done:]], byte_range.offset + done)
            if got == 0:
                msg = f"{self.url!r} key {key!r}: the object shrank while it was read"
                raise StoreError(msg)
            done += got
        return out

    def _error(self, key: str, error: OSError) -> StoreError:
        return StoreError(f"{self.url!r} key {key!r}: {error.strerror or error}")
