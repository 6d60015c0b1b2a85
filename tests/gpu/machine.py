"""Where and with what a run on a device took place.

usage: python -m tests.gpu.machine [--rehearse]
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.benchmarks.harness import processor, versions
from tests.gpu.devices import is_emulated, open_device
from zarrgpu.devices import kernel_sources
from zarrgpu.devices.cuda import CudaDevice
from zarrgpu.devices.host import available_cores

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = (
    "zarrgpu", "numpy", "numcodecs", "imagecodecs", "zarr", "tensorstore", "torch", "cupy-cuda12x",
    "cupy-cuda13x", "nvidia-libnvcomp-cu12", "nvidia-libnvcomp-cu13", "hypothesis", "pytest",
    "nvidia-nvjpeg", "nvidia-nvjpeg2k-cu13", "kvikio-cu13", "zarrs", "google-crc32c",
)  # fmt: skip


def describe(device: CudaDevice) -> dict[str, Any]:
    """Card, driver, versions, commit, date, processor; an emulated device says that it is one."""
    found: dict[str, Any] = {
        "device": "emulated" if is_emulated(device) else device.driver.description,
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": os.environ.get("ZARRGPU_COMMIT") or _output("git", "rev-parse", "HEAD"),
        "uncommitted_changes": bool(_output("git", "status", "--porcelain", "--", "zarrgpu")),
        "processor": processor(),
        "cores": available_cores(),
        "load_average": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "packages": versions(PACKAGES),
    }
    if not is_emulated(device):
        import cupy

        runtime = cupy.cuda.runtime
        found["cuda"] = {
            "runtime": runtime.runtimeGetVersion(),
            "driver": runtime.driverGetVersion(),
            "nvrtc": cupy.cuda.nvrtc.getVersion(),
        }
        query = "name,driver_version,memory.total,pcie.link.gen.max,clocks.sm,clocks.mem"
        found["nvidia-smi"] = _output("nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader")
    return found


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if not done.returncode else ""


def compile_kernels() -> dict[str, float]:
    """Compile every kernel for the card, side by side, so that no test waits for it: seconds.

    They are kept on the disk; ``all`` is what a first read in a new environment waits at most.
    """
    import cupy

    from zarrgpu.devices.cupy_nvrtc import CupyNvrtc

    architecture = int(cupy.cuda.Device().compute_capability)

    def one(name: str) -> float:
        began = time.perf_counter()
        kernel_sources.load_module(name, architecture, CupyNvrtc())
        return round(time.perf_counter() - began, 2)

    began = time.perf_counter()
    names = kernel_sources.source_names()
    with ThreadPoolExecutor(available_cores()) as pool:
        found = dict(zip(names, pool.map(one, names), strict=True))
    return {**found, "all": round(time.perf_counter() - began, 2)}


if __name__ == "__main__":
    opened = open_device("emulated" if "--rehearse" in sys.argv else "cuda")
    facts = describe(opened)
    if not is_emulated(opened):
        facts["kernels_compiled_s"] = compile_kernels()
    print(json.dumps(facts, indent=1))
