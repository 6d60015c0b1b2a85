"""What each array codec of Zarr v3 makes of the elements it is given: their type and shape.

The engines know chunks as bytes only. So whatever a codec must know of elements is worked out here,
once, from the metadata, and written into its `CodecSpec.configuration` in one form:

``dtype``          NumPy type string, byte order included, of the elements it decodes to
``encoded_dtype``  the same of the elements it decodes from
``shape``          list of int, shape that it decodes to, C order; only where it matters

A rule looks at one codec in the encoding direction. Rules never see byte order: `codec_chain` adds
it when the ``bytes`` codec has said it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from zarrgpu.errors import UnsupportedCodecError
from zarrgpu.formats import filters
from zarrgpu.formats.codec_fields import integer
from zarrgpu.formats.document import Document, shown
from zarrgpu.formats.stage import Rule, Shape, Stage
from zarrgpu.formats.value_codecs import VALUE_RULES

_MAX_DIMENSIONS = 32
_MAX_LENGTH = 1 << 62


def parse_transpose(configuration: Document, ndim: int) -> Shape:
    """Order as a permutation; the older forms ``"C"`` and ``"F"`` are still found."""
    value = configuration.require("order")
    if value in ("C", "F"):
        order = tuple(range(ndim))
        return order if value == "C" else order[::-1]
    order = configuration.lengths("order", minimum=0, ndim=ndim)
    if sorted(order) != list(range(ndim)):
        raise configuration.fail(f"{list(order)} is not a permutation of {ndim} axes", "order")
    return order


def _transpose(configuration: Document, dtype: np.dtype[Any], shape: Shape) -> Stage:
    order = parse_transpose(configuration, len(shape))
    return Stage(
        name="transpose",
        dtype=dtype,
        encoded_dtype=dtype,
        encoded_shape=tuple(shape[axis] for axis in order),
        configuration={"order": list(order), "shape": list(shape)},
        moves_only=True,
    )


def _reshape(configuration: Document, dtype: np.dtype[Any], shape: Shape) -> Stage:
    return Stage(
        name="reshape",
        dtype=dtype,
        encoded_dtype=dtype,
        encoded_shape=_new_shape(configuration, shape),
        moves_only=True,
    )


def _new_shape(configuration: Document, shape: Shape) -> Shape:
    """Shape that ``reshape`` makes: of sizes, lists of input axes, and at most one -1."""
    items = configuration.require("shape")
    if not isinstance(items, list) or len(items) > _MAX_DIMENSIONS:
        raise configuration.fail(f"expected a list of sizes, got {shown(items)}", "shape")
    sizes: list[int] = []
    for item in items:
        if isinstance(item, list) and all(type(a) is int and 0 <= a < len(shape) for a in item):
            sizes.append(math.prod(shape[axis] for axis in item))
        elif type(item) is int and (item == -1 or 0 < item < _MAX_LENGTH):
            sizes.append(item)
        else:
            raise configuration.fail(
                f"expected a size, -1 or a list of axes below {len(shape)}, got {shown(item)}",
                "shape",
            )
    count = math.prod(shape)
    if sizes.count(-1) == 1:
        known = math.prod(size for size in sizes if size != -1)
        sizes[sizes.index(-1)] = count // known if known else 0
    if -1 in sizes or math.prod(sizes) != count:
        raise configuration.fail(f"{shown(items)} does not keep the {count} elements", "shape")
    _check_input_axes(configuration, items, sizes, shape)
    return tuple(sizes)


def _check_input_axes(
    configuration: Document, items: list[Any], sizes: list[int], shape: Shape
) -> None:
    """Refuse axes that are out of order, or whose place in memory is not that of the new axis."""
    named = [axis for item in items if isinstance(item, list) for axis in item]
    in_place = all(
        math.prod(sizes[:i]) == math.prod(shape[: item[0]])
        and math.prod(sizes[i + 1 :]) == math.prod(shape[item[-1] + 1 :])
        for i, item in enumerate(items)
        if isinstance(item, list) and item
    )
    if any(a >= b for a, b in pairwise(named)) or not in_place:
        raise configuration.fail(f"{shown(items)} would need a transpose", "shape")


def _numcodecs_packbits(configuration: Document, dtype: np.dtype[Any], shape: Shape) -> Stage:
    if dtype.itemsize != 1 or dtype.kind not in "biu":
        raise configuration.fail(f"packs booleans, the elements here are {dtype}")
    return Stage(
        name="packbits",
        dtype=dtype,
        encoded_dtype=np.dtype("u1"),
        encoded_shape=(1 + -(-math.prod(shape) // 8),),
        configuration=filters.BOOL_PACKBITS,
    )


_BITS = {
    "bool": 1, "int2": 2, "uint2": 2, "int4": 4, "uint4": 4, "float4_e2m1fn": 4,
    "float6_e2m3fn": 6, "float6_e3m2fn": 6, "bfloat16": 16,
}  # fmt: skip


def _packbits(configuration: Document, dtype: np.dtype[Any], shape: Shape) -> Stage:
    if dtype.name not in _BITS and dtype.kind not in "iufc":
        raise configuration.fail(f"packs numbers and booleans, the elements here are {dtype}")
    component_nbytes = dtype.itemsize // (2 if dtype.kind == "c" else 1)
    bits = _BITS.get(dtype.name, 8 * component_nbytes)
    first = integer(configuration, "first_bit", 0, bits - 1, 0)
    last = integer(configuration, "last_bit", first, bits - 1, bits - 1)
    padding = configuration.choice("padding_encoding", ("none", "first_byte", "last_byte"), "none")
    options = {
        "component_bits": 8 * component_nbytes,
        "value_bits": bits,
        "first_bit": first,
        "last_bit": last,
        "signed": dtype.kind == "i" or dtype.name in ("int2", "int4"),
        "bit_order": "little",
        "padding": padding,
    }
    return _to_bytes("packbits", dtype, shape, options)


def _objects(name: str) -> Rule:
    """Object codec: strings and the like to bytes, with no size that could be known."""

    def rule(configuration: Document, dtype: np.dtype[Any], shape: Shape) -> Stage:
        if not dtype.hasobject:
            raise configuration.fail(
                f"{name} encodes strings or bytes of any length, the elements here are {dtype}"
            )
        return _to_bytes(name, dtype, shape)

    return rule


def _numbers(name: str, types: tuple[str, ...]) -> Rule:
    """Compressor of numbers of some types, whose stream says all."""

    def rule(configuration: Document, dtype: np.dtype[Any], shape: Shape) -> Stage:
        if dtype.str[1:] not in types:
            raise configuration.fail(f"{name} holds {', '.join(types)}, the elements are {dtype}")
        return _to_bytes(name, dtype, shape)

    return rule


def _unsafe(name: str) -> Rule:
    """Codec whose library is known to read beyond the end of a damaged stream."""

    def rule(configuration: Document, dtype: np.dtype[Any], shape: Shape) -> Stage:
        place = ".".join(map(str, configuration.location))
        msg = (
            f"{configuration.source!r} {place}: {name} is refused for {dtype} chunks of "
            f"{list(shape)}: its library reads beyond the end of damaged streams"
        )
        raise UnsupportedCodecError(msg)

    return rule


def _to_bytes(
    name: str, dtype: np.dtype[Any], shape: Shape, configuration: Mapping[str, Any] | None = None
) -> Stage:
    """Array-to-bytes codec."""
    return Stage(
        name=name,
        dtype=dtype,
        encoded_dtype=np.dtype("u1"),
        encoded_shape=(math.prod(shape),),
        configuration=configuration or {},
    )


ARRAY_RULES: dict[str, Rule] = VALUE_RULES | {
    "numcodecs.packbits": _numcodecs_packbits,
    "reshape": _reshape,
    "transpose": _transpose,
}
"""Array-to-array codecs by their name in v3 metadata."""

SERIALISER_RULES: dict[str, Rule] = {
    "numcodecs.pcodec": _numbers("pcodec", ("u2", "u4", "u8", "i2", "i4", "i8", "f2", "f4", "f8")),
    "numcodecs.zfpy": _unsafe("numcodecs.zfpy"),
    "zfp": _unsafe("zfp"),
    "packbits": _packbits,
    "vlen-bytes": _objects("vlen-bytes"),
    "vlen-utf8": _objects("vlen-utf8"),
}
"""Array-to-bytes codecs besides ``bytes`` and ``sharding_indexed``, by their v3 name."""
