"""Other readers of the same arrays, each with the result on the device at the end.

CPU readers use all cores, fill pinned memory and copy it once; zarr-python also reads into GPU
buffers by itself. What is not installed, or refuses, is a result too.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from tests.gpu.devices import is_emulated, to_host
from tests.gpu.stored import Case
from tests.gpu.timing import Clock, patch_rate, rate
from tests.zarr_cases import all_coords, box_of, chunk_key
from zarrgpu.devices.cuda import CudaDevice
from zarrgpu.devices.host import available_cores

Fill = Callable[[np.ndarray], None]


def measure(case: Case, device: CudaDevice, clock: Clock) -> dict[str, Any]:
    """Whole reads and patches by every peer."""
    found: dict[str, Any] = {}
    driver, data = device.driver, case.data
    stream = driver.create_stream()
    room = max(data.nbytes, case.patches_nbytes)
    pinned, memory = driver.allocate_pinned(room), driver.allocate(room, stream)
    whole = pinned.array[: data.nbytes].view(data.dtype).reshape(data.shape)
    batch = pinned.array[: case.patches_nbytes].view(data.dtype)
    batch = batch.reshape(len(case.starts), *case.patch)

    def send(nbytes: int) -> None:
        driver.copy_to_device(memory.ptr, pinned.ptr, nbytes, stream)
        stream.synchronize()

    def one(name: str, prepare: Callable[[Case], tuple[Fill, Fill | None, int]]) -> dict[str, Any]:
        read_whole, read_patches, n = prepare(case)

        def run_whole() -> None:
            read_whole(whole)
            send(data.nbytes)

        run_whole()
        np.testing.assert_array_equal(whole, data)
        repeats = 1 if name == "zarr-python" else 3  # which takes the longest
        timed = {"whole read + copy": rate(clock.on_wall(run_whole, repeats), data.nbytes)}
        if read_patches is not None:
            part = batch[:n]

            def run_patches() -> None:
                read_patches(part)
                send(part.nbytes)

            run_patches()
            for row, box in itertools.islice(enumerate(case.boxes()), 0, n, 17):
                np.testing.assert_array_equal(batch[row], data[box])
            times = clock.on_wall(run_patches, repeats)
            timed["patches + copy"] = {**patch_rate(times, part.nbytes, n), "n_patches": n}
        return timed

    for name, prepare in CPU_READERS.items():
        found[name] = _attempt(partial(one, name, prepare))
    found["zarr-python, GPU buffers"] = _attempt(lambda: _gpu_buffers(case, device, clock))
    return found


def _attempt(run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return run()
    except Exception as error:
        return {"not measured": f"{type(error).__name__}: {error}"[:300]}


def _tensorstore(case: Case) -> tuple[Fill, Fill, int]:
    import tensorstore

    kind = "zarr3" if case.zarr_format == 3 else "zarr"
    spec = {"driver": kind, "kvstore": f"file://{case.path}/"}
    cores = {"data_copy_concurrency": {"limit": available_cores()}}
    array = tensorstore.open(spec, read=True, context=tensorstore.Context(cores)).result()

    def whole(out: np.ndarray) -> None:
        tensorstore.array(out).write(array).result()

    def patches(out: np.ndarray) -> None:
        with tensorstore.Batch() as batch:
            boxes = itertools.islice(case.boxes(), len(out))
            futures = [array[box].read(batch=batch) for box in boxes]
        for row, future in enumerate(futures):
            out[row] = future.result()

    return whole, patches, len(case.starts)


def _zarr_python(case: Case) -> tuple[Fill, Fill, int]:
    import zarr

    array = zarr.open_array(case.path, mode="r")
    return *_one_by_one(case, array), max(1, len(case.starts) // 16)


def _zarrs(case: Case) -> tuple[Fill, Fill, int]:
    import zarr
    import zarrs  # noqa: F401 - to say that it is missing

    with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
        array = zarr.open_array(case.path, mode="r")
    return *_one_by_one(case, array), max(1, len(case.starts) // 16)


def _one_by_one(case: Case, array: Any) -> tuple[Fill, Fill]:
    """zarr-python's calls: it has none for many patches."""

    def whole(out: np.ndarray) -> None:
        out[...] = array[...]

    def patches(out: np.ndarray) -> None:
        for row, box in enumerate(itertools.islice(case.boxes(), len(out))):
            out[row] = array[box]

    return whole, patches


def _numcodecs(case: Case) -> tuple[Fill, None, int]:
    """Chunks that are objects of their own, read and decoded by threads with numcodecs."""
    import numcodecs

    if case.recipe.shards is not None:
        msg = "chunks lie in shards, which numcodecs knows nothing of"
        raise NotImplementedError(msg)
    codecs = [
        numcodecs.get_codec({"id": name.removeprefix("numcodecs."), **_v2(name, configuration)})
        for name, configuration in case.recipe.codecs
    ]

    def whole(out: np.ndarray) -> None:
        def one(coords: tuple[int, ...]) -> None:
            encoded: Any = (case.path / chunk_key(coords, case.recipe)).read_bytes()
            for codec in reversed(codecs):
                encoded = codec.decode(encoded)
            box = box_of(coords, case.recipe.chunks)
            target = out[box]
            chunk = np.frombuffer(encoded, out.dtype).reshape(case.recipe.chunks)
            target[...] = chunk[tuple(map(slice, target.shape))]

        with ThreadPoolExecutor(available_cores()) as pool:
            list(pool.map(one, all_coords(out.shape, case.recipe.chunks)))

    return whole, None, 0


def _v2(name: str, configuration: dict[str, Any]) -> dict[str, Any]:
    shuffles = {"noshuffle": 0, "shuffle": 1, "bitshuffle": 2}
    if name == "blosc":
        return {**configuration, "shuffle": shuffles[configuration["shuffle"]]}
    return configuration


CPU_READERS: dict[str, Callable[[Case], tuple[Fill, Fill | None, int]]] = {
    "tensorstore": _tensorstore,
    "zarr-python + zarrs": _zarrs,
    "zarr-python": _zarr_python,
    "numcodecs, threads": _numcodecs,
}
"""Name -> what makes a reader of whole arrays, one of patches, and how many patches it reads."""


def _gpu_buffers(case: Case, device: CudaDevice, clock: Clock) -> dict[str, Any]:
    """zarr-python with its own GPU buffers: results are CuPy arrays."""
    import zarr

    if is_emulated(device):
        msg = "GPU buffers are CuPy arrays: not on an emulated device"
        raise NotImplementedError(msg)
    with zarr.config.enable_gpu():
        array = zarr.open_array(case.path, mode="r")
        got = array[...]
        np.testing.assert_array_equal(to_host(got), case.data)

        def whole() -> None:
            array[...]
            device.driver.current_stream().synchronize()

        return {
            "codec_classes": {
                codec: str(zarr.config.get(f"codecs.{codec}")) for codec in ("zstd", "blosc")
            },
            "whole read + copy": rate(clock.on_wall(whole, 1), case.data.nbytes),
        }
