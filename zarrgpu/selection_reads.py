"""Reading and planning one selection of one array, whatever its kind.

A box is one request of the planner, which cuts it itself. Lists and points, and boxes of more
pieces than one plan may have, come in cuts: all of them write into the same result.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from zarrgpu import reader
from zarrgpu.devices.cuda import CudaDevice
from zarrgpu.devices.resolve import DeviceLike, resolve_device
from zarrgpu.errors import MemoryBudgetError, SelectionError
from zarrgpu.fetch import ArraySource
from zarrgpu.indexing import Box
from zarrgpu.model import ArraySpec, ReadOptions, is_native
from zarrgpu.output import OutputFormat, output_format
from zarrgpu.plan.cuts import Cut, count_crossed, orthogonal_cuts, point_cuts
from zarrgpu.plan.request import ReadRequest
from zarrgpu.plan.tables import ReadPlan
from zarrgpu.plan.touches import MAX_PIECES
from zarrgpu.read_explanation import explain_read
from zarrgpu.selections import Fields, Orthogonal, Points, Selection, check_fields
from zarrgpu.stats import ReadStats

MAX_CHUNKS = 1 << 26
"""Of one read: more are a mistake, or an array that claims to be what it is not."""


class ExplainedPlan:
    """A plan together with what is needed to say where it will run.

    Attributes
    ----------
    plan : ReadPlan
    is_part : bool
        Whether it is the first of several plans, because the selection has too many pieces for one.
    """

    def __init__(
        self,
        plan: ReadPlan,
        sources: tuple[ArraySource, ...],
        output: OutputFormat,
        device: DeviceLike,
        *,
        is_part: bool = False,
    ) -> None:
        self.plan = plan
        self.is_part = is_part
        self._sources = sources
        self._output = output
        self._device = device

    def explain(self) -> str:
        """Text: bytes to fetch, chunks to decode, pieces to place, and where each step runs."""
        text = explain_read(self.plan, self._sources, self._output, self._device, ReadOptions())
        return (
            f"{text}\n  first of several plans: too many pieces for one" if self.is_part else text
        )

    def __repr__(self) -> str:
        return self.explain()


def read_selection(
    source: ArraySource,
    selection: Selection,
    *,
    fields: Fields | None = None,
    device: DeviceLike = None,
    dtype: DTypeLike | None = None,
    out: Any = None,
    options: ReadOptions | None = None,
    stats: ReadStats | None = None,
) -> Any:
    """Read a resolved selection.

    Parameters
    ----------
    source : ArraySource
    selection : Selection
    fields : str or list of str, optional
        Of a structured type: one gives its elements, a list a structured array of these alone.
    device, dtype, out, options, stats
        As for `Array.read`.

    Returns
    -------
    array of the device, or `out`
    """
    spec = source.spec
    names = check_fields(fields, spec.dtype, spec.source)
    if names is not None:
        whole = read_selection(source, selection, device=device, options=options, stats=stats)
        return _deliver_fields(whole, names, dtype, out)
    check_out_shape(out, selection.result_shape)
    request, cuts = _request_and_cuts(spec, selection)
    output = output_format(spec.dtype, dtype=dtype)
    result = out
    for cut in cuts:
        result, _ = reader.read(
            (source,),
            request,
            output=output,
            device=device,
            out=result,
            options=options,
            stats=stats,
            cut=cut,
        )
    return out if out is not None else result.reshape(selection.result_shape)


def plan_selection(
    source: ArraySource, selection: Selection, *, device: DeviceLike = None
) -> ExplainedPlan:
    """Plan a read of a resolved selection; of one that takes several plans, the first."""
    request, cuts = _request_and_cuts(source.spec, selection)
    first, others = next(cuts), next(cuts, None)
    return plan_request(source, request, device=device, cut=first, is_part=others is not None)


def plan_request(
    source: ArraySource,
    request: ReadRequest,
    *,
    device: DeviceLike,
    cut: Cut | None = None,
    is_part: bool = False,
) -> ExplainedPlan:
    """Plan a request of one array without carrying it out."""
    plan = reader.plan_read(
        (source,),
        request,
        options=ReadOptions(),
        allow_direct=is_native(source.spec.dtype),
        narrow=not isinstance(resolve_device(device), CudaDevice),
        cut=cut,
    )
    output = output_format(source.spec.dtype)
    return ExplainedPlan(plan, (source,), output, device, is_part=is_part)


def check_out_shape(out: Any, shape: tuple[int, ...]) -> None:
    """Refuse an `out` of another shape."""
    if out is not None and getattr(out, "shape", None) != shape:
        got = getattr(out, "shape", type(out).__name__)
        msg = f"out must be an array of shape {shape}, got {got}"
        raise SelectionError(msg)


def _request_and_cuts(
    spec: ArraySpec, selection: Selection
) -> tuple[ReadRequest, Iterator[Cut | None]]:
    """What the result is, and its pieces in one or more cuts; None lets the planner cut."""
    if isinstance(selection, Points):
        ones = (1,) * spec.ndim
        return _request(spec, selection.index.T, ones, ones), point_cuts(spec, selection.index)
    box = selection.box if isinstance(selection, Orthogonal) else selection
    request = _request(spec, np.array([box.start], np.int64), box.count, box.step)
    if isinstance(selection, Box):
        crossed = _num_crossed(spec, selection)
        if crossed > MAX_CHUNKS:
            msg = (
                f"{spec.source!r}: the selection crosses {crossed} chunks of "
                f"{list(spec.chunk_shape)}, at most {MAX_CHUNKS} are read in one call"
            )
            raise MemoryBudgetError(msg)
        if crossed <= MAX_PIECES:
            return request, iter([None])
    indices = selection.indices if isinstance(selection, Orthogonal) else (None,) * spec.ndim
    return request, orthogonal_cuts(spec, box.start, box.count, box.step, indices)


def _num_crossed(spec: ArraySpec, box: Box) -> int:
    """Chunks within the bounds of a box."""
    axes = zip(box.start, box.count, box.step, strict=True)
    return math.prod(count_crossed(spec, axis, *where) for axis, where in enumerate(axes))


def _request(
    spec: ArraySpec, start: Any, count: tuple[int, ...], step: tuple[int, ...]
) -> ReadRequest:
    return ReadRequest(
        arrays=(spec,),
        array_index=np.zeros(len(start), np.int32),
        start=start,
        count=count,
        step=step,
    )


def _deliver_fields(whole: Any, fields: Fields, dtype: DTypeLike | None, out: Any) -> Any:
    """Copy fields out of structured elements, converted or into `out` where asked for."""
    if isinstance(fields, str):
        chosen = whole[fields]
        output = output_format(chosen.dtype, dtype=dtype)
        result = np.empty(chosen.shape, output.dtype)
        output.write(chosen, result, 0)
    else:
        packed = np.dtype([(name, whole.dtype[name]) for name in fields])
        output_format(packed, dtype=dtype)  # refuses another type
        result = np.empty(whole.shape, packed)
        for name in fields:
            result[name] = whole[name]
    if out is None:
        return result
    check_out_shape(out, result.shape)
    if getattr(out, "dtype", None) != result.dtype or not isinstance(out, np.ndarray):
        msg = f"out must be a NumPy array of type {result.dtype}, got {getattr(out, 'dtype', out)}"
        raise SelectionError(msg)
    out[...] = result
    return out
