"""The one JPEG that holds a level of an NDPI slide, seen as restart intervals.

Spec: ITU-T T.81. A restart interval is a run of MCUs that decodes without those before it. NDPI has
a whole number of them in each row of MCUs, so the level is a grid of small images: as wide as an
interval, as high as an MCU. A chunk is one interval, or some that follow one another in the file
where they are very small.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from zarrgpu.errors import MetadataError, UnsupportedFormatError

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_SIDE: Final = 65_500
"""Largest side of an image that libjpeg decodes, and that a header can state."""

_LEAST_WIDTH: Final = 256
_LEAST_HEIGHT: Final = 64
_MAX_CHUNK_NBYTES: Final = 1 << 20

_SOI, _SOS, _DQT, _DHT, _DRI, _APP0, _APP14 = 0xD8, 0xDA, 0xDB, 0xC4, 0xDD, 0xE0, 0xEE
_SEQUENTIAL: Final = (0xC0, 0xC1)
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_STANDALONE: Final = frozenset({0x01, *range(0xD0, 0xD9)})
_HEAD_NBYTES: Final = (4 << 10, 1 << 20)
"""Where a header usually ends, and where it must."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelJpeg:
    """Header of a level's JPEG.

    Attributes
    ----------
    width, height : int
        As it says; 0 or wrong where the level is larger than a header can state.
    precision, samples : int
    colorspace : "gray", "rgb" or "ycbcr"
        What is stored, as libjpeg judges from the header.
    mcu_width, mcu_height : int
        Pixels.
    interval : int
        MCUs between restart markers; 0 if there are none.
    data_offset : int
        Where entropy-coded data begins, from the start of the JPEG.
    sequential : bool
        Baseline or extended, in one scan of all components: intervals stand alone.
    """

    width: int
    height: int
    precision: int
    samples: int
    colorspace: str
    mcu_width: int
    mcu_height: int
    interval: int
    data_offset: int
    sequential: bool
    tables: bytes
    frame: bytes
    scan: bytes

    def header(self, width: int, height: int) -> bytes:
        """Make the header of an image of this size in which there are no restart markers."""
        frame = self.frame[:5] + struct.pack(">HH", height, width) + self.frame[9:]
        return b"\xff\xd8" + self.tables + frame + self.scan


def read_level_jpeg(
    read: Callable[[int, int], bytes], nbytes: int, *, what: str, source: str
) -> LevelJpeg:
    """Read the header of a JPEG.

    Parameters
    ----------
    read : callable
        ``(offset, nbytes)`` to bytes of the JPEG.
    nbytes : int
        That may be read.
    what, source : str
        For messages.

    Raises
    ------
    MetadataError
        It is damaged.
    UnsupportedFormatError
        More or fewer components than grey or colour has.
    """
    for limit in _HEAD_NBYTES:
        head = read(0, min(limit, nbytes))
        segments = _segments(head)
        if segments is not None:
            return _level_jpeg(*segments, what=what, source=source)
    msg = f"{what}: no JPEG header within its first {len(head)} bytes (they begin {head[:4].hex()})"
    raise MetadataError(msg, source=source)


def _segments(head: bytes) -> tuple[list[tuple[int, bytes]], int] | None:
    """Marker segments up to the first scan, and its end; None if they do not reach it."""
    if head[:2] != b"\xff\xd8":
        return None
    segments: list[tuple[int, bytes]] = []
    at = 2
    while at + 4 <= len(head) and head[at] == 0xFF:
        marker = head[at + 1]
        if marker == 0xFF or marker in _STANDALONE:
            at += 1 if marker == 0xFF else 2
            continue
        end = at + 2 + int.from_bytes(head[at + 2 : at + 4], "big")
        if end < at + 4 or end > len(head):
            return None
        segments.append((marker, head[at:end]))
        if marker == _SOS:
            return segments, end
        at = end
    return None


def _level_jpeg(
    segments: list[tuple[int, bytes]], data_offset: int, *, what: str, source: str
) -> LevelJpeg:
    frames = [(marker, body) for marker, body in segments if marker in _FRAMES]
    scan = segments[-1][1]
    if len(frames) != 1 or len(frames[0][1]) < 10 + 3 * frames[0][1][9]:
        raise MetadataError(f"{what}: damaged JPEG frame header", source=source)
    kind, frame = frames[0]
    precision, height, width, samples = struct.unpack_from(">BHHB", frame, 4)
    if samples not in (1, 3):
        msg = f"{what} of {source!r}: JPEG of {samples} components is not read"
        raise UnsupportedFormatError(msg)
    factors = [(frame[11 + 3 * i] >> 4, frame[11 + 3 * i] & 15) for i in range(samples)]
    if not all(1 <= h <= 4 and 1 <= v <= 4 for h, v in factors):
        raise MetadataError(f"{what}: JPEG sampling factors {factors}", source=source)
    if samples == 1:
        factors = [(1, 1)]  # a scan of one component has MCUs of one block
    interval = [int.from_bytes(body[4:6], "big") for marker, body in segments if marker == _DRI]
    tables = b"".join(body for marker, body in segments if marker in (_DQT, _DHT))
    return LevelJpeg(
        width=width,
        height=height,
        precision=precision,
        samples=samples,
        colorspace=_colorspace(segments, frame, samples),
        mcu_width=8 * max(h for h, _ in factors),
        mcu_height=8 * max(v for _, v in factors),
        interval=interval[-1] if interval else 0,
        data_offset=data_offset,
        sequential=kind in _SEQUENTIAL and scan[4] == samples and scan[-3:] == b"\x00\x3f\x00",
        tables=tables,
        frame=frame,
        scan=scan,
    )


def _colorspace(segments: list[tuple[int, bytes]], frame: bytes, samples: int) -> str:
    """Colours of a JPEG by libjpeg's rule (jdapimin.c): JFIF, then Adobe, then component ids."""
    if samples == 1:
        return "gray"
    if any(marker == _APP0 and body[4:9] == b"JFIF\0" for marker, body in segments):
        return "ycbcr"
    for marker, body in segments:
        if marker == _APP14 and body[4:9] == b"Adobe" and len(body) >= 16:
            return "rgb" if body[15] == 0 else "ycbcr"
    return "rgb" if bytes(frame[10:19:3]) == b"RGB" else "ycbcr"


def chunk_intervals(
    width: int, height: int, across: int, down: int, samples: int
) -> tuple[int, int]:
    """Rows and columns of restart intervals in one chunk.

    Columns divide the `across` intervals of a row; there are several rows only where a chunk is as
    wide as the level, so that its intervals follow one another in the file.

    >>> chunk_intervals(1024, 8, 50, 4000, 3), chunk_intervals(64, 8, 6, 100, 3)
    ((1, 1), (8, 6))
    """
    least = -(-_LEAST_WIDTH // width)
    columns = next((n for n in range(least, across) if across % n == 0), across)
    if columns < across:
        return 1, columns
    row_nbytes = width * columns * height * samples
    rows = min(-(-_LEAST_HEIGHT // height), max(1, _MAX_CHUNK_NBYTES // row_nbytes), down)
    return rows, columns
