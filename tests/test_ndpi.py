"""Laws of the NDPI reader.

1. Every stored level and the macro image have the pixels that OpenSlide and tifffile give, also
   beyond 65,500 pixels and beyond 4 GiB; batches of patches are cut from the same pixels.
2. Every property has OpenSlide's name and value.
3. A table of restart intervals that is wrong, a damaged JPEG, tags that contradict one another and
   a cut-off file give a typed error that names file, level and tile; the rest can be read.
"""

from __future__ import annotations

import re
import struct
from dataclasses import replace
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile

import zarrgpu as zg
from tests.gpu.devices import to_host
from tests.synthetic_ndpi import (
    ASCII,
    LONG,
    SHORT,
    NdpiImage,
    encode_jpeg,
    interval_starts,
    jpegxr_image,
    level_image,
    scan_start,
    usual_slide,
    wide_image,
    write_ndpi,
)
from zarrgpu.codecs.base import CodecError
from zarrgpu.codecs.registry import build_codec
from zarrgpu.devices.native import native_library
from zarrgpu.errors import (
    ChunkDecodeError,
    MetadataError,
    StoreError,
    UnsupportedFormatError,
    ZarrGPUError,
)
from zarrgpu.formats import ndpi_intervals
from zarrgpu.formats.ndpi_jpeg import chunk_intervals
from zarrgpu.model import Manifest
from zarrgpu.slide import Slide

openslide = pytest.importorskip("openslide")

BEYOND_4_GIB = (1 << 32) + 4096


def opened(tmp_path: Path, images: list[NdpiImage], **options) -> tuple[Path, Slide]:
    path = tmp_path / "slide.ndpi"
    write_ndpi(path, images, **options)
    return path, zg.open_slide(path)


def peer_region(path: Path, level_size: tuple[int, int]) -> np.ndarray:
    """Whole level of a size as OpenSlide reads it; it has more levels than are stored."""
    with openslide.OpenSlide(path) as peer:
        level = peer.level_dimensions.index(level_size)
        return np.asarray(peer.read_region((0, 0), level, level_size).convert("RGB"))


def tifffile_page(path: Path, index: int) -> np.ndarray:
    """Level put together from its restart intervals, each decoded apart by tifffile."""
    with tifffile.TiffFile(path) as file:
        page = file.pages[index]
        image = np.zeros(page.shape, np.uint8)
        for tile, (_, _, y, x, _), shape in page.segments():
            part = image[y : y + shape[1], x : x + shape[2]]
            part[...] = tile[0, : len(part), : part.shape[1]]
        return image


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2"])
def test_levels_equal_openslide(subsampling, tmp_path):
    path, slide = opened(tmp_path, usual_slide(subsampling))
    assert slide.level_dimensions == ((1024, 304), (512, 152), (128, 80))
    for index, size in enumerate(slide.level_dimensions):
        np.testing.assert_array_equal(slide.levels[index][:], peer_region(path, size))


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_levels_equal_tifffile(subsampling, tmp_path):
    path, slide = opened(tmp_path, usual_slide(subsampling))
    for index in range(slide.level_count):
        np.testing.assert_array_equal(slide.levels[index][:], tifffile_page(path, index))


def test_intervals_together_are_the_whole_jpeg(tmp_path):
    image = level_image(304, 1024, interval=64, subsampling="4:4:4")
    _, slide = opened(tmp_path, [image])
    whole = imagecodecs.jpeg8_decode(image.jpeg)
    np.testing.assert_array_equal(slide.levels[0][:], whole)


def test_associated_images_and_properties_equal_openslide(tmp_path):
    path, slide = opened(tmp_path, usual_slide())
    with openslide.OpenSlide(path) as peer:
        macro = np.asarray(peer.associated_images["macro"].convert("RGB"))
        expected = {
            key: value
            for key, value in peer.properties.items()
            if not key.startswith("openslide.level")
        }
    np.testing.assert_array_equal(slide.associated_images["macro"][:], macro)
    assert slide.associated_images["map"].shape == (33, 47, 3)
    assert {key: slide.properties.get(key) for key in expected} == expected
    assert slide.mpp == pytest.approx((10_000 / 43_478, 0.25))
    assert slide.properties["openslide.level-count"] == "3"


def test_batches_are_cut_from_the_level(tmp_path):
    _, slide = opened(tmp_path, usual_slide())
    whole = np.pad(slide.levels[0][:], ((32, 96), (32, 96), (0, 0)))
    rng = np.random.default_rng(3)
    corners = np.stack([rng.integers(-32, 1024, 40), rng.integers(-32, 304, 40)], axis=1)
    patches = slide.read_regions(corners, 0, (96, 64))
    for patch, (x, y) in zip(patches, corners, strict=True):
        np.testing.assert_array_equal(patch, whole[y + 32 : y + 96, x + 32 : x + 128])


