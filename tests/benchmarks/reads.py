"""Zarr reads on the CPU against TensorStore and zarr-python, warm page cache.

A 4096 x 4096 x 3 uint8 image of tissue texture (256-px chunks) and a 256^3 uint16 volume (64^3
chunks); zstd, Blosc-LZ4-shuffle, Blosc-zstd-bitshuffle, gzip and none; one object per chunk, and
shards. Modes: a full read; many random patches in one call; the same patches as 32 calls, and
through a window of 32 batches as `PatchLoader` plans them. Peers get their best setting:
TensorStore's ``Batch``, its plain futures and its chunk cache (reopened, so cold, in every run).
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts
import zarr
from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec

import zarrgpu
from tests.benchmarks import harness
from zarrgpu.demo.texture import tissue_image

CALLS = 32
CACHE_NBYTES = 1 << 30


def make_image() -> np.ndarray:
    """Tissue on glass, with sensor noise."""
    return tissue_image(4096, seed=7)


def make_volume() -> np.ndarray:
    """Smooth structure with shot noise."""
    random = np.random.default_rng(7)
    axis = np.linspace(0, 12, 256)
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij", sparse=True)
    smooth = 400 + 150 * np.sin(z) * np.cos(1.3 * y) + 120 * np.sin(0.7 * x + y)
    return random.poisson(smooth).astype(np.uint16)


def compressors(typesize: int) -> dict[str, Any]:
    """Codecs to compare."""
    return {
        "zstd-3": ZstdCodec(level=3),
        "blosc-lz4-shuffle": BloscCodec(
            cname="lz4", clevel=5, shuffle="shuffle", typesize=typesize
        ),
        "blosc-zstd-bitshuffle": BloscCodec(
            cname="zstd", clevel=3, shuffle="bitshuffle", typesize=typesize
        ),
        "gzip-5": GzipCodec(level=5),
        "none": None,
    }


class Case:
    """One array on disk and the reads that are timed on it."""

    def __init__(
        self, path: Path, data: np.ndarray, chunks: tuple[int, ...], patch: tuple[int, ...], n: int
    ) -> None:
        self.path, self.data, self.chunks, self.patch = path, data, chunks, patch
        random = np.random.default_rng(1)
        self.starts = np.stack(
            [random.integers(0, s - p + 1, n) for s, p in zip(data.shape, patch, strict=True)],
            axis=1,
        )
        self.out = np.empty((n, *patch), data.dtype)
        self.ours = zarrgpu.open(path)
        self.theirs = self._tensorstore()

    def _tensorstore(self, **context: Any) -> Any:
        spec = {"driver": "zarr3", "kvstore": f"file://{self.path}/"}
        return ts.open(spec, read=True, context=ts.Context(context)).result()

    def check(self) -> None:
        """All readers give the same elements."""
        self.patches(slice(None))
        ours = self.out.copy()
        self.batch(slice(None))
        np.testing.assert_array_equal(ours, self.out)
        np.testing.assert_array_equal(self.ours.read(device="cpu"), self.data)

    def patches(self, rows: slice) -> None:
        """Read patches with zarrgpu, in one plan."""
        self.ours.read_patches(self.starts[rows], self.patch, device="cpu", out=self.out[rows])

    def batch(self, rows: slice) -> None:
        """Read patches with TensorStore's Batch."""
        with ts.Batch() as batch:
            futures = [self.theirs[box].read(batch=batch) for box in self._boxes(rows)]
        self._collect(futures, rows)

    def futures(self, rows: slice) -> None:
        """Read patches with TensorStore's futures."""
        self._collect([self.theirs[box].read() for box in self._boxes(rows)], rows)

    def cached(self, groups: list[slice]) -> None:
        """Read patches with TensorStore and a chunk cache that starts cold."""
        array = self._tensorstore(cache_pool={"total_bytes_limit": CACHE_NBYTES})
        for rows in groups:
            self._collect([array[box].read() for box in self._boxes(rows)], rows)

    def zarr_python(self, rows: slice) -> None:
        """Read patches with zarr-python, one by one: it has no call for many."""
        array = zarr.open_array(self.path, mode="r")
        for i, box in enumerate(self._boxes(rows)):
            self.out[i] = array[box]

    def _boxes(self, rows: slice) -> list[tuple[slice, ...]]:
        return [
            tuple(slice(s, s + p) for s, p in zip(start, self.patch, strict=True))
            for start in self.starts[rows].tolist()
        ]

    def _collect(self, futures: list[Any], rows: slice) -> None:
        out = self.out[rows]
        for i, future in enumerate(futures):
            out[i] = future.result()


