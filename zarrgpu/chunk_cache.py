"""Decoded chunks of earlier reads, the least recently used given up first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from numpy.typing import NDArray

from zarrgpu.forks import tell_of_forks

Key = tuple[int, int]


class CachedChunk(NamedTuple):
    """A decoded chunk that must not be written to any more.

    Attributes
    ----------
    elements : array
        Array axes. Its memory may be shared with other chunks that were read with it.
    address : int
        Of the first byte; asking NumPy for it costs more than the look-up.
    """

    elements: NDArray[Any]
    address: int


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
        self._chunks: OrderedDict[Key, CachedChunk] = OrderedDict()
        self._sharing: dict[int, list[int]] = {}  # bytes and chunks of each piece of memory
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

    def get_many(self, keys: Sequence[Key]) -> list[CachedChunk | None]:
        """Each chunk, or None."""
        found: list[CachedChunk | None] = []
        with self._lock:
            for key in keys:
                chunk = self._chunks.get(key)
                if chunk is not None:
                    self._chunks.move_to_end(key)
                found.append(chunk)
            missed = found.count(None)
            self.misses += missed
            self.hits += len(found) - missed
        return found

    def put_many(self, chunks: Iterable[tuple[Key, CachedChunk]]) -> None:
        """Keep chunks, as far as they fit; they must not be written to any more.

        What counts is the memory under them, for as long as one chunk on it is kept.
        """
        with self._lock:
            for key, chunk in chunks:
                if _memory_of(chunk.elements).nbytes > self.max_bytes:
                    continue
                chunk.elements.flags.writeable = False
                if key in self._chunks:
                    self._drop(self._chunks.pop(key))
                self._chunks[key] = chunk
                self._count(chunk)
                while self.nbytes > self.max_bytes:
                    self._drop(self._chunks.popitem(last=False)[1])

    def _count(self, chunk: CachedChunk) -> None:
        memory = _memory_of(chunk.elements)
        share = self._sharing.setdefault(id(memory), [memory.nbytes, 0])
        if not share[1]:
            self.nbytes += share[0]
        share[1] += 1

    def _drop(self, chunk: CachedChunk) -> None:
        memory = id(_memory_of(chunk.elements))
        share = self._sharing[memory]
        share[1] -= 1
        if not share[1]:
            self.nbytes -= share[0]
            del self._sharing[memory]

    def clear(self) -> None:
        """Forget all chunks."""
        with self._lock:
            self._chunks.clear()
            self._sharing.clear()
            self.nbytes = 0


def _memory_of(elements: NDArray[Any]) -> NDArray[Any]:
    """Array that owns the memory under another."""
    return elements if elements.base is None else elements.base
