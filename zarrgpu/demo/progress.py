"""Show that work goes on: a bar that redraws itself on a terminal, plain lines anywhere else."""

from __future__ import annotations

import sys
import time
from typing import TextIO

BAR_WIDTH = 28
REDRAW_S = 0.08


class Progress:
    """Progress of `total` steps.

    On a terminal `update` redraws one line; into a file or pipe it writes a line at each quarter,
    so that a log stays short.
    """

    def __init__(self, label: str, total: int, *, stream: TextIO | None = None) -> None:
        self._label = label
        self._total = max(total, 1)
        self._stream = sys.stdout if stream is None else stream
        self._live = self._stream.isatty()
        self._done = 0
        self._quarter = 0
        self._drawn = 0.0

    def update(self, note: str = "") -> None:
        """One more step is done; `note` says how it went."""
        self._done += 1
        finished = self._done >= self._total
        if self._live:
            now = time.perf_counter()
            if finished or now - self._drawn >= REDRAW_S:
                self._drawn = now
                self._draw(note)
        elif 4 * self._done // self._total > self._quarter:
            self._quarter = 4 * self._done // self._total
            self._stream.write(f"  {self._label}  {self._done}/{self._total}  {note}\n")
            self._stream.flush()

    def close(self) -> None:
        """Clear the bar, so that what is printed next starts on a clean line."""
        if self._live:
            self._stream.write("\r\x1b[2K")
            self._stream.flush()

    def _draw(self, note: str) -> None:
        full = BAR_WIDTH * self._done // self._total
        bar = "█" * full + "░" * (BAR_WIDTH - full)
        self._stream.write(f"\r\x1b[2K  {self._label} {bar} {self._done}/{self._total}  {note}")
        self._stream.flush()
