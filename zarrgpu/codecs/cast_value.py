"""Casts by value with stated rounding and treatment of what does not fit.

Spec: zarr-extensions ``cast_value``. Example: ``{"name": "cast_value", "configuration":
{"data_type": "uint8", "rounding": "nearest-even", "out_of_range": "clamp", "scalar_map":
{"encode": [["NaN", 0]], "decode": [[0, "NaN"]]}}}``. Decoding casts from ``data_type`` back to the
array's type, by the same rules; `scalar_map` goes before them.

Where the spec leaves a choice we do as zarr-python 3.4.2 (cast-value-rs): floats clamp to infinity.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from zarrgpu.codecs.base import CodecError
from zarrgpu.codecs.elements import ElementCodec
from zarrgpu.codecs.rounding import (
    Bools,
    Rounding,
    floats_to_floats,
    integers_to_floats,
    round_to_integers,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CastValueCodec(ElementCodec):
    """Cast from `encoded_dtype` to `dtype`.

    Attributes
    ----------
    rounding : str
        IEEE 754 direction.
    out_of_range : "error", "clamp" or "wrap"
        For values that `dtype` cannot hold.
    scalar_map : list of [encoded value, decoded value]
        Of values that are replaced, not cast; later pairs win.
    """

    name: ClassVar[str] = "cast_value"
    rounding: Rounding = "nearest-even"
    out_of_range: Literal["error", "clamp", "wrap"] = "error"
    scalar_map: list[list[int | float]] = field(default_factory=list)

    def decode_elements(self, encoded: NDArray[Any], decoded: NDArray[Any]) -> None:
        """Replace what the map names, cast the rest."""
        values = encoded.astype(encoded.dtype.newbyteorder("="))
        mapped = [(self._same(values, old), new) for old, new in self.scalar_map]
        for where, _ in mapped:
            values[where] = 0
        cast = self._cast(values, self.dtype.newbyteorder("="))
        for where, new in mapped:
            cast[where] = new
        np.copyto(decoded, cast)

    def _same(self, values: NDArray[Any], value: float) -> Bools:
        same: Bools = np.isnan(values) if value != value else values == value
        return same

    def _cast(self, values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
        if values.dtype == dtype:
            return values
        if dtype.kind == "f":
            return self._to_floats(values, dtype)
        if values.dtype.kind == "f":
            return self._floats_to_integers(values.astype(np.float64), dtype)
        return self._integers_to_integers(values, dtype)

    def _to_floats(self, values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
        if values.dtype.kind == "f":
            cast = floats_to_floats(values.astype(np.float64), dtype, self.rounding)
            overflows = np.isinf(cast) & np.isfinite(values)
        else:
            cast = integers_to_floats(values, dtype, self.rounding)
            overflows = np.isinf(cast)
        if self.out_of_range != "clamp" and overflows.any():
            raise _beyond(values[overflows][0], dtype)
        return cast

    def _floats_to_integers(
        self, values: NDArray[np.float64], dtype: np.dtype[Any]
    ) -> NDArray[Any]:
        info = np.iinfo(dtype)
        if np.isnan(values).any():
            raise CodecError(f"holds NaN, which {dtype} cannot, and no scalar_map for it")
        rounded = round_to_integers(values, self.rounding)
        low, end = float(info.min), float(info.max + 1)  # powers of two or zero: exact
        below, above = rounded < low, rounded >= end
        if (below | above).any():
            infinite = np.isinf(values)
            if self.out_of_range == "error" or (self.out_of_range == "wrap" and infinite.any()):
                raise _beyond(values[below | above][0], dtype)
            if self.out_of_range == "wrap":
                return _wrapped(rounded, dtype)
            inside = np.where(below | above, 0.0, rounded).astype(dtype)
            return np.where(below, info.min, np.where(above, info.max, inside)).astype(dtype)
        return rounded.astype(dtype)

    def _integers_to_integers(self, values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
        source, target = np.iinfo(values.dtype), np.iinfo(dtype)
        low, high = max(source.min, target.min), min(source.max, target.max)
        beyond = (values < low) | (values > high)
        if beyond.any():
            if self.out_of_range == "error":
                raise _beyond(values[beyond][0], dtype)
            if self.out_of_range == "clamp":
                values = np.clip(values, low, high)
        return values.astype(dtype)


def _wrapped(rounded: NDArray[np.float64], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Integers modulo 2**64, then cut to the type: exact, though a float cannot hold the sum."""
    rest = np.fmod(rounded, 2.0**64)
    magnitude = np.abs(rest).astype(np.uint64)
    return np.where(rest < 0, np.uint64(0) - magnitude, magnitude).astype(dtype)


def _beyond(value: Any, dtype: np.dtype[Any]) -> CodecError:
    return CodecError(f"holds {value}, beyond {dtype}, and out_of_range says that is an error")
