"""Law: whatever is stored, the host executor touches no memory but its own, and has no races.

Its sources are compiled with a sanitizer, whose runtime is loaded before Python; a planted fault
shows that the sanitizer would see one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.emulator.build import sanitizer_problem
from zarrgpu.devices.kernel_sources import kernels_folder

pytestmark = pytest.mark.slow

FLAGS = {"address": "-fsanitize=address,undefined", "thread": "-fsanitize=thread"}
RUNTIMES = {"address": "libasan.so", "thread": "libtsan.so"}
ROOT = Path(__file__).resolve().parent.parent


def run(sanitizer: str, folder: Path, fault: tuple[str, str, str] | None = None):
    """Compile, with a fault if one is given, and read damaged arrays."""
    if problem := sanitizer_problem(sanitizer):
        pytest.skip(problem)
    sources = folder / "host"
    shutil.copytree(kernels_folder() / "host", sources)
    if fault is not None:
        name, text, instead = fault
        content = (sources / name).read_text()
        assert content.count(text) == 1
        (sources / name).write_text(content.replace(text, instead))
    library = folder / "executor.so"
    flags = ["-std=c++17", "-O1", "-g", "-fPIC", "-shared", "-fvisibility=hidden"]
    flags += ["-Wall", "-Wextra", "-Werror", FLAGS[sanitizer], "-fno-sanitize-recover=all"]
    files = sorted(map(str, sources.glob("*.cpp")))
    subprocess.run(["g++", *flags, *files, "-o", str(library)], check=True)
    found = subprocess.run(
        ["g++", f"-print-file-name={RUNTIMES[sanitizer]}"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    environment = {
        **os.environ,
        "LD_PRELOAD": found.stdout.strip(),
        "ASAN_OPTIONS": "detect_leaks=0",  # Python's own
        "TSAN_OPTIONS": "exitcode=66",
        "OPENBLAS_NUM_THREADS": "1",  # its threads are not the sanitizer's
    }
    return subprocess.run(
        [sys.executable, "-m", "tests.native_damage", str(library), str(folder / "arrays")],
        capture_output=True, text=True, check=False, cwd=ROOT, env=environment,
    )  # fmt: skip


@pytest.mark.parametrize("sanitizer", ["address", "thread"])
def test_damage_is_read_without_faults(sanitizer, tmp_path):
    done = run(sanitizer, tmp_path)
    assert (done.returncode, done.stdout.strip()) == (0, "done"), done.stderr[-3000:]


@pytest.mark.parametrize(
    ("sanitizer", "fault"),
    [
        ("address", ("executor.cpp", "= pieces.extent[cell];", "= pieces.extent[cell] + 1;")),
        (
            "thread",
            (
                "executor.cpp",
                "__atomic_fetch_add(&plan->next_read, 1, __ATOMIC_RELAXED);",
                "plan->next_read++;",
            ),
        ),
    ],
)
def test_a_planted_fault_is_seen(sanitizer, fault, tmp_path):
    done = run(sanitizer, tmp_path, fault)
    assert done.returncode != 0
    assert "Sanitizer" in done.stderr
