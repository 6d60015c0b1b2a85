"""What a device is told to do decodes every chunk that it takes, and it takes none that is wrong.

The tables are carried out here with host codecs, one row at a time, and give the chunk. What a
device cannot decode or verify is left to the host.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace

import google_crc32c
import imagecodecs
import numcodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import kernel_references, zstd_cases
from tests.blosc_cases import CODES, Container, build
from tests.zarr_cases import BLOSC_INNER
from zarrgpu.codecs.base import CodecChain
from zarrgpu.codecs.blosc_streams import parse_containers
from zarrgpu.codecs.device import DEVICE_DECODERS, DeviceChain, decode_tables, device_chain
from zarrgpu.codecs.device_steps import WORK, DecodeTables
from zarrgpu.codecs.registry import build_codec
from zarrgpu.codecs.zstd_frames import frames_valid
from zarrgpu.devices.tables import ChecksumKind
from zarrgpu.model import CodecSpec


def chain_of(names, nbytes: int) -> DeviceChain | None:
    specs = [CodecSpec(*name) if isinstance(name, tuple) else CodecSpec(name) for name in names]
    return device_chain(CodecChain(tuple(build_codec(s, source="test") for s in specs), nbytes))


def blosclz_decode(raw: bytes, n: int) -> bytes:
    """Decode with c-blosc, as the only stream of a container."""
    container = Container(
        cname="blosclz", typesize=1, nbytes=n, blocksize=n, flags=16,
        blocks=[struct.pack("<i", len(raw)) + raw],
    )  # fmt: skip
    return bytes(numcodecs.blosc.decompress(container.encode()))


DECODERS = {
    "zstd": lambda raw, n: numcodecs.zstd.decompress(raw),
    "lz4": lambda raw, n: imagecodecs.lz4_decode(raw, out=np.empty(n, np.uint8)),
    "snappy": lambda raw, n: imagecodecs.snappy_decode(raw),
    "deflate": lambda raw, n: zlib.decompress(raw, -15),
    "blosclz": blosclz_decode,
    "copy_segments": lambda raw, n: raw,
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


def tables_of(names, chunks: list[bytes], nbytes: int, *, itemsize=1, verify=True):
    payload, offset, sizes = pack(chunks)
    tables = decode_tables(
        chain_of(names, nbytes),
        payload,
        offset,
        sizes,
        itemsize=itemsize,
        verify_checksums=verify,
    )
    return payload, tables


def carry_out(
    tables: DecodeTables, payload: np.ndarray, nbytes: int, itemsize: int
) -> dict[int, bytes]:
    """Decode as a device would; the content of every chunk that it takes, by row.

    Steps of one level go in any order: they are carried out in two.
    """
    first, second = (
        _carry_out(tables, payload, nbytes, itemsize, reverse=reverse) for reverse in (False, True)
    )
    assert first == second
    return first


def _carry_out(
    tables: DecodeTables, payload: np.ndarray, nbytes: int, itemsize: int, *, reverse: bool
) -> dict[int, bytes]:
    work = np.full(tables.work_nbytes, 0xAA, np.uint8)
    written = np.zeros(tables.work_nbytes, np.int64)

    def read(position: int, size: int) -> np.ndarray:
        memory, at = (work, position - WORK) if position >= WORK else (payload, position)
        assert 0 <= at <= at + size <= memory.size
        if position >= WORK:
            assert (written[at : at + size] == 1).all(), "reads what nothing wrote"
        return memory[at : at + size].copy()

    def write(position: int, decoded: np.ndarray) -> None:
        at = position - WORK
        assert 0 <= at <= at + decoded.size <= work.size
        work[at : at + decoded.size] = decoded
        written[at : at + decoded.size] += 1

    steps = sorted(tables.live_steps(), key=lambda step: step.name, reverse=reverse)
    for step in sorted(steps, key=lambda step: step.level):
        names = list(step.columns)
        for values in zip(*step.columns.values(), strict=True):
            carry_out_row(step.name, dict(zip(names, map(int, values), strict=True)), read, write)
        assert written.max(initial=1) <= 1, "two rows write the same bytes"
    contents = {}
    for row in np.flatnonzero(tables.on_device).tolist():
        content = read(int(tables.result[row]), nbytes)
        if block := int(tables.shuffle_block_nbytes[row]):
            assert block % itemsize == 0, "the gather would refuse it"
            parts = [content[i : i + block] for i in range(0, nbytes, block)]
            content = np.concatenate(
                [kernel_references.unshuffle_bytes(p, itemsize) for p in parts]
            )
        contents[row] = content.tobytes()
    return contents


def carry_out_row(name: str, job: dict[str, int], read, write) -> None:
    """Do one row of a step, with the libraries that the device's decoders are held to."""
    if name == "crc32c":
        raw = read(job["source"], job["nbytes"]).tobytes()
        assert google_crc32c.value(raw) == job["expected"]
    elif name in ("checksum", "xxh64"):
        stored = read(job["stored"], 4).tobytes()
        expected = int.from_bytes(stored, "big" if job["big_endian"] else "little")
        data = read(job["source"], job["nbytes"])
        assert kernel_references.checksum(data, ChecksumKind(job["kind"])) == expected
    elif name in ("unshuffle_bytes", "unshuffle_bits"):
        data = read(job["source"], job["nbytes"])
        write(job["target"], getattr(kernel_references, name)(data, job["typesize"]))
    else:
        assert name != "deflate" or job["source"] % 4 == 0, "the library asks for alignment"
        raw = read(job["source"], job.get("source_nbytes", job["nbytes"])).tobytes()
        decoded = np.frombuffer(DECODERS[name](raw, job["nbytes"]), np.uint8)
        assert decoded.size == job["nbytes"]
        write(job["target"], decoded)


