"""Letting CuPy take its memory from another library's allocator.

All device memory of zarrgpu comes from CuPy's current allocator, so what is set there holds here:
RMM's is set by ``cupy.cuda.set_allocator(rmm.allocators.cupy.rmm_cupy_allocator)``, torch's by
`interop.torch.use_torch_allocator`. Either must order memory by streams, as both do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from zarrgpu.devices.cupy_errors import import_cupy

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


@contextmanager
def restored(set_back: Callable[[], Any]) -> Iterator[None]:
    """Block at whose end an allocator is set back."""
    try:
        yield
    finally:
        set_back()
