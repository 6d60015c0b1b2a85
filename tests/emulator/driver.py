"""The emulated driver: the whole `Driver` protocol on the CPU, kernels included."""

from __future__ import annotations

import ctypes
import itertools
import os
import threading
from contextlib import contextmanager
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import google_crc32c
import numpy as np

from tests.emulator import decoders, ranges
from tests.emulator.arrays import EmulatedArray
from tests.emulator.build import blocks_are_independent, build_library, require_compiler
from tests.emulator.images import HostJpeg2k, nvjpeg_on_host, queued_on
from tests.emulator.memory import EmulatedMemory, EmulationError, Registry
from tests.emulator.streams import EmulatedEvent, EmulatedStream
from zarrgpu.devices.driver import ArrayView
from zarrgpu.devices.fork_guard import ForkGuard
from zarrgpu.devices.images import ImageDecoders
from zarrgpu.devices.kernel_sources import kernels_folder
from zarrgpu.devices.kernels import KERNELS
from zarrgpu.devices.requests import FILE_ALIGNMENT
from zarrgpu.errors import DeviceLostError, DeviceUnavailableError, MemoryBudgetError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from zarrgpu.devices.requests import (
        ChecksumBatch,
        DecompressBatch,
        FileRead,
        ImageBatch,
        ImageFormat,
        LibraryFormat,
    )

_LAUNCH_LOCK = threading.Lock()  # __shared__ variables are statics


class _Launch(ctypes.Structure):
    _fields_ = (
        ("grid", ctypes.c_uint),
        ("block", ctypes.c_uint),
        ("independent", ctypes.c_bool),
    )