# ---- chains --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "runs"),
    [
        ([], True),
        (["crc32c"], True),
        (["crc32c", "fletcher32", ("adler32", {"location": "end"})], True),
        (["zstd"], True),
        (["blosc", "crc32c"], True),
        (["lz4", "crc32c", "crc32c"], True),
        (["gzip"], True),
        (["zlib", "crc32c"], True),
        (["crc32c", "zstd"], True),
        (["zstd", "zstd"], False),
        (["zstd", "gzip"], False),
        (["gzip", "crc32c", "zstd"], False),
        (["bz2"], False),
        ([("lzma", {"format": 1, "filters": None}), "crc32c"], False),
        ([("jenkins_lookup3", {"initval": 0})], False),
    ],
)
def test_chains_that_a_device_runs(names, runs):
    chain = chain_of(names, 100)
    assert (chain is not None) == runs
    if chain is not None:
        codecs = [name if isinstance(name, str) else name[0] for name in names]
        assert list(chain.names) == codecs[::-1]
        assert all(f"{name} by {DEVICE_DECODERS[name]}" in chain.description for name in codecs)


# ---- whole streams -------------------------------------------------------------------------------


def encode_with(compressor: str | None, raw: bytes) -> bytes:
    if compressor is None:
        return raw
    codec = {
        "zstd": numcodecs.Zstd(), "zstd-checksum": numcodecs.Zstd(checksum=True),
        "lz4": numcodecs.LZ4(), "blosc": numcodecs.Blosc(), "zlib": numcodecs.Zlib(1),
        "gzip": numcodecs.GZip(1),
    }[compressor]  # fmt: skip
    return bytes(codec.encode(raw))


COMPRESSORS = [None, "zstd", "zstd-checksum", "lz4", "blosc", "zlib", "gzip"]


@pytest.mark.parametrize("compressor", COMPRESSORS)
@pytest.mark.parametrize("trailers", [0, 1, 3])
@pytest.mark.parametrize("nbytes", [1, 15, 255, 256, 300, 65_791, 65_792, 70_000, 300_000])
def test_chunks_of_a_chain(compressor, trailers, nbytes):
    rng = np.random.default_rng(nbytes)
    raw = [rng.integers(0, 5, nbytes, dtype=np.uint8).tobytes() for _ in range(3)]
    chunks = [encode_with(compressor, r) for r in raw]
    for _ in range(trailers):
        chunks = [c + struct.pack("<I", google_crc32c.value(c)) for c in chunks]
    names = [] if compressor is None else [compressor.removesuffix("-checksum")]
    names += ["crc32c"] * trailers
    payload, tables = tables_of(names, [*chunks, chunks[0][:-1], b"", b"\x01"], nbytes)
    # one byte less: a device cannot know where a checksum or a block ends, and finds out later
    sure = compressor not in ("lz4", "zlib", "gzip")
    assert tables.on_device.tolist()[: 3 + sure] == [True] * 3 + [False] * sure
    assert not tables.on_device[4:].any() or nbytes == 1
    payload, tables = tables_of(names, chunks, nbytes)
    assert carry_out(tables, payload, nbytes, 1) == dict(enumerate(raw))
    checks = [s for s in tables.live_steps() if s.name in ("crc32c", "checksum", "xxh64")]
    inner = compressor in ("zstd-checksum", "zlib", "gzip")
    assert sum(len(step.columns["row"]) for step in checks) == 3 * (trailers + inner)
    unverified = tables_of(names, chunks, nbytes, verify=False)[1].live_steps()
    assert not {step.name for step in unverified} & {"crc32c", "checksum", "xxh64"}
    if compressor != "zlib":  # which does not say what it decodes to
        assert not tables_of(names, chunks, nbytes + 1)[1].on_device.any()
        assert not tables_of(names, chunks, nbytes - 1)[1].on_device.any()


