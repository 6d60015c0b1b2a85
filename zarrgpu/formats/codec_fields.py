"""Members of codec configurations, read one by one so that each complaint names its place."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from zarrgpu.formats.document import Document, shown

_TYPE_STRING = re.compile(
    r"[<>|=]?(?:[?]|b1|[iu][1248]|f(?:2|4|8|16)|c(?:8|16|32)|[SUV][0-9]{1,9}|[mM]8(?:\[\w+\])?|O8?)"
    r"|bool|u?int(?:8|16|32|64)?|float(?:16|32|64)?|complex(?:64|128)?"
    r"|(?:datetime|timedelta)64(?:\[\w+\])?|object"
)
NUMBERS = "biufc"
"""Kinds of NumPy types that codecs compute with."""


def element_type(
    document: Document, key: str, kinds: str, default: np.dtype[Any] | None = None
) -> np.dtype[Any]:
    """NumPy type under `key`, of one of `kinds`; `default` where it is absent or null."""
    value = document.value.get(key)
    if value is None:
        if default is None:
            document.require(key)
            raise document.fail("expected a NumPy type string, got null", key, kind="type")
        return _of_kind(document, key, kinds, default)
    if not isinstance(value, str) or not _TYPE_STRING.fullmatch(value):
        raise document.fail(f"expected a NumPy type string, got {shown(value)}", key, kind="type")
    try:
        dtype = np.dtype(value)
    except (TypeError, ValueError) as error:
        raise document.fail(f"not a NumPy type: {shown(value)} ({error})", key) from error
    return _of_kind(document, key, kinds, dtype)


def _of_kind(document: Document, key: str, kinds: str, dtype: np.dtype[Any]) -> np.dtype[Any]:
    if dtype.kind not in kinds or dtype.itemsize == 0:
        raise document.fail(
            f"{dtype} is not a type that this codec works on (kinds {', '.join(kinds)})", key
        )
    return dtype


def refuse_others(document: Document, known: tuple[str, ...]) -> None:
    """Refuse members that are none of `known`, as some specifications demand."""
    for key in document.value:
        if key not in known:
            raise document.fail(f"is none of {', '.join(known)}", key, kind="unknown")


def number(document: Document, key: str) -> int | float:
    """Real number under `key`."""
    value = document.require(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise document.fail(f"expected a number, got {shown(value)}", key, kind="type")
    return value


def integer(document: Document, key: str, low: int, high: int, default: int | None = None) -> int:
    """Integer of `low` to `high` under `key`; `default` where it is absent or null."""
    value = document.value.get(key)
    if value is None and default is not None:
        return default
    value = document.require(key)
    if type(value) is not int or not low <= value <= high:
        raise document.fail(
            f"expected an integer of {low} to {high}, got {shown(value)}", key, kind="type"
        )
    return value
