"""What a device does to a batch of chunks, as columns of numbers: steps, positions, levels.

A step is one kernel or library format with a row for each piece of work. Steps of one level do not
depend on each other; the engine puts those of all arrays with the same level and name into one
call, and makes the calls level by level.

Rows name memory by *position*: below `WORK` a byte of the payload as it was fetched, from there on
a byte of the work area. Columns are called as the fields of the kernels' jobs are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zarrgpu.devices.kernels import CHECKSUM_PARTS_NBYTES, CHECKSUM_TILE_NBYTES, tile_starts
from zarrgpu.devices.tables import ChecksumKind
from zarrgpu.model import ByteArray

Int64s = NDArray[np.int64]

WORK = 1 << 62
"""First position of the work area."""

POSITIONS = ("source", "target", "stored", "parts", "sums", "padding")
"""Columns that hold positions."""

NOWHERE = -1
"""Position of what a row does not have; address 0."""

FETCHED, STREAMS, DECODED, ELEMENTS = 0, 1, 2, 3
"""Levels: what needs fetched bytes only, decompression, what finishes it, and the first of as many
levels as there are element codecs."""

WORK_ALIGNMENT = 16


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """Work of one kind (S rows).

    Attributes
    ----------
    level : int
    name : str
        A kernel step of `cuda_work`, a library format, or ``crc32c`` for the library's checksum.
    columns : dict of str to array (S,)
        ``row`` is the chunk; the others depend on the step, and are int64 or float64.
    """

    level: int
    name: str
    columns: dict[str, NDArray[Any]]


@dataclass(slots=True, eq=False)
class DecodeTables:
    """What a device has to do for n chunks of one chain.

    Attributes
    ----------
    payload : uint8 array
        Fetched bytes, in host memory.
    on_device : bool (n,)
        Chunks that the device decodes; the others are the host's, and steps of theirs are void.
    result : int64 (n,)
        Position of each decoded chunk.
    shuffle_block_nbytes : int64 (n,)
        Block size of results that are still shuffled by bytes, else 0.
    verify : bool
        Whether checksums are verified.
    steps : list of Step
    work_nbytes : int
        Size of the work area.
    """

    payload: ByteArray
    on_device: NDArray[np.bool_]
    result: Int64s
    shuffle_block_nbytes: Int64s
    verify: bool
    steps: list[Step] = field(default_factory=list)
    work_nbytes: int = 0

    def add(self, level: int, name: str, **columns: Any) -> None:
        """Add a step unless it has no rows; scalars become columns."""
        n = len(columns["row"])
        if n:
            full = {key: np.full(n, value) for key, value in columns.items()}
            self.steps.append(Step(level, name, full))

    def reserve(self, nbytes: Int64s) -> Int64s:
        """Positions of new room of so many bytes each, aligned as kernels like it."""
        rounded = -(-nbytes // WORK_ALIGNMENT) * WORK_ALIGNMENT
        place = WORK + self.work_nbytes + np.cumsum(rounded) - rounded
        self.work_nbytes += int(rounded.sum())
        return np.asarray(place, np.int64)

    def verify_checksum(
        self,
        level: int,
        kind: ChecksumKind,
        row: Int64s,
        source: Int64s,
        nbytes: Int64s,
        stored: Int64s,
        *,
        big_endian: bool = False,
    ) -> None:
        """Add the verification of `nbytes` bytes at `source` against the 4 bytes at `stored`."""
        if not self.verify or not len(row):
            return
        columns: dict[str, Any] = {
            "row": row, "source": source, "nbytes": nbytes, "stored": stored, "kind": kind,
            "big_endian": big_endian,
        }  # fmt: skip
        if kind == ChecksumKind.XXH64:
            self.add(level, "xxh64", **columns)
            return
        tiles = np.diff(tile_starts(nbytes, CHECKSUM_TILE_NBYTES))
        parts_nbytes = tiles * CHECKSUM_PARTS_NBYTES
        parts = self.reserve(parts_nbytes)
        self.add(level, "checksum", **columns, parts=parts, parts_nbytes=parts_nbytes)

    def live_steps(self) -> list[Step]:
        """Steps without the rows of chunks that are the host's."""
        steps = []
        for step in self.steps:
            kept = self.on_device[step.columns["row"]]
            if kept.all():
                steps.append(step)
            elif kept.any():
                columns = {name: column[kept] for name, column in step.columns.items()}
                steps.append(Step(step.level, step.name, columns))
        return steps


def read_bytes(payload: ByteArray, at: Int64s, n: int) -> NDArray[np.uint8]:
    """`n` bytes from each of the given places, all inside of `payload`; shape (len(at), n)."""
    return np.ascontiguousarray(payload[at[:, None] + np.arange(n)])


def read_word(payload: ByteArray, at: Int64s) -> Int64s:
    """Little-endian uint32 from each of the given places."""
    return read_bytes(payload, at, 4).view("<u4")[:, 0].astype(np.int64)
