"""What goes wrong on a CUDA device is said as on the host, and is over when it has been said.

Errors in the middle of a read, masked errors, too little memory, and forked children leave the
device usable and its slots returned.
"""

from __future__ import annotations

import os
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import zarrgpu as zg
from tests.blosc_cases import build
from tests.gpu.devices import open_device, same
from tests.zarr_cases import CHAINS, corrupt, store_of, values
from tests.zstd_cases import SKIPPABLE_FRAME
from zarrgpu import reader
from zarrgpu.devices import cupy_allocator
from zarrgpu.devices.cuda import CudaDevice
from zarrgpu.devices.ring import SLOTS
from zarrgpu.errors import (
    ChunkDecodeError,
    DeviceUnavailableError,
    MemoryBudgetError,
    StoreError,
    UnsupportedCodecError,
)
from zarrgpu.model import ArraySpec
from zarrgpu.output import output_format
from zarrgpu.plan.request import ReadRequest
from zarrgpu.stats import ReadStats

MIB = 1 << 20
SHARDED = ("zstd", "blosc-lz4-shuffle", "none", "gzip", "zstd+crc32c")


# ---- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [1 << 30, 3_000])
@pytest.mark.parametrize("chain", SHARDED)
def test_an_error_in_the_middle_leaves_the_device_usable(cuda, chain, budget):
    device = CudaDevice(cuda.driver)
    data = values((40, 40), "u2")
    store = store_of(data, chunks=(10, 10), codecs=CHAINS[chain])
    array = zg.open(store)
    options = zg.ReadOptions(memory_budget_bytes=budget)
    good = corrupt(store, "c/2/1")
    for _ in range(3):
        with pytest.raises(ChunkDecodeError) as caught:
            array.read(device=device, options=options)
        assert caught.value.chunk == "c/2/1"
        assert caught.value.codec == (
            ", ".join(c.name for c in array.source.chain.codecs) or "bytes"
        )
        with pytest.raises(ChunkDecodeError) as on_host:
            array.read(device="cpu")
        assert str(on_host.value) == str(caught.value)
    store.objects["c/2/1"] = good
    same(array.read(device=device, options=options), data, device=device)
    assert 1 <= len(device._free) <= SLOTS


def test_what_a_store_cannot_give_is_an_error_and_then_forgotten(cuda):
    device = CudaDevice(cuda.driver)
    data = values((40, 40), "u2")
    store = store_of(data, chunks=(10, 10), shards=(20, 20), codecs=CHAINS["zstd"])
    array = zg.open(store)
    same(array.read(device=device), data, device=device)  # the indexes are known now
    shard = store.objects.pop("c/1/1")
    for options in (zg.ReadOptions(), zg.ReadOptions(memory_budget_bytes=3_000)):
        with pytest.raises(ChunkDecodeError, match="gone from the store"):
            array.read(device=device, options=options)
        store.objects["c/1/1"] = shard[:50]
        with pytest.raises(StoreError):
            array.read(device=device, options=options)
        del store.objects["c/1/1"]
    store.objects["c/1/1"] = shard
    same(array.read(device=device), data, device=device)
    assert 1 <= len(device._free) <= SLOTS


@pytest.mark.parametrize("budget", [1 << 30, 3_000])
@pytest.mark.parametrize("chain", SHARDED)
def test_masked_errors_mark_the_patches_that_they_hit(cuda, chain, budget):
    data = values((40, 40), "u2")
    store = store_of(data, chunks=(10, 10), codecs=CHAINS[chain], fill_value=7)
    corrupt(store, "c/2/1")
    corrupt(store, "c/0/0")
    source = zg.open(store).source
    starts = np.array([(0, 0), (15, 15), (25, 25), (5, 30), (25, 5), (10, 20)])
    request = ReadRequest(
        arrays=(source.spec,), array_index=np.zeros(len(starts), np.int32), start=starts,
        count=(10, 12), step=(1, 1),
    )  # fmt: skip
    read = {"output": output_format(source.spec.dtype), "on_error": "mask"}
    options = zg.ReadOptions(memory_budget_bytes=budget)
    wanted, fine = reader.read((source,), request, device="cpu", **read)
    got, ok = reader.read((source,), request, device=cuda, options=options, **read)
    assert ok.tolist() == fine.tolist() == [False, False, True, True, False, True]
    same(got, wanted, device=cuda)


