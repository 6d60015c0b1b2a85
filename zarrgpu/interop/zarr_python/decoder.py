"""From zarr-python's codec objects to our codec chain, or the reason why not.

zarr-python describes a chunk by its codecs and its `zarr.core.array_spec.ArraySpec`. Both are
turned into the JSON that metadata would hold and parsed by our own formats, so that there is one
reader of codec configurations. A codec class that is neither zarr-python's nor numcodecs' is
refused: it may do what its name does not say.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zarrgpu.codecs.base import CodecChain
from zarrgpu.codecs.registry import build_chain
from zarrgpu.errors import ZarrGPUError
from zarrgpu.formats import zarr_v2
from zarrgpu.formats.codec_chain import parse_codec_list
from zarrgpu.formats.document import Document
from zarrgpu.model import ArraySpec, KeyEncoding, ObjectPerChunk

_TRUSTED = {"zarr", "numcodecs", "imagecodecs"}
_SOURCE = "zarr-python array"
_REASON_LENGTH = 120


class NotOursError(Exception):
    """zarrgpu does not decode these chunks; the message is the reason, short enough to count."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ChunkDecoder:
    """How one shape of chunk decodes.

    Attributes
    ----------
    spec : ArraySpec
        An array of a single chunk.
    chain : CodecChain
    """

    spec: ArraySpec
    chain: CodecChain

    @property
    def in_order(self) -> bool:
        """Whether decoded bytes are the elements in C order and native byte order."""
        native = self.spec.dtype.isnative
        in_order = self.spec.axis_order == tuple(range(self.spec.ndim))
        return native and in_order and not self.spec.dtype.hasobject


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ShardDecoder:
    """How one shape of shard decodes.

    Attributes
    ----------
    inner, index : ChunkDecoder
        Of the inner chunks and of the shard index, an array of shape (*grid, 2).
    grid : tuple of int
        Inner chunks per axis.
    index_nbytes : int
        Encoded size of the index.
    index_at_end : bool
    """

    inner: ChunkDecoder
    index: ChunkDecoder
    grid: tuple[int, ...]
    index_nbytes: int
    index_at_end: bool


Decoder = ChunkDecoder | ShardDecoder


def build_decoder(codecs: Sequence[Any], chunk: Any) -> Decoder:
    """Make the decoder of chunks.

    Parameters
    ----------
    codecs : sequence of zarr.abc.codec.Codec
        A v3 codec list, or the one `V2Codec`.
    chunk : zarr.core.array_spec.ArraySpec

    Raises
    ------
    NotOursError
        If zarrgpu does not read such chunks.
    """
    from zarr.codecs import ShardingCodec
    from zarr.codecs._v2 import V2Codec

    dtype = np.dtype(chunk.dtype.to_native_dtype())
    try:
        if len(codecs) == 1 and isinstance(codecs[0], V2Codec):
            return _v2_decoder(codecs[0], chunk, dtype)
        if len(codecs) == 1 and type(codecs[0]) is ShardingCodec:
            return _shard_decoder(codecs[0], chunk.shape, dtype)
        return _v3_decoder(codecs, chunk.shape, dtype)
    except (ZarrGPUError, TypeError) as error:
        raise NotOursError(_reason(dtype, error)) from error


def _v3_decoder(
    codecs: Sequence[Any], shape: tuple[int, ...], dtype: np.dtype[Any]
) -> ChunkDecoder:
    _refuse_foreign(codecs)
    document = _document({"codecs": [codec.to_dict() for codec in codecs]})
    parsed = parse_codec_list(document, "codecs", dtype, shape)
    if parsed.sharding is not None:
        raise NotOursError("codecs around sharding_indexed")
    spec = ArraySpec(
        source=_SOURCE,
        shape=shape,
        dtype=parsed.dtype,
        chunk_shape=shape,
        fill_value=None,
        codecs=parsed.codecs,
        axis_order=parsed.axis_order,
        location=ObjectPerChunk(KeyEncoding("default", "/")),
        dimension_names=(None,) * len(shape),
    )
    return _chunk_decoder(spec)


def _v2_decoder(codec: Any, chunk: Any, dtype: np.dtype[Any]) -> ChunkDecoder:
    filters = codec.filters or ()
    _refuse_foreign([*filters, *([codec.compressor] if codec.compressor else [])])
    document = _document(
        {
            "zarr_format": 2,
            "shape": chunk.shape,
            "chunks": chunk.shape,
            "dtype": chunk.dtype.to_json(zarr_format=2)["name"],
            "order": chunk.order,
            "filters": [f.get_config() for f in filters] or None,
            "compressor": codec.compressor.get_config() if codec.compressor else None,
            "fill_value": None,
        }
    )
    return _chunk_decoder(zarr_v2.parse_array(document, {}, ""))


def _shard_decoder(codec: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> ShardDecoder:
    grid = tuple(s // c for s, c in zip(shape, codec.chunk_shape, strict=True))
    index = _v3_decoder(codec.index_codecs, (*grid, 2), np.dtype(np.uint64))
    index_nbytes = index.chain.encoded_nbytes
    if index_nbytes is None:
        raise NotOursError("index codecs of no fixed size")
    location = codec.index_location  # an enum in zarr-python 3.1, a string since 3.2
    return ShardDecoder(
        inner=_v3_decoder(codec.codecs, tuple(codec.chunk_shape), dtype),
        index=index,
        grid=grid,
        index_nbytes=index_nbytes,
        index_at_end=getattr(location, "value", location) == "end",
    )


def _chunk_decoder(spec: ArraySpec) -> ChunkDecoder:
    chain = build_chain(spec.codecs, spec.decoded_limit_nbytes, source=_SOURCE)
    return ChunkDecoder(spec=spec, chain=chain)


def _document(value: dict[str, Any]) -> Document:
    """Value as it would be read back: tuples are lists, and nothing but JSON is in it."""
    return Document(_SOURCE, json.loads(json.dumps(value)))


def _refuse_foreign(codecs: Sequence[Any]) -> None:
    for codec in codecs:
        if type(codec).__module__.partition(".")[0] not in _TRUSTED:
            raise NotOursError(f"codec class {type(codec).__name__}")


def _reason(dtype: np.dtype[Any], error: Exception) -> str:
    """Text for counting: the same for all arrays that are refused alike."""
    return f"{type(error).__name__} ({dtype.kind}): {str(error)[:_REASON_LENGTH]}"
