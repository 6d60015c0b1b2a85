"""Compile the host executor (kernels/host) when the package is built or installed from source.

Where there is no C++ compiler the package is built without it and works as well, more slowly;
`python -m zarrgpu doctor` says which it is.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

LIBRARY = "zarrgpu/libzarrgpu_host.so"
# no fused multiply-add: results are those of NumPy, bit for bit
FLAGS = ("-std=c++17", "-O3", "-ffp-contract=off", "-fPIC", "-shared", "-fvisibility=hidden")


class NativeBuildHook(BuildHookInterface):
    """Adds the compiled library to wheels and, for editable installs, to the source tree."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and give the wheel its platform; or leave it pure."""
        del version
        if not compile_library(Path(self.root)):
            return
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform}"
        build_data["artifacts"].append(LIBRARY)


def compile_library(root: Path) -> bool:
    """Bring the library up to date; whether it is there."""
    target, folder = root / LIBRARY, root / "kernels" / "host"
    files = [*folder.iterdir(), Path(__file__)]
    if target.exists() and target.stat().st_mtime > max(f.stat().st_mtime for f in files):
        return True
    compiler = find_compiler()
    if compiler is None:
        print("zarrgpu: no C++ compiler found, building without the host executor", file=sys.stderr)
        target.unlink(missing_ok=True)
        return False
    made = target.with_name(f".{target.name}.{os.getpid()}")
    static = ("-static-libstdc++", "-static-libgcc") if sys.platform == "linux" else ()
    sources = sorted(map(str, folder.glob("*.cpp")))
    command = [compiler, *FLAGS, *sources, *static, "-o", str(made)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"zarrgpu: {compiler} failed, building without the host executor", file=sys.stderr)
        print(done.stderr, file=sys.stderr)
        target.unlink(missing_ok=True)
        return False
    made.replace(target)  # at once: another process may have the old one loaded
    return True


def find_compiler() -> str | None:
    """Path of a C++ compiler; None on Windows, whose files the executor does not read."""
    if os.name != "posix":
        return None
    names = (os.environ.get("CXX"), "c++", "g++", "clang++")
    return next((found for name in names if name and (found := shutil.which(name))), None)
