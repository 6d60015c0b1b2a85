"""Kernels that finish images equal their references byte for byte, and give up on what is wrong.

The kernels are the shipped ycbcr.cu and jpeg_scan.cu, run on the emulated device.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import kernel_references as reference
from tests.kernel_bench import Bench
from tests.test_kernels import sanitized
from zarrgpu.devices.tables import IMAGE_JOB, SCAN_JOB, ImageColor, JobStatus

few = settings(max_examples=40, deadline=None)
STORED, YCC, ROUNDED, SYCC = ImageColor
SUBSAMPLINGS = [(1, 1), (2, 1), (1, 2), (2, 2)]


def image_planes(rng, height, width, samples, across=1, down=1, dtype=np.uint8):
    """Random planes, as a decoder leaves them."""
    chroma = (-(-height // down), -(-width // across))
    shapes = [(height, width), chroma, chroma, (height, width)][:samples]
    top = np.iinfo(dtype).max
    return [rng.integers(0, top, shape, dtype, endpoint=True) for shape in shapes]


def put_image(bench, job, planes, across, down, color, slack, target):
    """Lay planes out in memory and fill the job in."""
    height, width = planes[0].shape
    size = planes[0].dtype.itemsize
    pitch, chroma_pitch = (width + slack) * size, (-(-width // across) + slack) * size
    rows = []
    for plane in planes:
        room = np.full((plane.shape[0], plane.shape[1] + slack), 77, plane.dtype)
        room[:, : plane.shape[1]] = plane
        rows.append(room.reshape(-1))
    content = np.concatenate(rows)
    job["source"], job["source_nbytes"] = bench.put(content, size), content.nbytes
    job["target"], job["target_nbytes"] = target, height * width * len(planes) * size
    job["n"], job["width"], job["height"] = height * width, width, height
    job["samples"], job["sample_nbytes"], job["color"] = len(planes), size, color
    job["pitch"], job["chroma_pitch"], job["across"], job["down"] = (
        pitch, chroma_pitch, across, down,
    )  # fmt: skip


def run_images(images, *, tile=64, slack=3, change=None, sanitizer=None, block_threads=64):
    """Statuses and pixels of images given as (planes, across, down, color)."""
    bench = Bench(block_threads)
    jobs = np.zeros(len(images), IMAGE_JOB)
    sizes = [p[0].size * len(p) * p[0].itemsize for p, *_ in images]
    starts = np.cumsum([16] + [-(-n // 16) * 16 + 16 for n in sizes])
    out = bench.empty(int(starts[-1]))
    for job, (planes, across, down, color), start in zip(jobs, images, starts, strict=False):
        put_image(bench, job, planes, across, down, color, slack, out.ptr + start)
    if change is not None:
        change(jobs)
    before = out.array.copy()
    status, got = bench.run(
        "ycbcr", jobs, [p[0].size for p, *_ in images], tile, watch=out, zeroed=True,
        sanitizer=sanitizer,
    )  # fmt: skip
    pixels = []
    for (planes, *_), start, n in zip(images, starts, sizes, strict=False):
        shape = (*planes[0].shape, len(planes))
        pixels.append(got[start : start + n].view(planes[0].dtype).reshape(shape))
        before[start : start + n] = got[start : start + n]
    np.testing.assert_array_equal(got, before)  # nothing between the images
    return status.tolist(), pixels


def check_images(images, **options):
    status, pixels = run_images(images, **options)
    assert status == [JobStatus.OK] * len(images)
    for (planes, across, down, color), got in zip(images, pixels, strict=True):
        wanted = reference.planes_to_pixels(planes, color, across, down)
        np.testing.assert_array_equal(got, wanted)


@st.composite
def images(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    size = draw(st.integers(1, 9)), draw(st.integers(1, 20))
    color = draw(st.sampled_from(list(ImageColor)))
    samples = 3 if color != STORED else draw(st.integers(1, 4))
    across, down = draw(st.sampled_from(SUBSAMPLINGS)) if color != ROUNDED else (1, 1)
    wide = color == STORED and (across, down) == (1, 1) and draw(st.booleans())
    dtype = np.uint16 if wide else np.uint8
    return image_planes(rng, *size, samples, across, down, dtype), across, down, color


@given(st.lists(images(), min_size=1, max_size=4), st.sampled_from([1, 32, 50]), st.integers(0, 5))
@few
def test_planes_become_the_pixels_of_the_host_codecs(images, tile, slack):
    check_images(images, tile=max(tile, 1), slack=slack)


@pytest.mark.parametrize("color", [YCC, ROUNDED, SYCC])
def test_every_pair_of_chroma_values(color):
    """All 65,536 of them, at a luma that clips and at one that does not."""
    cb, cr = np.meshgrid(np.arange(256, dtype=np.uint8), np.arange(256, dtype=np.uint8))
    for luma in (16, 128):
        planes = [np.full((256, 256), luma, np.uint8), cb, cr]
        check_images([(planes, 1, 1, color)], tile=4096)


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("width", 0, JobStatus.BAD_JOB), ("width", 1 << 20, JobStatus.BAD_JOB),
        ("height", -1, JobStatus.BAD_JOB), ("n", 1, JobStatus.BAD_JOB),
        ("samples", 5, JobStatus.BAD_JOB), ("samples", 2, JobStatus.BAD_JOB),
        ("sample_nbytes", 2, JobStatus.BAD_JOB), ("across", 3, JobStatus.BAD_JOB),
        ("down", 0, JobStatus.BAD_JOB), ("color", 4, JobStatus.BAD_JOB),
        ("pitch", 8, JobStatus.BAD_JOB), ("chroma_pitch", 3, JobStatus.BAD_JOB),
        ("source_nbytes", 139, JobStatus.SOURCE_BOUNDS),
        ("target_nbytes", 9 * 10 * 3 - 1, JobStatus.TARGET_BOUNDS),
    ],
)  # fmt: skip
def test_bad_jobs_are_refused_and_the_others_done(field, value, code):
    rng = np.random.default_rng(1)
    good = (image_planes(rng, 10, 9, 3, 2, 2), 2, 2, YCC)

    def change(jobs):
        jobs[1][field] = value

    status, pixels = run_images([good, good, good], change=change, slack=0, tile=128)
    assert status == [JobStatus.OK, code, JobStatus.OK]
    for got in (pixels[0], pixels[2]):
        np.testing.assert_array_equal(got, reference.planes_to_pixels(good[0], YCC, 2, 2))


def test_an_odd_address_of_wide_samples_is_refused():
    rng = np.random.default_rng(2)
    planes = image_planes(rng, 3, 4, 2, dtype=np.uint16)
    for field in ("source", "target"):

        def change(jobs, field=field):
            jobs[field] += 1
            jobs["source_nbytes"] -= 1

        assert run_images([(planes, 1, 1, STORED)], change=change)[0] == [JobStatus.MISALIGNED]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_an_image_that_nothing_decoded_is_noticed(dtype):
    """mark_planes, then a decoder that writes only a part, then ycbcr."""
    rng = np.random.default_rng(3)
    bench, tile, n = Bench(), 64, 20 * 13
    jobs = np.zeros(4, IMAGE_JOB)
    out = bench.empty(4 * 2048)
    planes = image_planes(rng, 13, 20, 3, dtype=dtype)
    for i, job in enumerate(jobs):
        put_image(bench, job, planes, 1, 1, STORED, 2, out.ptr + 2048 * i)
    jobs["marked"] = 1
    jobs[3]["marked"] = 0  # nobody asks
    contents = [memory.array for memory in bench.kept[1:5]]
    decoded = [content.copy() for content in contents]
    status, _ = bench.run("mark_planes", jobs, [n] * 4, tile, zeroed=True)
    assert status.tolist() == [0] * 4
    row_nbytes = 22 * np.dtype(dtype).itemsize
    size = np.dtype(dtype).itemsize
    for content, before in zip(contents, decoded, strict=True):  # gaps and chroma as before
        first = content[size : size + 13 * row_nbytes].reshape(13, row_nbytes)
        was = before[size : size + 13 * row_nbytes].reshape(13, row_nbytes)
        np.testing.assert_array_equal(first[:, 20 * size :], was[:, 20 * size :])
        np.testing.assert_array_equal(
            content[size + 13 * row_nbytes :], before[size + 13 * row_nbytes :]
        )
    contents[0][:] = decoded[0]
    contents[1][: size + 9 * row_nbytes] = decoded[1][: size + 9 * row_nbytes]  # the first rows
    contents[2][:] = decoded[2]
    status, _ = bench.run("ycbcr", jobs, [n] * 4, tile, zeroed=True)
    assert status.tolist() == [0, JobStatus.CORRUPT, 0, 0]


def test_missing_blocks_are_noticed_and_chance_is_not():
    """Nine undecoded rows of 16 pixels in a tile of 4096 are; what chance leaves is not."""
    rng = np.random.default_rng(4)
    images = [np.full((64, 64), 200, np.uint8), *image_planes(rng, 64, 64, 1)] * 2
    bench, jobs, out = Bench(), np.zeros(4, IMAGE_JOB), None
    out = bench.empty(4 * 4096)
    for i, (job, plane) in enumerate(zip(jobs, images, strict=True)):
        put_image(bench, job, [plane], 1, 1, STORED, 0, out.ptr + 4096 * i)
    jobs["marked"] = 1
    contents = [memory.array[1:].reshape(64, 64) for memory in bench.kept[1:5]]
    bench.run("mark_planes", jobs, [4096] * 4, 4096, zeroed=True)
    for i, (content, plane) in enumerate(zip(contents, images, strict=True)):
        left = content[20:29, 8:24].copy()
        content[:] = plane
        if i >= 2:
            content[20:29, 8:24] = left
    status, _ = bench.run("ycbcr", jobs, [4096] * 4, 4096, zeroed=True)
    assert status.tolist() == [0, 0, JobStatus.CORRUPT, JobStatus.CORRUPT]


# ---- entropy-coded data --------------------------------------------------------------------------


def run_scan(datas, restarts, *, tile=64, sanitizer=None, change=None):
    bench = Bench()
    jobs = np.zeros(len(datas), SCAN_JOB)
    for i, data in enumerate(datas):
        jobs[i]["source"] = bench.put(np.frombuffer(data, np.uint8), i % 5)
        jobs[i]["source_nbytes"], jobs[i]["nbytes"] = len(data), len(data) - 1
        jobs[i]["restarts"] = restarts[i]
    if change is not None:
        change(jobs)
    sizes = [len(data) - 1 for data in datas]
    status, _ = bench.run("jpeg_scan", jobs, sizes, tile, zeroed=True, sanitizer=sanitizer)
    return status.tolist()


@st.composite
def scans(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    data = bytearray(rng.bytes(draw(st.integers(1, 300))))
    if draw(st.booleans()):  # stuffed as an encoder does it
        data = data.replace(b"\xff", b"\xff\0")
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(data)))
        data[at:at] = bytes([0xFF, draw(st.sampled_from([0, 0xD0, 0xD7, 0xD8, 0xD9, 0xFF, 0xDA]))])
    return bytes(data) + b"\xff"


@given(st.lists(st.tuples(scans(), st.booleans()), min_size=1, max_size=5),
       st.sampled_from([4, 64, 1024]))  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_only_stuffed_data_and_restarts_pass(cases, tile):
    datas, restarts = zip(*cases, strict=True)
    wanted = [
        JobStatus.OK if reference.scan_is_plain(d, r) else JobStatus.CORRUPT for d, r in cases
    ]
    assert run_scan(datas, restarts, tile=tile) == wanted


def test_a_marker_at_any_place_is_seen():
    for size in (1, 2, 3, 4, 5, 127, 128, 129, 300):
        datas = []
        for at in range(size):
            data = bytearray(size + 1)
            data[at] = 0xFF
            data[at + 1] = 0xD9
            datas.append(bytes(data))
        assert set(run_scan(datas, [True] * size)) == {JobStatus.CORRUPT}


def test_scans_without_the_byte_behind_are_refused():
    def change(jobs):
        jobs["nbytes"] = [5, -1, 4]

    status = run_scan([bytes(5)] * 3, [False] * 3, change=change)
    assert status == [JobStatus.SOURCE_BOUNDS, JobStatus.BAD_JOB, JobStatus.OK]


@sanitized
def test_image_kernels_under_sanitizers(sanitizer):
    rng = np.random.default_rng(5)
    cases = [
        (image_planes(rng, 7, 11, 3, across, down), across, down, color)
        for across, down in SUBSAMPLINGS
        for color in (YCC, SYCC)
    ]
    cases.append((image_planes(rng, 5, 6, 4, dtype=np.uint16), 1, 1, STORED))
    check_images(cases, tile=33, slack=0, sanitizer=sanitizer)
    plain, broken = b"ab\xff\0cd\xff\xd1e" * 20 + b"\xff", b"\xff\xd9" * 30 + b"\xff"
    status = run_scan([plain, broken, plain], [1, 1, 0], sanitizer=sanitizer)
    assert status == [JobStatus.OK, JobStatus.CORRUPT, JobStatus.CORRUPT]
