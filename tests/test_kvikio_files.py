"""kvikio is used only where GPUDirect is there, waited for in any case, and left as it was.

No machine here has GPUDirect, and kvikio reads nothing without a GPU: `Kvikio` stands for it, with
the parts of its API that are used, reading into host memory. Where kvikio is installed, the last
tests hold the two together.
"""

from __future__ import annotations

import ctypes
import inspect
import os
import threading
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest

from zarrgpu.devices import kvikio_files
from zarrgpu.devices.requests import FileRead


class Future:
    def __init__(self, work):
        self.work = work
        self.waited = False

    def get(self) -> int:
        assert not self.waited
        self.waited = True
        return self.work()


class Kvikio:
    """A kvikio of its own settings and files."""

    CompatMode = SimpleNamespace(OFF="off", AUTO="auto")
    __version__ = "26.10.00"

    def __init__(self, *, compatible=False, gds=True):
        self.settings = {"compat_mode": "auto", "num_threads": 1}
        self.open_files, self.most_open, self.opened = 0, 0, 0
        self.futures: list[Future] = []
        self.memory: list[tuple[str, int]] = []
        self.defaults = SimpleNamespace(
            get=self.settings.__getitem__, set=self.set, is_compat_mode_preferred=lambda: compatible
        )
        self.cufile_driver = SimpleNamespace(get=lambda name: {"is_gds_available": gds}[name])

    def set(self, *config):
        changes = config[0] if len(config) == 1 else dict([config])
        old = {name: self.settings[name] for name in changes}
        self.settings.update(changes)

        @contextmanager
        def block():
            yield
            self.settings.update(old)

        return block()

    def CuFile(self, path, flags="r"):  # noqa: N802 - its name
        assert self.settings["compat_mode"] == "off"
        assert flags == "r"
        try:
            fd = os.open(path, os.O_RDONLY)
        except OSError as error:
            msg = f"Unable to open file.\nLinux system call error: {error}"
            raise RuntimeError(msg) from error
        self.open_files += 1
        self.opened += 1
        self.most_open = max(self.most_open, self.open_files)

        def pread(buf, size=None, file_offset=0, task_size=None):
            interface = buf.__cuda_array_interface__
            assert (interface["typestr"], interface["shape"]) == ("|u1", (size,))
            memory = (ctypes.c_uint8 * size).from_address(interface["data"][0])
            future = Future(lambda: os.preadv(fd, [memory], file_offset))
            self.futures.append(future)
            return future

        def close():
            assert all(future.waited for future in self.futures)
            self.open_files -= 1
            os.close(fd)

        return SimpleNamespace(pread=pread, close=close)

    def memory_register(self, buf):
        self.memory.append(("register", buf.__cuda_array_interface__["data"][0]))

    def memory_deregister(self, buf):
        self.memory.append(("deregister", buf.__cuda_array_interface__["data"][0]))


@pytest.fixture
def kvikio(monkeypatch, tmp_path):
    monkeypatch.delenv("KVIKIO_NTHREADS", raising=False)
    monkeypatch.setattr(kvikio_files, "_NVIDIA_FS", tmp_path)
    return use(monkeypatch, Kvikio())


def use(monkeypatch, stand_in):
    monkeypatch.setattr(kvikio_files, "_import_kvikio", lambda: stand_in)
    return stand_in


def test_it_says_what_is_missing(kvikio, monkeypatch, tmp_path):
    assert kvikio_files.find_problem() == ""
    use(monkeypatch, Kvikio(gds=False))
    assert "cuFile finds no GPUDirect Storage" in kvikio_files.find_problem()
    use(monkeypatch, Kvikio(compatible=True))
    assert "compatibility mode" in kvikio_files.find_problem()
    use(monkeypatch, Kvikio())
    monkeypatch.setattr(kvikio_files, "_NVIDIA_FS", tmp_path / "none")
    assert "nvidia-fs is not loaded" in kvikio_files.find_problem()

    def fail():
        raise RuntimeError("libcufile.so.0: no such file\nsearched in ...")

    monkeypatch.setattr(kvikio_files, "_import_kvikio", fail)
    problem = kvikio_files.find_problem()
    assert problem.startswith("kvikio does not import (libcufile.so.0: no such file); run: pip")


def test_many_reads_of_many_files(kvikio, monkeypatch, tmp_path):
    """Few files open at once, each once, all closed, every byte in its place."""
    monkeypatch.setattr(kvikio_files, "_MAX_OPEN_FILES", 3)
    rng = np.random.default_rng(0)
    contents = [rng.bytes(20_000) for _ in range(8)]
    for i, content in enumerate(contents):
        (tmp_path / f"{i}").write_bytes(content)
    memory = np.zeros((40, 4096), np.uint8)
    reads = []
    for row in range(40):
        file, block = int(rng.integers(0, 8)), int(rng.integers(0, 5))
        nbytes = min(4096, 20_000 - 4096 * block)
        target = memory[row].ctypes.data
        path = str(tmp_path / f"{file}")
        reads.append(FileRead(path=path, offset=4096 * block, nbytes=nbytes, target=target))
    wait = kvikio_files.start_reads(reads)
    assert kvikio.settings["compat_mode"] == "auto"
    assert wait() == [""] * 40
    for row, read in enumerate(reads):
        content = contents[int(read.path.rsplit("/", 1)[1])]
        got = memory[row, : read.nbytes].tobytes()
        assert got == content[read.offset : read.offset + read.nbytes]
    assert (kvikio.opened, kvikio.most_open, kvikio.open_files) == (8, 3, 0)
    assert all(future.waited for future in kvikio.futures)


