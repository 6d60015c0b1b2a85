"""What each kernel computes, in plain NumPy: slow, obvious, and what the kernels are held to."""

from __future__ import annotations

import math
import struct
import zlib
from dataclasses import dataclass
from itertools import pairwise
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
    return all(a != 0xFF or b == 0 or (restarts and 0xD0 <= b <= 0xD7) for a, b in pairwise(data))


def lzw(stream: bytes) -> bytes | None:
    """TIFF LZW of either kind, a string at a time; None for what is no such stream.

    An end of the stream is as good as an end code, as imagecodecs has it.
    """
    lowest_first = stream[:1] == b"\x00"
    bits = np.unpackbits(
        np.frombuffer(stream, np.uint8), bitorder="little" if lowest_first else "big"
    )
    table: list[bytes] = []
    last, at, out = b"", 0, bytearray()
    started = False
    while True:
        size = 258 + len(table)
        width = 9 + sum(size >= limit - (not lowest_first) for limit in (512, 1024, 2048))
        if at + width > bits.size:
            return bytes(out) if started else None
        taken = bits[at : at + width].astype(np.int64)
        code = int((taken if not lowest_first else taken[::-1]) @ (1 << np.arange(width)[::-1]))
        at += width
        if not started and code != 256:
            return None
        started = True
        if code == 257:
            return bytes(out)
        if code == 256:
            table, last = [], b""
            continue
        if code < 256:
            found = bytes([code])
        elif last and code < size:
            found = table[code - 258]
        elif last and code == size:
            found = last + last[:1]
        else:
            return None
        if last:
            if size >= 4096:
                return None
            table.append(last + found[:1])
        out += found
        last = found


def packbits_runs(stream: bytes) -> bytes | None:
    """TIFF PackBits; None for what is no such stream."""
    out, at = bytearray(), 0
    while at < len(stream):
        head, at = stream[at], at + 1
        if head == 0 and at == len(stream):  # padding
            break
        n = 1 if head > 128 else head + 1 if head < 128 else 0
        if at + n > len(stream):
            return None
        out += stream[at : at + n] * (257 - head if head > 128 else 1)
        at += n
    return bytes(out)


def predictor(data: np.ndarray, kind: int, width: int, samples: int, dtype: str) -> np.ndarray:
    """Undo TIFF predictor 2 or 3 one pixel after the other."""
    itemsize = np.dtype(dtype).itemsize
    big = np.dtype(dtype).newbyteorder("=") != np.dtype(dtype)
    if kind == 2:
        order = ">" if big else "<"
        rows = data.view(f"{order}u{itemsize}").reshape(-1, width, samples).copy()
        for x in range(1, width):
            rows[:, x] += rows[:, x - 1]
        return rows.reshape(-1).view(np.uint8)
    rows = data.reshape(-1, width * itemsize, samples).copy()
    for x in range(1, width * itemsize):
        rows[:, x] += rows[:, x - 1]
    planes = rows.reshape(-1, itemsize, width * samples)
    if not big:
        planes = planes[:, ::-1]
    return np.ascontiguousarray(planes.transpose(0, 2, 1)).reshape(-1)


