"""CRC-32C trailer: four little-endian bytes after the data.

Spec: Zarr v3 codec ``crc32c``; RFC 3720 (Castagnoli polynomial). Also the usual codec of shard
indexes. Example: ``{"name": "crc32c"}``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from zarrgpu.codecs.base import CodecError, place
from zarrgpu.model import ByteArray

TRAILER_NBYTES = 4


@dataclass(frozen=True, slots=True)
class Crc32cCodec:
    """Verify and strip a CRC-32C trailer."""

    name: ClassVar[str] = "crc32c"

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, Any]) -> Self:
        """Has no options."""
        del configuration
        return cls()

    def encoded_nbytes(self, decoded_nbytes: int) -> int:
        """Four bytes more."""
        return decoded_nbytes + TRAILER_NBYTES

    def decode_host(self, encoded: ByteArray, nbytes: int, out: ByteArray | None) -> ByteArray:
        """Check with google-crc32c; the result is a view of `encoded` unless `out` is given."""
        import google_crc32c

        if encoded.size < TRAILER_NBYTES:
            msg = (
                f"has {encoded.size} bytes, expected at least the {TRAILER_NBYTES} of the checksum"
            )
            raise CodecError(msg)
        payload = encoded[:-TRAILER_NBYTES]
        stored = int.from_bytes(encoded[-TRAILER_NBYTES:].tobytes(), "little")
        computed = google_crc32c.value(payload.tobytes())
        if computed != stored:
            msg = f"checksum mismatch: stored {stored:#010x}, computed {computed:#010x}"
            raise CodecError(msg)
        return place(payload, nbytes, out)
