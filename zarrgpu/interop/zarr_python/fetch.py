"""Bringing the bytes of one read, and decoding them as they come.

Two ways with the same result:

- `read_local`: files of zarr-python's own `LocalStore` are read by the decoding threads themselves,
  into memory that they use again. The event loop is left once for the whole read.
- `read_async`: anything else is fetched through its byte getter on the event loop, at most
  ``async.concurrency`` requests at once. Whatever has arrived is decoded on threads while the rest
  is on its way; what waits for decoding is bounded too.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from zarrgpu.codecs.run import encoded_limit_nbytes
from zarrgpu.devices.host import available_cores, run_threads, scratch
from zarrgpu.interop.zarr_python.piece import Piece, chunk_error
from zarrgpu.interop.zarr_python.shard import ShardPart, coalesced
from zarrgpu.model import ByteArray, ByteRange
from zarrgpu.stores.local import LocalStore

_INLINE_NBYTES = 64 << 10
"""Decoded bytes that are not worth leaving the event loop for."""

_MAX_GAP_BYTES = 1 << 20
_MAX_COALESCED_BYTES = 16 << 20
"""zarr-python's own limits, where its version has no setting for them."""


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """One stored object of a read.

    Attributes
    ----------
    getter : zarr.abc.store.ByteGetter
    chunk : zarr.core.array_spec.ArraySpec
    part : Piece or ShardPart
    fill_value : object
        What is placed where nothing is stored.
    """

    getter: Any
    chunk: Any
    part: Piece | ShardPart
    fill_value: Any


@dataclass(slots=True)
class Outcome:
    """What came of one job.

    Attributes
    ----------
    present : bool
        Whether the object is stored.
    decoded, missing : int
        Chunks, or inner chunks of a shard.
    """

    present: bool = False
    decoded: int = 0
    missing: int = 0


Ready = tuple[Piece, ByteArray]
"""A piece and its encoded bytes."""


def local_store(jobs: Sequence[Job]) -> LocalStore | None:
    """Our store over the files of all jobs, or None if they are not plain local files.

    Only zarr-python's very classes: whoever derives from them means to see the calls.
    """
    from zarr.storage import LocalStore as ZarrLocalStore
    from zarr.storage import StorePath

    if any(type(job.getter) is not StorePath for job in jobs):
        return None
    store = jobs[0].getter.store
    if type(store) is not ZarrLocalStore or any(job.getter.store is not store for job in jobs):
        return None
    return LocalStore(store.root)


# local files


def read_local(store: LocalStore, jobs: Sequence[Job]) -> list[Outcome]:
    """Read, decode and place all jobs on threads."""
    outcomes = [Outcome() for _ in jobs]
    work: list[partial[None]] = []
    shards: list[tuple[Job, Outcome, ShardPart]] = []
    for job, outcome in zip(jobs, outcomes, strict=True):
        if isinstance(job.part, ShardPart):
            shards.append((job, outcome, job.part))
        else:
            work.append(partial(_local_chunk, store, job, job.part, outcome))
    threads = available_cores()
    for requests in run_threads(lambda shard: _local_index(store, *shard), shards, threads):
        work += requests
    run_threads(lambda call: call(), work, threads)
    _finish(jobs)
    return outcomes


def _local_chunk(store: LocalStore, job: Job, piece: Piece, outcome: Outcome) -> None:
    most = encoded_limit_nbytes(piece.decoder.chain.widest_nbytes)
    encoded = store.get(job.getter.path, partial(scratch, "encoded"), most)
    if encoded is None:
        _fill(job, outcome)
        return
    piece.place(encoded)
    outcome.present, outcome.decoded = True, 1


