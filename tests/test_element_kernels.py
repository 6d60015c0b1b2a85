"""Kernels of element codecs equal NumPy bit for bit, or say that they cannot.

The kernels are the shipped delta.cu, convert.cu and unpack_bits.cu, run on the emulated device.
"""

from __future__ import annotations

import numcodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernel_bench import Bench
from tests.test_kernels import random_elements, sanitized
from zarrgpu.devices.element_types import element_type, swap_nbytes
from zarrgpu.devices.kernels import tile_starts
from zarrgpu.devices.tables import CONVERT_JOB, DELTA_JOB, UNPACK_JOB, ElementType, JobStatus

INTEGERS = ["i1", "u1", "<i2", ">i2", "<u2", ">u2", "<i4", ">i4", ">u4", "<i8", ">i8", "<u8", ">u8"]
NUMBERS = ["?", *INTEGERS, "<f2", ">f2", "<f4", ">f4", "<f8", ">f8"]
few = settings(max_examples=40, deadline=None)
counts = st.one_of(st.integers(0, 70), st.integers(100, 700))


def set_types(job, source, target):
    job["source_type"], job["source_swap"] = element_type(source), swap_nbytes(source)
    job["target_type"], job["target_swap"] = element_type(target), swap_nbytes(target)


def run_elements(kernels, dtype, sources, targets, fill, *, tile=64, change=None, zeroed=False,
                 sanitizer=None):  # fmt: skip
    """Statuses and the bytes of each job's target; what lies between targets must not change."""
    bench = Bench()
    jobs = np.zeros(len(sources), dtype)
    counts = [s.size for s in sources]
    gap = 16
    starts = np.cumsum([0] + [-(-n * t.itemsize // 16) * 16 + gap
                              for n, t in zip(counts, targets, strict=True)])  # fmt: skip
    out = bench.empty(int(starts[-1]))
    for i, (source, target) in enumerate(zip(sources, targets, strict=True)):
        jobs[i]["source"] = bench.put(source, i % 5)
        jobs[i]["source_nbytes"] = source.nbytes
        jobs[i]["target"] = out.ptr + starts[i]
        jobs[i]["target_nbytes"] = source.size * target.itemsize
        jobs[i]["n"] = source.size
        fill(jobs[i], source.dtype, target)
    if "sums" in dtype.names:
        tiles = tile_starts(counts, tile)
        jobs["sums"] = bench.empty(int(tiles[-1]) * 8 + 8).ptr + tiles[:-1] * 8
        jobs["sums_nbytes"] = np.diff(tiles) * 8
    if change is not None:
        change(jobs)
    before = out.array.copy()
    for kernel in kernels[:-1]:
        bench.run(kernel, jobs, counts, tile)
    status, got = bench.run(
        kernels[-1], jobs, counts, tile, watch=out, zeroed=zeroed, sanitizer=sanitizer
    )
    decoded = []
    for start, source, target in zip(starts, sources, targets, strict=False):
        end = start + source.size * target.itemsize
        decoded.append(got[start:end])
        before[start:end] = got[start:end]
    np.testing.assert_array_equal(got, before)
    return status.tolist(), decoded


# ---- delta ---------------------------------------------------------------------------------------


def run_delta(sources, targets, **options):
    return run_elements(
        ["delta_sums", "delta_apply"], DELTA_JOB, sources, targets, set_types, **options
    )


def cumsum(source, dtype):
    decoded = np.empty(source.size, dtype)
    np.cumsum(source, out=decoded)
    return decoded


def delta_types():
    pairs = [
        (s, t)
        for s in INTEGERS for t in INTEGERS
        if np.can_cast(s, t, "same_kind") and np.result_type(s, t).kind in "iu"
    ]  # fmt: skip
    return st.sampled_from(pairs)


@given(st.lists(st.tuples(counts, delta_types()), min_size=1, max_size=3),
       st.sampled_from([1, 64, 128, 1000]), st.integers(0, 2**32))  # fmt: skip
@few
def test_delta_is_cumsum(shapes, tile, seed):
    rng = np.random.default_rng(seed)
    tile = max(tile, 50) if max(n for n, _ in shapes) > 70 else tile
    sources = [random_elements(rng, np.dtype(s), n).view(s) for n, (s, _) in shapes]
    targets = [np.dtype(t) for _, (_, t) in shapes]
    status, decoded = run_delta(sources, targets, tile=tile)
    assert status == [JobStatus.OK] * len(shapes)
    for source, target, got in zip(sources, targets, decoded, strict=True):
        np.testing.assert_array_equal(got, cumsum(source, target).view(np.uint8))


FLOATS = ["<f2", ">f2", "<f4", ">f4", "<f8", ">f8"]


def run_float_delta(sources, targets, **options):
    options = {"tile": 10_000, **options}
    return run_elements(["delta_floats"], DELTA_JOB, sources, targets, set_types, **options)


@given(
    st.lists(st.tuples(counts, st.sampled_from(FLOATS), st.sampled_from(FLOATS)), min_size=1,
             max_size=3),
    st.booleans(), st.integers(0, 2**32),
)  # fmt: skip
@few
def test_delta_of_floats_is_cumsum(shapes, tame, seed):
    rng = np.random.default_rng(seed)
    shapes = [(n, *sorted(pair, key=lambda t: np.dtype(t).itemsize)) for n, *pair in shapes]
    sources = [random_elements(rng, np.dtype(s), n).view(s) for n, s, _ in shapes]
    if tame:  # sums of random bits soon are infinite or NaN
        sources = [(rng.standard_normal(s.size) * 100).astype(s.dtype) for s in sources]
    status, decoded = run_float_delta(sources, [np.dtype(t) for *_, t in shapes])
    for source, (*_, target), code, got in zip(sources, shapes, status, decoded, strict=True):
        with np.errstate(all="ignore"):
            wanted = cumsum(source, np.dtype(target))
        if code == JobStatus.OK:
            np.testing.assert_array_equal(got, wanted.view(np.uint8))
        else:  # a NaN met another one
            assert code == JobStatus.INEXACT
            assert (np.isnan(source[1:]) & np.isnan(wanted[:-1])).any()


# ---- convert -------------------------------------------------------------------------------------


def run_convert(sources, targets, *, scaling=None, **options):
    def fill(job, source, target):
        set_types(job, source, target)
        if scaling is not None:
            job["scaled"], (job["divisor"], job["addend"]) = 1, scaling

    return run_elements(["convert"], CONVERT_JOB, sources, targets, fill, zeroed=True, **options)


def exact(values, dtype):
    """Whether all values have one counterpart in a type that every machine agrees on."""
    if dtype.kind not in "iu" or values.dtype.kind != "f":
        return True
    info = np.iinfo(dtype)
    whole = [int(v) if np.isfinite(v) else info.max + 1 for v in values.tolist()]
    return all(info.min <= v <= info.max for v in whole)


def check_convert(sources, targets, scaling, **options):
    status, decoded = run_convert(sources, targets, scaling=scaling, **options)
    for source, target, code, got in zip(sources, targets, status, decoded, strict=True):
        values = source.astype(source.dtype.newbyteorder("="))
        with np.errstate(all="ignore"):
            if scaling is not None:
                values = values / float(scaling[0]) + float(scaling[1])
            wanted = values.astype(target)
        if exact(values, target):
            assert code == JobStatus.OK
            np.testing.assert_array_equal(got, wanted.view(np.uint8))
        else:
            assert code == JobStatus.INEXACT


types = st.sampled_from(NUMBERS)


@given(st.lists(st.tuples(counts, types, types), min_size=1, max_size=4), st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_casts_are_those_of_numpy(shapes, seed):
    rng = np.random.default_rng(seed)
    sources = [random_elements(rng, np.dtype(s), n).view(s) for n, s, _ in shapes]
    if seed % 2:  # floats that integers hold
        sources = [
            np.clip(s, -100, 100).astype(s.dtype) if s.dtype.kind == "f" else s for s in sources
        ]
    check_convert(sources, [np.dtype(t) for _, _, t in shapes], None)


@pytest.mark.parametrize("target", INTEGERS[::2])
@pytest.mark.parametrize("source", ["<f2", ">f4", "<f8"])
def test_floats_at_the_ends_of_integers(source, target):
    """Every float beside an end: in or out, one job each."""
    info = np.iinfo(target)
    ends = np.array([info.min, -1, 0, 1, info.max], np.float64)
    near = [ends, ends - 1, ends + 1, ends - 0.5, ends + 0.5]
    with np.errstate(all="ignore"):
        values = np.unique(np.concatenate(near).astype(source))
        values = np.concatenate(
            [values, np.nextafter(values, np.array(np.inf, source)),
             np.nextafter(values, np.array(-np.inf, source)), [np.nan, np.inf, -np.inf, -0.0]]
        ).astype(source)  # fmt: skip
    sources = [values[i : i + 1] for i in range(values.size)]
    check_convert(sources, [np.dtype(target)] * len(sources), None)


@given(
    st.lists(st.tuples(counts, types, types), min_size=1, max_size=3),
    st.sampled_from([1, 10, 0.1, -3, 7.3, 1e-5, 65504, 1e5, 3e38, 0, float("inf")]),
    st.sampled_from([0, 1000, -0.5, 0.1, 1e-8, 1e38, float("-inf")]),
    st.integers(0, 2**32),
)  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_scaling_rounds_twice_as_numpy_does(shapes, scale, offset, seed):
    rng = np.random.default_rng(seed)
    # one type computed in each launch: the scalars are values of that type
    by_type = {}
    for n, source, target in shapes:
        native = np.dtype(source).newbyteorder("=")
        kind = native if native.kind == "f" else np.dtype("f8")
        by_type.setdefault(kind, []).append((n, source, target))
    for kind, mine in by_type.items():
        sources = [random_elements(rng, np.dtype(s), n).view(s) for n, s, _ in mine]
        with np.errstate(all="ignore"):
            scaling = tuple(float(kind.type(v)) for v in (scale, offset))
        check_convert(sources, [np.dtype(t) for *_, t in mine], scaling)


def test_bools_that_are_none_are_refused():
    good, bad = np.array([0, 1, 1], np.uint8), np.array([0, 2, 1], np.uint8)
    status, _ = run_convert([good.view("?"), bad.view("?")], [np.dtype("u1")] * 2)
    assert status == [JobStatus.OK, JobStatus.INEXACT]


# ---- packed bits ---------------------------------------------------------------------------------


def run_unpack(packed, n, *, width=1, bits=1, first=0, sign=0, big=False, swap=False, padding=None,
               change=None, sanitizer=None, tile=64):  # fmt: skip
    bench = Bench()
    jobs = np.zeros(1, UNPACK_JOB)
    out = bench.empty(n * width + 8)
    jobs["source"], jobs["source_nbytes"] = bench.put(packed, 3), packed.size
    jobs["target"], jobs["target_nbytes"], jobs["n"] = out.ptr, n * width, n
    jobs["width"], jobs["packed_bits"], jobs["first_bit"] = width, bits, first
    jobs["sign_bits"], jobs["big"], jobs["swap"] = sign, big, swap
    if padding is not None:
        jobs["padding"] = bench.put(np.uint8([padding]))
    if change is not None:
        change(jobs)
    (status,), got = bench.run("unpack_bits", jobs, [n], tile, watch=out, sanitizer=sanitizer)
    assert (got[n * width :] == 0xA5).all()
    return status, got[: n * width]


@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, 100, 1000])
def test_packed_bools_of_numcodecs(n):
    data = np.random.default_rng(n).integers(0, 2, n, dtype=np.uint8).view("?")
    coded = np.frombuffer(numcodecs.PackBits().encode(data), np.uint8)
    if not coded.size:
        return
    status, got = run_unpack(coded[1:], n, big=True, padding=int(coded[0]))
    assert status == JobStatus.OK
    np.testing.assert_array_equal(got, data.view(np.uint8))
    for wrong in range(9):
        if wrong != coded[0]:
            assert run_unpack(coded[1:], n, big=True, padding=wrong)[0] == JobStatus.CORRUPT


