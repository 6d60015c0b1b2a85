"""The codec pipeline: zarr-python's own, with `read` replaced where zarrgpu decodes.

It derives from `BatchedCodecPipeline`, which therefore does all writing, validation and evolution,
and reads what is refused here. A chunk's codecs and specification are all that decoding needs, so
the pipeline is made from codecs alone, and serves the inner chunks of shards that zarr-python reads
just as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from zarr.core.buffer import cpu  # noqa: TID253
from zarr.core.codec_pipeline import (  # noqa: TID253
    BatchedCodecPipeline,
    fill_value_or_default,
)

from zarrgpu.errors import MissingDependencyError
from zarrgpu.interop.zarr_python.counts import PipelineStats
from zarrgpu.interop.zarr_python.decoder import (
    ChunkDecoder,
    Decoder,
    NotOursError,
    build_decoder,
)
from zarrgpu.interop.zarr_python.fetch import Job, Outcome, local_store, read_async, read_local
from zarrgpu.interop.zarr_python.piece import Piece
from zarrgpu.interop.zarr_python.shard import shard_part


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
        self,
        batch_info: Iterable[tuple[Any, Any, Any, Any, bool]],
        out: Any,
        drop_axes: tuple[int, ...] = (),
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
        memory = out.as_ndarray_like()
        on_host = isinstance(memory, np.ndarray)
        target = memory if on_host else np.empty(memory.shape, memory.dtype)
        try:
            jobs = [self._job(item, target, drop_axes) for item in batch]
            outcomes = await self._run(jobs, on_host=on_host)
        except (NotOursError, MissingDependencyError) as refused:
            reason = str(refused).partition(";")[0]
            self.stats.add_delegated(nested=nested, chunks=len(batch), reason=reason)
            result: tuple[dict[str, str], ...] | None = await super().read(batch, out, drop_axes)
            return result
        if not on_host:
            for _, chunk, _, selection, _ in batch:
                part = chunk.prototype.nd_buffer.from_numpy_array(np.asarray(target[selection]))
                out[selection] = part
        self.stats.add_read(
            nested=nested,
            decoded=sum(outcome.decoded for outcome in outcomes),
            missing=sum(outcome.missing for outcome in outcomes),
        )
        return tuple({"status": "present" if o.present else "missing"} for o in outcomes)

    async def _run(self, jobs: list[Job], *, on_host: bool) -> list[Outcome]:
        if not jobs:
            return []
        files = local_store(jobs)
        if files is not None:
            return await asyncio.to_thread(read_local, files, jobs)
        prototype = jobs[0].chunk.prototype if on_host else cpu.buffer_prototype
        return await read_async(jobs, prototype)

    def _job(
        self, item: tuple[Any, Any, Any, Any, bool], target: Any, drop_axes: tuple[int, ...]
    ) -> Job:
        getter, chunk, chunk_selection, out_selection, whole = item
        decoder = self._decoder(chunk)
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
            part = shard_part(
                decoder, getter, chunk, chunk_selection, target, out_selection, drop_axes
            )
        return Job(getter, chunk, part, fill_value_or_default(chunk))

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
