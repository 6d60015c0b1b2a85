"""What each kernel computes, in plain NumPy: slow, obvious, and what the kernels are held to."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import google_crc32c
import numcodecs
import numpy as np

from zarrgpu.devices.tables import ChecksumKind


def copy_segments(source: np.ndarray) -> np.ndarray:
    """Bytes as they are."""
    return source.copy()


def shuffle_bytes(data: np.ndarray, typesize: int) -> np.ndarray:
    """Blosc's byte shuffle of one block."""
    n = data.size // typesize
    whole = data[: n * typesize].reshape(n, typesize)
    return np.concatenate([whole.T.ravel(), data[n * typesize :]])


def unshuffle_bytes(data: np.ndarray, typesize: int) -> np.ndarray:
    """Undo `shuffle_bytes`."""
    n = data.size // typesize
    planes = data[: n * typesize].reshape(typesize, n)
    return np.concatenate([planes.T.ravel(), data[n * typesize :]])


def unshuffle_bits(data: np.ndarray, typesize: int) -> np.ndarray:
    """Undo Blosc1's bit shuffle of one block."""
    n = data.size // typesize
    if n % 8:
        return data.copy()
    rows = data[: n * typesize].reshape(typesize * 8, n // 8)
    bits = np.unpackbits(rows, axis=1, bitorder="little").reshape(typesize, 8, n)
    elements = np.packbits(bits.transpose(2, 0, 1), axis=2, bitorder="little")
    return np.concatenate([elements.ravel(), data[n * typesize :]])


def checksum(data: np.ndarray, kind: ChecksumKind) -> int:
    """Checksum of bytes by the libraries that writers use."""
    raw = data.tobytes()
    if kind == ChecksumKind.CRC32:
        return zlib.crc32(raw)
    if kind == ChecksumKind.CRC32C:
        return google_crc32c.value(raw)
    if kind == ChecksumKind.ADLER32:
        return zlib.adler32(raw)
    if kind == ChecksumKind.FLETCHER32:  # numcodecs takes no empty buffer
        return int.from_bytes(numcodecs.Fletcher32().encode(raw)[-4:], "little") if raw else 0
    return int.from_bytes(numcodecs.Zstd(1, checksum=True).encode(raw)[-4:], "little")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Piece:
    """One gather job in Python's terms.

    Attributes
    ----------
    chunk : uint8 array or None
        Stored bytes, still shuffled where `block_nbytes` is not 0; None for a fill piece.
    extents : tuple of int
        Of the box.
    source_offset, target_offset : int
        Elements.
    source_strides, target_strides : tuple of int
        Elements.
    channel_start : int
    block_nbytes : int
    """

    chunk: np.ndarray | None
    extents: tuple[int, ...]
    source_offset: int
    target_offset: int
    source_strides: tuple[int, ...]
    target_strides: tuple[int, ...]
    channel_start: int = 0
    block_nbytes: int = 0


def gather(
    out: np.ndarray,
    piece: Piece,
    source_dtype: np.dtype[Any],
    fill: np.ndarray,
    scale: np.ndarray | None,
    offset: np.ndarray | None,
    channel_dim: int,
) -> None:
    """Place one piece into the flat output `out`."""
    coordinates = np.indices(piece.extents)

    def index(strides: tuple[int, ...], start: int) -> np.ndarray:
        return start + sum(c * s for c, s in zip(coordinates, strides, strict=True))

    if piece.chunk is None:
        values = np.broadcast_to(fill, piece.extents)
    else:
        chunk = piece.chunk
        if piece.block_nbytes and source_dtype.itemsize > 1:
            starts = range(0, chunk.size, piece.block_nbytes)
            blocks = [chunk[i : i + piece.block_nbytes] for i in starts]
            chunk = np.concatenate([unshuffle_bytes(b, source_dtype.itemsize) for b in blocks])
        n = chunk.size // source_dtype.itemsize
        elements = chunk[: n * source_dtype.itemsize].view(source_dtype)
        values = elements[index(piece.source_strides, piece.source_offset)]
    with np.errstate(all="ignore"):
        if scale is not None:
            channel = piece.channel_start
            if channel_dim >= 0:
                channel = channel + coordinates[channel_dim]
            values = values.astype(np.float32) * scale[channel] + offset[channel]
        out[index(piece.target_strides, piece.target_offset)] = values.astype(out.dtype)
