"""PyTorch: tensors over zarrgpu's arrays, and datasets for `torch.utils.data.DataLoader`.

Three ways, the plainest first:

1. No DataLoader: iterate over a `PatchLoader` and call `to_torch` on its batches. It reads ahead on
   threads of its own and plans many batches together.
2. `as_iterable_dataset(loader)` where a training framework insists on a DataLoader. Workers, if
   any, share out the batches of the epoch: each batch is read once, whatever their number.
3. `as_map_dataset(loader)` where a torch sampler must choose the patches. A batch is one plan;
   there are no windows over batches.

Both datasets give dictionaries of tensors: ``images``, ``locations``, ``slides``, ``indices``,
``valid`` and ``symmetries``, as the attributes of `Batch`. Worker processes decode on the CPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from functools import cache
from itertools import islice
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from zarrgpu.batches import Batch
from zarrgpu.devices.cupy_allocator import restored, set_allocator
from zarrgpu.errors import DeviceUnavailableError, MemoryBudgetError, MissingDependencyError
from zarrgpu.loader import PatchLoader
from zarrgpu.output import is_bfloat16
from zarrgpu.sampled_reads import read_sampled
from zarrgpu.sampling import PatchTable

TensorBatch: TypeAlias = dict[str, Any]
"""A batch as a dictionary of tensors."""


def to_torch(data: Any) -> Any:
    """View a batch, or an array of any library with DLPack, as a tensor on the same device.

    Parameters
    ----------
    data : Batch or array
        Of a batch its `images`. NumPy arrays must be writable, as DLPack demands.

    Returns
    -------
    torch.Tensor
        Shares the memory: no copy. ml_dtypes' bfloat16 becomes torch's.

    Raises
    ------
    MissingDependencyError
        Without torch.
    """
    torch = _torch()
    array = data.images if isinstance(data, Batch) else data
    if isinstance(array, np.ndarray) and is_bfloat16(array.dtype):  # not of DLPack
        return torch.from_dlpack(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_dlpack(data)


def use_torch_allocator() -> AbstractContextManager[None]:
    """Let zarrgpu, and all else that uses CuPy, take GPU memory from torch's caching allocator.

    Two allocators that keep what they were given starve each other. With one, memory that torch
    holds and does not use is there for reads, and the other way round. Memory is ordered on CuPy's
    current stream, as torch's own is on torch's.

    Call it before the first read, in the whole process, or as ``with use_torch_allocator():``, at
    the end of which CuPy allocates as before.

    Raises
    ------
    MissingDependencyError
        Without torch or CuPy.
    DeviceUnavailableError
        If this torch was built without CUDA.
    """
    torch = _torch()
    if torch.version.cuda is None:
        msg = f"this torch ({torch.__version__}) was built without CUDA and has no GPU memory"
        raise DeviceUnavailableError(msg)

    def allocate(nbytes: int, device: int, stream: int) -> int:
        try:
            return int(torch.cuda.caching_allocator_alloc(nbytes, device, stream))
        except torch.OutOfMemoryError as error:
            msg = f"cuda:{device}: torch has no {nbytes} bytes ({error}); lower memory_budget_bytes"
            raise MemoryBudgetError(msg) from error

    def release(pointer: int, device: int) -> None:
        del device  # torch knows it
        torch.cuda.caching_allocator_delete(pointer)

    return restored(set_allocator(allocate, release))


def as_iterable_dataset(loader: PatchLoader) -> Any:
    """Wrap a loader as a `torch.utils.data.IterableDataset` of ready batches.

    Use it with ``DataLoader(dataset, batch_size=None, num_workers=0)``. With workers the epoch's
    batches are cut into one contiguous part per worker, so their order differs and their contents
    do not. New workers start from the loader as it was when they were made: call
    ``dataset.set_epoch(epoch)`` before each epoch, as with torch's `DistributedSampler`, or keep
    the workers (``persistent_workers=True``).

    Parameters
    ----------
    loader : PatchLoader
        With workers: on the CPU.

    Returns
    -------
    torch.utils.data.IterableDataset
        With ``set_epoch``, ``state_dict`` and ``load_state_dict`` of the loader (the state of this
        process: resuming in mid-epoch needs ``num_workers=0``).
    """
    return _iterable_class()(loader)


def as_map_dataset(loader: PatchLoader, *, epoch: int = 0) -> PatchDataset:
    """Make a map-style dataset of one epoch's patches; see `PatchDataset`.

    Parameters
    ----------
    loader : PatchLoader
        Its sampler, layout, type, normalisation, device and options are used; its batch size, rank
        and window are not: the DataLoader decides those.
    epoch : int
        Which of the sampler's epochs.
    """
    return PatchDataset(loader, epoch)


class PatchDataset:
    """Patches by number, for ``DataLoader(dataset, batch_size=32, collate_fn=dataset.collate)``.

    DataLoader asks for a batch at a time through `__getitems__`, so a batch is one plan: a chunk
    that several of its patches touch is decoded once.

    Parameters
    ----------
    loader : PatchLoader
    epoch : int
    """

    def __init__(self, loader: PatchLoader, epoch: int) -> None:
        self.loader = loader
        self.table: PatchTable = loader.sampler.epoch_patches(epoch)
        self.symmetries = loader.symmetries(epoch)

    def __len__(self) -> int:
        """Patches of the epoch."""
        return len(self.table)

    def __getitem__(self, index: int) -> TensorBatch:
        """Read one patch; tensors without the batch axis."""
        if not 0 <= index < len(self):  # the end of a `for` loop; patches count from 0 only
            msg = f"patch {index} is outside of 0..{len(self) - 1}"
            raise IndexError(msg)
        return {name: tensor[0] for name, tensor in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> TensorBatch:
        """Read a batch of patches in one plan."""
        _refuse_device_workers(self.loader)
        loader, rows = self.loader, np.asarray(indices, np.int64)
        symmetries = self.symmetries[rows]
        images, valid = read_sampled(
            loader.sampler,
            self.table.slide[rows],
            self.table.location[rows],
            position=loader.position,
            layout=loader.layout,
            dtype=loader.dtype,
            normalize=loader.normalize,
            device=loader.device,
            options=loader.options,
            on_error=loader.on_error,
            symmetries=symmetries,
        )
        location, slide = self.table.location[rows], self.table.slide[rows]
        return _tensors(Batch(images, location, slide, rows, valid, symmetries))

    @staticmethod
    def collate(batch: TensorBatch) -> TensorBatch:
        """Give what `__getitems__` gave: it is a batch already."""
        return batch


@cache
def _iterable_class() -> Any:
    """Make the dataset class; torch recognises iterable datasets by their base class only."""
    _torch()
    from torch.utils.data import IterableDataset

    class PatchBatches(IterableDataset):  # type: ignore[misc]
        """Batches of a `PatchLoader` as dictionaries of tensors."""

        def __init__(self, loader: PatchLoader) -> None:
            self.loader = loader
            self.set_epoch = loader.set_epoch
            self.state_dict = loader.state_dict
            self.load_state_dict = loader.load_state_dict

        def __reduce__(self) -> Any:
            # a class made in a function has no address that a worker could import
            return as_iterable_dataset, (self.loader,)

        def __len__(self) -> int:
            return len(self.loader)

        def __iter__(self) -> Iterator[TensorBatch]:
            return map(_tensors, _part_of_worker(self.loader))

    return PatchBatches


def _part_of_worker(loader: PatchLoader) -> Iterator[Batch]:
    """Batches left in the epoch: all of them, or the part of this worker process."""
    from torch.utils.data import get_worker_info

    worker = get_worker_info()
    if worker is None:
        yield from loader
        return
    _refuse_device_workers(loader)
    epoch, first = loader.state_dict()["epoch"], loader.state_dict()["batch"]
    start, stop = (
        first + (len(loader) - first) * part // worker.num_workers
        for part in (worker.id, worker.id + 1)
    )
    loader.load_state_dict({"epoch": epoch, "batch": start})
    yield from islice(loader, stop - start)
    loader.set_epoch(epoch + 1)


def _refuse_device_workers(loader: PatchLoader) -> None:
    """Raise in a worker process whose loader is meant for a GPU."""
    from torch.utils.data import get_worker_info

    if loader.device != "cpu" and get_worker_info() is not None:
        msg = (
            f"a DataLoader worker cannot read to {loader.device!r}: each would need a CUDA context "
            "of its own; use num_workers=0 (PatchLoader reads ahead itself) or device='cpu'"
        )
        raise DeviceUnavailableError(msg)


def _tensors(batch: Batch) -> TensorBatch:
    torch = _torch()
    places: dict[str, NDArray[Any]] = {
        "locations": batch.locations,
        "slides": batch.slides,
        "indices": batch.indices,
        "valid": batch.valid,
        "symmetries": batch.symmetries,
    }
    return {
        "images": to_torch(batch),
        **{name: torch.from_numpy(np.array(values)) for name, values in places.items()},
    }


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        msg = "PyTorch is not installed: pip install 'zarrgpu[torch]'"
        raise MissingDependencyError(msg) from error
    return torch
