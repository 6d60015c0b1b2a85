"""Blosc 1 containers, all inner codecs and shuffles.

Spec: c-blosc README_CHUNK_FORMAT and the code of c-blosc 1.21. Zarr v3 ``blosc``, v2
``{"id": "blosc"}``. Example:
``{"name": "blosc", "configuration": {"cname": "lz4", "clevel": 5, "shuffle": "shuffle",
"typesize": 2, "blocksize": 0}}``. The container says all that a decoder needs;
the configuration is not consulted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from zarrgpu.codecs.base import CodecError, Compressor, checked
from zarrgpu.model import ByteArray

HEADER_NBYTES = 16
INNER_CODECS = ("blosclz", "lz4", "snappy", "zlib", "zstd")


@dataclass(frozen=True, slots=True)
class BloscHeader:
    """The 16-byte header of one container; sizes in bytes."""

    version: int
    flags: int
    typesize: int
    nbytes: int
    blocksize: int
    cbytes: int

    @classmethod
    def parse(cls, encoded: ByteArray) -> Self:
        """Read and check the header against the size of `encoded`."""
        if encoded.size < HEADER_NBYTES:
            msg = f"blosc container has {encoded.size} bytes, expected at least {HEADER_NBYTES}"
            raise CodecError(msg)
        raw = encoded[:HEADER_NBYTES].tobytes()
        nbytes, blocksize, cbytes = (int.from_bytes(raw[i : i + 4], "little") for i in (4, 8, 12))
        header = cls(raw[0], raw[2], raw[3], nbytes, blocksize, cbytes)
        if header.version != 2:
            msg = f"blosc format version {header.version}, expected 2 (Blosc 1)"
            raise CodecError(msg)
        if cbytes != encoded.size:
            msg = f"blosc header says {cbytes} bytes, {encoded.size} are stored"
            raise CodecError(msg)
        if header.typesize == 0 or (nbytes and not 0 < blocksize <= max(nbytes, 1)):
            msg = f"blosc header has typesize {header.typesize}, blocksize {blocksize}"
            raise CodecError(msg)
        return header

    @property
    def is_memcpyed(self) -> bool:
        """Whether the payload is stored as it is, unshuffled."""
        return bool(self.flags & 0x02)

    @property
    def inner_codec(self) -> str:
        """Name of the codec of the streams."""
        code = self.flags >> 5
        return INNER_CODECS[code] if code < len(INNER_CODECS) else f"unknown ({code})"


@dataclass(frozen=True, slots=True)
class BloscCodec(Compressor):
    """Blosc 1; one thread per container, many containers at once."""

    name: ClassVar[str] = "blosc"

    def decode_host(self, encoded: ByteArray, nbytes: int, out: ByteArray | None) -> ByteArray:
        """Decode with c-blosc (numcodecs)."""
        from numcodecs import blosc

        header = BloscHeader.parse(encoded)
        checked(header.nbytes, nbytes, exact=out is not None)
        target = np.empty(header.nbytes, np.uint8) if out is None else out
        if header.nbytes:
            try:
                blosc.decompress(encoded, target)
            except (RuntimeError, ValueError) as error:
                raise CodecError(str(error)) from error
        return target

    def decode_part_host(
        self, encoded: ByteArray, start: int, nbytes: int, decoded_nbytes: int
    ) -> ByteArray:
        """Decode the blocks that hold the part, as a container of their own."""
        header = BloscHeader.parse(encoded)
        checked(header.nbytes, decoded_nbytes, exact=True)
        if header.is_memcpyed:
            checked(encoded.size - HEADER_NBYTES, decoded_nbytes, exact=True)
            return encoded[HEADER_NBYTES + start : HEADER_NBYTES + start + nbytes]
        first = start // header.blocksize
        last = -(-(start + nbytes) // header.blocksize)
        if last * header.blocksize > header.nbytes and first:
            first -= 1  # the short block is known by its place behind a full one
        blocks = _container_of_blocks(encoded, header, first, last)
        at = first * header.blocksize
        decoded_size = min(last * header.blocksize, header.nbytes) - at
        decoded = self.decode_host(blocks, decoded_size, np.empty(decoded_size, np.uint8))
        return decoded[start - at : start - at + nbytes]


def _container_of_blocks(
    encoded: ByteArray, header: BloscHeader, first: int, last: int
) -> ByteArray:
    """Container with blocks ``first`` to ``last - 1`` of another.

    Its blocks are decoded as before: all are of the block size but the last of all, and what
    depends on a block's size (splitting, leftovers of shuffles) does not see its number.
    """
    n_blocks = -(-header.nbytes // header.blocksize)
    table_end = HEADER_NBYTES + 4 * n_blocks
    if table_end > encoded.size:
        msg = f"blosc container of {encoded.size} bytes cannot hold {n_blocks} blocks"
        raise CodecError(msg)
    starts = encoded[HEADER_NBYTES:table_end].copy().view("<i4").astype(np.int64)
    if (starts < table_end).any() or (starts >= encoded.size).any():
        msg = f"blosc blocks lie outside of the container of {encoded.size} bytes"
        raise CodecError(msg)
    # threads write blocks as they are done: a block ends where the next one in the file begins
    ends = np.append(np.sort(starts), encoded.size)
    stops = ends[np.searchsorted(ends, starts[first:last], side="right")]
    parts = [encoded[a:b] for a, b in zip(starts[first:last].tolist(), stops.tolist(), strict=True)]
    table_nbytes = HEADER_NBYTES + 4 * len(parts)
    sizes = np.array([part.size for part in parts], np.int64)
    table = (table_nbytes + np.append(0, np.cumsum(sizes)[:-1])).astype("<i4")
    nbytes = min(last * header.blocksize, header.nbytes) - first * header.blocksize
    head = encoded[:HEADER_NBYTES].copy()
    sizes_at = head.view("<u4")
    sizes_at[1] = nbytes
    sizes_at[3] = table_nbytes + int(sizes.sum())
    return np.concatenate([head, table.view(np.uint8), *parts])
