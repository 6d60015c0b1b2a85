"""One Zarr array onto a device: stages of a read alone, whole reads, patches, a loader."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

import zarrgpu
from tests.gpu.devices import empty, to_host
from tests.gpu.recording import COPY_IN, COPY_OUT, GATHER, LIBRARY, Recorder, record, summed
from tests.gpu.stored import Case
from tests.gpu.timing import COPY_BANDWIDTH, Clock, patch_rate, rate
from zarrgpu.devices.cuda import CudaDevice
from zarrgpu.errors import ZarrGPUError
from zarrgpu.loader import PatchLoader
from zarrgpu.model import ReadOptions

MEAN, STD = (150.0,) * 3, (60.0,) * 3


def measure(
    case: Case,
    device: CudaDevice,
    clock: Clock,
    options: ReadOptions,
    ceilings: dict[str, Any],
    *,
    brief: bool = False,
) -> dict[str, Any]:
    """Time everything about one array; every result is held against the data first.

    With `brief`: what does not depend on the codec is left out.
    """
    data, n = case.data, len(case.starts)
    direct, options = replace(options, gds=True), replace(options, gds=False)
    whole = empty(device, data.shape, data.dtype)
    batch = empty(device, (n, *case.patch), data.dtype)
    read = partial(case.array.read, out=whole, options=options)
    read_patches = partial(
        case.array.read_patches, case.starts, case.patch, out=batch, options=options
    )
    found, check = stages(case, device, clock, read, whole, ceilings)
    np.testing.assert_array_equal(check, data)
    found["patches"] = gathers(case, device, clock, options, batch, ceilings)
    found |= {
        "whole read, page cache": rate(clock.on_wall(partial(read, device=device)), data.nbytes),
        "whole read, host memory": rate(
            clock.on_wall(partial(case.memory.read, device=device, out=whole, options=options)),
            data.nbytes,
        ),
        "patches, page cache": patch_rate(
            clock.on_wall(partial(read_patches, device=device)), case.patches_nbytes, n
        ),
    }
    if brief:
        return found
    cached = zarrgpu.open(case.path, cache=2 * data.nbytes)
    keeping = partial(
        cached.read_patches, case.starts, case.patch, device=device, out=batch, options=options
    )
    times = clock.on_wall(keeping)
    np.testing.assert_array_equal(to_host(batch)[0], data[next(case.boxes())])
    found["patches, chunk cache"] = patch_rate(times, case.patches_nbytes, n)
    found["batches of 32 patches"] = batches(case, device, clock, options)
    found["whole read, GPUDirect Storage"] = direct_storage(case, device, clock, direct, whole)
    if data.ndim == 3 and data.shape[2] == 3:
        found["patches through PatchLoader"] = loaded(case, device, clock, options)
    return found


def direct_storage(
    case: Case, device: CudaDevice, clock: Clock, options: ReadOptions, whole: Any
) -> dict[str, Any]:
    """Whole reads straight from files into device memory, or why that cannot be."""
    try:
        case.array.read(device=device, out=whole, options=options)
    except ZarrGPUError as error:
        return {"not measured": str(error)[:300]}
    np.testing.assert_array_equal(to_host(whole), case.data)
    read = partial(case.array.read, device=device, out=whole, options=options)
    return rate(clock.on_wall(read), case.data.nbytes)


def stages(
    case: Case, device: CudaDevice, clock: Clock, read: Any, whole: Any, ceilings: dict[str, Any]
) -> tuple[dict[str, Any], np.ndarray]:
    """What the device does in a read of the whole array, stage by stage, and the result."""
    recorder = Recorder(device.driver)
    replay = record(recorder, partial(read, device=CudaDevice(recorder)))
    times = replay.time(clock.repeats)
    nbytes = case.data.nbytes
    decoding = [s for s in replay.stages if s not in (COPY_IN, COPY_OUT, GATHER)]
    library = [s for s in replay.stages if s.startswith(LIBRARY)]
    found: dict[str, Any] = {
        "from pinned memory": rate(times["all"], nbytes),
        "copy to the device": rate(times[COPY_IN], replay.payload_nbytes),
        "gather": shared(rate(times[GATHER], 2 * nbytes), ceilings),
        "stages_ms": {s: round(float(np.median(t)), 4) for s, t in times.items()},
        "launches": replay.launches,
    }
    if decoding:
        found["decode stage"] = rate(summed(times, decoding), nbytes)
    if library:
        found["nvCOMP alone, same streams"] = rate(summed(times, library), replay.library_nbytes)
        found["decode stage over nvCOMP alone"] = round(
            float(np.median(summed(times, library)))
            / max(float(np.median(summed(times, decoding))), 1e-6), 3,
        )  # fmt: skip
    return found, to_host(whole)


def gathers(
    case: Case,
    device: CudaDevice,
    clock: Clock,
    options: ReadOptions,
    batch: Any,
    ceilings: dict[str, Any],
) -> dict[str, Any]:
    """The gather of patches as they are, and (of colour images) as a network wants them."""
    recorder = Recorder(device.driver)
    recording = CudaDevice(recorder)
    as_stored = partial(
        case.array.read_patches, case.starts, case.patch, device=recording, out=batch,
        options=options,
    )  # fmt: skip
    replay = record(recorder, as_stored)
    times = replay.time(clock.repeats)
    got = to_host(batch)
    for row, box in list(enumerate(case.boxes()))[::17]:
        np.testing.assert_array_equal(got[row], case.data[box])
    found = {
        "gather": shared(rate(times[GATHER], 2 * case.patches_nbytes), ceilings),
        "from pinned memory": patch_rate(times["all"], case.patches_nbytes, len(case.starts)),
    }
    if case.data.ndim == 3 and case.data.shape[2] == 3:
        slide = case.sampler().slides[0]
        normalised = partial(
            slide.read_regions, case.starts[:, 1::-1], 0, case.patch[1::-1], layout="NCHW",
            dtype="float16", normalize=(MEAN, STD), device=recording, options=options,
        )  # fmt: skip
        times = record(recorder, normalised).time(clock.repeats)
        nbytes = case.patches_nbytes * 3  # one byte read, two written
        found["gather, normalised float16 NCHW"] = shared(rate(times[GATHER], nbytes), ceilings)
    return found


def shared(timed: dict[str, Any], ceilings: dict[str, Any]) -> dict[str, Any]:
    """A rate with its share of the card's own copy."""
    share = timed["GB_per_s"] / max(ceilings[COPY_BANDWIDTH]["GB_per_s"], 1e-9)
    return {**timed, "share_of_copy_bandwidth": round(share, 3)}


