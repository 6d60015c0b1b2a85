"""Doing work ahead of who consumes its results: one thread, a bounded number of results."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
Cancelled = Callable[[], bool]
"""Asked by work in progress: whether its result is not wanted any more."""


@dataclass(frozen=True, slots=True, eq=False)
class _Failure:
    error: BaseException


def _as_it_is(result: Any) -> Any:
    return result


def _nothing() -> None:
    pass


def read_ahead(
    work: Callable[[Item, Cancelled], Any],
    items: Sequence[Item],
    depth: int,
    finish: Callable[[Any], Result] = _as_it_is,
    at_end: Callable[[], None] = _nothing,
) -> Generator[Result, None, None]:
    """Generate ``finish(work(item))`` for all items, in order, worked on up to `depth` ahead.

    A thread does `work`; `finish` is the consumer's, when it asks for the result. By then the
    thread works on the next item: what work only starts goes on under it.

    Besides the result that the consumer has or finishes, at most `depth` are ready or being made.
    Closing the generator, by leaving the loop or by an exception in it, cancels the work in
    progress and waits for the thread to end; what was started then is not finished. What `work`
    raises is raised here, in its turn.

    Parameters
    ----------
    work : callable
        Gets an item and a function that says whether to give up.
    items : sequence
    depth : int
        0 makes every result when it is asked for, without a thread.
    finish : callable, optional
        Gets what `work` returned; by default that is the result.
    at_end : callable, optional
        Called once nothing is worked on any more, however it ended.
    """
    if depth == 0 or not items:
        try:
            for item in items:
                yield finish(work(item, bool))  # bool() is False: never cancelled
        finally:
            at_end()
        return
    ready: queue.SimpleQueue[Any] = queue.SimpleQueue()
    room = threading.Semaphore(depth)
    stop = threading.Event()
    left: list[Callable[[], None]] = []

    def produce() -> None:
        try:
            for item in items:
                room.acquire()
                if stop.is_set():
                    return
                ready.put(work(item, stop.is_set))
        except BaseException as error:
            ready.put(_Failure(error))
        finally:
            for action in left:
                action()

    thread = threading.Thread(target=produce, name="zarrgpu-prefetch", daemon=True)
    thread.start()
    try:
        for _ in items:
            started = ready.get()
            if isinstance(started, _Failure):
                raise started.error
            room.release()
            result = finish(started)
            del started
            yield result
            del result  # or it would live on while the next is waited for
    finally:
        stop.set()
        room.release()
        if thread is threading.current_thread():  # the garbage collector came by while it worked
            left.append(at_end)
        else:
            thread.join()
            at_end()
