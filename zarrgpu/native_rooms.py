"""Memory that chunks are decoded to, to be kept in a cache, when compiled code decodes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from zarrgpu.chunk_cache import CachedChunk
from zarrgpu.decode import as_elements
from zarrgpu.devices.native import address
from zarrgpu.fetch import ArraySource
from zarrgpu.model import ByteArray
from zarrgpu.plan.tables import Int64s, ReadPlan


class Rooms(NamedTuple):
    """Memory of chunks that caches hold or shall hold, a row per chunk of the plan.

    Attributes
    ----------
    address : int64 (C,)
        0 for chunks that shall not be kept.
    held : bool (C,)
        It is decoded there already.
    memory : dict of int to (array, int)
        Memory, and place in it, of the others.
    """

    address: Int64s
    held: NDArray[np.bool_]
    memory: dict[int, tuple[ByteArray, int]]

    def keep(
        self, rows: NDArray[np.int64], plan: ReadPlan, sources: tuple[ArraySource, ...]
    ) -> None:
        """Put those of the given chunks that were decoded here into the caches of their arrays."""
        rows = rows[~self.held[rows] & (self.address[rows] != 0)]
        array = plan.chunks.array[rows]
        for index in np.unique(array).tolist():
            source, own = sources[index], rows[array == index]
            assert source.cache is not None
            nbytes = source.chain.decoded_nbytes
            source.cache.put_many(
                (
                    (source.cache_key, chunk_id),
                    CachedChunk(as_elements(source.spec, memory[at : at + nbytes]), where),
                )
                for chunk_id, (memory, at), where in zip(
                    plan.chunks.chunk_id[own].tolist(),
                    (self.memory[row] for row in own.tolist()),
                    self.address[own].tolist(),
                    strict=True,
                )
            )


def make_rooms(
    plan: ReadPlan,
    sources: tuple[ArraySource, ...],
    known: Sequence[bool],
    cached: list[CachedChunk | None],
) -> Rooms:
    """Find or make the memory of chunks.

    A cache gets no more than it can keep, however many arrays share it.
    """
    places = [0 if chunk is None else chunk.address for chunk in cached]
    rooms = Rooms(np.array(places, np.int64), np.array(places, np.bool_), {})
    given: dict[int, int] = {}  # bytes, by cache
    for index in np.unique(plan.chunks.array[~rooms.held]).tolist():
        source = sources[index]
        if source.cache is None or not known[index]:
            continue
        nbytes = source.chain.decoded_nbytes
        rows = np.flatnonzero(~rooms.held & (plan.chunks.array == index)).tolist()
        taken = given.get(id(source.cache), 0)
        rows = rows[: (source.cache.max_bytes - taken) // nbytes]
        given[id(source.cache)] = taken + len(rows) * nbytes
        made = source.cache.slabs.take(nbytes, len(rows))
        slabs = {id(slab): address(slab) for slab, _ in made}
        rooms.address[rows] = [slabs[id(slab)] + at for slab, at in made]
        rooms.memory.update(zip(rows, made, strict=True))
    return rooms
