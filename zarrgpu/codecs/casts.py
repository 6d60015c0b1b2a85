"""Codecs that convert elements one by one the way NumPy casts: astype, quantize, and no-ops.

Source: numcodecs 0.16. What was rounded away when encoding is lost, so that decoding is a cast, or
nothing at all.

``astype``      v2 ``{"id": "astype", "encode_dtype": "<i2", "decode_dtype": "<f4"}``,
                v3 ``numcodecs.astype``
``quantize``    v2 ``{"id": "quantize", "digits": 3, "dtype": "<f8", "astype": "<f4"}``,
                v3 ``numcodecs.quantize``
``bitround``    v2 ``{"id": "bitround", "keepbits": 10}``, v3 ``bitround``, ``numcodecs.bitround``
``reshape``     v3 ``reshape`` (zarr-extensions): keeps the elements in C order
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from zarrgpu.codecs.elements import ElementCodec, UnchangedCodec


@dataclass(frozen=True, slots=True, kw_only=True)
class AsTypeCodec(ElementCodec):
    """Cast like ``ndarray.astype``."""

    name: ClassVar[str] = "astype"

    def decode_elements(self, encoded: NDArray[Any], decoded: NDArray[Any]) -> None:
        """Cast; of complex numbers that become real the real part stays."""
        if encoded.dtype.kind == "c" and decoded.dtype.kind not in "cb":
            encoded = encoded.real  # NumPy would do the same, and warn
        np.copyto(decoded, encoded, casting="unsafe")


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeCodec(AsTypeCodec):
    """Cast back to the array's type."""

    name: ClassVar[str] = "quantize"


@dataclass(frozen=True, slots=True, kw_only=True)
class BitRoundCodec(UnchangedCodec):
    """Nothing to do: the bits that were rounded away are zero."""

    name: ClassVar[str] = "bitround"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReshapeCodec(UnchangedCodec):
    """Nothing to do: the order of elements is the same."""

    name: ClassVar[str] = "reshape"
