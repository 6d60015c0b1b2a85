"""Slots for decoded chunks: a few large slabs of device memory, each cut for chunks of one size.

Nothing is allocated per chunk. Slabs are allocated on a stream that nothing else is ever queued on,
so that their memory is free of work when it comes; whoever uses a slot waits for `ready` first.
Not safe for threads: `device_chunks` has the lock.
"""

from __future__ import annotations

import threading
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from zarrgpu.devices.driver import DeviceMemory, Driver, Event, Stream
from zarrgpu.errors import MemoryBudgetError

Int64s = NDArray[np.int64]

_SLABS = 32
"""Slabs that a full cache has, if they are not to be larger than this:"""

_SLAB_NBYTES = 256 << 20

_PATIENCE = 256
"""Requests for room for which a bound stays lowered that the device's memory ran out at."""

_ALIGNMENT = 256
"""Of slots: what `Driver.allocate` gives, and whole lines of the device's caches."""

_SLOT = np.dtype(
    [
        ("address", "i8"),
        ("nbytes", "i8"),
        ("slab", "i8"),  # -1 without memory
        ("pins", "i8"),
        ("used", "i8"),  # time of the last use; 0 if it is free
        ("owner", "i8"),
        ("chunk", "i8"),
        ("shuffle_block_nbytes", "i8"),
        ("published", "?"),
        ("verified", "?"),
    ]
)


class Slab(NamedTuple):
    """A piece of device memory and the rows of its slots."""

    memory: DeviceMemory
    slots: Int64s


class ChunkSlots:
    """All slots of one cache on one device.

    Parameters
    ----------
    driver : Driver
    max_bytes : int
        Upper bound of the device memory held. Where the device has less to give, what it gave is
        the bound for a while.

    Attributes
    ----------
    table : structured array
        A row per slot; what is in use is the owner's to note.
    slabs : dict of int to Slab
    nbytes : int
        Device memory held.
    limit : int
        `max_bytes`, or less for a while.
    ready : Event or None
        After the last slab was allocated; None before the first is.
    """

    def __init__(self, driver: Driver, max_bytes: int) -> None:
        self.max_bytes = self.limit = max_bytes
        self.table = np.zeros(0, _SLOT)
        self.slabs: dict[int, Slab] = {}
        self.nbytes = 0
        self.ready: Event | None = None
        self._driver = driver
        self._free: dict[int, list[int]] = {}  # by size
        self._spare: list[int] = []  # rows whose slab was freed
        self._refused = 0

    def num_free(self, size: int) -> int:
        """Free slots for chunks of a size."""
        return len(self._free.get(size, ()))

    def take(self, size: int, n: int) -> Int64s:
        """Take up to `n` free slots."""
        free = self._free.get(size, [])
        taken: Int64s = np.array(free[max(len(free) - n, 0) :], np.int64)
        del free[max(len(free) - n, 0) :]
        return taken

    def set_free(self, slot: Int64s) -> None:
        """Take back slots that nobody uses, or finds."""
        self.table["used"][slot] = 0
        self.table["shuffle_block_nbytes"][slot] = 0
        sizes = self.table["nbytes"][slot]
        for size in np.unique(sizes).tolist():
            self._free.setdefault(size, []).extend(slot[sizes == size].tolist())

    def try_again(self, size: int) -> None:
        """Raise a bound that was lowered, every so often: there may be memory again."""
        self._refused += 1
        if self._refused % _PATIENCE == 0:
            self.limit = min(self.max_bytes, max(2 * self.limit, size))

    def add_slab(self, size: int) -> int:
        """Allocate a slab if the bound allows; return the number of slots gained."""
        room = self.limit - self.nbytes
        if room < size:
            return 0
        stride = -(-size // _ALIGNMENT) * _ALIGNMENT
        wanted = min(room, max(size, min(self.max_bytes // _SLABS, _SLAB_NBYTES)))
        n = 1 + (wanted - size) // stride
        memory, stream = None, _slab_stream(self._driver)
        while memory is None:
            try:
                memory = self._driver.allocate(stride * (n - 1) + size, stream)
            except MemoryBudgetError:
                n //= 4
                if not n:
                    self.limit = self.nbytes
                    return 0
        self.ready = self.ready or self._driver.create_event()
        self.ready.record(stream)
        self.nbytes += memory.nbytes
        slots = self._rows(n)
        number = next(i for i in range(len(self.slabs) + 1) if i not in self.slabs)
        self.slabs[number] = Slab(memory, slots)
        made = np.zeros(n, _SLOT)
        made["address"] = memory.ptr + stride * np.arange(n)
        made["nbytes"], made["slab"] = size, number
        self.table[slots] = made
        self._free.setdefault(size, []).extend(slots[::-1].tolist())
        return n

    def _rows(self, n: int) -> Int64s:
        """Rows of the table for `n` new slots, in order."""
        known, lacking = len(self.table), n - len(self._spare)
        if lacking > 0:
            self.table = np.concatenate([self.table, np.zeros(lacking, _SLOT)])
            self._spare.extend(range(known, known + lacking))
        rows = sorted(self._spare[-n:])
        del self._spare[-n:]
        return np.array(rows, np.int64)

    def free_slab(self, number: int) -> None:
        """Free a slab whose slots are all free."""
        memory, slots = self.slabs.pop(number)
        size, gone = int(self.table["nbytes"][slots[0]]), set(slots.tolist())
        self._free[size] = [slot for slot in self._free[size] if slot not in gone]
        cleared = np.zeros(len(slots), _SLOT)
        cleared["slab"] = -1
        self.table[slots] = cleared
        self._spare.extend(gone)
        self.nbytes -= memory.nbytes

    def pins(self, number: int) -> int:
        """Pins on a slab."""
        return int(self.table["pins"][self.slabs[number].slots].sum())

    def least_used_slab(self, size: int) -> tuple[int, float] | None:
        """Slab without pins, for chunks of another size, whose slots were used least, and when.

        When is a mean: slots of one size are no use to chunks of another, so that sizes give way
        to one another slab by slab.
        """
        rows = np.flatnonzero(self.table["slab"] >= 0)
        slab = self.table["slab"][rows]
        pins = np.bincount(slab, self.table["pins"][rows])
        used = np.bincount(slab, self.table["used"][rows])
        others = [
            (float(used[number]) / len(slots), number)
            for number, (_, slots) in self.slabs.items()
            if not pins[number] and self.table["nbytes"][slots[0]] != size
        ]
        if not others:
            return None
        mean, number = min(others)
        return number, mean


_streams: WeakKeyDictionary[Driver, Stream] = WeakKeyDictionary()
_streams_lock = threading.Lock()


def _slab_stream(driver: Driver) -> Stream:
    """Stream of a device that slabs are allocated on."""
    with _streams_lock:
        if driver not in _streams:
            _streams[driver] = driver.create_stream()
        return _streams[driver]
