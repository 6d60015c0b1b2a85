"""tests/gpu/run does all its steps, here on the emulated device, and says that it was emulated."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.emulator.build import require_compiler

ROOT = Path(__file__).resolve().parents[2]


def test_a_rehearsal_runs_and_is_called_one(tmp_path):
    require_compiler()
    environment = {**os.environ, "OUT": str(tmp_path), "PYTHON": sys.executable}
    done = subprocess.run(
        [ROOT / "tests" / "gpu" / "run", "--rehearse"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    machine = json.loads((tmp_path / "machine.json").read_text())
    bench = json.loads((tmp_path / "bench.json").read_text())
    assert machine["device"] == bench["machine"]["device"] == "emulated"
    assert bench["rehearsal"] is True
    assert not bench["not measured"]
    cases = {(case["data"], case["codec"]) for case in bench["cases"]}
    assert len(cases) == len(bench["cases"]) == 20
    alone = bench["kernels alone"]
    assert {"crc32c by nvCOMP", "crc32c", "xxh64", "blosclz"} < alone.keys()
    assert all(timing["median_ms"] > 0 for timing in alone.values() if isinstance(timing, dict))
    for case in bench["cases"]:
        ours = case["zarrgpu"]
        for stage in ("decode stage", "whole read, page cache", "patches, page cache"):
            timing = ours[stage]
            assert timing["min_ms"] <= timing["median_ms"] <= timing["max_ms"]
            assert timing["bytes"] > 0
        without = case["codec"] in ("none", "blosc-blosclz-shuffle")
        assert ("nvCOMP alone, same streams" in ours) != without
        assert case["compression_ratio"] > 0.9
        assert set(case["peers"]) == {"tensorstore", "zarr-python"}
    summary = (tmp_path / "summary.txt").read_text()
    assert "FAILED" not in summary
    assert [line.split()[0] for line in summary.splitlines()] == ["driver", "benchmarks", "took"]


def test_a_run_without_a_gpu_says_so_and_measures_nothing(tmp_path):
    nothing = {"CUDA_VISIBLE_DEVICES": "", "WHEELS": str(tmp_path)}
    environment = {**os.environ, "OUT": str(tmp_path), "PYTHON": sys.executable, **nothing}
    done = subprocess.run(
        [ROOT / "tests" / "gpu" / "run"],
        env=environment,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert "nothing was run" in done.stdout
    assert not (tmp_path / "bench.json").exists()
