"""Law: GPU buffers of zarr-python get what NumPy has, on the emulated device as on a real one."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import zarr
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import cpu
from zarr.core.config import config

from tests.gpu.devices import same
from tests.zarr_python_arrays import (
    CHUNKS,
    PROTOTYPE,
    SHAPE,
    SHARDS,
    V3,
    create,
    data,
    nothing_delegated,
    our_pipeline,
    reopened,
)
from zarrgpu.devices.resolve import cuda_problem
from zarrgpu.interop.zarr_python.decoder import ShardDecoder, build_decoder
from zarrgpu.interop.zarr_python.device import DeviceJob, parse_box, read_on_device


@pytest.fixture(autouse=True)
def pipeline():
    with our_pipeline():
        yield


@pytest.mark.parametrize("sharded", [False, True], ids=["chunks", "shards"])
@pytest.mark.parametrize("case", ["zstd", "blosc", "big", "raw"])
def test_boxes_on_a_device_equal_numpys(cuda, case, sharded):
    values = data()
    array = create({}, values, **V3[case], shards=SHARDS if sharded else None, fill_value=7)
    pipeline = array.async_array.codec_pipeline
    store_path, metadata = array.store_path, array.metadata
    del_key = "c/0/1/0"
    zarr.core.sync.sync(array.store.delete(del_key))
    values[0 : (8 if sharded else 4), (10 if sharded else 5) : (20 if sharded else 10)] = 7
    step = SHARDS if sharded else CHUNKS
    picks = (slice(1, None, 2), slice(0, 4), 1)
    jobs, wanted, placed = [], [], {}
    for coords in np.ndindex(*(-(-n // s) for n, s in zip(SHAPE, step, strict=True))):
        options = array.async_array.config
        chunk = ArraySpec(step, metadata.data_type, metadata.fill_value, options, PROTOTYPE)
        decoder = build_decoder(tuple(pipeline), chunk)
        assert isinstance(decoder, ShardDecoder) == sharded
        number = len(jobs)
        jobs.append(DeviceJob(
            getter=store_path / metadata.encode_chunk_key(coords),
            decoder=decoder,
            shape=chunk.shape,
            fill_value=chunk.fill_value,
            box=parse_box(picks, chunk.shape),
            place=lambda part, number=number: placed.__setitem__(number, part),
        ))  # fmt: skip
        begin = [i * s for i, s in zip(coords, step, strict=True)]
        whole = np.full(step, 7, values.dtype)  # what lies beyond the array is the fill value
        part = values[tuple(slice(b, b + s) for b, s in zip(begin, step, strict=True))]
        inside = tuple(map(slice, part.shape))
        whole[inside] = part
        wanted.append((whole[picks], tuple(slice(0, -(-(n - 1) // 2)) if i == 0 else slice(0, n)
                                           for i, n in enumerate(part.shape[:2]))))  # fmt: skip
    outcomes = read_on_device(jobs, cuda, zarr.core.sync._get_loop(), PROTOTYPE)
    for number, (whole, inside) in enumerate(wanted):
        got = placed[number].get() if hasattr(placed[number], "get") else np.array(placed[number])
        np.testing.assert_array_equal(got[inside], whole[inside])
    assert [o.present for o in outcomes].count(False) == 1
    same(placed[0], wanted[0][0], device=cuda)


class Elsewhere(cpu.NDBuffer):
    """Memory that is not NumPy's, as CuPy's is not."""

    def as_ndarray_like(self):
        return SimpleNamespace(shape=self._data.shape, dtype=self._data.dtype)


@pytest.mark.skipif(not cuda_problem(), reason="where there is a GPU, it fills the buffers")
@pytest.mark.parametrize("sharded", [False, True])
def test_without_a_device_the_host_decodes_and_copies(sharded):
    values = data()
    array = create({}, values, shards=SHARDS if sharded else None)
    for selection in ((slice(1, 11), slice(None, None, 3)), ([3, 0, 12], slice(2, 9))):
        want = values[selection]
        out = Elsewhere(np.zeros(want.shape, values.dtype))
        array.get_orthogonal_selection(selection, out=out)
        np.testing.assert_array_equal(out.as_numpy_array(), want)
    nothing_delegated()


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Creating a zarr.buffer.gpu")
@pytest.mark.parametrize("sharded", [False, True])
def test_gpu_buffers_are_filled_on_their_device(sharded):
    if problem := cuda_problem():
        pytest.skip(problem)
    values = data()
    array = create({}, values, shards=SHARDS if sharded else None)
    with config.enable_gpu():
        for selection in ((slice(1, 11), slice(None, None, 3)), (5, slice(2, 9), 1)):
            got = reopened(array)[selection]
            assert hasattr(got, "__cuda_array_interface__")
            np.testing.assert_array_equal(got.get(), values[selection])
    nothing_delegated()


@pytest.mark.parametrize(
    ("selection", "box"),
    [
        ((slice(None), 3), ((0, 3), (5, 1), (1, 1), (1,))),
        ((slice(1, 5, 2), slice(2, 3)), ((1, 2), (2, 1), (2, 1), ())),
        ((np.array([1]), 3), None),
        ((slice(None),), None),
    ],
)
def test_boxes(selection, box):
    found = parse_box(selection, (5, 7))
    got = found and (found.start, found.count, found.step, found.scalars)
    assert got == box