def test_strict_refuses_what_only_the_host_decodes(cuda):
    data = values((30, 900), "u2")
    strict = zg.ReadOptions(strict=True)
    on_device = (
        "none", "zstd", "lz4", "crc32c", "zstd+crc32c", "blosc-lz4-shuffle", "gzip", "zlib",
        "crc32c+gzip", "zstd-checksum", "blosc-zlib-shuffle", "blosc-blosclz-noshuffle",
    )  # fmt: skip
    for chain in on_device:
        array = zg.open(store_of(data, chunks=(8, 300), codecs=CHAINS[chain]))
        same(array.read(device=cuda, options=strict), data, device=cuda)
    store = store_of(data, chunks=(8, 300), codecs=CHAINS["zstd"] + CHAINS["gzip"])
    odd = store_of(data, chunks=(8, 300), codecs=CHAINS["zstd"])
    odd.objects["c/0/1"] += SKIPPABLE_FRAME
    for refused in (store, odd):
        array = zg.open(refused)
        with pytest.raises(UnsupportedCodecError, match="strict"):
            array.read(device=cuda, options=strict)
        same(array.read(device=cuda), data, device=cuda)
    store = store_of(data, chunks=(8, 300), codecs=CHAINS["zstd-checksum"])
    corrupt(store, "c/1/1")
    with pytest.raises((ChunkDecodeError, UnsupportedCodecError)):
        zg.open(store).read(device=cuda, options=strict)


def test_chunks_much_larger_than_they_decode_to_are_refused_as_on_the_host(cuda):
    """A Blosc container may have gaps, and so any size."""
    data = np.zeros((2, 4096), "u1")
    store = store_of(data, chunks=(1, 4096), codecs=CHAINS["blosc-lz4-noshuffle"])
    array = zg.open(store)
    for gap, fits in ((1000, True), (600_000, False)):
        made = build(data[0], cname="lz4", typesize=1, blocksize=2048, gap=gap)
        store.objects["c/1/0"] = made.encode()
        if fits:
            same(array.read(device=cuda), data, device=cuda)
            continue
        for device in ("cpu", cuda):
            with pytest.raises(ChunkDecodeError, match="bytes for 4096 decoded ones"):
                array.read(device=device)


def test_chunks_that_the_library_fails_on_are_the_hosts(monkeypatch):
    """Fails, or claims to have decoded another number of bytes: the host has the last word."""
    from tests.emulator import decoders

    data = values((40, 40), "u2")
    store = store_of(data, chunks=(10, 10), codecs=CHAINS["zstd"])
    array = zg.open(store)
    for broken in (
        lambda source, room: 1 / 0,
        lambda source, room: b"",
        lambda source, room: b"x" * (room - 1),
    ):
        monkeypatch.setitem(decoders._DECODERS, "zstd", broken)
        for kind in ("emulated", "lazy"):
            device = open_device(kind)
            for budget in (1 << 30, 3_000):
                options = zg.ReadOptions(memory_budget_bytes=budget)
                same(array.read(device=device, options=options), data, device=device)
                with pytest.raises(UnsupportedCodecError, match=r"chunk 'c/\d/\d'.*strict"):
                    array.read(device=device, options=replace(options, strict=True))


