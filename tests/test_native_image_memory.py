"""Laws of memory for images in the compiled executor.

1. What a thread keeps for the next image is bounded, however large the last one was, and by
   whichever function it was asked for.
2. The whole of a large JPEG image is libjpeg's, a few rows at a time; a part of it is not.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from tests.test_native_images import LIBRARY, compiled, jpeg2k_codec, jpeg_codec
from tests.test_native_jpeg import LIBJPEGS, OURS, decode

imagecodecs = pytest.importorskip("imagecodecs")
STATM = Path("/proc/self/statm")
pytestmark = [
    pytest.mark.skipif(LIBRARY is None, reason="the host executor was not compiled"),
    pytest.mark.skipif(not STATM.exists(), reason="memory is told by Linux"),
]

LARGE = 10_500  # its samples are more than what is kept, and less than what is decoded at once
SLACK_NBYTES = 32 << 20


def resident_nbytes() -> int:
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def flat_jpeg(height: int, width: int) -> bytes:
    return imagecodecs.jpeg8_encode(np.full((height, width), 128, np.uint8), level=50)


def codestream_of_many_parts(side: int, layers: int) -> bytes:
    """Code-blocks of 4 x 4, each with a pass and no byte in every layer."""

    def segment(marker: int, body: bytes) -> bytes:
        return marker.to_bytes(2, "big") + (len(body) + 2).to_bytes(2, "big") + body

    across = side // 4
    first = []  # the first layer's: each node of both tag trees is told by its first leaf
    for place in range(across * across):
        y, x = divmod(place, across)
        lowest = min((y & -y).bit_length() or 99, (x & -x).bit_length() or 99)
        nodes = min(lowest, across.bit_length())
        first += [1] * nodes + [1] * nodes + [0, 0, 0, 0, 0]  # one pass of no bytes
    others = [1, 0, 0, 0, 0, 0] * (across * across)
    packets = bytearray(stuffed([1, *first]))
    for _ in range(layers - 1):
        packets += stuffed([1, *others])
    size = np.array([side, side, 0, 0, side, side, 0, 0], ">u4").tobytes()
    head = b"\xff\x4f" + segment(0xFF51, b"\0\0" + size + b"\0\1\7\1\1")
    head += segment(0xFF52, b"\0\0" + layers.to_bytes(2, "big") + b"\0\0\0\0\0\1")
    head += segment(0xFF5C, b"\x40\x40")
    part = (14 + len(packets)).to_bytes(4, "big")
    return head + segment(0xFF90, b"\0\0" + part + b"\0\1") + b"\xff\x93" + packets + b"\xff\xd9"


def stuffed(bits: list[int]) -> bytes:
    """Bytes of a packet's header: a zero before the seven bits that follow 0xFF."""
    done, byte, room = bytearray(), 0, 8
    for bit in bits:
        room -= 1
        byte |= bit << room
        if not room:
            done.append(byte)
            room, byte = (7 if byte == 0xFF else 8), 0
    if room < 8:
        done.append(byte)
    return bytes(done)


def test_a_large_jpeg_leaves_little_behind():
    codec, encoded = jpeg_codec(LARGE, LARGE, 1, "gray"), flat_jpeg(LARGE, LARGE)
    before = resident_nbytes()
    who, out = decode(codec, encoded, (0, LARGE), (0, LARGE))
    assert who == OURS
    assert (out == 128).all()
    assert resident_nbytes() - before - out.nbytes < SLACK_NBYTES


def test_many_parts_of_code_blocks_leave_little_behind():
    encoded = codestream_of_many_parts(1024, 64)
    before = resident_nbytes()
    out = compiled(jpeg2k_codec(1024, 1024, 1, "gray"), encoded, 0, 4)
    assert out is not None
    assert resident_nbytes() - before < SLACK_NBYTES


def test_the_whole_of_a_large_jpeg_is_libjpegs():
    height, width = 13_000, 11_000
    codec, encoded = jpeg_codec(height, width, 1, "gray"), flat_jpeg(height, width)
    who, out = decode(codec, encoded, (0, height), (0, width))
    assert who == LIBJPEGS
    assert (out == 128).all()
    who, out = decode(codec, encoded, (12_000, 12_020), (100, 200))
    assert who == OURS
    assert (out[:, 100:200] == 128).all()
