"""Resampling a batch of images on the host: compiled where the library is there, else in NumPy.

Both give the same bytes. The compiled part (``kernels/host/resample.cpp``) sums up, adds the fill
value and rounds; casts and normalisation are `resampling.convert`'s.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from zarrgpu.devices.element_types import element_type
from zarrgpu.devices.host import available_cores, run_threads, scratch
from zarrgpu.devices.native import RESAMPLING, NativeLibrary, address, native_library
from zarrgpu.devices.tables import ElementType
from zarrgpu.model import ReadOptions
from zarrgpu.output import OutputFormat
from zarrgpu.resampling import ResampleBatch, convert, resample
from zarrgpu.symmetries import Turns

_COMPILED = (ElementType.I1, ElementType.U1, ElementType.I2, ElementType.U2, ElementType.F4)


def resample_on_host(
    batch: ResampleBatch,
    pixels: NDArray[Any],
    out: NDArray[Any],
    axes: tuple[int, int, int],
    output: OutputFormat,
    options: ReadOptions,
) -> None:
    """Resample images, an image a thread at a time.

    Parameters
    ----------
    batch : ResampleBatch
    pixels : array, shape (N, h, w, C)
        C-contiguous, native byte order.
    out : array, shape (M, ...)
    axes : (int, int, int)
        Which axes of `out` are y, x and the channels.
    output : OutputFormat
    options : ReadOptions
    """
    view = out.transpose(0, *axes)
    turns = output.turns
    views = [view] if turns is None else Turns(turns.symmetry, 0, 1).views(view)
    library = native_library() if options.native else None
    if element_type(pixels.dtype) not in _COMPILED:
        library = None

    def one(i: int) -> None:
        result = batch.result[i]
        target = views[0 if turns is None else int(turns.symmetry[result])][result]
        if library is not None:
            _compiled(library, batch, i, pixels[i], target, output)
            return
        tables = int(batch.row_table[i]), int(batch.column_table[i])
        resample(pixels[i], batch.rows, batch.columns, tables, target, output, batch.fill[i])

    run_threads(one, range(len(pixels)), options.num_threads or available_cores())


def _compiled(
    library: NativeLibrary,
    batch: ResampleBatch,
    image: int,
    pixels: NDArray[Any],
    out: NDArray[Any],
    output: OutputFormat,
) -> None:
    """Resample one image by the library."""
    plain = output.is_plain(pixels.dtype) or (output.scale is None and out.dtype == np.float32)
    made = out if plain else _room(out.shape)
    rows, columns = batch.rows, batch.columns
    y, x = batch.row_table[image], batch.column_table[image]
    row_first, row_weight = rows.first[y], rows.weight[y]
    column_first, column_weight = columns.first[x], columns.weight[x]
    (top, bottom), (left, right) = rows.inside[y].tolist(), columns.inside[x].tolist()
    _, width, channels = pixels.shape
    values = {
        "source": address(pixels),
        "source_type": int(element_type(pixels.dtype) or 0),
        "width": width,
        "channels": channels,
        "row_first": address(row_first),
        "row_weight": address(row_weight),
        "rows": len(row_first),
        "row_taps": row_weight.shape[1],
        "column_first": address(column_first),
        "column_weight": address(column_weight),
        "columns": len(column_first),
        "column_taps": column_weight.shape[1],
        "top": top,
        "bottom": bottom,
        "left": left,
        "right": right,
        "target": address(made),
        "stride_y": made.strides[0],
        "stride_x": made.strides[1],
        "stride_c": made.strides[2],
        "to_float": made.dtype == np.float32,
        "fill": int(batch.fill[image : image + 1].view(np.int32)[0]),
    }
    table = np.array([values[name] for name in RESAMPLING], np.int64)
    library.resample(address(table))
    if not plain:
        convert(made, out, output)


def _room(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Memory of this thread for the sums of an image."""
    memory = scratch("resampled", int(np.prod(shape)) * 4)
    return memory.view(np.float32).reshape(shape)
