"""Patches of Aperio slides on the CPU against OpenSlide: 1,024 random 256-px patches at level 0.

On the real slides of ../shared/data where they are, else on a made one. OpenSlide gets its best
setting: a cache of 512 MB, cold and warm, and as many threads as there are cores, each with its own
handle.
"""

from __future__ import annotations

import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import openslide

import zarrgpu
from tests.benchmarks import harness
from zarrgpu.demo.inputs import make_svs
from zarrgpu.demo.texture import tissue_image

PATCHES, SIDE = 1024, 256
CACHE_NBYTES = 512 << 20
REAL = harness.ROOT.parent / "shared" / "data" / "slides"


class Handles:
    """One OpenSlide handle a thread, with a cache for each."""

    def __init__(self, path: Path, threads: int, *, cache: bool) -> None:
        self.slides = [openslide.OpenSlide(str(path)) for _ in range(threads)]
        for slide in self.slides:
            slide.set_cache(openslide.OpenSlideCache(CACHE_NBYTES if cache else 0))

    def read(self, locations: np.ndarray, out: np.ndarray) -> None:
        """Read all patches, a share per thread."""
        parts = np.array_split(np.arange(len(locations)), len(self.slides))

        def work(share: int) -> None:
            for row in parts[share].tolist():
                region = self.slides[share].read_region(
                    tuple(locations[row].tolist()), 0, (SIDE, SIDE)
                )
                out[row] = np.asarray(region)[..., :3]

        with ThreadPoolExecutor(len(self.slides)) as pool:
            list(pool.map(work, range(len(self.slides))))


def run_slide(path: Path) -> dict[str, Any]:
    """Time all readers on one slide."""
    slide = zarrgpu.open_slide(path)
    width, height = slide.dimensions
    random = np.random.default_rng(3)
    locations = np.stack(
        [random.integers(0, width - SIDE, PATCHES), random.integers(0, height - SIDE, PATCHES)],
        axis=1,
    )
    out = np.empty((PATCHES, SIDE, SIDE, 3), np.uint8)
    threads = len(os.sched_getaffinity(0))
    warm = Handles(path, threads, cache=True)
    uncached = Handles(path, threads, cache=False)
    candidates = {
        "zarrgpu": lambda: slide.read_regions(locations, 0, (SIDE, SIDE), device="cpu", out=out),
        "openslide, no cache": lambda: uncached.read(locations, out),
        "openslide, cache cold": lambda: Handles(path, threads, cache=True).read(locations, out),
        "openslide, cache warm": lambda: warm.read(locations, out),
    }
    timed = harness.measure(candidates, repeats=5)
    for value in timed.values():
        value["patches_per_s"] = round(PATCHES / value["median_ms"] * 1e3)
    opening = harness.measure(
        {
            "zarrgpu": lambda: zarrgpu.open_slide(path),
            "openslide": lambda: openslide.OpenSlide(str(path)).close(),
        },
        repeats=21,
    )
    return {
        "slide": path.name,
        "dimensions": slide.dimensions,
        "codecs": list(slide.levels[0].codecs),
        "chunks": slide.levels[0].chunks,
        "patches": timed,
        "ratio_to_best_peer": harness.ratio_to_best_peer(timed),
        "open": opening,
    }


def main() -> None:
    """Measure and write docs/benchmarks/slides.json."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [REAL / name for name in ("CMU-1-Small-Region.svs", "tcga-jpeg2000.svs")]
        paths = [path for path in paths if path.exists()]
        made = Path(folder) / "made.svs"
        make_svs(made, tissue_image(4096, seed=7))
        results = [run_slide(path) for path in [*paths, made]]
    for result in results:
        print(result["slide"], result["ratio_to_best_peer"], result["patches"]["zarrgpu"])
    harness.write("slides", {"what": f"{PATCHES} random {SIDE}-px patches", "results": results})


if __name__ == "__main__":
    main()
