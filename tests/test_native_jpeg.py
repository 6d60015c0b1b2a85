"""Laws of the executor's own JPEG decoder (kernels/host/jpeg_plain.cpp).

1. Plain streams are decoded by it, not by libjpeg: of any area the pixels are libjpeg-turbo's, bit
   for bit, and nothing beside the area's columns is written.
2. Whatever is stored: an image that it accepts, the Python path accepts, with the same pixels; a
   part has the pixels that libjpeg has there, whatever lies beside it.
3. What is not plain it leaves, and libjpeg decodes it as before.
"""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.test_native_images import LIBRARY, TISSUE, general, jpeg_codec, tiles
from zarrgpu.devices import native
from zarrgpu.native_images import image_values

imagecodecs = pytest.importorskip("imagecodecs")
pytestmark = pytest.mark.skipif(LIBRARY is None, reason="the host executor was not compiled")

LEFT, OURS, LIBJPEGS = 0, 1, 2
UNTOUCHED = 7


def decode(codec, encoded: bytes, rows, columns):
    """Who decoded it, and rows of the whole width."""
    values = image_values(codec)
    tables = np.frombuffer(values.pop("tables") or b"\0", np.uint8)
    values |= {"tables": native.address(tables), "tables_nbytes": len(codec.tables)}
    image = np.array([values[name] for name in native.IMAGE], np.int64)
    source = np.frombuffer(encoded, np.uint8).copy()
    out = np.full((rows[1] - rows[0], codec.width, codec.samples), UNTOUCHED, np.uint8)
    who = LIBRARY.decode_image(
        native.address(image), native.CODEC_NUMBERS["jpeg"], native.address(source), source.size,
        rows[0], len(out), *columns, native.address(out),
    )  # fmt: skip
    return who, out


def interval(random, size):
    first = int(random.integers(0, size))
    return first, int(random.integers(first + 1, size + 1))


def areas(codec, seed, turns):
    """All of it, and random parts."""
    random = np.random.default_rng(seed)
    yield (0, codec.height), (0, codec.width)
    for _ in range(turns):
        yield interval(random, codec.height), interval(random, codec.width)


def check(codec, encoded, seed=0, turns=4):
    """Law 1."""
    truth = general(codec, encoded)
    for rows, columns in areas(codec, seed, turns):
        who, got = decode(codec, encoded, rows, columns)
        assert who == OURS
        inside = np.s_[:, columns[0] : columns[1]]
        np.testing.assert_array_equal(got[inside], truth[rows[0] : rows[1]][inside])
        got[inside] = UNTOUCHED
        assert (got == UNTOUCHED).all()


def pixels_of(height, width, samples, kind, seed=0):
    """Tissue, noise, squares of black and white, or one colour."""
    random = np.random.default_rng(seed)
    if kind == "noise":
        pixels = random.integers(0, 256, (height, width, samples), np.uint8)
    elif kind == "squares":
        small = random.integers(0, 2, (height // 4 + 1, width // 4 + 1, samples), np.uint8)
        pixels = (small * 255).repeat(4, 0).repeat(4, 1)[:height, :width]
    elif kind == "flat":
        pixels = np.full((height, width, samples), random.integers(0, 256, samples, np.uint8))
    else:
        y, x = random.integers(0, 512 - height), random.integers(0, 512 - width)
        pixels = TISSUE[y : y + height, x : x + width, np.arange(samples) % 3]
    return np.ascontiguousarray(pixels[..., 0] if samples == 1 else pixels)


def pillow(pixels, **options) -> bytes:
    image = pytest.importorskip("PIL.Image")
    stream = io.BytesIO()
    image.fromarray(pixels).save(stream, "JPEG", **options)
    return stream.getvalue()


# --- law 1


@settings(max_examples=80, deadline=None)
@given(
    height=st.integers(1, 140),
    width=st.integers(5, 140),
    subsampling=st.sampled_from(["444", "422", "420", "440"]),
    colorspace=st.sampled_from(["gray", "rgb", "ycbcr", "unknown"]),
    level=st.sampled_from([5, 30, 70, 90, 100]),
    optimize=st.booleans(),
    kind=st.sampled_from(["tissue", "noise", "flat"]),
    seed=st.integers(0, 99),
)
def test_any_area_of_any_image(height, width, subsampling, colorspace, level, optimize, kind, seed):
    stored = {"gray": "gray", "unknown": "cmyk"}.get(colorspace, "rgb")
    samples = {"gray": 1, "cmyk": 4}.get(stored, 3)
    encoded = imagecodecs.jpeg8_encode(
        pixels_of(height, width, samples, kind, seed), level=level, colorspace=stored,
        subsampling=subsampling if samples == 3 else "444", optimize=optimize,
        outcolorspace=colorspace if colorspace == "ycbcr" else stored,
    )  # fmt: skip
    check(jpeg_codec(height, width, samples, colorspace), encoded, seed)


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 100),
    width=st.integers(5, 100),
    subsampling=st.integers(0, 2),
    kind=st.sampled_from(["tissue", "noise"]),
    blocks=st.integers(1, 40),
    by_rows=st.booleans(),
    seed=st.integers(0, 99),
)
def test_restart_intervals_are_left_out(height, width, subsampling, kind, blocks, by_rows, seed):
    """Some begin and end within a row of MCUs, some are several rows."""
    restarts = {"restart_marker_rows": 1 + blocks % 3} if by_rows else {
        "restart_marker_blocks": blocks
    }  # fmt: skip
    encoded = pillow(
        pixels_of(height, width, 3, kind, seed), quality=85, subsampling=subsampling, **restarts
    )
    assert b"\xff\xdd" in encoded
    check(jpeg_codec(height, width), encoded, seed, turns=6)


