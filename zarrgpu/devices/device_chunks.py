"""Decoded chunks in device memory, the least recently used given up first.

Memory is a few large slabs, each cut into slots for chunks of one size; nothing is allocated per
chunk. Three rules keep it right while the device works behind the host's back:

1. A slot is pinned for as long as a wave may use it: from when it is found or reserved until the
   host has waited for the wave's event. A pinned slot is given to nobody else, and its slab is not
   freed. So whoever gets a slot meets no work on it, on any stream.
2. A chunk is found from when it is published, after the wave that wrote it is done and its statuses
   were good. So every stream may read it at once.
3. Slabs are allocated on a stream of the cache's own, which nothing else is ever queued on; waves
   wait for its event.
"""

from __future__ import annotations

import threading
from itertools import repeat
from typing import NamedTuple
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from zarrgpu.devices.driver import DeviceMemory, Driver, Stream
from zarrgpu.errors import MemoryBudgetError
from zarrgpu.forks import tell_of_forks

Int64s = NDArray[np.int64]

NO_SLOT = -1

_SLABS = 32
"""Slabs that a full cache has, if they are not to be larger than this:"""

_SLAB_NBYTES = 256 << 20

_PATIENCE = 256
"""Waves for which a bound stays lowered that the device's memory ran out at."""

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


class Slots(NamedTuple):
    """Pinned slots, a row for each chunk that was asked for.

    Attributes
    ----------
    slot : int64 (n,)
        `NO_SLOT` where there is none.
    address : int64 (n,)
        Device address, 0 where there is none.
    shuffle_block_nbytes : int64 (n,)
        Of a found chunk that is still shuffled by bytes, else 0.
    """

    slot: Int64s
    address: Int64s
    shuffle_block_nbytes: Int64s


class _Slab(NamedTuple):
    memory: DeviceMemory
    slots: Int64s


