"""What each kernel will touch, from its arguments: the emulator checks it before a launch."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import numpy as np

from zarrgpu.devices.tables import (
    CHECKSUM_JOB,
    CONVERT_JOB,
    COPY_JOB,
    DELTA_JOB,
    GATHER_JOB,
    GATHER_LAYOUT,
    HEADER_JOB,
    IMAGE_JOB,
    PREDICTOR_JOB,
    RESAMPLE_JOB,
    SAMPLES_JOB,
    SCAN_JOB,
    STREAM_JOB,
    UNPACK_JOB,
    UNSHUFFLE_JOB,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# (address, size) fields of each job; a size may be a number.
_BYTES = [("source", "source_nbytes"), ("target", "target_nbytes")]
_FILTER = [("first", "first_nbytes"), ("weight", "weight_nbytes"), ("scale", 4), ("offset", 4)]
_CHECKSUM = [("source", "source_nbytes"), ("stored", 4), ("parts", "parts_nbytes")]

# Job table and its fields, for kernels of the arguments (jobs, n_jobs, tile_starts, tile, status).
JOBS: dict[str, tuple[np.dtype[Any], list[tuple[str, str | int]]]] = {
    "copy_segments": (COPY_JOB, _BYTES),
    "blosclz": (COPY_JOB, _BYTES),
    "blosc_headers": (HEADER_JOB, _BYTES),
    "zstd_headers": (HEADER_JOB, _BYTES),
    "unshuffle_bytes": (UNSHUFFLE_JOB, _BYTES),
    "unshuffle_bits": (UNSHUFFLE_JOB, _BYTES),
    "checksum_parts": (CHECKSUM_JOB, _CHECKSUM),
    "checksum_verify": (CHECKSUM_JOB, _CHECKSUM),
    "checksum_xxh64": (CHECKSUM_JOB, _CHECKSUM),
    "delta_sums": (DELTA_JOB, [*_BYTES, ("sums", "sums_nbytes")]),
    "delta_apply": (DELTA_JOB, [*_BYTES, ("sums", "sums_nbytes")]),
    "delta_floats": (DELTA_JOB, _BYTES),
    "convert": (CONVERT_JOB, _BYTES),
    "unpack_bits": (UNPACK_JOB, [*_BYTES, ("padding", 1)]),
    "lzw": (STREAM_JOB, _BYTES),
    "packbits_runs": (STREAM_JOB, _BYTES),
    "predictor": (PREDICTOR_JOB, _BYTES),
    "unpack_samples": (SAMPLES_JOB, _BYTES),
    "resample": (RESAMPLE_JOB, [*_BYTES, *_FILTER]),
    "jpeg_scan": (SCAN_JOB, [("source", "source_nbytes")]),
    "mark_planes": (IMAGE_JOB, _BYTES),
    "ycbcr": (IMAGE_JOB, _BYTES),
}

# (argument of the table, its dtype, argument of its length) for each kernel.
TABLES: dict[str, list[tuple[int, np.dtype[Any], int]]] = {
    **{kernel: [(0, dtype, 1)] for kernel, (dtype, _) in JOBS.items()},
    "gather": [(0, GATHER_JOB, 1), (4, GATHER_LAYOUT, 5)],
}
STATUS_ARGUMENT = {**dict.fromkeys(JOBS, 4), "gather": 6}
_ADDRESSES = (
    *("source", "target", "scale", "offset", "stored", "parts", "sums", "padding"),
    *("first", "weight"),
)


def read_table(address: int, dtype: np.dtype[Any], n: int) -> np.ndarray:
    """View `n` entries at an address."""
    if n == 0:
        return np.empty(0, dtype)
    buffer = (ctypes.c_uint8 * (n * dtype.itemsize)).from_address(address)
    return np.frombuffer(buffer, dtype)


def table_ranges(kernel: str, args: Sequence[int]) -> Iterator[tuple[int, int, str]]:
    """Address, size and name of each table argument, and of the statuses."""
    n_jobs = args[1]
    for argument, dtype, length in TABLES[kernel]:
        yield args[argument], args[length] * dtype.itemsize, f"table {argument}"
    yield args[2], (n_jobs + 1) * 8, "tile starts"
    yield args[STATUS_ARGUMENT[kernel]], n_jobs * 4, "statuses"


def job_ranges(kernel: str, args: Sequence[int]) -> Iterator[tuple[Any, Any, str]]:
    """Addresses and sizes that the jobs claim, as arrays, with a name."""
    jobs = read_table(args[0], TABLES[kernel][0][1], args[1])
    if kernel != "gather":
        for address, size in JOBS[kernel][1]:
            sizes = jobs[size] if isinstance(size, str) else np.full(len(jobs), size)
            yield jobs[address], np.where(jobs[address] == 0, 0, sizes), f"{kernel} {address}"
        return
    yield jobs["source"], np.where(jobs["source"] == 0, 0, jobs["source_nbytes"]), "gather source"
    layouts = read_table(args[4], GATHER_LAYOUT, args[5])
    yield layouts["target"], layouts["target_nbytes"], "gather target"
    n_channels = np.where(layouts["scale"] == 0, 0, layouts["n_channels"])
    yield layouts["scale"], n_channels * 4, "gather scale"
    yield layouts["offset"], n_channels * 4, "gather offset"


def address_fields(kernel: str) -> Iterator[tuple[int, np.dtype[Any], int, list[str]]]:
    """Argument, dtype, length argument and address fields of each table with addresses in it."""
    for argument, dtype, length in TABLES.get(kernel, []):
        yield argument, dtype, length, [f for f in _ADDRESSES if f in (dtype.names or ())]
