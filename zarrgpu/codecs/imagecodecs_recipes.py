"""How each codec of imagecodecs is called: function, and the options that matter for decoding.

imagecodecs registers its codecs as ``imagecodecs_<name>`` (v2: ``imagecodecs.numcodecs``, v3:
``imagecodecs.zarr``); their configurations also tell how the data was encoded, which decoding does
not need. Left out is what cannot be decoded (``cms``) or is not in imagecodecs 2026.3.6 (``exr``,
``hcomp``, ``plio``, ``wavpack``, ``wic``), and what `REFUSED` tells.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Call of one decoder.

    Attributes
    ----------
    function : str
        In imagecodecs.
    options : tuple of str
        Members of the metadata's configuration that are passed on by name where they are not null.
    renamed : mapping
        Further members: parameter -> member.
    positional : tuple of str
        Members passed by place after the data; all must be there.
    fixed : mapping
        Parameters that are always the same.
    takes : tuple of str
        ``shape`` and ``dtype`` of the elements where the stream does not tell its own.
    squeezed : bool
        Whether the encoder was given the chunk without its axes of length 1.
    element_nbytes : int
        Stored size of an element where that is fixed, else 0.
    """

    function: str
    options: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)
    positional: tuple[str, ...] = ()
    fixed: Mapping[str, Any] = field(default_factory=dict)
    takes: tuple[str, ...] = ()
    squeezed: bool = True
    element_nbytes: int = 0


_ONE_THREAD: Final = MappingProxyType({"numthreads": 1})
_COLORSPACES: Final = MappingProxyType(
    {"tables": "tables", "colorspace": "colorspace_jpeg", "outcolorspace": "colorspace_data"}
)
_JPEG: Final = Recipe(function="jpeg8_decode", renamed=_COLORSPACES)

IMAGES: Final[Mapping[str, Recipe]] = {
    "apng": Recipe(function="apng_decode"),
    "avif": Recipe(function="avif_decode", options=("index",), fixed=_ONE_THREAD),
    "bfloat16": Recipe(
        function="bfloat16_decode", options=("byteorder",), squeezed=False, element_nbytes=2
    ),
    "bmp": Recipe(function="bmp_decode", options=("asrgb",)),
    "ccittfax3": Recipe(function="ccittfax3_decode", options=("height", "width", "t4options")),
    "ccittfax4": Recipe(function="ccittfax4_decode", options=("height", "width")),
    "ccittrle": Recipe(function="ccittrle_decode", options=("height", "width")),
    "dds": Recipe(function="dds_decode", options=("mipmap",)),
    "eer": Recipe(
        function="eer_decode",
        positional=("shape", "skipbits", "horzbits", "vertbits"),
        options=("superres",),
    ),
    "float24": Recipe(
        function="float24_decode", options=("byteorder",), squeezed=False, element_nbytes=3
    ),
    "gif": Recipe(function="gif_decode", fixed={"asrgb": False}),
    "heif": Recipe(function="heif_decode", options=("index", "photometric")),
    "htj2k": Recipe(function="htj2k_decode", options=("planar", "skipres", "resilient")),
    "jetraw": Recipe(function="jetraw_decode"),
    "jpeg": _JPEG,
    "jpeg2k": Recipe(function="jpeg2k_decode", options=("planar",), fixed=_ONE_THREAD),
    "jpeg8": _JPEG,
    "jpegls": Recipe(function="jpegls_decode"),
    "jpegxl": Recipe(
        function="jpegxl_decode", options=("index", "keeporientation"), fixed=_ONE_THREAD
    ),
    "jpegxr": Recipe(function="jpegxr_decode", options=("fp2int",)),
    "jpegxs": Recipe(function="jpegxs_decode"),
    "lerc": Recipe(function="lerc_decode", fixed={"masks": False}),
    "ljpeg": Recipe(function="ljpeg_decode"),
    "meshopt": Recipe(
        function="meshopt_decode", options=("items",), takes=("shape", "dtype"), squeezed=False
    ),
    "packints": Recipe(
        function="packints_decode",
        positional=("bitspersample",),
        options=("bitorder", "runlen"),
        takes=("dtype",),
        squeezed=False,
    ),
    "pixarlog": Recipe(function="pixarlog_decode", options=("deflate",), takes=("shape", "dtype")),
    "png": Recipe(function="png_decode"),
    "qoi": Recipe(function="qoi_decode"),
    "rcomp": Recipe(
        function="rcomp_decode", options=("nblock",), takes=("shape", "dtype"), squeezed=False
    ),
    "rgbe": Recipe(function="rgbe_decode", options=("header", "rle"), fixed={"header": False}),
    "spng": Recipe(function="spng_decode"),
    "tiff": Recipe(function="tiff_decode", options=("index", "asrgb"), fixed={"index": None}),
    "webp": Recipe(function="webp_decode", options=("index", "hasalpha")),
}
"""Array to bytes: name without ``imagecodecs_`` -> call."""

