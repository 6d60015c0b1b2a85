"""Program: read damaged arrays with a given build of the host executor, on many threads.

Run by test_native_sanitizers.py with a sanitizer's runtime loaded: ``python -m
tests.native_damage LIBRARY FOLDER``.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

import zarrgpu as zg
from tests.synthetic_slides import encode_subsampled_j2k
from tests.zarr_cases import CHAINS, Recipe, encode
from zarrgpu.demo.inputs import make_svs
from zarrgpu.demo.texture import tissue_image
from zarrgpu.devices import native
from zarrgpu.errors import DataError
from zarrgpu.model import ReadOptions
from zarrgpu.output import output_format
from zarrgpu.reader import read

TURNS = 15
IMAGE_TURNS = 150


def read_halves(array: zg.Array, options: ReadOptions) -> None:
    """Normalise by column, as channels are."""
    columns = array.shape[1]
    output = output_format(
        array.dtype, dtype="f2", normalize=(np.ones(columns), np.arange(columns) + 1),
        channel_axis=1, channels=columns,
    )  # fmt: skip
    request = array.plan(..., device="cpu").plan.request
    read([array.source], request, output=output, device="cpu", options=options)


def read_images(random: np.random.Generator) -> None:
    """Flipped and cut off images, whole and in part, each in memory of its own size."""
    imagecodecs = pytest.importorskip("imagecodecs")
    library = native.native_library()
    assert library is not None
    pixels = (np.indices((70, 90, 3)).sum(0) * 7 % 251).astype(np.uint8)
    pixels ^= random.integers(0, 32, pixels.shape, np.uint8)
    streams = [
        ("jpeg", imagecodecs.jpeg8_encode(pixels, level=90, subsampling=s)) for s in ("444", "420")
    ]
    streams += [
        (
            "jpeg2k",
            imagecodecs.jpeg2k_encode(
                pixels, level=level, codecformat="j2k", reversible=reversible, mct=True
            ),
        )
        for level, reversible in ((0, True), (45, True), (45, False))
    ]
    options = {"level": 45, "codecformat": "j2k", "resolutions": 2}
    streams += [("jpeg2k", encode_subsampled_j2k(pixels, rows, **options)) for rows in (1, 2)]
    for name, good in streams:
        stored = (3, 2) if name == "jpeg" else (1, 0)
        image = np.array([70, 90, 3, *stored, 0, 0], np.int64)
        done = 0
        for turn in range(IMAGE_TURNS):
            bad = np.frombuffer(good, np.uint8).copy()
            if turn:
                near = bad.size if turn % 2 else 300
                bad[random.integers(0, near, 3)] ^= random.integers(1, 255, 3, np.uint8)
            if turn % 4 == 3:
                bad = bad[: random.integers(1, bad.size)].copy()
            first = int(random.integers(0, 70)) if turn else 0
            count = int(random.integers(1, 71 - first)) if turn else 70
            left = int(random.integers(0, 90)) if turn else 0
            right = int(random.integers(left + 1, 91)) if turn else 90
            out = np.empty((count, 90, 3), np.uint8)
            done += library.decode_image(
                native.address(image), native.CODEC_NUMBERS[name], native.address(bad), bad.size,
                first, count, left, right, native.address(out),
            )  # fmt: skip
        assert done, f"no image of {name} was decoded"


def read_slides(folder: Path, options: ReadOptions) -> None:
    """Patches of slides of both formats, on several threads at once."""
    imagecodecs, tifffile = pytest.importorskip("imagecodecs"), pytest.importorskip("tifffile")
    image = tissue_image(1024, seed=5)
    make_svs(folder / "jpeg.svs", image)
    tiles = [
        imagecodecs.jpeg2k_encode(
            np.ascontiguousarray(image[y : y + 256, x : x + 256]), level=40, codecformat="j2k"
        )
        for y in range(0, 1024, 256)
        for x in range(0, 1024, 256)
    ]
    with tifffile.TiffWriter(folder / "jpeg2k.svs") as writer:
        writer.write(
            iter(tiles), shape=image.shape, dtype=np.uint8, tile=(256, 256), compression=33005,
            photometric="rgb", description="Aperio Image Library v1", metadata=None,
        )  # fmt: skip
    for name in ("jpeg.svs", "jpeg2k.svs"):
        array = zg.open_slide(folder / name).levels[0]
        for turn in range(4):
            starts = [[64 * turn + 100 * i, 90 * i, 0] for i in range(9)]
            got = array.read_patches(starts, (100, 90, 3), device="cpu", options=options)
            general = ReadOptions(native=False, num_threads=1)
            wanted = array.read_patches(starts, (100, 90, 3), device="cpu", options=general)
            assert np.array_equal(got, wanted)


def main() -> None:
    """Every chain, sharded or not: good bytes first, then flipped and cut off ones."""
    library, folder = Path(sys.argv[1]), Path(sys.argv[2])
    native.LIBRARY = library
    assert native.native_library() is not None, "the library was not loaded"
    random = np.random.default_rng(0)
    data = np.arange(96 * 96, dtype=np.uint16).reshape(96, 96)
    options = ReadOptions(num_threads=4)
    for i, chain in enumerate(CHAINS.values()):
        shards = (96, 96) if i % 2 else None
        recipe = Recipe(chunks=(32, 32), shards=shards, codecs=chain, big_endian=True)
        root = folder / str(i)
        for key, value in encode(data, recipe).items():
            path = root / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(value)
        array = zg.open(root)
        assert np.array_equal(array.read(device="cpu", options=options), data)
        path = root / "c/0/0"
        good = path.read_bytes()
        for turn in range(TURNS):
            bad = bytearray(good)
            for at in random.integers(0, min(len(bad), 60), 3):
                bad[at] ^= int(random.integers(1, 255))
            path.write_bytes(bytes(bad[: random.integers(1, len(bad) + 1)] if turn % 2 else bad))
            with suppress(DataError):
                array.read(device="cpu", options=options)
            with suppress(DataError):
                array.read((slice(0, 5), slice(3, 9)), device="cpu", options=options)
            with suppress(DataError):
                read_halves(array, options)
    read_images(random)
    read_slides(folder, options)
    sys.stdout.write("done")


if __name__ == "__main__":
    main()
