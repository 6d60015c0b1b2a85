"""Chunks that an array has not, and that another array supplies.

A scanner that lost a tile of a coarse level leaves it to be made from the finer one. Such chunks
become chunks of one array more of the plan, with a location and codecs of its own; engines see but
another array.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from zarrgpu.plan.chunk_shapes import part_of, rows_of
from zarrgpu.plan.locate import ChunkLocations, is_missing, locate_chunks
from zarrgpu.plan.request import ReadRequest
from zarrgpu.plan.touches import ArrayTouches


def substitute_missing(
    request: ReadRequest,
    touched: Sequence[ArrayTouches],
    locations: Sequence[ChunkLocations],
    base: tuple[int, ...],
) -> tuple[ReadRequest, Sequence[ArrayTouches], Sequence[ChunkLocations], tuple[int, ...]]:
    """Take missing chunks from their array's substitute, where it has one.

    Parameters and results are those of `chunk_shapes.split_by_chunk_shape`; `base` is of the arrays
    so far.
    """
    arrays = list(request.arrays)
    if all(spec.substitute is None for spec in arrays):
        return request, touched, locations, base
    bases, split = list(base), []
    for touch, location in zip(touched, locations, strict=True):
        substitute = arrays[touch.array].substitute
        missing = is_missing(location)
        if substitute is None or not missing.any():
            split.append((touch, location))
            continue
        there, absent = np.flatnonzero(~missing), np.flatnonzero(missing)
        supplied = part_of(touch, absent, len(arrays))
        split.append((part_of(touch, there, touch.array), rows_of(location, there)))
        split.append((supplied, locate_chunks(substitute, supplied.chunk_id, None)))
        bases.append(bases[touch.array])
        arrays.append(substitute)
    split.sort(key=lambda pair: pair[0].array)  # tables are sorted by array
    request = replace(request, arrays=tuple(arrays))
    return request, [pair[0] for pair in split], [pair[1] for pair in split], tuple(bases)
