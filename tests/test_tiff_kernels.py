"""TIFF's kernels equal their references and imagecodecs byte for byte, or say that they cannot.

The kernels are the shipped lzw.cu, packbits_runs.cu, predictor.cu and unpack_samples.cu, run on the
emulated device.
"""

from __future__ import annotations

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import kernel_references as reference
from tests import tiff_streams as streams
from tests.kernel_bench import Bench
from tests.test_blosclz_kernel import texture
from tests.test_kernels import random_bytes, sanitized
from zarrgpu.codecs.base import CodecError
from zarrgpu.codecs.lzw import LzwCodec
from zarrgpu.codecs.packbits import PackBitsCodec
from zarrgpu.devices.kernels import WHOLE_TILE
from zarrgpu.devices.tables import PREDICTOR_JOB, SAMPLES_JOB, STREAM_JOB, JobStatus

HOST = {"lzw": LzwCodec(), "packbits_runs": PackBitsCodec()}
DTYPES = ["u1", "<u2", ">u2", "<i4", ">u4", "<u8", ">i8", "<f2", ">f2", "<f4", ">f4", "<f8", ">f8"]
seeds = st.integers(0, 2**32)


def by_host(kernel, stream, n):
    """What the host's codec makes of a stream; None if it refuses."""
    try:
        return HOST[kernel].decode_host(np.frombuffer(stream, np.uint8), n, None).tobytes()
    except CodecError:
        return None


