"""What the CUDA path is asked to read: arrays of every kind, drawn by hypothesis."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
from hypothesis import strategies as st

import zarrgpu as zg
from tests.zarr_cases import (
    BLOSC_INNER,
    DTYPES,
    Codec,
    MemoryStore,
    Recipe,
    all_coords,
    encode,
    expected,
    values,
)
from zarrgpu.model import ArraySpec, Sharded

_MAX_LENGTH = (1, 900, 40, 12, 7, 5)
"""Longest axis by number of axes: long enough for Blosc to split its blocks."""

blosc_codecs = st.builds(
    lambda cname, clevel, shuffle, blocksize: (
        "blosc",
        {"cname": cname, "clevel": clevel, "shuffle": shuffle, "blocksize": blocksize},
    ),
    st.sampled_from(BLOSC_INNER),
    st.integers(0, 9),
    st.sampled_from(["noshuffle", "shuffle", "bitshuffle"]),
    st.sampled_from([0, 0, 1, 100, 128, 256, 1000, 4096]),
)
zstd_codecs = st.builds(
    lambda level, checksum: ("zstd", {"level": level, "checksum": checksum}),
    st.sampled_from([-5, 1, 3, 19]),
    st.sampled_from([False, False, True]),
)
crc32c: Codec = ("crc32c", {})
lz4: Codec = ("numcodecs.lz4", {"acceleration": 1})
checksums: list[Codec] = [
    ("numcodecs.fletcher32", {}), ("numcodecs.crc32", {"location": "start"}),
    ("numcodecs.adler32", {"location": "end"}),
]  # fmt: skip
one_codec = st.one_of(
    blosc_codecs,
    zstd_codecs,
    st.sampled_from([lz4, crc32c, ("gzip", {"level": 1}), ("numcodecs.zlib", {"level": 1})]),
    st.sampled_from(checksums),
)
chains = st.one_of(
    st.just(()),
    st.tuples(one_codec),
    st.tuples(one_codec, st.just(crc32c)),
    st.tuples(one_codec, st.just(crc32c), st.just(crc32c)),
    st.tuples(one_codec, one_codec),
)


def lengths(ndim: int) -> st.SearchStrategy[int]:
    return st.integers(1, _MAX_LENGTH[ndim])


@st.composite
def recipes(draw: Any, shape: tuple[int, ...], dtype: Any) -> Recipe:
    """A way of storing an array of a shape and dtype (native)."""
    ndim = len(shape)
    chunks = tuple(draw(st.integers(max(1, n // 6), n + 2)) for n in shape)
    shards = tuple(c * draw(st.integers(1, 3)) for c in chunks) if draw(st.booleans()) else None
    coords = list(all_coords(shape, chunks))
    zarr_format = draw(st.sampled_from([2, 3, 3])) if shards is None else 3
    order: tuple[int, ...] | None = None
    if ndim and draw(st.booleans()):
        order = tuple(draw(st.permutations(range(ndim))))
        order = tuple(reversed(range(ndim))) if zarr_format == 2 else order
    missing = draw(st.sets(st.sampled_from(coords), max_size=3)) if coords else ()
    return Recipe(
        chunks=chunks, shards=shards, codecs=draw(chains), order=order,
        big_endian=draw(st.booleans()), fill_value=values((), dtype, 8)[()],
        index_location=draw(st.sampled_from(["start", "end"])), index_checksum=draw(st.booleans()),
        missing=frozenset(missing),
        zarr_format=zarr_format,
    )  # fmt: skip


@st.composite
def stored_arrays(
    draw: Any, *, ndim: int | None = None, dtypes: tuple[str, ...] = DTYPES
) -> tuple[np.ndarray, zg.Array]:
    """An array as a reader must give it, and opened from memory."""
    ndim = draw(st.integers(0, 5)) if ndim is None else ndim
    shape = tuple(draw(lengths(ndim)) for _ in range(ndim))
    if ndim and draw(st.integers(0, 30)) == 0:
        shape = (0, *shape[1:])
    dtype = np.dtype(draw(st.sampled_from(dtypes)))
    recipe = draw(recipes(shape, dtype))
    data = values(shape, dtype, draw(st.integers(0, 9)))
    return expected(data, recipe), zg.open(MemoryStore(encode(data, recipe)))


def ome_image(data: np.ndarray, recipe: Recipe) -> zg.Slide:
    """An OME-Zarr image of one level, axes (c, y, x)."""
    axes = [{"name": name, "type": "channel" if name == "c" else "space"} for name in "cyx"]
    scale = {"type": "scale", "scale": [1.0] * 3}
    datasets = [{"path": "0", "coordinateTransformations": [scale]}]
    ome = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
    group = {"zarr_format": 3, "node_type": "group", "attributes": {"ome": ome}}
    objects = {f"0/{key}": value for key, value in encode(data, recipe).items()}
    slide = zg.open(MemoryStore({"zarr.json": json.dumps(group).encode(), **objects}))
    assert isinstance(slide, zg.Slide)
    return slide


def slices(size: int) -> st.SearchStrategy[Any]:
    bound = st.none() | st.integers(-size - 2, size + 2)
    step = st.none() | st.integers(1, 4) | st.integers(1, size + 1) | st.just(2**62)
    part = st.builds(slice, bound, bound, step)
    return part | st.integers(-size, size - 1) if size else part


def boxes(shape: tuple[int, ...]) -> st.SearchStrategy[tuple[np.ndarray, tuple[int, ...]]]:
    """Starts and size of patches, inside and outside of an array."""

    @st.composite
    def draw_boxes(draw: Any) -> tuple[np.ndarray, tuple[int, ...]]:
        count = tuple(draw(st.integers(0, n + 1)) for n in shape)
        n_boxes = draw(st.integers(0, 5))
        starts = [[draw(st.integers(-n - 2, n + 2)) for n in shape] for _ in range(n_boxes)]
        return np.array(starts, np.int64).reshape(n_boxes, len(shape)), count

    return draw_boxes()


def read_options(*specs: ArraySpec) -> st.SearchStrategy[zg.ReadOptions]:
    """Options with a memory budget for a few chunks of these arrays, or for all."""
    chunk = max(spec.chunk_nbytes for spec in specs)
    least = 1500 + max(9 * chunk, *(_index_nbytes(spec) for spec in specs), 0)
    return st.builds(
        zg.ReadOptions,
        memory_budget_bytes=st.sampled_from([least, least + 13 * chunk, 1 << 30]),
        max_gap_bytes=st.sampled_from([0, 100, 10_000]),
        max_coalesced_bytes=st.sampled_from([1, 500, 1 << 20]),
        num_threads=st.sampled_from([1, 3]),
    )


def _index_nbytes(spec: ArraySpec) -> int:
    """Shard indexes of a whole array."""
    if not isinstance(spec.location, Sharded):
        return 0
    shards = [-(-n // s) for n, s in zip(spec.shape, spec.location.shard_shape, strict=True)]
    return math.prod(shards) * spec.location.index_nbytes
