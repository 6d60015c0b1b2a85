"""Run zarr-python's own tests on its default pipeline and on ours, and write what came of it.

    python -m tests.zarr_python_suite.run --python VENV/bin/python --source zarr-3.4.2

VENV holds that zarr-python with its test dependencies, and zarrgpu (``pip install --no-deps -e .``:
the pipeline is found through its entry point). SOURCE is zarr-python's unpacked sdist
(``pip download --no-deps --no-binary zarr zarr==3.4.2``). Nothing in it is edited.

From zarr-python 3.3 on, its `CodecPipelineTests` are run on our pipeline as well. The result goes
to docs/benchmarks/zarr-python-suite.json, one entry for each version.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.benchmarks.harness import ROOT, write

PIPELINE = "zarrgpu.interop.zarr_python.Pipeline"
TESTS = [
    "tests/test_array.py",
    "tests/test_group.py",
    "tests/test_api.py",
    "tests/test_indexing.py",
    "tests/test_codecs",
    "tests/test_v2.py",
    "tests/test_properties.py",
]
SUITE = f'''
from tests.test_codec_pipeline_suite import CodecPipelineTests


class TestZarrgpu(CodecPipelineTests):
    pipeline_path = "{PIPELINE}"
'''
FACTS = """
import importlib.metadata, json, platform
names = {"zarr", "numpy", "numcodecs", "imagecodecs", "pytest", "zarrgpu"}
found = {d.name: d.version for d in importlib.metadata.distributions()}
versions = {name: found[name] for name in sorted(names & set(found))}
print(json.dumps({"python": platform.python_version(), "packages": versions}))
"""


def run_tests(
    python: str, source: Path, tests: list[str], *, pipeline: str | None, options: list[str]
) -> dict[str, Any]:
    """Run tests of the sdist at `source`; return the record that `recorder` wrote."""
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "record.json"
        env = {key: value for key, value in os.environ.items() if not key.startswith("ZARR_")}
        env["ZARRGPU_SUITE_RECORD"] = str(record)
        env["PYTHONPATH"] = f"{source}:{Path(__file__).parent}"
        if pipeline is not None:
            env["ZARR_CODEC_PIPELINE__PATH"] = pipeline
        command = [python, "-m", "pytest", "-q", "-p", "recorder", "-p", "no:cacheprovider"]
        done = subprocess.run(
            [*command, "-m", "not gpu", *options, *tests],
            cwd=source, env=env, text=True, capture_output=True, check=False,
        )  # fmt: skip
        if not record.exists():
            raise RuntimeError(done.stdout[-4000:] + done.stderr[-4000:])
        result: dict[str, Any] = json.loads(record.read_text())
        if result["failed"]:
            sys.stderr.write(done.stdout[-20_000:])
        return result


def run_pipeline_suite(python: str, source: Path) -> dict[str, Any] | None:
    """Run zarr-python's tests for any pipeline on ours, where its version has them."""
    if not (source / "tests" / "test_codec_pipeline_suite.py").exists():
        return None
    with tempfile.TemporaryDirectory() as folder:
        test = Path(folder) / "test_zarrgpu_suite.py"
        test.write_text(SUITE)
        options = ["-c", str(source / "pyproject.toml"), "--rootdir", str(source)]
        return run_tests(python, source, [str(test)], pipeline=PIPELINE, options=options)


def share(reads: dict[str, Any]) -> float:
    """Part of the reads by arrays that zarrgpu carried out."""
    ours, delegated = reads["reads"], reads["reads_delegated"]
    return round(ours / (ours + delegated), 4)


def main() -> int:
    """Run and write; exit with 1 if a test failed on our pipeline or fewer passed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", required=True, help="interpreter that has zarr and zarrgpu")
    parser.add_argument("--source", required=True, type=Path, help="unpacked sdist of zarr")
    arguments = parser.parse_args()
    source = arguments.source.resolve()
    facts = subprocess.run([arguments.python, "-c", FACTS], capture_output=True, check=True)
    default = run_tests(arguments.python, source, TESTS, pipeline=None, options=[])
    ours = run_tests(arguments.python, source, TESTS, pipeline=PIPELINE, options=[])
    suite = run_pipeline_suite(arguments.python, source)
    entry = {
        **json.loads(facts.stdout),
        "tests": TESTS,
        "default": default,
        "zarrgpu": ours,
        "codec_pipeline_tests": suite,
        "share_of_reads": share(ours["reads"]),
    }
    path = ROOT / "docs" / "benchmarks" / "zarr-python-suite.json"
    runs = json.loads(path.read_text())["runs"] if path.exists() else {}
    runs[entry["packages"]["zarr"]] = entry
    write("zarr-python-suite", {"runs": dict(sorted(runs.items()))})
    summary = {"default": default["passed"], "ours": ours["passed"], "failed": ours["failed"]}
    sys.stdout.write(json.dumps({**summary, "share": entry["share_of_reads"]}) + "\n")
    good = not ours["failed"] and ours["passed"] >= default["passed"]
    return 0 if good and (suite is None or not suite["failed"]) else 1


if __name__ == "__main__":
    sys.exit(main())
