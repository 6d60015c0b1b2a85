"""What n JPEG streams say before their entropy-coded data: marker segments walked all at once.

Spec: ITU-T T.81, B.2. The steps of the walk are those of the longest header; each step looks at one
segment of every stream, as NumPy columns. A device's library trusts its input more than libjpeg
does, so only what is common is understood: one baseline frame of 8 bits, one scan of all
components, tables that hold what they claim. The rest is the host's.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from zarrgpu.codecs.device_steps import Int64s, read_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from zarrgpu.model import ByteArray

_SOF0, _DHT, _SOS, _DQT, _DRI, _EOI, _COM = 0xC0, 0xC4, 0xDA, 0xDB, 0xDD, 0xD9, 0xFE
_APP0, _APP14 = 0xE0, 0xEE
_MAX_SEGMENTS: Final = 40
_MAX_TABLES: Final = 8
"""In one segment: four of each kind."""
_MAX_PADDING_NBYTES: Final = 3
"""After the end, that word alignment explains (as `jpeg.check_end`)."""
_MAX_COMPONENTS: Final = 4
_KRAFT: Final = 1 << np.arange(15, -1, -1, dtype=np.int64)
"""Share of the code space that a code of 1 to 16 bits takes, of 65,536."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class JpegHeaders:
    """What is known of n streams.

    Attributes
    ----------
    understood : bool (n,)
        The other columns mean nothing where it is False.
    height, width, samples : int64 (n,)
    ids : uint8 (n, 4)
        Of the components.
    across, down : int64 (n,)
        Pixels that a sample of the second and third component is for, 1 or 2; of the others, 1.
    restarts : int64 (n,)
        Restart interval in MCUs; 0: none.
    scan, end : int64 (n,)
        Entropy-coded data in the payload: first byte, and the end-of-image marker behind it.
    jfif : bool (n,)
        Whether there is a JFIF marker.
    adobe : int64 (n,)
        Transform of the Adobe marker; -1 if there is none.
    quantization, dc, ac : int64 (n,)
        Bit i: table i is defined.
    needed : int64 (n, 3)
        The same of the tables that the scan needs.
    """

    understood: NDArray[np.bool_]
    height: Int64s
    width: Int64s
    samples: Int64s
    ids: NDArray[np.uint8]
    across: Int64s
    down: Int64s
    restarts: Int64s
    scan: Int64s
    end: Int64s
    jfif: NDArray[np.bool_]
    adobe: Int64s
    quantization: Int64s
    dc: Int64s
    ac: Int64s
    needed: Int64s = field(repr=False)

    def lacks_tables(self, *, quantization: int, dc: int, ac: int) -> NDArray[np.bool_]:
        """Whether a table is needed that is neither in the stream nor among those given."""
        have = np.stack([self.quantization | quantization, self.dc | dc, self.ac | ac], axis=1)
        return np.asarray((self.needed & ~have).any(axis=1))


def parse_headers(payload: ByteArray, offset: Int64s, nbytes: Int64s) -> JpegHeaders:
    """Walk to the scan of each stream, and find its end.

    Parameters
    ----------
    payload : uint8 array
    offset, nbytes : int64 (n,)
        Each stream in `payload`.
    """
    headers = _walk(payload, offset, nbytes, _SOS)
    _find_ends(payload, offset + nbytes, headers)
    return headers


def parse_tables(tables: bytes) -> JpegHeaders:
    """Read an abbreviated stream of tables: SOI, tables, EOI; one row."""
    start, size = np.zeros(1, np.int64), np.array([len(tables)], np.int64)
    headers = _walk(np.frombuffer(tables, np.uint8), start, size, _EOI)
    headers.understood[:] &= (headers.samples == 0) & (headers.restarts == 0)
    return headers


def _walk(payload: ByteArray, offset: Int64s, nbytes: Int64s, last: int) -> JpegHeaders:
    n, limit = len(offset), offset + nbytes
    height, width, samples, restarts, scan, quantization, dc, ac = np.zeros((8, n), np.int64)
    across, down = np.ones((2, n), np.int64)
    headers = JpegHeaders(
        understood=nbytes >= 4, height=height, width=width, samples=samples,
        ids=np.zeros((n, _MAX_COMPONENTS), np.uint8), across=across, down=down, restarts=restarts,
        scan=scan, end=limit.copy(), jfif=np.zeros(n, np.bool_), adobe=np.full(n, -1, np.int64),
        quantization=quantization, dc=dc, ac=ac, needed=np.zeros((n, 3), np.int64),
    )  # fmt: skip
    at = offset + 2
    running = headers.understood.copy()
    first = np.flatnonzero(running)
    start = read_bytes(payload, offset[first], 2)
    running[first] = (start[:, 0] == 0xFF) & (start[:, 1] == 0xD8)
    headers.understood[:] &= running
    for _ in range(_MAX_SEGMENTS):
        rows = np.flatnonzero(running)
        if not len(rows):
            break
        _step(payload, headers, rows, at, limit, running, last)
    headers.understood[:] &= ~running  # some are longer than any that is known
    return headers


