"""What the caches of a wave's arrays hold on its device, and what of the wave they are to keep.

A wave asks once what is held, decodes the rest, has it copied into slots of the caches in one
launch, and lets it be found once its statuses came back good.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from zarrgpu.chunk_cache import ChunkCache
from zarrgpu.devices.device_chunks import NO_SLOT, DeviceChunks
from zarrgpu.devices.driver import Driver, Stream
from zarrgpu.fetch import ArraySource
from zarrgpu.plan.tables import Int64s, ReadPlan, ReadTable


@dataclass(slots=True, eq=False)
class _Part:
    """Rows of a wave whose arrays have one cache, and their slots in it (p rows).

    Attributes
    ----------
    cache : ChunkCache
    chunks : DeviceChunks
        Of the cache, on the wave's device.
    place : int64 (p,)
        Among the wave's rows.
    slot : int64 (p,)
        Found or reserved; `NO_SLOT` where there is none.
    reserved : bool (p,)
        The slot is new, and holds what `publish` makes known.
    clears : int
        See `DeviceChunks.reserve`.
    """

    cache: ChunkCache
    chunks: DeviceChunks
    place: Int64s
    slot: Int64s
    reserved: NDArray[np.bool_]
    clears: int = 0


class WaveCache:
    """The cached side of one wave (n rows).

    Parameters
    ----------
    plan : ReadPlan
    sources : tuple of ArraySource
    driver : Driver
    rows : int64 array
        Of the chunk table.
    verified : bool
        Whether chunks will do only whose checksums were verified, and those of this wave are.

    Attributes
    ----------
    address : int64 (n,)
        Of each chunk that is held, else 0.
    shuffle_block_nbytes : int64 (n,)
        Of those that are held still shuffled by bytes.
    """

    def __init__(
        self,
        plan: ReadPlan,
        sources: tuple[ArraySource, ...],
        driver: Driver,
        rows: Int64s,
        *,
        verified: bool,
    ) -> None:
        self.row = rows
        self.address, self.shuffle_block_nbytes = np.zeros((2, len(rows)), np.int64)
        self._verified = verified
        array = plan.chunks.array[rows]
        self._owner = np.array([source.cache_key for source in sources], np.int64)[array]
        self._chunk = plan.chunks.chunk_id[rows]
        self._nbytes = np.array([spec.chunk_nbytes for spec in plan.arrays], np.int64)[array]
        self._parts = [
            _Part(cache, cache.on_device(driver, DeviceChunks), place, *_no_slots(len(place)))
            for cache, place in _places_by_cache(sources, array)
            if plan.chunks.windows is None  # parts of chunks are not kept
        ]

    def find(self) -> None:
        """Find and pin what is held."""
        for part in self._parts:
            place = part.place
            found = part.chunks.find(
                self._owner[place], self._chunk[place], verified=self._verified
            )
            part.slot = found.slot
            self.address[place] = found.address
            self.shuffle_block_nbytes[place] = found.shuffle_block_nbytes

    def count(self) -> int:
        """Note in the caches what was found and what was not; return how many chunks were."""
        hits = 0
        for part in self._parts:
            own = int((self.address[part.place] != 0).sum())
            part.cache.count(own, len(part.place) - own)
            hits += own
        return hits

    def reserve(self, wanted: NDArray[np.bool_]) -> Int64s:
        """Reserve and pin slots for chunks that were not found; return their addresses, or 0.

        Parameters
        ----------
        wanted : bool (n,)
            Chunks that this wave decodes.
        """
        address = np.zeros(len(self.row), np.int64)
        for part in self._parts:
            new = np.flatnonzero(wanted[part.place])
            slots, part.clears = part.chunks.reserve(self._nbytes[part.place[new]])
            part.slot[new] = slots.slot
            part.reserved[new] = slots.slot >= 0
            address[part.place[new]] = slots.address
        return address

    def wait(self, stream: Stream) -> None:
        """Let a stream wait until the caches' memory is there."""
        for part in self._parts:
            part.chunks.wait(stream)

    def publish(self, wrong: Int64s, shuffle_block_nbytes: Int64s) -> None:
        """Let the reserved chunks be found, but for rows that went wrong: the wave is done.

        Parameters
        ----------
        wrong : int64 array
            Rows of the chunk table.
        shuffle_block_nbytes : int64 (n,)
            Of what was copied into the slots.
        """
        good = ~np.isin(self.row, wrong)
        for part in self._parts:
            new = np.flatnonzero(part.reserved & good[part.place])
            place = part.place[new]
            part.chunks.publish(
                part.slot[new],
                self._owner[place],
                self._chunk[place],
                shuffle_block_nbytes[place],
                verified=self._verified,
                clears=part.clears,
            )

    def release(self) -> None:
        """Take back all pins: nothing on the device uses the slots any more."""
        for part in self._parts:
            part.chunks.release(part.slot)
            part.slot, part.reserved = _no_slots(len(part.place))


def _no_slots(n: int) -> tuple[Int64s, NDArray[np.bool_]]:
    return np.full(n, NO_SLOT, np.int64), np.zeros(n, np.bool_)


def _places_by_cache(
    sources: tuple[ArraySource, ...], array: NDArray[np.int32]
) -> Iterator[tuple[ChunkCache, Int64s]]:
    """Each cache with the places of the chunks whose arrays have it."""
    caches = {id(source.cache): source.cache for source in sources if source.cache is not None}
    for number, cache in caches.items():
        own = np.array([id(source.cache) == number for source in sources], np.bool_)
        place = np.flatnonzero(own[array])
        if len(place):
            yield cache, place


def without_cached(plan: ReadPlan, rows: Int64s, max_gap_bytes: int) -> ReadPlan:
    """Cut a plan's reads so that they bring what is not cached, and little between.

    Parameters
    ----------
    plan : ReadPlan
    rows : int64 array
        Ascending rows of the chunk table that are to be fetched; at least one. Other rows lie in
        reads that are not to be made.
    max_gap_bytes : int
        Bytes between two of them that are read rather than skipped.
    """
    chunks = plan.chunks
    offset, end = chunks.offset[rows], chunks.offset[rows] + chunks.nbytes[rows]
    apart = (np.diff(chunks.read[rows]) != 0) | (offset[1:] - end[:-1] > max_gap_bytes)
    first = rows[np.concatenate([[True], apart])]
    last = rows[np.concatenate([apart, [True]])]
    begins = np.zeros(len(chunks) + 1, np.bool_)
    begins[plan.reads.chunk_start] = True
    begins[first] = begins[last + 1] = True
    read = np.cumsum(begins[:-1], dtype=np.int32) - np.int32(1)
    chunks = replace(chunks, read=read)
    return replace(plan, reads=ReadTable.of_chunks(chunks), chunks=chunks)
