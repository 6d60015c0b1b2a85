"""Large results in memory that was used before.

Fresh memory is given page by page and zeroed, which costs about as much as filling it. A loop that
makes result after result takes memory from here: what nothing refers to any more is used again.
"""

from __future__ import annotations

import math
import sys
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zarrgpu.forks import tell_of_forks
from zarrgpu.model import ByteArray

_LINE_NBYTES = 64
"""Of a processor's cache: whole lines are written without being read first."""

_ONLY_HELD = 2
"""References to memory that nobody uses: the list that holds it, and the call that counts."""


def aligned_empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Fresh array that begins with a line of the processor's cache; elements are undefined."""
    nbytes = math.prod(shape) * dtype.itemsize
    return _on_line(np.empty(nbytes + _LINE_NBYTES, np.uint8), nbytes, dtype).reshape(shape)


def _on_line(memory: ByteArray, nbytes: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """The first `nbytes` of memory from a line on; refers to the memory itself."""
    begin = -memory.__array_interface__["data"][0] % _LINE_NBYTES
    return memory[begin : begin + nbytes].view(dtype)


class RecycledMemory:
    """Memory for results on the host, safe for threads.

    A result, its views and what shares it (slices, tensors, DLPack capsules) refer to the memory
    under it, so the interpreter's own count of references says when it is free.

    Parameters
    ----------
    max_results : int
        Pieces of memory that are kept for later; more are made where all are in use.
    """

    def __init__(self, max_results: int) -> None:
        self.max_results = max_results
        self._held: list[ByteArray] = []
        self._lock = threading.Lock()
        tell_of_forks(self)

    def __getstate__(self) -> int:
        return self.max_results

    def __setstate__(self, max_results: int) -> None:
        self.__init__(max_results)  # type: ignore[misc]

    def after_fork(self) -> None:
        """Use a lock of its own in a forked process; what is held stays usable."""
        self._lock = threading.Lock()

    def take(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Array with undefined elements, C order, that begins with a line of the cache."""
        nbytes = math.prod(shape) * dtype.itemsize
        with self._lock:
            memory = self._free(nbytes + _LINE_NBYTES)
        return _on_line(memory, nbytes, dtype).reshape(shape)

    def _free(self, nbytes: int) -> ByteArray:
        """Memory of at least `nbytes` that nothing refers to."""
        for index in range(len(self._held)):
            if self._held[index].size >= nbytes and self._is_free(index):
                return self._held[index]
        memory = np.empty(nbytes, np.uint8)
        # what is too small for this result is too small for the next
        for index in reversed(range(len(self._held))):
            if self._is_free(index):
                del self._held[index]
        if len(self._held) < self.max_results:
            self._held.append(memory)
        return memory

    def _is_free(self, index: int) -> bool:
        return sys.getrefcount(self._held[index]) == _ONLY_HELD
