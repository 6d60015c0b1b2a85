"""Python objects as text or bytes: a list of the elements, the array's type and its shape.

Source: numcodecs 0.16. Both are v2 filters, and the first codec of their chain.

``json2``     ``{"id": "json2", "encoding": "utf-8", "strict": true, ...}``
``msgpack2``  ``{"id": "msgpack2", "raw": false, ...}``; needs the package msgpack

numcodecs' ``pickle`` is refused by the parser: to decode it is to run it.
"""

from __future__ import annotations

import codecs
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from zarrgpu.codecs.base import CodecError
from zarrgpu.errors import MissingDependencyError, UnsupportedCodecError
from zarrgpu.model import ByteArray


def _elements(items: Any, count: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Flat elements of the decoded list, in C order of the shape that it ends with."""
    shape = items[-1] if isinstance(items, list) and len(items) > 1 else None
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise CodecError("does not end with the shape of an array")
    if math.prod(shape) != count:
        raise CodecError(f"holds shape {shape}, expected {count} elements")
    flat = items[:-2]
    for level, length in enumerate(shape):
        if level:
            if not all(isinstance(part, list) and len(part) == length for part in flat):
                raise CodecError(f"is no nested list of shape {shape}")
            flat = [item for part in flat for item in part]
        elif len(flat) != length:
            raise CodecError(f"has {len(flat)} items along the first axis of shape {shape}")
    if len(flat) != count:
        raise CodecError(f"holds {len(flat)} elements, expected {count}")
    elements = np.empty(count, dtype)
    try:
        for index, item in enumerate(flat):
            elements[index] = item
    except (TypeError, ValueError) as error:
        raise CodecError(f"holds what is no {dtype}: {error}") from error
    return elements


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonCodec:
    """JSON.

    Attributes
    ----------
    encoding : str
        Of the text.
    strict : bool
        Whether control characters inside strings are errors.
    """

    name: ClassVar[str] = "json2"
    encoding: str
    strict: bool

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, Any]) -> Self:
        """Take ``encoding`` and ``strict``."""
        encoding = configuration.get("encoding", "utf-8")
        try:
            codecs.lookup(encoding)
        except (LookupError, TypeError, ValueError) as error:
            msg = f"codec 'json2': {encoding!r} is not an encoding of text"
            raise UnsupportedCodecError(msg) from error
        return cls(encoding=encoding, strict=bool(configuration.get("strict", True)))

    def decode_objects(self, encoded: ByteArray, count: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        """Decode to what JSON has: strings, numbers, lists, dictionaries, None."""
        try:
            items = json.loads(str(encoded.data, self.encoding), strict=self.strict)
        except (ValueError, LookupError, RecursionError) as error:
            raise CodecError(f"not JSON in {self.encoding}: {error}") from error
        return _elements(items, count, dtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class MsgPackCodec:
    """MessagePack.

    Attributes
    ----------
    raw : bool
        Whether strings stay `bytes`.
    """

    name: ClassVar[str] = "msgpack2"
    raw: bool

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, Any]) -> Self:
        """Take ``raw``; check that the package is there."""
        _msgpack()
        return cls(raw=bool(configuration.get("raw", False)))

    def decode_objects(self, encoded: ByteArray, count: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        """Decode to what MessagePack has."""
        try:
            items = _msgpack().unpackb(encoded.data, raw=self.raw)
        except Exception as error:  # the package documents that it may raise any
            raise CodecError(f"not MessagePack: {error}") from error
        return _elements(items, count, dtype)


def _msgpack() -> Any:
    try:
        return import_module("msgpack")
    except ImportError as error:
        msg = "codec 'msgpack2' needs a package: pip install msgpack"
        raise MissingDependencyError(msg) from error
