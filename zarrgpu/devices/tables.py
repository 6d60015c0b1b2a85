"""Job tables, status codes and signatures of the kernels: the Python side of kernels/common.cuh.

NumPy dtypes here and structs there are the same bytes; tests/test_kernels.py holds them together.
Every kernel takes a table of jobs, a table of *tile starts* (see `tile_starts`) and writes one
`JobStatus` per job.
"""

from __future__ import annotations

from enum import IntEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray

MAX_DIMS = 6
"""Dimensions of a gather piece; dims that are not used come first and have extent 1."""

COPY_TILE_NBYTES = 8192
"""Bytes that one warp copies or unshuffles at a time; a multiple of 64."""

GATHER_TILE_ELEMENTS = 4096
"""Elements that one warp gathers at a time."""

ELEMENT_TILE = 4096
"""Elements that one warp sums up, converts, unpacks or resamples at a time."""

WHOLE_TILE = (1 << 31) - 1
"""For kernels that give a whole job to one warp."""

PREDICTOR_TILE_ROWS = 4
"""Rows that one warp sums up at a time."""

CHECKSUM_TILE_NBYTES = 16384
"""Bytes that one warp checksums at a time, a part each lane; a multiple of 64."""

CHECKSUM_PARTS_NBYTES = 256
"""Scratch memory that `checksum_parts` needs for each tile."""

COPY_JOB = np.dtype(
    [
        ("source", "<u8"),
        ("source_nbytes", "<i8"),
        ("target", "<u8"),
        ("target_nbytes", "<i8"),
        ("nbytes", "<i8"),
    ]
)
"""``CopyJob``: `nbytes` bytes from `source` to `target`; the other sizes are bounds.

For ``blosclz`` it is `source_nbytes` encoded bytes at `source` that decode to `nbytes`."""

UNSHUFFLE_JOB = np.dtype([*COPY_JOB.descr, ("typesize", "<i4"), ("reserved", "<i4")])
"""``UnshuffleJob``: one Blosc block of `nbytes` bytes."""

CHECKSUM_JOB = np.dtype(
    [
        ("source", "<u8"),
        ("source_nbytes", "<i8"),
        ("nbytes", "<i8"),
        ("stored", "<u8"),
        ("parts", "<u8"),
        ("parts_nbytes", "<i8"),
        ("kind", "<i4"),
        ("big_endian", "<i4"),
    ]
)
"""``ChecksumJob``: `nbytes` bytes whose checksum is at `stored`; `parts` is scratch memory."""

HEADER_NBYTES = 24
"""Bytes that a record of `HEADER_RECORD` holds."""

HEADER_RECORD = np.dtype([("at", "<i8"), ("data", "u1", (HEADER_NBYTES,))])
"""What the header kernels write: a place in the chunk and the bytes there. The first record of a
job's room is their number."""

HEADER_JOB = np.dtype(
    [
        ("source", "<u8"),
        ("source_nbytes", "<i8"),
        ("nbytes", "<i8"),
        ("target", "<u8"),
        ("target_nbytes", "<i8"),
    ]
)
"""``HeaderJob``: an encoded chunk that decodes to `nbytes` bytes, and room for records."""

DELTA_JOB = np.dtype(
    [
        ("source", "<u8"),
        ("source_nbytes", "<i8"),
        ("target", "<u8"),
        ("target_nbytes", "<i8"),
        ("n", "<i8"),
        ("sums", "<u8"),
        ("sums_nbytes", "<i8"),
        ("source_type", "<i4"),
        ("target_type", "<i4"),
        ("source_swap", "<i4"),
        ("target_swap", "<i4"),
    ]
)
"""``DeltaJob``: running sums of `n` numbers.

For integers `sums` is scratch memory, 8 bytes a tile."""

CONVERT_JOB = np.dtype(
    [
        ("source", "<u8"),
        ("source_nbytes", "<i8"),
        ("target", "<u8"),
        ("target_nbytes", "<i8"),
        ("n", "<i8"),
        ("divisor", "<f8"),
        ("addend", "<f8"),
        ("source_type", "<i4"),
        ("target_type", "<i4"),
        ("source_swap", "<i4"),
        ("target_swap", "<i4"),
        ("scaled", "<i4"),
        ("reserved", "<i4"),
    ]
)
"""``ConvertJob``: `n` elements cast, after ``x / divisor + addend`` if `scaled`."""

