"""Blosc containers of a whole batch, taken apart into streams without a Python object per chunk.

Spec: see `blosc`. A container holds blocks, a block one stream per byte of an element (split) or
one in all; each stream is compressed on its own or stored. Headers are read with NumPy from the
bytes as they were fetched, and nothing that they say is used before it is checked: a container that
does not add up is left out, and the host decoder says what is wrong with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zarrgpu.codecs.blosc import HEADER_NBYTES
from zarrgpu.codecs.deflate_headers import zlib_streams
from zarrgpu.codecs.device_steps import read_bytes
from zarrgpu.codecs.zstd_frames import frames_valid
from zarrgpu.indexing import expand_counts
from zarrgpu.model import ByteArray

Int64s = NDArray[np.int64]

STORED, BLOSCLZ, LZ4, SNAPPY, ZLIB, ZSTD = -1, 0, 1, 2, 3, 4
FORMATS = {BLOSCLZ: "blosclz", LZ4: "lz4", SNAPPY: "snappy", ZLIB: "deflate", ZSTD: "zstd"}
"""Inner codec code -> step that decodes it: an own kernel or a library format."""

_SNAPPY_SIZE_NBYTES = 5
_LZ4_MAX_EXPANSION = 255

_FLAG_SHUFFLE, _FLAG_MEMCPYED, _FLAG_BITSHUFFLE, _FLAG_RESERVED, _FLAG_DONT_SPLIT = 1, 2, 4, 8, 16
_FORMAT_VERSION, _INNER_VERSION = 2, 1
_MAX_SPLITS, _MIN_SPLIT_ELEMENTS = 16, 128


@dataclass(frozen=True, slots=True, eq=False)
class BloscStreams:
    """Streams (S rows) and blocks (B rows) of n containers.

    Attributes
    ----------
    understood : bool (n,)
        Containers that a device can decode; the others have no rows here.
    memcpyed : bool (n,)
        Containers whose data follow the header as they are.
    stream_row, block_row : int64 (S,), (B,)
        Container of each stream and block.
    stream_source, stream_nbytes : int64 (S,)
        Encoded bytes, from the start of the payload.
    stream_target, stream_decoded : int64 (S,)
        Decoded bytes, from the start of the chunk.
    stream_format : int64 (S,)
        Key of `FORMATS`, or `STORED`.
    block_target, block_nbytes : int64 (B,)
        Decoded bytes of each block, from the start of the chunk.
    typesize, blocksize : int64 (n,)
    shuffle : int64 (n,)
        0 none, 1 by bytes, 2 by bits.
    """

    understood: NDArray[np.bool_]
    memcpyed: NDArray[np.bool_]
    stream_row: Int64s
    stream_source: Int64s
    stream_nbytes: Int64s
    stream_target: Int64s
    stream_decoded: Int64s
    stream_format: Int64s
    block_row: Int64s
    block_target: Int64s
    block_nbytes: Int64s
    typesize: Int64s
    blocksize: Int64s
    shuffle: Int64s


def read_int32(payload: ByteArray, at: Int64s) -> Int64s:
    """Little-endian int32 at any byte positions that lie inside `payload`."""
    return read_bytes(payload, at, 4).view("<i4")[:, 0].astype(np.int64)


def parse_containers(
    payload: ByteArray,
    offset: Int64s,
    nbytes: Int64s,
    decoded_nbytes: int,
) -> BloscStreams:
    """Take n containers apart.

    Parameters
    ----------
    payload : uint8 array
    offset, nbytes : int64 (n,)
        Where each container lies in `payload`.
    decoded_nbytes : int
        Size that every container must decode to.
    """
    header = _headers(payload, offset, nbytes)
    flags, typesize = header[:, 2].astype(np.int64), header[:, 3].astype(np.int64)
    blocksize = _sizes(header)[:, 1]
    memcpyed = (flags & _FLAG_MEMCPYED) != 0
    understood = _are_understood(header, nbytes, decoded_nbytes)
    n_blocks = -(-decoded_nbytes // np.maximum(blocksize, 1))
    understood &= memcpyed | (HEADER_NBYTES + 4 * n_blocks <= nbytes)
    n_blocks = np.where(understood & ~memcpyed, n_blocks, 0)
    block_row, number = expand_counts(n_blocks)
    block_target = number * blocksize[block_row]
    block_nbytes = np.minimum(blocksize[block_row], decoded_nbytes - block_target)
    streams, broken = _walk_blocks(
        payload,
        offset,
        nbytes,
        flags,
        typesize,
        blocksize,
        block_row,
        number,
        block_target,
        block_nbytes,
    )
    understood[broken] = False
    kept = understood[streams["row"]]
    blocks = understood[block_row]
    return BloscStreams(
        understood=understood,
        memcpyed=memcpyed & understood,
        stream_row=streams["row"][kept],
        stream_source=streams["source"][kept],
        stream_nbytes=streams["nbytes"][kept],
        stream_target=streams["target"][kept],
        stream_decoded=streams["decoded"][kept],
        stream_format=streams["format"][kept],
        block_row=block_row[blocks],
        block_target=block_target[blocks],
        block_nbytes=block_nbytes[blocks],
        typesize=typesize,
        blocksize=blocksize,
        shuffle=np.where(
            ((flags & _FLAG_SHUFFLE) != 0) & (typesize > 1),
            1,
            np.where((flags & _FLAG_BITSHUFFLE) != 0, 2, 0),
        ),
    )


def _headers(payload: ByteArray, offset: Int64s, nbytes: Int64s) -> NDArray[np.uint8]:
    """First 16 bytes of each container; zeros where it is shorter."""
    header = np.zeros((len(offset), HEADER_NBYTES), np.uint8)
    long_enough = nbytes >= HEADER_NBYTES
    header[long_enough] = read_bytes(payload, offset[long_enough], HEADER_NBYTES)
    return header


def _sizes(header: NDArray[np.uint8]) -> Int64s:
    """What headers say: decoded size, size of a block, encoded size."""
    return np.ascontiguousarray(header[:, 4:]).view("<i4").astype(np.int64)


def _are_understood(
    header: NDArray[np.uint8], nbytes: Int64s, decoded_nbytes: int
) -> NDArray[np.bool_]:
    """Whether headers are of containers of these sizes, and of kinds, that are known."""
    flags, said = header[:, 2].astype(np.int64), _sizes(header)
    memcpyed = (flags & _FLAG_MEMCPYED) != 0
    known = np.isin(flags >> 5, list(FORMATS))
    return np.asarray(
        (nbytes >= HEADER_NBYTES)
        & (header[:, 0] == _FORMAT_VERSION)
        & (memcpyed | (header[:, 1] == _INNER_VERSION))
        & (header[:, 3] > 0)
        & ((flags & _FLAG_RESERVED) == 0)
        & (said[:, 0] == decoded_nbytes)
        & (said[:, 2] == nbytes)
        & (decoded_nbytes > 0)
        & np.where(memcpyed, nbytes == decoded_nbytes + HEADER_NBYTES, known)
        & (said[:, 1] > 0)
        & (said[:, 1] <= decoded_nbytes)
    )


def _walk_blocks(
    payload: ByteArray,
    offset: Int64s,
    nbytes: Int64s,
    flags: Int64s,
    typesize: Int64s,
    blocksize: Int64s,
    row: Int64s,
    number: Int64s,
    block_target: Int64s,
    block_nbytes: Int64s,
) -> tuple[dict[str, Int64s], Int64s]:
    """Follow the streams of all blocks at once; return them and the containers that break off."""
    start = read_int32(payload, offset[row] + HEADER_NBYTES + 4 * number)
    limit = nbytes[row]
    leftover = block_nbytes != blocksize[row]
    split = (
        ((flags[row] & _FLAG_DONT_SPLIT) == 0)
        & (typesize[row] <= _MAX_SPLITS)
        & (block_nbytes // typesize[row] >= _MIN_SPLIT_ELEMENTS)
        & ~leftover
    )
    n_splits = np.where(split, typesize[row], 1)
    decoded = block_nbytes // n_splits
    at = start
    alive = (at >= HEADER_NBYTES) & (decoded * n_splits == block_nbytes)
    broken = [row[~alive]]
    parts: list[dict[str, Any]] = []
    for k in range(int(n_splits.max(initial=0))):
        alive &= n_splits > k
        here = np.flatnonzero(alive)
        inside = at[here] + 4 <= limit[here]
        broken.append(row[here[~inside]])
        here = here[inside]
        size = read_int32(payload, offset[row[here]] + at[here])
        good = (size > 0) & (size <= decoded[here]) & (at[here] + 4 + size <= limit[here])
        broken.append(row[here[~good]])
        here, size = here[good], size[good]
        source = offset[row[here]] + at[here] + 4
        code = np.where(size == decoded[here], STORED, flags[row[here]] >> 5)
        valid = _streams_valid(payload, source, size, decoded[here], code)
        broken.append(row[here[~valid]])
        parts.append(
            {
                "row": row[here],
                "source": source,
                "nbytes": size,
                "target": block_target[here] + k * decoded[here],
                "decoded": decoded[here],
                "format": code,
            }
        )
        alive = np.zeros_like(alive)
        alive[here] = True
        at = at.copy()
        at[here] += 4 + size
    names = ("row", "source", "nbytes", "target", "decoded", "format")
    empty = np.empty(0, np.int64)
    streams = {name: np.concatenate([empty, *(part[name] for part in parts)]) for name in names}
    return streams, np.concatenate(broken)


def _streams_valid(
    payload: ByteArray,
    source: Int64s,
    nbytes: Int64s,
    decoded: Int64s,
    code: Int64s,
) -> NDArray[np.bool_]:
    """Which streams of a block have a header that agrees with their sizes."""
    valid = np.ones(len(source), np.bool_)
    rows = np.flatnonzero(code == ZSTD)
    valid[rows] = frames_valid(
        payload, source[rows], nbytes[rows], decoded[rows], allow_checksum=False
    )
    rows = np.flatnonzero(code == ZLIB)
    valid[rows] = zlib_streams(payload, source[rows], nbytes[rows], decoded[rows]).valid
    rows = np.flatnonzero(code == SNAPPY)
    valid[rows] = _snappy_nbytes(payload, source[rows], nbytes[rows]) == decoded[rows]
    rows = np.flatnonzero(code == LZ4)
    valid[rows] = lz4_plausible(nbytes[rows], decoded[rows])
    return valid


def lz4_plausible(nbytes: Int64s, decoded_nbytes: Int64s | int) -> NDArray[np.bool_]:
    """Which LZ4 blocks can have the size that they are to decode to: a byte gives 255 at most."""
    return np.asarray(decoded_nbytes <= _LZ4_MAX_EXPANSION * nbytes)


def _snappy_nbytes(payload: ByteArray, source: Int64s, nbytes: Int64s) -> Int64s:
    """Decoded sizes that Snappy streams start with, as varints; -1 where one does not end."""
    said, found = np.zeros(len(source), np.int64), np.full(len(source), -1, np.int64)
    rows = np.arange(len(source))
    for k in range(_SNAPPY_SIZE_NBYTES):
        rows = rows[nbytes[rows] > k]
        byte = payload[source[rows] + k].astype(np.int64)
        said[rows] |= (byte & 0x7F) << (7 * k)
        ends = byte < 0x80
        found[rows[ends]] = said[rows[ends]]
        rows = rows[~ends]
    return found
