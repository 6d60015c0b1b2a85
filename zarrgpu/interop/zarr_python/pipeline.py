"""The codec pipeline: zarr-python's own, with `read` replaced where zarrgpu decodes.

It derives from `BatchedCodecPipeline`, which therefore does all writing, validation and evolution,
and reads what is refused here. A chunk's codecs and specification are all that decoding needs, so
the pipeline is made from codecs alone, and serves the inner chunks of shards that zarr-python reads
just as well.

zarr-python imports this module in every process, through the entry point, whichever pipeline is
used. So only what every version of it has is imported here; the rest where it is needed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from zarr.core.buffer import cpu  # noqa: TID253 - this module is imported by zarr-python
from zarr.core.codec_pipeline import BatchedCodecPipeline  # noqa: TID253

from zarrgpu.devices.resolve import cuda_problem
from zarrgpu.errors import RequestError
from zarrgpu.interop.zarr_python.counts import PipelineStats
from zarrgpu.interop.zarr_python.decoder import ChunkDecoder, Decoder, NotOursError, build_decoder
from zarrgpu.interop.zarr_python.fetch import Job, Outcome, local_store, read_async, read_local
from zarrgpu.interop.zarr_python.piece import Piece
from zarrgpu.interop.zarr_python.shard import shard_part

_Item = tuple[Any, Any, Any, Any, bool]
"""ByteGetter, ArraySpec, chunk selection, out selection, whether the chunk is wanted whole."""


@dataclass(frozen=True)
class Pipeline(BatchedCodecPipeline):  # type: ignore[misc]
    """zarr-python's codec pipeline, reading through zarrgpu.

    Attributes
    ----------
    stats : PipelineStats
        Of all pipelines of the process: what was decoded here and what was left to zarr-python.

    Examples
    --------
    >>> import zarr
    >>> from zarr.registry import register_pipeline
    >>> register_pipeline(Pipeline)  # an installed zarrgpu is found without
    >>> with zarr.config.set({"codec_pipeline.path": "zarrgpu.interop.zarr_python.Pipeline"}):
    ...     array = zarr.create_array({}, shape=(4,), chunks=(2,), dtype="u1")
    ...     array[1:3] = 7
    ...     array[:]
    array([0, 7, 7, 0], dtype=uint8)
    """

    stats: ClassVar[PipelineStats] = PipelineStats()

    _decoders: dict[Any, Decoder | NotOursError] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_decoders": {}}  # made again where they are needed

    async def read(
        self, batch_info: Iterable[_Item], out: Any, drop_axes: tuple[int, ...] = ()
    ) -> tuple[dict[str, str], ...] | None:
        """Read chunks and place what is selected of them in `out`.

        Parameters
        ----------
        batch_info : iterable of (ByteGetter, ArraySpec, chunk selection, out selection, bool)
        out : zarr.core.buffer.NDBuffer
        drop_axes : tuple of int

        Returns
        -------
        tuple of dict
            ``{"status": "present"}`` or ``"missing"`` for each item, as zarr-python 3.2 wants it.

        Raises
        ------
        ChunkDecodeError, StoreError
            A ValueError and an OSError; and whatever the store raises.
        """
        batch = list(batch_info)
        nested = any(not hasattr(getter, "store") for getter, *_ in batch)
        try:
            decoders = [self._decoder(chunk) for _, chunk, *_ in batch]
            if isinstance(memory := out.as_ndarray_like(), np.ndarray):
                outcomes = await _read_on_host(batch, decoders, memory, drop_axes)
            else:
                outcomes = await _read_into_device_memory(batch, decoders, out, drop_axes)
        except (NotOursError, RequestError) as refused:  # an optional package is missing, say
            reason = str(refused).partition(";")[0]
            self.stats.add_delegated(nested=nested, chunks=len(batch), reason=reason)
            result: tuple[dict[str, str], ...] | None = await super().read(batch, out, drop_axes)
            return result
        self.stats.add_read(
            nested=nested,
            decoded=sum(outcome.decoded for outcome in outcomes),
            missing=sum(outcome.missing for outcome in outcomes),
        )
        return tuple({"status": "present" if o.present else "missing"} for o in outcomes)

    def _decoder(self, chunk: Any) -> Decoder:
        """Decoder of chunks like this one, made once; raises NotOursError."""
        key = (chunk.shape, chunk.dtype, chunk.order)
        found = self._decoders.get(key)
        if found is None:
            try:
                found = build_decoder(tuple(self), chunk)
            except NotOursError as refused:
                found = refused
            self._decoders[key] = found
        if isinstance(found, NotOursError):
            raise found
        return found


Pipeline.__module__ = "zarrgpu.interop.zarr_python"  # the path that zarr-python's config names


async def _read_on_host(
    batch: Sequence[_Item], decoders: Sequence[Decoder], target: Any, drop_axes: tuple[int, ...]
) -> list[Outcome]:
    """Read into an array of host memory."""
    jobs = [
        _host_job(item, decoder, target, drop_axes)
        for item, decoder in zip(batch, decoders, strict=True)
    ]
    if not jobs:
        return []
    files = local_store(jobs)
    if files is not None:
        return await asyncio.to_thread(read_local, files, jobs)
    return await read_async(jobs, _prototype(*batch[0][:2]))


def _host_job(item: _Item, decoder: Decoder, target: Any, drop_axes: tuple[int, ...]) -> Job:
    getter, chunk, chunk_selection, out_selection, whole = item
    if isinstance(decoder, ChunkDecoder):
        part: Any = Piece(
            decoder=decoder,
            owner=getter,
            inner=None,
            chunk_selection=chunk_selection,
            target=target,
            out_selection=out_selection,
            drop_axes=drop_axes,
            whole=whole,
        )
    else:
        part = shard_part(decoder, getter, chunk, chunk_selection, target, out_selection, drop_axes)
    return Job(getter, chunk, part, _fill_value(chunk))


async def _read_into_device_memory(
    batch: Sequence[_Item], decoders: Sequence[Decoder], out: Any, drop_axes: tuple[int, ...]
) -> list[Outcome]:
    """Read into zarr-python's GPU buffers: on their device, or on the host and then upload."""
    from zarrgpu.interop.zarr_python.device import DeviceJob, parse_box, read_on_device

    boxes = [parse_box(selection, chunk.shape) for _, chunk, selection, *_ in batch]
    if cuda_problem() or drop_axes or any(box is None for box in boxes):
        memory = out.as_ndarray_like()
        host = np.empty(memory.shape, memory.dtype)
        outcomes = await _read_on_host(batch, decoders, host, drop_axes)
        for _, chunk, _, selection, _ in batch:
            part = np.asarray(host[selection])
            out[selection] = chunk.prototype.nd_buffer.from_numpy_array(part)
        return outcomes
    jobs = [
        DeviceJob(
            getter=getter,
            decoder=decoder,
            shape=chunk.shape,
            fill_value=_fill_value(chunk),
            box=box,
            place=_Place(out, selection, chunk.prototype.nd_buffer),
        )
        for (getter, chunk, _, selection, _), decoder, box in zip(
            batch, decoders, boxes, strict=True
        )
        if box is not None
    ]
    device = f"cuda:{out.as_ndarray_like().device.id}"
    loop = asyncio.get_running_loop()
    prototype = _prototype(*batch[0][:2])
    return await asyncio.to_thread(read_on_device, jobs, device, loop, prototype)


@dataclass(frozen=True, slots=True)
class _Place:
    """Puts a part of a chunk into zarr-python's buffer."""

    out: Any
    selection: Any
    buffer: Any

    def __call__(self, part: Any) -> None:
        self.out[self.selection] = self.buffer.from_ndarray_like(part)


def _prototype(getter: Any, chunk: Any) -> Any:
    """What to fetch encoded bytes into: host memory, whatever the result lies in.

    Within a shard that zarr-python reads, bytes are already where it put them.
    """
    prototype = chunk.prototype
    on_host = issubclass(prototype.buffer, cpu.Buffer)
    return prototype if on_host or not hasattr(getter, "store") else cpu.buffer_prototype


def _fill_value(chunk: Any) -> Any:
    from zarr.core.codec_pipeline import fill_value_or_default

    return fill_value_or_default(chunk)
