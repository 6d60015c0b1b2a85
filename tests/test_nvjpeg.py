"""nvJPEG and nvJPEG2000 are called as their headers say; each image gets a status of its own.

Both libraries load without a GPU: where a wheel is installed, or unpacked at a path in
ZARRGPU_TEST_NVJPEG (several separated by ``:``), its header is compiled with what is written here,
and its functions that need no GPU are called. The classes run on the emulated libraries.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import subprocess
import threading
from pathlib import Path
from types import SimpleNamespace

import imagecodecs
import numpy as np
import pytest

from tests.emulator import EmulatedDriver
from tests.emulator import images as emulated
from tests.emulator.build import require_compiler
from tests.synthetic_slides import encode_j2k, encode_jpeg, tissue
from zarrgpu.devices import image_library, nvjpeg, nvjpeg2k, wheels
from zarrgpu.devices.images import ImageDecoders
from zarrgpu.devices.requests import ImageBatch
from zarrgpu.devices.resolve import cuda_problem
from zarrgpu.devices.tables import IMAGE_PLANES
from zarrgpu.errors import (
    DeviceLostError,
    DeviceUnavailableError,
    MemoryBudgetError,
    MissingDependencyError,
)

HEIGHT, WIDTH = 19, 27


def wheel_folders() -> list[Path]:
    """Folders that hold ``nvidia`` of a wheel."""
    folders = [Path(p) for p in os.environ.get("ZARRGPU_TEST_NVJPEG", "").split(":") if p]
    spec = importlib.util.find_spec("nvidia")
    places = (spec.submodule_search_locations or ()) if spec else ()
    return [*folders, *(Path(place).parent for place in places)]


def found(*patterns: str) -> list[Path]:
    return [p for folder in wheel_folders() for pattern in patterns for p in folder.glob(pattern)]


def one_of_each(paths: list[Path], reason: str):
    return paths or [pytest.param(None, marks=pytest.mark.skip(reason=reason))]


JPEG_HEADERS = one_of_each(found("nvidia/*/include/nvjpeg.h"), "no wheel of nvJPEG")
JPEG2K_HEADERS = one_of_each(found("nvidia/*/include/nvjpeg2k.h"), "no wheel of nvJPEG2000")
JPEG_LIBRARIES = one_of_each(found("nvidia/*/lib/libnvjpeg.so.*"), "no wheel of nvJPEG")
JPEG2K_LIBRARIES = one_of_each(found("nvidia/*/lib/libnvjpeg2k.so.*"), "no wheel of nvJPEG2000")


def cuda_include() -> list[str]:
    """Flags for CUDA's headers; skips the test without them."""
    places = [
        Path("/usr/local/cuda/include"),
        *(p.parent for p in found("nvidia/*/include/cuda_runtime_api.h")),
    ]
    for place in places:
        if (place / "cuda_runtime_api.h").is_file():
            return [f"-I{place}"]
    pytest.skip("no headers of CUDA")


def run_program(tmp_path: Path, declared: str, printed: str, header: Path) -> list[int]:
    """Numbers that a program prints; `declared` is only compiled, so that nothing is linked."""
    require_compiler()
    flags = [*cuda_include(), f"-I{header.parent}", "-std=c++20"]
    file, program = tmp_path / "abi.cpp", tmp_path / "abi"
    include = f'#include "{header.name}"\n'
    file.write_text(include + declared)
    subprocess.run(["g++", *flags, "-fsyntax-only", str(file)], check=True)
    body = f"const long long values[] = {{{printed}}};\n"
    body += 'int main() { for (long long v : values) printf("%lld ", v); }'
    file.write_text(include + "#include <cstddef>\n#include <cstdio>\n" + body)
    subprocess.run(["g++", *flags, str(file), "-o", str(program)], check=True)
    done = subprocess.run([str(program)], check=True, capture_output=True, text=True)
    return [int(word) for word in done.stdout.split()]


# ---- the headers ---------------------------------------------------------------------------------

