"""Patches of whole-slide files onto a device: JPEG and JPEG 2000 tiles, with caches and a loader.

"dense": as many patches as there are tiles, so that tiles are shared; "sparse": an eighth of them,
so that nearly every tile serves one patch. The slides are made here, of tissue texture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import zarrgpu
from tests.gpu import stored
from tests.gpu.bench_zarr import MEAN, STD
from tests.gpu.devices import empty, to_host
from tests.gpu.recording import COPY_IN, COPY_OUT, GATHER, Recorder, record, summed
from tests.gpu.timing import Clock, patch_rate
from zarrgpu.demo.svs import HEADER
from zarrgpu.devices.cuda import CudaDevice
from zarrgpu.devices.host import available_cores
from zarrgpu.loader import PatchLoader
from zarrgpu.model import ReadOptions

CACHE_NBYTES = 2 << 30
JPEG2000_RGB = 33005


def write_jpeg(path: Path, image: np.ndarray) -> None:
    """An Aperio slide of abbreviated JPEG tiles, quality 80."""
    from zarrgpu.demo.inputs import make_svs

    make_svs(path, image)


def write_jpeg2000(path: Path, image: np.ndarray, *, tile: int = 240) -> None:
    """One level of lossy JPEG 2000 tiles, RGB with the component transform, at 40 dB."""
    import imagecodecs
    import tifffile

    rows, columns = (range(0, n, tile) for n in image.shape[:2])

    def encode(corner: tuple[int, int]) -> bytes:
        y, x = corner
        part = image[y : y + tile, x : x + tile]
        rest = [(0, tile - part.shape[0]), (0, tile - part.shape[1]), (0, 0)]
        part = np.pad(part, rest, mode="edge")
        made = imagecodecs.jpeg2k_encode(
            part, level=40, codecformat="j2k", reversible=False, mct=True, resolutions=5
        )
        return bytes(made)

    with ThreadPoolExecutor(available_cores()) as pool:
        tiles = list(pool.map(encode, [(y, x) for y in rows for x in columns]))
    height, width = image.shape[:2]
    description = f"{HEADER}{width}x{height} ({tile}x{tile}) J2K/KDU Q=40|AppMag = 20|MPP = 0.5000"
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(
            iter(tiles), shape=image.shape, dtype=np.uint8, tile=(tile, tile),
            compression=JPEG2000_RGB, photometric="rgb", description=description, metadata=None,
            software=False,
        )  # fmt: skip


WRITERS = {"JPEG": write_jpeg, "JPEG 2000": write_jpeg2000}


def jobs(
    device: CudaDevice, clock: Clock, options: ReadOptions, folder: Path, *, rehearse: bool
) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Name and call for each kind of slide."""
    for kind, write in WRITERS.items():

        def run(kind: str = kind, write: Callable[[Path, np.ndarray], None] = write) -> Any:
            path = folder / f"{kind}.svs"
            image = _slide_image(rehearse=rehearse)
            write(path, image)
            return measure(path, device, clock, options, side=32 if rehearse else 256)

        yield f"SVS, {kind}", run


def _slide_image(*, rehearse: bool) -> np.ndarray:
    if rehearse:
        from zarrgpu.demo.texture import tissue_image

        return tissue_image(512, seed=7)
    return stored.tissue(rehearse=False)


def measure(
    path: Path, device: CudaDevice, clock: Clock, options: ReadOptions, *, side: int
) -> dict[str, Any]:
    """Time patches of one slide."""
    slide = zarrgpu.open_slide(path)
    width, height = slide.dimensions
    chunks = slide.levels[0].chunks
    n = min(1024, -(-height // chunks[0]) * -(-width // chunks[1]))
    random = np.random.default_rng(3)
    locations = np.stack([random.integers(0, s - side, n) for s in (width, height)], axis=1)
    found: dict[str, Any] = {
        "dimensions": slide.dimensions, "codecs": list(slide.levels[0].codecs), "chunks": chunks,
        "file_nbytes": path.stat().st_size, "patch": side,
    }  # fmt: skip
    for name, some in (("dense", locations), ("sparse", locations[: max(1, n // 8)])):
        found[name] = patches(path, some, side, device, clock, options)
    found["PatchLoader"] = loaded(slide, locations, side, device, clock, options)
    return found


def patches(
    path: Path,
    locations: np.ndarray,
    side: int,
    device: CudaDevice,
    clock: Clock,
    options: ReadOptions,
) -> dict[str, Any]:
    """One batch, by the page cache, with a cache of decoded chunks, and stage by stage."""
    n, nbytes = len(locations), len(locations) * side * side * 3
    out = empty(device, (n, side, side, 3), np.uint8)
    slide, cached = zarrgpu.open_slide(path), zarrgpu.open_slide(path, cache=CACHE_NBYTES)

    def read(slide: Any, device: Any = device) -> Any:
        return slide.read_regions(
            locations, 0, (side, side), device=device, out=out, options=options
        )

    recorder = Recorder(device.driver)
    replay = record(recorder, partial(read, slide, CudaDevice(recorder)))
    times = replay.time(clock.repeats)
    on_device = to_host(out)
    read(cached)
    np.testing.assert_array_equal(to_host(out), on_device)
    on_host = slide.read_regions(locations, 0, (side, side), device="cpu", options=options)
    decoding = [s for s in replay.stages if s not in (COPY_IN, COPY_OUT, GATHER)]
    return {
        "n_patches": n,
        "one batch": patch_rate(clock.on_wall(partial(read, slide)), nbytes, n),
        "one batch, chunk cache": patch_rate(clock.on_wall(partial(read, cached)), nbytes, n),
        "from pinned memory": patch_rate(times["all"], nbytes, n),
        "decode stage": patch_rate(summed(times, decoding), nbytes, n) if decoding else
        "on the host: the device decodes no chunk of this slide here",
        "stages_ms": {s: round(float(np.median(t)), 4) for s, t in times.items()},
        "largest_difference_to_the_host": int(
            np.abs(on_device.astype(np.int16) - on_host).max(initial=0)
        ),
    }  # fmt: skip


def loaded(
    slide: Any,
    locations: np.ndarray,
    side: int,
    device: CudaDevice,
    clock: Clock,
    options: ReadOptions,
) -> dict[str, Any]:
    """The same patches as normalised float16 batches of 32."""
    n = len(locations)
    sampler = stored.FixedPatches(slide, locations, (side, side, 3))
    loader = PatchLoader(
        sampler, batch_size=min(32, n), layout="NCHW", dtype="float16", normalize=(MEAN, STD),
        device=device, options=options,
    )  # fmt: skip

    def epoch() -> None:
        assert sum(len(batch.images) for batch in loader) == n
        device.driver.current_stream().synchronize()

    return {"n_patches": n, **patch_rate(clock.on_wall(epoch), n * side * side * 3, n)}