UNPACK_JOB = np.dtype(
    [
        ("source", "<u8"),
        ("source_nbytes", "<i8"),
        ("target", "<u8"),
        ("target_nbytes", "<i8"),
        ("n", "<i8"),
        ("padding", "<u8"),
        ("width", "<i4"),
        ("packed_bits", "<i4"),
        ("first_bit", "<i4"),
        ("sign_bits", "<i4"),
        ("big", "<i4"),
        ("swap", "<i4"),
    ]
)
"""``UnpackJob``: `n` values of `packed_bits` bits to `width` bytes each."""

STREAM_JOB = np.dtype([*COPY_JOB.descr, ("reversed", "<i4"), ("reserved", "<i4")])
"""``StreamJob``: `source_nbytes` encoded bytes at `source` that decode to `nbytes`."""

PREDICTOR_JOB = np.dtype(
    [
        ("source", "<u8"),
        ("source_nbytes", "<i8"),
        ("target", "<u8"),
        ("target_nbytes", "<i8"),
        ("rows", "<i8"),
        ("width", "<i4"),
        ("samples", "<i4"),
        ("itemsize", "<i4"),
        ("predictor", "<i4"),
        ("swap", "<i4"),
        ("reserved", "<i4"),
    ]
)
"""``PredictorJob``: `rows` rows of samples that are stored as differences."""

SAMPLES_JOB = np.dtype(
    [
        ("source", "<u8"),
        ("source_nbytes", "<i8"),
        ("target", "<u8"),
        ("target_nbytes", "<i8"),
        ("n", "<i8"),
        ("row_samples", "<i4"),
        ("bits", "<i4"),
        ("reversed", "<i4"),
        ("reserved", "<i4"),
    ]
)
"""``SamplesJob``: `n` samples of `bits` bits, each row from a whole byte on."""

RESAMPLE_JOB = np.dtype(
    [
        ("source", "<u8"),
        ("source_nbytes", "<i8"),
        ("target", "<u8"),
        ("target_nbytes", "<i8"),
        ("target_strides", "<i8", (3,)),
        ("first", "<u8"),
        ("first_nbytes", "<i8"),
        ("weight", "<u8"),
        ("weight_nbytes", "<i8"),
        ("scale", "<u8"),
        ("offset", "<u8"),
        ("outer", "<i4"),
        ("n", "<i4"),
        ("m", "<i4"),
        ("inner", "<i4"),
        ("taps", "<i4"),
        ("n_channels", "<i4"),
        ("outer_inside", "<i4", (2,)),
        ("m_inside", "<i4", (2,)),
        ("fill", "<f4"),
        ("source_type", "<i4"),
        ("target_type", "<i4"),
        ("reserved", "<i4"),
    ]
)
"""``ResampleJob``: weighted sums along one axis of an image; see `zarrgpu.resampling`."""

SCAN_JOB = np.dtype(
    [
        ("source", "<u8"),
        ("source_nbytes", "<i8"),
        ("nbytes", "<i8"),
        ("restarts", "<i4"),
        ("reserved", "<i4"),
    ]
)
"""``ScanJob``: `nbytes` bytes of entropy-coded JPEG data, and one byte more to read."""

IMAGE_JOB = np.dtype(
    [
        ("source", "<u8"),
        ("source_nbytes", "<i8"),
        ("target", "<u8"),
        ("target_nbytes", "<i8"),
        ("n", "<i8"),
        ("width", "<i4"),
        ("height", "<i4"),
        ("samples", "<i4"),
        ("sample_nbytes", "<i4"),
        ("pitch", "<i4"),
        ("chroma_pitch", "<i4"),
        ("across", "<i4"),
        ("down", "<i4"),
        ("color", "<i4"),
        ("marked", "<i4"),
    ]
)
"""``ImageJob``: planes of an image at `source`, one after the other, to `n` pixels."""

IMAGE_PLANES = np.dtype([("channel", "<u8", (4,)), ("pitch", "<u8", (4,))])
"""``nvjpegImage_t``: planes of an image for a library, in device memory."""

GATHER_JOB = np.dtype(
    [
        ("source", "<u8"),
        ("source_nbytes", "<i8"),
        ("source_offset", "<i8"),
        ("target_offset", "<i8"),
        ("layout", "<i4"),
        ("channel_start", "<i4"),
        ("shuffle_block_nbytes", "<i4"),
        ("reserved", "<i4"),
        ("extents", "<i4", (MAX_DIMS,)),
    ]
)
"""``GatherJob``: a box of one decoded chunk, or of the fill value where `source` is 0."""

