"""Run kernels of the tests on the emulated device, plain or under a sanitizer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tests.emulator.driver import EmulatedDriver
from tests.emulator.standalone import run_sanitized
from zarrgpu.devices.element_types import element_type, swap_nbytes
from zarrgpu.devices.kernel_sources import kernels_folder
from zarrgpu.devices.kernels import KERNELS, grid_blocks, tile_starts
from zarrgpu.devices.tables import GATHER_JOB, GATHER_LAYOUT, MAX_DIMS

if TYPE_CHECKING:
    from tests.emulator.build import Sanitizer
    from tests.emulator.memory import EmulatedMemory
    from tests.kernel_references import Piece


class Bench:
    """An emulated device with its memory at hand."""

    def __init__(self, block_threads: int = 64) -> None:
        self.driver = EmulatedDriver()
        self.stream = self.driver.create_stream()
        self.block_threads = block_threads
        self.kept: list[EmulatedMemory] = []

    def empty(self, nbytes: int, misalign: int = 0) -> EmulatedMemory:
        """Fresh device memory; `misalign` bytes of it are skipped by `address`."""
        memory = self.driver.allocate(nbytes + misalign, self.stream)
        self.kept.append(memory)
        return memory

    def zeros(self, nbytes: int) -> EmulatedMemory:
        """Device memory of zeros."""
        memory = self.empty(nbytes)
        memory.array[:] = 0
        return memory

    def put(self, array: np.ndarray, misalign: int = 0) -> int:
        """Address of a copy of an array, that many bytes off alignment."""
        content = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        memory = self.empty(content.size, misalign)
        memory.array[misalign:] = content
        return memory.ptr + misalign

    def run(
        self,
        kernel: str,
        jobs: np.ndarray,
        sizes: Any,
        tile: int,
        *,
        layouts: np.ndarray | None = None,
        sanitizer: Sanitizer | None = None,
        watch: EmulatedMemory | None = None,
        zeroed: bool = False,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Statuses, and the bytes of `watch` (empty if None) after the launch.

        With `zeroed` statuses are 0 before it, else anything.
        """
        starts = tile_starts(sizes, tile)
        status = self.empty(4 * len(jobs))
        if zeroed:
            status.array[:] = 0
        args = [self.put(jobs), len(jobs), self.put(starts), tile]
        if layouts is not None:
            args += [self.put(layouts), len(layouts)]
        args.append(status.ptr)
        grid = grid_blocks(int(starts[-1]), self.block_threads)
        if sanitizer is None:
            self.driver.launch(kernel, grid, self.block_threads, args, self.stream)
            after = {m.ptr: m.array for m in self.kept}
        else:
            source, types = KERNELS[kernel]
            memory = self.driver.registry.live("device")
            contents = run_sanitized(
                sanitizer, kernels_folder() / source, kernel, grid, self.block_threads, args,
                [kind == "address" for kind in types], memory,
            )  # fmt: skip
            after = {a.ptr: c for a, c in zip(memory, contents, strict=True)}
        watched = after[watch.ptr].copy() if watch is not None else np.empty(0, np.uint8)
        return after[status.ptr].view("<i4").copy(), watched


def gather_tables(
    pieces: list[Piece],
    addresses: list[int],
    source_dtype: np.dtype[Any],
    out_dtype: np.dtype[Any],
    target: int,
    target_nbytes: int,
    fill: np.ndarray,
    scale: tuple[int, int, int],
    channel_dim: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Jobs and layouts, a layout for each piece."""
    jobs = np.zeros(len(pieces), GATHER_JOB)
    layouts = np.zeros(len(pieces), GATHER_LAYOUT)
    jobs["extents"] = 1
    for i, piece in enumerate(pieces):
        ndim = len(piece.extents)
        job, layout = jobs[i], layouts[i]
        job["source"] = addresses[i]
        job["source_nbytes"] = 0 if piece.chunk is None else piece.chunk.size
        job["source_offset"] = piece.source_offset
        job["target_offset"] = piece.target_offset
        job["layout"] = i
        job["channel_start"] = piece.channel_start
        job["shuffle_block_nbytes"] = piece.block_nbytes
        job["extents"][MAX_DIMS - ndim :] = piece.extents
        layout["target"], layout["target_nbytes"] = target, target_nbytes
        layout["source_strides"][MAX_DIMS - ndim :] = piece.source_strides
        layout["target_strides"][MAX_DIMS - ndim :] = piece.target_strides
        fill_bytes = np.asarray(fill, source_dtype.newbyteorder("=")).reshape(1).view(np.uint8)
        layout["fill"][: fill_bytes.size] = fill_bytes
        layout["scale"], layout["offset"], layout["n_channels"] = scale
        layout["channel_dim"] = channel_dim + MAX_DIMS - ndim if channel_dim >= 0 else -1
        layout["ndim"] = ndim
        layout["source_type"] = element_type(source_dtype)
        layout["target_type"] = element_type(out_dtype)
        layout["swap_nbytes"] = swap_nbytes(source_dtype)
    return jobs, layouts
