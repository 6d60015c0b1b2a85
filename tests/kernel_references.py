"""What each kernel computes, in plain NumPy: slow, obvious, and what the kernels are held to."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import google_crc32c
import numcodecs
import numpy as np

from zarrgpu.codecs.jpeg2k import ycbcr_to_rgb
from zarrgpu.devices.tables import ChecksumKind, ImageColor


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


def upsample_libjpeg(plane: np.ndarray, across: int, down: int, width: int, height: int):
    """libjpeg-turbo's "fancy" upsampling of a chroma plane, int32 ``(height, width)``."""
    wide = plane.astype(np.int32)
    if across == 2 and plane.shape[1] <= 2:
        return wide.repeat(down, 0).repeat(2, 1)[:height, :width]
    if down == 2:  # three quarters of the nearer row, one of the other; still times 4
        above, below = np.vstack([wide[:1], wide[:-1]]), np.vstack([wide[1:], wide[-1:]])
        rows = np.empty((2 * wide.shape[0], wide.shape[1]), np.int32)
        rows[0::2], rows[1::2] = 3 * wide + above, 3 * wide + below
        if across == 1:
            return ((rows + np.tile([[1], [2]], (wide.shape[0], 1))) >> 2)[:height, :width]
        wide, biases, shift, edge = rows, (8, 7), 4, 4
    elif across == 2:
        biases, shift, edge = (1, 2), 2, 1
    else:
        return wide
    left, right = np.hstack([wide[:, :1], wide[:, :-1]]), np.hstack([wide[:, 1:], wide[:, -1:]])
    out = np.empty((wide.shape[0], 2 * wide.shape[1]), np.int32)
    out[:, 0::2] = (3 * wide + left + biases[0]) >> shift
    out[:, 1::2] = (3 * wide + right + biases[1]) >> shift
    if edge == 1:  # of one row alone the ends are as they are
        out[:, 0], out[:, -1] = wide[:, 0], wide[:, -1]
    return out[:height, :width]


def _rgb(y: np.ndarray, red: Any, green: Any, blue: Any) -> np.ndarray:
    return np.clip(np.stack([y + red, y + green, y + blue], -1), 0, 255).astype(np.uint8)


def libjpeg_rgb(y: np.ndarray, cb: np.ndarray, cr: np.ndarray) -> np.ndarray:
    """jdcolor.c of libjpeg-turbo, on int32 planes."""
    cb, cr, half = cb - 128, cr - 128, 1 << 15

    def fix(x: float) -> int:
        return int(x * 65536 + 0.5)

    green = (-fix(0.34414) * cb - fix(0.71414) * cr + half) >> 16
    return _rgb(y, (fix(1.402) * cr + half) >> 16, green, (fix(1.772) * cb + half) >> 16)


def sycc_rgb(y: np.ndarray, cb: np.ndarray, cr: np.ndarray) -> np.ndarray:
    """color.c of OpenJPEG, on int32 planes."""
    cb, cr = (cb - 128).astype(np.float64), (cr - 128).astype(np.float64)

    def cut(x: np.ndarray) -> np.ndarray:
        return x.astype(np.int32)

    return _rgb(y, cut(1.402 * cr), -cut(0.344 * cb + 0.714 * cr), cut(1.772 * cb))


def planes_to_pixels(
    planes: list[np.ndarray], color: ImageColor, across: int = 1, down: int = 1
) -> np.ndarray:
    """Interleaved pixels ``(height, width, samples)`` of decoded planes."""
    height, width = planes[0].shape
    full = [p.astype(np.int32) for p in planes]
    for c in range(1, min(len(planes), 3)):
        if color == ImageColor.OPENJPEG_SYCC:
            full[c] = full[c].repeat(down, 0).repeat(across, 1)[:height, :width]
        else:
            full[c] = upsample_libjpeg(planes[c], across, down, width, height)
    if color == ImageColor.LIBJPEG_YCC:
        return libjpeg_rgb(*full)
    if color == ImageColor.OPENJPEG_SYCC:
        return sycc_rgb(*full)
    pixels = np.stack(full, -1).astype(planes[0].dtype)
    if color == ImageColor.ROUNDED_YCC:
        ycbcr_to_rgb(pixels)
    return pixels


def scan_is_plain(data: bytes, restarts: bool) -> bool:
    """Whether every 0xFF is followed by a zero, or by the number of a restart; one byte follows."""
    pairs = zip(data, data[1:], strict=False)
    return all(a != 0xFF or b == 0 or (restarts and 0xD0 <= b <= 0xD7) for a, b in pairs)
