"""A plan told to the compiled executor (``kernels/host``), where it can carry the plan out.

It can where every array's chunks are of codecs that it knows, and elements are delivered as they
are stored, up to byte order, or small ones as floats or larger integers. It works on the plan's own
columns, without the interpreter's lock. What it cannot read it leaves to `host_engine`, which
succeeds or says what is wrong.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zarrgpu.chunk_cache import CachedChunk
from zarrgpu.devices.host import run_threads
from zarrgpu.devices.native import (
    ABSENT,
    DONE,
    NOT_DONE,
    PLAN,
    NativeLibrary,
    address,
    native_library,
)
from zarrgpu.fetch import ArraySource
from zarrgpu.model import ByteArray
from zarrgpu.native_rooms import make_rooms
from zarrgpu.native_support import are_placed, has_one_fill, is_known
from zarrgpu.native_tables import NativeTables
from zarrgpu.output import OutputFormat
from zarrgpu.plan.tables import Int64s, ReadPlan
from zarrgpu.stores.cancellable import CancellableStore
from zarrgpu.stores.local import LocalStore

_READS_AT_A_TIME = 64
"""After so many a thread comes back to Python, to be interrupted or cancelled."""


_SMALL_NBYTES = 1 << 20
"""Of a result: placing as much from a cache takes no longer than waking a thread to help."""


class NativeRun:
    """One execution by the compiled executor; made by `native_run`.

    Attributes
    ----------
    status : int32 (C,)
        Of each chunk: `NOT_DONE`, `DONE` or `ABSENT`.
    decodes : bool
        Whether it knows the codecs of any array; otherwise it only places (`put`).
    is_local : bool
        Whether it reads the files itself (`drain`), or is given what a store brings (`place`).
    fills : bool
        Whether `fill` can: there is one fill value, not one for each channel.
    """

    def __init__(
        self,
        library: NativeLibrary,
        plan: ReadPlan,
        sources: tuple[ArraySource, ...],
        keys: list[str],
        out: NDArray[Any],
        output: OutputFormat,
        cached: list[CachedChunk | None] | None,
    ) -> None:
        self._library, self._plan, self._sources = library, plan, sources
        self.fills = has_one_fill(output)
        self.status = np.full(len(plan.chunks), NOT_DONE, np.int32)
        joined = _joined_keys(plan, keys)
        roots = [_local_root(source) for source in sources]
        known = [is_known(source, library) for source in sources]
        self.decodes = any(known)
        self.is_local = joined is not None and all(known) and None not in roots
        self._rooms = None if cached is None else make_rooms(plan, sources, known, cached)
        held = self._rooms is not None and bool(self._rooms.held.all())
        self._is_short = held and out.nbytes <= _SMALL_NBYTES
        names, places = joined or (b"", np.empty(0, np.int64))
        self._tables = NativeTables(plan, sources, out, output)
        table = self._tables.make(names, places, roots, known, self.status, self._rooms)
        self._table, self._at = table, address(table)
        reads_files = self.is_local and not self._is_short
        self._files = self._tables.make_for_files(table, places) if reads_files else table

    @property
    def fetched_nbytes(self) -> int:
        """Bytes of files that `drain` has read."""
        return int(self._files[PLAN.index("fetched_nbytes")])

    @property
    def num_decoded(self) -> int:
        """Chunks that `drain` has decoded."""
        held = 0 if self._rooms is None else np.count_nonzero(self._rooms.held)
        return int(np.count_nonzero(self.status == DONE) - held)

    @property
    def num_missing(self) -> int:
        """Chunks that `drain` has found missing."""
        return int(np.count_nonzero(self.status == ABSENT))

    def rows_left(self, read: int) -> list[int]:
        """Chunks of a read that are not done; those that a cache holds are placed first."""
        if self._rooms is not None:
            self._library.run_held(self._at, read)
        first, last = self._plan.reads.chunk_start[read : read + 2].tolist()
        return (first + np.flatnonzero(self.status[first:last] == NOT_DONE)).tolist()  # type: ignore[no-any-return]

    def drain(self, num_threads: int) -> list[int]:
        """Carry out all reads of files; those that have chunks which could not be read are left."""
        num_threads = 1 if self._is_short else num_threads
        turns = range(min(num_threads, int(self._files[PLAN.index("num_reads")])))
        run_threads(self._drain, turns, num_threads)
        self._keep(np.flatnonzero(self.status == DONE))
        left = np.flatnonzero(self.status == NOT_DONE)
        return np.unique(self._plan.chunks.read[left]).tolist()  # type: ignore[no-any-return]

    def _drain(self, _: int) -> None:
        checks = [s.store.check for s in self._sources if isinstance(s.store, CancellableStore)]
        try:
            while self._library.drain(address(self._files), _READS_AT_A_TIME):
                for check in checks:
                    check()
        except BaseException:  # the other threads shall not go on to the end
            self._files[PLAN.index("next_read")] = self._files[PLAN.index("num_reads")]
            raise

    def place(self, read: int, data: ByteArray, rows: Sequence[int]) -> list[int]:
        """Decode and place those chunks of a read that can be; the others are left.

        Parameters
        ----------
        read : int
        data : uint8 array
            What the store gave for the read.
        rows : sequence of int
            Chunks of the read.
        """
        if not self.decodes:
            return list(rows)
        self._library.run_bytes(self._at, read, address(data), data.size)
        self._keep(np.array([row for row in rows if self.status[row] == DONE], np.int64))
        return [row for row in rows if self.status[row] == NOT_DONE]

    def put(self, row: int, elements: NDArray[Any]) -> None:
        """Place the pieces of a chunk, or of its window, that was decoded elsewhere."""
        self._library.place(self._at, row, address(elements))

    def fill(self) -> None:
        """Write what no stored chunk covers."""
        self._library.fill(self._at)

    def _keep(self, rows: NDArray[np.int64]) -> None:
        """Put chunks that were decoded into the caches of their arrays."""
        if self._rooms is not None:
            self._rooms.keep(rows, self._plan, self._sources)


def native_run(
    plan: ReadPlan,
    sources: tuple[ArraySource, ...],
    keys: list[str],
    out: NDArray[Any],
    output: OutputFormat,
    cached: list[CachedChunk | None] | None,
) -> NativeRun | None:
    """Let the compiled executor carry out a plan; None where it cannot.

    Parameters
    ----------
    plan, sources, out, output
        As for `host_engine.execute`.
    keys : list of str
        Of the object of each read.
    cached : list of (CachedChunk or None), or None
        What earlier reads have left of each chunk; None if no array has a cache.
    """
    library = native_library()
    if library is None or not are_placed(sources, output):
        return None
    return NativeRun(library, plan, sources, keys, out, output, cached)


def runs_compiled(source: ArraySource, output: OutputFormat) -> bool:
    """Whether chunks of an array are decoded by the compiled executor, for such an output."""
    library = native_library()
    return library is not None and is_known(source, library) and are_placed([source], output)


def _local_root(source: ArraySource) -> bytes | None:
    store = source.store
    if isinstance(store, CancellableStore):
        store = store.store
    return os.fsencode(store.root) + b"\0" if type(store) is LocalStore else None


def _joined_keys(plan: ReadPlan, keys: list[str]) -> tuple[bytes, Int64s] | None:
    """Keys, each ended by a zero, and the place of each read's; None if no file can have one.

    Reads of one object share one place, so that its file is opened once.
    """
    joined = "\0".join(keys) + "\0"
    if ".." in joined or joined.count("\0") != len(keys):
        return None
    try:
        names = os.fsencode(joined)
    except UnicodeEncodeError:
        return None
    ends = np.flatnonzero(np.frombuffer(names, np.uint8) == 0)
    places = np.zeros(len(keys), np.int64)
    places[1:] = ends[:-1] + 1
    reads = plan.reads
    again = np.zeros(len(keys), np.bool_)
    again[1:] = (reads.array[1:] == reads.array[:-1]) & (
        reads.object_id[1:] == reads.object_id[:-1]
    )
    places[again] = 0
    return names, np.maximum.accumulate(places) if len(places) else places
