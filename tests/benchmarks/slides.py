"""Patches of Aperio slides on the CPU against other readers: 1,024 random 256-px ones at level 0.

On the real slides of ../shared/data where they are, on a made one, and on large ones, of whose
tiles each is touched by few patches. Peers (`slide_peers`) get their best settings: all cores and a
cache of 1 GiB. "cold": it starts empty, and ours has none, as a batch decodes each tile once.
"warm": all tiles are in the caches, in ours too.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import openslide

import zarrgpu
from tests.benchmarks import harness
from tests.benchmarks.large_slides import make_large_svs
from tests.benchmarks.slide_peers import CACHE_NBYTES, SIDE, candidates
from zarrgpu.demo.inputs import make_svs
from zarrgpu.demo.texture import tissue_image

PATCHES = 1024
FEW_PATCHES = 256
"""Where peers take ten seconds for as many."""

REAL = harness.ROOT.parent / "shared" / "data" / "slides"


def run_slide(path: Path, patches: int = PATCHES) -> dict[str, Any]:
    """Time all readers on one slide."""
    slide = zarrgpu.open_slide(path)
    width, height = slide.dimensions
    random = np.random.default_rng(3)
    locations = np.stack(
        [random.integers(0, width - SIDE, patches), random.integers(0, height - SIDE, patches)],
        axis=1,
    )
    out = np.empty((patches, SIDE, SIDE, 3), np.uint8)
    kept = zarrgpu.open_slide(path, cache=CACHE_NBYTES)

    def ours(slide: zarrgpu.Slide) -> None:
        slide.read_regions(locations, 0, (SIDE, SIDE), device="cpu", out=out)

    peers = candidates(path, locations, np.empty_like(out))
    timed = {
        state: harness.measure({"zarrgpu": lambda mine=mine: ours(mine), **peers[state]}, repeats=3)
        for state, mine in (("cold", slide), ("warm", kept))
    }
    for results in timed.values():
        for value in results.values():
            value["patches_per_s"] = round(patches / value["median_ms"] * 1e3)
    opening = harness.measure(
        {
            "zarrgpu": lambda: zarrgpu.open_slide(path),
            "openslide": lambda: openslide.OpenSlide(str(path)).close(),
        },
        repeats=21,
    )
    return {
        "slide": path.name,
        "num_patches": patches,
        "dimensions": slide.dimensions,
        "codecs": list(slide.levels[0].codecs),
        "chunks": slide.levels[0].chunks,
        "patches": timed,
        "ratio_to_best_peer": {
            state: harness.ratio_to_best_peer(results) for state, results in timed.items()
        },
        "open": opening,
    }


def main() -> None:
    """Measure and write docs/benchmarks/slides.json."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [REAL / name for name in ("CMU-1-Small-Region.svs", "tcga-jpeg2000.svs")]
        paths = [path for path in paths if path.exists()]
        made, *large = (Path(folder) / f"{name}.svs" for name in ("made", "large", "large-j2k"))
        tissue = tissue_image(4096, seed=7)
        make_svs(made, tissue)
        results = [run_slide(path) for path in [*paths, made]]
        for path, patches in zip(large, (PATCHES, FEW_PATCHES), strict=True):
            make_large_svs(path, tissue, jpeg2k=path.stem.endswith("j2k"))
            results.append(run_slide(path, patches))
    for result in results:
        print(result["slide"], result["ratio_to_best_peer"], result["patches"]["cold"]["zarrgpu"])
    harness.write("slides", {"what": f"random {SIDE}-px patches", "results": results})


if __name__ == "__main__":
    main()
