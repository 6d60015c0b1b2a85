"""Zstandard frames made by hand (RFC 8878, 3.1.1): right ones, wrong ones, and odd ones."""

from __future__ import annotations

import struct

N_DECODED = 300
SKIPPABLE_FRAME = bytes.fromhex("502a4d1800000000")


def frame(blocks: bytes, content: bytes, descriptor: int) -> bytes:
    """Magic, frame header descriptor, the rest of the header, blocks."""
    return bytes.fromhex("28b52ffd") + bytes([descriptor]) + content + blocks


def block_header(kind: int, size: int, *, last: bool = True) -> bytes:
    return struct.pack("<I", last | kind << 1 | size << 3)[:3]


_CONTENT = bytes(range(100)) * 3
_block = block_header(0, N_DECODED) + _CONTENT
_open_end = block_header(0, N_DECODED, last=False) + _CONTENT
_rle = block_header(1, N_DECODED) + b"\x07"
_reserved = block_header(3, N_DECODED) + _CONTENT
_big = block_header(1, 1 << 20) + b"\x07"
_sized2 = struct.pack("<H", N_DECODED - 256)
_huge8 = struct.pack("<Q", N_DECODED | 1 << 56)
_good = frame(_block, _sized2, 0x60)

FINE = (
    _good, frame(_rle, _sized2, 0x60), frame(_block, struct.pack("<I", N_DECODED), 0xA0),
    frame(_block, struct.pack("<Q", N_DECODED), 0xE0), frame(_block, b"\x58" + _sized2, 0x40),
)  # fmt: skip
"""Frames of `N_DECODED` bytes."""

WRONG = (
    frame(_block, _huge8, 0xE0), frame(_block, b"\x00" + _sized2, 0x60), frame(_big, _sized2, 0x60),
    frame(_block, struct.pack("<H", N_DECODED), 0x60), frame(_reserved, _sized2, 0x60),
    frame(_open_end, _sized2, 0x60), frame(_open_end[:2], _sized2, 0x60),
    frame(b"", _sized2, 0x60), b"\x28\xb5\x2f\xfd",
)  # fmt: skip
"""Frames that nothing decodes."""

ODD = (
    frame(_open_end + _block, _sized2, 0x60), frame(_block, b"\x58", 0x00), _good + b"\x00",
    _good * 2, _good + SKIPPABLE_FRAME, SKIPPABLE_FRAME + _good,
    frame(_block + b"\0\0\0\0", _sized2, 0x64),
    frame(_block, b"\x05" + _sized2, 0x61), frame(_block, b"\x00" + _sized2, 0x61),
    frame(_block, _sized2, 0x68),
)  # fmt: skip
"""No content size, several frames, trailing bytes, checksums, dictionaries: the host's to judge."""