@given(st.integers(0, 300), st.integers(1, 8), st.data())
@few
def test_values_of_any_bits(n, width, data):
    bits = data.draw(st.integers(1, 8 * width))
    first = data.draw(st.integers(0, 8 * width - bits))
    sign = data.draw(st.sampled_from([0, first + bits, 8 * width]))
    rng = np.random.default_rng(n)
    stored = rng.integers(0, 2, (n, bits), dtype=np.uint8)
    wide = np.zeros((n, 8 * width), np.uint8)
    wide[:, first : first + bits] = stored
    if sign:
        wide[:, first + bits : sign] = stored[:, -1:]
    wanted = np.packbits(wide, axis=1, bitorder="little")
    swap = data.draw(st.booleans())
    packed = np.packbits(stored.reshape(-1), bitorder="little")
    status, got = run_unpack(packed, n, width=width, bits=bits, first=first, sign=sign, swap=swap)
    assert status == JobStatus.OK
    np.testing.assert_array_equal(got, (wanted[:, ::-1] if swap else wanted).reshape(-1))


# ---- bad jobs and sanitizers ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "status"),
    [
        ("n", -1, JobStatus.BAD_JOB),
        ("n", 1 << 50, JobStatus.BAD_JOB),
        ("source_nbytes", 199, JobStatus.SOURCE_BOUNDS),
        ("target_nbytes", 399, JobStatus.TARGET_BOUNDS),
        ("source_type", 12, JobStatus.BAD_JOB),
        ("target_type", -1, JobStatus.BAD_JOB),
        ("source_swap", 4, JobStatus.BAD_JOB),
        ("target_swap", 2, JobStatus.BAD_JOB),
        ("target", None, JobStatus.MISALIGNED),
        ("source", None, JobStatus.BAD_JOB),
        ("sums_nbytes", 15, JobStatus.TARGET_BOUNDS),
        ("sums", None, JobStatus.MISALIGNED),
        ("source_type", ElementType.F2, JobStatus.BAD_JOB),
    ],
)
def test_a_bad_job_gets_a_status(field, value, status):
    def change(jobs):
        if field == "target" or field == "sums":
            jobs[field] += 2
        elif field == "source":
            jobs[field] = jobs["target"]
        else:
            jobs[field] = value

    data, target = np.arange(100, dtype="<u2"), np.dtype("<u4")
    found, decoded = run_delta([data], [target], change=change)
    assert found == [status]
    assert (decoded[0] == 0xA5).all()
    if field in CONVERT_JOB.names and value != ElementType.F2:
        found, decoded = run_convert([data], [target], change=change)
        assert found == [status]
        assert (decoded[0] == 0xA5).all()


