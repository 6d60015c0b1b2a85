"""Zstandard frames of a whole batch, checked before a device decodes them.

Spec: RFC 8878, 3.1.1. A device library trusts what it is given; a frame whose header and blocks do
not add up to exactly the stored bytes and the expected size is left to the host, which either
decodes it or says what is wrong with it; `zstd_blocks` looks into the blocks.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from zarrgpu.codecs.zstd_blocks import BLOCK_MAX, RLE, Blocks, frames_add_up
from zarrgpu.model import ByteArray

Int64s = NDArray[np.int64]

_MAGIC = 0xFD2FB528
_HEADER_MAX = 14
_HEADER_MIN = 6
_WINDOW_MAX = 1 << 27  # what decoders take without being asked to (RFC 8878 recommends 8 MiB)
CHECKSUM_NBYTES = 4
_FLAG_CHECKSUM = 4


def frames_valid(
    payload: ByteArray,
    offset: Int64s,
    nbytes: Int64s,
    decoded_nbytes: Int64s,
    *,
    allow_checksum: bool,
) -> NDArray[np.bool_]:
    """Which of n streams are one whole frame of the expected size and nothing else.

    Parameters
    ----------
    payload : uint8 array
    offset, nbytes : int64 (n,)
        Each stream within `payload`; streams of fewer bytes than a frame has may lie anywhere.
    decoded_nbytes : int64 (n,)
    allow_checksum : bool
        Whether a frame may have a content checksum, which no library verifies.
    """
    valid = nbytes >= _HEADER_MIN
    head = np.zeros((len(offset), _HEADER_MAX), np.uint8)
    for k in range(_HEADER_MAX):
        has = valid & (nbytes > k)
        head[has, k] = payload[offset[has] + k]
    descriptor = head[:, 4].astype(np.int64)
    single = (descriptor >> 5) & 1
    size_code = descriptor >> 6
    size_nbytes = np.where(size_code == 0, single, 1 << size_code)
    at = 6 - single
    wanted = decoded_nbytes - np.where(size_code == 1, 256, 0)
    has_checksum = (descriptor & _FLAG_CHECKSUM) != 0
    valid &= (
        (head[:, :4] == np.array([_MAGIC], "<u4").view(np.uint8)).all(axis=1)
        & ((descriptor & 0b1011) == 0)  # no dictionary, reserved bit clear
        & (allow_checksum | ~has_checksum)
        & (size_nbytes > 0)
        & (wanted >= 0)
    )
    rows = np.arange(len(offset))
    for k in range(8):
        stored = head[rows, np.minimum(at + k, _HEADER_MAX - 1)]
        valid &= (k >= size_nbytes) | (stored == (wanted >> (8 * k)) & 0xFF)
    valid &= (size_nbytes == 8) | (wanted >> (8 * np.minimum(size_nbytes, 7)) == 0)
    window = _window_nbytes(head[:, 5].astype(np.int64))
    window = np.where(single == 1, decoded_nbytes, window)
    valid &= window <= np.maximum(_WINDOW_MAX, decoded_nbytes)
    end = offset + nbytes - np.where(has_checksum, CHECKSUM_NBYTES, 0)
    ended, blocks = _follow_blocks(payload, offset + at + size_nbytes, end, decoded_nbytes, valid)
    valid &= ended
    kept = valid[blocks.frame]
    columns = (blocks.frame, blocks.number, blocks.at, blocks.nbytes, blocks.kind, blocks.decoded)
    blocks = Blocks(*(column[kept] for column in columns))
    return valid & frames_add_up(payload, blocks, np.minimum(window, BLOCK_MAX), decoded_nbytes)


def _window_nbytes(descriptor: Int64s) -> Int64s:
    """Window size of frames that are not one segment (RFC 8878, 3.1.1.1.2)."""
    base = np.int64(1) << (10 + (descriptor >> 3))
    return np.asarray(base + (base >> 3) * (descriptor & 7), np.int64)


def have_checksums(payload: ByteArray, offset: Int64s) -> NDArray[np.bool_]:
    """Which of n valid frames end in the low half of the XXH64 of their content."""
    return np.asarray((payload[offset + 4] & _FLAG_CHECKSUM) != 0)


def _follow_blocks(
    payload: ByteArray, at: Int64s, end: Int64s, decoded_nbytes: Int64s, valid: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], Blocks]:
    """Follow the block headers from `at`: which frames' last blocks end exactly at `end`."""
    ends = np.zeros(len(at), np.bool_)
    rows = np.flatnonzero(valid)
    parts: list[tuple[Int64s, ...]] = []
    # many more blocks than any encoder makes are not worth following
    for number in range(int(decoded_nbytes.max(initial=0)) // (16 << 10) + 1024):
        rows = rows[at[rows] + 3 <= end[rows]]
        if not len(rows):
            break
        raw = payload[at[rows, None] + np.arange(3)].astype(np.int64)
        header = raw[:, 0] | raw[:, 1] << 8 | raw[:, 2] << 16
        kind, size = (header >> 1) & 3, header >> 3
        stored = np.where(kind == RLE, 1, size)
        parts.append((rows, np.full(len(rows), number), at[rows] + 3, stored, kind, size))
        at[rows] += 3 + stored
        fits = (kind < 3) & (size <= BLOCK_MAX) & (at[rows] <= end[rows])
        last = (header & 1) == 1
        done = rows[fits & last]
        ends[done] = at[done] == end[done]
        rows = rows[fits & ~last]
    empty = [(np.empty(0, np.int64),) * 6]
    return ends, Blocks(*(np.concatenate(column) for column in zip(*empty, *parts, strict=True)))
