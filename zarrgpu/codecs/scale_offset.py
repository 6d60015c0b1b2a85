"""Scale and offset, in the two forms that are stored.

``fixedscaleoffset``  numcodecs 0.16: ``(x - offset) * scale``, rounded and cast. v2 ``{"id":
    "fixedscaleoffset", "offset": 1000, "scale": 10, "dtype": "<f8", "astype": "|u1"}``,
    v3 ``numcodecs.fixedscaleoffset``
``scale_offset``  zarr-extensions: the same arithmetic within the array's own type, exactly or not
    at all: ``{"name": "scale_offset", "configuration": {"offset": 5, "scale": 0.1}}``; usually a
    ``cast_value`` follows
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from zarrgpu.codecs.base import CodecError
from zarrgpu.codecs.elements import ElementCodec


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedScaleOffsetCodec(ElementCodec):
    """``x / scale + offset``, then a cast.

    Attributes
    ----------
    scale, offset : float
    """

    name: ClassVar[str] = "fixedscaleoffset"
    scale: float
    offset: float

    def decode_elements(self, encoded: NDArray[Any], decoded: NDArray[Any]) -> None:
        """Compute in the encoded type where that is a float, else in float64."""
        # float(): a Python integer must fit the array's type, and is exact as a float below 2**53
        values = encoded / float(self.scale) + float(self.offset)
        if values.dtype.kind == "c" and decoded.dtype.kind not in "cb":
            values = values.real
        np.copyto(decoded, values, casting="unsafe")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleOffsetCodec(ElementCodec):
    """``x / scale + offset`` in the type of the elements; what that type cannot hold is an error.

    Attributes
    ----------
    scale, offset : int or float
        Values of `dtype`.
    """

    name: ClassVar[str] = "scale_offset"
    scale: int | float
    offset: int | float

    def decode_elements(self, encoded: NDArray[Any], decoded: NDArray[Any]) -> None:
        """Integers must divide without remainder and stay within their type."""
        native = self.dtype.newbyteorder("=")
        if native.kind == "f":
            scale, offset = native.type(self.scale), native.type(self.offset)
            np.copyto(decoded, encoded.astype(native, copy=False) / scale + offset)
        elif encoded.size:
            np.copyto(decoded, self._integers(encoded.astype(native, copy=False)))

    def _integers(self, encoded: NDArray[Any]) -> NDArray[Any]:
        """Decode integers: the extremes, as Python integers, tell whether all results fit."""
        scale, offset = int(self.scale), int(self.offset)
        info = np.iinfo(encoded.dtype)
        divided = encoded
        if scale != 1:
            typed = encoded.dtype.type(scale)
            if scale != -1 and (encoded % typed).any():
                raise CodecError(f"holds values that leave a non-zero remainder by {scale}")
            divided = np.negative(encoded) if scale == -1 else encoded // typed
        low, high = int(encoded.min()) // scale, int(encoded.max()) // scale
        low, high = min(low, high) + offset, max(low, high) + offset
        if low < info.min or high > info.max:
            msg = f"decodes to {low} to {high}, outside the range of dtype {encoded.dtype}"
            raise CodecError(msg)
        # each sum is within the type, so that wrapping arithmetic is exact on the way to it
        unsigned = f"u{encoded.dtype.itemsize}"
        shift = np.array(offset % (1 << 8 * encoded.dtype.itemsize), unsigned)
        total = divided.view(unsigned) + shift
        result: NDArray[Any] = total.view(encoded.dtype)
        return result
