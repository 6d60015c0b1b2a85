"""Which decoder a codec name means: one table, looked up when an array is opened.

Names are canonical: Zarr v3's where there is one, without the ``numcodecs.`` prefix; TIFF
compressions are given theirs by `formats.tiff`.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

from zarrgpu.codecs.base import Codec, CodecChain
from zarrgpu.errors import UnsupportedCodecError
from zarrgpu.model import CodecSpec

CODECS: dict[str, tuple[str, str]] = {
    "zstd": ("zstd", "ZstdCodec"),
    "blosc": ("blosc", "BloscCodec"),
    "gzip": ("deflate", "GzipCodec"),
    "zlib": ("deflate", "ZlibCodec"),
    "lz4": ("lz4", "Lz4Codec"),
    "crc32c": ("crc32c", "Crc32cCodec"),
    "jpeg": ("jpeg", "JpegCodec"),
    "jpeg2k": ("jpeg2k", "Jpeg2kCodec"),
    "lzw": ("lzw", "LzwCodec"),
    "packbits": ("packbits", "PackBitsCodec"),
    "short_chunk": ("short_chunk", "ShortChunkCodec"),
    "tiff_predictor": ("tiff_predictor", "TiffPredictorCodec"),
}
"""Canonical name -> (module in this package, class)."""


def build_codec(spec: CodecSpec, *, source: str) -> Codec:
    """Make the decoder of one codec; raise `UnsupportedCodecError` if there is none."""
    entry = CODECS.get(spec.name.removeprefix("numcodecs."))
    if entry is None:
        msg = (
            f"codec {spec.name[:80]!r} of {source!r} has no decoder; zarrgpu decodes "
            f"{', '.join(sorted(CODECS))}"
        )
        raise UnsupportedCodecError(msg)
    module = import_module(f"zarrgpu.codecs.{entry[0]}")
    codec: Codec = getattr(module, entry[1]).from_configuration(spec.configuration)
    return codec


def build_chain(specs: Sequence[CodecSpec], decoded_nbytes: int, *, source: str) -> CodecChain:
    """Make the chain of one array whose decoded chunks have `decoded_nbytes` bytes."""
    return CodecChain(tuple(build_codec(spec, source=source) for spec in specs), decoded_nbytes)
