"""Image libraries keep the driver's contract: planes as stored, a status or an untouched plane.

On the emulated device the decoders are the host's; on a GPU nvJPEG and nvJPEG2000, whose planes are
within 2 of libjpeg's, and for reversible JPEG 2000 equal.
"""

from __future__ import annotations

import imagecodecs
import numpy as np
import pytest

from tests.gpu.devices import is_emulated, to_device, to_host
from tests.synthetic_slides import encode_j2k, encode_jpeg, tissue
from zarrgpu.devices.requests import ImageBatch
from zarrgpu.devices.tables import IMAGE_PLANES

HEIGHT, WIDTH, PITCH = 61, 83, 128
UNTOUCHED = 0x5A
PLANE_TOLERANCE = 2
"""Of a lossy plane: two accurate inverse transforms differ by 1, an engine may round once more."""


def require(cuda, image_format: str) -> None:
    if image_format not in cuda.driver.image_formats:
        pytest.skip(f"no library for {image_format} on {cuda.name}")


def decode(cuda, image_format: str, streams: list[bytes], samples: int, tables: bytes = b""):
    """Planes ``(n, samples, HEIGHT, WIDTH)`` and statuses."""
    driver, n = cuda.driver, len(streams)
    sizes = [len(s) for s in streams]
    starts = np.cumsum([0, *sizes[:-1]])
    pinned = driver.allocate_pinned(sum(sizes) + len(tables))
    pinned.array[: sum(sizes)] = np.frombuffer(b"".join(streams), np.uint8)
    pinned.array[sum(sizes) :] = np.frombuffer(tables, np.uint8)
    room = to_device(cuda, np.full((n, samples, HEIGHT, PITCH), UNTOUCHED, np.uint8))
    first = driver.view_array(room).ptr + np.arange(n)[:, None] * samples * HEIGHT * PITCH
    planes = np.zeros(n, IMAGE_PLANES)
    planes["channel"][:, :samples] = first + np.arange(samples) * HEIGHT * PITCH
    planes["pitch"][:, :samples] = PITCH
    batch = ImageBatch(
        sources=(pinned.ptr + starts).astype(np.uint64), source_nbytes=np.array(sizes, np.uint64),
        planes=planes, samples=np.full(n, samples), sample_nbytes=np.ones(n, np.int64),
        signed=np.zeros(n, np.bool_), statuses=np.full(n, -1, np.int32),
        tables=np.full(n, pinned.ptr + sum(sizes) if tables else 0),
        tables_nbytes=np.full(n, len(tables)),
    )  # fmt: skip
    stream = driver.create_stream()
    driver.decode_images(image_format, batch, stream)
    stream.synchronize()
    found = to_host(room)
    assert (found[..., WIDTH:] == UNTOUCHED).all(), "written outside of a row"
    return found[..., :WIDTH], batch.statuses.tolist()


def check(cuda, got: np.ndarray, pictures: list[np.ndarray], *, exact: bool) -> None:
    wanted = np.stack([np.moveaxis(p.reshape(HEIGHT, WIDTH, -1), -1, 0) for p in pictures])
    difference = np.abs(got.astype(int) - wanted).max()
    assert difference <= (0 if exact or is_emulated(cuda) else PLANE_TOLERANCE)


def stored_rgb(stream: bytes) -> np.ndarray:
    return imagecodecs.jpeg8_decode(stream, colorspace="rgb", outcolorspace="rgb")


@pytest.mark.parametrize("n", [1, 7, 80])
def test_jpeg_with_shared_tables(cuda, n):
    """Few and many: nvJPEG decodes Huffman codes on the GPU's cores in batches of more than 50."""
    require(cuda, "jpeg")
    pairs = [encode_jpeg(tissue(HEIGHT, WIDTH, seed=i), "jpeg-rgb") for i in range(n)]
    tables = pairs[0][0]
    got, statuses = decode(cuda, "jpeg", [s for _, s in pairs], 3, tables)
    assert statuses == [0] * n
    whole = [stored_rgb(tables[:-2] + stream[2:]) for _, stream in pairs]
    check(cuda, got, whole, exact=False)


@pytest.mark.parametrize("samples", [1, 3, 4])
def test_jpeg_of_any_number_of_samples_is_stored_as_it_is(cuda, samples):
    """A library may decline four: then each image has a status."""
    require(cuda, "jpeg")
    pictures = [np.dstack([tissue(HEIGHT, WIDTH, seed=i)] * 2)[..., :samples] for i in range(5)]
    space = {1: "gray", 3: "rgb", 4: "cmyk"}[samples]
    options = {"level": 90, "subsampling": "444", "colorspace": space, "outcolorspace": space}
    streams = [imagecodecs.jpeg8_encode(np.squeeze(p).copy(), **options) for p in pictures]
    got, statuses = decode(cuda, "jpeg", streams, samples)
    if samples == 4 and not is_emulated(cuda) and all(statuses):
        return
    assert statuses == [0] * 5
    spaces = {"colorspace": space, "outcolorspace": space}
    check(cuda, got, [imagecodecs.jpeg8_decode(s, **spaces) for s in streams], exact=False)


def test_a_bad_jpeg_harms_no_other(cuda):
    require(cuda, "jpeg")
    options = {"level": 90, "subsampling": "444", "colorspace": "rgb", "outcolorspace": "rgb"}
    streams = [imagecodecs.jpeg8_encode(tissue(HEIGHT, WIDTH, seed=i), **options) for i in range(9)]
    given = list(streams)
    given[4] = given[4].replace(b"\xff\xc4", b"\xff\xfe")  # Huffman tables become comments
    got, statuses = decode(cuda, "jpeg", given, 3)
    assert [i for i, status in enumerate(statuses) if status] == [4]
    others = [i for i in range(9) if i != 4]
    check(cuda, got[others], [stored_rgb(streams[i]) for i in others], exact=False)


def test_reversible_jpeg2k(cuda):
    require(cuda, "jpeg2k")
    pictures = [tissue(HEIGHT, WIDTH, seed=i) for i in range(20)]
    streams = [encode_j2k(p, "j2k-rgb") for p in pictures]
    given = list(streams)
    given[3] = given[3][:70]
    got, statuses = decode(cuda, "jpeg2k", given, 3)
    assert [i for i, status in enumerate(statuses) if status] == [3]
    assert (got[3] == UNTOUCHED).all()
    others = [i for i in range(20) if i != 3]
    check(cuda, got[others], [pictures[i] for i in others], exact=True)
