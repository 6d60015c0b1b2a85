"""The narrow seam between the CUDA engine and the GPU.

Everything that the CUDA path asks of CUDA goes through one `Driver`: memory, copies, events, kernel
launches and library decoders, always on a batch. The real one is `cupy_driver.CupyDriver`; the
tests have a second, which runs the same ``kernels/*.cu`` on the CPU (tests/emulator).

Rules of the seam:

- Addresses are plain integers. Tables of addresses, sizes and statuses lie in device memory.
- Everything that takes a `Stream` is asynchronous: host memory that it reads or writes must stay
  untouched, and device memory alive, until the stream got there.
- Every call makes the driver's device current for its duration; nothing assumes device 0.
- CUDA's errors leave as `MemoryBudgetError` (out of memory), `DeviceLostError` (nothing works any
  more in this process) or `DeviceUnavailableError` (all else).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    import numpy as np

    from zarrgpu.devices.requests import (
        ChecksumBatch,
        DecompressBatch,
        FileRead,
        ImageBatch,
        ImageFormat,
        LibraryFormat,
    )
    from zarrgpu.model import ByteArray


class DeviceMemory(Protocol):
    """Bytes in device memory, freed when the last reference to the object is gone."""

    @property
    def ptr(self) -> int:
        """Device address of the first byte, a multiple of 256."""

    @property
    def nbytes(self) -> int:
        """Usable bytes."""

    def record_stream(self, stream: Stream) -> None:
        """Note that `stream` uses it, besides the stream that it was allocated for.

        Once released it is handed out again to users of the latter, whose work then comes after all
        that `stream` has been given until the release.
        """


class PinnedMemory(Protocol):
    """Page-locked bytes in host memory, freed when the last reference to the object is gone."""

    @property
    def ptr(self) -> int:
        """Host address of the first byte."""

    @property
    def nbytes(self) -> int:
        """Usable bytes."""

    @property
    def array(self) -> ByteArray:
        """The bytes, shape ``(nbytes,)``; keeps the memory alive."""


class Event(Protocol):
    """A point in a stream's work."""

    def record(self, stream: Stream) -> None:
        """Mark the work that `stream` has been given so far."""

    def synchronize(self) -> None:
        """Block until the marked work is done."""

    def query(self) -> bool:
        """Whether the marked work is done; does not block."""

    def elapsed_ms(self, start: Event) -> float:
        """Milliseconds of device time since `start`; both were made with ``timing=True``."""


