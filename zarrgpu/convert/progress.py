"""A bar on the terminal, and nothing where there is none."""

from __future__ import annotations

import sys
import threading
import time
from typing import Final, TextIO

_WIDTH: Final = 30
_REDRAW_S: Final = 0.1


class Progress:
    """Progress of `total` elements; safe for threads.

    Parameters
    ----------
    total : int
    stream : text stream, optional
        Default standard error. One that is no terminal gets nothing.
    quiet : bool
    """

    def __init__(self, total: int, *, stream: TextIO | None = None, quiet: bool = False) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._shown = not quiet and self._stream.isatty()
        self._total, self._done, self._skipped = max(total, 1), 0, 0
        self._started = time.monotonic()
        self._drawn = 0.0
        self._lock = threading.Lock()

    def add(self, count: int, *, skipped: bool = False) -> None:
        """So many elements more are done, or were done by an earlier run."""
        with self._lock:
            self._done += count
            self._skipped += count if skipped else 0
            now = time.monotonic()
            if self._shown and (now - self._drawn >= _REDRAW_S or self._done >= self._total):
                self._drawn = now
                self._stream.write(f"\r\x1b[2K{self._line(now)}")
                self._stream.flush()

    def close(self) -> None:
        """Clear the bar."""
        if self._shown:
            self._stream.write("\r\x1b[2K")
            self._stream.flush()

    def _line(self, now: float) -> str:
        share = min(self._done / self._total, 1.0)
        bar = "#" * int(_WIDTH * share) + "." * (_WIDTH - int(_WIDTH * share))
        rate = (self._done - self._skipped) / max(now - self._started, 1e-9)
        left = (self._total - self._done) / rate if rate > 0 else 0.0
        return f"  converting [{bar}] {share:4.0%}  {int(left)} s left"