def test_many_chunks_that_the_library_fails_on_stay_within_the_budget(monkeypatch):
    from tests.emulator import decoders

    monkeypatch.setitem(decoders._DECODERS, "zstd", lambda source, room: b"")
    data = np.zeros((32, MIB), "u1") + np.arange(32, dtype="u1")[:, None]
    array = zg.open(store_of(data, chunks=(1, MIB), codecs=CHAINS["zstd"]))
    device = open_device("emulated")
    options = zg.ReadOptions(memory_budget_bytes=12 * MIB)
    same(array.read(device=device, options=options), data, device=device)
    assert device.driver.registry.peak_nbytes < data.nbytes + 24 * MIB  # arenas grow by a quarter


def test_slots_come_back_idle(cuda):
    """The work of a read that failed is done before anyone else gets its slots."""
    device = CudaDevice(cuda.driver)
    event = cuda.driver.create_event()
    pinned = cuda.driver.allocate_pinned(MIB)

    def fail() -> None:
        with device.lease(2) as slots:
            for slot in slots:
                for _ in range(20):
                    cuda.driver.copy_to_device(slot.data(MIB), pinned.ptr, MIB, slot.stream)
            event.record(slots[1].stream)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert event.query()
    assert len(device._free) == 2


@pytest.mark.parametrize("chain", ["zstd", "none", "blosc-lz4-shuffle"])
@pytest.mark.parametrize("free_mib", [16, 13])
def test_waves_that_do_not_fit_the_device_are_cut(chain, free_mib):
    """The budget allows 1 GiB, the device has little: smaller waves, the same pixels and counts."""
    data = values((256, 64, 512), "u1")  # 8 MiB
    store = store_of(data, chunks=(4, 64, 512), shards=(64, 64, 512), codecs=CHAINS[chain])
    array = zg.open(store)
    roomy = open_device("emulated")
    source, wanted = array.source, ReadStats()
    request = _whole(source.spec)
    output = output_format(source.spec.dtype)
    reader.read((source,), request, output=output, device=roomy, stats=wanted)
    for kind in ("emulated", "lazy"):
        device = open_device(kind, total_nbytes=free_mib * MIB)
        for _ in range(2):
            stats = ReadStats()
            got, _ = reader.read((source,), request, output=output, device=device, stats=stats)
            same(got[0], data, device=device)
            assert stats.waves > wanted.waves == 1
            assert stats.chunks_decoded == wanted.chunks_decoded == 64
            assert stats.chunks_missing == 0
            del got


def test_a_failed_allocation_anywhere_in_a_wave_is_survived(monkeypatch):
    """Out of memory at each allocation of a read, one after the other: the read is right."""
    data = values((64, 64, 64), "u1")
    array = zg.open(store_of(data, chunks=(8, 64, 64), codecs=CHAINS["zstd"]))
    device = open_device("lazy")
    allocate, calls = device.driver.allocate, []

    def fails_once(number):
        def allocation(nbytes, stream):
            calls.append(nbytes)
            if len(calls) == number:
                raise MemoryBudgetError("out of memory")
            return allocate(nbytes, stream)

        return allocation

    for number in range(1, 6):
        calls.clear()
        device = CudaDevice(device.driver)  # without slots
        monkeypatch.setattr(device.driver, "allocate", fails_once(number))
        same(array.read(device=device), data, device=device)
    assert len(calls) < number  # the last time none was left to fail


def test_a_retry_on_the_host_that_does_not_fit_goes_chunk_by_chunk(monkeypatch):
    from tests.emulator import decoders

    monkeypatch.setitem(decoders._DECODERS, "zstd", lambda source, room: b"")
    data = values((8, 64, 64), "u1")
    array = zg.open(store_of(data, chunks=(1, 64, 64), codecs=CHAINS["zstd"]))
    device, stats = open_device("lazy"), ReadStats()
    copy, sizes = device.driver.copy_to_device, []

    def fails_once(target, source, nbytes, stream):
        sizes.append(nbytes)
        if len(sizes) == 3:  # payload and tables of the wave, then of what is placed anew
            raise MemoryBudgetError("out of memory")
        copy(target, source, nbytes, stream)

    monkeypatch.setattr(device.driver, "copy_to_device", fails_once)
    got, _ = reader.read(
        (array.source,), _whole(array.spec), output=output_format(array.dtype), device=device,
        stats=stats,
    )  # fmt: skip
    same(got[0], data, device=device)
    assert (stats.chunks_retried, stats.waves) == (8, 9)

    def fails_from_then_on(target, source, nbytes, stream):
        sizes.append(nbytes)
        if len(sizes) >= 3:
            raise MemoryBudgetError("out of memory")
        copy(target, source, nbytes, stream)

    sizes.clear()
    monkeypatch.setattr(device.driver, "copy_to_device", fails_from_then_on)
    with pytest.raises(MemoryBudgetError, match=r"one chunk of \[1, 64, 64\].*out of memory"):
        array.read(device=device)


