"""A plan's ranges on the CPU: fetch one, decode its chunks, place their pieces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zarrgpu.chunk_cache import CachedChunk
from zarrgpu.decode import absent_error, decode_elements, decode_row, encoded_bytes
from zarrgpu.devices.host import scratch
from zarrgpu.devices.native import address
from zarrgpu.errors import DataError
from zarrgpu.fetch import ArraySource, brings_one_chunk, fetch_chunk, fetch_read
from zarrgpu.gather import PieceSlices, convert_chunk, gather_fills, gather_pieces
from zarrgpu.model import ByteArray
from zarrgpu.native_engine import NativeRun
from zarrgpu.output import OutputFormat
from zarrgpu.plan.tables import Int64s, PieceTable, ReadPlan


@dataclass(frozen=True, slots=True, eq=False)
class HostRun:
    """One execution; its methods run on many threads.

    Attributes
    ----------
    plan, sources, out, output, failed
        As for `host_engine.execute`.
    slices : PieceSlices or None
        None where `native` places the pieces.
    converts : bool
        Whether elements are cast, normalised or laid out anew.
    axis_order : tuple of int
        Array axes from slowest to fastest in `out`.
    piece_elements : int64 (C,)
        Elements of all pieces of each chunk.
    keys : list of str
        Of the object of each read.
    cached : list of (CachedChunk or None), or None
        What earlier reads have left of each chunk; None if no array has a cache.
    native : NativeRun or None
        Decodes what it can of what is fetched, and places all pieces.
    """

    plan: ReadPlan
    sources: tuple[ArraySource, ...]
    out: NDArray[Any]
    output: OutputFormat
    slices: PieceSlices | None
    failed: list[tuple[int, DataError]] | None
    converts: bool
    axis_order: tuple[int, ...]
    piece_elements: Int64s
    keys: list[str]
    cached: list[CachedChunk | None] | None
    native: NativeRun | None

    def read(self, read: int) -> tuple[int, int, int]:
        """Fetch one range, decode and place its chunks; return fetched bytes, decoded, missing."""
        rows = self._wanted_rows(read)
        if not rows:
            return 0, 0, 0
        try:
            data = fetch_read(
                self.plan, self.sources, read, partial(scratch, "encoded"), self.keys[read]
            )
        except DataError as error:
            if not brings_one_chunk(self.plan, read):
                return self._read_apart(rows)
            self._fail(rows[0], error)
            return 0, 0, 0
        if data is None:
            for row in rows:
                self._absent(row)
            return 0, 0, len(rows)
        rest = rows if self.native is None else self.native.place(read, data, rows)
        for row in rest:
            try:
                self._chunk(row, encoded_bytes(self.plan, row, data))
            except DataError as error:
                self._fail(row, error)
        return data.size, len(rows), 0

    def _wanted_rows(self, read: int) -> Sequence[int]:
        """Chunks of a read that are to be fetched; cached ones are placed at once."""
        if self.native is not None:
            return self.native.rows_left(read)
        rows = range(*self.plan.reads.chunk_start[read : read + 2].tolist())
        return rows if self.cached is None else [row for row in rows if self._wanted(row)]

    def _wanted(self, row: int) -> bool:
        """Whether a chunk is to be fetched; a cached one is placed at once."""
        assert self.cached is not None
        chunk = self.cached[row]
        if chunk is not None:
            self._place(row, chunk.elements)
        return chunk is None

    def _read_apart(self, rows: Sequence[int]) -> tuple[int, int, int]:
        """Fetch the chunks of a failed range one by one: those beside the bad one are good."""
        fetched = decoded = missing = 0
        for row in rows:
            try:
                encoded = fetch_chunk(self.plan, self.sources, row, partial(scratch, "encoded"))
                if encoded is None:
                    self._absent(row)
                    missing += 1
                    continue
                self._chunk(row, encoded)
            except DataError as error:
                self._fail(row, error)
                continue
            fetched += encoded.size
            decoded += 1
        return fetched, decoded, missing

    def _fail(self, row: int, error: DataError) -> None:
        if self.failed is None:
            raise error
        self.failed.append((row, error))

    def _absent(self, row: int) -> None:
        """Pieces of an object that is not stored are the fill value, if nothing promised bytes."""
        error = absent_error(self.plan, row)
        if error is not None:
            self._fail(row, error)
        else:
            gather_fills(pieces_as_fills(self.plan, row), self.plan, self.out, self.output)

    def _chunk(self, row: int, encoded: ByteArray) -> None:
        chunks = self.plan.chunks
        source = self.sources[chunks.array[row]]
        if source.cache is not None and not source.spec.dtype.hasobject:
            self._place(row, self._keep(row, source, encoded))
        elif chunks.direct[row]:
            target = self._direct_target(int(chunks.piece_start[row]), source.chain.decoded_nbytes)
            decoded = decode_row(self.plan, source.chain, row, encoded, target)
            if decoded is not target:
                target[:] = decoded
        else:
            room = None
            if not source.spec.dtype.hasobject and (
                chunks.windows is None or chunks.windows.whole[row]
            ):
                room = scratch("decoded", source.chain.decoded_nbytes)
            self._place(row, decode_elements(self.plan, source.chain, row, encoded, room))

    def _keep(self, row: int, source: ArraySource, encoded: ByteArray) -> NDArray[Any]:
        """Decode a chunk into memory of its own and put it into the cache."""
        assert source.cache is not None
        room = np.empty(source.chain.decoded_nbytes, np.uint8)
        elements = decode_elements(self.plan, source.chain, row, encoded, room)
        if not np.may_share_memory(elements, room):  # a view of what was fetched
            elements = elements.copy(order="K")
        key = (source.cache_key, int(self.plan.chunks.chunk_id[row]))
        source.cache.put_many([(key, CachedChunk(elements, address(elements)))])
        return elements

    def _place(self, row: int, elements: NDArray[Any]) -> None:
        """Write the pieces of a decoded chunk."""
        if self.native is not None:
            self.native.put(row, elements)
            return
        assert self.slices is not None
        first, last = self.plan.chunks.piece_start[row : row + 2].tolist()
        channel = self._common_channel(row, first, last, elements)
        output: OutputFormat | None = self.output
        if channel is not None:
            memory = scratch("converted", elements.size * self.output.dtype.itemsize)
            elements = convert_chunk(elements, memory, self.output, self.axis_order, channel)
            output = None
        gather_pieces(elements, range(first, last), self.slices, self.out, output)

    def _common_channel(
        self, row: int, first: int, last: int, elements: NDArray[Any]
    ) -> int | None:
        """First channel of a chunk that is worth converting whole; None if it is not."""
        if not self.converts or self.piece_elements[row] < elements.size:
            return None
        axis = self.output.channel_axis
        if self.output.scale is None or self.output.scale.size == 1 or axis is None:
            return 0
        pieces = self.plan.pieces
        shift = pieces.dst[axis, first:last] - pieces.src[axis, first:last]
        channel = int(shift[0])
        inside = 0 <= channel <= self.output.scale.size - elements.shape[axis]
        same = bool((shift == channel).all()) and self.plan.request.step[axis] == 1
        return channel if inside and same else None

    def _direct_target(self, piece: int, nbytes: int) -> ByteArray:
        """Bytes of the output that a whole chunk is decoded into."""
        pieces = self.plan.pieces
        index = (int(pieces.output[piece]), *(int(d) for d in pieces.dst[:, piece]))
        strides = self.out.strides
        start = sum(i * s for i, s in zip(index, strides, strict=True))
        flat: ByteArray = self.out.reshape(-1).view(np.uint8)
        return flat[start : start + nbytes]


def make_run(
    plan: ReadPlan,
    sources: tuple[ArraySource, ...],
    out: NDArray[Any],
    output: OutputFormat,
    failed: list[tuple[int, DataError]] | None,
    keys: list[str],
    cached: list[CachedChunk | None] | None,
    native: NativeRun | None,
) -> HostRun:
    """Look at the output once: its slices, and whether chunks are converted on their way."""
    axis_order = _axis_order(out)
    elements = np.zeros(len(plan.chunks), np.int64)
    if len(plan.chunks):
        elements = np.add.reduceat(plan.pieces.elements, plan.chunks.piece_start[:-1])
    return HostRun(
        plan=plan,
        sources=sources,
        out=out,
        output=output,
        slices=PieceSlices(plan.pieces, plan.request, output) if native is None else None,
        failed=failed,
        converts=converts_elements(plan, out, output),
        axis_order=axis_order,
        piece_elements=elements,
        keys=keys,
        cached=cached,
        native=native,
    )


def _axis_order(out: NDArray[Any]) -> tuple[int, ...]:
    """Array axes from slowest to fastest in the output."""
    return tuple(int(a) for a in np.argsort([-s for s in out.strides[1:]], kind="stable"))


def converts_elements(plan: ReadPlan, out: NDArray[Any], output: OutputFormat) -> bool:
    """Whether elements are cast, normalised or laid out anew."""
    plain = all(output.is_plain(spec.dtype) for spec in plan.arrays)
    order = _axis_order(out)
    return not (plain and order == tuple(range(len(order)))) and not output.dtype.hasobject


def pieces_as_fills(plan: ReadPlan, row: int) -> PieceTable:
    """Pieces of one chunk as fill pieces of its array."""
    first, last = plan.chunks.piece_start[row : row + 2].tolist()
    pieces = plan.pieces.take(slice(first, last))
    return replace(pieces, chunk=np.full(len(pieces), plan.chunks.array[row], np.int32))
