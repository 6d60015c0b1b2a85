"""Element codecs and checksums on a CUDA device: what the host gives, bit for bit, or its error.

Arrays are those that zarr-python wrote with each codec, and chunks of random bytes through chains
of codecs drawn at random: any bytes decode to something.
"""

from __future__ import annotations

import json
import zlib

import google_crc32c
import numcodecs
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import zarrgpu as zg
from tests.gpu.devices import open_device, same
from tests.test_array_codecs import V2_CASES, V3_CASES, v2_objects, v3_objects
from tests.test_cuda_corruption import both, change
from tests.zarr_cases import MemoryStore
from zarrgpu.codecs.device import DEVICE_DECODERS, device_chain
from zarrgpu.errors import SelectionError, UnsupportedCodecError

pytestmark = pytest.mark.filterwarnings("ignore:Numcodecs codecs")

STRICT = zg.ReadOptions(strict=True)

V2_ON_HOST = {
    "astype of text", "astype complex", "jenkins_lookup3",
    "jenkins_lookup3 seeded", "base64", "bz2", "lzma", "lzma alone", "lzma raw", "two compressors",
}  # fmt: skip
V3_ON_HOST = {"bz2", "lzma", "jenkins_lookup3"}
WITH_CHUNKS_ON_HOST = {"delta f4"}
"""Where a NaN meets a different one."""

NOT_ON_A_GPU = {"delta of dates", "categorize", "categorize wide"}


def check(objects, cuda, *, on_host, whole=True):
    array = zg.open(MemoryStore(objects))
    wanted = array.read(device="cpu")
    same(array.read(device=cuda), wanted, device=cuda)
    text = array.plan(device=cuda).explain()
    assert ("no device decoder" in text) == on_host
    if on_host or not whole:
        with pytest.raises(UnsupportedCodecError, match="strict"):
            array.read(device=cuda, options=STRICT)
    else:
        same(array.read(device=cuda, options=STRICT), wanted, device=cuda)
        chain = device_chain(array.source.chain)
        assert all(f"{name} by {DEVICE_DECODERS[name]}" in text for name in chain.names)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("name", sorted(V2_CASES.keys() - NOT_ON_A_GPU))
def test_every_v2_filter(cuda, name, order):
    whole = name not in WITH_CHUNKS_ON_HOST
    check(v2_objects(name, order), cuda, on_host=name in V2_ON_HOST, whole=whole)


@pytest.mark.parametrize("endian", ["little", "big"])
@pytest.mark.parametrize("name", V3_CASES)
def test_every_v3_array_codec(cuda, name, endian):
    check(v3_objects(name, endian), cuda, on_host=name in V3_ON_HOST)


@pytest.mark.parametrize("name", sorted(NOT_ON_A_GPU))
def test_types_that_a_gpu_has_not_are_refused(cuda, name):
    with pytest.raises(SelectionError, match="device='cpu'"):
        zg.open(MemoryStore(v2_objects(name))).read(device=cuda)


# ---- chains of anything --------------------------------------------------------------------------

INTEGERS = ("|i1", "|u1", "<i2", ">u2", "<i4", ">i4", "<u4", "<i8", ">u8")
NUMBERS = ("|b1", *INTEGERS, "<f2", "<f4", ">f4", "<f8", ">f8")
SCALES = (1, 10, 0.1, -3, 1000, 7.3, 1e-3)


def size_of(dtype):
    return np.dtype(dtype).itemsize


@st.composite
def filters(draw, nbytes):
    """One filter that decodes to `nbytes` bytes, and what it decodes from."""
    kind = draw(st.sampled_from(["delta", "astype", "fixedscaleoffset", "shuffle", "bitround"]))
    if kind == "shuffle":
        return {"id": kind, "elementsize": draw(st.sampled_from([1, 2, 4, 8]))}, nbytes
    if kind == "bitround":
        return {"id": kind, "keepbits": 4}, nbytes
    types = NUMBERS[1:] if kind == "delta" else NUMBERS
    decoded = draw(st.sampled_from(types))
    encoded = draw(st.sampled_from(types))
    size = nbytes // size_of(decoded) * size_of(encoded)
    if not 64 <= size <= 8192:
        encoded, size = decoded, nbytes
    if kind == "astype":
        return {"id": kind, "encode_dtype": encoded, "decode_dtype": decoded}, size
    found = {"id": kind, "dtype": decoded, "astype": encoded}
    if kind == "fixedscaleoffset":
        found |= {
            "scale": draw(st.sampled_from(SCALES)),
            "offset": draw(st.sampled_from([0, *SCALES])),
        }
    return found, size


