"""Every kernel compiles for every architecture, with no warning and no spilled register.

NVRTC needs neither a GPU nor a driver; nvcc, where it is installed, must agree.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import pytest

from zarrgpu.devices import kernel_sources
from zarrgpu.devices.kernel_sources import CompileError, compile_module, load_module
from zarrgpu.devices.kernels import KERNELS
from zarrgpu.errors import DeviceUnavailableError

pytest.importorskip(
    "cuda.bindings.nvrtc",
    reason="cuda-bindings and nvidia-cuda-nvrtc compile without a GPU",
)

from tests.benchmarks import kernels as kernel_resources
from tests.benchmarks.kernels import ARCHITECTURES, OPTIMISED
from tests.nvrtc_bindings import BindingsNvrtc

MAX_REGISTERS = 96
"""Of 65,536 an SM: 20 warps or more in flight."""


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


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", kernel_sources.source_names())
def test_compiles_without_warnings(name, architecture):
    module = compile_all()[name, architecture]
    assert not isinstance(module, CompileError), str(module)
    assert module.image[:4] == b"\x7fELF"
    assert "warning" not in module.log


@pytest.mark.parametrize("name", kernel_sources.source_names())
def test_registers_leave_room_for_many_warps(name):
    used = kernel_resources.resources(compile_all()[name, OPTIMISED].log)
    declared = {kernel for kernel, (source, _) in KERNELS.items() if source == name}
    assert used.keys() == declared
    assert max(kernel["registers"] for kernel in used.values()) <= MAX_REGISTERS
    assert {kernel["spill_bytes"] for kernel in used.values()} == {0}


def test_the_record_is_of_these_sources():
    """docs/benchmarks/kernels.json has every kernel, on every architecture, as it is now."""
    changed = kernel_resources.out_of_date()
    assert not changed, f"run: python -m tests.benchmarks.kernels (changed: {changed})"
    record = kernel_resources.read_record()
    same_compiler = record["nvrtc"] == ".".join(map(str, BindingsNvrtc().version()))
    kernels = {}
    for name, source in record["sources"].items():
        kernels |= source["kernels"]
        if same_compiler:
            now = kernel_resources.resources(compile_all()[name, OPTIMISED].log)
            assert kernel_resources.written(name, OPTIMISED) == now
    assert kernels.keys() == KERNELS.keys()
    for by_architecture in kernels.values():
        assert list(by_architecture) == [f"sm_{a}" for a in ARCHITECTURES]
        assert not any(used["spill_bytes"] for used in by_architecture.values())


def test_a_changed_header_makes_the_record_out_of_date(tmp_path, monkeypatch):
    for path in kernel_sources.kernels_folder().glob("*.cu*"):
        (tmp_path / path.name).write_text(path.read_text())
    monkeypatch.setattr(kernel_resources, "kernels_folder", lambda: tmp_path)
    before = kernel_resources.out_of_date()
    header = tmp_path / "checksum.cuh"
    header.write_text(header.read_text() + "// a comment\n")
    assert kernel_resources.out_of_date() == before
    header.write_text(header.read_text() + "constexpr int CHANGED = 1;\n")
    assert {"checksum_parts.cu", "checksum_verify.cu"} <= set(kernel_resources.out_of_date())
    assert "copy_segments.cu" not in set(kernel_resources.out_of_date()) - set(before)


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
    def compile_one(name):
        source, target = kernel_sources.kernels_folder() / name, tmp_path / f"{name}.ptx"
        options = ["-std=c++17", "-arch=compute_80", "-Werror", "all-warnings", "-ptx"]
        done = subprocess.run(
            ["nvcc", *options, str(source), "-o", str(target)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.stderr if done.returncode else "" if target.stat().st_size else "empty"

    names = kernel_sources.source_names()
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 4)) as pool:
        said = dict(zip(names, pool.map(compile_one, names), strict=True))
    assert not any(said.values()), said
