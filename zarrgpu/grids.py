"""Grids of chunks: which chunk an element lies in, where a chunk begins, and what its key is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

AxisStarts: TypeAlias = tuple[NDArray[np.int64] | None, ...]
"""Per axis: None where all chunks are of one length, else the first element of each and the end."""


def grid_coord(length: int, starts: NDArray[np.int64] | None, index: Any) -> Any:
    """Which chunk along an axis holds the element `index`; arrays or integers."""
    if starts is None:
        return index // length
    return np.searchsorted(starts, index, side="right") - 1


def grid_start(length: int, starts: NDArray[np.int64] | None, coord: Any) -> Any:
    """First element of the chunk `coord` along an axis; arrays or integers."""
    return coord * length if starts is None else starts[np.minimum(coord, len(starts) - 1)]


def grid_count(length: int, starts: NDArray[np.int64] | None, size: int) -> int:
    """Chunks along an axis of `size` elements."""
    return -(-size // length) if starts is None else len(starts) - 1


@dataclass(frozen=True, slots=True)
class KeyEncoding:
    """How chunk coordinates become a key (Zarr v3 ``chunk_key_encoding``).

    Attributes
    ----------
    name : "default" or "v2"
        ``default`` gives ``c/1/2``, ``v2`` gives ``1/2``.
    separator : "/" or "."
    prefix : str
        Path of the array within its store, without a trailing slash; empty for the root.
    """

    name: Literal["default", "v2"]
    separator: Literal["/", "."]
    prefix: str = ""

    def key(self, coords: tuple[int, ...]) -> str:
        """Key of the chunk at `coords`.

        >>> KeyEncoding("default", "/", "a").key((1, 2))
        'a/c/1/2'
        >>> KeyEncoding("v2", ".").key(())
        '0'
        """
        parts = [str(c) for c in coords]
        if self.name == "default":
            chunk = self.separator.join(["c", *parts])
        else:
            chunk = self.separator.join(parts) if parts else "0"
        return f"{self.prefix}/{chunk}" if self.prefix else chunk

    def keys(self, coords: Sequence[NDArray[np.int64]]) -> list[str]:
        """Keys of chunks from their coordinates, one array per axis: for many at once.

        >>> KeyEncoding("v2", ".", "a").keys([np.array([0, 1]), np.array([2, 3])])
        ['a/0.2', 'a/1.3']
        """
        head = f"{self.prefix}/" if self.prefix else ""
        if self.name == "default":
            head += f"c{self.separator}"
        join = self.separator.join
        return [head + join(map(str, each)) for each in zip(*(c.tolist() for c in coords))]  # noqa: B905