def test_nothing_to_do():
    for compressor in (None, "zstd", "lz4", "blosc", "zlib", "gzip"):
        names = ["crc32c"] if compressor is None else [compressor, "crc32c"]
        for chunks in ([], [b""], [b"", b""]):
            _, tables = tables_of(names, chunks, 100)
            assert not tables.on_device.any()
            assert tables.work_nbytes == 0
            assert not tables.live_steps()
    assert (
        frames_valid(np.empty(0, np.uint8), *[np.empty(0, np.int64)] * 3, allow_checksum=False).size
        == 0
    )


@pytest.mark.parametrize(
    "names",
    [
        ["crc32c", "crc32", "zstd", "adler32", "fletcher32"],
        [("crc32", {"location": "end"}), "gzip", ("adler32", {"location": "end"})],
        ["fletcher32", "crc32c_start", "adler32"],
    ],
)
def test_checksums_anywhere_in_a_chain(names):
    rng = np.random.default_rng(0)
    raw = [rng.integers(0, 5, 999, dtype=np.uint8).tobytes() for _ in range(2)]
    chunks = raw
    for name in names:
        name, options = (name, {}) if isinstance(name, str) else name
        if name == "crc32c_start":
            name, options = "crc32c", {"location": "start"}
        codec = numcodecs.get_codec({"id": name, **options})
        chunks = [bytes(codec.encode(c)) for c in chunks]
    # as the parser would have it
    specs = [(n, {"location": "start"}) if n in ("crc32", "adler32") else n for n in names]
    payload, tables = tables_of(specs, chunks, 999)
    assert carry_out(tables, payload, 999, 1) == dict(enumerate(raw))
    checks = [s for s in tables.live_steps() if s.name in ("crc32c", "checksum")]
    wanted = len(names) - names.count("zstd")  # gzip has one of its own
    assert sum(len(step.columns["row"]) for step in checks) == 2 * wanted


def has_checksum(frame: bytes) -> bool:
    return frame[:4] == bytes.fromhex("28b52ffd") and frame[4] & 4 != 0


def test_only_whole_single_frames_of_the_expected_size_reach_the_library():
    n = zstd_cases.N_DECODED
    for cases, wanted in (
        (zstd_cases.FINE, True),
        (zstd_cases.WRONG, False),
        ([c for c in zstd_cases.ODD[1:] if not has_checksum(c)], False),
    ):
        payload, tables = tables_of(["zstd"], list(cases), n)
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
    _, tables = tables_of(["zstd"], [chunk, *cuts, chunk + b"\0"], n)
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
    payload, tables = tables_of(["blosc"], chunks, n, itemsize=itemsize)
    assert tables.on_device.all()
    assert carry_out(tables, payload, n, itemsize) == dict(enumerate(raw))


@pytest.mark.parametrize("cname", ["blosclz", "lz4", "snappy", "zlib", "zstd"])
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
        payload, tables = tables_of(["blosc"], chunks, data.size, itemsize=itemsize)
        assert carry_out(tables, payload, data.size, itemsize) == dict.fromkeys(
            range(8), data.tobytes()
        )


def test_containers_that_lie_are_left_to_the_host():
    data = np.tile(np.arange(120, dtype=np.uint8), 40)
    for cname in ("blosclz", "lz4", "zlib", "zstd"):
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
        for flags in {3, 5, 6, 7} - {CODES[cname]}:  # no such codec, or its streams start otherwise
            lies.append(whole[:2] + bytes([good.flags | flags << 5]) + whole[3:])
        _, tables = tables_of(["blosc"], [*lies, whole], data.size, itemsize=2)
        assert tables.on_device.tolist() == [False] * len(lies) + [True]


@pytest.mark.parametrize(("cname", "header"), [("zstd", 7), ("zlib", 2), ("snappy", 2)])
def test_headers_of_streams_within_containers_are_checked_too(cname, header):
    data = np.tile(np.arange(120, dtype=np.uint8), 40)
    whole = build(data, cname=cname, typesize=2, blocksize=1024).encode()
    first = struct.unpack_from("<i", whole, 16)[0] + 4
    lies = [
        whole[: first + at] + bytes([whole[first + at] ^ 0x11]) + whole[first + at + 1 :]
        for at in range(header)
    ]
    _, tables = tables_of(["blosc"], [*lies, whole], data.size)
    assert tables.on_device.tolist() == [False] * header + [True]


