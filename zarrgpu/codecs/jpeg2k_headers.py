"""What n JPEG 2000 codestreams say of themselves, and whether they are complete: all at once.

Spec: ITU-T T.800, annex A. As `jpeg_headers`: each step looks at one marker segment, or tile-part,
of every stream. What is not common is left to the host: JP2 boxes, offsets of image or tiles, a
missing end marker, components of different depths.
"""

from __future__ import annotations

from dataclasses import dataclass
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
_SOT, _EOC = 0xFF90, 0xFFD9
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
    end : int64 (n,)
        Behind the end marker, in the payload.
    """

    understood: NDArray[np.bool_]
    height: Int64s
    width: Int64s
    samples: Int64s
    precision: Int64s
    signed: NDArray[np.bool_]
    across: Int64s
    down: Int64s
    end: Int64s


def parse_codestreams(payload: ByteArray, offset: Int64s, nbytes: Int64s) -> CodestreamHeaders:
    """Read the size marker of each stream, and walk to its end.

    Parameters
    ----------
    payload : uint8 array
    offset, nbytes : int64 (n,)
        Each stream in `payload`.
    """
    n, limit = len(offset), offset + nbytes
    columns = np.zeros((5, n), np.int64)
    across, down = np.ones((2, n), np.int64)
    headers = CodestreamHeaders(
        understood=nbytes > _SIZ_NBYTES + 3 * _MAX_COMPONENTS, height=columns[0], width=columns[1],
        samples=columns[2], precision=columns[3], signed=np.zeros(n, np.bool_), across=across,
        down=down, end=columns[4],
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
    headers.end[rows[done]] = at[rows[done]] + 2
    running[rows[done]] = False
    tile = marker == _SOT
    size = np.where(
        tile, raw[:, 6] << 24 | raw[:, 7] << 16 | raw[:, 8] << 8 | raw[:, 9],
        (raw[:, 2] << 8 | raw[:, 3]) + 2,
    )  # fmt: skip
    known = np.where(in_tiles, tile, tile | np.isin(marker, _MAIN_MARKERS))
    fine = known & (size >= np.where(tile, 14, 4)) & (at[rows] + size <= limit[rows])
    refused = rows[~fine & ~done]
    headers.understood[refused] = running[refused] = False
    headers.end[rows[fine & tile]] = 1
    on = rows[fine & ~done]
    at[on] += size[fine & ~done]
