"""Job tables and codes of the kernels: the Python side of kernels/common.cuh.

NumPy dtypes here and structs there are the same bytes; tests/test_kernels.py holds them together.
How kernels are called is in `kernels`.
"""

from __future__ import annotations

from enum import IntEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping


MAX_DIMS = 6
"""Dimensions of a gather piece; dims that are not used come first and have extent 1."""


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
