"""Other readers of whole-slide images, each at its best setting on all cores.

Each peer is a function of (path, locations, out) that makes its own handles, so that caches start
cold as ours does, or a pair of a preparation and a read, for caches that stay warm. Those that are
not installed are left out; `make bench` installs them.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

SIDE = 256
CACHE_NBYTES = 1 << 30
"""Of decoded tiles; readers with a handle for each thread share it evenly."""
THREADS = len(os.sched_getaffinity(0))

Read = Callable[[np.ndarray, np.ndarray], None]
ReadOne = Callable[[int, int], np.ndarray]


def shares(readers: Sequence[ReadOne]) -> Read:
    """Let each thread read its share of the places with its own handle."""

    def read(locations: np.ndarray, out: np.ndarray) -> None:
        parts = np.array_split(np.arange(len(locations)), len(readers))

        def work(share: int) -> None:
            for row in parts[share].tolist():
                x, y = locations[row].tolist()
                out[row] = readers[share](x, y)[..., :3]

        with ThreadPoolExecutor(len(readers)) as pool:
            list(pool.map(work, range(len(readers))))

    return read


def openslide(path: Path, cache_nbytes: int) -> Read:
    """OpenSlide, a handle and a cache for each thread."""
    import openslide

    def reader() -> ReadOne:
        slide = openslide.OpenSlide(str(path))
        slide.set_cache(openslide.OpenSlideCache(cache_nbytes // THREADS))
        return lambda x, y: np.asarray(slide.read_region((x, y), 0, (SIDE, SIDE)))

    return shares([reader() for _ in range(THREADS)])


def fastslide(path: Path, cache_nbytes: int) -> Read:
    """Fastslide, which gives up the lock: one handle and one cache for all threads."""
    from fastslide import FastSlide

    slide = FastSlide.from_file_path(str(path))
    slide.set_cache(cache_nbytes or None)

    def read_one(x: int, y: int) -> np.ndarray:
        return slide.read_region((x, y), 0, (SIDE, SIDE)).numpy()

    return shares([read_one] * THREADS)


def cucim(path: Path, cache_nbytes: int) -> Read:
    """Ask cuCIM on the CPU for batches by its own workers."""
    from cucim import CuImage

    if cache_nbytes:
        CuImage.cache("per_process", memory_capacity=cache_nbytes >> 20)
    else:
        CuImage.cache("nocache")
    slide = CuImage(str(path))

    def read(locations: np.ndarray, out: np.ndarray) -> None:
        regions = slide.read_region(
            locations.tolist(), (SIDE, SIDE), 0, num_workers=THREADS, batch_size=32
        )
        row = 0
        for batch in regions:
            pixels = np.asarray(batch)
            pixels = pixels.reshape(-1, SIDE, SIDE, pixels.shape[-1])
            out[row : row + len(pixels)] = pixels[..., :3]
            row += len(pixels)
        assert row == len(locations)

    return read


def pyvips(path: Path, cache_nbytes: int) -> Read:
    """Let libvips read a TIFF page, with a cache of tiles of its own, a region for each thread."""
    import pyvips

    pyvips.cache_set_max(0)  # or it would give us the image, and the tiles, of the last time

    def reader() -> ReadOne:
        image = pyvips.Image.tiffload(str(path), page=0)
        if cache_nbytes:
            tile = int(image.get("tile-width")) if "tile-width" in image.get_fields() else 256
            tiles = cache_nbytes // THREADS // (tile * tile * image.bands)
            image = image.tilecache(
                tile_width=tile, tile_height=tile, max_tiles=tiles, access="random", threaded=True
            )
        region = pyvips.Region.new(image)

        def read_one(x: int, y: int) -> np.ndarray:
            pixels = np.frombuffer(region.fetch(x, y, SIDE, SIDE), np.uint8)
            return pixels.reshape(SIDE, SIDE, -1)

        return read_one

    return shares([reader() for _ in range(THREADS)])


def tiffslide(path: Path, cache_nbytes: int) -> Read:
    """Tiffslide: NumPy arrays; it has no cache of decoded tiles."""
    del cache_nbytes
    from tiffslide import TiffSlide

    def reader() -> ReadOne:
        slide = TiffSlide(str(path))
        return lambda x, y: slide.read_region((x, y), 0, (SIDE, SIDE), as_array=True)

    return shares([reader() for _ in range(THREADS)])


PEERS: dict[str, Callable[[Path, int], Read]] = {
    "openslide": openslide,
    "fastslide": fastslide,
    "cucim": cucim,
    "pyvips": pyvips,
    "tiffslide": tiffslide,
}


def installed() -> dict[str, Callable[[Path, int], Read]]:
    """Peers that can be imported here."""
    return {name: make for name, make in PEERS.items() if importlib.util.find_spec(name)}


def candidates(path: Path, locations: np.ndarray, out: np.ndarray) -> dict[str, dict[str, Any]]:
    """Timed calls: with caches that start cold (or none, where there is none), and warm ones."""
    found: dict[str, dict[str, Any]] = {"cold": {}, "warm": {}}
    for name, make in installed().items():
        try:
            warm = make(path, CACHE_NBYTES)
            warm(locations[:4], out)
        except Exception as error:
            print(f"{name} does not read {path.name}: {type(error).__name__}: {error}"[:200])
            continue
        found["cold"][name] = lambda make=make: make(path, CACHE_NBYTES)(locations, out)
        if name != "tiffslide":
            found["warm"][name] = lambda read=warm: read(locations, out)
    return found
