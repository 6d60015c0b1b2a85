"""tests/gpu/run does all its steps, here on the emulated device, and says that it was emulated.

What it is made of holds together: no test marked gpu is forgotten, every kernel is tested on a
device, a replayed read is the read, and targets are met or not by what a file says.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import zarrgpu
from tests.emulator.build import require_compiler
from tests.gpu import bench, marked, mutations, targets
from tests.gpu.devices import empty, open_device
from tests.gpu.recording import COPY_IN, GATHER, Recorder, record
from tests.gpu.stored import CODECS, CUBES, WITHOUT_LIBRARY
from tests.test_cuda_corruption import FUZZED
from tests.zarr_cases import CHAINS, MemoryStore, Recipe, encode, values
from zarrgpu.codecs.device_streams import COMPRESSORS
from zarrgpu.devices.cuda import CudaDevice
from zarrgpu.devices.kernels import KERNELS
from zarrgpu.model import ReadOptions

ROOT = Path(__file__).resolve().parents[2]


def run(folder: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "tests" / "gpu" / "run", *options],
        env={**os.environ, "OUT": str(folder), "PYTHON": sys.executable, **environment},
        capture_output=True, text=True, cwd=folder,
    )  # fmt: skip


@pytest.mark.slow
def test_a_rehearsal_runs_and_is_called_one(tmp_path):
    require_compiler()
    done = run(tmp_path, "--rehearse")
    assert done.returncode == 0, done.stdout + done.stderr
    machine = json.loads((tmp_path / "machine.json").read_text())
    measured = json.loads((tmp_path / "bench.json").read_text())
    assert machine["device"] == measured["machine"]["device"] == "emulated"
    assert measured["rehearsal"] is True
    assert set(measured["parts"]) == set(bench.PARTS)
    for part in measured["parts"].values():
        for name, case in part.items():
            assert not {"failed", "not measured"} & case.keys(), name
    for name, case in {**measured["parts"]["zarr"], **measured["parts"]["sweep"]}.items():
        check_case(name, case)
    assert {c["codec"] for c in measured["parts"]["sweep"].values()} == set(CODECS)
    for case in measured["parts"]["zarr"].values():
        assert set(case["peers"]) == {
            "tensorstore", "zarr-python + zarrs", "zarr-python", "numcodecs, threads",
            "zarr-python, GPU buffers",
        }  # fmt: skip
        assert case["peers"]["tensorstore"]["patches + copy"]["median_ms"] > 0
    for case in measured["parts"]["slides"].values():
        for density in ("dense", "sparse"):
            assert case[density]["one batch"]["median_ms"] > 0
            assert case[density]["one batch, chunk cache"]["median_ms"] > 0
        assert case["PatchLoader"]["median_ms"] > 0
    alone = measured["parts"]["kernels"]["kernels alone"]
    assert {"crc32c by nvCOMP", "crc32c", "xxh64", "blosclz"} < alone.keys()
    assert [row["figure"] for row in measured["targets"]] == [targets.NOT_RUN] * 5
    mutated = json.loads((tmp_path / "mutations.json").read_text())
    assert mutated["rehearsal"] is True
    assert all(run["chunks"] > 0 and "died" not in run for run in mutated["runs"].values())
    summary = (tmp_path / "summary.txt").read_text()
    assert "FAILED" not in summary
    assert {"driver", "benchmarks,", "changed", "took"} < {
        s.split()[0] for s in summary.split("\n") if s
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "bench.json", "logs.tar.gz", "machine.json", "mutations.json", "summary.txt", "targets.md"
    ]  # fmt: skip


def check_case(name: str, case: dict) -> None:
    ours = case["zarrgpu"]
    for stage in (
        "from pinned memory", "whole read, page cache", "patches, page cache", "gather",
        "whole read, host memory", *(["patches, chunk cache"] if "peers" in case else ()),
    ):  # fmt: skip
        timing = ours[stage]
        assert timing["min_ms"] <= timing["median_ms"] <= timing["max_ms"]
        assert timing["bytes"] > 0
    assert ("nvCOMP alone, same streams" in ours) == (case["codec"] not in WITHOUT_LIBRARY), name
    assert ("whole read, GPUDirect Storage" in ours) == ("peers" in case)
    assert {COPY_IN, GATHER, "all"} <= ours["stages_ms"].keys()
    assert case["compression_ratio"] > 0.9
    assert (case["shards"] is None) == (case["zarr_format"] == 2)


NOTING = """#!/bin/bash
echo "$@" >>{log}
case "$*" in *tests.gpu.marked* | *tests.gpu.targets*) exec {python} "$@" ;; esac
case "$*" in *racecheck*) exit 9 ;; esac
"""


def test_on_a_gpu_every_test_and_part_is_run_once(tmp_path):
    """What the script would start, noted in place of being run; one sanitizer finds something."""
    log, folder = tmp_path / "log", tmp_path / "bin"
    folder.mkdir()
    for name in ("python", "compute-sanitizer"):
        (folder / name).write_text(NOTING.format(log=log, python=sys.executable))
        (folder / name).chmod(0o755)
    path = f"{folder}:{os.environ['PATH']}"
    done = run(tmp_path, PYTHON=str(folder / "python"), PATH=path, WHEELS=str(tmp_path))
    assert done.returncode == 1
    assert "racecheck  FAILED (9)" in done.stdout
    assert done.stdout.count("FAILED") == 1
    calls = log.read_text().splitlines()
    tested = [word for c in calls if c.startswith("-m pytest") for word in c.split()]
    for file in marked.marked_files():
        assert tested.count(str(file.relative_to(ROOT))) == 1
    for part in bench.PARTS:
        assert sum(f"tests.gpu.bench {tmp_path}/bench.json --part {part} " in c for c in calls) == 1
    for tool in ("memcheck", "racecheck", "synccheck", "initcheck"):
        assert sum(c.startswith(f"--tool {tool} ") for c in calls) == 1
    assert sum("tests.gpu.mutations" in c for c in calls) == 1
    assert "tests.gpu.targets" in calls[-1]


def test_a_run_without_a_gpu_says_so_and_measures_nothing(tmp_path):
    done = run(tmp_path, CUDA_VISIBLE_DEVICES="", WHEELS=str(tmp_path))
    assert done.returncode == 1
    assert "nothing was run" in done.stdout
    assert not (tmp_path / "bench.json").exists()


def test_steps_that_do_not_fit_the_time_are_not_begun(tmp_path):
    require_compiler()
    done = run(tmp_path, "--rehearse", SECONDS_IN_ALL="14")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "summary.txt").read_text().count("not run, no time left") == 3


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("def test_a(cuda): ...", True),
        ("@pytest.mark.gpu\ndef test_a(): ...", True),
        ("pytestmark = pytest.mark.gpu", True),
        ("@pytest.fixture(params=KINDS)\ndef device(request): ...", True),
        ("def test_a(tmp_path, *, cuda_like=1): ...", False),
        ("'pytest.mark.gpu, cuda, KINDS'", False),
    ],
)
def test_files_with_gpu_tests_are_found(text, wanted):
    assert marked.is_marked(text) is wanted


def test_a_file_that_is_not_found_is_told():
    """`tests/conftest.py` refuses what this returns, each time that tests are collected."""
    known = ROOT / "tests" / "test_cuda_engine.py"
    assert marked.forgotten([known]) == []
    assert marked.forgotten([known, ROOT / "tests" / "test_plan.py"]) == [
        ROOT / "tests" / "test_plan.py"
    ]


def test_every_kernel_is_tested_on_a_device():
    from tests.gpu.test_kernels_on_gpu import MODULES

    text = "".join(Path(module.__file__).read_text() for module in MODULES)
    assert [kernel for kernel in KERNELS if f'"{kernel}"' not in text] == []


def test_what_a_run_imports_of_zarrgpu_is_there():
    # within functions too, which only run where there is a GPU
    for file in sorted(Path(__file__).parent.glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("zarrgpu"):
                for name in node.names:
                    exec(f"from {node.module} import {name.name}", {})


def test_every_codec_of_the_device_is_measured_and_changed():
    chains = {
        name.removeprefix("numcodecs.")
        for _, chain in CODECS.values()
        for name, _ in chain
    }  # fmt: skip
    compressors = {name for name in COMPRESSORS if name in ("zstd", "lz4", "zlib", "gzip", "blosc")}
    assert compressors <= chains
    assert set(FUZZED) <= set(mutations.names())
    assert {"512 KiB", "32 KiB", "4 MiB"} < set(CUBES)
    assert {c for _, c, size in bench.cases("sweep", rehearse=False) if size == "4 MiB"} == set(
        CODECS
    )


def test_a_process_that_dies_is_told_and_ends_nothing(monkeypatch):
    monkeypatch.setattr(mutations, "names", lambda: ["zstd", "lz4"])
    dying = "import json, os; print(json.dumps({'seed': 7}), flush=True); os.abort()"
    real = subprocess.run

    def run_one(command, **options):
        if "zstd" in command:
            command = [sys.executable, "-c", dying]
        else:
            command = [sys.executable, "-c", 'print(\'{"chunks": 5, "readable": 1}\')']
        return real(command, **options)

    monkeypatch.setattr(mutations.subprocess, "run", run_one)
    saved = []
    found = mutations.run_all(2, 2, rehearse=False, save=lambda runs: saved.append(dict(runs)))
    assert len(saved) == 2
    assert saved[-1] == found
    assert found["zstd"]["died"] == "signal 6"
    assert found["zstd"]["seed"] == 7
    assert found["lz4"] == {"chunks": 5, "readable": 1}


@pytest.mark.parametrize("budget", [1 << 30, 40_000])
def test_a_replayed_read_gives_the_same_result(budget):
    """In one wave and in many: what was on the device before the replay does not matter."""
    device = open_device("emulated")
    data = values((40, 500), "u2")
    array = zarrgpu.open(
        MemoryStore(encode(data, Recipe(chunks=(4, 100), codecs=CHAINS["blosc-zstd-shuffle"])))
    )
    out = empty(device, data.shape, data.dtype)
    recorder = Recorder(device.driver)
    options = ReadOptions(memory_budget_bytes=budget)
    replay = record(
        recorder, lambda: array.read(device=CudaDevice(recorder), out=out, options=options)
    )
    np.testing.assert_array_equal(out, data)
    gathers = sum(call.stage == GATHER for call in recorder.calls)
    assert (gathers > 1) == (budget < 1 << 30)
    out[...] = 0
    times = replay.time(1)
    np.testing.assert_array_equal(out, data)
    assert set(times) == {*replay.stages, "all"}
    assert replay.library_nbytes > 0
    assert replay.payload_nbytes > 0


def bench_file(**changes: float) -> dict:
    figure = {"decode": 0.95, "gather": 0.7, "patches": 25.0, "peer": 4.0, "jpeg": 30_000.0}
    figure |= changes
    case = {
        "zarrgpu": {
            "decode stage over nvCOMP alone": figure["decode"],
            "patches": {"gather": {"share_of_copy_bandwidth": figure["gather"]}},
            "patches, page cache": {"GB_per_s": figure["patches"]},
        },
        "peers": {"a": {"patches + copy": {"GB_per_s": figure["peer"]}}, "b": {"not measured": ""}},
    }
    slide = {"dense": {"one batch": {"patches_per_s": figure["jpeg"]}}}
    parts = {"zarr": {"x": case, "y": {"failed": "no"}}, "slides": {"SVS, JPEG": slide}}
    return {"rehearsal": False, "parts": parts}


def test_targets_are_met_or_not():
    assert [row["met"] for row in targets.table(bench_file())] == [True] * 5
    worse = bench_file(decode=0.5, gather=0.1, patches=19.9, jpeg=19_999.0)
    assert [row["met"] for row in targets.table(worse)] == [False] * 5
    assert [row["figure"] for row in targets.table(worse)] == [0.5, 0.1, 19.9, 4.97, 19_999.0]
    for nothing in (None, {}, {**bench_file(), "rehearsal": True}):
        rows = targets.table(nothing)
        assert {row["figure"] for row in rows} == {targets.NOT_RUN}
        assert {row["met"] for row in rows} == {None}


def test_targets_without_a_file_are_not_run(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tests.gpu.targets", tmp_path / "none.json"],
        capture_output=True, text=True, cwd=ROOT, check=True,
    )  # fmt: skip
    assert done.stdout.count("not run") == len(targets.TARGETS)
