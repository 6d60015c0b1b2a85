"""Device memory that files are read into, and a stream of its own to look at what arrived.

Work of a wave waits for the caller's stream first. What arrived is looked at before that, and the
host waits for it, so it has its own stream.
"""

from __future__ import annotations

from zarrgpu.devices.cuda import Slot
from zarrgpu.devices.driver import DeviceMemory, Driver
from zarrgpu.devices.requests import FILE_ALIGNMENT

_GRANULE = 1 << 20


class Landing:
    """Where the chunks of one slot's waves arrive; the slot must be idle to use it.

    Parameters
    ----------
    driver : Driver

    Attributes
    ----------
    slot : Slot
        Stream, tables, and pinned memory for what goes back to the host.
    refused : set of int
        Numbers of file systems (``st_dev``) of which no file could be read directly.
    """

    def __init__(self, driver: Driver) -> None:
        self.slot = Slot(driver)
        self.refused: set[int] = set()
        self._driver = driver
        self._memory: DeviceMemory | None = None

    def room(self, nbytes: int) -> int:
        """Address of at least `nbytes`, a multiple of `FILE_ALIGNMENT`."""
        wanted = nbytes + FILE_ALIGNMENT
        if self._memory is None or self._memory.nbytes < wanted:
            self._memory = None  # give the old one back before asking for more
            rounded = -(-(wanted + wanted // 4) // _GRANULE) * _GRANULE
            self._memory = self._driver.allocate_landing(rounded)
        return self.address

    @property
    def address(self) -> int:
        """Address of the room that was asked for last."""
        assert self._memory is not None
        return -(-self._memory.ptr // FILE_ALIGNMENT) * FILE_ALIGNMENT


def landing_of(slot: Slot) -> Landing:
    """The landing of a slot, made if it has none."""
    if slot.landing is None:
        slot.landing = Landing(slot.driver)
    return slot.landing
