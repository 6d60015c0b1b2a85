"""`PatchLoader`: batches of patches, read ahead by a thread that plans a window of them together.

A window is as many coming batches as fit the memory budget. It is one plan: a chunk that several of
its batches touch is fetched and decoded once. That is the largest gain there is for random patches.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from zarrgpu.devices.resolve import DeviceLike, resolve_device
from zarrgpu.errors import SelectionError
from zarrgpu.model import ReadOptions
from zarrgpu.patches import Layout, patch_format, read_slide_patches
from zarrgpu.reader import OnError
from zarrgpu.sampling import PatchTable, Sampler
from zarrgpu.stats import ReadStats

_POLL_S = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """One training batch.

    Attributes
    ----------
    images : array of the loader's device, shape (N, H, W, C) or (N, C, H, W)
        A view of the window that it was read with.
    locations : int64 (N, 2)
        (x, y) of each patch in its slide's level-0 frame.
    slides : int32 (N,)
        Which of the sampler's slides each patch is from.
    indices : int64 (N,)
        Number of each patch in the epoch.
    valid : bool (N,)
        False for patches that could not be read (only with ``on_error="mask"``).
    """

    images: Any
    locations: NDArray[np.int64]
    slides: NDArray[np.int32]
    indices: NDArray[np.int64]
    valid: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.slides)

    def __dlpack__(self, **kwargs: Any) -> Any:
        """Hand the images to another framework without a copy."""
        return self.images.__dlpack__(**kwargs)

    def __dlpack_device__(self) -> Any:
        """Where the images lie, as DLPack numbers devices."""
        return self.images.__dlpack_device__()


@dataclass(frozen=True, slots=True, eq=False)
class _Failure:
    error: BaseException


class PatchLoader:
    """Iterate over batches of patches, once through the sampler's epoch each time.

    Parameters
    ----------
    sampler : RandomPatches, GridPatches or any `sampling.Sampler`
    batch_size : int
    layout : "NCHW" or "NHWC"
    dtype : dtype, optional
        float16, float32 or float64; default the stored type, or float32 when normalising.
    normalize : (mean, std), optional
        Scalars or one value per channel, in stored units.
    device : None, str or Device
        Where the batches lie; None takes a CUDA device if there is one.
    prefetch : int
        Windows read ahead while another is consumed; 0 reads when asked.
    window_batches : int, optional
        Batches planned together; default as many as the memory budget holds.
    rank, world_size : int
        This process reads patches ``rank, rank + world_size, ...`` of the epoch; all ranks get the
        same number (the epoch is continued from its start where it does not divide).
    drop_last : bool
        Leave out a last batch that is not full.
    options : ReadOptions, optional
        ``memory_budget_bytes`` bounds the windows held at a time.
    on_error : "raise" or "mask"
        See `Batch.valid`.
    """

    def __init__(
        self,
        sampler: Sampler,
        *,
        batch_size: int = 32,
        layout: Layout = "NCHW",
        dtype: DTypeLike | None = None,
        normalize: tuple[ArrayLike, ArrayLike] | None = None,
        device: DeviceLike = None,
        prefetch: int = 1,
        window_batches: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = False,
        options: ReadOptions | None = None,
        on_error: OnError = "raise",
    ) -> None:
        if batch_size < 1 or prefetch < 0 or (window_batches is not None and window_batches < 1):
            msg = (
                "batch_size and window_batches must be at least 1 and prefetch at least 0, "
                f"got {batch_size}, {window_batches} and {prefetch}"
            )
            raise SelectionError(msg)
        if not 0 <= rank < world_size:
            msg = f"rank must lie in 0..world_size - 1, got rank {rank} of {world_size}"
            raise SelectionError(msg)
        self.sampler = sampler
        self.batch_size = batch_size
        self.layout: Layout = layout
        self.dtype = dtype
        self.normalize = normalize
        self.prefetch = prefetch
        self.rank = rank
        self.world_size = world_size
        self.drop_last = drop_last
        self.options = options or ReadOptions()
        self.on_error: OnError = on_error
        self.stats = ReadStats()
        self.epoch = 0
        self._device = resolve_device(device)
        self._next_batch = 0
        self._window_batches = window_batches or self._fitting_batches()

    @property
    def device(self) -> str:
        """Name of the device that batches lie on."""
        return self._device.name

    @property
    def window_batches(self) -> int:
        """Batches planned together."""
        return self._window_batches

    def __len__(self) -> int:
        """Batches of an epoch on this rank."""
        patches = -(-len(self.sampler) // self.world_size)
        full, rest = divmod(patches, self.batch_size)
        return full + bool(rest and not self.drop_last)

    def __iter__(self) -> Iterator[Batch]:
        """Go through the epoch, from where a loaded state says; then the next epoch is due."""
        table = self.sampler.epoch_patches(self.epoch)
        indices = self._rank_indices(len(table))
        windows = self._windows(table, indices, range(self._next_batch, len(self)))
        try:
            for window in windows:
                for batch in window:
                    self._next_batch += 1
                    yield batch
        finally:
            windows.close()
        self.epoch += 1
        self._next_batch = 0

    def set_epoch(self, epoch: int) -> None:
        """Start the next iteration at the beginning of `epoch`."""
        self.epoch, self._next_batch = epoch, 0

    def state_dict(self) -> dict[str, int]:
        """Where iteration stands: what `load_state_dict` of an equal loader continues from."""
        return {"epoch": self.epoch, "batch": self._next_batch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue where another loader's `state_dict` stood."""
        epoch, batch = int(state["epoch"]), int(state["batch"])
        if epoch < 0 or not 0 <= batch <= len(self):
            msg = f"state {state} does not fit a loader of {len(self)} batches"
            raise SelectionError(msg)
        self.epoch, self._next_batch = epoch, batch

    def _fitting_batches(self) -> int:
        """Batches of which ``prefetch + 1`` windows fit the memory budget."""
        width, height = self.sampler.size
        made = patch_format(
            self.sampler.slides, self.dtype, self.normalize, self.sampler.levels
        )
        patch = width * height * self.sampler.slides[0].channel_count * made.dtype.itemsize
        budget = self.options.memory_budget_bytes // (self.prefetch + 1)
        return max(1, budget // max(1, patch * self.batch_size))

    def _rank_indices(self, n: int) -> NDArray[np.int64]:
        per_rank = -(-n // self.world_size)
        everyone = np.arange(per_rank * self.world_size, dtype=np.int64) % max(n, 1)
        return everyone[self.rank :: self.world_size]

    def _windows(self, table: PatchTable, indices: NDArray[np.int64], batches: range) -> Any:
        """Generate windows (lists of batches), read ahead where asked."""
        chunks = [
            batches[i : i + self._window_batches]
            for i in range(0, len(batches), self._window_batches)
        ]
        if self.prefetch == 0:
            for chunk in chunks:
                yield self._read_window(table, indices, chunk)
            return
        yield from self._read_ahead(table, indices, chunks)

    def _read_ahead(
        self, table: PatchTable, indices: NDArray[np.int64], chunks: list[range]
    ) -> Any:
        """Generate windows that a thread reads, at most `prefetch` of them ahead."""
        ready: queue.SimpleQueue[list[Batch] | _Failure] = queue.SimpleQueue()
        room = threading.Semaphore(self.prefetch)
        stop = threading.Event()

        def produce() -> None:
            try:
                for chunk in chunks:
                    while not room.acquire(timeout=_POLL_S):
                        if stop.is_set():
                            return
                    if stop.is_set():
                        return
                    ready.put(self._read_window(table, indices, chunk))
            except BaseException as error:
                ready.put(_Failure(error))

        thread = threading.Thread(target=produce, name="zarrgpu-prefetch", daemon=True)
        thread.start()
        try:
            for _ in chunks:
                window = ready.get()
                if isinstance(window, _Failure):
                    raise window.error
                room.release()
                yield window
                del window
        finally:
            stop.set()
            thread.join()

    def _read_window(
        self, table: PatchTable, indices: NDArray[np.int64], batches: range
    ) -> list[Batch]:
        """Read the patches of several batches in one plan, and cut the result into batches."""
        rows = indices[batches.start * self.batch_size : batches.stop * self.batch_size]
        images, valid = read_slide_patches(
            self.sampler.slides,
            table.slide[rows],
            table.location[rows],
            self.sampler.levels,
            self.sampler.size,
            layout=self.layout,
            dtype=self.dtype,
            normalize=self.normalize,
            device=self._device,
            options=self.options,
            stats=self.stats,
            on_error=self.on_error,
        )
        cuts = range(0, len(rows), self.batch_size)
        return [
            Batch(
                images[i : i + self.batch_size],
                table.location[rows[i : i + self.batch_size]],
                table.slide[rows[i : i + self.batch_size]],
                rows[i : i + self.batch_size],
                valid[i : i + self.batch_size],
            )
            for i in cuts
        ]
