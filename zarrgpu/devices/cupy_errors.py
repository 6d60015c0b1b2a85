"""CuPy's import, and CUDA's errors as ours."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from zarrgpu.devices import kernel_sources
from zarrgpu.errors import (
    DeviceLostError,
    DeviceUnavailableError,
    MemoryBudgetError,
    MissingDependencyError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

_OUT_OF_MEMORY = 2  # cudaErrorMemoryAllocation, CUDA_ERROR_OUT_OF_MEMORY
_NOT_INITIALIZED = 3  # cudaErrorInitializationError, CUDA_ERROR_NOT_INITIALIZED
_STICKY: Final = frozenset(
    {214, 220, 226, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 721, 911, 999}
)
"""Codes of cudaError_t after which every call of the process fails: those that driver_types.h says
leave it in an inconsistent state, uncorrectable errors of memory and NVLink, device asserts,
destroyed contexts, and unknown errors."""


def import_cupy() -> Any:
    """CuPy, or `MissingDependencyError`."""
    try:
        import cupy
    except ImportError as error:
        msg = (
            f"cupy is needed for CUDA and does not import ({error}); "
            "run: pip install 'zarrgpu[cuda13]' (or cuda12)"
        )
        raise MissingDependencyError(msg) from error
    return cupy


@contextmanager
def typed_errors(what: str) -> Iterator[None]:
    """Turn CuPy's and CUDA's errors into ours."""
    cupy = import_cupy()
    try:
        yield
    except cupy.cuda.memory.OutOfMemoryError as error:
        msg = f"{what}: {str(error).lower()}; lower memory_budget_bytes"
        raise MemoryBudgetError(msg) from error
    except (cupy.cuda.runtime.CUDARuntimeError, cupy.cuda.driver.CUDADriverError) as error:
        raise typed_error(what, getattr(error, "status", None), str(error)) from error
    except kernel_sources.CompileError as error:
        msg = f"{what}: a kernel does not compile with this NVRTC:\n{error}"
        raise DeviceUnavailableError(msg) from error


def typed_error(what: str, status: int | None, text: str) -> Exception:
    """Our error for a status of CUDA.

    >>> type(typed_error("cuda:0", 700, "illegal address")).__name__
    'DeviceLostError'
    """
    if status == _OUT_OF_MEMORY:
        return MemoryBudgetError(f"{what}: out of memory ({text}); lower memory_budget_bytes")
    if status == _NOT_INITIALIZED:
        msg = (
            f"{what}: CUDA cannot be initialised here ({text}); it never can in a process that was "
            "forked after CUDA was used: start workers with 'spawn' or use threads"
        )
        return DeviceUnavailableError(msg)
    if status in _STICKY:
        msg = (
            f"{what}: the device is lost to this process ({text}); what this read did is void, and "
            "all that is on the device. read on device='cpu' or another device, or start anew"
        )
        return DeviceLostError(msg)
    return DeviceUnavailableError(f"{what}: {text}")
