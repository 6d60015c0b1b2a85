"""Laws of images in the compiled executor.

1. What it decodes, whole or in part, has the pixels of imagecodecs (libjpeg-turbo, OpenJPEG), bit
   for bit: any size, colours, subsampling, wavelet, levels, code-blocks and layers.
2. Whatever is stored: what it accepts, the Python path accepts, with the same pixels (law 5).
3. It decodes the tiles of slides, and leaves none of them.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import zarrgpu as zg
from tests.synthetic_slides import encode_subsampled_j2k
from zarrgpu import native_engine
from zarrgpu.codecs.base import CodecError
from zarrgpu.codecs.jpeg import JpegCodec
from zarrgpu.codecs.jpeg2k import Jpeg2kCodec
from zarrgpu.demo.inputs import make_svs
from zarrgpu.demo.texture import tissue_image
from zarrgpu.devices import native
from zarrgpu.model import ReadOptions
from zarrgpu.native_images import image_values
from zarrgpu.plan import windows

imagecodecs = pytest.importorskip("imagecodecs")
LIBRARY = native.native_library()
pytestmark = pytest.mark.skipif(LIBRARY is None, reason="the host executor was not compiled")

SLIDES = Path(__file__).resolve().parents[2] / "shared" / "data" / "slides"
TISSUE = tissue_image(512, seed=3)


def jpeg_codec(height, width, samples=3, colorspace="ycbcr", tables=b""):
    return JpegCodec(
        height=height, width=width, samples=samples, colorspace=colorspace, tables=tables,
        short_height=None,
    )  # fmt: skip


def jpeg2k_codec(height, width, samples=3, colorspace="rgb"):
    return Jpeg2kCodec(
        height=height, width=width, samples=samples, bits=8, signed=False, colorspace=colorspace,
        short_height=None,
    )  # fmt: skip


def compiled(codec, encoded: bytes, first: int, count: int, columns=None):
    """Rows of an image, (count, width, samples); None where they are left to Python."""
    values = image_values(codec)
    tables = np.frombuffer(values.pop("tables") or b"\0", np.uint8)
    values |= {
        "tables": native.address(tables),
        "tables_nbytes": len(getattr(codec, "tables", b"")),
    }
    image = np.array([values[name] for name in native.IMAGE], np.int64)
    source = np.frombuffer(encoded, np.uint8).copy()
    out = np.full((count, codec.width, codec.samples), 7, np.uint8)
    number = native.CODEC_NUMBERS[codec.name]
    done = LIBRARY.decode_image(
        native.address(image), number, native.address(source), source.size, first, count,
        *(columns or (0, codec.width)), native.address(out),
    )  # fmt: skip
    return out if done else None


def general(codec, encoded: bytes):
    """The whole image by the Python path; None for an error."""
    shape = (codec.height, codec.width, codec.samples)
    try:
        pixels = codec.decode_host(
            np.frombuffer(encoded, np.uint8), int(np.prod(shape)), np.empty(np.prod(shape), "u1")
        )
    except CodecError:
        return None
    return pixels.reshape(shape)


def pixels_of(height, width, samples, seed=0):
    """A piece of tissue, or noise in every other one: many bit-planes."""
    random = np.random.default_rng(seed)
    y, x = random.integers(0, 512 - height), random.integers(0, 512 - width)
    pixels = TISSUE[y : y + height, x : x + width]
    if seed % 2:
        pixels = pixels ^ random.integers(0, 256, pixels.shape, np.uint8)
    return (pixels[..., 0] if samples == 1 else pixels).copy()


def check_parts(codec, encoded, seed=0, turns=4):
    """Law 1: the whole, and random parts."""
    truth = general(codec, encoded)
    got = compiled(codec, encoded, 0, codec.height)
    assert got is not None
    np.testing.assert_array_equal(got, truth)
    random = np.random.default_rng(seed)
    for _ in range(turns):
        first, end = np.sort(random.integers(0, codec.height + 1, 2)).tolist()
        left, right = np.sort(random.integers(0, codec.width + 1, 2)).tolist()
        end, right = max(end, first + 1), max(right, left + 1)
        first, left = min(first, end - 1), min(left, right - 1)
        end, right = min(end, codec.height), min(right, codec.width)
        if first >= end or left >= right:
            continue
        part = compiled(codec, encoded, first, end - first, (left, right))
        np.testing.assert_array_equal(part[:, left:right], truth[first:end, left:right])


# --- law 1


@settings(max_examples=30, deadline=None)
@given(
    height=st.integers(2, 90),
    width=st.integers(2, 90),
    subsampling=st.sampled_from(["444", "422", "420", "440", "411"]),
    colorspace=st.sampled_from(["gray", "rgb", "ycbcr", "unknown"]),
    level=st.integers(30, 100),
    seed=st.integers(0, 99),
)
def test_parts_of_a_jpeg_image(height, width, subsampling, colorspace, level, seed):
    samples = 1 if colorspace == "gray" else 3
    pixels = pixels_of(height, width, samples, seed)
    encoded = imagecodecs.jpeg8_encode(
        pixels, level=level, subsampling=subsampling,
        colorspace={"gray": "gray"}.get(colorspace, "rgb"),
        outcolorspace={"gray": "gray", "rgb": "rgb"}.get(colorspace, "ycbcr"),
    )  # fmt: skip
    check_parts(jpeg_codec(height, width, samples, colorspace), encoded, seed)


@pytest.mark.parametrize("subsampling", ["444", "420"])
def test_every_run_of_rows_of_a_jpeg_image(subsampling):
    """Rows of chroma are interpolated from above and below: at each border."""
    pixels = pixels_of(50, 40, 3)
    encoded = imagecodecs.jpeg8_encode(pixels, level=90, subsampling=subsampling)
    codec = jpeg_codec(50, 40)
    truth = general(codec, encoded)
    for first in range(50):
        for end in range(first + 1, 51):
            got = compiled(codec, encoded, first, end - first)
            np.testing.assert_array_equal(got, truth[first:end])


@settings(max_examples=30, deadline=None)
@given(
    height=st.integers(1, 200),
    width=st.integers(1, 200),
    samples=st.sampled_from([1, 3]),
    reversible=st.booleans(),
    mct=st.booleans(),
    resolutions=st.integers(1, 6),
    level=st.sampled_from([0, 30, 40, 60]),
    seed=st.integers(0, 99),
)
def test_parts_of_a_jpeg2k_image(height, width, samples, reversible, mct, resolutions, level, seed):
    encoded = imagecodecs.jpeg2k_encode(
        pixels_of(height, width, samples, seed), level=level, codecformat="j2k", mct=mct,
        reversible=reversible, resolutions=resolutions,
    )  # fmt: skip
    colorspace = "gray" if samples == 1 else "ycbcr" if seed % 3 == 0 else "rgb"
    check_parts(jpeg2k_codec(height, width, samples, colorspace), encoded, seed)


@settings(max_examples=30, deadline=None)
@given(
    height=st.integers(96, 130), width=st.integers(96, 130), rows=st.sampled_from([1, 2]),
    reversible=st.booleans(), resolutions=st.integers(1, 3), seed=st.integers(0, 99),
)  # fmt: skip
def test_parts_of_a_subsampled_jpeg2k_image(height, width, rows, reversible, resolutions, seed):
    encoded = encode_subsampled_j2k(
        pixels_of(height, width, 3, seed), rows, level=0 if reversible else 45, codecformat="j2k",
        reversible=reversible, resolutions=resolutions,
    )  # fmt: skip
    check_parts(jpeg2k_codec(height, width, 3, "ycbcr"), encoded, seed)
    assert compiled(jpeg2k_codec(height, width, 3, "rgb"), encoded, 0, height) is None


@pytest.mark.parametrize("progression", ["LRCP", "RLCP", "RPCL", "PCRL", "CPRL"])
def test_any_progression_of_layers_and_code_blocks(progression):
    image = pytest.importorskip("PIL.Image")
    for seed, (height, width, side, irreversible) in enumerate(
        [(75, 130, 16, True), (130, 75, 32, False), (60, 61, 4, True), (128, 128, 64, True)]
    ):
        stream = io.BytesIO()
        image.fromarray(pixels_of(height, width, 3, seed)).save(
            stream, "JPEG2000", no_jp2=True, progression=progression, irreversible=irreversible,
            quality_layers=[60, 20, 5], codeblock_size=(side, 64 if side == 4 else side),
            num_resolutions=4 + seed % 3,
        )  # fmt: skip
        check_parts(jpeg2k_codec(height, width), stream.getvalue(), seed)


@pytest.mark.parametrize("more", [0, 16, 22])
def test_as_many_bit_planes_as_are_decoded(more):
    """Finer steps by as many powers of two, of as many more bit-planes: up to 30 and beyond."""
    encoded = bytearray(
        imagecodecs.jpeg2k_encode(
            pixels_of(100, 80, 1, 1), level=45, codecformat="j2k", reversible=False
        )
    )
    at = encoded.index(b"\xff\x5c") + 5
    for place in range(at, at - 3 + int.from_bytes(encoded[at - 3 : at - 1], "big"), 2):
        encoded[place] = min((encoded[place] >> 3) + more, 31) << 3 | encoded[place] & 7
    codec, finer = jpeg2k_codec(100, 80, 1, "gray"), bytes(encoded)
    got = compiled(codec, finer, 0, 100)
    assert got is not None
    np.testing.assert_array_equal(got, general(codec, finer))


def tiles(name: str, count: int):
    """Codec, and tiles of a slide: spread over all of it."""
    if not (SLIDES / name).exists():
        pytest.skip("the slides are not here")
    slide = zg.open_slide(SLIDES / name)
    source = slide.levels[0].source
    where, data = source.spec.location, (SLIDES / name).read_bytes()
    offsets, sizes = np.asarray(where.offsets), np.asarray(where.nbytes)
    chosen = range(0, len(offsets), max(1, len(offsets) // count))
    return source.chain.codecs[0], [
        data[offsets[i] : offsets[i] + sizes[i]] for i in chosen if sizes[i]
    ]


@pytest.mark.slides
@pytest.mark.parametrize("name", ["CMU-1-Small-Region.svs", "tcga-jpeg2000.svs"])
def test_parts_of_tiles_of_slides(name):
    codec, found = tiles(name, 25)
    assert len(found) >= 20
    for seed, encoded in enumerate(found):
        check_parts(codec, encoded, seed, turns=5)


# --- law 2


def check_damage(codec, good: bytes, turns: int) -> int:
    """Flip and cut; the number of damaged streams that were decoded."""
    random = np.random.default_rng(0)
    decoded = 0
    for turn in range(turns):
        bad = bytearray(good)
        near = min(len(bad), 700 if turn % 2 else len(bad))
        for at in random.integers(2, near, random.integers(1, 4)):
            bad[at] ^= int(random.integers(1, 256))
        if turn % 5 == 4:
            bad = bad[: random.integers(1, len(bad))]
        if turn % 7 == 6:
            bad += bytes(random.integers(0, 256, random.integers(1, 6), np.uint8))
        first = int(random.integers(0, codec.height))
        count = int(random.integers(1, codec.height - first + 1))
        truth = None
        for begin, rows in ((0, codec.height), (first, count)):
            got = compiled(codec, bytes(bad), begin, rows)
            if got is None:
                continue
            decoded += 1
            truth = general(codec, bytes(bad)) if truth is None else truth
            if truth is None and rows < codec.height and codec.name == "jpeg":
                # damage behind the rows, which are what libjpeg makes of them
                truth = imagecodecs.jpeg8_decode(bytes(bad), colorspace=3, outcolorspace=2)
            assert truth is not None, "accepted what Python refuses"
            np.testing.assert_array_equal(got, truth[begin : begin + rows])
    return decoded


@pytest.mark.parametrize("subsampling", ["444", "420"])
def test_damaged_jpeg_ends_alike(subsampling):
    encoded = imagecodecs.jpeg8_encode(pixels_of(64, 64, 3), level=85, subsampling=subsampling)
    assert check_damage(jpeg_codec(64, 64), encoded, 400) > 20


@pytest.mark.parametrize("reversible", [True, False])
def test_damaged_jpeg2k_ends_alike(reversible):
    encoded = imagecodecs.jpeg2k_encode(
        pixels_of(100, 80, 3), level=50, codecformat="j2k", reversible=reversible, mct=True
    )
    assert check_damage(jpeg2k_codec(100, 80), encoded, 400) > 20


@pytest.mark.parametrize("rows", [1, 2])
def test_damaged_subsampled_jpeg2k_ends_alike(rows):
    options = {"level": 50, "codecformat": "j2k", "resolutions": 3}
    encoded = encode_subsampled_j2k(pixels_of(95, 81, 3), rows, **options)
    assert check_damage(jpeg2k_codec(95, 81, 3, "ycbcr"), encoded, 300) > 20


@pytest.mark.parametrize("reversible", [True, False])
def test_carries_that_no_encoder_writes_end_alike(reversible):
    """They make the MQ decoder's C larger than A, and then longer than its register."""
    random = np.random.default_rng(1)
    for seed in range(30):
        good = imagecodecs.jpeg2k_encode(
            pixels_of(32, 32, 1, seed), level=0 if reversible else 50, codecformat="j2k",
            reversible=reversible, resolutions=1,
        )  # fmt: skip
        codec = jpeg2k_codec(32, 32, 1, "gray")
        for at in random.integers(good.index(b"\xff\x93") + 12, len(good) - 12, 60).tolist():
            times = int(random.integers(1, 5))
            bad = good[:at] + b"\xff\x8f" * times + good[at + 2 * times :]
            got = compiled(codec, bad, 0, 32)
            if got is not None:
                np.testing.assert_array_equal(got, general(codec, bad))


