"""Law: what pip installs is the whole library: package, type marker and CUDA sources, and no tests.

Wheels are built here and looked into; one is installed beside this environment and used.
"""

from __future__ import annotations

import configparser
import email
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import zarrgpu
from zarrgpu.devices.native import LIBRARY

ROOT = Path(__file__).resolve().parent.parent

pytest.importorskip("hatchling")


def pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "-qq", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), str(ROOT))
    (made,) = folder.iterdir()
    return made


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def sources(folder: Path, base: Path, *endings: str) -> set[str]:
    return {
        path.relative_to(base).as_posix()
        for path in folder.rglob("*")
        if path.suffix in endings and "__pycache__" not in path.parts
    }


def test_wheel_holds_the_package_and_the_kernels(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = sources(ROOT / "zarrgpu", ROOT, ".py", ".typed")
    endings = (".cu", ".cuh", ".cpp", ".h")
    kernels = {f"zarrgpu/{name}" for name in sources(ROOT / "kernels", ROOT, *endings)}
    assert len(kernels) > 3
    assert "zarrgpu/py.typed" in modules
    assert names >= modules | kernels
    others = {name for name in names if not name.startswith("zarrgpu/")}
    assert all(".dist-info/" in name for name in others), sorted(others)
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]


def test_wheel_is_of_any_python_and_licensed(wheel: Path, project: dict) -> None:
    """The compiled part knows nothing of Python, so that one wheel serves all versions."""
    compiled = f"zarrgpu/{LIBRARY.name}" in zipfile.ZipFile(wheel).namelist()
    assert compiled == any(map(shutil.which, ("c++", "g++", "clang++")))
    name, version, python, abi, platform = wheel.stem.split("-")
    assert (name, version, python, abi) == ("zarrgpu", zarrgpu.__version__, "py3", "none")
    assert (platform == "any") == (not compiled)
    with zipfile.ZipFile(wheel) as archive:
        info = f"zarrgpu-{zarrgpu.__version__}.dist-info"
        metadata = email.message_from_bytes(archive.read(f"{info}/METADATA"))
        entry_points = configparser.ConfigParser()
        entry_points.read_string(archive.read(f"{info}/entry_points.txt").decode())
        assert archive.read(f"{info}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    assert set(metadata.get_all("Provides-Extra")) == set(project["optional-dependencies"])
    assert "two commands" in metadata.get_payload().lower()  # the README is the description
    assert entry_points["console_scripts"]["zarrgpu"] == "zarrgpu.cli:main"


def test_one_version_everywhere(project: dict) -> None:
    assert project["version"] == zarrgpu.__version__
    assert f"## [{zarrgpu.__version__}]" in (ROOT / "CHANGELOG.md").read_text()
    assert f"\nversion: {zarrgpu.__version__}\n" in (ROOT / "CITATION.cff").read_text()


@pytest.mark.parametrize("how", ["wheel", "editable"])
def test_an_installation_finds_its_kernels(how: str, wheel: Path, tmp_path: Path) -> None:
    """From the wheel they are in the package, in a checkout beside it."""
    installed = tmp_path / "installed"
    what = [str(wheel)] if how == "wheel" else ["-e", str(ROOT)]
    pip("install", "--no-deps", "--no-build-isolation", "--target", str(installed), *what)
    code = (
        "import site, sys; site.addsitedir(sys.argv[1]); sys.path.insert(0, sys.argv[1])\n"
        "import zarrgpu\n"
        "from zarrgpu.devices.kernel_sources import kernels_folder\n"
        "print(zarrgpu.__file__); print(*sorted(p.name for p in kernels_folder().glob('*.cu')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(installed)],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    where, kernels = done.stdout.splitlines()
    assert Path(where).is_relative_to(installed if how == "wheel" else ROOT)
    assert kernels.split() == sorted(path.name for path in (ROOT / "kernels").glob("*.cu"))


def test_every_distribution_that_is_asked_for_is_pinned(project: dict) -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    made = ("demo", "slides", "torch", "cuda12", "cuda13", "gds", "gds12")
    asked = [*project["dependencies"]]
    asked += [need for extra in made for need in project["optional-dependencies"][extra]]
    asked += [need for group in groups.values() for need in group]
    pinned = {
        line.partition("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line and not line.startswith("#")
    }
    names = {need.split(">=")[0].split("[")[0].lower() for need in asked} - {"zarrgpu"}
    assert names - pinned == set()