JPEG_DECLARED = r"""
nvjpegStatus_t (*a)(libraryPropertyType, int*) = nvjpegGetProperty;
nvjpegStatus_t (*b)(nvjpegBackend_t, nvjpegDevAllocator_t*, nvjpegPinnedAllocator_t*, unsigned int,
                    nvjpegHandle_t*) = nvjpegCreateEx;
nvjpegStatus_t (*c)(nvjpegHandle_t) = nvjpegDestroy;
nvjpegStatus_t (*d)(nvjpegHandle_t, nvjpegJpegState_t*) = nvjpegJpegStateCreate;
nvjpegStatus_t (*e)(nvjpegJpegState_t) = nvjpegJpegStateDestroy;
nvjpegStatus_t (*f)(nvjpegHandle_t, nvjpegJpegState_t, const unsigned char*, const size_t) =
    nvjpegDecodeBatchedParseJpegTables;
nvjpegStatus_t (*g)(nvjpegHandle_t, nvjpegJpegState_t, int, int, nvjpegOutputFormat_t) =
    nvjpegDecodeBatchedInitialize;
nvjpegStatus_t (*h)(nvjpegHandle_t, nvjpegJpegState_t, const unsigned char* const*, const size_t*,
                    nvjpegImage_t*, cudaStream_t) = nvjpegDecodeBatched;
"""
JPEG_PRINTED = """
sizeof(nvjpegImage_t), offsetof(nvjpegImage_t, pitch),
sizeof(nvjpegStatus_t), sizeof(nvjpegBackend_t), sizeof(size_t),
NVJPEG_BACKEND_HARDWARE, NVJPEG_BACKEND_GPU_HYBRID, NVJPEG_OUTPUT_UNCHANGED, NVJPEG_STATUS_BAD_JPEG,
NVJPEG_STATUS_ALLOCATOR_FAILURE, NVJPEG_STATUS_INCOMPLETE_BITSTREAM, MAJOR_VERSION, MINOR_VERSION
"""
JPEG_VALUES = [64, 32, 4, 4, 8, 3, 2, 0, 3, 5, 10, 0, 1]
"""Taken from nvjpeg.h of 12.4 and 13.3."""

JPEG2K_DECLARED = r"""
typedef nvjpeg2kStatus_t S;
S (*a)(libraryPropertyType, int*) = nvjpeg2kGetProperty;
S (*b)(nvjpeg2kHandle_t*) = nvjpeg2kCreateSimple;
S (*c)(nvjpeg2kHandle_t) = nvjpeg2kDestroy;
S (*d)(nvjpeg2kHandle_t, nvjpeg2kDecodeState_t*) = nvjpeg2kDecodeStateCreate;
S (*e)(nvjpeg2kDecodeState_t) = nvjpeg2kDecodeStateDestroy;
S (*f)(nvjpeg2kStream_t*) = nvjpeg2kStreamCreate;
S (*g)(nvjpeg2kStream_t) = nvjpeg2kStreamDestroy;
S (*h)(nvjpeg2kHandle_t, const unsigned char*, size_t, int, int, nvjpeg2kStream_t) =
    nvjpeg2kStreamParse;
S (*i)(nvjpeg2kHandle_t, nvjpeg2kDecodeState_t, nvjpeg2kStream_t, nvjpeg2kImage_t*, cudaStream_t) =
    nvjpeg2kDecode;
"""
JPEG2K_PRINTED = """
sizeof(nvjpeg2kImage_t), offsetof(nvjpeg2kImage_t, pitch_in_bytes),
offsetof(nvjpeg2kImage_t, pixel_type),
offsetof(nvjpeg2kImage_t, num_components), NVJPEG2K_UINT8, NVJPEG2K_UINT16,
NVJPEG2K_INT16, NVJPEG2K_STATUS_BAD_JPEG, NVJPEG2K_STATUS_ALLOCATOR_FAILURE
"""
JPEG2K_VALUES = [24, 8, 16, 20, 0, 1, 2, 3, 5]
"""Taken from nvjpeg2k.h of 0.11."""