def unpack_samples(
    data: np.ndarray, bits: int, row_samples: int, rows: int, *, reverse: bool
) -> np.ndarray:
    """Samples of `bits` bits from rows of whole bytes, one bit at a time."""
    found = []
    for line in data.reshape(rows, data.size // max(rows, 1)):
        flags = np.unpackbits(line, bitorder="little" if reverse else "big")
        for i in range(row_samples):
            value = 0
            for bit in flags[i * bits : (i + 1) * bits].tolist():
                value = 2 * value + bit
            found.append(value)
    return np.array(found, np.uint8 if bits <= 8 else np.uint16)


class CorruptHeaderError(Exception):
    """A chunk breaks off or contradicts itself."""


def block_headers(block: bytes) -> list[tuple[int, int]]:
    """Place and size of the headers of a compressed block's sections; RFC 8878, 3.1.1.3."""
    if len(block) < 6:
        return [(0, len(block))]
    kind, size_format = block[0] & 3, block[0] >> 2 & 3
    number = int.from_bytes(block[:5], "little")
    if kind < 2:
        header = (1, 2, 1, 3)[size_format]
        literals = number >> (3 if header == 1 else 4)
        literals &= (1 << (8 * header - (3 if header == 1 else 4))) - 1
        stored = literals if kind == 0 else 1
    else:
        header, bits = ((3, 10), (3, 10), (4, 14), (5, 18))[size_format]
        stored = number >> (4 + bits) & (1 << bits) - 1
    if header + stored >= len(block):
        return [(0, 6)]
    places = [(0, 6), (header + stored, min(4, len(block) - header - stored)), (len(block) - 1, 1)]
    if kind >= 2 and size_format:
        first = block[header]
        tree = 0 if kind == 3 else 1 + (first if first < 128 else (first - 126) // 2)
        places.append((header + tree, 6))
    return places


def zstd_headers(chunk: bytes, nbytes: int) -> list[tuple[int, int]]:
    """Place and size of a frame's header and of each block header; RFC 8878, 3.1.1."""
    if len(chunk) < 6:
        raise CorruptHeaderError
    descriptor = chunk[4]
    size_nbytes = (descriptor >> 5 & 1, 2, 4, 8)[descriptor >> 6]
    at = 5 + (0 if descriptor & 32 else 1) + size_nbytes
    end = len(chunk) - (4 if descriptor & 4 else 0)
    places = [(0, at)]
    for _ in range(nbytes // 16384 + 1024):
        if at + 3 > end:
            raise CorruptHeaderError
        places.append((at, 3))
        header = int.from_bytes(chunk[at : at + 3], "little")
        last, kind, size = header & 1, header >> 1 & 3, header >> 3
        stored = 1 if kind == 1 else size
        if kind == 3 or size > 128 * 1024 or at + 3 + stored > end:
            raise CorruptHeaderError
        if kind == 2:
            block = chunk[at + 3 : at + 3 + size]
            places += [(at + 3 + place, n) for place, n in block_headers(block)]
        at += 3 + stored
        if last and at != end:
            raise CorruptHeaderError
        if last:
            return places
    raise CorruptHeaderError


def blosc_headers(chunk: bytes, nbytes: int) -> list[tuple[int, int]]:
    """Place and size of a container's header, block starts, and the headers of each stream."""
    if len(chunk) < 16:
        raise CorruptHeaderError
    flags, typesize = chunk[2], chunk[3]
    said, blocksize, stored = struct.unpack_from("<iii", chunk, 4)
    if flags & 2:
        return [(0, 16)]
    if typesize == 0 or (said, stored) != (nbytes, len(chunk)) or not 0 < blocksize <= nbytes:
        raise CorruptHeaderError
    n_blocks = math.ceil(nbytes / blocksize)
    places = [(0, 16), (16, 4 * n_blocks)]
    if 16 + 4 * n_blocks > len(chunk):
        raise CorruptHeaderError
    for block in range(n_blocks):
        size = min(blocksize, nbytes - block * blocksize)
        whole = size == blocksize and size // typesize >= 128 and typesize <= 16
        splits = typesize if whole and not flags & 16 else 1
        (at,) = struct.unpack_from("<i", chunk, 16 + 4 * block)
        if at < 16 or size % splits:
            raise CorruptHeaderError
        for _ in range(splits):
            if at + 4 > len(chunk):
                raise CorruptHeaderError
            places.append((at, 4))
            (encoded,) = struct.unpack_from("<i", chunk, at)
            if not 0 < encoded <= size // splits or at + 4 + encoded > len(chunk):
                raise CorruptHeaderError
            if flags >> 5 == 4 and encoded < size // splits:
                frame = chunk[at + 4 : at + 4 + encoded]
                places += [(at + 4 + p, n) for p, n in zstd_headers(frame, size // splits)]
            elif encoded < size // splits:  # the first bytes of a zlib or Snappy stream
                places.append((at + 4, min(encoded, 12)))
            at += 4 + encoded
    return places
