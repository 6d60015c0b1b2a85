"""nvCOMP is called as its headers say, in the releases 5.x and 6.x.

The library loads without a GPU: where a wheel is installed its symbols and host-only queries are
checked (also those of each library named in ZARRGPU_TEST_NVCOMP, separated by ``:``).
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest

from tests.emulator.build import require_compiler
from zarrgpu.devices import cupy_driver, nvcomp
from zarrgpu.devices.requests import ChecksumBatch, DecompressBatch
from zarrgpu.errors import DeviceUnavailableError, MissingDependencyError


def installed_libraries():
    """Every nvCOMP of this environment, by path."""
    found = [path for path in nvcomp._candidates() if "/" in path]
    return [*found, *filter(None, os.environ.get("ZARRGPU_TEST_NVCOMP", "").split(":"))]


@pytest.fixture(params=installed_libraries() or [None])
def library(request):
    if request.param is None:
        pytest.skip("no nvCOMP wheel is installed")
    return nvcomp.NvComp(request.param)


@pytest.mark.parametrize(
    ("structure", "nbytes"),
    [
        (nvcomp.DecompressOptions, 64),
        (nvcomp.Alignments, 24),
        (nvcomp.Properties, 8),
        (nvcomp.Crc32Spec, 32),
        (nvcomp.Crc32KernelConf, 32),
        (nvcomp.Crc32Options, 128),
    ],
)
def test_structures_have_the_sizes_of_the_headers(structure, nbytes):
    assert ctypes.sizeof(structure) == nbytes


def test_statuses_have_names():
    assert nvcomp.status_name(0) == "success"
    assert nvcomp.status_name(15) == "output buffer too small"
    assert nvcomp.status_name(77) == "status 77"


def test_a_library_that_is_not_nvcomp_is_refused(tmp_path):
    with pytest.raises(DeviceUnavailableError, match="does not load"):
        nvcomp.NvComp(str(tmp_path / "libnvcomp.so.6"))
    libc = next((n for n in ("libc.so.6", "libSystem.dylib") if _loads(n)), None)
    if libc is None:
        pytest.skip("no C library by a known name")
    with pytest.raises(DeviceUnavailableError, match="lacks a function"):
        nvcomp.NvComp(libc)


def _loads(name):
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


# A library with nvCOMP's symbols that writes down how it was called: what ctypes passes is what C
# receives, by value and by reference. The real library checks the rest below.
RECORDER = r"""
#include <cstdint>
#include <cstddef>
#include <cstdio>
#include <cstring>
struct Opts { int words[16]; };
struct Spec { uint32_t poly, init; bool ref_in, ref_out; uint32_t xorout; char reserved[16]; };
struct Conf { int kind; int32_t bytes_per_read, blocks_per_msg; char reserved[20]; };
struct CrcOpts { Spec spec; Conf conf; char reserved[64]; };
static char said[4096];
extern "C" const char* what_was_said() { return said; }
#define SAY(...) snprintf(said, sizeof said, __VA_ARGS__)
extern "C" int nvcompGetProperties(uint32_t* p) { p[0] = VERSION; p[1] = 13000; return 0; }
#define FORMAT(F) \
extern "C" int nvcompBatched##F##DecompressGetRequiredAlignments(Opts, size_t* r) { \
    r[0] = 4; r[1] = 2; r[2] = 8; return 0; } \
extern "C" int nvcompBatched##F##DecompressAsync(const void* a, const size_t* b, const size_t* c, \
    size_t* d, size_t n, void* temp, size_t temp_n, void* e, Opts o, int* s, void* stream) { \
    SAY(#F " %p %p %p %p %zu %p %zu %p %d %p %p", a, (void*)b, (void*)c, (void*)d, n, temp, \
        temp_n, e, o.words[0] | o.words[15], (void*)s, stream); return n == 99 ? 18 : 0; } \
TEMP(F)
#if VERSION >= 6000
#define TEMP(F) extern "C" int nvcompBatched##F##DecompressGetTempSize( \
    size_t n, size_t m, Opts, size_t* t, size_t total, void* stream) { \
    *t = n + m + total + (size_t)stream; return 0; }
#else
#define TEMP(F) extern "C" int nvcompBatched##F##DecompressGetTempSizeAsync( \
    size_t n, size_t m, Opts, size_t* t, size_t total) { *t = n + m + total; return 0; }
#endif
FORMAT(Zstd) FORMAT(LZ4) FORMAT(Snappy) FORMAT(Deflate) FORMAT(Gzip)
extern "C" int nvcompBatchedCRC32GetHeuristicConf(const size_t* sizes, size_t n, Conf* conf,
    size_t max, void*) {
    if (sizes) return 10;
    conf->kind = 1; conf->bytes_per_read = int(n); conf->blocks_per_msg = int(max); return 0; }
