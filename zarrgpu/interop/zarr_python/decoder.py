"""From zarr-python's codec objects to our codec chain, or the reason why not.

zarr-python describes a chunk by its codecs and its `zarr.core.array_spec.ArraySpec`. Both are
turned into the JSON that metadata would hold and parsed by our own formats, so that there is one
reader of codec configurations. A codec class that is neither zarr-python's nor numcodecs' is
refused: it may do what its name does not say.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zarrgpu.codecs.base import CodecChain
from zarrgpu.codecs.registry import build_chain
from zarrgpu.codecs.shard_index import ENTRY_NBYTES
from zarrgpu.errors import ZarrGPUError
from zarrgpu.formats import zarr_v2
from zarrgpu.formats.document import Document
from zarrgpu.formats.sharding import parse_chunk_codecs
from zarrgpu.grids import KeyEncoding
from zarrgpu.model import ArraySpec, ObjectPerChunk, Sharded, is_native

_TRUSTED = {"zarr", "numcodecs", "imagecodecs"}
_SOURCE = "zarr-python array"
_KEYS = KeyEncoding("default", "/")
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
        native = is_native(self.spec.dtype)
        in_order = self.spec.axis_order == tuple(range(self.spec.ndim))
        return native and in_order and not self.spec.dtype.hasobject


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ShardDecoder:
    """How one shape of shard decodes.

    Attributes
    ----------
    inner : ChunkDecoder
        Of the inner chunks.
    location : Sharded
    index_chain : CodecChain
    """

    inner: ChunkDecoder
    location: Sharded
    index_chain: CodecChain

    @property
    def grid(self) -> tuple[int, ...]:
        """Inner chunks per axis."""
        axes = zip(self.location.shard_shape, self.inner.spec.chunk_shape, strict=True)
        return tuple(shard // chunk for shard, chunk in axes)


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
    from zarr.codecs._v2 import V2Codec

    dtype = _native_dtype(chunk.dtype)
    try:
        if len(codecs) == 1 and isinstance(codecs[0], V2Codec):
            return _v2_decoder(codecs[0], chunk)
        return _v3_decoder(codecs, chunk, dtype)
    except (ZarrGPUError, TypeError) as error:
        reason = f"{type(error).__name__} ({dtype.kind}): {str(error)[:_REASON_LENGTH]}"
        raise NotOursError(reason) from error


def _v3_decoder(codecs: Sequence[Any], chunk: Any, dtype: np.dtype[Any]) -> Decoder:
    _refuse_foreign(codecs)
    document = _document({"codecs": [codec.to_dict() for codec in codecs]})
    parsed = parse_chunk_codecs(document, dtype, chunk.shape, None, chunk.fill_value, _KEYS)
    spec = ArraySpec(
        source=_SOURCE,
        shape=parsed.chunk_shape,
        dtype=parsed.dtype,
        chunk_shape=parsed.chunk_shape,
        fill_value=None,
        codecs=parsed.codecs,
        axis_order=parsed.axis_order,
        location=ObjectPerChunk(_KEYS),
        dimension_names=(None,) * len(chunk.shape),
    )
    inner = _chunk_decoder(spec)
    if parsed.location is None:
        return inner
    entries = math.prod(chunk.shape) // math.prod(parsed.chunk_shape)
    index_codecs = parsed.location.index_codecs
    index_chain = build_chain(index_codecs, entries * ENTRY_NBYTES, source=_SOURCE)
    return ShardDecoder(inner=inner, location=parsed.location, index_chain=index_chain)


def _v2_decoder(codec: Any, chunk: Any) -> ChunkDecoder:
    filters = codec.filters or ()
    _refuse_foreign([*filters, *([codec.compressor] if codec.compressor else [])])
    document = _document(
        {
            "zarr_format": 2,
            "shape": chunk.shape,
            "chunks": chunk.shape,
            "dtype": _v2_name(chunk.dtype),
            "order": chunk.order,
            "filters": [f.get_config() for f in filters] or None,
            "compressor": codec.compressor.get_config() if codec.compressor else None,
            "fill_value": None,
        }
    )
    return _chunk_decoder(zarr_v2.parse_array(document, {}, ""))


def _chunk_decoder(spec: ArraySpec) -> ChunkDecoder:
    chain = build_chain(spec.codecs, spec.decoded_limit_nbytes, source=_SOURCE)
    return ChunkDecoder(spec=spec, chain=chain)


def _document(value: dict[str, Any]) -> Document:
    """Value as it would be read back: tuples are lists, and nothing but JSON is in it."""
    return Document(_SOURCE, json.loads(json.dumps(value)))


def _native_dtype(dtype: Any) -> np.dtype[Any]:
    """Elements as NumPy has them; zarr-python 3.0 has NumPy's types, since 3.1 its own."""
    return dtype if isinstance(dtype, np.dtype) else np.dtype(dtype.to_native_dtype())


def _v2_name(dtype: Any) -> Any:
    """Elements as ``.zarray`` writes them."""
    if not isinstance(dtype, np.dtype):
        return dtype.to_json(zarr_format=2)["name"]
    if dtype.hasobject:
        return "|O"
    return dtype.descr if dtype.fields else dtype.str


def _refuse_foreign(codecs: Iterable[Any]) -> None:
    """Refuse classes that we do not know, those within shards too."""
    for codec in codecs:
        if type(codec).__module__.partition(".")[0] not in _TRUSTED:
            raise NotOursError(f"codec class {type(codec).__name__}")
        if type(codec).__name__ == "ShardingCodec":
            _refuse_foreign((*codec.codecs, *codec.index_codecs))