def test_emulated_device_equals_host(cuda, tmp_path):
    _, slide = opened(tmp_path, usual_slide())
    corners = np.array([[5, 3], [500, 100], [990, 290]])
    on_device = slide.read_regions(corners, 0, (70, 50), device=cuda)
    on_host = slide.read_regions(corners, 0, (70, 50), device="cpu")
    np.testing.assert_array_equal(to_host(on_device), on_host)


@pytest.mark.parametrize(("width", "interval"), [(384, 8), (64, 8), (192, 4), (368, 46)])
def test_small_intervals_share_a_chunk(width, interval, tmp_path):
    path, slide = opened(
        tmp_path, [level_image(200, width, interval=interval, subsampling="4:4:4")]
    )
    spec = slide.levels[0].source.spec
    assert spec.codecs[0].name == "restart_jpeg"
    assert spec.chunk_shape[1] >= min(256, width)
    np.testing.assert_array_equal(slide.levels[0][:], peer_region(path, (width, 200)))


def test_chunks_are_whole_runs_of_intervals():
    for across in range(1, 40):
        for down in (1, 3, 100):
            rows, columns = chunk_intervals(64, 8, across, down, 3)
            assert across % columns == 0
            assert 1 <= rows <= down
            assert rows == 1 or columns == across


def test_grey_level(tmp_path):
    jpeg = encode_jpeg(np.arange(64 * 256, dtype=np.uint8).reshape(64, 256), interval=16)
    image = NdpiImage(jpeg=jpeg, width=256, height=64, lens=20.0, starts=interval_starts(jpeg))
    _, slide = opened(tmp_path, [image])
    np.testing.assert_array_equal(slide.levels[0][..., 0], imagecodecs.jpeg8_decode(jpeg))


def test_levels_wider_than_a_jpeg_may_be(tmp_path):
    image = wide_image(17, 3, interval=512)
    path, slide = opened(tmp_path, [image])
    assert slide.dimensions == (69_632, 24)
    for x in (0, 65_400, 69_600):
        with openslide.OpenSlide(path) as peer:
            expected = np.asarray(peer.read_region((x, 0), 0, (32, 24)).convert("RGB"))
        np.testing.assert_array_equal(slide.read_region((x, 0), 0, (32, 24)), expected)


def test_offsets_beyond_4_gib(tmp_path):
    path, slide = opened(tmp_path, usual_slide(), base=BEYOND_4_GIB)
    for index, size in enumerate(slide.level_dimensions):
        np.testing.assert_array_equal(slide.levels[index][:], peer_region(path, size))
    assert slide.properties["hamamatsu.Reference"] == "slide-7"


def test_intervals_beyond_4_gib(tmp_path):
    """A JPEG of more than 4 GiB: a hole in one interval moves those behind it."""
    image = level_image(64, 1024, interval=32, subsampling="4:4:4")
    starts = image.starts
    hole = (int(starts[9]) + 2, 1 << 32)
    moved = starts + np.where(starts > hole[0], hole[1], 0)
    tags = {65432: (LONG, (moved >> 32).tolist())}
    _, plain = opened(tmp_path, [image])
    expected = plain.levels[0][:]
    path, slide = opened(tmp_path, [replace(image, starts=moved, hole=hole, tags=tags)])
    location = slide.levels[0].source.spec.location
    assert isinstance(location, Manifest)
    with tifffile.TiffFile(path) as file:
        np.testing.assert_array_equal(location.offsets + 2, file.pages[0].dataoffsets)
    np.testing.assert_array_equal(slide.levels[0][24:], expected[24:])
    with pytest.raises(ChunkDecodeError, match=r"level 0 tile \(row 2, column 1\).*corrupt"):
        slide.levels[0][16:24]


def test_missing_table_of_intervals_is_made_by_looking(tmp_path, monkeypatch):
    monkeypatch.setattr(ndpi_intervals, "_SCAN_NBYTES", 97)  # markers lie across its blocks
    image = level_image(304, 1024, interval=32, table=False)
    path, slide = opened(tmp_path, [image])
    np.testing.assert_array_equal(slide.levels[0][:], peer_region(path, (1024, 304)))
    monkeypatch.setattr(ndpi_intervals, "_MAX_SCANNED_NBYTES", 1000)
    with pytest.raises(UnsupportedFormatError, match=r"level 0 .*no table of restart intervals"):
        zg.open_slide(path)


