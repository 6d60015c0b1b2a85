"""Codecs of elements on a device: what comes between the compressor and the decoded chunk.

Each stage reads the bytes of the one before and writes its own into one of two rooms that take
turns, so that a chain of any length takes two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from zarrgpu.codecs.base import Codec
from zarrgpu.codecs.device_steps import DecodeTables, Int64s
from zarrgpu.devices.tables import ChecksumKind

CHECKSUM_NBYTES = 4

_CHECKSUMS = {
    "crc32c": ChecksumKind.CRC32C,
    "crc32c_start": ChecksumKind.CRC32C,
    "crc32": ChecksumKind.CRC32,
    "adler32": ChecksumKind.ADLER32,
    "fletcher32": ChecksumKind.FLETCHER32,
}


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
        self._turn = 0

    def take(self) -> Int64s:
        """Positions of the room that is not in use."""
        if len(self._rooms) < 2:
            self._rooms.append(self._tables.reserve(self._sizes))
            return self._rooms[-1]
        self._turn ^= 1
        return self._rooms[self._turn ^ 1]


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


def checksum_of(codec: Codec) -> Checksum | None:
    """Checksum that a codec verifies; None if it does something else."""
    kind = _CHECKSUMS.get(codec.name)
    if kind is None:
        return None
    return Checksum(kind, at_start=getattr(codec, "location", "end") == "start")


def element_stage(codec: Codec, nbytes: int) -> ElementStage | None:
    """Stage of a codec that decodes to `nbytes` bytes; None if no device can run it."""
    checksum = checksum_of(codec)
    if checksum is not None:
        return ChecksumStage(checksum, nbytes)
    return None
