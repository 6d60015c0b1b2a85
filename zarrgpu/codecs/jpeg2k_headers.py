"""What n JPEG 2000 codestreams say of themselves, and whether they are complete: all at once.

Spec: ITU-T T.800, annex A. As `jpeg_headers`: each step looks at one marker segment, or tile-part,
of every stream. What is not common is left to the host: JP2 boxes other than those that OpenJPEG
writes around plain sRGB and grey, offsets of image or tiles, a missing end marker, tiles that are
missing, components of different depths.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from zarrgpu.codecs.device_steps import Int64s, read_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from zarrgpu.model import ByteArray

_SIZ_NBYTES: Final = 42
"""Start marker, size marker and all of its segment before the components."""
_MAX_COMPONENTS: Final = 4
_MAX_STEPS: Final = 60
_MAX_TILES: Final = 64
_BOXES: Final = (
    *b"\0\0\0\x0cjP  \r\n\x87\n", *b"\0\0\0\x14ftypjp2 \0\0\0\0jp2 ",
    *b"\0\0\0\x2djp2h\0\0\0\x16ihdr", *[-1] * 11, 7, 0, 0,
    *b"\0\0\0\x0fcolr\1\0\0\0\0\0", -1,
)  # fmt: skip
"""Boxes before that of the codestream: signature, file type, and a header of size, depth (-1: any)
and an enumerated colour space."""
_BOXES_NBYTES: Final = len(_BOXES)
_COLOR_AT: Final = _BOXES_NBYTES - 1
_SRGB, _GREY = 16, 17
_SOT, _EOC = 0xFF90, 0xFFD9
_SOT_NBYTES: Final = 10
_EVERY: Final = np.uint64((1 << _MAX_TILES) - 1)
_MAIN_MARKERS: Final = (0xFF52, 0xFF53, 0xFF5C, 0xFF5D, 0xFF64, 0xFF55)
"""COD, COC, QCD, QCC, COM, TLM: the others change how packets are read."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CodestreamHeaders:
    """What is known of n codestreams.

    Attributes
    ----------
    understood : bool (n,)
        Complete, and the other columns mean something.
    height, width, samples, precision : int64 (n,)
    signed : bool (n,)
    across, down : int64 (n,)
        Pixels that a sample of the second and third component is for; of the others, 1.
    start, end : int64 (n,)
        In the payload: the codestream, and behind its end marker.
    tiles : int64 (n,)
    seen : uint64 (n,)
        Bit i: there is a part of tile i.
    """

    understood: NDArray[np.bool_]
    height: Int64s
    width: Int64s
    samples: Int64s
    precision: Int64s
    signed: NDArray[np.bool_]
    across: Int64s
    down: Int64s
    start: Int64s
    end: Int64s
    tiles: Int64s = field(repr=False)
    seen: NDArray[np.uint64] = field(repr=False)


def parse_codestreams(payload: ByteArray, offset: Int64s, nbytes: Int64s) -> CodestreamHeaders:
    """Read the size marker of each stream, and walk to its end.

    Parameters
    ----------
    payload : uint8 array
    offset, nbytes : int64 (n,)
        Each stream in `payload`.
    """
    n, (offset, limit) = len(offset), _unboxed(payload, offset, nbytes)
    columns = np.zeros((6, n), np.int64)
    across, down = np.ones((2, n), np.int64)
    headers = CodestreamHeaders(
        understood=limit - offset > _SIZ_NBYTES + 3 * _MAX_COMPONENTS, height=columns[0],
        width=columns[1], samples=columns[2], precision=columns[3], signed=np.zeros(n, np.bool_),
        across=across, down=down, start=offset, end=columns[4],
        tiles=columns[5], seen=np.zeros(n, np.uint64),
    )  # fmt: skip
    rows = np.flatnonzero(headers.understood)
    at = offset.copy()
    at[rows] = _read_sizes(payload, offset, rows, headers)
    running = headers.understood.copy()
    for _ in range(_MAX_STEPS):
        rows = np.flatnonzero(running)
        if not len(rows):
            break
        _step(payload, at, limit, rows, headers, running)
    headers.understood[:] &= ~running
    return headers


def _unboxed(payload: ByteArray, offset: Int64s, nbytes: Int64s) -> tuple[Int64s, Int64s]:
    """Where each codestream begins, and where it or its box ends at the latest (I.4, I.5)."""
    limit = offset + nbytes
    rows = np.flatnonzero(nbytes > _BOXES_NBYTES + 8)
    raw = read_bytes(payload, offset[rows], _BOXES_NBYTES + 8)
    fixed = [i for i, value in enumerate(_BOXES) if value >= 0]
    boxed = (raw[:, fixed] == np.array(_BOXES)[fixed]).all(axis=1)
    boxed &= (raw[:, _COLOR_AT] == _SRGB) | (raw[:, _COLOR_AT] == _GREY)
    boxed &= (raw[:, _BOXES_NBYTES + 4 :] == tuple(b"jp2c")).all(axis=1)
    size = _words(raw, _BOXES_NBYTES, 1)[:, 0]
    end = np.where(size == 0, limit[rows], offset[rows] + _BOXES_NBYTES + size)
    boxed &= (size != 1) & (end <= limit[rows])  # 1: a longer size follows
    start = offset.copy()
    start[rows[boxed]] += _BOXES_NBYTES + 8
    limit[rows[boxed]] = end[boxed]
    return start, limit


