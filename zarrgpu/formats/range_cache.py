"""Blocks of a file that were read while its metadata is parsed, so that neighbours cost nothing.

Requests to an object store cost a latency each, so more is read than is asked for: a head that
holds all directories of a file made for the cloud, else a block with a directory and its values.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Callable
from typing import Final, TypeAlias

from zarrgpu.errors import MetadataError
from zarrgpu.model import ByteRange

ReadRange: TypeAlias = Callable[[int, int], bytes]
"""``(offset, nbytes)`` to exactly these bytes of the file, or an error."""

HEAD_NBYTES: Final = 16 << 10
"""First request: files made for the cloud have all their directories here."""

BLOCK_NBYTES: Final = 8 << 10
"""Least number of bytes of the others: a directory with its small values. Where one block follows
another, as in a file with all its directories together, each is twice as large as the one before.
"""

MAX_BLOCK_NBYTES: Final = 1 << 20
CACHE_NBYTES: Final = 64 << 20
"""Blocks beyond this many bytes are forgotten, the first read first."""

_SHARED_NBYTES: Final = 64 << 20
_SHARED_DIRECTORY_NBYTES: Final = 64 << 10
"""Metadata may be given out and parsed twice, and this much more: directories of a hostile file can
all have the same megabytes as their value, and lie over one another."""


class RangeCache:
    """Blocks of the file that were read, so that a value near its IFD costs no further request."""

    def __init__(self, read_range: ReadRange, size: int, source: str) -> None:
        self.size = size
        self.source = source
        self._read_range = read_range
        self._starts: list[int] = []
        self._blocks: dict[int, bytes] = {}
        self._nbytes = 0
        self._left = _SHARED_NBYTES + 2 * size
        self._left_of_directories = _SHARED_DIRECTORY_NBYTES + 2 * size

    def count_directory(self, nbytes: int, location: tuple[str | int, ...]) -> None:
        """Count a directory of `nbytes`; `MetadataError` if together they exceed the file."""
        self._left_of_directories -= nbytes
        if self._left_of_directories < 0:
            msg = f"directories take more bytes than the file has ({self.size}): they overlap"
            raise MetadataError(msg, source=self.source, location=location)

    def read(self, offset: int, nbytes: int, location: tuple[str | int, ...]) -> bytes:
        """Bytes ``[offset, offset + nbytes)``; `MetadataError` at `location` if beyond the file."""
        if offset < 0 or offset + nbytes > self.size:
            msg = (
                f"bytes {offset} to {offset + nbytes} lie beyond the end of the file "
                f"({self.size} bytes); the file is truncated or damaged"
            )
            raise MetadataError(msg, source=self.source, location=location)
        self._left -= nbytes
        if self._left < 0:
            msg = (
                f"values take more bytes than the file has ({self.size}): many directories share "
                "large ones, which is not read"
            )
            raise MetadataError(msg, source=self.source, location=location)
        cached = self._find(offset, nbytes)
        return self._fetch(offset, nbytes, location) if cached is None else cached

    def holds(self, byte_range: ByteRange) -> bool:
        """Whether reading `byte_range` would need no request."""
        return self._find(byte_range.offset, byte_range.nbytes) is not None

    def _before(self, offset: int) -> int | None:
        """Start of the last block that begins at or before `offset`."""
        at = bisect_right(self._starts, offset) - 1
        return None if at < 0 else self._starts[at]

    def _find(self, offset: int, nbytes: int) -> bytes | None:
        start = self._before(offset)
        if start is None:
            return None
        begin, block = offset - start, self._blocks[start]
        return block[begin : begin + nbytes] if begin + nbytes <= len(block) else None

    def _fetch(self, offset: int, nbytes: int, location: tuple[str | int, ...]) -> bytes:
        wanted = min(max(nbytes, self._read_ahead(offset)), self.size - offset)
        block = bytes(self._read_range(offset, wanted))
        if len(block) != wanted:
            msg = f"asked for {wanted} bytes at {offset}, got {len(block)}; is the file changing?"
            raise MetadataError(msg, source=self.source, location=location)
        if offset in self._blocks:
            self._nbytes -= len(self._blocks.pop(offset))
        else:
            insort(self._starts, offset)
        self._blocks[offset] = block
        self._nbytes += wanted
        while self._nbytes > CACHE_NBYTES and len(self._blocks) > 1:
            first = next(iter(self._blocks))
            self._nbytes -= len(self._blocks.pop(first))
            self._starts.remove(first)
        return block[:nbytes]

    def _read_ahead(self, offset: int) -> int:
        if not offset:
            return HEAD_NBYTES
        before = self._before(offset)
        size = 0 if before is None else len(self._blocks[before])
        if before is not None and offset <= before + size + BLOCK_NBYTES:
            return min(max(2 * size, BLOCK_NBYTES), MAX_BLOCK_NBYTES)
        return BLOCK_NBYTES
