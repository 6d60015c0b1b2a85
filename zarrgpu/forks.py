"""Locks that a process may fork under.

A child has none of its parent's other threads, so a lock that one of them held stays locked there
for ever. What has such a lock is told of the fork, in the child, before anything else runs.
"""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet


class ForkAware(Protocol):
    """What is told of a fork; hashable, and weak references to it can be made."""

    def after_fork(self) -> None:
        """Run in the child: replace locks, and drop what a thread was in the middle of."""


_told: WeakSet[ForkAware] = WeakSet()


def tell_of_forks(owner: ForkAware) -> None:
    """Have `owner.after_fork` called in each child, as long as it lives."""
    _told.add(owner)


def _after_fork() -> None:
    for owner in list(_told):
        owner.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
