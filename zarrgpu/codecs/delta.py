"""Differences of neighbours, over the whole flattened chunk.

Source: numcodecs 0.16. v2 ``{"id": "delta", "dtype": "<i4", "astype": "<i2"}``, v3
``numcodecs.delta``. The first element is stored itself. TIFF's predictor 2 is another codec
(`tiff_predictor`): it starts anew in each row.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from zarrgpu.codecs.elements import ElementCodec


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaCodec(ElementCodec):
    """Sum up, from first to last."""

    name: ClassVar[str] = "delta"

    def decode_elements(self, encoded: NDArray[Any], decoded: NDArray[Any]) -> None:
        """Add in the decoded type: integers wrap around, floats round after each addition."""
        fast = _imagecodecs_delta() if _are_integers(encoded, decoded) else None
        if fast is None:
            np.cumsum(encoded, out=decoded)
        else:
            np.copyto(decoded, encoded, casting="unsafe")
            unsigned = decoded.view(f"u{decoded.dtype.itemsize}")
            fast(unsigned, out=unsigned)


def _are_integers(encoded: NDArray[Any], decoded: NDArray[Any]) -> bool:
    """Whether sums wrap around in the decoded type, in memory that imagecodecs takes.

    Of uint64 and a signed type NumPy sums in float64, the one type that they have in common.
    """
    plain = decoded.dtype.isnative and decoded.flags.aligned and decoded.size > 0
    return plain and decoded.dtype.kind in "iu" and np.result_type(encoded, decoded).kind in "iu"


@cache
def _imagecodecs_delta() -> Any:
    """Decoder of imagecodecs, which is faster than NumPy; None where it is not installed."""
    try:
        import imagecodecs
    except ImportError:
        return None
    return imagecodecs.delta_decode
