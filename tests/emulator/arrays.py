"""Arrays of the emulated device: NumPy's, with CuPy's way to hand them to another library."""

from __future__ import annotations

from typing import Any

import numpy as np


class EmulatedArray(np.ndarray):
    """A NumPy array whose `__dlpack__` takes a stream, which waits for the current one."""

    driver: Any = None

    def __array_finalize__(self, other: Any) -> None:
        self.driver = getattr(other, "driver", None)

    def __dlpack__(self, *, stream: int | None = None, **how: Any) -> Any:
        if stream != -1 and self.driver is not None:
            user = self.driver.external_stream(1 if stream is None else stream)
            event = self.driver.create_event()
            event.record(self.driver.current_stream())
            user.wait(event)
        return super().__dlpack__(**how)
