"""Results on a GPU are CuPy arrays that torch takes without a copy, on any stream.

They are what the host gives.
"""

from __future__ import annotations

import numpy as np
import pytest

import zarrgpu as zg
from tests.gpu.devices import open_device
from tests.zarr_cases import CHAINS, MemoryStore, Recipe, encode, values

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def device():
    return open_device("cuda")


@pytest.fixture(scope="module")
def case():
    data = values((600, 700), "u2")
    recipe = Recipe(chunks=(64, 64), shards=(256, 256), codecs=CHAINS["blosc-lz4-shuffle"])
    return data, zg.open(MemoryStore(encode(data, recipe)))


def test_results_are_cupy_arrays_on_the_device(device, case):
    import cupy

    data, array = case
    got = array.read(device=device)
    assert isinstance(got, cupy.ndarray)
    assert got.device.id == device.driver.device_id
    np.testing.assert_array_equal(cupy.asnumpy(got), data)
    np.testing.assert_array_equal(cupy.asnumpy(array[3:50, ::7]), data[3:50, ::7])
    named = array.read(device=device.name)
    np.testing.assert_array_equal(cupy.asnumpy(named), data)


def test_torch_takes_results_without_a_copy(device, case):
    torch = pytest.importorskip("torch")
    data, array = case
    got = array.read(device=device, dtype="f4")
    tensor = torch.from_dlpack(got)
    assert tensor.data_ptr() == got.data.ptr
    np.testing.assert_array_equal(tensor.cpu().numpy(), data.astype("f4"))
    tensor += 1
    np.testing.assert_array_equal(got.get(), data.astype("f4") + 1)


def test_a_tensor_can_be_read_into(device, case):
    torch = pytest.importorskip("torch")
    data, array = case
    out = torch.zeros((600, 700), dtype=torch.float32, device="cuda")
    out += 5  # queued work on it
    assert array.read(device=device, dtype="f4", out=out) is out
    np.testing.assert_array_equal(out.cpu().numpy(), data.astype("f4"))


def test_streams_of_the_caller(device, case):
    import cupy

    data, array = case
    for _ in range(5):
        stream = cupy.cuda.Stream(non_blocking=True)
        with stream:
            got = array.read(device=device)
            doubled = got.astype("u4") * 2
            del got  # its memory may be reused, after the work above
            again = array.read(device=device)
        stream.synchronize()
        np.testing.assert_array_equal(cupy.asnumpy(doubled), data.astype("u4") * 2)
        np.testing.assert_array_equal(cupy.asnumpy(again), data)


def test_the_loader_delivers_to_the_gpu(device):
    from tests.gpu.cases import ome_image

    torch = pytest.importorskip("torch")
    recipe = Recipe(chunks=(1, 64, 64), codecs=CHAINS["zstd"])
    slide = ome_image(values((3, 300, 300), "u2"), recipe)
    found = []
    for where in ("cpu", device):
        sampler = zg.RandomPatches(slide, size=32, num_patches=40, seed=5)
        loader = zg.PatchLoader(sampler, batch_size=8, dtype="float32", device=where)
        batches = [torch.from_dlpack(batch.images).cpu().numpy() for batch in loader]
        found.append(np.concatenate(batches))
    np.testing.assert_array_equal(found[0], found[1])
