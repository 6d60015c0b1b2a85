"""Bringing the headers of chunks that arrived on the device to the host, where tables are made.

Chunks read by GPUDirect Storage are on the device only. Their headers are copied out there, by
kernels where they are anywhere in the chunk, and come back in one copy. Then the host makes the
same tables as from fetched bytes, out of a *mirror*: an array as large as what arrived of which
only headers were ever touched, so that the rest takes no memory and no time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zarrgpu.codecs.device_headers import Headers, place_records
from zarrgpu.devices.cuda import ALIGNMENT
from zarrgpu.devices.driver import Driver
from zarrgpu.devices.kernels import COPY_TILE_NBYTES, WHOLE_TILE, grid_blocks, tile_starts
from zarrgpu.devices.landing import Landing
from zarrgpu.devices.tables import COPY_JOB, HEADER_JOB, HEADER_RECORD, JobStatus
from zarrgpu.model import ByteArray
from zarrgpu.plan.tables import Int64s

_COPY = "copy_segments"
_RECORD_NBYTES = HEADER_RECORD.itemsize


@dataclass(frozen=True, slots=True, eq=False)
class Arrived:
    """Chunks of one array on the device (n rows).

    Attributes
    ----------
    headers : Headers
    place : int64 (n,)
        Of each in the wave.
    offset, nbytes : int64 (n,)
        From the start of what arrived.
    """

    headers: Headers
    place: Int64s
    offset: Int64s
    nbytes: Int64s


@dataclass(slots=True, eq=False)
class _Search:
    """Jobs of one kernel, of all arrays (n rows).

    Attributes
    ----------
    kernel : str
    place : int64 (n,)
        Of each chunk in the wave; -1 where a failure is a bug.
    start, nbytes : int64 (n,)
        Bytes that are read, from the start of what arrived.
    decoded, room : int64 (n,)
        Size that they decode to, and bytes of what is found.
    """

    kernel: str
    place: Int64s
    start: Int64s
    nbytes: Int64s
    decoded: Int64s
    room: Int64s

    def jobs(self, source: int, target: int) -> NDArray[np.void]:
        """Job table with addresses."""
        copies = self.kernel == _COPY
        jobs = np.zeros(len(self.start), COPY_JOB if copies else HEADER_JOB)
        jobs["source"], jobs["source_nbytes"] = source + self.start, self.nbytes
        jobs["target"] = target + np.cumsum(self.room) - self.room
        jobs["target_nbytes"] = self.room
        jobs["nbytes"] = self.nbytes if copies else self.decoded
        return jobs

    @property
    def tile(self) -> int:
        """Size of a tile."""
        return COPY_TILE_NBYTES if self.kernel == _COPY else WHOLE_TILE


def bring_headers(
    driver: Driver, landing: Landing, nbytes: int, arrived: list[Arrived]
) -> tuple[ByteArray, Int64s]:
    """Copy headers to the host; waits for them, but for no other work of the device.

    Parameters
    ----------
    driver : Driver
    landing : Landing
        With all chunks in it.
    nbytes : int
        That arrived.
    arrived : list of Arrived

    Returns
    -------
    mirror : uint8 array (nbytes,)
        Zero but for the headers.
    refused : int64 array
        Places of chunks that no tables can be made for.
    """
    mirror = _empty_mirror(nbytes)
    landing.slot.launches = 0
    refused = [np.empty(0, np.int64)]
    usable = []
    for part in arrived:
        good = part.headers.plannable(part.nbytes)
        refused.append(part.place[~good])
        usable.append(Arrived(part.headers, part.place[good], part.offset[good], part.nbytes[good]))
    searches = _searches(usable)
    if searches:
        refused += _search(driver, landing, searches, mirror)
    for part in usable:
        if part.headers.plain_flags is not None:
            flags = mirror[part.offset + np.minimum(part.headers.plain_flags, part.nbytes - 1)]
            refused.append(part.place[flags > 1])
    return mirror, np.unique(np.concatenate(refused))


def _empty_mirror(nbytes: int) -> ByteArray:
    """Zeros that take no memory where nobody writes."""
    return np.zeros(nbytes, np.uint8)


def _searches(arrived: list[Arrived]) -> list[_Search]:
    """What each kernel has to look for."""
    found: dict[str, list[_Search]] = {}
    for part in arrived:
        headers, zero = part.headers, np.zeros_like(part.place)
        for width, at_end in ((headers.head, False), (headers.tail, True)):
            nbytes = np.minimum(part.nbytes, width)
            at = part.offset + (part.nbytes - nbytes if at_end else 0)
            found.setdefault(_COPY, []).append(_Search(_COPY, zero - 1, at, nbytes, nbytes, nbytes))
        if headers.kernel is not None:
            room = zero + (headers.room_records + 1) * _RECORD_NBYTES
            start = part.offset + headers.before
            nbytes = part.nbytes - headers.before - headers.after
            decoded = zero + headers.decoded_nbytes
            found.setdefault(headers.kernel, []).append(
                _Search(headers.kernel, part.place, start, nbytes, decoded, room)
            )
    searches = []
    for kernel, parts in found.items():
        columns = (
            [getattr(part, name) for part in parts]
            for name in ("place", "start", "nbytes", "decoded", "room")
        )
        joined = _Search(kernel, *map(np.concatenate, columns))
        if joined.room.any():
            searches.append(joined)
    return searches


def _search(
    driver: Driver, landing: Landing, searches: list[_Search], mirror: ByteArray
) -> list[Int64s]:
    """Run the kernels and take what they found; returns the places that they refuse."""
    slot = landing.slot
    tables, stream = slot.tables, slot.stream
    starts = [tile_starts(search.nbytes, search.tile) for search in searches]
    jobs = [search.jobs(landing.address, 0) for search in searches]
    room = sum(table.nbytes + ALIGNMENT for table in (*starts, *jobs))
    room += sum(int(s.room.sum()) + 4 * len(s.room) + 2 * ALIGNMENT for s in searches)
    tables.reserve(room)
    placed = [(tables.place(j), tables.place(s)) for j, s in zip(jobs, starts, strict=True)]
    results = [(tables.result(int(s.room.sum())), tables.result(4 * len(s.room))) for s in searches]
    for table, ((_, target), _) in zip(jobs, results, strict=True):
        table["target"] += np.uint64(target)  # it is copied when it is sent
    tables.send()
    for search, start, (job, first), (_, (_, status)) in zip(
        searches, starts, placed, results, strict=True
    ):
        grid = grid_blocks(int(start[-1]), driver.block_threads)
        args = [job, len(search.start), first, search.tile, status]
        driver.launch(search.kernel, grid, driver.block_threads, args, stream)
    slot.launches = len(searches)
    tables.fetch_results()
    slot.done.record(stream)
    slot.done.synchronize()
    refused = []
    for search, ((at, _), (status_at, _)) in zip(searches, results, strict=True):
        content = np.asarray(tables.read(at, "u1", int(search.room.sum())), np.uint8)
        statuses = tables.read(status_at, "i4", len(search.start))
        refused.append(_TAKE[search.kernel == _COPY](search, content, statuses, mirror))
    return refused


def _take_copies(
    search: _Search, content: ByteArray, statuses: NDArray[np.generic], mirror: ByteArray
) -> Int64s:
    """Place copied bytes."""
    if (statuses != JobStatus.OK).any():
        msg = "a kernel refused to copy headers; this is a bug in zarrgpu, please report it"
        raise AssertionError(msg)
    first = np.cumsum(search.room) - search.room
    mirror[np.repeat(search.start - first, search.room) + np.arange(len(content))] = content
    return np.empty(0, np.int64)


def _take_records(
    search: _Search, content: ByteArray, statuses: NDArray[np.generic], mirror: ByteArray
) -> Int64s:
    """Place the records of chunks that the kernel understands."""
    good: NDArray[np.bool_] = np.asarray(statuses, np.int32) == int(JobStatus.OK)
    first = (np.cumsum(search.room) - search.room) // _RECORD_NBYTES
    end = search.start + search.nbytes
    place_records(mirror, search.start[good], end[good], content.view(HEADER_RECORD), first[good])
    refused: Int64s = search.place[~good]
    return refused


_TAKE: dict[bool, Callable[[_Search, ByteArray, NDArray[np.generic], ByteArray], Int64s]] = {
    True: _take_copies,
    False: _take_records,
}
