"""What array codecs share: they see one flattened chunk as elements of two types.

The parsers state both types (``dtype``: decoded to, ``encoded_dtype``: decoded from), byte order
included. Number and order of the elements stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from zarrgpu.codecs.base import CodecError, checked, place
from zarrgpu.model import ByteArray


@dataclass(frozen=True, slots=True, kw_only=True)
class ElementCodec:
    """A codec that computes each decoded element from the encoded ones.

    Attributes
    ----------
    dtype, encoded_dtype : numpy.dtype
    """

    dtype: np.dtype[Any]
    encoded_dtype: np.dtype[Any]

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, Any]) -> Self:
        """Take the types; every further member is an attribute of the codec."""
        options = dict(configuration)
        dtype = np.dtype(options.pop("dtype"))
        return cls(dtype=dtype, encoded_dtype=np.dtype(options.pop("encoded_dtype")), **options)

    def encoded_nbytes(self, decoded_nbytes: int) -> int:
        """As many elements of the other type."""
        return decoded_nbytes // self.dtype.itemsize * self.encoded_dtype.itemsize

    def decode_host(self, encoded: ByteArray, nbytes: int, out: ByteArray | None) -> ByteArray:
        """Decode with NumPy, into `out` where it is given."""
        count, rest = divmod(encoded.size, self.encoded_dtype.itemsize)
        if rest:
            msg = f"has {encoded.size} bytes, which are no whole {self.encoded_dtype} elements"
            raise CodecError(msg)
        size = checked(count * self.dtype.itemsize, nbytes, exact=out is not None)
        target = np.empty(size, np.uint8) if out is None else out
        try:
            with np.errstate(all="ignore"):  # what overflows is infinite or wraps, as when encoding
                self.decode_elements(encoded.view(self.encoded_dtype), target.view(self.dtype))
        except (TypeError, ValueError, OverflowError) as error:
            raise CodecError(str(error)) from error
        return target

    def decode_elements(self, encoded: NDArray[Any], decoded: NDArray[Any]) -> None:
        """Write the decoded elements.

        Parameters
        ----------
        encoded : array of `encoded_dtype`, shape (n,)
        decoded : array of `dtype`, shape (n,)
            Either may be unaligned.
        """
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class UnchangedCodec:
    """A codec whose encoded bytes are the decoded ones: all that it did was lost or is no data."""

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, Any]) -> Self:
        """Nothing matters for decoding."""
        del configuration
        return cls()

    def encoded_nbytes(self, decoded_nbytes: int) -> int:
        """The same."""
        return decoded_nbytes

    def decode_host(self, encoded: ByteArray, nbytes: int, out: ByteArray | None) -> ByteArray:
        """Return `encoded`, or `out` with its bytes."""
        return place(encoded, nbytes, out)
