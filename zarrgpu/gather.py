"""Placing decoded elements into the output, on the host."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zarrgpu.model import ByteArray
from zarrgpu.output import OutputFormat, quiet
from zarrgpu.plan.request import ReadRequest
from zarrgpu.plan.tables import PieceTable, ReadPlan
from zarrgpu.scatter import Scatter


class PieceSlices:
    """Index tuples of pieces, made in bulk: one by one they would cost more than the copies.

    Attributes
    ----------
    scatter : Scatter, or None
        Places pieces that are too many and too small for tuples; the lists are empty then.
    src : list of tuple
        Indexes a chunk.
    dst : list of tuple
        Indexes the output, shape (N, *count).
    channel : list of int, or None
        First channel of each piece, where the output is normalised by channel.
    """

    def __init__(self, pieces: PieceTable, request: ReadRequest, output: OutputFormat) -> None:
        self.dst: list[tuple[Any, ...]] = []
        self.src: list[tuple[Any, ...]] = []
        self.channel: list[int] | None = None
        self.scatter: Scatter | None = None
        self._turns = output.turns
        self._symmetry: list[int] = []
        if output.turns is not None:
            self._symmetry = output.turns.symmetry[pieces.output].tolist()
        elif output.scale is None:
            self.scatter = Scatter.where_it_pays(pieces, request.step)
        if self.scatter is None:
            self._make_tuples(pieces, request, output)

    def targets(self, out: NDArray[Any], rows: Iterable[int]) -> Iterator[NDArray[Any]]:
        """View of the output that each of the pieces `rows` is written to as it is."""
        if self._turns is None:
            yield from (out[self.dst[row]] for row in rows)
            return
        views = self._turns.views(out)
        yield from (views[self._symmetry[row]][self.dst[row]] for row in rows)

    def _make_tuples(self, pieces: PieceTable, request: ReadRequest, output: OutputFormat) -> None:
        depth = _significant_axes(pieces, request)
        dst_axes: list[Iterable[Any]] = [pieces.output.tolist()]
        src_axes: list[Iterable[Any]] = []
        for axis in range(depth):
            dst, src, extent = pieces.dst[axis], pieces.src[axis], pieces.extent[axis]
            step = request.step[axis]
            dst_axes.append(map(slice, dst.tolist(), (dst + extent).tolist()))
            stop = src + (extent - 1) * step + 1
            src_axes.append(map(slice, src.tolist(), stop.tolist(), [step] * len(pieces)))
        if not depth:  # keep a view of a zero-dimensional output
            dst_axes.append([...] * len(pieces))
        self.dst = list(zip(*dst_axes, strict=True))
        self.src = list(zip(*src_axes, strict=True)) if depth else [()] * len(pieces)
        if output.scale is not None and output.channel_axis is not None:
            self.channel = pieces.dst[output.channel_axis].tolist()


def _significant_axes(pieces: PieceTable, request: ReadRequest) -> int:
    """Leading axes that need slices; after them every piece takes whole chunks and boxes."""
    depth = len(request.count)
    while depth:
        axis = depth - 1
        whole_box = (pieces.extent[axis] == request.count[axis]).all()
        whole_chunk = all(spec.chunk_shape[axis] == request.count[axis] for spec in request.arrays)
        if not (whole_box and whole_chunk and request.step[axis] == 1):
            break
        depth -= 1
    return depth


def gather_pieces(
    chunk: NDArray[Any],
    rows: range,
    slices: PieceSlices,
    out: NDArray[Any],
    output: OutputFormat | None,
) -> None:
    """Write pieces `rows` of one chunk into `out`, shape (N, *count), array axes.

    `output` is None for a chunk that `convert_chunk` has converted.
    """
    if output is not None:
        chunk = output.readable(chunk)
    if slices.scatter is not None:
        slices.scatter.place(chunk, rows, out, fill=False)
        return
    targets = zip(rows, slices.targets(out, rows), strict=True)
    if output is None or output.scale is None:
        if chunk.dtype == out.dtype:
            for row, target in targets:
                target[...] = chunk[slices.src[row]]
            return
        with quiet():
            for row, target in targets:
                target[...] = chunk[slices.src[row]]
        return
    for row, target in targets:
        channel = slices.channel[row] if slices.channel is not None else 0
        output.write(chunk[slices.src[row]], target, channel)


def convert_chunk(
    chunk: NDArray[Any], memory: ByteArray, output: OutputFormat, order: Sequence[int], channel: int
) -> NDArray[Any]:
    """Convert a whole chunk at once, which pays when its pieces overlap.

    Parameters
    ----------
    chunk : array, array axes
    memory : uint8 array
        Room for ``chunk.size`` elements of the output type.
    output : OutputFormat
    order : sequence of int
        Array axes from slowest to fastest in the output, so that pieces are copied run by run.
    channel : int
        The result's channel of the chunk's first.

    Returns
    -------
    array, array axes, on `memory`
    """
    shape = [chunk.shape[axis] for axis in order]
    ordered = memory.view(output.dtype).reshape(shape)
    converted: NDArray[Any] = ordered.transpose(np.argsort(order))
    output.write(chunk, converted, channel)
    return converted


def gather_fills(
    fills: PieceTable, plan: ReadPlan, out: NDArray[Any], output: OutputFormat
) -> None:
    """Write the fill value of each piece's array, converted as data would be."""
    if not len(fills):
        return
    slices = PieceSlices(fills, plan.request, output)
    values = [spec.fill_scalar for spec in plan.arrays]
    if slices.scatter is not None:
        bounds = [0, *(np.flatnonzero(np.diff(fills.chunk)) + 1).tolist(), len(fills)]
        for rows in map(range, bounds, bounds[1:]):
            value = np.empty((), out.dtype)
            output.fill(values[int(fills.chunk[rows.start])], value, 0)
            slices.scatter.place(value, rows, out, fill=True)
        return
    targets = slices.targets(out, range(len(fills)))
    for row, (array, target) in enumerate(zip(fills.chunk.tolist(), targets, strict=True)):
        channel = slices.channel[row] if slices.channel is not None else 0
        output.fill(values[array], target, channel)
