"""Law: the host executor compiles, without a warning, with other compilers and for other machines.

Only those that are installed are asked: clang (whose `__builtin_cpu_supports` knows fewer names),
GCC for AArch64.
"""

from __future__ import annotations

import shutil
import subprocess

import pytest

from zarrgpu.devices.kernel_sources import kernels_folder

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("compiler", ["clang++", "aarch64-linux-gnu-g++"])
def test_other_compilers_take_the_sources(compiler):
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    sources = sorted(map(str, (kernels_folder() / "host").glob("*.cpp")))
    assert len(sources) > 10
    flags = ["-std=c++17", "-O1", "-fPIC", "-Wall", "-Wextra", "-Werror", "-fsyntax-only"]
    done = subprocess.run([compiler, *flags, *sources], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
