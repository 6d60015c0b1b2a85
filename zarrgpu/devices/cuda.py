"""A CUDA device: a driver and the memory that reads on it reuse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, eq=False)
class CudaDevice:
    """One GPU behind a driver.

    Attributes
    ----------
    driver : Driver
    """

    driver: Any

    @property
    def name(self) -> str:
        """As users write it, such as ``cuda:0``."""
        return str(self.driver.name)
