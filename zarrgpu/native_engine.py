"""A plan told to the compiled executor (``kernels/host``), where it can carry the plan out.

It can where every array's chunks are of codecs that it knows, and elements are delivered as they
are stored, up to byte order, or small ones as floats or larger integers. It works on the plan's own
columns, without the interpreter's lock. What it cannot read it leaves to `host_engine`, which
succeeds or says what is wrong.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zarrgpu.chunk_cache import CachedChunk
from zarrgpu.devices.host import run_threads
from zarrgpu.devices.native import (
    ABSENT,
    ARRAY,
    CODEC_NUMBERS,
    DONE,
    IMAGE,
    IMAGE_CODECS,
    MAX_AXES,
    NOT_DONE,
    PLAN,
    SOURCE_TYPES,
    TARGET_TYPES,
    NativeLibrary,
    address,
    native_library,
)
from zarrgpu.fetch import ArraySource, encoded_limit
from zarrgpu.model import ByteArray, ObjectPerChunk, is_native
from zarrgpu.native_images import image_values, shared_reads
from zarrgpu.native_rooms import make_rooms
from zarrgpu.output import OutputFormat, is_bfloat16
from zarrgpu.plan.tables import Int64s, PieceTable, ReadPlan
from zarrgpu.stores.cancellable import CancellableStore
from zarrgpu.stores.local import LocalStore
from zarrgpu.symmetries import NUM_SYMMETRIES

_READS_AT_A_TIME = 64
"""After so many a thread comes back to Python, to be interrupted or cancelled."""

_CACHED_NBYTES = 4 << 20
"""Of a result that the caches of a core may still hold when it is used."""

_SWAPPED_NBYTES = (2, 4, 8)


class NativeRun:
    """One execution by the compiled executor; made by `native_run`.

    Attributes
    ----------
    status : int32 (C,)
        Of each chunk: `NOT_DONE`, `DONE` or `ABSENT`.
    decodes : bool
        Whether it knows the codecs of any array; otherwise it only places (`put`).
    is_local : bool
        Whether it reads the files itself (`drain`), or is given what a store brings (`place`).
    """

    def __init__(
        self,
        library: NativeLibrary,
        plan: ReadPlan,
        sources: tuple[ArraySource, ...],
        keys: list[str],
        out: NDArray[Any],
        output: OutputFormat,
        cached: list[CachedChunk | None] | None,
    ) -> None:
        self._library, self._plan, self._sources, self._out = library, plan, sources, out
        self._output, self._converts = output, not _is_plain(sources, output)
        self._pointed: list[Any] = []  # what the table points to
        self.status = np.full(len(plan.chunks), NOT_DONE, np.int32)
        joined = _joined_keys(plan, keys)
        roots = [_local_root(source) for source in sources]
        known = [_is_known(source, library) for source in sources]
        self.decodes = any(known)
        self.is_local = joined is not None and all(known) and None not in roots
        self._rooms = None if cached is None else make_rooms(plan, sources, known, cached)
        names, places = joined or (b"", np.empty(0, np.int64))
        self._table = self._make_table(names, places, roots, known)
        self._at = address(self._table)
        self._files = self._make_file_table(places) if self.is_local else self._table

    @property
    def fetched_nbytes(self) -> int:
        """Bytes of files that `drain` has read."""
        return int(self._files[PLAN.index("fetched_nbytes")])

    @property
    def num_decoded(self) -> int:
        """Chunks that `drain` has decoded."""
        held = 0 if self._rooms is None else np.count_nonzero(self._rooms.held)
        return int(np.count_nonzero(self.status == DONE) - held)

    @property
    def num_missing(self) -> int:
        """Chunks that `drain` has found missing."""
        return int(np.count_nonzero(self.status == ABSENT))

    def rows_left(self, read: int) -> list[int]:
        """Chunks of a read that are not done; those that a cache holds are placed first."""
        if self._rooms is not None:
            self._library.run_held(self._at, read)
        first, last = self._plan.reads.chunk_start[read : read + 2].tolist()
        return (first + np.flatnonzero(self.status[first:last] == NOT_DONE)).tolist()  # type: ignore[no-any-return]

    def drain(self, num_threads: int) -> list[int]:
        """Carry out all reads of files; those that have chunks which could not be read are left."""
        turns = range(min(num_threads, int(self._files[PLAN.index("num_reads")])))
        run_threads(self._drain, turns, num_threads)
        self._keep(np.flatnonzero(self.status == DONE))
        left = np.flatnonzero(self.status == NOT_DONE)
        return np.unique(self._plan.chunks.read[left]).tolist()  # type: ignore[no-any-return]

    def _drain(self, _: int) -> None:
        checks = [s.store.check for s in self._sources if isinstance(s.store, CancellableStore)]
        try:
            while self._library.drain(address(self._files), _READS_AT_A_TIME):
                for check in checks:
                    check()
        except BaseException:  # the other threads shall not go on to the end
            self._files[PLAN.index("next_read")] = self._files[PLAN.index("num_reads")]
            raise

    def place(self, read: int, data: ByteArray, rows: Sequence[int]) -> list[int]:
        """Decode and place those chunks of a read that can be; the others are left.

        Parameters
        ----------
        read : int
        data : uint8 array
            What the store gave for the read.
        rows : sequence of int
            Chunks of the read.
        """
        if not self.decodes:
            return list(rows)
        self._library.run_bytes(self._at, read, address(data), data.size)
        self._keep(np.array([row for row in rows if self.status[row] == DONE], np.int64))
        return [row for row in rows if self.status[row] == NOT_DONE]

    def put(self, row: int, elements: NDArray[Any]) -> None:
        """Place the pieces of a chunk, or of its window, that was decoded elsewhere."""
        self._library.place(self._at, row, address(elements))

    @property
    def fills(self) -> bool:
        """Whether `fill` can: there is one fill value, not one for each channel."""
        scale = self._output.scale
        return scale is None or scale.size == 1

    def fill(self) -> None:
        """Write what no stored chunk covers."""
        self._library.fill(self._at)

    def _keep(self, rows: NDArray[np.int64]) -> None:
        """Put chunks that were decoded into the caches of their arrays."""
        if self._rooms is not None:
            self._rooms.keep(rows, self._plan, self._sources)

    def _point(self, array: NDArray[Any] | bytes | None, dtype: Any = None) -> int:
        """Address of a contiguous array of `dtype` with these elements, kept while this lives."""
        if array is None:
            return 0
        if isinstance(array, bytes):
            array = np.frombuffer(array, np.uint8)
        kept = np.ascontiguousarray(array, dtype)
        self._pointed.append(kept)
        return address(kept)

    def _make_table(
        self, names: bytes, places: Int64s, roots: list[bytes | None], known: list[bool]
    ) -> NDArray[Any]:
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
            "chunk_status": address(self.status),
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
        if self._converts:
            values.update(self._conversion())
        if windows is not None:
            values["window_whole"] = point(windows.whole, np.bool_)
            values["window_start"] = point(windows.start, np.int64)
            values["window_nbytes"] = point(windows.nbytes, np.int64)
            values["window_shape"] = point(windows.shape, np.int64)
        if self._rooms is not None:
            values["chunk_memory"] = point(self._rooms.address, np.int64)
            values["chunk_held"] = point(self._rooms.held, np.bool_)
        return np.array([values.get(name, 0) for name in PLAN], np.int64)

    def _make_file_table(self, places: Int64s) -> NDArray[Any]:
        """Table for `drain`: threads share the images of one read, which take long to decode."""
        images = [_codec_names(source)[0][0] in IMAGE_CODECS for source in self._sources]
        columns = shared_reads(self._plan, images, places)
        if columns is None:
            return self._table
        table = self._table.copy()
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
            "target_type": TARGET_TYPES[_type_name(output.dtype)],
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
        rows = []
        ndim, width = len(self._plan.request.count), 8
        axes = [(s.spec.chunk_shape, s.spec.axis_order) for s in self._sources]
        axes_at = self._point(np.array(axes, np.int64))
        for row, (source, root) in enumerate(zip(self._sources, roots, strict=True)):
            spec = source.spec
            codecs, has_crc32c = _codec_names(source)
            in_objects = isinstance(spec.location, ObjectPerChunk)
            shape_at = axes_at + 2 * row * ndim * width
            fill = np.zeros((), self._out.dtype)
            if self.fills:
                self._output.fill(spec.fill_scalar, fill, 0)
            values = {
                "codec": CODEC_NUMBERS[codecs[0] if known[row] else "unknown"],
                "has_crc32c": has_crc32c,
                "itemsize": spec.dtype.itemsize,
                "source_type": SOURCE_TYPES.get(_type_name(spec.dtype), 0),
                "swap_nbytes": _swapped_nbytes(spec.dtype),
                "decoded_nbytes": source.chain.decoded_nbytes,
                "limit_nbytes": encoded_limit(source),
                "object_nbytes": spec.chunk_nbytes if in_objects else -1,
                "absent_is_fill": in_objects and self.fills,
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


def native_run(
    plan: ReadPlan,
    sources: tuple[ArraySource, ...],
    keys: list[str],
    out: NDArray[Any],
    output: OutputFormat,
    cached: list[CachedChunk | None] | None,
) -> NativeRun | None:
    """Let the compiled executor carry out a plan; None where it cannot.

    Parameters
    ----------
    plan, sources, out, output
        As for `host_engine.execute`.
    keys : list of str
        Of the object of each read.
    cached : list of (CachedChunk or None), or None
        What earlier reads have left of each chunk; None if no array has a cache.
    """
    library = native_library()
    if library is None or not _are_placed(sources, output):
        return None
    return NativeRun(library, plan, sources, keys, out, output, cached)


def runs_compiled(source: ArraySource, output: OutputFormat) -> bool:
    """Whether chunks of an array are decoded by the compiled executor, for such an output."""
    library = native_library()
    return library is not None and _is_known(source, library) and _are_placed([source], output)


def _are_placed(sources: Sequence[ArraySource], output: OutputFormat) -> bool:
    """Whether the executor places elements of these arrays."""
    return all(
        not source.spec.dtype.hasobject
        and source.spec.dtype.itemsize > 0
        and source.spec.ndim <= MAX_AXES
        and (is_native(source.spec.dtype) or _swapped_nbytes(source.spec.dtype) in _SWAPPED_NBYTES)
        for source in sources
    ) and (_is_plain(sources, output) or _is_convertible(sources, output))


def _is_plain(sources: Sequence[ArraySource], output: OutputFormat) -> bool:
    """Whether elements are delivered as they are stored, up to byte order."""
    return all(output.is_plain(source.spec.dtype) for source in sources)


def _is_convertible(sources: Sequence[ArraySource], output: OutputFormat) -> bool:
    return _type_name(output.dtype) in TARGET_TYPES and all(
        _type_name(source.spec.dtype) in SOURCE_TYPES for source in sources
    )


def _type_name(dtype: np.dtype[Any]) -> str:
    """NumPy's name of a type, without its byte order."""
    return dtype.name if is_bfloat16(dtype) else dtype.str[1:]


