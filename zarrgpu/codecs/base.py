"""What a codec is: one step from encoded towards decoded bytes.

A chain is run backwards: the last codec applied when encoding is decoded first. Only decoding is
implemented; zarrgpu does not write. Host decoders release the GIL where their library does, and
write into `out` where the caller gives it, so that engines can decode into recycled memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from zarrgpu.model import ByteArray


class CodecError(Exception):
    """A decoder refused its input; the engine turns it into a `ChunkDecodeError` with the chunk."""


@runtime_checkable
class Codec(Protocol):
    """One bytes-to-bytes decoder with its configuration."""

    @property
    def name(self) -> str:
        """Canonical name; most codecs have it as a class attribute."""

    def encoded_nbytes(self, decoded_nbytes: int) -> int | None:
        """Encoded size for a decoded size where it does not depend on the data, else None."""

    def decode_host(self, encoded: ByteArray, nbytes: int, out: ByteArray | None) -> ByteArray:
        """Decode one chunk.

        Parameters
        ----------
        encoded : uint8 array
            May be a view of a larger buffer; is not modified.
        nbytes : int
            Decoded size: exact where `out` is given, otherwise an upper bound that the decoder must
            refuse to exceed (it is what stops a decompression bomb).
        out : uint8 array of `nbytes` elements, or None
            Where to put the result; C-contiguous and writable.

        Returns
        -------
        uint8 array
            `out`, or a new array or a view of `encoded`.

        Raises
        ------
        CodecError
            If the input is corrupt or its decoded size is not `nbytes`.
        """


@runtime_checkable
class PartialCodec(Protocol):
    """A codec that decodes a part of a chunk for less than the whole."""

    def decode_part_host(
        self, encoded: ByteArray, start: int, nbytes: int, decoded_nbytes: int
    ) -> ByteArray:
        """Decode bytes ``start`` to ``start + nbytes`` of a chunk of `decoded_nbytes`.

        Returns
        -------
        uint8 array, shape (nbytes,)

        Raises
        ------
        CodecError
            If the input is corrupt, as far as the part shows it.
        """


@runtime_checkable
class ObjectCodec(Protocol):
    """Decoder from bytes to elements of any length: strings, byte strings, Python objects."""

    name: ClassVar[str]

    def decode_objects(self, encoded: ByteArray, count: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        """Decode one chunk.

        Parameters
        ----------
        encoded : uint8 array
            What the codecs after this one decode to; is not modified.
        count : int
            Elements of the chunk; exact.
        dtype : numpy.dtype
            Of the array: ``StringDType`` or ``object``.

        Returns
        -------
        array of `dtype`, shape (count,)

        Raises
        ------
        CodecError
            If the input is corrupt or does not hold `count` elements.
        """


class Compressor:
    """What most compressors share: options that only an encoder needs, sizes that data decide."""

    __slots__ = ()

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, Any]) -> Self:
        """Decoding takes no options; what the encoder was told is in the stream or irrelevant."""
        del configuration
        return cls()

    def encoded_nbytes(self, decoded_nbytes: int) -> None:
        """Depends on the data."""
        del decoded_nbytes


@dataclass(frozen=True, slots=True)
class CodecChain:
    """Codecs of one array in encoding order, with the exact sizes between them where known.

    Attributes
    ----------
    codecs : tuple of Codec
    decoded_nbytes : int
        Size of a fully decoded chunk; what `codecs` may decode to at most where there is an object
        codec, whose input has no other bound.
    object_codec : ObjectCodec or None
        Takes what `codecs` decode to; the engine calls it last.
    """

    codecs: tuple[Codec, ...]
    decoded_nbytes: int
    object_codec: ObjectCodec | None = None

    @property
    def names(self) -> str:
        """Names of the codecs in encoding order, for messages."""
        return ", ".join(codec.name for codec in self.codecs) or "bytes"

    def stage_nbytes(self) -> list[int | None]:
        """Decoded size of each codec, in encoding order; None where it depends on the data."""
        sizes: list[int | None] = []
        size: int | None = None if self.object_codec else self.decoded_nbytes
        for codec in self.codecs:
            sizes.append(size)
            size = None if size is None else codec.encoded_nbytes(size)
        return sizes

    @property
    def encoded_nbytes(self) -> int | None:
        """Stored size of a chunk where it does not depend on the data."""
        size: int | None = None if self.object_codec else self.decoded_nbytes
        for codec in self.codecs:
            size = None if size is None else codec.encoded_nbytes(size)
        return size

    @property
    def widest_nbytes(self) -> int:
        """Largest size known of a chunk on its way: some codecs store wider elements.

        A codec with a ``widest_nbytes`` of its own, a shard's, says what it may take.
        """
        sizes = [*self.stage_nbytes(), self.encoded_nbytes]
        sizes += [getattr(codec, "widest_nbytes", None) for codec in self.codecs]
        return max([self.decoded_nbytes, *(size for size in sizes if size is not None)])


def checked(got: int, nbytes: int, *, exact: bool) -> int:
    """Return the decoded size `got`; raise CodecError if it is not (or above) `nbytes`."""
    if got != nbytes if exact else got > nbytes:
        msg = f"decodes to {got} bytes, expected {'' if exact else 'at most '}{nbytes}"
        raise CodecError(msg)
    return got


def place(decoded: ByteArray, nbytes: int, out: ByteArray | None) -> ByteArray:
    """Check the size of a decoded chunk and copy it into `out` where that is given."""
    checked(decoded.size, nbytes, exact=out is not None)
    if out is None:
        return decoded
    out[:] = decoded
    return out
