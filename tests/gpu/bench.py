"""Reads onto a GPU against what the hardware, nvCOMP alone and other readers do.

usage: python -m tests.gpu.bench OUT.json [--part NAME ...] [--rehearse] [--seconds N]

Parts: ``zarr`` (the main cases, with peers), ``slides``, ``sweep`` (all codecs and chunk sizes,
without peers), ``kernels``. Each adds to the file what it measures, and writes it anew after every
case, so that a run that is cut off leaves what it measured. Throughput counts decoded bytes in the
stored type. With --rehearse everything runs on the emulated device with tiny data, and the file
says so: its numbers mean nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.gpu import bench_slides, bench_zarr, machine, peers, stored
from tests.gpu.devices import open_device
from tests.gpu.kernel_rates import kernel_rates
from tests.gpu.stored import CODECS, CUBES, Case
from tests.gpu.timing import Clock, ceilings, rate
from zarrgpu.devices.cuda import CudaDevice
from zarrgpu.model import ReadOptions

Job = tuple[str, Callable[[], dict[str, Any]]]

PARTS = ("zarr", "slides", "sweep", "kernels")
MAIN = ("zstd", "blosc-lz4-shuffle, v2", "blosc-zstd-bitshuffle")


class Bench:
    """A device, its ceilings, and what all cases share."""

    def __init__(self, *, rehearse: bool, folder: Path) -> None:
        self.rehearse, self.folder = rehearse, folder
        self.device: CudaDevice = open_device("emulated" if rehearse else "cuda")
        self.clock = Clock(self.device, 1 if rehearse else 9)
        self.options = ReadOptions(memory_budget_bytes=(1 if rehearse else 8) << 30)
        self.ceilings = ceilings(self.device, self.clock, 1 << (20 if rehearse else 30))

    def facts(self) -> dict[str, Any]:
        """What the file says about all of its cases."""
        return {
            "what": __doc__.splitlines()[0],
            "rehearsal": self.rehearse,
            "machine": machine.describe(self.device),
            "cache": "warm page cache; every case read once before it is timed",
            "memory_budget_bytes": self.options.memory_budget_bytes,
            "ceilings": self.ceilings,
        }

    def case(self, what: str, codec: str, size: str, *, with_peers: bool) -> dict[str, Any]:
        """One array: ours and, if asked for, the peers."""
        if what == "tissue image":
            data = stored.tissue(rehearse=self.rehearse)
            geometry = stored.image_geometry(rehearse=self.rehearse)
        else:
            data = stored.volume(rehearse=self.rehearse)
            geometry = stored.volume_geometry(size, rehearse=self.rehearse)
        case = Case(self.folder, data, codec, geometry)
        try:
            found: dict[str, Any] = {"data": what, "chunk": size, **case.facts()}
            found["zarrgpu"] = bench_zarr.measure(
                case, self.device, self.clock, self.options, self.ceilings, brief=not with_peers
            )
            if with_peers:
                found["peers"] = peers.measure(case, self.device, self.clock)
            return found
        finally:
            case.remove()
            if (
                not self.rehearse
            ):  # each case has had streams of its own, with memory in their pools
                import cupy

                cupy.get_default_memory_pool().free_all_blocks()

    def jobs(self, part: str) -> Iterator[Job]:
        """Names and calls of a part, what matters most first."""
        if part == "slides":
            yield from bench_slides.jobs(
                self.device, self.clock, self.options, self.folder, rehearse=self.rehearse
            )
        elif part == "kernels":
            yield "kernels alone", self.kernels
        else:
            for what, codec, size in cases(part, rehearse=self.rehearse):

                def run(what: str = what, codec: str = codec, size: str = size) -> dict[str, Any]:
                    return self.case(what, codec, size, with_peers=part == "zarr")

                yield f"{what}, {codec}, {size}", run

    def kernels(self) -> dict[str, Any]:
        """Each kernel alone."""
        n, nbytes = (2, 1 << 12) if self.rehearse else (512, 1 << 19)
        return kernel_rates(self.device, self.clock.on_device, rate, n=n, nbytes=nbytes)


def cases(part: str, *, rehearse: bool) -> Iterator[tuple[str, str, str]]:
    """Data, codec and chunk size of each case."""
    if part == "zarr":
        for codec in MAIN:
            yield "tissue image", codec, "192 KiB"
            yield "volume", codec, "512 KiB"
        return
    for codec in CODECS:  # one size of each before the others
        yield "volume", codec, "512 KiB"
    for codec in () if rehearse else CODECS:
        for size in CUBES:
            if size != "512 KiB":
                yield "volume", codec, size


def line(name: str, found: dict[str, Any]) -> str:
    """Say the case in one line."""
    ours = found.get("zarrgpu", {})
    shown = (
        ("decode", ours.get("decode stage")), ("pinned", ours.get("from pinned memory")),
        ("whole", ours.get("whole read, page cache")),
        ("patches", ours.get("patches, page cache")),
    )  # fmt: skip
    rates = [f"{what} {timed['GB_per_s']:8.2f}" for what, timed in shown if timed]
    return f"{name:48}{', '.join(rates)} GB/s" if rates else f"{name}: measured"


def load(path: Path) -> dict[str, Any]:
    """What earlier parts wrote."""
    return dict(json.loads(path.read_text())) if path.exists() else {}


def attempt(name: str, run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Run a case; one that fails is told, and the others are measured all the same."""
    try:
        found = run()
    except Exception as error:
        traceback.print_exc()
        return {"failed": f"{type(error).__name__}: {error}"[:500]}
    print(line(name, found), file=sys.stderr)
    return found


def main() -> int:
    """Measure, and write the file after each case; 1 if a case failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("--seconds", type=float, default=200, help="start no case after this long")
    args = parser.parse_args()
    began = time.monotonic()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    document = load(args.out)
    broken = 0
    with tempfile.TemporaryDirectory(prefix="zarrgpu-gpu-bench-") as folder:
        bench = Bench(rehearse=args.rehearse, folder=Path(folder))
        document = bench.facts() | document
        for part in args.part:
            results = document.setdefault("parts", {}).setdefault(part, {})
            for name, run in bench.jobs(part):
                if time.monotonic() - began > args.seconds:
                    results[name] = {"not measured": "no time left"}
                else:
                    results[name] = attempt(name, run)
                    broken += "failed" in results[name]
                args.out.write_text(json.dumps(document, indent=1) + "\n")
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
