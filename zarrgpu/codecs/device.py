"""Which chains a device decodes, and the tables that tell it how: pure NumPy, no device.

A device chain is at most one compressor below any number of crc32c trailers. Streams are checked
before they are handed to a library that trusts its input; what does not pass is decoded on the
host, which either succeeds or says what is wrong. The same holds for what a device could decode but
not verify: zlib and gzip trailers, and zstd frames with a content checksum.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from zarrgpu.codecs.base import CodecChain
from zarrgpu.codecs.blosc import HEADER_NBYTES
from zarrgpu.codecs.blosc_streams import LIBRARY_FORMATS, parse_containers
from zarrgpu.codecs.crc32c import TRAILER_NBYTES
from zarrgpu.codecs.zstd_frames import frames_valid
from zarrgpu.devices.driver import LibraryFormat
from zarrgpu.model import ByteArray

Int64s = NDArray[np.int64]

DEVICE_DECODERS = {
    "bytes": "no decoding needed",
    "crc32c": "nvCOMP",
    "zstd": "nvCOMP",
    "lz4": "nvCOMP",
    "blosc": "nvCOMP and own kernels; blosclz and zlib streams on the host",
}
"""Codec -> what decodes it on a CUDA device."""

WORK_ALIGNMENT = 16
_LZ4_HEADER_NBYTES = 4


@dataclass(frozen=True, slots=True)
class DeviceChain:
    """A chain that a device can run.

    Attributes
    ----------
    trailers : int
        Number of crc32c trailers around the compressor.
    compressor : str or None
    """

    trailers: int
    compressor: str | None


@dataclass(slots=True, eq=False)
class StreamTable:
    """Streams for one library decoder (S rows)."""

    row: Int64s
    source: Int64s
    source_nbytes: Int64s
    target: Int64s
    target_nbytes: Int64s


@dataclass(slots=True, eq=False)
class DecodeTables:
    """What a device has to do for n chunks of one chain.

    Sources are positions in the payload as it was fetched, targets positions in a work area.

    Attributes
    ----------
    on_device : bool (n,)
        Chunks that the device decodes; the others are the host's.
    result : int64 (n,)
        Position of each decoded chunk.
    in_work : bool (n,)
        Whether `result` is in the work area, else in the payload.
    shuffle_block_nbytes : int64 (n,)
        Block size of results that are still shuffled by bytes, else 0.
    checks : tuple of int64 arrays
        (row, source, nbytes, expected CRC-32C).
    streams : dict of str to StreamTable
        By library format.
    copies : StreamTable
        Streams that are stored as they are.
    unshuffle_bytes, unshuffle_bits : StreamTable
        Blocks to unshuffle within the work area, with `typesize` in ``source_nbytes``.
    work_nbytes : int
    """

    on_device: NDArray[np.bool_]
    result: Int64s
    in_work: NDArray[np.bool_]
    shuffle_block_nbytes: Int64s
    checks: tuple[Int64s, Int64s, Int64s, Int64s]
    streams: dict[LibraryFormat, StreamTable] = field(default_factory=dict)
    copies: StreamTable | None = None
    unshuffle_bytes: StreamTable | None = None
    unshuffle_bits: StreamTable | None = None
    work_nbytes: int = 0


def device_chain(chain: CodecChain) -> DeviceChain | None:
    """Recognise a chain that a device can run; None if it cannot."""
    names = [codec.name for codec in chain.codecs]
    trailers = 0
    while names and names[-1] == "crc32c":
        names.pop()
        trailers += 1
    if len(names) > 1 or (names and (names[0] not in DEVICE_DECODERS or names[0] == "crc32c")):
        return None
    return DeviceChain(trailers, names[0] if names else None)


def decode_tables(
    chain: DeviceChain,
    payload: ByteArray,
    offset: Int64s,
    nbytes: Int64s,
    *,
    chunk_nbytes: int,
    itemsize: int,
    verify_checksums: bool,
) -> DecodeTables:
    """Say what a device has to do to decode n fetched chunks of one array.

    Parameters
    ----------
    chain : DeviceChain
    payload : uint8 array
        Fetched bytes, in host memory.
    offset, nbytes : int64 (n,)
        Each encoded chunk in `payload`.
    chunk_nbytes, itemsize : int
        Decoded size of a chunk and of an element.
    verify_checksums : bool
    """
    n = len(offset)
    tables = DecodeTables(
        on_device=nbytes > TRAILER_NBYTES * chain.trailers,
        result=np.zeros(n, np.int64),
        in_work=np.zeros(n, np.bool_),
        shuffle_block_nbytes=np.zeros(n, np.int64),
        checks=(np.empty(0, np.int64),) * 4,
    )
    nbytes = _strip_trailers(
        tables, chain.trailers, payload, offset, nbytes, verify=verify_checksums
    )
    if chain.compressor is None:
        tables.on_device &= nbytes == chunk_nbytes
        tables.result = offset
    elif chain.compressor == "blosc":
        _blosc(tables, payload, offset, nbytes, chunk_nbytes, itemsize)
    elif chain.compressor == "lz4":
        tables.on_device &= _lz4_valid(payload, offset, nbytes, chunk_nbytes)
        head = _LZ4_HEADER_NBYTES
        _whole_streams(tables, "lz4", offset + head, nbytes - head, chunk_nbytes)
    else:
        full = np.full(n, chunk_nbytes, np.int64)
        tables.on_device &= frames_valid(
            payload, offset, nbytes, full, allow_checksum=not verify_checksums
        )
        _whole_streams(tables, "zstd", offset, nbytes, chunk_nbytes)
    return tables


def _strip_trailers(
    tables: DecodeTables,
    trailers: int,
    payload: ByteArray,
    offset: Int64s,
    nbytes: Int64s,
    *,
    verify: bool,
) -> Int64s:
    """Take crc32c trailers off, outermost first, and note what they must be."""
    checks = []
    rows = np.flatnonzero(tables.on_device)
    for _ in range(trailers):
        nbytes = nbytes - TRAILER_NBYTES
        at = (offset + nbytes)[rows]
        raw = np.ascontiguousarray(payload[at[:, None] + np.arange(TRAILER_NBYTES)])
        checks.append((rows, offset[rows], nbytes[rows], raw.view("<u4")[:, 0].astype(np.int64)))
    if verify and checks:
        row, source, size, expected = (np.concatenate(c) for c in zip(*checks, strict=True))
        tables.checks = (row, source, size, expected)
    return nbytes


def _whole_streams(
    tables: DecodeTables,
    library_format: LibraryFormat,
    source: Int64s,
    nbytes: Int64s,
    chunk_nbytes: int,
) -> None:
    """One stream per chunk, decoded into the work area."""
    rows = np.flatnonzero(tables.on_device)
    target = _reserve(tables, rows, chunk_nbytes)
    full = np.full(len(rows), chunk_nbytes, np.int64)
    tables.streams[library_format] = StreamTable(rows, source[rows], nbytes[rows], target, full)


def _reserve(tables: DecodeTables, rows: Int64s, chunk_nbytes: int) -> Int64s:
    """Places in the work area for the results of `rows`."""
    place = tables.work_nbytes + np.arange(len(rows), dtype=np.int64) * _aligned(chunk_nbytes)
    tables.result[rows] = place
    tables.in_work[rows] = True
    tables.work_nbytes += len(rows) * _aligned(chunk_nbytes)
    return place


def _aligned(nbytes: int) -> int:
    return -(-nbytes // WORK_ALIGNMENT) * WORK_ALIGNMENT


def _lz4_valid(
    payload: ByteArray, offset: Int64s, nbytes: Int64s, chunk_nbytes: int
) -> NDArray[np.bool_]:
    """Chunks whose size header says the expected size."""
    valid = nbytes > _LZ4_HEADER_NBYTES
    said = np.full(len(offset), -1, np.int64)
    raw = np.ascontiguousarray(payload[offset[valid, None] + np.arange(_LZ4_HEADER_NBYTES)])
    said[valid] = raw.view("<u4")[:, 0]
    valid &= said == chunk_nbytes
    return valid


def _blosc(
    tables: DecodeTables,
    payload: ByteArray,
    offset: Int64s,
    nbytes: Int64s,
    chunk_nbytes: int,
    itemsize: int,
) -> None:
    """Streams, stored parts and blocks to unshuffle of Blosc containers."""
    parsed = parse_containers(payload, offset, nbytes, chunk_nbytes)
    tables.on_device &= parsed.understood
    coded = np.flatnonzero(tables.on_device & ~parsed.memcpyed)
    tables.result[:] = np.where(parsed.memcpyed, offset + HEADER_NBYTES, 0)
    _reserve(tables, coded, chunk_nbytes)
    decoded_at = tables.result.copy()
    whole = parsed.blocksize % np.maximum(parsed.typesize, 1) == 0
    fused = (parsed.shuffle == 1) & (parsed.typesize == itemsize) & whole
    tables.shuffle_block_nbytes = np.where(fused & tables.in_work, parsed.blocksize, 0)
    apart = coded[(parsed.shuffle[coded] != 0) & ~fused[coded]]
    _reserve(tables, apart, chunk_nbytes)  # the result moves; streams decode to where it was
    base = decoded_at[parsed.stream_row]
    for code, name in ((0, None), *LIBRARY_FORMATS.items()):
        rows = parsed.stream_format == code
        if not rows.any():
            continue
        table = StreamTable(
            parsed.stream_row[rows],
            parsed.stream_source[rows],
            parsed.stream_nbytes[rows],
            (base + parsed.stream_target)[rows],
            parsed.stream_decoded[rows],
        )
        if name is None:
            tables.copies = table
        else:
            tables.streams[name] = table
    moved = np.zeros(len(offset), np.bool_)
    moved[apart] = True
    for kind, attribute in ((1, "unshuffle_bytes"), (2, "unshuffle_bits")):
        rows = moved[parsed.block_row] & (parsed.shuffle[parsed.block_row] == kind)
        if rows.any():
            row = parsed.block_row[rows]
            table = StreamTable(
                row,
                decoded_at[row] + parsed.block_target[rows],
                parsed.typesize[row],
                tables.result[row] + parsed.block_target[rows],
                parsed.block_nbytes[rows],
            )
            setattr(tables, attribute, table)
