"""What a device is told to do decodes every chunk that it takes, and it takes none that is wrong.

The tables are carried out here with host codecs, one row at a time, and give the chunk. What a
device cannot decode or verify is left to the host.
"""

from __future__ import annotations

import struct
from dataclasses import replace

import google_crc32c
import imagecodecs
import numcodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import kernel_references, zstd_cases
from tests.blosc_cases import build
from tests.zarr_cases import BLOSC_INNER
from zarrgpu.codecs.base import CodecChain
from zarrgpu.codecs.blosc_streams import parse_containers
from zarrgpu.codecs.device import DecodeTables, DeviceChain, decode_tables, device_chain
from zarrgpu.codecs.registry import build_codec
from zarrgpu.codecs.zstd_frames import frames_valid
from zarrgpu.model import CodecSpec

BLOSC = DeviceChain(0, "blosc")
LIBRARY = {
    "zstd": lambda raw, n: numcodecs.zstd.decompress(raw),
    "lz4": lambda raw, n: imagecodecs.lz4_decode(raw, out=np.empty(n, np.uint8)),
    "snappy": lambda raw, n: imagecodecs.snappy_decode(raw),
}


def pack(chunks: list[bytes], gap: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Payload with chunks at odd places, and their offsets and sizes."""
    payload, offset = bytearray(b"\xcc" * gap), []
    for chunk in chunks:
        offset.append(len(payload))
        payload += chunk + b"\xcc" * gap
    return (
        np.frombuffer(bytes(payload), np.uint8),
        np.array(offset, np.int64),
        np.array([len(c) for c in chunks], np.int64),
    )


def tables_of(chain: DeviceChain, chunks: list[bytes], nbytes: int, *, itemsize=1, verify=True):
    payload, offset, sizes = pack(chunks)
    tables = decode_tables(
        chain,
        payload,
        offset,
        sizes,
        chunk_nbytes=nbytes,
        itemsize=itemsize,
        verify_checksums=verify,
    )
    return payload, tables


def carry_out(
    tables: DecodeTables, payload: np.ndarray, nbytes: int, itemsize: int
) -> dict[int, bytes]:
    """Decode as a device would; the content of every chunk that it takes, by row."""
    work = np.full(tables.work_nbytes, 0xAA, np.uint8)
    written = np.zeros(tables.work_nbytes, np.int64)

    def write(at: int, decoded: np.ndarray) -> None:
        work[at : at + decoded.size] = decoded
        written[at : at + decoded.size] += 1

    for row, source, size, expected in zip(*tables.checks, strict=True):
        assert google_crc32c.value(payload[source : source + size].tobytes()) == expected, row
    for name, table in tables.streams.items():
        for source, size, target, room in zip(
            table.source, table.source_nbytes, table.target, table.target_nbytes, strict=True
        ):
            decoded = np.frombuffer(
                LIBRARY[name](payload[source : source + size].tobytes(), room), np.uint8
            )
            assert decoded.size == room
            write(target, decoded)
    if tables.copies is not None:
        for source, size, target, room in zip(
            tables.copies.source, tables.copies.source_nbytes, tables.copies.target,
            tables.copies.target_nbytes, strict=True,
        ):  # fmt: skip
            assert size == room
            write(target, payload[source : source + size])
    for kind in ("unshuffle_bytes", "unshuffle_bits"):
        table = getattr(tables, kind)
        for source, typesize, target, size in (
            zip(table.source, table.source_nbytes, table.target, table.target_nbytes, strict=True)
            if table is not None
            else ()
        ):
            assert (written[source : source + size] == 1).all()
            write(
                target,
                getattr(kernel_references, kind)(
                    work[source : source + size].copy(), int(typesize)
                ),
            )
    assert written.max(initial=1) == 1, "two rows write the same bytes"
    contents = {}
    for row in np.flatnonzero(tables.on_device).tolist():
        memory = work if tables.in_work[row] else payload
        at = int(tables.result[row])
        if tables.in_work[row]:
            assert (written[at : at + nbytes] == 1).all()
        content = memory[at : at + nbytes].copy()
        assert content.size == nbytes
        if block := int(tables.shuffle_block_nbytes[row]):
            assert block % itemsize == 0, "the gather would refuse it"
            parts = [content[i : i + block] for i in range(0, nbytes, block)]
            content = np.concatenate(
                [kernel_references.unshuffle_bytes(p, itemsize) for p in parts]
            )
        contents[row] = content.tobytes()
    return contents


# ---- chains --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        ([], DeviceChain(0, None)),
        (["crc32c"], DeviceChain(1, None)),
        (["crc32c", "crc32c"], DeviceChain(2, None)),
        (["zstd"], DeviceChain(0, "zstd")),
        (["blosc", "crc32c"], DeviceChain(1, "blosc")),
        (["lz4", "crc32c", "crc32c"], DeviceChain(2, "lz4")),
        (["gzip"], None),
        (["zlib", "crc32c"], None),
        (["crc32c", "zstd"], None),
        (["zstd", "zstd"], None),
        (["zstd", "gzip"], None),
        (["gzip", "zstd"], None),
    ],
)
def test_chains_that_a_device_runs(names, wanted):
    chain = CodecChain(tuple(build_codec(CodecSpec(name), source="test") for name in names), 100)
    assert device_chain(chain) == wanted


# ---- whole streams -------------------------------------------------------------------------------


def encode_with(compressor: str | None, raw: bytes) -> bytes:
    if compressor is None:
        return raw
    codec = {"zstd": numcodecs.Zstd(), "lz4": numcodecs.LZ4(), "blosc": numcodecs.Blosc()}[
        compressor
    ]
    return bytes(codec.encode(raw))


@pytest.mark.parametrize("compressor", [None, "zstd", "lz4", "blosc"])
@pytest.mark.parametrize("trailers", [0, 1, 3])
@pytest.mark.parametrize("nbytes", [1, 15, 255, 256, 300, 65_791, 65_792, 70_000, 300_000])
def test_chunks_of_a_chain(compressor, trailers, nbytes):
    rng = np.random.default_rng(nbytes)
    raw = [rng.integers(0, 5, nbytes, dtype=np.uint8).tobytes() for _ in range(3)]
    chunks = [encode_with(compressor, r) for r in raw]
    for _ in range(trailers):
        chunks = [c + struct.pack("<I", google_crc32c.value(c)) for c in chunks]
    chain = DeviceChain(trailers, compressor)
    payload, tables = tables_of(chain, [*chunks, chunks[0][:-1], b"", b"\x01"], nbytes)
    # one byte less: a device cannot know where a checksum or an LZ4 block ends, and finds out later
    sure = compressor != "lz4"
    assert tables.on_device.tolist()[: 3 + sure] == [True] * 3 + [False] * sure
    assert not tables.on_device[4:].any() or nbytes == 1
    payload, tables = tables_of(chain, chunks, nbytes)
    assert carry_out(tables, payload, nbytes, 1) == dict(enumerate(raw))
    assert len(tables.checks[0]) == 3 * trailers
    assert len(tables_of(chain, chunks, nbytes, verify=False)[1].checks[0]) == 0
    assert not tables_of(chain, chunks, nbytes + 1)[1].on_device.any()
    assert not tables_of(chain, chunks, nbytes - 1)[1].on_device.any()


def test_nothing_to_do():
    for compressor in (None, "zstd", "lz4", "blosc"):
        for chunks in ([], [b""], [b"", b""]):
            _, tables = tables_of(DeviceChain(1, compressor), chunks, 100)
            assert not tables.on_device.any()
            assert tables.work_nbytes == 0
    assert (
        frames_valid(np.empty(0, np.uint8), *[np.empty(0, np.int64)] * 3, allow_checksum=False).size
        == 0
    )


def test_zstd_checksums_are_the_hosts_unless_nobody_asks():
    raw = bytes(1000)
    chunk = bytes(numcodecs.Zstd(checksum=True).encode(raw))
    chain = DeviceChain(0, "zstd")
    assert not tables_of(chain, [chunk], 1000)[1].on_device.any()
    payload, tables = tables_of(chain, [chunk], 1000, verify=False)
    assert carry_out(tables, payload, 1000, 1) == {0: raw}


def test_only_whole_single_frames_of_the_expected_size_reach_the_library():
    n = zstd_cases.N_DECODED
    for cases, wanted in (
        (zstd_cases.FINE, True),
        (zstd_cases.WRONG, False),
        (zstd_cases.ODD[1:], False),
    ):
        payload, tables = tables_of(DeviceChain(0, "zstd"), list(cases), n)
        assert tables.on_device.tolist() == [wanted] * len(cases)
        contents = carry_out(tables, payload, n, 1)
        assert all(len(content) == n for content in contents.values())


@given(
    st.integers(0, 2**32),
    st.sampled_from([1, 3, 19, -7]),
    st.sampled_from([10, 4000, 140_000, 400_000]),
)
@settings(max_examples=40, deadline=None)
def test_frames_of_the_real_encoder_are_taken_and_cut_ones_are_not(seed, level, n):
    rng = np.random.default_rng(seed)
    raw = rng.integers(0, int(rng.choice([2, 30, 256])), n, dtype=np.uint8).tobytes()
    chunk = bytes(numcodecs.Zstd(level).encode(raw))
    cuts = [chunk[: int(k)] for k in rng.integers(0, len(chunk), 5)]
    _, tables = tables_of(DeviceChain(0, "zstd"), [chunk, *cuts, chunk + b"\0"], n)
    assert tables.on_device.tolist() == [True, *[False] * 6]


# ---- Blosc ---------------------------------------------------------------------------------------


@given(
    st.sampled_from(BLOSC_INNER), st.sampled_from([1, 2, 3, 4, 7, 8, 16, 17, 255]),
    st.integers(0, 2), st.integers(0, 9), st.sampled_from([0, 0, 1, 256, 1000, 4096]),
    st.integers(1, 40_000), st.booleans(), st.integers(0, 2**32),
)  # fmt: skip
@settings(max_examples=250, deadline=None)
def test_containers_of_the_real_encoder(
    cname, typesize, shuffle, clevel, blocksize, n, known, seed
):
    rng = np.random.default_rng(seed)
    if seed % 3:
        n = max(n - n % typesize, typesize)
    raw = [
        rng.integers(0, int(rng.choice([2, 9, 256])), n, dtype=np.uint8).tobytes() for _ in range(2)
    ]
    codec = numcodecs.Blosc(cname, clevel, shuffle, blocksize, typesize=typesize)
    chunks = [bytes(codec.encode(r)) for r in raw]
    itemsize = typesize if known else 1
    payload, tables = tables_of(BLOSC, chunks, n, itemsize=itemsize)
    for chunk, taken in zip(chunks, tables.on_device, strict=True):
        on_host = cname in ("blosclz", "zlib") and not chunk[2] & 2
        assert bool(taken) != on_host
    contents = carry_out(tables, payload, n, itemsize)
    assert contents == {row: raw[row] for row in contents}


@pytest.mark.parametrize("cname", ["lz4", "snappy", "zstd"])
@pytest.mark.parametrize(("split", "blocksize"), [(False, 1024), (True, 1024), (False, 1022)])
def test_containers_put_together_by_hand(cname, split, blocksize):
    data = np.repeat(np.random.default_rng(0).integers(0, 9, 1000, dtype=np.uint8), 5)
    chunks = [
        build(
            data, cname=cname, typesize=4, blocksize=blocksize, split=split, shuffled=shuffled,
            stored=stored, order=order, gap=gap,
        ).encode()
        for shuffled in (False, True) for stored in (False, True)
        for order, gap in ((None, 0), ([4, 2, 0, 1, 3], 5))
    ]  # fmt: skip
    for itemsize in (1, 4):
        payload, tables = tables_of(BLOSC, chunks, data.size, itemsize=itemsize)
        assert carry_out(tables, payload, data.size, itemsize) == dict.fromkeys(
            range(8), data.tobytes()
        )


def test_containers_that_lie_are_left_to_the_host():
    data = np.tile(np.arange(120, dtype=np.uint8), 40)
    for cname in ("lz4", "zstd"):
        good = build(data, cname=cname, typesize=2, blocksize=1024, shuffled=True)
        whole = good.encode()
        starts = [
            struct.pack("<i", v) for v in (-1, 0, 1, 15, len(whole) - 3, len(whole), 2**31 - 1)
        ]
        sizes = [struct.pack("<i", v) for v in (-1, 0, 1025, len(whole), 2**31 - 1, -(2**31))]
        first = struct.unpack_from("<i", whole, 16)[0]
        lies = [whole[:16] + start + whole[20:] for start in starts]
        lies += [whole[:first] + size + whole[first + 4 :] for size in sizes]
        lies += [whole[:n] for n in (0, 1, 15, 16, 17, 35, 36, len(whole) - 1)] + [whole + b"\0"]
        for name, true in (("nbytes", data.size), ("cbytes", len(whole)), ("blocksize", 1024)):
            values = (
                (true + 1, true - 1, 0, -1, 2**31 - 1)
                if name != "blocksize"
                else (0, -1, 4801, 2**31 - 1)
            )
            lies += [replace(good, said={name: value}).encode() for value in values]
        lies += [replace(good, versions=v).encode() for v in ((1, 1), (3, 1), (2, 0), (2, 2))]
        lies += [replace(good, typesize=0).encode(), replace(good, flags=good.flags | 8).encode()]
        for flags in (0, 3, 5, 6, 7):  # no such inner codec, or one without a device decoder
            lies.append(whole[:2] + bytes([good.flags | flags << 5]) + whole[3:])
        _, tables = tables_of(BLOSC, [*lies, whole], data.size, itemsize=2)
        assert tables.on_device.tolist() == [False] * len(lies) + [True]


def test_frames_within_containers_are_checked_too():
    data = np.tile(np.arange(120, dtype=np.uint8), 40)
    whole = build(data, cname="zstd", typesize=2, blocksize=1024).encode()
    first = struct.unpack_from("<i", whole, 16)[0] + 4
    lies = [
        whole[: first + at] + bytes([whole[first + at] ^ 0x11]) + whole[first + at + 1 :]
        for at in range(7)
    ]
    _, tables = tables_of(BLOSC, [*lies, whole], data.size)
    assert tables.on_device.tolist() == [False] * 7 + [True]


@given(st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_no_bytes_lead_out_of_the_payload(seed):
    """Any container, changed anywhere: every row lies in its chunk and in the room for it."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 6000))
    raw = rng.integers(0, 4, n, dtype=np.uint8).tobytes()
    cname = str(rng.choice(["lz4", "zstd"]))
    codec = numcodecs.Blosc(
        cname, 5, int(rng.integers(0, 3)), int(rng.choice([0, 256])), typesize=4
    )
    chunks = []
    for _ in range(30):
        chunk = bytearray(codec.encode(raw))
        for _ in range(int(rng.integers(1, 4))):
            at = int(rng.integers(0, min(len(chunk), 80)))
            chunk[at] = int(rng.integers(0, 256))
        chunks.append(bytes(chunk))
    payload, offset, sizes = pack(chunks)
    parsed = parse_containers(payload, offset, sizes, n)
    row = parsed.stream_row
    assert parsed.understood[row].all()
    assert (parsed.stream_source >= offset[row] + 16).all()
    assert (parsed.stream_source + parsed.stream_nbytes <= (offset + sizes)[row]).all()
    assert (parsed.stream_target >= 0).all()
    assert (parsed.stream_target + parsed.stream_decoded <= n).all()
    covered = np.bincount(row, parsed.stream_decoded, minlength=30)
    assert (covered[parsed.understood & ~parsed.memcpyed] == n).all()
    tables = decode_tables(
        BLOSC, payload, offset, sizes, chunk_nbytes=n, itemsize=4, verify_checksums=True
    )
    assert (tables.result >= 0).all()
    assert (tables.result[tables.in_work] + n <= tables.work_nbytes).all()
