"""`a.oindex`, `a.vindex`, `a.blocks` and the ``get_*_selection`` methods: zarr-python's names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numpy.typing import DTypeLike

from zarrgpu.devices.resolve import DeviceLike
from zarrgpu.fetch import ArraySource
from zarrgpu.model import ArraySpec, ReadOptions
from zarrgpu.selection_reads import ExplainedPlan, plan_selection, read_selection
from zarrgpu.selections import (
    Fields,
    Selection,
    pop_fields,
    resolve_basic,
    resolve_blocks,
    resolve_coordinates,
    resolve_mask,
    resolve_orthogonal,
    resolve_vindex,
)


@dataclass(frozen=True, slots=True)
class Indexer:
    """One way to select from an array, by brackets.

    Attributes
    ----------
    source : ArraySource
    resolve : callable
        Gives what brackets mean, without fields.
    """

    source: ArraySource
    resolve: Callable[[Any, ArraySpec], Selection]

    def __getitem__(self, selection: Any) -> Any:
        """Read onto the default device: CuPy with a GPU, else NumPy."""
        return self.read(selection)

    def read(
        self,
        selection: Any,
        *,
        device: DeviceLike = None,
        dtype: DTypeLike | None = None,
        out: Any = None,
        options: ReadOptions | None = None,
    ) -> Any:
        """Read one selection; parameters as for `Array.read`."""
        fields, rest = pop_fields(selection)
        return read_selection(
            self.source,
            self.resolve(rest, self.source.spec),
            fields=fields,
            device=device,
            dtype=dtype,
            out=out,
            options=options,
        )

    def plan(self, selection: Any, *, device: DeviceLike = None) -> ExplainedPlan:
        """Plan a read without doing it; `explain` says what it would do."""
        _, rest = pop_fields(selection)
        return plan_selection(self.source, self.resolve(rest, self.source.spec), device=device)


class ArrayIndexers:
    """Selections of an array by kind; `Array` inherits them.

    All methods give an array of the device in the shape that zarr-python gives (an array of no axes
    where that gives a scalar), and take:

    out : array, optional
        C-contiguous array of the device to read into.
        On CUDA it is written to after what CuPy's current stream was given so far: wait
        yourself for other streams that use it.
    fields : str or list of str, optional
        Of a structured type: one gives its elements, a list a structured array of these alone.
    device, dtype, options
        As for `Array.read`.

    They raise `SelectionError`, an `IndexError`, for what zarr-python refuses.
    """

    source: ArraySource

    @property
    def oindex(self) -> Indexer:
        """Orthogonal selections: per axis an integer, a slice, a list of integers or a mask."""
        return Indexer(self.source, resolve_orthogonal)

    @property
    def vindex(self) -> Indexer:
        """Points: integer arrays for all axes, broadcast against each other, or one mask."""
        return Indexer(self.source, resolve_vindex)

    @property
    def blocks(self) -> Indexer:
        """Whole chunks (shards of a sharded array) by integers and slices; axes are kept."""
        return Indexer(self.source, resolve_blocks)

    def get_basic_selection(
        self, selection: Any = ..., *, out: Any = None, fields: Fields | None = None, **how: Any
    ) -> Any:
        """Read integers, slices with steps of at least 1 and one ellipsis."""
        return self._get(resolve_basic, selection, out, fields, how)

    def get_orthogonal_selection(
        self, selection: Any, *, out: Any = None, fields: Fields | None = None, **how: Any
    ) -> Any:
        """Read the product of what each axis selects: integers, slices, lists or masks."""
        return self._get(resolve_orthogonal, selection, out, fields, how)

    def get_coordinate_selection(
        self, selection: Any, *, out: Any = None, fields: Fields | None = None, **how: Any
    ) -> Any:
        """Read points: an integer or integer array for each axis, broadcast."""
        return self._get(resolve_coordinates, selection, out, fields, how)

    def get_mask_selection(
        self, mask: Any, *, out: Any = None, fields: Fields | None = None, **how: Any
    ) -> Any:
        """Read the elements where a mask of the array's shape is true, in C order."""
        return self._get(resolve_mask, mask, out, fields, how)

    def get_block_selection(
        self, selection: Any, *, out: Any = None, fields: Fields | None = None, **how: Any
    ) -> Any:
        """Read whole chunks (shards of a sharded array) by their place in the grid."""
        return self._get(resolve_blocks, selection, out, fields, how)

    def _get(
        self,
        resolve: Callable[[Any, ArraySpec], Selection],
        selection: Any,
        out: Any,
        fields: Fields | None,
        how: dict[str, Any],
    ) -> Any:
        resolved = resolve(selection, self.source.spec)
        return read_selection(self.source, resolved, out=out, fields=fields, **how)
