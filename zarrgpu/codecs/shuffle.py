"""Byte shuffle: all first bytes of the elements, then all second ones, and so on.

Source: numcodecs 0.16. v2 ``{"id": "shuffle", "elementsize": 4}``, v3 ``numcodecs.shuffle``. Not
the one inside Blosc, which shuffles each block.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from zarrgpu.codecs.base import CodecError, checked, place
from zarrgpu.model import ByteArray


@dataclass(frozen=True, slots=True, kw_only=True)
class ShuffleCodec:
    """Put the bytes of each element together again.

    Attributes
    ----------
    elementsize : int
        Bytes; 0 and 1 leave all as it is.
    """

    name: ClassVar[str] = "shuffle"
    elementsize: int

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, Any]) -> Self:
        """Take ``elementsize``."""
        return cls(elementsize=configuration["elementsize"])

    def encoded_nbytes(self, decoded_nbytes: int) -> int:
        """The same."""
        return decoded_nbytes

    def decode_host(self, encoded: ByteArray, nbytes: int, out: ByteArray | None) -> ByteArray:
        """Unshuffle with numcodecs."""
        from numcodecs import Shuffle

        if self.elementsize <= 1:
            return place(encoded, nbytes, out)
        checked(encoded.size, nbytes, exact=out is not None)
        if encoded.size % self.elementsize:
            msg = f"has {encoded.size} bytes, which are no whole elements of {self.elementsize}"
            raise CodecError(msg)
        target = np.empty(encoded.size, np.uint8) if out is None else out
        Shuffle(self.elementsize).decode(encoded, target)
        return target
