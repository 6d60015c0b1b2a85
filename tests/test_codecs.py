"""Laws of the host codecs.

1. A decoder gives what numcodecs (or zlib) encoded, with `out` and without, from any view.
2. A decoder refuses a result that is not of the expected size, before taking the memory for it.
3. Damaged bytes give the data, an equally long result where the format has no checksum, or
   `CodecError`: no other exception, no crash, no hang.
"""

from __future__ import annotations

import gzip
import time
import tracemalloc
import zlib
from collections.abc import Mapping

import google_crc32c
import numcodecs
import numpy as np
import pytest

from tests.zarr_cases import BLOSC_INNER, BLOSC_SHUFFLES, CHAINS, apply_codec
from zarrgpu.codecs.base import Codec, CodecChain, CodecError, checked, place
from zarrgpu.codecs.blosc import BloscHeader
from zarrgpu.codecs.registry import CODECS, build_chain, build_codec
from zarrgpu.codecs.run import decode_chunk
from zarrgpu.codecs.zstd import decoded_bound, parse_frame_header
from zarrgpu.errors import UnsupportedCodecError
from zarrgpu.model import CodecSpec

CHECKED = {"zstd-checksum", "gzip", "zlib", "crc32c", "zstd+crc32c", "crc32c+gzip"}


def encoded_of(chain: str, data: bytes | np.ndarray) -> np.ndarray:
    for name, configuration in CHAINS[chain]:
        data = apply_codec(name, configuration, data)
    return np.frombuffer(data if isinstance(data, bytes) else data.tobytes(), np.uint8)


def chain_of(name: str, nbytes: int) -> CodecChain:
    specs = [CodecSpec(codec, configuration) for codec, configuration in CHAINS[name]]
    return build_chain(specs, nbytes, source="a")


def codec_of(name: str, configuration: Mapping | None = None) -> Codec:
    return build_codec(CodecSpec(name, configuration or {}), source="a")


