"""Streams and events of the emulated device.

An eager stream does its work at once. A lazy one does nothing until someone has a right to the
result: a synchronisation, or another stream's wait. Code that forgot one then reads what is not
there yet, which on a GPU it would do only sometimes.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

from tests.emulator.memory import LOCK
from zarrgpu.errors import DeviceLostError

if TYPE_CHECKING:
    from collections.abc import Callable


class EmulatedStream:
    def __init__(self, handle: int, *, lazy: bool) -> None:
        self.handle = handle
        self.lazy = lazy
        self.given = 0
        self.done = 0
        self.lost = False
        self._queue: deque[Callable[[], None]] = deque()

    def give(self, work: Callable[[], None]) -> None:
        """Queue work, or do it now."""
        with LOCK:
            self._queue.append(work)
            self.given += 1
            if not self.lazy:
                self.run_until(self.given)

    def run_until(self, mark: int) -> None:
        """Do the work that was given before `mark`."""
        with LOCK:
            while self.done < mark and self._queue:
                work = self._queue.popleft()
                self.done += 1
                work()

    def wait(self, event: EmulatedEvent) -> None:
        stream, mark = event.stream, event.mark
        if stream is not None:
            self.give(lambda: stream.run_until(mark))

    def synchronize(self) -> None:
        self.check()
        self.run_until(self.given)

    def check(self) -> None:
        if self.lost:
            msg = f"emulated stream {self.handle} is lost"
            raise DeviceLostError(msg)


class EmulatedEvent:
    def __init__(self, *, timing: bool) -> None:
        self.timing = timing
        self.stream: EmulatedStream | None = None
        self.mark = 0
        self.time_s = 0.0

    def record(self, stream: EmulatedStream) -> None:
        if self.timing:
            stream.give(self._note_time)
        self.stream, self.mark = stream, stream.given

    def _note_time(self) -> None:
        self.time_s = time.perf_counter()

    def synchronize(self) -> None:
        if self.stream is not None:
            self.stream.check()
            self.stream.run_until(self.mark)

    def query(self) -> bool:
        if self.stream is None or self.stream.done >= self.mark:
            return True
        self.stream.run_until(self.stream.done + 1)  # a GPU makes progress while it is polled
        return self.stream.done >= self.mark

    def elapsed_ms(self, start: EmulatedEvent) -> float:
        if not (self.timing and start.timing):
            msg = "elapsed_ms needs events made with timing=True"
            raise RuntimeError(msg)
        return (self.time_s - start.time_s) * 1e3
