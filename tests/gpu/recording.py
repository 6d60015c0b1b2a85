"""What a read asks of the device, recorded at the seam between engine and driver, and done again.

`Recorder` is a driver that passes everything on and notes what streams are given. `Replay` gives
one stream all of it in the same order, with events between the stages, so that each stage of a read
is timed on the device alone: no store, no planning, no tables made. Host memory that was copied is
kept as it was, so a read of several waves replays right too.

It knows the driver and nothing of the engine above it.
"""

from __future__ import annotations

import ctypes
import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from typing import Any

import numpy as np

from zarrgpu.devices.driver import Driver, Stream

COPY_IN, COPY_OUT, GATHER = "copy to the device", "copy to the host", "gather"
LIBRARY = "library"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """Work that a stream was given.

    Attributes
    ----------
    stage : str
        `COPY_IN`, `COPY_OUT`, ``library: zstd``, the name of a kernel, or of a driver's method.
    nbytes : int
        Bytes copied, or decoded by a library.
    give : callable
        Takes a stream, and gives it the work again.
    """

    stage: str
    nbytes: int
    give: Callable[[Stream], Any]


class Recorder:
    """A driver that notes the calls of another while `recording`.

    Parameters
    ----------
    driver : Driver

    Attributes
    ----------
    calls : list of Call
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._kept: list[Any] = []
        self.recording = False
        self.calls: list[Call] = []
        self._noted = {
            name
            for name, method in inspect.getmembers(type(driver), callable)
            if not name.startswith("_") and "stream" in inspect.signature(method).parameters
        } - {"allocate", "allocate_pinned", "use_stream"}

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._driver, name)
        return self._noting(name, found) if name in self._noted else found

    def allocate(self, nbytes: int, stream: Stream) -> Any:
        """Device memory, which the calls may name after the read let go of it."""
        memory = self._driver.allocate(nbytes, stream)
        if self.recording:
            self._kept.append(memory)
        return memory

    def allocate_pinned(self, nbytes: int) -> Any:
        """Pinned memory, likewise."""
        memory = self._driver.allocate_pinned(nbytes)
        if self.recording:
            self._kept.append(memory)
        return memory

    def _noting(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(method)

        def call(*args: Any, **kwargs: Any) -> Any:
            result = method(*args, **kwargs)
            if self.recording:
                bound = signature.bind(*args, **kwargs)
                values = dict(bound.arguments)
                del values["stream"]
                self.calls.append(self._call(name, method, values))
            return result

        return call

    def _call(self, name: str, method: Callable[..., Any], values: dict[str, Any]) -> Call:
        stage, nbytes = name, 0
        if name == "copy_to_device":
            stage, nbytes = COPY_IN, values["nbytes"]
            values["source"] = self._copy_of(values["source"], nbytes)
        elif name == "copy_to_host":
            stage, nbytes = COPY_OUT, values["nbytes"]
            values["target"] = self._room(nbytes).ptr
        elif name == "launch":
            stage = str(values["kernel"])
        elif name == "decompress":
            stage = f"{LIBRARY}: {values['library_format']}"
            nbytes = values["batch"].total_target_nbytes
        return Call(stage=stage, nbytes=nbytes, give=lambda stream: method(**values, stream=stream))

    def _room(self, nbytes: int) -> Any:
        memory = self._driver.allocate_pinned(nbytes)
        self._kept.append(memory)
        return memory

    def _copy_of(self, address: int, nbytes: int) -> int:
        memory = self._room(nbytes)
        ctypes.memmove(memory.ptr, address, nbytes)
        return int(memory.ptr)


class Replay:
    """The recorded calls of one read, stage by stage.

    Attributes
    ----------
    stages : list of str
        In the order in which they first come.
    payload_nbytes, library_nbytes : int
        Copied to the device, tables included; decoded by the library.
    launches : int
        Kernels and library calls.
    """

    def __init__(self, driver: Driver, recorder: Recorder) -> None:
        self.driver, self.stream = driver, driver.create_stream()
        self._recorder = recorder  # keeps the memory
        self._groups = [
            (stage, list(calls)) for stage, calls in groupby(recorder.calls, lambda c: c.stage)
        ]
        self.stages = list(dict.fromkeys(stage for stage, _ in self._groups))
        self.payload_nbytes = sum(c.nbytes for c in recorder.calls if c.stage == COPY_IN)
        self.library_nbytes = sum(c.nbytes for c in recorder.calls if c.stage.startswith(LIBRARY))
        self.launches = sum(c.stage not in (COPY_IN, COPY_OUT) for c in recorder.calls)

    def time(self, repeats: int) -> dict[str, list[float]]:
        """Milliseconds of each stage, and of ``all``, in each of `repeats` runs after two."""
        events = [self.driver.create_event(timing=True) for _ in range(len(self._groups) + 1)]
        found: dict[str, list[float]] = {}
        for run in range(repeats + 2):
            events[0].record(self.stream)
            for (_, calls), event in zip(self._groups, events[1:], strict=True):
                for call in calls:
                    call.give(self.stream)
                event.record(self.stream)
            events[-1].synchronize()
            if run < 2:
                continue
            spent = dict.fromkeys([*self.stages, "all"], 0.0)
            for (stage, _), (begin, end) in zip(self._groups, pairwise(events), strict=True):
                spent[stage] += end.elapsed_ms(begin)
            spent["all"] = events[-1].elapsed_ms(events[0])
            for stage, milliseconds in spent.items():
                found.setdefault(stage, []).append(milliseconds)
        return found


def record(recorder: Recorder, read: Callable[[], Any]) -> Replay:
    """Record one read, which must be done when it returns."""
    recorder.calls = []
    recorder.recording = True
    try:
        read()
    finally:
        recorder.recording = False
    kept = Recorder(recorder._driver)
    kept.calls = [replace(call) for call in recorder.calls]
    kept._kept, recorder._kept = recorder._kept, []
    return Replay(recorder._driver, kept)


def summed(times: dict[str, list[float]], stages: list[str]) -> list[float]:
    """Milliseconds of several stages together, run by run; zeros if there are none."""
    parts = [times[stage] for stage in stages]
    return np.sum(parts, axis=0).tolist() if parts else [0.0] * len(times["all"])
