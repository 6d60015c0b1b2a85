"""The image libraries of the emulated device: their C interfaces, made by g++, on host memory."""

from __future__ import annotations

import ctypes
import hashlib
import subprocess
import tempfile
import threading
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.emulator.build import cache_folder, compiler_version, require_compiler
from zarrgpu.devices.nvjpeg import NvJpeg

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_HERE = Path(__file__).resolve().parent
_FLAGS = ("-std=c++20", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC")
_QUEUE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)
_now = threading.local()
"""``stream``: where the library that this thread is in puts its work."""


def build(source: Path, flags: Sequence[str] = _FLAGS) -> Path:
    """Shared library of one C++ file, kept for the next run."""
    require_compiler()
    text = source.read_bytes()
    key = hashlib.sha256(b"\0".join([text, " ".join(flags).encode(), compiler_version().encode()]))
    target = cache_folder() / f"{source.stem}-{key.hexdigest()[:24]}.so"
    if not target.is_file():
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            built = Path(folder) / "built"
            command = ["g++", *flags, str(source), "-o", str(built)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                msg = f"g++ does not compile {source.name}:\n{done.stderr}"
                raise RuntimeError(msg)
            built.replace(target)
    return target


@cache
def nvjpeg_on_host() -> NvJpeg:
    """Load ``nvjpeg_on_host.cpp`` with the class that calls the real library."""
    library = NvJpeg(str(build(_HERE / "nvjpeg_on_host.cpp")))
    functions = library._library
    functions.emulate_run.argtypes = [ctypes.c_void_p]

    @_QUEUE
    def queue(stream: int | None, job: int) -> None:
        assert (stream or 0) == _now.stream.handle, "queued on another stream"
        _now.stream.give(lambda: functions.emulate_run(job))

    functions.emulate_queue(queue)
    functions.kept = queue
    return library


IMAGE_LIBRARIES = {"jpeg": nvjpeg_on_host}


@contextmanager
def image_engine(*, engine: bool = True, skips: bool = False) -> Iterator[Callable[[], list[int]]]:
    """Choose what the library believes of the card; for drivers made inside.

    Parameters
    ----------
    engine : bool
        Whether there is a JPEG engine.
    skips : bool
        Whether the second image of each batch is left out, and nothing said.

    Yields
    ------
    callable
        Counts the batches since: those of the cores, those of the engine.
    """
    functions = nvjpeg_on_host()._library
    functions.emulate_engine(int(engine), int(skips))
    before = [functions.emulate_calls(i) for i in (0, 1)]
    try:
        yield lambda: [functions.emulate_calls(i) - before[i] for i in (0, 1)]
    finally:
        functions.emulate_engine(1, 0)


@contextmanager
def queued_on(stream: Any) -> Iterator[None]:
    """Let the library put its work on a stream."""
    _now.stream = stream
    try:
        yield
    finally:
        del _now.stream
