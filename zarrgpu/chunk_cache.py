"""Decoded chunks of earlier reads, the least recently used given up first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar, cast

from numpy.typing import NDArray

from zarrgpu.forks import tell_of_forks
from zarrgpu.slabs import Slabs

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


class DevicePart(Protocol):
    """What a cache holds on one device: `devices.device_chunks`, which this module lies below."""

    @property
    def nbytes(self) -> int:
        """Device memory held."""

    def __len__(self) -> int: ...

    def clear(self) -> None:
        """Forget all chunks."""


_Part = TypeVar("_Part", bound=DevicePart)
_Driver = TypeVar("_Driver")


class ChunkCache:
    """A bounded cache of decoded chunks, safe for threads.

    Pays where separate reads meet the same chunks: patches asked for one by one, windows that
    overlap. A cached chunk is not looked at again in the store: what is written there after it was
    read is not seen until `clear`.

    Reads on the CPU keep chunks in host memory, reads on a GPU in its own memory, where they are
    neither fetched, copied nor decoded again. Where a GPU has less memory to give, its chunks take
    no more than it gave.

    Parameters
    ----------
    max_bytes : int
        Upper bound of the decoded chunks held in host memory; at least 0.
    device_bytes : int, optional
        Upper bound of those held on each GPU that reads with this cache; `max_bytes` if not given.

    Attributes
    ----------
    nbytes : int
        Held in host memory.
    hits, misses : int
        Chunks that reads on all devices found, and did not find.
    slabs : Slabs
        Where chunks that shall be kept are decoded to.
    """

    def __init__(self, max_bytes: int, device_bytes: int | None = None) -> None:
        device_bytes = max_bytes if device_bytes is None else device_bytes
        for name, value in (("max_bytes", max_bytes), ("device_bytes", device_bytes)):
            if type(value) is not int or value < 0:
                msg = f"{name} must be an integer of at least 0, got {value!r}"
                raise ValueError(msg)
        self.max_bytes = max_bytes
        self.device_bytes = device_bytes
        self.nbytes = 0
        self.hits = 0
        self.misses = 0
        self.slabs = Slabs(max_bytes // 8)
        self._on_devices: dict[Any, DevicePart] = {}  # by driver
        self._chunks: OrderedDict[Key, CachedChunk] = OrderedDict()
        self._sharing: dict[int, list[int]] = {}  # bytes and chunks of each piece of memory
        self._lock = threading.Lock()
        tell_of_forks(self)

    def __repr__(self) -> str:
        held = [f"{self.nbytes} of {self.max_bytes} bytes, {len(self._chunks)} chunks"]
        held += [
            f"{part.nbytes} of {self.device_bytes} bytes, {len(part)} chunks on {driver.name}"
            for driver, part in list(self._on_devices.items())
        ]
        return f"ChunkCache({'; '.join(held)})"

    def __len__(self) -> int:
        """Chunks held, on all devices."""
        return len(self._chunks) + sum(map(len, list(self._on_devices.values())))

    @property
    def device_nbytes(self) -> dict[str, int]:
        """Name of a GPU -> bytes of its memory that are held."""
        return {driver.name: part.nbytes for driver, part in list(self._on_devices.items())}

    def __getstate__(self) -> tuple[int, int]:
        return self.max_bytes, self.device_bytes

    def __setstate__(self, bounds: tuple[int, int]) -> None:
        """Begin empty in another process: chunks are cheaper to decode than to send."""
        self.__init__(*bounds)  # type: ignore[misc]

    def after_fork(self) -> None:
        """Begin empty in a forked process if another thread was at work here."""
        if self._lock.locked():
            parts = self._on_devices  # told on their own
            self.__init__(self.max_bytes, self.device_bytes)  # type: ignore[misc]
            self._on_devices = parts

    def on_device(self, driver: _Driver, make: Callable[[_Driver, int], _Part]) -> _Part:
        """What is held by one driver's device; made with its bound when first asked for."""
        with self._lock:
            part = self._on_devices.get(driver)
            if part is None:
                part = self._on_devices[driver] = make(driver, self.device_bytes)
        return cast("_Part", part)

    def count(self, hits: int, misses: int) -> None:
        """Add to the counters what a read on a device found."""
        with self._lock:
            self.hits += hits
            self.misses += misses

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
            parts = list(self._on_devices.values())
        for part in parts:
            part.clear()
        self.slabs.forget()


def _memory_of(elements: NDArray[Any]) -> NDArray[Any]:
    """Array that owns the memory under another."""
    return elements if elements.base is None else elements.base
