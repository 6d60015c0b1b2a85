"""Laws of imagecodecs' codecs inside Zarr: images, compressors, filters, checksums.

1. A chunk that imagecodecs' own Zarr codec encoded decodes to what that codec decodes it to, bit
   for bit, with and without `out`; an image of another shape or type is an error.
2. A cut-off or damaged stream is a `CodecError` or other data, never a crash or a hang, and no
   header makes a decoder take memory for more than the chunk.
3. Every name that imagecodecs registers is known to the parser and to the registry alike.
4. `zarrgpu.open` gives what zarr-python gives.
"""

from __future__ import annotations

import contextlib
import io
import json
import struct
from concurrent.futures import ThreadPoolExecutor

import imagecodecs
import imagecodecs.numcodecs as oracle
import numcodecs.registry
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import zarrgpu
from zarrgpu.codecs import imagecodecs_recipes as recipes
from zarrgpu.codecs.base import Codec, CodecError
from zarrgpu.codecs.registry import build_codec
from zarrgpu.errors import (
    ChunkDecodeError,
    MetadataError,
    MissingDependencyError,
    UnsupportedCodecError,
)
from zarrgpu.formats import image_codecs
from zarrgpu.model import CodecSpec


def sample(dtype: str, shape: tuple[int, ...] = (24, 40)) -> np.ndarray:
    """Smooth image with some noise in it, as many channels as the last axis is short."""
    rows = np.arange(np.prod(shape)).reshape(shape) // (shape[-1] if shape[-1] < 5 else 1)
    image = rows % 40 * 3 + rows // 40 % 24 * 3 + np.random.default_rng(5).integers(0, 9, shape)
    kind = np.dtype(dtype)
    return (image / 7 if kind.kind == "f" else image).astype(kind)


RGB, RGBA, STACK = (24, 40, 3), (24, 40, 4), (5, 24, 40)
PACKINTS = {"dtype": "<u2", "bitspersample": 12}

IMAGES = [
    ("apng", "u1", RGB, {}), ("apng", "u2", STACK, {}), ("apng", "u1", (1, 24, 40), {}),
    ("avif", "u1", RGB, {"level": 90}), ("avif", "u1", STACK, {}),
    ("bfloat16", "f4", (3, 24, 40), {}),
    ("bmp", "u1", RGB, {}), ("bmp", "u1", (24, 40), {}),
    ("float24", "f4", (24, 40), {"byteorder": ">"}),
    ("gif", "u1", (24, 40), {}), ("gif", "u1", STACK, {}),
    ("htj2k", "u2", (24, 40), {}), ("htj2k", "u1", RGB, {"level": 0.1, "reversible": False}),
    ("jpeg", "u1", RGB, {"level": 80}), ("jpeg", "u1", (24, 40), {}),
    ("jpeg", "u2", (24, 40), {"bitspersample": 12}),
    ("jpeg", "u1", RGB, {"colorspace_data": "RGB", "colorspace_jpeg": "RGB"}),
    ("jpeg", "u1", (24, 40), {"lossless": True}),
    ("jpeg2k", "u1", (1, 24, 40, 3), {"level": 40}), ("jpeg2k", "i2", (24, 40), {}),
    ("jpeg2k", "u2", STACK, {}), ("jpeg2k", "u1", RGB, {"codecformat": "J2K"}),
    ("jpeg2k", "u2", (24, 40, 1, 1), {"reversible": True}), (">jpeg2k", ">u2", (24, 40), {}),
    ("jpegls", "u2", (24, 40), {}), ("jpegls", "u1", RGB, {"level": 2}),
    ("jpegxl", "u1", RGB, {"distance": 1.0, "lossless": False}), ("jpegxl", "u2", STACK, {}),
    ("jpegxl", "f4", (24, 40), {}), ("jpegxl", "f2", (24, 40), {}),
    ("jpegxr", "u1", RGB, {"level": 60}), ("jpegxr", "f2", (24, 40), {}),
    ("lerc", "f4", (24, 40), {"level": 0.5}), ("lerc", "i4", STACK, {"compression": "zstd"}),
    ("ljpeg", "u2", (24, 40), {}),
    ("meshopt", "u2", (24, 40), {"shape": [24, 40], "dtype": "<u2"}),
    ("packints", "u2", (24, 40), PACKINTS), ("packints", "u2", (3, 7), PACKINTS),
    ("pixarlog", "f4", RGB, {"shape": [24, 40, 3], "dtype": "<f4"}),
    ("png", "u1", RGBA, {"level": 9}), ("png", "u2", (24, 40), {}), ("png", "u2", (40, 1), {}),
    ("png", "u1", (1, 24, 40), {"squeeze": [True, False, False]}),
    ("qoi", "u1", RGB, {}), ("qoi", "u1", RGBA, {}),
    ("rcomp", "i2", (24, 40), {"shape": [24, 40], "dtype": "<i2"}),
    ("rgbe", "f4", RGB, {"shape": [24, 40, 3]}), ("rgbe", "f4", RGB, {"header": True}),
    ("spng", "u1", RGB, {}),
    ("tiff", "u2", STACK, {"compression": "deflate"}), ("tiff", "f8", (24, 40), {}),
    ("jpegxr", "u1", RGBA, {}), ("jpegxr", "u2", RGB, {}),
    ("webp", "u1", RGB, {"lossless": True}), ("webp", "u1", RGBA, {"level": 70}),
]  # fmt: skip
IDS = [
    f"{name}-{dtype}-{'x'.join(map(str, shape))}-{i}"
    for i, (name, dtype, shape, _) in enumerate(IMAGES)
]


