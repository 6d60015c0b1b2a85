"""Bringing a wave of chunks into pinned memory, decoded there where the device has no decoder."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from zarrgpu.codecs.device import DeviceChain
from zarrgpu.decode import absent_error, decode_row, encoded_bytes
from zarrgpu.devices.cuda import Slot
from zarrgpu.devices.host import available_cores, run_threads, scratch
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

ENCODED, DECODED, ABSENT = 0, 1, 2


@dataclass(frozen=True, slots=True, eq=False)
class WaveRows:
    """Chunks of one wave and where they are in its payload (n rows).

    Attributes
    ----------
    row : int64 (n,)
        Ascending rows of the plan's chunk table.
    state : int8 (n,)
        ENCODED, DECODED, or ABSENT: its pieces are the fill value.
    offset, nbytes : int64 (n,)
        In the payload.
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
        self._payload = slot.payload
        self._options = options
        self._failed = failed
        self.fetched_bytes = 0

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
        counts = run_threads(partial(self._read, wave), tasks, threads)
        self.fetched_bytes += sum(counts)
        self._payload.settle()
        return wave

    def decode_on_host(self, wave: WaveRows, places: Int64s) -> None:
        """Decode chunks that were fetched for the device and that it cannot decode."""
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
