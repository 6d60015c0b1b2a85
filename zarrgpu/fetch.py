"""Bringing encoded bytes: shard indexes first, then the ranges of a plan."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from zarrgpu.chunk_cache import ChunkCache
from zarrgpu.codecs.base import CodecChain, CodecError
from zarrgpu.codecs.run import encoded_limit_nbytes
from zarrgpu.codecs.shard_index import ENTRY_NBYTES, decode_shard_index
from zarrgpu.decode import chunk_error, chunk_name, object_key, shard_entries
from zarrgpu.devices.host import available_cores, run_threads
from zarrgpu.errors import (
    ChunkDecodeError,
    DataError,
    MemoryBudgetError,
    ObjectTooLargeError,
    StoreError,
)
from zarrgpu.model import (
    MISSING_NBYTES,
    ArraySpec,
    ByteArray,
    ByteRange,
    ObjectPerChunk,
    ReadOptions,
    Sharded,
)
from zarrgpu.plan.locate import ShardIndexes
from zarrgpu.plan.tables import Int64s, ReadPlan
from zarrgpu.stores.base import Allocate, Store

MAX_INDEX_CACHE_NBYTES = 256 << 20


@dataclass(slots=True, eq=False)
class ArraySource:
    """An opened array: what it is, where its bytes are, how they decode.

    Attributes
    ----------
    spec : ArraySpec
    store : Store
    chain : CodecChain
    index_chain : CodecChain or None
        Of the shard indexes.
    shard_indexes : ShardIndexes or None
        Those known so far; replaced as a whole, so that threads see one state or the other.
    cache : ChunkCache or None
        Decoded chunks of earlier reads, shared by what was opened together.
    cache_key : int
        Of this array in the cache.
    substitute : ArraySource or None
        Of the spec's substitute.
    """

    spec: ArraySpec
    store: Store
    chain: CodecChain
    index_chain: CodecChain | None = None
    shard_indexes: ShardIndexes | None = field(default=None, repr=False)
    cache: ChunkCache | None = field(default=None, repr=False)
    cache_key: int = field(default_factory=partial(secrets.randbits, 62), repr=False)
    substitute: ArraySource | None = field(default=None, repr=False)


def sources_of(plan: ReadPlan, sources: Sequence[ArraySource]) -> tuple[ArraySource, ...]:
    """Sources of a plan's arrays: those asked for, then what planning made of them (`ReadPlan`)."""
    found = list(sources)
    for spec, base in zip(plan.arrays[len(found) :], plan.base[len(found) :], strict=True):
        source = sources[base]
        if source.substitute is not None and spec is source.substitute.spec:
            found.append(source.substitute)
            continue
        chain = replace(source.chain, decoded_nbytes=spec.chunk_nbytes)
        found.append(replace(source, spec=spec, chain=chain))
    return tuple(found)


def num_io_threads(store: Store, options: ReadOptions) -> int:
    """Threads that fetch, and decode what they fetched."""
    decoding = options.num_threads or available_cores()
    return max(decoding, options.io_concurrency or store.io_concurrency)


def fetch_shard_indexes(
    source: ArraySource, shard_id: Int64s, options: ReadOptions
) -> ShardIndexes:
    """Make sure that the indexes of the given shards are known; return all that are."""
    location = source.spec.location
    assert isinstance(location, Sharded)
    known = _known_indexes(source)
    wanted = known.missing(shard_id)
    if len(wanted):
        _check_index_memory(source, location, len(wanted), options)
        rows = run_threads(
            lambda shard: (shard, *_fetch_index(source, location, shard)),
            wanted.tolist(),
            num_io_threads(source.store, options),
        )
        rows.sort(key=lambda row: row[0])
        fetched = ShardIndexes(
            wanted, np.stack([row[1] for row in rows]), np.stack([row[2] for row in rows])
        )
        merged = known.merge(fetched, max_nbytes=MAX_INDEX_CACHE_NBYTES)
        source.shard_indexes = merged
        if len(merged.missing(shard_id)):  # the bound dropped some that this read needs
            needed = np.isin(known.shard_id, shard_id)
            kept = ShardIndexes(known.shard_id[needed], known.offsets[needed], known.nbytes[needed])
            return kept.merge(fetched, max_nbytes=1 << 62)
        return merged
    return known


