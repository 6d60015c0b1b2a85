"""One chunk, decoded and placed: the part of it that is wanted, where it is wanted.

Placing is NumPy's ``target[out_selection] = chunk[chunk_selection]`` with zarr-python's
selections, so that whatever NumPy does with axis order, byte order, fields and strides happens here
too. A whole chunk that is one contiguous run of the target is decoded straight into it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zarrgpu.codecs.base import CodecError
from zarrgpu.codecs.run import decode_stored
from zarrgpu.decode import as_elements
from zarrgpu.devices.host import scratch
from zarrgpu.errors import ChunkDecodeError
from zarrgpu.interop.zarr_python.decoder import ChunkDecoder
from zarrgpu.model import ByteArray


@dataclass(slots=True, kw_only=True, eq=False)
class Piece:
    """Part of one chunk and where it goes.

    Attributes
    ----------
    decoder : ChunkDecoder
    owner : object
        zarr-python's byte getter of the stored object, whose text names it in errors.
    inner : tuple of int or None
        Coordinates within the shard, for errors.
    chunk_selection, out_selection
        As zarr-python's indexers give them.
    target : array
        Memory that `out_selection` selects from.
    drop_axes : tuple of int
        Axes of length 1 that the target does not have.
    whole : bool
        Whether all of the chunk is wanted.
    """

    decoder: ChunkDecoder
    owner: Any
    inner: tuple[int, ...] | None
    chunk_selection: Any
    target: NDArray[Any]
    out_selection: Any
    drop_axes: tuple[int, ...] = ()
    whole: bool = False

    def fill(self, value: Any) -> None:
        """Place the fill value: the chunk is not stored."""
        self.target[self.out_selection] = value

    def place(self, encoded: ByteArray) -> None:
        """Decode the chunk and place what is wanted; raises `ChunkDecodeError` naming it."""
        chain = self.decoder.chain
        direct = self._direct_target()
        if direct is not None:
            decoded = self._decode(encoded, direct)
            if decoded is not direct:
                direct[:] = decoded
            return
        if chain.object_codec is None:
            decoded = self._decode(encoded, scratch("decoded", chain.decoded_nbytes))
        else:
            decoded = self._decode_objects(encoded)
        chosen = as_elements(self.decoder.spec, decoded)[self.chunk_selection]
        if self.drop_axes:
            chosen = chosen.squeeze(axis=self.drop_axes)
        self.target[self.out_selection] = chosen

    def _decode(self, encoded: ByteArray, out: ByteArray | None) -> ByteArray:
        """Bytes of the decoded chunk: `out`, or a view of `encoded`."""
        chain = self.decoder.chain
        try:
            return decode_stored(chain, encoded, out)
        except CodecError as error:
            raise self.error(str(error), chain.names) from error

    def _decode_objects(self, encoded: ByteArray) -> NDArray[Any]:
        """Elements of no fixed size, as one axis."""
        spec, objects = self.decoder.spec, self.decoder.chain.object_codec
        assert objects is not None
        payload = self._decode(encoded, None)
        try:
            return objects.decode_objects(payload, math.prod(spec.chunk_shape), spec.dtype)
        except CodecError as error:
            raise self.error(str(error), objects.name) from error

    def error(self, reason: str, codec: str) -> ChunkDecodeError:
        """Error that names the chunk."""
        return chunk_error(self.owner, self.inner, reason, codec)

    def _direct_target(self) -> ByteArray | None:
        """Bytes of the target that the chunk is decoded into, where they are one run of it."""
        spec, target = self.decoder.spec, self.target
        if (
            not self.whole
            or self.drop_axes
            or not self.decoder.in_order
            or target.dtype != spec.dtype
            or not is_basic(self.out_selection)
        ):
            return None
        part = target[self.out_selection]
        if not part.ndim or part.shape != spec.chunk_shape or not part.flags.c_contiguous:
            return None
        flat: ByteArray = part.reshape(-1).view(np.uint8)
        return flat


def is_basic(selection: Any) -> bool:
    """Whether NumPy answers `selection` with a view of the same number of axes."""
    if isinstance(selection, slice):
        return True
    if not isinstance(selection, tuple) or not selection:  # `()` of no axes gives a scalar
        return False
    return all(isinstance(s, slice) for s in selection)


def chunk_error(
    owner: Any, inner: tuple[int, ...] | None, reason: str, codec: str
) -> ChunkDecodeError:
    """Error for a stored object of zarr-python's, or for an inner chunk of it."""
    source = str(getattr(owner, "store", "zarr-python array"))
    chunk = str(getattr(owner, "path", getattr(owner, "chunk_coords", owner)))
    if inner is not None:
        chunk = f"{chunk} inner chunk {inner}"
    return ChunkDecodeError(reason, source=source, chunk=chunk, codec=codec)
