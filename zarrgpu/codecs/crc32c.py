"""CRC-32C trailer: four little-endian bytes after the data.

Spec: Zarr v3 codec ``crc32c``; RFC 3720 (Castagnoli polynomial). Also the usual codec of shard
indexes. Example: ``{"name": "crc32c"}``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from zarrgpu.codecs.checksums import ChecksumCodec
from zarrgpu.model import ByteArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Crc32cCodec(ChecksumCodec):
    """Verify and strip a CRC-32C trailer."""

    name: ClassVar[str] = "crc32c"

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, Any]) -> Self:
        """Has no options."""
        del configuration
        return cls()

    def compute(self, data: ByteArray) -> int:
        """Compute with google-crc32c."""
        import google_crc32c

        return int(google_crc32c.value(data.tobytes()))
