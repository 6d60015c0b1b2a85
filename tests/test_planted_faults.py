"""Faults planted in the kernels are found by what is said to find them.

Each fault is one that a kernel could have had: a barrier, an atomic, a check or a term left out.
The sanitizers see it, or the kernel's own tests fail.
"""

from __future__ import annotations

import pytest

from tests import kernel_bench
from tests import test_blosclz_kernel as blosclz
from tests import test_checksum_kernels as checksums
from tests import test_element_kernels as elements
from tests import test_header_kernels as headers
from tests import test_image_kernels as images
from tests import test_tiff_kernels as tiff
from tests.emulator.build import build_library, require_compiler, sanitizer_problem
from tests.emulator.standalone import SanitizerReportError
from zarrgpu.devices.kernel_sources import kernels_folder
from zarrgpu.devices.kernels import KERNELS

SEEN = [
    # what is left out, what stands there instead, which sanitizer, and who runs the kernel
    (
        "jpeg_scan.cu", "atomicMax(status + index, i32(STATUS_CORRUPT));",
        "status[index] = STATUS_CORRUPT;", "thread", images.test_image_kernels_under_sanitizers,
    ),
    (
        "jpeg_scan.cu", "byte < end && byte < at + 4", "byte < at + 40", "address",
        images.test_image_kernels_under_sanitizers,
    ),
    ("blosclz.cu", "__syncwarp();", "", "thread", blosclz.test_blosclz_under_sanitizers),
    ("blosclz.cu", "distance > s.done", "false", "address", None),
    (
        "blosc_headers.cu", "atomicAdd(reinterpret_cast<i32*>(job.target), 1)",
        "(*reinterpret_cast<i32*>(job.target))++", "thread", headers.test_under_sanitizers,
    ),
    (
        "blosc_headers.cu", "if (from < job.source_nbytes) value", "value", "address",
        headers.test_under_sanitizers,
    ),
    (
        "blosc_headers.cu", "place + HEADER_RECORD_NBYTES > job.target_nbytes", "index < 0",
        "address", headers.test_rooms_that_are_too_small,
    ),
    (
        "convert.cu", "atomicMax(status + index, i32(STATUS_INEXACT));",
        "status[index] = STATUS_INEXACT;", "thread", elements.test_element_kernels_under_sanitizers,
    ),
    (
        "delta.cu", "first + i < end ? load_value(job, first + i) : 0",
        "load_value(job, first + i)", "address", elements.test_element_kernels_under_sanitizers,
    ),
    (
        "unpack_bits.cu", "have < job.packed_bits", "have <= job.packed_bits + 8", "address",
        elements.test_element_kernels_under_sanitizers,
    ),
    (
        "checksum_parts.cu", "at + 16 <= part.end", "at < part.end", "address",
        lambda sanitizer: checksums.test_checksums_under_sanitizers(sanitizer, 0),
    ),
    (
        "lzw.cu", "__syncwarp();\n        const u32 ahead", "const u32 ahead", "thread",
        lambda sanitizer: lzw(sanitizer, room=400),
    ),
    (
        "lzw.cu", "total > room - done", "false", "address",
        lambda sanitizer: lzw(sanitizer, room=99),
    ),
    (
        "predictor.cu", "i < row.n ? load_sample<N, PLANES>(row, i) : 0",
        "load_sample<N, PLANES>(row, i)", "address", tiff.test_rows_under_sanitizers,
    ),
]  # fmt: skip


def planted(tmp_path, monkeypatch, name, text, instead):
    """Let the tests' bench run a kernel file with a fault in it."""
    require_compiler()
    source = (kernels_folder() / name).read_text()
    assert source.count(text) == 1
    changed = tmp_path / f"planted_{name}"
    changed.write_text(source.replace(text, instead))
    kernels = {
        kernel: (changed.name if file == name else file, types)
        for kernel, (file, types) in KERNELS.items()
    }
    monkeypatch.setattr(kernel_bench, "KERNELS", kernels)
    folder = kernels_folder()
    for path in folder.glob("*.cu"):
        (tmp_path / path.name).write_text(path.read_text())
    monkeypatch.setattr(kernel_bench, "kernels_folder", lambda: tmp_path)
    return changed


def wild_distance(sanitizer):
    """A stream whose match lies before the start of its target."""
    blosclz.run([b"\x00a\x3f\xff\xff\xff\x00b"], [5], sanitizer=sanitizer)


def lzw(sanitizer, *, room):
    """A stream of 400 bytes."""
    raw = bytes(range(200)) * 2
    tiff.run_streams("lzw", [tiff.streams.lzw(raw)], [room], sanitizer=sanitizer)


@pytest.mark.parametrize(("name", "text", "instead", "sanitizer", "run"), SEEN)
def test_the_sanitizers_see(tmp_path, monkeypatch, name, text, instead, sanitizer, run):
    if problem := sanitizer_problem(sanitizer):
        pytest.skip(problem)
    planted(tmp_path, monkeypatch, name, text, instead)
    with pytest.raises(SanitizerReportError, match=r"data race|AddressSanitizer|runtime error"):
        (run or wild_distance)(sanitizer)


FAILING = [
    ("ycbcr.cu", "neighbour(j, y, chroma_height(job))", "j",
     lambda: images.test_image_kernels_under_sanitizers("address")),
    ("blosc_headers.cu", "size > decoded || end > job.source_nbytes", "size > decoded",
     lambda: headers.test_under_sanitizers("address")),
    ("checksum_verify.cu", "crc_power(bytes_after(run), polynomial)", "CRC_ONE",
     lambda: checksums.test_checksums_under_sanitizers("address", 1)),
    ("checksum_verify.cu", "s1 * (values(bytes_after(run)) % base)", "0",
     lambda: checksums.test_checksums_under_sanitizers("address", 3)),
    ("checksum_xxh64.cu", "hash + u64(job.nbytes)", "hash",
     lambda: checksums.test_checksums_under_sanitizers("address", 4)),
    ("delta.cu", "before = __shfl_sync(ALL_LANES, base + sum, 31);", "",
     lambda: elements.test_element_kernels_under_sanitizers("address")),
    ("predictor.cu", "planes_before<N>(sum_lanes<true>(sums, samples, lane))", "sums",
     lambda: tiff.test_rows_under_sanitizers("address")),
    ("lzw.cu", "length += more;", "length += more > 0;",
     lambda: tiff.test_streams_under_sanitizers("address")),
    ("convert.cu", "if (!exact)", "if (false)",
     lambda: elements.test_element_kernels_under_sanitizers("address")),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "instead", "run"), FAILING)
def test_the_kernels_tests_see(tmp_path, monkeypatch, name, text, instead, run):
    if problem := sanitizer_problem("address"):
        pytest.skip(problem)
    planted(tmp_path, monkeypatch, name, text, instead)
    with pytest.raises(AssertionError) as caught:
        run()
    assert not isinstance(caught.value, SanitizerReportError)


def test_the_bench_runs_the_planted_file(tmp_path, monkeypatch):
    """A file that does not compile is noticed: what the tests above run is not the shipped one."""
    changed = planted(tmp_path, monkeypatch, "delta.cu", "constexpr int PER_LANE = 4;", "nonsense")
    with pytest.raises(RuntimeError, match="does not compile"):
        build_library(changed, ("delta_sums",))
