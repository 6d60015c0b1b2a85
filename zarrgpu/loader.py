"""`PatchLoader`: batches of patches, read ahead by a thread that plans a window of them together.

A window is as many coming batches as fit the memory budget. It is one plan: a chunk that several of
its batches touch is fetched and decoded once. That is the largest gain there is for random patches.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from zarrgpu.batches import Batch
from zarrgpu.devices.cuda import CudaDevice
from zarrgpu.devices.host import HostDevice
from zarrgpu.devices.lent import Lent
from zarrgpu.devices.resolve import DeviceLike, resolve_device
from zarrgpu.devices.ring import SlotRing
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
from zarrgpu.reader import OnError, PendingRead
from zarrgpu.recycled import RecycledMemory
from zarrgpu.sampled_reads import patch_source_nbytes, start_sampled
from zarrgpu.sampling import PatchTable, Sampler
from zarrgpu.stats import ReadStats
from zarrgpu.symmetries import Augment, check_augment, draw_symmetries


@dataclass(frozen=True, slots=True, eq=False)
class _Window:
    """Patches of several batches, whose read was started."""

    rows: NDArray[np.int64]
    table: PatchTable
    symmetries: NDArray[np.uint8]
    stats: ReadStats
    pending: PendingRead


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
        float16, bfloat16 (ml_dtypes', also by name), float32 or float64, or without `normalize`
        an integer type that holds every stored integer, as int64 for labels; default the stored
        type, or float32 when normalising.
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
    augment : str, optional
        Flip and turn patches at random as they are placed, which costs no pass of its own:
        "hflip" (left and right), "vflip" (up and down), "flips" (both), "rotations" (by 90, 180
        and 270 degrees), or "flips+rotations" (the eight symmetries of the square), all that there
        are equally often; the last two of square patches only. What a patch gets depends on the
        sampler's `seed` (0 if it has none), the epoch and the number of the patch alone; it is in
        `Batch.symmetries`.

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
        augment: Augment | None = None,
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
        self.augment = check_augment(augment, sampler.size)
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
        read_epoch = epoch if self.fixed_epoch is None else self.fixed_epoch
        table = self.sampler.epoch_patches(read_epoch)
        windows = self._windows(table, self.symmetries(read_epoch), batches)
        try:
            for window in windows:
                while window:  # emptied, so that a finished window does not wait for the next
                    if self._iteration is iteration:
                        self._next_batch += 1
                    lent = window[0].lent
                    if lent is not None:
                        lent.to_current_stream()
                    del lent  # or its memory would live on while the next window is waited for
                    yield window.pop(0)
        finally:
            windows.close()
        if self._iteration is iteration:
            self.epoch, self._next_batch = epoch + 1, 0

    def symmetries(self, epoch: int) -> NDArray[np.uint8]:
        """How each patch of an epoch of the sampler is flipped and turned; see `Batch`."""
        if self.augment is None:
            return np.zeros(len(self.sampler), np.uint8)
        seed = getattr(self.sampler, "seed", None)
        seed = 0 if seed is None else parse_integer(seed, "the sampler's seed", least=0)
        return draw_symmetries(self.augment, seed, epoch, len(self.sampler))

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
        held = max(self.prefetch, 1) + 1
        if self.prefetch and isinstance(self._device, CudaDevice):
            held += 1  # or while one is finished, and the next is read
        budget = self.options.memory_budget_bytes // held
        return max(1, budget // max(1, patch * self.batch_size))

    def _window_format(self, n: int) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Shape and type of `n` patches."""
        sampler = self.sampler
        (width, height), channels = sampler.size, sampler.slides[0].channel_count
        made = patch_format(sampler.slides, self.dtype, self.normalize, sampler.levels)
        nhwc, nchw = (height, width, channels), (channels, height, width)
        return (n, *(nhwc if self.layout == "NHWC" else nchw)), made.dtype

    def _windows(
        self, table: PatchTable, symmetries: NDArray[np.uint8], batches: range
    ) -> Generator[list[Batch], None, None]:
        """Generate windows (lists of batches), read ahead where asked.

        On a CUDA device the reads share a ring of slots: a window is fetched while the one before
        is decoded.
        """
        per_rank = -(-len(table) // self.world_size)
        everyone = np.arange(per_rank * self.world_size, dtype=np.int64) % max(len(table), 1)
        indices = everyone[self.rank :: self.world_size]
        step = self._window_batches
        device, ring = self._device, None
        if isinstance(device, CudaDevice):
            ring = SlotRing(device, device.delivery_stream)

        def start(part: range, cancelled: Cancelled) -> _Window:
            rows = indices[part.start * self.batch_size : part.stop * self.batch_size]
            return self._start_window(table, symmetries[rows], rows, ring, cancelled)

        parts = [batches[i : i + step] for i in range(0, len(batches), step)]
        at_end = [] if ring is None else [ring.close]
        return read_ahead(start, parts, self.prefetch, self._finish_window, *at_end)

    def _start_window(
        self,
        table: PatchTable,
        symmetries: NDArray[np.uint8],
        rows: NDArray[np.int64],
        ring: SlotRing | None,
        cancelled: Cancelled,
    ) -> _Window:
        """Start to read the patches of several batches in one plan."""
        stats = ReadStats()
        out = None
        if isinstance(self._device, HostDevice):
            out = self._memory.take(*self._window_format(len(rows)))
        pending = start_sampled(
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
            symmetries=symmetries,
            ring=ring,
        )
        return _Window(rows, table, symmetries, stats, pending)

    def _finish_window(self, window: _Window) -> list[Batch]:
        """Wait for a window, and cut it into batches."""
        images, valid = window.pending.finish()
        with self._stats_lock:  # iterators of one loader read at the same time
            self.stats.add(window.stats)
        lent, memory = None, window.pending.memory
        if isinstance(self._device, CudaDevice) and memory is not None:
            lent = Lent(self._device.driver, memory)
        rows, table = window.rows, window.table
        parts = [slice(i, i + self.batch_size) for i in range(0, len(rows), self.batch_size)]
        return [
            Batch(
                images[part],
                table.location[rows[part]],
                table.slide[rows[part]],
                rows[part],
                valid[part],
                window.symmetries[part],
                lent,
            )
            for part in parts
        ]
