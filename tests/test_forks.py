"""Law: a child does not wait for locks that threads of its parent held when it was forked."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.gpu.devices import open_device
from zarrgpu import ChunkCache
from zarrgpu.chunk_cache import CachedChunk
from zarrgpu.devices.ring import SlotRing
from zarrgpu.recycled import RecycledMemory

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork"),
    # Python 3.12 warns of what is tested here
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]


def put(cache, key, elements):
    cache.put_many([(key, CachedChunk(elements, 0))])


def status_of_child(lock: Any, work: Callable[[], object]) -> int:
    """Exit status of a child that was forked while another thread held `lock`."""
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(20)
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    done.set()
    thread.join()
    return os.waitpid(child, 0)[1]


def test_a_cache_is_usable_in_a_child():
    cache = ChunkCache(100)
    put(cache, (1, 1), np.zeros(60, np.uint8))

    def work() -> None:
        assert cache.get_many([(1, 1)]) == [None]
        put(cache, (1, 2), np.zeros(60, np.uint8))
        put(cache, (1, 3), np.zeros(60, np.uint8))
        assert (len(cache), cache.nbytes) == (1, 60)

    assert status_of_child(cache._lock, work) == 0
    assert cache.nbytes == 60


def test_what_was_cached_is_there_in_a_child_that_nobody_disturbed():
    cache = ChunkCache(100)
    put(cache, (1, 1), np.zeros(60, np.uint8))

    def work() -> None:
        assert cache.get_many([(1, 1)])[0] is not None

    assert status_of_child(threading.Lock(), work) == 0


def test_recycled_memory_is_usable_in_a_child():
    memory = RecycledMemory(2)
    kept = memory.take((4,), np.dtype("u1"))

    def work() -> None:
        assert not np.shares_memory(kept, memory.take((4,), np.dtype("u1")))

    assert status_of_child(memory._lock, work) == 0


def test_slots_that_a_loader_of_the_parent_has_are_left_alone_in_a_child():
    """Its iterator may be closed there, by whoever collects it."""
    device = open_device("lazy")
    ring = SlotRing(device)
    ring.give_back(ring.take(1))

    def work() -> None:
        ring.close()
        assert not device._free

    assert status_of_child(ring._turn, work) == 0
    ring.close()
    assert len(device._free) == 1
