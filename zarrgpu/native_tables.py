"""A plan as the compiled executor reads it: tables of numbers, and of addresses of its columns.

The names and their order are those of ``kernels/host`` (`devices.native.PLAN`, `ARRAY`, `IMAGE`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from zarrgpu.devices.native import (
    ARRAY,
    CODEC_NUMBERS,
    IMAGE,
    IMAGE_CODECS,
    PLAN,
    SOURCE_TYPES,
    TARGET_TYPES,
    address,
)
from zarrgpu.fetch import ArraySource, encoded_limit
from zarrgpu.model import ObjectPerChunk
from zarrgpu.native_images import image_values, shared_reads
from zarrgpu.native_rooms import Rooms
from zarrgpu.native_support import (
    codec_names,
    has_one_fill,
    is_plain,
    swapped_nbytes,
    type_name,
)
from zarrgpu.output import OutputFormat
from zarrgpu.plan.tables import Int64s, PieceTable, ReadPlan
from zarrgpu.symmetries import NUM_SYMMETRIES

_CACHED_NBYTES = 4 << 20
"""Of a result that the caches of a core may still hold when it is used."""


class NativeTables:
    """Makes the tables of one execution, and keeps what they point to: it must outlive their use.

    Parameters
    ----------
    plan : ReadPlan
    sources : tuple of ArraySource
    out : array, shape (N, *count), axes in array order
    output : OutputFormat
    """

    def __init__(
        self,
        plan: ReadPlan,
        sources: tuple[ArraySource, ...],
        out: NDArray[Any],
        output: OutputFormat,
    ) -> None:
        self._plan, self._sources, self._out, self._output = plan, sources, out, output
        self._pointed: list[Any] = []

    def make(
        self,
        names: bytes,
        places: Int64s,
        roots: list[bytes | None],
        known: list[bool],
        status: NDArray[np.int32],
        rooms: Rooms | None,
    ) -> NDArray[np.int64]:
        """Table of the plan (`PLAN`).

        Parameters
        ----------
        names : bytes
            Keys of objects, each ended by a zero.
        places : int64 (R,)
            Where in `names` the key of each read begins; none where no file is read.
        roots : list of (bytes or None)
            Folder of each array's store, ended by a zero, where that is one of local files.
        known : list of bool
            Whether the executor decodes chunks of each array.
        status : int32 (C,)
            Of each chunk; written by the executor.
        rooms : Rooms or None
            Memory of chunks that caches keep.
        """
        plan, point = self._plan, self._point
        reads, chunks, windows = plan.reads, plan.chunks, plan.chunks.windows
        values = {
            "ndim": len(plan.request.count),
            "arrays": point(self._array_rows(roots, known)),
            "num_reads": len(reads),
            "read_array": point(reads.array, np.int32),
            "read_offset": point(reads.offset, np.int64),
            "read_nbytes": point(reads.nbytes, np.int64),
            "read_chunk_start": point(reads.chunk_start, np.int64),
            "read_key": point(places, np.int64),
            "keys": point(names),
            "chunk_array": point(chunks.array, np.int32),
            "chunk_offset": point(chunks.offset, np.int64),
            "chunk_nbytes": point(chunks.nbytes, np.int64),
            "chunk_direct": point(chunks.direct, np.bool_),
            "chunk_piece_start": point(chunks.piece_start, np.int64),
            "num_chunks": len(chunks),
            "chunk_status": address(status),
            **self._piece_columns("pieces", plan.pieces),
            **self._piece_columns("fills", plan.fills),
            "out": address(self._out),
            "out_strides": point(np.array(self._out.strides, np.int64)),
            **self._turns(),
            "step": point(np.array(plan.request.step, np.int64)),
            "out_itemsize": self._out.itemsize,
            "channel_axis": -1,
            "streams": self._out.nbytes > _CACHED_NBYTES,
        }
        if not is_plain(self._sources, self._output):
            values.update(self._conversion())
        if windows is not None:
            values["window_whole"] = point(windows.whole, np.bool_)
            values["window_start"] = point(windows.start, np.int64)
            values["window_nbytes"] = point(windows.nbytes, np.int64)
            values["window_shape"] = point(windows.shape, np.int64)
        if rooms is not None:
            values["chunk_memory"] = point(rooms.address, np.int64)
            values["chunk_held"] = point(rooms.held, np.bool_)
        return np.array([values.get(name, 0) for name in PLAN], np.int64)

    def make_for_files(self, table: NDArray[np.int64], places: Int64s) -> NDArray[np.int64]:
        """Table for reading files: threads share the images of one read, which take long to decode.

        It is `table` itself where no read is shared.
        """
        images = [codec_names(source)[0][0] in IMAGE_CODECS for source in self._sources]
        columns = shared_reads(self._plan, images, places)
        if columns is None:
            return table
        table = table.copy()
        table[PLAN.index("num_reads")] = len(columns["read_array"])
        for name, column in columns.items():
            table[PLAN.index(name)] = self._point(column)
        return table

    def _turns(self) -> dict[str, int]:
        """Columns of the table that say how boxes are turned."""
        turns, count = self._output.turns, self._plan.request.count
        if turns is None:
            return {}
        made = [turns.strides(s, self._out.strides[1:], count) for s in range(NUM_SYMMETRIES)]
        strides = [(offset, *along) for offset, along in made]
        return {
            "turns": self._point(turns.symmetry, np.uint8),
            "turn_strides": self._point(np.array(strides, np.int64), np.int64),
        }

    def _conversion(self) -> dict[str, int]:
        """Columns of the table that say what elements become."""
        output, axis = self._output, self._output.channel_axis
        return {
            "target_type": TARGET_TYPES[type_name(output.dtype)],
            "n_channels": 0 if output.scale is None else output.scale.size,
            "scale": self._point(output.scale, np.float32),
            "offset": self._point(output.offset, np.float32),
            "channel_axis": -1 if axis is None else axis,
        }

    def _piece_columns(self, name: str, pieces: PieceTable) -> dict[str, int]:
        point = self._point
        return {
            f"{name}_count": len(pieces),
            f"{name}_owner": point(pieces.chunk, np.int32),
            f"{name}_output": point(pieces.output, np.int32),
            f"{name}_src": point(pieces.src, np.int64),
            f"{name}_dst": point(pieces.dst, np.int64),
            f"{name}_extent": point(pieces.extent, np.int64),
        }

    def _array_rows(self, roots: list[bytes | None], known: list[bool]) -> NDArray[Any]:
        rows, fills = [], has_one_fill(self._output)
        ndim, width = len(self._plan.request.count), 8
        axes = [(s.spec.chunk_shape, s.spec.axis_order) for s in self._sources]
        axes_at = self._point(np.array(axes, np.int64))
        for row, (source, root) in enumerate(zip(self._sources, roots, strict=True)):
            spec = source.spec
            codecs, has_crc32c = codec_names(source)
            in_objects = isinstance(spec.location, ObjectPerChunk)
            shape_at = axes_at + 2 * row * ndim * width
            fill = np.zeros((), self._out.dtype)
            if fills:
                self._output.fill(spec.fill_scalar, fill, 0)
            values = {
                "codec": CODEC_NUMBERS[codecs[0] if known[row] else "unknown"],
                "has_crc32c": has_crc32c,
                "itemsize": spec.dtype.itemsize,
                "source_type": SOURCE_TYPES.get(type_name(spec.dtype), 0),
                "swap_nbytes": swapped_nbytes(spec.dtype),
                "decoded_nbytes": source.chain.decoded_nbytes,
                "limit_nbytes": encoded_limit(source),
                "object_nbytes": spec.chunk_nbytes if in_objects else -1,
                "absent_is_fill": in_objects and fills,
                "root": self._point(root),
                "chunk_shape": shape_at,
                "axis_order": shape_at + ndim * width,
                "fill": self._point(fill.tobytes()),
                "image": self._image(source) if known[row] else 0,
            }
            rows.append([values[name] for name in ARRAY])
        return np.array(rows, np.int64)

    def _image(self, source: ArraySource) -> int:
        """Address of what the chunks of an image codec hold; 0 for other codecs."""
        codecs = source.chain.codecs
        values = image_values(codecs[0]) if codecs else None
        if values is None:
            return 0
        tables = values.pop("tables")
        values |= {"tables_nbytes": len(tables), "tables": self._point(tables)}
        return self._point(np.array([values[name] for name in IMAGE], np.int64))

    def _point(self, array: NDArray[Any] | bytes | None, dtype: Any = None) -> int:
        """Address of a contiguous array of `dtype` with these elements, kept while this lives."""
        if array is None:
            return 0
        if isinstance(array, bytes):
            array = np.frombuffer(array, np.uint8)
        kept = np.ascontiguousarray(array, dtype)
        self._pointed.append(kept)
        return address(kept)
