"""The contract of a driver: memory, copies, events, library decoders; the same on every device."""

from __future__ import annotations

import gzip
import zlib

import google_crc32c
import imagecodecs
import numcodecs
import numpy as np
import pytest

from tests.gpu.devices import empty, is_emulated, to_device, to_host
from zarrgpu.devices.cuda import CudaDevice
from zarrgpu.devices.driver import Driver
from zarrgpu.devices.requests import ChecksumBatch, DecompressBatch
from zarrgpu.errors import DeviceUnavailableError, MemoryBudgetError


def deflate(raw: bytes) -> bytes:
    coder = zlib.compressobj(wbits=-15)
    return coder.compress(raw) + coder.flush()


ENCODERS = {
    "zstd": lambda raw: bytes(numcodecs.Zstd(3).encode(raw)),
    "lz4": lambda raw: bytes(imagecodecs.lz4_encode(raw)),
    "snappy": lambda raw: bytes(imagecodecs.snappy_encode(raw)),
    "deflate": deflate,
    "gzip": gzip.compress,
}


class Memory:
    """Tables and bytes of a test on a device."""

    def __init__(self, cuda: CudaDevice) -> None:
        self.cuda = cuda
        self.kept: list[object] = []

    def put(self, array: np.ndarray) -> int:
        made = to_device(self.cuda, np.ascontiguousarray(array))
        self.kept.append(made)
        return self.cuda.driver.view_array(made).ptr

    def room(self, n: int, dtype: str) -> tuple[int, object]:
        made = to_device(self.cuda, np.full(n, 0x5A, dtype))
        self.kept.append(made)
        return self.cuda.driver.view_array(made).ptr, made


def decompress(cuda: CudaDevice, name: str, streams: list[bytes], sizes: list[int], gap: int = 3):
    """Decode a batch at odd addresses; the decoded bytes, sizes and statuses."""
    memory, driver = Memory(cuda), cuda.driver
    align = driver.source_alignment(name)
    payload, starts = bytearray(), []
    for stream in streams:
        payload += b"\xee" * gap
        payload += b"\xee" * (-len(payload) % align)
        starts.append(len(payload))
        payload += stream
    source = memory.put(np.frombuffer(bytes(payload), np.uint8))
    targets = np.cumsum([5, *(n + 5 for n in sizes[:-1])])
    base, result = memory.room(int(sum(sizes) + 5 * len(sizes) + 5), "u1")
    decoded, decoded_array = memory.room(len(streams), "u8")
    statuses, status_array = memory.room(len(streams), "i4")
    batch = DecompressBatch(
        n_chunks=len(streams), sources=memory.put(np.array(starts, "u8") + np.uint64(source)),
        source_nbytes=memory.put(np.array([len(s) for s in streams], "u8")),
        targets=memory.put(targets.astype("u8") + np.uint64(base)),
        target_nbytes=memory.put(np.array(sizes, "u8")), decoded_nbytes=decoded, statuses=statuses,
        max_target_nbytes=max(sizes), total_target_nbytes=sum(sizes),
    )  # fmt: skip
    stream = driver.create_stream()
    driver.decompress(name, batch, stream)
    stream.synchronize()
    found = to_host(result)
    parts = [found[t : t + n].tobytes() for t, n in zip(targets, sizes, strict=True)]
    rest = np.delete(
        found, np.concatenate([np.arange(t, t + n) for t, n in zip(targets, sizes, strict=True)])
    )
    assert (rest == 0x5A).all(), "written outside of a target"
    return parts, to_host(decoded_array), to_host(status_array)


def test_it_is_a_driver(cuda):
    driver = cuda.driver
    assert isinstance(driver, Driver)
    assert driver.block_threads % 32 == 0
    assert driver.description
    assert driver.name.endswith(str(driver.device_id))
    free, total = driver.memory_info()
    assert 0 < free <= total


@pytest.mark.parametrize("name", ENCODERS)
def test_library_decoders(cuda, name):
    rng = np.random.default_rng(0)
    sizes = [1, 7, 300, 65_536, 70_001, 200_000]
    raw = [rng.integers(0, int(rng.choice([2, 40])), n, dtype=np.uint8).tobytes() for n in sizes]
    parts, decoded, statuses = decompress(cuda, name, [ENCODERS[name](r) for r in raw], sizes)
    assert statuses.tolist() == [0] * len(sizes)
    assert decoded.tolist() == sizes
    assert parts == raw


