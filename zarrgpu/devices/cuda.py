"""A CUDA device: a driver, and slots of memory that reads on it reuse.

A slot is all that one wave of a read needs: pinned memory that chunks are fetched into, device
memory that they are copied to and decoded in, a stream and an event. Reads lease slots, so that
concurrent reads never share one, and give them back grown: after the first waves nothing is
allocated any more.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from zarrgpu.devices.device_chunks import give_back_caches
from zarrgpu.devices.driver import DeviceMemory, Driver, PinnedMemory, Stream
from zarrgpu.devices.stage_clock import StageClock
from zarrgpu.errors import DeviceUnavailableError, MemoryBudgetError
from zarrgpu.model import ByteArray

if TYPE_CHECKING:
    from zarrgpu.devices.landing import Landing

ALIGNMENT = 16
_GRANULE = 1 << 20


def _rounded(nbytes: int) -> int:
    """Size to allocate: with room to grow, in whole MiB."""
    return -(-max(nbytes + nbytes // 4, 1) // _GRANULE) * _GRANULE


class PinnedArena:
    """Pinned memory handed out front to back; safe to take from on several threads.

    What does not fit is taken from ordinary memory and moved in by `settle`.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._memory: PinnedMemory | None = None
        self._lock = threading.Lock()
        self._used = 0
        self._overflow: list[tuple[int, ByteArray]] = []

    @property
    def used(self) -> int:
        """Bytes handed out."""
        return self._used

    @property
    def array(self) -> ByteArray:
        """All bytes handed out so far; call after `settle`."""
        return np.empty(0, np.uint8) if self._memory is None else self._memory.array[: self._used]

    @property
    def ptr(self) -> int:
        """Host address of the first byte."""
        return 0 if self._memory is None else self._memory.ptr

    def reset(self, nbytes: int) -> None:
        """Start over, with room for `nbytes`. Nothing handed out before may be in use."""
        self._used = 0
        self._overflow.clear()
        if self._memory is None or self._memory.nbytes < nbytes:
            self._memory = self._driver.allocate_pinned(_rounded(nbytes))

    def take(self, nbytes: int) -> tuple[int, ByteArray]:
        """Reserve bytes; return their position and the memory to write them to."""
        with self._lock:
            at = self._used
            self._used = at + -(-nbytes // ALIGNMENT) * ALIGNMENT
            memory = self._memory
            if memory is not None and at + nbytes <= memory.nbytes:
                return at, memory.array[at : at + nbytes]
            spill = np.empty(nbytes, np.uint8)
            self._overflow.append((at, spill))
            return at, spill

    def settle(self) -> None:
        """Bring everything that was handed out into one piece of pinned memory."""
        if not self._overflow:
            return
        old = self._memory
        self._memory = self._driver.allocate_pinned(_rounded(self._used))
        if old is not None:
            kept = min(old.nbytes, self._used)
            self._memory.array[:kept] = old.array[:kept]
        for at, spill in self._overflow:
            self._memory.array[at : at + spill.size] = spill
        self._overflow.clear()


class TableArena:
    """Tables and results of a wave: built in pinned memory, sent and brought back in one copy.

    Tables are given their device addresses before they are sent: `place` all, then `send`. Results
    are sent too, as zeros: kernels may raise them.
    """

    def __init__(self, slot: Slot) -> None:
        self._slot = slot
        self._tables: list[tuple[int, NDArray[np.generic]]] = []
        self._size = 0
        self._results_at = 0

    def reserve(self, nbytes: int) -> int:
        """Make room for `nbytes` and start placing; return the device address of the room."""
        self._tables.clear()
        self._size = self._results_at = 0
        slot = self._slot
        if slot.device_tables is None or slot.device_tables.nbytes < nbytes:
            slot.device_tables = None  # so that neither is larger than the other if one fails
            slot.pinned_tables = slot.driver.allocate_pinned(_rounded(nbytes))
            slot.device_tables = slot.driver.allocate(_rounded(nbytes), slot.stream)
        assert slot.device_tables is not None
        return slot.device_tables.ptr

    def place(self, table: NDArray[np.generic]) -> int:
        """Add a table; return its device address."""
        at = self._take(table.nbytes)
        self._tables.append((at, table))
        self._results_at = self._size
        return self._address(at)

    def result(self, nbytes: int) -> tuple[int, int]:
        """Make room for something that the device writes; return its position and address."""
        at = self._take(nbytes)
        return at, self._address(at)

    def send(self) -> None:
        """Copy all placed tables to the device, and zeros to where results will be."""
        slot = self._slot
        assert slot.pinned_tables is not None
        assert slot.device_tables is not None
        host = slot.pinned_tables.array
        for at, table in self._tables:
            host[at : at + table.nbytes] = np.ascontiguousarray(table).view(np.uint8).reshape(-1)
        host[self._results_at : self._size] = 0
        if self._size:
            slot.driver.copy_to_device(
                slot.device_tables.ptr, slot.pinned_tables.ptr, self._size, slot.stream
            )

    def fetch_results(self) -> None:
        """Copy what the device wrote back to the host; valid once the stream got there."""
        slot = self._slot
        nbytes = self._size - self._results_at
        if nbytes and slot.pinned_tables is not None and slot.device_tables is not None:
            at = self._results_at
            slot.driver.copy_to_host(
                slot.pinned_tables.ptr + at, slot.device_tables.ptr + at, nbytes, slot.stream
            )

    def read(self, at: int, dtype: str, n: int) -> NDArray[np.generic]:
        """Result at position `at`, as `n` elements of `dtype`."""
        assert self._slot.pinned_tables is not None
        nbytes = n * np.dtype(dtype).itemsize
        return self._slot.pinned_tables.array[at : at + nbytes].view(dtype).copy()

    def _take(self, nbytes: int) -> int:
        at = self._size
        self._size = at + -(-nbytes // ALIGNMENT) * ALIGNMENT
        slot = self._slot
        if slot.pinned_tables is None or self._size > slot.pinned_tables.nbytes:
            msg = f"tables of {self._size} bytes exceed the room reserved for them"
            raise AssertionError(msg)
        return at

    def _address(self, at: int) -> int:
        assert self._slot.device_tables is not None
        return self._slot.device_tables.ptr + at


class Slot:
    """Memory, stream and event of one wave.

    Attributes
    ----------
    payload : PinnedArena
        Where chunks are fetched to.
    tables : TableArena
    stream : Stream
    done : Event
        Recorded after the wave's last work.
    landing : Landing or None
        Where files are read to directly; `landing.landing_of` makes it.
    """

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.stream = driver.create_stream()
        self.done = driver.create_event()
        self.clock = StageClock(driver)
        self.temp_nbytes = math.inf
        self.launches = 0
        self.payload = PinnedArena(driver)
        self.pinned_tables: PinnedMemory | None = None
        self.device_tables: DeviceMemory | None = None
        self.tables = TableArena(self)
        self.landing: Landing | None = None
        self._data: DeviceMemory | None = None

    def data(self, nbytes: int) -> int:
        """Address of device memory of at least `nbytes` for payload and decoded chunks."""
        if self._data is None or self._data.nbytes < nbytes:
            self._data = None  # give the old one back before asking for more
            self._data = self.driver.allocate(_rounded(nbytes), self.stream)
        return self._data.ptr

    def settles(self) -> bool:
        """Wait for the streams; False if one fails, and nothing is known of the slot any more."""
        try:
            self.stream.synchronize()
        except DeviceUnavailableError:
            return False
        return self.landing is None or self.landing.slot.settles()

    def release(self) -> None:
        """Give all memory back; the stream must be idle."""
        self.payload = PinnedArena(self.driver)
        self.pinned_tables = self.device_tables = self._data = self.landing = None


class CudaDevice:
    """One GPU behind a driver.

    Parameters
    ----------
    driver : Driver
    """

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self._free: list[Slot] = []
        self._delivery_stream: Stream | None = None
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<zarrgpu.CudaDevice {self.name}>"

    @property
    def name(self) -> str:
        """As users write it, such as ``cuda:0``."""
        return self.driver.name

    @property
    def delivery_stream(self) -> Stream:
        """Stream that the memory of results belongs to which are made ahead of their use.

        Nothing runs on it but waits: memory is given out anew when the streams are done that it was
        used on (`DeviceMemory.record_stream`), and no sooner or later.
        """
        with self.driver.activate():  # in a forked child the lock may be held for ever: refuse
            pass
        with self._lock:
            if self._delivery_stream is None:
                self._delivery_stream = self.driver.create_stream()
            return self._delivery_stream

    def take_slot(self) -> Slot:
        """Take an idle slot, or a new one; give it to `give_back`."""
        with self.driver.activate():  # in a forked child the lock may be held for ever: refuse
            pass
        with self._lock:
            if self._free:
                return self._free.pop()
        return Slot(self.driver)

    def give_back(self, slots: Sequence[Slot]) -> None:
        """Take back idle slots; the last is lent first."""
        if not slots:  # as in a forked child, where the lock may be held for ever
            return
        with self._lock:
            self._free.extend(slots)

    def release_idle(self) -> None:
        """Give back the memory that idle slots hold, and chunk caches."""
        with self._lock:
            for slot in self._free:
                slot.release()
        give_back_caches(self.driver)

    @contextmanager
    def lease(self, n: int) -> Iterator[list[Slot]]:
        """Lend `n` slots to work that is done when the block ends.

        Work that runs out of device memory gives back what slots hold, its own and idle ones, so
        that the next has all of it. A slot whose stream fails is dropped.
        """
        slots: list[Slot] = []
        try:
            while len(slots) < n:
                slots.append(self.take_slot())
            yield slots
        except BaseException as error:
            # their streams may still be running: wait, so that no one else's data is overwritten
            slots[:] = [slot for slot in slots if slot.settles()]
            if isinstance(error, MemoryBudgetError):
                for slot in slots:
                    slot.release()
                self.release_idle()
            raise
        finally:
            self.give_back(slots[::-1])
