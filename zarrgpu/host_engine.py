"""Running a plan on the CPU: each thread fetches a range, decodes its chunks, places the pieces.

Chunks are decoded into memory that the thread uses again for the next, while it is in cache, or
straight into the output where the plan says so. So a read holds one range and one chunk per thread,
whatever its size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zarrgpu.chunk_cache import CachedChunk
from zarrgpu.decode import (
    absent_error,
    decode_elements,
    decode_row,
    encoded_bytes,
    read_keys,
)
from zarrgpu.devices.host import run_threads, scratch
from zarrgpu.devices.native import address
from zarrgpu.errors import DataError, MemoryBudgetError, SelectionError
from zarrgpu.fetch import (
    ArraySource,
    brings_one_chunk,
    fetch_chunk,
    fetch_read,
    num_io_threads,
)
from zarrgpu.gather import PieceSlices, convert_chunk, gather_fills, gather_pieces
from zarrgpu.model import ByteArray, ReadOptions
from zarrgpu.native_engine import NativeRun, native_run
from zarrgpu.output import OutputFormat
from zarrgpu.plan.tables import Int64s, PieceTable, ReadPlan
from zarrgpu.recycled import aligned_empty
from zarrgpu.stats import ReadStats


@dataclass(frozen=True, slots=True, eq=False)
class _Run:
    """One execution; its methods run on many threads.

    Attributes
    ----------
    plan, sources, out, output, failed
        As for `execute`.
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


def _make_run(
    plan: ReadPlan,
    sources: tuple[ArraySource, ...],
    out: NDArray[Any],
    output: OutputFormat,
    failed: list[tuple[int, DataError]] | None,
    keys: list[str],
    cached: list[CachedChunk | None] | None,
    native: NativeRun | None,
) -> _Run:
    """Look at the output once: its slices, and whether chunks are converted on their way."""
    axis_order = _axis_order(out)
    elements = np.zeros(len(plan.chunks), np.int64)
    if len(plan.chunks):
        elements = np.add.reduceat(plan.pieces.elements, plan.chunks.piece_start[:-1])
    return _Run(
        plan=plan,
        sources=sources,
        out=out,
        output=output,
        slices=PieceSlices(plan.pieces, plan.request, output) if native is None else None,
        failed=failed,
        converts=_converts(plan, out, output),
        axis_order=axis_order,
        piece_elements=elements,
        keys=keys,
        cached=cached,
        native=native,
    )


def _axis_order(out: NDArray[Any]) -> tuple[int, ...]:
    """Array axes from slowest to fastest in the output."""
    return tuple(int(a) for a in np.argsort([-s for s in out.strides[1:]], kind="stable"))


def _converts(plan: ReadPlan, out: NDArray[Any], output: OutputFormat) -> bool:
    """Whether elements are cast, normalised or laid out anew."""
    plain = all(output.is_plain(spec.dtype) for spec in plan.arrays)
    order = _axis_order(out)
    return not (plain and order == tuple(range(len(order)))) and not output.dtype.hasobject


def _cached_chunks(
    plan: ReadPlan, sources: tuple[ArraySource, ...]
) -> list[CachedChunk | None] | None:
    """Chunks that caches hold, by row of the chunk table; None if no array has a cache."""
    if all(source.cache is None for source in sources):
        return None
    found: list[CachedChunk | None] = [None] * len(plan.chunks)
    for index in np.unique(plan.chunks.array).tolist():
        source = sources[index]
        if source.cache is None or source.spec.dtype.hasobject:
            continue
        first, last = np.searchsorted(plan.chunks.array, [index, index + 1]).tolist()
        ids = plan.chunks.chunk_id[first:last].tolist()
        found[first:last] = source.cache.get_many([(source.cache_key, each) for each in ids])
    return found


def pieces_as_fills(plan: ReadPlan, row: int) -> PieceTable:
    """Pieces of one chunk as fill pieces of its array."""
    first, last = plan.chunks.piece_start[row : row + 2].tolist()
    pieces = plan.pieces.take(slice(first, last))
    return replace(pieces, chunk=np.full(len(pieces), plan.chunks.array[row], np.int32))


