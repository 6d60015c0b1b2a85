"""Law: the pictures of docs/gallery.md are what its calls make."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.slow
def test_pictures_are_what_the_page_makes(tmp_path):
    for package in ("PIL", "skimage", "tifffile", "imagecodecs", "zarr", "nibabel"):
        pytest.importorskip(package)
    done = subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "scripts" / "gallery"), "--check"],
        capture_output=True, text=True, check=False, timeout=300, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_every_picture_is_shown():
    page = (ROOT / "docs" / "gallery.md").read_text()
    for path in (ROOT / "docs" / "gallery").iterdir():
        assert f"(gallery/{path.name})" in page
