"""The value objects that every layer speaks: what an array is and where its chunks lie.

Nothing here does I/O or knows a file format. A Zarr array, one level of an OME-Zarr image and one
level of a TIFF are all an `ArraySpec`: a grid of encoded chunks (`zarrgpu.grids`), a codec chain,
and a `ChunkLocation` that says where the encoded bytes of each chunk are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from zarrgpu.grids import AxisStarts, KeyEncoding, grid_coord, grid_count, grid_start

UNKNOWN_NBYTES = -1
"""Size of a chunk that is stored as a whole object: known once the object is read."""

MISSING_NBYTES = -2
"""Size of a chunk that is not stored: its elements are the fill value."""

MAX_OBJECTS_NBYTES = 1 << 30
"""Size of a chunk of strings or other objects, before they are made: nothing else bounds it."""

_MAX_NBYTES = 1 << 62
_MAX_THREADS = 4096

ByteArray: TypeAlias = NDArray[np.uint8]
"""One-dimensional array of bytes in host memory."""


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Contiguous bytes of one object.

    Attributes
    ----------
    offset : int
        First byte, from the start of the object.
    nbytes : int
        Number of bytes, at least 0.
    """

    offset: int
    nbytes: int

    def __post_init__(self) -> None:
        if self.offset < 0 or self.nbytes < 0:
            msg = f"byte range must not be negative, got offset={self.offset} nbytes={self.nbytes}"
            raise ValueError(msg)

    @property
    def end(self) -> int:
        """One past the last byte."""
        return self.offset + self.nbytes


@dataclass(frozen=True, slots=True)
class CodecSpec:
    """Name and configuration of one codec as metadata states it, in canonical (Zarr v3) form.

    Attributes
    ----------
    name : str
        Canonical name; `codecs.registry` maps it to a decoder.
    configuration : mapping
        JSON-like options, plus binary values where a format has them (JPEG tables).
    """

    name: str
    configuration: Mapping[str, Any] = field(default_factory=dict)


def native_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """`dtype` in native byte order; strings and objects, which have none, as they are."""
    return dtype if dtype.hasobject else dtype.newbyteorder("=")


def is_native(dtype: np.dtype[Any]) -> bool:
    """Whether all bytes are in native order; NumPy's ``isnative`` overlooks fields with a shape.

    >>> many = np.dtype([("a", ">u2", (3,))])
    >>> many.isnative, is_native(many)
    (True, False)
    """
    return dtype == native_dtype(dtype)


@dataclass(frozen=True, slots=True)
class ObjectPerChunk:
    """Every chunk is an object of its own (unsharded Zarr)."""

    key_encoding: KeyEncoding


@dataclass(frozen=True, slots=True)
class Sharded:
    """Chunks are inner chunks of shards; each shard is an object with an index.

    Attributes
    ----------
    key_encoding : KeyEncoding
        Of the shards.
    shard_shape : tuple of int
        Elements; a multiple of the array's chunk shape in every dimension.
    index_codecs : tuple of CodecSpec
        Bytes-to-bytes codecs of the index in encoding order (usually ``crc32c``).
    index_endian : "little" or "big"
    index_nbytes : int
        Encoded size of the index.
    index_location : "start" or "end"
    shard_starts : tuple of (int64 array or None), or None
        As ``ArraySpec.chunk_starts``, for shards of a rectilinear grid; `shard_shape` and
        `index_nbytes` are then those of the largest.
    """

    key_encoding: KeyEncoding
    shard_shape: tuple[int, ...]
    index_codecs: tuple[CodecSpec, ...]
    index_endian: Literal["little", "big"]
    index_nbytes: int
    index_location: Literal["start", "end"]
    shard_starts: AxisStarts | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Manifest:
    """All chunks are byte ranges of one object, or of a few, listed (TIFF tiles, references).

    Attributes
    ----------
    key : str
        The object; the first of `keys`, if these are given.
    offsets, nbytes : int64 arrays, one element per chunk in C order of the grid
        ``nbytes == MISSING_NBYTES`` marks a chunk that is not stored.
    keys : tuple of str
        All objects, where there are several.
    object_id : int64 array or None
        Which of `keys` each chunk lies in; None if all lie in `key`.
    """

    key: str
    offsets: NDArray[np.int64]
    nbytes: NDArray[np.int64]
    keys: tuple[str, ...] = ()
    object_id: NDArray[np.int64] | None = None

    def key_of(self, object_id: int) -> str:
        """Key of the object that a plan calls `object_id`."""
        return self.keys[object_id] if self.keys else self.key


