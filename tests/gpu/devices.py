"""CUDA devices for tests: the emulated one everywhere, the real one where there is a GPU."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

from zarrgpu.devices.cuda import CudaDevice

KINDS = ("emulated", "lazy", pytest.param("cuda", marks=pytest.mark.gpu))
"""``lazy`` does nothing before someone waits for it, and so finds forgotten synchronisations."""


def open_device(kind: str, **options: Any) -> CudaDevice:
    """A device of a kind of `KINDS`; skips the test where there is none."""
    if kind == "cuda":
        from zarrgpu.devices.cupy_driver import CupyDriver
        from zarrgpu.devices.resolve import cuda_problem

        if problem := cuda_problem():
            pytest.skip(problem)
        if os.environ.get("ZARRGPU_TEST_UNPOOLED"):  # compute-sanitizer then sees each bound
            import cupy

            cupy.cuda.set_allocator(None)
        return CudaDevice(CupyDriver(0))
    from tests.emulator import EmulatedDriver

    return CudaDevice(EmulatedDriver(lazy=kind == "lazy", **options))


def is_emulated(device: CudaDevice) -> bool:
    return device.name.startswith("emulated")


def to_host(array: Any) -> np.ndarray:
    """Copy of an array of any device."""
    return array.get() if hasattr(array, "get") else np.array(array)


def to_device(device: CudaDevice, array: np.ndarray) -> Any:
    """Array of the device with the content of a host array (C order)."""
    driver = device.driver
    content = np.array(array, order="C")
    memory = empty(device, content.shape, content.dtype)
    stream = driver.current_stream()
    pinned = driver.allocate_pinned(content.nbytes)
    pinned.array[:] = content.reshape(-1).view(np.uint8)
    driver.copy_to_device(driver.view_array(memory).ptr, pinned.ptr, content.nbytes, stream)
    stream.synchronize()
    return memory


def empty(device: CudaDevice, shape: tuple[int, ...], dtype: Any) -> Any:
    """Uninitialised C-contiguous array of the device."""
    driver, dtype = device.driver, np.dtype(dtype)
    nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    return driver.to_array(driver.allocate(nbytes, driver.current_stream()), 0, shape, dtype)


def same(got: Any, wanted: np.ndarray, *, device: CudaDevice, converted: bool = False) -> None:
    """Same type, shape and bytes; a NaN that arithmetic made may have any payload on a GPU."""
    got = to_host(got)
    wanted = wanted.astype(wanted.dtype.newbyteorder("="), order="C")
    assert got.dtype == wanted.dtype
    assert got.dtype.isnative
    assert got.shape == wanted.shape
    if converted and not is_emulated(device):
        both = np.isnan(got) & np.isnan(wanted)
        got, wanted = np.where(both, 0, got), np.where(both, 0, wanted)
    assert got.tobytes() == wanted.tobytes()