def test_headers_that_openjpeg_refuses_are_left():
    image = pytest.importorskip("PIL.Image")
    stream = io.BytesIO()
    image.fromarray(pixels_of(64, 64, 3)).save(stream, "JPEG2000", no_jp2=True, plt=True)
    good, codec = stream.getvalue(), jpeg2k_codec(64, 64)
    style, lengths = good.index(b"\xff\x52"), good.index(b"\xff\x58")
    assert compiled(codec, good, 0, 64) is not None
    last = lengths + 1 + int.from_bytes(good[lengths + 2 : lengths + 4], "big")
    for at, bit in ((style + 10, 0x80), (style + 11, 0x40), (last, 0x80)):
        bad = bytearray(good)
        bad[at] |= bit
        assert general(codec, bytes(bad)) is None
        assert compiled(codec, bytes(bad), 0, 64) is None


def test_what_is_not_plain_is_left():
    pixels = pixels_of(64, 64, 3)
    codec = jpeg2k_codec(64, 64)
    boxed = imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="jp2")
    bare = imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="j2k")
    np.testing.assert_array_equal(compiled(codec, bare, 0, 64), pixels)
    assert compiled(codec, boxed, 0, 64) is None
    np.testing.assert_array_equal(general(codec, boxed), pixels)
    progressive = imagecodecs.jpeg8_encode(pixels, level=90, optimize=True)
    assert compiled(jpeg_codec(63, 64), progressive, 0, 63) is None  # another size
    assert compiled(jpeg_codec(64, 64), progressive[:-2], 0, 64) is None  # cut off
    assert compiled(jpeg_codec(64, 64), b"", 0, 64) is None
    assert compiled(codec, b"", 0, 64) is None