def _local_index(
    store: LocalStore, job: Job, outcome: Outcome, part: ShardPart
) -> list[partial[None]]:
    """Read a shard's index; return the calls that read and place its chunks."""
    path, nbytes = job.getter.path, part.decoder.location.index_nbytes
    if part.index_at_end:
        index = store.get_suffix(path, nbytes)
    else:
        size = store.size(path)
        index = None if size is None else store.get_range(path, ByteRange(0, min(nbytes, size)))
    if index is None:
        _fill(job, outcome)
        return []
    stored = _place_missing(job, outcome, part.locate(index))
    requests = coalesced(
        stored, max_gap_bytes=store.max_gap_bytes, max_coalesced_bytes=store.max_coalesced_bytes
    )
    return [partial(_local_request, store, path, *request) for request in requests]


def _local_request(
    store: LocalStore, path: str, fetched: ByteRange, group: list[tuple[ByteRange, Piece]]
) -> None:
    data = store.get_range(path, fetched, partial(scratch, "encoded"))
    for wanted, piece in group:
        if data is None:
            raise chunk_error(piece.owner, piece.inner, "its shard is gone from the store", "store")
        at = wanted.offset - fetched.offset
        piece.place(data[at : at + wanted.nbytes])


# any store


async def read_async(jobs: Sequence[Job], prototype: Any) -> list[Outcome]:
    """Fetch all jobs through their byte getters; decode and place what has arrived.

    Parameters
    ----------
    jobs : sequence of Job
    prototype : zarr.core.buffer.BufferPrototype
        Of host memory.
    """
    from zarr.core.config import config

    outcomes = [Outcome() for _ in jobs]
    pending = deque(zip(jobs, outcomes, strict=True))
    limit = min(len(jobs), config.get("async.concurrency") or len(jobs))
    if len(jobs) == 1:
        await _decode(await _fetch(*pending[0], prototype))
        _finish(jobs)
        return outcomes
    arrived: asyncio.Queue[list[Ready] | BaseException] = asyncio.Queue()
    room = asyncio.Semaphore(2 * limit)

    async def fetch_some() -> None:
        while pending:
            await room.acquire()
            if not pending:
                return
            job, outcome = pending.popleft()
            try:
                arrived.put_nowait(await _fetch(job, outcome, prototype))
            except BaseException as error:  # raised below, where the read is waited for
                arrived.put_nowait(error)
                return  # also when cancelled: nobody waits for more

    fetchers = [asyncio.create_task(fetch_some()) for _ in range(limit)]
    waiting = len(jobs)
    try:
        while waiting:
            batch = [await arrived.get()]
            while not arrived.empty():
                batch.append(arrived.get_nowait())
            ready: list[Ready] = []
            for item in batch:
                if isinstance(item, BaseException):
                    raise item
                ready += item
            await _decode(ready)
            waiting -= len(batch)
            for _ in batch:
                room.release()
    finally:
        for fetcher in fetchers:
            fetcher.cancel()
        await asyncio.gather(*fetchers, return_exceptions=True)
    _finish(jobs)
    return outcomes


async def _decode(ready: list[Ready]) -> None:
    """Decode and place on threads, or here where that is quicker."""
    if sum(piece.decoder.chain.decoded_nbytes for piece, _ in ready) <= _INLINE_NBYTES:
        for piece, encoded in ready:
            piece.place(encoded)
        return
    await asyncio.to_thread(
        run_threads, lambda entry: entry[0].place(entry[1]), ready, available_cores()
    )


async def _fetch(job: Job, outcome: Outcome, prototype: Any) -> list[Ready]:
    """Bytes of one job; what is not stored is filled at once."""
    if isinstance(job.part, ShardPart):
        return await _fetch_shard(job, outcome, job.part, prototype)
    encoded = await job.getter.get(prototype)
    if encoded is None:
        _fill(job, outcome)
        return []
    outcome.present, outcome.decoded = True, 1
    return [(job.part, _as_bytes(encoded))]


