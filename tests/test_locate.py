"""Law: a chunk of a sharded array is found in its shard, at its place in the index."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zarrgpu.decode import chunk_name, object_key
from zarrgpu.grids import KeyEncoding
from zarrgpu.model import MISSING_NBYTES, ArraySpec, CodecSpec, Sharded
from zarrgpu.plan.locate import ShardIndexes, is_missing, locate_chunks, shard_of_chunks


def sharded_spec(
    shape: tuple[int, ...], chunks: tuple[int, ...], per_shard: tuple[int, ...]
) -> ArraySpec:
    shard = tuple(c * n for c, n in zip(chunks, per_shard, strict=True))
    return ArraySpec(
        source="s", shape=shape, dtype=np.dtype("u1"), chunk_shape=chunks, fill_value=0, codecs=(),
        axis_order=tuple(range(len(shape))), dimension_names=(None,) * len(shape),
        location=Sharded(
            KeyEncoding("default", "/", "a"), shard, (CodecSpec("crc32c"),), "little",
            16 * int(np.prod(per_shard)) + 4, "end",
        ),
    )  # fmt: skip


@st.composite
def specs(draw):
    ndim = draw(st.integers(0, 4))
    lengths = [
        (draw(st.integers(0, 12)), draw(st.integers(1, 4)), draw(st.integers(1, 3)))
        for _ in range(ndim)
    ]
    return sharded_spec(*(tuple(axis[i] for axis in lengths) for i in range(3)))


@given(specs())
def test_shard_and_place_are_those_of_the_coordinates(spec):
    chunk_id = np.arange(int(np.prod(spec.grid_shape)))
    shard_id, inner = shard_of_chunks(spec, chunk_id)
    per_shard = tuple(s // c for s, c in zip(spec.shard_shape, spec.chunk_shape, strict=True))
    shard_grid = tuple(-(-n // s) for n, s in zip(spec.shape, spec.shard_shape, strict=True))
    for chunk, coords in enumerate(np.ndindex(*spec.grid_shape)):
        outer = tuple(c // n for c, n in zip(coords, per_shard, strict=True))
        place = tuple(c % n for c, n in zip(coords, per_shard, strict=True))
        assert shard_id[chunk] == (np.ravel_multi_index(outer, shard_grid) if outer else 0)
        assert inner[chunk] == (np.ravel_multi_index(place, per_shard) if place else 0)
        assert object_key(spec, int(shard_id[chunk])) == "/".join(["a", "c", *map(str, outer)])
        assert chunk_name(spec, chunk).endswith(f"inner chunk {coords}")


def test_locations_come_from_the_index():
    spec = sharded_spec((8, 8), (2, 2), (2, 2))
    shard_id = np.array([1, 3])
    offsets = np.arange(8).reshape(2, 4) * 10
    nbytes = offsets + 1
    nbytes[1, 2] = MISSING_NBYTES
    known = ShardIndexes(shard_id, offsets, nbytes)
    chunk_id = np.flatnonzero(np.isin(shard_of_chunks(spec, np.arange(16))[0], shard_id))
    located = locate_chunks(spec, chunk_id, known)
    _, inner = shard_of_chunks(spec, chunk_id)
    row = np.searchsorted(shard_id, located.object_id)
    np.testing.assert_array_equal(located.offset, offsets[row, inner])
    np.testing.assert_array_equal(located.nbytes, nbytes[row, inner])
    assert is_missing(located).sum() == 1
    with pytest.raises(ValueError, match="shard indexes are needed"):
        locate_chunks(spec, chunk_id, None)


@given(st.sets(st.integers(0, 30), max_size=12), st.sets(st.integers(0, 30), max_size=12))
def test_merged_indexes_hold_both_within_the_bound(first, second):
    def indexes(ids: set[int]) -> ShardIndexes:
        shard_id = np.array(sorted(ids), np.int64)
        table = np.repeat(shard_id[:, None], 3, axis=1)
        return ShardIndexes(shard_id, table, table + 1)

    merged = indexes(first).merge(indexes(second), max_nbytes=1 << 20)
    assert merged.shard_id.tolist() == sorted(first | second)
    np.testing.assert_array_equal(merged.offsets[:, 0], merged.shard_id)
    np.testing.assert_array_equal(merged.nbytes[:, 2], merged.shard_id + 1)
    assert merged.missing(np.array([5, 31])).tolist() == [*([] if 5 in first | second else [5]), 31]
    bounded = indexes(first).merge(indexes(second), max_nbytes=1)
    if first or second:
        assert bounded.shard_id.tolist() == sorted(second)
    assert ShardIndexes.empty(3).merge(
        indexes(first), max_nbytes=1 << 20
    ).shard_id.tolist() == sorted(first)