CHECKSUMS = [
    {"id": name, "location": where} for name in ("crc32", "adler32", "crc32c")
    for where in ("start", "end")
] + [{"id": "fletcher32"}]  # fmt: skip
COMPRESSORS = [
    None, {"id": "zlib", "level": 1}, {"id": "gzip", "level": 1}, {"id": "lz4", "acceleration": 1},
    {"id": "zstd", "level": 1, "checksum": True},
    {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1, "blocksize": 0},
    {"id": "blosc", "cname": "zlib", "clevel": 5, "shuffle": 1, "blocksize": 512},
    {"id": "blosc", "cname": "zstd", "clevel": 5, "shuffle": 2, "blocksize": 512},
]  # fmt: skip


N_ELEMENTS, N_CHUNKS = 512, 4


@st.composite
def chains(draw):
    """Type of an array, filters, and the size that they decode from."""
    dtype = draw(st.sampled_from([d for d in NUMBERS if d != "|b1"]))
    size = N_ELEMENTS * size_of(dtype)
    chain = []
    for _ in range(draw(st.integers(1, 3))):
        one, size = draw(filters(size))
        chain.append(one)
    return dtype, chain, size


def random_chunks(dtype, chain, size, outer, compressor, rng):
    """Objects of a v2 array whose filters are given random bytes, or zeros and ones."""
    objects = {}
    for row in range(N_CHUNKS):
        chunk = rng.integers(0, 256, size, dtype=np.uint8)
        encoded = (chunk % 2 if row % 2 else chunk).tobytes()
        for codec in (*outer, compressor):
            if codec is not None:
                # Blosc takes the size of elements from what it is given
                typed = np.frombuffer(encoded, "<u4" if len(encoded) % 4 == 0 else "|u1")
                encoded = bytes(numcodecs.get_codec(dict(codec)).encode(typed))
        objects[f"{row}.0"] = encoded
    objects[".zarray"] = json.dumps({
        "zarr_format": 2, "shape": [N_CHUNKS, N_ELEMENTS], "chunks": [1, N_ELEMENTS],
        "dtype": dtype, "fill_value": 0, "order": "C", "filters": [*chain, *outer],
        "compressor": compressor,
    }).encode()  # fmt: skip
    return objects


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    chains(), st.lists(st.sampled_from(CHECKSUMS), max_size=2), st.sampled_from(COMPRESSORS),
    st.integers(0, 2**32),
)  # fmt: skip
def test_random_bytes_through_random_chains(cuda, chain, outer, compressor, seed):
    rng = np.random.default_rng(seed)
    objects = random_chunks(*chain, outer, compressor, rng)
    both(MemoryStore(objects), cuda)
    for key in objects.keys() - {".zarray"}:
        objects[key] = change(objects[key], rng)
    both(MemoryStore(objects), cuda)


# ---- wrong chunks --------------------------------------------------------------------------------


def checksummed(names, data):
    """Objects of a v2 array of bytes, a chunk for each row, through numcodecs."""
    chain = [{"id": name} if isinstance(name, str) else name for name in names]
    objects = {}
    for row, values in enumerate(data):
        encoded = values.tobytes()
        for codec in chain:
            encoded = bytes(numcodecs.get_codec(dict(codec)).encode(encoded))
        objects[f"{row}.0"] = encoded
    objects[".zarray"] = json.dumps({
        "zarr_format": 2, "shape": list(data.shape), "chunks": [1, data.shape[1]],
        "dtype": data.dtype.str, "fill_value": None, "order": "C", "filters": chain,
        "compressor": None,
    }).encode()  # fmt: skip
    return objects


