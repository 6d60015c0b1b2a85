"""CUDA does not survive a fork: what tells of it, instead of hanging."""

from __future__ import annotations

import os

from zarrgpu.errors import DeviceUnavailableError


class ForkGuard:
    """Refuses the use of CUDA in a process forked after CUDA was initialised, where it hangs.

    Parameters
    ----------
    what : str
        Names the device in the message.
    """

    __slots__ = ("_pid", "_what")

    def __init__(self, what: str) -> None:
        self._pid = os.getpid()
        self._what = what

    def check(self) -> None:
        """Raise `DeviceUnavailableError` in a process that is not the one of construction."""
        pid = os.getpid()
        if pid != self._pid:
            msg = (
                f"{self._what}: opened in process {self._pid}, used in its forked child {pid}, "
                "where CUDA does not work; start workers with 'spawn' or use threads"
            )
            raise DeviceUnavailableError(msg)
