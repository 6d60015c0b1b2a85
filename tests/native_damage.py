"""Program: read damaged arrays with a given build of the host executor, on many threads.

Run by test_native_sanitizers.py with a sanitizer's runtime loaded: ``python -m
tests.native_damage LIBRARY FOLDER``.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

import numpy as np

import zarrgpu as zg
from tests.zarr_cases import CHAINS, Recipe, encode
from zarrgpu.devices import native
from zarrgpu.errors import DataError
from zarrgpu.model import ReadOptions
from zarrgpu.output import output_format
from zarrgpu.reader import read

TURNS = 15


def read_halves(array: zg.Array, options: ReadOptions) -> None:
    """Normalise by column, as channels are."""
    columns = array.shape[1]
    output = output_format(
        array.dtype, dtype="f2", normalize=(np.ones(columns), np.arange(columns) + 1),
        channel_axis=1, channels=columns,
    )  # fmt: skip
    request = array.plan(..., device="cpu").plan.request
    read([array.source], request, output=output, device="cpu", options=options)


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
    sys.stdout.write("done")


if __name__ == "__main__":
    main()