class EmulatedDriver:
    """A device made of host memory, g++ and host codecs; see `driver.Driver`.

    Parameters
    ----------
    device_id : int
    lazy : bool
        Do asynchronous work only when it is waited for: finds forgotten synchronisations. Call
        `synchronize` before looking at arrays that code under test returned unsynchronised.
    total_nbytes : int
        Size of the device; allocating more raises `MemoryBudgetError`.
    gds : bool
        Whether it reads files itself.
    image_formats : sequence of str
        Images that it has libraries for.
    """

    block_threads = 64

    def __init__(
        self,
        device_id: int = 0,
        *,
        lazy: bool = False,
        total_nbytes: int = 1 << 32,
        gds: bool = False,
        image_formats: Sequence[ImageFormat] = ("jpeg", "jpeg2k"),
    ) -> None:
        require_compiler()
        self.device_id = device_id
        self.lazy = lazy
        self.total_nbytes = total_nbytes
        self.registry = Registry()
        self.launches: list[str] = []
        """Kernels and library calls so far, in order."""
        self.ranges: list[str] = []
        """What was shown to profilers so far."""
        self.gds = gds
        self.file_reads: list[FileRead] = []
        """Reads of `read_files` so far."""
        self.file_reads_open = 0
        """Batches of them that nobody waited for yet."""
        self.broken_files: set[str] = set()
        """Paths that `read_files` cannot read."""
        libraries = {"jpeg": nvjpeg_on_host, "jpeg2k": lambda: HostJpeg2k(self.external_stream)}
        self._images = ImageDecoders(
            self.create_event,
            self.create_stream,
            self.activate,
            {name: libraries[name] for name in image_formats},
        )
        self._guard = ForkGuard(self.name)
        self._handles = itertools.count(3)  # 1 and 2 mean the default stream
        self._default = EmulatedStream(0, lazy=lazy)
        self._streams = [self._default]
        self._current = threading.local()

    @property
    def name(self) -> str:
        return f"emulated:{self.device_id}"

    @property
    def description(self) -> str:
        return "kernels compiled by g++, host codecs"

    @contextmanager
    def activate(self) -> Iterator[None]:
        self._guard.check()
        yield

    def lose(self) -> None:
        """Fail as a GPU does after an illegal access: nothing that is there works any more."""
        self._guard = _Lost(self.name)
        for stream in self._streams:
            stream.lost = True

    def replace_lost(self) -> None:
        """Work again, with new streams: what was lost stays so."""
        self._guard = ForkGuard(self.name)
        self._default = EmulatedStream(0, lazy=self.lazy)
        self._streams = [self._default]

    def synchronize(self) -> None:
        """Do all work of all streams."""
        for stream in self._streams:
            stream.synchronize()

    # ------------------------------------------------------------------------------- memory

    def allocate(self, nbytes: int, stream: EmulatedStream) -> EmulatedMemory:
        self._guard.check()
        if nbytes < 0:
            msg = f"allocation of {nbytes} bytes"
            raise EmulationError(msg)
        if self._lacks(nbytes):
            self.synchronize()  # as freeing what a pool holds does
        if self._lacks(nbytes):
            msg = f"{self.name}: out of memory allocating {nbytes} bytes; lower memory_budget_bytes"
            raise MemoryBudgetError(msg)
        users: dict[int, EmulatedStream] = {}

        def end(release: Callable[[], None]) -> None:
            for user in users.values():
                stream.give(partial(user.run_until, user.given))
            stream.give(release)

        memory = self.registry.allocate("device", nbytes, end)
        memory.users = users
        return memory

    def _lacks(self, nbytes: int) -> bool:
        return self.registry.live_nbytes("device") + nbytes > self.total_nbytes

    def allocate_pinned(self, nbytes: int) -> EmulatedMemory:
        self._guard.check()
        return self.registry.allocate("pinned", nbytes, lambda release: release())

    def memory_info(self) -> tuple[int, int]:
        return self.total_nbytes - self.registry.live_nbytes("device"), self.total_nbytes

    # ------------------------------------------------------------------------------ streams

    def create_stream(self) -> EmulatedStream:
        self._guard.check()
        stream = EmulatedStream(next(self._handles), lazy=self.lazy)
        self._streams.append(stream)
        return stream

    def current_stream(self) -> EmulatedStream:
        self._guard.check()
        return getattr(self._current, "stream", self._default)

    def external_stream(self, handle: int) -> EmulatedStream:
        self._guard.check()
        if handle == 1:
            return self._default
        return next(stream for stream in self._streams if stream.handle == handle)

    @contextmanager
    def annotate(self, name: str) -> Iterator[None]:
        """Note the names of ranges, as a profiler shows them."""
        self.ranges.append(name)
        yield

    @contextmanager
    def use_stream(self, stream: EmulatedStream) -> Iterator[None]:
        """Make a stream the caller's current one, as ``with cupy_stream:`` does."""
        before = self.current_stream()
        self._current.stream = stream
        try:
            yield
        finally:
            self._current.stream = before

    def create_event(self, *, timing: bool = False) -> EmulatedEvent:
        self._guard.check()
        return EmulatedEvent(timing=timing)

    # ------------------------------------------------------------------------------- copies

    def copy_to_device(self, target: int, source: int, nbytes: int, stream: EmulatedStream) -> None:
        self._copy("device", target, "pinned", source, nbytes, stream)

    def copy_to_host(self, target: int, source: int, nbytes: int, stream: EmulatedStream) -> None:
        self._copy("pinned", target, "device", source, nbytes, stream)

    def _copy(
        self, to: Any, target: int, of: Any, source: int, nbytes: int, stream: EmulatedStream
    ) -> None:
        self._guard.check()

        def work() -> None:
            self.registry.check(to, target, nbytes, f"copy to {to}")
            self.registry.check(of, source, nbytes, f"copy from {of}")
            ctypes.memmove(target, source, nbytes)

        stream.give(work)

    # ------------------------------------------------------------------------------ kernels

    def launch(
        self, kernel: str, grid: int, block: int, args: Sequence[int], stream: EmulatedStream
    ) -> None:
        self._guard.check()
        types = KERNELS[kernel][1]
        if len(args) != len(types) or grid < 1 or block < 32 or block % 32 or block > 1024:
            msg = f"{kernel}: launched with grid {grid}, block {block}, {len(args)} arguments"
            raise EmulationError(msg)
        args = tuple(int(a) for a in args)

        def work() -> None:
            for address, nbytes, what in ranges.table_ranges(kernel, args):
                self.registry.check("device", address, nbytes, f"{kernel} {what}")
            for addresses, sizes, what in ranges.job_ranges(kernel, args):
                self.registry.check("device", addresses, sizes, what)
            self.launches.append(kernel)
            _run(kernel, grid, block, args)
            self.registry.check_guards(kernel)

        stream.give(work)

    # ------------------------------------------------------------------------------ library

    def source_alignment(self, library_format: LibraryFormat) -> int:
        return decoders.SOURCE_ALIGNMENT[library_format]

    def decompress_temp_nbytes(
        self,
        library_format: LibraryFormat,
        n_chunks: int,
        max_target_nbytes: int,
        total_target_nbytes: int,
    ) -> int:
        return int(decoders.TEMP_RATIO[library_format] * total_target_nbytes)

    def decompress(
        self, library_format: LibraryFormat, batch: DecompressBatch, stream: EmulatedStream
    ) -> None:
        self._guard.check()
        temp = self.decompress_temp_nbytes(
            library_format, batch.n_chunks, batch.max_target_nbytes, batch.total_target_nbytes
        )
        self.allocate(temp, stream)  # as the real driver does: it may not fit
        stream.give(lambda: self._decompress(library_format, batch))

    def _decompress(self, library_format: str, batch: DecompressBatch) -> None:
        n = batch.n_chunks
        self.launches.append(library_format)
        sources, source_nbytes = self._sources(batch.sources, batch.source_nbytes, n)
        targets = self._table(batch.targets, "<u8", n, "targets")
        room = self._table(batch.target_nbytes, "<u8", n, "target sizes")
        self.registry.check("device", targets, room, f"{library_format} target")
        decoded_nbytes = self._table(batch.decoded_nbytes, "<u8", n, "decoded sizes")
        statuses = self._table(batch.statuses, "<i4", n, "statuses")
        if room.max(initial=0) > batch.max_target_nbytes or room.sum() > batch.total_target_nbytes:
            msg = f"{library_format}: max or total target size is too small for the batch"
            raise EmulationError(msg)
        if (sources % decoders.SOURCE_ALIGNMENT[library_format]).any():
            msg = f"{library_format}: a source is misaligned"
            raise EmulationError(msg)
        for i in range(n):
            source = ctypes.string_at(int(sources[i]), int(source_nbytes[i]))
            decoded, statuses[i] = decoders.decode(library_format, source, int(room[i]))
            ctypes.memmove(int(targets[i]), decoded, len(decoded))
            decoded_nbytes[i] = len(decoded)
        self.registry.check_guards(library_format)

    def crc32c(self, batch: ChecksumBatch, stream: EmulatedStream) -> None:
        self._guard.check()
        stream.give(lambda: self._crc32c(batch))

    def _crc32c(self, batch: ChecksumBatch) -> None:
        n = batch.n_chunks
        self.launches.append("crc32c")
        sources, source_nbytes = self._sources(batch.sources, batch.source_nbytes, n)
        checksums = self._table(batch.checksums, "<u4", n, "checksums")
        statuses = self._table(batch.statuses, "<i4", n, "statuses")
        if source_nbytes.max(initial=0) > batch.max_source_nbytes:
            msg = "crc32c: max_source_nbytes is too small for the batch"
            raise EmulationError(msg)
        for i in range(n):
            source = ctypes.string_at(int(sources[i]), int(source_nbytes[i]))
            checksums[i], statuses[i] = google_crc32c.value(source), 0

    @property
    def image_formats(self) -> Mapping[ImageFormat, str]:
        return self._images

    def decode_images(
        self, image_format: ImageFormat, batch: ImageBatch, stream: EmulatedStream
    ) -> None:
        self._guard.check()
        if image_format not in self.image_formats:
            msg = f"no library for {image_format}"
            raise EmulationError(msg)
        stream.give(lambda: self.launches.append(image_format))
        self.registry.check("pinned", batch.sources, batch.source_nbytes, "image source")
        there = batch.planes["channel"] != 0
        self.registry.check("device", batch.planes["channel"][there], 1, "image plane")
        with queued_on(stream):
            self._images.decode(image_format, batch, stream)
        stream.give(lambda: self.registry.check_guards(image_format))

    def _sources(self, addresses: int, sizes: int, n: int) -> tuple[np.ndarray, np.ndarray]:
        sources = self._table(addresses, "<u8", n, "sources")
        nbytes = self._table(sizes, "<u8", n, "source sizes")
        self.registry.check("device", sources, nbytes, "library source")
        return sources, nbytes

    def _table(self, address: int, dtype: str, n: int, what: str) -> np.ndarray:
        self.registry.check("device", address, n * np.dtype(dtype).itemsize, what)
        return ranges.read_table(address, np.dtype(dtype), n)

    # -------------------------------------------------------------------------------- files

    @property
    def gds_problem(self) -> str:
        return "" if self.gds else "the emulated device was made without it"

    @property
    def gds_description(self) -> str:
        return "preadv"

    def allocate_landing(self, nbytes: int) -> EmulatedMemory:
        memory = self.allocate(nbytes, self._default)
        self._default.synchronize()
        return memory

    def read_files(self, reads: Sequence[FileRead]) -> Callable[[], list[str]]:
        """Read when waited for, as late as the real driver may."""
        self._guard.check()
        if not self.gds:
            msg = "read_files without GPUDirect"
            raise EmulationError(msg)
        self.file_reads.extend(reads)
        self.file_reads_open += 1

        def finish() -> list[str]:
            self.file_reads_open -= 1
            return [self._read_file(read) for read in reads]

        return finish

    def _read_file(self, read: FileRead) -> str:
        self.registry.check("device", read.target, read.nbytes, "file read")
        if read.nbytes < 1 or read.offset % FILE_ALIGNMENT or read.target % FILE_ALIGNMENT:
            msg = f"read of {read} needs a detour"
            raise EmulationError(msg)
        if read.path in self.broken_files:
            return "it is said to be broken"
        memory = (ctypes.c_uint8 * read.nbytes).from_address(read.target)
        try:
            fd = os.open(read.path, os.O_RDONLY)
        except OSError as error:
            return str(error)
        try:
            got = os.preadv(fd, [memory], read.offset)
            if (
                got == read.nbytes
                and got % FILE_ALIGNMENT
                and os.preadv(fd, [bytearray(1)], read.offset + got)
            ):
                msg = f"read of {read} ends within a page and not at the end of the file"
                raise EmulationError(msg)
        finally:
            os.close(fd)
        self.registry.check_guards("file read")
        return "" if got == read.nbytes else f"{got} of {read.nbytes} bytes came"

    # ------------------------------------------------------------------------------- arrays

    def to_array(
        self, memory: EmulatedMemory, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> np.ndarray:
        array = np.ndarray(shape, dtype, memory.array.data, offset).view(EmulatedArray)
        array.driver = self
        return array

    def view_array(self, array: Any) -> ArrayView:
        if not isinstance(array, np.ndarray):
            msg = f"{self.name}: out must be an array on this device, got {type(array).__name__}"
            raise DeviceUnavailableError(msg)
        low, high = np.lib.array_utils.byte_bounds(array)
        try:
            self.registry.check("device", low, high - low, "out")
        except EmulationError as error:
            msg = f"{self.name}: out is not on this device"
            raise DeviceUnavailableError(msg) from error
        return ArrayView(
            ptr=array.ctypes.data,
            shape=array.shape,
            strides=array.strides,
            dtype=array.dtype,
            array=array,
        )


class _Lost(ForkGuard):
    """Refuses everything."""

    def check(self) -> None:
        msg = "the emulated device is lost"
        raise DeviceLostError(msg)


def _run(kernel: str, grid: int, block: int, args: Sequence[int]) -> None:
    source, types = KERNELS[kernel]
    values = [
        ctypes.c_uint64(value) if kind == "address" else ctypes.c_int32(value)
        for kind, value in zip(types, args, strict=True)
    ]
    pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(v) for v in values))
    launch = _Launch(grid, block, blocks_are_independent(kernels_folder() / source))
    with _LAUNCH_LOCK:
        _library(source)[f"emulate_{kernel}"](ctypes.byref(launch), pointers)


@cache
def _library(source: str) -> ctypes.CDLL:
    kernels = tuple(name for name, (file, _) in KERNELS.items() if file == source)
    library = ctypes.CDLL(str(build_library(kernels_folder() / source, kernels)))
    for name in kernels:
        library[f"emulate_{name}"].restype = None
    return library
