"""Cutting batches for libraries whose temporary memory grows with them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from zarrgpu.devices.driver import Driver
from zarrgpu.devices.requests import LibraryFormat


def library_parts(
    driver: Driver, library_format: LibraryFormat, nbytes: NDArray[np.int64], temp_nbytes: float
) -> list[tuple[int, int]]:
    """Cut a batch into runs of streams that the library decodes in bounded temporary memory.

    Parameters
    ----------
    nbytes : int64 (n,)
        Decoded size of each stream.
    temp_nbytes : float
        Bound; a stream that exceeds it by itself is a part of its own.

    Returns
    -------
    list of (int, int)
        First row of each part and the one after its last.
    """
    n, ends = len(nbytes), np.cumsum(nbytes)
    count = 1
    while True:
        even = np.searchsorted(ends, ends[-1] * np.arange(1, count) / count, side="right")
        cuts = np.arange(n + 1) if count >= n else np.unique(np.concatenate([[0], even, [n]]))
        parts = list(zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True))
        temporary = [
            driver.decompress_temp_nbytes(
                library_format, b - a, int(nbytes[a:b].max()), int(nbytes[a:b].sum())
            )
            for a, b in parts
        ]
        if count >= n or max(temporary) <= temp_nbytes:
            return parts
        count = min(n, max(2 * count, int(temporary[0] // max(temp_nbytes, 1)) + 1))
