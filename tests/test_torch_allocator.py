"""With torch's allocator CuPy takes memory from torch, on CuPy's stream, and gives it back.

Without a GPU the functions that CuPy is given are called as CuPy calls them; the whole is tried
where there is one.
"""

from __future__ import annotations

import numpy as np
import pytest

import zarrgpu as zg
from tests.zarr_cases import CHAINS, store_of, values
from zarrgpu.devices.cuda import CudaDevice
from zarrgpu.errors import DeviceUnavailableError, MemoryBudgetError
from zarrgpu.interop import torch as interop

torch = pytest.importorskip("torch")


@pytest.fixture
def given(monkeypatch):
    """What CuPy would be given, and whether it was set back."""
    found: dict = {"set back": 0}

    def set_back():
        found["set back"] += 1

    def set_allocator(allocate, release):
        found.update(allocate=allocate, release=release)
        return set_back

    monkeypatch.setattr(interop, "set_allocator", set_allocator)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    return found


def test_memory_is_torchs_on_the_stream_of_cupy(given, monkeypatch):
    calls = []
    monkeypatch.setattr(
        torch.cuda, "caching_allocator_alloc", lambda *args: calls.append(args) or 0x7000
    )
    monkeypatch.setattr(torch.cuda, "caching_allocator_delete", calls.append)
    with interop.use_torch_allocator():
        assert given["allocate"](1 << 20, 1, 77) == 0x7000
        given["release"](0x7000, 1)
        assert given["set back"] == 0
    assert calls == [(1 << 20, 1, 77), 0x7000]
    assert given["set back"] == 1


def test_memory_that_torch_has_not_is_a_budget_error(given, monkeypatch):
    def full(*args):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.cuda, "caching_allocator_alloc", full)
    interop.use_torch_allocator()
    with pytest.raises(MemoryBudgetError, match=r"cuda:1: torch has no 4096 bytes.*lower"):
        given["allocate"](4096, 1, 0)
    assert given["set back"] == 0  # for the whole process, unless it is used as a context


@pytest.mark.skipif(torch.version.cuda is not None, reason="this torch has CUDA")
def test_a_torch_without_cuda_is_refused():
    with pytest.raises(DeviceUnavailableError, match="without CUDA"):
        interop.use_torch_allocator()


def test_cupy_takes_the_functions_and_gives_its_own_back():
    cuda = pytest.importorskip("cupy").cuda
    from zarrgpu.devices.cupy_allocator import set_allocator

    before = cuda.get_allocator()
    set_back = set_allocator(lambda nbytes, device, stream: 0, lambda pointer, device: None)
    assert cuda.get_allocator() != before
    set_back()
    assert cuda.get_allocator() == before


@pytest.mark.gpu
def test_reads_take_their_memory_from_torch():
    from zarrgpu.devices.cupy_driver import CupyDriver

    if torch.version.cuda is None:
        pytest.skip("this torch has no CUDA")
    data = values((64, 64), "u2")
    array = zg.open(store_of(data, chunks=(16, 16), codecs=CHAINS["zstd"]))
    with interop.use_torch_allocator():
        before = torch.cuda.memory_allocated(0)
        result = array.read(device=CudaDevice(CupyDriver(0)))
        assert torch.cuda.memory_allocated(0) >= before + data.nbytes
        tensor = interop.to_torch(result)
    np.testing.assert_array_equal(tensor.cpu().numpy(), data)