def _words(raw: NDArray[np.uint8], first: int, count: int) -> Int64s:
    """Big-endian uint32 columns from byte `first` on; shape (rows, count)."""
    part = np.ascontiguousarray(raw[:, first : first + 4 * count])
    return np.asarray(part.view(">u4").astype(np.int64))


def _read_sizes(
    payload: ByteArray, offset: Int64s, rows: Int64s, headers: CodestreamHeaders
) -> Int64s:
    """SIZ, A.5.1; where the next segment is."""
    raw = read_bytes(payload, offset[rows], _SIZ_NBYTES + 3 * _MAX_COMPONENTS)
    size = raw[:, 4].astype(np.int64) << 8 | raw[:, 5]
    (width, height, *starts) = _words(raw, 8, 8).T
    samples = raw[:, 40].astype(np.int64) << 8 | raw[:, 41]
    tile_width, tile_height = starts[2], starts[3]
    fine = (raw[:, :4] == (0xFF, 0x4F, 0xFF, 0x51)).all(axis=1)
    fine &= (samples >= 1) & (samples <= _MAX_COMPONENTS) & (size == 38 + 3 * samples)
    fine &= (starts[0] == 0) & (starts[1] == 0) & (starts[4] == 0) & (starts[5] == 0)
    fine &= (width > 0) & (height > 0) & (tile_width > 0) & (tile_height > 0)
    tiles = -(-width // np.maximum(tile_width, 1)) * -(-height // np.maximum(tile_height, 1))
    fine &= tiles <= _MAX_TILES
    parts = raw[:, _SIZ_NBYTES:].reshape(-1, _MAX_COMPONENTS, 3).astype(np.int64)
    present = np.arange(_MAX_COMPONENTS) < samples[:, None]
    fine &= ((parts[:, :, 0] == parts[:, :1, 0]) | ~present).all(axis=1)
    chroma = present & np.isin(np.arange(_MAX_COMPONENTS), (1, 2)) & (samples >= 3)[:, None]
    for axis, kept in ((1, headers.across), (2, headers.down)):
        step = parts[:, :, axis]
        fine &= ((step == 1) | ~present | chroma).all(axis=1)
        fine &= ((step == step[:, 1:2]) | ~chroma).all(axis=1)
        kept[rows] = np.where(samples >= 3, step[:, 1], 1)
    headers.height[rows], headers.width[rows], headers.samples[rows] = height, width, samples
    headers.tiles[rows] = np.clip(tiles, 1, _MAX_TILES)
    headers.precision[rows] = (parts[:, 0, 0] & 0x7F) + 1
    headers.signed[rows] = parts[:, 0, 0] >= 0x80
    headers.understood[rows] &= fine
    return np.asarray(offset[rows] + 4 + size)


def _step(
    payload: ByteArray,
    at: Int64s,
    limit: Int64s,
    rows: Int64s,
    headers: CodestreamHeaders,
    running: NDArray[np.bool_],
) -> None:
    """Look at one marker of the streams `rows`, and move on; `end` is not 0 within tile-parts."""
    place = np.minimum(at[rows, None] + np.arange(10), max(payload.size - 1, 0))
    raw = payload[place].astype(np.int64)
    marker = raw[:, 0] << 8 | raw[:, 1]
    in_tiles = headers.end[rows] > 0
    done = in_tiles & (marker == _EOC) & (at[rows] + 2 <= limit[rows])
    done &= headers.seen[rows] == _EVERY >> (_MAX_TILES - headers.tiles[rows]).astype(np.uint64)
    headers.end[rows[done]] = at[rows[done]] + 2
    running[rows[done]] = False
    tile = marker == _SOT
    size = np.where(
        tile, raw[:, 6] << 24 | raw[:, 7] << 16 | raw[:, 8] << 8 | raw[:, 9],
        (raw[:, 2] << 8 | raw[:, 3]) + 2,
    )  # fmt: skip
    known = np.where(in_tiles, tile, tile | np.isin(marker, _MAIN_MARKERS))
    fine = known & (size >= np.where(tile, 14, 4)) & (at[rows] + size <= limit[rows])
    number = raw[:, 4] << 8 | raw[:, 5]
    fine &= ~tile | ((raw[:, 2] << 8 | raw[:, 3]) == _SOT_NBYTES) & (number < headers.tiles[rows])
    refused = rows[~fine & ~done]
    headers.understood[refused] = running[refused] = False
    headers.end[rows[fine & tile]] = 1
    headers.seen[rows[fine & tile]] |= np.uint64(1) << number[fine & tile].astype(np.uint64)
    on = rows[fine & ~done]
    at[on] += size[fine & ~done]