def sample(nbytes: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.where(rng.random(nbytes) < 0.1, rng.integers(0, 256, nbytes), 7).astype(np.uint8)


def refused(
    codec: Codec, encoded: np.ndarray, nbytes: int, *, mib: float = 8, seconds: float = 2,
    open_ended: bool = True,
) -> None:  # fmt: skip
    """The decoder refuses, with `out` and without, within memory and time."""
    for out in (None, np.empty(nbytes, np.uint8)) if open_ended else (np.empty(nbytes, np.uint8),):
        tracemalloc.start()
        began = time.process_time()  # other work on the machine does not count
        try:
            with pytest.raises(CodecError):
                codec.decode_host(encoded, nbytes, out)
            assert tracemalloc.get_traced_memory()[1] < mib * 2**20
        finally:
            tracemalloc.stop()
        assert time.process_time() - began < seconds


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("nbytes", [1, 7, 1000, 200_000])
def test_decodes_what_was_encoded(chain, nbytes):
    data = sample(nbytes)
    encoded = encoded_of(chain, data)
    padded = np.concatenate([np.zeros(3, np.uint8), encoded, np.ones(5, np.uint8)])
    view = padded[3:-5]  # unaligned, and not to be written to
    view.flags.writeable = False
    out = np.full(nbytes + 2, 99, np.uint8)
    decoded = decode_chunk(chain_of(chain, nbytes), view, out[1:-1])
    np.testing.assert_array_equal(decoded, data)
    assert out[0] == out[-1] == 99
    for codec in chain_of(chain, nbytes).codecs[-1:]:  # alone, without a place to decode into
        inner = encoded_of(chain, data)
        assert codec.decode_host(inner, 3 * nbytes + 2000, None).size <= 3 * nbytes + 2000


@pytest.mark.parametrize("chain", CHAINS)
def test_every_other_size_is_refused(chain):
    data = sample(1000)
    encoded = encoded_of(chain, data)
    for wrong in (999, 1001, 500, 1, 4000):
        with pytest.raises(CodecError):
            decode_chunk(chain_of(chain, wrong), encoded, np.empty(wrong, np.uint8))


@pytest.mark.parametrize("chain", [c for c in CHAINS if c != "none"])
def test_damaged_bytes_give_the_data_or_an_error(chain):
    rng = np.random.default_rng(len(chain))
    data = sample(3000, 3).view("<u4")
    encoded = encoded_of(chain, data)
    decoder = chain_of(chain, data.nbytes)
    errors = 0
    for trial in range(150):
        damaged = encoded.copy()
        match trial % 4:
            case 0:
                damaged[rng.integers(damaged.size)] ^= np.uint8(1 << rng.integers(8))
            case 1:
                damaged = damaged[: rng.integers(damaged.size)]
            case 2:
                damaged = np.concatenate(
                    [damaged, rng.integers(0, 256, rng.integers(1, 40), np.uint8)]
                )
            case 3:
                at = rng.integers(min(32, damaged.size))  # headers are where sizes are
                damaged[at : at + 4] = rng.integers(0, 256, damaged[at : at + 4].size)
        try:
            decoded = decode_chunk(decoder, damaged, np.empty(data.nbytes, np.uint8))
        except CodecError:
            errors += 1
            continue
        assert decoded.size == data.nbytes
        if chain in CHECKED:
            np.testing.assert_array_equal(decoded, data.view(np.uint8))
    assert errors > 60


@pytest.mark.parametrize("name", ["zstd", "gzip", "zlib", "lz4", "blosc", "crc32c"])
@pytest.mark.parametrize(
    "junk", [b"", b"\0", b"\x28\xb5\x2f\xfd", b"\xff" * 100, b"\0" * 1000, b"\x02\x01" * 9]
)
def test_what_is_no_stream_is_refused(name, junk):
    refused(codec_of(name), np.frombuffer(junk, np.uint8), 64)


def zstd_frame(blocks: bytes, *, descriptor: int = 0, size: bytes = b"") -> bytes:
    window = b"" if descriptor & 0x20 else b"\x50"
    return (0xFD2FB528).to_bytes(4, "little") + bytes([descriptor]) + window + size + blocks


def rle_blocks(total: int) -> bytes:
    """`total` bytes of x, 4 bytes stored for each 128 KiB."""
    block = 128 << 10
    full = [((block << 3) | 2).to_bytes(3, "little") + b"x"] * (total // block)
    full[-1] = ((block << 3) | 3).to_bytes(3, "little") + b"x"
    return b"".join(full)


def raw_block(data: bytes) -> bytes:
    return ((len(data) << 3) | 1).to_bytes(3, "little") + data


def test_zstd_frames_of_unstated_size():
    codec = codec_of("zstd")
    for data in (raw_block(b"abcd"), raw_block(b"ab")[:0] + raw_block(b"abcd")):
        frame = np.frombuffer(zstd_frame(data), np.uint8)
        out = np.empty(4, np.uint8)
        assert codec.decode_host(frame, 4, out).tobytes() == b"abcd"
        assert codec.decode_host(frame, 100, None).tobytes() == b"abcd"
        refused(codec, frame, 3)
    skippable = (0x184D2A53).to_bytes(4, "little") + (5).to_bytes(4, "little") + b"hello"
    two = np.frombuffer(
        zstd_frame(raw_block(b"ab")) + skippable + zstd_frame(raw_block(b"cd")), np.uint8
    )
    assert codec.decode_host(two, 4, np.empty(4, np.uint8)).tobytes() == b"abcd"
    assert codec.decode_host(two, 100, None).tobytes() == b"abcd"
    assert decoded_bound(two) == (4, False)


def test_zstd_frames_one_after_the_other():
    data = np.arange(3000).astype(np.uint8)
    halves = [numcodecs.Zstd(1, checksum=True).encode(half) for half in np.split(data, 2)]
    unsized = zstd_frame(raw_block(data[1500:].tobytes()))
    skippable = (0x184D2A50).to_bytes(4, "little") + (5).to_bytes(4, "little") + b"hello"
    empty = numcodecs.Zstd(1).encode(b"")
    codec = codec_of("zstd")
    for parts in (
        halves, [skippable, *halves], [*halves, skippable], [halves[0], skippable, halves[1]],
        [empty, *halves, empty], [halves[0], unsized],
    ):  # fmt: skip
        encoded = np.frombuffer(b"".join(parts), np.uint8)
        for nbytes, out in ((data.size, np.empty(data.size, np.uint8)), (data.size, None)):
            np.testing.assert_array_equal(codec.decode_host(encoded, nbytes, out), data)
        refused(codec, encoded, data.size - 1)
        with pytest.raises(CodecError):
            codec.decode_host(encoded, data.size + 1, np.empty(data.size + 1, np.uint8))
        for bad in (encoded[:-1], np.append(encoded, np.uint8(0)), encoded[1:]):
            refused(codec, bad, data.size)
    damaged = np.frombuffer(b"".join(halves), np.uint8).copy()
    damaged[len(halves[0]) - 1] ^= 1
    refused(codec, damaged, data.size)
    refused(codec, np.frombuffer(skippable, np.uint8), data.size)


def test_zstd_headers_are_those_of_the_library():
    for size in (0, 1, 255, 256, 65791, 65792, 1 << 20):
        header = parse_frame_header(np.frombuffer(numcodecs.Zstd(1).encode(bytes(size)), np.uint8))
        assert header.content_nbytes == size
        assert not header.has_dictionary
    assert parse_frame_header(
        np.frombuffer(numcodecs.Zstd(1, checksum=True).encode(bytes(9)), np.uint8)
    ).has_checksum
    with_dictionary = zstd_frame(raw_block(b"abcd"), descriptor=0x21, size=b"\x07\x04")
    with pytest.raises(CodecError, match="dictionary"):
        codec_of("zstd").decode_host(np.frombuffer(with_dictionary, np.uint8), 4, None)


GIB = 1 << 30
BOMBS = {
    "zstd, unstated size": ("zstd", zstd_frame(rle_blocks(4 * GIB))),
    "zstd, second frame": ("zstd", zstd_frame(raw_block(b"x" * 64)) + zstd_frame(rle_blocks(GIB))),
    "zstd, stated size": (
        "zstd",
        zstd_frame(rle_blocks(GIB), descriptor=0xC0, size=GIB.to_bytes(8, "little")),
    ),
    "zstd, more than stated": ("zstd", zstd_frame(rle_blocks(GIB), descriptor=0x60, size=b"\0\0")),
    "zstd, absurd size": ("zstd", zstd_frame(raw_block(b"x"), descriptor=0xC0, size=b"\xff" * 8)),
    "gzip": ("gzip", gzip.compress(bytes(1 << 28), 9)),
    "gzip, second member": ("gzip", gzip.compress(b"x" * 64) + gzip.compress(bytes(1 << 28), 9)),
    "zlib": ("zlib", zlib.compress(bytes(1 << 28), 9)),
    "lz4, stated size": ("lz4", (0x7FFFFFFF).to_bytes(4, "little") + b"\x1fx" + b"\xff" * 100),
    "lz4, negative size": ("lz4", b"\xff" * 4 + b"\x1fx" + b"\xff" * 100),
    "lz4, more than stated": (
        "lz4",
        (64).to_bytes(4, "little") + b"\x1fx\x01\x00" + b"\xff" * 4000 + b"\0",
    ),
    "blosc, stated size": (
        "blosc",
        b"\x02\x01\x01\x01"
        + (0x7FFFFFFF).to_bytes(4, "little")
        + b"\0\0\1\0"
        + (32).to_bytes(4, "little")
        + bytes(16),
    ),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs_are_refused_within_memory_and_time(bomb):
    name, encoded = BOMBS[bomb]
    refused(codec_of(name), np.frombuffer(encoded, np.uint8), 64)


def test_gzip_of_many_members_takes_linear_time():
    # an empty member is 20 bytes, alone or before padding; copying the rest for each takes minutes
    empty = gzip.compress(b"")
    for data in (
        empty * 20_000,
        (empty + b"\0") * 20_000,
        bytes(3_000_000),
        empty + bytes(3_000_000),
    ):
        refused(codec_of("gzip"), np.frombuffer(data, np.uint8), 64, seconds=5, open_ended=False)
    members = b"".join(gzip.compress(bytes([i % 256])) for i in range(500))
    out = np.empty(500, np.uint8)
    decoded = codec_of("gzip").decode_host(np.frombuffer(members + bytes(600), np.uint8), 500, out)
    np.testing.assert_array_equal(decoded, np.arange(500) % 256)


def test_gzip_fast_and_slow_paths_agree(monkeypatch):
    from zarrgpu.codecs import deflate

    data = sample(5000)
    for name, stream in (
        ("gzip", gzip.compress(data.tobytes())),
        ("zlib", zlib.compress(data.tobytes())),
        ("gzip", gzip.compress(data[:77].tobytes()) + gzip.compress(data[77:].tobytes())),
    ):
        encoded = np.frombuffer(stream, np.uint8)
        with_library = codec_of(name).decode_host(encoded, 5000, np.empty(5000, np.uint8)).copy()
        with monkeypatch.context() as patch:
            patch.setattr(deflate, "_libdeflate", lambda name: None)
            without = codec_of(name).decode_host(encoded, 5000, np.empty(5000, np.uint8))
        np.testing.assert_array_equal(with_library, data)
        np.testing.assert_array_equal(without, data)


def test_gzip_members_that_are_too_many_are_refused():
    """Each alone would fill the chunk, so that the last one's size looks right."""
    first, second = sample(5000), sample(5000)[::-1].copy()
    one, two = gzip.compress(first.tobytes()), gzip.compress(second.tobytes())
    for stream in (one + two, one + b"junk" + (5000).to_bytes(4, "little"), one + b"\0" + two):
        refused(codec_of("gzip"), np.frombuffer(stream, np.uint8), 5000)


@pytest.mark.parametrize("inner", BLOSC_INNER)
@pytest.mark.parametrize("shuffle", BLOSC_SHUFFLES)
def test_blosc_header_says_what_the_container_holds(inner, shuffle):
    data = np.arange(5000, dtype="<u2")
    header = BloscHeader.parse(
        np.frombuffer(numcodecs.Blosc(inner, 5, BLOSC_SHUFFLES[shuffle]).encode(data), np.uint8)
    )
    assert (header.typesize, header.nbytes) == (2, 10_000)
    assert header.inner_codec == ("lz4" if inner == "lz4hc" else inner)
    random = np.random.default_rng(0).integers(0, 256, 5000, np.uint8)
    stored = numcodecs.Blosc(inner, 1, 0).encode(random)
    assert BloscHeader.parse(np.frombuffer(stored, np.uint8)).is_memcpyed


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (0, 1, "format version 1"),
        (3, 0, "typesize 0"),
        (8, 0xFFFFFF7F, "blocksize"),
        (12, 0xFF, "says .* bytes, .* are stored"),
    ],
)
def test_blosc_header_is_checked(at, value, message):
    encoded = np.frombuffer(numcodecs.Blosc().encode(bytes(1000)), np.uint8).copy()
    width = 1 if at in (0, 3) else 4
    encoded[at : at + width] = np.frombuffer(value.to_bytes(width, "big"), np.uint8)
    with pytest.raises(CodecError, match=message):
        BloscHeader.parse(encoded)


def test_crc32c_is_the_castagnoli_checksum():
    assert google_crc32c.value(b"123456789") == 0xE3069283  # RFC 3720's check value
    stored = np.frombuffer(b"123456789" + (0xE3069283).to_bytes(4, "little"), np.uint8)
    codec = codec_of("crc32c")
    assert codec.decode_host(stored, 9, None).tobytes() == b"123456789"
    assert codec.encoded_nbytes(9) == 13
    broken = stored.copy()
    broken[3] ^= 1
    with pytest.raises(CodecError, match="checksum mismatch: stored 0xe3069283, computed 0x"):
        codec.decode_host(broken, 9, None)


def test_chains_know_their_sizes():
    chain = build_chain([CodecSpec("crc32c"), CodecSpec("crc32c")], 100, source="a")
    assert (chain.encoded_nbytes, chain.stage_nbytes()) == (108, [100, 104])
    chain = build_chain([CodecSpec("zstd"), CodecSpec("crc32c")], 100, source="a")
    assert (chain.encoded_nbytes, chain.stage_nbytes()) == (None, [100, None])
    with pytest.raises(CodecError, match="gzip: "):
        decode_chunk(chain_of("crc32c+gzip", 9), np.zeros(9, np.uint8), np.empty(9, np.uint8))


def test_sizes_are_checked_where_bytes_are_placed():
    data = np.arange(4, dtype=np.uint8)
    assert place(data, 9, None) is data
    out = np.empty(4, np.uint8)
    assert place(data, 4, out) is out
    assert checked(4, 4, exact=True) == 4
    for nbytes, target in ((3, None), (5, np.empty(5, np.uint8))):
        with pytest.raises(CodecError, match="decodes to 4 bytes"):
            place(data, nbytes, target)


def test_registry_names_decoders_or_says_which_there_are():
    for name in CODECS:
        if name in {"zstd", "blosc", "gzip", "zlib", "lz4", "crc32c"}:
            assert codec_of(name).name == name
            assert codec_of(f"numcodecs.{name}").name == name
    with pytest.raises(
        UnsupportedCodecError, match=r"'snappy' of 'a.zarr' has no decoder.*zstd"
    ) as caught:
        build_codec(CodecSpec("snappy"), source="a.zarr")
    assert isinstance(caught.value, NotImplementedError)
