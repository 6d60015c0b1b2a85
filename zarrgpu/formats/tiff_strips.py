"""Large uncompressed strips as chunks of fewer rows, at no cost: rows lie one after another.

Many writers put a whole image into one strip. As one chunk it could only be held in memory whole.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from zarrgpu.formats.tiff_page import TiffPage

_MAX_CHUNK_NBYTES: Final = 4 << 20
_MAX_CHUNKS: Final = 1 << 20
"""More are not made: strips of a hostile file may all be the same bytes."""


def split_strips(page: TiffPage) -> TiffPage:
    """`page` with chunks of at most 4 MiB or one row, where its strips are exactly their rows."""
    row_nbytes = -(-page.width * (page.samples // page.planes) * page.bits[0] // 8)
    if (
        page.tiled
        or page.compression != 1
        or page.chunk_height * row_nbytes <= _MAX_CHUNK_NBYTES
        or len({*page.bits}) > 1
    ):
        return page
    strips = page.grid_shape[0]
    rows = max(_MAX_CHUNK_NBYTES // row_nbytes, 1)
    if strips > 1:  # chunks of one grid have one height
        rows = next(n for n in range(rows, 0, -1) if page.chunk_height % n == 0)
    parts = -(-page.chunk_height // rows)
    heights = np.full(strips, page.chunk_height, np.int64)
    heights[-1] = page.height - (strips - 1) * page.chunk_height
    stored = page.nbytes.reshape(page.planes, strips)
    ends = page.offsets + page.nbytes
    if (
        parts * strips * page.planes > _MAX_CHUNKS
        or not np.array_equal(stored, np.broadcast_to(heights * row_nbytes, stored.shape))
        or int(ends.max()) > page.ifd.cache.size
    ):
        return page
    first_row = np.arange(parts) * rows
    part_rows = np.clip(heights[:, None] - first_row, 0, rows)
    offsets = page.offsets.reshape(page.planes, strips, 1) + first_row * row_nbytes
    nbytes = np.broadcast_to(part_rows * row_nbytes, offsets.shape)
    kept = part_rows.reshape(-1) > 0
    return replace(
        page,
        chunk_height=rows,
        offsets=offsets.reshape(page.planes, -1)[:, kept].reshape(-1),
        nbytes=nbytes.reshape(page.planes, -1)[:, kept].reshape(-1),
    )
