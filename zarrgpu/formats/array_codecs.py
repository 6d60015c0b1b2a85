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
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from zarrgpu.formats.document import Document

Shape: TypeAlias = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One array codec and the elements that it encodes to.

    Attributes
    ----------
    name : str
        Canonical name.
    encoded_dtype : numpy.dtype
    encoded_shape : tuple of int
    configuration : mapping
        Without ``dtype`` and ``encoded_dtype``.
    moves_only : bool
        Whether elements go through bit for bit: their byte order is then the next codec's affair.
    """

    name: str
    encoded_dtype: np.dtype[Any]
    encoded_shape: Shape
    configuration: Mapping[str, Any] = field(default_factory=dict)
    moves_only: bool = False


Rule: TypeAlias = Callable[[Document, np.dtype[Any], Shape], Stage]
"""Configuration, type and shape of the elements to encode -> what comes out."""


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
        encoded_dtype=dtype,
        encoded_shape=tuple(shape[axis] for axis in order),
        configuration={"order": list(order), "shape": list(shape)},
        moves_only=True,
    )


def _objects(name: str) -> Rule:
    """Object codec: strings and the like to bytes, with no size that could be known."""

    def rule(configuration: Document, dtype: np.dtype[Any], shape: Shape) -> Stage:
        if not dtype.hasobject:
            raise configuration.fail(
                f"{name} encodes strings or bytes of any length, the elements here are {dtype}"
            )
        return Stage(name=name, encoded_dtype=np.dtype("u1"), encoded_shape=(math.prod(shape),))

    return rule


ARRAY_RULES: dict[str, Rule] = {
    "transpose": _transpose,
}
"""Array-to-array codecs by their name in v3 metadata."""

SERIALISER_RULES: dict[str, Rule] = {
    "vlen-bytes": _objects("vlen-bytes"),
    "vlen-utf8": _objects("vlen-utf8"),
}
"""Array-to-bytes codecs besides ``bytes`` and ``sharding_indexed``, by their v3 name."""