def test_what_is_written_here_is_what_was_taken_from_the_headers():
    backends = nvjpeg.BACKENDS
    names = [nvjpeg.STATUS_NAMES[i] for i in (3, 5, 10)]
    assert names == ["bad jpeg", "allocator failure", "incomplete bitstream"]
    ours = [IMAGE_PLANES.itemsize, IMAGE_PLANES.fields["pitch"][1], 4, 4, 8]
    ours += [backends["hardware"], backends["gpu_hybrid"], nvjpeg.OUTPUT_UNCHANGED, 3, 5, 10, 0, 1]
    assert ours == JPEG_VALUES
    fields = nvjpeg2k.IMAGE.fields
    at = [fields[name][1] for name in ("pitch_in_bytes", "pixel_type", "num_components")]
    types = [nvjpeg2k.UINT8, nvjpeg2k.UINT16, nvjpeg2k.INT16]
    assert [nvjpeg2k.IMAGE.itemsize, *at, *types, 3, 5] == JPEG2K_VALUES
    shared = image_library.STATUS_NAMES
    assert (shared[3], shared[5]) == ("bad jpeg", "allocator failure")


@pytest.mark.parametrize("header", JPEG_HEADERS)
def test_nvjpeg_h_says_the_same(tmp_path, header):
    assert run_program(tmp_path, JPEG_DECLARED, JPEG_PRINTED, header) == JPEG_VALUES


@pytest.mark.parametrize("header", JPEG2K_HEADERS)
def test_nvjpeg2k_h_says_the_same(tmp_path, header):
    assert run_program(tmp_path, JPEG2K_DECLARED, JPEG2K_PRINTED, header) == JPEG2K_VALUES


@pytest.mark.parametrize("header", JPEG_HEADERS)
def test_the_emulated_library_has_the_declarations_of_the_header(header):
    source = Path(emulated.__file__).with_name("nvjpeg_on_host.cpp")
    flags = ["-std=c++20", "-DREAL_HEADER", "-fsyntax-only", f"-I{header.parent}", *cuda_include()]
    require_compiler()
    subprocess.run(["g++", *flags, str(source)], check=True)


def test_arguments_are_as_many_and_as_wide_as_in_the_declarations():
    sizes = {ctypes.c_void_p: "p", ctypes.c_size_t: "z", ctypes.c_int: "i", ctypes.c_uint: "i"}
    said = {n: "".join(sizes[t] for t in a) for n, a in nvjpeg.SIGNATURES.items()}
    assert said == {
        "nvjpegGetProperty": "ip", "nvjpegCreateEx": "ippip", "nvjpegDestroy": "p",
        "nvjpegJpegStateCreate": "pp", "nvjpegJpegStateDestroy": "p",
        "nvjpegDecodeBatchedParseJpegTables": "pppz", "nvjpegDecodeBatchedInitialize": "ppiii",
        "nvjpegDecodeBatched": "pppppp",
    }  # fmt: skip
    said = {n: "".join(sizes[t] for t in a) for n, a in nvjpeg2k.SIGNATURES.items()}
    assert said == {
        "nvjpeg2kGetProperty": "ip", "nvjpeg2kCreateSimple": "p", "nvjpeg2kDestroy": "p",
        "nvjpeg2kDecodeStateCreate": "pp", "nvjpeg2kDecodeStateDestroy": "p",
        "nvjpeg2kStreamCreate": "p", "nvjpeg2kStreamDestroy": "p",
        "nvjpeg2kStreamParse": "ppziip", "nvjpeg2kDecode": "ppppp",
    }  # fmt: skip


# ---- the real libraries --------------------------------------------------------------------------


@pytest.mark.parametrize("path", JPEG_LIBRARIES)
def test_the_real_nvjpeg_has_every_function(path):
    library = nvjpeg.NvJpeg(str(path))
    assert library.version >= (12, 0)
    if cuda_problem():  # without a GPU it makes no handle, and says so
        assert library.create_handle(nvjpeg.BACKENDS["gpu_hybrid"]) is None
        decoder = nvjpeg.JpegDecoder(library, lambda: None)
        with pytest.raises(DeviceUnavailableError, match="no decoder for this device"):
            decoder.open()


