"""One array read in separate stages on a device, so that each can be timed alone.

The stages are the engine's own functions in the engine's own order, on one wave that holds the
whole array.
"""

from __future__ import annotations

import math
from typing import Any, cast, get_args

import numpy as np

from zarrgpu import cuda_wave, reader
from zarrgpu.codecs.device import device_chain
from zarrgpu.cuda_fetch import WaveFetcher
from zarrgpu.cuda_wave import WaveContext
from zarrgpu.cuda_work import submit
from zarrgpu.devices.cuda import CudaDevice, Slot
from zarrgpu.devices.driver import DecompressBatch, LibraryFormat
from zarrgpu.fetch import ArraySource
from zarrgpu.gather_tables import Target
from zarrgpu.model import ReadOptions
from zarrgpu.output import OutputFormat
from zarrgpu.plan.request import ReadRequest
from zarrgpu.stats import ReadStats


class Stages:
    """A whole-array read of `source` on `device`, fetched once.

    Attributes
    ----------
    payload_nbytes, decoded_nbytes, output_nbytes : int
    streams : dict
        Library format -> (streams, encoded bytes, decoded bytes).
    """

    def __init__(self, device: CudaDevice, source: ArraySource, options: ReadOptions) -> None:
        driver, spec = device.driver, source.spec
        self.driver, self.slot = driver, Slot(driver)
        request = ReadRequest(
            arrays=(spec,), array_index=np.zeros(1, np.int32),
            start=np.zeros((1, spec.ndim), np.int64), count=spec.shape, step=(1,) * spec.ndim,
        )  # fmt: skip
        plan = reader.plan_read((source,), request, options=options)
        self.output_nbytes = math.prod(spec.shape) * spec.dtype.itemsize
        self._result = driver.allocate(self.output_nbytes, self.slot.stream)
        strides = tuple(math.prod(spec.shape[i:]) for i in range(spec.ndim + 1))
        self.context = WaveContext(
            plan, (source,), [device_chain(source.chain)],
            Target(
                ptr=self._result.ptr, nbytes=self.output_nbytes, strides=strides, scale=0, offset=0
            ),
            OutputFormat(dtype=spec.dtype.newbyteorder("=")), options, ReadStats(), None, driver,
        )  # fmt: skip
        rows = np.arange(len(plan.chunks))
        self.slot.payload.reset(int(plan.fetch_nbytes or plan.decoded_nbytes))
        fetcher = WaveFetcher(
            plan, (source,), self.context.chains, self.slot, options, self.context.failed
        )
        self.wave = fetcher.fetch(rows)
        self.placed, self._work_nbytes = cuda_wave._decode_tables(
            self.context, self.slot, fetcher, self.wave
        )
        self.decoded_nbytes = plan.decoded_nbytes
        self.payload_nbytes = self.slot.payload.used
        self.payload = self.slot.data(self.payload_nbytes + 16 + self._work_nbytes)
        self.work = self.payload + -(-self.payload_nbytes // 16) * 16
        self.copy()
        self.slot.stream.synchronize()
        self._batches: list[tuple[LibraryFormat, DecompressBatch]] = []
        self._kept: list[Any] = []
        self.streams: dict[str, tuple[int, int, int]] = {}
        for part in self.placed:
            for step in part.tables.live_steps():
                if step.name in get_args(LibraryFormat):
                    name = cast("LibraryFormat", step.name)
                    self._batches.append((name, self._batch(name, step.columns)))

    def copy(self) -> None:
        """Encoded bytes from pinned to device memory."""
        self.driver.copy_to_device(
            self.payload, self.slot.payload.ptr, self.payload_nbytes, self.slot.stream
        )

    def library(self) -> None:
        """The library alone, with its tables on the device already; results stay there."""
        for name, batch in self._batches:
            self.driver.decompress(name, batch, self.slot.stream)

    def decode(self) -> None:
        """All that turns encoded chunks on the device into decoded ones, tables included."""
        works = cuda_wave._decode_works(
            self.context,
            self.slot,
            self.wave,
            self.placed,
            self._results(),
            self.payload,
            self.work,
        )
        self._failed = submit(self.slot, works)

    def gather(self) -> None:
        """Place decoded chunks into the result."""
        results = self._results()
        cuda_wave._decode_works(
            self.context, self.slot, self.wave, self.placed, results, self.payload, self.work
        )
        work = cuda_wave._gather_work(self.context, self.slot, self.wave, results, None)
        assert work is not None
        self._failed = submit(self.slot, [work])

    def check(self) -> None:
        """Run the stages once: the device decodes every chunk."""
        for stage in (self.decode, self.gather):
            stage()
            self.slot.done.synchronize()
            assert not len(self._failed()), "the device could not decode some chunks"

    def _results(self) -> cuda_wave._Results:
        n = len(self.wave.row)
        return cuda_wave._Results(self.payload + self.wave.offset, np.zeros(n, np.int64))

    def _batch(self, name: str, columns: dict[str, np.ndarray]) -> DecompressBatch:
        n = len(columns["row"])
        addresses = [
            cuda_wave._addresses(columns["source"], self.payload, self.work),
            columns["source_nbytes"],
            cuda_wave._addresses(columns["target"], self.payload, self.work),
            columns["nbytes"],
        ]
        sources, source_nbytes, targets, target_nbytes = (self._upload(c) for c in addresses)
        decoded, statuses = (self._upload(np.zeros(n, dtype)) for dtype in ("u8", "i4"))
        total = int(columns["nbytes"].sum())
        self.streams[name] = (n, int(columns["source_nbytes"].sum()), total)
        return DecompressBatch(
            n_chunks=n, sources=sources, source_nbytes=source_nbytes, targets=targets,
            target_nbytes=target_nbytes, decoded_nbytes=decoded, statuses=statuses,
            max_target_nbytes=int(columns["nbytes"].max()), total_target_nbytes=total,
        )  # fmt: skip

    def _upload(self, column: np.ndarray) -> int:
        column = column.astype(np.uint64) if column.dtype == np.int64 else column
        memory = self.driver.allocate(column.nbytes, self.slot.stream)
        pinned = self.driver.allocate_pinned(column.nbytes)
        pinned.array[:] = column.view(np.uint8)
        self.driver.copy_to_device(memory.ptr, pinned.ptr, column.nbytes, self.slot.stream)
        self.slot.stream.synchronize()
        self._kept.append(memory)
        return memory.ptr
