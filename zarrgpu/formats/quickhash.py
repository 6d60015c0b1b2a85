"""What OpenSlide hashes of a TIFF, so that the same slide has the same identity here.

Source: openslide-decode-tifflike.c and openslide-hash.c: the stored chunks of the smallest level,
in the order of their table, then name and text of each of nine tags, each ended by a zero, whether
the tag is there or not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from zarrgpu.formats.tiff_tags import TEXT_TAGS
from zarrgpu.slide_model import Quickhash

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from zarrgpu.formats.tiff_ifd import Ifd
    from zarrgpu.formats.tiff_page import TiffPage

_MAX_NBYTES: Final = 5 << 20
"""A smallest level that is larger has no hash."""


def tiff_quickhash(key: str, smallest: TiffPage, described: TiffPage) -> Quickhash | None:
    """Parts of a slide's hash.

    Parameters
    ----------
    key : str
        Of the file.
    smallest : TiffPage
        Whose chunks are hashed: the level of lowest resolution.
    described : TiffPage
        Whose texts are hashed.

    Returns
    -------
    Quickhash, or None where OpenSlide gives none: the level takes more than 5 MiB.
    """
    return quickhash_of(key, smallest.offsets, smallest.nbytes, described.ifd)


def quickhash_of(
    key: str, offset: NDArray[np.int64], nbytes: NDArray[np.int64], described: Ifd
) -> Quickhash | None:
    """Parts of a slide's hash, from a chunk table and the directory of the texts."""
    if (nbytes > _MAX_NBYTES).any() or int(nbytes.sum()) > _MAX_NBYTES:  # sums can overflow
        return None
    # bytes as they are stored: text of another encoding than UTF-8 is hashed as it is
    texts = {f"tiff.{tag.name}".encode(): described.stored_text(tag) for tag in TEXT_TAGS}
    hashed = b"".join(name + b"\0" + text + b"\0" for name, text in texts.items())
    return Quickhash(key=key, offset=offset, nbytes=nbytes, text=hashed)
