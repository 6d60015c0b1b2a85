"""Chunks decoded by hand: manifest, byte slice, codec chain backwards; no planner, no engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from zarrgpu.codecs.base import Codec, CodecError
from zarrgpu.codecs.deflate import ZlibCodec
from zarrgpu.codecs.jpeg import JpegCodec
from zarrgpu.codecs.jpeg2k import Jpeg2kCodec
from zarrgpu.codecs.lzw import LzwCodec
from zarrgpu.codecs.packbits import PackBitsCodec
from zarrgpu.codecs.short_chunk import ShortChunkCodec
from zarrgpu.codecs.tiff_predictor import TiffPredictorCodec
from zarrgpu.codecs.zstd import ZstdCodec
from zarrgpu.model import MISSING_NBYTES, ArraySpec, ByteArray, Manifest

if TYPE_CHECKING:
    from numpy.typing import NDArray

CLASSES: dict[str, Any] = {
    c.name: c
    for c in (
        JpegCodec, Jpeg2kCodec, LzwCodec, PackBitsCodec, ShortChunkCodec, TiffPredictorCodec,
        ZlibCodec, ZstdCodec,
    )
}  # fmt: skip


def codecs_of(spec: ArraySpec) -> list[Codec]:
    """Build the decoders, in encoding order."""
    return [CLASSES[codec.name].from_configuration(codec.configuration) for codec in spec.codecs]


def decode(codecs: list[Codec], encoded: ByteArray, nbytes: int) -> ByteArray:
    """Run a chain backwards into a buffer full of a wrong value."""
    out = np.full(nbytes, 77, np.uint8)
    data = encoded
    for at, codec in reversed(list(enumerate(codecs))):
        data = codec.decode_host(data, nbytes, None if at else out)
    if data.size != nbytes:
        msg = f"{data.size} bytes, expected {nbytes}"
        raise CodecError(msg)
    return data


def read_array(file: bytes, spec: ArraySpec) -> NDArray[Any]:
    """Whole array; missing chunks are the fill value. A chunk outside `file` is an IndexError."""
    location = spec.location
    assert isinstance(location, Manifest)
    codecs = codecs_of(spec)
    rows, columns, samples = spec.chunk_shape
    down, across, _ = spec.grid_shape
    assert location.offsets.size == location.nbytes.size == down * across
    result = np.full((down * rows, across * columns, samples), spec.fill_scalar, spec.dtype)
    for at in np.flatnonzero(location.nbytes != MISSING_NBYTES):
        begin, nbytes = int(location.offsets[at]), int(location.nbytes[at])
        encoded = np.frombuffer(file[begin : begin + nbytes], np.uint8)
        if encoded.size != nbytes:
            raise IndexError(begin)
        chunk = decode(codecs, encoded, spec.chunk_nbytes).view(spec.dtype)
        top, left = at // across * rows, at % across * columns
        result[top : top + rows, left : left + columns] = chunk.reshape(spec.chunk_shape)
    return result[: spec.shape[0], : spec.shape[1]]