@pytest.mark.parametrize(
    "names",
    [
        ["fletcher32"], ["crc32"], ["adler32"], ["crc32c"], [{"id": "crc32c", "location": "start"}],
        ["crc32", "fletcher32", {"id": "adler32", "location": "end"}],
        [{"id": "shuffle", "elementsize": 2}, "adler32", "zlib", "crc32"],
        ["fletcher32", {"id": "delta", "dtype": "<u2"}],
    ],
)  # fmt: skip
def test_a_checksum_anywhere_finds_every_changed_byte(cuda, names):
    data = np.random.default_rng(0).integers(0, 999, (1, 50), dtype="<u2")
    good = checksummed(names, data)
    n = len(good["0.0"])
    objects = checksummed(names, np.repeat(data, n + 1, axis=0))
    for row in range(n):
        changed = bytearray(objects[f"{row}.0"])
        changed[row] ^= 0x10
        objects[f"{row}.0"] = bytes(changed)
    ok = both(MemoryStore(objects), cuda)
    assert ok == [False] * n + [True]
    assert google_crc32c.value(b"") == zlib.crc32(b"") == 0  # the oracles are at work


def test_packed_bools_with_padding_that_lies(cuda):
    data = np.arange(60, dtype="u1").reshape(6, 10) % 3 == 0
    objects = checksummed(["packbits"], data)
    for row, padding in enumerate((0, 5, 7, 8, 255)):
        chunk = bytearray(objects[f"{row}.0"])
        chunk[0] = padding
        objects[f"{row}.0"] = bytes(chunk)
    assert both(MemoryStore(objects), cuda) == [False] * 5 + [True]


def test_values_without_a_counterpart_are_the_hosts():
    """An astype whose result depends on the machine is left to the machine that NumPy runs on."""
    data = np.float32([[1, 2, 3], [1, np.nan, 3], [1e20, -1, 0]])
    objects = checksummed([], data)
    document = json.loads(objects[".zarray"])
    document |= {
        "dtype": "|u1", "filters": [{"id": "astype", "encode_dtype": "<f4", "decode_dtype": "|u1"}]
    }  # fmt: skip
    objects[".zarray"] = json.dumps(document).encode()
    device = open_device("emulated")
    array = zg.open(MemoryStore(objects))
    same(array.read(device=device), array.read(device="cpu"), device=device)
    assert device.driver.launches.count("convert") == 1
    same(array.read(0, device=device, options=STRICT), np.uint8([1, 2, 3]), device=device)
    for row in (1, 2):
        with pytest.raises(UnsupportedCodecError, match="strict"):
            array.read(row, device=device, options=STRICT)


# ---- how often the device is called --------------------------------------------------------------


def test_calls_do_not_grow_with_chunks():
    data = np.arange(64 * 64, dtype="<i4").reshape(64, 64)
    chain = [
        {"id": "delta", "dtype": "<i4", "astype": "<i2"}, {"id": "shuffle", "elementsize": 2},
        {"id": "fletcher32"}, {"id": "zlib", "level": 1}, {"id": "crc32"},
    ]  # fmt: skip
    calls = []
    for rows in (64, 8, 1):
        objects = checksummed(chain, data.reshape(-1, 64 * rows))
        device = open_device("emulated")
        same(
            zg.open(MemoryStore(objects)).read(device=device, options=STRICT),
            data.reshape(-1, 64 * rows), device=device,
        )  # fmt: skip
        calls.append(device.driver.launches)
    assert calls[0] == calls[1] == calls[2]
    checksum = ["checksum_parts", "checksum_verify"]
    assert calls[0] == [
        *checksum, "copy_segments", "deflate", *checksum, "unshuffle_bytes",
        "delta_sums", "delta_apply", "gather",
    ] or sorted(calls[0]) == sorted([
        *checksum, "copy_segments", "deflate", *checksum, *checksum, "unshuffle_bytes",
        "delta_sums", "delta_apply", "gather",
    ])  # fmt: skip


def test_a_shuffle_that_comes_first_is_left_to_the_gather():
    data = np.arange(512, dtype="<f8").reshape(4, 128)
    objects = checksummed([{"id": "shuffle", "elementsize": 8}, "crc32"], data)
    device = open_device("emulated")
    same(zg.open(MemoryStore(objects)).read(device=device, options=STRICT), data, device=device)
    assert "unshuffle_bytes" not in device.driver.launches
