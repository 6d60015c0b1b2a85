"""CuPy's objects as the engine uses them, as far as CuPy goes without a GPU.

Memory is kept while an array refers to it, and then its stream waits for those that used it; CUDA's
errors become ours; ranges reach NVTX.
"""

from __future__ import annotations

import gc
from types import SimpleNamespace

import pytest

from tests.emulator import EmulatedDriver
from zarrgpu.devices.cupy_errors import typed_errors
from zarrgpu.devices.cupy_objects import CupyMemory, Nvtx, cupy_stream
from zarrgpu.errors import DeviceLostError, DeviceUnavailableError, MemoryBudgetError

cupy = pytest.importorskip("cupy")


class Pooled:
    """Stands for memory of CuPy's pool, which there is none of without a GPU."""

    ptr = 1 << 20

    def __init__(self, freed: list[str]) -> None:
        self._freed = freed

    def __del__(self) -> None:
        self._freed.append("freed")


def test_memory_goes_back_behind_the_work_of_its_users():
    driver = EmulatedDriver(lazy=True)
    own, user, idle = (driver.create_stream() for _ in range(3))
    did: list[str] = []
    user.give(lambda: did.append("used"))
    memory = CupyMemory(driver, Pooled(did), 64, own)
    array = cupy.ndarray((16,), "f4", memory.pointer)[3:]
    assert (memory.ptr, memory.nbytes, array.data.ptr) == (1 << 20, 64, (1 << 20) + 12)
    for stream in (user, own, idle, user):
        memory.record_stream(stream)
    del memory
    gc.collect()
    assert did == []  # the array still has it
    del array
    gc.collect()
    assert did == ["freed"]  # CuPy may hand it out again: to whom comes after `own`
    own.give(lambda: did.append("written anew"))
    own.synchronize()
    assert did == ["freed", "used", "written anew"]


def test_memory_of_a_lost_device_goes_without_an_error():
    driver = EmulatedDriver()
    own, user = driver.create_stream(), driver.create_stream()
    freed: list[str] = []
    memory = CupyMemory(driver, Pooled(freed), 64, own)
    memory.record_stream(user)
    driver.lose()
    del memory
    gc.collect()
    assert freed == ["freed"]


@pytest.mark.parametrize(
    ("status", "kind"),
    [(2, MemoryBudgetError), (3, DeviceUnavailableError), (700, DeviceLostError),
     (719, DeviceLostError), (1, DeviceUnavailableError)],
)  # fmt: skip
def test_errors_of_the_runtime_are_ours(status, kind):
    with pytest.raises(kind, match="cuda:3") as caught, typed_errors("cuda:3"):
        raise cupy.cuda.runtime.CUDARuntimeError(status)
    assert type(caught.value) is kind


def test_ranges_reach_nvtx():
    with Nvtx(cupy)("zarrgpu test"):
        pass
    calls: list[object] = []
    nvtx = SimpleNamespace(
        available=True, RangePush=calls.append, RangePop=lambda: calls.append("end")
    )
    with pytest.raises(KeyError), Nvtx(SimpleNamespace(cuda=SimpleNamespace(nvtx=nvtx)))("a"):
        raise KeyError
    assert calls == ["a", "end"]
    with Nvtx(SimpleNamespace(cuda=SimpleNamespace()))("without NVTX"):
        pass


def test_streams_of_others_are_viewed():
    for handle in (1, 2, 0x7F00):
        assert cupy_stream(cupy, handle, 0).ptr == handle
