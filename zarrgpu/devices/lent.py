"""Device memory in the hands of a consumer, who says on which streams it is used."""

from __future__ import annotations

from dataclasses import dataclass

from zarrgpu.devices.driver import DeviceMemory, Driver

DEFAULT_STREAM = 1
"""CUDA's and DLPack's number of the default stream."""

_UNORDERED = -1
"""DLPack's number for a consumer that sees to the order itself."""


@dataclass(frozen=True, slots=True, eq=False)
class Lent:
    """Memory of results that are made ahead of their use.

    It belongs to a stream on which nothing of the consumer's runs. So that it is not written anew
    under what the consumer still does with it, each stream that uses it is noted.
    """

    driver: Driver
    memory: DeviceMemory

    def to_current_stream(self) -> None:
        """Note that the stream uses it that is current here."""
        self.memory.record_stream(self.driver.current_stream())

    def to_stream(self, number: int | None) -> None:
        """Note that a stream uses it, by DLPack's number: None is the default stream.

        A stream of each thread (2) means another one where the memory is let go of on another
        thread: wait for it yourself.
        """
        if number != _UNORDERED:
            stream = self.driver.external_stream(DEFAULT_STREAM if number is None else number)
            self.memory.record_stream(stream)