class Stream(Protocol):
    """A queue of device work, done in order."""

    @property
    def handle(self) -> int:
        """``cudaStream_t`` as an integer."""

    def wait(self, event: Event) -> None:
        """Let work given from now on wait for `event`, without blocking the host."""

    def synchronize(self) -> None:
        """Block until all work given so far is done; raise what went wrong in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayView:
    """A caller's device array as addresses and strides.

    Attributes
    ----------
    ptr : int
        Address of the element at index 0.
    shape : tuple of int
        Elements.
    strides : tuple of int
        Bytes.
    dtype : numpy.dtype
    array : object
        The array itself (CuPy's view of it on CUDA); keeps the memory alive.
    """

    ptr: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype[Any]
    array: Any


@runtime_checkable
class Driver(Protocol):
    """One device. Methods may be called from any thread, but not in a forked child."""

    @property
    def name(self) -> str:
        """As users write it: ``"cuda:0"``; ``"emulated:0"``."""

    @property
    def description(self) -> str:
        """For people: model, memory and library versions."""

    @property
    def device_id(self) -> int:
        """CUDA ordinal."""

    @property
    def block_threads(self) -> int:
        """Threads a block for the kernels of `kernels.KERNELS`: a multiple of 32."""

    def activate(self) -> AbstractContextManager[None]:
        """Make the device current, for callers that use CuPy themselves."""

    def allocate(self, nbytes: int, stream: Stream) -> DeviceMemory:
        """Device memory, not initialised, ordered on `stream`.

        It may be used on other streams once they waited for this one, and must not be released
        while they still use it; releasing it while `stream` does is fine.
        """

    def allocate_pinned(self, nbytes: int) -> PinnedMemory:
        """Page-locked host memory, not initialised; release it when no copy uses it any more."""

    def memory_info(self) -> tuple[int, int]:
        """Free and total bytes of device memory."""

    def create_stream(self) -> Stream:
        """Create a stream that does not synchronise with the default one."""

    def current_stream(self) -> Stream:
        """Return the stream that the caller made current (the default stream otherwise)."""

    def external_stream(self, handle: int) -> Stream:
        """View a stream that others made, by its ``cudaStream_t``; 1 is the default stream.

        It must not be destroyed while the view, or memory that was recorded on it, lives.
        """

    def annotate(self, name: str) -> AbstractContextManager[None]:
        """Name what is done in a block, for profilers."""

    def create_event(self, *, timing: bool = False) -> Event:
        """Create an event; it is done until it is recorded."""

    def copy_to_device(self, target: int, source: int, nbytes: int, stream: Stream) -> None:
        """Copy from host (pinned, or the copy may block) to device memory."""

    def copy_to_host(self, target: int, source: int, nbytes: int, stream: Stream) -> None:
        """Copy from device to host (pinned, or the copy may block) memory."""

    def launch(
        self, kernel: str, grid: int, block: int, args: Sequence[int], stream: Stream
    ) -> None:
        """Launch a kernel of `kernels.KERNELS` on `grid` blocks of `block` threads.

        `args` are plain integers, in the order and of the types of `kernels.KERNELS`.
        """

    def source_alignment(self, library_format: LibraryFormat) -> int:
        """Multiple of bytes at which encoded streams must lie for `decompress`."""

    def decompress_temp_nbytes(
        self,
        library_format: LibraryFormat,
        n_chunks: int,
        max_target_nbytes: int,
        total_target_nbytes: int,
    ) -> int:
        """Device memory that `decompress` allocates for itself on such a batch."""

    def decompress(
        self, library_format: LibraryFormat, batch: DecompressBatch, stream: Stream
    ) -> None:
        """Decode a batch. A stream that is not valid gets a status, or any bytes: check both."""

    def crc32c(self, batch: ChecksumBatch, stream: Stream) -> None:
        """CRC-32C (Castagnoli, as Zarr's ``crc32c`` codec stores it) of each range."""

    @property
    def image_formats(self) -> Mapping[ImageFormat, str]:
        """Formats that `decode_images` takes, and the name of the library for each."""

    def decode_images(self, image_format: ImageFormat, batch: ImageBatch, stream: Stream) -> None:
        """Decode the components of a batch of images, as they are stored.

        A stream that is not valid gets a status, or leaves its planes as they were, or any bytes in
        them. The library parses headers before this returns; the streams' memory must stay
        untouched until `stream` got there.
        """

    @property
    def gds_problem(self) -> str:
        """Why `read_files` cannot be used, with what to do about it; empty if it can."""

    @property
    def gds_description(self) -> str:
        """What `read_files` reads with, where it can be used."""

    def allocate_landing(self, nbytes: int) -> DeviceMemory:
        """Device memory to read files into; nothing may use it any more when it is released."""

    def read_files(self, reads: Sequence[FileRead]) -> Callable[[], list[str]]:
        """Begin to read files straight into device memory, many at once.

        Returns
        -------
        callable
            To be called, once, in any case: waits for all reads. Gives, for each of them, what is
            wrong with it, or nothing: then its bytes are there for work that is queued from now on.
        """

    def to_array(
        self, memory: DeviceMemory, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> Any:
        """C-contiguous array on `memory` from byte `offset` on; keeps the memory alive.

        CuPy on CUDA, NumPy in the emulator. Does not synchronise.
        """

    def view_array(self, array: Any) -> ArrayView:
        """Address and strides of a caller's array on this device (CuPy, torch, ...).

        Raises `DeviceUnavailableError` if the array is not on this device.
        """
