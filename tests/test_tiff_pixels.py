"""Law: a page's pixels are tifffile's, bit for bit, in every cell of what TIFF can say.

Compression x samples x byte order x planes x tiles or strips x predictor, packed bits, reversed
bits, palettes; image codecs against imagecodecs. A sample of the cells runs on the emulated device.
"""

from __future__ import annotations

import io
import itertools

import imagecodecs
import numpy as np
import pytest
import tifffile

import zarrgpu as zg
from tests.gpu.devices import same
from tests.tiff_arrays import decoded, page_array, pages, ramp, segments, write
from zarrgpu.errors import ChunkDecodeError, DataError, MetadataError, UnsupportedCodecError
from zarrgpu.formats.tiff import page_to_array_spec

SHAPE = (37, 41, 3)
LAYOUTS = ({"tile": (16, 32)}, {"rowsperstrip": 9})
DTYPES = ("u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8", "c8", "c16")
COMPRESSIONS = (None, "packbits", "lzw", 8, 32946, "zstd", "lzma")


def cells(dtype: str, compression: object) -> list[int | None]:
    """Predictors that tifffile writes for a type."""
    if compression in (None, "packbits") or dtype[0] == "c":
        return [None]
    return [None, 3 if dtype[0] == "f" else 2]


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_every_cell_of_the_matrix(compression, planar):
    number = 0
    # LZMA is slow to write
    dtypes = ("u2", "f4") if compression == "lzma" else DTYPES
    for dtype, layout, order in itertools.product(dtypes, LAYOUTS, "<>"):
        for predictor in cells(dtype, compression):
            image = ramp(SHAPE, dtype)
            data = write(
                image, byteorder=order, planarconfig=planar, photometric="minisblack",
                compression=compression, predictor=predictor, big=number % 2 == 1, **layout,
            )  # fmt: skip
            array = page_array(data)
            assert array.shape == SHAPE
            assert array.chunks[2] == (1 if planar == "separate" else 3)
            got = array.read(device="cpu")
            assert got.dtype == image.dtype
            assert got.tobytes() == image.tobytes() == decoded(data).tobytes(), (dtype, predictor)
            number += 1


def test_a_sample_of_the_matrix_on_the_device(cuda):
    cases = itertools.product((None, "lzw", 8, "zstd"), ("contig", "separate"), LAYOUTS)
    for number, (compression, planar, layout) in enumerate(cases):
        dtype = ("u1", "u2", "f4", "i8", "f2")[number % 5]
        image = ramp(SHAPE, dtype)
        data = write(
            image, byteorder="<>"[number % 2], planarconfig=planar, compression=compression,
            predictor=cells(dtype, compression)[-1], **layout,
        )  # fmt: skip
        array = page_array(data)
        same(array.read(device=cuda), image, device=cuda)
        box = (slice(3, 30), slice(10, 40), slice(1, 3))
        same(array.read(box, device=cuda), image[box], device=cuda)


@pytest.mark.parametrize("size", [2, 4, 8])
@pytest.mark.parametrize("order", ["<", ">"])
def test_horizontal_differences_of_floats_are_those_of_their_bits(size, order):
    # libtiff writes such files; tifffile reads them, but does not write them
    image = ramp((20, 30), f"i{size}")
    data = bytearray(write(image, byteorder=order, compression=8, predictor=2, rowsperstrip=7))
    with tifffile.TiffFile(io.BytesIO(bytes(data))) as tiff:
        at = tiff.pages[0].tags["SampleFormat"].valueoffset
    data[at : at + 2] = (3).to_bytes(2, "little" if order == "<" else "big")
    got = page_array(bytes(data)).read(device="cpu")
    assert got.dtype == f"f{size}"
    assert got.tobytes() == image.tobytes() == decoded(bytes(data)).tobytes()


@pytest.mark.parametrize("rows", [None, 1024, 700, 1499])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_large_uncompressed_strips_are_chunks_of_fewer_rows(rows, planar, monkeypatch):
    monkeypatch.setattr("zarrgpu.formats.tiff_strips._MAX_CHUNK_NBYTES", 1 << 16)
    image = ramp((1500, 230, 3), "u2")
    options = {"rowsperstrip": rows} if rows else {"rowsperstrip": 1500}
    data = write(image, planarconfig=planar, **options)
    assert pages(data)[0].chunk_height == (rows or 1500)
    array = page_array(data)
    assert array.chunks[0] < 300
    assert np.array_equal(array.read(device="cpu"), image)
    # what is not exactly its rows stays as it is
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        at = tiff.pages[0].tags["StripByteCounts"].valueoffset
    damaged = bytearray(data)
    damaged[at] ^= 1
    array = page_array(bytes(damaged))
    assert array.chunks[0] == (rows or 1500)
    with pytest.raises(DataError, match=r"image tile \(row 0, column 0"):
        array.read(device="cpu")


