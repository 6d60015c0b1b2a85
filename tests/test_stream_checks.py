"""Streams are checked before a launch: what an encoder makes passes, what cannot be right does not.

Frames that break one rule each are refused for it, and libzstd, which is the judge of that, refuses
them too; of changed frames none is refused that libzstd decodes, but for what is the host's anyway.
"""

from __future__ import annotations

import struct
import zlib

import numcodecs
import numpy as np
import pytest
import zstandard

from tests.test_cuda_corruption import change
from tests.zstd_cases import N_DECODED, block_header, frame
from zarrgpu.codecs.blosc_streams import lz4_plausible
from zarrgpu.codecs.deflate_headers import zlib_streams
from zarrgpu.codecs.zstd_blocks import BLOCK_MAX
from zarrgpu.codecs.zstd_frames import frames_valid

HEAD = b"\x58" + struct.pack("<H", N_DECODED - 256)
"""A window of 2 MiB and the decoded size, for descriptor 0x40."""


def pack(streams):
    nbytes = np.array([len(stream) for stream in streams])
    return np.frombuffer(b"".join(streams), np.uint8), np.cumsum(nbytes) - nbytes, nbytes


def checked(frames, sizes):
    payload, offset, nbytes = pack(frames)
    sizes = np.broadcast_to(np.asarray(sizes), nbytes.shape)
    return frames_valid(payload, offset, nbytes, sizes, allow_checksum=True)