def _known_indexes(source: ArraySource) -> ShardIndexes:
    if source.shard_indexes is not None:
        return source.shard_indexes
    assert source.index_chain is not None
    return ShardIndexes.empty(source.index_chain.decoded_nbytes // ENTRY_NBYTES)


def unreadable_shards(source: ArraySource, shard_id: Int64s, options: ReadOptions) -> list[int]:
    """Those of the given shards whose index cannot be had; each is asked for once."""
    location = source.spec.location
    assert isinstance(location, Sharded)

    def is_bad(shard: int) -> bool:
        try:
            _fetch_index(source, location, shard)
        except DataError:
            return True
        return False

    unknown = _known_indexes(source).missing(shard_id).tolist()
    threads = num_io_threads(source.store, options)
    found = run_threads(lambda shard: (shard, is_bad(shard)), unknown, threads)
    return [shard for shard, bad in found if bad]


def _check_index_memory(
    source: ArraySource, location: Sharded, num_shards: int, options: ReadOptions
) -> None:
    nbytes = num_shards * location.index_nbytes
    if nbytes > options.memory_budget_bytes:
        msg = (
            f"{source.spec.source!r}: the indexes of {num_shards} shards take {nbytes} bytes, "
            f"memory_budget_bytes is {options.memory_budget_bytes}; read less at once or raise it"
        )
        raise MemoryBudgetError(msg)


def _fetch_index(source: ArraySource, location: Sharded, shard_id: int) -> tuple[Int64s, Int64s]:
    """Offsets and sizes of one shard's inner chunks, in index order.

    Shards of a rectilinear grid may have fewer chunks than the largest; the rest is missing.
    """
    spec, store, key = source.spec, source.store, object_key(source.spec, shard_id)
    assert source.index_chain is not None
    chain, n = source.index_chain, location.index_nbytes
    entries = most = chain.decoded_nbytes // ENTRY_NBYTES
    if location.shard_starts is not None:
        entries = shard_entries(spec, shard_id)
        chain = replace(chain, decoded_nbytes=entries * ENTRY_NBYTES)
        n -= (most - entries) * ENTRY_NBYTES
    if location.index_location == "end":
        encoded = store.get_suffix(key, n)
    else:
        encoded = store.get_range(key, ByteRange(0, n))
    offsets, nbytes = np.zeros(most, np.int64), np.full(most, MISSING_NBYTES, np.int64)
    if encoded is None:
        return offsets, nbytes
    if encoded.size != n:
        raise _index_error(spec, key, f"object has {encoded.size} bytes, its index alone takes {n}")
    try:
        offsets[:entries], nbytes[:entries] = decode_shard_index(
            chain,
            encoded,
            endian=location.index_endian,
            chunk_nbytes=source.chain.widest_nbytes,
        )
    except CodecError as error:
        raise _index_error(spec, key, f"shard index: {error}") from error
    return offsets, nbytes


def _index_error(spec: ArraySpec, key: str, reason: str) -> ChunkDecodeError:
    return ChunkDecodeError(reason, source=spec.source, chunk=key, codec="sharding_indexed")


def encoded_limit(source: ArraySource) -> int:
    """Size above which a stored chunk cannot be one."""
    return encoded_limit_nbytes(source.chain.widest_nbytes)


def check_encoded_sizes(plan: ReadPlan, sources: Sequence[ArraySource]) -> None:
    """Refuse sizes that no encoder writes, before memory is taken for them."""
    limits = np.array([encoded_limit(source) for source in sources_of(plan, sources)], np.int64)
    chunks = plan.chunks
    bad = (chunks.nbytes > limits[chunks.array]) | (chunks.nbytes == 0) | (chunks.offset < 0)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        decoded = plan.arrays[chunks.array[row]].decoded_limit_nbytes
        reason = (
            f"is said to take {chunks.nbytes[row]} bytes at offset {chunks.offset[row]}; its "
            f"decoded size is {decoded} bytes, so the size in the metadata is corrupt"
        )
        raise chunk_error(plan, row, "metadata", reason)


def fetch_read(
    plan: ReadPlan,
    sources: tuple[ArraySource, ...],
    read: int,
    allocate: Allocate,
    key: str | None = None,
) -> ByteArray | None:
    """Bytes of one row of the read table, or None if the object is not stored.

    They lie in memory from `allocate` if the store can read into it. `key` is the object's, where
    the caller knows it.

    Raises
    ------
    StoreError
        Naming the chunk if it is the only one (`brings_one_chunk`).
    """
    reads = plan.reads
    source = sources[reads.array[read]]
    if key is None:
        key = object_key(source.spec, int(reads.object_id[read]))
    nbytes = int(reads.nbytes[read])
    store: Store = source.store
    try:
        if nbytes < 0:
            return _fetch_whole(plan, source, key, read, allocate)
        where = ByteRange(int(reads.offset[read]), nbytes)
        if isinstance(source.spec.location, ObjectPerChunk):
            return _fetch_part(plan, source, key, read, where, allocate)
        return store.get_range(key, where, allocate)
    except StoreError as error:
        if brings_one_chunk(plan, read):
            raise _of_chunk(plan, int(reads.chunk_start[read]), error) from error
        raise


def _fetch_part(
    plan: ReadPlan,
    source: ArraySource,
    key: str,
    read: int,
    where: ByteRange,
    allocate: Allocate,
) -> ByteArray | None:
    """Part of a chunk that is an object of its own, refused where its size is not the chunk's.

    Servers need not tell sizes, and some ignore ranges: then the whole object is asked for.
    """
    size = source.store.size(key)
    if size is not None:
        _check_object_size(plan, read, size)
        with suppress(ObjectTooLargeError):
            return source.store.get_range(key, where, allocate)
    whole = _fetch_whole(plan, source, key, read, allocate)
    if whole is None:
        return None
    _check_object_size(plan, read, whole.size)
    return whole[where.offset : where.end]


def _check_object_size(plan: ReadPlan, read: int, size: int) -> None:
    row = int(plan.reads.chunk_start[read])
    expected = plan.arrays[plan.chunks.array[row]].chunk_nbytes
    if size != expected:
        reason = f"object has {size} bytes, expected {expected}"
        raise chunk_error(plan, row, "bytes", reason)


def _fetch_whole(
    plan: ReadPlan, source: ArraySource, key: str, read: int, allocate: Allocate
) -> ByteArray | None:
    """Bytes of a whole object, refused where it is too large to be the chunk."""
    decoded, limit = source.spec.decoded_limit_nbytes, encoded_limit(source)
    try:
        return source.store.get(key, allocate, limit)
    except ObjectTooLargeError as error:
        row = int(plan.reads.chunk_start[read])
        reason = f"takes more than {limit} bytes for {decoded} decoded ones"
        raise chunk_error(plan, row, "store", reason) from error


def fetch_chunk(
    plan: ReadPlan, sources: tuple[ArraySource, ...], row: int, allocate: Allocate
) -> ByteArray | None:
    """Encoded bytes of one chunk alone, for when the read that brings several failed.

    Raises
    ------
    StoreError
        Naming the chunk, where the read could name a range only.
    """
    chunks = plan.chunks
    source = sources[int(chunks.array[row])]
    key = object_key(source.spec, int(chunks.object_id[row]))
    byte_range = ByteRange(int(chunks.offset[row]), int(chunks.nbytes[row]))
    try:
        return source.store.get_range(key, byte_range, allocate)
    except StoreError as error:
        raise _of_chunk(plan, row, error) from error


def brings_one_chunk(plan: ReadPlan, read: int) -> bool:
    """Whether a row of the read table has one chunk, so that its failure is the chunk's."""
    first, last = plan.reads.chunk_start[read : read + 2].tolist()
    return bool(last - first == 1)


def _of_chunk(plan: ReadPlan, row: int, error: StoreError) -> StoreError:
    """`error`, naming the chunk that it concerns."""
    spec = plan.arrays[plan.chunks.array[row]]
    name = chunk_name(spec, int(plan.chunks.chunk_id[row]))
    return StoreError(f"chunk {name!r} of {spec.source!r} cannot be fetched: {error}")
