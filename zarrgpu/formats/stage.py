"""What one array codec of Zarr v3 makes of elements: the common form of all rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from zarrgpu.formats.document import Document

Shape: TypeAlias = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One array codec and the elements that it encodes to.

    Attributes
    ----------
    name : str
        Canonical name.
    dtype : numpy.dtype
        Of the elements it encodes, as it sees them.
    encoded_dtype : numpy.dtype
    encoded_shape : tuple of int
    configuration : mapping
        Without ``dtype`` and ``encoded_dtype``.
    moves_only : bool
        Whether elements go through bit for bit: their byte order is then the next codec's affair.
    """

    name: str
    dtype: np.dtype[Any]
    encoded_dtype: np.dtype[Any]
    encoded_shape: Shape
    configuration: Mapping[str, Any] = field(default_factory=dict)
    moves_only: bool = False


Rule: TypeAlias = Callable[[Document, np.dtype[Any], Shape], Stage]
"""Configuration, type and shape of the elements to encode -> what comes out."""
