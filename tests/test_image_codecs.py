"""Laws of the codecs that TIFF brings: JPEG, JPEG 2000, LZW, PackBits, predictors, short chunks.

1. Decoded bytes equal an independent decoder's, with and without `out`.
2. A truncated stream is an error at every length, never a partly filled image.
3. A stream of another size, depth or kind than configured is an error before anything is decoded.
"""

from __future__ import annotations

import io
import sys
from concurrent.futures import ThreadPoolExecutor

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.synthetic_slides import encode_j2k, encode_jpeg, rgb_to_ycbcr, tissue
from zarrgpu.codecs.base import Codec, CodecError
from zarrgpu.codecs.jpeg import JpegCodec, read_header
from zarrgpu.codecs.jpeg2k import Jpeg2kCodec
from zarrgpu.codecs.lzw import LzwCodec
from zarrgpu.codecs.packbits import PackBitsCodec
from zarrgpu.codecs.short_chunk import ShortChunkCodec
from zarrgpu.codecs.tiff_predictor import TiffPredictorCodec
from zarrgpu.devices.native import native_library
from zarrgpu.errors import MissingDependencyError, UnsupportedCodecError

TILE = tissue(48, 64, seed=9)
SIZE = TILE.size


def array(data) -> np.ndarray:
    return np.frombuffer(bytes(data), np.uint8)


def jpeg(kind: str, **changes) -> tuple[JpegCodec, bytes]:
    tables, stream = encode_jpeg(TILE, kind)
    space = "rgb" if kind == "jpeg-rgb" else "ycbcr"
    configuration = {
        "height": 48, "width": 64, "samples": 3, "colorspace": space, "tables": tables,
    }  # fmt: skip
    return JpegCodec.from_configuration(configuration | changes), stream


def j2k(kind: str, **changes) -> tuple[Jpeg2kCodec, bytes]:
    space = "rgb" if kind == "j2k-rgb" else "ycbcr"
    configuration = {"height": 48, "width": 64, "samples": 3, "bits": 8, "colorspace": space}
    return Jpeg2kCodec.from_configuration(configuration | changes), encode_j2k(TILE, kind)


def decode(codec: Codec, encoded, nbytes: int = SIZE) -> np.ndarray:
    """Decode with and without `out`; both must agree."""
    data = array(encoded)
    out = np.full(nbytes, 77, np.uint8)
    result = codec.decode_host(data, nbytes, out)
    assert result is out
    assert np.array_equal(codec.decode_host(data, nbytes, None), out)
    return out


def difference(decoded: np.ndarray, expected: np.ndarray) -> int:
    return int(np.abs(decoded.reshape(expected.shape).astype(int) - expected).max())


@pytest.mark.parametrize(("kind", "loss"), [("jpeg-rgb", 14), ("jpeg-444", 16), ("jpeg-420", 24)])
def test_jpeg_takes_colour_from_the_configuration(kind, loss):
    codec, stream = jpeg(kind)
    assert difference(decode(codec, stream), TILE) <= loss
    wrong = "ycbcr" if kind == "jpeg-rgb" else "rgb"
    assert difference(decode(jpeg(kind, colorspace=wrong)[0], stream), TILE) > 60