def test_a_libjpeg_that_is_not_there_is_not_used():
    library = native.NativeLibrary(native.LIBRARY)
    use = native._function(
        library._library, "zarrgpu_use_jpeg_library", np.ctypeslib.ctypes.c_int64, 1
    )
    none = np.zeros(len(native.JPEG_LIBRARY), np.int64)
    pixels, codec = pixels_of(64, 64, 3), jpeg_codec(64, 64)
    others = imagecodecs.jpeg8_encode(pixels, level=90, subsampling="411")  # not for our own
    assert compiled(codec, others, 0, 64) is not None
    try:
        assert use(native.address(none)) == 0
        assert compiled(codec, others, 0, 64) is None
    finally:
        assert use(native.address(library._jpeg_table)) == 1


# --- law 3


@pytest.fixture
def left(monkeypatch):
    """Reads that the executor left, and the chunks that it was given."""
    found = []

    def drain(self, num_threads, wrapped=native_engine.NativeRun.drain):
        found.append((wrapped(self, num_threads), len(self.status)))
        return found[-1][0]

    monkeypatch.setattr(native_engine.NativeRun, "drain", drain)
    return found


def check_slide(path, left):
    slide = zg.open_slide(path)
    array = slide.levels[0]
    options = ReadOptions(native=False)
    random = np.random.default_rng(2)
    height, width, samples = array.shape
    starts = random.integers(-60, [height, width], (40, 2))
    starts = np.concatenate([starts, np.zeros((40, 1), int)], axis=1)
    got = array.read_patches(starts, (100, 90, samples), device="cpu")
    assert left
    assert left[-1][0] == []
    assert left[-1][1] > 10
    wanted = array.read_patches(starts, (100, 90, samples), device="cpu", options=options)
    np.testing.assert_array_equal(got, wanted)
    box = (slice(30, 31), slice(5, 140), slice(1, 3))
    np.testing.assert_array_equal(
        array.read(box, device="cpu"), array.read(box, device="cpu", options=options)
    )
    kept = zg.open_slide(path, cache=1 << 26).levels[0]
    for _ in range(2):
        again = kept.read_patches(starts, (100, 90, samples), device="cpu")
        np.testing.assert_array_equal(again, wanted)
    assert "compiled" in array.plan(..., device="cpu").explain()


@pytest.mark.slides
@pytest.mark.parametrize("name", ["CMU-1-Small-Region.svs", "tcga-jpeg2000.svs"])
def test_slides_are_read_compiled(name, left):
    if not (SLIDES / name).exists():
        pytest.skip("the slides are not here")
    check_slide(SLIDES / name, left)


def test_a_made_slide_is_read_compiled(tmp_path, left):
    make_svs(tmp_path / "made.svs", tissue_image(1024, seed=5))
    check_slide(tmp_path / "made.svs", left)


def test_a_few_rows_have_a_window_of_their_own(tmp_path):
    make_svs(tmp_path / "made.svs", tissue_image(1024, seed=5))
    array = zg.open_slide(tmp_path / "made.svs").levels[0]
    plan = array.plan((slice(100, 140), slice(0, 300)), device="cpu").plan
    assert plan.chunks.windows is not None
    assert plan.decoded_nbytes == 40 * 3 * array.chunks[1] * -(-300 // array.chunks[1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windows, "_DECODED_IN_PARTS", ())
        whole = array.plan((slice(100, 140), slice(0, 300)), device="cpu").plan
    assert whole.chunks.windows is None