def contents(n, rng):
    """Bytes of every compressibility."""
    return [
        rng.integers(0, 2, n, np.uint8), rng.integers(0, 256, n, np.uint8), np.zeros(n, np.uint8),
        np.repeat(rng.integers(0, 30, n // 8 + 1, np.uint8), 8)[:n],
        (np.cumsum(rng.integers(-2, 3, n)) // 4).astype(np.uint8),
        rng.poisson(400, n // 2 + 1).astype("u2").view("u1")[:n].copy(),
    ]  # fmt: skip


@pytest.mark.parametrize("level", [-50, 1, 3, 9, 15, 22])
def test_frames_of_real_encoders_pass(level):
    rng = np.random.default_rng(level + 99)
    frames, sizes = [], []
    for n in (1, 5, 255, 256, 1000, 66_000, 400_000 if level < 13 else 180_000):
        for raw in contents(n, rng):
            window = zstandard.ZstdCompressionParameters(
                compression_level=level, window_log=12, write_content_size=True
            )
            frames += [
                bytes(numcodecs.Zstd(level, checksum=bool(n % 2)).encode(raw.tobytes())),
                zstandard.ZstdCompressor(compression_params=window).compress(raw.tobytes()),
            ]
            sizes += [n, n]
    assert checked(frames, sizes).all()
    assert not checked(frames, np.array(sizes) + 1).any()


def block(content, *, last=True):
    return block_header(2, len(content), last=last) + content


def literals(n):
    """Header of `n` raw literals."""
    return struct.pack("<H", 0b0100 | n << 4)


RLE_100 = block_header(1, 100, last=False) + b"\x07"
RLE_300 = block_header(1, N_DECODED, last=False) + b"\x07"
RAW_300 = literals(N_DECODED) + bytes(N_DECODED)
PREDEFINED = b"\x01\x00"  # one sequence, tables of the standard
IMPOSSIBLE = {
    "literals beyond the block": block(literals(400) + bytes(299) + b"\0"),
    "more literals than the block may decode to": block(literals(301) + bytes(301) + b"\0"),
    "no sequences section": block(literals(N_DECODED) + bytes(N_DECODED)),
    "something behind no sequences": block(RAW_300 + b"\0\0"),
    "sequences without a bit stream": block(literals(200) + bytes(200) + PREDEFINED),
    "a bit stream that does not end": block(literals(200) + bytes(200) + PREDEFINED + b"\x11\0"),
    "reserved bits": block(literals(200) + bytes(200) + b"\x01\x01\x11\x11"),
    "tables of no block before": block(literals(200) + bytes(200) + b"\x01\xfc\x11\x11"),
    "a tree of no block before": block(b"\x03\x20\x00" + bytes(9) + PREDEFINED + b"\x11\x11"),
    "a tree beyond its literals":
        block(b"\x02\x80\x01" + b"\x7f" + bytes(5) + PREDEFINED + b"\x11"),
    "four streams beyond their literals":
        block(b"\x86\x00\x05" + b"\x81\x10" + b"\xff\xff" * 9 + PREDEFINED + b"\x11"),
    "matches larger than the block": block(literals(200) + bytes(200) + b"\x40\x00\x11\x11"),
    "too little": RLE_100 + block(literals(100) + bytes(100) + b"\0"),
    "too much": RLE_300 + block(literals(100) + bytes(100) + b"\0"),
    "a block of one byte": block(b"\0"),
    "raw blocks that sum up to less": block_header(0, 200) + bytes(200),
}  # fmt: skip


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_a_block_that_cannot_be_right_is_refused(name):
    wrong = frame(IMPOSSIBLE[name], HEAD, 0x40)
    with pytest.raises(zstandard.ZstdError):
        zstandard.ZstdDecompressor().decompress(wrong)
    fine = frame(block(RAW_300 + b"\0"), HEAD, 0x40)
    assert numcodecs.zstd.decompress(fine) == bytes(N_DECODED)
    assert checked([wrong, fine, wrong], N_DECODED).tolist() == [False, True, False]


def test_blocks_larger_than_the_window_are_the_hosts():
    """RFC 8878 forbids them (3.1.1.2.3); libzstd takes some of them, so the host decides."""
    n = 5000
    raw = block_header(0, n) + bytes(n)
    size = struct.pack("<H", n - 256)
    narrow, wide = frame(raw, b"\x00" + size, 0x40), frame(raw, b"\x18" + size, 0x40)
    assert numcodecs.zstd.decompress(wide) == bytes(n)
    assert checked([narrow, wide], n).tolist() == [False, True]
    assert BLOCK_MAX == 1 << 17


def is_one_frame(data, n):
    """Whether libzstd takes all of the bytes for one frame that says and has `n` bytes."""
    try:
        decoder = zstandard.ZstdDecompressor().decompressobj()
        content = decoder.decompress(data)
        said = zstandard.frame_content_size(data)
    except zstandard.ZstdError:
        return False
    return decoder.eof and not decoder.unused_data and len(content) == n == said


def test_changed_frames_that_decode_are_not_refused():
    """Of those that do not, what is seen without decoding is."""
    rng = np.random.default_rng(0)
    frames, sizes = [], []
    for _ in range(2500):
        n = int(rng.choice([40, 300, 3000]))
        raw = contents(n, rng)[int(rng.integers(6))].tobytes()
        frames.append(change(bytes(numcodecs.Zstd(int(rng.choice([1, 19]))).encode(raw)), rng))
        sizes.append(n)
    ok = checked(frames, sizes)
    right = np.array([is_one_frame(f, n) for f, n in zip(frames, sizes, strict=True)])
    odd = [frame[4] & 0b1011 for frame in np.array(frames, object)[right & ~ok]]
    assert all(odd)  # a dictionary, or a reserved bit, that libzstd does not mind
    assert (right & ok).sum() > 100
    assert (~right & ~ok).sum() > 1000


def test_dynamic_deflate_codes():
    rng = np.random.default_rng(1)
    raws = [raw.tobytes() for n in (300, 5000, 70_000) for raw in contents(n, rng)]
    for level in (1, 6, 9):
        streams = [zlib.compress(raw, level) for raw in raws]
        payload, offset, nbytes = pack(streams)
        sizes = np.array([len(raw) for raw in raws])
        assert zlib_streams(payload, offset, nbytes, sizes).valid.all()
    good = zlib.compress(raws[4], 9)
    assert good[2] >> 1 & 3 == 2
    changed = [
        good[:2] + bytes([good[2] | 0xF8]) + good[3:],  # 288 codes
        good[:3] + bytes([good[3] | 0x1F]) + good[4:],  # 32 distances
        good[:5] + b"\0\0\0" + good[8:],  # codewords left over
        good[:5] + b"\xff\xff" + good[7:],
    ]
    for stream in changed:
        with pytest.raises(zlib.error):
            zlib.decompress(stream)
    payload, offset, nbytes = pack([*changed, good])
    valid = zlib_streams(payload, offset, nbytes, np.full(5, len(raws[4]))).valid
    assert valid.tolist() == [False] * 4 + [True]


def test_lz4_blocks_expand_so_far_and_no_further():
    longest = bytes(numcodecs.LZ4().encode(bytes(1 << 20)))
    assert lz4_plausible(np.array([len(longest) - 4]), 1 << 20).all()
    assert lz4_plausible(np.array([3, 4]), 1000).tolist() == [False, True]
