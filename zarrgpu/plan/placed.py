"""Pieces of cells as pieces of the chunks that cells are cut from (`model.Placement`).

Tiles of some scanners overlap. What is planned then are cells, of which every element of the array
is in exactly one; so a plan covers each once, whatever the tiles do. Only here does a piece of a
cell become one of a tile.
"""

from __future__ import annotations

from dataclasses import replace

from zarrgpu.model import Placement
from zarrgpu.plan.tables import Int64s, PieceTable


def placed(placement: Placement, cell: Int64s, pieces: PieceTable) -> tuple[Int64s, PieceTable]:
    """Chunk and pieces within it from cells and pieces within those.

    Parameters
    ----------
    placement : Placement
    cell : int64 array, shape (P,)
    pieces : PieceTable with P rows
    """
    return placement.chunk.take(cell), replace(
        pieces, src=pieces.src + placement.origin.take(cell, axis=1)
    )
