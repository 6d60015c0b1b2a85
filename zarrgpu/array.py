"""`Array`: one Zarr array, or one level of a slide, read by selection or by patches."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from zarrgpu import reader
from zarrgpu.array_indexers import ArrayIndexers
from zarrgpu.chunk_cache import ChunkCache
from zarrgpu.devices.resolve import DeviceLike
from zarrgpu.errors import SelectionError
from zarrgpu.fetch import ArraySource
from zarrgpu.model import ReadOptions, native_dtype
from zarrgpu.output import output_format
from zarrgpu.plan.request import ReadRequest
from zarrgpu.selection_reads import (
    ExplainedPlan,
    check_out_shape,
    plan_request,
    plan_selection,
    read_selection,
)
from zarrgpu.selections import pop_fields, resolve
from zarrgpu.stats import ReadStats
from zarrgpu.stores.base import read_stored

_FAR = 1 << 62
"""Further from the origin than any array or patch reaches."""


class Array(ArrayIndexers):
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
        """Elements of a chunk (the inner chunk of a shard); the largest, if they differ."""
        return self.source.spec.chunk_shape

    @property
    def shards(self) -> tuple[int, ...] | None:
        """Elements of a shard, or None."""
        return self.source.spec.shard_shape

    @property
    def read_chunk_sizes(self) -> tuple[tuple[int, ...], ...]:
        """Elements of every chunk along each axis, cut at the end of the array, as dask has them.

        zarr-python's name; `chunks` says the same for a regular grid.
        """
        spec = self.source.spec
        counts = zip(spec.grid_shape, spec.shape, strict=True)
        ends = [
            np.minimum(spec.chunk_start(axis, np.arange(n + 1)), size)
            for axis, (n, size) in enumerate(counts)
        ]
        return tuple(tuple(np.diff(end).tolist()) for end in ends)

    @property
    def cache(self) -> ChunkCache | None:
        """Where decoded chunks are kept between reads, if anywhere."""
        return self.source.cache

    @property
    def attrs(self) -> Mapping[str, Any]:
        """User attributes."""
        return self.source.spec.attributes

    @property
    def icc_profile(self) -> bytes | None:
        """ICC profile of a TIFF's page or a DICOM image that carries one; read when asked for."""
        profile = self.source.spec.icc_profile
        return None if profile is None else read_stored(self.source.store, profile)

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
        """Read a selection onto the default device: CuPy with a GPU, else NumPy."""
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
        stats: ReadStats | None = None,
    ) -> Any:
        """Read one selection.

        Parameters
        ----------
        selection : selection
            As between zarr-python's brackets: integers, slices with steps of at least 1, one
            ellipsis; a mask, or integer arrays for all axes, for points (`vindex`); one list of
            integers or booleans beside slices and integers, or lists for all axes (`oindex`);
            names of fields.
        device : None, str or Device
            See `devices.resolve.resolve_device`.
        dtype : dtype, optional
            float16, bfloat16 (ml_dtypes', also by name), float32 or float64 to convert to, or an
            integer type that holds every stored one; default the stored type.
        out : array, optional
            C-contiguous array of the device to read into.
            On CUDA it is written to after what CuPy's current stream was given so far: wait
            yourself for other streams that use it.
        options : ReadOptions, optional
        stats : ReadStats, optional
            What the read has cost is added to it.

        Returns
        -------
        array of the device, with the shape that zarr-python would give

        Raises
        ------
        SelectionError, DataError, DeviceUnavailableError
        """
        fields, rest = pop_fields(selection)
        return read_selection(
            self.source,
            resolve(rest, self.source.spec),
            fields=fields,
            device=device,
            dtype=dtype,
            out=out,
            options=options,
            stats=stats,
        )

    def read_patches(
        self,
        starts: ArrayLike,
        shape: tuple[int, ...],
        *,
        device: DeviceLike = None,
        dtype: DTypeLike | None = None,
        out: Any = None,
        options: ReadOptions | None = None,
        stats: ReadStats | None = None,
    ) -> Any:
        """Read N boxes of one shape in one plan: each chunk is fetched and decoded once.

        Parameters
        ----------
        starts : int array, shape (N, ndim)
            First element of each box, array axes. What lies outside of the array is filled with
            the fill value.
        shape : tuple of int
            Elements of a box.
        device, dtype, out, options, stats
            As for `read`.

        Returns
        -------
        array of the device, shape (N, *shape)
        """
        request = self._patch_request(starts, shape)
        check_out_shape(out, request.output_shape)
        result, _ = reader.read(
            (self.source,),
            request,
            output=output_format(self.spec.dtype, dtype=dtype),
            device=device,
            out=out,
            options=options,
            stats=stats,
        )
        return out if out is not None else result

    def plan(self, selection: Any = ..., *, device: DeviceLike = None) -> ExplainedPlan:
        """Plan a read of one selection without doing it; `explain` says what it would do."""
        _, rest = pop_fields(selection)
        return plan_selection(self.source, resolve(rest, self.source.spec), device=device)

    def plan_patches(
        self, starts: ArrayLike, shape: tuple[int, ...], *, device: DeviceLike = None
    ) -> ExplainedPlan:
        """Plan a `read_patches` without doing it."""
        return plan_request(self.source, self._patch_request(starts, shape), device=device)

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
        return ReadRequest(
            arrays=(self.source.spec,),
            array_index=np.zeros(len(near), np.int32),
            start=near.astype(np.int64),
            count=count,
            step=(1,) * self.ndim,
        )
