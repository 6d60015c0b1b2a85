"""Reading files straight into device memory by kvikio, where GPUDirect Storage is really there.

The only module that imports kvikio, and only inside functions. kvikio falls back to plain reads
through buffers of its own, one task at a time with a synchronisation each, wherever something is
missing; that is slower than reading into pinned memory. So `find_problem` looks for all that it
needs, and files are opened in the mode that fails where the direct path does not work.

Checked against kvikio 26.10 (Python sources, headers, and a run without a GPU): opening cuFile's
driver, or a file in that mode, hangs where there is no NVIDIA driver, which is why neither is tried
before ``nvidia-fs`` was seen.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zarrgpu.devices.requests import FileRead

_NVIDIA_FS = Path("/proc/driver/nvidia-fs")
_MAX_THREADS = 16
_MAX_OPEN_FILES = 256
"""kvikio opens each file twice; 1,024 descriptors are what a process commonly may have."""

_LOCK = threading.Lock()  # of kvikio's settings, which are the process's


def find_problem() -> str:
    """Say why files cannot be read by GPUDirect here, with what to do; empty if they can."""
    try:
        kvikio = _import_kvikio()
        compatible = kvikio.defaults.is_compat_mode_preferred()
    except Exception as error:  # a library that kvikio loads raises errors of its own
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        return f"kvikio does not import ({text}); run: pip install 'zarrgpu[gds]'"
    if compatible:
        return (
            "kvikio runs in compatibility mode: KVIKIO_COMPAT_MODE is set, libcufile is missing, "
            "or /run/udev cannot be read (in Docker: --volume /run/udev:/run/udev:ro)"
        )
    if not _NVIDIA_FS.exists():
        return f"the kernel module nvidia-fs is not loaded ({_NVIDIA_FS} is missing)"
    try:
        available = kvikio.cufile_driver.get("is_gds_available")
    except RuntimeError as error:
        return f"cuFile does not say whether GPUDirect Storage is there: {_text(error)}"
    if not available:
        return "cuFile finds no GPUDirect Storage; /usr/local/cuda/gds/tools/gdscheck says why"
    return ""


def version() -> str:
    """Version of kvikio; it must import."""
    return str(_import_kvikio().__version__)


class _Target:
    """Device memory as kvikio takes it."""

    __slots__ = ("__cuda_array_interface__",)

    def __init__(self, address: int, nbytes: int) -> None:
        self.__cuda_array_interface__ = {
            "shape": (nbytes,), "typestr": "|u1", "data": (address, False), "version": 3,
        }  # fmt: skip


def register(address: int, nbytes: int) -> bool:
    """Let files be read into an allocation without a detour; False where that cannot be."""
    try:
        _import_kvikio().memory_register(_Target(address, nbytes))
    except RuntimeError:  # too large for the card's window, for example: then with the detour
        return False
    return True


def deregister(address: int, nbytes: int) -> None:
    """Take back `register`, before the memory is freed."""
    _import_kvikio().memory_deregister(_Target(address, nbytes))


def start_reads(reads: Sequence[FileRead]) -> Callable[[], list[str]]:
    """Begin to read; see `Driver.read_files`. The device must be current."""
    kvikio = _import_kvikio()
    use_threads(kvikio)
    problems = [""] * len(reads)
    rows = sorted(range(len(reads)), key=lambda row: (reads[row].path, reads[row].offset))
    groups = _groups([reads[row].path for row in rows])
    wait: Callable[[], None] | None = None
    for first, last in groups:
        if wait is not None:
            wait()
        wait = _start_group(kvikio, reads, rows[first:last], problems)

    def finish() -> list[str]:
        if wait is not None:
            wait()
        return problems

    return finish


def _groups(paths: list[str]) -> list[tuple[int, int]]:
    """Cut sorted paths where more files would be open at once than may be."""
    cuts, files = [0], 0
    for row, path in enumerate(paths):
        if row == 0 or path != paths[row - 1]:
            if files == _MAX_OPEN_FILES:
                cuts.append(row)
                files = 0
            files += 1
    return list(zip(cuts, [*cuts[1:], len(paths)], strict=True))


def _start_group(
    kvikio: Any, reads: Sequence[FileRead], rows: list[int], problems: list[str]
) -> Callable[[], None]:
    """Open files and submit reads; what is returned waits for all of them and closes the files."""
    files: dict[str, Any] = {}
    futures: list[tuple[int, Any]] = []
    wait = partial(_finish_group, reads, futures, files, problems)
    try:
        for row in rows:
            read = reads[row]
            try:
                if read.path not in files:
                    files[read.path] = _open(kvikio, read.path)
                target = _Target(read.target, read.nbytes)
                future = files[read.path].pread(target, read.nbytes, read.offset)
            except Exception as error:  # of whatever type: what it reads comes another way
                problems[row] = _text(error)
                continue
            futures.append((row, future))
    except BaseException:
        wait()
        raise
    return wait


def _finish_group(
    reads: Sequence[FileRead],
    futures: list[tuple[int, Any]],
    files: dict[str, Any],
    problems: list[str],
) -> None:
    """Wait for all reads, even if this is interrupted: none may arrive later; close the files."""
    pending = iter(futures)
    try:
        for row, future in pending:
            try:
                got = future.get()
            except Exception as error:
                problems[row] = _text(error)
                continue
            if got != reads[row].nbytes:
                problems[row] = f"{got} of {reads[row].nbytes} bytes came"
    finally:
        for _, future in pending:
            with suppress(Exception):
                future.get()
        for file in files.values():
            file.close()


def _open(kvikio: Any, path: str) -> Any:
    """Open a file so that it is read directly or not at all."""
    # this is a setting of the process: files that others open meanwhile have it too
    with _LOCK, kvikio.defaults.set({"compat_mode": kvikio.CompatMode.OFF}):
        return kvikio.CuFile(path, "r")


def use_threads(kvikio: Any) -> None:
    """Let kvikio read with more than the one thread that it has, unless the user chose."""
    if "KVIKIO_NTHREADS" in os.environ:
        return
    with _LOCK:
        if kvikio.defaults.get("num_threads") == 1:
            kvikio.defaults.set("num_threads", min(_MAX_THREADS, os.cpu_count() or 1))


def _text(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _import_kvikio() -> Any:
    import kvikio
    import kvikio.cufile_driver
    import kvikio.defaults

    return kvikio
