"""Decoded chunks in device memory, the least recently used given up first.

Three rules keep them right while the device works behind the host's back:

1. A slot is pinned for as long as a wave may use it: from when it is found or reserved until the
   host has waited for the wave's event. A pinned slot is given to nobody else, and its slab is not
   freed. So whoever gets a slot meets no work on it, on any stream.
2. A chunk is found from when it is published, after the wave that wrote it is done and its statuses
   were good. So every stream may read it at once.
3. Waves wait, on their streams, until the memory is there (`chunk_slots`).
"""

from __future__ import annotations

import threading
from itertools import repeat
from typing import NamedTuple
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from zarrgpu.devices.chunk_slots import ChunkSlots
from zarrgpu.devices.driver import Driver, Stream
from zarrgpu.forks import tell_of_forks

Int64s = NDArray[np.int64]

NO_SLOT = -1


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


class DeviceChunks:
    """Decoded chunks in the memory of one device, safe for threads.

    Parameters
    ----------
    driver : Driver
    max_bytes : int
        See `ChunkSlots`.
    """

    def __init__(self, driver: Driver, max_bytes: int) -> None:
        self.driver = driver
        self.max_bytes = max_bytes
        self._memory = ChunkSlots(driver, max_bytes)
        self._index: dict[tuple[int, int], int] = {}
        self._clock = 0
        self._clears = 0
        self._lock = threading.Lock()
        tell_of_forks(self)
        with _alive_lock:
            _alive.add(self)

    def __len__(self) -> int:
        return len(self._index)

    @property
    def nbytes(self) -> int:
        """Device memory held."""
        return self._memory.nbytes

    def after_fork(self) -> None:
        """Forget all in a forked child, where nothing of the device may be touched, or freed."""
        _abandoned.append(self._memory)
        self._index = {}
        self._memory = ChunkSlots(self.driver, self.max_bytes)
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
                slot[known[~self._memory.table["verified"][slot[known]]]] = NO_SLOT
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
                taken = self._memory.take(size, len(places))
                slot[places[: len(taken)]] = taken
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
            table = self._memory.table
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
            table = self._memory.table
            np.subtract.at(table["pins"], slot, 1)
            idle = np.unique(slot[(table["pins"][slot] == 0) & ~table["published"][slot]])
            self._memory.set_free(idle)

    def wait(self, stream: Stream) -> None:
        """Let a stream wait until the memory is there."""
        if self._memory.ready is not None:
            stream.wait(self._memory.ready)

    def clear(self) -> None:
        """Forget all chunks, and free the memory that no unfinished wave uses."""
        with self._lock:
            self._clears += 1
            self._memory.limit = self.max_bytes
            self._forget(np.flatnonzero(self._memory.table["published"]))
            self._free_idle_slabs()

    def give_back(self) -> None:
        """Free all memory that no unfinished wave uses, and take but half as much for a while."""
        with self._lock:
            if self.nbytes:
                self._memory.limit = self.nbytes // 2
            self._free_idle_slabs()

    def _times(self, n: int) -> Int64s:
        """Times of `n` uses, one after the other; the first ever is 1."""
        self._clock += n
        return np.arange(self._clock - n + 1, self._clock + 1)

    def _pin(self, slot: Int64s) -> None:
        """Pin slots and note their use."""
        np.add.at(self._memory.table["pins"], slot, 1)  # a chunk may be asked for twice
        self._memory.table["used"][slot] = self._times(len(slot))

    def _places(self, slot: Int64s) -> Slots:
        """Slots with what a wave needs to know of them."""
        table, there = self._memory.table, slot >= 0
        address, shuffle = np.zeros((2, len(slot)), np.int64)
        address[there] = table["address"][slot[there]]
        shuffle[there] = table["shuffle_block_nbytes"][slot[there]]
        return Slots(slot, address, shuffle)

    def _hide(self, slot: Int64s) -> None:
        """Let chunks that the index no longer names be found no more; their slots may be pinned."""
        table = self._memory.table
        table["published"][slot] = False
        self._memory.set_free(slot[table["pins"][slot] == 0])

    def _forget(self, slot: Int64s) -> None:
        """Take published chunks out of the index."""
        table = self._memory.table
        keys = zip(table["owner"][slot].tolist(), table["chunk"][slot].tolist(), strict=True)
        for key in keys:
            del self._index[key]
        self._hide(slot)

    def _make_room(self, size: int, n: int) -> None:
        """Have `n` free slots, if it can be: by new slabs first, then by giving up the oldest."""
        memory = self._memory
        lacking = n - memory.num_free(size)
        if lacking > 0 and memory.limit < self.max_bytes:
            memory.try_again(size)
        while lacking > 0 and memory.limit >= size:
            added = memory.add_slab(size)
            if not added and not self._free_older_slab(size):
                break
            lacking -= added
        if lacking > 0:
            self._evict(size, lacking)

    def _own(self, size: int) -> Int64s:
        """Slots of published chunks of a size that are not pinned."""
        table = self._memory.table
        return np.flatnonzero((table["nbytes"] == size) & table["published"] & (table["pins"] == 0))

    def _evict(self, size: int, n: int) -> None:
        """Give up the `n` least recently used chunks of a size, or as many as are not pinned."""
        rows = self._own(size)
        if len(rows) > n:
            used = self._memory.table["used"][rows]
            rows = rows[np.argpartition(used, n - 1)[:n]]
        self._forget(rows)

    def _free_older_slab(self, size: int) -> bool:
        """Free a slab of another size, if it was used less than the oldest chunk of this size."""
        found = self._memory.least_used_slab(size)
        if found is None:
            return False
        number, mean = found
        if mean >= self._memory.table["used"][self._own(size)].min(initial=1 << 62):
            return False
        self._free_slab(number)
        return True

    def _free_idle_slabs(self) -> None:
        for number in [n for n in self._memory.slabs if not self._memory.pins(n)]:
            self._free_slab(number)

    def _free_slab(self, number: int) -> None:
        """Give up what a slab without pins holds, and its memory."""
        slots = self._memory.slabs[number].slots
        self._forget(slots[self._memory.table["published"][slots]])
        self._memory.free_slab(number)


_alive: WeakSet[DeviceChunks] = WeakSet()
_alive_lock = threading.Lock()  # adding to a set that is gone through breaks off the latter
_abandoned: list[ChunkSlots] = []
"""What a forked child has of its parent's; freeing it would call CUDA."""


def give_back_caches(driver: Driver) -> None:
    """Let all caches on a device that ran out of memory give back what they can."""
    with _alive_lock:
        alive = list(_alive)
    for chunks in alive:
        if chunks.driver is driver:
            chunks.give_back()
