"""A frame of a DICOM file as items of fragments: their contents, joined.

Spec: DICOM PS3.5, section A.4; no Zarr name. Example: ``CodecSpec("dicom_fragments", {})``, with
``"decoded_nbytes": 1023`` where the frame is uncompressed and an odd size was padded.

A basic offset table says where the items of a frame begin, not how many there are. So the chunk is
all of them, tags and lengths included, which are checked here: they must fill the chunk.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

import numpy as np

from zarrgpu.codecs.base import CodecError, place
from zarrgpu.codecs.configuration import positive_int

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zarrgpu.model import ByteArray

_ITEM: Final = b"\xfe\xff\x00\xe0"
_HEADER_NBYTES: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class DicomFragmentsCodec:
    """Strip the headers of items and join what they hold.

    Attributes
    ----------
    decoded_nbytes : int or None
        Size of the frame where it is known; a byte of padding behind it is dropped.
    """

    name: ClassVar[str] = "dicom_fragments"
    decoded_nbytes: int | None

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, Any]) -> Self:
        """Take ``decoded_nbytes``, which may be left out."""
        if configuration.get("decoded_nbytes") is None:
            return cls(decoded_nbytes=None)
        return cls(decoded_nbytes=positive_int(cls.name, configuration, "decoded_nbytes"))

    def encoded_nbytes(self, decoded_nbytes: int) -> None:
        """Depends on the number of items."""

    def decode_host(self, encoded: ByteArray, nbytes: int, out: ByteArray | None) -> ByteArray:
        """Join the fragments; a single one is given as a view of `encoded`."""
        parts: list[ByteArray] = []
        at = 0
        while at < encoded.size:
            head = encoded[at : at + _HEADER_NBYTES].tobytes()
            if head[:4] != _ITEM or len(head) < _HEADER_NBYTES:
                msg = f"no item begins at byte {at} of the frame, but {head[:4].hex() or 'nothing'}"
                raise CodecError(f"{msg}; the offset table is wrong")
            (size,) = struct.unpack_from("<I", head, 4)
            at += _HEADER_NBYTES
            if at + size > encoded.size:
                msg = f"a fragment of {size} bytes leaves its frame of {encoded.size}"
                raise CodecError(f"{msg}; the offset table is wrong")
            parts.append(encoded[at : at + size])
            at += size
        data = parts[0] if len(parts) == 1 else np.concatenate(parts or [encoded])
        if self.decoded_nbytes is not None and data.size == self.decoded_nbytes + 1:
            data = data[:-1]
        return place(data, nbytes, out)
