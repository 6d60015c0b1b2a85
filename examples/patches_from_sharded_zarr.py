"""Read many patches of a sharded Zarr array in one plan, and see what the plan says it costs.

A shard is one object that holds many chunks; only the chunks that are touched are read, each once,
however many patches need it.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import zarr

import zarrgpu as zg

SIDE, PATCH, COUNT = 1024, 128, 200


def write_image(path: Path) -> np.ndarray:
    """Write an RGB image as 2 x 2 shards of 8 x 8 zstd chunks, and give its pixels."""
    y, x = np.mgrid[:SIDE, :SIDE]
    image = np.stack([y // 4, x // 4, (x ^ y) // 4], axis=-1).astype(np.uint8)
    array = zarr.create_array(
        path, shape=image.shape, dtype="uint8", chunks=(64, 64, 3), shards=(512, 512, 3)
    )
    array[:] = image
    return image


def main(folder: Path) -> None:
    path = folder / "image.zarr"
    image = write_image(path)

    array = zg.open(path)
    print(array, "chunks", array.chunks, "shards", array.shards, "codecs", array.codecs)

    # first element of each patch, in array axes (y, x, c)
    starts = np.zeros((COUNT, 3), np.int64)
    starts[:, :2] = np.random.default_rng(1).integers(0, SIDE - PATCH, (COUNT, 2))
    print(array.plan_patches(starts, (PATCH, PATCH, 3)).explain())

    # CuPy on a machine with a GPU, NumPy elsewhere; device="cpu" is NumPy everywhere
    patches = array.read_patches(starts, (PATCH, PATCH, 3), device="cpu")

    for (y, x, _), patch in zip(starts, patches, strict=True):
        assert (patch == image[y : y + PATCH, x : x + PATCH]).all()
    print(f"{COUNT} patches {patches.shape[1:]}, every pixel right")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