def reference(name: str, options: dict):
    """Codec of Zarr v2 that imagecodecs itself has."""
    return getattr(oracle, name.capitalize()).from_config(
        {k: tuple(v) if k == "shape" else v for k, v in options.items()}
    )


def image_codec(name: str, dtype: str, shape: tuple[int, ...], options: dict) -> Codec:
    configuration = {
        "codec": name, "dtype": np.dtype(dtype).str, "shape": list(shape), "options": options,
    }  # fmt: skip
    return build_codec(CodecSpec(f"imagecodecs_{name}", configuration), source="test")


def array(data) -> np.ndarray:
    return np.frombuffer(bytes(data), np.uint8)


def decode(codec: Codec, data: bytes, nbytes: int) -> np.ndarray:
    """Decode with and without `out`; both must agree, and leave the input alone."""
    encoded = array(data)
    out = np.full(nbytes, 77, np.uint8)
    assert codec.decode_host(encoded, nbytes, out).tobytes() == out.tobytes()
    assert codec.decode_host(encoded, nbytes, None).tobytes() == out.tobytes()
    assert encoded.tobytes() == bytes(data)
    return out


def encode_image(name: str, dtype: str, shape: tuple[int, ...], options: dict):
    """Codec of ours, a stream, and what imagecodecs decodes it to, in bytes of `dtype`."""
    name = name.removeprefix(">")
    theirs = reference(name, options)
    stream = bytes(theirs.encode(sample(dtype, shape)))
    expected = np.asarray(theirs.decode(stream)).ravel()[: np.prod(shape)].astype(dtype)
    return image_codec(name, dtype, shape, options), stream, expected.tobytes()


@pytest.mark.parametrize(("name", "dtype", "shape", "options"), IMAGES, ids=IDS)
def test_an_image_decodes_to_what_imagecodecs_makes_of_it(name, dtype, shape, options):
    codec, stream, expected = encode_image(name, dtype, shape, options)
    assert decode(codec, stream, len(expected)).tobytes() == expected
    fixed = codec.encoded_nbytes(len(expected))
    assert fixed in (None, len(stream))


