"""Checksums of four bytes, little-endian, before or after the data.

Source: numcodecs 0.16; v3 names ``numcodecs.<id>``. (`crc32c` at the end, v3's own, is a module.)

``crc32``, ``adler32``  zlib's; ``{"id": "crc32", "location": "start"}``, which is the default
``crc32c_start``        zarrgpu's name for ``{"id": "crc32c", "location": "start"}``
``fletcher32``          HDF5's, at the end
``jenkins_lookup3``     Bob Jenkins' lookup3 as in HDF5, at the end; ``initval`` seeds it
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

from zarrgpu.codecs.base import CodecError, place
from zarrgpu.model import ByteArray

CHECKSUM_NBYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ChecksumCodec:
    """Verify and strip a checksum.

    Attributes
    ----------
    location : "start" or "end"
        Of the checksum.
    initval : int
        Seed; 0 where there is none.
    """

    name: ClassVar[str]
    location: Literal["start", "end"] = "end"
    initval: int = 0

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, Any]) -> Self:
        """Take ``location`` and ``initval`` where the codec has them."""
        return cls(**configuration)

    def encoded_nbytes(self, decoded_nbytes: int) -> int:
        """Four bytes more."""
        return decoded_nbytes + CHECKSUM_NBYTES

    def decode_host(self, encoded: ByteArray, nbytes: int, out: ByteArray | None) -> ByteArray:
        """Check; the result is a view of `encoded` unless `out` is given."""
        if encoded.size < CHECKSUM_NBYTES:
            msg = (
                f"has {encoded.size} bytes, expected at least the {CHECKSUM_NBYTES} of the checksum"
            )
            raise CodecError(msg)
        if self.location == "start":
            checksum, data = encoded[:CHECKSUM_NBYTES], encoded[CHECKSUM_NBYTES:]
        else:
            checksum, data = encoded[-CHECKSUM_NBYTES:], encoded[:-CHECKSUM_NBYTES]
        stored = int.from_bytes(checksum.tobytes(), "little")
        computed = self.compute(data)
        if computed != stored:
            msg = f"checksum mismatch: stored {stored:#010x}, computed {computed:#010x}"
            raise CodecError(msg)
        return place(data, nbytes, out)

    def compute(self, data: ByteArray) -> int:
        """Checksum of `data`."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class Crc32Codec(ChecksumCodec):
    """CRC-32 of zlib and gzip."""

    name: ClassVar[str] = "crc32"

    def compute(self, data: ByteArray) -> int:
        """Compute with zlib."""
        return zlib.crc32(data.data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Adler32Codec(ChecksumCodec):
    """Adler-32 of zlib."""

    name: ClassVar[str] = "adler32"

    def compute(self, data: ByteArray) -> int:
        """Compute with zlib."""
        return zlib.adler32(data.data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Crc32cStartCodec(ChecksumCodec):
    """CRC-32C before the data."""

    name: ClassVar[str] = "crc32c_start"
    location: Literal["start", "end"] = "start"

    def compute(self, data: ByteArray) -> int:
        """Compute with google-crc32c."""
        import google_crc32c

        return int(google_crc32c.value(data.tobytes()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Fletcher32Codec(ChecksumCodec):
    """Fletcher-32 over big-endian 16-bit words; a last odd byte is a word's high byte."""

    name: ClassVar[str] = "fletcher32"

    def compute(self, data: ByteArray) -> int:
        """Compute with numcodecs."""
        from numcodecs.fletcher32 import Fletcher32

        if not data.size:
            return 0
        encoded = Fletcher32().encode(data)
        return int.from_bytes(encoded[-CHECKSUM_NBYTES:], "little")


@dataclass(frozen=True, slots=True, kw_only=True)
class JenkinsLookup3Codec(ChecksumCodec):
    """Jenkins' lookup3 hash."""

    name: ClassVar[str] = "jenkins_lookup3"

    def compute(self, data: ByteArray) -> int:
        """Compute with numcodecs."""
        from numcodecs.jenkins import jenkins_lookup3

        return int(jenkins_lookup3(data, self.initval))