class DeviceChunks:
    """Decoded chunks in the memory of one device, safe for threads.

    Parameters
    ----------
    driver : Driver
    max_bytes : int
        Upper bound of the device memory held. Where the device has less to give, what it gave is
        the bound for a while.

    Attributes
    ----------
    nbytes : int
        Device memory held.
    """

    def __init__(self, driver: Driver, max_bytes: int) -> None:
        self.driver = driver
        self.max_bytes = max_bytes
        self.nbytes = 0
        self._stream = driver.create_stream()
        self._ready = driver.create_event()
        self._lock = threading.Lock()
        self._slots = np.zeros(0, _SLOT)
        self._index: dict[tuple[int, int], int] = {}
        self._slabs: dict[int, _Slab] = {}
        self._free: dict[int, list[int]] = {}  # by size
        self._spare: list[int] = []  # slots whose slab was freed
        self._limit = max_bytes
        self._refused = 0
        self._clock = 0
        self._clears = 0
        tell_of_forks(self)
        _alive.add(self)

    def __len__(self) -> int:
        return len(self._index)

    def after_fork(self) -> None:
        """Forget all in a forked child, where nothing of the device may be touched, or freed."""
        _abandoned.append(self._slabs)
        self._slabs, self._index, self._free, self._spare = {}, {}, {}, []
        self._slots = np.zeros(0, _SLOT)
        self.nbytes = 0
        self._lock = threading.Lock()

    def find(self, owner: Int64s, chunk: Int64s, *, verified: bool) -> Slots:
        """Pin those of the chunks that are held.

        Parameters
        ----------
        owner, chunk : int64 (n,)
            Keys: the array, and the chunk's position in its grid.
        verified : bool
            Whether only chunks will do whose checksums were verified.
        """
        keys = zip(owner.tolist(), chunk.tolist(), strict=True)
        with self._lock:
            found = map(self._index.get, keys, repeat(NO_SLOT))
            slot = np.fromiter(found, np.int64, len(owner))
            if verified:
                known = np.flatnonzero(slot >= 0)
                slot[known[~self._slots["verified"][slot[known]]]] = NO_SLOT
            self._pin(slot[slot >= 0])
            return self._places(slot)

    def reserve(self, nbytes: Int64s) -> tuple[Slots, int]:
        """Pin slots for new chunks, as far as there is room once the oldest were given up.

        Parameters
        ----------
        nbytes : int64 (n,)
            Size of each chunk.

        Returns
        -------
        slots : Slots
        clears : int
            How often the cache was cleared, which `publish` wants to know.
        """
        slot = np.full(len(nbytes), NO_SLOT, np.int64)
        with self._lock:
            for size in np.unique(nbytes).tolist():
                places = np.flatnonzero(nbytes == size)
                self._make_room(size, len(places))
                free = self._free.get(size, [])
                n = min(len(free), len(places))
                taken: Int64s = np.array(free[len(free) - n :], np.int64)
                slot[places[:n]] = taken
                del free[len(free) - n :]
                self._pin(taken)  # before room is made for the next size
            return self._places(slot), self._clears

    def publish(
        self,
        slot: Int64s,
        owner: Int64s,
        chunk: Int64s,
        shuffle_block_nbytes: Int64s,
        *,
        verified: bool,
        clears: int,
    ) -> None:
        """Let chunks be found that reserved slots now hold: all work on these is done.

        A chunk that was published in the meantime is replaced. What was reserved before a `clear`
        may be out of date and is not published.
        """
        with self._lock:
            if clears != self._clears:
                return
            table = self._slots
            table["owner"][slot], table["chunk"][slot] = owner, chunk
            table["shuffle_block_nbytes"][slot] = shuffle_block_nbytes
            table["verified"][slot] = verified
            table["published"][slot] = True
            table["used"][slot] = self._times(len(slot))
            replaced = []
            keys = zip(owner.tolist(), chunk.tolist(), strict=True)
            for key, own in zip(keys, slot.tolist(), strict=True):
                if (old := self._index.get(key)) is not None:
                    replaced.append(old)
                self._index[key] = own
            if replaced:
                self._hide(np.array(replaced, np.int64))

    def release(self, slot: Int64s) -> None:
        """Take back pins, of slots that no unfinished work uses."""
        slot = slot[slot >= 0]
        with self._lock:
            table = self._slots
            np.subtract.at(table["pins"], slot, 1)
            idle = np.unique(slot[(table["pins"][slot] == 0) & ~table["published"][slot]])
            self._set_free(idle)

    def wait(self, stream: Stream) -> None:
        """Let a stream wait until the memory is there."""
        stream.wait(self._ready)

    def clear(self) -> None:
        """Forget all chunks, and free the memory that no unfinished wave uses."""
        with self._lock:
            self._clears += 1
            self._limit = self.max_bytes
            self._index.clear()
            self._hide(np.flatnonzero(self._slots["published"]))
            self._free_idle_slabs()

    def give_back(self) -> None:
        """Free all memory that no unfinished wave uses, and take but half as much for a while."""
        with self._lock:
            if self.nbytes:
                self._limit = self.nbytes // 2
            self._free_idle_slabs()

    def _free_idle_slabs(self) -> None:
        for number in [n for n in self._slabs if not self._slab_pins(n)]:
            self._free_slab(number)

    def _slab_pins(self, number: int) -> int:
        return int(self._slots["pins"][self._slabs[number].slots].sum())

    def _times(self, n: int) -> Int64s:
        """Times of `n` uses, one after the other; the first ever is 1."""
        self._clock += n
        return np.arange(self._clock - n + 1, self._clock + 1)

    def _pin(self, slot: Int64s) -> None:
        """Pin slots and note their use."""
        np.add.at(self._slots["pins"], slot, 1)  # a chunk may be asked for twice
        self._slots["used"][slot] = self._times(len(slot))

    def _places(self, slot: Int64s) -> Slots:
        """Slots with what a wave needs to know of them."""
        there = slot >= 0
        address, shuffle = np.zeros((2, len(slot)), np.int64)
        address[there] = self._slots["address"][slot[there]]
        shuffle[there] = self._slots["shuffle_block_nbytes"][slot[there]]
        return Slots(slot, address, shuffle)

    def _hide(self, slot: Int64s) -> None:
        """Let chunks that the index no longer names be found no more; their slots may be pinned."""
        self._slots["published"][slot] = False
        self._set_free(slot[self._slots["pins"][slot] == 0])

    def _set_free(self, slot: Int64s) -> None:
        """Note slots that are neither published nor pinned."""
        self._slots["used"][slot] = 0
        self._slots["shuffle_block_nbytes"][slot] = 0
        sizes = self._slots["nbytes"][slot]
        for size in np.unique(sizes).tolist():
            self._free.setdefault(size, []).extend(slot[sizes == size].tolist())

    def _make_room(self, size: int, n: int) -> None:
        """Have `n` free slots, if it can be: by new slabs first, then by giving up the oldest."""
        lacking = n - len(self._free.get(size, ()))
        if lacking > 0 and self._limit < self.max_bytes:
            self._try_again(size)
        while lacking > 0 and self._limit >= size:
            added = self._add_slab(size)
            if not added and not self._free_older_slab(size):
                break
            lacking -= added
        if lacking > 0:
            self._evict(size, lacking)

    def _try_again(self, size: int) -> None:
        """Raise a bound that was lowered, every so often: there may be memory again."""
        self._refused += 1
        if self._refused % _PATIENCE == 0:
            self._limit = min(self.max_bytes, max(2 * self._limit, size))

    def _add_slab(self, size: int) -> int:
        """Allocate a slab if the bound allows; return the number of slots gained."""
        room = self._limit - self.nbytes
        if room < size:
            return 0
        stride = -(-size // _ALIGNMENT) * _ALIGNMENT
        wanted = min(room, max(size, min(self.max_bytes // _SLABS, _SLAB_NBYTES)))
        n = 1 + (wanted - size) // stride
        memory = None
        while memory is None:
            nbytes = stride * (n - 1) + size
            try:
                memory = self.driver.allocate(nbytes, self._stream)
            except MemoryBudgetError:
                n //= 4
                if not n:
                    self._limit = self.nbytes
                    return 0
        self._ready.record(self._stream)
        slots = self._new_slots(n)
        number = next(i for i in range(len(self._slabs) + 1) if i not in self._slabs)
        self._slabs[number] = _Slab(memory, slots)
        self.nbytes += nbytes
        made = np.zeros(n, _SLOT)
        made["address"] = memory.ptr + stride * np.arange(n)
        made["nbytes"], made["slab"] = size, number
        self._slots[slots] = made
        self._free.setdefault(size, []).extend(slots[::-1].tolist())
        return n

    def _new_slots(self, n: int) -> Int64s:
        """Rows of the table for `n` slots, in order."""
        known, lacking = len(self._slots), n - len(self._spare)
        if lacking > 0:
            more = np.zeros(lacking, _SLOT)
            self._slots = np.concatenate([self._slots, more])
            self._spare.extend(range(known, known + lacking))
        rows = sorted(self._spare[-n:])
        del self._spare[-n:]
        return np.array(rows, np.int64)

    def _free_older_slab(self, size: int) -> bool:
        """Free the slab of another size that was used least, if chunks of this size were used more.

        Slots of one size are no use to chunks of another, so that the balance between sizes is kept
        slab by slab: by the mean age of what a slab holds.
        """
        table = self._slots
        sizes = {number: int(table["nbytes"][s.slots[0]]) for number, s in self._slabs.items()}
        others = [number for number, each in sizes.items() if each != size]
        if not others:
            return False
        own = table["used"][(table["nbytes"] == size) & table["published"] & (table["pins"] == 0)]
        rows = np.flatnonzero(table["slab"] >= 0)
        slab = table["slab"][rows]
        count = np.bincount(slab)
        mean = np.bincount(slab, table["used"][rows]) / np.maximum(count, 1)
        pins = np.bincount(slab, table["pins"][rows])
        oldest = min((n for n in others if not pins[n]), key=lambda n: float(mean[n]), default=None)
        if oldest is None or mean[oldest] >= own.min(initial=np.iinfo(np.int64).max):
            return False
        self._free_slab(oldest)
        return True

    def _free_slab(self, number: int) -> None:
        """Free a slab without pins."""
        memory, slots = self._slabs.pop(number)
        self._forget(slots[self._slots["published"][slots]])
        size, gone = int(self._slots["nbytes"][slots[0]]), set(slots.tolist())
        self._free[size] = [slot for slot in self._free.get(size, ()) if slot not in gone]
        cleared = np.zeros(len(slots), _SLOT)
        cleared["slab"] = -1
        self._slots[slots] = cleared
        self._spare.extend(gone)
        self.nbytes -= memory.nbytes

    def _evict(self, size: int, n: int) -> None:
        """Give up the `n` least recently used chunks of a size, or as many as are not pinned."""
        table = self._slots
        rows = np.flatnonzero((table["nbytes"] == size) & table["published"] & (table["pins"] == 0))
        if len(rows) > n:
            rows = rows[np.argpartition(table["used"][rows], n - 1)[:n]]
        self._forget(rows)

    def _forget(self, slot: Int64s) -> None:
        """Take published chunks out of the index."""
        keys = zip(
            self._slots["owner"][slot].tolist(), self._slots["chunk"][slot].tolist(), strict=True
        )
        for key in keys:
            del self._index[key]
        self._hide(slot)


_alive: WeakSet[DeviceChunks] = WeakSet()
_abandoned: list[dict[int, _Slab]] = []
"""What a forked child has of its parent's; freeing it would call CUDA."""


def give_back_caches(driver: Driver) -> None:
    """Let all caches on a device that ran out of memory give back what they can."""
    for chunks in list(_alive):
        if chunks.driver is driver:
            chunks.give_back()
