"""Signatures of the kernels, and how their work is cut into tiles and blocks.

Every kernel takes a table of jobs (`tables`), a table of *tile starts* (`tile_starts`) and writes
one `tables.JobStatus` per job.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray

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
