"""nvJPEG's batched C interface through ctypes, for CUDA 12 and 13.

Source: nvjpeg.h in the wheels ``nvidia-nvjpeg`` 13.3 and ``nvidia-nvjpeg-cu12`` 12.4, and NVIDIA's
documentation. The library loads, and tells its version, on a machine without a GPU; a handle needs
one.

What the documentation says and this file rests on: a handle may be shared by threads, a state may
not, nor be given a batch before the one before is done; `nvjpegDecodeBatched` parses on the host
and queues the rest; tables of a TIFF are given once for a batch. It gives one status for a batch:
where that is not 0 the batch is halved until the images are found that it is about.
"""

from __future__ import annotations

import ctypes
import threading
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import numpy as np

from zarrgpu.devices import image_library
from zarrgpu.devices.image_library import ALLOCATOR_FAILURE, ImageLibrary
from zarrgpu.devices.wheels import find_libraries, load_first
from zarrgpu.errors import DeviceUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from numpy.typing import NDArray

    from zarrgpu.devices.driver import Event, Stream
    from zarrgpu.devices.requests import ImageBatch

STATUS_NAMES: Final[Mapping[int, str]] = MappingProxyType(
    {**image_library.STATUS_NAMES, 10: "incomplete bitstream"}
)
"""``nvjpegStatus_t``."""

BACKENDS: Final[Mapping[str, int]] = MappingProxyType({"hardware": 3, "gpu_hybrid": 2})
"""``nvjpegBackend_t`` in the order in which they are tried: the card's JPEG engine, which A100,
H100 and later have; Huffman decoding on the GPU's cores, or for small batches on the host."""

OUTPUT_UNCHANGED: Final = 0
"""``NVJPEG_OUTPUT_UNCHANGED``: components as they are stored, a plane each."""

_IMAGE_STATUSES: Final = frozenset({2, 3, 4, 8, 9, 10})
"""What an image can be to blame for."""
_MAX_FAILURES: Final = 16
"""Bad images that are looked for in a batch; the rest of it is then taken for bad too."""
_MAX_STATES: Final = 4
"""For each backend, with tables and without: batches in flight before the host waits for one."""

_LIBRARIES: Final = ("libnvjpeg.so.13", "libnvjpeg.so.12")
_FOLDERS: Final = ("cu13/lib", "nvjpeg/lib")


_POINTER, _SIZE, _INT = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
SIGNATURES: Final[Mapping[str, tuple[type[ctypes._CDataType], ...]]] = MappingProxyType(
    {
        "nvjpegGetProperty": (_INT, _POINTER),
        "nvjpegCreateEx": (_INT, _POINTER, _POINTER, ctypes.c_uint, _POINTER),
        "nvjpegDestroy": (_POINTER,),
        "nvjpegJpegStateCreate": (_POINTER, _POINTER),
        "nvjpegJpegStateDestroy": (_POINTER,),
        "nvjpegDecodeBatchedParseJpegTables": (_POINTER, _POINTER, _POINTER, _SIZE),
        "nvjpegDecodeBatchedInitialize": (_POINTER, _POINTER, _INT, _INT, _INT),
        "nvjpegDecodeBatched": (_POINTER, _POINTER, _POINTER, _POINTER, _POINTER, _POINTER),
    }
)
"""Arguments of each function that is called; all give an ``nvjpegStatus_t``."""


class NvJpeg(ImageLibrary):
    """A loaded nvJPEG."""

    name, needed = "nvjpeg", "nvJPEG of CUDA 12 or newer"
    signatures, status_names = SIGNATURES, STATUS_NAMES

    def create_handle(self, backend: int) -> int | None:
        """Make a handle for the current device; None if the device has not this backend."""
        handle = ctypes.c_void_p()
        status = self.call("nvjpegCreateEx", backend, None, None, 0, ctypes.byref(handle))
        if status == ALLOCATOR_FAILURE:
            self.check("nvjpegCreateEx", status)
        return None if status else handle.value

    def create_state(self, handle: int) -> int:
        """Make a state, which batches can be decoded with one after the other."""
        return self.create("nvjpegJpegStateCreate", handle)


@dataclass(slots=True, eq=False)
class _State:
    """A state, and the event of the last batch that it was given."""

    state: int
    done: Event
    given: tuple[NDArray[Any], ...] = ()
    """Arrays of that batch: they live as long as it may be looked at."""


class _States:
    """States of a handle; threads take one each."""

    def __init__(self, library: NvJpeg, handle: int, create_event: Callable[[], Event]) -> None:
        self._handle = handle
        self._library = library
        self._create_event = create_event
        self._idle: list[_State] = []
        self._made = 0
        self._lock = threading.Condition()

    def take(self) -> _State:
        """A state whose last batch is done, made anew if there are few."""
        with self._lock:
            while True:
                ready = next((s for s in self._idle if s.done.query()), None)
                if ready is None and self._made < _MAX_STATES:
                    made = self._library.create_state(self._handle)
                    self._made += 1
                    return _State(made, self._create_event())
                if ready is None and self._idle:
                    ready = self._idle[0]
                if ready is not None:
                    self._idle.remove(ready)
                    break
                self._lock.wait()
        ready.done.synchronize()
        return ready

    def give_back(self, state: _State, stream: Stream) -> None:
        """Let others have a state once `stream` is done with it."""
        try:
            state.done.record(stream)
        finally:  # of a lost device too: others would wait for ever
            with self._lock:
                self._idle.append(state)
                self._lock.notify()