# ---- packed and reversed bits --------------------------------------------------------------------


@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
@pytest.mark.parametrize("compression", [None, "packbits", 8, "lzw"])
def test_one_bit_is_a_bool_and_is_not_inverted(photometric, compression):
    image = ramp((33, 45), "?")
    for layout in LAYOUTS:
        data = write(image, photometric=photometric, compression=compression, **layout)
        array = page_array(data)
        assert array.dtype == np.bool_
        assert array.attrs["bits_per_sample"] == 1
        is_black = photometric == "minisblack"
        assert array.attrs["photometric"] == ("black is zero" if is_black else "white is zero")
        assert np.array_equal(array.read(device="cpu"), decoded(data))
        assert np.array_equal(array.read(device="cpu")[..., 0], image)


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 6, 7, 9, 10, 12, 14, 15])
@pytest.mark.parametrize("samples", [1, 3])
def test_packed_samples_equal_tifffile(bits, samples, cuda):
    rng = np.random.default_rng(bits)
    image = rng.integers(0, 1 << bits, (21, 19, samples), "u1" if bits < 8 else "u2")
    rows = [imagecodecs.packints_encode(row.reshape(-1), bits) for row in image]
    body = b"".join(rows)
    stored = np.frombuffer(body, np.uint8).reshape(21, -1)
    data = bytearray(write(stored, rowsperstrip=8))
    # the same bytes as pixels of other width, samples and bits
    edit(data, {"ImageWidth": 19, "BitsPerSample": bits, "SamplesPerPixel": samples})
    array = page_array(bytes(data))
    assert array.attrs["bits_per_sample"] == bits
    got = array.read(device="cpu")
    assert np.array_equal(got, image)
    assert np.array_equal(got, decoded(bytes(data)))
    same(array.read(device=cuda), got, device=cuda)


def edit(data: bytearray, values: dict[str, int]) -> None:
    """Overwrite the inline values of tags of page 0."""
    with tifffile.TiffFile(io.BytesIO(bytes(data))) as tiff:
        tags = tiff.pages[0].tags
        order = "little" if tiff.byteorder == "<" else "big"
        for name, value in values.items():
            tag = tags[name]
            nbytes = {3: 2, 4: 4}[int(tag.dtype)]
            data[tag.valueoffset : tag.valueoffset + nbytes] = value.to_bytes(nbytes, order)


@pytest.mark.parametrize("compression", [None, "lzw", 8, "packbits"])
@pytest.mark.parametrize("dtype", ["?", "u1", "u2"])
def test_fill_order_2_reverses_every_stored_byte(compression, dtype):
    image = ramp((30, 40), dtype)
    extra = [(263, 3, 1, 2, True)]
    data = bytearray(write(image, compression=compression, rowsperstrip=8, extratags=extra))
    with tifffile.TiffFile(io.BytesIO(bytes(data))) as tiff:  # which does not write tag 266
        at = tiff.pages[0].tags[263].offset
    data[at : at + 2] = (266).to_bytes(2, "little")
    for offset, nbytes in segments(bytes(data)):
        stored = bytes(data[offset : offset + nbytes])
        data[offset : offset + nbytes] = imagecodecs.bitorder_encode(stored)
    assert pages(bytes(data))[0].fill_order == 2
    got = page_array(bytes(data)).read(device="cpu")
    assert np.array_equal(got, decoded(bytes(data)))
    assert np.array_equal(got[..., 0], image)


def test_a_palette_stands_beside_the_indexes():
    for dtype in ("u1", "u2"):
        image = ramp((20, 24), dtype)
        n = 1 << 8 * image.itemsize
        colors = np.random.default_rng(0).integers(0, 1 << 16, (3, n), np.uint16)
        data = write(image, photometric="palette", colormap=colors, tile=(16, 16))
        array = page_array(data)
        assert np.array_equal(array.read(device="cpu")[..., 0], image)
        assert np.array_equal(np.array(array.attrs["color_map"]), colors.T)
    damaged = bytearray(data)
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        at = tiff.pages[0].tags["ColorMap"].offset
    damaged[at + 4 : at + 8] = (30).to_bytes(4, "little")
    with pytest.raises(MetadataError, match=r"ColorMap.*palette of 16 bits, got 30"):
        page_array(bytes(damaged))


