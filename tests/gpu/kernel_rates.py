"""Our kernels alone, on chunks of one size: how fast each is, and that it is right.

Rates count the bytes that a kernel's jobs are about: read for checksums, written for all else.
Tables go to the device within what is timed, as they do in a read.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import google_crc32c
import numcodecs
import numpy as np

from tests import tiff_streams
from tests.blosc_cases import blosclz
from zarrgpu.cuda_work import step_work, submit
from zarrgpu.devices.cuda import CudaDevice, Slot
from zarrgpu.devices.kernels import (
    CHECKSUM_PARTS_NBYTES,
    CHECKSUM_TILE_NBYTES,
    ELEMENT_TILE,
    tile_starts,
)
from zarrgpu.devices.tables import ChecksumKind, ElementType

Columns = dict[str, Any]


class Chunks:
    """Device memory with the same content in each of `n` chunks, and room for results."""

    def __init__(self, device: CudaDevice, n: int, nbytes: int) -> None:
        self.driver, self.n, self.nbytes = device.driver, n, nbytes
        self.slot = Slot(device.driver)
        rng = np.random.default_rng(0)
        self.content = np.repeat(rng.integers(0, 9, nbytes // 8, dtype=np.uint8), 8)
        self.number = np.arange(n, dtype=np.int64)
        self.source = self._put(np.tile(self.content, n))
        self.target = self.driver.allocate(n * nbytes * 8, self.slot.stream)
        self.scratch = self.driver.allocate(n * nbytes // 8 + n * 4096, self.slot.stream)
        self.kept: list[Any] = []

    def columns(self, **columns: Any) -> Columns:
        """One row a chunk; scalars are the same for all."""
        full = {"row": self.number, "source": self.source.ptr + self.number * self.nbytes} | columns
        return {name: np.full(self.n, value) for name, value in full.items()}

    def stored(self, value: int) -> int:
        """Address of a checksum."""
        self.kept.append(self._put(np.uint32([value]).view(np.uint8)))
        return int(self.kept[-1].ptr)

    def targets(self, nbytes: int) -> np.ndarray:
        """Address of the result of each chunk."""
        return self.target.ptr + self.number * nbytes

    def _put(self, content: np.ndarray) -> Any:
        memory = self.driver.allocate(content.size, self.slot.stream)
        pinned = self.driver.allocate_pinned(content.size)
        pinned.array[:] = content
        self.driver.copy_to_device(memory.ptr, pinned.ptr, content.size, self.slot.stream)
        self.slot.stream.synchronize()
        return memory


def checksum_columns(chunks: Chunks, kind: ChecksumKind, value: int) -> Columns:
    tiles = int(tile_starts([chunks.nbytes], CHECKSUM_TILE_NBYTES)[-1])
    room = tiles * CHECKSUM_PARTS_NBYTES
    return chunks.columns(
        nbytes=chunks.nbytes, stored=chunks.stored(value), kind=int(kind), big_endian=0,
        parts=chunks.scratch.ptr + chunks.number * room, parts_nbytes=room,
    )  # fmt: skip


def element_columns(
    chunks: Chunks, source: ElementType, target: ElementType, ratio: int
) -> Columns:
    """From elements of 2 bytes to elements of ``2 * ratio``."""
    n = chunks.nbytes // 2
    tiles = int(tile_starts([n], ELEMENT_TILE)[-1])
    return chunks.columns(
        n=n, source_nbytes=chunks.nbytes, target=chunks.targets(chunks.nbytes * ratio),
        target_nbytes=chunks.nbytes * ratio, source_type=int(source), target_type=int(target),
        source_swap=0, target_swap=0, divisor=1.5, addend=3.0, scaled=1,
        sums=chunks.scratch.ptr + chunks.number * tiles * 8, sums_nbytes=tiles * 8,
    )  # fmt: skip


def steps(chunks: Chunks) -> dict[str, tuple[str, Columns, int]]:
    """What to time: step, columns, and bytes that count for each chunk."""
    raw, nbytes = chunks.content.tobytes(), chunks.nbytes
    fletcher = int.from_bytes(numcodecs.Fletcher32().encode(raw)[-4:], "little")
    xxh64 = int.from_bytes(numcodecs.Zstd(1, checksum=True).encode(raw)[-4:], "little")
    values = {
        ChecksumKind.CRC32: zlib.crc32(raw), ChecksumKind.CRC32C: google_crc32c.value(raw),
        ChecksumKind.ADLER32: zlib.adler32(raw), ChecksumKind.FLETCHER32: fletcher,
    }  # fmt: skip
    found: dict[str, tuple[str, Columns, int]] = {
        "crc32c by nvCOMP": (
            "crc32c", chunks.columns(nbytes=nbytes, expected=values[ChecksumKind.CRC32C]), nbytes
        )
    }  # fmt: skip
    for kind, value in values.items():
        found[kind.name.lower()] = ("checksum", checksum_columns(chunks, kind, value), nbytes)
    found["xxh64"] = ("xxh64", checksum_columns(chunks, ChecksumKind.XXH64, xxh64), nbytes)
    found["delta, i2 to i4"] = (
        "delta", element_columns(chunks, ElementType.I2, ElementType.I4, 2), 2 * nbytes
    )  # fmt: skip
    found["delta, f2 to f4"] = (
        "delta_floats", element_columns(chunks, ElementType.F2, ElementType.F4, 2), 2 * nbytes
    )  # fmt: skip
    found["x / scale + offset, u2 to f4"] = (
        "convert", element_columns(chunks, ElementType.U2, ElementType.F4, 2), 2 * nbytes
    )  # fmt: skip
    found["unpack bits to bools"] = (
        "unpack_bits",
        chunks.columns(
            n=8 * nbytes, source_nbytes=nbytes, target=chunks.targets(8 * nbytes),
            target_nbytes=8 * nbytes, padding=0, width=1, packed_bits=1, first_bit=0, sign_bits=0,
            big=1, swap=0,
        ),
        8 * nbytes,
    )  # fmt: skip
    stream = np.frombuffer(blosclz(raw), np.uint8)
    chunks.kept.append(chunks._put(stream))
    found["blosclz"] = (
        "blosclz",
        chunks.columns(
            source=chunks.kept[-1].ptr, source_nbytes=stream.size, target=chunks.targets(nbytes),
            nbytes=nbytes,
        ),
        nbytes,
    )  # fmt: skip
    return found | tiff_steps(chunks)


def tiff_steps(chunks: Chunks) -> dict[str, tuple[str, Columns, int]]:
    """TIFF's own codecs; the predictors on rows of 256 RGB pixels."""
    nbytes = chunks.nbytes
    columns = {"target": chunks.targets(nbytes), "reversed": 0}
    found: dict[str, tuple[str, Columns, int]] = {}
    packbits = tiff_streams.packbits(np.random.default_rng(1), chunks.content.tobytes())
    streams = {"lzw": tiff_streams.lzw(chunks.content.tobytes()), "packbits_runs": packbits}
    for name, stream in streams.items():
        chunks.kept.append(chunks._put(np.frombuffer(stream, np.uint8)))
        source = {"source": chunks.kept[-1].ptr, "source_nbytes": len(stream), "nbytes": nbytes}
        found[name] = (name, chunks.columns(**columns, **source), nbytes)
    sizes = {"source_nbytes": nbytes, "target_nbytes": nbytes}
    for name, predictor, itemsize in (("u1", 2, 1), ("u2", 2, 2), ("f4", 3, 4)):
        row = {"width": 256, "samples": 3, "itemsize": itemsize, "predictor": predictor, "swap": 0}
        rows = nbytes // (256 * 3 * itemsize)
        counted = rows * 256 * 3 * itemsize
        made = chunks.columns(**columns, **sizes, **row, rows=rows)
        found[f"predictor {predictor}, {name}"] = ("predictor", made, counted)
    made = chunks.columns(target=chunks.targets(8 * nbytes), source_nbytes=nbytes,
                          target_nbytes=8 * nbytes, n=8 * nbytes, row_samples=8 * nbytes, bits=1,
                          reversed=0)  # fmt: skip
    found["bits of a TIFF to bools"] = ("unpack_samples", made, 8 * nbytes)
    return found


def kernel_rates(
    device: CudaDevice,
    on_device: Callable[..., list[float]],
    rate: Callable[..., dict[str, Any]],
    *,
    n: int,
    nbytes: int,
) -> dict[str, Any]:
    """Rate of each kernel on `n` chunks of `nbytes` bytes; every chunk must be right."""
    chunks = Chunks(device, n, nbytes)
    rates: dict[str, Any] = {"chunks": n, "chunk_nbytes": nbytes}
    for name, (step, columns, counted) in steps(chunks).items():
        work = step_work(chunks.driver, step, columns, chunks.slot.stream)
        failed = submit(chunks.slot, [work])
        chunks.slot.done.synchronize()
        assert not len(failed()), name

        def run(work: Any = work) -> None:
            submit(chunks.slot, [work])

        rates[name] = rate(on_device(run, chunks.slot.stream), n * counted)
    return rates
