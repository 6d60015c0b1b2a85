"""Tiles that a slide has lost, made from its finer level when they are read.

The rule is OpenSlide's (`formats.missing_tiles`), the filter is ours: a pixel is the mean of the
area that it covers on the finer level, rounded. OpenSlide draws with Cairo's filter, which differs
by a few grey levels. Where the finer level has no pixels either (a tile missing at level 0) it
counts as its fill value; OpenSlide leaves it transparent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from zarrgpu import reader
from zarrgpu.errors import StoreError
from zarrgpu.fetch import ArraySource
from zarrgpu.model import MISSING_NBYTES, ArraySpec, ByteArray, ByteRange, Manifest, ReadOptions
from zarrgpu.output import output_format
from zarrgpu.plan.request import ReadRequest
from zarrgpu.stores.base import Allocate, new_bytes

_BLOCK_NBYTES: Final = 64 << 20
_ONE_THREAD: Final = ReadOptions(num_threads=1, io_concurrency=1)
"""The caller is a thread of a pool already; a pool that waits for itself stands still."""


class RenderedTiles:
    """A store with one object: the missing chunks of a level, uncompressed.

    Parameters
    ----------
    substitute : ArraySpec
        What the chunks belong to, axes (y, x, c); its location says where in the object they lie.
    finer : ArraySource
        The level that they are made from.
    shrink : float
        Pixels of the finer level per pixel.
    """

    def __init__(self, substitute: ArraySpec, finer: ArraySource, shrink: float) -> None:
        location = substitute.location
        assert isinstance(location, Manifest)
        self._spec, self._finer, self._shrink = substitute, finer, max(shrink, 1.0)
        self._chunks = np.flatnonzero(location.nbytes != MISSING_NBYTES)
        self._offsets = location.offsets[self._chunks]
        self.url = substitute.source
        self.io_concurrency = finer.store.io_concurrency
        self.max_gap_bytes = 0
        self.max_coalesced_bytes = substitute.chunk_nbytes

    def over(self, substitute: ArraySpec, finer: ArraySource) -> RenderedTiles:
        """Make the same tiles of a finer level that has another fill value."""
        return RenderedTiles(substitute, finer, self._shrink)

    def get(
        self, key: str, allocate: Allocate = new_bytes, max_nbytes: int | None = None
    ) -> ByteArray | None:
        """Not to be had: the object is as large as all its chunks."""
        raise self._only_ranges(key)

    def get_suffix(self, key: str, nbytes: int) -> ByteArray | None:
        """Not to be had."""
        raise self._only_ranges(key)

    def size(self, key: str) -> int | None:
        """Not known."""
        return None

    def list_dir(self, prefix: str) -> list[str]:
        """No names."""
        return []

    def get_range(
        self, key: str, byte_range: ByteRange, allocate: Allocate = new_bytes
    ) -> ByteArray | None:
        """Bytes of one chunk, or of a part of it: only the rows that hold them are made."""
        at = int(np.searchsorted(self._offsets, byte_range.offset, side="right")) - 1
        begin = byte_range.offset - int(self._offsets[at]) if at >= 0 else -1
        end = begin + byte_range.nbytes
        if begin < 0 or end > self._spec.chunk_nbytes:
            raise self._only_ranges(key)
        row_nbytes = self._spec.chunk_nbytes // self._spec.chunk_shape[0]
        first, last = begin // row_nbytes, -(-end // row_nbytes)
        rows = self._tile_rows(int(self._chunks[at]), first, last)
        data = rows.reshape(-1).view(np.uint8)[begin - first * row_nbytes :][: byte_range.nbytes]
        out = allocate(byte_range.nbytes)  # after the reads, which use the same memory
        out[:] = data
        return out

    def _only_ranges(self, key: str) -> StoreError:
        return StoreError(f"{self.url!r} key {key!r}: not a range within one rendered tile")

    def _tile_rows(self, chunk: int, first: int, last: int) -> NDArray[Any]:
        """Rows ``[first, last)`` of a tile; what overhangs the level is 0."""
        spec = self._spec
        height, width, samples = spec.chunk_shape
        row, column = divmod(chunk, spec.grid_shape[1])
        left, right = column * width, min((column + 1) * width, spec.shape[1])
        top, bottom = row * height + first, min(row * height + last, spec.shape[0])
        tile = np.zeros((last - first, width, samples), spec.dtype)
        # a pixel takes so many bytes of the finer level, as float64
        cost = self._shrink**2 * samples * 8
        across = max(min(right - left, int(_BLOCK_NBYTES / cost)), 1)
        down = max(int(_BLOCK_NBYTES / cost / across), 1)
        for y in range(top, bottom, down):
            for x in range(left, right, across):
                block = self._shrunk(y, min(y + down, bottom), x, min(x + across, right))
                height, width = block.shape[:2]
                tile[y - top : y - top + height, x - left : x - left + width] = block
        return tile

    def _shrunk(self, top: int, bottom: int, left: int, right: int) -> NDArray[Any]:
        """Pixels ``[top, bottom) x [left, right)`` of the level, from the finer one."""
        height, width, samples = self._finer.spec.shape
        rows = _Cover.of(top, bottom, self._shrink, height)
        columns = _Cover.of(left, right, self._shrink, width)
        request = ReadRequest(
            arrays=(self._finer.spec,),
            array_index=np.zeros(1, np.int32),
            start=np.array([[rows.first, columns.first, 0]], np.int64),
            count=(rows.count, columns.count, samples),
            step=(1, 1, 1),
        )
        pixels, _ = reader.read(
            (self._finer,),
            request,
            output=output_format(self._finer.spec.dtype),
            device="cpu",
            options=_ONE_THREAD,
        )
        means = columns.means(rows.means(pixels[0], axis=0), axis=1)
        return np.floor(means + 0.5) if self._spec.dtype.kind in "iu" else means


@dataclass(frozen=True, slots=True, eq=False)
class _Cover:
    """What pixels of a level cover of the finer one along an axis.

    Attributes
    ----------
    first, count : int
        Finer pixels that are met.
    begin, end : float64 arrays
        Ends of what each pixel covers, from `first` on; at least a part of the last finer pixel.
    """

    first: int
    count: int
    begin: NDArray[np.float64]
    end: NDArray[np.float64]

    @classmethod
    def of(cls, begin: int, end: int, shrink: float, size: int) -> _Cover:
        """Cover of pixels ``[begin, end)``; the finer level has `size` pixels."""
        edges = np.arange(begin, end + 1) * shrink
        low, high = np.minimum(edges[:-1], size - 1), np.minimum(edges[1:], size)
        first = int(low[0])
        return cls(first, math.ceil(high[-1]) - first, low - first, high - first)

    def means(self, values: NDArray[Any], *, axis: int) -> NDArray[np.float64]:
        """Mean of what each pixel covers of `values` along an axis."""
        rows = np.moveaxis(np.asarray(values, np.float64), axis, 0)
        sums = np.zeros((len(rows) + 1, *rows.shape[1:]))
        np.cumsum(rows, axis=0, out=sums[1:])
        shape = (-1, *(1,) * (rows.ndim - 1))

        def sum_to(edge: NDArray[np.float64]) -> NDArray[np.float64]:
            whole = np.minimum(edge.astype(np.int64), len(rows) - 1)
            total: NDArray[np.float64] = sums[whole] + rows[whole] * (edge - whole).reshape(shape)
            return total

        means = (sum_to(self.end) - sum_to(self.begin)) / (self.end - self.begin).reshape(shape)
        return np.moveaxis(means, 0, axis)