def _is_known(source: ArraySource, library: NativeLibrary) -> bool:
    """Whether the executor decodes chunks of an array."""
    names, _ = _codec_names(source)
    if len(names) != 1 or names[0] not in library.codecs or source.chain.object_codec is not None:
        return False
    return names[0] not in IMAGE_CODECS or image_values(source.chain.codecs[0]) is not None


def _codec_names(source: ArraySource) -> tuple[list[str], bool]:
    """Codecs of a chunk before its checksum, "bytes" for none, and whether there is a CRC-32C."""
    names = [codec.name for codec in source.chain.codecs]
    has_crc32c = names[-1:] == ["crc32c"]
    return names[: len(names) - has_crc32c] or ["bytes"], has_crc32c


def _swapped_nbytes(dtype: np.dtype[Any]) -> int:
    """Size of the numbers whose bytes are reversed; 0 where none are."""
    if is_native(dtype):
        return 0
    return dtype.itemsize // 2 if dtype.kind == "c" else dtype.itemsize * (dtype.kind in "iufmM")


def _local_root(source: ArraySource) -> bytes | None:
    store = source.store
    if isinstance(store, CancellableStore):
        store = store.store
    return os.fsencode(store.root) + b"\0" if type(store) is LocalStore else None


def _joined_keys(plan: ReadPlan, keys: list[str]) -> tuple[bytes, Int64s] | None:
    """Keys, each ended by a zero, and the place of each read's; None if no file can have one.

    Reads of one object share one place, so that its file is opened once.
    """
    joined = "\0".join(keys) + "\0"
    if ".." in joined or joined.count("\0") != len(keys):
        return None
    try:
        names = os.fsencode(joined)
    except UnicodeEncodeError:
        return None
    ends = np.flatnonzero(np.frombuffer(names, np.uint8) == 0)
    places = np.zeros(len(keys), np.int64)
    places[1:] = ends[:-1] + 1
    reads = plan.reads
    again = np.zeros(len(keys), np.bool_)
    again[1:] = (reads.array[1:] == reads.array[:-1]) & (
        reads.object_id[1:] == reads.object_id[:-1]
    )
    places[again] = 0
    return names, np.maximum.accumulate(places) if len(places) else places
