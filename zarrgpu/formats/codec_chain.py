"""A Zarr v3 codec list as a chain of codecs over bytes.

Spec: Zarr core 3.1, "codecs": array-to-array codecs, one array-to-bytes codec, bytes codecs.

1. Transposes that come first move no data: they become the array's stored axis order.
2. Every further array codec is told the type and shape of its elements (`array_codecs`).
3. The byte order that the ``bytes`` codec states is folded back: into the last codec that computes
   with elements, else into the array's own type; types of ml_dtypes have none, for them a codec
   ``element_bytes`` is added.
4. ``sharding_indexed`` is handed over as a document, with the codecs around it: whoever parses
   shards calls `parse_codec_list` again for the lists inside.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np

from zarrgpu.errors import UnsupportedCodecError
from zarrgpu.formats import image_codecs
from zarrgpu.formats.array_codecs import (
    ARRAY_RULES,
    SERIALISER_RULES,
    parse_transpose,
)
from zarrgpu.formats.document import Document, shown
from zarrgpu.formats.extended_types import (
    element_bytes,
    is_extended,
    type_string,
    with_endian,
)
from zarrgpu.formats.filters import BYTES_RULES, PLAIN_CODECS, bytes_shuffle, refuse_codec
from zarrgpu.formats.stage import Shape, Stage
from zarrgpu.model import CodecSpec

Endian = Literal["little", "big"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecList:
    """A parsed codec list.

    Attributes
    ----------
    axis_order : tuple of int
        Stored order of the axes, as in `ArraySpec.axis_order`: the transposes that come first.
    dtype : numpy.dtype
        As in `ArraySpec.dtype`: type of the decoded elements, in the byte order that the chain
        leaves them in. Little-endian where the order is not this list's affair (`sharding`).
    array_codecs : tuple of CodecSpec
        What comes before the array-to-bytes codec, and that codec itself where it is neither
        ``bytes`` nor ``sharding_indexed``; in encoding order.
    sharding : Document or None
        Configuration of ``sharding_indexed`` where that is the array-to-bytes codec.
    bytes_codecs : tuple of CodecSpec
        In encoding order.
    inner_shape, inner_dtype : tuple of int, numpy.dtype
        Elements that the array-to-bytes codec is given: for `sharding`, shape of the shard with its
        axes in stored order, and type.
    """

    axis_order: Shape
    dtype: np.dtype[Any]
    array_codecs: tuple[CodecSpec, ...]
    sharding: Document | None
    bytes_codecs: tuple[CodecSpec, ...]
    inner_shape: Shape
    inner_dtype: np.dtype[Any]

    @property
    def codecs(self) -> tuple[CodecSpec, ...]:
        """All codecs in encoding order, as in `ArraySpec.codecs`."""
        return self.array_codecs + self.bytes_codecs


def parse_codec_list(document: Document, key: str, dtype: np.dtype[Any], shape: Shape) -> CodecList:
    """Parse the codec list under `key`.

    Parameters
    ----------
    document : Document
        Metadata of an array, or configuration of ``sharding_indexed``.
    key : str
        ``codecs`` or ``index_codecs``.
    dtype : numpy.dtype
        Type of the elements that the list encodes.
    shape : tuple of int
        Of the chunk (or shard, or shard index) that it encodes, C order.

    Raises
    ------
    MetadataError, UnsupportedCodecError
    """
    value = document.require(key)
    if not isinstance(value, list) or not value:
        raise document.fail(f"expected a list of codecs, got {shown(value)}", key, kind="type")
    parent = Document(document.source, {}, (*document.location, key))
    items = [parent.extension(str(index), item) for index, item in enumerate(value)]
    items = image_codecs.expand_chunky(items, len(shape))
    split = next((i for i, (name, _) in enumerate(items) if _serialises(name)), None)
    if split is None:
        for name, configuration in items:
            _refuse_array_codec(name, configuration)
        raise document.fail("has no array-to-bytes codec (bytes or sharding_indexed)", key)
    axis_order, stages = _parse_array_codecs(items[:split], dtype, shape)
    inner_dtype, inner_shape = dtype, tuple(shape[axis] for axis in axis_order)
    if stages:
        inner_dtype, inner_shape = stages[-1].encoded_dtype, stages[-1].encoded_shape
    name, configuration = items[split]
    endian: Endian = "little"
    if name in _SERIALISER_RULES:
        if name != "packbits":
            _refuse_extended(name, configuration, inner_dtype)
        stages.append(_SERIALISER_RULES[name](configuration, inner_dtype, inner_shape))
    elif name != "sharding_indexed":
        endian = _parse_endian(configuration, inner_dtype)
    dtype, array_codecs = _fold_endian(stages, dtype, endian)
    if name in ("bytes", "endian"):
        reorder = element_bytes(inner_dtype, endian, document.source)
        array_codecs += () if reorder is None else (CodecSpec("element_bytes", reorder),)
    return CodecList(
        axis_order=axis_order,
        dtype=dtype,
        array_codecs=array_codecs,
        sharding=configuration if name == "sharding_indexed" else None,
        bytes_codecs=tuple(
            _parse_bytes_codec(n, c, _stored(inner_dtype, endian), inner_shape)
            for n, c in items[split + 1 :]
        ),
        inner_shape=inner_shape,
        inner_dtype=inner_dtype,
    )


def _serialises(name: str) -> bool:
    return name in ("bytes", "endian", "sharding_indexed") or name in _SERIALISER_RULES


def _parse_array_codecs(
    items: list[tuple[str, Document]], dtype: np.dtype[Any], shape: Shape
) -> tuple[Shape, list[Stage]]:
    """Axis order of the transposes that come first, then every other codec with its elements."""
    axis_order = tuple(range(len(shape)))
    stages: list[Stage] = []
    for name, configuration in items:
        if name not in _ARRAY_RULES:
            _refuse_array_codec(name, configuration)
        if name == "transpose" and not stages:
            order = parse_transpose(configuration, len(shape))
            axis_order = tuple(axis_order[k] for k in order)
            shape = tuple(shape[k] for k in order)
            continue
        if dtype.hasobject:
            raise configuration.fail(f"{name} works on numbers, the elements here are {dtype}")
        stage = _ARRAY_RULES[name](configuration, dtype, shape)
        if not stage.moves_only:
            _refuse_extended(name, configuration, dtype)
        stages.append(stage)
        dtype, shape = stage.encoded_dtype, stage.encoded_shape
    return axis_order, stages


def _refuse_extended(name: str, configuration: Document, dtype: np.dtype[Any]) -> None:
    """Types of ml_dtypes are for codecs that only move elements, or their bits."""
    if is_extended(dtype):
        msg = f"{configuration.source!r}: {name} of {dtype} elements is not read"
        raise UnsupportedCodecError(msg)


def _refuse_array_codec(name: str, configuration: Document) -> None:
    if name in _ARRAY_RULES:
        return
    place = ".".join(map(str, configuration.location))
    names = {*_ARRAY_RULES, *_SERIALISER_RULES, "bytes", "sharding_indexed"}
    known = ", ".join(sorted(name for name in names if "imagecodecs_" not in name))
    msg = (
        f"{configuration.source!r} {place}: {shown(name)} is no array codec that zarrgpu decodes, "
        f"expected one of {known}, imagecodecs_*"
    )
    raise UnsupportedCodecError(msg)


def _parse_endian(configuration: Document, dtype: np.dtype[Any]) -> Endian:
    """Byte order; only elements that have one must be given it."""
    if dtype.hasobject:
        raise configuration.fail(f"cannot store elements of {dtype}, expected a vlen codec")
    has_order = _stored(dtype, "little") != _stored(dtype, "big")
    # structures are found without one: little-endian, says the registry
    default = None if has_order and dtype.names is None else "little"
    return cast("Endian", configuration.choice("endian", ("little", "big"), default))


def _stored(dtype: np.dtype[Any], endian: Endian) -> np.dtype[Any]:
    """`dtype` in a byte order; strings and objects have none."""
    return dtype if dtype.hasobject else with_endian(dtype, endian)


def _fold_endian(
    stages: list[Stage], dtype: np.dtype[Any], endian: Endian
) -> tuple[np.dtype[Any], tuple[CodecSpec, ...]]:
    """Array's type and codecs, once the byte order in the store is known."""
    codecs: list[CodecSpec] = []
    for stage in reversed(stages):
        encoded_dtype = _stored(stage.encoded_dtype, endian)
        if not stage.moves_only:
            endian = "little"
        types = {
            "dtype": type_string(_stored(stage.dtype, endian)),
            "encoded_dtype": type_string(encoded_dtype),
        }
        codecs.insert(0, CodecSpec(stage.name, {**types, **stage.configuration}))
    return _stored(dtype, endian), tuple(codecs)


