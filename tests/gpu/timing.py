"""Clocks of the benchmarks on a device, and what the card and its link can do at best."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from tests.gpu.devices import is_emulated
from zarrgpu.devices.cuda import CudaDevice

COPY_BANDWIDTH = "device to device, bytes read and written"


class Clock:
    """Times work of a device, by events on a stream or by the wall clock around a read."""

    def __init__(self, device: CudaDevice, repeats: int) -> None:
        self.driver, self.repeats = device.driver, repeats

    def on_device(self, run: Callable[[], Any], stream: Any) -> list[float]:
        """Milliseconds between events before and after."""
        begin, end = (self.driver.create_event(timing=True) for _ in range(2))
        times = []
        for _ in range(self.repeats + 2):
            begin.record(stream)
            run()
            end.record(stream)
            end.synchronize()
            times.append(end.elapsed_ms(begin))
        return times[2:]

    def on_wall(self, run: Callable[[], Any], repeats: int | None = None) -> list[float]:
        """Milliseconds until the result is complete, which it is when a read returns."""
        times = []
        for _ in range((repeats or self.repeats) + 1):
            began = time.perf_counter()
            run()
            times.append((time.perf_counter() - began) * 1e3)
        return times[1:]


def rate(times: list[float], nbytes: int) -> dict[str, Any]:
    """Median, spread and throughput."""
    median = float(np.median(times))
    return {
        "median_ms": round(median, 4),
        "min_ms": round(min(times), 4),
        "max_ms": round(max(times), 4),
        "repeats": len(times),
        "bytes": int(nbytes),
        "GB_per_s": round(nbytes / max(median, 1e-6) / 1e6, 3),
    }


def patch_rate(times: list[float], nbytes: int, patches: int) -> dict[str, Any]:
    """`rate` with patches a second."""
    timed = rate(times, nbytes)
    return {**timed, "patches_per_s": round(patches / max(timed["median_ms"], 1e-6) * 1e3, 1)}


def ceilings(device: CudaDevice, clock: Clock, nbytes: int) -> dict[str, Any]:
    """What the card and its link do: pinned copies each way, and copies within the device."""
    driver = device.driver
    stream = driver.create_stream()
    memory, pinned = driver.allocate(nbytes, stream), driver.allocate_pinned(nbytes)
    pinned.array[:] = np.random.default_rng(0).integers(0, 256, nbytes, dtype=np.uint8)
    to_device = partial(driver.copy_to_device, memory.ptr, pinned.ptr, nbytes, stream)
    to_pinned = partial(driver.copy_to_host, pinned.ptr, memory.ptr, nbytes, stream)
    found = {
        "pinned to device": rate(clock.on_device(to_device, stream), nbytes),
        "device to pinned": rate(clock.on_device(to_pinned, stream), nbytes),
    }
    if is_emulated(device):  # memory of the host, so that the rehearsal has the same keys
        source = np.zeros(nbytes, np.uint8)
        target = np.empty_like(source)
        copies = clock.on_wall(lambda: np.copyto(target, source))
    else:
        import cupy

        source = cupy.arange(nbytes // 4, dtype=cupy.uint32)
        target = cupy.empty_like(source)
        current = driver.current_stream()
        copies = clock.on_device(lambda: cupy.copyto(target, source), current)
    found[COPY_BANDWIDTH] = rate(copies, 2 * nbytes)
    return found
