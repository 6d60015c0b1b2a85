"""Doing work ahead of who consumes its results: one thread, a bounded number of results."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
Cancelled = Callable[[], bool]
"""Asked by work in progress: whether its result is not wanted any more."""


@dataclass(frozen=True, slots=True, eq=False)
class _Failure:
    error: BaseException


def read_ahead(
    work: Callable[[Item, Cancelled], Result], items: Sequence[Item], depth: int
) -> Generator[Result, None, None]:
    """Generate ``work(item)`` for all items, in order, made by a thread up to `depth` ahead.

    Besides the result that the consumer has, at most `depth` are ready or being made. Closing the
    generator, by leaving the loop or by an exception in it, cancels the work in progress and waits
    for the thread to end; so nothing runs on. What `work` raises is raised here, in its turn.

    Parameters
    ----------
    work : callable
        Gets an item and a function that says whether to give up.
    items : sequence
    depth : int
        0 makes every result when it is asked for, without a thread.
    """
    if depth == 0 or not items:
        for item in items:
            yield work(item, bool)  # bool() is False: never cancelled
        return
    ready: queue.SimpleQueue[Result | _Failure] = queue.SimpleQueue()
    room = threading.Semaphore(depth)
    stop = threading.Event()

    def produce() -> None:
        try:
            for item in items:
                room.acquire()
                if stop.is_set():
                    return
                ready.put(work(item, stop.is_set))
        except BaseException as error:
            ready.put(_Failure(error))

    thread = threading.Thread(target=produce, name="zarrgpu-prefetch", daemon=True)
    thread.start()
    try:
        for _ in items:
            result = ready.get()
            if isinstance(result, _Failure):
                raise result.error
            room.release()
            yield result
            del result  # or it would live on while the next is waited for
    finally:
        stop.set()
        room.release()
        thread.join()