@pytest.mark.parametrize("path", JPEG2K_LIBRARIES)
def test_the_real_nvjpeg2000_parses_without_a_gpu(path):
    library = nvjpeg2k.NvJpeg2k(str(path))
    assert library.version >= (0, 8)
    handle = library.create("nvjpeg2kCreateSimple")
    bitstream = library.create("nvjpeg2kStreamCreate")

    def parse(data: bytes) -> int:
        kept = np.frombuffer(data, np.uint8)
        args = (handle, kept.ctypes.data, kept.size, 0, 0, bitstream)
        return library.call("nvjpeg2kStreamParse", *args)

    stream = encode_j2k(tissue(HEIGHT, WIDTH), "j2k-rgb")
    assert parse(stream) == 0
    assert parse(stream[40:]) in image_library.STATUS_NAMES.keys() - {0}
    assert library.call("nvjpeg2kStreamDestroy", bitstream) == 0
    assert library.call("nvjpeg2kDestroy", handle) == 0


# ---- what is not there ---------------------------------------------------------------------------


@pytest.mark.parametrize("module", [nvjpeg, nvjpeg2k])
def test_what_is_missing_is_said_with_what_to_install(module, monkeypatch, tmp_path):
    load, kind = (
        (nvjpeg.load_nvjpeg, nvjpeg.NvJpeg)
        if module is nvjpeg
        else (nvjpeg2k.load_nvjpeg2k, nvjpeg2k.NvJpeg2k)
    )
    monkeypatch.setattr(module, "candidates", lambda: [str(tmp_path / "lib.so"), "libc.so.6"])
    load.cache_clear()
    try:
        with pytest.raises(MissingDependencyError, match=r"does not load.*pip install 'zarrgpu"):
            load()
    finally:
        load.cache_clear()
    with pytest.raises(DeviceUnavailableError, match="lacks a function"):
        kind("libc.so.6")


def test_wheels_are_looked_through_before_the_system(tmp_path, monkeypatch):
    for folder in ("a/cu13/lib", "b/nvjpeg/lib"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "a/cu13/lib/libx.so.13").touch()
    (tmp_path / "b/nvjpeg/lib/libx.so.12").touch()
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path / "a"), str(tmp_path / "b")])
    monkeypatch.setattr(wheels.importlib.util, "find_spec", lambda name: spec)
    got = wheels.find_libraries(("libx.so.13", "libx.so.12"), ("cu13/lib", "nvjpeg/lib"))
    assert got == [
        str(tmp_path / "a/cu13/lib/libx.so.13"), str(tmp_path / "b/nvjpeg/lib/libx.so.12"),
        "libx.so.13", "libx.so.12",
    ]  # fmt: skip
    monkeypatch.setattr(wheels.importlib.util, "find_spec", lambda name: None)
    assert wheels.find_libraries(("libx.so.13",), ("lib",)) == ["libx.so.13"]


def test_a_library_that_is_absent_leaves_its_format_out():
    def absent():
        raise MissingDependencyError("not here")

    driver = EmulatedDriver()
    decoders = ImageDecoders(
        driver.create_event, driver.create_stream, driver.activate,
        {"jpeg": emulated.nvjpeg_on_host, "jpeg2k": absent},
    )  # fmt: skip
    assert dict(decoders) == {"jpeg": "nvJPEG 13.3"}


@pytest.mark.parametrize("library", [nvjpeg.NvJpeg, nvjpeg2k.NvJpeg2k])
def test_statuses_that_no_image_is_to_blame_for_are_errors(library):
    assert library.check("it", 0) is None
    with pytest.raises(DeviceUnavailableError, match=r"^it: status 77$"):
        library.check("it", 77)
    with pytest.raises(MemoryBudgetError, match="it: allocator failure: out of memory"):
        library.check("it", 5)
    with pytest.raises(DeviceUnavailableError, match="it: execution failed"):
        library.check("it", 6)


# ---- batches -------------------------------------------------------------------------------------