def run_case(case: Case, repeats: int) -> dict[str, Any]:
    """Time all modes on one array."""
    n = len(case.starts)
    every = slice(0, n)
    calls = [slice(i, i + n // CALLS) for i in range(0, n, n // CALLS)]
    few = slice(0, max(1, n // 32))
    modes = {
        "full read": {
            "zarrgpu": partial(case.ours.read, device="cpu"),
            "tensorstore": lambda: case.theirs.read().result(),
        },
        f"{n} patches in one call": {
            "zarrgpu": lambda: case.patches(every),
            "tensorstore batch": lambda: case.batch(every),
            "tensorstore futures": lambda: case.futures(every),
            "tensorstore cache": lambda: case.cached([every]),
        },
        f"{n} patches in {CALLS} calls": {
            "zarrgpu": lambda: [case.patches(rows) for rows in calls],
            "tensorstore batch": lambda: [case.batch(rows) for rows in calls],
            "tensorstore cache": lambda: case.cached(calls),
        },
        f"{few.stop} patches, zarr-python one by one": {
            "zarrgpu": lambda: case.patches(few),
            "zarr-python": lambda: case.zarr_python(few),
        },
    }
    results: dict[str, Any] = {}
    for mode, candidates in modes.items():
        timed = harness.measure(candidates, repeats=repeats)
        results[mode] = {**timed, "ratio_to_best_peer": harness.ratio_to_best_peer(timed)}
    # one window of 32 batches is one plan: what PatchLoader does with the 32 calls above
    one, many = f"{n} patches in one call", f"{n} patches in {CALLS} calls"
    peers = [v["median_ms"] for k, v in results[many].items() if k.startswith("tensorstore")]
    results["window of 32 batches"] = {
        "zarrgpu": results[one]["zarrgpu"],
        "ratio_to_best_peer": round(min(peers) / results[one]["zarrgpu"]["median_ms"], 2),
    }
    return results


INPUTS: dict[str, tuple[Any, ...]] = {
    "image": (make_image, (256, 256, 3), (1024, 1024, 3), (256, 256, 3), 1024),
    "volume": (make_volume, (64, 64, 64), (256, 128, 128), (96, 96, 96), 128),
}
"""Data, chunk, shard and patch shape, number of patches."""


def main() -> None:
    """Measure and write docs/benchmarks/reads.json, anew after each array."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--data", nargs="+", choices=INPUTS, default=list(INPUTS))
    parser.add_argument("--codecs", nargs="+", choices=compressors(1), default=list(compressors(1)))
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="zarrgpu-bench-"))
    results: list[dict[str, Any]] = []
    try:
        for what in args.data:
            make, *geometry = INPUTS[what]
            data = make()
            for name in args.codecs:
                for sharded in (False, True):
                    path = folder / f"{what}-{name}-{sharded}.zarr"
                    facts = {"data": what, "codec": name, "sharded": sharded}
                    results.append(
                        {**facts, **run_array(path, data, facts, *geometry, args.repeats)}
                    )
                    shutil.rmtree(path)
                    harness.write(
                        "reads",
                        {
                            "what": "Zarr v3 reads on the CPU, warm page cache",
                            "threads": len(os.sched_getaffinity(0)),
                            "results": results,
                        },
                    )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run_array(
    path: Path,
    data: np.ndarray,
    facts: dict[str, Any],
    chunks: tuple[int, ...],
    shards: tuple[int, ...],
    patch: tuple[int, ...],
    n: int,
    repeats: int,
) -> dict[str, Any]:
    """Write one array, read it in all modes."""
    codec = compressors(data.dtype.itemsize)[facts["codec"]]
    array = zarr.create_array(
        path,
        shape=data.shape,
        dtype=data.dtype,
        chunks=chunks,
        shards=shards if facts["sharded"] else None,
        compressors=None if codec is None else [codec],
    )
    array[...] = data
    stored = sum(f.stat().st_size for f in path.rglob("*") if f.is_file())
    case = Case(path, data, chunks, patch, n)
    case.check()
    timed = run_case(case, repeats)
    ratios = {mode: value["ratio_to_best_peer"] for mode, value in timed.items()}
    print(*facts.values(), ratios, flush=True)
    return {
        "shape": data.shape,
        "dtype": str(data.dtype),
        "chunks": chunks,
        "compression_ratio": round(data.nbytes / stored, 2),
        "modes": timed,
    }


if __name__ == "__main__":
    main()
