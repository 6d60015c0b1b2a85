"""Where a read on a CUDA device puts its result: new memory, or the caller's `out`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zarrgpu.devices.driver import DeviceMemory, Driver, PinnedMemory, Stream
from zarrgpu.errors import SelectionError
from zarrgpu.gather_tables import Target
from zarrgpu.output import OutputFormat


class Delivery:
    """The result's memory and the normalisation tables, ready for other streams to use.

    Parameters
    ----------
    driver, shape, order, output, out
        As for `cuda_engine.start`.
    stream : Stream
        That the result's memory belongs to: what is freed there is not handed out again before the
        work that was queued there is done.

    Attributes
    ----------
    result : array of the device
    memory : DeviceMemory or None
        Of the result; None for a caller's own.
    ready : Event
        Other streams wait for it before they write to the result.
    target : Target
    """

    def __init__(
        self,
        driver: Driver,
        shape: tuple[int, ...],
        order: tuple[int, ...],
        output: OutputFormat,
        out: Any,
        stream: Stream,
    ) -> None:
        nbytes = math.prod(shape) * output.dtype.itemsize
        self.memory: DeviceMemory | None = None
        if out is None:
            self.memory = driver.allocate(nbytes, stream)
            self.result = driver.to_array(self.memory, 0, shape, output.dtype)
            ptr = self.memory.ptr
        else:
            view = driver.view_array(out)
            _check_out(view.shape, view.strides, view.dtype, shape, output.dtype)
            self.result, ptr = view.array.reshape(shape), view.ptr
        self._tables: list[tuple[DeviceMemory, PinnedMemory]] = []
        # a result without elements is delivered before a copy would be done
        used = (output.scale, output.offset) if nbytes else (None, None)
        scale, offset = (self._upload(driver, values, stream) for values in used)
        self.ready = driver.create_event()
        self.ready.record(stream)
        strides = _element_strides(shape)
        by_axis = {axis: strides[1 + place] for place, axis in enumerate(order)}
        self.target = Target(
            ptr=ptr,
            nbytes=nbytes,
            strides=(strides[0], *(by_axis[axis] for axis in range(len(order)))),
            scale=scale,
            offset=offset,
        )

    def _upload(self, driver: Driver, values: NDArray[np.float32] | None, stream: Any) -> int:
        if values is None:
            return 0
        pinned = driver.allocate_pinned(values.nbytes)
        pinned.array.view(np.float32)[:] = values
        memory = driver.allocate(values.nbytes, stream)
        driver.copy_to_device(memory.ptr, pinned.ptr, values.nbytes, stream)
        self._tables.append((memory, pinned))  # alive until the read is done
        return memory.ptr


def _check_out(
    got_shape: tuple[int, ...],
    got_strides: tuple[int, ...],
    got_dtype: np.dtype[Any],
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
) -> None:
    contiguous = tuple(n * dtype.itemsize for n in _element_strides(got_shape))
    # axes of one element, and arrays of none, may have any strides
    used = [n > 1 and 0 not in got_shape for n in got_shape]
    strided = [s for s, counts in zip(got_strides, used, strict=True) if counts]
    expected = [s for s, counts in zip(contiguous, used, strict=True) if counts]
    if got_dtype != dtype or math.prod(got_shape) != math.prod(shape) or strided != expected:
        msg = (
            f"out must be a C-contiguous array of shape {shape} and type {dtype}, "
            f"got shape {got_shape}, strides {got_strides} and type {got_dtype}"
        )
        raise SelectionError(msg)


def _element_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))
