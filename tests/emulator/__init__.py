"""A CUDA device without a GPU: the same kernels, compiled by g++, on checked host memory."""

from tests.emulator.driver import EmulatedDriver
from tests.emulator.memory import EmulationError

__all__ = ["EmulatedDriver", "EmulationError"]
