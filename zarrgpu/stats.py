"""What reads have cost so far: plain counters that a reader or loader adds up."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields


@dataclass(slots=True)
class ReadStats:
    """Sums over reads.

    Attributes
    ----------
    fetched_bytes : int
        Encoded bytes read from stores.
    direct_bytes : int
        Of these: from files straight into device memory.
    decoded_bytes : int
        Decoded bytes in the stored type.
    delivered_bytes : int
        Bytes of results.
    chunks_decoded, chunks_cached, chunks_missing : int
    chunks_retried : int
        Of those decoded: once more, on the host, after a device could not.
    patches : int
        Boxes delivered.
    waves, launches : int
        On a CUDA device: parts that reads were cut into, and the calls of kernels and libraries
        that decode and place them.
    seconds : float
        Wall time inside reads. Reads of a loader overlap, so it may exceed the time that passed.
    plan_seconds : float
        Of it: making plans, shard indexes included.
    fetch_seconds : float
        Of it: fetching for a CUDA device, and decoding there what no device decodes.
    copy_seconds, decode_seconds, gather_seconds : float
        Time on a CUDA device between events around each stage, of all waves. Waves overlap.

    Where a read runs on the host its stages take turns chunk by chunk, on many threads: no clock is
    read there, and the last four stay 0.
    """

    fetched_bytes: int = 0
    direct_bytes: int = 0
    decoded_bytes: int = 0
    delivered_bytes: int = 0
    chunks_decoded: int = 0
    chunks_cached: int = 0
    chunks_missing: int = 0
    chunks_retried: int = 0
    patches: int = 0
    waves: int = 0
    launches: int = 0
    seconds: float = 0.0
    plan_seconds: float = 0.0
    fetch_seconds: float = 0.0
    copy_seconds: float = 0.0
    decode_seconds: float = 0.0
    gather_seconds: float = 0.0

    def add(self, other: ReadStats) -> None:
        """Add what other reads have cost."""
        for field in fields(other):
            total = getattr(self, field.name) + getattr(other, field.name)
            setattr(self, field.name, total)


@contextmanager
def clocked(stats: ReadStats, name: str) -> Iterator[None]:
    """Add the wall time of a block to an attribute of `stats`."""
    began = time.perf_counter()
    try:
        yield
    finally:
        setattr(stats, name, getattr(stats, name) + time.perf_counter() - began)
