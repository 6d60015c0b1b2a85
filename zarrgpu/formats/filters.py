"""Configurations of numcodecs' codecs, as Zarr v2 and ``numcodecs.*`` of v3 write them.

Source: numcodecs 0.16. A v2 filter says itself which types it converts between, and views the bytes
it is given as the one or the other; the array's type has no part in it. So nothing is checked here
against the array, and its chain is a chain over bytes as it stands.

Members that only an encoder needs are checked where they decide what was written, and dropped.
"""

from __future__ import annotations

import lzma
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn, TypeAlias

import numpy as np

from zarrgpu.errors import UnsupportedCodecError
from zarrgpu.formats.codec_fields import NUMBERS, element_type, integer, number
from zarrgpu.formats.document import Document, shown
from zarrgpu.model import CodecSpec

FilterRule: TypeAlias = Callable[[Document], CodecSpec]

_MAX_DIGITS = 1000
_MAX_KEEPBITS = 64
_MAX_LABELS = 1 << 20
_MAX_DICTIONARY_NBYTES = 1 << 28


def element_types(
    document: Document, encoded: str, decoded: str, kinds: str
) -> tuple[np.dtype[Any], np.dtype[Any]]:
    """Types on either side of a filter: what it decodes from (by default the same) and to."""
    dtype = element_type(document, decoded, kinds)
    return element_type(document, encoded, kinds, dtype), dtype


def converter(
    name: str, encoded: np.dtype[Any], decoded: np.dtype[Any], options: Mapping[str, Any]
) -> CodecSpec:
    """Spec of a codec from elements to elements."""
    return CodecSpec(name, {"dtype": decoded.str, "encoded_dtype": encoded.str, **options})


def _delta(document: Document) -> CodecSpec:
    encoded, decoded = element_types(document, "astype", "dtype", NUMBERS + "m")
    return converter("delta", encoded, decoded, {})


def fixedscaleoffset_options(document: Document) -> dict[str, Any]:
    """Scale and offset."""
    return {"scale": number(document, "scale"), "offset": number(document, "offset")}


def _fixedscaleoffset(document: Document) -> CodecSpec:
    encoded, decoded = element_types(document, "astype", "dtype", NUMBERS)
    return converter("fixedscaleoffset", encoded, decoded, fixedscaleoffset_options(document))


def check_digits(document: Document) -> None:
    """Decoding does not need them, but wrong ones say that the metadata is damaged."""
    integer(document, "digits", -_MAX_DIGITS, _MAX_DIGITS)


def _quantize(document: Document) -> CodecSpec:
    check_digits(document)
    encoded, decoded = element_types(document, "astype", "dtype", "f")
    return converter("quantize", encoded, decoded, {})


def _astype(document: Document) -> CodecSpec:
    encoded = element_type(document, "encode_dtype", NUMBERS + "SUmM")
    decoded = element_type(document, "decode_dtype", NUMBERS + "SUmM")
    return converter("astype", encoded, decoded, {})


def check_keepbits(document: Document) -> None:
    """Decoding does not need it, but a wrong one says that the metadata is damaged."""
    integer(document, "keepbits", 0, _MAX_KEEPBITS)


def _bitround(document: Document) -> CodecSpec:
    check_keepbits(document)
    return CodecSpec("bitround")


BOOL_PACKBITS = {
    "dtype": "|b1", "component_bits": 8, "value_bits": 1, "first_bit": 0, "last_bit": 0,
    "signed": False, "bit_order": "big", "padding": "first_byte",
}  # fmt: skip
"""numcodecs' packbits as a case of the v3 codec: one bit for each bool, the first one highest."""


def _packbits(document: Document) -> CodecSpec:
    del document
    return CodecSpec("packbits", BOOL_PACKBITS)


def _categorize(document: Document) -> CodecSpec:
    labels = document.require("labels")
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise document.fail(f"expected a list of strings, got {shown(labels)}", "labels")
    if len(labels) > _MAX_LABELS:
        raise document.fail(f"has {len(labels)} labels, at most {_MAX_LABELS} are read", "labels")
    decoded = element_type(document, "dtype", "UO")
    encoded = element_type(document, "astype", NUMBERS, np.dtype("u1"))
    name = "categorize" if decoded.kind == "U" else "categorize_objects"
    return converter(name, encoded, decoded, {"labels": list(labels)})


def _shuffle(document: Document) -> CodecSpec:
    return CodecSpec("shuffle", {"elementsize": integer(document, "elementsize", 0, 1 << 20, 4)})


def _checksum(name: str, default: str) -> FilterRule:
    def rule(document: Document) -> CodecSpec:
        location = default
        if document.value.get("location") is not None:
            location = document.choice("location", ("start", "end"))
        if name == "crc32c":
            return CodecSpec("crc32c" if location == "end" else "crc32c_start")
        return CodecSpec(name, {"location": location})

    return rule


def _fletcher32(document: Document) -> CodecSpec:
    del document
    return CodecSpec("fletcher32")


def bytes_shuffle(document: Document, itemsize: int) -> CodecSpec:
    """numcodecs.shuffle of v3, whose default is the size of the array's elements."""
    return CodecSpec(
        "shuffle", {"elementsize": integer(document, "elementsize", 0, 1 << 20, itemsize)}
    )


def _jenkins(document: Document) -> CodecSpec:
    if document.value.get("prefix") is not None:
        raise document.fail("expected null: JSON has no bytes to prefix with", "prefix")
    return CodecSpec(
        "jenkins_lookup3", {"initval": integer(document, "initval", 0, (1 << 32) - 1, 0)}
    )


