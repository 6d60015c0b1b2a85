"""`Pages`: the images of a TIFF whose pages are not alike, one array each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

from zarrgpu.array import Array


class Pages(Sequence[Array]):
    """Arrays of the pages of a TIFF, in the order of the file. Made by `zarrgpu.open`.

    Pages that are stored alike are one array instead, and overviews make a `Slide`.

    Parameters
    ----------
    source : str
        Path or URL.
    arrays : sequence of Array
        Axes (y, x, c) each.
    """

    def __init__(self, source: str, arrays: Sequence[Array]) -> None:
        self.source = source
        self._arrays = tuple(arrays)

    def __repr__(self) -> str:
        return f"<zarrgpu.Pages {self.source!r}: {len(self)} pages>"

    def __len__(self) -> int:
        return len(self._arrays)

    def __iter__(self) -> Iterator[Array]:
        return iter(self._arrays)

    @overload
    def __getitem__(self, index: int) -> Array: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Array, ...]: ...
    def __getitem__(self, index: int | slice) -> Array | tuple[Array, ...]:
        """Array of one page, or a tuple of several."""
        return self._arrays[index]
