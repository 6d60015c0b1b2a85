"""Memory, streams, events and profiler ranges of CuPy as the `Driver` protocol wants them."""

from __future__ import annotations

import sys
import threading
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from zarrgpu.devices.cupy_errors import import_cupy
from zarrgpu.errors import ZarrGPUError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from zarrgpu.devices.driver import Driver, Event, Stream
    from zarrgpu.model import ByteArray


class _Lender:
    """Keeps pooled memory for as long as anything refers to it.

    When it ends, the memory's own stream is made to wait for the others that used it: CuPy hands
    memory out again to users of that stream, who then come after them.
    """

    __slots__ = ("_driver", "_lock", "_memory", "_stream", "_users")

    def __init__(self, driver: Driver, memory: Any, stream: Stream) -> None:
        self._driver = driver
        self._memory = memory
        self._stream = stream
        self._users: dict[int, Stream] = {}
        self._lock = threading.Lock()

    def add(self, stream: Stream) -> None:
        if stream.handle != self._stream.handle:
            with self._lock:
                self._users.setdefault(stream.handle, stream)

    def __del__(self) -> None:
        if not self._users or sys.is_finalizing():
            return
        with suppress(ZarrGPUError):  # of a lost device, or in a forked child: nothing runs there
            for user in self._users.values():
                event = self._driver.create_event()
                event.record(user)
                self._stream.wait(event)


class CupyMemory:
    """Device memory of CuPy's current allocator: its pool, torch's, RMM's."""

    __slots__ = ("_lender", "nbytes", "pointer")

    def __init__(self, driver: Driver, pointer: Any, nbytes: int, stream: Stream) -> None:
        cuda = import_cupy().cuda
        self._lender = _Lender(driver, pointer, stream)
        lent = cuda.UnownedMemory(int(pointer.ptr), max(nbytes, 1), self._lender, driver.device_id)
        self.pointer = cuda.MemoryPointer(lent, 0)
        self.nbytes = nbytes

    @property
    def ptr(self) -> int:
        """Device address."""
        return int(self.pointer.ptr)

    def record_stream(self, stream: Stream) -> None:
        """Note that `stream` uses it."""
        self._lender.add(stream)


class CupyPinnedMemory:
    """Page-locked host memory of CuPy's pool."""

    __slots__ = ("array", "nbytes", "ptr")

    def __init__(self, pointer: Any, nbytes: int) -> None:
        self.array: ByteArray = np.frombuffer(pointer, np.uint8, nbytes)
        self.nbytes = nbytes
        self.ptr = int(pointer.ptr)


class CupyEvent:
    """A CUDA event."""

    __slots__ = ("_driver", "native")

    def __init__(self, driver: Driver, native: Any) -> None:
        self._driver = driver
        self.native = native

    def record(self, stream: Stream) -> None:
        """Mark the work that `stream` has been given so far."""
        with self._driver.activate():
            self.native.record(native_stream(stream))

    def synchronize(self) -> None:
        """Block until the marked work is done."""
        with self._driver.activate():
            self.native.synchronize()

    def query(self) -> bool:
        """Whether the marked work is done."""
        with self._driver.activate():
            return bool(self.native.done)

    def elapsed_ms(self, start: Event) -> float:
        """Milliseconds since `start`."""
        cupy = import_cupy()
        with self._driver.activate():
            return float(cupy.cuda.get_elapsed_time(cast("CupyEvent", start).native, self.native))


class CupyStream:
    """A CUDA stream."""

    __slots__ = ("_driver", "native")

    def __init__(self, driver: Driver, native: Any) -> None:
        self._driver = driver
        self.native = native

    @property
    def handle(self) -> int:
        """``cudaStream_t`` as an integer."""
        return int(self.native.ptr)

    def wait(self, event: Event) -> None:
        """Let work given from now on wait for `event`."""
        with self._driver.activate():
            self.native.wait_event(cast("CupyEvent", event).native)

    def synchronize(self) -> None:
        """Block until all work given so far is done."""
        with self._driver.activate():
            self.native.synchronize()


class _Handle:
    """A stream by its handle, as the CUDA stream protocol wants it."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self._handle


def cupy_stream(cupy: Any, handle: int, device_id: int) -> Any:
    """CuPy's view of a ``cudaStream_t`` that others made and keep."""
    if hasattr(cupy.cuda.Stream, "from_external"):  # CuPy 14; the class below is deprecated there
        return cupy.cuda.Stream.from_external(_Handle(handle))
    return cupy.cuda.ExternalStream(handle, device_id)


def native_stream(stream: Stream) -> Any:
    """CuPy's own stream of one of ours."""
    return cast("CupyStream", stream).native


class Nvtx:
    """Named ranges for NVIDIA's profilers; nothing where CuPy was built without NVTX."""

    __slots__ = ("_nvtx",)

    def __init__(self, cupy: Any) -> None:
        nvtx = getattr(cupy.cuda, "nvtx", None)
        self._nvtx = nvtx if getattr(nvtx, "available", False) else None

    def __call__(self, name: str) -> AbstractContextManager[None]:
        """Range around a block."""
        return nullcontext() if self._nvtx is None else self._range(name)

    @contextmanager
    def _range(self, name: str) -> Iterator[None]:
        assert self._nvtx is not None
        self._nvtx.RangePush(name)
        try:
            yield
        finally:
            self._nvtx.RangePop()
