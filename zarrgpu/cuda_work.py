"""One batched call on the device, its tables, and what it writes back.

A wave is a list of `Work`: all tables of all works go to the device in one copy, the calls are
issued one after the other on one stream, and all statuses come back in one copy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast, get_args

import numpy as np
from numpy.typing import NDArray

from zarrgpu.devices.batches import library_parts
from zarrgpu.devices.cuda import ALIGNMENT, Slot
from zarrgpu.devices.driver import Driver, Stream
from zarrgpu.devices.element_types import opaque_types
from zarrgpu.devices.kernels import (
    CHECKSUM_TILE_NBYTES,
    COPY_TILE_NBYTES,
    ELEMENT_TILE,
    GATHER_TILE_ELEMENTS,
    PREDICTOR_TILE_ROWS,
    WHOLE_TILE,
    grid_blocks,
    tile_starts,
)
from zarrgpu.devices.requests import (
    ChecksumBatch,
    DecompressBatch,
    ImageBatch,
    ImageFormat,
    LibraryFormat,
)
from zarrgpu.devices.tables import (
    CHECKSUM_JOB,
    CONVERT_JOB,
    COPY_JOB,
    DELTA_JOB,
    GATHER_JOB,
    GATHER_LAYOUT,
    IMAGE_JOB,
    IMAGE_PLANES,
    MAX_DIMS,
    PREDICTOR_JOB,
    SAMPLES_JOB,
    SCAN_JOB,
    STREAM_JOB,
    UNPACK_JOB,
    UNSHUFFLE_JOB,
)
from zarrgpu.plan.tables import Int64s

GATHER: Final = "gather"

Results = list[NDArray[Any]]
Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class KernelStep:
    """A step of `codecs.device_steps` that kernels of ours do.

    Attributes
    ----------
    job : numpy.dtype
        Its fields are the step's columns; bounds that no column gives are ``nbytes``.
    tile : int
        Size of a tile, in the unit of the column `size`.
    kernels : tuple of str
        Launched one after the other on the same jobs; the last one's statuses count.
    size : str
        Column with the size of a job.
    """

    job: np.dtype[Any]
    tile: int
    kernels: tuple[str, ...]
    size: str = "nbytes"


KERNEL_STEPS: Final = {
    "copy_segments": KernelStep(COPY_JOB, COPY_TILE_NBYTES, ("copy_segments",)),
    "unshuffle_bytes": KernelStep(UNSHUFFLE_JOB, COPY_TILE_NBYTES, ("unshuffle_bytes",)),
    "unshuffle_bits": KernelStep(UNSHUFFLE_JOB, COPY_TILE_NBYTES, ("unshuffle_bits",)),
    "blosclz": KernelStep(COPY_JOB, WHOLE_TILE, ("blosclz",)),
    "checksum": KernelStep(
        CHECKSUM_JOB, CHECKSUM_TILE_NBYTES, ("checksum_parts", "checksum_verify")
    ),
    "convert": KernelStep(CONVERT_JOB, ELEMENT_TILE, ("convert",), "n"),
    "delta": KernelStep(DELTA_JOB, ELEMENT_TILE, ("delta_sums", "delta_apply"), "n"),
    "delta_floats": KernelStep(DELTA_JOB, WHOLE_TILE, ("delta_floats",), "n"),
    "lzw": KernelStep(STREAM_JOB, WHOLE_TILE, ("lzw",)),
    "packbits_runs": KernelStep(STREAM_JOB, WHOLE_TILE, ("packbits_runs",)),
    "predictor": KernelStep(PREDICTOR_JOB, PREDICTOR_TILE_ROWS, ("predictor",), "rows"),
    "unpack_samples": KernelStep(SAMPLES_JOB, ELEMENT_TILE, ("unpack_samples",), "n"),
    "unpack_bits": KernelStep(UNPACK_JOB, ELEMENT_TILE, ("unpack_bits",), "n"),
    "jpeg_scan": KernelStep(SCAN_JOB, COPY_TILE_NBYTES, ("jpeg_scan",)),
    "mark_planes": KernelStep(IMAGE_JOB, ELEMENT_TILE, ("mark_planes",), "n"),
    "ycbcr": KernelStep(IMAGE_JOB, ELEMENT_TILE, ("ycbcr",), "n"),
    "xxh64": KernelStep(CHECKSUM_JOB, WHOLE_TILE, ("checksum_xxh64",)),
}
"""Name of a step -> how kernels do it."""


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """A batched call.

    Attributes
    ----------
    name : str
        Of the step, for profilers.
    tables : sequence of arrays
        Placed in device memory.
    results : sequence of (dtype, count)
        Arrays that the call writes in device memory.
    run : callable
        Takes the addresses of the tables and of the results, and the temporary device memory that
        it may use at a time; issues the calls and returns how many.
    failed : callable
        Takes the results; gives the chunk rows that went wrong.
    """

    name: str
    tables: Sequence[NDArray[Any]]
    results: Sequence[tuple[str, int]]
    run: Callable[[list[int], list[int], float], int]
    failed: Callable[[Results], Int64s]

    def room_nbytes(self) -> int:
        """Upper bound of what the tables and results take in a table arena."""
        sizes = [table.nbytes for table in self.tables]
        sizes += [np.dtype(dtype).itemsize * n for dtype, n in self.results]
        return sum(size + ALIGNMENT for size in sizes)


def submit(slot: Slot, works: Sequence[Work]) -> Callable[[], Int64s]:
    """Issue works on a slot's stream; the last one is the gather, if there is one.

    Returns
    -------
    callable
        To be called once ``slot.done`` is: gives the chunk rows that went wrong, sorted.
    """
    tables = slot.tables
    tables.reserve(sum(work.room_nbytes() for work in works))
    placed = [[tables.place(table) for table in work.tables] for work in works]
    room = [[tables.result(np.dtype(d).itemsize * n) for d, n in work.results] for work in works]
    driver, stream, clock = slot.driver, slot.stream, slot.clock
    with driver.annotate("zarrgpu copy"):
        tables.send()
    clock.end_of("copy", stream)
    decoding = True
    for work, addresses, results in zip(works, placed, room, strict=True):
        if decoding and work.name == GATHER:
            clock.end_of("decode", stream)
            decoding = False
        with driver.annotate(f"zarrgpu {work.name}"):
            at = [address for _, address in results]
            slot.launches += work.run(addresses, at, slot.temp_nbytes)
    if decoding:
        clock.end_of("decode", stream)
    clock.end_of("gather", stream)
    tables.fetch_results()
    slot.done.record(slot.stream)

    def failed_rows() -> Int64s:
        found = [np.empty(0, np.int64)]
        for work, results in zip(works, room, strict=True):
            values = [
                tables.read(at, dtype, n)
                for (at, _), (dtype, n) in zip(results, work.results, strict=True)
            ]
            found.append(work.failed(values))
        return np.unique(np.concatenate(found))

    return failed_rows


def calls_of(name: str) -> int:
    """Launches and library calls of a step, if it is not cut for its temporary memory."""
    step = KERNEL_STEPS.get(name)
    return 1 if step is None else len(step.kernels)


def step_work(driver: Driver, name: str, columns: Columns, stream: Stream) -> Work:
    """Work of a step whose columns hold device addresses."""
    if name == "crc32c":
        return _checksum_work(driver, columns, stream)
    if name in get_args(LibraryFormat):
        return _decompress_work(driver, cast("LibraryFormat", name), columns, stream)
    if name in get_args(ImageFormat):
        return _image_work(driver, cast("ImageFormat", name), columns, stream)
    if name == "transpose":
        return _transpose_work(driver, columns, stream)
    step = KERNEL_STEPS[name]
    jobs = np.zeros(len(columns["row"]), step.job)
    for field in step.job.names or ():
        if field in columns:
            jobs[field] = columns[field]
        elif field in ("source_nbytes", "target_nbytes"):
            jobs[field] = columns["nbytes"]
    sizes = columns[step.size]
    return _kernel_work(
        driver, name, step.kernels, columns["row"], jobs, sizes, step.tile, None, stream
    )


def _transpose_work(driver: Driver, columns: Columns, stream: Stream) -> Work:
    """Boxes of chunks in another order of axes, by the gather kernel; a layout for each."""
    row, n = columns["row"], len(columns["row"])
    jobs, layouts = np.zeros(n, GATHER_JOB), np.zeros(n, GATHER_LAYOUT)
    jobs["source"], jobs["source_nbytes"] = columns["source"], columns["nbytes"]
    jobs["layout"] = np.arange(n)
    layouts["target"], layouts["target_nbytes"] = columns["target"], columns["nbytes"]
    stride = np.ones(n, np.int64)
    for k in reversed(range(MAX_DIMS)):
        jobs["extents"][:, k] = columns[f"extent{k}"]
        layouts["source_strides"][:, k] = columns[f"stride{k}"]
        layouts["target_strides"][:, k] = stride
        stride *= columns[f"extent{k}"]
    layouts["ndim"], layouts["channel_dim"] = MAX_DIMS, -1
    layouts["source_type"] = layouts["target_type"] = opaque_types(columns["itemsize"])
    layouts["swap_nbytes"] = columns["swap"]
    return gather_work(driver, row, jobs, layouts, stream, name="transpose")


def _decompress_work(
    driver: Driver, library_format: LibraryFormat, columns: Columns, stream: Stream
) -> Work:
    """Decode streams with a library; wrong statuses and wrong sizes are failures.

    A batch is cut where the library's temporary memory would exceed its bound. Each part is told
    the exact size of its streams, which that memory depends on.
    """
    row, nbytes = columns["row"], columns["nbytes"]
    n = len(row)

    def run(tables: list[int], results: list[int], temp_nbytes: float) -> int:
        parts = library_parts(driver, library_format, nbytes, temp_nbytes)
        for first, last in parts:
            batch = DecompressBatch(
                n_chunks=last - first,
                sources=tables[0] + 8 * first,
                source_nbytes=tables[1] + 8 * first,
                targets=tables[2] + 8 * first,
                target_nbytes=tables[3] + 8 * first,
                decoded_nbytes=results[0] + 8 * first,
                statuses=results[1] + 4 * first,
                max_target_nbytes=int(nbytes[first:last].max()),
                total_target_nbytes=int(nbytes[first:last].sum()),
            )
            driver.decompress(library_format, batch, stream)
        return len(parts)

    names = ("source", "source_nbytes", "target", "nbytes")
    return Work(
        library_format,
        [columns[name].astype(np.uint64) for name in names],
        [("u8", n), ("i4", n)],
        run,
        lambda results: row[(results[1] != 0) | (results[0] != nbytes.astype(np.uint64))],
    )


def _image_work(
    driver: Driver, image_format: ImageFormat, columns: Columns, stream: Stream
) -> Work:
    """Decode images with a library to planes, one after the other from ``target`` on.

    What the library leaves undecoded in spite of its status, `ycbcr` finds.
    """
    row, n = columns["row"], len(columns["row"])
    planes, samples = np.zeros(n, IMAGE_PLANES), columns["samples"]
    at = columns["target"].copy()
    for c in range(planes["channel"].shape[1]):
        chroma = c in (1, 2)
        there = samples > c
        planes["channel"][:, c] = np.where(there, at, 0)
        planes["pitch"][:, c] = np.where(there, columns["chroma_pitch" if chroma else "pitch"], 0)
        at += columns["chroma_nbytes" if chroma else "plane_nbytes"]
    batch = ImageBatch(
        sources=columns["bitstream"].astype(np.uint64),
        source_nbytes=columns["bitstream_nbytes"].astype(np.uint64),
        planes=planes,
        samples=samples,
        sample_nbytes=columns["sample_nbytes"],
        signed=columns["signed"].astype(np.bool_),
        tables=columns["tables"],
        tables_nbytes=columns["tables_nbytes"],
        statuses=np.zeros(n, np.int32),
    )

    def run(tables: list[int], results: list[int], temp_nbytes: float) -> int:
        del tables, results, temp_nbytes
        driver.decode_images(image_format, batch, stream)
        return 1

    return Work(image_format, [], [], run, lambda results: row[batch.statuses != 0])


def _checksum_work(driver: Driver, columns: Columns, stream: Stream) -> Work:
    """CRC-32C of byte ranges by the library; a mismatch is a failure."""
    row, nbytes, expected = columns["row"], columns["nbytes"], columns["expected"]
    n = len(row)

    def run(tables: list[int], results: list[int], temp_nbytes: float) -> int:
        del temp_nbytes
        batch = ChecksumBatch(
            n_chunks=n,
            sources=tables[0],
            source_nbytes=tables[1],
            checksums=results[0],
            statuses=results[1],
            max_source_nbytes=int(nbytes.max()),
        )
        driver.crc32c(batch, stream)
        return 1

    return Work(
        "crc32c",
        [columns["source"].astype(np.uint64), nbytes.astype(np.uint64)],
        [("u4", n), ("i4", n)],
        run,
        lambda results: row[(results[1] != 0) | (results[0] != expected.astype(np.uint32))],
    )


def gather_work(
    driver: Driver,
    row: Int64s,
    jobs: NDArray[Any],
    layouts: NDArray[Any],
    stream: Stream,
    *,
    name: str = GATHER,
) -> Work:
    """The gather of a wave; `row` is each job's chunk, or -1 for a fill."""
    volume = np.prod(jobs["extents"], axis=1, dtype=np.int64)
    return _kernel_work(
        driver, name, ("gather",), row, jobs, volume, GATHER_TILE_ELEMENTS, layouts, stream
    )


def _kernel_work(
    driver: Driver,
    name: str,
    kernels: tuple[str, ...],
    row: Int64s,
    jobs: NDArray[Any],
    sizes: Int64s,
    tile: int,
    layouts: NDArray[Any] | None,
    stream: Stream,
) -> Work:
    starts = tile_starts(sizes, tile)
    grid = grid_blocks(int(starts[-1]), driver.block_threads)

    def run(tables: list[int], results: list[int], temp_nbytes: float) -> int:
        del temp_nbytes
        args = [tables[0], len(jobs), tables[1], tile]
        if layouts is not None:
            args += [tables[2], len(layouts)]
        for kernel in kernels:
            driver.launch(kernel, grid, driver.block_threads, [*args, results[0]], stream)
        return len(kernels)

    tables = [jobs, starts] if layouts is None else [jobs, starts, layouts]
    return Work(name, tables, [("i4", len(jobs))], run, lambda results: row[results[0] != 0])
