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
from typing import TYPE_CHECKING, Any, ClassVar

import imagecodecs
import numpy as np

from tests.emulator.build import cache_folder, compiler_version, require_compiler
from tests.emulator.ranges import read_table
from zarrgpu.codecs.base import CodecError
from zarrgpu.codecs.jpeg2k_stream import read_codestream
from zarrgpu.devices.nvjpeg import NvJpeg
from zarrgpu.devices.nvjpeg2k import IMAGE, INT16, UINT8, UINT16, NvJpeg2k

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


class HostJpeg2k(NvJpeg2k):
    """What `nvjpeg2k` calls of nvJPEG2000, by OpenJPEG (imagecodecs).

    Parameters
    ----------
    find_stream : callable
        Gives the driver's stream of a handle.
    """

    known: ClassVar[dict[bytes, list[np.ndarray]]] = {}
    """Planes of codestreams with subsampled components, which imagecodecs does not give as such."""

    def __init__(self, find_stream: Callable[[int], Any]) -> None:
        self.path, self.version = "openjpeg", (0, 11)
        self._find_stream = find_stream
        self._parsed: dict[int, bytes] = {}
        self._busy: dict[int, bool] = {}
        self._made = 0

    def create(self, name: str, *args: Any) -> int:
        self._made += 1
        return self._made

    def call(self, name: str, *args: Any) -> int:
        return {"nvjpeg2kStreamParse": self._parse, "nvjpeg2kDecode": self._decode}[name](*args)

    def _parse(self, handle: int, data: int, nbytes: int, *rest: int) -> int:
        *zeros, bitstream = rest
        assert zeros == [0, 0]
        self._parsed[bitstream] = ctypes.string_at(data, nbytes)
        try:
            read_codestream(self._parsed[bitstream])
        except CodecError:
            return 3
        return 0

    def _decode(self, handle: int, state: int, bitstream: int, image: int, stream: int) -> int:
        assert not self._busy.get(state), "a state was given an image before the last was done"
        self._busy[state] = True
        (said,) = read_table(image, IMAGE, 1)
        n = int(said["num_components"])
        channels = read_table(int(said["pixel_data"]), np.dtype("u8"), n).tolist()
        pitches = read_table(int(said["pitch_in_bytes"]), np.dtype("u8"), n).tolist()
        dtype = np.dtype({UINT8: "u1", UINT16: "u2", INT16: "i2"}[int(said["pixel_type"])])
        data = self._parsed[bitstream]

        def work() -> None:
            self._busy[state] = False
            try:
                planes = self.known.get(data) or _planes(data)
            except Exception:  # what is wrong with a tile, the library finds out too late to tell
                return
            for plane, channel, pitch in zip(planes, channels, pitches, strict=True):
                for y, row in enumerate(plane.astype(dtype)):
                    ctypes.memmove(channel + y * pitch, row.tobytes(), row.nbytes)

        self._find_stream(stream).give(work)
        return 0


def _planes(data: bytes) -> list[np.ndarray]:
    image = imagecodecs.jpeg2k_decode(data)
    return [image] if image.ndim == 2 else list(np.moveaxis(image, -1, 0))


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
