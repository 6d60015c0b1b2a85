"""Compile kernels/*.cu with g++: libraries to load, or stand-alone programs with a sanitizer.

g++ with C++20 (11 or newer) is needed; without it what needs the emulator is skipped, with the
reason. ``.ci/run`` installs it. Objects are kept under ``.cache/emulator`` of the checkout, or in
the temporary folder where that cannot be written.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Literal

import pytest

from zarrgpu.devices.kernel_sources import kernels_folder

Sanitizer = Literal["address", "thread"]

NO_COMPILER = "no g++ to compile the kernels for the emulator: apt-get install g++ (11 or newer)"

_HERE = Path(__file__).resolve().parent
_FLAGS = [
    *("-std=c++20", "-O1", "-g", "-x", "c++", "-pthread"),
    *("-fno-strict-aliasing", "-ffp-contract=off"),
    *("-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-Wno-unused-function"),
]
_SANITIZER_FLAGS = {
    "address": ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
    "thread": ["-fsanitize=thread", "-Wno-tsan"],
}
_NEEDS_BARRIERS = re.compile(r"__syncthreads|__syncwarp|_sync\(|__shared__")


def build_library(source: Path, kernels: tuple[str, ...]) -> Path:
    """Shared library with ``emulate_<kernel>`` for each kernel of a .cu file."""
    # _FORTIFY_SOURCE refuses a longjmp to another stack
    fibers = ["-DEMULATOR_FIBERS", "-U_FORTIFY_SOURCE"]
    return _build(source, kernels, ["-shared", "-fPIC", *fibers], "so")


def build_program(source: Path, kernels: tuple[str, ...], sanitizer: Sanitizer) -> Path:
    """Program that runs one launch from a file; see `standalone`."""
    return _build(source, kernels, _SANITIZER_FLAGS[sanitizer], sanitizer)


def blocks_are_independent(source: Path) -> bool:
    """Whether a kernel file has no barriers, so that its blocks may overlap."""
    return not _NEEDS_BARRIERS.search(source.read_text())


@cache
def sanitizer_problem(sanitizer: Sanitizer) -> str:
    """Why programs with a sanitizer cannot be made or run here; empty if they can."""
    if shutil.which("g++") is None:
        return NO_COMPILER
    with tempfile.TemporaryDirectory() as folder:
        source, program = Path(folder) / "probe.cpp", Path(folder) / "probe"
        source.write_text("int main() { return 0; }\n")
        command = ["g++", *_SANITIZER_FLAGS[sanitizer], str(source), "-o", str(program)]
        built = subprocess.run(command, capture_output=True, text=True, check=False)
        if built.returncode:
            return f"g++ has no {sanitizer} sanitizer: {built.stderr.strip()[-300:]}"
        ran = subprocess.run([str(program)], capture_output=True, text=True, check=False)
        return f"{sanitizer} sanitizer: {ran.stderr.strip()[-300:]}" if ran.returncode else ""


def _build(source: Path, kernels: tuple[str, ...], flags: list[str], suffix: str) -> Path:
    require_compiler()
    wrapper = _wrapper(source, kernels)
    key = hashlib.sha256()
    # what is compiled is what the key says, even while someone edits the files
    headers = [*sorted(kernels_folder().glob("*.cuh")), _HERE / "cuda_on_host.hpp"]
    content = {path.name: path.read_bytes() for path in (source, *headers)}
    for part in (*_FLAGS, *flags, compiler_version(), wrapper, content[source.name].decode()):
        key.update(part.encode() + b"\0")
    for header in headers:
        key.update(content[header.name] + b"\0")
    target = cache_folder() / f"{source.stem}-{key.hexdigest()[:24]}.{suffix}"
    if target.is_file():
        return target
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        main, built = Path(folder) / "main.cpp", Path(folder) / "built"
        main.write_text(wrapper)
        for name, text in content.items():
            (Path(folder) / name).write_bytes(text)
        include = [f"-I{folder}"]
        command = ["g++", *_FLAGS, *flags, *include, str(main), "-o", str(built)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            msg = f"g++ does not compile {source.name}:\n{done.stderr}"
            raise RuntimeError(msg)
        built.replace(target)
    return target


def _wrapper(source: Path, kernels: tuple[str, ...]) -> str:
    lines = ['#include "cuda_on_host.hpp"', f'#include "{source.name}"']
    lines += [
        f'extern "C" void emulate_{name}(const emulator::Launch& launch, void** args) '
        f"{{ emulator::run({name}, launch, args); }}"
        for name in kernels
    ]
    entries = ", ".join(f'{{"{name}", emulate_{name}}}' for name in kernels)
    lines += [
        "int main(int, char** argv) {",
        f"    static const emulator::Entry entries[] = {{{entries}}};",
        "    return emulator::run_file(entries, argv[1], argv[2]);",
        "}",
    ]
    return "\n".join(lines) + "\n"


def require_compiler() -> None:
    """Skip the test that asks, where there is no g++."""
    if shutil.which("g++") is None:
        pytest.skip(NO_COMPILER)


@cache
def compiler_version() -> str:
    done = subprocess.run(["g++", "--version"], capture_output=True, text=True, check=True)
    return done.stdout


@cache
def cache_folder() -> Path:
    for folder in (
        _HERE.parent.parent / ".cache" / "emulator",
        Path(tempfile.gettempdir()) / f"zarrgpu-emulator-{os.getuid()}",
    ):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=folder):
                return folder
        except OSError:
            continue
    return Path(tempfile.mkdtemp())
