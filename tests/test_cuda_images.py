"""Images decoded on a device are the host's, or the host decodes them; what is damaged is said.

The emulated device decodes JPEG with nvJPEG's C interface on the host (tests/emulator), whose
inverse DCT is libjpeg's: the pixels are the host's bit for bit. On a GPU they are within
`device_images.TOLERANCE`.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass

import imagecodecs
import numpy as np
import pytest
from PIL import Image

import zarrgpu as zg
from tests.emulator.images import HostJpeg2k, image_engine
from tests.gpu.devices import is_emulated, open_device, to_host
from tests.synthetic_slides import (
    SlideRecipe,
    encode_j2k,
    encode_jpeg,
    make_svs,
    rgb_to_ycbcr,
    tissue,
)
from tests.zarr_cases import MemoryStore
from zarrgpu import reader
from zarrgpu.array import Array
from zarrgpu.codecs.device_images import TOLERANCE
from zarrgpu.errors import ChunkDecodeError, UnsupportedCodecError
from zarrgpu.model import ArraySpec, CodecSpec, Manifest
from zarrgpu.opening import array_source
from zarrgpu.output import output_format
from zarrgpu.plan.request import ReadRequest

HEIGHT, WIDTH = 45, 70
"""No multiples of a block: the last ones of every row and column are cut."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Encoded images of one kind, one a chunk."""

    streams: list[bytes]
    codec: CodecSpec
    samples: int
    dtype: str = "u1"

    def array(self) -> Array:
        """Array of the images, one below the other."""
        offsets = np.cumsum([0] + [len(s) for s in self.streams])
        n = len(self.streams)
        height, width = self.codec.configuration["height"], self.codec.configuration["width"]
        spec = ArraySpec(
            source="images", shape=(n * height, width, self.samples), dtype=np.dtype(self.dtype),
            chunk_shape=(height, width, self.samples), fill_value=np.dtype(self.dtype).type(0),
            codecs=(self.codec,), axis_order=(0, 1, 2),
            location=Manifest("t", offsets[:-1], np.diff(offsets)),
            dimension_names=(None,) * 3,
        )  # fmt: skip
        return Array(array_source(MemoryStore({"t": b"".join(self.streams)}), spec))

    def changed(self, streams: list[bytes]) -> Case:
        return Case(streams=streams, codec=self.codec, samples=self.samples, dtype=self.dtype)


def jpeg_codec(colorspace: str, samples: int, tables: bytes = b"", **changes) -> CodecSpec:
    configuration = {
        "height": HEIGHT, "width": WIDTH, "samples": samples, "colorspace": colorspace,
        "tables": tables,
    }  # fmt: skip
    return CodecSpec("jpeg", configuration | changes)


def pictures(n: int = 5) -> list[np.ndarray]:
    return [tissue(HEIGHT, WIDTH, seed=i) for i in range(n)]


def ycbcr(subsampling: str) -> Case:
    options = {"level": 85, "colorspace": "rgb", "outcolorspace": "ycbcr"}
    encode = imagecodecs.jpeg8_encode
    streams = [encode(p, subsampling=subsampling, **options) for p in pictures()]
    return Case(streams=streams, codec=jpeg_codec("ycbcr", 3), samples=3)


def gray() -> Case:
    streams = [imagecodecs.jpeg8_encode(p[..., 0].copy(), level=85) for p in pictures()]
    return Case(streams=streams, codec=jpeg_codec("gray", 1), samples=1)


