"""The emulated device forgives nothing: what a GPU would let pass or hang on is reported here.

Its barriers and warp operations mean what CUDA's mean, and the sanitizer builds see planted bugs.
"""

from __future__ import annotations

import ctypes
import gzip
import os
import zlib
from pathlib import Path

import google_crc32c
import imagecodecs
import numcodecs.zstd
import numpy as np
import pytest

from tests.emulator import EmulatedDriver, EmulationError, build
from tests.emulator.build import blocks_are_independent, build_library, sanitizer_problem
from tests.emulator.memory import Registry
from tests.emulator.standalone import SanitizerReportError, run_sanitized
from zarrgpu.devices.driver import Driver
from zarrgpu.devices.requests import ChecksumBatch, DecompressBatch
from zarrgpu.devices.tables import COPY_JOB
from zarrgpu.errors import DeviceUnavailableError, MemoryBudgetError

needs = {
    kind: pytest.mark.skipif(bool(sanitizer_problem(kind)), reason=sanitizer_problem(kind) or "ok")
    for kind in ("address", "thread")
}


# ------------------------------------------------------------------------- what CUDA code means

SUM = """
// Block sum in shared memory, with the barrier in question.
extern "C" __global__ void block_sum(const int* values, int* sums) {
    __shared__ int partial[64];
    partial[threadIdx.x] = values[blockIdx.x * blockDim.x + threadIdx.x];
    for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
        BARRIER;
        if (threadIdx.x < half) partial[threadIdx.x] += partial[threadIdx.x + half];
    }
    if (threadIdx.x == 0) sums[blockIdx.x] = partial[0];
}
"""

WARPS = """
extern "C" __global__ void warps(int* out, int* total) {
    const int lane = threadIdx.x % 32, at = blockIdx.x * blockDim.x + threadIdx.x;
    if (threadIdx.x >= 32 && blockIdx.x == 1) return;  // a whole warp may leave early
    int sum = lane;
    for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
    const unsigned odd = __ballot_sync(0xffffffffu, lane % 2);
    const int above = __shfl_down_sync(0xffffffffu, lane, 1);
    __syncwarp();
    __syncthreads();
    atomicAdd(total, 1);
    out[at] = sum + (odd == 0xaaaaaaaau ? 1000 : 0) + 10000 * above;
}
"""

WRITES = """
// Every thread writes its own element, or more than that.
extern "C" __global__ void writes(int* out, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i CONDITION n) out[INDEX] = i;
}
"""


def write_kernel(folder: Path, name: str, text: str) -> Path:
    path = folder / f"{name}.cu"
    path.write_text(text)
    return path


def run_sanitized_kernel(sanitizer, source, kernel, arrays, *values, grid=2, block=64):
    """Run a kernel of (addresses..., ints...) on copies of `arrays` in a sanitizer build."""
    registry = Registry()
    handles = [registry.allocate("device", a.nbytes, lambda release: release()) for a in arrays]
    for handle, array in zip(handles, arrays, strict=True):
        handle.array[:] = array.view(np.uint8)
    args = [*(h.ptr for h in handles), *values]
    is_address = [True] * len(arrays) + [False] * len(values)
    memory = registry.live("device")
    contents = run_sanitized(sanitizer, source, kernel, grid, block, args, is_address, memory)
    found = {a.ptr: c for a, c in zip(memory, contents, strict=True)}
    return [found[h.ptr].view(a.dtype) for h, a in zip(handles, arrays, strict=True)]


def test_warp_operations_and_atomics(tmp_path):
    source = write_kernel(tmp_path, "warps", WARPS)
    assert not blocks_are_independent(source)
    library = ctypes.CDLL(str(build_library(source, ("warps",))))
    out, total = np.zeros(128, np.int32), np.zeros(1, np.int32)
    addresses = [ctypes.c_uint64(a.ctypes.data) for a in (out, total)]
    pointers = (ctypes.c_void_p * 2)(*(ctypes.addressof(a) for a in addresses))
    launch = (ctypes.c_uint * 3)(2, 64, 0)
    library.emulate_warps(launch, pointers)
    lane = np.arange(32)
    warp = 496 + 1000 + 10000 * np.minimum(lane + 1, 31)
    np.testing.assert_array_equal(out, np.concatenate([warp, warp, warp, np.zeros(32, int)]))
    assert total[0] == 96


