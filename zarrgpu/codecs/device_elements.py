"""Codecs of elements on a device: what comes between the compressor and the decoded chunk.

Each stage reads the bytes of the one before and writes its own into one of two rooms that take
turns, so that a chain of any length takes two. `device_stages` makes them from codecs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from zarrgpu.codecs.device_steps import NOWHERE, DecodeTables, Int64s
from zarrgpu.devices.element_types import element_type, swap_nbytes
from zarrgpu.devices.kernels import ELEMENT_TILE, tile_starts
from zarrgpu.devices.tables import MAX_DIMS, ChecksumKind

CHECKSUM_NBYTES = 4


class Rooms:
    """Two rooms a chunk in the work area, reserved when they are first needed.

    Parameters
    ----------
    tables : DecodeTables
    n : int
        Chunks.
    nbytes : int
        Of a room.
    """

    def __init__(self, tables: DecodeTables, n: int, nbytes: int) -> None:
        self._tables = tables
        self._sizes = np.full(n, nbytes, np.int64)
        self._rooms: list[Int64s] = []
        self._taken = 0

    def take(self) -> Int64s:
        """Positions of the room that is not in use."""
        if len(self._rooms) < 2:
            self._rooms.append(self._tables.reserve(self._sizes))
        self._taken += 1
        return self._rooms[(self._taken - 1) % 2]


class ElementStage(Protocol):
    """One codec of a chain, set up for its chunks."""

    @property
    def nbytes(self) -> int:
        """Size that it decodes to."""

    def add(
        self, tables: DecodeTables, level: int, row: Int64s, source: Int64s, rooms: Rooms
    ) -> Int64s:
        """Add the steps for chunks at the positions `source`; return where they are then."""


@dataclass(frozen=True, slots=True)
class Unchanged:
    """A codec that does nothing when decoding."""

    nbytes: int

    def add(
        self, tables: DecodeTables, level: int, row: Int64s, source: Int64s, rooms: Rooms
    ) -> Int64s:
        """Add nothing."""
        del tables, level, row, rooms
        return source


@dataclass(frozen=True, slots=True)
class Checksum:
    """Four bytes before or after the bytes that they are the checksum of."""

    kind: ChecksumKind
    at_start: bool


@dataclass(frozen=True, slots=True)
class ChecksumStage:
    """A checksum within what a compressor decoded: verified where it is, nothing moves."""

    checksum: Checksum
    nbytes: int

    def add(
        self, tables: DecodeTables, level: int, row: Int64s, source: Int64s, rooms: Rooms
    ) -> Int64s:
        """Verify."""
        del rooms
        at_start = self.checksum.at_start
        data = source + CHECKSUM_NBYTES if at_start else source
        stored = source if at_start else source + self.nbytes
        nbytes = np.full(len(row), self.nbytes, np.int64)
        tables.verify_checksum(level, self.checksum.kind, row, data, nbytes, stored)
        return data


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel with one job a chunk.

    Attributes
    ----------
    name : str
        Of its step.
    nbytes : int
        Decoded size.
    columns : dict
        Fields of its jobs besides row, source and target.
    scratch : str
        Column of positions of scratch memory, 8 bytes a tile; empty if it needs none.
    skip_nbytes : int
        Bytes before the data in what it reads.
    """

    name: str
    nbytes: int
    columns: dict[str, Any] = field(hash=False)
    scratch: str = ""
    skip_nbytes: int = 0

    def add(
        self, tables: DecodeTables, level: int, row: Int64s, source: Int64s, rooms: Rooms
    ) -> Int64s:
        """Add its step."""
        target = rooms.take()
        columns = dict(self.columns, row=row, source=source + self.skip_nbytes, target=target)
        if self.scratch:
            tiles = int(tile_starts([self.columns["n"]], ELEMENT_TILE)[-1])
            columns[self.scratch] = tables.reserve(np.full(len(row), tiles * 8, np.int64))
            columns[f"{self.scratch}_nbytes"] = tiles * 8
        if self.name == "unpack_bits":
            offset = columns.get("padding", NOWHERE)
            columns["padding"] = NOWHERE if offset == NOWHERE else source + offset
        tables.add(level, self.name, **columns)
        return target


def unshuffle(nbytes: int, typesize: int) -> Kernel:
    """Byte unshuffle of the whole chunk."""
    return Kernel("unshuffle_bytes", nbytes, {"nbytes": nbytes, "typesize": typesize})


def element_columns(
    encoded: np.dtype[Any], decoded: np.dtype[Any], count: int
) -> dict[str, int] | None:
    """Types and sizes of a kernel from numbers to numbers; None for types that are none."""
    if encoded.kind not in "biuf" or decoded.kind not in "biuf":
        return None
    if max(encoded.itemsize, decoded.itemsize) > 8:
        return None
    source_type, target_type = element_type(encoded), element_type(decoded)
    assert source_type is not None
    assert target_type is not None
    return {
        "n": count, "source_nbytes": count * encoded.itemsize,
        "target_nbytes": count * decoded.itemsize, "source_type": int(source_type),
        "target_type": int(target_type), "source_swap": swap_nbytes(encoded),
        "target_swap": swap_nbytes(decoded),
    }  # fmt: skip


def transpose_columns(
    shape: list[int], order: list[int], itemsize: int, swap: int
) -> dict[str, int] | None:
    """Box that the gather kernel takes from the encoded elements; None if it has too many axes.

    Parameters
    ----------
    shape : list of int
        Of the decoded elements.
    order : list of int
        Axis `k` of the encoded elements is axis ``order[k]`` of the decoded ones.
    itemsize, swap : int
        Bytes of an element, and of each unit of it to reverse.
    """
    strides, step = [0] * len(shape), 1
    for axis in reversed(order):
        strides[axis] = step
        step *= shape[axis]
    axes: list[tuple[int, int]] = []  # extent and source stride, in the order of the target
    for extent, stride in zip(shape, strides, strict=True):
        if extent == 1:
            continue
        if axes and axes[-1][1] == stride * extent:
            axes[-1] = (axes[-1][0] * extent, stride)
        else:
            axes.append((extent, stride))
    if len(axes) > MAX_DIMS or step >= 1 << 31:
        return None
    axes = [(1, 0)] * (MAX_DIMS - len(axes)) + axes
    columns = {"nbytes": step * itemsize, "itemsize": itemsize, "swap": swap}
    for k, (extent, stride) in enumerate(axes):
        columns |= {f"extent{k}": extent, f"stride{k}": stride}
    return columns