def cmyk() -> Case:
    images = [np.dstack([p, p[..., :1] // 2]) for p in pictures()]
    options = {"level": 85, "colorspace": "cmyk", "outcolorspace": "cmyk"}
    streams = [imagecodecs.jpeg8_encode(p, **options) for p in images]
    return Case(streams=streams, codec=jpeg_codec("unknown", 4), samples=4)


def abbreviated(kind: str) -> Case:
    """Tables apart, as TIFF has them; RGB looks like Aperio's (ids 0, 1, 2 and no marker)."""
    pairs = [encode_jpeg(p, kind) for p in pictures()]
    space = "rgb" if kind == "jpeg-rgb" else "ycbcr"
    codec = jpeg_codec(space, 3, pairs[0][0])
    return Case(streams=[stream for _, stream in pairs], codec=codec, samples=3)


def restarts() -> Case:
    streams = []
    for picture in pictures():
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "JPEG", quality=85, restart_marker_blocks=2)
        streams.append(file.getvalue())
    assert all(b"\xff\xdd" in s and b"\xff\xd3" in s for s in streams)
    return Case(streams=streams, codec=jpeg_codec("ycbcr", 3), samples=3)


JPEGS = {
    **{f"ycbcr-{s}": lambda s=s: ycbcr(s) for s in ("444", "422", "420", "440")},
    "gray": gray,
    "cmyk": cmyk,
    "restarts": restarts,
    **{kind: lambda kind=kind: abbreviated(kind) for kind in ("jpeg-rgb", "jpeg-444", "jpeg-420")},
}


def jpeg2k_codec(colorspace: str, samples: int, bits: int = 8, **changes) -> CodecSpec:
    configuration = {
        "height": HEIGHT, "width": WIDTH, "samples": samples, "bits": bits,
        "colorspace": colorspace,
    }  # fmt: skip
    return CodecSpec("jpeg2k", configuration | changes)


def j2k(kind: str, width: int = WIDTH) -> Case:
    images = [p[:, :width] for p in pictures()]
    streams = [encode_j2k(p, kind) for p in images]
    if kind == "j2k-ycbcr-422":  # reversible: what was encoded is what is decoded
        for stream, image in zip(streams, images, strict=True):
            full = rgb_to_ycbcr(image)
            HostJpeg2k.known[stream] = [full[..., 0], full[:, ::2, 1], full[:, ::2, 2]]
    space = "rgb" if kind == "j2k-rgb" else "ycbcr"
    return Case(streams=streams, codec=jpeg2k_codec(space, 3, width=width), samples=3)


def j2k_numbers(dtype: str, samples: int) -> Case:
    info = np.iinfo(dtype)
    rng = np.random.default_rng(6)
    shape = (HEIGHT, WIDTH, samples)[: 2 if samples == 1 else 3]
    images = [rng.integers(info.min, info.max, shape, dtype, endpoint=True) for _ in range(3)]
    options = {"codecformat": "j2k", "reversible": True, "level": 0, "mct": False}
    streams = [bytes(imagecodecs.jpeg2k_encode(i, **options)) for i in images]
    signed = {"signed": True} if dtype[0] == "i" else {}
    codec = jpeg2k_codec("gray" if samples == 1 else "unknown", samples, info.bits, **signed)
    return Case(streams=streams, codec=codec, samples=samples, dtype=dtype)


JPEG2KS = {
    **{kind: lambda kind=kind: j2k(kind) for kind in ("j2k-rgb", "j2k-ycbcr", "j2k-ycbcr-422")},
    "u2": lambda: j2k_numbers("u2", 1),
    "i2": lambda: j2k_numbers("i2", 1),
    "u1-4": lambda: j2k_numbers("u1", 4),
    "u2-2": lambda: j2k_numbers("u2", 2),
}


def agree(got, wanted: np.ndarray, device, what: str = "jpeg", *, lossless: bool = False) -> None:
    """The same pixels in the emulator and where nothing is lost, else within the tolerance."""
    got = to_host(got)
    assert got.shape == wanted.shape
    assert got.dtype == wanted.dtype
    if is_emulated(device) or lossless:
        np.testing.assert_array_equal(got, wanted)
    else:
        assert np.abs(got.astype(np.float64) - wanted).max(initial=0) <= TOLERANCE[what]


def launches(device) -> list[str]:
    return device.driver.launches if is_emulated(device) else []


@pytest.mark.parametrize("kind", JPEGS)
def test_jpeg_equals_the_host(cuda, kind):
    array = JPEGS[kind]().array()
    wanted = array.read(device="cpu")
    before = len(launches(cuda))
    agree(array.read(device=cuda, options=zg.ReadOptions(strict=True)), wanted, cuda)
    if is_emulated(cuda):
        used = launches(cuda)[before:]
        assert sorted(used) == ["gather", "jpeg", "jpeg_scan", "mark_planes", "ycbcr"]
    starts = np.array([(3, 5, 0), (HEIGHT - 4, 1, 0), (4 * HEIGHT + 30, 60, 0), (-5, -3, 0)])
    count = (20, 16, wanted.shape[2])
    agree(
        array.read_patches(starts, count, device=cuda, dtype="f4"),
        array.read_patches(starts, count, device="cpu", dtype="f4"),
        cuda,
    )


@pytest.mark.parametrize("kind", JPEG2KS)
def test_reversible_jpeg2k_is_the_host_s_bytes(cuda, kind):
    case = JPEG2KS[kind]()
    array = case.changed(case.streams * 3).array()
    wanted = array.read(device="cpu")
    before = len(launches(cuda))
    got = array.read(device=cuda, options=zg.ReadOptions(strict=True))
    agree(got, wanted, cuda, lossless=kind != "j2k-ycbcr-422")
    if is_emulated(cuda):
        used = launches(cuda)[before:]
        assert sorted(used) == ["gather", "jpeg2k", "mark_planes", "ycbcr"]


def test_jpeg2k_that_the_device_leaves_to_the_host(cuda):
    """JP2 boxes, no end marker, offsets; each is read all the same."""
    case = j2k("j2k-rgb")
    boxed = imagecodecs.jpeg2k_encode(pictures(1)[0], reversible=True, level=0, codecformat="jp2")
    boxed = boxed.replace(b"\0\0\0\x10", b"\0\0\0\x12", 1)  # another colour space: sYCC
    streams = [*case.streams[:2], bytes(boxed), case.streams[3][:-2], case.streams[4]]
    array = case.changed(streams).array()
    agree(array.read(device=cuda), array.read(device="cpu"), cuda, lossless=True)
    with pytest.raises(UnsupportedCodecError, match=r"tile \(2, 0, 0\).*strict"):
        array.read(device=cuda, options=zg.ReadOptions(strict=True))


# ---- Zarr and slides -----------------------------------------------------------------------------


def zarr_store(codec: dict, encode, shape: tuple[int, ...], dtype: str, zarr_format: int):
    """Array of two images, stored by an image codec as its only one."""
    chunk = (1, *shape[1:])
    keys = {f"c/{i}{'/0' * (len(shape) - 1)}": i for i in range(2)}
    if zarr_format == 3:
        document = {
            "zarr_format": 3, "node_type": "array", "shape": shape, "data_type": dtype,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk}},
            "chunk_key_encoding": {"name": "default"}, "fill_value": 0, "codecs": [codec],
        }  # fmt: skip
        objects = {"zarr.json": json.dumps(document).encode()}
    else:
        document = {
            "zarr_format": 2, "shape": shape, "chunks": chunk, "dtype": dtype, "fill_value": 0,
            "order": "C", "filters": None, "compressor": codec,
        }  # fmt: skip
        objects = {".zarray": json.dumps(document).encode()}
        keys = {key[2:].replace("/", "."): i for key, i in keys.items()}
    return MemoryStore(objects | {key: bytes(encode(i)) for key, i in keys.items()})