def test_what_is_compiled_is_what_was_read_first(tmp_path, monkeypatch):
    """A kernel that is edited meanwhile is not kept under the name of the one before."""
    text = WRITES.replace("CONDITION", "<").replace("INDEX", f"i /* {os.getpid()} */")
    source, compile_ = write_kernel(tmp_path, "writes", text), build.subprocess.run

    def edited(command, **options):
        source.write_text("#error edited")
        return compile_(command, **options)

    build.compiler_version()
    monkeypatch.setattr(build.subprocess, "run", edited)
    made = build_library(source, ("writes",))
    assert "edited" in source.read_text()
    assert ctypes.CDLL(str(made)).emulate_writes
    made.unlink()


@needs["thread"]
def test_a_missing_barrier_is_found(tmp_path):
    values = np.arange(128, dtype=np.int32)
    good = write_kernel(tmp_path, "good", SUM.replace("BARRIER", "__syncthreads()"))
    bad = write_kernel(tmp_path, "bad", SUM.replace("BARRIER", "(void)0"))
    arrays = [values, np.zeros(2, np.int32)]
    sums = run_sanitized_kernel("thread", good, "block_sum", arrays)[1]
    assert sums.tolist() == [values[:64].sum(), values[64:].sum()]
    with pytest.raises(SanitizerReportError, match="data race"):
        run_sanitized_kernel("thread", bad, "block_sum", arrays)


@needs["thread"]
@pytest.mark.parametrize("index", ["i / 2", "threadIdx.x"], ids=["threads", "blocks"])
def test_a_write_race_is_found(tmp_path, index):
    text = WRITES.replace("CONDITION", "<")
    good = write_kernel(tmp_path, "good", text.replace("INDEX", "i"))
    bad = write_kernel(tmp_path, "bad", text.replace("INDEX", index))
    out = np.zeros(128, np.int32)
    assert run_sanitized_kernel("thread", good, "writes", [out], 128)[0].tolist() == [*range(128)]
    with pytest.raises(SanitizerReportError, match="data race"):
        run_sanitized_kernel("thread", bad, "writes", [out], 128)


@needs["address"]
def test_a_write_outside_of_memory_is_found(tmp_path):
    text = WRITES.replace("INDEX", "i")
    good = write_kernel(tmp_path, "good", text.replace("CONDITION", "<"))
    bad = write_kernel(tmp_path, "bad", text.replace("CONDITION", "<="))
    out = np.zeros(100, np.int32)
    got = run_sanitized_kernel("address", good, "writes", [out], 100)[0]
    assert got.tolist() == [*range(100)]
    with pytest.raises(SanitizerReportError, match="heap-buffer-overflow"):
        run_sanitized_kernel("address", bad, "writes", [out], 100)


def test_guard_bytes_tell_of_a_write_outside_in_the_plain_build():
    registry = Registry()
    memory = registry.allocate("device", 10, lambda release: release())
    registry.check_guards("nothing yet")
    ctypes.memset(memory.ptr + 10, 0, 1)
    with pytest.raises(EmulationError, match="outside of an allocation of 10 bytes"):
        registry.check_guards("memset")


# -------------------------------------------------------------------------------- memory, order


def put(driver, array, stream):
    """Device copy of an array, by way of pinned memory."""
    content = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    pinned = driver.allocate_pinned(content.size)
    pinned.array[:] = content
    memory = driver.allocate(content.size, stream)
    driver.copy_to_device(memory.ptr, pinned.ptr, content.size, stream)
    stream.synchronize()
    return memory


def test_it_is_a_driver():
    assert isinstance(EmulatedDriver(), Driver)


def test_fresh_memory_is_not_zero_and_released_memory_is_gone():
    driver = EmulatedDriver()
    stream = driver.create_stream()
    memory, pinned = driver.allocate(64, stream), driver.allocate_pinned(64)
    assert memory.ptr % 256 == 0
    assert (memory.array == 0xA5).all()
    ptr = memory.ptr
    array = driver.to_array(memory, 8, (3, 2), np.dtype("u2"))
    del memory
    driver.copy_to_host(pinned.ptr, ptr, 64, stream)  # the array keeps it alive
    del array
    with pytest.raises(EmulationError, match="not within live device memory"):
        driver.copy_to_host(pinned.ptr, ptr, 64, stream)


