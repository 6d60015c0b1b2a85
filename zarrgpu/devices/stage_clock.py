"""How long a wave's stages take on the device: events between them, read when all are done."""

from __future__ import annotations

from zarrgpu.devices.driver import Driver, Stream

STAGES = ("copy", "decode", "gather")


class StageClock:
    """Events around the stages of one wave at a time; `start`, then `end_of` for each in order.

    Reading them waits for nothing: it is for when the wave is known to be done.

    Parameters
    ----------
    driver : Driver
    """

    def __init__(self, driver: Driver) -> None:
        self._events = [driver.create_event(timing=True) for _ in range(len(STAGES) + 1)]

    def start(self, stream: Stream) -> None:
        """Mark the start of the first stage."""
        self._events[0].record(stream)

    def end_of(self, stage: str, stream: Stream) -> None:
        """Mark the end of a stage, and the start of the next."""
        self._events[STAGES.index(stage) + 1].record(stream)

    def seconds(self) -> dict[str, float]:
        """Seconds of each stage of the wave that is done."""
        pairs = zip(STAGES, self._events, self._events[1:], strict=False)
        return {stage: end.elapsed_ms(start) / 1e3 for stage, start, end in pairs}
