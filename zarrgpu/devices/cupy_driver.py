"""The real driver: CuPy for memory, streams and launches, nvCOMP for library decoders.

Only the modules ``cupy_*`` import CuPy, and only inside functions: importing them is safe where
CuPy or a GPU is missing (`find_problem` says why then).
"""

from __future__ import annotations

import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from zarrgpu.devices import kernel_sources, kvikio_files, nvcomp
from zarrgpu.devices.cupy_allocator import with_pool_emptied
from zarrgpu.devices.cupy_errors import import_cupy, typed_errors
from zarrgpu.devices.cupy_nvrtc import CupyNvrtc
from zarrgpu.devices.cupy_objects import (
    CupyEvent,
    CupyMemory,
    CupyPinnedMemory,
    CupyStream,
    Nvtx,
    cupy_stream,
    native_stream,
)
from zarrgpu.devices.driver import ArrayView
from zarrgpu.devices.fork_guard import ForkGuard
from zarrgpu.devices.images import ImageDecoders
from zarrgpu.devices.kernels import KERNELS
from zarrgpu.errors import DeviceUnavailableError, MissingDependencyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from zarrgpu.devices.driver import DeviceMemory, Event, PinnedMemory, Stream
    from zarrgpu.devices.requests import (
        ChecksumBatch,
        DecompressBatch,
        FileRead,
        ImageBatch,
        ImageFormat,
        LibraryFormat,
    )


def find_problem() -> str:
    """Say why CUDA cannot be used here, with what to do; empty if it can."""
    try:
        import_cupy()
        _device_count()
        nvcomp.load_nvcomp()
        CupyNvrtc().version()
    except (MissingDependencyError, DeviceUnavailableError) as error:
        return str(error)
    return ""


def current_device_index() -> int:
    """CUDA ordinal that the caller has made current."""
    with typed_errors("cuda"):
        return int(import_cupy().cuda.runtime.getDevice())


class LandingMemory:
    """Device memory outside of the pool, whose allocations share what is registered."""

    __slots__ = ("_driver", "_memory", "_registered", "nbytes")

    def __init__(self, driver: CupyDriver, memory: Any, nbytes: int) -> None:
        self._driver = driver
        self._memory = memory
        self.nbytes = nbytes
        self._registered = kvikio_files.register(self.ptr, nbytes)

    @property
    def ptr(self) -> int:
        """Device address."""
        return int(self._memory.ptr)

    def record_stream(self, stream: Stream) -> None:
        """Nothing to note: freeing it waits for the device."""

    def __del__(self) -> None:
        # the interpreter may be on its way out, or the device lost: the memory goes in any case
        with suppress(Exception):
            if self._registered:
                with self._driver.activate():
                    kvikio_files.deregister(self.ptr, self.nbytes)