def test_extra_samples_are_named_and_kept():
    image = ramp((20, 24, 5), "u2")
    data = write(image, photometric="rgb", extrasamples=("unassalpha", "unspecified"))
    array = page_array(data)
    assert array.attrs["extra_samples"] == ["unassociated alpha", "unspecified"]
    assert array.attrs["photometric"] == "RGB"
    assert np.array_equal(array.read(device="cpu"), image)


# ---- image codecs --------------------------------------------------------------------------------


def smooth(samples: int, dtype: str = "u1") -> np.ndarray:
    y, x = np.mgrid[:50, :70]
    waves = [120 + 90 * np.sin(x / (8 + 3 * c)) * np.cos(y / (9 + c)) for c in range(samples)]
    image = np.stack(waves, -1)
    return (image * (200 if np.dtype(dtype).itemsize > 1 else 1)).astype(dtype)


IMAGE_LAYOUTS = ({"tile": (32, 64)}, {"rowsperstrip": 32})
JPEGS = [
    # samples, what is encoded, as what it is stored, subsampling
    (1, "minisblack", "minisblack", None),
    (1, "miniswhite", "miniswhite", None),
    (3, "rgb", "rgb", None),
    (3, "rgb", "ycbcr", (1, 1)),
    (3, "rgb", "ycbcr", (2, 1)),
    (3, "rgb", "ycbcr", (2, 2)),
    (3, "rgb", "ycbcr", (4, 1)),
    (4, "separated", "separated", None),
]


@pytest.mark.parametrize(("samples", "photometric", "stored", "subsampling"), JPEGS)
def test_jpeg_in_tiles_and_strips_equals_tifffile(samples, photometric, stored, subsampling):
    image = smooth(samples)
    space = {"outcolorspace": stored} if samples == 3 else {}
    for layout in IMAGE_LAYOUTS:  # the last strip is short
        data = write(
            image[..., 0] if samples == 1 else image, compression="jpeg", photometric=photometric,
            subsampling=subsampling, compressionargs={"level": 90} | space, **layout,
        )  # fmt: skip
        array = page_array(data)
        got = array.read(device="cpu")
        assert np.array_equal(got, decoded(data)), layout
        assert np.abs(got.astype(int) - image).mean() < (5 if subsampling == (4, 1) else 3)
        if samples == 3:
            assert pages(data)[0].photometric == {"ycbcr": 6, "rgb": 2}[stored]
        expected = {"rgb": "RGB", "separated": "separated (CMYK)"}
        assert array.attrs["photometric"] == expected.get(photometric, array.attrs["photometric"])


def test_jpeg_of_planes_and_of_alpha_is_what_is_stored():
    image = smooth(3)
    data = write(
        image, compression="jpeg", photometric="rgb", planarconfig="separate", tile=(32, 48)
    )
    assert np.array_equal(page_array(data).read(device="cpu"), decoded(data))
    tiles = encode_tiles(smooth(4), lambda tile: imagecodecs.jpeg8_encode(tile, level=95))
    data = tiled(
        smooth(4), tiles, compression=7, photometric="rgb", extrasamples=["unassalpha"],
        compressionargs={"outcolorspace": "rgb"},
    )  # fmt: skip
    got = page_array(data).read(device="cpu")
    assert np.abs(got.astype(int) - smooth(4)).mean() < 2
    tiles = encode_tiles(smooth(2), lambda tile: imagecodecs.jpeg8_encode(tile, level=95))
    data = tiled(
        smooth(2), tiles, compression=7, photometric="minisblack", extrasamples=["unspecified"]
    )
    assert np.abs(page_array(data).read(device="cpu").astype(int) - smooth(2)).mean() < 2


def encode_tiles(image: np.ndarray, encode) -> list[bytes]:
    padded = np.pad(image, ((0, -len(image) % 32), (0, -image.shape[1] % 48), (0, 0)), mode="edge")
    return [
        bytes(encode(np.ascontiguousarray(padded[y : y + 32, x : x + 48].squeeze())))
        for y in range(0, len(padded), 32)
        for x in range(0, padded.shape[1], 48)
    ]


