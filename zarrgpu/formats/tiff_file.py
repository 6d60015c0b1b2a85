"""One TIFF as the readers of slide vendors see it: pages, and bytes where pages do not say it."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from zarrgpu.errors import MetadataError
from zarrgpu.formats.tiff_ifd import read_ifds
from zarrgpu.formats.tiff_page import TiffPage, page_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from zarrgpu.formats.tiff_ifd import Ifd, ReadRange


class TiffFile:
    """A TIFF whose directories are read once, when somebody asks for them.

    Parameters
    ----------
    read_range : callable
        ``(offset, nbytes)`` to exactly these bytes of the file, or an error.
    size : int
        Bytes in the file.
    source : str
        Path or URL, for messages.
    key : str
        The file's key in its store.
    sibling : callable, optional
        From a file's name to the TIFF of that name beside this one, or None if there is none.
    """

    def __init__(
        self,
        read_range: ReadRange,
        size: int,
        *,
        source: str,
        key: str,
        sibling: Callable[[str], TiffFile | None] | None = None,
    ) -> None:
        self.read_range = read_range
        self.size = size
        self.source = source
        self.key = key
        self.sibling = sibling

    @cached_property
    def ifds(self) -> Sequence[Ifd]:
        """Directories in the order of the file; `MetadataError` if the file is damaged."""
        return read_ifds(self.read_range, self.size, source=self.source)

    @cached_property
    def pages(self) -> Sequence[TiffPage]:
        """Pages in the order of the file; `MetadataError` if the file is damaged."""
        return tuple(page_of(ifd) for ifd in self.ifds)

    @property
    def first(self) -> TiffPage:
        """Page 0."""
        return self.pages[0]

    def read(self, offset: int, nbytes: int, what: str) -> bytes:
        """Bytes ``[offset, offset + nbytes)``; `MetadataError` that names `what` if beyond it."""
        if offset < 0 or nbytes < 0 or offset + nbytes > self.size:
            message = f"{what}: bytes {offset} to {offset + nbytes} lie outside of the file"
            raise MetadataError(f"{message} ({self.size} bytes)", source=self.source)
        return bytes(self.read_range(offset, nbytes))
