"""Chunks, shards and codec of one level.

Why these defaults: nvCOMP's decoders want many independent chunks of about 64 KiB, and its LZ4 and
zstd both decode faster than disks and networks deliver, so the codec that makes files smaller is
the faster one end to end. Elements of several bytes are shuffled first; of the codecs that all Zarr
v3 readers have, only Blosc does that, and zarrgpu's gather undoes it on its way.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import Any, Final

import numpy as np

from zarrgpu.convert.settings import BLOSC, ZSTD_LEVEL, ConvertOptions
from zarrgpu.convert.source import Box, Source
from zarrgpu.errors import MissingDependencyError

_PLANE_CHUNK_PX: Final = 256
_PLANE_SHARD_PX: Final = 4096
_BRICK_CHUNK_PX: Final = 64
_BRICK_SHARD_PX: Final = 256
_VOLUME_PLANES: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layout:
    """Grid of one level.

    Attributes
    ----------
    shape, chunk, shard : tuple of int
        Axes of the output.
    """

    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    shard: tuple[int, ...]

    @property
    def grid(self) -> tuple[int, ...]:
        """Shards per axis."""
        return tuple(-(-n // s) for n, s in zip(self.shape, self.shard, strict=True))

    @property
    def count(self) -> int:
        """Number of shards."""
        return math.prod(self.grid)

    def coords(self, index: int) -> tuple[int, ...]:
        """Coordinates of a shard in C order."""
        return tuple(int(c) for c in np.unravel_index(index, self.grid))

    def box(self, coords: tuple[int, ...]) -> Box:
        """What a shard holds of the level."""
        axes = zip(coords, self.shard, self.shape, strict=True)
        return tuple((c * s, min((c + 1) * s, n)) for c, s, n in axes)

    def inner(self) -> list[tuple[int, ...]]:
        """Coordinates of the chunks within a shard, C order."""
        counts = [s // c for s, c in zip(self.shard, self.chunk, strict=True)]
        return list(product(*(range(n) for n in counts)))


def make_layout(source: Source, shape: tuple[int, ...], options: ConvertOptions) -> Layout:
    """Choose chunks and shards for a level of `shape`."""
    sizes = dict(zip(source.axes, shape, strict=True))
    level0 = dict(zip(source.axes, source.shape(0), strict=True))
    volume = level0.get("z", 1) >= _VOLUME_PLANES
    chunk_px = options.chunk_px or (_BRICK_CHUNK_PX if volume else _PLANE_CHUNK_PX)
    shard_px = options.shard_px or max(chunk_px, _BRICK_SHARD_PX if volume else _PLANE_SHARD_PX)
    bricked = "zyx" if volume else "yx"
    chunk, shard = [], []
    for axis in source.axes:
        if axis == "c" and source.interleaved:
            chunk.append(sizes[axis])
            shard.append(sizes[axis])
        elif axis in bricked:
            length = min(chunk_px, sizes[axis])
            chunk.append(length)
            shard.append(shard_length(length, shard_px, sizes[axis]))
        else:
            chunk.append(1)
            shard.append(1)
    return Layout(shape=shape, chunk=tuple(chunk), shard=tuple(shard))


def shard_length(chunk: int, wanted: int, size: int) -> int:
    """Multiple of a chunk nearest below `wanted`, no longer than needed for `size`."""
    return chunk * max(1, min(wanted // chunk, -(-size // chunk)))


def stored_order(source: Source) -> tuple[int, ...] | None:
    """Order of a transpose that puts the channels of a pixel side by side, None for none."""
    if not source.interleaved or source.axes[-1] == "c":
        return None
    at = source.axes.index("c")
    return (*(axis for axis in range(len(source.axes)) if axis != at), at)


def create_array(group: Any, path: str, layout: Layout, source: Source, codec: str) -> Any:
    """Create a level with zarr-python; gives its array."""
    codecs = require_zarr().codecs
    order = stored_order(source)
    return group.create_array(
        path,
        shape=layout.shape,
        dtype=source.dtype,
        chunks=layout.chunk,
        shards=layout.shard,
        filters=[] if order is None else [codecs.TransposeCodec(order=order)],
        compressors=_compressors(codecs, codec, source.dtype),
        fill_value=source.fill_value,
        dimension_names=list(source.axes),
    )


def codec_name(codec: str, dtype: np.dtype[Any]) -> str:
    """What "auto" means for a type."""
    if codec != "auto":
        return codec
    return "zstd" if dtype.itemsize == 1 else "blosc"


def _compressors(codecs: Any, codec: str, dtype: np.dtype[Any]) -> list[Any]:
    name = codec_name(codec, dtype)
    if name == "none":
        return []
    if name == "zstd":
        return [codecs.ZstdCodec(level=ZSTD_LEVEL)]
    if name == "gzip":
        return [codecs.GzipCodec(level=ZSTD_LEVEL)]
    shuffle = "shuffle" if dtype.itemsize > 1 else "noshuffle"
    cname = BLOSC[name]
    return [codecs.BloscCodec(cname=cname, clevel=5, shuffle=shuffle, typesize=dtype.itemsize)]


def require_zarr() -> Any:
    """zarr-python, with its codecs."""
    try:
        import zarr
        import zarr.codecs
    except ImportError as error:
        msg = f"writing takes zarr-python ({error}): pip install 'zarrgpu[zarr]'"
        raise MissingDependencyError(msg) from error
    return zarr