def run_bytes(kernel, dtype, tile, sources, target_nbytes, fill, *, sizes=None, change=None,
              align=1, **how):  # fmt: skip
    """Statuses and what each job wrote; what lies between the targets must not change."""
    bench = Bench()
    jobs = np.zeros(len(sources), dtype)
    starts = np.cumsum([0, *(-(-n // align) * align + align for n in target_nbytes)])
    out = bench.empty(int(starts[-1]))
    for i, source in enumerate(sources):
        content = np.frombuffer(source, np.uint8)
        jobs[i]["source"] = bench.put(content, i % 3)
        jobs[i]["source_nbytes"] = content.size
        fill(jobs[i], i)
    jobs["target"] = out.ptr + starts[:-1]
    jobs["target_nbytes"] = target_nbytes
    if change is not None:
        change(jobs)
    before = out.array.copy()
    status, got = bench.run(kernel, jobs, sizes or target_nbytes, tile, watch=out, **how)
    decoded = []
    for start, n in zip(starts.tolist(), target_nbytes, strict=False):
        decoded.append(got[start : start + n].copy())
        before[start : start + n] = got[start : start + n]
    np.testing.assert_array_equal(got, before)
    return status.tolist(), decoded


# ---- streams -------------------------------------------------------------------------------------


def run_streams(kernel, sources, sizes, *, reverse=False, **how):
    def fill(job, i):
        job["nbytes"], job["reversed"] = sizes[i], reverse

    if reverse:
        sources = [streams.reversed_bits(s) for s in sources]
    status, decoded = run_bytes(kernel, STREAM_JOB, WHOLE_TILE, sources, sizes, fill, **how)
    return status, [d.tobytes() for d in decoded]


@st.composite
def lzw_cases(draw):
    """Raw bytes and a stream of them."""
    rng = np.random.default_rng(draw(seeds))
    most_codes = draw(st.sampled_from([1, 2, 31, 32, 33, 300, 3839]))
    n = draw(st.integers(1, 40) if most_codes < 3 else st.integers(1, 1200))
    raw = texture(rng, n).tobytes() if n > 80 else random_bytes(rng, n).tobytes()
    if draw(st.booleans()):
        return raw, imagecodecs.lzw_encode(raw)
    stream = streams.lzw(
        raw, lowest_first=draw(st.booleans()), clears=draw(st.sampled_from([1, 1, 2, 5])),
        most_codes=most_codes, end=draw(st.booleans()),
    )  # fmt: skip
    return raw, stream


@given(st.lists(lzw_cases(), min_size=2, max_size=4), st.booleans())
@settings(max_examples=12, deadline=None)
def test_lzw_of_any_encoder(cases, reverse):
    raw, coded = zip(*cases, strict=True)
    status, decoded = run_streams("lzw", coded, [len(r) for r in raw], reverse=reverse)
    for wanted, stream, code, got in zip(raw, coded, status, decoded, strict=True):
        assert reference.lzw(stream) == wanted
        # imagecodecs drops bits of a last code that has no end code behind it
        host = by_host("lzw", stream, len(wanted))
        assert (code, got) == ((JobStatus.OK, host) if host == wanted else (code, got))
        assert host == wanted or code == JobStatus.CORRUPT or got == host


def test_lzw_of_long_streams():
    """Codes of all widths, strings of thousands of bytes, a full table."""
    rng = np.random.default_rng(1)
    flat = np.zeros(100_000, np.uint8).tobytes()
    noise = random_bytes(rng, 9000).tobytes()
    steps = (np.arange(30_000) // 7 % 251).astype(np.uint8).tobytes()
    coded = [imagecodecs.lzw_encode(flat), streams.lzw(noise, most_codes=3839),
             streams.lzw(steps, lowest_first=True, most_codes=3839)]  # fmt: skip
    raw = [flat, noise, steps]
    status, decoded = run_streams("lzw", coded, [len(r) for r in raw])
    assert status == [JobStatus.OK] * 3
    assert decoded == raw
    assert [by_host("lzw", s, len(r)) for s, r in zip(coded, raw, strict=True)] == raw
    too_many = streams.lzw(noise, most_codes=3840)
    assert run_streams("lzw", [too_many], [9000])[0] == [JobStatus.CORRUPT]


@pytest.mark.parametrize("blocks", [32, 128, 256])
def test_lzw_in_blocks_of_any_size(blocks, monkeypatch):
    """More warps than tables, and more jobs than warps."""
    monkeypatch.setattr(Bench.__init__, "__defaults__", (blocks,))
    rng = np.random.default_rng(2)
    raw = [texture(rng, n).tobytes() for n in (100, 300, 50, 80, 900, 60, 70, 200, 90, 120)]
    status, decoded = run_streams("lzw", [imagecodecs.lzw_encode(r) for r in raw],
                                  [len(r) for r in raw])  # fmt: skip
    assert status == [JobStatus.OK] * len(raw)
    assert decoded == raw


@given(seeds, st.booleans())
@settings(max_examples=10, deadline=None)
def test_packbits_of_any_encoder(seed, reverse):
    rng = np.random.default_rng(seed)
    raw = [texture(rng, int(n)).tobytes() for n in rng.integers(50, 2000, 5)]
    coded = [streams.packbits(rng, r) for r in raw]
    coded[0] = imagecodecs.packbits_encode(raw[0])
    coded[1] += b"\x00"  # padding
    status, decoded = run_streams("packbits_runs", coded, [len(r) for r in raw], reverse=reverse)
    assert status == [JobStatus.OK] * 5
    assert decoded == raw
    for stream, wanted in zip(coded, raw, strict=True):
        assert reference.packbits_runs(stream) == wanted
        assert by_host("packbits_runs", stream, len(wanted)) == wanted


def damaged(rng, stream):
    """A stream with bytes changed, cut off or added."""
    changed = bytearray(stream)
    for _ in range(int(rng.integers(0, 3))):
        changed[int(rng.integers(0, len(changed)))] = int(rng.integers(0, 256))
    if rng.random() < 0.3:
        del changed[int(rng.integers(0, len(changed))) :]
    if rng.random() < 0.2:
        changed += random_bytes(rng, int(rng.integers(1, 9))).tobytes()
    return bytes(changed)


def check_damaged(kernel, seed, n, sanitizer=None):
    """The kernel refuses, or gives what the host gives."""
    rng = np.random.default_rng(seed)
    raw = texture(rng, n).tobytes()
    good = [streams.packbits(rng, raw)]
    if kernel == "lzw":
        good = [streams.lzw(raw, most_codes=300), streams.lzw(raw, lowest_first=True)]
    coded = [damaged(rng, s) for s in good for _ in range(30)]
    sizes = [n if rng.random() < 0.8 else int(rng.integers(0, 2 * n)) for _ in coded]
    status, decoded = run_streams(kernel, coded, sizes, sanitizer=sanitizer)
    for stream, size, code, got in zip(coded, sizes, status, decoded, strict=True):
        host = by_host(kernel, stream, size) if stream else None
        if code == JobStatus.OK:
            assert got == host
        else:
            assert code == JobStatus.CORRUPT
            # imagecodecs takes any code for a byte after a Clear
            by_the_book = getattr(reference, kernel)(stream)
            assert host is None or len(host) != size or by_the_book is None
    return status


@pytest.mark.parametrize("kernel", ["lzw", "packbits_runs"])
def test_changed_streams_decode_as_on_the_host_or_not_at_all(kernel):
    @given(seeds)
    @settings(max_examples=8, deadline=None)
    def check(seed):
        check_damaged(kernel, seed, 100 + seed % 500)

    check()


@pytest.mark.parametrize("kernel", ["lzw", "packbits_runs"])
@pytest.mark.parametrize(
    ("field", "value", "status"),
    [
        ("nbytes", -1, JobStatus.BAD_JOB),
        ("nbytes", 1 << 31, JobStatus.BAD_JOB),
        ("source_nbytes", -1, JobStatus.BAD_JOB),
        ("target_nbytes", 4, JobStatus.TARGET_BOUNDS),
        ("source", None, JobStatus.BAD_JOB),
        ("nbytes", 4, JobStatus.CORRUPT),
        ("nbytes", 6, JobStatus.CORRUPT),
        ("source_nbytes", 0, JobStatus.CORRUPT),
        ("source_nbytes", 1, JobStatus.CORRUPT),
    ],
)
def test_a_bad_job_gets_a_status(kernel, field, value, status):
    def change(jobs):
        if field == "nbytes" and value == 6:
            jobs["target_nbytes"][1] = 6
        jobs[field][1] = jobs["target"][1] + 2 if value is None else value

    stream = imagecodecs.lzw_encode(b"hello") if kernel == "lzw" else b"\x04hello"
    found, decoded = run_streams(kernel, [stream] * 3, [5, 6, 5], change=lambda j: change(j) or (
        j["nbytes"].__setitem__([0, 2], 5)))  # fmt: skip
    assert found == [JobStatus.OK, status, JobStatus.OK]
    assert decoded[::2] == [b"hello"] * 2


# ---- rows ----------------------------------------------------------------------------------------


def run_predictor(cases, *, tile=4, **how):
    """Cases: differences, predictor, width, samples, dtype."""

    def fill(job, i):
        data, kind, width, samples, dtype = cases[i]
        dtype = np.dtype(dtype)
        job["rows"] = data.size // (width * samples * dtype.itemsize)
        job["width"], job["samples"], job["itemsize"] = width, samples, dtype.itemsize
        job["predictor"], job["swap"] = kind, dtype.str[0] == ">"

    rows = [d.size // (w * s * np.dtype(t).itemsize) for d, _, w, s, t in cases]
    return run_bytes(
        "predictor", PREDICTOR_JOB, tile, [c[0].tobytes() for c in cases],
        [c[0].size for c in cases], fill, sizes=rows, align=16, **how,
    )  # fmt: skip


@st.composite
def predictor_cases(draw):
    rng = np.random.default_rng(draw(seeds))
    dtype = draw(st.sampled_from(DTYPES))
    kind = draw(st.sampled_from([2, 3] if dtype[-2] == "f" else [2]))
    samples = draw(st.sampled_from([1, 2, 3, 4, 5, 7, 16, 17, 31, 32, 33, 70]))
    width = draw(st.one_of(st.integers(1, 12), st.integers(30, 150)))
    rows = draw(st.integers(0, 6))
    return random_bytes(rng, rows * width * samples * np.dtype(dtype).itemsize), kind, width, \
        samples, dtype  # fmt: skip


def by_imagecodecs(data, kind, width, samples, dtype):
    """What imagecodecs makes of differences."""
    kept = np.dtype(dtype)
    if kind == 3:  # takes the bytes of a row as they are stored
        stored = data.view(kept).reshape(-1, width, samples)
        return imagecodecs.floatpred_decode(stored, axis=-2, out=np.empty_like(stored))
    stored = data.view(kept).reshape(-1, width, samples)
    native = stored.astype(kept.newbyteorder("=")).view(f"u{kept.itemsize}")
    return imagecodecs.delta_decode(native, axis=1).view(native.dtype).astype(
        f"{kept.str[0]}u{kept.itemsize}"
    )  # fmt: skip


@given(st.lists(predictor_cases(), min_size=1, max_size=4), st.sampled_from([1, 4]))
@settings(max_examples=40, deadline=None)
def test_predictors(cases, tile):
    status, decoded = run_predictor(cases, tile=tile)
    assert status == [JobStatus.OK] * len(cases)
    for case, got in zip(cases, decoded, strict=True):
        np.testing.assert_array_equal(got, reference.predictor(*case))
        if case[0].size:
            theirs = np.ascontiguousarray(by_imagecodecs(*case)).reshape(-1).view(np.uint8)
            np.testing.assert_array_equal(got, theirs)


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"rows": -1}, JobStatus.BAD_JOB),
        ({"rows": 1 << 60}, JobStatus.BAD_JOB),
        ({"width": 0}, JobStatus.BAD_JOB),
        ({"samples": -1}, JobStatus.BAD_JOB),
        ({"itemsize": 3}, JobStatus.BAD_JOB),
        ({"itemsize": 16}, JobStatus.BAD_JOB),
        ({"predictor": 1}, JobStatus.BAD_JOB),
        ({"itemsize": 1, "predictor": 3}, JobStatus.BAD_JOB),
        ({"width": 2**31 - 1, "samples": 2**31 - 1}, JobStatus.BAD_JOB),
        ({"width": 2**31 - 1}, JobStatus.SOURCE_BOUNDS),
        ({"source_nbytes": 59}, JobStatus.SOURCE_BOUNDS),
        ({"target_nbytes": 59}, JobStatus.TARGET_BOUNDS),
        ({"source_nbytes": -1}, JobStatus.SOURCE_BOUNDS),
    ],
)
def test_a_bad_predictor_job_gets_a_status(changes, status):
    def change(jobs):
        for field, value in changes.items():
            jobs[field] = value

    data = np.arange(60, dtype=np.uint8)
    found, (got,) = run_predictor([(data, 2, 5, 3, "<u2")], change=change)
    assert found == [status]
    assert (got == 0xA5).all()


def test_predictor_jobs_that_overlap_or_are_misaligned_get_a_status():
    def overlapping(jobs):
        jobs["source"] = jobs["target"] + 4

    def misaligned(jobs):
        jobs["target"] += 1

    case = (np.arange(60, dtype=np.uint8), 3, 5, 3, "<f4")
    assert run_predictor([case], change=overlapping)[0] == [JobStatus.BAD_JOB]
    assert run_predictor([case], change=misaligned)[0] == [JobStatus.MISALIGNED]


def run_samples(data, bits, row_samples, rows, *, reverse=False, tile=64, **how):
    n = row_samples * rows

    def fill(job, i):
        del i
        job["n"], job["row_samples"], job["bits"], job["reversed"] = n, row_samples, bits, reverse

    nbytes = n * (2 if bits > 8 else 1)
    (status,), (got,) = run_bytes(
        "unpack_samples", SAMPLES_JOB, tile, [data.tobytes()], [nbytes], fill, sizes=[n], align=16,
        **how,
    )  # fmt: skip
    return status, got


@given(st.integers(1, 16), st.integers(1, 90), st.integers(0, 5), st.booleans(), seeds)
@settings(max_examples=30, deadline=None)
def test_samples_of_any_bits(bits, row_samples, rows, reverse, seed):
    data = random_bytes(np.random.default_rng(seed), rows * -(-row_samples * bits // 8))
    status, got = run_samples(data, bits, row_samples, rows, reverse=reverse)
    assert status == JobStatus.OK
    wanted = reference.unpack_samples(data, bits, row_samples, rows, reverse=reverse)
    np.testing.assert_array_equal(got, wanted.view(np.uint8))
    if rows and bits in (1, 2, 4, 8, 12) and not reverse:
        theirs = imagecodecs.packints_decode(
            data.tobytes(), np.uint8 if bits <= 8 else np.uint16, bits, runlen=row_samples
        )
        np.testing.assert_array_equal(wanted, theirs)


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"n": -1}, JobStatus.BAD_JOB),
        ({"n": 1 << 31}, JobStatus.BAD_JOB),
        ({"n": 49}, JobStatus.BAD_JOB),
        ({"bits": 0}, JobStatus.BAD_JOB),
        ({"bits": 17}, JobStatus.BAD_JOB),
        ({"row_samples": 0}, JobStatus.BAD_JOB),
        ({"row_samples": 1}, JobStatus.SOURCE_BOUNDS),
        ({"source_nbytes": 74}, JobStatus.SOURCE_BOUNDS),
        ({"target_nbytes": 99}, JobStatus.TARGET_BOUNDS),
    ],
)
def test_a_bad_samples_job_gets_a_status(changes, status):
    def change(jobs):
        for field, value in changes.items():
            jobs[field] = value

    found, got = run_samples(np.arange(80, dtype=np.uint8), 12, 10, 5, change=change)
    assert found == status
    assert (got == 0xA5).all()


