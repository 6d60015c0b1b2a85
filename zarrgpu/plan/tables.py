"""The columnar form of a plan: one row per read, chunk and piece, never an object per chunk."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zarrgpu.model import ArraySpec
from zarrgpu.plan.request import ReadRequest

Int32s = NDArray[np.int32]
Int64s = NDArray[np.int64]


def group_starts(group: Int32s, n: int) -> Int64s:
    """First row of each of `n` groups in a sorted column, and the number of rows."""
    starts = np.zeros(n + 1, np.int64)
    np.cumsum(np.bincount(group, minlength=n), out=starts[1:])
    return starts


@dataclass(frozen=True, slots=True, eq=False)
class PieceTable:
    """Projections: box ``src`` of a chunk goes to box ``dst`` of an output (P rows).

    Attributes
    ----------
    chunk : int32 (P,)
        Row of the chunk table; for fill pieces the index of the array whose fill value is used.
    output : int32 (P,)
        Which box of the request.
    src : int64 (ndim, P)
        First element within the chunk, array axes; steps are the request's. Zero for fill pieces.
    dst : int64 (ndim, P)
        First element within the output box.
    extent : int64 (ndim, P)
        Elements per axis, at least 1.
    """

    chunk: Int32s
    output: Int32s
    src: Int64s
    dst: Int64s
    extent: Int64s

    def __len__(self) -> int:
        return len(self.chunk)

    def take(self, rows: NDArray[Any] | slice) -> PieceTable:
        """Subset of the rows."""
        boxes = (self.src, self.dst, self.extent)
        if isinstance(rows, slice):
            src, dst, extent = (table[:, rows] for table in boxes)
        else:  # row by row: faster than indexing the second axis
            rows = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
            src, dst, extent = (
                np.stack([axis.take(rows) for axis in table])
                if len(table)
                else np.empty((0, len(rows)), np.int64)
                for table in boxes
            )
        return PieceTable(self.chunk[rows], self.output[rows], src, dst, extent)

    @property
    def elements(self) -> Int64s:
        """Elements of each piece."""
        return np.asarray(np.prod(self.extent, axis=0, dtype=np.int64))

    @staticmethod
    def concatenate(tables: list[PieceTable], ndim: int) -> PieceTable:
        """Rows of all tables, in order."""
        if len(tables) == 1:
            return tables[0]
        empty = np.empty((ndim, 0), np.int64)
        return PieceTable(
            np.concatenate([np.empty(0, np.int32), *(t.chunk for t in tables)]),
            np.concatenate([np.empty(0, np.int32), *(t.output for t in tables)]),
            np.concatenate([empty, *(t.src for t in tables)], axis=1),
            np.concatenate([empty, *(t.dst for t in tables)], axis=1),
            np.concatenate([empty, *(t.extent for t in tables)], axis=1),
        )


@dataclass(frozen=True, slots=True, eq=False)
class ChunkWindows:
    """Parts of chunks that are read or decoded instead of the whole (C rows).

    Attributes
    ----------
    origin, shape : int64 (ndim, C)
        Box within the chunk, array axes; pieces count from `origin`.
    start, nbytes : int64 (C,)
        The box as a range of the decoded chunk.
    whole : bool (C,)
        The box is all of the chunk.
    """

    origin: Int64s
    shape: Int64s
    start: Int64s
    nbytes: Int64s
    whole: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class ChunkTable:
    """Chunks to decode, each once, sorted by array and place in the store (C rows).

    Attributes
    ----------
    array : int32 (C,)
    chunk_id : int64 (C,)
        Position in the array's chunk grid, C order.
    object_id : int64 (C,)
        The stored object: chunk id, shard id or 0, by the array's location.
    offset, nbytes : int64 (C,)
        Encoded bytes within the object; nbytes is UNKNOWN_NBYTES for a whole object.
    read : int32 (C,)
        Row of the read table that brings it.
    direct : bool (C,)
        Its decoded bytes are one contiguous run of the output, as they are.
    piece_start : int64 (C + 1,)
        Its pieces are rows ``piece_start[c]:piece_start[c + 1]``.
    windows : ChunkWindows or None
        None if all chunks are read whole.
    """

    array: Int32s
    chunk_id: Int64s
    object_id: Int64s
    offset: Int64s
    nbytes: Int64s
    read: Int32s
    direct: NDArray[np.bool_]
    piece_start: Int64s
    windows: ChunkWindows | None = None

    def __len__(self) -> int:
        return len(self.array)


@dataclass(frozen=True, slots=True, eq=False)
class ReadTable:
    """Byte ranges to fetch after coalescing (R rows).

    Attributes
    ----------
    array : int32 (R,)
    object_id, offset, nbytes : int64 (R,)
        nbytes is UNKNOWN_NBYTES for a whole object.
    chunk_start : int64 (R + 1,)
        It brings chunks ``chunk_start[r]:chunk_start[r + 1]``.
    """

    array: Int32s
    object_id: Int64s
    offset: Int64s
    nbytes: Int64s
    chunk_start: Int64s

    def __len__(self) -> int:
        return len(self.array)

    @staticmethod
    def of_chunks(chunks: ChunkTable) -> ReadTable:
        """Reads that the ``read`` column of a chunk table asks for: from first to last byte."""
        offset, nbytes = chunks.offset, chunks.nbytes
        chunk_start = group_starts(chunks.read, int(chunks.read[-1]) + 1 if len(chunks) else 0)
        first = chunk_start[:-1]
        begin, size = offset[first], nbytes[first]
        if len(first):  # windows of chunks that share their bytes need not ascend
            begin = np.minimum.reduceat(offset, first)
            reached = np.maximum.reduceat(offset + np.maximum(nbytes, 0), first)
            size = np.where(size < 0, size, reached - begin)
        return ReadTable(chunks.array[first], chunks.object_id[first], begin, size, chunk_start)


@dataclass(frozen=True, slots=True, eq=False)
class ReadPlan:
    """All that a read will do, decided before any of it is done.

    Attributes
    ----------
    request : ReadRequest
    reads : ReadTable
    chunks : ChunkTable
    pieces : PieceTable
        Sorted by chunk.
    fills : PieceTable
        Parts of the output that no stored chunk covers.
    base : tuple of int
        Which of the arrays that were asked for each of `arrays` is. These come first, as they were
        given; then one for each chunk shape of those whose chunks differ in shape, and one for each
        whose missing chunks are substituted.
    """

    request: ReadRequest
    reads: ReadTable
    chunks: ChunkTable
    pieces: PieceTable
    fills: PieceTable
    base: tuple[int, ...]

    @property
    def arrays(self) -> tuple[ArraySpec, ...]:
        """Arrays that are read."""
        return self.request.arrays

    @property
    def fetch_nbytes(self) -> int:
        """Bytes of all ranges whose size is known before they are read."""
        known = self.reads.nbytes[self.reads.nbytes > 0]
        return int(known.sum())

    @property
    def num_unsized_reads(self) -> int:
        """Whole objects, whose size is known once they are read."""
        return int((self.reads.nbytes < 0).sum())

    @property
    def decoded_nbytes(self) -> int:
        """Bytes of all decoded chunks, or parts of chunks, in their stored type."""
        if self.chunks.windows is not None:
            return int(self.chunks.windows.nbytes.sum())
        sizes = np.array([spec.chunk_nbytes for spec in self.arrays], np.int64)
        return int(sizes[self.chunks.array].sum())

    @property
    def output_elements(self) -> int:
        """Elements of the result."""
        return math.prod(self.request.output_shape)