async def _fetch_shard(job: Job, outcome: Outcome, part: ShardPart, prototype: Any) -> list[Ready]:
    from zarr.abc.store import RangeByteRequest, SuffixByteRequest

    if part.wants_most:
        whole = await job.getter.get(prototype)
        if whole is None:
            _fill(job, outcome)
            return []
        shard = _as_bytes(whole)
        stored = _place_missing(job, outcome, part.locate(part.index_of(shard)))
        return [(piece, _cut(piece, shard, wanted, 0)) for wanted, piece in stored]
    nbytes = part.decoder.location.index_nbytes
    where = SuffixByteRequest(nbytes) if part.index_at_end else RangeByteRequest(0, nbytes)
    index = await job.getter.get(prototype, where)
    if index is None:
        _fill(job, outcome)
        return []
    stored = _place_missing(job, outcome, part.locate(_as_bytes(index)))
    if not stored:
        return []
    return await _fetch_ranges(job, outcome, stored, prototype)


async def _fetch_ranges(
    job: Job, outcome: Outcome, stored: list[tuple[ByteRange, Piece]], prototype: Any
) -> list[Ready]:
    """Bytes of inner chunks, neighbours in one request."""
    from zarr.abc.store import RangeByteRequest

    limits = {
        "max_gap_bytes": getattr(
            job.chunk.config, "sharding_coalesce_max_gap_bytes", _MAX_GAP_BYTES
        ),
        "max_coalesced_bytes": getattr(
            job.chunk.config, "sharding_coalesce_max_bytes", _MAX_COALESCED_BYTES
        ),
    }
    get_ranges = getattr(getattr(job.getter, "store", None), "get_ranges", None)
    if get_ranges is not None:  # zarr-python from 3.3 on: the store knows best how to coalesce
        wanted = [RangeByteRequest(r.offset, r.end) for r, _ in stored]
        ready: list[Ready] = []
        try:
            async for group in get_ranges(job.getter.path, wanted, prototype=prototype, **limits):
                for at, data in group:
                    byte_range, piece = stored[at]
                    ready.append(
                        (piece, _cut(piece, _as_bytes(data), byte_range, byte_range.offset))
                    )
        except BaseExceptionGroup as errors:
            _, others = errors.split(FileNotFoundError)
            if others is not None:
                raise others from None
            _fill(job, outcome)  # deleted since its index was read
            return []
        return ready
    limits["max_coalesced_bytes"] = max(1, limits["max_coalesced_bytes"])
    ready = []
    for fetched, members in coalesced(stored, **limits):
        data = await job.getter.get(prototype, RangeByteRequest(fetched.offset, fetched.end))
        if data is None:
            _fill(job, outcome)
            return []
        encoded = _as_bytes(data)
        ready += [(piece, _cut(piece, encoded, r, fetched.offset)) for r, piece in members]
    return ready


def _cut(piece: Piece, data: ByteArray, wanted: ByteRange, begin: int) -> ByteArray:
    """Bytes of one inner chunk out of those from `begin` on; an error if they end before."""
    at = wanted.offset - begin
    encoded = data[at : at + wanted.nbytes]
    if encoded.size != wanted.nbytes:
        msg = f"shard ends before bytes {wanted.offset}-{wanted.end}; it is truncated"
        raise chunk_error(piece.owner, piece.inner, msg, "sharding_indexed")
    return encoded


def _as_bytes(buffer: Any) -> ByteArray:
    encoded: ByteArray = np.frombuffer(buffer.as_numpy_array(), np.uint8)
    return encoded


def _place_missing(
    job: Job, outcome: Outcome, located: list[tuple[ByteRange | None, Piece]]
) -> list[tuple[ByteRange, Piece]]:
    """Fill what the index says is not stored; return the rest."""
    outcome.present = True
    stored = []
    for byte_range, piece in located:
        if byte_range is None:
            piece.fill(job.fill_value)
            outcome.missing += 1
        else:
            stored.append((byte_range, piece))
    outcome.decoded += len(stored)
    return stored


def _fill(job: Job, outcome: Outcome) -> None:
    job.part.fill(job.fill_value)
    outcome.present, outcome.decoded, outcome.missing = False, 0, 1


def _finish(jobs: Sequence[Job]) -> None:
    """Hand over what was gathered aside."""
    for job in jobs:
        if isinstance(job.part, ShardPart) and job.part.finish is not None:
            job.part.finish()