def encode_rgb(i: int, **options) -> bytes:
    picture = tissue(40, 56, seed=i)
    return imagecodecs.jpeg8_encode(picture, level=85, colorspace="rgb", **options)


def test_zarr_jpeg_with_colours_in_the_metadata(cuda):
    """v3 `jpeg`: what is stored is said, and a stream that says otherwise is not believed."""
    for space, subsampling in (("ycbcr", "420"), ("rgb", "444")):
        codec = {"name": "jpeg", "configuration": {"encoded_color_space": space}}

        def encode(i, space=space, subsampling=subsampling):
            return encode_rgb(i, outcolorspace=space, subsampling=subsampling)

        array = zg.open(zarr_store(codec, encode, (2, 40, 56, 3), "uint8", 3))
        strict = zg.ReadOptions(strict=True)
        agree(array.read(device=cuda, options=strict), array.read(device="cpu"), cuda)
    plain = {"name": "jpeg", "configuration": {}}
    array = zg.open(zarr_store(plain, encode, (2, 40, 56, 3), "uint8", 3))
    agree(array.read(device=cuda), array.read(device="cpu"), cuda, lossless=True)
    with pytest.raises(UnsupportedCodecError, match="no device decoder"):
        array.read(device=cuda, options=strict)


@pytest.mark.parametrize("dtype", ["|u1", "<u2", "<i2", ">u2"])
def test_zarr_jpeg2k(cuda, dtype):
    info = np.iinfo(dtype)
    rng = np.random.default_rng(3)
    native = np.dtype(dtype).newbyteorder("=")
    data = rng.integers(info.min, info.max, (2, 33, 41), native, endpoint=True)

    def encode(i):  # one bare, one in boxes as imagecodecs makes them
        codecformat = ("j2k", "jp2")[i]
        return imagecodecs.jpeg2k_encode(data[i], reversible=True, level=0, codecformat=codecformat)

    array = zg.open(zarr_store({"id": "imagecodecs_jpeg2k"}, encode, data.shape, dtype, 2))
    strict = zg.ReadOptions(strict=dtype != ">u2")  # no kernel swaps what an image library gives
    agree(array.read(device=cuda, options=strict), data, cuda, lossless=True)