def test_jpeg_grey_and_progressive_and_own_tables():
    grey = np.ascontiguousarray(TILE[..., 0])
    codec = JpegCodec.from_configuration(
        {"height": 48, "width": 64, "samples": 1, "colorspace": "gray"}
    )
    for progressive in (False, True):
        file = io.BytesIO()
        Image.fromarray(grey).save(file, "JPEG", quality=90, progressive=progressive)
        stream = file.getvalue()
        assert read_header(stream).frame == (0xC2 if progressive else 0xC0)
        assert difference(decode(codec, stream, grey.size), grey) <= 10
        for cut in (1, 2, 3, len(stream) // 3, len(stream) // 2):
            with pytest.raises(CodecError, match="cut off"):
                codec.decode_host(array(stream[:-cut]), grey.size, None)
    assert codec.encoded_nbytes(SIZE) is None


@pytest.mark.parametrize("kind", ["jpeg-rgb", "jpeg-420"])
def test_truncated_jpeg_is_an_error_at_every_length(kind):
    codec, stream = jpeg(kind)
    out = np.empty(SIZE, np.uint8)
    for nbytes in range(len(stream) - 1):
        with pytest.raises(CodecError):
            codec.decode_host(array(stream[:nbytes]), SIZE, out)
    # half an end marker is no end marker either
    with pytest.raises(CodecError, match="cut off"):
        codec.decode_host(array(stream[:-1]), SIZE, out)


def test_jpeg_padding_is_allowed_and_other_data_behind_it_is_not():
    codec, stream = jpeg("jpeg-rgb")
    expected = decode(codec, stream)
    for padding in (b"\0", b"\0" * 50, b"\xff\xff\xff\xff\0", b"abc"):
        assert np.array_equal(decode(codec, stream + padding), expected)
    with pytest.raises(CodecError, match="ends at byte"):
        decode(codec, stream + stream)
    middle = len(stream) // 2
    with pytest.raises(CodecError, match="ends at byte"):
        decode(codec, stream[:middle] + b"\xff\xd9" + stream[middle + 2 :])


@pytest.mark.parametrize("key", ["height", "width"])
def test_jpeg_of_another_size_is_refused_before_decoding(key):
    codec, stream = jpeg("jpeg-rgb", **{key: 47})
    with pytest.raises(CodecError, match="JPEG of 48 x 64 x 3, expected"):
        codec.decode_host(array(stream), SIZE, None)


def test_jpeg_claiming_a_huge_image_is_refused_before_allocation():
    codec, stream = jpeg("jpeg-rgb")
    at = stream.index(b"\xff\xc0") + 5
    huge = stream[:at] + b"\xff\xff\xff\xff" + stream[at + 4 :]
    assert read_header(huge).height == read_header(huge).width == 65535
    with pytest.raises(CodecError, match="JPEG of 65535 x 65535 x 3"):
        codec.decode_host(array(huge), SIZE, None)


def test_jpeg_short_strip():
    tables, stream = encode_jpeg(TILE[:15], "jpeg-rgb")
    codec, _ = jpeg("jpeg-rgb", height=16, short_height=15, tables=tables)
    nbytes = 16 * 64 * 3
    short = codec.decode_host(array(stream), nbytes, None)
    assert short.size == 15 * 64 * 3
    padded = decode(ShortChunkCodec.from_configuration({"short_nbytes": short.size}), short, nbytes)
    assert np.array_equal(padded[: short.size], short)
    assert not padded[short.size :].any()
    with pytest.raises(CodecError, match="decodes to 2880 bytes"):
        codec.decode_host(array(stream), nbytes, np.empty(nbytes, np.uint8))


@pytest.mark.parametrize(
    ("kind", "loss"), [("j2k-rgb", 0), ("j2k-ycbcr", 2), ("j2k-ycbcr-422", 30)]
)
def test_jpeg2k_colour(kind, loss):
    codec, stream = j2k(kind)
    assert difference(decode(codec, stream), TILE) <= loss


def test_jpeg2k_ycbcr_without_chroma_subsampling_is_converted_from_the_stored_samples():
    codec, stream = j2k("j2k-ycbcr")
    stored = imagecodecs.jpeg2k_decode(stream)
    assert np.array_equal(stored, rgb_to_ycbcr(TILE))
    assert difference(decode(codec, stream), stored) > 60
    assert np.array_equal(decode(j2k("j2k-rgb")[0], stream).reshape(stored.shape), stored)


@pytest.mark.parametrize("kind", ["j2k-rgb", "j2k-ycbcr-422"])
def test_truncated_jpeg2k_is_an_error_at_every_length_but_for_the_end_marker(kind):
    codec, stream = j2k(kind)
    expected = decode(codec, stream)
    out = np.empty(SIZE, np.uint8)
    for nbytes in [*range(200), *range(200, len(stream) - 2, 13), len(stream) - 3]:
        with pytest.raises(CodecError):
            codec.decode_host(array(stream[:nbytes]), SIZE, out)
    # OpenSlide reads files whose tiles lack or damage the end marker; nothing of the image is lost
    for ending in (b"", b"\xff", b"\0\0"):
        assert np.array_equal(decode(codec, stream[:-2] + ending), expected)


def test_jpeg2k_in_a_jp2_file_ignores_the_colour_boxes():
    options = {"codecformat": "jp2", "reversible": True, "level": 0, "mct": False}
    boxed = imagecodecs.jpeg2k_encode(rgb_to_ycbcr(TILE), colorspace="SYCC", **options)
    codec, _ = j2k("j2k-ycbcr")
    assert difference(decode(codec, boxed), TILE) <= 2
    with pytest.raises(CodecError, match="without a codestream"):
        codec.decode_host(array(bytes(boxed)[:40]), SIZE, None)


def test_jpeg2k_16_bit_grey():
    image = np.random.default_rng(1).integers(0, 65536, (48, 64)).astype(np.uint16)
    stream = imagecodecs.jpeg2k_encode(image, codecformat="j2k", reversible=True, level=0)
    configuration = {"height": 48, "width": 64, "samples": 1, "bits": 16, "colorspace": "gray"}
    codec = Jpeg2kCodec.from_configuration(configuration)
    assert np.array_equal(decode(codec, stream, image.nbytes).view(np.uint16), image.ravel())
    codec = Jpeg2kCodec.from_configuration(configuration | {"bits": 8})
    with pytest.raises(CodecError, match="16 unsigned bits, expected 1 to 8"):
        codec.decode_host(array(stream), image.nbytes, None)


def test_jpeg2k_of_another_kind_is_refused_before_decoding():
    codec, stream = j2k("j2k-rgb", height=47)
    with pytest.raises(CodecError, match="JPEG 2000 of 48 x 64 x 3, expected 47"):
        codec.decode_host(array(stream), SIZE, None)
    codec, _ = j2k("j2k-rgb")
    with pytest.raises(CodecError, match="subsampling"):
        codec.decode_host(array(j2k("j2k-ycbcr-422")[1]), SIZE, None)
    tiny_tiles = stream[:24] + bytes([0, 0, 0, 1, 0, 0, 0, 1]) + stream[32:]
    wide = tiny_tiles[:8] + bytes([0, 0, 255, 255, 0, 0, 255, 255]) + tiny_tiles[16:]
    with pytest.raises(CodecError, match="tiles"):
        codec.decode_host(array(wide), SIZE, None)


@pytest.mark.parametrize("make", [lambda: jpeg("jpeg-420"), lambda: j2k("j2k-ycbcr-422")])
def test_flipped_bytes_give_an_image_or_a_codec_error(make):
    codec, stream = make()
    rng = np.random.default_rng(4)
    out = np.empty(SIZE, np.uint8)
    outcomes = set()
    for round_ in range(300):
        damaged = bytearray(stream)
        for at in rng.integers(0, 120 if round_ % 2 else len(stream), 2):
            damaged[at] ^= 1 << rng.integers(8)
        try:
            outcomes.add(codec.decode_host(array(damaged), SIZE, out).size)
        except CodecError:
            outcomes.add("error")
    assert outcomes == {SIZE, "error"}


@pytest.mark.parametrize("name", ["lzw", "packbits"])
def test_byte_codecs_are_exact_in_size(name):
    codec = {"lzw": LzwCodec, "packbits": PackBitsCodec}[name].from_configuration({})
    data = array(np.random.default_rng(0).integers(0, 9, 5000).astype(np.uint8))
    encoded = getattr(imagecodecs, f"{name}_encode")(data)
    assert np.array_equal(decode(codec, encoded, 5000), data)
    assert codec.decode_host(array(encoded), 9000, None).size == 5000
    for nbytes in (4999, 5001):
        with pytest.raises(CodecError):
            codec.decode_host(array(encoded), nbytes, np.empty(nbytes, np.uint8))
    with pytest.raises(CodecError):
        codec.decode_host(array(encoded), 4999, None)
    for cut in (10, 100, len(encoded) // 2, len(encoded)):
        with pytest.raises(CodecError):
            codec.decode_host(array(bytes(encoded)[:-cut]), 5000, np.empty(5000, np.uint8))


def reference_differences(image: np.ndarray) -> bytes:
    """Horizontal differences, one sample at a time in Python's own integers."""
    flat = image.astype(object)
    previous = np.zeros_like(flat)
    previous[:, 1:] = flat[:, :-1]
    modulus = 1 << (8 * image.dtype.itemsize)
    unsigned = image.dtype.newbyteorder("=").str.replace("i", "u")
    wrapped = ((flat - previous) % modulus).astype(unsigned)
    return wrapped.astype(image.dtype.str.replace("i", "u")).tobytes()


DTYPES = [order + kind + str(size) for order in "<>" for kind in "iu" for size in (1, 2, 4, 8)]


@settings(max_examples=60, deadline=None)
@given(
    dtype=st.sampled_from(DTYPES),
    shape=st.tuples(st.integers(1, 5), st.integers(1, 9), st.integers(1, 4)),
    seed=st.integers(0, 1000),
    shift=st.booleans(),
)
def test_predictor_2_is_the_inverse_of_differencing(dtype, shape, seed, shift):
    info = np.iinfo(dtype)
    rng = np.random.default_rng(seed)
    native = np.dtype(dtype).newbyteorder("=")
    image = rng.integers(info.min, info.max, shape, native, endpoint=True).astype(dtype)
    encoded = reference_differences(image)
    codec = TiffPredictorCodec.from_configuration(
        {"predictor": 2, "width": shape[1], "samples": shape[2], "dtype": dtype}
    )
    data = array(b"\0" + encoded)[1:] if shift else array(encoded)  # unaligned views too
    out = np.empty(image.nbytes, np.uint8)
    assert codec.decode_host(data, image.nbytes, out).tobytes() == image.tobytes()
    assert codec.encoded_nbytes(image.nbytes) == image.nbytes


@settings(max_examples=40, deadline=None)
@given(
    dtype=st.sampled_from([order + f"f{size}" for order in "<>" for size in (2, 4, 8)]),
    shape=st.tuples(st.integers(1, 5), st.integers(1, 9), st.integers(1, 4)),
    seed=st.integers(0, 1000),
)
def test_predictor_3_is_the_inverse_of_imagecodecs(dtype, shape, seed):
    image = np.random.default_rng(seed).standard_normal(shape).astype(dtype)
    encoded = imagecodecs.floatpred_encode(image.reshape(shape), axis=-2)
    codec = TiffPredictorCodec.from_configuration(
        {"predictor": 3, "width": shape[1], "samples": shape[2], "dtype": dtype}
    )
    assert decode(codec, encoded.tobytes(), image.nbytes).tobytes() == image.tobytes()


def test_predictor_refuses_parts_of_rows():
    codec = TiffPredictorCodec.from_configuration(
        {"predictor": 2, "width": 5, "samples": 3, "dtype": "|u1"}
    )
    assert codec.decode_host(np.zeros(30, np.uint8), 99, None).size == 30
    with pytest.raises(CodecError, match="whole rows of 15"):
        codec.decode_host(np.zeros(31, np.uint8), 99, None)
    with pytest.raises(CodecError, match="expected 30"):
        codec.decode_host(np.zeros(15, np.uint8), 30, np.empty(30, np.uint8))


def test_short_chunk_takes_two_sizes_only():
    codec = ShortChunkCodec.from_configuration({"short_nbytes": 6})
    assert decode(codec, bytes(range(1, 7)), 9).tolist() == [1, 2, 3, 4, 5, 6, 0, 0, 0]
    assert decode(codec, bytes(range(1, 10)), 9).tolist() == list(range(1, 10))
    for nbytes in (0, 5, 7, 8, 10):
        with pytest.raises(CodecError, match=f"decodes to {nbytes} bytes, expected 9, or 6"):
            codec.decode_host(np.zeros(nbytes, np.uint8), 9, None)


BAD_CONFIGURATIONS = [
    (JpegCodec, {"height": 0, "width": 8, "samples": 3, "colorspace": "rgb"}, "height"),
    (JpegCodec, {"height": 8, "width": "8", "samples": 3, "colorspace": "rgb"}, "width"),
    (JpegCodec, {"height": 8, "width": 8, "samples": 3, "colorspace": "cmyk"}, "colorspace"),
    (JpegCodec, {"height": 8, "width": 8, "samples": 1, "colorspace": "rgb"}, "samples"),
    (
        JpegCodec,
        {"height": 8, "width": 8, "samples": 3, "colorspace": "rgb", "tables": "x"},
        "tables must be bytes",
    ),
    (
        JpegCodec,
        {"height": 8, "width": 8, "samples": 3, "colorspace": "rgb", "short_height": 8},
        "short_height",
    ),
    (
        Jpeg2kCodec,
        {"height": 8, "width": 8, "samples": 3, "colorspace": "rgb", "bits": 12},
        "bits",
    ),
    (
        Jpeg2kCodec,
        {"height": 8, "width": 8, "samples": 3, "colorspace": "ycbcr", "bits": 16},
        "16 bits",
    ),
    (TiffPredictorCodec, {"predictor": 4, "width": 1, "samples": 1, "dtype": "|u1"}, "predictor"),
    (TiffPredictorCodec, {"predictor": 2, "width": 1, "samples": 1, "dtype": "<c8"}, "complex64"),
    (TiffPredictorCodec, {"predictor": 3, "width": 1, "samples": 1, "dtype": "<u4"}, "uint32"),
    (ShortChunkCodec, {}, "short_nbytes"),
]


@pytest.mark.parametrize(("codec", "configuration", "message"), BAD_CONFIGURATIONS)
def test_bad_configurations_are_refused(codec, configuration, message):
    with pytest.raises(UnsupportedCodecError, match=message):
        codec.from_configuration(configuration)


def test_codecs_follow_the_protocol():
    for codec in (jpeg("jpeg-rgb")[0], j2k("j2k-rgb")[0], LzwCodec(), PackBitsCodec()):
        assert isinstance(codec, Codec)
        assert codec == type(codec).from_configuration(
            {k: getattr(codec, k) for k in getattr(codec, "__slots__", ())}
        )


def test_decoders_may_run_in_many_threads():
    pairs = [jpeg("jpeg-420"), j2k("j2k-ycbcr-422"), j2k("j2k-rgb")]
    expected = [codec.decode_host(array(stream), SIZE, None) for codec, stream in pairs]
    with ThreadPoolExecutor(4) as pool:
        jobs = [
            pool.submit(codec.decode_host, array(stream), SIZE, None)
            for codec, stream in pairs * 20
        ]
        for at, job in enumerate(jobs):
            assert np.array_equal(job.result(), expected[at % 3])


def test_absent_imagecodecs_is_told_with_the_remedy(monkeypatch):
    codec, stream = jpeg("jpeg-rgb")
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'zarrgpu\[slides\]'"):
        codec.decode_host(array(stream), SIZE, None)


def test_jpeg_of_very_many_scans_is_refused_in_little_time():
    # a few bytes each, and each goes over the whole image
    side = 1024
    file = io.BytesIO()
    Image.fromarray(np.zeros((side, side), np.uint8)).save(file, "JPEG", progressive=True)
    stream = file.getvalue()
    last = stream[stream.rindex(b"\xff\xda") : -2]
    codec = JpegCodec.from_configuration(
        {"height": side, "width": side, "samples": 1, "colorspace": "gray"}
    )
    assert not decode(codec, stream, side * side).any()
    with pytest.raises(CodecError, match="scans, at most 256 are decoded"):
        decode(codec, stream[:-2] + 100_000 * last + b"\xff\xd9", side * side)


DAMAGE = {
    "cut off, with an end": lambda data: data[: len(data) // 2] + b"\xff\xd9",
    "codes that are none": lambda data: (
        data[: len(data) // 2] + b"\xff\0" * 12 + data[len(data) // 2 + 24 :]
    ),
    "a restart marker": lambda data: data[: len(data) // 2] + b"\xff\xd3" + data[len(data) // 2 :],
}


@pytest.mark.skipif(native_library() is None, reason="libjpeg is asked by the compiled library")
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("damage", DAMAGE)
def test_jpeg_that_libjpeg_only_warns_of_is_damaged(damage, progressive):
    """As for OpenSlide; imagecodecs gives what libjpeg makes of it."""
    file, image = io.BytesIO(), tissue(64, 80)
    Image.fromarray(image).save(file, "JPEG", progressive=progressive, quality=90)
    codec = JpegCodec.from_configuration(
        {"height": 64, "width": 80, "samples": 3, "colorspace": "ycbcr"}
    )
    good = file.getvalue()
    assert (
        np.abs(decode(codec, good, image.size).reshape(image.shape).astype(int) - image).mean() < 9
    )
    bad = DAMAGE[damage](good)
    assert imagecodecs.jpeg8_decode(bad).shape == image.shape
    with pytest.raises(CodecError, match="JPEG data is damaged"):
        decode(codec, bad, image.size)
