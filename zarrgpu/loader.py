"""`PatchLoader`: batches of patches, read ahead by a thread that plans a window of them together.

A window is as many coming batches as fit the memory budget. It is one plan: a chunk that several of
its batches touch is fetched and decoded once. That is the largest gain there is for random patches.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from zarrgpu.devices.host import HostDevice
from zarrgpu.devices.resolve import DeviceLike, resolve_device
from zarrgpu.errors import SelectionError
from zarrgpu.forks import tell_of_forks
from zarrgpu.model import ReadOptions
from zarrgpu.patches import (
    Layout,
    axis_layout,
    parse_integer,
    patch_format,
    patch_request,
)
from zarrgpu.read_ahead import Cancelled, read_ahead
from zarrgpu.reader import OnError
from zarrgpu.recycled import RecycledMemory
from zarrgpu.sampled_reads import patch_source_nbytes, read_sampled
from zarrgpu.sampling import PatchTable, Sampler
from zarrgpu.stats import ReadStats


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """One training batch.

    Attributes
    ----------
    images : array of the loader's device, shape (N, H, W, C) or (N, C, H, W)
        A view of the window that it was read with, whose memory is used again once nothing refers
        to it.
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


class PatchLoader:
    """Iterate over batches of patches, once through the sampler's epoch each time.

    A full iteration is followed by the next epoch. One that was left early is not: the next begins
    the same epoch anew, and so does ``next(iter(loader))``. To go on where iteration stood, load
    the state: ``loader.load_state_dict(state)``. Iterators are independent of one another, each
    with its own thread; `state_dict` tells of the one that was started last.

    A loader may be pickled, without its iterators; one on a CUDA device then looks for a device of
    the same name.

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
    fixed_epoch : int, optional
        Read this epoch of the sampler every time, as validation wants it.
    position : mapping of str to int, optional
        Index on the axes other than y, x and c (``{"z": 3, "t": 0}``), of the sampler's level, or
        of level 0 if it reads at a pixel size; 0 where not given.
    options : ReadOptions, optional
        ``memory_budget_bytes`` bounds the windows held at a time: the one consumed and those read
        ahead. A window has at least one batch, even if that is larger.
    on_error : "raise" or "mask"
        See `Batch.valid`.

    Attributes
    ----------
    epoch : int
        That is iterated, or will be next.
    stats : ReadStats
        Of all windows read so far.

    Raises
    ------
    SelectionError
        For settings that do not fit one another or the slides.
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
        fixed_epoch: int | None = None,
        position: Mapping[str, int] | None = None,
        options: ReadOptions | None = None,
        on_error: OnError = "raise",
    ) -> None:
        self.sampler = sampler
        self.batch_size = parse_integer(batch_size, "batch_size", least=1)
        self.layout: Layout = layout
        self.dtype = dtype
        self.normalize = normalize
        self.prefetch = parse_integer(prefetch, "prefetch", least=0)
        self.world_size = parse_integer(world_size, "world_size", least=1)
        self.rank = parse_integer(rank, "rank", least=0)
        if self.rank >= self.world_size:
            msg = f"rank must lie in 0..world_size - 1, got rank {rank} of {world_size}"
            raise SelectionError(msg)
        self.drop_last = drop_last
        self.fixed_epoch = fixed_epoch
        if fixed_epoch is not None:
            self.fixed_epoch = parse_integer(fixed_epoch, "fixed_epoch", least=0)
        self.position = None if position is None else dict(position)
        self.options = options or ReadOptions()
        self.on_error: OnError = on_error
        self.stats = ReadStats()
        self.epoch = 0
        self._device = resolve_device(device)
        self._next_batch = 0
        self._resumes = False
        self._iteration = object()
        self._stats_lock = threading.Lock()
        tell_of_forks(self)
        # windows: one that the consumer has, and those that are ready or being made
        self._memory = RecycledMemory(self.prefetch + 2)
        resampled = getattr(sampler, "steps", None) is not None
        levels = (0,) * len(sampler.slides) if resampled else sampler.levels
        patch_request(sampler.slides, [], [], levels, sampler.size, position)
        axis_layout(sampler.slides[0].axes, layout)
        fitting = self._fitting_batches()
        self._window_batches = fitting
        if window_batches is not None:
            self._window_batches = parse_integer(window_batches, "window_batches", least=1)

    def __getstate__(self) -> dict[str, Any]:
        state = {k: v for k, v in self.__dict__.items() if k not in ("_stats_lock", "_iteration")}
        if not isinstance(self._device, HostDevice):
            state["_device"] = self._device.name
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._device = resolve_device(self._device)
        self._stats_lock = threading.Lock()
        self._iteration = object()
        tell_of_forks(self)

    def after_fork(self) -> None:
        """Use a lock of its own in a forked process."""
        self._stats_lock = threading.Lock()

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
        """Go through an epoch from its start, or from where a loaded state says."""
        iteration = self._iteration = object()
        if not self._resumes:
            self._next_batch = 0
        self._resumes = False
        epoch, batches = self.epoch, range(self._next_batch, len(self))
        table = self.sampler.epoch_patches(epoch if self.fixed_epoch is None else self.fixed_epoch)
        windows = self._windows(table, batches)
        try:
            for window in windows:
                while window:  # emptied, so that a finished window does not wait for the next
                    if self._iteration is iteration:
                        self._next_batch += 1
                    yield window.pop(0)
        finally:
            windows.close()
        if self._iteration is iteration:
            self.epoch, self._next_batch = epoch + 1, 0

    def set_epoch(self, epoch: int) -> None:
        """Start the next iteration at the beginning of `epoch`."""
        self._go_to(parse_integer(epoch, "epoch", least=0), 0)

    def state_dict(self) -> dict[str, int]:
        """Where iteration stands: what `load_state_dict` of an equal loader continues from."""
        return {"epoch": self.epoch, "batch": self._next_batch}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Let the next iteration continue where another loader's `state_dict` stood."""
        try:
            epoch, batch = (
                parse_integer(state[name], name, least=0) for name in ("epoch", "batch")
            )
        except (KeyError, TypeError) as error:
            msg = f"a loader's state has an epoch and a batch, got {state!r}"
            raise SelectionError(msg) from error
        if batch > len(self):
            msg = f"state {dict(state)} does not fit a loader of {len(self)} batches"
            raise SelectionError(msg)
        self._go_to(epoch, batch)

    def _go_to(self, epoch: int, batch: int) -> None:
        self.epoch, self._next_batch = epoch, batch
        self._resumes = True
        self._iteration = object()  # a running iterator does not move this loader any more

    def _fitting_batches(self) -> int:
        """Batches of which as many windows fit the memory budget as are held at a time."""
        shape, dtype = self._window_format(1)
        patch = math.prod(shape) * dtype.itemsize + patch_source_nbytes(self.sampler)
        # without prefetch the consumer still has one batch of the last window while another is read
        budget = self.options.memory_budget_bytes // (max(self.prefetch, 1) + 1)
        return max(1, budget // max(1, patch * self.batch_size))

    def _window_format(self, n: int) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Shape and type of `n` patches."""
        sampler = self.sampler
        (width, height), channels = sampler.size, sampler.slides[0].channel_count
        made = patch_format(sampler.slides, self.dtype, self.normalize, sampler.levels)
        nhwc, nchw = (height, width, channels), (channels, height, width)
        return (n, *(nhwc if self.layout == "NHWC" else nchw)), made.dtype

    def _windows(self, table: PatchTable, batches: range) -> Generator[list[Batch], None, None]:
        """Generate windows (lists of batches), read ahead where asked."""
        per_rank = -(-len(table) // self.world_size)
        everyone = np.arange(per_rank * self.world_size, dtype=np.int64) % max(len(table), 1)
        indices = everyone[self.rank :: self.world_size]
        step = self._window_batches

        def read(part: range, cancelled: Cancelled) -> list[Batch]:
            rows = indices[part.start * self.batch_size : part.stop * self.batch_size]
            return self._read_window(table, rows, cancelled)

        parts = [batches[i : i + step] for i in range(0, len(batches), step)]
        return read_ahead(read, parts, self.prefetch)

    def _read_window(
        self, table: PatchTable, rows: NDArray[np.int64], cancelled: Cancelled
    ) -> list[Batch]:
        """Read the patches of several batches in one plan, and cut the result into batches."""
        stats = ReadStats()
        out = None
        if isinstance(self._device, HostDevice):
            out = self._memory.take(*self._window_format(len(rows)))
        images, valid = read_sampled(
            self.sampler,
            table.slide[rows],
            table.location[rows],
            position=self.position,
            layout=self.layout,
            dtype=self.dtype,
            normalize=self.normalize,
            device=self._device,
            out=out,
            options=self.options,
            stats=stats,
            on_error=self.on_error,
            cancelled=cancelled,
        )
        with self._stats_lock:  # iterators of one loader read at the same time
            for field in fields(stats):
                total = getattr(self.stats, field.name) + getattr(stats, field.name)
                setattr(self.stats, field.name, total)
        return [
            Batch(
                images[i : i + self.batch_size],
                table.location[rows[i : i + self.batch_size]],
                table.slide[rows[i : i + self.batch_size]],
                rows[i : i + self.batch_size],
                valid[i : i + self.batch_size],
            )
            for i in range(0, len(rows), self.batch_size)
        ]