class Bench:
    """Images in pinned memory of an emulated device, and planes for them."""

    def __init__(self, *, lazy: bool = True) -> None:
        self.driver = EmulatedDriver(lazy=lazy)
        self.stream = self.driver.create_stream()
        self.kept: list[object] = []

    def batch(self, streams: list[bytes], tables: bytes = b"", samples: int = 3) -> ImageBatch:
        n, plane = len(streams), 32 * HEIGHT
        pinned = [self.driver.allocate_pinned(len(s)) for s in streams]
        for memory, stream in zip(pinned, streams, strict=True):
            memory.array[:] = np.frombuffer(stream, np.uint8)
        room = self.driver.allocate(n * samples * plane, self.stream)
        room.array[:] = 7
        planes = np.zeros(n, IMAGE_PLANES)
        first = room.ptr + np.arange(n)[:, None] * samples * plane
        planes["channel"][:, :samples] = first + np.arange(samples) * plane
        planes["pitch"][:, :samples] = 32
        self.kept += [pinned, room, tables]
        self.pixels = room.array.reshape(n, samples, HEIGHT, 32)[..., :WIDTH]
        address = np.frombuffer(tables, np.uint8).ctypes.data if tables else 0
        return ImageBatch(
            sources=np.array([m.ptr for m in pinned], np.uint64),
            source_nbytes=np.array([len(s) for s in streams], np.uint64),
            planes=planes, samples=np.full(n, samples), sample_nbytes=np.ones(n, np.int64),
            signed=np.zeros(n, np.bool_), tables=np.full(n, address),
            tables_nbytes=np.full(n, len(tables)), statuses=np.full(n, -1, np.int32),
        )  # fmt: skip


def jpegs(n: int) -> list[bytes]:
    options = {"level": 90, "colorspace": "rgb", "outcolorspace": "rgb", "subsampling": "444"}
    return [imagecodecs.jpeg8_encode(tissue(HEIGHT, WIDTH, seed=i), **options) for i in range(n)]


def truth(stream: bytes) -> np.ndarray:
    stored = imagecodecs.jpeg8_decode(stream, colorspace="rgb", outcolorspace="rgb")
    return np.moveaxis(stored, -1, 0)


def without_tables(stream: bytes) -> bytes:
    """A stream whose Huffman tables are comments: the library refuses it."""
    return stream.replace(b"\xff\xc4", b"\xff\xfe")


@pytest.mark.parametrize("bad", [[], [0], [4], [8], [1, 2, 7], list(range(9))])
def test_bad_images_are_found_and_the_others_decoded(bad):
    streams = jpegs(9)
    given = [without_tables(s) if i in bad else s for i, s in enumerate(streams)]
    bench = Bench()
    batch = bench.batch(given)
    bench.driver.decode_images("jpeg", batch, bench.stream)
    bench.stream.synchronize()
    assert [i for i, status in enumerate(batch.statuses) if status] == bad
    assert set(batch.statuses[bad].tolist()) <= {3}
    for i, stream in enumerate(streams):
        if i in bad:
            assert (bench.pixels[i] == 7).all()
        else:
            np.testing.assert_array_equal(bench.pixels[i], truth(stream))


def test_the_search_for_bad_images_ends():
    n = 200
    bench = Bench()
    batch = bench.batch([without_tables(jpegs(1)[0])] * n)
    with emulated.image_engine() as batches:
        bench.driver.decode_images("jpeg", batch, bench.stream)
        assert sum(batches()) < 80
    assert (batch.statuses == 3).all()


def test_images_with_other_tables_are_other_calls_of_one_batch():
    pairs = [encode_jpeg(tissue(HEIGHT, WIDTH, seed=i), "jpeg-rgb") for i in range(4)]
    fine = [imagecodecs.jpeg8_encode(tissue(HEIGHT, WIDTH), level=50, colorspace="rgb",
                                     outcolorspace="rgb", subsampling="444")]  # fmt: skip
    bench = Bench()
    tables = pairs[0][0]
    batch = bench.batch([*(stream for _, stream in pairs), *fine], tables)
    batch.tables[4] = batch.tables_nbytes[4] = 0
    with emulated.image_engine() as batches:
        bench.driver.decode_images("jpeg", batch, bench.stream)
        assert batches() == [0, 2]
    bench.stream.synchronize()
    assert not batch.statuses.any()
    for i, (_, stream) in enumerate(pairs):
        whole = tables[:-2] + stream[2:]
        np.testing.assert_array_equal(bench.pixels[i], truth(whole))
    np.testing.assert_array_equal(bench.pixels[4], truth(fine[0]))