# ---- sanitizers ----------------------------------------------------------------------------------


@sanitized
def test_streams_under_sanitizers(sanitizer):
    rng = np.random.default_rng(4)
    raw = [texture(rng, n).tobytes() for n in (70, 900)]
    raw.append(bytes(300))
    coded = [streams.lzw(raw[0]), streams.lzw(raw[1], most_codes=50, lowest_first=True),
             imagecodecs.lzw_encode(raw[2])]  # fmt: skip
    status, decoded = run_streams("lzw", coded, [len(r) for r in raw], sanitizer=sanitizer)
    assert status == [JobStatus.OK] * 3
    assert decoded == raw
    coded = [streams.packbits(rng, r) for r in raw]
    status, decoded = run_streams(
        "packbits_runs", coded, [len(r) for r in raw], reverse=True, sanitizer=sanitizer
    )
    assert status == [JobStatus.OK] * 3
    assert decoded == raw
    for kernel in ("lzw", "packbits_runs"):
        assert JobStatus.CORRUPT in check_damaged(kernel, 7, 150, sanitizer)


@sanitized
def test_rows_under_sanitizers(sanitizer):
    rng = np.random.default_rng(5)
    cases = [
        (random_bytes(rng, rows * width * samples * np.dtype(t).itemsize), kind, width, samples, t)
        for rows, width, samples, t, kind in [
            (5, 40, 1, "u1", 2), (2, 50, 3, ">u2", 2), (1, 3, 40, "<u8", 2), (2, 45, 1, "<f4", 3),
            (3, 9, 7, ">f8", 3), (1, 2, 33, "<f2", 3), (0, 2, 1, "<u2", 2),
        ]
    ]  # fmt: skip
    status, decoded = run_predictor(cases, sanitizer=sanitizer)
    assert status == [JobStatus.OK] * len(cases)
    for case, got in zip(cases, decoded, strict=True):
        np.testing.assert_array_equal(got, reference.predictor(*case))
    data = random_bytes(rng, 39)
    status, got = run_samples(data, 11, 9, 3, reverse=True, sanitizer=sanitizer)
    assert status == JobStatus.OK
    wanted = reference.unpack_samples(data, 11, 9, 3, reverse=True)
    np.testing.assert_array_equal(got, wanted.view(np.uint8))
