"""Law: every example runs as it stands, on a CPU, and checks what it read."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent.parent / "examples"

EXAMPLES = {
    "ome_zarr_from_url": (["zarr"], "every pixel right"),
    "patches_from_sharded_zarr": (["zarr"], "200 patches (128, 128, 3), every pixel right"),
    "torch_dataloader": (
        ["torch", "skimage", "imagecodecs"],
        "64 patches of the grid in 4 batches",
    ),
    "train_on_slide": (["torch", "skimage", "imagecodecs"], "960 patches from"),
}
"""Name -> (packages, what it must print)."""


def test_all_examples_are_listed() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.py")) == sorted(EXAMPLES)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_example(name: str, tmp_path: Path) -> None:
    packages, expected = EXAMPLES[name]
    for package in packages:
        pytest.importorskip(package)
    done = subprocess.run(
        [sys.executable, "-W", "error", str(FOLDER / f"{name}.py")],
        capture_output=True, text=True, check=False, timeout=300,
        cwd=tmp_path, env={**os.environ, "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert expected in done.stdout
    if name == "train_on_slide":
        losses = [float(line.split()[-1]) for line in done.stdout.splitlines() if "loss" in line]
        assert losses[-1] < losses[0]
    lines = (FOLDER / f"{name}.py").read_text().splitlines()
    assert 30 <= len(lines) <= 80
