"""Letting CuPy take its memory from another library's allocator.

All device memory of zarrgpu comes from CuPy's current allocator, so what is set there holds here:
RMM's is set by ``cupy.cuda.set_allocator(rmm.allocators.cupy.rmm_cupy_allocator)``, torch's by
`interop.torch.use_torch_allocator`. Either must order memory by streams, as both do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from zarrgpu.devices.cupy_errors import import_cupy
from zarrgpu.errors import MemoryBudgetError

T = TypeVar("T")

Allocate = Callable[[int, int, int], int]
"""(bytes, CUDA ordinal, ``cudaStream_t``) -> address, ordered on the stream."""

Release = Callable[[int, int], None]
"""(address, CUDA ordinal) -> nothing."""


def set_allocator(allocate: Allocate, release: Release) -> Callable[[], None]:
    """Let CuPy, and so zarrgpu, allocate device memory with the functions of another library.

    It is for the whole process, all threads: zarrgpu allocates on threads of its own.

    Returns
    -------
    callable
        Sets the allocator back to the one before.

    Raises
    ------
    MissingDependencyError
        Without CuPy.
    """
    cuda = import_cupy().cuda
    before = cuda.get_allocator()

    def allocate_on_current_stream(nbytes: int, device_id: int) -> int:
        stream = cuda.get_current_stream(device_id)
        return allocate(nbytes, device_id, int(stream.ptr))

    cuda.set_allocator(cuda.PythonFunctionAllocator(allocate_on_current_stream, release).malloc)

    def set_back() -> None:
        cuda.set_allocator(before)

    return set_back


def with_pool_emptied(call: Callable[[], T]) -> T:
    """Call something that takes device memory past CuPy's pool.

    Where there is too little, what the pool holds and nobody uses is given back to the device, and
    it is called again.
    """
    try:
        return call()
    except MemoryBudgetError:
        import_cupy().get_default_memory_pool().free_all_blocks()
        return call()


@contextmanager
def restored(set_back: Callable[[], Any]) -> Iterator[None]:
    """Block at whose end an allocator is set back."""
    try:
        yield
    finally:
        set_back()
