"""Which bytes of an encoded chunk the decode tables look at, for chunks that only a device has.

Tables are made from headers (`device.decode_tables`). Of chunks that were read straight into device
memory the host gets just those, at their places in an otherwise empty copy of the payload. What
is not brought there is zero; a format whose tables look at more than is listed here must not be
listed at all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from zarrgpu.codecs.device import DeviceChain
from zarrgpu.codecs.device_elements import CHECKSUM_NBYTES
from zarrgpu.codecs.device_steps import Int64s
from zarrgpu.indexing import expand_counts
from zarrgpu.model import ByteArray

_ROOM_RECORDS = 64
_NBYTES_PER_RECORD = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Headers:
    """What of a chunk is looked at.

    Attributes
    ----------
    head, tail : int
        Bytes at its start and its end.
    kernel : str or None
        What finds the headers in between: a kernel for the stream within the checksums.
    before, after : int
        Bytes of checksums around that stream.
    decoded_nbytes : int
        Size that the stream decodes to.
    plain_flags : int or None
        Place of a byte that must be 0 or 1: else more is looked at than is brought.
    """

    head: int = 0
    tail: int = 0
    kernel: str | None = None
    before: int = 0
    after: int = 0
    decoded_nbytes: int = 0
    plain_flags: int | None = None

    @property
    def room_records(self) -> int:
        """Records that the kernel has room for, more than chunks of usual encoders have."""
        return _ROOM_RECORDS + self.decoded_nbytes // _NBYTES_PER_RECORD

    def plannable(self, nbytes: Int64s) -> NDArray[np.bool_]:
        """Which of chunks of so many bytes can have a stream at all."""
        return nbytes > self.before + self.after


_STREAMS: dict[str | None, Headers] = {
    None: Headers(),
    "lz4": Headers(head=4),
    "zlib": Headers(head=12),  # with what of its first block is looked at
    "gzip": Headers(head=20, tail=4, plain_flags=3),
    "zstd": Headers(kernel="zstd_headers"),
    "blosc": Headers(kernel="blosc_headers"),
    "lzw": Headers(),
    "lzw_reversed": Headers(),
    "tiff_packbits": Headers(),
    "tiff_packbits_reversed": Headers(),
}
"""Compressor -> what its tables look at."""


def chain_headers(chain: DeviceChain | None) -> Headers | None:
    """What the tables of a chain look at; None if the host must have all of its chunks."""
    if chain is None or chain.image is not None or chain.compressor not in _STREAMS:
        return None
    stream = _STREAMS[chain.compressor]
    at_start = sum(checksum.at_start for checksum in chain.checksums)
    before = CHECKSUM_NBYTES * at_start
    after = CHECKSUM_NBYTES * (len(chain.checksums) - at_start)
    return replace(
        stream,
        head=before + stream.head,
        tail=after + stream.tail,
        before=before,
        after=after,
        decoded_nbytes=chain.stream_nbytes,
        plain_flags=None if stream.plain_flags is None else before + stream.plain_flags,
    )


def place_records(
    mirror: ByteArray, start: Int64s, end: Int64s, records: NDArray[np.void], first: Int64s
) -> None:
    """Put what a header kernel found where it is in the payload.

    Parameters
    ----------
    mirror : uint8 array
    start, end : int64 (n,)
        Each stream in the payload.
    records : array of `tables.HEADER_RECORD`
        All rooms.
    first : int64 (n,)
        Each stream's room; its first record says how many follow.
    """
    job, number = expand_counts(records["at"][first])
    found = records[first[job] + 1 + number]
    width = found["data"].shape[1]
    at = (start[job] + found["at"])[:, None] + np.arange(width)
    inside = at < end[job][:, None]
    mirror[at[inside]] = found["data"][inside]
