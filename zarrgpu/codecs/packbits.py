"""PackBits run lengths.

Spec: TIFF 6.0, section 9. TIFF compression 32773; numcodecs ``packbits`` is another thing
(`bit_packing`). Example: ``CodecSpec("tiff_packbits")``. No checksum.
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
class PackBitsCodec(Compressor):
    """PackBits by imagecodecs."""

    name: ClassVar[str] = "tiff_packbits"

    def decode_host(self, encoded: ByteArray, nbytes: int, out: ByteArray | None) -> ByteArray:
        """Decode the whole stream; imagecodecs refuses one that does not fit."""
        scratch = np.empty(nbytes, np.uint8)
        decoded = call_imagecodecs("packbits_decode", encoded, out=scratch)
        return place(scratch[: decoded.size], nbytes, out)
