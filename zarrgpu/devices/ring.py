"""The ring of slots: waves of one read, and of the reads after it, take turns on a few slots.

A wave in a slot is fetched by the host, then copied and decoded by the device on the slot's own
stream. Three slots keep all three busy: while one decodes, another is copied, and the host fetches
the third. The ring outlives a read: its successor fetches into the slot that is free first, while
the last waves of its predecessor still decode, and both together hold no more than one would.

A wave is finished once, by whoever comes first: the thread that wants its slot, or the one that
wants the result of its read.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zarrgpu.devices.cuda import CudaDevice, Slot
from zarrgpu.devices.driver import Stream
from zarrgpu.errors import ZarrGPUError
from zarrgpu.forks import tell_of_forks

SLOTS = 3
"""Waves in flight: one fetched, one copied to the device, one decoded."""


class RunningWave:
    """A wave that was issued to the device.

    Parameters
    ----------
    slot : Slot
        That it runs in; ``slot.done`` was recorded after its last work.
    failed_rows : callable
        To be called once that is done: gives the chunk rows that went wrong.
    keep : object
        What the work writes to: it lives until the wave is finished, even if its read is dropped.

    Attributes
    ----------
    seconds : dict of str to float
        Of the stages of `StageClock`, once the wave is finished.
    """

    def __init__(self, slot: Slot, failed_rows: Callable[[], NDArray[np.int64]], keep: Any) -> None:
        self.slot = slot
        self._failed_rows: Callable[[], NDArray[np.int64]] | None = failed_rows
        self._keep = keep
        self._lock = threading.Lock()
        self._wrong: NDArray[np.int64] | None = None
        self.seconds: dict[str, float] = {}

    @property
    def finished(self) -> bool:
        """Whether `finish` was called: the slot is idle."""
        return self._wrong is not None

    def finish(self) -> NDArray[np.int64]:
        """Wait for the device; return the chunk rows that went wrong."""
        with self._lock:
            if self._wrong is None:
                assert self._failed_rows is not None
                self.slot.done.synchronize()
                self.seconds = self.slot.clock.seconds()
                self._wrong = self._failed_rows()
                self._failed_rows = self._keep = None
            return self._wrong


class SlotRing:
    """Slots that consecutive reads share; safe for threads.

    Parameters
    ----------
    device : CudaDevice
    stream : Stream, optional
        That the memory of results belongs to; the current one of who starts a read if None.
    """

    def __init__(self, device: CudaDevice, stream: Stream | None = None) -> None:
        self.device = device
        self.stream = stream
        self._all: list[Slot] = []
        self._idle: list[Slot] = []
        self._running: deque[RunningWave] = deque()
        self._turn = threading.Condition()
        tell_of_forks(self)

    def after_fork(self) -> None:
        """Forget all in a forked child, where nothing of the device may be touched, or freed."""
        _abandoned.append((self._all, self._running))
        self._all, self._idle, self._running = [], [], deque()
        self._turn = threading.Condition()

    def take(self, most: int) -> Slot:
        """Take an idle slot once fewer than `most` are in use; the oldest waves are finished first.

        The slot is the caller's until it is given to `run` or `give_back`.
        """
        while True:
            with self._turn:
                if len(self._all) - len(self._idle) < most:
                    slot = self._idle.pop() if self._idle else self._add()
                    if len(self._all) > most:  # what they hold is not in this read's budget
                        for other in self._idle:
                            other.release()
                    return slot
                if not self._running:  # all are with other threads
                    self._turn.wait()
                    continue
                oldest = self._running[0]
            oldest.finish()
            with self._turn:
                if self._running and self._running[0] is oldest:
                    self._idle.append(self._running.popleft().slot)
                    self._turn.notify_all()

    def finish_done(self) -> None:
        """Finish the waves that the device is done with: now caches have what these decoded."""
        with self._turn:
            running = list(self._running)
        for wave in running:
            if wave.slot.done.query():
                wave.finish()

    def run(self, wave: RunningWave) -> None:
        """Take back a slot whose wave was issued."""
        with self._turn:
            self._running.append(wave)
            self._turn.notify_all()

    def give_back(self, slot: Slot) -> None:
        """Take back a slot whose wave could not be issued, once its stream is idle."""
        settled = slot.settles()
        with self._turn:
            if settled:
                self._idle.append(slot)
            else:
                self._all.remove(slot)
            self._turn.notify_all()

    def drain(self) -> None:
        """Finish all waves and release the memory of all idle slots, the device's others too."""
        with self._turn:
            running = list(self._running)
        for wave in running:
            wave.finish()
        with self._turn:
            while self._running and self._running[0] in running:
                self._idle.append(self._running.popleft().slot)
            for slot in self._idle:
                slot.release()
            self._turn.notify_all()
        self.device.release_idle()

    def close(self) -> None:
        """Wait for the slots' work and give them back to the device.

        A slot whose stream fails is dropped: what it holds and what is still written to it is not
        known.
        """
        with self._turn:
            running, slots = list(self._running), self._all
            idle = [*self._idle, *(wave.slot for wave in running if wave.finished)]
            self._running.clear()
            self._all, self._idle = [], []
            self._turn.notify_all()
        # the slot that was taken first is taken first again: its memory has the right size
        settled = [slot for slot in reversed(slots) if slot in idle or slot.settles()]
        for wave in running:  # statuses are read before someone else's overwrite them
            with suppress(ZarrGPUError, AssertionError):
                wave.finish()
        self.device.give_back(settled)

    def _add(self) -> Slot:
        slot = self.device.take_slot()
        self._all.append(slot)
        return slot


_abandoned: list[tuple[list[Slot], deque[RunningWave]]] = []
"""What a forked child has of its parent's."""