def noise(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    info = np.iinfo(dtype)
    return np.random.default_rng(4).integers(0, info.max, shape, dtype, endpoint=True)


@pytest.mark.parametrize(
    ("shape", "dtype", "lying"),
    [((150, 200, 3), "u1", False), ((150, 200), "u2", False), ((150, 200), "u2", True)],
)
def test_jpeg_xr_tiles(shape, dtype, lying, tmp_path):
    """With CaptureMode 7 the tags claim RGB of 8 bits, and the tiles are grey of 16."""
    pixels = noise(shape, dtype)
    tags = {65441: (LONG, [7])} if lying else {}
    if lying:
        tags |= {258: (SHORT, [8, 8, 8]), 277: (SHORT, [3]), 262: (SHORT, [2])}
    path, slide = opened(tmp_path, [jpegxr_image(pixels, 64, tags=tags)])
    level = slide.levels[0]
    assert level.dtype == pixels.dtype
    np.testing.assert_array_equal(level[:].reshape(pixels.shape), pixels)
    with tifffile.TiffFile(path) as file:
        np.testing.assert_array_equal(file.pages[0].asarray().reshape(pixels.shape), pixels)


def test_a_jpeg_xr_tile_of_another_kind_is_named(tmp_path):
    image = jpegxr_image(noise((150, 200), "u2"), 64, tags={258: (SHORT, [8])})
    _, slide = opened(tmp_path, [image])
    with pytest.raises(ChunkDecodeError, match=r"level 0 tile \(row 1, column 2\).*slide.ndpi"):
        slide.levels[0][70:80, 130:140]


def test_short_text_lies_outside_of_its_entry(tmp_path):
    image = replace(LEVEL, tags={65427: (ASCII, "a1"), 305: (ASCII, "")})
    for base in (16, BEYOND_4_GIB):
        _, slide = opened(tmp_path, [image], base=base)
        assert slide.properties["hamamatsu.Reference"] == "a1"
        assert slide.properties["tiff.Software"] == ""


def test_other_focal_planes_are_left_out(tmp_path):
    images = [
        level_image(64, 512, interval=16, plane=0),
        level_image(64, 512, interval=16, plane=-2000, seed=1),
        level_image(64, 512, interval=16, plane=2000, seed=2),
        level_image(32, 256, interval=16, lens=10.0, plane=0, seed=3),
    ]
    path, slide = opened(tmp_path, images)
    assert slide.level_count == 2
    assert slide.properties["zarrgpu.ignored-focal-planes"] == "-2000, 2000"
    for index, size in enumerate(slide.level_dimensions):
        np.testing.assert_array_equal(slide.levels[index][:], peer_region(path, size))


def test_opening_reads_no_pixels(tmp_path):
    image = level_image(1024, 1024, interval=64, subsampling="4:4:4")
    path, _ = opened(tmp_path, [image])
    read: list[tuple[int, int]] = []
    data = path.read_bytes()

    def read_range(offset: int, nbytes: int) -> bytes:
        read.append((offset, nbytes))
        return data[offset : offset + nbytes]

    zg.formats.tiff_slide.read_tiff_slide(read_range, len(data), source="s", key="s")
    assert len(read) < 10
    assert sum(nbytes for _, nbytes in read) < 100_000 < len(data)


def with_tags(image: NdpiImage, **tags) -> NdpiImage:
    """An image with other tags, ``t257=(LONG, [3])`` or None to leave one out."""
    return replace(image, tags={int(name[1:]): value for name, value in tags.items()})


LEVEL = level_image(64, 1024, interval=32)

BAD_SLIDES = {
    "no lens": (with_tags(LEVEL, t65421=None), MetadataError, "NdpiSourceLens"),
    "no width": (with_tags(LEVEL, t256=None), MetadataError, "ImageWidth: required tag"),
    "no strip": (with_tags(LEVEL, t273=None), MetadataError, "StripOffsets: required tag"),
    "strips": (with_tags(LEVEL, t278=(LONG, [8])), MetadataError, "one strip of 64 rows"),
    "no jpeg": (with_tags(LEVEL, t273=(LONG, [500])), MetadataError, "no JPEG header within"),
    "another size": (with_tags(LEVEL, t256=(LONG, [1000])), MetadataError, "its JPEG 1024 x 64"),
    "no pixels": (with_tags(LEVEL, t257=(LONG, [0])), MetadataError, "expected 1 to"),
    "huge": (
        replace(LEVEL, width=(1 << 31) - 512, height=1 << 25),
        UnsupportedFormatError,
        "level 0 of .* restart intervals, at most",
    ),
    "jpeg xr": (
        with_tags(LEVEL, t259=(LONG, [22610])),
        UnsupportedFormatError,
        r"level 0, ifd 0 .*22610 \(JPEG XR \(NDPI\)\) in a strip",
    ),
    "tiles": (
        jpegxr_image(np.zeros((64, 64), "u1"), 64, tags={259: (SHORT, [7])}),
        UnsupportedFormatError,
        r"level 0, ifd 0 .*7 \(JPEG\) are not read, only JPEG XR",
    ),
    "samples": (
        jpegxr_image(np.zeros((64, 64), "u1"), 64, tags={258: (SHORT, [8] * 2), 277: (SHORT, [2])}),
        UnsupportedFormatError,
        r"level 0, ifd 0 .*2 samples of 8 bits",
    ),
    "descending table": (
        replace(LEVEL, starts=LEVEL.starts[::-1]),
        MetadataError,
        r"level 0: restart interval \d+ of 16 would take",
    ),
    "upper halves": (
        with_tags(LEVEL, t65432=(LONG, [0, 0])),
        MetadataError,
        "as many as McuStarts has",
    ),
    "no level": (replace(LEVEL, lens=-1.0), MetadataError, "no directory holds a level"),
    "crossing rows": (
        replace(level_image(64, 1024, interval=48), starts=None),
        UnsupportedFormatError,
        "intervals that go over from row to row",
    ),
}


@pytest.mark.parametrize("case", BAD_SLIDES)
def test_what_cannot_be_read_is_refused_by_name(case, tmp_path):
    image, error, message = BAD_SLIDES[case]
    with pytest.raises(error, match=message) as caught:
        opened(tmp_path, [image])
    assert "slide.ndpi" in str(caught.value)


def test_levels_of_one_size_are_refused(tmp_path):
    with pytest.raises(UnsupportedFormatError, match=r"level 1, ifd 1 .*several channels"):
        opened(tmp_path, [LEVEL, LEVEL])


@pytest.mark.parametrize("base", [16, BEYOND_4_GIB])
def test_directories_that_loop_are_refused(base, tmp_path):
    path, _ = opened(tmp_path, [LEVEL], base=base)
    with path.open("r+b") as file:
        file.seek(4)
        (at,) = struct.unpack("<Q", file.read(8))
        file.seek(at)
        (count,) = struct.unpack("<H", file.read(2))
        file.seek(at + 2 + 12 * count)
        file.write(struct.pack("<Q", at))
    with pytest.raises(MetadataError, match="loops back"):
        zg.open_slide(path)


def test_broken_associated_image_is_left_out(tmp_path):
    macro = with_tags(level_image(60, 90, interval=0, lens=-1.0), t273=(LONG, [99]))
    _, slide = opened(tmp_path, [LEVEL, macro])
    assert not slide.associated_images
    assert "no JPEG header" in slide.properties["zarrgpu.associated.macro.unsupported"]


def damaged(kind: str) -> NdpiImage:
    """The level with interval 5 (row 2, column 1) wrong in one way."""
    jpeg, starts = bytearray(LEVEL.jpeg), LEVEL.starts.copy()
    at = int(starts[5])
    if kind == "shifted table":
        starts[5] += 3
    elif kind == "marker gone":
        jpeg[at - 2 : at] = b"\x12\x34"
    elif kind == "markers swapped":
        jpeg[at - 1] = 0xD0 + (jpeg[at - 1] - 0xD0 + 3) % 8
    elif kind == "another marker":
        jpeg[at + 4 : at + 6] = b"\xff\xc4"
    elif kind == "image ends":
        jpeg[at + 4 : at + 6] = b"\xff\xd9"
    elif kind == "codes that are none":
        jpeg[at + 10 : at + 34] = b"\xff\0" * 12
    return replace(LEVEL, jpeg=bytes(jpeg), starts=starts)


@pytest.mark.parametrize(
    "kind",
    [
        "shifted table",
        "marker gone",
        "markers swapped",
        "another marker",
        "image ends",
        pytest.param(
            "codes that are none",
            marks=pytest.mark.skipif(native_library() is None, reason="libjpeg is asked by it"),
        ),
    ],
)
def test_damaged_interval_is_named_and_the_rest_is_read(kind, tmp_path):
    _, plain = opened(tmp_path, [LEVEL])
    expected = plain.levels[0][:]
    path, slide = opened(tmp_path, [damaged(kind)])
    assert slide.levels[0].chunks == (8, 512, 3)
    named = re.escape("level 0 tile (row 2, column 1)") + f".*{path.name}.*restart_jpeg"
    with pytest.raises(ChunkDecodeError, match=named):
        slide.read_region((512, 16), 0, (8, 8))
    np.testing.assert_array_equal(slide.levels[0][24:], expected[24:])
    np.testing.assert_array_equal(slide.levels[0][:16], expected[:16])


def test_cut_off_file_is_told_where_it_is_read(tmp_path):
    """Directories come after the pixels of their level, so only a moved one survives a cut."""
    path, _ = opened(tmp_path, [LEVEL])
    data = path.read_bytes()
    (at,) = struct.unpack_from("<Q", data, 4)
    cut = 16 + int(LEVEL.starts[14]) + 5
    start = 16 + len(LEVEL.jpeg)
    moved = bytearray(data[:16] + data[start:] + data[16:cut])
    shift = len(LEVEL.jpeg)
    struct.pack_into("<Q", moved, 4, at - shift)
    (count,) = struct.unpack_from("<H", moved, at - shift)
    for entry in range(count):
        where = at - shift + 2 + 12 * entry
        tag, kind, values, value = struct.unpack_from("<HHII", moved, where)
        size = {2: 1, 3: 2, 4: 4, 5: 8, 9: 4, 11: 4}[kind] * values
        if tag == 273:
            struct.pack_into("<I", moved, where + 8, len(data) - start + 16)
        elif size > 4:
            struct.pack_into("<I", moved, where + 8, value - shift)
    path.write_bytes(moved)
    slide = zg.open_slide(path)
    assert slide.levels[0][:56].any()
    with pytest.raises(StoreError, match="level 0"):
        slide.levels[0][56:]


def test_any_changed_byte_gives_data_or_a_typed_error(tmp_path):
    path, _ = opened(tmp_path, usual_slide())
    data = path.read_bytes()
    rng = np.random.default_rng(7)
    # directories and their values, and the JPEG headers: everything but the entropy-coded data
    levels = [data.index(b"\xff\xd8", at) for at in (0, 60_000)]
    places = [*range(16), *range(levels[0], levels[0] + scan_start(data[levels[0] :]))]
    places += rng.integers(len(data) - 4000, len(data), 200).tolist()
    for at in rng.choice(places, 150, replace=False).tolist():
        changed = bytearray(data)
        changed[at] ^= int(rng.integers(1, 256))
        path.write_bytes(changed)
        try:
            slide = zg.open_slide(path)
            slide.read_region((0, 0), 0, (64, 64))
        except ZarrGPUError:
            continue


def test_codec_never_returns_half_a_chunk():
    jpeg = LEVEL.jpeg
    first, second = LEVEL.starts[:2].tolist()
    spec = zg_codec(jpeg)
    codec = build_codec(spec, source="s")
    chunk = np.frombuffer(jpeg[first - 2 : second], np.uint8)
    nbytes = 8 * 512 * 3
    whole = codec.decode_host(chunk, nbytes, None)
    assert whole.size == nbytes
    for size in range(chunk.size):
        with pytest.raises(CodecError):
            codec.decode_host(chunk[:size], nbytes, None)
    with pytest.raises(CodecError, match="expected 100"):
        codec.decode_host(chunk, 100, None)
    rng = np.random.default_rng(1)
    for _ in range(200):
        changed = chunk.copy()
        changed[rng.integers(chunk.size)] ^= rng.integers(1, 256)
        try:
            assert codec.decode_host(changed, nbytes, np.empty(nbytes, np.uint8)).size == nbytes
        except CodecError:
            continue


def zg_codec(jpeg: bytes):
    """Codec of the intervals of `LEVEL`, by the reader's own header."""
    from zarrgpu.formats.ndpi_jpeg import read_level_jpeg
    from zarrgpu.model import CodecSpec

    header = read_level_jpeg(lambda at, n: jpeg[at : at + n], len(jpeg), what="w", source="s")
    configuration = {
        "header": header.header(512, 8),
        "height": 8,
        "width": 512,
        "samples": 3,
        "colorspace": "ycbcr",
        "down": 1,
        "across": 1,
    }
    return CodecSpec("restart_jpeg", configuration)


@pytest.mark.parametrize("bigtiff", [True, False])
@pytest.mark.parametrize("large", [True, False])
def test_not_every_tiff_is_ndpi(bigtiff, large, tmp_path):
    path = tmp_path / "plain.tif"
    image = np.zeros((64, 64, 3), np.uint8)
    tifffile.imwrite(path, image, tile=(32, 32), photometric="rgb", bigtiff=bigtiff)
    if large:
        with path.open("r+b") as file:
            file.truncate(BEYOND_4_GIB)
    assert zg.open_slide(path).properties["openslide.vendor"] == "generic-tiff"
