"""Zarr reads on the CPU against TensorStore, zarrs and zarr-python, warm page cache.

A 4096 x 4096 x 3 uint8 image of tissue texture (256-px chunks) and a 512^3 uint16 volume (64^3
chunks); zstd, Blosc-LZ4-shuffle, Blosc-zstd-bitshuffle, gzip and none; one object per chunk, and
shards. Modes: a full read; many random patches in one call; patches that are chunks; the same
random patches as 32 calls, plain and through a chunk cache; and through `PatchLoader`, which plans
a window of batches together. Peers get their best setting: TensorStore's ``Batch``, its plain
futures and its chunk cache; caches are made anew, so start cold, in every run, ours too. "codec
alone" decodes every chunk from memory on all cores, "result alone" fills the result with zeros:
their sum is what no reader can beat with these libraries, and ``share_of_floor`` how near to it
a read comes. "into out" is a full read into memory that was used before.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
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
from zarrgpu.codecs.run import decode_chunk
from zarrgpu.decode import encoded_bytes, read_keys
from zarrgpu.demo.texture import tissue_image
from zarrgpu.devices.host import run_threads, scratch
from zarrgpu.fetch import fetch_read
from zarrgpu.loader import PatchLoader
from zarrgpu.model import ReadOptions
from zarrgpu.reader import plan_read
from zarrgpu.recycled import aligned_empty
from zarrgpu.sampling import PatchTable
from zarrgpu.slide import Slide
from zarrgpu.slide_model import SlideSpec

CALLS = 32
CACHE_NBYTES = 1 << 30


def make_image() -> np.ndarray:
    """Tissue on glass, with sensor noise."""
    return tissue_image(4096, seed=7)


def make_volume() -> np.ndarray:
    """Smooth structure with shot noise."""
    random = np.random.default_rng(7)
    axis = np.linspace(0, 24, 512)
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


class FixedPatches:
    """Sampler of given places, so that all readers read the same patches."""

    levels = (0,)

    def __init__(self, slide: Slide, locations: np.ndarray, patch: tuple[int, ...]) -> None:
        self.slides = (slide,)
        self.size = (patch[1], patch[0])
        self._table = PatchTable(np.zeros(len(locations), np.int32), locations.copy())

    def __len__(self) -> int:
        return len(self._table)

    def epoch_patches(self, epoch: int) -> PatchTable:
        """All patches, in order."""
        del epoch
        return self._table


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
        grid = [np.arange(s // c) * c for s, c in zip(data.shape, chunks, strict=True)]
        corners = np.stack(np.meshgrid(*grid, indexing="ij"), axis=-1).reshape(-1, data.ndim)
        self.aligned = corners[random.permutation(len(corners))[:256]]
        self.out = np.empty((n, *patch), data.dtype)
        self.aligned_out = np.empty((len(self.aligned), *chunks), data.dtype)
        self.full_out = aligned_empty(data.shape, data.dtype)
        self.full_out[...] = 0
        self.ours = zarrgpu.open(path)
        self.theirs = self._tensorstore()
        self.has_zarrs = importlib.util.find_spec("zarrs") is not None
        if self.has_zarrs:
            with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
                self.zarrs = zarr.open_array(path, mode="r")

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
            futures = [
                self.theirs[box].read(batch=batch)
                for box in self._boxes(self.starts[rows], self.patch)
            ]
        self._collect(futures, rows)

    def futures(self, rows: slice) -> None:
        """Read patches with TensorStore's futures."""
        self._collect(
            [self.theirs[box].read() for box in self._boxes(self.starts[rows], self.patch)], rows
        )

    def cached(self, groups: list[slice]) -> None:
        """Read patches with TensorStore and a chunk cache that starts cold."""
        array = self._tensorstore(cache_pool={"total_bytes_limit": CACHE_NBYTES})
        for rows in groups:
            self._collect(
                [array[box].read() for box in self._boxes(self.starts[rows], self.patch)], rows
            )

    def our_cache(self, groups: list[slice]) -> None:
        """Read patches with zarrgpu and a chunk cache that starts cold."""
        array = zarrgpu.open(self.path, cache=CACHE_NBYTES)
        for rows in groups:
            array.read_patches(self.starts[rows], self.patch, device="cpu", out=self.out[rows])

    def make_loader(self, batch_size: int) -> PatchLoader:
        """`PatchLoader` of the same patches, windows within 1 GiB."""
        array = zarrgpu.open(self.path)
        spec = SlideSpec(
            source=str(self.path),
            vendor="zarr",
            levels=(array.source.spec,),
            axes=("y", "x", "c"),
            mpp=(None, None),
            properties={},
            associated={},
        )
        patches = FixedPatches(Slide(spec, (array,), {}), self.starts[:, 1::-1], self.patch)
        return PatchLoader(patches, batch_size=batch_size, layout="NHWC", device="cpu")

    def our_aligned(self) -> None:
        """Read whole chunks as patches with zarrgpu."""
        self.ours.read_patches(self.aligned, self.chunks, device="cpu", out=self.aligned_out)

    def their_aligned(self) -> None:
        """Read whole chunks as patches with TensorStore's Batch."""
        with ts.Batch() as batch:
            boxes = self._boxes(self.aligned, self.chunks)
            futures = [self.theirs[box].read(batch=batch) for box in boxes]
        for i, future in enumerate(futures):
            self.aligned_out[i] = future.result()

    def one_by_one(self, array: Any, rows: slice) -> None:
        """Read patches through zarr-python, one by one: it has no call for many."""
        for i, box in enumerate(self._boxes(self.starts[rows], self.patch)):
            self.out[i] = array[box]

    def encoded(self) -> list[np.ndarray]:
        """Every chunk as it is stored."""
        request = self.ours.plan(..., device="cpu").plan.request
        plan = plan_read([self.ours.source], request, options=ReadOptions())
        chunks = []
        for read, key in enumerate(read_keys(plan)):
            data = fetch_read(plan, (self.ours.source,), read, lambda n: np.empty(n, np.uint8), key)
            rows = range(*plan.reads.chunk_start[read : read + 2].tolist())
            chunks += [encoded_bytes(plan, row, data) for row in rows]
        return chunks

    def codec_alone(self, chunks: list[np.ndarray]) -> None:
        """Decode chunks from memory on all cores."""
        chain = self.ours.source.chain

        def decode(encoded: np.ndarray) -> None:
            decode_chunk(chain, encoded, scratch("decoded", chain.decoded_nbytes))

        run_threads(decode, chunks, len(os.sched_getaffinity(0)))

    def result_alone(self, result: np.ndarray) -> None:
        """Fill a result with zeros on all cores, chunk-sized runs at a time."""
        flat, step = result.reshape(-1), math.prod(self.chunks)
        runs = [flat[at : at + step] for at in range(0, flat.size, step)]
        run_threads(lambda run: run.fill(0), runs, len(os.sched_getaffinity(0)))

    def _boxes(self, starts: np.ndarray, shape: tuple[int, ...]) -> list[tuple[slice, ...]]:
        return [
            tuple(slice(s, s + p) for s, p in zip(start, shape, strict=True))
            for start in starts.tolist()
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
    chunks = case.encoded()
    python = zarr.open_array(case.path, mode="r")
    full_peers = {"tensorstore": lambda: case.theirs.read().result()}
    few_peers = {"zarr-python": lambda: case.one_by_one(python, few)}
    full_peers["zarr-python"] = lambda: python[...]
    if case.has_zarrs:
        full_peers["zarrs"] = lambda: case.zarrs[...]
        few_peers["zarrs"] = lambda: case.one_by_one(case.zarrs, few)
    apart = {
        "tensorstore batch": lambda: [case.batch(rows) for rows in calls],
        "tensorstore cache": lambda: case.cached(calls),
    }
    modes: dict[str, dict[str, Any]] = {
        "full read": {"zarrgpu": partial(case.ours.read, device="cpu"), **full_peers},
        f"{n} patches in one call": {
            "zarrgpu": lambda: case.patches(every),
            "tensorstore batch": lambda: case.batch(every),
            "tensorstore futures": lambda: case.futures(every),
            "tensorstore cache": lambda: case.cached([every]),
        },
        f"{len(case.aligned)} patches that are chunks": {
            "zarrgpu": case.our_aligned,
            "tensorstore batch": case.their_aligned,
        },
        f"{n} patches in {CALLS} calls, cached": {
            "zarrgpu": lambda: case.our_cache(calls),
            **apart,
        },
        f"{n} patches in {CALLS} calls": {
            "zarrgpu": lambda: [case.patches(rows) for rows in calls],
            "tensorstore batch": apart["tensorstore batch"],
        },
        f"{few.stop} patches, one by one": {"zarrgpu": lambda: case.patches(few), **few_peers},
    }
    if case.data.ndim == 3 and case.data.shape[2] == 3:
        loader = case.make_loader(n // CALLS)
        modes[f"{n} patches through PatchLoader"] = {
            "zarrgpu": lambda: sum(len(batch.images) for batch in loader),
            **apart,
        }
    results: dict[str, Any] = {}
    for mode, candidates in modes.items():
        timed = harness.measure(candidates, repeats=repeats)
        results[mode] = {**timed, "ratio_to_best_peer": harness.ratio_to_best_peer(timed)}
    add_floors(case, chunks, results, repeats)
    # one window of all batches is one plan: what `PatchLoader` does with them, of any axes
    one, many = f"{n} patches in one call", f"{n} patches in {CALLS} calls, cached"
    peers = [v["median_ms"] for k, v in results[many].items() if k.startswith("tensorstore")]
    results["window of 32 batches"] = {
        "zarrgpu": results[one]["zarrgpu"],
        "ratio_to_best_peer": round(min(peers) / results[one]["zarrgpu"]["median_ms"], 2),
    }
    return results


def add_floors(case: Case, chunks: list[np.ndarray], results: dict[str, Any], repeats: int) -> None:
    """What codec and memory alone take, and how near to it reads come that decode all once."""
    alone = harness.measure(
        {
            "codec alone": lambda: case.codec_alone(chunks),
            "array alone": lambda: case.result_alone(case.full_out),
            "patches alone": lambda: case.result_alone(case.out),
            "into out": lambda: case.ours.read(device="cpu", out=case.full_out),
        },
        repeats=repeats,
    )
    times = {name: value["median_ms"] for name, value in alone.items()}
    full = results["full read"]
    full |= {name: alone[name] for name in ("codec alone", "into out")}
    full["result alone"] = alone["array alone"]
    full["codec_alone_to_into_out"] = round(times["codec alone"] / times["into out"], 2)
    floor = times["codec alone"] + times["array alone"]
    full["share_of_floor"] = round(floor / times["into out"], 2)
    for mode, timed in results.items():
        if mode.endswith(("in one call", "through PatchLoader")):
            timed["result alone"] = alone["patches alone"]
            floor = times["codec alone"] + times["patches alone"]
            timed["share_of_floor"] = round(floor / timed["zarrgpu"]["median_ms"], 2)


INPUTS: dict[str, tuple[Any, ...]] = {
    "image": (make_image, (256, 256, 3), (1024, 1024, 3), (256, 256, 3), 1024),
    "volume": (make_volume, (64, 64, 64), (256, 256, 256), (96, 96, 96), 256),
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
    ratios = {
        mode: (value["ratio_to_best_peer"], value.get("share_of_floor"))
        for mode, value in timed.items()
    }
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