COMPRESSORS: Final[Mapping[str, Recipe]] = {
    "aec": Recipe(function="aec_decode", options=("bitspersample", "flags", "blocksize", "rsi")),
    "blosc2": Recipe(function="blosc2_decode", fixed=_ONE_THREAD),
    "brotli": Recipe(function="brotli_decode"),
    "bz2": Recipe(function="bz2_decode"),
    "deflate": Recipe(function="deflate_decode", options=("raw",)),
    "dicomrle": Recipe(function="dicomrle_decode", takes=("dtype",)),
    "lz4": Recipe(function="lz4_decode", options=("header",)),
    "lz4f": Recipe(function="lz4f_decode"),
    "lz4h5": Recipe(function="lz4h5_decode"),
    "lzf": Recipe(function="lzf_decode", options=("header",), fixed={"header": True}),
    "lzfse": Recipe(function="lzfse_decode"),
    "lzham": Recipe(function="lzham_decode"),
    "lzma": Recipe(function="lzma_decode"),
    "lzo": Recipe(function="lzo_decode", options=("header",)),
    "lzw": Recipe(function="lzw_decode"),
    "packbits": Recipe(function="packbits_decode"),
    "pglz": Recipe(
        function="pglz_decode", options=("header", "checkcomplete"), fixed={"header": True}
    ),
    "snappy": Recipe(function="snappy_decode"),
    "szip": Recipe(
        function="szip_decode",
        positional=("options_mask", "pixels_per_block", "bits_per_pixel", "pixels_per_scanline"),
        options=("header",),
        fixed={"header": True},
    ),
}
"""Bytes to bytes, besides `SAME_STREAMS`."""

FILTERS: Final[Mapping[str, Recipe]] = {
    "bitorder": Recipe(function="bitorder_decode"),
    "bitshuffle": Recipe(function="bitshuffle_decode", options=("itemsize", "blocksize")),
    "byteshuffle": Recipe(
        function="byteshuffle_decode", options=("axis", "dist", "delta", "reorder")
    ),
    "delta": Recipe(function="delta_decode", options=("axis", "dist")),
    "floatpred": Recipe(function="floatpred_decode", options=("axis", "dist")),
    "xor": Recipe(function="xor_decode", options=("axis",)),
}
"""Array to array, one element to one element; ``quantize`` has nothing to undo."""


REFUSED: Final[Mapping[str, str]] = {
    "cms": "imagecodecs cannot decode it either",
    "pcodec": "its library aborts the process on damaged data",
    "sperr": "its library aborts the process on damaged data, and does not find cut-off data",
    "ultrahdr": "its library leaves its memory on damaged data",
    "sz3": "its library leaves its memory on damaged data, and does not find damaged data",
    "zfp": "its library leaves its memory on damaged data, and does not find cut-off data",
}
"""Codecs that are left out on purpose, and why (measured: imagecodecs 2026.3.6)."""


SAME_STREAMS: Final[Mapping[str, tuple[str, str]]] = {
    "blosc": ("blosc", "BloscCodec"),
    "gzip": ("deflate", "GzipCodec"),
    "zlib": ("deflate", "ZlibCodec"),
    "zlibng": ("deflate", "ZlibCodec"),
    "zopfli": ("deflate", "ZlibCodec"),
    "zstd": ("zstd", "ZstdCodec"),
}
"""Names of imagecodecs for streams that codecs of ours decode, on a device too."""

CODECS: Final[dict[str, tuple[str, str]]] = {
    f"imagecodecs_{name}": entry
    for names, entry in (
        (IMAGES, ("zarr_image", "ZarrImageCodec")),
        (COMPRESSORS, ("imagecodecs_bytes", "ImagecodecsCompressor")),
        (FILTERS, ("imagecodecs_bytes", "ImagecodecsFilter")),
        (REFUSED, ("imagecodecs_bytes", "RefusedCodec")),
        (("checksum",), ("imagecodecs_bytes", "ChecksumCodec")),
        (("quantize",), ("imagecodecs_bytes", "QuantizeCodec")),
    )
    for name in names
} | {f"imagecodecs_{name}": entry for name, entry in SAME_STREAMS.items()}
"""Lines for `codecs.registry`."""


def arguments(recipe: Recipe, options: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """Arguments of the call after the data, from the metadata's `options`."""
    named = dict(recipe.fixed)
    for parameter, member in [*((name, name) for name in recipe.options), *recipe.renamed.items()]:
        if options.get(member) is not None:
            named[parameter] = options[member]
    return [options[member] for member in recipe.positional], named
