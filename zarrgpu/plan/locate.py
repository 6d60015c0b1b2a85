"""Where the encoded bytes of chunks lie: pure look-ups in what is already known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zarrgpu.grids import grid_coord, grid_count
from zarrgpu.model import MISSING_NBYTES, UNKNOWN_NBYTES, ArraySpec, Manifest, Sharded
from zarrgpu.plan.tables import Int64s


@dataclass(frozen=True, slots=True, eq=False)
class ShardIndexes:
    """Decoded indexes of some shards of one array.

    Attributes
    ----------
    shard_id : int64 (S,)
        Sorted positions in the shard grid.
    offsets, nbytes : int64 (S, chunks per shard)
        nbytes is MISSING_NBYTES for inner chunks, or whole shards, that are not stored.
    """

    shard_id: Int64s
    offsets: Int64s
    nbytes: Int64s

    @classmethod
    def empty(cls, chunks_per_shard: int) -> ShardIndexes:
        """No shard known yet."""
        none = np.empty((0, chunks_per_shard), np.int64)
        return cls(np.empty(0, np.int64), none, none)

    def missing(self, shard_id: Int64s) -> Int64s:
        """Those of the given shards that are not known, sorted and distinct."""
        wanted: Int64s = np.unique(shard_id)
        if not len(self.shard_id):
            return wanted
        place = np.minimum(np.searchsorted(self.shard_id, wanted), len(self.shard_id) - 1)
        unknown: Int64s = wanted[self.shard_id[place] != wanted]
        return unknown

    def merge(self, other: ShardIndexes, *, max_nbytes: int) -> ShardIndexes:
        """Union; what was known before is dropped where both together exceed `max_nbytes`."""
        if self.offsets.nbytes + self.nbytes.nbytes + other.offsets.nbytes * 2 > max_nbytes:
            return other
        shard_id = np.concatenate([self.shard_id, other.shard_id])
        _, keep = np.unique(shard_id, return_index=True)
        return ShardIndexes(
            shard_id[keep],
            np.concatenate([self.offsets, other.offsets])[keep],
            np.concatenate([self.nbytes, other.nbytes])[keep],
        )


@dataclass(frozen=True, slots=True, eq=False)
class ChunkLocations:
    """Object and byte range of each of C chunks; columns as in `ChunkTable`."""

    object_id: Int64s
    offset: Int64s
    nbytes: Int64s


def shard_of_chunks(spec: ArraySpec, chunk_id: Int64s) -> tuple[Int64s, Int64s]:
    """Shard id of each chunk, and the chunk's place in that shard's index."""
    assert isinstance(spec.location, Sharded)
    coords = np.unravel_index(chunk_id, spec.grid_shape) if spec.ndim else ()
    shard_id = np.zeros(len(chunk_id), np.int64)
    inner = np.zeros(len(chunk_id), np.int64)
    shards = spec.location.shard_starts or (None,) * spec.ndim
    axes = zip(coords, spec.shape, spec.chunk_shape, spec.location.shard_shape, shards, strict=True)
    for coord, size, chunk, shard, starts in axes:
        per_shard: Any = shard // chunk
        if starts is None:
            outer = coord // per_shard
            first = outer * per_shard
        else:  # shards of different lengths, each of whole chunks
            outer = grid_coord(shard, starts, coord * chunk)
            first = starts[outer] // chunk
            per_shard = starts[outer + 1] // chunk - first
        shard_id = shard_id * grid_count(shard, starts, size) + outer
        inner = inner * per_shard + (coord - first)
    return shard_id, inner


def locate_chunks(
    spec: ArraySpec, chunk_id: Int64s, shard_indexes: ShardIndexes | None
) -> ChunkLocations:
    """Find the encoded bytes of chunks.

    For a sharded array `shard_indexes` must hold every shard concerned (`shard_of_chunks`).
    """
    if isinstance(spec.location, Manifest):
        objects = spec.location.object_id
        return ChunkLocations(
            np.zeros(len(chunk_id), np.int64) if objects is None else objects[chunk_id],
            spec.location.offsets[chunk_id],
            spec.location.nbytes[chunk_id],
        )
    if isinstance(spec.location, Sharded):
        if shard_indexes is None:
            msg = f"{spec.source!r} is sharded: its shard indexes are needed to plan"
            raise ValueError(msg)
        shard_id, inner = shard_of_chunks(spec, chunk_id)
        row = np.searchsorted(shard_indexes.shard_id, shard_id)
        entry = row * shard_indexes.offsets.shape[1] + inner
        return ChunkLocations(
            shard_id, shard_indexes.offsets.take(entry), shard_indexes.nbytes.take(entry)
        )
    return ChunkLocations(
        chunk_id,
        np.zeros(len(chunk_id), np.int64),
        np.full(len(chunk_id), UNKNOWN_NBYTES, np.int64),
    )


def is_missing(locations: ChunkLocations) -> NDArray[np.bool_]:
    """Which chunks are known not to be stored."""
    return np.asarray(locations.nbytes == MISSING_NBYTES)