def allocate(
    shape: tuple[int, ...], order: tuple[int, ...], output: OutputFormat, out: Any
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Make or check the result, and view it with its axes in array order.

    Parameters
    ----------
    shape : tuple of int
        Of the result, ``(N, ...)``.
    order : tuple of int
        Array axis of each result axis after the first.
    output : OutputFormat
    out : array or None

    Returns
    -------
    result : array of `shape`
    view : the same memory, shape (N, *count)
    """
    if out is None:
        try:
            apart = output.dtype.hasobject or not output.dtype.itemsize
            make = np.empty if apart else aligned_empty
            result = make(shape, output.dtype)
        except (MemoryError, ValueError) as error:
            msg = f"no memory for a result of shape {shape} and type {output.dtype}: {error}"
            raise MemoryBudgetError(msg) from error
    elif not isinstance(out, np.ndarray):
        msg = f"out must be a NumPy array to read on the CPU, got {type(out).__name__}"
        raise SelectionError(msg)
    elif (
        out.dtype != output.dtype
        or out.size != math.prod(shape)
        or not (out.flags.c_contiguous and out.flags.writeable)
    ):
        msg = (
            f"out must be a writable C-contiguous array of shape {shape} and type {output.dtype}, "
            f"got shape {out.shape} and type {out.dtype}"
        )
        raise SelectionError(msg)
    else:
        result = out.reshape(shape)
    return result, result.transpose(0, *(1 + axis for axis in np.argsort(order)))


def _fitting_threads(
    plan: ReadPlan, converted_itemsize: int, threads: int, options: ReadOptions
) -> int:
    """At most `threads`, so that what they hold fits the budget; refuse a chunk that does not."""
    if not len(plan.chunks):
        return 1
    whole = np.array([spec.chunk_nbytes for spec in plan.arrays], np.int64)[plan.chunks.array]
    sizes = whole
    if plan.chunks.windows is not None:  # parts of these take the room of the whole
        names = {"zstd", "jpeg", "jpeg2k"}
        roomy = np.array([any(c.name in names for c in s.codecs) for s in plan.arrays], np.bool_)
        sizes = np.where(roomy[plan.chunks.array], whole, plan.chunks.windows.nbytes)
    decoded = int(np.where(plan.chunks.direct, 0, sizes).max())
    if decoded > options.memory_budget_bytes:
        spec = plan.arrays[plan.chunks.array[int(np.argmax(sizes))]]
        msg = (
            f"{spec.source!r}: a chunk of {list(spec.chunk_shape)} takes {decoded} bytes, "
            f"memory_budget_bytes is {options.memory_budget_bytes}; raise it in ReadOptions"
        )
        raise MemoryBudgetError(msg)
    encoded = max(int(plan.reads.nbytes.max()), int(whole.max()) if plan.num_unsized_reads else 0)
    converted = converted_itemsize * max(math.prod(s.chunk_shape) for s in plan.arrays)
    held = decoded + encoded + converted
    return max(1, min(threads, options.memory_budget_bytes // max(1, held)))


def execute(
    plan: ReadPlan,
    sources: tuple[ArraySource, ...],
    out: NDArray[Any],
    output: OutputFormat,
    options: ReadOptions,
    stats: ReadStats,
    failed: list[tuple[int, DataError]] | None,
) -> None:
    """Carry out a plan.

    Parameters
    ----------
    plan : ReadPlan
    sources : tuple of ArraySource
        One for each of the plan's arrays.
    out : array, shape (N, *count), axes in array order
        C-contiguous if the plan has direct chunks; otherwise any strides.
    output : OutputFormat
    options : ReadOptions
    stats : ReadStats
        Added to.
    failed : list, or None
        Gets (chunk row, error) of what could not be read, whose pieces become the fill value; None
        raises the first.
    """
    keys, cached = read_keys(plan), _cached_chunks(plan, sources)
    native = native_run(plan, sources, keys, out, output, cached) if options.native else None
    threads = max((num_io_threads(source.store, options) for source in sources), default=1)
    converts = native is None and _converts(plan, out, output)
    threads = _fitting_threads(plan, output.dtype.itemsize * converts, threads, options)
    reads: Sequence[int] = range(len(plan.reads))
    if native is not None and native.is_local:
        reads = native.drain(threads)
        stats.fetched_bytes += native.fetched_nbytes
        stats.chunks_decoded += native.num_decoded
        stats.chunks_missing += native.num_missing
    if reads:
        run = _make_run(plan, sources, out, output, failed, keys, cached, native)
        for fetched, decoded, missing in run_threads(run.read, reads, threads):
            stats.fetched_bytes += fetched
            stats.chunks_decoded += decoded
            stats.chunks_missing += missing
    if native is not None and native.fills:
        native.fill()
    else:
        gather_fills(plan.fills, plan, out, output)
    for row, _ in failed or ():
        gather_fills(pieces_as_fills(plan, row), plan, out, output)
    stats.chunks_cached += sum(chunk is not None for chunk in cached or ())
    stats.decoded_bytes += plan.decoded_nbytes
