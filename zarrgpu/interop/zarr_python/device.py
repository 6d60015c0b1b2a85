"""Reading into the memory of a GPU: our own engines over zarr-python's byte getters.

The objects of one read are stacked along a new first axis, one object thick, and become an array
of ours; its store asks the byte getters. So planning, shard indexes, coalescing, decoding on the
device and gathering are those of any other zarrgpu read, and what zarr-python selects of each
object is a box of that array. Selections with index arrays are decoded on the host instead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np

from zarrgpu import reader
from zarrgpu.devices.resolve import DeviceLike
from zarrgpu.grids import KeyEncoding
from zarrgpu.interop.zarr_python.decoder import ChunkDecoder, Decoder
from zarrgpu.interop.zarr_python.fetch import Outcome
from zarrgpu.model import ArraySpec, ByteArray, ByteRange, ChunkLocation, ObjectPerChunk
from zarrgpu.opening import array_source
from zarrgpu.output import output_format
from zarrgpu.plan.request import ReadRequest
from zarrgpu.stats import ReadStats
from zarrgpu.stores.base import Allocate, check_range, check_size, new_bytes

_KEYS = KeyEncoding("default", "/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """What a selection of slices and integers asks of one object.

    Attributes
    ----------
    start, count, step : tuple of int
    scalars : tuple of int
        Axes that an integer selects, which the result does not have.
    """

    start: tuple[int, ...]
    count: tuple[int, ...]
    step: tuple[int, ...]
    scalars: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DeviceJob:
    """One stored object of a read.

    Attributes
    ----------
    getter : zarr.abc.store.ByteGetter
    decoder : Decoder
    shape : tuple of int
        Elements of the object, a chunk or a shard.
    fill_value : object
    box : Box
    place : callable
        Takes the box as an array of the device, without its scalar axes.
    """

    getter: Any
    decoder: Decoder
    shape: tuple[int, ...]
    fill_value: Any
    box: Box
    place: Callable[[Any], None]


def parse_box(selection: Any, shape: tuple[int, ...]) -> Box | None:
    """Box that `selection` means, or None if it has index arrays."""
    parts = selection if isinstance(selection, tuple) else (selection,)
    if len(parts) != len(shape):
        return None
    ranges: list[range] = []
    for part, length in zip(parts, shape, strict=True):
        if isinstance(part, slice) and (part.step is None or part.step > 0):
            ranges.append(range(length)[part])
        elif isinstance(part, (int, np.integer)):
            ranges.append(range(int(part), int(part) + 1))
        else:
            return None
    return Box(
        start=tuple(r.start for r in ranges),
        count=tuple(len(r) for r in ranges),
        step=tuple(r.step for r in ranges),
        scalars=tuple(i for i, part in enumerate(parts) if not isinstance(part, slice)),
    )


def read_on_device(
    jobs: Sequence[DeviceJob], device: DeviceLike, loop: asyncio.AbstractEventLoop, prototype: Any
) -> list[Outcome]:
    """Read, decode and place all jobs; must not run on the thread of `loop`.

    Parameters
    ----------
    jobs : sequence of DeviceJob
    device : device
    loop : asyncio.AbstractEventLoop
        Of zarr-python, on which the byte getters run.
    prototype : zarr.core.buffer.BufferPrototype
        Of host memory.
    """
    outcomes = [Outcome() for _ in jobs]
    groups: dict[Any, list[int]] = {}
    for at, job in enumerate(jobs):
        key = (id(job.decoder), job.shape, job.box.count, job.box.step)
        groups.setdefault(key, []).append(at)
    for rows in groups.values():
        members = [jobs[at] for at in rows]
        store = GetterStore([job.getter for job in members], loop, prototype)
        stats = ReadStats()
        boxes = _read_boxes(members, store, device, stats)
        for number, (at, job) in enumerate(zip(rows, members, strict=True)):
            job.place(boxes[number, 0].squeeze(axis=job.box.scalars))
            outcomes[at].present = number not in store.missing
        outcomes[rows[0]].decoded += stats.chunks_decoded
        outcomes[rows[0]].missing += stats.chunks_missing
    return outcomes


def _read_boxes(
    jobs: Sequence[DeviceJob], store: GetterStore, device: DeviceLike, stats: ReadStats
) -> Any:
    """Boxes of all jobs, shape (N, 1, *count), on the device."""
    first = jobs[0]
    source = array_source(store, stacked_spec(first, len(jobs)))
    request = ReadRequest(
        arrays=(source.spec,),
        array_index=np.zeros(len(jobs), np.int32),
        start=np.array([(i, *job.box.start) for i, job in enumerate(jobs)], np.int64),
        count=(1, *first.box.count),
        step=(1, *first.box.step),
    )
    output = output_format(source.spec.dtype)
    result, _ = reader.read((source,), request, output=output, device=device, stats=stats)
    return result


def stacked_spec(job: DeviceJob, number: int) -> ArraySpec:
    """Array of `number` objects like that of `job`, one behind the other on a new first axis."""
    decoder = job.decoder
    inner = decoder if isinstance(decoder, ChunkDecoder) else decoder.inner
    location: ChunkLocation = ObjectPerChunk(_KEYS)
    if not isinstance(decoder, ChunkDecoder):
        location = replace(decoder.location, shard_shape=(1, *job.shape))
    spec = inner.spec
    return ArraySpec(
        source=spec.source,
        shape=(number, *job.shape),
        dtype=spec.dtype,
        chunk_shape=(1, *spec.chunk_shape),
        fill_value=job.fill_value,
        codecs=spec.codecs,
        axis_order=(0, *(axis + 1 for axis in spec.axis_order)),
        location=location,
        dimension_names=(None,) * (spec.ndim + 1),
    )


class GetterStore:
    """Store whose objects ``c/0/...``, ``c/1/...`` are those of a list of byte getters.

    Parameters
    ----------
    getters : sequence of zarr.abc.store.ByteGetter
    loop : asyncio.AbstractEventLoop
        That they run on; methods are called from other threads.
    prototype : zarr.core.buffer.BufferPrototype
    """

    max_gap_bytes = 1 << 20
    max_coalesced_bytes = 16 << 20

    def __init__(
        self, getters: Sequence[Any], loop: asyncio.AbstractEventLoop, prototype: Any
    ) -> None:
        from zarr.core.config import config

        self.url = str(getattr(getters[0], "store", "zarr-python array"))
        self.io_concurrency = cast("int", config.get("async.concurrency") or 16)
        self.missing: set[int] = set()
        self._getters = getters
        self._loop = loop
        self._prototype = prototype

    def get(
        self, key: str, allocate: Allocate = new_bytes, max_nbytes: int | None = None
    ) -> ByteArray | None:
        """Whole object; see `Store.get`."""
        del allocate  # zarr-python's stores bring their own memory
        data = self._ask(key, None)
        if data is not None:
            check_size(self.url, key, data.size, max_nbytes)
        return data

    def get_range(
        self, key: str, byte_range: ByteRange, allocate: Allocate = new_bytes
    ) -> ByteArray | None:
        """Bytes of `byte_range`; see `Store.get_range`."""
        from zarr.abc.store import RangeByteRequest

        del allocate
        data = self._ask(key, RangeByteRequest(byte_range.offset, byte_range.end))
        if data is not None:
            check_range(self.url, key, byte_range, data.size)
        return data

    def get_suffix(self, key: str, nbytes: int) -> ByteArray | None:
        """Last `nbytes` bytes; see `Store.get_suffix`."""
        from zarr.abc.store import SuffixByteRequest

        return self._ask(key, SuffixByteRequest(nbytes))

    def size(self, key: str) -> int | None:
        """Size of the object; see `Store.size`."""
        data = self._ask(key, None)
        return None if data is None else data.size

    def list_dir(self, prefix: str) -> list[str]:
        """Nothing: the objects are known by their numbers."""
        del prefix
        return []

    def _ask(self, key: str, byte_range: Any) -> ByteArray | None:
        number = int(key.split("/")[1])
        call = self._getters[number].get(self._prototype, byte_range)
        buffer = asyncio.run_coroutine_threadsafe(call, self._loop).result()
        if buffer is None:
            self.missing.add(number)
            return None
        data: ByteArray = np.frombuffer(buffer.as_numpy_array(), np.uint8)
        return data
