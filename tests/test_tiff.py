"""Laws of the TIFF parser.

1. Tags and pixels equal tifffile's for every byte order, container, layout, dtype and compression.
2. Opening reads directories, never image data, in few requests.
3. What zarrgpu does not read is refused by name; what is damaged, by directory and tag.
"""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import tifffile

from tests.manual_decode import read_array
from tests.synthetic_slides import SlideRecipe, make_svs, tissue
from zarrgpu.errors import MetadataError, UnsupportedCodecError, UnsupportedFormatError
from zarrgpu.formats.tiff import TiffPage, is_tiff, page_to_array_spec, read_tiff
from zarrgpu.formats.tiff_slide import read_tiff_slide
from zarrgpu.model import MISSING_NBYTES, CodecSpec, Manifest


def read(data: bytes) -> tuple[TiffPage, ...]:
    return read_tiff(lambda at, n: data[at : at + n], len(data), source="t.tif")


def write(image: np.ndarray, *, byteorder: str = "<", big: bool = False, **options) -> bytes:
    file = io.BytesIO()
    options = {"photometric": "minisblack", "metadata": None, "software": False} | options
    with tifffile.TiffWriter(file, bigtiff=big, byteorder=byteorder) as writer:
        writer.write(image, **options)
    return file.getvalue()


