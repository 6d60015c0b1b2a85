"""One chunk from encoded bytes to elements, on the host: the reference for every device."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zarrgpu.codecs.base import CodecChain, CodecError, PartialCodec, checked
from zarrgpu.codecs.run import decode_stored
from zarrgpu.errors import ChunkDecodeError
from zarrgpu.grids import AxisStarts, grid_count
from zarrgpu.model import ArraySpec, ByteArray, Manifest, ObjectPerChunk, Sharded
from zarrgpu.plan.locate import shard_of_chunks
from zarrgpu.plan.tables import ReadPlan


def chunk_name(spec: ArraySpec, chunk_id: int) -> str:
    """Name of a chunk as its store knows it: a key, an inner chunk of a shard, or a tile."""
    grid = spec.stored_grid_shape
    coords = tuple(int(c) for c in np.unravel_index(chunk_id, grid)) if spec.ndim else ()
    if isinstance(spec.location, Manifest):
        image = spec.attributes.get("image")
        tile = f"tile ({_tile_place(spec, coords)})" if image else f"tile {coords}"
        return f"{image} {tile}" if image else tile
    if isinstance(spec.location, Sharded):
        shard_id, _ = shard_of_chunks(spec, np.array([chunk_id], np.int64))
        return f"{object_key(spec, int(shard_id[0]))} inner chunk {coords}"
    return object_key(spec, chunk_id)


def _tile_place(spec: ArraySpec, coords: tuple[int, ...]) -> str:
    """Row and column of a tile, and its place along other axes that have several."""
    words = {"y": "row", "x": "column", "c": "plane"}
    axes = zip(spec.dimension_names, coords, spec.stored_grid_shape, strict=True)
    return ", ".join(
        f"{words.get(name or '', name)} {at}"
        for name, at, count in axes
        if name in ("y", "x") or count > 1
    )


def object_key(spec: ArraySpec, object_id: int) -> str:
    """Key of the stored object that a plan calls `object_id`."""
    location = spec.location
    if isinstance(location, Manifest):
        return location.key_of(object_id)
    return location.key_encoding.key(_object_coords(spec, object_id))


def read_keys(plan: ReadPlan) -> list[str]:
    """Key of the object of each row of the read table: many at once, which costs less."""
    reads, keys = plan.reads, []
    for index in np.unique(reads.array).tolist():
        spec, ids = plan.arrays[index], reads.object_id[reads.array == index]
        location = spec.location
        if isinstance(location, Manifest):
            keys += [location.key_of(each) for each in ids.tolist()]
            continue
        if not spec.ndim:
            keys += [object_key(spec, 0)] * len(ids)
            continue
        shape, starts = _object_grid(spec)
        counts = tuple(map(grid_count, shape, starts, spec.shape))
        keys += location.key_encoding.keys(np.unravel_index(ids, counts))
    return keys


def _object_grid(spec: ArraySpec) -> tuple[tuple[int, ...], AxisStarts]:
    """Shape and starts of what is an object of its own: chunks or shards."""
    location = spec.location
    shape, starts = spec.chunk_shape, spec.chunk_starts
    if isinstance(location, Sharded):
        shape, starts = location.shard_shape, location.shard_starts
    return shape, starts or (None,) * spec.ndim


def _object_coords(spec: ArraySpec, object_id: int) -> tuple[int, ...]:
    """Coordinates of a chunk or shard that is an object of its own."""
    coords = []
    for axis in reversed(list(zip(*_object_grid(spec), spec.shape, strict=True))):
        object_id, coord = divmod(object_id, grid_count(*axis))  # np.unravel_index is slow for one
        coords.append(coord)
    return tuple(reversed(coords))


def shard_entries(spec: ArraySpec, shard_id: int) -> int:
    """Inner chunks of one shard."""
    location = spec.location
    assert isinstance(location, Sharded)
    starts = location.shard_starts or (None,) * spec.ndim
    entries = 1
    for length, chunk, begins, coord in zip(
        location.shard_shape, spec.chunk_shape, starts, _object_coords(spec, shard_id), strict=True
    ):
        entries *= (length if begins is None else int(begins[coord + 1] - begins[coord])) // chunk
    return entries


def decode_row(
    plan: ReadPlan, chain: CodecChain, row: int, encoded: ByteArray, out: ByteArray | None
) -> ByteArray:
    """Decode one chunk of a plan.

    Parameters
    ----------
    plan : ReadPlan
    chain : CodecChain
        Of the chunk's array.
    row : int
        Row of the chunk table.
    encoded : uint8 array
        The chunk as stored (`encoded_bytes`).
    out : uint8 array or None
        See `codecs.run.decode_chunk`.

    Raises
    ------
    ChunkDecodeError
        Naming the chunk.
    """
    try:
        return decode_stored(chain, encoded, out)
    except CodecError as error:
        raise chunk_error(plan, row, chain.names, str(error)) from error


def encoded_bytes(plan: ReadPlan, row: int, data: ByteArray) -> ByteArray:
    """View of one chunk within the bytes of its read."""
    chunks = plan.chunks
    nbytes = int(chunks.nbytes[row])
    if nbytes < 0:
        return data
    at = int(chunks.offset[row]) - int(plan.reads.offset[chunks.read[row]])
    return data[at : at + nbytes]


def absent_error(plan: ReadPlan, row: int) -> ChunkDecodeError | None:
    """Error for a chunk whose object is not stored; None where that means the fill value."""
    if isinstance(plan.arrays[plan.chunks.array[row]].location, ObjectPerChunk):
        return None
    return chunk_error(plan, row, "store", "its object is gone from the store")


def chunk_error(plan: ReadPlan, row: int, codecs: str, reason: str) -> ChunkDecodeError:
    """Error for one chunk of a plan."""
    spec = plan.arrays[plan.chunks.array[row]]
    name = chunk_name(spec, int(plan.chunks.chunk_id[row]))
    return ChunkDecodeError(reason, source=spec.source, chunk=name, codec=codecs)


def decode_elements(
    plan: ReadPlan, chain: CodecChain, row: int, encoded: ByteArray, out: ByteArray | None
) -> NDArray[Any]:
    """Decode one chunk to its elements, axes in array order; otherwise as `decode_row`.

    Elements that are objects are always new memory, and `out` is not used.
    """
    spec, objects = plan.arrays[plan.chunks.array[row]], chain.object_codec
    windows = plan.chunks.windows
    if windows is not None and not windows.whole[row]:
        part = _decode_part(plan, chain, row, encoded)
        return as_elements(spec, part, tuple(windows.shape[:, row].tolist()))
    if objects is None:
        return as_elements(spec, decode_row(plan, chain, row, encoded, out))
    payload = decode_row(plan, chain, row, encoded, None)
    try:
        elements = objects.decode_objects(payload, math.prod(spec.chunk_shape), spec.dtype)
    except CodecError as error:
        raise chunk_error(plan, row, objects.name, str(error)) from error
    return as_elements(spec, elements)


def _decode_part(plan: ReadPlan, chain: CodecChain, row: int, encoded: ByteArray) -> ByteArray:
    """Bytes of a chunk's window; of an uncompressed chunk, `encoded` has no others."""
    windows = plan.chunks.windows
    assert windows is not None
    start, nbytes = int(windows.start[row]), int(windows.nbytes[row])
    try:
        if not chain.codecs:
            checked(encoded.size, nbytes, exact=True)
            return encoded
        (codec,) = chain.codecs
        assert isinstance(codec, PartialCodec)
        return codec.decode_part_host(encoded, start, nbytes, chain.decoded_nbytes)
    except CodecError as error:
        raise chunk_error(plan, row, chain.names, str(error)) from error


def as_elements(
    spec: ArraySpec, decoded: NDArray[Any], shape: tuple[int, ...] | None = None
) -> NDArray[Any]:
    """View decoded bytes, or objects, as elements of a chunk (or a part of `shape`), array axes."""
    elements = decoded if spec.dtype.hasobject else decoded.view(spec.dtype)
    shape = spec.chunk_shape if shape is None else shape
    if spec.axis_order == tuple(range(spec.ndim)):
        return elements.reshape(shape)
    stored_shape = tuple(shape[axis] for axis in spec.axis_order)
    return elements.reshape(stored_shape).transpose(np.argsort(spec.axis_order))