@pytest.mark.parametrize(("status", "tried"), [(7, 1), (6, 1), (4, 2), (5, 1)])
def test_an_engine_that_cannot_be_used_is_not_tried_again(monkeypatch, status, tried):
    """As in a container without the capability; out of memory is another thing."""
    bench = Bench()
    library = emulated.nvjpeg_on_host()
    plain, engines, failed = library.call, set(), []

    def call(name, *args):
        if name == "nvjpegDecodeBatched" and args[0] in engines:
            failed.append(name)
            return status
        done = plain(name, *args)
        if name == "nvjpegCreateEx" and args[0] == nvjpeg.BACKENDS["hardware"]:
            engines.add(args[-1]._obj.value)
        return done

    monkeypatch.setattr(library, "call", call)
    streams = jpegs(3)
    for _ in range(2):
        batch = bench.batch(streams)
        if status == 5:
            with pytest.raises(MemoryBudgetError):
                bench.driver.decode_images("jpeg", batch, bench.stream)
            break
        bench.driver.decode_images("jpeg", batch, bench.stream)
        bench.stream.synchronize()
        assert not batch.statuses.any()
        np.testing.assert_array_equal(bench.pixels[2], truth(streams[2]))
    assert len(failed) == tried


def test_states_are_not_lost_with_the_device():
    """Those who want one then get an error of the device, and do not wait for ever."""

    def fail(stream):
        raise DeviceLostError("lost")

    event = SimpleNamespace(record=fail, query=lambda: True, synchronize=lambda: None)
    library = emulated.nvjpeg_on_host()
    states = nvjpeg._States(library, library.create_handle(2), lambda: event)
    failed: list[bool] = []

    def use():
        for _ in range(nvjpeg._MAX_STATES + 1):
            with pytest.raises(DeviceLostError):
                states.give_back(states.take(), None)
            failed.append(True)

    thread = threading.Thread(target=use, daemon=True)
    thread.start()
    thread.join(10)
    assert len(failed) == nvjpeg._MAX_STATES + 1


@pytest.mark.parametrize("image_format", ["jpeg", "jpeg2k"])
def test_more_batches_in_flight_than_states(image_format):
    """A lazy stream does nothing until it must: a state that were used twice would be seen."""
    bench = Bench()
    queued = []
    for i in range(7):
        picture = tissue(HEIGHT, WIDTH, seed=i)
        stream = jpegs(i + 1)[i] if image_format == "jpeg" else encode_j2k(picture, "j2k-rgb")
        wanted = truth(stream) if image_format == "jpeg" else np.moveaxis(picture, -1, 0)
        batch = bench.batch([stream] * 3)
        bench.driver.decode_images(image_format, batch, bench.stream)
        queued.append((batch, bench.pixels, wanted))
    bench.stream.synchronize()
    for batch, pixels, wanted in queued:
        assert not batch.statuses.any()
        for got in pixels:
            np.testing.assert_array_equal(got, wanted)


def test_a_codestream_that_does_not_parse_gets_a_status():
    bench = Bench()
    good = encode_j2k(tissue(HEIGHT, WIDTH), "j2k-rgb")
    batch = bench.batch([good, good[:60], good] * 5)
    bench.driver.decode_images("jpeg2k", batch, bench.stream)
    bench.stream.synchronize()
    assert batch.statuses.tolist() == [0, 3, 0] * 5
    assert (bench.pixels[1::3] == 7).all()
    np.testing.assert_array_equal(bench.pixels[14], np.moveaxis(tissue(HEIGHT, WIDTH), -1, 0))