@pytest.mark.parametrize("subsampling", ["422", "420", "440"])
def test_every_edge_of_an_area(subsampling):
    """Chroma is interpolated across borders of blocks, MCUs and the image."""
    encoded = imagecodecs.jpeg8_encode(
        pixels_of(37, 39, 3, "tissue"), level=90, subsampling=subsampling
    )
    codec = jpeg_codec(37, 39)
    truth = general(codec, encoded)
    for first in range(39):
        for end in range(first + 1, 40):
            rows = (first % 37, first % 37 + 1 + end % (37 - first % 37))
            who, got = decode(codec, encoded, rows, (first, end))
            assert who == OURS
            np.testing.assert_array_equal(got[:, first:end], truth[rows[0] : rows[1], first:end])


def test_codes_that_come_and_go():
    """A thread keeps tables of a few codes: those of an image must all be there at once."""
    streams = [
        imagecodecs.jpeg8_encode(
            pixels_of(40, 40, 3, "tissue", i), level=30 + 3 * i, subsampling="420", optimize=True
        )
        for i in range(14)
    ]
    codec = jpeg_codec(40, 40)
    truths = [general(codec, stream) for stream in streams]
    for i in np.random.default_rng(0).integers(0, len(streams), 300).tolist():
        who, got = decode(codec, streams[i], (0, 40), (0, 40))
        assert who == OURS
        np.testing.assert_array_equal(got, truths[i])


@pytest.mark.parametrize("samples", [1, 3])
def test_contrasts_and_large_quantisation_steps(samples):
    """Samples far beyond black and white; further still, libjpeg decides."""
    took = {OURS: 0, LIBJPEGS: 0}
    codec = jpeg_codec(64, 72, samples, "gray" if samples == 1 else "ycbcr")
    for seed in range(8):
        encoded = bytearray(
            imagecodecs.jpeg8_encode(
                pixels_of(64, 72, samples, "squares" if seed % 2 else "noise", seed), level=95
            )
        )
        table = encoded.index(b"\xff\xdb") + 5
        for times in (1, 2, 3, 5, 9, 25, 100):
            steps = np.frombuffer(encoded, np.uint8, 64, table).astype(int) * times
            louder = bytes(encoded[:table]) + np.minimum(steps, 255).astype("u1").tobytes()
            louder += bytes(encoded[table + 64 :])
            who, got = decode(codec, louder, (0, 64), (0, 72))
            took[who] += 1
            np.testing.assert_array_equal(got, general(codec, louder))
    assert min(took.values()) > 3


@pytest.mark.slides
def test_tiles_of_a_slide():
    codec, found = tiles("CMU-1-Small-Region.svs", 40)
    assert len(found) >= 30
    for seed, encoded in enumerate(found):
        check(codec, encoded, seed, turns=6)


