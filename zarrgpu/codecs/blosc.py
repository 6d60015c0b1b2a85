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