class _Backend:
    """A handle with two kinds of states: those that were given tables, and those that never were.

    What a state that has tables makes of a complete stream, and how it is rid of them, nvjpeg.h
    does not say.
    """

    def __init__(self, library: NvJpeg, handle: int, create_event: Callable[[], Event]) -> None:
        self.handle = handle
        self._plain = _States(library, handle, create_event)
        self._with_tables = _States(library, handle, create_event)

    def states(self, *, tables: bool) -> _States:
        """States for images that share tables, or for those that have none."""
        return self._with_tables if tables else self._plain


class JpegDecoder:
    """nvJPEG on one device.

    Parameters
    ----------
    library : NvJpeg
    create_event : callable
        Makes an event of the device. The device is current whenever a method is called.
    """

    def __init__(self, library: NvJpeg, create_event: Callable[[], Event]) -> None:
        self.library = library
        self._create_event = create_event
        self._backends: dict[str, _Backend] | None = None
        self._lock = threading.Lock()

    def open(self) -> dict[str, _Backend]:
        """Give the backends that the device has, best first, with handles made at first use.

        Raises
        ------
        DeviceUnavailableError
            If it has none: no GPU, or a driver that is older than the library.
        """
        with self._lock:
            if self._backends is None:
                found = {}
                for name, code in BACKENDS.items():
                    handle = self.library.create_handle(code)
                    if handle is not None:
                        found[name] = _Backend(self.library, handle, self._create_event)
                if not found:
                    msg = f"nvjpeg: {self.library.path} has no decoder for this device"
                    raise DeviceUnavailableError(msg)
                self._backends = found
            return self._backends

    def decode(self, batch: ImageBatch, stream: Stream) -> None:
        """Queue the decoding of a batch; see `Driver.decode_images`."""
        for address in np.unique(batch.tables).tolist():
            rows = np.flatnonzero(batch.tables == address)
            self._decode(batch, rows, stream)

    def _decode(self, batch: ImageBatch, rows: NDArray[np.int64], stream: Stream) -> None:
        """Decode images that share their tables, and find those that cannot be."""
        backends = self.open()
        ways = list(backends.items())
        for name, backend in ways:  # the last one stays for the search
            status = _try(self.library, backend, batch, rows, stream)
            if status == 0:
                batch.statuses[rows] = 0
                return
            if backend is ways[-1][1] or status == ALLOCATOR_FAILURE:
                self._check_images(status, len(rows))
            elif status not in _IMAGE_STATUSES:  # an engine that this process may not use
                backends.pop(name, None)
        batch.statuses[rows] = status
        suspects, failures = _halves(rows), 0
        while suspects and failures < _MAX_FAILURES:
            part = suspects.pop()
            status = _try(self.library, backend, batch, part, stream)
            self._check_images(status, len(part))
            batch.statuses[part] = status
            if status:
                suspects += _halves(part)
                failures += len(part) == 1

    def _check_images(self, status: int, n: int) -> None:
        """Raise for a status that none of `n` images is to blame for."""
        if status not in _IMAGE_STATUSES:
            self.library.check(f"nvjpeg on {n} images", status)


def _halves(rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    middle = len(rows) // 2
    return [rows[:middle], rows[middle:]] if middle else []


def _try(
    library: NvJpeg,
    backend: _Backend,
    batch: ImageBatch,
    rows: NDArray[np.int64],
    stream: Stream,
) -> int:
    """Queue images with a backend; return the status of all of them."""
    sources, lengths = batch.sources[rows], batch.source_nbytes[rows]
    planes = np.ascontiguousarray(batch.planes[rows])
    tables, tables_nbytes = int(batch.tables[rows[0]]), int(batch.tables_nbytes[rows[0]])
    states = backend.states(tables=tables != 0)
    taken = states.take()
    taken.given = sources, lengths, planes
    both, status = (backend.handle, taken.state), 0
    try:
        if tables:
            status = library.call(
                "nvjpegDecodeBatchedParseJpegTables", *both, tables, tables_nbytes
            )
        status = status or library.call(
            "nvjpegDecodeBatchedInitialize", *both, len(rows), 1, OUTPUT_UNCHANGED
        )
        status = status or library.call(
            "nvjpegDecodeBatched", *both, sources.ctypes.data, lengths.ctypes.data,
            planes.ctypes.data, stream.handle,
        )  # fmt: skip
    finally:
        states.give_back(taken, stream)
    return status


@cache
def load_nvjpeg() -> NvJpeg:
    """Load the newest nvJPEG of this environment: the wheels first, then the system.

    Raises
    ------
    MissingDependencyError
        If there is none, with what to install.
    """
    return load_first(NvJpeg, candidates(), "nvjpeg is needed to decode JPEG")


def candidates() -> list[str]:
    """Where nvJPEG may be: nvidia/cu13/lib since CUDA 13, nvidia/nvjpeg/lib before."""
    return find_libraries(_LIBRARIES, _FOLDERS)
