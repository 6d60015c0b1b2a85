"""Law: zarrgpu needs NumPy and a few small packages, imports fast, and asks for the rest when used.

Everything here runs in a fresh interpreter: this one has imported too much already.
"""

from __future__ import annotations

import ast
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numcodecs
import numpy as np
import pytest

import zarrgpu

if TYPE_CHECKING:
    from collections.abc import Mapping

OPTIONAL = ("cupy", "torch", "kvikio", "imagecodecs", "zarr", "tifffile", "matplotlib", "skimage",
            "nvidia", "cuda", "s3fs", "aiohttp")  # fmt: skip

LIMIT_S = 0.15
"""What `import zarrgpu` may take, less the interpreter's own start."""

BLOCK = f"""
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {OPTIONAL!r}:
            raise ImportError(name + " is blocked")
sys.meta_path.insert(0, Block())
"""


def run(code: str, *arguments: str, env: Mapping[str, str] | None = None) -> str:
    """Output of `code` in a fresh interpreter; its errors fail the test."""
    command = [sys.executable, "-W", "error", "-c", code, *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, **(env or {})}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def write_array(folder: Path) -> np.ndarray:
    """Write a small Zarr v3 array of zstd chunks by hand, and give what is in it."""
    values = np.arange(48 * 40, dtype="<u2").reshape(48, 40)
    zstd = numcodecs.Zstd(level=1)
    for i, j in np.ndindex(3, 2):
        chunk = folder / "c" / str(i) / str(j)
        chunk.parent.mkdir(parents=True, exist_ok=True)
        part = np.ascontiguousarray(values[16 * i : 16 * i + 16, 20 * j : 20 * j + 20])
        chunk.write_bytes(zstd.encode(part))
    metadata = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [48, 40],
        "data_type": "uint16",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [16, 20]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
        "codecs": [
            {"name": "bytes", "configuration": {"endian": "little"}},
            {"name": "zstd", "configuration": {"level": 1, "checksum": False}},
        ],
    }
    (folder / "zarr.json").write_text(json.dumps(metadata))
    return values


def seconds(code: str) -> float:
    """Median time of a fresh interpreter that runs `code`."""
    times = []
    for _ in range(5):
        began = time.perf_counter()
        run(code)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def test_import_is_fast() -> None:
    run("import zarrgpu")  # writes the bytecode
    for _ in range(3):  # a busy machine gets two more chances
        took = seconds("import zarrgpu") - seconds("pass")
        if took < LIMIT_S:
            return
    pytest.fail(f"import zarrgpu took {took:.3f} s, the limit is {LIMIT_S} s")


@pytest.mark.parametrize("use", ["import zarrgpu", "from zarrgpu import *", "import zarrgpu.cli"])
def test_import_brings_nothing_optional(use: str) -> None:
    code = f"{use}\nimport sys\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    loaded = set(run(code).split())
    assert not loaded & {*OPTIONAL, "fsspec", "numcodecs", "google_crc32c"}


def test_import_touches_no_gpu() -> None:
    code = (
        "import sys\nopened = []\n"
        "def hear(event, args):\n    if event == 'ctypes.dlopen': opened.append(args[0])\n"
        "sys.addaudithook(hear)\n"
        "from zarrgpu import *\nimport ctypes; ctypes.CDLL(None)\nprint(opened)"
    )
    opened = ast.literal_eval(run(code))
    assert None in opened  # the hook hears
    assert not [name for name in opened if name and ("cu" in name or "nv" in name)]


def test_a_zarr_is_read_with_every_optional_package_absent(tmp_path: Path) -> None:
    values = write_array(tmp_path)
    code = BLOCK + (
        "import zarrgpu, numpy as np\n"
        "array = zarrgpu.open(sys.argv[1])\n"
        "patches = array.read_patches([[3, 5], [30, 30]], (20, 20))\n"
        "np.save(sys.argv[2], array[...]); np.save(sys.argv[3], patches)\n"
        f"assert not set(sys.modules) & set({OPTIONAL!r})\n"
    )
    whole, patches = tmp_path / "whole.npy", tmp_path / "patches.npy"
    run(code, str(tmp_path), str(whole), str(patches))
    np.testing.assert_array_equal(np.load(whole), values)
    np.testing.assert_array_equal(np.load(patches)[0], values[3:23, 5:25])
    np.testing.assert_array_equal(np.load(patches)[1, :18, :10], values[30:, 30:])
    assert not np.load(patches)[1, 18:].any()


@pytest.mark.parametrize(
    ("use", "error", "message"),
    [
        ("from zarrgpu.interop.torch import to_torch; to_torch([])", "MissingDependencyError",
         "pip install 'zarrgpu[torch]'"),
        ("zarrgpu.open(sys.argv[1]).read(device='cuda')", "DeviceUnavailableError", "cupy"),
    ],
)  # fmt: skip
def test_what_is_absent_is_named_when_it_is_needed(
    tmp_path: Path, use: str, error: str, message: str
) -> None:
    write_array(tmp_path)
    code = BLOCK + (
        f"import zarrgpu\ntry:\n    {use}\nexcept zarrgpu.{error} as error:\n    print(error)\n"
    )
    assert message in run(code, str(tmp_path))


def test_public_names_agree() -> None:
    lazy = [name for names in zarrgpu._HOMES.values() for name in names]
    assert sorted(zarrgpu.__all__) == sorted([*lazy, "__version__"])
    tree = ast.parse(Path(zarrgpu.__file__).read_text())
    guarded = next(node for node in tree.body if isinstance(node, ast.If))
    typed = {
        (node.module, alias.name)
        for node in guarded.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    homes = {(f"zarrgpu.{home}", name) for home, names in zarrgpu._HOMES.items() for name in names}
    assert typed == homes
    for name in zarrgpu.__all__:
        assert getattr(zarrgpu, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'opne'"):
        _ = zarrgpu.opne
