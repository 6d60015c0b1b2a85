"""Law: what the documents show runs, and what they point to exists.

The Python blocks of a page are one program, run in an empty folder.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import zarrgpu

ROOT = Path(__file__).resolve().parent.parent
PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
TEXTS = [*PAGES, "CONTRIBUTING.md", "CHANGELOG.md"]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PAGES_WITH_CODE = [page for page in PAGES if BLOCK.search((ROOT / page).read_text())]


def program(page: str) -> str:
    """The page's Python blocks, each on its own line, so that tracebacks point into the page."""
    text = (ROOT / page).read_text()
    lines = [""] * (text.count("\n") + 1)
    for block in BLOCK.finditer(text):
        first = text.count("\n", 0, block.start(1))
        for number, line in enumerate(block[1].splitlines(), first):
            lines[number] = line
    return "\n".join(lines)


def test_the_readme_has_code() -> None:
    assert {"README.md", "docs/quickstart.md", "docs/slides.md", "docs/training.md"} <= {
        *PAGES_WITH_CODE
    }


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES_WITH_CODE)
def test_code_of_a_page_runs(page: str, tmp_path: Path) -> None:
    code = program(page)
    packages = set(re.findall(r"^(?:import|from) (\w+)", code, re.MULTILINE))
    if "zarrgpu.demo" in code:
        packages |= {"skimage", "tifffile", "imagecodecs", "zarr"}
    for package in packages:
        pytest.importorskip(package)
    script = tmp_path / "page.py"
    script.write_text(code)
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        capture_output=True, text=True, check=False, timeout=300, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "gather" in done.stdout or page in ("docs/training.md", "docs/zarr-python.md")


@pytest.mark.parametrize("page", TEXTS)
def test_links_and_files_exist(page: str) -> None:
    text = (ROOT / page).read_text()
    for link in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text):
        if not link.startswith("http"):
            assert ((ROOT / page).parent / link).exists(), link
    folders = "zarrgpu|kernels|tests|examples|docs|codecs|devices|formats|plan"
    for name in re.findall(rf"`((?:{folders})/[\w./]*\w\.(?:py|cu|cuh|md))`", text):
        if "NAME" not in name:
            assert (ROOT / name).exists() or (ROOT / "zarrgpu" / name).exists(), name


def test_readme_is_short_and_leads_to_every_codec() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 150
    assert "(docs/zarr-support.md)" in text  # generated: tests/test_zarr_support.py


def test_api_page_covers_every_public_name() -> None:
    page = (ROOT / "docs/api.md").read_text()
    errors = set(zarrgpu._HOMES["errors"])
    for module, names in zarrgpu._HOMES.items():
        for name in set(names) - errors:
            assert f"::: zarrgpu.{module}.{name}\n" in page
    assert "::: zarrgpu.errors" in page


@pytest.mark.slow
def test_documentation_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings_handlers.python")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(tmp_path / "site")],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    api = (tmp_path / "site/api/index.html").read_text()
    for module, names in zarrgpu._HOMES.items():
        for name in names:
            assert f'id="zarrgpu.{module}.{name}"' in api


def test_contributing_counts_five_steps_twice() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    for kind in ("codec", "kernel"):
        section = text.split(f"## How to add a {kind}\n")[1].split("\n## ")[0]
        assert re.findall(r"^(\d)\. ", section, re.MULTILINE) == ["1", "2", "3", "4", "5"]
