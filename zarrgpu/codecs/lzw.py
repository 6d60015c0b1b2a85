"""LZW as TIFF stores it: most significant bit first, codes widen one early.

Spec: TIFF 6.0, section 13. TIFF compression 5; no Zarr name. Example: ``CodecSpec("lzw")``.
LZW has no checksum: damage that keeps the size is not noticed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from zarrgpu.codecs.base import Compressor, place
from zarrgpu.codecs.imagecodecs_call import call_imagecodecs

if TYPE_CHECKING:
    from zarrgpu.model import ByteArray


@dataclass(frozen=True, slots=True)
class LzwCodec(Compressor):
    """TIFF LZW by imagecodecs."""

    name: ClassVar[str] = "lzw"

    def decode_host(self, encoded: ByteArray, nbytes: int, out: ByteArray | None) -> ByteArray:
        """Decode the whole stream; one spare byte shows a stream that is too long."""
        # measured, imagecodecs 2026.3.6: a full `out` ends the decoding without an error
        scratch = np.empty(nbytes + 1, np.uint8)
        decoded = call_imagecodecs("lzw_decode", encoded, out=scratch)
        return place(scratch[: decoded.size], nbytes, out)