def batches(case: Case, device: CudaDevice, clock: Clock, options: ReadOptions) -> dict[str, Any]:
    """All patches, 32 at a time, one call after another: what a cache of decoded chunks is for."""
    n, data = len(case.starts), case.data
    out = empty(device, (min(32, n), *case.patch), data.dtype)
    cached = zarrgpu.open(case.path, cache=2 * data.nbytes)
    assert cached.cache is not None

    def run(array: zarrgpu.Array, *, empty_first: bool = False) -> None:
        if empty_first:
            cached.cache.clear()
        for first in range(0, n, len(out)):
            starts = case.starts[first : first + len(out)]
            array.read_patches(
                starts, case.patch, device=device, out=out[: len(starts)], options=options
            )

    def timed(array: zarrgpu.Array, **how: bool) -> dict[str, Any]:
        return patch_rate(clock.on_wall(partial(run, array, **how), 3), case.patches_nbytes, n)

    found = {
        "without a cache": timed(case.array),
        "from an empty cache": timed(cached, empty_first=True),
        "from a full cache": timed(cached),
    }
    last = case.starts[-(n % len(out) or len(out)) :]
    box = tuple(slice(s, s + p) for s, p in zip(last[0].tolist(), case.patch, strict=True))
    np.testing.assert_array_equal(to_host(out)[0], data[box])
    return found


def loaded(case: Case, device: CudaDevice, clock: Clock, options: ReadOptions) -> dict[str, Any]:
    """All patches as normalised float16 batches of 32, each of them on the device."""
    n = len(case.starts)
    loader = PatchLoader(
        case.sampler(), batch_size=min(32, n), layout="NCHW", dtype="float16",
        normalize=(MEAN, STD), device=device, options=options,
    )  # fmt: skip

    def epoch() -> None:
        delivered = sum(len(batch.images) for batch in loader)
        device.driver.current_stream().synchronize()
        assert delivered == n

    return patch_rate(clock.on_wall(epoch), case.patches_nbytes, n)
