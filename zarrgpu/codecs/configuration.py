"""Checks of the configurations that the TIFF parser gives to its codecs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zarrgpu.errors import UnsupportedCodecError

if TYPE_CHECKING:
    from collections.abc import Mapping


def positive_int(codec: str, configuration: Mapping[str, Any], key: str) -> int:
    """Value of `key`, which must be an integer of at least 1."""
    value = configuration.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        msg = f"codec {codec!r}: {key} must be an integer of at least 1, got {value!r}"
        raise UnsupportedCodecError(msg)
    return value


def one_of(codec: str, configuration: Mapping[str, Any], key: str, allowed: tuple[Any, ...]) -> Any:
    """Value of `key`, which must be one of `allowed`."""
    value = configuration.get(key)
    if value not in allowed:
        msg = f"codec {codec!r}: {key} must be one of {allowed}, got {value!r}"
        raise UnsupportedCodecError(msg)
    return value


def short_height(codec: str, configuration: Mapping[str, Any], height: int) -> int | None:
    """Rows of the image's last strip where they are fewer than `height`, else None."""
    if configuration.get("short_height") is None:
        return None
    rows = positive_int(codec, configuration, "short_height")
    if rows >= height:
        msg = f"codec {codec!r}: short_height must be below height {height}, got {rows}"
        raise UnsupportedCodecError(msg)
    return rows