def _step(
    payload: ByteArray,
    headers: JpegHeaders,
    rows: Int64s,
    at: Int64s,
    limit: Int64s,
    running: NDArray[np.bool_],
    last: int,
) -> None:
    """Look at one segment of the streams `rows`, and move on."""
    ends = (last == _EOI) & (at[rows] + 2 == limit[rows])
    running[rows[ends]] = False
    tail = read_bytes(payload, at[rows[ends]], 2)
    headers.understood[rows[ends]] = (tail[:, 0] == 0xFF) & (tail[:, 1] == _EOI)
    rows = rows[~ends]
    inside = at[rows] + 4 <= limit[rows]
    _refuse(headers, running, rows[~inside])
    rows = rows[inside]
    head = read_bytes(payload, at[rows], 4).astype(np.int64)
    marker, size = head[:, 1], head[:, 2] << 8 | head[:, 3]
    end = at[rows] + 2 + size
    known = ((marker & 0xF0) == _APP0) | (marker == _COM)
    for code in (*_SEGMENTS, last):
        known |= marker == code
    good = (head[:, 0] == 0xFF) & known & (size >= 2) & (end <= limit[rows])
    _refuse(headers, running, rows[~good])
    rows, marker, end = rows[good], marker[good], end[good]
    for code in np.unique(marker).tolist():
        mine = marker == code
        if code in _SEGMENTS:
            fine = _SEGMENTS[code](payload, headers, rows[mine], at[rows[mine]] + 4, end[mine])
            _refuse(headers, running, rows[mine][~fine])
    at[rows] = end
    stops = rows[marker == last]
    headers.scan[stops] = at[stops]
    headers.understood[stops] &= headers.samples[stops] > 0
    running[stops] = False


def _refuse(headers: JpegHeaders, running: NDArray[np.bool_], rows: Int64s) -> None:
    headers.understood[rows] = running[rows] = False


def _bytes_inside(payload: ByteArray, at: Int64s, n: int) -> NDArray[np.int64]:
    """`n` bytes from each place, those beyond the payload as zeros."""
    place = np.minimum(at[:, None] + np.arange(n), max(payload.size - 1, 0))
    return np.asarray(payload[place].astype(np.int64))


def _frame(
    payload: ByteArray, headers: JpegHeaders, rows: Int64s, at: Int64s, end: Int64s
) -> NDArray[np.bool_]:
    """SOF0, B.2.2."""
    body = _bytes_inside(payload, at, 6 + 3 * _MAX_COMPONENTS)
    samples = body[:, 5]
    fine = (headers.samples[rows] == 0) & (body[:, 0] == 8) & (samples >= 1)
    fine &= (samples <= _MAX_COMPONENTS) & (end - at == 6 + 3 * samples)
    headers.height[rows] = body[:, 1] << 8 | body[:, 2]
    headers.width[rows] = body[:, 3] << 8 | body[:, 4]
    fine &= (headers.height[rows] > 0) & (headers.width[rows] > 0)
    headers.samples[rows] = samples
    parts = body[:, 6:].reshape(-1, _MAX_COMPONENTS, 3)
    present = np.arange(_MAX_COMPONENTS) < samples[:, None]
    headers.ids[rows] = np.where(present, parts[:, :, 0], 0)
    across, down = parts[:, :, 1] >> 4, parts[:, :, 1] & 15
    chroma = present & np.isin(np.arange(_MAX_COMPONENTS), (1, 2))
    for factor, kept in ((across, headers.across), (down, headers.down)):
        fine &= (factor[:, 0] == 1) | ((factor[:, 0] == 2) & (samples >= 3))
        fine &= ((factor == 1) | ~chroma).all(axis=1)
        fine &= ((factor == factor[:, :1]) | ~present | chroma).all(axis=1)
        kept[rows] = factor[:, 0]
    table = parts[:, :, 2]
    fine &= ((table < 4) | ~present).all(axis=1)
    headers.needed[rows, 0] = _bits(table, present)
    for one, other in itertools.combinations(range(_MAX_COMPONENTS), 2):  # no two of one name
        fine &= (parts[:, one, 0] != parts[:, other, 0]) | (samples <= other)
    return np.asarray(fine)


def _bits(table: Int64s, present: NDArray[np.bool_]) -> Int64s:
    """Set of table numbers of each row."""
    return np.asarray(np.bitwise_or.reduce(np.where(present, 1 << (table & 3), 0), axis=1))


def _scan(
    payload: ByteArray, headers: JpegHeaders, rows: Int64s, at: Int64s, end: Int64s
) -> NDArray[np.bool_]:
    """SOS, B.2.3: all components, in the frame's order, all of the spectrum."""
    samples = headers.samples[rows]
    body = _bytes_inside(payload, at, 1 + 2 * _MAX_COMPONENTS)
    fine = (samples > 0) & (body[:, 0] == samples) & (end - at == 4 + 2 * samples)
    parts = body[:, 1:].reshape(-1, _MAX_COMPONENTS, 2)
    present = np.arange(_MAX_COMPONENTS) < samples[:, None]
    fine &= ((parts[:, :, 0] == headers.ids[rows]) | ~present).all(axis=1)
    dc, ac = parts[:, :, 1] >> 4, parts[:, :, 1] & 15
    fine &= (((dc < 2) & (ac < 2)) | ~present).all(axis=1)
    headers.needed[rows, 1], headers.needed[rows, 2] = _bits(dc, present), _bits(ac, present)
    tail = _bytes_inside(payload, end - 3, 3)
    return np.asarray(fine & (tail == (0, 63, 0)).all(axis=1))