BYTES = np.ascontiguousarray(np.arange(3000) // 7 % 251).astype("u1").tobytes()
SZIP = {"options_mask": 141, "pixels_per_block": 8, "bits_per_pixel": 8, "pixels_per_scanline": 40}

COMPRESSORS = [
    ("aec", {"bitspersample": 8}), ("blosc", {"typesize": 2, "shuffle": "BITSHUFFLE"}),
    ("blosc2", {"numthreads": 4}), ("brotli", {}), ("bz2", {"level": 3}),
    ("deflate", {}), ("deflate", {"raw": True}), ("lz4", {}), ("lz4", {"header": True}),
    ("lz4f", {"contentchecksum": True}), ("lz4h5", {"blocksize": 700}), ("lzf", {}),
    ("lzfse", {}), ("lzham", {}), ("lzma", {"level": 1}), ("lzw", {}), ("packbits", {}),
    ("pglz", {}), ("snappy", {}), ("szip", SZIP), ("zlib", {}), ("zlibng", {"level": 2}),
    ("zopfli", {}), ("zstd", {"level": 9}),
]  # fmt: skip
COMPRESSOR_IDS = [f"{name}-{i}" for i, (name, _) in enumerate(COMPRESSORS)]


def bytes_codec(name: str, options: dict, **elements) -> Codec:
    configuration = {"codec": name, "options": options, **elements}
    return build_codec(CodecSpec(f"imagecodecs_{name}", configuration), source="test")


@pytest.mark.parametrize(("name", "options"), COMPRESSORS, ids=COMPRESSOR_IDS)
def test_a_compressor_gives_the_bytes_back_and_knows_their_number(name, options):
    stream = bytes(reference(name, options).encode(BYTES))
    codec = bytes_codec(name, options)
    assert decode(codec, stream, len(BYTES)).tobytes() == BYTES
    for wrong in (len(BYTES) - 1, len(BYTES) + 1):
        with pytest.raises(CodecError):
            codec.decode_host(array(stream), wrong, np.empty(wrong, np.uint8))
    with pytest.raises(CodecError):
        codec.decode_host(array(stream), len(BYTES) - 1, None)
    for cut in range(0, len(stream), 97):
        try:
            got = codec.decode_host(array(stream[:cut]), len(BYTES), np.empty(len(BYTES), np.uint8))
        except CodecError:
            continue
        assert got.tobytes() == BYTES or name == "szip"  # only a trailer is missing; szip has none


FILTERS = [
    ("bitorder", {}, False), ("bitshuffle", {"blocksize": 0}, False),
    ("byteshuffle", {"axis": -2, "dist": 1}, True), ("byteshuffle", {"delta": True}, True),
    ("byteshuffle", {"reorder": True}, True), ("delta", {"axis": 0, "dist": 1}, True),
("floatpred", {"axis": -1, "dist": 1}, True),
    ("xor", {"axis": -1}, True),
]  # fmt: skip


@pytest.mark.parametrize("dtype", ["<u2", ">u2", "<f4", ">f4"])
@pytest.mark.parametrize(("name", "options", "stated"), FILTERS)
def test_a_filter_undoes_what_the_v2_filter_did(name, options, stated, dtype):
    elements = sample(dtype, (6, 24, 40))
    if stated:
        options = options | {"shape": list(elements.shape), "dtype": dtype}
    if name == "bitshuffle":
        options = options | {"itemsize": elements.itemsize}
    stored = np.asarray(reference(name, options).encode(elements)).tobytes()
    codec = bytes_codec(name, options)
    assert decode(codec, stored, elements.nbytes).tobytes() == elements.tobytes()
    assert codec.encoded_nbytes(elements.nbytes) == len(stored)
    with pytest.raises(CodecError):
        codec.decode_host(array(stored[:-8]), elements.nbytes, np.empty(elements.nbytes, np.uint8))


@pytest.mark.parametrize("kind", ["crc32", "adler32", "fletcher32", "lookup3", "h5crc"])
@pytest.mark.parametrize("options", [{}, {"prepend": False}, {"byteorder": ">"}, {"value": 7}])
def test_a_checksum_is_verified(kind, options):
    options = {"kind": kind} | options
    stored = bytes(reference("checksum", options).encode(BYTES))
    codec = bytes_codec("checksum", options)
    assert decode(codec, stored, len(BYTES)).tobytes() == BYTES
    for at in (0, 5, len(stored) - 1):
        damaged = bytearray(stored)
        damaged[at] ^= 4
        with pytest.raises(CodecError, match="expected"):
            codec.decode_host(array(damaged), len(BYTES), None)


@pytest.mark.parametrize(("name", "dtype", "shape", "options"), IMAGES, ids=IDS)
def test_an_image_of_another_shape_type_or_length_is_an_error(name, dtype, shape, options):
    _, stream, expected = encode_image(name, dtype, shape, options)
    name = name.removeprefix(">")
    out = np.empty(len(expected), np.uint8)
    streamless = {"packints", "meshopt", "rcomp", "bfloat16", "float24"}
    if name not in streamless and not options.get("shape"):
        larger = (*shape[:-2], shape[-2] + 1, shape[-1])
        for wrong in (larger, (*shape[:-2], shape[-1], shape[-2])):
            codec = image_codec(name, dtype, wrong, options)
            if codec.shape != image_codec(name, dtype, shape, options).shape:
                with pytest.raises(CodecError, match=r"expected|shape"):
                    codec.decode_host(array(stream), 1 << 20, None)
    if name not in streamless | {"rgbe", "pixarlog"}:
        other = {"u1": "u2", "f4": "f8"}.get(dtype, "u1")
        with pytest.raises((CodecError, UnsupportedCodecError)):
            image_codec(name, other, shape, options).decode_host(array(stream), 1 << 20, None)
    codec = image_codec(name, dtype, shape, options)
    for cut in range(0, len(stream) - 1, max(1, len(stream) // 40)):
        try:
            codec.decode_host(array(stream[:cut]), len(expected), out)
        except CodecError:
            continue
        assert out.tobytes() == expected or name in CUT_OFF_UNNOTICED, cut


CUT_OFF_UNNOTICED = {"bmp", "ljpeg"}
"""Their libraries do not tell that something is missing, and their streams have no end mark."""


def test_what_imagecodecs_registers_is_known():
    names = {
        value.codec_id.removeprefix("imagecodecs_")
        for value in vars(oracle).values()
        if isinstance(value, type) and getattr(value, "codec_id", None)
    }
    assert {f"imagecodecs_{name}" for name in names} <= recipes.CODECS.keys()
    refused = recipes.REFUSED.keys()
    assert set(image_codecs.IMAGES) == {*recipes.IMAGES, "dicomrle"} | (refused - {"cms"})
    assert set(image_codecs.FILTERS) == {*recipes.FILTERS, "quantize", "cms"}


@pytest.mark.parametrize("name", sorted(recipes.REFUSED))
def test_what_is_refused_says_why(name):
    with pytest.raises(UnsupportedCodecError, match=name):
        bytes_codec(name, {})


@pytest.mark.parametrize("name", ["heif", "jetraw", "jpegxs"])
def test_what_this_imagecodecs_lacks_is_named(name):
    if getattr(imagecodecs, name.upper()).available:
        pytest.skip(f"this imagecodecs has {name}")
    with pytest.raises(MissingDependencyError, match=name):
        image_codec(name, "u1", (8, 8), {})


@pytest.mark.parametrize(
    ("name", "compression"), [("ccittfax3", "group3"), ("ccittfax4", "group4")]
)
def test_fax_streams_of_libtiff_decode_to_its_pixels(name, compression):
    """Imagecodecs cannot encode them; Pillow's libtiff can."""
    pixels = sample("u1", (24, 40)) % 2 == 0
    file = io.BytesIO()
    image = Image.fromarray(pixels)
    image.save(file, "tiff", compression=compression)
    tags = Image.open(file).tag_v2
    assert len(tags[273]) == 1
    stream = file.getvalue()[tags[273][0] :][: tags[279][0]]
    codec = image_codec(name, "u1", (24, 40), {"height": 24, "width": 40})
    decoded = decode(codec, stream, 960).reshape(24, 40)
    white_is_zero = tags[262] == 0
    np.testing.assert_array_equal(decoded != 0, pixels != white_is_zero)


def test_many_threads_decode_one_codec():
    codec, stream, expected = STREAMS[0]
    with ThreadPoolExecutor(4) as pool:
        results = pool.map(lambda _: decode(codec, stream, len(expected)).tobytes(), range(40))
    assert set(results) == {expected}


def test_headers_that_claim_more_than_the_chunk_are_refused():
    """The stream, or its header, tells of more than the 960 pixels of the chunk."""
    large = np.zeros((500, 500), np.uint8)
    for name in ("apng", "avif", "gif", "htj2k", "jpeg", "jpeg2k", "jpegls", "jpegxl", "png"):
        stream = bytes(reference(name, {}).encode(large))
        codec = image_codec(name, "u1", (24, 40), {})
        with pytest.raises(CodecError, match=r"expected at most 960|invalid out"):
            codec.decode_host(array(stream), 960, None)
    stream = b"qoif" + struct.pack(">IIBB", 65535, 65535, 3, 0) + bytes(7) + b"\1"
    with pytest.raises(CodecError, match="expected at most 2880"):
        image_codec("qoi", "u1", RGB, {}).decode_host(array(stream), 2880, None)


STREAMS = {index: encode_image(*case) for index, case in enumerate(IMAGES)}
DAMAGEABLE = [index for index, (name, *_) in enumerate(IMAGES) if name != "jpegxr"]


# imagecodecs' htj2k_decode swallows what OpenJPH throws within a tile: printed, not raised
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@settings(max_examples=150, deadline=None)
@given(st.sampled_from(DAMAGEABLE), st.data())
def test_a_damaged_image_is_other_data_or_an_error(index, data):
    codec, stream, expected = STREAMS[index]
    damaged = bytearray(stream)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(stream) - 1))] = data.draw(st.integers(0, 255))
    damaged = damaged[: data.draw(st.sampled_from([None, len(stream) // 2, len(stream) - 1]))]
    out = np.empty(len(expected), np.uint8)
    with contextlib.suppress(CodecError):
        assert codec.decode_host(array(damaged), len(expected), out).size == len(expected)


@pytest.fixture
def registered():
    """Let numcodecs know imagecodecs' v2 codecs while a test runs."""
    before = dict(numcodecs.registry.codec_registry)
    oracle.register_codecs(verbose=False)
    yield
    numcodecs.registry.codec_registry.clear()
    numcodecs.registry.codec_registry.update(before)


V2 = [
    ("u1", (48, 80, 3), (24, 40, 3), "jpeg", {"level": 85}),
    ("u1", (2, 48, 80, 3), (1, 24, 40, 3), "jpeg2k", {"level": 50}),
    ("u2", (50, 90), (24, 40), "jpegxl", {}),
    ("u2", (3, 48, 80), (1, 24, 40), "png", {}),
    ("u1", (48, 80, 3), (24, 40, 3), "webp", {"lossless": True}),
    ("f4", (3, 48, 80), (3, 24, 40), "lerc", {"level": 0.1}),
    ("u1", (48, 80, 4), (24, 40, 4), "jpegxr", {"level": 90}),
    ("u2", (48, 80), (24, 40), "lzma", {}), ("i8", (48, 80), (24, 40), "zstd", {}),
    (">u2", (48, 80), (24, 40), "lzw", {}), ("f8", (48, 80), (24, 40), "deflate", {}),
    ("u2", (48, 80), (24, 40), "blosc", {"typesize": 2}),
]  # fmt: skip


@pytest.mark.parametrize(("dtype", "shape", "chunks", "name", "options"), V2)
@pytest.mark.parametrize("order", ["C", "F"])
def test_v2_arrays_equal_zarr_python(
    tmp_path, registered, dtype, shape, chunks, name, options, order
):
    if order == "F" and name not in ("jpeg2k", "jpegxl", "lerc", "lzma"):
        pytest.skip(f"imagecodecs does not write {name} from Fortran order")
    written = zarr.create_array(
        tmp_path / "a.zarr", shape=shape, chunks=chunks, dtype=dtype, zarr_format=2, order=order,
        compressors=reference(name, options),
    )  # fmt: skip
    written[...] = sample(dtype, shape)
    expected = zarr.open_array(tmp_path / "a.zarr", mode="r")[...]
    opened = zarrgpu.open(tmp_path / "a.zarr")
    np.testing.assert_array_equal(opened.read(..., device="cpu"), expected)
    plan = opened.plan(...).explain()
    assert "host" in plan


@pytest.mark.parametrize("dtype", ["<u2", ">u2", "<f4"])
def test_v2_filters_equal_zarr_python(tmp_path, registered, dtype):
    elements = {"shape": [24, 40], "dtype": dtype}
    filters = [oracle.Delta(shape=(24, 40), dtype=dtype, axis=0), oracle.Bitorder()]
    if dtype == "<f4":
        filters = [oracle.Quantize(mode="bitround", nsd=4), oracle.Floatpred(**elements)]
    written = zarr.create_array(
        tmp_path / "a.zarr", shape=(48, 80), chunks=(24, 40), dtype=dtype, zarr_format=2,
        filters=filters, compressors=oracle.Zlib(),
    )  # fmt: skip
    written[...] = sample(dtype, (48, 80))
    expected = zarr.open_array(tmp_path / "a.zarr", mode="r")[...]
    np.testing.assert_array_equal(
        zarrgpu.open(tmp_path / "a.zarr").read(..., device="cpu"), expected
    )


def write_v3(path, elements: np.ndarray, chunks: tuple[int, ...], codecs: list, encode) -> None:
    """Write a v3 array of whole chunks by hand; `encode` is given each of them."""
    grid = [n // c for n, c in zip(elements.shape, chunks, strict=True)]
    document = {
        "zarr_format": 3, "node_type": "array", "shape": list(elements.shape),
        "data_type": elements.dtype.name, "fill_value": 0, "codecs": codecs,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunks)}},
        "chunk_key_encoding": {"name": "default"},
    }  # fmt: skip
    path.mkdir()
    (path / "zarr.json").write_text(json.dumps(document))
    for coords in np.ndindex(*grid):
        box = tuple(slice(i * c, (i + 1) * c) for i, c in zip(coords, chunks, strict=True))
        target = path.joinpath("c", *map(str, coords))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(bytes(encode(np.ascontiguousarray(elements[box]))))


def read(path) -> np.ndarray:
    return zarrgpu.open(path).read(..., device="cpu")


def named(name: str, **configuration) -> dict:
    return {"name": name, "configuration": configuration}


def squeezed(chunk: np.ndarray) -> np.ndarray:
    """As ``imagecodecs.zarr`` gives chunks to image encoders."""
    return np.atleast_2d(np.squeeze(chunk))


V3_IMAGES = [
    ("imagecodecs_png", "png", "uint16", (1, 24, 40)),
    ("numcodecs.imagecodecs_png", "png", "uint8", RGB),
    ("imagecodecs_jpeg2k", "jpeg2k", "int16", (1, 24, 40)),
    ("imagecodecs_jpegxl", "jpegxl", "float32", (24, 40)),
    ("imagecodecs_lerc", "lerc", "float64", (2, 24, 40)),
    ("imagecodecs_jpegls", "jpegls", "uint8", RGB),
    ("png", "png", "uint8", RGBA), ("webp", "webp", "uint8", RGB),
    ("jpeg2k", "jpeg2k", "uint8", RGB), ("jpegxl", "jpegxl", "uint16", (5, 24, 40)),
]  # fmt: skip


@pytest.mark.parametrize(("written", "name", "dtype", "chunks"), V3_IMAGES)
def test_v3_serialisers_give_the_array_back(tmp_path, written, name, dtype, chunks):
    elements = sample(dtype, tuple(n * (2 if n > 5 else 1) for n in chunks))
    options = {"webp": {"lossless": True}, "jpegxl": {"lossless": True}}.get(name, {})
    encode = getattr(imagecodecs, f"{name}_encode")
    write_v3(
        tmp_path / "a", elements, chunks, [named(written, **options)],
        lambda chunk: encode(squeezed(chunk), **options),
    )  # fmt: skip
    np.testing.assert_array_equal(read(tmp_path / "a"), elements)


def test_v3_lossy_images_after_a_transpose_and_before_a_compressor(tmp_path):
    elements = sample("u1", (48, 80, 3)).transpose(2, 0, 1)
    codecs = [named("transpose", order=[1, 2, 0]), named("imagecodecs_jpeg", level=80), "gzip"]

    def encode(chunk: np.ndarray) -> bytes:
        stream = imagecodecs.jpeg8_encode(np.ascontiguousarray(chunk.transpose(1, 2, 0)), level=80)
        return imagecodecs.gzip_encode(stream)

    write_v3(tmp_path / "a", elements, (3, 24, 40), codecs, encode)
    stream = imagecodecs.jpeg8_encode(
        np.ascontiguousarray(elements[:, 24:, :40].transpose(1, 2, 0)), level=80
    )
    expected = imagecodecs.jpeg8_decode(stream).transpose(2, 0, 1)
    np.testing.assert_array_equal(read(tmp_path / "a")[:, 24:, :40], expected)


@pytest.mark.parametrize("chunks", [(4, 24, 40), (2, 12, 40, 3)])
def test_proposed_jpeg_has_any_width_and_height(tmp_path, chunks):
    samples = 3 if chunks[-1] == 3 else 1
    elements = sample("u1", (*(2 * n for n in chunks[:-1]), chunks[-1]))
    images: list[np.ndarray] = []

    def encode(chunk: np.ndarray) -> bytes:
        flat = chunk.reshape(-1, chunk.size // samples // 60, samples).squeeze()
        stream = imagecodecs.jpeg8_encode(np.ascontiguousarray(flat), level=90)
        images.append(imagecodecs.jpeg8_decode(stream).reshape(chunk.shape))
        return stream

    write_v3(tmp_path / "a", elements, chunks, [named("jpeg", quality=90)], encode)
    got = read(tmp_path / "a")
    box = tuple(slice(0, c) for c in chunks)
    np.testing.assert_array_equal(got[box], images[0])
    np.testing.assert_array_equal(got[tuple(slice(-c, None) for c in chunks)], images[-1])


V3_FILTERS = [
    ("delta", {"axis": 0, "dist": 1}), ("delta", {}), ("xor", {"axis": -1}), ("bitorder", {}),
    ("bitshuffle", {"blocksize": 0}), ("byteshuffle", {"axis": -1}),
    ("quantize", {"mode": "bitround", "nsd": 3}), ("floatpred", {"axis": -1}),
]  # fmt: skip


@pytest.mark.parametrize("endian", ["little", "big"])
@pytest.mark.parametrize(("name", "options"), V3_FILTERS)
def test_v3_filters_give_the_array_back(tmp_path, name, options, endian):
    elements = sample("float32" if name in ("floatpred", "quantize") else "uint16", (48, 80))
    function = getattr(imagecodecs, f"{name}_encode")

    def encode(chunk: np.ndarray) -> bytes:
        if name == "quantize":
            encoded = function(chunk, "bitround", 3)
        elif name == "bitshuffle":
            encoded = function(chunk, itemsize=chunk.itemsize)
        else:
            encoded = function(chunk, **options)
        encoded = np.asarray(encoded).view(chunk.dtype).reshape(chunk.shape)
        return encoded.astype(chunk.dtype.newbyteorder(">" if endian == "big" else "<")).tobytes()

    codecs = [named(f"imagecodecs_{name}", **options), named("bytes", endian=endian)]
    write_v3(tmp_path / "a", elements, (24, 40), codecs, encode)
    expected = elements
    if name == "quantize":
        expected = np.asarray(imagecodecs.quantize_encode(elements, "bitround", 3))
    np.testing.assert_array_equal(read(tmp_path / "a"), expected)


@pytest.mark.parametrize("endian", ["little", "big"])
@pytest.mark.parametrize("prefix", ["", "virtual_tiff."])
def test_virtual_tiff_chains_give_the_pixels(tmp_path, endian, prefix):
    """Chunky samples: the axes that virtual-tiff makes, and its own two codecs."""
    elements = sample("u2", (48, 80, 3)).transpose(2, 0, 1)
    order = ">" if endian == "big" else "<"
    codecs = [
        f"{prefix}HorizontalDeltaCodec",
        named("transpose", order=[0, 2, 1]),
        named(f"{prefix}ChunkyCodec", endian=endian),
        named("imagecodecs_lzw"),
    ]

    def encode(chunk: np.ndarray) -> bytes:
        rows = chunk.transpose(1, 2, 0)
        differences = np.diff(rows, axis=1, prepend=rows[:, :1] * 0)
        return imagecodecs.lzw_encode(differences.astype(order + "u2").tobytes())

    write_v3(tmp_path / "a", elements, (3, 24, 40), codecs, encode)
    np.testing.assert_array_equal(read(tmp_path / "a"), elements)


def test_virtual_tiff_images_follow_the_bytes_codec(tmp_path):
    elements = sample("u1", (48, 80, 3)).transpose(2, 0, 1)
    codecs = [
        named("transpose", order=[0, 2, 1]), {"name": "ChunkyCodec"}, {"name": "imagecodecs_webp"},
    ]  # fmt: skip
    write_v3(
        tmp_path / "a", elements, (3, 24, 40), codecs,
        lambda chunk: imagecodecs.webp_encode(
            np.ascontiguousarray(chunk.transpose(1, 2, 0)), lossless=True
        ),
    )  # fmt: skip
    np.testing.assert_array_equal(read(tmp_path / "a"), elements)


def test_glencoes_jpeg2k_is_read(tmp_path):
    elements = sample("u2", (1, 48, 80))
    document = {
        "zarr_format": 2, "shape": [1, 48, 80], "chunks": [1, 24, 40], "dtype": "<u2",
        "fill_value": 0, "order": "C", "filters": None,
        "compressor": {"id": "jpeg2k", "level": 0},
    }  # fmt: skip
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / ".zarray").write_text(json.dumps(document))
    for y, x in np.ndindex(2, 2):
        chunk = elements[0, 24 * y : 24 * y + 24, 40 * x : 40 * x + 40]
        stream = imagecodecs.jpeg2k_encode(np.ascontiguousarray(chunk), level=0)
        (tmp_path / "a" / f"0.{y}.{x}").write_bytes(stream)
    np.testing.assert_array_equal(read(tmp_path / "a"), elements)


def test_a_damaged_chunk_is_named(tmp_path):
    write_v3(
        tmp_path / "a", sample("u1", (48, 80)), (24, 40), [named("png")],
        lambda chunk: imagecodecs.png_encode(chunk)[:-20],
    )  # fmt: skip
    with pytest.raises(ChunkDecodeError, match=r"c/0/0.*imagecodecs_png"):
        read(tmp_path / "a")


def test_an_image_of_complex_numbers_is_refused(tmp_path):
    document = {
        "zarr_format": 3, "node_type": "array", "shape": [4], "data_type": "complex64",
        "fill_value": [0, 0], "codecs": [named("png")],
        "chunk_grid": named("regular", chunk_shape=[4]), "chunk_key_encoding": {"name": "default"},
    }  # fmt: skip
    (tmp_path / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(MetadataError, match="real numbers"):
        zarrgpu.open(tmp_path)