@dataclass(frozen=True, slots=True, eq=False)
class Placement:
    """Where the cells of an array's grid are cut from, where chunks overlap or leave gaps.

    The cells (`ArraySpec.chunk_starts`) cover the array once; each is a part of one chunk.

    Attributes
    ----------
    grid_shape : tuple of int
        Chunks per axis as they are stored: C order of the location's table, for names.
    chunk : int64 array, one element per cell in C order
        Row of the location's table. A cell of no chunk has a row that is marked as missing.
    origin : int64 array, shape (ndim, cells)
        First element of each cell within its chunk.
    """

    grid_shape: tuple[int, ...]
    chunk: NDArray[np.int64]
    origin: NDArray[np.int64]


ChunkLocation: TypeAlias = ObjectPerChunk | Sharded | Manifest


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ArraySpec:
    """One array as the planner and the engines see it.

    Attributes
    ----------
    source : str
        Path or URL, for messages.
    shape : tuple of int
        Elements per axis, C order.
    dtype : numpy.dtype
        As stored, byte order included.
    chunk_shape : tuple of int
        Elements of one independently decodable chunk (the inner chunk of a shard). Chunks at the
        upper edges are stored whole and overhang the array. The largest, if they differ.
    fill_value : numpy scalar or None
        Value of chunks that are not stored, in native byte order. ``None`` (Zarr v2 ``null``)
        leaves them undefined; zarrgpu reads zeros then.
    codecs : tuple of CodecSpec
        Bytes-to-bytes codecs, in the order in which they were applied when encoding.
    axis_order : tuple of int
        Stored order of the axes: a decoded chunk is a C-contiguous array whose axis ``k`` is array
        axis ``axis_order[k]``. Identity for C order.
    location : ChunkLocation
    dimension_names : tuple of (str or None)
    attributes : mapping
    chunk_starts : tuple of (int64 array or None), or None
        For a rectilinear grid: per axis the first element of each chunk and the end of the last,
        or None where all are of one length. A plan cuts such an array into one `ArraySpec` for
        each chunk shape that it meets, so that only planning knows of it.
    placement : Placement or None
        Chunks overlap, or not all of the array is in one: `chunk_starts` are those of cells, and
        every chunk has `chunk_shape`.
    substitute : ArraySpec or None
        Where the chunks come from that `location` has not, if they are not to be the fill value: an
        array of the same shape, chunks and type with a location and codecs of its own. A plan lists
        it as an array more where it is needed, so that only planning knows of it.
    icc_profile : StoredBytes or None
        Colour profile of an image that carries one.
    """

    source: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunk_shape: tuple[int, ...]
    fill_value: Any
    codecs: tuple[CodecSpec, ...]
    axis_order: tuple[int, ...]
    location: ChunkLocation
    dimension_names: tuple[str | None, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    chunk_starts: AxisStarts | None = None
    substitute: ArraySpec | None = None
    placement: Placement | None = None
    icc_profile: StoredBytes | None = None

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def grid_shape(self) -> tuple[int, ...]:
        """Chunks per axis."""
        if self.chunk_starts is None:
            return tuple(-(-n // c) for n, c in zip(self.shape, self.chunk_shape, strict=True))
        axes = zip(self.chunk_shape, self.chunk_starts, self.shape, strict=True)
        return tuple(grid_count(*axis) for axis in axes)

    @property
    def stored_grid_shape(self) -> tuple[int, ...]:
        """Chunks per axis as they are stored, which are not cells where there is a placement."""
        return self.grid_shape if self.placement is None else self.placement.grid_shape

    def chunk_of(self, axis: int, index: Any) -> Any:
        """Coordinate of the chunk that holds the element `index` of an axis."""
        starts = None if self.chunk_starts is None else self.chunk_starts[axis]
        return grid_coord(self.chunk_shape[axis], starts, index)

    def chunk_start(self, axis: int, coord: Any) -> Any:
        """First element of the chunk at `coord` of an axis; the end of the last one beyond it."""
        starts = None if self.chunk_starts is None else self.chunk_starts[axis]
        return grid_start(self.chunk_shape[axis], starts, coord)

    @property
    def chunk_nbytes(self) -> int:
        """Decoded size of a chunk in bytes."""
        return math.prod(self.chunk_shape) * self.dtype.itemsize

    @property
    def decoded_limit_nbytes(self) -> int:
        """What a chunk's bytes codecs decode to at most; only for objects more than is known."""
        return MAX_OBJECTS_NBYTES if self.dtype.hasobject else self.chunk_nbytes

    @property
    def shard_shape(self) -> tuple[int, ...] | None:
        """Elements of a shard, or None where the array is not sharded."""
        return self.location.shard_shape if isinstance(self.location, Sharded) else None

    @property
    def fill_scalar(self) -> Any:
        """Fill value as a scalar in native byte order, or object; zero where it is undefined."""
        native, value = native_dtype(self.dtype), self.fill_value
        if value is None and native.kind == "O":
            has_bytes = any(codec.name == "vlen-bytes" for codec in self.codecs[:1])
            return b"" if has_bytes else None
        if value is None:
            return np.zeros(1, native)[0]
        if native.hasobject or (isinstance(value, np.generic) and value.dtype == native):
            return value  # as it is: made anew, a NaN could lose its payload
        return np.array([value], native)[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOptions:
    """How to read: travels with the call, never a global.

    Attributes
    ----------
    memory_budget_bytes : int
        Upper bound of what one read holds besides its output: encoded and decoded chunks.
    max_gap_bytes : int or None
        Neighbouring byte ranges of one object at most this far apart are fetched as one; None
        takes what suits the store.
    max_coalesced_bytes : int or None
        A coalesced range stops growing here; None takes what suits the store.
    io_concurrency : int or None
        Requests in flight; None takes the store's own default.
    num_threads : int or None
        Decoding threads on the host; None takes the cores this process may use.
    verify_checksums : bool
        Whether a CUDA device checks the checksums of chunks and streams. The host always does.
    strict : bool
        With a CUDA device, raise instead of decoding on the host what has no device decoder.
    native : bool
        On the host, let compiled code read what it can, where it was built; results are the same.
    gds : bool or None
        With a CUDA device, read local files straight into its memory (GPUDirect Storage): None
        where it can, True raises where it cannot, False never. Small reads, and chunks that the
        host decodes, go through host memory in any case; results are the same.
    """

    memory_budget_bytes: int = 1 << 30
    max_gap_bytes: int | None = None
    max_coalesced_bytes: int | None = None
    io_concurrency: int | None = None
    num_threads: int | None = None
    verify_checksums: bool = True
    strict: bool = False
    native: bool = True
    gds: bool | None = None

    def __post_init__(self) -> None:
        for name, least, most in (
            ("memory_budget_bytes", 1, _MAX_NBYTES),
            ("max_gap_bytes", 0, _MAX_NBYTES),
            ("max_coalesced_bytes", 1, _MAX_NBYTES),
            ("io_concurrency", 1, _MAX_THREADS),
            ("num_threads", 1, _MAX_THREADS),
        ):
            value = getattr(self, name)
            if value is None and name != "memory_budget_bytes":
                continue
            if type(value) is not int or not least <= value <= most:
                msg = f"{name} must be an integer of {least} to {most}, got {value!r}"
                raise ValueError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredBytes:
    """Bytes that are read when they are asked for, such as a colour profile; never empty.

    Attributes
    ----------
    key : str
        The object that they are in.
    byte_range : ByteRange
    """

    key: str
    byte_range: ByteRange

    def __len__(self) -> int:
        return self.byte_range.nbytes