def _quantization(
    payload: ByteArray, headers: JpegHeaders, rows: Int64s, at: Int64s, end: Int64s
) -> NDArray[np.bool_]:
    """DQT, B.2.4.1; baseline tables of 8 bits."""
    fine = np.ones(len(rows), np.bool_)
    at = at.copy()
    for _ in range(_MAX_TABLES):
        more = fine & (at < end)
        if not more.any():
            break
        number = _bytes_inside(payload, at, 1)[:, 0]
        fine &= ~more | ((number < 4) & (at + 65 <= end))
        headers.quantization[rows] |= np.where(more, 1 << (number & 3), 0)
        at += np.where(more, 65, 0)
    return np.asarray(fine & (at == end))


def _huffman(
    payload: ByteArray, headers: JpegHeaders, rows: Int64s, at: Int64s, end: Int64s
) -> NDArray[np.bool_]:
    """DHT, B.2.4.2: codes that fit, and leave the one of all ones free."""
    fine = np.ones(len(rows), np.bool_)
    at = at.copy()
    for _ in range(_MAX_TABLES):
        more = fine & (at < end)
        if not more.any():
            break
        body = _bytes_inside(payload, at, 33)
        kind, number, counts = body[:, 0] >> 4, body[:, 0] & 15, body[:, 1:17]
        total = counts.sum(axis=1)
        room = np.where(kind == 0, 16, 256)
        good = (kind < 2) & (number < 4) & (total <= room) & (at + 17 + total <= end)
        good &= (counts * _KRAFT).sum(axis=1) < 1 << 16
        symbols = (body[:, 17:] < 16) | (np.arange(16) >= total[:, None])
        fine &= ~more | (good & ((kind == 1) | symbols.all(axis=1)))
        headers.dc[rows] |= np.where(more & (kind == 0), 1 << (number & 3), 0)
        headers.ac[rows] |= np.where(more & (kind == 1), 1 << (number & 3), 0)
        at += np.where(more, 17 + total, 0)
    return np.asarray(fine & (at == end))


def _restart(
    payload: ByteArray, headers: JpegHeaders, rows: Int64s, at: Int64s, end: Int64s
) -> NDArray[np.bool_]:
    """DRI, B.2.4.4."""
    body = _bytes_inside(payload, at, 2)
    headers.restarts[rows] = body[:, 0] << 8 | body[:, 1]
    return np.asarray(end - at == 2)


def _app0(
    payload: ByteArray, headers: JpegHeaders, rows: Int64s, at: Int64s, end: Int64s
) -> NDArray[np.bool_]:
    """JFIF, which libjpeg knows by its name and a length of 14 or more."""
    body = _bytes_inside(payload, at, 5)
    named = (body == tuple(b"JFIF\0")).all(axis=1) & (end - at >= 14)
    headers.jfif[rows] |= named
    return np.ones(len(rows), np.bool_)


def _app14(
    payload: ByteArray, headers: JpegHeaders, rows: Int64s, at: Int64s, end: Int64s
) -> NDArray[np.bool_]:
    """Adobe's marker: the transform is its twelfth byte."""
    body = _bytes_inside(payload, at, 12)
    named = (body[:, :5] == tuple(b"Adobe")).all(axis=1) & (end - at >= 12)
    headers.adobe[rows] = np.where(named, body[:, 11], headers.adobe[rows])
    return np.ones(len(rows), np.bool_)


_SEGMENTS: Final[
    dict[int, Callable[[ByteArray, JpegHeaders, Int64s, Int64s, Int64s], NDArray[np.bool_]]]
] = {
    _SOF0: _frame, _SOS: _scan, _DQT: _quantization, _DHT: _huffman, _DRI: _restart,
    _APP0: _app0, _APP14: _app14,
}  # fmt: skip
"""Marker -> what reads its segments and says which are as they should be."""


def _find_ends(payload: ByteArray, limit: Int64s, headers: JpegHeaders) -> None:
    """Find the end-of-image marker among the last bytes of each stream, the first if several."""
    found = np.zeros(len(limit), np.bool_)
    for padding in range(_MAX_PADDING_NBYTES + 1):
        at = limit - 2 - padding
        rows = np.flatnonzero(headers.understood & (at >= headers.scan))
        tail = read_bytes(payload, at[rows], 2)
        here = rows[(tail[:, 0] == 0xFF) & (tail[:, 1] == _EOI)]
        headers.end[here] = at[here]
        found[here] = True
    headers.understood[:] &= found
