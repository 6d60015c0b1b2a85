"""Memory for many small things that are kept: few large pieces, filled one after another.

Fresh memory in small pieces costs a page fault for each 4 KiB; in large ones the system gives
larger pages, but still zeroes them. So pieces are large, are filled by one read after another, and
those that nothing refers to any more are used again.
"""

from __future__ import annotations

import threading
from typing import Final

import numpy as np

from zarrgpu.forks import tell_of_forks
from zarrgpu.model import ByteArray
from zarrgpu.recycled import RecycledMemory

SLAB_NBYTES: Final = 32 << 20
_ALIGNMENT: Final = 64
_LEAST_SHARE: Final = 8
"""A slab of full size of which more than this part would stay empty is made smaller."""

_UINT8: Final = np.dtype(np.uint8)

_recycled = RecycledMemory(8)
"""Slabs of full size of the whole process: at most 256 MiB stay with it."""


class Slabs:
    """Rooms on slabs; safe for threads.

    Parameters
    ----------
    slab_nbytes : int
        Of a slab, if what is put there is not larger.
    """

    def __init__(self, slab_nbytes: int) -> None:
        self.slab_nbytes = max(1, min(slab_nbytes, SLAB_NBYTES))
        self._slab = np.empty(0, np.uint8)
        self._used = 0
        self._lock = threading.Lock()
        tell_of_forks(self)

    def after_fork(self) -> None:
        """Begin a new slab in a forked process, and use a lock of its own."""
        self.__init__(self.slab_nbytes)  # type: ignore[misc]

    def take(self, nbytes: int, count: int) -> list[tuple[ByteArray, int]]:
        """Rooms of `nbytes` bytes: for each its slab, and where on it the room begins."""
        step = -(-nbytes // _ALIGNMENT) * _ALIGNMENT
        rooms: list[tuple[ByteArray, int]] = []
        with self._lock:
            while len(rooms) < count:
                if self._slab.size - self._used < step:
                    self._slab, self._used = self._new_slab(step), 0
                fitting = (self._slab.size - self._used) // step
                taken = min(fitting, count - len(rooms))
                rooms += [(self._slab, self._used + i * step) for i in range(taken)]
                self._used += taken * step
        return rooms

    def forget(self) -> None:
        """Begin a new slab with the next room, so that this one can be given up."""
        with self._lock:
            self._slab, self._used = np.empty(0, np.uint8), 0

    def _new_slab(self, step: int) -> ByteArray:
        nbytes = max(1, self.slab_nbytes // step) * step
        if nbytes <= SLAB_NBYTES <= nbytes + nbytes // _LEAST_SHARE:
            return _recycled.take((SLAB_NBYTES,), _UINT8)
        return np.empty(nbytes, np.uint8)