extern "C" int nvcompBatchedCRC32Async(const void* a, const size_t* b, size_t n, uint32_t* c,
    CrcOpts o, int segment, int* s, void* stream) {
    SAY("%p %p %zu %p %x %x %d %d %x %d %d %d %d %p %p", a, (void*)b, n, (void*)c, o.spec.poly,
        o.spec.init, o.spec.ref_in, o.spec.ref_out, o.spec.xorout, o.conf.kind,
        o.conf.bytes_per_read, o.conf.blocks_per_msg, segment, (void*)s, stream); return 0; }
"""


@pytest.fixture(params=[5300, 6000])
def recorder(request, tmp_path):
    require_compiler()
    source, target = tmp_path / "recorder.cpp", tmp_path / "librecorder.so"
    source.write_text(RECORDER)
    command = ["g++", "-shared", "-fPIC", f"-DVERSION={request.param}", str(source)]
    subprocess.run([*command, "-o", str(target)], check=True)
    library = nvcomp.NvComp(str(target))
    said = library._library.what_was_said
    said.restype = ctypes.c_char_p
    return library, lambda: said().decode()


def batch(n=7):
    return DecompressBatch(
        n_chunks=n, sources=0x10, source_nbytes=0x20, targets=0x50, target_nbytes=0x30,
        decoded_nbytes=0x40, statuses=0x60, max_target_nbytes=100, total_target_nbytes=300,
    )  # fmt: skip


@pytest.mark.parametrize("library_format", list(nvcomp.FORMATS))
def test_arguments_arrive_in_order(recorder, library_format):
    library, said = recorder
    library.decompress(library_format, batch(), 0x70, 1000, 0x80)
    theirs = nvcomp.FORMATS[library_format]
    assert said() == f"{theirs} 0x10 0x20 0x30 0x40 7 0x70 1000 0x50 0 0x60 0x80"
    stream = 1000 if library.version >= (6, 0) else 0
    assert library.temp_nbytes(library_format, 7, 100, 300, stream) == 407 + stream
    assert library.alignments(library_format).input == 4
    with pytest.raises(DeviceUnavailableError, match="on 99 chunks: chunk size too large"):
        library.decompress(library_format, batch(99), 0, 0, 0)


def test_crc32c_asks_for_castagnoli_and_a_tuned_kernel(recorder):
    library, said = recorder
    library.crc32c(
        ChecksumBatch(
            n_chunks=5, sources=0x10, source_nbytes=0x20, checksums=0x30, statuses=0x40,
            max_source_nbytes=77,
        ),
        0x50,
    )  # fmt: skip
    assert said() == ("0x10 0x20 5 0x30 1edc6f41 ffffffff 1 1 ffffffff 1 5 77 0 0x40 0x50")


def test_the_real_library_has_every_function(library):
    assert library.version >= (5, 0)


@pytest.mark.parametrize("library_format", list(nvcomp.FORMATS))
def test_the_real_library_answers_queries_without_a_gpu(library, library_format):
    alignments = library.alignments(library_format)
    expected = {"deflate": (4, 1, 1), "zstd": (1, 1, 8)}.get(library_format, (1, 1, 1))
    assert (alignments.input, alignments.output, alignments.temp) == expected
    nbytes = library.temp_nbytes(library_format, 10, 1 << 20, 10 << 20)
    if library_format == "zstd":
        assert 3 * (10 << 20) < nbytes < 3.2 * (10 << 20)
    else:
        assert nbytes == 0


def test_what_is_missing_is_said_with_what_to_install(monkeypatch):
    monkeypatch.setattr(nvcomp, "_candidates", lambda: iter(["/nowhere/libnvcomp.so.6"]))
    nvcomp.load_nvcomp.cache_clear()
    try:
        with pytest.raises(MissingDependencyError, match="pip install"):
            nvcomp.load_nvcomp()
    finally:
        nvcomp.load_nvcomp.cache_clear()


def test_without_cupy_the_driver_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert "pip install 'zarrgpu[cuda13]'" in cupy_driver.find_problem()
    with pytest.raises(MissingDependencyError, match="cupy"):
        cupy_driver.CupyDriver(0)


def test_the_driver_module_does_not_import_cupy():
    code = (
        "import sys, zarrgpu.devices.driver, zarrgpu.devices.cupy_driver, zarrgpu.devices.tables; "
        "assert 'cupy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
