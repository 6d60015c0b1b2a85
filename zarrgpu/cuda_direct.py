"""Reading chunks straight from files into device memory: which, where to, and what came of it.

Only reads that will surely do are made so: of a file that is there, regular, as large as it must
be, and of enough bytes to be worth it. All others, and those that fail, are left to the pinned
path, which gives the bytes, the fill value, or the error.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zarrgpu.codecs.device import DeviceChain, device_chain
from zarrgpu.codecs.device_headers import chain_headers
from zarrgpu.decode import object_key
from zarrgpu.devices.cuda import Slot
from zarrgpu.devices.driver import Driver
from zarrgpu.devices.host import run_threads
from zarrgpu.devices.landing import landing_of
from zarrgpu.devices.requests import FILE_ALIGNMENT, FileRead
from zarrgpu.errors import DataError, DeviceUnavailableError, StoreError
from zarrgpu.fetch import ArraySource, encoded_limit, num_io_threads
from zarrgpu.model import ObjectPerChunk, ReadOptions
from zarrgpu.plan.tables import Int64s, ReadPlan
from zarrgpu.stores.base import local_file

MIN_DIRECT_NBYTES = 64 << 10
"""Reads of fewer bytes go through host memory. Widening a read to whole blocks of `FILE_ALIGNMENT`
adds at most an eighth to these; kvikio itself reads less than 16 KiB by a detour."""


def gds_in_use(driver: Driver, options: ReadOptions) -> bool:
    """Whether reads may go straight into device memory.

    Raises
    ------
    DeviceUnavailableError
        If they must and cannot.
    """
    if options.gds is False:
        return False
    problem = driver.gds_problem
    if problem and options.gds:
        msg = f"{driver.name}: gds=True, and GPUDirect Storage cannot be used: {problem}"
        raise DeviceUnavailableError(msg)
    return not problem


def check_files(sources: tuple[ArraySource, ...], options: ReadOptions) -> None:
    """Raise `StoreError` for a store that has no local files where these are required."""
    for source in sources if options.gds else ():
        if local_file(source.store, "") is None:
            msg = (
                f"{source.spec.source!r}: gds=True, and its store {source.store.url!r} has no "
                "local files; read it with gds=None"
            )
            raise StoreError(msg)


def describe_fetch(driver: Driver, sources: Sequence[ArraySource], options: ReadOptions) -> str:
    """Which way encoded bytes take to the device, for people."""
    if options.gds is False or driver.gds_problem:
        return "host, through pinned memory"
    chains = [device_chain(source.chain, driver.image_formats) for source in sources]
    direct = [
        chain_headers(chain) is not None and local_file(source.store, "") is not None
        for chain, source in zip(chains, sources, strict=True)
    ]
    if not any(direct):
        return "host, through pinned memory"
    some = "" if all(direct) else " for some arrays"
    return f"{driver.name}, GPUDirect by {driver.gds_description}{some}"


@dataclass(slots=True, eq=False)
class DirectReads:
    """Reads of a wave that go straight into device memory (m rows).

    Attributes
    ----------
    row : int64 (m,)
        Ascending rows of the plan's read table.
    start : int64 (m,)
        Where the first wanted byte arrives, from the start of what arrives.
    nbytes : int64 (m,)
        Wanted.
    arriving_nbytes : int
        Of all of them, with what is read besides, and what must be readable behind them.
    reads : list of FileRead
        Targets count from the start of what arrives.
    devices : list of int
        Numbers of their file systems.
    """

    row: Int64s
    start: Int64s
    nbytes: Int64s
    arriving_nbytes: int
    reads: list[FileRead]
    devices: list[int]


def plan_direct(
    plan: ReadPlan,
    sources: tuple[ArraySource, ...],
    chains: list[DeviceChain | None],
    rows: Int64s,
    options: ReadOptions,
    refused: Collection[int] = (),
) -> DirectReads:
    """Choose, of some rows of the read table, those to be read straight into device memory.

    `refused` are the numbers of file systems that these shall not be on.
    """
    table = plan.reads
    usable = np.array([chain_headers(chain) is not None for chain in chains], np.bool_)
    array, nbytes = table.array[rows].astype(np.int64), table.nbytes[rows]
    rows = rows[usable[array] & ((nbytes < 0) | (nbytes >= MIN_DIRECT_NBYTES))]
    if not len(rows):
        empty = np.empty(0, np.int64)
        return DirectReads(empty, empty, empty, 0, [], [])
    objects, which = np.unique(
        np.stack([table.array[rows].astype(np.int64), table.object_id[rows]]),
        axis=1,
        return_inverse=True,
    )
    which = which.reshape(-1)
    threads = max((num_io_threads(source.store, options) for source in sources), default=1)
    found = run_threads(
        lambda pair: (pair, _find_file(sources[pair[0]], pair[1], refused)),
        list(zip(*objects.tolist(), strict=True)),
        threads,
    )
    files = [file for _, file in sorted(found, key=lambda each: each[0])]
    size = np.array([file.nbytes for file in files], np.int64)[which]
    offset, nbytes = table.offset[rows].copy(), table.nbytes[rows].copy()
    good = _size_is_right(plan, sources, rows, size)
    whole = nbytes < 0
    offset[whole], nbytes[whole] = 0, size[whole]
    good &= (offset >= 0) & (nbytes >= MIN_DIRECT_NBYTES) & (offset + nbytes <= size)
    chosen = [files[i] for i in which[good].tolist()]
    direct = _placed(rows[good], offset[good], nbytes[good], chosen)
    direct.arriving_nbytes += max(map(_spare_nbytes, chains)) if chosen else 0
    return direct


def _spare_nbytes(chain: DeviceChain | None) -> int:
    """Memory that must be readable behind a short chunk, which may stay where it arrived."""
    return 0 if chain is None or chain.short is None else chain.short.spare_nbytes


@dataclass(frozen=True, slots=True)
class _File:
    """A file and its file system; fewer bytes than 0 where the pinned path must look."""

    path: str
    nbytes: int
    device: int


_NO_FILE = _File("", -1, -1)


def _find_file(source: ArraySource, object_id: int, refused: Collection[int]) -> _File:
    try:
        path = local_file(source.store, object_key(source.spec, object_id))
        if path is None:
            return _NO_FILE
        found = os.stat(path)  # noqa: PTH116 - a string
    except (DataError, OSError, ValueError):
        return _NO_FILE
    if not stat.S_ISREG(found.st_mode) or found.st_dev in refused:
        return _NO_FILE
    return _File(path, found.st_size, found.st_dev)


def _size_is_right(
    plan: ReadPlan, sources: tuple[ArraySource, ...], rows: Int64s, size: Int64s
) -> NDArray[np.bool_]:
    """Whether files are as large as they must be, where that is known."""
    reads = plan.reads
    array, whole = reads.array[rows], reads.nbytes[rows] < 0
    limit = np.array([encoded_limit(source) for source in sources], np.int64)[array]
    alone = np.array([isinstance(s.spec.location, ObjectPerChunk) for s in sources], np.bool_)
    chunk = np.array([spec.chunk_nbytes for spec in plan.arrays], np.int64)[array]
    right = np.where(alone[array], size == chunk, size >= 0)  # a part of a chunk; see `fetch`
    return np.where(whole, (size > 0) & (size <= limit), right)


def _placed(rows: Int64s, offset: Int64s, nbytes: Int64s, files: list[_File]) -> DirectReads:
    """Widen reads to whole blocks, one behind the other."""
    size = np.array([file.nbytes for file in files], np.int64)
    first = offset // FILE_ALIGNMENT * FILE_ALIGNMENT
    room = -(-(offset + nbytes - first) // FILE_ALIGNMENT) * FILE_ALIGNMENT
    at = np.cumsum(room) - room
    got = np.minimum(room, size - first)
    reads = [
        FileRead(path=file.path, offset=a, nbytes=b, target=c)
        for file, a, b, c in zip(files, first.tolist(), got.tolist(), at.tolist(), strict=True)
    ]
    devices = [file.device for file in files]
    return DirectReads(rows, at + offset - first, nbytes, int(room.sum()), reads, devices)


def start_direct(
    driver: Driver, slot: Slot, direct: DirectReads, *, required: bool
) -> Callable[[], NDArray[np.bool_]]:
    """Begin to read into the landing of a slot.

    Returns
    -------
    callable
        To be called once, in any case; waits. Gives whether each read is good. With `required`
        one that is not raises `StoreError`.
    """
    if not direct.reads:
        return lambda: np.empty(0, np.bool_)
    landing = landing_of(slot)
    base = landing.room(direct.arriving_nbytes)
    reads = [
        FileRead(path=r.path, offset=r.offset, nbytes=r.nbytes, target=base + r.target)
        for r in direct.reads
    ]
    wait = driver.read_files(reads)

    def finish() -> NDArray[np.bool_]:
        problems = wait()
        for read, problem in zip(reads, problems, strict=True):
            if problem and required:
                end = read.offset + read.nbytes
                msg = (
                    f"{read.path!r}: bytes {read.offset}-{end} cannot be read straight into the "
                    f"memory of {driver.name} ({problem}), and gds=True; read with gds=None"
                )
                raise StoreError(msg)
        good = np.array([not problem for problem in problems], np.bool_)
        # what fails again and again would cost more than it can save
        there = np.array(direct.devices)
        landing.refused |= set(there.tolist()) - set(there[good].tolist())
        return good

    return finish
