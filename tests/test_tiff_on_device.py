"""TIFF pages read on a CUDA device are the host's and tifffile's, with every codec of ours there.

`strict` refuses what the device leaves to the host, so that what is read with it was not. Changed
streams give what the host gives, pixels or error.
"""

from __future__ import annotations

import io
import itertools

import imagecodecs
import numpy as np
import pytest
import tifffile

import zarrgpu as zg
from tests.gpu.devices import is_emulated, same
from tests.test_cuda_corruption import change
from tests.test_tiff_pixels import edit
from tests.tiff_arrays import decoded, page_array, ramp, segments, write
from zarrgpu import reader
from zarrgpu.errors import UnsupportedCodecError
from zarrgpu.output import output_format
from zarrgpu.plan.request import ReadRequest

STRICT = zg.ReadOptions(strict=True)
SHAPE = (11, 9, 3)
LAYOUTS = ({"rowsperstrip": 4}, {"tile": (16, 16)})  # 11 rows: a short last strip
DTYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8")
COMPRESSIONS = (None, "packbits", "lzw", 8, 32946, "zstd")


def check(data, cuda, image=None, *, options=STRICT):
    """Read a page whole and in part."""
    array = page_array(data)
    wanted = array.read(device="cpu")
    assert wanted.tobytes() == decoded(data).tobytes()
    if image is not None:
        assert wanted.tobytes() == image.tobytes()
    same(array.read(device=cuda, options=options), wanted, device=cuda)


def predictors(dtype, compression):
    if compression in (None, "packbits"):
        return [None]
    return [None, 3 if dtype[0] == "f" else 2]


def cells():
    """Every compression with every type and its predictor; layouts, planes and samples in turn."""
    turn = itertools.cycle(itertools.product(LAYOUTS, ("contig", "separate"), (3, 1, 5)))
    for compression, dtype in itertools.product(COMPRESSIONS, DTYPES):
        yield compression, dtype, predictors(dtype, compression)[-1], *next(turn)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_every_compression_and_type(compression, cuda):
    for number, (_, dtype, predictor, layout, planar, samples) in enumerate(
        cell for cell in cells() if cell[0] == compression
    ):
        image = ramp((*SHAPE[:2], samples), dtype)
        data = write(
            image if samples > 1 else image[..., 0], byteorder="<>"[number % 2],
            planarconfig=planar if samples > 1 else None, compression=compression,
            predictor=predictor, **layout,
        )  # fmt: skip
        check(data, cuda, image)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(("dtype", "predictor"), [("u2", 2), ("f4", 3), ("u8", 2), ("f8", 3)])
def test_predictors_in_both_byte_orders_after_every_compression(dtype, predictor, order, cuda):
    image = ramp((11, 9, 2), dtype)
    for compression, layout in zip(("lzw", 8, "zstd"), itertools.cycle(LAYOUTS), strict=False):
        data = write(
            image, byteorder=order, planarconfig="contig", compression=compression,
            predictor=predictor, **layout,
        )  # fmt: skip
        check(data, cuda, image)


@pytest.mark.parametrize("samples", [33, 70])
def test_predictors_of_more_samples_than_lanes(samples, cuda):
    for dtype, predictor in (("u2", 2), ("f4", 3)):
        image = ramp((3, 3, samples), dtype)
        options = {"planarconfig": "contig", "compression": "lzw", "rowsperstrip": 2}
        check(write(image, predictor=predictor, **options), cuda, image)


