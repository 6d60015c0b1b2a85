"""What nvJPEG and nvJPEG2000 have in common as libraries that are called through ctypes."""

from __future__ import annotations

import ctypes
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Final

from zarrgpu.devices.wheels import open_library
from zarrgpu.errors import DeviceUnavailableError, MemoryBudgetError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

STATUS_NAMES: Final[Mapping[int, str]] = MappingProxyType(
    {
        0: "success",
        1: "not initialized",
        2: "invalid parameter",
        3: "bad jpeg",
        4: "jpeg not supported",
        5: "allocator failure",
        6: "execution failed",
        7: "arch mismatch",
        8: "internal error",
        9: "implementation not supported",
    }
)
"""What ``nvjpegStatus_t`` and ``nvjpeg2kStatus_t`` both have."""

ALLOCATOR_FAILURE: Final = 5


class ImageLibrary:
    """A loaded library; its classes say which.

    Parameters
    ----------
    path : str
        Shared library, or its name for the system's loader.

    Raises
    ------
    DeviceUnavailableError
        If it does not load or lacks a function.
    """

    name: ClassVar[str]
    """Also what its functions begin with."""
    needed: ClassVar[str]
    """For people: the release that has all functions."""
    signatures: ClassVar[Mapping[str, tuple[type[ctypes._CDataType], ...]]]
    """Arguments of each function that is called; all give a status."""
    status_names: ClassVar[Mapping[int, str]] = STATUS_NAMES

    def __init__(self, path: str) -> None:
        self.path = path
        self._library = open_library(self.name, path)
        try:
            self._functions = {name: self._library[name] for name in self.signatures}
        except AttributeError as error:
            msg = f"{self.name}: {path} lacks a function ({error}); install {self.needed}"
            raise DeviceUnavailableError(msg) from error
        for name, function in self._functions.items():
            function.restype, function.argtypes = ctypes.c_int, self.signatures[name]
        self.version = (self._property(0), self._property(1))

    def _property(self, kind: int) -> int:
        value, name = ctypes.c_int(), f"{self.name}GetProperty"
        self.check(name, self.call(name, kind, ctypes.byref(value)))
        return value.value

    def call(self, name: str, *args: Any) -> int:
        """Call a function of `signatures`; return its status."""
        return int(self._functions[name](*args))

    def create(self, name: str, *args: Any) -> int:
        """Call a function that makes a handle; return that."""
        made = ctypes.c_void_p()
        self.check(name, self.call(name, *args, ctypes.byref(made)))
        return made.value or 0

    @classmethod
    def check(cls, what: str, status: int) -> None:
        """Raise for a status that is no image's fault."""
        if not status:
            return
        msg = f"{what}: {cls.status_names.get(status, f'status {status}')}"
        if status == ALLOCATOR_FAILURE:
            raise MemoryBudgetError(f"{msg}: out of memory; lower memory_budget_bytes")
        raise DeviceUnavailableError(msg)