def test_crc32c_of_any_size_and_place(cuda):
    memory, driver = Memory(cuda), cuda.driver
    sizes = [1, 3, 4, 5, 15, 16, 17, 100, 4095, 4096, 65_537, 300_000]
    rng = np.random.default_rng(1)
    data = rng.integers(0, 256, sum(sizes) + 7, dtype=np.uint8)
    starts = np.cumsum([1, *sizes[:-1]])
    base = memory.put(data)
    sums, found = memory.room(len(sizes), "u4")
    statuses, status_array = memory.room(len(sizes), "i4")
    batch = ChecksumBatch(
        n_chunks=len(sizes), sources=memory.put(starts.astype("u8") + np.uint64(base)),
        source_nbytes=memory.put(np.array(sizes, "u8")), checksums=sums, statuses=statuses,
        max_source_nbytes=max(sizes),
    )  # fmt: skip
    stream = driver.create_stream()
    driver.crc32c(batch, stream)
    stream.synchronize()
    wanted = [
        google_crc32c.value(data[s : s + n].tobytes()) for s, n in zip(starts, sizes, strict=True)
    ]
    assert to_host(found).tolist() == wanted
    assert not to_host(status_array).any()


def test_memory_and_copies(cuda):
    driver = cuda.driver
    stream, other = driver.create_stream(), driver.create_stream()
    for nbytes in (0, 1, 255, 1 << 20):
        memory = driver.allocate(nbytes, stream)
        assert memory.ptr % 256 == 0
        assert memory.nbytes == nbytes
        sent, back = driver.allocate_pinned(nbytes), driver.allocate_pinned(nbytes)
        sent.array[:] = np.arange(nbytes, dtype=np.int64).astype(np.uint8)
        back.array[:] = 0
        driver.copy_to_device(memory.ptr, sent.ptr, nbytes, stream)
        done = driver.create_event()
        done.record(stream)
        other.wait(done)
        driver.copy_to_host(back.ptr, memory.ptr, nbytes, other)
        other.synchronize()
        np.testing.assert_array_equal(sent.array, back.array)


def test_events(cuda):
    driver = cuda.driver
    stream = driver.create_stream()
    begin, end = (driver.create_event(timing=True) for _ in range(2))
    assert driver.create_event().query()
    pinned, memory = driver.allocate_pinned(1 << 20), driver.allocate(1 << 20, stream)
    begin.record(stream)
    driver.copy_to_device(memory.ptr, pinned.ptr, 1 << 20, stream)
    end.record(stream)
    end.synchronize()
    assert end.query()
    assert end.elapsed_ms(begin) >= 0


def test_arrays(cuda):
    driver = cuda.driver
    memory = driver.allocate(1000, driver.current_stream())
    array = driver.to_array(memory, 8, (3, 5), np.dtype("f4"))
    view = driver.view_array(array)
    assert (view.ptr, view.shape, view.strides, view.dtype) == (
        memory.ptr + 8,
        (3, 5),
        (20, 4),
        np.dtype("f4"),
    )
    turned = driver.view_array(array.T[::2])
    assert (turned.shape, turned.strides) == ((3, 3), (8, 20))
    for wrong in (np.zeros(3), [1, 2], "text"):
        with pytest.raises(DeviceUnavailableError, match="on this device"):
            driver.view_array(wrong)


def test_more_memory_than_there_is(cuda):
    driver = cuda.driver
    _, total = driver.memory_info()
    with pytest.raises(MemoryBudgetError, match="memory_budget_bytes"):
        driver.allocate(2 * total, driver.create_stream())
    content = np.arange(100)
    np.testing.assert_array_equal(to_host(to_device(cuda, content)), content)


def test_memory_of_a_stream_is_not_handed_out_before_its_work_is_done(cuda):
    """What is released while a stream uses it may only be reused in that stream's order."""
    driver = cuda.driver
    n = 1 << 22
    stream = driver.create_stream()
    pinned, back = driver.allocate_pinned(n), driver.allocate_pinned(n)
    for value in range(5):
        pinned.array[:] = value
        memory = driver.allocate(n, stream)
        driver.copy_to_device(memory.ptr, pinned.ptr, n, stream)
        driver.copy_to_host(back.ptr, memory.ptr, n, stream)
        del memory
        again = driver.allocate(n, stream)
        stream.synchronize()
        assert (back.array == value).all()
        del again


def test_empty_arrays_of_a_device(cuda):
    assert empty(cuda, (0, 3), "f4").shape == (0, 3)
    assert is_emulated(cuda) == cuda.name.startswith("emulated")
