"""Tables that tell a device how to decompress chunks, one function for each compressor.

Streams are checked before they are handed to a library that trusts its input; what does not pass is
left to the host. What a format stores to verify its content is verified after decoding.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from zarrgpu.codecs.blosc import HEADER_NBYTES
from zarrgpu.codecs.blosc_streams import (
    FORMATS,
    STORED,
    ZLIB,
    BloscStreams,
    lz4_plausible,
    parse_containers,
)
from zarrgpu.codecs.deflate_headers import (
    ZLIB_HEADER_NBYTES,
    ZLIB_TRAILER_NBYTES,
    DeflateStreams,
    gzip_streams,
    zlib_streams,
)
from zarrgpu.codecs.device_steps import (
    DECODED,
    FETCHED,
    STREAMS,
    DecodeTables,
    Int64s,
    read_word,
)
from zarrgpu.codecs.zstd_frames import CHECKSUM_NBYTES, frames_valid, have_checksums
from zarrgpu.devices.tables import ChecksumKind

_DEFLATE_ALIGNMENT = 4
_LZ4_HEADER_NBYTES = 4


def stored(tables: DecodeTables, offset: Int64s, nbytes: Int64s, decoded: int, item: int) -> None:
    """Chunks without a compressor: they are where they were fetched to."""
    del item
    tables.on_device &= nbytes == decoded
    tables.result = offset


def zstd(tables: DecodeTables, offset: Int64s, nbytes: Int64s, decoded: int, item: int) -> None:
    """One frame a chunk; a content checksum is verified."""
    del item
    full = np.full(len(offset), decoded, np.int64)
    tables.on_device &= frames_valid(tables.payload, offset, nbytes, full, allow_checksum=True)
    rows = _whole_streams(tables, "zstd", offset, nbytes, decoded)
    rows = rows[have_checksums(tables.payload, offset[rows])]
    end = (offset + nbytes)[rows]
    tables.verify_checksum(
        DECODED, ChecksumKind.XXH64, rows, tables.result[rows], full[rows], end - CHECKSUM_NBYTES
    )


def lz4(tables: DecodeTables, offset: Int64s, nbytes: Int64s, decoded: int, item: int) -> None:
    """A size, then one LZ4 block a chunk."""
    del item
    valid = nbytes > _LZ4_HEADER_NBYTES
    said = np.full(len(offset), -1, np.int64)
    said[valid] = read_word(tables.payload, offset[valid])
    head = _LZ4_HEADER_NBYTES
    tables.on_device &= valid & (said == decoded) & lz4_plausible(nbytes - head, decoded)
    _whole_streams(tables, "lz4", offset + head, nbytes - head, decoded)


def zlib(tables: DecodeTables, offset: Int64s, nbytes: Int64s, decoded: int, item: int) -> None:
    """A zlib stream a chunk: raw deflate, then its Adler-32."""
    del item
    full = np.full(len(offset), decoded, np.int64)
    streams = zlib_streams(tables.payload, offset, nbytes, full)
    _deflate(tables, streams, decoded, ChecksumKind.ADLER32, big_endian=True)


def gzip(tables: DecodeTables, offset: Int64s, nbytes: Int64s, decoded: int, item: int) -> None:
    """A gzip member a chunk: raw deflate, then its CRC-32."""
    del item
    full = np.full(len(offset), decoded, np.int64)
    streams = gzip_streams(tables.payload, offset, nbytes, full)
    _deflate(tables, streams, decoded, ChecksumKind.CRC32, big_endian=False)


def _deflate(
    tables: DecodeTables,
    streams: DeflateStreams,
    decoded: int,
    kind: ChecksumKind,
    *,
    big_endian: bool,
) -> None:
    tables.on_device &= streams.valid
    rows = np.flatnonzero(tables.on_device)
    source = streams.source.copy()
    source[rows] = _aligned(tables, rows, source[rows], streams.nbytes[rows])
    rows = _whole_streams(tables, "deflate", source, streams.nbytes, decoded)
    tables.verify_checksum(
        DECODED, kind, rows, tables.result[rows], np.full(len(rows), decoded, np.int64),
        streams.stored[rows], big_endian=big_endian,
    )  # fmt: skip


def _aligned(tables: DecodeTables, row: Int64s, source: Int64s, nbytes: Int64s) -> Int64s:
    """Positions of deflate streams, of which those that the library cannot read are copied."""
    moved = np.flatnonzero(source % _DEFLATE_ALIGNMENT != 0)
    target = tables.reserve(nbytes[moved])
    tables.add(
        FETCHED, "copy_segments", row=row[moved], source=source[moved], target=target,
        nbytes=nbytes[moved],
    )  # fmt: skip
    source = source.copy()
    source[moved] = target
    return source


def lzw(tables: DecodeTables, offset: Int64s, nbytes: Int64s, decoded: int, item: int) -> None:
    """A TIFF LZW stream a chunk."""
    del item
    _whole_streams(tables, "lzw", offset, nbytes, decoded, reversed=0)


def lzw_reversed(
    tables: DecodeTables, offset: Int64s, nbytes: Int64s, decoded: int, item: int
) -> None:
    """The same with the bits of each byte in reverse."""
    del item
    _whole_streams(tables, "lzw", offset, nbytes, decoded, reversed=1)


def tiff_packbits(
    tables: DecodeTables, offset: Int64s, nbytes: Int64s, decoded: int, item: int
) -> None:
    """A TIFF PackBits stream a chunk."""
    del item
    _whole_streams(tables, "packbits_runs", offset, nbytes, decoded, reversed=0)


def tiff_packbits_reversed(
    tables: DecodeTables, offset: Int64s, nbytes: Int64s, decoded: int, item: int
) -> None:
    """The same with the bits of each byte in reverse."""
    del item
    _whole_streams(tables, "packbits_runs", offset, nbytes, decoded, reversed=1)


def _whole_streams(
    tables: DecodeTables,
    name: str,
    source: Int64s,
    nbytes: Int64s,
    decoded: int,
    **columns: int,
) -> Int64s:
    """One stream per chunk, decoded into the work area; returns the rows."""
    rows = np.flatnonzero(tables.on_device)
    target = tables.reserve(np.full(len(rows), decoded, np.int64))
    tables.result[rows] = target
    tables.add(
        STREAMS, name, row=rows, source=source[rows], source_nbytes=nbytes[rows], target=target,
        nbytes=decoded, **columns,
    )  # fmt: skip
    return rows


def blosc(tables: DecodeTables, offset: Int64s, nbytes: Int64s, decoded: int, item: int) -> None:
    """Streams, stored parts and blocks to unshuffle of Blosc containers.

    A byte shuffle of whole elements of `item` bytes is left to the gather.
    """
    parsed = parse_containers(tables.payload, offset, nbytes, decoded)
    tables.on_device &= parsed.understood
    coded = np.flatnonzero(tables.on_device & ~parsed.memcpyed)
    tables.result[:] = np.where(parsed.memcpyed, offset + HEADER_NBYTES, 0)
    room = np.full(len(offset), decoded, np.int64)
    tables.result[coded] = tables.reserve(room[coded])
    decoded_at = tables.result.copy()
    whole = parsed.blocksize % np.maximum(parsed.typesize, 1) == 0
    fused = (parsed.shuffle == 1) & (parsed.typesize == item) & whole & ~parsed.memcpyed
    fused &= tables.on_device
    tables.shuffle_block_nbytes = np.where(fused, parsed.blocksize, 0)
    apart = coded[(parsed.shuffle[coded] != 0) & ~fused[coded]]
    tables.result[apart] = tables.reserve(room[apart])  # streams decode to where it was
    _blosc_streams(tables, parsed, decoded_at)
    moved = np.zeros(len(offset), np.bool_)
    moved[apart] = True
    for shuffle, kernel in ((1, "unshuffle_bytes"), (2, "unshuffle_bits")):
        blocks = moved[parsed.block_row] & (parsed.shuffle[parsed.block_row] == shuffle)
        row, at = parsed.block_row[blocks], parsed.block_target[blocks]
        tables.add(
            DECODED, kernel, row=row, source=decoded_at[row] + at, target=tables.result[row] + at,
            nbytes=parsed.block_nbytes[blocks], typesize=parsed.typesize[row],
        )  # fmt: skip


def _blosc_streams(tables: DecodeTables, parsed: BloscStreams, decoded_at: Int64s) -> None:
    target = decoded_at[parsed.stream_row] + parsed.stream_target
    for code in np.unique(parsed.stream_format).tolist():
        mine = parsed.stream_format == code
        row, source, nbytes = (
            column[mine]
            for column in (parsed.stream_row, parsed.stream_source, parsed.stream_nbytes)
        )
        decoded = parsed.stream_decoded[mine]
        columns = {"row": row, "target": target[mine], "nbytes": decoded}
        if code == STORED:
            tables.add(FETCHED, "copy_segments", source=source, **columns)
            continue
        if code == ZLIB:
            tables.verify_checksum(
                DECODED, ChecksumKind.ADLER32, row, target[mine], decoded,
                source + nbytes - ZLIB_TRAILER_NBYTES, big_endian=True,
            )  # fmt: skip
            nbytes = nbytes - ZLIB_HEADER_NBYTES - ZLIB_TRAILER_NBYTES
            source = _aligned(tables, row, source + ZLIB_HEADER_NBYTES, nbytes)
        tables.add(STREAMS, FORMATS[code], source=source, source_nbytes=nbytes, **columns)


COMPRESSORS: dict[str | None, Callable[[DecodeTables, Int64s, Int64s, int, int], None]] = {
    None: stored, "zstd": zstd, "lz4": lz4, "zlib": zlib, "gzip": gzip, "blosc": blosc, "lzw": lzw,
    "lzw_reversed": lzw_reversed, "tiff_packbits": tiff_packbits,
    "tiff_packbits_reversed": tiff_packbits_reversed,
}  # fmt: skip
"""Codec -> (tables, offset, nbytes, decoded size, item size): what decodes n encoded chunks."""

REVERSED = {"lzw": "lzw_reversed", "tiff_packbits": "tiff_packbits_reversed"}
"""Codec -> what decodes its streams where the bits of each byte are reversed (FillOrder 2)."""
