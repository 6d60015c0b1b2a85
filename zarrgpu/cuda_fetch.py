"""Bringing a wave of chunks into pinned memory, decoded there where the device has no decoder.

Chunks of local files go straight into device memory where that can be (`cuda_direct`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from zarrgpu.codecs.device import DeviceChain
from zarrgpu.cuda_direct import DirectReads, gds_in_use, plan_direct, start_direct
from zarrgpu.decode import absent_error, decode_row, encoded_bytes
from zarrgpu.devices.cuda import Slot
from zarrgpu.devices.host import available_cores, run_threads, scratch
from zarrgpu.devices.landing import landing_of
from zarrgpu.errors import DataError
from zarrgpu.fetch import (
    ArraySource,
    brings_one_chunk,
    fetch_chunk,
    fetch_read,
    num_io_threads,
)
from zarrgpu.model import ByteArray, ReadOptions
from zarrgpu.plan.tables import Int64s, ReadPlan

ENCODED, DECODED, ABSENT, ARRIVED = 0, 1, 2, 3


@dataclass(frozen=True, slots=True, eq=False)
class WaveRows:
    """Chunks of one wave and where they are in its payload (n rows).

    Attributes
    ----------
    row : int64 (n,)
        Ascending rows of the plan's chunk table.
    state : int8 (n,)
        ENCODED, DECODED, ABSENT: its pieces are the fill value, or ARRIVED: encoded, and on the
        device only.
    offset, nbytes : int64 (n,)
        In the payload; of what ARRIVED, in the slot's landing.
    """

    row: Int64s
    state: NDArray[np.int8]
    offset: Int64s
    nbytes: Int64s


class WaveFetcher:
    """Fetches the chunks of one wave; its methods run on many threads.

    Parameters
    ----------
    plan : ReadPlan
    sources : tuple of ArraySource
    chains : list of (DeviceChain or None)
        Per array; None decodes on the host.
    slot : Slot
    options : ReadOptions
    failed : list or None
        As for `host_engine.execute`.
    """

    def __init__(
        self,
        plan: ReadPlan,
        sources: tuple[ArraySource, ...],
        chains: list[DeviceChain | None],
        slot: Slot,
        options: ReadOptions,
        failed: list[tuple[int, DataError]] | None,
    ) -> None:
        self._plan = plan
        self._sources = sources
        self._chains = chains
        self._slot = slot
        self._payload = slot.payload
        self._options = options
        self._failed = failed
        self._direct: DirectReads | None = None
        self.fetched_bytes = 0
        self.direct_bytes = 0

    def choose_direct(self, rows: Int64s) -> NDArray[np.bool_]:
        """Choose those of the given rows of the chunk table that `fetch` shall not bring here."""
        if not gds_in_use(self._slot.driver, self._options):
            return np.zeros(len(rows), np.bool_)
        reads = self._plan.chunks.read[rows].astype(np.int64)
        landing = self._slot.landing
        refused = () if landing is None or self._options.gds else landing.refused
        self._direct = plan_direct(
            self._plan, self._sources, self._chains, np.unique(reads), self._options, refused
        )
        return np.isin(reads, self._direct.row)

    @property
    def arriving_nbytes(self) -> int:
        """Bytes of the slot's landing that are used."""
        return 0 if self._direct is None else self._direct.arriving_nbytes

    def fetch(self, rows: Int64s) -> WaveRows:
        """Fetch (and, where needed, decode) the given rows of the chunk table."""
        n = len(rows)
        wave = WaveRows(
            rows, np.full(n, ABSENT, np.int8), np.zeros(n, np.int64), np.zeros(n, np.int64)
        )
        reads, first = np.unique(self._plan.chunks.read[rows], return_index=True)
        bounds = [*first.tolist(), n]
        tasks = [
            (int(read), range(bounds[i], bounds[i + 1])) for i, read in enumerate(reads.tolist())
        ]
        threads = max((num_io_threads(s.store, self._options) for s in self._sources), default=1)
        if self._direct is not None and self._direct.reads:
            tasks = self._fetch_direct(wave, self._direct, tasks, threads)
        counts = run_threads(partial(self._read, wave), tasks, threads)
        self.fetched_bytes += sum(counts)
        self._payload.settle()
        return wave

    def _fetch_direct(
        self,
        wave: WaveRows,
        direct: DirectReads,
        tasks: list[tuple[int, range]],
        threads: int,
    ) -> list[tuple[int, range]]:
        """Make the direct reads, and meanwhile the others; returns what is still to be done."""
        chosen = set(direct.row.tolist())
        others = [task for task in tasks if task[0] not in chosen]
        wait = start_direct(
            self._slot.driver, self._slot, direct, required=self._options.gds is True
        )
        try:
            self.fetched_bytes += sum(run_threads(partial(self._read, wave), others, threads))
        finally:  # nothing may arrive any more once this memory is used for something else
            good = wait()
        self.direct_bytes += int(direct.nbytes[good].sum())
        self.fetched_bytes += int(direct.nbytes[good].sum())
        chunks = self._plan.chunks
        read = chunks.read[wave.row].astype(np.int64)
        at = np.minimum(np.searchsorted(direct.row, read), len(direct.row) - 1)
        arrived = np.flatnonzero((direct.row[at] == read) & good[at])
        at, row = at[arrived], wave.row[arrived]
        whole = chunks.nbytes[row] < 0
        inside = np.where(whole, 0, chunks.offset[row] - self._plan.reads.offset[read[arrived]])
        wave.offset[arrived] = direct.start[at] + inside
        wave.nbytes[arrived] = np.where(whole, direct.nbytes[at], chunks.nbytes[row])
        wave.state[arrived] = ARRIVED
        bad = set(direct.row[~good].tolist())
        return [task for task in tasks if task[0] in bad]

    def bring_back(self, wave: WaveRows, places: Int64s) -> None:
        """Copy chunks that arrived on the device into the payload, as if fetched there."""
        places = places[wave.state[places] == ARRIVED]
        if not len(places):
            return
        landing, driver = landing_of(self._slot), self._slot.driver
        taken = [self._payload.take(n)[0] for n in wave.nbytes[places].tolist()]
        self._payload.settle()
        for place, at in zip(places.tolist(), taken, strict=True):
            source = landing.address + int(wave.offset[place])
            driver.copy_to_host(
                self._payload.ptr + at, source, int(wave.nbytes[place]), landing.slot.stream
            )
        landing.slot.stream.synchronize()
        wave.offset[places], wave.state[places] = taken, ENCODED

    def decode_on_host(self, wave: WaveRows, places: Int64s) -> None:
        """Decode chunks that were fetched for the device and that it cannot decode."""
        self.bring_back(wave, places)
        payload = self._payload.array

        def decode(place: int) -> None:
            at, nbytes = int(wave.offset[place]), int(wave.nbytes[place])
            self._decode(wave, place, payload[at : at + nbytes])

        run_threads(decode, places.tolist(), self._options.num_threads or available_cores())
        self._payload.settle()

    def _read(self, wave: WaveRows, task: tuple[int, range]) -> int:
        read, places = task
        on_device = self._chains[self._plan.reads.array[read]] is not None
        taken: list[tuple[int, ByteArray]] = []

        def allocate(nbytes: int) -> ByteArray:
            taken.append(self._payload.take(nbytes))
            return taken[-1][1]

        try:
            data = fetch_read(
                self._plan,
                self._sources,
                read,
                allocate if on_device else partial(scratch, "encoded"),
            )
        except DataError as error:
            if brings_one_chunk(self._plan, read):
                self._fail(wave, places[0], error)
                return 0
            return sum(self._read_alone(wave, place, on_device=on_device) for place in places)
        if data is None:
            for place in places:
                self._absent(wave, place)
            return 0
        if not on_device:
            for place in places:
                encoded = encoded_bytes(self._plan, int(wave.row[place]), data)
                self._decode(wave, place, encoded)
            return data.size
        if not taken or data is not taken[-1][1]:  # the store brought memory of its own
            allocate(data.size)[:] = data
        at = taken[-1][0]
        for place in places:
            chunk = encoded_bytes(self._plan, int(wave.row[place]), data)
            inside = chunk.ctypes.data - data.ctypes.data if chunk.size else 0
            wave.offset[place], wave.nbytes[place] = at + inside, chunk.size
            wave.state[place] = ENCODED
        return data.size

    def _read_alone(self, wave: WaveRows, place: int, *, on_device: bool) -> int:
        """Fetch one chunk of a failed range: those beside the bad one are good."""
        row = int(wave.row[place])
        try:
            data = fetch_chunk(self._plan, self._sources, row, partial(scratch, "encoded"))
        except DataError as error:
            self._fail(wave, place, error)
            return 0
        if data is None:
            self._absent(wave, place)
            return 0
        if on_device:
            at, memory = self._payload.take(data.size)
            memory[:] = data
            wave.offset[place], wave.nbytes[place] = at, data.size
            wave.state[place] = ENCODED
        else:
            self._decode(wave, place, data)
        return data.size

    def _absent(self, wave: WaveRows, place: int) -> None:
        """Let a chunk whose object is not stored be the fill value, if nothing promised bytes."""
        broken = absent_error(self._plan, int(wave.row[place]))
        if broken is not None:
            self._fail(wave, place, broken)

    def _decode(self, wave: WaveRows, place: int, encoded: ByteArray) -> None:
        """Decode one chunk into the payload."""
        row = int(wave.row[place])
        chain = self._sources[self._plan.chunks.array[row]].chain
        at, target = self._payload.take(chain.decoded_nbytes)
        try:
            decoded = decode_row(self._plan, chain, row, encoded, target)
        except DataError as error:
            self._fail(wave, place, error)
            return
        if decoded is not target:
            target[:] = decoded
        wave.offset[place], wave.nbytes[place] = at, decoded.size
        wave.state[place] = DECODED

    def _fail(self, wave: WaveRows, place: int, error: DataError) -> None:
        if self._failed is None:
            raise error
        self._failed.append((int(wave.row[place]), error))
        wave.state[place] = ABSENT
