"""Law: the filter is Pillow's, and compiled code and NumPy give the same bytes."""

from __future__ import annotations

import re

import numpy as np
import pytest
from PIL import Image

from zarrgpu.devices import native
from zarrgpu.devices.kernel_sources import kernels_folder
from zarrgpu.errors import SelectionError
from zarrgpu.host_resample import resample_on_host
from zarrgpu.model import ReadOptions
from zarrgpu.output import output_format
from zarrgpu.resampling import (
    RESAMPLED_TYPES,
    FilterTable,
    ResampleBatch,
    check_resampled,
    filter_table,
    resample,
    source_length,
    source_start,
)


def tables(corners, step, ends, n):
    """Filter tables of several images along an axis, and where their sources start."""
    corners = np.array(corners, float)
    steps = np.full(len(corners), float(step))
    start = source_start(corners, steps)
    length = source_length(n, step)
    made = filter_table(corners - start, steps, -start, np.array(ends) - start, n, length)
    return made, start, length


def cut(image, y, x, height, width, fill):
    rows, columns = np.arange(y, y + height), np.arange(x, x + width)
    out = np.full((height, width, image.shape[2]), fill, image.dtype)
    inside = [(v >= 0) & (v < n) for v, n in zip((rows, columns), image.shape, strict=False)]
    out[np.ix_(*inside)] = image[np.ix_(rows[inside[0]], columns[inside[1]])]
    return out


def batch_of(image, corners, step, size, fill):
    """Sources of patches of an image, and how to resample them."""
    (width, height), (dx, dy) = size, step
    rows, top, h = tables([y for _, y in corners], dy, [image.shape[0]] * len(corners), height)
    columns, left, w = tables([x for x, _ in corners], dx, [image.shape[1]] * len(corners), width)
    pixels = [cut(image, y, x, h, w, fill) for y, x in zip(top, left, strict=True)]
    n = np.arange(len(corners))
    fills = np.full(len(corners), fill, np.float32)
    return np.stack(pixels), ResampleBatch(rows, columns, n, n, fills, n[::-1].copy())


def random_image(dtype, channels, seed=0):
    rng = np.random.default_rng(seed)
    if dtype.kind == "f":
        return rng.standard_normal((60, 70, channels)).astype(dtype) * 100
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max + 1, (60, 70, channels)).astype(dtype)


CORNERS = [(0.0, 0.0), (3.3, 17.9), (-9.5, 20.2), (55.1, 48.4), (-100.0, 3.0), (33.0, 30.5)]


@pytest.mark.parametrize("native_code", [True, False])
@pytest.mark.parametrize("step", [0.4, 1.0, 1.5, 2.0, 3.7])
def test_the_filter_is_pillows(step, native_code):
    image = random_image(np.dtype("f4"), 2)
    size = (9, 8)
    corners = [
        c for c in CORNERS if min(c) >= 0 and c[0] + 9 * step <= 70 and c[1] + 8 * step <= 60
    ]
    pixels, batch = batch_of(image, corners, (step, step), size, 0)
    out = np.empty((len(corners), 8, 9, 2), np.float32)
    options = ReadOptions(native=native_code)
    resample_on_host(batch, pixels, out, (1, 2, 3), output_format(image.dtype), options)
    for (x, y), got in zip(corners, out[::-1], strict=True):
        for c in range(2):
            box = (x, y, x + 9 * step, y + 8 * step)
            plane = Image.fromarray(np.ascontiguousarray(image[..., c]))
            expected = np.asarray(plane.resize(size, Image.Resampling.BILINEAR, box=box))
            np.testing.assert_allclose(got[..., c], expected, atol=1e-3)


@pytest.mark.skipif(native.native_library() is None, reason="no compiled library")
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", RESAMPLED_TYPES)
def test_compiled_equals_numpy(dtype, channels):
    dtype = np.dtype(dtype)
    image = random_image(dtype, channels)
    targets = [(dtype, None), ("f2", None), ("f4", None), ("f8", None), ("f4", (3.0, 2.0)),
               ("f2", (np.arange(channels) + 1.0, 50.0))]  # fmt: skip
    for step in ((1.0, 1.0), (2.3, 1.7), (0.6, 4.4)):
        pixels, batch = batch_of(image, CORNERS, step, (13, 11), 7)
        for target, normalize in targets:
            output = output_format(
                dtype, dtype=target, normalize=normalize, channel_axis=2, channels=channels
            )
            for axes, shape in (((1, 2, 3), (11, 13, channels)), ((2, 3, 1), (channels, 11, 13))):
                results = []
                for native_code in (True, False):
                    out = np.empty((len(CORNERS), *shape), output.dtype)
                    options = ReadOptions(native=native_code, num_threads=1)
                    resample_on_host(batch, pixels, out, axes, output, options)
                    results.append(out)
                np.testing.assert_array_equal(*results)


