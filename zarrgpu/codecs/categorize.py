"""Labels stored as their numbers: 1 for the first, 0 for what was none of them.

Source: numcodecs 0.16. v2 ``{"id": "categorize", "labels": ["a", "b"], "dtype": "<U1", "astype":
"|u1"}``. With ``"dtype": "|O"`` it decodes to strings of any length.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from zarrgpu.codecs.base import CodecError
from zarrgpu.codecs.elements import ElementCodec
from zarrgpu.model import ByteArray


def _labels(numbers: NDArray[Any], labels: list[str], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Label of each number; the empty string where there is none."""
    known = (numbers >= 1) & (numbers <= len(labels))
    index = np.where(known, numbers, 0).astype(np.int64)
    index[index != np.where(known, numbers, 0)] = 0
    used = np.bincount(index, minlength=1 + len(labels)) > 0
    used_labels = [labels[n - 1] if n else "" for n in np.flatnonzero(used).tolist()]
    table: NDArray[Any] = np.array(used_labels, dtype)  # of all labels, it could take any memory
    result: NDArray[Any] = table[(np.cumsum(used) - 1)[index]]
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class CategorizeCodec(ElementCodec):
    """Numbers to strings of one length.

    Attributes
    ----------
    labels : list of str
    """

    name: ClassVar[str] = "categorize"
    labels: list[str]

    def decode_elements(self, encoded: NDArray[Any], decoded: NDArray[Any]) -> None:
        """Look up; labels are cut to the type's length."""
        np.copyto(decoded, _labels(encoded, self.labels, self.dtype))


@dataclass(frozen=True, slots=True, kw_only=True)
class CategorizeObjectsCodec:
    """Numbers to strings of any length.

    Attributes
    ----------
    labels : list of str
    encoded_dtype : numpy.dtype
    """

    name: ClassVar[str] = "categorize_objects"
    labels: list[str]
    encoded_dtype: np.dtype[Any]

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, Any]) -> Self:
        """Take the labels and the type of their numbers."""
        return cls(
            labels=list(configuration["labels"]),
            encoded_dtype=np.dtype(configuration["encoded_dtype"]),
        )

    def decode_objects(self, encoded: ByteArray, count: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        """Look up."""
        expected = count * self.encoded_dtype.itemsize
        if encoded.size != expected:
            raise CodecError(f"has {encoded.size} bytes, expected {expected}")
        return _labels(encoded.view(self.encoded_dtype), self.labels, dtype)