GATHER_LAYOUT = np.dtype(
    [
        ("target", "<u8"),
        ("target_nbytes", "<i8"),
        ("source_strides", "<i8", (MAX_DIMS,)),
        ("target_strides", "<i8", (MAX_DIMS,)),
        ("fill", "u1", (16,)),
        ("scale", "<u8"),
        ("offset", "<u8"),
        ("n_channels", "<i4"),
        ("channel_dim", "<i4"),
        ("ndim", "<i4"),
        ("source_type", "<i4"),
        ("target_type", "<i4"),
        ("swap_nbytes", "<i4"),
    ]
)
"""``GatherLayout``: what the pieces of one array and one output have in common."""

STRUCTS: Mapping[str, np.dtype[Any]] = MappingProxyType(
    {
        "CopyJob": COPY_JOB,
        "UnshuffleJob": UNSHUFFLE_JOB,
        "ChecksumJob": CHECKSUM_JOB,
        "HeaderJob": HEADER_JOB,
        "DeltaJob": DELTA_JOB,
        "ConvertJob": CONVERT_JOB,
        "UnpackJob": UNPACK_JOB,
        "StreamJob": STREAM_JOB,
        "PredictorJob": PREDICTOR_JOB,
        "SamplesJob": SAMPLES_JOB,
        "ResampleJob": RESAMPLE_JOB,
        "ScanJob": SCAN_JOB,
        "ImageJob": IMAGE_JOB,
        "GatherJob": GATHER_JOB,
        "GatherLayout": GATHER_LAYOUT,
    }
)
"""Each struct of kernels/common.cuh and its dtype."""


class JobStatus(IntEnum):
    """What a kernel writes for each job."""

    OK = 0
    BAD_JOB = 1
    """The job contradicts itself or asks for what no kernel does."""
    SOURCE_BOUNDS = 2
    """It would have read outside of its source; nothing was read."""
    TARGET_BOUNDS = 3
    """It would have written outside of its target; nothing was written."""
    MISALIGNED = 4
    """An address is not a multiple of its element size."""
    MISMATCH = 5
    """The data do not have the checksum that is stored."""
    CORRUPT = 6
    """The encoded stream contradicts itself or its size."""
    INEXACT = 7
    """A value has no counterpart in the target type that all agree on."""


class ChecksumKind(IntEnum):
    """What `checksum_parts` and `checksum_verify`, or `checksum_xxh64`, compute."""

    CRC32 = 0
    CRC32C = 1
    ADLER32 = 2
    FLETCHER32 = 3
    XXH64 = 4
    """The low half of XXH64 with seed 0."""


class ImageColor(IntEnum):
    """What `ycbcr` makes of three planes."""

    STORED = 0
    """Samples stay as they are."""
    LIBJPEG_YCC = 1
    ROUNDED_YCC = 2
    """As `codecs.jpeg2k.ycbcr_to_rgb`."""
    OPENJPEG_SYCC = 3
    """As OpenJPEG, for subsampled chroma."""


class ElementType(IntEnum):
    """Type of the elements that `gather` reads or writes."""

    BOOL = 0
    I1 = 1
    U1 = 2
    I2 = 3
    U2 = 4
    I4 = 5
    U4 = 6
    I8 = 7
    U8 = 8
    F2 = 9
    F4 = 10
    F8 = 11
    RAW1 = 12
    """Opaque elements: copied, never cast."""
    RAW2 = 13
    RAW4 = 14
    RAW8 = 15
    RAW16 = 16
    BF16 = 17
    """bfloat16: delivered, never read."""


Parameter: TypeAlias = Literal["address", "int32"]

_COPY_PARAMETERS: tuple[Parameter, ...] = ("address", "int32", "address", "int32", "address")