def test_libraries_and_kernels_share_the_work(cuda):
    """Deflate and Zstandard by the library, what comes after them by a kernel."""
    if not is_emulated(cuda):
        pytest.skip("launches are counted by the emulated driver")
    image = ramp(SHAPE, "u2")
    for compression, wanted in (
        (8, ["deflate", "predictor"]), ("zstd", ["zstd", "predictor"]),
        ("lzw", ["lzw", "predictor"]), ("packbits", ["packbits_runs"]),
    ):  # fmt: skip
        predictor = predictors("u2", compression)[-1]
        data = write(image, compression=compression, predictor=predictor, rowsperstrip=4)
        before = len(cuda.driver.launches)
        page_array(data).read(device=cuda, options=STRICT)
        done = cuda.driver.launches[before:]
        assert [name for name in done if name in wanted] == wanted * (len(done) // len(set(done)))
        text = page_array(data).plan(device=cuda).explain()
        assert "short_chunk by no decoding needed" in text
        assert "no device decoder" not in text


@pytest.mark.parametrize("compression", [None, "lzw", 8, "packbits"])
def test_packed_and_reversed_bits(compression, cuda):
    bits = ramp((21, 19), "?")
    check(write(bits, compression=compression, rowsperstrip=8), cuda, bits[..., None])
    for dtype in ("?", "u2"):
        image = ramp((11, 24), dtype)
        extra = [(263, 3, 1, 2, True)]
        data = bytearray(write(image, compression=compression, rowsperstrip=8, extratags=extra))
        with tifffile.TiffFile(io.BytesIO(bytes(data))) as tiff:  # which does not write tag 266
            at = tiff.pages[0].tags[263].offset
        data[at : at + 2] = (266).to_bytes(2, "little")
        for offset, nbytes in segments(bytes(data)):
            stored = bytes(data[offset : offset + nbytes])
            data[offset : offset + nbytes] = imagecodecs.bitorder_encode(stored)
        # what a library decodes must lie there as it wants it
        check(bytes(data), cuda, image, options=zg.ReadOptions() if compression == 8 else STRICT)


def test_last_strips_with_rows_beyond_the_image(cuda):
    """Some writers pad the last strip: not told from its place, so it is the host's."""
    image = ramp((24, 9), "u2")
    for compression in (None, "lzw", 8, "zstd"):
        predictor = predictors("u2", compression)[-1]
        data = bytearray(write(image, compression=compression, predictor=predictor, rowsperstrip=8))
        edit(data, {"ImageLength": 21})
        array = page_array(bytes(data))
        assert "short_chunk" in array.source.chain.names
        same(array.read(device=cuda), image[:21, :, None], device=cuda)
        same(array.read((slice(0, 16),), device=cuda, options=STRICT), image[:16, :, None],
             device=cuda)  # fmt: skip
        with pytest.raises(UnsupportedCodecError, match="strict"):
            array.read(device=cuda, options=STRICT)


def test_missing_tiles_and_waves_of_few_chunks(cuda):
    image = ramp((40, 20, 3), "u1")
    for layout in ({"tile": (16, 16)}, {"rowsperstrip": 8}):
        data = bytearray(write(image, compression="lzw", predictor=2, planarconfig="contig",
                               **layout))  # fmt: skip
        with tifffile.TiffFile(io.BytesIO(bytes(data))) as tiff:
            tag = tiff.pages[0].tags["TileByteCounts" if "tile" in layout else "StripByteCounts"]
        size = {3: 2, 4: 4}[int(tag.dtype)]
        for gone in (1, 3):
            at = tag.valueoffset + gone * size
            data[at : at + size] = bytes(size)
        array = page_array(bytes(data))
        wanted = array.read(device="cpu")
        assert (wanted != image).any()
        small = zg.ReadOptions(strict=True, memory_budget_bytes=8 << 10)
        for options in (STRICT, small):
            same(array.read(device=cuda, options=options), wanted, device=cuda)


def test_patches_over_many_strips_and_pages_of_two_files(cuda):
    image = ramp((37, 31, 3), "u1") // 32
    files = [
        write(image, compression="lzw", predictor=2, rowsperstrip=8, planarconfig="contig"),
        write(image[::-1].copy(), compression=8, predictor=2, tile=(16, 16), planarconfig="contig"),
    ]
    sources = tuple(page_array(data).source for data in files)
    rng = np.random.default_rng(3)
    n = 20
    start = np.stack([rng.integers(0, 22, n), rng.integers(0, 16, n), np.zeros(n, int)], axis=1)
    request = ReadRequest(
        arrays=tuple(s.spec for s in sources), array_index=(np.arange(n) % 2).astype(np.int32),
        start=start, count=(15, 15, 3), step=(1, 1, 1),
    )  # fmt: skip
    got, _ = reader.read(sources, request, device=cuda, output=output_format(np.dtype("u1")),
                         options=STRICT)  # fmt: skip
    images = (image, image[::-1])
    wanted = [images[i % 2][y : y + 15, x : x + 15] for i, (y, x, _) in enumerate(start.tolist())]
    same(got, np.stack(wanted), device=cuda)


CHAINS = [("lzw", "u2", 2), ("lzw", "f4", 3), ("packbits", "u1", None), (8, "u2", 2)]


@pytest.mark.parametrize(("compression", "dtype", "predictor"), CHAINS)
def test_changed_streams_give_what_the_host_gives(compression, dtype, predictor, cuda):
    """Every strip, the short last one too, is changed in its own way; one read of all on both."""
    rng = np.random.default_rng(7)
    rows, n = 4, 40
    image = np.repeat(ramp((rows * n - 2, 5, 2), dtype), 2, axis=1)
    data = bytearray(write(image, compression=compression, predictor=predictor, rowsperstrip=rows,
                           planarconfig="contig"))  # fmt: skip
    for offset, nbytes in segments(bytes(data))[3:]:
        changed = change(bytes(data[offset : offset + nbytes]), rng)
        changed = changed[:nbytes].ljust(nbytes, b"\0")
        data[offset : offset + nbytes] = changed
    source = page_array(bytes(data)).source
    start = np.zeros((n, 3), int)
    start[:, 0] = np.arange(n) * rows
    start[-1, 0] = rows * n - 2 - rows  # the end of the one before, and the short one
    request = ReadRequest(
        arrays=(source.spec,), array_index=np.zeros(n, np.int32), start=start,
        count=(rows, 10, 2), step=(1, 1, 1),
    )  # fmt: skip
    read = {"output": output_format(source.spec.dtype), "on_error": "mask"}
    wanted, fine = reader.read((source,), request, device="cpu", **read)
    got, ok = reader.read((source,), request, device=cuda, **read)
    np.testing.assert_array_equal(ok, fine)
    same(got, wanted, device=cuda)
    assert fine[:3].all()
    assert not fine.all()


@pytest.mark.slides
def test_the_label_of_a_real_slide(cuda, shared_data):
    """Aperio stores it with LZW and predictor 2; its first strip and its last ones."""
    data = (shared_data / "slides" / "CMU-1-Small-Region.svs").read_bytes()
    array = page_array(data, 2)
    assert array.source.chain.names == "short_chunk, tiff_predictor, lzw"
    wanted = decoded(data, 2)
    for rows in (slice(0, 3), slice(450, 463)):
        same(array.read((rows,), device=cuda, options=STRICT), wanted[rows], device=cuda)
