"""The CPU as a device: a thread pool and memory that its threads reuse.

Pools are made on first use and belong to one process: a forked child makes its own, because threads
do not survive a fork.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from zarrgpu.model import ByteArray

Item = TypeVar("Item")
Result = TypeVar("Result")

_KEPT_NBYTES = 64 << 20
"""Of memory that a thread keeps for each use: it lives as long as the process."""

_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}
_pools_lock = threading.Lock()
_scratch = threading.local()


@dataclass(frozen=True, slots=True)
class HostDevice:
    """The CPU."""

    name: str = "cpu"


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_threads(
    work: Callable[[Item], Result], items: Sequence[Item], num_threads: int
) -> list[Result]:
    """Apply `work` to all items on up to `num_threads` threads, the caller's too; in no order.

    The first exception stops the threads from taking further items and is raised. `work` may call
    this again: nobody waits for a thread that has not begun.
    """
    num_threads = min(num_threads, len(items))
    if num_threads <= 1:
        return [work(item) for item in items]
    queue = deque(items)
    held = [work]  # a pool forgets what it was given later than its caller, who needs the memory

    def drain() -> list[Result]:
        results: list[Result] = []
        (apply,) = held
        try:
            while True:
                try:
                    item = queue.popleft()
                except IndexError:
                    return results
                results.append(apply(item))
        except BaseException:
            queue.clear()
            raise

    futures = [_pool(num_threads - 1).submit(drain) for _ in range(num_threads - 1)]
    try:
        results = drain()  # the caller would only wait
        begun = [future for future in futures if not future.cancel()]  # nothing is left for others
        errors = [error for future in begun if (error := future.exception()) is not None]
    except BaseException:  # nothing shall go on behind the caller's back
        queue.clear()
        wait([future for future in futures if not future.cancel()])
        raise
    finally:
        held.clear()
    if errors:
        raise errors[0]
    return results + [result for future in begun for result in future.result()]


def scratch(use: str, nbytes: int) -> ByteArray:
    """Memory of the calling thread for one `use`, overwritten by its next call.

    Recycled memory has no page faults and is in cache. Large memory is in no cache, and not kept.
    """
    if nbytes > _KEPT_NBYTES:
        return np.empty(nbytes, np.uint8)
    memory: ByteArray | None = getattr(_scratch, use, None)
    if memory is None or memory.size < nbytes:
        memory = np.empty(nbytes, np.uint8)
        setattr(_scratch, use, memory)
    return memory[:nbytes]


def _pool(num_threads: int) -> ThreadPoolExecutor:
    """Pool of at least so many threads; few sizes, because threads keep their memory."""
    size = 1 << (num_threads - 1).bit_length()
    key = (os.getpid(), size)
    with _pools_lock:
        pool = _pools.get(key)
        if pool is None:
            pool = ThreadPoolExecutor(size, thread_name_prefix="zarrgpu")
            _pools[key] = pool
        return pool


def _after_fork() -> None:
    """Forget the parent's pools and lock, whose threads are not in the child."""
    global _pools_lock  # noqa: PLW0603 - a lock held by another thread at the fork stays locked
    _pools_lock = threading.Lock()
    _pools.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
