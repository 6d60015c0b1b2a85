"""Where the deflate streams of zlib and gzip chunks are, found and checked for a whole batch.

Spec: RFC 1950 (zlib), RFC 1952 (gzip), RFC 1951 3.2.3 (deflate's block headers). What is not one
plain stream, or can be seen not to give the expected size, is left to the host, which either
decodes it or says what is wrong with it.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zarrgpu.codecs.device_steps import Int64s, read_bytes, read_word
from zarrgpu.model import ByteArray

ZLIB_HEADER_NBYTES, ZLIB_TRAILER_NBYTES = 2, 4
_GZIP_HEADER_NBYTES, _GZIP_TRAILER_NBYTES = 10, 8
_FHCRC, _FEXTRA, _FNAME, _FCOMMENT, _RESERVED = 2, 4, 8, 16, 0xE0
_MAX_TEXT_NBYTES = 4096
_MAX_EXPANSION = 1032  # a match of 258 bytes takes 2 bits at least
_MIN_STREAM_NBYTES = 2
_MAX_LITERAL_CODES, _MAX_DISTANCE_CODES = 286, 30
_DYNAMIC_NBYTES = 10  # bits up to the last code length of the code lengths' code: 17 + 19 * 3


@dataclass(frozen=True, slots=True, eq=False)
class DeflateStreams:
    """Raw deflate streams of n chunks; those that are not valid have no meaningful numbers.

    Attributes
    ----------
    valid : bool (n,)
    source, nbytes : int64 (n,)
        The raw stream, from the start of the payload.
    stored : int64 (n,)
        Where the checksum of the decoded bytes is: Adler-32 big-endian, or CRC-32 little-endian.
    """

    valid: NDArray[np.bool_]
    source: Int64s
    nbytes: Int64s
    stored: Int64s


def zlib_streams(
    payload: ByteArray, offset: Int64s, nbytes: Int64s, decoded_nbytes: Int64s
) -> DeflateStreams:
    """Take the header and the Adler-32 off n zlib streams.

    Parameters
    ----------
    payload : uint8 array
    offset, nbytes : int64 (n,)
    decoded_nbytes : int64 (n,)
        Expected size of each.
    """
    body = nbytes - ZLIB_HEADER_NBYTES - ZLIB_TRAILER_NBYTES
    valid = body >= _MIN_STREAM_NBYTES
    head = np.zeros((len(offset), 2), np.int64)
    head[valid] = read_bytes(payload, offset[valid], 2)
    method, flags = head[:, 0], head[:, 1]
    valid &= (method & 15) == 8
    valid &= method >> 4 <= 7  # a window of at most 32 KiB
    valid &= (method << 8 | flags) % 31 == 0
    valid &= (flags & 0x20) == 0  # no preset dictionary
    source = offset + ZLIB_HEADER_NBYTES
    valid &= _plausible(payload, source, body, decoded_nbytes, valid)
    return DeflateStreams(valid, source, body, source + body)


def gzip_streams(
    payload: ByteArray, offset: Int64s, nbytes: Int64s, decoded_nbytes: Int64s
) -> DeflateStreams:
    """Take the header and the trailer off n gzip members; see `zlib_streams`.

    A chunk of several members, or with padding, does not end in its own size, or not decode to it.
    """
    least = _GZIP_HEADER_NBYTES + _MIN_STREAM_NBYTES + _GZIP_TRAILER_NBYTES
    valid = nbytes >= least
    head = np.zeros((len(offset), 4), np.int64)
    head[valid] = read_bytes(payload, offset[valid], 4)
    valid &= (head[:, :3] == (0x1F, 0x8B, 8)).all(axis=1)
    flags = np.where(valid, head[:, 3], 0)
    valid &= (flags & _RESERVED) == 0
    start = np.full(len(offset), _GZIP_HEADER_NBYTES, np.int64)
    for i in np.flatnonzero(valid & (flags > 1)).tolist():  # writers of chunks use no such fields
        at = int(offset[i])
        start[i] = _header_nbytes(payload[at : at + int(nbytes[i])], int(flags[i]))
    body = nbytes - start - _GZIP_TRAILER_NBYTES
    valid &= (start > 0) & (body >= _MIN_STREAM_NBYTES)
    source = offset + start
    said = np.full(len(offset), -1, np.int64)
    said[valid] = read_word(payload, (offset + nbytes)[valid] - 4)
    valid &= said == decoded_nbytes & 0xFFFFFFFF
    valid &= _plausible(payload, source, body, decoded_nbytes, valid)
    return DeflateStreams(valid, source, body, source + body)


def _header_nbytes(chunk: ByteArray, flags: int) -> int:
    """Size of a gzip header with optional fields; 0 if it is cut off, long or damaged."""
    at = _GZIP_HEADER_NBYTES
    if flags & _FEXTRA:
        if chunk.size < at + 2:
            return 0
        at += 2 + int(chunk[at]) + 256 * int(chunk[at + 1])
    for flag in (_FNAME, _FCOMMENT):
        if flags & flag:
            text = chunk[at : at + _MAX_TEXT_NBYTES]
            ends = np.flatnonzero(text == 0)
            if not len(ends):
                return 0
            at += int(ends[0]) + 1
    if flags & _FHCRC:
        said = chunk[at : at + 2].tobytes()
        if (zlib.crc32(chunk[:at].data) & 0xFFFF).to_bytes(2, "little") != said:
            return 0
        at += 2
    return at


def _plausible(
    payload: ByteArray,
    source: Int64s,
    nbytes: Int64s,
    decoded_nbytes: Int64s,
    among: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    """Which streams start with a right block header and are large enough for what they decode to.

    Deeper than that a stream cannot be looked into without decoding it.
    """
    fine = among & (decoded_nbytes > 0) & (decoded_nbytes <= _MAX_EXPANSION * nbytes)
    kind = np.zeros(len(source), np.int64)
    kind[fine] = (payload[source[fine]] >> 1) & 3
    fine &= kind < 3
    stored = fine & (kind == 0)
    fine &= ~stored | (nbytes >= 5)
    rows = np.flatnonzero(fine & stored)
    lengths = read_word(payload, source[rows] + 1)
    size = lengths & 0xFFFF
    fine[rows] = (size ^ lengths >> 16 == 0xFFFF) & (size + 5 <= nbytes[rows])
    rows = np.flatnonzero(fine & (kind == 2))
    fine[rows] = _dynamic_valid(payload, source[rows], nbytes[rows])
    return fine


def _dynamic_valid(payload: ByteArray, source: Int64s, nbytes: Int64s) -> NDArray[np.bool_]:
    """Which blocks with codes of their own have as many as there may be, and a complete first one.

    The code of the code lengths must use up all of its codewords (RFC 1951, 3.2.7); the codes that
    it describes are not decoded.
    """
    at = np.minimum(source[:, None] + np.arange(_DYNAMIC_NBYTES), payload.size - 1)
    bits = np.unpackbits(payload[at], axis=1, bitorder="little").astype(np.int64)
    fields = [bits[:, a:b] @ (1 << np.arange(b - a)) for a, b in ((3, 8), (8, 13), (13, 17))]
    codes = fields[2] + 4
    lengths = bits[:, 17:74].reshape(-1, 19, 3) @ np.array([1, 2, 4])
    lengths[np.arange(19) >= codes[:, None]] = 0
    spent = np.where(lengths > 0, 128 >> lengths, 0).sum(axis=1)
    return np.asarray(
        (fields[0] + 257 <= _MAX_LITERAL_CODES)
        & (fields[1] + 1 <= _MAX_DISTANCE_CODES)
        & (17 + 3 * codes <= 8 * nbytes)
        & (spent == 128)
    )
