"""Differences of neighbours, over the whole flattened chunk.

Source: numcodecs 0.16. v2 ``{"id": "delta", "dtype": "<i4", "astype": "<i2"}``, v3
``numcodecs.delta``. The first element is stored itself. TIFF's predictor 2 is another codec
(`tiff_predictor`): it starts anew in each row.
"""

from __future__ import annotations

from dataclasses import dataclass
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
        np.cumsum(encoded, out=decoded)
