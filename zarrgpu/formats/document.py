"""Reading JSON metadata so that every complaint names the document, the place and the reason."""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from zarrgpu.errors import MetadataError

_MAX_DIMENSIONS = 32
_MAX_LENGTH = 1 << 62
"""Leaves room for sums of positions in int64."""
_MAX_CHUNK_NBYTES = 1 << 46


def shown(value: Any) -> str:
    """Text of a value for a message: short, and of any depth."""
    return reprlib.repr(value)


@dataclass(frozen=True, slots=True)
class Document:
    """A JSON object, or an object inside one, that knows where it is.

    Attributes
    ----------
    source : str
        Path or URL of the document.
    value : mapping
    location : tuple of (str | int)
        Place of `value` within the document.
    """

    source: str
    value: Mapping[str, Any]
    location: tuple[str | int, ...] = ()

    @classmethod
    def parse(cls, data: bytes, source: str) -> Document:
        """Parse UTF-8 JSON whose root is an object."""
        try:
            value = json.loads(data)
        except (ValueError, RecursionError) as error:
            msg = f"not JSON: {error}"
            raise MetadataError(msg, source=source, kind="syntax") from error
        if not isinstance(value, dict):
            msg = f"expected a JSON object, got {type(value).__name__}"
            raise MetadataError(msg, source=source, kind="type")
        return cls(source, value)

    def fail(self, message: str, *keys: str | int, kind: str = "value") -> MetadataError:
        """Make the error for the place `keys` below this object."""
        return MetadataError(
            message, source=self.source, location=(*self.location, *keys), kind=kind
        )

    def require(self, key: str) -> Any:
        """Value of a member that must be there."""
        if key not in self.value:
            raise self.fail("is missing", key, kind="missing")
        return self.value[key]

    def child(self, key: str, value: Any) -> Document:
        """Document for the object `value` found under `key`."""
        if not isinstance(value, Mapping):
            raise self.fail(f"expected an object, got {shown(value)}", key, kind="type")
        return Document(self.source, value, (*self.location, key))

    def extension(self, key: str, value: Any) -> tuple[str, Document]:
        """Name and configuration of a v3 extension object, which may be a bare string."""
        if isinstance(value, str):
            return value, Document(self.source, {}, (*self.location, key))
        child = self.child(key, value)
        name = child.require("name")
        if not isinstance(name, str):
            raise child.fail(f"expected a string, got {shown(name)}", "name", kind="type")
        return name, child.child("configuration", child.value.get("configuration", {}))

    def lengths(self, key: str, *, minimum: int, ndim: int | None = None) -> tuple[int, ...]:
        """List of integers such as a shape; each at least `minimum`."""
        value = self.require(key)
        if not isinstance(value, list) or not all(type(n) is int for n in value):
            raise self.fail(f"expected a list of integers, got {shown(value)}", key, kind="type")
        if ndim is not None and len(value) != ndim:
            raise self.fail(f"has {len(value)} elements, expected {ndim}", key)
        if len(value) > _MAX_DIMENSIONS:
            raise self.fail(f"has {len(value)} dimensions, at most {_MAX_DIMENSIONS} are read", key)
        if any(not minimum <= n < _MAX_LENGTH for n in value):
            raise self.fail(f"expected integers of {minimum} to 2**62, got {shown(value)}", key)
        return tuple(value)

    def choice(self, key: str, allowed: tuple[str, ...], default: str | None = None) -> str:
        """Member that must be one of `allowed`."""
        value = self.value.get(key, default) if default is not None else self.require(key)
        if value not in allowed:
            raise self.fail(f"expected one of {', '.join(allowed)}, got {shown(value)}", key)
        return str(value)

    def check_chunk(self, key: str, chunk_shape: tuple[int, ...], itemsize: int) -> None:
        """Refuse a chunk whose size no store holds, before anything is computed with it."""
        nbytes = math.prod(chunk_shape) * itemsize
        if nbytes > _MAX_CHUNK_NBYTES:
            raise self.fail(f"{list(chunk_shape)} is a chunk of {nbytes} bytes", key)

    def check_grid(self, key: str, shape: tuple[int, ...], chunk_shape: tuple[int, ...]) -> None:
        """Refuse an array of so many chunks that their numbers do not fit int64."""
        if math.prod(-(-n // c) for n, c in zip(shape, chunk_shape, strict=True)) > _MAX_LENGTH:
            raise self.fail(f"cuts {list(shape)} into more than 2**62 chunks", key)

    def attributes(self, key: str) -> dict[str, Any]:
        """Object of user attributes; empty if absent."""
        return dict(self.child(key, self.value.get(key, {})).value)