@pytest.mark.parametrize("kind", ["jpeg-rgb", "jpeg-420", "j2k-rgb", "j2k-ycbcr"])
def test_regions_of_slides(cuda, kind, tmp_path):
    path = tmp_path / "slide.svs"
    path.write_bytes(make_svs(SlideRecipe(kind=kind)))
    slide = zg.open_slide(path)
    locations = np.array([(0, 0), (-5, 20), (100, 77), (31, 130)])
    for level in range(slide.level_count):
        wanted = slide.read_regions(locations, level, (50, 40), device="cpu")
        got = slide.read_regions(
            locations, level, (50, 40), device=cuda, options=zg.ReadOptions(strict=True)
        )
        agree(got, wanted, cuda, kind.split("-")[0].replace("j2k", "jpeg2k"))


def test_several_slides_with_tables_of_their_own_share_a_batch(cuda):
    cases = [abbreviated("jpeg-rgb"), abbreviated("jpeg-420"), ycbcr("422")]
    sources = tuple(case.array().source for case in cases)
    n = 15
    request = ReadRequest(
        arrays=tuple(s.spec for s in sources), array_index=np.arange(n, dtype=np.int32) % 3,
        start=np.stack([np.arange(n) // 3 * HEIGHT, np.zeros(n, int), np.zeros(n, int)], axis=1),
        count=(HEIGHT, WIDTH, 3), step=(1, 1, 1),
    )  # fmt: skip
    output = output_format(np.dtype("u1"))
    before = len(launches(cuda))
    wanted, _ = reader.read(sources, request, device="cpu", output=output)
    got, _ = reader.read(sources, request, device=cuda, output=output)
    agree(got, wanted, cuda)
    if is_emulated(cuda):  # one call of each for all three
        used = launches(cuda)[before:]
        assert [used.count(name) for name in ("jpeg", "ycbcr", "gather")] == [1, 1, 1]


# ---- where it runs -------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", [True, False])
def test_the_engine_of_the_card_is_used_where_there_is_one(engine):
    case = ycbcr("420")
    wanted = case.array().read(device="cpu")
    with image_engine(engine=engine) as batches:
        device = open_device("lazy")
        agree(case.array().read(device=device), wanted, device)
        assert batches() == [1 - engine, int(engine)]


def test_without_the_library_the_host_decodes_and_the_plan_says_so():
    device = open_device("emulated", image_formats=())
    assert not device.driver.image_formats
    array = ycbcr("420").array()
    agree(array.read(device=device), array.read(device="cpu"), device)
    assert device.driver.launches == ["gather"]
    text = array.plan(device=device).explain()
    assert "host (nvJPEG is not there, or not for this device: pip install" in text
    with pytest.raises(UnsupportedCodecError, match="strict"):
        array.read(device=device, options=zg.ReadOptions(strict=True))
    with_it = array.plan(device=open_device("emulated")).explain()
    assert "jpeg by nvJPEG" in with_it


def progressive() -> bytes:
    file = io.BytesIO()
    Image.fromarray(pictures(1)[0]).save(file, "JPEG", quality=85, progressive=True)
    return file.getvalue()


def odd_subsampling() -> bytes:
    options = {"level": 85, "colorspace": "rgb", "outcolorspace": "ycbcr"}
    return bytes(imagecodecs.jpeg8_encode(pictures(1)[0], subsampling="411", **options))


@pytest.mark.parametrize("stream", [progressive(), odd_subsampling()], ids=["progressive", "411"])
def test_streams_that_no_kernel_finishes_are_decoded_on_the_host(cuda, stream):
    case = ycbcr("420")
    array = case.changed([case.streams[0], stream, *case.streams[2:]]).array()
    agree(array.read(device=cuda), array.read(device="cpu"), cuda)
    with pytest.raises(UnsupportedCodecError, match=r"tile \(1, 0, 0\).*strict"):
        array.read(device=cuda, options=zg.ReadOptions(strict=True))


def test_an_image_that_the_engine_leaves_out_is_decoded_again():
    """As one was seen to do, with a status of success for the batch (LichtFeld-Studio #1924)."""
    array = gray().array()
    wanted = array.read(device="cpu")
    with image_engine(skips=True):
        device = open_device("lazy")
        agree(array.read(device=device), wanted, device)


def test_many_images_in_waves_of_a_small_budget(cuda):
    case = ycbcr("420")
    array = case.changed(case.streams * 8).array()
    options = zg.ReadOptions(memory_budget_bytes=300_000)
    agree(array.read(device=cuda, options=options), array.read(device="cpu"), cuda)


# ---- damage --------------------------------------------------------------------------------------


def both(case: Case, device) -> tuple[list[bool], np.ndarray, np.ndarray]:
    """Which images can be read, and those of both devices; which must be the same ones."""
    source = case.array().source
    n = len(case.streams)
    start = np.stack([np.arange(n) * HEIGHT, np.zeros(n, int), np.zeros(n, int)], axis=1)
    request = ReadRequest(
        arrays=(source.spec,), array_index=np.zeros(n, np.int32), start=start,
        count=(HEIGHT, WIDTH, case.samples), step=(1, 1, 1),
    )  # fmt: skip
    read = {"output": output_format(source.spec.dtype), "on_error": "mask"}
    python = zg.ReadOptions(native=False)  # what a device gives up on is decoded by Python
    wanted, fine = reader.read((source,), request, device="cpu", options=python, **read)
    got, ok = reader.read((source,), request, device=device, **read)
    np.testing.assert_array_equal(ok, fine)
    return ok.tolist(), to_host(got), wanted


def damage(stream: bytes, rng: np.random.Generator, header: int | None = None) -> bytes:
    """Change a header, or cut the stream off."""
    raw = bytearray(stream)
    scan = stream.index(b"\xff\xda") + 12 if header is None else header
    kind = rng.integers(0, 5)
    at = int(rng.integers(0, scan))
    if kind < 2:
        raw[at] ^= 1 << int(rng.integers(0, 8))
    elif kind == 2:
        raw[at] = int(rng.choice([0, 1, 0x7F, 0x80, 0xFF]))
    elif kind == 3:
        del raw[int(rng.integers(0, len(raw))) :]
    else:
        raw[at:at] = rng.bytes(int(rng.integers(1, 5)))
    return bytes(raw) or b"\0"


@pytest.mark.parametrize("kind", ["j2k-rgb", "u2"])
def test_damaged_codestreams_give_what_the_host_gives(cuda, kind):
    rng = np.random.default_rng(9)
    case = JPEG2KS[kind]()
    n = len(case.streams)
    streams = [damage(s, rng, 100) for _ in range(12) for s in case.streams]
    streams[:n] = case.streams
    ok, got, wanted = both(case.changed(streams), cuda)
    assert all(ok[:n])
    assert not all(ok)
    right = [i for i in range(len(ok)) if (wanted[i] == wanted[i % n]).all()]
    agree(got[right], wanted[right], cuda, lossless=True)


@pytest.mark.parametrize("kind", ["ycbcr-420", "jpeg-rgb", "gray"])
def test_damaged_headers_and_cuts_give_what_the_host_gives(cuda, kind):
    rng = np.random.default_rng(7)
    case = JPEGS[kind]()
    streams = [damage(s, rng) for _ in range(24) for s in case.streams]
    streams[:5] = case.streams
    streams[::5] = case.streams[:1] * len(streams[::5])
    ok, got, wanted = both(case.changed(streams), cuda)
    assert all(ok[::5])
    assert not all(ok)
    agree(got[::5], wanted[::5], cuda)
    # what the host takes for fine though it is not (tables are not checked) may be anything
    right = [i for i in range(len(ok)) if (wanted[i] == wanted[i % 5]).all()]
    assert len(right) > len(ok) // 4
    agree(got[right], wanted[right], cuda)


def test_damaged_data_harm_no_other_image(cuda):
    """Flipped bits of the data are not found by JPEG itself; a marker among them is."""
    rng = np.random.default_rng(8)
    case = ycbcr("420")
    streams = list(case.streams) * 8
    for i in range(1, len(streams), 2):
        raw = bytearray(streams[i])
        scan = streams[i].index(b"\xff\xda") + 14
        raw[int(rng.integers(scan, len(raw) - 2))] ^= 1 << int(rng.integers(0, 8))
        streams[i] = bytes(raw)
    ok, got, wanted = both(case.changed(streams), cuda)
    assert all(ok[::2])
    agree(got[::2], wanted[::2], cuda)


def test_a_damaged_image_is_named(cuda):
    case = abbreviated("jpeg-420")
    streams = [*case.streams[:2], case.streams[2][:-40], *case.streams[3:]]
    array = case.changed(streams).array()
    for device in ("cpu", cuda):
        with pytest.raises(ChunkDecodeError, match="no end-of-image marker") as caught:
            array.read(device=device)
        assert caught.value.chunk == "tile (2, 0, 0)"


@pytest.mark.slides
@pytest.mark.parametrize(
    "name", ["CMU-1-Small-Region.svs", "small.svs", "boxes_0.dcm", "tcga-jpeg2000.svs"]
)
def test_real_slides(cuda, shared_data, name):
    path = shared_data / "slides" / name
    if not path.is_file():
        pytest.skip(f"no {path}")
    slide = zg.open_slide(path)
    level = min(1, slide.level_count - 1)
    where = np.array([(0, 0), (300, 200)])
    wanted = slide.read_regions(where, level, (120, 90), device="cpu")
    options = zg.ReadOptions(strict=True)
    got = slide.read_regions(where, level, (120, 90), device=cuda, options=options)
    agree(got, wanted, cuda, "jpeg2k" if "2000" in name else "jpeg")