def test_memory_for_not_even_one_chunk_is_an_error_with_the_numbers():
    device = open_device("emulated", total_nbytes=5 * MIB)
    data = values((2, 1024, 1024), "u1")
    array = zg.open(store_of(data, chunks=(1, 1024, 1024), codecs=CHAINS["zstd"]))
    for _ in range(2):
        with pytest.raises(
            MemoryBudgetError,
            match=r"one chunk of \[1, 1024, 1024\] of .* takes 5557453 bytes besides the "
            r"result, and \d+ of 5242880 bytes of device memory are free",
        ):
            array.read(device=device)
    small = values((4, 4), "u1")
    same(zg.open(store_of(small, chunks=(2, 2))).read(device=device), small, device=device)
    with pytest.raises(MemoryBudgetError):  # no waves help a result that does not fit
        zg.open(store_of(small, chunks=(1, 1))).read_patches(
            np.zeros((1, 2), int), (1 << 15, 1 << 15), device=device
        )
    same(zg.open(store_of(small, chunks=(2, 2))).read(device=device), small, device=device)


def test_reads_that_need_memory_take_that_of_idle_slots():
    device = open_device("emulated", total_nbytes=18 * MIB)
    data = values((64, 64, 512), "u1")
    array = zg.open(store_of(data, chunks=(4, 64, 512)))
    with device.lease(4) as slots:
        for slot in slots:
            slot.data(3 * MIB)
    same(array.read(device=device), data, device=device)


def _whole(spec: ArraySpec) -> ReadRequest:
    return ReadRequest(
        arrays=(spec,), array_index=np.zeros(1, np.int32),
        start=np.zeros((1, spec.ndim), np.int64), count=spec.shape, step=(1,) * spec.ndim,
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_is_told_not_to_use_the_device(cuda):
    array = zg.open(store_of(values((4, 4), "u1"), chunks=(2, 2)))
    array.read(device=cuda)
    received, sent = os.pipe()
    cuda._lock.acquire()  # as another thread of the parent may hold it at the fork
    child = os.fork()
    if child:
        cuda._lock.release()
    else:
        message = "nothing was raised"
        try:
            array.read(device=cuda)
        except DeviceUnavailableError as error:
            message = str(error)
        finally:
            os.write(sent, message.encode())
            os._exit(0)
    os.waitpid(child, 0)
    message = os.read(received, 4096).decode()
    assert "used in its forked child" in message
    assert "spawn" in message
    array.read(device=cuda)


def test_memory_past_the_pool_is_asked_for_again_with_the_pool_emptied(monkeypatch):
    emptied: list[bool] = []
    pool = SimpleNamespace(free_all_blocks=lambda: emptied.append(True))
    cupy = SimpleNamespace(get_default_memory_pool=lambda: pool)
    monkeypatch.setattr(cupy_allocator, "import_cupy", lambda: cupy)

    def call():
        if len(emptied) < needed:
            raise MemoryBudgetError("too little")
        return "memory"

    for needed in (0, 1):
        assert cupy_allocator.with_pool_emptied(call) == "memory"
        assert len(emptied) == needed
    needed = 3
    with pytest.raises(MemoryBudgetError):
        cupy_allocator.with_pool_emptied(call)
    assert len(emptied) == 2
