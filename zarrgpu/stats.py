"""What reads have cost so far: plain counters that a reader or loader adds up."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class ReadStats:
    """Sums over reads.

    Attributes
    ----------
    fetched_bytes : int
        Encoded bytes read from stores.
    decoded_bytes : int
        Decoded bytes in the stored type.
    delivered_bytes : int
        Bytes of results.
    chunks_decoded, chunks_cached, chunks_missing : int
    patches : int
        Boxes delivered.
    seconds : float
        Wall time inside reads.
    """

    fetched_bytes: int = 0
    decoded_bytes: int = 0
    delivered_bytes: int = 0
    chunks_decoded: int = 0
    chunks_cached: int = 0
    chunks_missing: int = 0
    patches: int = 0
    seconds: float = 0.0
