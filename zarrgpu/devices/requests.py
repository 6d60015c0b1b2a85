"""Work that a `Driver` is given, by addresses: batches to decode or to checksum, files to read.

Tables of streams lie in device memory, those of images in host memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LibraryFormat: TypeAlias = Literal["zstd", "lz4", "snappy", "deflate", "gzip"]
"""A stream that the library decodes: a zstd frame, a raw LZ4 block (no size in front), a raw Snappy
block, a raw deflate stream (no zlib header), a gzip member."""

ImageFormat: TypeAlias = Literal["jpeg", "jpeg2k"]
"""Images that a library decodes: a baseline JPEG stream, a JPEG 2000 codestream."""

FILE_ALIGNMENT = 4096
"""Multiple of bytes, in files and in device memory, at which files are read without a detour."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecompressBatch:
    """Encoded streams and where to decode them to; every table is a device address.

    Attributes
    ----------
    n_chunks : int
    sources : int
        uint64[n_chunks]: addresses of the encoded streams, aligned as `Driver.source_alignment`.
    source_nbytes : int
        uint64[n_chunks]: their sizes.
    targets : int
        uint64[n_chunks]: addresses of the decoded chunks.
    target_nbytes : int
        uint64[n_chunks]: room at each of them.
    decoded_nbytes : int
        uint64[n_chunks], written: bytes decoded.
    statuses : int
        int32[n_chunks], written: 0, or a code of `nvcomp.status_name`.
    max_target_nbytes, total_target_nbytes : int
        Greatest element and sum of the table at `target_nbytes`; they size temporary memory.
    """

    n_chunks: int
    sources: int
    source_nbytes: int
    targets: int
    target_nbytes: int
    decoded_nbytes: int
    statuses: int
    max_target_nbytes: int
    total_target_nbytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChecksumBatch:
    """Byte ranges to checksum; every table is a device address.

    Attributes
    ----------
    n_chunks : int
    sources : int
        uint64[n_chunks]: addresses.
    source_nbytes : int
        uint64[n_chunks]: sizes.
    checksums : int
        uint32[n_chunks], written.
    statuses : int
        int32[n_chunks], written: 0, or a code of `nvcomp.status_name`.
    max_source_nbytes : int
        Greatest element of the table at `source_nbytes`.
    """

    n_chunks: int
    sources: int
    source_nbytes: int
    checksums: int
    statuses: int
    max_source_nbytes: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageBatch:
    """Image streams and where to decode their components to; tables are host memory.

    A stream must have been checked: that its components fit where they go, above all.

    Attributes
    ----------
    sources : uint64 (n,)
        Addresses of the streams in host memory, pinned so that the library does not wait.
    source_nbytes : uint64 (n,)
    planes : array of `tables.IMAGE_PLANES`, shape (n,)
        Device address and row pitch of each component; 0 for one that there is not.
    samples : int64 (n,)
        Components.
    sample_nbytes : int64 (n,)
        Bytes of a decoded sample: 1 or 2.
    signed : bool (n,)
        Whether samples of two bytes have a sign.
    tables, tables_nbytes : int64 (n,)
        Host address and size of a JPEG stream of tables that the image shares; 0 if there is none.
    statuses : int32 (n,)
        Written, by the time that the stream has done the batch: 0, or a status of the library. An
        image that gets 0 may be undecoded for all that: look at what was written.
    """

    sources: NDArray[np.uint64]
    source_nbytes: NDArray[np.uint64]
    planes: NDArray[Any]
    samples: NDArray[np.int64]
    sample_nbytes: NDArray[np.int64]
    signed: NDArray[np.bool_]
    tables: NDArray[np.int64]
    tables_nbytes: NDArray[np.int64]
    statuses: NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRead:
    """Bytes of a file and where they go.

    Attributes
    ----------
    path : str
    offset : int
        In the file, a multiple of `FILE_ALIGNMENT`.
    nbytes : int
        A multiple of it too, or up to the end of the file; not 0.
    target : int
        Address within an `allocate_landing`, likewise.
    """

    path: str
    offset: int
    nbytes: int
    target: int