def tiled(image: np.ndarray, tiles: list[bytes], **options) -> bytes:
    """File of tiles that are encoded already."""
    file = io.BytesIO()
    shape = image.shape if image.shape[2] > 1 else image.shape[:2]
    with tifffile.TiffWriter(file) as writer:
        writer.write(
            iter(tiles), shape=shape, dtype=image.dtype, tile=(32, 48), metadata=None, **options
        )
    return file.getvalue()


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2"])
@pytest.mark.parametrize("samples", [1, 2, 3, 4])
def test_jpeg_2000_of_any_samples_is_exact(samples, dtype):
    image = smooth(samples, dtype) - (100 if dtype == "i2" else 0)
    photometric = "rgb" if samples > 2 else "minisblack"
    extra = {"extrasamples": ["unassalpha"]} if samples in (2, 4) else {}
    for compression in (33005, 34712):

        def encode(tile):
            return imagecodecs.jpeg2k_encode(tile, level=0, codecformat="j2k", reversible=True)

        data = tiled(
            image, encode_tiles(image, encode), compression=compression, photometric=photometric,
            **extra,
        )  # fmt: skip
        got = page_array(data).read(device="cpu")
        assert np.array_equal(got, image)
        assert np.array_equal(got, decoded(data))


LOSSLESS = [
    ("webp", 50001, ("u1",), (3, 4)),
    ("jpegxl", 50002, ("u1", "u2", "f4"), (1, 2, 3, 4)),
    ("jpegxl", 52546, ("u1", "u2"), (1, 3)),
    ("lerc", 34887, ("i1", "u1", "i2", "u2", "i4", "u4", "f4", "f8"), (1, 3)),
]


@pytest.mark.parametrize(("codec", "compression", "dtypes", "counts"), LOSSLESS)
def test_webp_jpeg_xl_and_lerc_are_exact(codec, compression, dtypes, counts):
    options = {"level": 0, "planar": False} if codec == "lerc" else {"lossless": True}
    for dtype, samples in itertools.product(dtypes, counts):
        image = smooth(samples, dtype)
        tiles = encode_tiles(
            image, lambda tile: getattr(imagecodecs, f"{codec}_encode")(tile, **options)
        )
        extra = {"extrasamples": ["unassalpha"]} if samples in (2, 4) else {}
        data = tiled(
            image, tiles, compression=compression, **extra,
            photometric="rgb" if samples > 2 else "minisblack",
        )  # fmt: skip
        got = page_array(data).read(device="cpu")
        assert np.array_equal(got, image), (dtype, samples)
        assert np.array_equal(got, decoded(data))


@pytest.mark.parametrize("codec", ["webp", "jpegxl", "lerc"])
def test_short_last_strips_of_image_codecs(codec, cuda):
    image = smooth(3)
    options = {"level": 0} if codec == "lerc" else {"lossless": True}
    data = write(
        image, photometric="rgb", compression=codec, rowsperstrip=16, compressionargs=options
    )
    assert pages(data)[0].chunk_height == 16
    got = page_array(data).read(device="cpu")
    same(page_array(data).read(device=cuda), got, device=cuda)
    assert np.array_equal(got, image)
    assert np.array_equal(got, decoded(data))


def test_samples_that_an_image_codec_cannot_hold_are_refused_at_open():
    for compression, samples, dtype, name in (
        (50001, 1, "u1", "webp cannot hold 1 samples of uint8"),
        (50002, 1, "i2", "jpegxl cannot hold 1 samples of int16"),
        (34887, 1, "u8", "lerc cannot hold 1 samples of uint64"),
    ):
        image = smooth(samples, dtype)
        data = tiled(image, encode_tiles(image, bytes), compression=compression)
        with pytest.raises(UnsupportedCodecError, match=name):
            page_array(data)


@pytest.mark.parametrize("second", [0, 1, 2, 3])
def test_lerc_is_compressed_again_as_its_parameters_say(second):
    image = smooth(1, "f4")
    again = {
        0: bytes, 1: imagecodecs.zlib_encode, 2: imagecodecs.zstd_encode, 3: bytes,
    }[second]  # fmt: skip
    tiles = encode_tiles(image, lambda tile: again(imagecodecs.lerc_encode(tile, level=0)))
    data = bytearray(tiled(image, tiles, compression=34887, photometric="minisblack"))
    with tifffile.TiffFile(io.BytesIO(bytes(data))) as tiff:
        at = tiff.pages[0].tags["LercParameters"].valueoffset
    data[at + 4] = second
    data = bytes(data)
    if second == 3:
        with pytest.raises(NotImplementedError, match="LERC compressed with 3"):
            page_array(data)
        return
    assert np.array_equal(page_array(data).read(device="cpu"), image)


