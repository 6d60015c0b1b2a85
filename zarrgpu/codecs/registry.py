"""Which decoder a codec name means: one table, looked up when an array is opened.

Names are canonical: Zarr v3's where there is one, without the ``numcodecs.`` prefix; TIFF
compressions are given theirs by `formats.tiff`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from zarrgpu.codecs import imagecodecs_recipes
from zarrgpu.codecs.base import Codec, CodecChain, ObjectCodec
from zarrgpu.errors import MissingDependencyError, UnsupportedCodecError
from zarrgpu.model import CodecSpec

CODECS: dict[str, tuple[str, str]] = {
    "adler32": ("checksums", "Adler32Codec"),
    "astype": ("casts", "AsTypeCodec"),
    "base64": ("stdlib", "Base64Codec"),
    "bitround": ("casts", "BitRoundCodec"),
    "blosc": ("blosc", "BloscCodec"),
    "bz2": ("stdlib", "Bz2Codec"),
    "categorize": ("categorize", "CategorizeCodec"),
    "cast_value": ("cast_value", "CastValueCodec"),
    "crc32": ("checksums", "Crc32Codec"),
    "crc32c": ("crc32c", "Crc32cCodec"),
    "crc32c_start": ("checksums", "Crc32cStartCodec"),
    "delta": ("delta", "DeltaCodec"),
    "dicom_fragments": ("dicom_fragments", "DicomFragmentsCodec"),
    "element_bytes": ("element_bytes", "ElementBytesCodec"),
    "fixedscaleoffset": ("scale_offset", "FixedScaleOffsetCodec"),
    "fletcher32": ("checksums", "Fletcher32Codec"),
    "gzip": ("deflate", "GzipCodec"),
    "gzip_part": ("gzip_part", "GzipPartCodec"),
    "jenkins_lookup3": ("checksums", "JenkinsLookup3Codec"),
    "jpeg": ("jpeg", "JpegCodec"),
    "jpeg2k": ("jpeg2k", "Jpeg2kCodec"),
    "lz4": ("lz4", "Lz4Codec"),
    "lzma": ("stdlib", "LzmaCodec"),
    "lzw": ("lzw", "LzwCodec"),
    "n5_default": ("n5", "N5DefaultCodec"),
    "packbits": ("bit_packing", "BitPackingCodec"),
    "pcodec": ("pcodec", "PcodecCodec"),
    "quantize": ("casts", "QuantizeCodec"),
    "reshape": ("casts", "ReshapeCodec"),
    "restart_jpeg": ("restart_jpeg", "RestartJpegCodec"),
    "scale_offset": ("scale_offset", "ScaleOffsetCodec"),
    "sharding_indexed": ("sharding", "ShardingCodec"),
    "short_chunk": ("short_chunk", "ShortChunkCodec"),
    "shuffle": ("shuffle", "ShuffleCodec"),
    "tiff_bits": ("tiff_bits", "TiffBitsCodec"),
    "tiff_fill_order": ("tiff_bits", "TiffFillOrderCodec"),
    "tiff_image": ("tiff_image", "TiffImageCodec"),
    "tiff_packbits": ("packbits", "PackBitsCodec"),
    "tiff_predictor": ("tiff_predictor", "TiffPredictorCodec"),
    "transpose": ("transpose", "TransposeCodec"),
    "zarr_jpeg": ("zarr_image", "ZarrJpegCodec"),
    "zlib": ("deflate", "ZlibCodec"),
    "zstd": ("zstd", "ZstdCodec"),
    **imagecodecs_recipes.CODECS,
}
"""Canonical name -> (module in this package, class)."""


OBJECT_CODECS: dict[str, tuple[str, str]] = {
    "categorize_objects": ("categorize", "CategorizeObjectsCodec"),
    "json2": ("python_objects", "JsonCodec"),
    "msgpack2": ("python_objects", "MsgPackCodec"),
    "vlen-array": ("vlen", "VlenArrayCodec"),
    "vlen-bytes": ("vlen", "VlenBytesCodec"),
    "vlen-utf8": ("vlen", "VlenUtf8Codec"),
}
"""Codecs that decode to strings and other objects: name -> (module in this package, class)."""


def build_codec(spec: CodecSpec, *, source: str) -> Codec:
    """Make the decoder of one codec; raise `UnsupportedCodecError` if there is none."""
    codec: Codec = _build(CODECS, spec, source)
    return codec


def build_chain(specs: Sequence[CodecSpec], decoded_nbytes: int, *, source: str) -> CodecChain:
    """Make the chain of one array whose decoded chunks have `decoded_nbytes` bytes."""
    object_codec: ObjectCodec | None = None
    if specs and specs[0].name in OBJECT_CODECS:
        object_codec = _build(OBJECT_CODECS, specs[0], source)
        specs = specs[1:]
    codecs = tuple(build_codec(spec, source=source) for spec in specs)
    return CodecChain(codecs, decoded_nbytes, object_codec)


def _build(table: Mapping[str, tuple[str, str]], spec: CodecSpec, source: str) -> Any:
    entry = table.get(spec.name.removeprefix("numcodecs."))
    if entry is None:
        names = {**CODECS, **OBJECT_CODECS}
        known = ", ".join(sorted(name for name in names if "imagecodecs_" not in name))
        msg = (
            f"codec {spec.name[:80]!r} of {source!r} has no decoder; zarrgpu decodes {known}, "
            "imagecodecs_*"
        )
        raise UnsupportedCodecError(msg)
    module = import_module(f"zarrgpu.codecs.{entry[0]}")
    try:
        return getattr(module, entry[1]).from_configuration(spec.configuration)
    except (UnsupportedCodecError, MissingDependencyError) as error:
        # a codec does not know where it is, nor how long what it was given is
        raise type(error)(f"{source!r}: {str(error)[:500]}") from error
