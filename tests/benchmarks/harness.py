"""What all benchmarks share: the machine, the clock, the JSON.

Every number in a document has a JSON beside it, written here: machine, versions, commit, what was
read, cache state, median and spread. Peers run in the same process, turn by turn with zarrgpu, so
that a busy machine slows all of them alike; what is reported is the ratio.
"""

from __future__ import annotations

import gc
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = (
    "numpy", "numcodecs", "imagecodecs", "zarr", "zarrs", "tensorstore", "openslide-python",
    "openslide-bin", "tiffslide", "cucim-cu12", "pyvips", "fastslide",
)  # fmt: skip


def machine() -> dict[str, Any]:
    """Describe where and with what this runs."""
    return {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load_average_at_start": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "packages": versions(PACKAGES),
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": bool(_git("status", "--porcelain", "--", "zarrgpu", "kernels")),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def measure(
    candidates: dict[str, Callable[[], Any]], *, repeats: int = 7
) -> dict[str, dict[str, Any]]:
    """Time candidates turn by turn, after one unmeasured round; milliseconds."""
    for run in candidates.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(repeats):
        for name, run in candidates.items():
            gc.collect()
            began = time.perf_counter()
            run()
            times[name].append((time.perf_counter() - began) * 1e3)
    return {
        name: {
            "median_ms": round(float(np.median(values)), 3),
            "min_ms": round(min(values), 3),
            "max_ms": round(max(values), 3),
            "repeats": repeats,
        }
        for name, values in times.items()
    }


def ratio_to_best_peer(results: dict[str, dict[str, Any]], ours: str = "zarrgpu") -> float:
    """How many times faster than the fastest other candidate, by medians."""
    peers = [value["median_ms"] for name, value in results.items() if name != ours]
    return round(min(peers) / results[ours]["median_ms"], 2)


def write(name: str, document: dict[str, Any]) -> Path:
    """Write a result under docs/benchmarks (or ``ZARRGPU_BENCHMARK_DIR``)."""
    folder = Path(os.environ.get("ZARRGPU_BENCHMARK_DIR", ROOT / "docs" / "benchmarks"))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"machine": machine(), **document}, indent=1) + "\n")
    print(f"wrote {path}", file=sys.stderr)
    return path


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Versions of those packages that are installed."""
    found = {}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def processor() -> str:
    """Model of the CPU."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def _git(*args: str) -> str:
    done = subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()
