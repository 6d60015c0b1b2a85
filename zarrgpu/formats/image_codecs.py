"""Codecs of imagecodecs, image codecs of Zarr, and virtual-tiff's, in Zarr metadata.

Sources: ``imagecodecs.numcodecs`` (v2) and ``imagecodecs.zarr`` (v3), zarr-extensions' pull
requests 66 (``jpeg``) and 70 (``jpegxl``), glencoesoftware/zarr-jpeg2k, virtual-tiff 0.5.

All become one form, ``CodecSpec("imagecodecs_<name>", ...)``, with the keys of `array_codecs` and

``codec``     ``<name>``
``options``   the metadata's own configuration, as it stands
``shape``     of the elements where they are stored, C order
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from zarrgpu.formats.document import Document
from zarrgpu.formats.stage import Rule, Shape, Stage
from zarrgpu.model import CodecSpec

_PREFIX: Final = "imagecodecs_"

FILTERS: Final = frozenset(
    {"bitorder", "bitshuffle", "byteshuffle", "cms", "delta", "floatpred", "quantize", "xor"}
)
"""Array-to-array codecs of ``imagecodecs.zarr``, without the prefix."""

IMAGES: Final = frozenset(
    {
        "apng", "avif", "bfloat16", "bmp", "ccittfax3", "ccittfax4", "ccittrle", "dds", "dicomrle",
        "eer", "float24", "gif", "heif", "htj2k", "jetraw", "jpeg", "jpeg2k", "jpeg8", "jpegls",
        "jpegxl", "jpegxr", "jpegxs", "lerc", "ljpeg", "meshopt", "packints", "pcodec", "pixarlog",
        "png", "qoi", "rcomp", "rgbe", "sperr", "spng", "sz3", "tiff", "ultrahdr", "webp", "zfp",
    }
)  # fmt: skip
"""Array-to-bytes codecs of ``imagecodecs.zarr``, without the prefix."""

_PLAIN: Final = {
    "jpeg": ("zarr_jpeg", "jpeg", {}),
    "jpeg2k": ("imagecodecs_jpeg2k", "jpeg2k", {}),
    "jpegxl": ("imagecodecs_jpegxl", "jpegxl", {"keeporientation": True}),
    "png": ("imagecodecs_png", "png", {}),
    "webp": ("imagecodecs_webp", "webp", {}),
}
"""v3 names without a prefix -> canonical name, ``codec``, options that the proposal demands."""

_HORIZONTAL_DELTA: Final = ("HorizontalDeltaCodec", "virtual_tiff.HorizontalDeltaCodec")
_CHUNKY: Final = ("ChunkyCodec", "virtual_tiff.ChunkyCodec")


def is_imagecodecs(name: str) -> bool:
    """Whether a v2 id or v3 name is one of imagecodecs'."""
    return name.removeprefix("numcodecs.").startswith(_PREFIX)


def bytes_codec(name: str, options: Mapping[str, Any], dtype: str, shape: Shape) -> CodecSpec:
    """Spec of a codec in the place of a compressor, for elements of `dtype` and `shape`."""
    name = name.removeprefix("numcodecs.")
    codec = name.removeprefix(_PREFIX)
    configuration: dict[str, Any] = {"codec": codec, "options": dict(options)}
    if codec in IMAGES:
        configuration |= {"dtype": dtype, "shape": list(shape)}
    return CodecSpec(name, configuration)


def parse_v2_codec(document: Document, dtype: np.dtype[Any], shape: Shape) -> CodecSpec | None:
    """Spec of a v2 filter or compressor; None where it is not of this family.

    `shape` is the chunk's, `dtype` that of the elements the codec was given.
    """
    codec_id = document.value.get("id")
    options = {k: v for k, v in document.value.items() if k != "id"}
    if codec_id == "jpeg2k":  # Glencoe's
        return bytes_codec("imagecodecs_jpeg2k", {}, dtype.str, shape)
    if isinstance(codec_id, str) and is_imagecodecs(codec_id):
        return bytes_codec(codec_id, options, dtype.str, shape)
    return None


def expand_chunky(items: list[tuple[str, Document]], ndim: int) -> list[tuple[str, Document]]:
    """Tell virtual-tiff's ``ChunkyCodec`` by what it does: bytes in Fortran order."""
    expanded: list[tuple[str, Document]] = []
    for name, configuration in items:
        if name in _CHUNKY:
            order = {"order": list(range(ndim))[::-1]}
            transpose = Document(configuration.source, order, configuration.location)
            options = {"endian": "little"} | dict(configuration.value)
            as_bytes = Document(configuration.source, options, configuration.location)
            expanded += [("transpose", transpose), ("bytes", as_bytes)]
        else:
            expanded.append((name, configuration))
    return expanded


def _filter(codec: str, options: Mapping[str, Any] | None = None) -> Rule:
    """Array-to-array codec that keeps type and shape; `options` in place of its own."""

    def rule(configuration: Document, dtype: np.dtype[Any], shape: Shape) -> Stage:
        if dtype.kind not in "biuf" or (options is not None and dtype.kind not in "iu"):
            raise configuration.fail(
                f"{codec} works on real numbers, the elements here are {dtype}"
            )
        return Stage(
            name=_PREFIX + codec,
            dtype=dtype,
            encoded_dtype=dtype,
            encoded_shape=shape,
            configuration={
                "codec": codec,
                "options": dict(configuration.value if options is None else options),
                "shape": list(shape),
            },
            moves_only=codec == "quantize",
        )

    return rule


def _serialiser(name: str, codec: str, fixed: Mapping[str, Any]) -> Rule:
    """Array-to-bytes codec."""

    def rule(configuration: Document, dtype: np.dtype[Any], shape: Shape) -> Stage:
        if dtype.kind not in "biuf":
            raise configuration.fail(f"{codec} holds real numbers, the elements here are {dtype}")
        return Stage(
            name=name,
            dtype=dtype,
            encoded_dtype=np.dtype("u1"),
            encoded_shape=(1,),
            configuration={
                "codec": codec,
                "options": {**configuration.value, **fixed},
                "shape": list(shape),
            },
        )

    return rule


def _spellings(codec: str) -> tuple[str, str]:
    return _PREFIX + codec, f"numcodecs.{_PREFIX}{codec}"


ARRAY_RULES: dict[str, Rule] = {
    name: _filter(codec) for codec in FILTERS for name in _spellings(codec)
} | {name: _filter("delta", {"axis": -1, "dist": 1}) for name in _HORIZONTAL_DELTA}
"""Array-to-array codecs by their name in v3 metadata."""

SERIALISER_RULES: dict[str, Rule] = {
    name: _serialiser(_PREFIX + codec, codec, {}) for codec in IMAGES for name in _spellings(codec)
} | {
    name: _serialiser(canonical, codec, fixed) for name, (canonical, codec, fixed) in _PLAIN.items()
}
"""Array-to-bytes codecs by their name in v3 metadata."""
