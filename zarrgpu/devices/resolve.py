"""From what a user calls a device to the device itself."""

from __future__ import annotations

import re
from functools import cache
from typing import TypeAlias

from zarrgpu.devices.cuda import CudaDevice
from zarrgpu.devices.host import HostDevice
from zarrgpu.errors import DeviceUnavailableError

Device: TypeAlias = HostDevice | CudaDevice
DeviceLike: TypeAlias = str | Device | None

HOST = HostDevice()


def resolve_device(device: DeviceLike) -> Device:
    """Find the device that a caller means.

    Parameters
    ----------
    device : None, str or Device
        None or ``"auto"``: the current CUDA device if one works, else the CPU. ``"cpu"``;
        ``"cuda"`` (the current one) or ``"cuda:1"``.

    Raises
    ------
    DeviceUnavailableError
        If CUDA is asked for and does not work here, with the reason and what to install.
    """
    if isinstance(device, (HostDevice, CudaDevice)):
        return device
    if device is None or device == "auto":
        return HOST if cuda_problem() else _cuda(None)
    if device == "cpu":
        return HOST
    match = re.fullmatch(r"cuda(?::(\d+))?", str(device))
    if match is None:
        msg = f"device {device!r} is not known, expected auto, cpu, cuda or cuda:N"
        raise DeviceUnavailableError(msg)
    problem = cuda_problem()
    if problem:
        msg = f"device {device!r} is not available: {problem}; use device='cpu'"
        raise DeviceUnavailableError(msg)
    return _cuda(int(match[1]) if match[1] else None)


@cache
def cuda_problem() -> str:
    """Why CUDA cannot be used here; empty if it can."""
    from zarrgpu.devices.cupy_driver import find_problem

    return find_problem()


def _cuda(index: int | None) -> CudaDevice:
    from zarrgpu.devices.cupy_driver import current_device_index

    return _cuda_device(current_device_index() if index is None else index)


@cache
def _cuda_device(index: int) -> CudaDevice:
    from zarrgpu.devices.cupy_driver import CupyDriver

    return CudaDevice(CupyDriver(index))