def _lzma(document: Document) -> CodecSpec:
    form = integer(document, "format", lzma.FORMAT_AUTO, lzma.FORMAT_RAW, lzma.FORMAT_XZ)
    filters = document.value.get("filters")
    if filters is not None and not (
        isinstance(filters, list)
        and all(isinstance(f, dict) and all(type(v) is int for v in f.values()) for f in filters)
    ):
        raise document.fail(f"expected a list of objects or null, got {shown(filters)}", "filters")
    if form != lzma.FORMAT_RAW:
        return CodecSpec("lzma", {"format": form, "filters": None})
    if not filters:
        raise document.fail("is missing: raw LZMA streams do not name their filters", "filters")
    if any(f.get("dict_size", 0) > _MAX_DICTIONARY_NBYTES for f in filters):
        raise document.fail(f"has a dictionary above {_MAX_DICTIONARY_NBYTES} bytes", "filters")
    try:
        lzma.LZMADecompressor(lzma.FORMAT_RAW, None, filters)
    except (lzma.LZMAError, TypeError, ValueError, OverflowError, MemoryError) as error:
        raise document.fail(
            f"{shown(filters)} are not filters of LZMA: {error}", "filters"
        ) from error
    return CodecSpec("lzma", {"format": form, "filters": filters})


def _vlen_array(document: Document) -> CodecSpec:
    return CodecSpec(
        "vlen-array", {"item_dtype": element_type(document, "dtype", NUMBERS + "SU").str}
    )


def _zfpy(document: Document) -> CodecSpec:
    msg = (
        f"{document.source!r} {'.'.join(map(str, document.location))}: zfpy is refused, since its "
        "library reads beyond the end of damaged streams"
    )
    raise UnsupportedCodecError(msg)


def _pickle(document: Document) -> CodecSpec:
    msg = (
        f"{document.source!r} {'.'.join(map(str, document.location))}: pickle is refused, since "
        "decoding it runs whatever code the file holds; store the array anew with json2 or msgpack2"
    )
    raise UnsupportedCodecError(msg)


FILTER_RULES: dict[str, FilterRule] = {
    "adler32": _checksum("adler32", "start"),
    "astype": _astype,
    "bitround": _bitround,
    "categorize": _categorize,
    "crc32": _checksum("crc32", "start"),
    "crc32c": _checksum("crc32c", "end"),
    "delta": _delta,
    "fixedscaleoffset": _fixedscaleoffset,
    "fletcher32": _fletcher32,
    "jenkins_lookup3": _jenkins,
    "lzma": _lzma,
    "packbits": _packbits,
    "pickle": _pickle,
    "quantize": _quantize,
    "shuffle": _shuffle,
    "vlen-array": _vlen_array,
    "zfpy": _zfpy,
}
"""numcodecs' ids whose configuration matters when decoding."""

_UNSAFE = {"pickle", "zfpy"}

BYTES_RULES = {
    name: FILTER_RULES[name]
    for name in ("adler32", "crc32", "crc32c", "fletcher32", "jenkins_lookup3", "lzma", "shuffle")
}
"""Those that are bytes-to-bytes codecs in v3."""

PLAIN_CODECS = ("base64", "blosc", "bz2", "gzip", "lz4", "zlib", "zstd")
"""Whose configuration says nothing that decoding needs."""

_PLAIN_OBJECT_FILTERS = ("json2", "msgpack2", "vlen-bytes", "vlen-utf8")


def refuse_codec(document: Document, name: str, known: Iterable[str]) -> NoReturn:
    """Refuse a name that is none of `known`; canonical names are not for documents to use."""
    place = ".".join(map(str, document.location))
    names = ", ".join(sorted(name.removeprefix("numcodecs.") for name in known))
    msg = (
        f"{document.source!r} {place}: codec {shown(name)} has no decoder; zarrgpu decodes "
        f"{names}, imagecodecs_*"
    )
    raise UnsupportedCodecError(msg)


OBJECT_FILTERS = (
    "categorize_objects", "json2", "msgpack2", "vlen-array", "vlen-bytes", "vlen-utf8",
)  # fmt: skip
"""Canonical names of those that decode to objects."""

NESTED_LISTS = ("json2", "msgpack2")
"""Those that store the axes of a chunk, in C order always."""


def check_objects(document: Document, dtype: np.dtype[Any], codecs: Sequence[CodecSpec]) -> None:
    """Refuse an array of objects whose first filter does not make them, and the reverse."""
    for index, codec in enumerate(codecs):
        if codec.name in OBJECT_FILTERS and (index or not dtype.hasobject):
            msg = f"{codec.name} makes objects, so it is the first filter of an object array only"
            raise document.fail(msg, "filters")
    if dtype.hasobject and (not codecs or codecs[0].name not in OBJECT_FILTERS):
        known = ", ".join(OBJECT_FILTERS)
        raise document.fail(f"objects need a filter that makes them: one of {known}", "filters")


def parse_filter(document: Document, dtype: np.dtype[Any]) -> CodecSpec:
    """Parse one v2 filter or compressor, which is given elements of `dtype`.

    Raises
    ------
    MetadataError, UnsupportedCodecError
    """
    codec_id = document.require("id")
    if not isinstance(codec_id, str):
        raise document.fail(f"expected a string, got {shown(codec_id)}", "id", kind="type")
    if codec_id == "pcodec":
        return CodecSpec(codec_id, {"dtype": dtype.str})
    rule = FILTER_RULES.get(codec_id)
    if rule is not None:
        return rule(document)
    plain = (*PLAIN_CODECS, *_PLAIN_OBJECT_FILTERS)
    if codec_id not in plain:
        refuse_codec(document, codec_id, {*FILTER_RULES, *plain, "pcodec"} - _UNSAFE)
    return CodecSpec(codec_id, {k: v for k, v in document.value.items() if k != "id"})
