"""What a selection needs of a shard: its pieces, and where their bytes lie.

The index is decoded by us and asked through zarr-python's own `_ShardIndex`, so that both read the
same entry. Inner chunks whose bytes are close together are fetched in one request.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zarrgpu.codecs.base import CodecError
from zarrgpu.codecs.shard_index import decode_shard_index
from zarrgpu.interop.zarr_python.decoder import ShardDecoder
from zarrgpu.interop.zarr_python.piece import Piece, chunk_error, is_basic
from zarrgpu.model import MISSING_NBYTES, ByteArray, ByteRange
from zarrgpu.plan.coalesce import coalesce_ranges

_WHOLE_SHARE = 0.75
"""Of a shard's inner chunks: with at least so many wanted, the shard is read in one request."""


@dataclass(frozen=True, slots=True, eq=False)
class ShardPart:
    """Part of a shard that is wanted.

    Attributes
    ----------
    decoder : ShardDecoder
    owner : object
        zarr-python's byte getter of the shard.
    pieces : list of (tuple of int, Piece)
        With the coordinates of the inner chunk; one chunk may have several pieces.
    finish : callable
        To be called when all pieces are placed.
    """

    decoder: ShardDecoder
    owner: Any
    pieces: list[tuple[tuple[int, ...], Piece]]
    finish: Callable[[], None] | None

    @property
    def wants_most(self) -> bool:
        """Whether one request for the whole shard is better than two rounds."""
        wanted = len({coords for coords, _ in self.pieces})
        return wanted >= _WHOLE_SHARE * math.prod(self.decoder.grid)

    @property
    def index_at_end(self) -> bool:
        """Whether the index follows the inner chunks."""
        return self.decoder.location.index_location == "end"

    def fill(self, value: Any) -> None:
        """The shard is not stored."""
        for _, piece in self.pieces:
            piece.fill(value)

    def locate(self, encoded_index: ByteArray) -> list[tuple[ByteRange | None, Piece]]:
        """Byte range of each piece's chunk, or None where it is not stored, from the index."""
        index = self._decode_index(encoded_index)
        found: dict[tuple[int, ...], ByteRange | None] = {}
        located = []
        for coords, piece in self.pieces:
            if coords not in found:
                entry = index.get_chunk_slice(coords)
                found[coords] = entry and ByteRange(entry[0], entry[1] - entry[0])
            located.append((found[coords], piece))
        return located

    def index_of(self, shard: ByteArray) -> ByteArray:
        """Encoded index within the bytes of the shard, or of its end or start."""
        nbytes = self.decoder.location.index_nbytes
        return shard[max(0, shard.size - nbytes) :] if self.index_at_end else shard[:nbytes]

    def _decode_index(self, encoded: ByteArray) -> Any:
        from zarr.codecs.sharding import _ShardIndex

        location, chain = self.decoder.location, self.decoder.index_chain
        try:
            if encoded.size < location.index_nbytes:
                msg = f"{encoded.size} bytes are too short to hold its index"
                raise CodecError(msg)
            offsets, nbytes = decode_shard_index(
                chain,
                encoded,
                endian=location.index_endian,
                chunk_nbytes=self.decoder.inner.chain.widest_nbytes,
            )
        except CodecError as error:
            msg = f"shard index: {error}"
            raise chunk_error(self.owner, None, msg, "sharding_indexed") from error
        found = _ShardIndex.create_empty(self.decoder.grid)
        stored = nbytes != MISSING_NBYTES
        table = np.stack([offsets, nbytes], axis=-1)
        found.offsets_and_lengths.reshape(-1, 2)[stored] = table[stored]
        return found


def shard_part(
    decoder: ShardDecoder,
    owner: Any,
    chunk: Any,
    selection: Any,
    target: NDArray[Any],
    out_selection: Any,
    drop_axes: tuple[int, ...],
) -> ShardPart:
    """Break a selection of a shard into pieces of its inner chunks.

    Parameters
    ----------
    decoder : ShardDecoder
    owner : object
        zarr-python's byte getter of the shard.
    chunk : zarr.core.array_spec.ArraySpec
        Of the shard.
    selection, target, out_selection, drop_axes
        As in `Piece`, for the shard.
    """
    indexer = _indexer(selection, chunk.shape, decoder.inner.spec.chunk_shape)
    part = target[out_selection] if is_basic(out_selection) and not drop_axes else None
    finish = None
    if part is None or part.shape != indexer.shape or hasattr(indexer, "sel_shape"):
        part = np.empty(indexer.shape, target.dtype)
        shape = getattr(indexer, "sel_shape", indexer.shape)

        def finish(part: NDArray[Any] = part) -> None:
            chosen = part.reshape(shape)
            target[out_selection] = chosen.squeeze(axis=drop_axes) if drop_axes else chosen

    pieces = []
    for coords, chunk_selection, inner_out, whole, *_ in indexer:
        piece = Piece(
            decoder=decoder.inner,
            owner=owner,
            inner=tuple(coords),
            chunk_selection=chunk_selection,
            target=part,
            out_selection=inner_out,
            whole=whole,
        )
        pieces.append((tuple(coords), piece))
    return ShardPart(decoder, owner, pieces, finish)


def _indexer(selection: Any, shape: tuple[int, ...], chunk_shape: tuple[int, ...]) -> Any:
    """zarr-python's own indexer over the inner chunks."""
    from zarr.core import chunk_grids
    from zarr.core.indexing import get_indexer

    if hasattr(chunk_grids, "ChunkGrid") and hasattr(chunk_grids.ChunkGrid, "from_sizes"):
        grid = chunk_grids.ChunkGrid.from_sizes(shape, chunk_shape)
    else:  # before zarr-python 3.3
        grid = chunk_grids.RegularChunkGrid(chunk_shape=chunk_shape)
    return get_indexer(selection, shape=shape, chunk_grid=grid)


def coalesced(
    located: list[tuple[ByteRange, Piece]], *, max_gap_bytes: int, max_coalesced_bytes: int
) -> list[tuple[ByteRange, list[tuple[ByteRange, Piece]]]]:
    """Group byte ranges of one object into requests: the range to fetch and what lies in it."""
    if len(located) <= 1:  # the usual case of small reads needs no tables
        return [(byte_range, [(byte_range, piece)]) for byte_range, piece in located]
    located = sorted(located, key=lambda entry: entry[0].offset)
    offset = np.array([r.offset for r, _ in located], np.int64)
    nbytes = np.array([r.nbytes for r, _ in located], np.int64)
    reads = coalesce_ranges(
        np.zeros(len(located), np.int64),
        offset,
        nbytes,
        max_gap_bytes=max_gap_bytes,
        max_coalesced_bytes=max_coalesced_bytes,
    )
    groups: list[list[tuple[ByteRange, Piece]]] = [[] for _ in range(int(reads[-1]) + 1)]
    for read, entry in zip(reads.tolist(), located, strict=True):
        groups[read].append(entry)
    requests = []
    for group in groups:
        start, end = group[0][0].offset, max(r.end for r, _ in group)
        requests.append((ByteRange(start, end - start), group))
    return requests