def test_what_fails_is_said_and_the_rest_is_read(kvikio, tmp_path):
    (tmp_path / "short").write_bytes(bytes(5000))
    (tmp_path / "good").write_bytes(b"\x07" * 5000)
    memory = np.zeros((3, 8192), np.uint8)
    reads = [
        FileRead(path=str(tmp_path / name), offset=0, nbytes=n, target=memory[i].ctypes.data)
        for i, (name, n) in enumerate([("short", 8192), ("none", 4096), ("good", 5000)])
    ]
    problems = kvikio_files.start_reads(reads)()
    assert problems == ["5000 of 8192 bytes came", "Unable to open file.", ""]
    assert (memory[2, :5000] == 7).all()
    assert kvikio.open_files == 0
    assert kvikio_files.start_reads([])() == []


@pytest.mark.parametrize("error", [ValueError, OverflowError, KeyboardInterrupt])
@pytest.mark.parametrize("when", ["opened", "submitted", "waited for"])
def test_whatever_fails_all_that_was_begun_is_waited_for(
    kvikio, monkeypatch, tmp_path, error, when
):
    """What arrives later would be written over what the memory is used for then."""
    for name in "abc":
        (tmp_path / name).write_bytes(b"\x07" * 4096)
    memory = np.zeros((3, 4096), np.uint8)
    reads = [
        FileRead(path=str(tmp_path / name), offset=0, nbytes=4096, target=memory[i].ctypes.data)
        for i, name in enumerate("abc")
    ]
    plain = kvikio.CuFile

    def fail(*args):
        raise error("it broke")

    def cufile(path, flags):
        if not path.endswith("b"):
            return plain(path, flags)
        if when == "opened":
            fail()
        file = plain(path, flags)

        def pread(*args):
            if when == "submitted":
                fail()
            future = file.pread(*args)
            future.work = fail
            return future

        return SimpleNamespace(pread=pread, close=file.close)

    monkeypatch.setattr(kvikio, "CuFile", cufile)
    if error is KeyboardInterrupt:
        with pytest.raises(KeyboardInterrupt):
            kvikio_files.start_reads(reads)()
    else:
        assert kvikio_files.start_reads(reads)() == ["", "it broke", ""]
        assert (memory[[0, 2]] == 7).all()
    assert all(future.waited for future in kvikio.futures)
    assert kvikio.open_files == 0


def test_threads_are_the_users_choice_where_there_is_one(kvikio, monkeypatch):
    kvikio_files.use_threads(kvikio)
    chosen = kvikio.settings["num_threads"]
    assert chosen == min(16, os.cpu_count())
    kvikio.settings["num_threads"] = 5
    kvikio_files.use_threads(kvikio)
    assert kvikio.settings["num_threads"] == 5
    kvikio.settings["num_threads"] = 1
    monkeypatch.setenv("KVIKIO_NTHREADS", "1")
    kvikio_files.use_threads(kvikio)
    assert kvikio.settings["num_threads"] == 1


def test_memory_that_cannot_be_registered_is_used_all_the_same(kvikio, monkeypatch):
    assert kvikio_files.register(4096, 8192)
    kvikio_files.deregister(4096, 8192)
    assert kvikio.memory == [("register", 4096), ("deregister", 4096)]

    def fail(buf):
        raise RuntimeError("CU_FILE_NVFS_BAR_FULL")

    monkeypatch.setattr(kvikio, "memory_register", fail)
    assert not kvikio_files.register(4096, 8192)


def real():
    """kvikio, where it is installed and loads."""
    try:
        return kvikio_files._import_kvikio()
    except Exception as error:
        pytest.skip(f"kvikio: {error}")


def test_the_api_is_the_real_one():
    kvikio = real()
    stand_in = Kvikio()
    assert inspect.signature(kvikio.CuFile.pread).parameters.keys() - {"self"} == {
        "buf", "size", "file_offset", "task_size",
    }  # fmt: skip
    assert [*inspect.signature(kvikio.CuFile).parameters] == ["file", "flags"]
    assert callable(kvikio.CuFile.close)
    assert {"OFF", "AUTO"} <= {*dir(kvikio.CompatMode)}
    assert kvikio.defaults.get("num_threads") >= 1
    assert isinstance(kvikio.defaults.is_compat_mode_preferred(), bool)
    for name in ("memory_register", "memory_deregister"):
        assert [*inspect.signature(getattr(kvikio, name)).parameters] == ["buf"]
        assert hasattr(stand_in, name)
    assert kvikio_files.version().startswith("26.")


def test_the_real_one_without_a_gpu_says_why(tmp_path):
    """And neither hangs nor dies, as it does where one opens its driver."""
    real()
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(kvikio_files.find_problem()), daemon=True)
    thread.start()
    thread.join(20)
    assert len(found) == 1
    if not kvikio_files._NVIDIA_FS.exists():
        assert "compatibility mode" in found[0] or "nvidia-fs" in found[0]


def test_targets_are_what_the_real_one_takes():
    kvikio = real()
    from kvikio._lib.arr import asarray

    array = asarray(kvikio_files._Target(1 << 40, 12_288))
    assert (array.cuda, array.nbytes, array.contiguous) == (True, 12_288, True)
    del kvikio
