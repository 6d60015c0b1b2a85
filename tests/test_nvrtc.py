"""Every kernel compiles for every architecture, with no warning and no spilled register.

NVRTC needs neither a GPU nor a driver; nvcc, where it is installed, must agree.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import pytest

from zarrgpu.devices import kernel_sources
from zarrgpu.devices.kernel_sources import CompileError, compile_module, load_module
from zarrgpu.errors import DeviceUnavailableError

nvrtc = pytest.importorskip(
    "cuda.bindings.nvrtc",
    reason="cuda-bindings and nvidia-cuda-nvrtc compile without a GPU",
)

ARCHITECTURES = [75, 80, 86, 89, 90, 100, 120]
OPTIMISED = 90
"""The one that is optimised as a user's device would be (H100, H200)."""

MAX_REGISTERS = 96
"""Of 65,536 an SM: 20 warps or more in flight."""


class BindingsNvrtc:
    """`kernel_sources.Nvrtc` by cuda-bindings."""

    def version(self):
        return tuple(_check(nvrtc.nvrtcVersion()))

    def architectures(self):
        return sorted(_check(nvrtc.nvrtcGetSupportedArchs())[0])

    def compile(self, source, name, headers, options, *, ptx):
        (program,) = _check(
            nvrtc.nvrtcCreateProgram(
                source.encode(), name.encode(), len(headers),
                [text.encode() for text in headers.values()], [h.encode() for h in headers],
            )
        )  # fmt: skip
        (status,) = nvrtc.nvrtcCompileProgram(program, len(options), [o.encode() for o in options])
        log = self.read(program, nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog)
        text = log.rstrip(b"\0").decode()
        if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            raise CompileError(text)
        size, get = (
            (nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX)
            if ptx
            else (nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN)
        )
        return self.read(program, size, get), text

    @staticmethod
    def read(program, size, get):
        # not bytes: those of length 1 (an empty log) are one object for the whole process, and a
        # NUL written into b" " made every space of later tests a NUL
        content = bytearray(_check(size(program))[0])
        _check(get(program, content))
        return bytes(content)


def _check(result):
    status, *values = result
    assert status == nvrtc.nvrtcResult.NVRTC_SUCCESS, status
    return values


@cache
def compile_all():
    """Module, or the error, of each (source, architecture), several at a time.

    Full optimisation of `gather` takes 4 s: one architecture has it, the others little.
    """

    def one(job):
        effort = () if job[1] == OPTIMISED else ("--Ofast-compile=max",)
        try:
            return compile_module(
                *job, BindingsNvrtc(), extra_options=("--ptxas-options=-v", *effort)
            )
        except CompileError as error:
            return error

    jobs = [(name, a) for name in kernel_sources.source_names() for a in ARCHITECTURES]
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 4)) as pool:
        return dict(zip(jobs, pool.map(one, jobs), strict=True))


def used_registers(log):
    """Registers of each entry function, from ptxas' report."""
    found = re.findall(r"entry function '(\w+)'.*?Used (\d+) registers", log, re.DOTALL)
    return {name: int(n) for name, n in found}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", kernel_sources.source_names())
def test_compiles_without_warnings(name, architecture):
    module = compile_all()[name, architecture]
    assert not isinstance(module, CompileError), str(module)
    assert module.image[:4] == b"\x7fELF"
    assert "warning" not in module.log


@pytest.mark.parametrize("name", kernel_sources.source_names())
def test_registers_leave_room_for_many_warps(name, record_property):
    module = compile_all()[name, OPTIMISED]
    registers = used_registers(module.log)
    record_property("registers", registers)
    assert registers
    assert max(registers.values()) <= MAX_REGISTERS
    spills = re.findall(r"(\d+) bytes spill", module.log)
    assert spills
    assert set(spills) == {"0"}


def test_nvrtc_errors_carry_its_log():
    with pytest.raises(CompileError, match="nothing_of_the_kind"):
        BindingsNvrtc().compile(
            "__global__ void k() { nothing_of_the_kind(); }", "k.cu", {},
            (*kernel_sources.OPTIONS, "--gpu-architecture=sm_90"), ptx=False,
        )  # fmt: skip


def test_a_newer_device_gets_ptx_and_an_older_one_an_error():
    module = compile_module("copy_segments.cu", 999, BindingsNvrtc())
    assert b".target sm_" in module.image
    with pytest.raises(DeviceUnavailableError, match="the device is sm_35"):
        compile_module("copy_segments.cu", 35, BindingsNvrtc())


def test_compiled_modules_are_kept_on_disk(tmp_path):
    first = load_module("copy_segments.cu", 90, BindingsNvrtc(), folder=tmp_path)
    assert len(list(tmp_path.iterdir())) == 1

    class NoCompiler(BindingsNvrtc):
        def compile(self, *args, **kwargs):
            pytest.fail("compiled again")

    second = load_module("copy_segments.cu", 90, NoCompiler(), folder=tmp_path)
    assert second.image == first.image
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    assert load_module("copy_segments.cu", 90, BindingsNvrtc(), folder=blocked).image == first.image


def test_a_changed_header_or_compiler_is_another_module(tmp_path, monkeypatch):
    load_module("copy_segments.cu", 90, BindingsNvrtc(), folder=tmp_path)
    changed = dict(kernel_sources.headers())
    changed["common.cuh"] += "\n// changed\n"
    monkeypatch.setattr(kernel_sources, "headers", lambda: changed)
    load_module("copy_segments.cu", 90, BindingsNvrtc(), folder=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not installed")
def test_nvcc_compiles_without_warnings(tmp_path):
    # To PTX only: NVRTC's cubins are what is shipped; this is a second front end's opinion.
    folder = kernel_sources.kernels_folder()
    for name in kernel_sources.source_names():
        command = ["nvcc", "-std=c++17", "-arch=compute_80", "-Werror", "all-warnings", "-ptx"]
        target = tmp_path / f"{name}.ptx"
        done = subprocess.run(
            [*command, str(folder / name), "-o", str(target)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert target.stat().st_size > 0
