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
from pathlib import Path
from typing import Any

from tests.benchmarks.harness import processor, versions
from tests.gpu.devices import is_emulated, open_device
from zarrgpu.devices.cuda import CudaDevice
from zarrgpu.devices.host import available_cores

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = (
    "zarrgpu", "numpy", "numcodecs", "imagecodecs", "zarr", "tensorstore", "torch", "cupy-cuda12x",
    "cupy-cuda13x", "nvidia-libnvcomp-cu12", "nvidia-libnvcomp-cu13", "hypothesis", "pytest",
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


if __name__ == "__main__":
    opened = open_device("emulated" if "--rehearse" in sys.argv else "cuda")
    print(json.dumps(describe(opened), indent=1))
