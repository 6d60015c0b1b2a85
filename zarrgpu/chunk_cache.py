"""Decoded chunks of earlier reads, the least recently used given up first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from zarrgpu.forks import tell_of_forks

Key = tuple[int, int]


class ChunkCache:
    """A bounded cache of decoded chunks in host memory, safe for threads.

    Pays where separate reads meet the same chunks: patches asked for one by one, windows that
    overlap. A cached chunk is not looked at again in the store: what is written there after it was
    read is not seen until `clear`. Used by reads on the CPU.

    Parameters
    ----------
    max_bytes : int
        Upper bound of the decoded chunks held; at least 0.
    """

    def __init__(self, max_bytes: int) -> None:
        if type(max_bytes) is not int or max_bytes < 0:
            msg = f"max_bytes must be an integer of at least 0, got {max_bytes!r}"
            raise ValueError(msg)
        self.max_bytes = max_bytes
        self.nbytes = 0
        self.hits = 0
        self.misses = 0
        self._chunks: OrderedDict[Key, NDArray[Any]] = OrderedDict()
        self._lock = threading.Lock()
        tell_of_forks(self)

    def __repr__(self) -> str:
        return f"ChunkCache({self.nbytes} of {self.max_bytes} bytes, {len(self._chunks)} chunks)"

    def __len__(self) -> int:
        return len(self._chunks)

    def __getstate__(self) -> int:
        return self.max_bytes

    def __setstate__(self, max_bytes: int) -> None:
        """Begin empty in another process: chunks are cheaper to decode than to send."""
        self.__init__(max_bytes)  # type: ignore[misc]

    def after_fork(self) -> None:
        """Begin empty in a forked process if another thread was at work here."""
        if self._lock.locked():
            self.__init__(self.max_bytes)  # type: ignore[misc]

    def get_many(self, keys: Sequence[Key]) -> list[NDArray[Any] | None]:
        """Elements of each chunk, read-only and in array axes, or None."""
        found: list[NDArray[Any] | None] = []
        with self._lock:
            for key in keys:
                elements = self._chunks.get(key)
                if elements is not None:
                    self._chunks.move_to_end(key)
                found.append(elements)
            missed = sum(elements is None for elements in found)
            self.misses += missed
            self.hits += len(found) - missed
        return found

    def put(self, key: Key, elements: NDArray[Any]) -> None:
        """Keep a chunk, if it fits at all; it must not be written to any more."""
        size = elements.nbytes
        if size > self.max_bytes:
            return
        elements.flags.writeable = False
        with self._lock:
            known = self._chunks.pop(key, None)
            if known is not None:
                self.nbytes -= known.nbytes
            self._chunks[key] = elements
            self.nbytes += size
            while self.nbytes > self.max_bytes:
                _, oldest = self._chunks.popitem(last=False)
                self.nbytes -= oldest.nbytes

    def clear(self) -> None:
        """Forget all chunks."""
        with self._lock:
            self._chunks.clear()
            self.nbytes = 0