# ---- zlib and gzip -------------------------------------------------------------------------------


def gzip_with(raw: bytes, flags: int, fields: bytes, **trailer: int) -> bytes:
    """A gzip member with optional fields."""
    coder = zlib.compressobj(6, zlib.DEFLATED, -15)
    body = coder.compress(raw) + coder.flush()
    said = {"crc": zlib.crc32(raw), "size": len(raw), **trailer}
    head = bytes([0x1F, 0x8B, 8, flags, 0, 0, 0, 0, 0, 255]) + fields
    return head + body + struct.pack("<II", said["crc"], said["size"])


def with_header_checksum(raw: bytes, flags: int, fields: bytes) -> bytes:
    head = bytes([0x1F, 0x8B, 8, flags | 2, 0, 0, 0, 0, 0, 255]) + fields
    return gzip_with(raw, flags | 2, fields + struct.pack("<H", zlib.crc32(head) & 0xFFFF))


def test_gzip_members_with_every_optional_field():
    raw = bytes(range(200)) * 5
    extra, name, comment = b"\x03\x00abc", b"chunk\0", b"\0"
    chunks = [
        gzip_with(raw, 0, b""), gzip_with(raw, 1, b""), gzip_with(raw, 4, extra),
        gzip_with(raw, 8, name), gzip_with(raw, 16, comment),
        gzip_with(raw, 28, extra + name + comment),
        with_header_checksum(raw, 0, b""), with_header_checksum(raw, 28, extra + name + comment),
    ]  # fmt: skip
    payload, tables = tables_of(["gzip"], chunks, len(raw))
    assert carry_out(tables, payload, len(raw), 1) == dict.fromkeys(range(len(chunks)), raw)


def test_odd_deflate_chunks_are_left_to_the_host():
    raw = bytes(range(200)) * 5
    good = gzip_with(raw, 0, b"")
    odd = [
        good + gzip_with(b"", 0, b""), good + b"\0", good[:-1], good[1:], b"", good[:19],
        gzip_with(raw[:500], 0, b"") + gzip_with(raw[500:], 0, b""), gzip_with(raw, 0x20, b""),
        gzip_with(raw, 2, b"\0\0"), gzip_with(raw, 8, b"x" * 5000), gzip_with(raw, 4, b"\xff\xff"),
        gzip_with(raw, 0, b"", size=999), gzip_with(raw, 0, b"\x06"),
        gzip_with(raw, 0, b"\0\1\1\1\1"),
        b"\x1f\x8b\x09" + good[3:],
    ]  # fmt: skip
    assert tables_of(["gzip"], [*odd, good], len(raw))[1].on_device.tolist() == [False] * len(
        odd
    ) + [True]
    good = zlib.compress(raw)
    dictionary = zlib.compressobj(zdict=b"0123456789")
    odd = [
        good[:7], b"", b"\x78", bytes([good[0], good[1] ^ 1]) + good[2:], b"\x79\x9c" + good[2:],
        b"\x88\x1c" + good[2:], dictionary.compress(raw) + dictionary.flush(),
        good[:2] + b"\x07" + good[3:], good[:2] + b"\0\1\1\1\1" + good[7:],
        good[:2] + b"\0\xff\xff\0\0" + good[7:],
    ]  # fmt: skip
    tables = tables_of(["zlib"], [*odd, good, zlib.compress(raw, 0)], len(raw))[1]
    assert tables.on_device.tolist() == [False] * len(odd) + [True, True]
    bomb = zlib.compress(bytes(100))
    assert not tables_of(["zlib"], [bomb], 1 << 20)[1].on_device.any()


@given(st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_no_bytes_lead_out_of_the_payload(seed):
    """Any container, changed anywhere: every row lies in its chunk and in the room for it."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 6000))
    raw = rng.integers(0, 4, n, dtype=np.uint8).tobytes()
    cname = str(rng.choice(["lz4", "zstd", "zlib", "blosclz"]))
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
        chain_of(["blosc"], n), payload, offset, sizes, itemsize=4, verify_checksums=True
    )
    result = tables.result[tables.on_device]
    in_work = result >= WORK
    assert (result[in_work] - WORK + n <= tables.work_nbytes).all()
    assert (result[~in_work] + n <= payload.size).all()
