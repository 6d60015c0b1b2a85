"""Open an OME-Zarr image at a URL and read a region of one channel, one z plane, two levels.

Any URL that fsspec knows works: s3://, gs://, https://, zip:: and, here, memory://. Only metadata
is read on opening; a region brings the byte ranges of the chunks that it touches.
"""

import sys

import numpy as np
import zarr

import zarrgpu as zg

URL = "memory://images/cells.ome.zarr"
UM_PER_PX = 0.25


def write_image(url: str) -> np.ndarray:
    """Write a (c, z, y, x) image of two levels as OME-Zarr 0.5, and give level 0."""
    rng = np.random.default_rng(0)
    fine = rng.integers(0, 4096, (2, 3, 256, 384), dtype=np.uint16)
    kinds = {"c": "channel", "z": "space", "y": "space", "x": "space"}
    axes = [{"name": n, "type": t} | ({"unit": "micrometer"} if t == "space" else {})
            for n, t in kinds.items()]  # fmt: skip
    datasets = [
        {
            "path": str(level),
            "coordinateTransformations": [
                {"type": "scale", "scale": [1.0, 1.0, UM_PER_PX * 2**level, UM_PER_PX * 2**level]}
            ],
        }
        for level in range(2)
    ]
    ome = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
    group = zarr.create_group(url, attributes={"ome": ome})
    for level, pixels in enumerate((fine, fine[:, :, ::2, ::2])):
        array = group.create_array(
            str(level), shape=pixels.shape, dtype="uint16", chunks=(1, 1, 64, 64)
        )
        array[:] = pixels
    return fine


def main(url: str) -> None:
    fine = write_image(url) if url == URL else None

    image = zg.open(url)  # storage_options={"anon": True} for a public bucket
    print(image)
    print("axes", image.axes, "levels", image.level_dimensions, "mpp", image.mpp)

    # locations are (x, y) in the level-0 frame at every level, results (height, width, channels)
    region = image.read_region((96, 32), 0, (128, 64), position={"z": 1}, device="cpu")
    coarse = image.read_region((96, 32), 1, (64, 32), position={"z": 1}, device="cpu")
    print("level 0", region.shape, "level 1", coarse.shape, region.dtype)
    if fine is not None:
        assert (region == np.moveaxis(fine[:, 1, 32:96, 96:224], 0, -1)).all()
        assert (coarse == region[::2, ::2]).all()
        print("every pixel right")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else URL)
