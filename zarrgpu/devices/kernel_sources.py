"""Find kernels/*.cu and compile them with NVRTC, which needs no GPU and no driver.

The sources are in ``kernels/`` beside the package in a checkout, in ``zarrgpu/kernels/`` in a
wheel. Compiled modules are kept on disk, keyed by everything that they depend on.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

from zarrgpu.errors import DeviceUnavailableError

OPTIONS = ("--std=c++17",)
"""NVRTC options besides the architecture."""


class Nvrtc(Protocol):
    """What is needed of NVRTC; `cupy_driver` gives CuPy's, the tests that of cuda-bindings."""

    def version(self) -> tuple[int, int]:
        """Major and minor version."""

    def architectures(self) -> list[int]:
        """Architectures it compiles for, as 75, 90, 120."""

    def compile(
        self,
        source: str,
        name: str,
        headers: dict[str, str],
        options: tuple[str, ...],
        *,
        ptx: bool,
    ) -> tuple[bytes, str]:
        """Return the cubin (or PTX) and the log; raise `CompileError` with the log."""


class CompileError(Exception):
    """NVRTC refused a source; the message is its log."""


@dataclass(frozen=True, slots=True)
class Module:
    """One compiled source file.

    Attributes
    ----------
    name : str
        File it came from.
    image : bytes
        Cubin, or PTX for an architecture that is newer than NVRTC.
    log : str
        What NVRTC said; empty when the image comes from the disk.
    """

    name: str
    image: bytes
    log: str


@cache
def kernels_folder() -> Path:
    """Folder of the kernel sources."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "kernels", package.parent / "kernels"):
        if (folder / "common.cuh").is_file():
            return folder
    msg = (
        f"kernel sources: none in {package / 'kernels'} nor {package.parent / 'kernels'}; "
        "the installation of zarrgpu is incomplete, install it again"
    )
    raise DeviceUnavailableError(msg)


def source_names() -> list[str]:
    """Names of the .cu files, sorted."""
    return sorted(path.name for path in kernels_folder().glob("*.cu"))


@cache
def headers() -> dict[str, str]:
    """Text of each .cuh file by its name."""
    return {path.name: path.read_text() for path in sorted(kernels_folder().glob("*.cuh"))}


def compile_module(
    name: str, architecture: int, nvrtc: Nvrtc, *, extra_options: tuple[str, ...] = ()
) -> Module:
    """Compile one .cu file, without looking at the disk cache.

    Parameters
    ----------
    name : str
        File in `kernels_folder`.
    architecture : int
        Compute capability as 90 or 120.
    nvrtc : Nvrtc
    extra_options : tuple of str
        After `OPTIONS`.
    """
    known = nvrtc.architectures()
    older = [a for a in known if a <= architecture]
    if not older:
        msg = (
            f"kernels: this NVRTC compiles for sm_{min(known)} and newer, the device is "
            f"sm_{architecture}; install an older CUDA, or use device='cpu'"
        )
        raise DeviceUnavailableError(msg)
    # A cubin runs on its own major architecture only; PTX is compiled further by a newer driver.
    ptx = architecture not in known
    target = f"compute_{max(older)}" if ptx else f"sm_{architecture}"
    options = (*OPTIONS, f"--gpu-architecture={target}", *extra_options)
    source = (kernels_folder() / name).read_text()
    image, log = nvrtc.compile(source, name, headers(), options, ptx=ptx)
    return Module(name, image, log)


def load_module(
    name: str, architecture: int, nvrtc: Nvrtc, *, folder: Path | None = None
) -> Module:
    """Compile one .cu file, or take it from the disk where it has been compiled before.

    A cache that cannot be written is no error: compilation takes a few seconds a process.
    """
    folder = cache_folder() if folder is None else folder
    path = folder / f"{Path(name).stem}-sm{architecture}-{_key(name, architecture, nvrtc)}.bin"
    with contextlib.suppress(OSError):
        return Module(name, path.read_bytes(), "")
    module = compile_module(name, architecture, nvrtc)
    with contextlib.suppress(OSError):
        write_atomically(path, module.image)
    return module


def cache_folder() -> Path:
    """Folder for compiled kernels: the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "zarrgpu" / "kernels"


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that other processes see all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _key(name: str, architecture: int, nvrtc: Nvrtc) -> str:
    texts = [repr((architecture, nvrtc.version(), OPTIONS)), (kernels_folder() / name).read_text()]
    for header, text in headers().items():
        texts += [header, text]
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:32]