def _parse_bytes_codec(
    name: str, configuration: Document, dtype: np.dtype[Any], shape: Shape
) -> CodecSpec:
    images = image_codecs.is_imagecodecs(name)  # virtual-tiff has them after ``bytes``
    if name in _ARRAY_RULES or (_serialises(name) and not images):
        raise configuration.fail(f"{name} works on elements, it cannot follow their bytes")
    if images:
        return image_codecs.bytes_codec(name, configuration.value, dtype.str, shape)
    canonical = name.removeprefix("numcodecs.")
    if name == "numcodecs.shuffle":
        return bytes_shuffle(configuration, dtype.itemsize)
    if canonical in PLAIN_CODECS:
        return CodecSpec(canonical, dict(configuration.value))
    if canonical not in BYTES_RULES:
        refuse_codec(configuration, name, {*PLAIN_CODECS, *BYTES_RULES})
    return BYTES_RULES[canonical](configuration)


def _n5_default(configuration: Document, dtype: np.dtype[Any], shape: Shape) -> Stage:
    """N5 blocks, whose codec list is fixed but for a compressor."""
    items = configuration.value.get("codecs")
    for item in items if isinstance(items, list) else []:
        if (item.get("name") if isinstance(item, Mapping) else item) == "n5_default":
            raise configuration.fail("n5_default holds no n5_default", "codecs")
    inner = parse_codec_list(configuration, "codecs", dtype, shape)
    reverse = tuple(range(len(shape)))[::-1]
    plain = inner.sharding is None and not inner.array_codecs
    big = inner.dtype == _stored(dtype, "big")
    if not (plain and big) or inner.axis_order != reverse or len(inner.bytes_codecs) > 1:
        raise configuration.fail(
            "expected a transpose that reverses the axes, big-endian bytes, and at most one codec",
            "codecs",
        )
    return Stage(
        name="n5_default",
        dtype=dtype,
        encoded_dtype=np.dtype("u1"),
        encoded_shape=(math.prod(shape),),
        configuration={"shape": list(shape), "codecs": list(inner.bytes_codecs)},
    )


_ARRAY_RULES = ARRAY_RULES | image_codecs.ARRAY_RULES
_SERIALISER_RULES = SERIALISER_RULES | image_codecs.SERIALISER_RULES | {"n5_default": _n5_default}