@pytest.mark.parametrize(("offset", "nbytes"), [(0, 65), (60, 8), (-1, 4)])
def test_copies_outside_of_allocations_are_refused(offset, nbytes):
    driver = EmulatedDriver()
    stream = driver.create_stream()
    memory, pinned = driver.allocate(64, stream), driver.allocate_pinned(128)
    with pytest.raises(EmulationError, match="not within live device memory"):
        driver.copy_to_device(memory.ptr + offset, pinned.ptr, nbytes, stream)
    with pytest.raises(EmulationError, match="not within live pinned memory"):
        driver.copy_to_device(memory.ptr, np.zeros(64, np.uint8).ctypes.data, 8, stream)


def test_launches_on_memory_that_is_not_there_are_refused():
    driver = EmulatedDriver()
    stream = driver.create_stream()
    jobs = np.zeros(1, COPY_JOB)
    jobs["source"], jobs["target"] = driver.allocate(8, stream).ptr, driver.allocate(8, stream).ptr
    jobs["source_nbytes"] = jobs["target_nbytes"] = jobs["nbytes"] = 8  # both are released by now
    tables = [put(driver, t, stream) for t in (jobs, np.array([0, 1]), np.zeros(1, "i4"))]
    args = [tables[0].ptr, 1, tables[1].ptr, 64, tables[2].ptr]
    with pytest.raises(EmulationError, match="copy_segments source"):
        driver.launch("copy_segments", 1, 64, args, stream)
    with pytest.raises(EmulationError, match="statuses"):
        driver.launch("copy_segments", 1, 64, [*args[:-1], 4096], stream)
    with pytest.raises(EmulationError, match="block 33"):
        driver.launch("copy_segments", 1, 33, args, stream)


def test_a_lazy_stream_does_nothing_before_it_is_waited_for():
    driver = EmulatedDriver(lazy=True)
    first, second = driver.create_stream(), driver.create_stream()
    memory, there, back = (
        driver.allocate(4, first), driver.allocate_pinned(4), driver.allocate_pinned(4)
    )  # fmt: skip
    there.array[:] = 1
    driver.copy_to_device(memory.ptr, there.ptr, 4, first)
    driver.copy_to_host(back.ptr, memory.ptr, 4, second)
    second.synchronize()
    assert (back.array == 0xA5).all()  # nobody told the second stream to wait

    event = driver.create_event()
    event.record(first)
    second.wait(event)
    driver.copy_to_host(back.ptr, memory.ptr, 4, second)
    there.array[:] = 2  # too early: the copy has not been made
    second.synchronize()
    assert (back.array == 2).all()
    assert event.query()


def test_memory_may_be_released_while_its_own_stream_uses_it():
    driver = EmulatedDriver(lazy=True)
    stream = driver.create_stream()
    pinned = driver.allocate_pinned(4)
    memory = driver.allocate(4, stream)
    driver.copy_to_device(memory.ptr, pinned.ptr, 4, stream)
    del memory
    assert driver.registry.live_nbytes("device") == 4
    stream.synchronize()
    assert driver.registry.live_nbytes("device") == 0


def test_events_time_what_lies_between_them():
    driver = EmulatedDriver()
    stream = driver.create_stream()
    start, end = driver.create_event(timing=True), driver.create_event(timing=True)
    start.record(stream)
    end.record(stream)
    end.synchronize()
    assert end.elapsed_ms(start) >= 0


def test_the_callers_stream_is_the_current_one():
    driver = EmulatedDriver()
    stream = driver.create_stream()
    default = driver.current_stream()
    with driver.use_stream(stream):
        assert driver.current_stream() is stream
    assert driver.current_stream() is default


