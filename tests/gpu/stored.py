"""Arrays for the benchmarks on a device: realistic data, codecs, chunk sizes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import zarrgpu
from tests import zarr_cases
from tests.zarr_cases import Codec, MemoryStore, Recipe, chunk_key
from zarrgpu.devices.host import available_cores
from zarrgpu.sampling import PatchTable
from zarrgpu.slide import Slide
from zarrgpu.slide_model import SlideSpec

_BLOSC = {"clevel": 5, "blocksize": 0}

CODECS: dict[str, tuple[int, tuple[Codec, ...]]] = {
    "zstd": (3, (("zstd", {"level": 3, "checksum": False}),)),
    "blosc-lz4-shuffle, v2": (2, (("blosc", {"cname": "lz4", "shuffle": "shuffle", **_BLOSC}),)),
    "blosc-zstd-bitshuffle": (
        3, (("blosc", {"cname": "zstd", "shuffle": "bitshuffle", **_BLOSC, "clevel": 3}),),
    ),
    "lz4": (3, (("numcodecs.lz4", {"acceleration": 1}),)),
    "blosc-zstd-shuffle, v2": (
        2, (("blosc", {"cname": "zstd", "shuffle": "shuffle", **_BLOSC, "clevel": 3}),),
    ),
    "none": (3, ()),
    "gzip": (3, (("gzip", {"level": 5}),)),
    "blosc-lz4-shuffle": (3, (("blosc", {"cname": "lz4", "shuffle": "shuffle", **_BLOSC}),)),
    "zstd+crc32c": (3, (("zstd", {"level": 3, "checksum": False}), ("crc32c", {}))),
    "zstd+checksum": (3, (("zstd", {"level": 3, "checksum": True}),)),
    "blosc-blosclz-shuffle": (
        3, (("blosc", {"cname": "blosclz", "shuffle": "shuffle", **_BLOSC}),),
    ),
    "shuffle+zlib+fletcher32": (
        3, (
            ("numcodecs.shuffle", {"elementsize": 2}), ("numcodecs.zlib", {"level": 1}),
            ("numcodecs.fletcher32", {}),
        ),
    ),
}  # fmt: skip
"""Name -> Zarr format and chain, in the order in which they are measured; v3 ones in shards."""

WITHOUT_LIBRARY = ("none", "blosc-blosclz-shuffle")
"""Codecs of which nvCOMP decodes nothing."""

CUBES = {
    "32 KiB": (16, 32, 32), "128 KiB": (32, 32, 64), "512 KiB": (64, 64, 64),
    "1 MiB": (64, 64, 128), "4 MiB": (128, 128, 128),
}  # fmt: skip
"""Chunk shapes of the uint16 volume by the size of a decoded chunk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """Chunks, shards and patches of an array."""

    chunks: tuple[int, ...]
    patch: tuple[int, ...]
    n_patches: int

    def shards(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Of up to 4 chunks along each axis that has as many."""
        pairs = zip(shape, self.chunks, strict=True)
        return tuple(c * max(1, min(4, n // c)) for n, c in pairs)


@cache
def tissue(*, rehearse: bool) -> np.ndarray:
    """A uint8 image (y, x, 3) of tissue texture with sensor noise."""
    from zarrgpu.demo.texture import tissue_image

    if rehearse:
        return np.ascontiguousarray(tissue_image(512, seed=7)[:64, :64])
    image = tissue_image(4096, seed=7)
    wide = np.concatenate([image, image[:, ::-1]], axis=1)
    return np.concatenate([wide, wide[::-1]])


@cache
def volume(*, rehearse: bool) -> np.ndarray:
    """A uint16 volume (z, y, x): smooth structure with shot noise."""
    side = 16 if rehearse else 512
    axes = np.meshgrid(*(np.linspace(0, 12, side) for _ in range(3)), indexing="ij", sparse=True)
    smooth = 400 + 150 * np.sin(axes[0]) * np.cos(1.3 * axes[1]) + 120 * np.sin(0.7 * axes[2])
    if rehearse:
        return np.random.default_rng(7).poisson(smooth).astype(np.uint16)
    generators = np.random.SeedSequence(7).spawn(16)
    parts = np.array_split(np.arange(side), 16)

    def slab(i: int) -> np.ndarray:
        return np.random.default_rng(generators[i]).poisson(smooth[parts[i]]).astype(np.uint16)

    with ThreadPoolExecutor(available_cores()) as pool:
        return np.concatenate(list(pool.map(slab, range(16))))


def image_geometry(*, rehearse: bool) -> Geometry:
    side = 32 if rehearse else 256
    return Geometry(
        chunks=(side, side, 3), patch=(side, side, 3), n_patches=8 if rehearse else 1024
    )


def volume_geometry(size: str, *, rehearse: bool) -> Geometry:
    chunks = CUBES[size]
    if rehearse:
        chunks = tuple(c // 8 for c in chunks)
    patch = (6,) * 3 if rehearse else (96,) * 3
    return Geometry(chunks=chunks, patch=patch, n_patches=4 if rehearse else 128)


def encode(data: np.ndarray, recipe: Recipe) -> dict[str, bytes]:
    """What `zarr_cases.encode` gives for little-endian data, by all cores."""
    coords = list(zarr_cases.all_coords(data.shape, recipe.chunks))
    with ThreadPoolExecutor(available_cores()) as pool:
        encoded = pool.map(lambda at: zarr_cases.encode_chunk(data, at, recipe), coords)
        chunks = dict(zip(coords, encoded, strict=True))
    stored = chunks if recipe.shards is None else zarr_cases._shards(data, chunks, recipe)
    name = "zarr.json" if recipe.zarr_format == 3 else ".zarray"
    document = json.dumps(zarr_cases.metadata(data, recipe)).encode()
    return {name: document, **{chunk_key(at, recipe): value for at, value in stored.items()}}


class Case:
    """One array on disk and in memory, and patches of it."""

    def __init__(self, folder: Path, data: np.ndarray, codec: str, geometry: Geometry) -> None:
        self.zarr_format, chain = CODECS[codec]
        recipe = Recipe(chunks=geometry.chunks, codecs=chain, zarr_format=self.zarr_format)
        if self.zarr_format == 3:
            recipe = replace(recipe, shards=geometry.shards(data.shape))
        self.recipe, self.codec, self.data = recipe, codec, data
        objects = encode(data, recipe)
        self.chunk_nbytes = int(np.prod(recipe.chunks)) * data.dtype.itemsize
        self.stored_nbytes = sum(len(value) for value in objects.values())
        self.path = zarr_cases.write(folder / "array.zarr", objects)
        self.memory = zarrgpu.open(MemoryStore(objects))
        self.array = zarrgpu.open(self.path)
        self.patch, n = geometry.patch, geometry.n_patches
        random = np.random.default_rng(1)
        places = zip(data.shape, self.patch, strict=True)
        self.starts = np.stack([random.integers(0, s - p + 1, n) for s, p in places], 1)
        self.patches_nbytes = n * int(np.prod(self.patch)) * data.dtype.itemsize

    def boxes(self) -> Iterator[tuple[slice, ...]]:
        """Where the patches are."""
        for start in self.starts.tolist():
            yield tuple(slice(s, s + p) for s, p in zip(start, self.patch, strict=True))

    def facts(self) -> dict[str, Any]:
        """What the case is, for the JSON."""
        return {
            "codec": self.codec, "zarr_format": self.zarr_format, "shape": self.data.shape,
            "dtype": str(self.data.dtype), "chunks": self.recipe.chunks,
            "shards": self.recipe.shards, "chunk_nbytes": self.chunk_nbytes,
            "patch": self.patch, "n_patches": len(self.starts),
            "compression_ratio": round(self.data.nbytes / self.stored_nbytes, 3),
        }  # fmt: skip

    def sampler(self) -> FixedPatches:
        """The patches, for a loader; the array must have axes (y, x, c)."""
        spec = SlideSpec(
            source=str(self.path), vendor="zarr", levels=(self.array.source.spec,),
            axes=("y", "x", "c"), mpp=(None, None), properties={}, associated={},
        )  # fmt: skip
        return FixedPatches(Slide(spec, (self.array,), {}), self.starts[:, 1::-1], self.patch)

    def remove(self) -> None:
        """Delete the files."""
        shutil.rmtree(self.path)


class FixedPatches:
    """Sampler of given places, so that all readers read the same patches.

    Parameters
    ----------
    slide : Slide
    locations : int64 (N, 2)
        (x, y) at level 0.
    patch : (height, width, ...)
    """

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
