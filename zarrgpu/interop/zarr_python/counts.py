"""What ran through zarrgpu and what was left to zarr-python, counted for the whole process."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class PipelineStats:
    """Counts of reads since the process began, or since `reset`.

    A read is one call of the pipeline by an array. Reads by zarr-python's sharding codec within a
    shard that was left to it are counted as `nested_reads` only, with what was decoded of them.

    Attributes
    ----------
    reads : int
        That zarrgpu carried out.
    reads_delegated : int
        That zarr-python's own pipeline carried out.
    nested_reads, nested_reads_delegated : int
        The same, within shards.
    chunks_decoded, chunks_missing : int
        By zarrgpu: chunks, and inner chunks of shards.
    chunks_delegated : int
        Chunks or shards left to zarr-python.
    reasons : Counter of str
        Why reads were delegated.
    """

    reads: int = 0
    reads_delegated: int = 0
    nested_reads: int = 0
    nested_reads_delegated: int = 0
    chunks_decoded: int = 0
    chunks_missing: int = 0
    chunks_delegated: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add_read(self, *, nested: bool, decoded: int, missing: int) -> None:
        """Count a read by zarrgpu."""
        with self._lock:
            if nested:
                self.nested_reads += 1
            else:
                self.reads += 1
            self.chunks_decoded += decoded
            self.chunks_missing += missing

    def add_delegated(self, *, nested: bool, chunks: int, reason: str) -> None:
        """Count a read by zarr-python."""
        with self._lock:
            if nested:
                self.nested_reads_delegated += 1
            else:
                self.reads_delegated += 1
            self.chunks_delegated += chunks
            self.reasons[reason] += 1

    def as_dict(self) -> dict[str, Any]:
        """Counts as JSON values, reasons by frequency."""
        with self._lock:
            counts = {
                name: getattr(self, name)
                for name in self.__dataclass_fields__
                if name not in ("reasons", "_lock")
            }
            return {**counts, "reasons": dict(self.reasons.most_common())}

    def reset(self) -> None:
        """Start again from zero."""
        with self._lock:
            for name in self.__dataclass_fields__:
                if name not in ("reasons", "_lock"):
                    setattr(self, name, 0)
            self.reasons.clear()
