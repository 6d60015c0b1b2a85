"""The kernel that resamples equals its NumPy reference bit for bit, and touches nothing else.

The kernel is the shipped kernels/resample.cu, compiled by g++ and run on the emulated device; the
reference is `zarrgpu.resampling`, which tests/test_resampling.py holds to Pillow.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.emulator.build import sanitizer_problem
from tests.kernel_bench import Bench
from zarrgpu.devices.element_types import element_type
from zarrgpu.devices.tables import RESAMPLE_JOB, JobStatus
from zarrgpu.output import output_format
from zarrgpu.resampling import RESAMPLED_TYPES, convert, filter_table

SANITIZERS = [None, *(s for s in ("address", "thread") if not sanitizer_problem(s))]
few = settings(max_examples=60, deadline=None)


def table(n, length, step, corner):
    """Filter table of one axis of one image of `length` pixels."""
    place, size = np.array([corner], float), np.array([length])
    return filter_table(place, np.array([step], float), size * 0, size, n, length)


def pixels(rng, dtype, shape):
    if dtype.kind == "f":
        return (rng.standard_normal(shape) * 1000).astype(dtype)
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max + 1, shape).astype(dtype)


def reference(source, axis, output, fill, outer_inside, target):
    """What a job of this image computes, in NumPy."""
    values = np.zeros((source.shape[0], axis.first.shape[1], source.shape[2]), np.float32)
    for tap in range(axis.weight.shape[2]):
        weight = axis.weight[0, :, tap]
        used = weight != 0
        taken = source[:, axis.first[0][used] + tap].astype(np.float32)
        values[:, used] += taken * weight[used][:, None]
    (left, right), (top, bottom) = axis.inside[0], outer_inside
    values[:top], values[bottom:], values[:, :left], values[:, right:] = fill, fill, fill, fill
    out = np.empty(values.shape, target)
    with np.errstate(over="ignore"):
        convert(values, out, output)
    return out


def run(images, *, tile=64, block_threads=64, sanitizer=None, change=None):
    """Run one job an image, all into one output, and check that the rest stays as it was."""
    bench = Bench(block_threads)
    jobs = np.zeros(len(images), RESAMPLE_JOB)
    outs = [np.empty(image["shape"], image["target"]) for image in images]
    starts = np.cumsum([0] + [-(-out.nbytes // 16) * 16 + 16 for out in outs])
    memory = bench.empty(int(starts[-1]))
    sizes = []
    for job, image, out, start in zip(jobs, images, outs, starts, strict=False):
        source, axis, output = image["source"], image["axis"], image["output"]
        job["source"], job["source_nbytes"] = bench.put(source, image["misalign"]), source.nbytes
        job["target"], job["target_nbytes"] = memory.ptr + start, out.nbytes
        # the result may lie in any order of its axes: (outer, inner, m) here
        order = image["order"]
        strides = (
            np.empty(out.shape, out.dtype).transpose(order).copy().transpose(np.argsort(order))
        )
        job["target_strides"] = [s // out.itemsize for s in strides.strides]
        job["first"], job["first_nbytes"] = bench.put(axis.first), axis.first.nbytes
        job["weight"], job["weight_nbytes"] = bench.put(axis.weight), axis.weight.nbytes
        job["outer"], job["n"], job["inner"] = source.shape
        job["m"], job["taps"] = axis.weight.shape[1:]
        job["m_inside"], job["outer_inside"] = axis.inside[0], image["outer_inside"]
        job["fill"] = image["fill"]
        job["source_type"] = element_type(source.dtype)
        job["target_type"] = element_type(out.dtype)
        if output.scale is not None:
            job["scale"], job["offset"] = bench.put(output.scale), bench.put(output.offset)
            job["n_channels"] = output.scale.size
        sizes.append(out.size)
    if change is not None:
        change(jobs)
    before = memory.array.copy()
    status, got = bench.run(
        "resample", jobs, sizes, tile, watch=memory, zeroed=True, sanitizer=sanitizer
    )
    results = []
    for image, out, start in zip(images, outs, starts, strict=False):
        raw = got[start : start + out.nbytes].copy()
        before[start : start + out.nbytes] = raw
        order = image["order"]
        shape = [out.shape[axis] for axis in order]
        results.append(raw.view(out.dtype).reshape(shape).transpose(np.argsort(order)))
    np.testing.assert_array_equal(got, before)
    return status.tolist(), results


def image(rng, source_type, target_type, *, shape=(3, 9, 2), m=5, step=1.7, corner=0.0,
          normalise=False, order=(0, 1, 2), fill=7.0, misalign=0, outer_inside=None):  # fmt: skip
    source_type, target_type = np.dtype(source_type), np.dtype(target_type)
    channels = shape[2]
    output = output_format(
        source_type, dtype=target_type, channel_axis=2, channels=channels,
        normalize=(np.arange(channels) + 3.0, 2.5) if normalise else None,
    )  # fmt: skip
    return {
        "source": pixels(rng, source_type, shape),
        "axis": table(m, shape[1], step, corner),
        "target": target_type,
        "shape": (shape[0], m, channels),
        "output": output,
        "order": order,
        "fill": fill,
        "misalign": misalign,
        "outer_inside": outer_inside or (0, shape[0]),
    }


def check(images, **options):
    status, results = run(images, **options)
    assert status == [JobStatus.OK] * len(images)
    for each, got in zip(images, results, strict=True):
        wanted = reference(
            each["source"], each["axis"], each["output"], each["fill"], each["outer_inside"],
            each["target"],
        )  # fmt: skip
        np.testing.assert_array_equal(got, wanted)


@st.composite
def cases(draw):
    source = draw(st.sampled_from(RESAMPLED_TYPES))
    normalise = draw(st.booleans())
    targets = ["f2", "f4", "f8"] if normalise else ["f2", "f4", "f8", source]
    shape = tuple(draw(st.integers(1, n)) for n in (4, 30, 5))
    ends = sorted(draw(st.tuples(st.integers(0, shape[0]), st.integers(0, shape[0]))))
    return {
        "source_type": source,
        "target_type": draw(st.sampled_from(targets)),
        "shape": shape,
        "m": draw(st.integers(0, 20)),
        "step": draw(st.floats(0.2, 9)),
        "corner": draw(st.floats(-12, 40)),
        "normalise": normalise,
        "order": tuple(draw(st.permutations([0, 1, 2]))),
        "misalign": draw(st.integers(0, 5)),
        "outer_inside": tuple(ends),
    }


@given(st.lists(cases(), min_size=1, max_size=3), st.sampled_from([1, 31, 64, 4096]),
       st.integers(0, 2**32))  # fmt: skip
@few
def test_sums_are_those_of_numpy(shapes, tile, seed):
    rng = np.random.default_rng(seed)
    check([image(rng, **shape) for shape in shapes], tile=tile)


@pytest.mark.parametrize("block_threads", [32, 96, 256])
@pytest.mark.parametrize("sanitizer", SANITIZERS)
def test_no_block_size_and_no_sanitizer_finds_fault(block_threads, sanitizer):
    rng = np.random.default_rng(1)
    images = [
        image(rng, "u1", "u1", shape=(1, 40, 33), m=17, step=2.3, corner=-1.5),
        image(rng, "f4", "f2", shape=(7, 31, 3), m=11, step=0.6, normalise=True, order=(2, 0, 1)),
        image(rng, "i2", "i2", shape=(2, 1, 1), m=1, step=1.0),
        image(rng, "f2", "f8", m=0),
    ]
    check(images, block_threads=block_threads, sanitizer=sanitizer, tile=100)


def test_taps_of_weight_0_are_not_read():
    """A NaN beside what is taken does not come into it."""
    rng = np.random.default_rng(2)
    each = image(rng, "f4", "f4", shape=(1, 6, 1), m=6, step=1.0)
    each["source"][0, 2] = np.nan
    status, (got,) = run([each])
    assert status == [JobStatus.OK]
    np.testing.assert_array_equal(got, each["source"])
    assert np.isnan(got).sum() == 1


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("source_nbytes", 53, JobStatus.SOURCE_BOUNDS),
        ("target_nbytes", 29, JobStatus.TARGET_BOUNDS),
        ("first_nbytes", 19, JobStatus.SOURCE_BOUNDS),
        ("weight_nbytes", 4, JobStatus.SOURCE_BOUNDS),
        ("outer", -1, JobStatus.BAD_JOB),
        ("outer", 99, JobStatus.BAD_JOB),
        ("inner", 1 << 30, JobStatus.BAD_JOB),
        ("m", 1 << 30, JobStatus.BAD_JOB),
        ("taps", -1, JobStatus.BAD_JOB),
        ("taps", 1 << 30, JobStatus.SOURCE_BOUNDS),
        ("n", 4, JobStatus.SOURCE_BOUNDS),
        ("target_strides", -1, JobStatus.BAD_JOB),
        ("target_strides", 1 << 30, JobStatus.TARGET_BOUNDS),
        ("source_type", element_type(np.dtype("u4")), JobStatus.BAD_JOB),
        ("source_type", 99, JobStatus.BAD_JOB),
        ("target_type", element_type(np.dtype("?")), JobStatus.BAD_JOB),
        ("target_type", -1, JobStatus.BAD_JOB),
    ],
)
@pytest.mark.parametrize("sanitizer", [None, *SANITIZERS[1:2]])
def test_bad_jobs_get_a_status(field, value, code, sanitizer):
    rng = np.random.default_rng(3)

    def change(jobs):
        jobs[field][1] = value

    images = [image(rng, "u1", "u1") for _ in range(3)]
    status, results = run(images, change=change, sanitizer=sanitizer)
    assert status == [JobStatus.OK, code, JobStatus.OK]
    if field != "n":  # found while reading
        assert (results[1] == 0xA5).all()


def test_a_table_that_points_outside_is_found():
    rng = np.random.default_rng(4)
    images = [image(rng, "u1", "u1") for _ in range(3)]
    for value, each in zip((-1, 9), images, strict=False):
        each["axis"].first[0, 2] = value
    status, _ = run(images)
    assert status == [JobStatus.SOURCE_BOUNDS, JobStatus.SOURCE_BOUNDS, JobStatus.OK]


def test_misaligned_targets_and_overlaps_are_refused():
    rng = np.random.default_rng(5)

    def change(jobs):
        jobs["target"][0] += 1
        jobs["source"][1] = jobs["target"][1]

    images = [image(rng, "u1", "f4"), image(rng, "u1", "u1"), image(rng, "u1", "u1")]
    images[0]["target"] = np.dtype("f4")
    status, _ = run(images, change=change)
    assert status == [JobStatus.MISALIGNED, JobStatus.BAD_JOB, JobStatus.OK]


def test_normalisation_is_for_floats_and_for_as_many_channels():
    rng = np.random.default_rng(6)

    def change(jobs):
        jobs["n_channels"][0] = 3
        jobs["scale"][1] = jobs["scale"][0]

    images = [image(rng, "u1", "f4", normalise=True), image(rng, "u1", "u1")]
    status, _ = run(images, change=change)
    assert status == [JobStatus.BAD_JOB, JobStatus.BAD_JOB]