def test_pixels_that_lerc_marks_invalid_are_nan_in_floats():
    image = smooth(1, "f4")
    valid = np.ones((32, 48), bool)
    valid[3:7, 5:20] = False
    tiles = encode_tiles(image, lambda tile: imagecodecs.lerc_encode(tile, level=0, masks=valid))
    got = page_array(tiled(image, tiles, compression=34887)).read(device="cpu")[..., 0]
    assert np.array_equal(np.isnan(got[:32, :48]), ~valid)
    assert np.array_equal(got[:32, :48][valid], image[:32, :48, 0][valid])


@pytest.mark.parametrize("codec", ["webp", "jpegxl", "lerc", "jpeg"])
def test_a_damaged_tile_is_an_error_that_names_it_or_other_pixels_but_no_crash(codec):
    image = smooth(3)
    options = {"level": 0} if codec == "lerc" else {} if codec == "jpeg" else {"lossless": True}
    data = write(
        image, photometric="rgb", compression=codec, tile=(32, 48), compressionargs=options
    )
    offset, nbytes = segments(data)[0]
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        counts = tiff.pages[0].tags["TileByteCounts"].valueoffset
    for cut in (1, 5, nbytes // 2, nbytes * 3 // 4):
        damaged = bytearray(data)
        damaged[counts : counts + 4] = cut.to_bytes(4, "little")
        with pytest.raises(
            ChunkDecodeError, match=r"chunk 'image tile \(row 0, column 0\)' of 't.tif'"
        ):
            page_array(bytes(damaged)).read(device="cpu")
    rng = np.random.default_rng(1)
    for _ in range(60):
        damaged = bytearray(data)
        for at in rng.integers(offset, offset + nbytes, 3):
            damaged[at] = rng.integers(256)
        try:
            assert page_array(bytes(damaged)).read(device="cpu").shape == image.shape
        except ChunkDecodeError:
            continue


# ---- OpenSlide -----------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", [None, "lzw", 8, "zstd", "jpeg", "packbits"])
def test_generic_slides_equal_openslide(compression, tmp_path):
    openslide = pytest.importorskip("openslide")
    image = smooth(3)
    options = {"outcolorspace": "ycbcr"} if compression == "jpeg" else {}
    path = tmp_path / "a.tif"
    for order, big in (("<", False), (">", True)):
        data = write(
            image, photometric="rgb", compression=compression, tile=(32, 32), byteorder=order,
            big=big, compressionargs=options, predictor=compression in ("lzw", 8, "zstd"),
        )  # fmt: skip
        path.write_bytes(data)
        with openslide.OpenSlide(path) as peer:
            theirs = np.array(peer.read_region((0, 0), 0, peer.dimensions))[..., :3]
        ours = zg.open_slide(path).read_region((0, 0), 0, (70, 50), device="cpu")
        assert np.array_equal(ours, theirs)


# ---- sub-directories -----------------------------------------------------------------------------


def test_sub_directories_are_pages_of_their_page():
    from zarrgpu.formats.tiff import read_sub_pages

    image = ramp((64, 64, 3), "u1")
    for big, order in itertools.product((False, True), "<>"):
        file = io.BytesIO()
        with tifffile.TiffWriter(file, bigtiff=big, byteorder=order) as writer:
            options = {"photometric": "rgb", "tile": (16, 16), "metadata": None}
            writer.write(image, subifds=2, **options)
            writer.write(image[::2, ::2], subfiletype=1, **options)
            writer.write(image[::4, ::4], subfiletype=1, **options)
        data = file.getvalue()
        (page,) = pages(data)
        subs = read_sub_pages(page)
        assert [(sub.index, sub.sub_index) for sub in subs] == [(0, 0), (0, 1)]
        assert read_sub_pages(subs[0]) == ()
        for sub, step in zip(subs, (2, 4), strict=True):
            array = page_array(data, sub)
            assert array.attrs["tiff_sub_ifd"] == sub.sub_index
            assert np.array_equal(array.read(device="cpu"), image[::step, ::step])
        assert page_to_array_spec(page, key="k").attributes.get("tiff_sub_ifd") is None
