"""`Array`: one Zarr array, or one level of a slide, read by selection or by patches."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from zarrgpu import reader
from zarrgpu.devices.resolve import DeviceLike
from zarrgpu.errors import SelectionError
from zarrgpu.fetch import ArraySource
from zarrgpu.indexing import normalise_selection
from zarrgpu.model import ReadOptions, native_dtype
from zarrgpu.output import OutputFormat, output_format
from zarrgpu.plan.request import ReadRequest
from zarrgpu.plan.tables import ReadPlan

_FAR = 1 << 62
"""Further from the origin than any array or patch reaches."""


class ExplainedPlan:
    """A plan together with what is needed to say where it will run.

    Attributes
    ----------
    plan : ReadPlan
    """

    def __init__(
        self,
        plan: ReadPlan,
        sources: tuple[ArraySource, ...],
        output: OutputFormat,
        device: DeviceLike,
    ) -> None:
        self.plan = plan
        self._sources = sources
        self._output = output
        self._device = device

    def explain(self) -> str:
        """Text: bytes to fetch, chunks to decode, pieces to place, and where each step runs."""
        return reader.explain_read(
            self.plan, self._sources, self._output, self._device, ReadOptions()
        )

    def __repr__(self) -> str:
        return self.explain()


class Array:
    """A chunked N-dimensional array; reading it needs no more than its metadata in memory.

    Names follow zarr-python. Axes are in C order. Made by `zarrgpu.open`; may be pickled and shared
    between threads.

    Parameters
    ----------
    source : ArraySource
    path : str
        Within the hierarchy it was opened from.
    """

    def __init__(self, source: ArraySource, path: str = "") -> None:
        self.source = source
        self.path = path

    def __repr__(self) -> str:
        return f"<zarrgpu.Array {self.spec.source!r} shape={self.shape} dtype={self.dtype}>"

    @property
    def spec(self) -> Any:
        """The `ArraySpec` that planners see."""
        return self.source.spec

    @property
    def shape(self) -> tuple[int, ...]:
        """Elements per axis."""
        return self.source.spec.shape

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.source.spec.ndim

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type in native byte order, as reads return it."""
        return native_dtype(self.source.spec.dtype)

    @property
    def chunks(self) -> tuple[int, ...]:
        """Elements of a chunk (the inner chunk of a shard)."""
        return self.source.spec.chunk_shape

    @property
    def shards(self) -> tuple[int, ...] | None:
        """Elements of a shard, or None."""
        return self.source.spec.shard_shape

    @property
    def attrs(self) -> Mapping[str, Any]:
        """User attributes."""
        return self.source.spec.attributes

    @property
    def fill_value(self) -> Any:
        """Value of elements that are not stored; None if undefined (read as zero)."""
        return self.source.spec.fill_value

    @property
    def dimension_names(self) -> tuple[str | None, ...]:
        """Name of each axis, where it has one."""
        return self.source.spec.dimension_names

    @property
    def codecs(self) -> tuple[str, ...]:
        """Names of the bytes codecs, in encoding order."""
        return tuple(codec.name for codec in self.source.chain.codecs)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Decoded size in bytes."""
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        if not self.shape:
            msg = "len() of a zero-dimensional array"
            raise TypeError(msg)
        return self.shape[0]

    def __getitem__(self, selection: Any) -> Any:
        """Read a basic selection onto the default device: CuPy with a GPU, else NumPy."""
        return self.read(selection)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:  # noqa: FBT001
        """Whole array as NumPy."""
        if copy is False:
            msg = "reading a stored array always makes a copy"
            raise ValueError(msg)
        whole: NDArray[Any] = self.read(..., device="cpu")
        return whole if dtype is None else whole.astype(dtype)

    def read(
        self,
        selection: Any = ...,
        *,
        device: DeviceLike = None,
        dtype: DTypeLike | None = None,
        out: Any = None,
        options: ReadOptions | None = None,
    ) -> Any:
        """Read one selection.

        Parameters
        ----------
        selection : basic selection
            Integers, slices with steps of at least 1, one ellipsis.
        device : None, str or Device
            See `devices.resolve.resolve_device`.
        dtype : dtype, optional
            float16, float32 or float64 to convert to; default the stored type.
        out : array, optional
            C-contiguous array of the device to read into.
        options : ReadOptions, optional

        Returns
        -------
        array of the device, with the shape that NumPy would give

        Raises
        ------
        SelectionError, DataError, DeviceUnavailableError
        """
        box = normalise_selection(selection, self.shape, source=self.spec.source)
        output = output_format(self.spec.dtype, dtype=dtype)
        _check_out_shape(out, box.result_shape)
        result, _ = reader.read(
            (self.source,),
            self._request(np.array([box.start], np.int64), box.count, box.step),
            output=output,
            device=device,
            out=out,
            options=options,
        )
        return out if out is not None else result.reshape(box.result_shape)

    def read_patches(
        self,
        starts: ArrayLike,
        shape: tuple[int, ...],
        *,
        device: DeviceLike = None,
        dtype: DTypeLike | None = None,
        out: Any = None,
        options: ReadOptions | None = None,
    ) -> Any:
        """Read N boxes of one shape in one plan: each chunk is fetched and decoded once.

        Parameters
        ----------
        starts : int array, shape (N, ndim)
            First element of each box, array axes. What lies outside of the array is filled with
            the fill value.
        shape : tuple of int
            Elements of a box.
        device, dtype, out, options
            As for `read`.

        Returns
        -------
        array of the device, shape (N, *shape)
        """
        request = self._patch_request(starts, shape)
        _check_out_shape(out, request.output_shape)
        result, _ = reader.read(
            (self.source,),
            request,
            output=output_format(self.spec.dtype, dtype=dtype),
            device=device,
            out=out,
            options=options,
        )
        return out if out is not None else result

    def plan(self, selection: Any = ..., *, device: DeviceLike = None) -> ExplainedPlan:
        """Plan a read of one selection without doing it; `explain` says what it would do."""
        box = normalise_selection(selection, self.shape, source=self.spec.source)
        request = self._request(np.array([box.start], np.int64), box.count, box.step)
        return self._explained(request, device)

    def plan_patches(
        self, starts: ArrayLike, shape: tuple[int, ...], *, device: DeviceLike = None
    ) -> ExplainedPlan:
        """Plan a `read_patches` without doing it."""
        return self._explained(self._patch_request(starts, shape), device)

    def _explained(self, request: ReadRequest, device: DeviceLike) -> ExplainedPlan:
        plan = reader.plan_read(
            (self.source,), request, options=ReadOptions(), allow_direct=self.spec.dtype.isnative
        )
        return ExplainedPlan(plan, (self.source,), output_format(self.spec.dtype), device)

    def _patch_request(self, starts: ArrayLike, shape: tuple[int, ...]) -> ReadRequest:
        try:
            start = np.asarray(starts)
            count = tuple(operator.index(n) for n in shape)
        except (TypeError, ValueError) as error:
            msg = f"{self.spec.source!r}: starts and shape must be integers: {error}"
            raise SelectionError(msg) from error
        if start.ndim != 2 or start.shape[1] != self.ndim or start.dtype.kind not in "iu":
            msg = (
                f"{self.spec.source!r}: starts must be integers of shape (N, {self.ndim}), "
                f"got shape {start.shape} of {start.dtype}"
            )
            raise SelectionError(msg)
        # unsigned starts beyond int64 stay beyond the array, and far ones clear of overflow
        near = np.clip(start, -_FAR if start.dtype.kind == "i" else 0, _FAR)
        return self._request(near.astype(np.int64), count, (1,) * self.ndim)

    def _request(
        self, start: NDArray[np.int64], count: tuple[int, ...], step: tuple[int, ...]
    ) -> ReadRequest:
        return ReadRequest(
            arrays=(self.source.spec,),
            array_index=np.zeros(len(start), np.int32),
            start=start,
            count=count,
            step=step,
        )


def _check_out_shape(out: Any, shape: tuple[int, ...]) -> None:
    if out is not None and getattr(out, "shape", None) != shape:
        got = getattr(out, "shape", type(out).__name__)
        msg = f"out must be an array of shape {shape}, got {got}"
        raise SelectionError(msg)
