"""LZ4 blocks as numcodecs writes them: a 4-byte little-endian size, then one raw block.

Spec: lz4_Block_format.md. Zarr v2 ``{"id": "lz4"}``, v3 ``numcodecs.lz4``.
Example: ``{"name": "numcodecs.lz4", "configuration": {"acceleration": 1}}``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from zarrgpu.codecs.base import CodecError, Compressor, checked
from zarrgpu.model import ByteArray

HEADER_NBYTES = 4


@dataclass(frozen=True, slots=True)
class Lz4Codec(Compressor):
    """LZ4 with a size header."""

    name: ClassVar[str] = "lz4"

    def decode_host(self, encoded: ByteArray, nbytes: int, out: ByteArray | None) -> ByteArray:
        """Decode with liblz4 (numcodecs)."""
        from numcodecs import lz4

        if encoded.size <= HEADER_NBYTES:
            msg = f"lz4 chunk has {encoded.size} bytes, expected a size header and a block"
            raise CodecError(msg)
        size = int.from_bytes(encoded[:HEADER_NBYTES].tobytes(), "little")
        checked(size, nbytes, exact=out is not None)
        target = np.empty(size, np.uint8) if out is None else out
        try:
            lz4.decompress(encoded, target)
        except (RuntimeError, ValueError) as error:
            raise CodecError(str(error)) from error
        return target