@pytest.mark.parametrize(
    ("field", "value", "status"),
    [
        ("n", -1, JobStatus.BAD_JOB),
        ("n", 1 << 50, JobStatus.BAD_JOB),
        ("source_nbytes", 37, JobStatus.SOURCE_BOUNDS),
        ("target_nbytes", 199, JobStatus.TARGET_BOUNDS),
        ("width", 0, JobStatus.BAD_JOB),
        ("width", 9, JobStatus.BAD_JOB),
        ("packed_bits", 0, JobStatus.BAD_JOB),
        ("packed_bits", 17, JobStatus.BAD_JOB),
        ("first_bit", 14, JobStatus.BAD_JOB),
        ("first_bit", -1, JobStatus.BAD_JOB),
        ("sign_bits", 17, JobStatus.BAD_JOB),
        ("big", 1, JobStatus.BAD_JOB),
    ],
)
def test_a_bad_unpack_job_gets_a_status(field, value, status):
    def change(jobs):
        jobs[field] = value

    packed = np.arange(38, dtype=np.uint8)
    found, got = run_unpack(packed, 100, width=2, bits=3, change=change)
    assert found == status
    assert (got == 0xA5).all()


@sanitized
def test_element_kernels_under_sanitizers(sanitizer):
    rng = np.random.default_rng(0)
    sources = [rng.integers(-100, 100, n).astype(">i2") for n in (0, 1, 130, 300)]
    targets = [np.dtype(t) for t in ("<i4", ">i8", "<i2", ">i4")]
    status, decoded = run_delta(sources, targets, sanitizer=sanitizer, tile=200)
    assert status == [JobStatus.OK] * 4
    for source, target, got in zip(sources, targets, decoded, strict=True):
        np.testing.assert_array_equal(got, cumsum(source, target).view(np.uint8))
    floats = [s.astype("<f4") / 7 for s in sources]
    status, decoded = run_float_delta(floats, [np.dtype(">f8")] * 4, sanitizer=sanitizer)
    assert status == [JobStatus.OK] * 4
    assert decoded[3].tobytes() == cumsum(floats[3], ">f8").tobytes()
    floats = [s.astype("<f4") * 3 for s in sources]
    floats[2][[7, 8, 100]] = np.nan  # in several threads and tiles
    wanted = [JobStatus.OK, JobStatus.OK, JobStatus.INEXACT, JobStatus.OK]
    assert run_convert(floats, targets, scaling=(0.5, 3), sanitizer=sanitizer)[0] == wanted
    packed = rng.integers(0, 256, 49, dtype=np.uint8)
    options = {"width": 4, "bits": 13, "first": 3, "sign": 30, "swap": True}
    status, got = run_unpack(packed, 30, sanitizer=sanitizer, **options)
    assert status == JobStatus.OK
    np.testing.assert_array_equal(got, run_unpack(packed, 30, **options)[1])
