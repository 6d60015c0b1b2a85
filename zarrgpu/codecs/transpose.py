"""Transpose that comes after another array codec, so that elements really have to move.

Spec: Zarr v3 codec ``transpose``. A transpose that comes first moves nothing: the parser makes it
the array's stored axis order. Example: ``{"name": "transpose", "configuration": {"order": [1,
0]}}``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from zarrgpu.codecs.base import CodecError
from zarrgpu.codecs.elements import ElementCodec


@dataclass(frozen=True, slots=True, kw_only=True)
class TransposeCodec(ElementCodec):
    """Undo a transpose.

    Attributes
    ----------
    order : list of int
        Axis `k` of the encoded elements is axis ``order[k]`` of the decoded ones.
    shape : list of int
        Of the decoded elements.
    """

    name: ClassVar[str] = "transpose"
    order: list[int]
    shape: list[int]

    def decode_elements(self, encoded: NDArray[Any], decoded: NDArray[Any]) -> None:
        """Copy into C order."""
        if encoded.size != math.prod(self.shape):
            raise CodecError(f"has {encoded.size} elements, expected shape {self.shape}")
        moved = encoded.reshape([self.shape[axis] for axis in self.order])
        np.copyto(decoded.reshape(self.shape), moved.transpose(np.argsort(self.order)))