class CupyDriver:
    """One NVIDIA GPU; see `driver.Driver` for the contract.

    Parameters
    ----------
    device_id : int
        CUDA ordinal.

    Raises
    ------
    MissingDependencyError
        If CuPy or nvCOMP is not installed.
    DeviceUnavailableError
        If there is no driver or no such device.
    """

    block_threads = 128

    def __init__(self, device_id: int = 0) -> None:
        cupy = import_cupy()
        count = _device_count()
        if not 0 <= device_id < count:
            msg = f"cuda:{device_id}: there are {count} devices, numbered from 0"
            raise DeviceUnavailableError(msg)
        self.device_id = device_id
        self._cupy = cupy
        self._guard = ForkGuard(self.name)
        self._nvtx = Nvtx(cupy)
        self._device = cupy.cuda.Device(device_id)
        self._nvcomp = nvcomp.load_nvcomp()
        self._images = ImageDecoders(self.create_event, self.create_stream, self.activate)
        self._functions: dict[str, Any] = {}
        self._modules: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._gds_problem: str | None = None
        with self.activate():
            properties = cupy.cuda.runtime.getDeviceProperties(device_id)
            cuda = cupy.cuda.runtime.driverGetVersion()
        self._cuda_version = f"{cuda // 1000}.{cuda % 1000 // 10}"
        self._model = properties["name"].decode()
        self._architecture = properties["major"] * 10 + properties["minor"]

    @property
    def name(self) -> str:
        """``cuda:N``."""
        return f"cuda:{self.device_id}"

    @property
    def description(self) -> str:
        """Model, architecture and library versions."""
        major, minor = self._nvcomp.version
        return (
            f"{self._model} (sm_{self._architecture}), driver of CUDA {self._cuda_version}, "
            f"CuPy {self._cupy.__version__}, "
            + ", ".join([f"nvCOMP {major}.{minor}", *self.image_formats.values()])
        )

    @contextmanager
    def activate(self) -> Iterator[None]:
        """Make the device current and give CUDA's errors our types."""
        self._guard.check()
        with typed_errors(self.name), self._device:
            yield

    def allocate(self, nbytes: int, stream: Stream) -> DeviceMemory:
        """Device memory of CuPy's current allocator, ordered on `stream`."""
        with self.activate(), native_stream(stream):
            return CupyMemory(self, self._cupy.cuda.alloc(max(nbytes, 1)), nbytes, stream)

    def allocate_pinned(self, nbytes: int) -> PinnedMemory:
        """Page-locked host memory of CuPy's pool."""
        with self.activate():
            return CupyPinnedMemory(self._cupy.cuda.alloc_pinned_memory(max(nbytes, 1)), nbytes)

    def memory_info(self) -> tuple[int, int]:
        """Free (the pool's included) and total bytes of device memory."""
        with self.activate():
            free, total = self._cupy.cuda.runtime.memGetInfo()
            return int(free + self._cupy.get_default_memory_pool().free_bytes()), int(total)

    def create_stream(self) -> Stream:
        """Create a non-blocking stream."""
        with self.activate():
            return CupyStream(self, self._cupy.cuda.Stream(non_blocking=True))

    def current_stream(self) -> Stream:
        """Return CuPy's current stream of this device."""
        with self.activate():
            return CupyStream(self, self._cupy.cuda.get_current_stream(self.device_id))

    def external_stream(self, handle: int) -> Stream:
        """View a stream that others made."""
        with self.activate():
            return CupyStream(self, cupy_stream(self._cupy, handle, self.device_id))

    def annotate(self, name: str) -> AbstractContextManager[None]:
        """Show a stage in NVIDIA's profilers."""
        return self._nvtx(name)

    def create_event(self, *, timing: bool = False) -> Event:
        """Create an event."""
        with self.activate():
            return CupyEvent(self, self._cupy.cuda.Event(disable_timing=not timing))

    def copy_to_device(self, target: int, source: int, nbytes: int, stream: Stream) -> None:
        """Copy from host to device memory."""
        runtime = self._cupy.cuda.runtime
        self._copy(target, source, nbytes, runtime.memcpyHostToDevice, stream)

    def copy_to_host(self, target: int, source: int, nbytes: int, stream: Stream) -> None:
        """Copy from device to host memory."""
        runtime = self._cupy.cuda.runtime
        self._copy(target, source, nbytes, runtime.memcpyDeviceToHost, stream)

    def _copy(self, target: int, source: int, nbytes: int, kind: int, stream: Stream) -> None:
        with self.activate():
            self._cupy.cuda.runtime.memcpyAsync(target, source, nbytes, kind, stream.handle)

    def launch(
        self, kernel: str, grid: int, block: int, args: Sequence[int], stream: Stream
    ) -> None:
        """Launch a kernel of `kernels.KERNELS`."""
        types = KERNELS[kernel][1]
        values = tuple(
            np.uint64(value) if kind == "address" else np.int32(value)
            for kind, value in zip(types, args, strict=True)
        )
        with self.activate():
            function = self._functions.get(kernel) or self._load(kernel)
            function((grid,), (block,), values, 0, native_stream(stream))

    def _load(self, kernel: str) -> Any:
        source = KERNELS[kernel][0]
        with self._lock:
            if source not in self._modules:
                compiled = kernel_sources.load_module(source, self._architecture, CupyNvrtc())
                module = self._cupy.cuda.function.Module()
                module.load(compiled.image)
                self._modules[source] = module
            self._functions[kernel] = self._modules[source].get_function(kernel)
            return self._functions[kernel]

    def source_alignment(self, library_format: LibraryFormat) -> int:
        """Multiple of bytes at which encoded streams must lie."""
        return int(self._nvcomp.alignments(library_format).input)

    def decompress_temp_nbytes(
        self,
        library_format: LibraryFormat,
        n_chunks: int,
        max_target_nbytes: int,
        total_target_nbytes: int,
    ) -> int:
        """Device memory that `decompress` allocates for itself."""
        with self.activate():
            return self._nvcomp.temp_nbytes(
                library_format, n_chunks, max_target_nbytes, total_target_nbytes
            )

    def decompress(
        self, library_format: LibraryFormat, batch: DecompressBatch, stream: Stream
    ) -> None:
        """Decode a batch with nvCOMP."""
        nbytes = self.decompress_temp_nbytes(
            library_format, batch.n_chunks, batch.max_target_nbytes, batch.total_target_nbytes
        )
        # From the pool of `stream`: released here, it is reused by later work on the stream only.
        temp = self.allocate(nbytes, stream)
        with self.activate():
            self._nvcomp.decompress(library_format, batch, temp.ptr, nbytes, stream.handle)

    @property
    def image_formats(self) -> Mapping[ImageFormat, str]:
        """What there is of nvJPEG and nvJPEG2000."""
        return self._images

    def decode_images(self, image_format: ImageFormat, batch: ImageBatch, stream: Stream) -> None:
        """Decode images with nvJPEG or nvJPEG2000, which take memory of their own."""
        with self.activate():
            with_pool_emptied(lambda: self._images.decode(image_format, batch, stream))

    def crc32c(self, batch: ChecksumBatch, stream: Stream) -> None:
        """CRC-32C of each range with nvCOMP."""
        with self.activate():
            self._nvcomp.crc32c(batch, stream.handle)

    @property
    def gds_problem(self) -> str:
        """Why files cannot be read by GPUDirect; empty if they can."""
        if self._gds_problem is None:
            with self.activate():
                self._gds_problem = kvikio_files.find_problem()
        return self._gds_problem

    @property
    def gds_description(self) -> str:
        """Name and version of the library."""
        return f"kvikio {kvikio_files.version()}"

    def allocate_landing(self, nbytes: int) -> DeviceMemory:
        """Device memory of its own, registered for GPUDirect where that can be."""
        with self.activate():
            memory = with_pool_emptied(lambda: self._plain_memory(nbytes))
            return LandingMemory(self, memory, nbytes)

    def _plain_memory(self, nbytes: int) -> Any:
        with typed_errors(self.name):
            return self._cupy.cuda.memory.Memory(max(nbytes, 1))

    def read_files(self, reads: Sequence[FileRead]) -> Callable[[], list[str]]:
        """Read files with kvikio."""
        with self.activate():
            wait = kvikio_files.start_reads(reads)

        def finish() -> list[str]:
            with self.activate():
                return wait()

        return finish

    def to_array(
        self, memory: DeviceMemory, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> Any:
        """CuPy array on `memory`."""
        with self.activate():
            pointer = cast("CupyMemory", memory).pointer + offset
            return self._cupy.ndarray(shape, dtype, pointer)

    def view_array(self, array: Any) -> ArrayView:
        """Address and strides of a CuPy array, or of what CuPy takes without a copy."""
        if not hasattr(array, "__cuda_array_interface__"):
            msg = (
                f"{self.name}: out must be an array on this device (CuPy, torch), "
                f"got {type(array).__module__}.{type(array).__name__}"
            )
            raise DeviceUnavailableError(msg)
        with self.activate():
            view = self._cupy.asarray(array)
            if view.device.id != self.device_id:
                msg = f"{self.name}: out is on cuda:{view.device.id}; give it on {self.name}"
                raise DeviceUnavailableError(msg)
        return ArrayView(
            ptr=int(view.data.ptr),
            shape=view.shape,
            strides=view.strides,
            dtype=view.dtype,
            array=view,
        )


def _device_count() -> int:
    with typed_errors("cuda"):
        count = int(import_cupy().cuda.runtime.getDeviceCount())
    if count == 0:
        msg = "cuda: the driver shows no device; check nvidia-smi and CUDA_VISIBLE_DEVICES"
        raise DeviceUnavailableError(msg)
    return count