def test_the_ends_of_integers_do_not_wrap():
    """A flat image of the largest or smallest value stays that."""
    for dtype in ("u1", "i1", "u2", "i2"):
        info = np.iinfo(dtype)
        for value in (info.min, info.max):
            image = np.full((60, 70, 3), value, dtype)
            pixels, batch = batch_of(image, CORNERS[:2], (2.7, 1.9), (13, 11), value)
            for native_code in (True, False):
                out = np.empty((2, 11, 13, 3), dtype)
                options = ReadOptions(native=native_code)
                resample_on_host(batch, pixels, out, (1, 2, 3), output_format(out.dtype), options)
                assert (out == value).all()


def test_taps_of_weight_0_are_not_read():
    """A NaN beside what is taken does not come into it, compiled or not."""
    image = random_image(np.dtype("f4"), 1)
    image[:, 5] = np.nan
    pixels, batch = batch_of(image, [(0.0, 0.0)], (1.0, 1.0), (20, 20), 0)
    for native_code in (True, False):
        out = np.empty((1, 20, 20, 1), np.float32)
        options = ReadOptions(native=native_code)
        resample_on_host(batch, pixels, out, (1, 2, 3), output_format(out.dtype), options)
        np.testing.assert_array_equal(out[0], image[:20, :20])


def test_weights_sum_to_1_within_the_image():
    made, _, length = tables(np.linspace(-20, 70, 41), 1.9, [60] * 41, 15)
    inside = (np.arange(15) >= made.inside[:, :1]) & (np.arange(15) < made.inside[:, 1:])
    np.testing.assert_allclose(made.weight.sum(axis=2)[inside], 1, rtol=1e-6)
    assert (made.first >= 0).all()
    assert (made.first + made.weight.shape[2] <= length).all()
    assert 0 < inside.sum() < inside.size


def test_a_source_holds_all_that_its_results_need():
    """No tap with weight falls off its ends."""
    rng = np.random.default_rng(2)
    for _ in range(300):
        step, n = float(rng.uniform(0.05, 30)), int(rng.integers(1, 40))
        corner = rng.uniform(-1e6, 1e6, 5)
        start, length = source_start(corner, np.full(5, step)), source_length(n, step)
        centres = corner[:, None] + (np.arange(n) + 0.5) * step
        support = max(step, 1.0)
        lowest = np.ceil(centres - support - 0.5 + 1e-6)
        highest = np.floor(centres + support - 0.5 - 1e-6)
        assert (lowest >= start[:, None]).all()
        assert (highest < (start + length)[:, None]).all()


def test_an_empty_result_is_one():
    table = FilterTable(
        np.empty((1, 0), np.int32), np.empty((1, 0, 1), np.float32), np.zeros((1, 2), np.int32)
    )
    out = np.empty((0, 0, 3), np.uint8)
    resample(np.zeros((1, 1, 3), "u1"), table, table, (0, 0), out, output_format(out.dtype), 0)


@pytest.mark.parametrize("dtype", ["?", "u4", "i8", "f8", "c8", "S3"])
def test_other_types_are_refused_by_name(dtype):
    with pytest.raises(SelectionError, match=r"'a\.svs': pixels of .* are not resampled"):
        check_resampled(np.dtype(dtype), "a.svs")


def test_the_table_of_the_library_has_its_fields():
    text = (kernels_folder() / "host" / "resample.h").read_text()
    body = re.search(r"struct Resampling \{(.*?)\n\};", text, re.DOTALL)[1]
    names = re.findall(r"(\w+)(?:\[3\])?;", re.sub(r"//[^\n]*", "", body))
    at = names.index("target_strides")
    names[at : at + 1] = ["stride_y", "stride_x", "stride_c"]
    assert tuple(names) == native.RESAMPLING
