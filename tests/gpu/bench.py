"""Zarr reads onto a GPU against what the hardware, nvCOMP alone and CPU readers with a copy do.

usage: python -m tests.gpu.bench OUT.json [--rehearse] [--seconds N]

Throughput counts decoded bytes in the stored type. The file is written anew after every case, so
that a run that is cut off leaves what it measured. With --rehearse everything runs on the emulated
device with tiny data, and the file says so: its numbers mean nothing.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import zarrgpu
from tests.gpu import machine
from tests.gpu.devices import empty, is_emulated, open_device, to_host
from tests.gpu.kernel_rates import kernel_rates
from tests.gpu.stages import Stages
from tests.zarr_cases import Codec, MemoryStore, Recipe, encode, write
from zarrgpu.devices.cuda import CudaDevice
from zarrgpu.devices.host import available_cores
from zarrgpu.model import ReadOptions

CODECS: dict[str, tuple[Codec, ...]] = {
    "zstd": (("zstd", {"level": 3, "checksum": False}),),
    "blosc-lz4-shuffle": (
        ("blosc", {"cname": "lz4", "clevel": 5, "shuffle": "shuffle", "blocksize": 0}),
    ),
    "none": (),
    "blosc-zstd-bitshuffle": (
        ("blosc", {"cname": "zstd", "clevel": 3, "shuffle": "bitshuffle", "blocksize": 0}),
    ),
    "lz4": (("numcodecs.lz4", {"acceleration": 1}),),
    "zstd+crc32c": (("zstd", {"level": 3, "checksum": False}), ("crc32c", {})),
    "gzip": (("gzip", {"level": 5}),),
    "zstd+checksum": (("zstd", {"level": 3, "checksum": True}),),
    "blosc-blosclz-shuffle": (
        ("blosc", {"cname": "blosclz", "clevel": 5, "shuffle": "shuffle", "blocksize": 0}),
    ),
    "shuffle+zlib+fletcher32": (
        ("numcodecs.shuffle", {"elementsize": 2}),
        ("numcodecs.zlib", {"level": 1}),
        ("numcodecs.fletcher32", {}),
    ),
}
"""In the order in which they are measured."""


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
        "bytes": nbytes,
        "GB_per_s": round(nbytes / max(median, 1e-6) / 1e6, 3),
    }


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
    if not is_emulated(device):
        import cupy

        source = cupy.arange(nbytes // 4, dtype=cupy.uint32)
        target = cupy.empty_like(source)
        current = driver.current_stream()
        found["device to device, bytes read and written"] = rate(
            clock.on_device(lambda: cupy.copyto(target, source), current), 2 * nbytes
        )
    return found


class Case:
    """One array on disk, and patches of it."""

    def __init__(
        self, path: Path, data: np.ndarray, codecs: tuple[Codec, ...], shapes: dict[str, Any]
    ) -> None:
        recipe = Recipe(chunks=shapes["chunks"], shards=shapes["shards"], codecs=codecs)
        objects = encode(data, recipe)
        self.stored_nbytes = sum(
            len(value) for key, value in objects.items() if "zarr.json" not in key
        )
        self.path, self.data = write(path, objects), data
        self.memory = zarrgpu.open(MemoryStore(objects))
        self.array = zarrgpu.open(path)
        self.patch, n = shapes["patch"], shapes["n_patches"]
        random = np.random.default_rng(1)
        self.starts = np.stack(
            [random.integers(0, s - p + 1, n) for s, p in zip(data.shape, self.patch, strict=True)],
            1,
        )
        self.patches_nbytes = n * int(np.prod(self.patch)) * data.dtype.itemsize

    def boxes(self) -> list[tuple[slice, ...]]:
        return [
            tuple(slice(s, s + p) for s, p in zip(start, self.patch, strict=True))
            for start in self.starts.tolist()
        ]


def measure_ours(
    case: Case, device: CudaDevice, clock: Clock, options: ReadOptions
) -> dict[str, Any]:
    """Stages of a whole read, whole reads and patches, with zarrgpu."""
    data, patches = case.data, len(case.starts)
    whole = empty(device, data.shape, data.dtype)
    batch = empty(device, (patches, *case.patch), data.dtype)
    read = partial(case.array.read, device=device, out=whole, options=options)
    read_memory = partial(case.memory.read, device=device, out=whole, options=options)
    read_patches = partial(
        case.array.read_patches, case.starts, case.patch, device=device, out=batch, options=options
    )
    read()
    np.testing.assert_array_equal(to_host(whole), data)
    read_patches()
    got = to_host(batch)
    for row, box in list(enumerate(case.boxes()))[::17]:
        np.testing.assert_array_equal(got[row], data[box])
    stages = Stages(device, case.array.source, options)
    stages.check()
    stream = stages.slot.stream
    decoded = stages.decoded_nbytes
    found: dict[str, Any] = {
        "copy of the encoded bytes": rate(
            clock.on_device(stages.copy, stream), stages.payload_nbytes
        ),
        "decode stage": rate(clock.on_device(stages.decode, stream), decoded),
        "gather stage, bytes read and written": rate(
            clock.on_device(stages.gather, stream), decoded + stages.output_nbytes
        ),
        "whole read, page cache": rate(clock.on_wall(read), data.nbytes),
        "whole read, host memory": rate(clock.on_wall(read_memory), data.nbytes),
        "patches, page cache": rate(clock.on_wall(read_patches), case.patches_nbytes),
    }
    if stages.streams:
        total = sum(decoded for _, _, decoded in stages.streams.values())
        alone = rate(clock.on_device(stages.library, stream), total)
        found["nvCOMP alone, same streams"] = alone
        found["nvCOMP alone, same streams"]["streams"] = stages.streams
        found["decode stage over nvCOMP alone"] = round(
            found["decode stage"]["GB_per_s"] / max(alone["GB_per_s"], 1e-9), 3
        )
    per_s = patches / found["patches, page cache"]["median_ms"] * 1e3
    found["patches, page cache"]["patches_per_s"] = round(per_s, 1)
    return found


def measure_peers(case: Case, device: CudaDevice, clock: Clock) -> dict[str, Any]:
    """CPU readers on all cores, and one copy from pinned memory to the device."""
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

    for name, reader in (("tensorstore", _tensorstore), ("zarr-python", _zarr_python)):
        try:
            read_whole, read_patches = reader(case)
        except Exception as error:  # a peer that is missing or refuses is a result too
            reason = f"{type(error).__name__}: {error}"
            found[name] = {"not measured": reason[:300]}
            continue

        def run_whole(read: Callable[..., Any] = read_whole) -> None:
            read(whole)
            send(data.nbytes)

        n = len(batch) if name == "tensorstore" else max(1, len(batch) // 16)

        def run_patches(read: Callable[..., Any] = read_patches, n: int = n) -> None:
            read(batch[:n])
            send(batch[:n].nbytes)

        run_whole()
        np.testing.assert_array_equal(whole, data)
        found[name] = {
            "whole read + copy": rate(clock.on_wall(run_whole, 3), data.nbytes),
            f"{n} patches + copy": rate(clock.on_wall(run_patches, 3), batch[:n].nbytes),
        }
    return found


def _tensorstore(case: Case) -> tuple[Callable[..., Any], Callable[..., Any]]:
    import tensorstore

    spec = {"driver": "zarr3", "kvstore": f"file://{case.path}/"}
    cores = {"data_copy_concurrency": {"limit": available_cores()}}
    array = tensorstore.open(spec, read=True, context=tensorstore.Context(cores)).result()

    def whole(out: np.ndarray) -> None:
        tensorstore.array(out).write(array).result()

    def patches(out: np.ndarray) -> None:
        with tensorstore.Batch() as batch:
            futures = [array[box].read(batch=batch) for box in case.boxes()[: len(out)]]
        for row, future in enumerate(futures):
            out[row] = future.result()

    return whole, patches


def _zarr_python(case: Case) -> tuple[Callable[..., Any], Callable[..., Any]]:
    import zarr

    array = zarr.open_array(case.path, mode="r")

    def whole(out: np.ndarray) -> None:
        out[...] = array[...]

    def patches(out: np.ndarray) -> None:
        for row, box in enumerate(case.boxes()[: len(out)]):
            out[row] = array[box]

    return whole, patches


def inputs(*, rehearse: bool) -> dict[str, tuple[np.ndarray, dict[str, Any]]]:
    """Name -> data, and the shapes of its chunks, shards and patches."""
    from zarrgpu.demo.texture import tissue_image

    image = tissue_image(512 if rehearse else 4096, seed=7)
    if rehearse:
        image, side, n = image[:128, :128], 32, 8
    else:
        wide = np.concatenate([image, image[:, ::-1]], axis=1)
        image, side, n = np.concatenate([wide, wide[::-1]]), 256, 1024
    shape = (32, 32, 32) if rehearse else (512, 512, 512)
    axes = np.meshgrid(*(np.linspace(0, 12, s) for s in shape), indexing="ij", sparse=True)
    smooth = 400 + 150 * np.sin(axes[0]) * np.cos(1.3 * axes[1]) + 120 * np.sin(0.7 * axes[2])
    volume = np.random.default_rng(7).poisson(smooth).astype(np.uint16)
    cube = 16 if rehearse else 64
    image_shapes = {
        "chunks": (side, side, 3),
        "shards": (4 * side, 4 * side, 3),
        "patch": (side, side, 3),
        "n_patches": n,
    }
    volume_shapes = {
        "chunks": (cube,) * 3,
        "shards": (2 * cube,) * 3,
        "patch": (3 * cube // 2,) * 3,
        "n_patches": n // 8,
    }
    return {
        "tissue image": (np.ascontiguousarray(image), image_shapes),
        "volume": (volume, volume_shapes),
    }


def main() -> None:
    """Measure, and write the file after each case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("--seconds", type=float, default=200, help="start no case after this long")
    args = parser.parse_args()
    began = time.monotonic()
    device = open_device("emulated" if args.rehearse else "cuda")
    clock = Clock(device, 2 if args.rehearse else 9)
    options = ReadOptions(memory_budget_bytes=(1 if args.rehearse else 8) << 30)
    document: dict[str, Any] = {
        "what": __doc__.splitlines()[0],
        "rehearsal": args.rehearse,
        "machine": machine.describe(device),
        "cache": "warm page cache; every case read once before it is timed",
        "memory_budget_bytes": options.memory_budget_bytes,
        "ceilings": ceilings(device, clock, 1 << (20 if args.rehearse else 30)),
        "kernels alone": kernel_rates(
            device,
            clock.on_device,
            rate,
            n=2 if args.rehearse else 512,
            nbytes=1 << (13 if args.rehearse else 19),
        ),
        "cases": [],
        "not measured": [],
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="zarrgpu-gpu-bench-"))
    made = inputs(rehearse=args.rehearse)
    for codec, chain in CODECS.items():
        for what, (data, shapes) in made.items():
            if time.monotonic() - began > args.seconds:
                document["not measured"].append(f"{what}, {codec}: no time left")
                continue
            case = Case(folder / "array.zarr", data, chain, shapes)
            result: dict[str, Any] = {
                "data": what, "shape": data.shape, "dtype": str(data.dtype), "codec": codec,
                **shapes,
                "compression_ratio": round(data.nbytes / case.stored_nbytes, 3),
                "zarrgpu": measure_ours(case, device, clock, options),
            }  # fmt: skip
            result["peers"] = measure_peers(case, device, clock)
            document["cases"].append(result)
            args.out.write_text(json.dumps(document, indent=1) + "\n")
            ours = result["zarrgpu"]
            print(
                f"{what:13}{codec:23}decode {ours['decode stage']['GB_per_s']:9.2f} GB/s, "
                f"whole {ours['whole read, page cache']['GB_per_s']:8.2f}, "
                f"patches {ours['patches, page cache']['GB_per_s']:8.2f}",
                file=sys.stderr,
            )
            shutil.rmtree(folder)
    args.out.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