# --- law 2


def damaged(random, good: bytes) -> bytes:
    """Flipped bits, other bytes in headers, bytes more or less, markers where none should be."""
    bad, scan = bytearray(good), good.index(b"\xff\xda")
    kind = random.integers(0, 6)
    if kind < 2:
        for at in random.integers(scan, len(bad), random.integers(1, 4)):
            bad[at] ^= 1 << int(random.integers(0, 8))
    elif kind == 2:
        for at in random.integers(2, scan + 14, random.integers(1, 3)):
            bad[at] = int(random.integers(0, 256))
    elif kind == 3:
        at = int(random.integers(scan + 14, len(bad)))
        bad[at : at + random.integers(0, 3)] = random.bytes(random.integers(0, 3))
    elif kind == 4:
        bad = bad[: random.integers(2, len(bad))] + b"\xff\xd9" * int(random.integers(0, 2))
    else:
        at = int(random.integers(scan + 14, len(bad)))
        bad[at : at + 2] = bytes([0xFF, random.choice([0, 1, 0xD0, 0xD1, 0xD7, 0xD9, 0xFF])])
    return bytes(bad)


def libjpegs(codec, encoded: bytes):
    """Pixels by libjpeg, whatever it warns of."""
    stored, wanted = codec.libjpeg_spaces
    pixels = imagecodecs.jpeg8_decode(encoded, colorspace=stored, outcolorspace=wanted)
    return pixels.reshape(codec.height, codec.width, codec.samples)


@pytest.mark.parametrize("colorspace", ["gray", "rgb", "ycbcr"])
@pytest.mark.parametrize("restarts", [0, 3])
def test_damage_ends_alike(colorspace, restarts):
    random = np.random.default_rng(restarts)
    samples = 1 if colorspace == "gray" else 3
    codec = jpeg_codec(50, 60, samples, colorspace)
    took, whole = dict.fromkeys((LEFT, OURS, LIBJPEGS), 0), ((0, 50), (0, 60))
    for turn in range(480):
        if turn % 40 == 0:
            options = {"restart_marker_blocks": restarts} if restarts else {}
            if samples == 3:
                options["subsampling"] = turn // 40 % 3
            kind = "noise" if turn % 120 == 0 else "tissue"
            good = pillow(pixels_of(50, 60, samples, kind, turn), quality=80, **options)
        bad = damaged(random, good)
        for area in areas(codec, turn, 1):
            who, got = decode(codec, bad, *area)
            took[who] += 1
            if who == LEFT:
                continue
            truth = general(codec, bad) if area == whole else libjpegs(codec, bad)
            assert truth is not None, "accepted what Python refuses"
            (first, last), columns = area
            inside = np.s_[:, columns[0] : columns[1]]
            np.testing.assert_array_equal(got[inside], truth[first:last][inside])
    assert min(took[LEFT], took[OURS]) > 50


# --- law 3


def test_what_is_not_plain_is_libjpegs():
    pixels = pixels_of(40, 48, 3, "tissue")
    codec = jpeg_codec(40, 48)
    plain = imagecodecs.jpeg8_encode(pixels, level=90, subsampling="420")
    assert decode(codec, plain, (0, 40), (0, 48))[0] == OURS
    table = plain.index(b"\xff\xdb")
    words = b"".join(bytes([0, value]) for value in plain[table + 5 : table + 69])
    wide = plain[:table] + b"\xff\xdb\0\x83\x10" + words + plain[table + 69 :]
    sparse = imagecodecs.jpeg8_encode(pixels, level=90, subsampling="411")
    for other in (wide, sparse):  # steps of 16 bits; chroma that is not interpolated
        who, got = decode(codec, other, (0, 40), (0, 48))
        assert who == LIBJPEGS
        np.testing.assert_array_equal(got, general(codec, other))
    few = imagecodecs.jpeg8_encode(pixels[:, :4].copy(), level=90, subsampling="420")
    assert decode(jpeg_codec(40, 4), few, (0, 40), (0, 4))[0] == LIBJPEGS
    assert decode(codec, pillow(pixels, progressive=True), (0, 40), (0, 48))[0] == LEFT
    assert decode(codec, plain[:-2], (0, 40), (0, 48))[0] == LEFT