def ramp(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Values over the whole range of a dtype, no row like another."""
    rng = np.random.default_rng(5)
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return (rng.standard_normal(shape) * 1000).astype(kind)
    info = np.iinfo(kind)
    return rng.integers(info.min, info.max, shape, kind, endpoint=True)


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("compression", ["none", "lzw", "zlib", "zstd", "packbits"])
@pytest.mark.parametrize("tile", [(32, 48), None])
def test_pixels_equal_what_was_written(byteorder, big, compression, tile):
    for dtype in ("uint8", "int16", "uint32", "float32"):
        image = ramp((71, 50, 3), dtype)
        layout = {"tile": tile} if tile else {"rowsperstrip": 9}
        predictors = (False, True) if compression in ("lzw", "zlib", "zstd") else (False,)
        for predictor in predictors:
            data = write(
                image, byteorder=byteorder, big=big, planarconfig="contig", photometric="rgb",
                compression=None if compression == "none" else compression, predictor=predictor,
                **layout,
            )  # fmt: skip
            spec = page_to_array_spec(read(data)[0], key="t.tif")
            assert spec.dtype == image.dtype.newbyteorder(byteorder)
            assert np.array_equal(read_array(data, spec), image), (dtype, predictor)


def test_page_holds_the_tags_of_tifffile():
    data = make_svs(SlideRecipe(kind="jpeg-420", big=True))
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        pages = read(data)
        assert len(pages) == len(tiff.pages)
        for ours, theirs in zip(pages, tiff.pages, strict=True):
            assert (ours.height, ours.width, ours.samples) == theirs.shape
            assert ours.tiled == theirs.is_tiled
            assert ours.compression == theirs.compression
            assert ours.photometric == theirs.photometric
            assert ours.predictor == theirs.predictor
            assert ours.subfile_type == theirs.subfiletype
            assert ours.description == theirs.description
            assert ours.jpeg_tables == (theirs.jpegtables or b"")
            assert tuple(ours.offsets) == theirs.dataoffsets
            assert tuple(ours.nbytes) == theirs.databytecounts
            assert ours.offsets.dtype == ours.nbytes.dtype == np.int64


def test_codecs_are_in_encoding_order_with_the_short_last_strip_innermost():
    image = ramp((10, 8), "uint16")
    data = write(image, byteorder=">", compression="lzw", predictor=True, rowsperstrip=4)
    spec = page_to_array_spec(read(data)[0], key="k")
    predictor = {"predictor": 2, "width": 8, "samples": 1, "dtype": ">u2"}
    assert spec.codecs == (
        CodecSpec("short_chunk", {"short_nbytes": 32}),
        CodecSpec("tiff_predictor", predictor),
        CodecSpec("lzw"),
    )
    assert spec.shape == (10, 8, 1)
    assert spec.chunk_shape == (4, 8, 1)
    assert spec.dimension_names == ("y", "x", "c")


def test_opening_reads_no_image_data_and_few_ranges():
    rng = np.random.default_rng(0)
    data = write(rng.integers(0, 256, (4096, 2048), np.uint8), tile=(64, 64))
    requests = []

    def read_range(offset: int, nbytes: int) -> bytes:
        requests.append((offset, nbytes))
        return data[offset : offset + nbytes]

    page = read_tiff(read_range, len(data), source="t.tif")[0]
    assert page.offsets.size == 64 * 32
    assert len(requests) <= 2
    assert sum(n for _, n in requests) < 200_000 < len(data)


def test_empty_chunks_are_missing_and_a_chunk_beyond_the_end_is_no_error_at_open():
    recipe = SlideRecipe(kind="none", n_levels=1, associated=False, missing={0: (3,)})
    data = make_svs(recipe)
    location = page_to_array_spec(read(data)[0], key="k").location
    assert isinstance(location, Manifest)
    assert np.flatnonzero(location.nbytes == MISSING_NBYTES).tolist() == [3]
    assert page_to_array_spec(read(data)[0], key="k").fill_value == 0
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        tag = tiff.pages[0].tags["TileOffsets"]
    damaged = bytearray(data)
    struct.pack_into("<I", damaged, tag.valueoffset, 1 << 31)
    assert read(bytes(damaged))[0].offsets[0] == 1 << 31


def classic(entries: list[tuple[int, int, int, bytes]], *, next_ifd: int = 0) -> bytes:
    """Little-endian TIFF with one directory at offset 8 and these (tag, type, count, value)."""
    body = b"".join(struct.pack("<HHI", *e[:3]) + e[3].ljust(4, b"\0") for e in entries)
    head = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(entries))
    return head + body + struct.pack("<I", next_ifd) + bytes(64)


def short(tag: int, value: int) -> tuple[int, int, int, bytes]:
    return (tag, 3, 1, struct.pack("<H", value))


def long(tag: int, value: int, count: int = 1) -> tuple[int, int, int, bytes]:
    return (tag, 4, count, struct.pack("<I", value))


GOOD = [
    short(256, 4), short(257, 4), short(258, 8), short(259, 1), short(262, 1), long(273, 128),
    long(279, 16),
]  # fmt: skip


def without(tag: int, *more: tuple[int, int, int, bytes]) -> list[tuple[int, int, int, bytes]]:
    return sorted([e for e in GOOD if e[0] != tag] + list(more))


def test_the_hand_made_file_is_good():
    data = classic(GOOD) + bytes(range(16))
    assert page_to_array_spec(read(data)[0], key="k").shape == (4, 4, 1)


BEYOND_END = "beyond the end of the file"


@pytest.mark.parametrize(
    ("data", "message", "location"),
    [
        (b"", "not a TIFF", ("header",)),
        (b"II*\0", "not a TIFF", ("header",)),
        (b"II+\0\x08\0\0\0" + bytes(2), "damaged BigTIFF header", ("header",)),
        (b"II+\0\x04\0\0\0" + bytes(20), "damaged BigTIFF header", ("header",)),
        (b"II*\0\0\0\0\0", "no directory", ()),
        (b"II*\0\xff\0\0\0", BEYOND_END, ("ifd", 0)),
        (b"II*\0\x08\0\0\0\0\0" + bytes(9), "claims 0 entries", ("ifd", 0)),
        (b"II*\0\x08\0\0\0\xff\xff" + bytes(9), "claims 65535 entries", ("ifd", 0)),
        (classic(GOOD, next_ifd=8), "loops back", ("ifd", 1)),
        (classic(without(256)), "missing", ("ifd", 0, "ImageWidth")),
        (classic(without(256, short(256, 0))), "got 0", ("ifd", 0, "ImageWidth")),
        (classic(without(256, long(256, 1 << 31))), "pixels", ("ifd", 0, "ImageWidth")),
        (classic(without(256, (256, 2, 1, b"a"))), "integer", ("ifd", 0, "ImageWidth")),
        (classic(without(256, (256, 99, 1, b"a"))), "integer", ("ifd", 0, "ImageWidth")),
        (classic(without(256, long(256, 9, 0))), "1 to", ("ifd", 0, "ImageWidth")),
        (classic(without(256, long(256, 9, 1 << 31))), "1 to", ("ifd", 0, "ImageWidth")),
        (classic(without(279)), "missing", ("ifd", 0, "StripByteCounts")),
        (classic(without(273, long(273, 8, 2))), "expected 1 values", ("ifd", 0, "StripOffsets")),
        (classic([*GOOD, short(278, 0)]), "at least 1", ("ifd", 0, "RowsPerStrip")),
        (classic(without(273, long(273, 2))), "file header", ("ifd", 0, "StripOffsets")),
        (classic([*GOOD, short(284, 3)]), "1 or 2, got 3", ("ifd", 0, "PlanarConfiguration")),
        (classic([*GOOD, short(277, 0)]), "1 to 4096", ("ifd", 0, "SamplesPerPixel")),
        (classic([*GOOD, (270, 2, 1 << 20, b"")]), BEYOND_END, ("ifd", 0, "ImageDescription")),
        (classic([*GOOD, (270, 2, 1 << 30, b"")]), "at most", ("ifd", 0, "ImageDescription")),
        (classic([*GOOD, (270, 4, 1, b"")]), "byte field", ("ifd", 0, "ImageDescription")),
        (classic([*without(258), long(258, 9, 2)]), "per sample", ("ifd", 0, "BitsPerSample")),
    ],
)
def test_damage_is_reported_with_directory_and_tag(data, message, location):
    with pytest.raises(MetadataError, match=message) as caught:
        read(data)
    assert caught.value.location == location
    assert caught.value.source == "t.tif"


def test_a_range_that_comes_back_short_is_an_error():
    data = classic(GOOD)
    with pytest.raises(MetadataError, match=r"asked for 162 bytes at 0, got 10"):
        read_tiff(lambda at, _: data[at : at + 10], len(data), source="t.tif")


def test_errors_of_the_store_pass_through():
    def broken(_offset: int, _nbytes: int) -> bytes:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        read_tiff(broken, 100, source="t.tif")


@pytest.mark.parametrize(
    ("entries", "error", "message"),
    [
        (without(258, short(258, 24)), UnsupportedFormatError, r"24,.* bits"),
        ([*without(258, short(258, 12)), short(339, 2)], UnsupportedFormatError, r"12,.* bits"),
        (without(259, short(259, 6)), UnsupportedCodecError, r"6 \(old-style JPEG\)"),
        (without(259, short(259, 4)), UnsupportedCodecError, r"4 \(CCITT group 4\)"),
        (without(259, short(259, 34892)), UnsupportedCodecError, r"34892 \(lossy JPEG \(DNG\)\)"),
        (without(259, short(259, 777)), UnsupportedCodecError, r"777 \(unknown\)"),
        (without(262, short(262, 2)), MetadataError, "at least 3 samples per pixel for RGB, got 1"),
        (without(262, short(262, 3)), MetadataError, "palette of 8 bits, got none"),
        (
            [*without(262, short(262, 6)), short(277, 3)],
            UnsupportedFormatError,
            r"YCbCr.*subsampling \(2, 2\) and compression none",
        ),
        (without(262), MetadataError, "missing"),
        ([*GOOD, short(266, 3)], UnsupportedFormatError, "FillOrder 3"),
        ([*GOOD, short(32997, 7)], UnsupportedFormatError, "ImageDepth 7"),
        ([*GOOD, short(339, 6)], UnsupportedFormatError, "format"),
        ([*GOOD, short(339, 5)], UnsupportedFormatError, "format"),
        (
            [*without(259, short(259, 5)), short(317, 3)],
            UnsupportedCodecError,
            "predictor 3 with samples of uint8",
        ),
        ([*without(259, short(259, 5)), short(317, 9)], UnsupportedCodecError, "predictor 9"),
        # tifffile differences before it packs, libtiff does not look at the tag
        (
            [*without(259, short(259, 32773)), short(317, 2)],
            UnsupportedCodecError,
            "predictor 2 with PackBits is not read",
        ),
        (
            [*without(259, short(259, 34887)), short(317, 2)],
            UnsupportedCodecError,
            "predictor 2 with LERC is not read",
        ),
        ([*without(259, short(259, 34933))], UnsupportedCodecError, r"34933 \(PNG\)"),
        (
            [*without(259, short(259, 7)), short(339, 2)],
            UnsupportedCodecError,
            "JPEG with samples of int8",
        ),
        (
            [*without(259, short(259, 7)), short(277, 5)],
            UnsupportedCodecError,
            "JPEG with 5 samples per pixel",
        ),
        (
            [e for e in [*GOOD, short(277, 4)] if e[0] not in (259, 262)]
            + [short(259, 7), short(262, 6)],
            UnsupportedCodecError,
            "4 samples per pixel in ycbcr",
        ),
    ],
)
def test_what_is_not_read_is_named(entries, error, message):
    page = read(classic(entries))[0]
    with pytest.raises(error, match=message):
        page_to_array_spec(page, key="k")


def test_generic_pyramid_takes_reduced_pages_only():
    file = io.BytesIO()
    options = {
        "photometric": "rgb",
        "tile": (32, 32),
        "metadata": None,
        "resolution": (40000, 20000),
    }
    with tifffile.TiffWriter(file) as writer:
        image = tissue(128, 96)
        writer.write(image, resolutionunit="CENTIMETER", **options)
        writer.write(tissue(128, 96, seed=4), **options)  # another image, not a level
        writer.write(image[::2, ::2], subfiletype=1, **options)
    data = file.getvalue()
    slide = read_tiff_slide(lambda at, n: data[at : at + n], len(data), source="s", key="s")
    assert slide.vendor == "generic-tiff"
    assert slide.mpp == (0.25, 0.5)
    assert [level.shape for level in slide.levels] == [(128, 96, 3), (64, 48, 3)]
    assert np.array_equal(read_array(data, slide.levels[1]), image[::2, ::2])


def test_is_tiff_knows_all_four_signatures():
    assert all(map(is_tiff, (b"II*\0", b"MM\0*", b"II+\0\x08", b"MM\0+\0\x08")))
    assert not any(map(is_tiff, (b"", b"II", b"II\0*", b"MM*\0", b"\xff\xd8\xff\xe0")))


def test_random_damage_gives_pages_or_a_typed_error():
    data = make_svs(SlideRecipe(kind="lzw", height=40, width=40, tile=16, n_levels=2, big=True))
    rng = np.random.default_rng(2)
    outcomes = set()
    for _ in range(300):
        damaged = bytearray(data)
        for at in rng.integers(0, len(data), 40):
            damaged[at] = rng.integers(0, 256)
        with tifffile.TiffFile(io.BytesIO(data)) as tiff:
            at = tiff.pages[int(rng.integers(len(tiff.pages)))].offset + int(rng.integers(200))
        damaged[at] = 255
        try:
            read(bytes(damaged))
            outcomes.add("ok")
        except MetadataError:
            outcomes.add("error")
    assert outcomes == {"ok", "error"}