def test_a_full_device_is_a_budget_error():
    driver = EmulatedDriver(total_nbytes=1000)
    stream = driver.create_stream()
    held = driver.allocate(900, stream)
    with pytest.raises(MemoryBudgetError, match="out of memory allocating 200 bytes"):
        driver.allocate(200, stream)
    assert driver.memory_info() == (1000 - held.nbytes, 1000)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_is_refused():
    driver = EmulatedDriver()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            driver.create_event()
        except DeviceUnavailableError as error:
            os.write(write, str(error).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    message = os.read(read, 1000).decode()
    os.close(read)
    assert "forked child" in message
    assert "spawn" in message


def test_arrays_of_the_caller_have_addresses():
    driver = EmulatedDriver()
    memory = driver.allocate(64, driver.create_stream())
    array = driver.to_array(memory, 16, (2, 3), np.dtype("f4"))
    view = driver.view_array(array[:, 1:])
    assert (view.ptr, view.shape, view.strides) == (memory.ptr + 20, (2, 2), (12, 4))
    with pytest.raises(DeviceUnavailableError, match="not on this device"):
        driver.view_array(np.zeros(3))


# -------------------------------------------------------------------------------------- library


def encode(library_format, data):
    if library_format == "zstd":
        return numcodecs.zstd.compress(data)
    if library_format == "lz4":
        return imagecodecs.lz4_encode(data)
    if library_format == "snappy":
        return imagecodecs.snappy_encode(data)
    if library_format == "deflate":
        coder = zlib.compressobj(wbits=-15)
        return coder.compress(data) + coder.flush()
    return gzip.compress(data)


def decompress(driver, library_format, streams, rooms):
    """Statuses, sizes and outputs of a batch."""
    stream = driver.create_stream()
    sources = [put(driver, np.frombuffer(s, np.uint8), stream) for s in streams]
    targets = [driver.allocate(room, stream) for room in rooms]
    n = len(streams)
    tables = [
        put(driver, np.array(values, "u8"), stream)
        for values in (
            [s.ptr for s in sources], [s.nbytes for s in sources], [t.ptr for t in targets], rooms
        )
    ]  # fmt: skip
    sizes, statuses = driver.allocate(8 * n, stream), driver.allocate(4 * n, stream)
    batch = DecompressBatch(
        n_chunks=n, sources=tables[0].ptr, source_nbytes=tables[1].ptr, targets=tables[2].ptr,
        target_nbytes=tables[3].ptr, decoded_nbytes=sizes.ptr, statuses=statuses.ptr,
        max_target_nbytes=max(rooms), total_target_nbytes=sum(rooms),
    )  # fmt: skip
    driver.decompress(library_format, batch, stream)
    stream.synchronize()
    outputs = [t.array.tobytes() for t in targets]
    return statuses.array.view("i4").tolist(), sizes.array.view("u8").tolist(), outputs


@pytest.mark.parametrize("library_format", ["zstd", "lz4", "snappy", "deflate", "gzip"])
def test_library_decoders_decode_and_report_what_is_broken(library_format):
    driver = EmulatedDriver()
    data = np.repeat(np.arange(100, dtype=np.uint8), 20).tobytes()
    good = encode(library_format, data)
    streams = [good, b"\xff" * 40, good, good[: len(good) // 2]]
    statuses, sizes, outputs = decompress(driver, library_format, streams, [2000, 2000, 100, 2000])
    assert statuses[0] == 0
    assert sizes[0] == 2000
    assert outputs[0] == data
    assert all(status != 0 for status in statuses[1:])
    assert driver.source_alignment(library_format) >= 1
    assert driver.launches == [library_format]


def test_batch_sizes_that_are_too_small_are_refused():
    driver = EmulatedDriver()
    stream = driver.create_stream()
    table = put(driver, np.array([64], "u8"), stream)
    room = driver.allocate(64, stream)
    targets = put(driver, np.array([room.ptr], "u8"), stream)
    with pytest.raises(EmulationError, match="max or total target size is too small"):
        driver.decompress(
            "zstd",
            DecompressBatch(
                n_chunks=1, sources=targets.ptr, source_nbytes=table.ptr, targets=targets.ptr,
                target_nbytes=table.ptr, decoded_nbytes=table.ptr, statuses=table.ptr,
                max_target_nbytes=64, total_target_nbytes=63,
            ),
            stream,
        )  # fmt: skip


def test_crc32c_is_castagnoli():
    driver = EmulatedDriver()
    stream = driver.create_stream()
    ranges = [b"123456789", b"", b"zarr"]
    memories = [put(driver, np.frombuffer(r, np.uint8), stream) for r in ranges]
    sources = put(driver, np.array([m.ptr for m in memories], "u8"), stream)
    sizes = put(driver, np.array([m.nbytes for m in memories], "u8"), stream)
    sums, statuses = driver.allocate(12, stream), driver.allocate(12, stream)
    batch = ChecksumBatch(
        n_chunks=3, sources=sources.ptr, source_nbytes=sizes.ptr, checksums=sums.ptr,
        statuses=statuses.ptr, max_source_nbytes=9,
    )  # fmt: skip
    driver.crc32c(batch, stream)
    assert sums.array.view("u4").tolist() == [google_crc32c.value(r) for r in ranges]
    assert sums.array.view("u4")[0] == 0xE3069283  # check value of RFC 3720's CRC-32C
    assert statuses.array.view("i4").tolist() == [0, 0, 0]
