"""Memory of the emulated device: real host addresses, every live byte of them known.

What a GPU would let pass or turn into a sticky error is refused here: accesses outside of live
allocations, use after release (the bytes are overwritten), writes beyond either end (guard bytes),
and reading what nothing wrote (fresh memory is not zero).
"""

from __future__ import annotations

import threading
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.emulator.streams import EmulatedStream

Kind = Literal["device", "pinned"]

FRESH, RELEASED, GUARD = 0xA5, 0xDD, 0xCB
_GUARD_NBYTES = 256  # a multiple of the alignment of allocations
_ALIGNMENT = 256

LOCK = threading.RLock()
"""The emulator's only lock. Memory ends its life in finalizers, which run wherever Python collects
garbage, also while a thread looks at the live allocations, and which queue work on a stream: with a
lock each, two threads could wait for each other."""


class EmulationError(AssertionError):
    """The code under test did what a GPU would not forgive."""


@dataclass(frozen=True, slots=True, eq=False)
class Allocation:
    """Live bytes ``[ptr, ptr + nbytes)`` and the array that owns them and their guards."""

    kind: Kind
    ptr: int
    nbytes: int
    storage: np.ndarray

    def view(self) -> np.ndarray:
        start = self.ptr - self.storage.ctypes.data
        return self.storage[start : start + self.nbytes]

    def guards(self) -> tuple[np.ndarray, np.ndarray]:
        start = self.ptr - self.storage.ctypes.data
        end = start + self.nbytes
        return self.storage[start - _GUARD_NBYTES : start], self.storage[end : end + _GUARD_NBYTES]


class EmulatedMemory:
    """Handle of an allocation; releasing it is dropping the last reference, views included."""

    __slots__ = ("__weakref__", "nbytes", "ptr", "users")

    def __init__(self, ptr: int, nbytes: int) -> None:
        self.ptr = ptr
        self.nbytes = nbytes
        self.users: dict[int, EmulatedStream] = {}

    def record_stream(self, stream: EmulatedStream) -> None:
        self.users[stream.handle] = stream

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return {"shape": (self.nbytes,), "typestr": "|u1", "data": (self.ptr, False), "version": 3}

    @property
    def array(self) -> np.ndarray:
        return np.asarray(self)


class Registry:
    """All live allocations of one emulated device."""

    def __init__(self) -> None:
        self._live: dict[int, Allocation] = {}
        self._lock = LOCK
        self.peak_nbytes = 0

    def allocate(
        self, kind: Kind, nbytes: int, when_released: Callable[[Callable[[], None]], None]
    ) -> EmulatedMemory:
        """Allocate; `when_released` is given the function that ends the allocation's life."""
        storage = np.full(nbytes + 2 * _GUARD_NBYTES + _ALIGNMENT, GUARD, np.uint8)
        ptr = storage.ctypes.data + _GUARD_NBYTES
        ptr += -ptr % _ALIGNMENT
        allocation = Allocation(kind, ptr, nbytes, storage)
        allocation.view()[:] = FRESH
        with self._lock:
            self._live[ptr] = allocation
            self.peak_nbytes = max(self.peak_nbytes, self.live_nbytes("device"))
        memory = EmulatedMemory(ptr, nbytes)
        end = weakref.finalize(memory, when_released, lambda: self._release(ptr))
        end.atexit = False
        return memory

    def _release(self, ptr: int) -> None:
        with self._lock:
            allocation = self._live.pop(ptr)
        allocation.storage[:] = RELEASED

    def live(self, kind: Kind) -> list[Allocation]:
        with self._lock:
            return sorted(
                (a for a in list(self._live.values()) if a.kind == kind), key=lambda a: a.ptr
            )

    def live_nbytes(self, kind: Kind) -> int:
        return sum(a.nbytes for a in self.live(kind))

    def check(self, kind: Kind, addresses: Any, sizes: Any, what: str) -> None:
        """Refuse ranges (scalars or arrays) that do not lie within one live allocation each."""
        addresses, sizes = np.broadcast_arrays(
            np.atleast_1d(np.asarray(addresses, np.uint64)),
            np.atleast_1d(np.asarray(sizes, np.int64)),
        )
        used = sizes > 0
        if not used.any():
            return
        live = self.live(kind)
        starts = np.array([a.ptr for a in live], np.uint64)
        ends = np.array([a.ptr + a.nbytes for a in live], np.uint64)
        index = np.searchsorted(starts, addresses, side="right") - 1
        bad = used & (index < 0)
        if len(live):
            bad |= used & (addresses + sizes.astype(np.uint64) > ends[np.maximum(index, 0)])
        if bad.any() or not len(live):
            i = int(np.argmax(bad))
            msg = (
                f"{what}: [{int(addresses[i]):#x}, +{int(sizes[i])}) is not within live "
                f"{kind} memory (entry {i} of {addresses.size})"
            )
            raise EmulationError(msg)

    def check_guards(self, what: str) -> None:
        """Refuse any write that left its allocation."""
        for kind in ("device", "pinned"):
            for allocation in self.live(kind):
                for guard in allocation.guards():
                    intact = (guard == GUARD).all()
                    # a finalizer may end its life at any time, and overwrites all of it
                    if not intact and self._live.get(allocation.ptr) is allocation:
                        guard[:] = GUARD
                        msg = f"{what}: wrote outside of an allocation of {allocation.nbytes} bytes"
                        raise EmulationError(msg)