KERNELS: Mapping[str, tuple[str, tuple[Parameter, ...]]] = MappingProxyType(
    {
        "copy_segments": ("copy_segments.cu", _COPY_PARAMETERS),
        "unshuffle_bytes": ("unshuffle.cu", _COPY_PARAMETERS),
        "unshuffle_bits": ("unshuffle.cu", _COPY_PARAMETERS),
        "blosclz": ("blosclz.cu", _COPY_PARAMETERS),
        "checksum_parts": ("checksum_parts.cu", _COPY_PARAMETERS),
        "checksum_verify": ("checksum_verify.cu", _COPY_PARAMETERS),
        "checksum_xxh64": ("checksum_xxh64.cu", _COPY_PARAMETERS),
        "blosc_headers": ("blosc_headers.cu", _COPY_PARAMETERS),
        "zstd_headers": ("blosc_headers.cu", _COPY_PARAMETERS),
        "delta_sums": ("delta.cu", _COPY_PARAMETERS),
        "delta_apply": ("delta.cu", _COPY_PARAMETERS),
        "delta_floats": ("delta_floats.cu", _COPY_PARAMETERS),
        "convert": ("convert.cu", _COPY_PARAMETERS),
        "unpack_bits": ("unpack_bits.cu", _COPY_PARAMETERS),
        "lzw": ("lzw.cu", _COPY_PARAMETERS),
        "packbits_runs": ("packbits_runs.cu", _COPY_PARAMETERS),
        "predictor": ("predictor.cu", _COPY_PARAMETERS),
        "unpack_samples": ("unpack_samples.cu", _COPY_PARAMETERS),
        "resample": ("resample.cu", _COPY_PARAMETERS),
        "jpeg_scan": ("jpeg_scan.cu", _COPY_PARAMETERS),
        "mark_planes": ("ycbcr.cu", _COPY_PARAMETERS),
        "ycbcr": ("ycbcr.cu", _COPY_PARAMETERS),
        "gather": (
            "gather.cu",
            ("address", "int32", "address", "int32", "address", "int32", "address"),
        ),
    }
)
"""Source file and parameter types of each kernel.

``gather``: ``(jobs, n_jobs, tile_starts, tile_elements, layouts, n_layouts, status)``;
all others: ``(jobs, n_jobs, tile_starts, tile_size, status)``.
"""

_RAW_TYPES = {1: ElementType.RAW1, 2: ElementType.RAW2, 4: ElementType.RAW4, 8: ElementType.RAW8,
              16: ElementType.RAW16}  # fmt: skip
_TYPES = {"b1": ElementType.BOOL, "i1": ElementType.I1, "u1": ElementType.U1, "i2": ElementType.I2,
          "u2": ElementType.U2, "i4": ElementType.I4, "u4": ElementType.U4, "i8": ElementType.I8,
          "u8": ElementType.U8, "f2": ElementType.F2, "f4": ElementType.F4,
          "f8": ElementType.F8}  # fmt: skip


def element_type(dtype: np.dtype[Any]) -> ElementType | None:
    """Type code of a dtype of either byte order; None where `gather` cannot move it.

    Complex, datetime, void and similar are opaque: they can be copied, not cast.

    >>> element_type(np.dtype(">u2")).name, element_type(np.dtype("c8")).name
    ('U2', 'RAW8')
    """
    if dtype.name == "bfloat16":  # of ml_dtypes, whose kind is that of opaque bytes
        return ElementType.BF16
    known = _TYPES.get(f"{dtype.kind}{dtype.itemsize}")
    return known if known is not None else _RAW_TYPES.get(dtype.itemsize)


def opaque_types(itemsize: NDArray[np.int64]) -> NDArray[np.int32]:
    """Type codes of elements of 1, 2, 4, 8 or 16 bytes that are moved as they are.

    >>> opaque_types(np.array([16, 2])).tolist()
    [16, 13]
    """
    codes = np.full(max(_RAW_TYPES) + 1, -1, np.int32)
    codes[list(_RAW_TYPES)] = list(_RAW_TYPES.values())
    return codes[itemsize]


def swap_nbytes(dtype: np.dtype[Any]) -> int:
    """Bytes of each unit of an element that `gather` must reverse; 0 for native order.

    >>> swap_nbytes(np.dtype(">u2")), swap_nbytes(np.dtype(">c8")), swap_nbytes(np.dtype("<f4"))
    (2, 4, 0)
    """
    if dtype.isnative or dtype.itemsize == 1:
        return 0
    return dtype.itemsize // 2 if dtype.kind == "c" else dtype.itemsize


def tile_starts(sizes: ArrayLike, tile: int) -> NDArray[np.int64]:
    """Sum up the tiles of the jobs: ``n_jobs + 1`` entries, the last one is the total.

    Parameters
    ----------
    sizes : int array, shape (n_jobs,)
        Bytes (copy, unshuffle) or elements of the box (gather) of each job.
    tile : int
        Size of a tile in the same unit.

    An empty job has one tile too, so that its status is written.

    >>> tile_starts([10, 0, 25], 10).tolist()
    [0, 1, 2, 5]
    """
    counts = np.maximum(-(-np.asarray(sizes, np.int64) // tile), 1)
    starts = np.zeros(counts.size + 1, np.int64)
    np.cumsum(counts, out=starts[1:])
    return starts


def grid_blocks(n_tiles: int, block_threads: int, *, max_blocks: int = 1 << 20) -> int:
    """Blocks that give each tile a warp; kernels loop over tiles if there are fewer.

    >>> grid_blocks(9, 128)
    3
    """
    return min(max(-(-n_tiles * 32 // block_threads), 1), max_blocks)
