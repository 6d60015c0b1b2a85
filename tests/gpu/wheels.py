"""Collect what tests/gpu/run needs on a machine without a network, within what may travel.

usage: python -m tests.gpu.wheels FOLDER [--python 3.12] [--limit-mib 58]

Wheels for x86-64 Linux are downloaded without dependencies, most important first, and made smaller:
files of other Pythons, tests, headers, and the codecs of imagecodecs that nothing here uses are
left out. What would go over the limit is left out and named: its part of the run then says that it
is missing. tensorstore, torch, CuPy, hypothesis, tifffile and pytest are on the machine already.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import lzma
import re
import subprocess
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path

WANTED = (
    "nvidia-libnvcomp-cu13", "numcodecs", "google-crc32c", "zstandard", "donfig", "zarr==3.1.6",
    "imagecodecs", "nvidia-nvjpeg", "nvidia-nvjpeg2k-cu13", "zarrs", "pydicom", "kvikio-cu13",
    "libkvikio-cu13", "rapids-logger", "nibabel", "nvidia-nvimgcodec-cu13",
)  # fmt: skip
"""Most important first."""

GLIBC = ("2_39", "2_35", "2_34", "2_31", "2_28", "2_27", "2_24", "2_17")
PLATFORMS = (*(f"manylinux_{g}_x86_64" for g in GLIBC), "manylinux2014_x86_64", "any")
UNUSED = re.compile(
    r"/bin/nvlzcat$|libopencv_ext|/include/|nsys-plugins/|/tools/|/tests?/|\.a$|\.pyx$|/_cffi\.|libnvcomp_cpu"
    r"|/test_files/|/test_data/"
)
IMAGECODECS_UNUSED = re.compile(
    r"lib(aom|avif|jxl|SZ3|cpcodec|dav1d|heif|hwy|brotli|blosc2|zfp|sperr|sz)"
    r"|_(avif|jpegxl|sz3|pcodec|cms|cfitsio|ultrahdr|heif|spng|blosc2|brotli|zfp|sperr|mozjpeg|brunsli"
    r"|htj2k|openzl|meshopt|wavpack|dds|bcn|qoi|rcomp|aec|h5|szip|bz2|bfloat)[.\w]*\.so$"
)


def kept(path: str, wheel: str, python: str) -> bool:
    """Whether a file of a wheel travels."""
    tag = re.search(r"\.cpython-(\d+)(t?)-", path)
    if tag and (tag[1] != python.replace(".", "") or tag[2]):
        return False
    if wheel.startswith("imagecodecs") and IMAGECODECS_UNUSED.search(path):
        return False
    return not UNUSED.search(path)


def download(name: str, python: str, folder: Path) -> Path:
    """One wheel, without what it depends on."""
    flags = [flag for platform in PLATFORMS for flag in ("--platform", platform)]
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:"]
    command += ["--python-version", python, "--implementation", "cp", *flags, "-d", str(folder)]
    subprocess.run([*command, name], check=True, stderr=subprocess.DEVNULL)
    (wheel,) = folder.glob("*.whl")
    return wheel


def smallest(data: bytes) -> int:
    """Compression of a zip that makes the least of a file; pip reads both."""
    packed = len(lzma.compress(data, lzma.FORMAT_ALONE))
    return zipfile.ZIP_LZMA if packed < len(zlib.compress(data, 9)) else zipfile.ZIP_DEFLATED


def slim(wheel: Path, python: str, folder: Path) -> Path:
    """The same wheel with the files that travel, and a RECORD of those."""
    records = []
    target = folder / wheel.name
    with (
        zipfile.ZipFile(wheel) as source,
        zipfile.ZipFile(target, "w", compresslevel=9) as out,
    ):
        record = next(n for n in source.namelist() if n.endswith(".dist-info/RECORD"))
        for item in source.infolist():
            if item.is_dir() or item.filename == record:
                continue
            if not kept(item.filename, wheel.name, python):
                continue
            data = source.read(item)
            out.writestr(item, data, smallest(data))
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            records.append(f"{item.filename},sha256={digest},{len(data)}")
        out.writestr(record, "\n".join([*records, f"{record},,"]) + "\n")
    return target


def main() -> None:
    """Collect as many as fit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--python", default="3.12")
    parser.add_argument("--limit-mib", type=float, default=58, help="64 less the working tree")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    used = 0.0
    for name in WANTED:
        with tempfile.TemporaryDirectory() as raw:
            wheel = slim(download(name, args.python, Path(raw)), args.python, args.folder)
        size = wheel.stat().st_size / 2**20
        if used + size > args.limit_mib:
            wheel.unlink()
            print(f"{size:7.1f} MiB  {wheel.name}: left out, it does not fit")
            continue
        used += size
        print(f"{size:7.1f} MiB  {wheel.name}")
    print(f"{used:7.1f} MiB  in {args.folder}")


if __name__ == "__main__":
    main()
