"""Law 5 on a CUDA device: changed bytes give what the host gives, pixels or error, and no other.

Every chunk of an array is changed in its own way, and all are read at once on both. The emulated
device refuses any access outside of memory, so that none happened where these tests pass.
"""

from __future__ import annotations

import itertools
import struct
from dataclasses import replace

import numcodecs.blosc
import numpy as np
import pytest

import zarrgpu as zg
from tests import zstd_cases
from tests.blosc_cases import build
from tests.gpu.devices import same
from tests.zarr_cases import BLOSC_INNER, CHAINS, MemoryStore, Recipe, encode, values
from zarrgpu import reader
from zarrgpu.errors import ChunkDecodeError
from zarrgpu.output import output_format
from zarrgpu.plan.request import ReadRequest

N_CHUNKS, N_ELEMENTS = 150, 700
FUZZED = [
    "none", "zstd", "lz4", "crc32c", "zstd+crc32c", "blosc-lz4-noshuffle", "blosc-lz4-shuffle",
    "blosc-lz4-bitshuffle", "blosc-zstd-noshuffle", "blosc-zstd-shuffle", "blosc-zstd-bitshuffle",
    "blosc-lz4hc-shuffle", "blosc-zlib-shuffle", "blosc-blosclz-shuffle", "zstd-checksum", "zlib",
    "gzip", "crc32c+gzip",
]  # fmt: skip

CHECKED = ("zstd-checksum", "blosc-zlib-shuffle", "zlib", "gzip")
"""Chains with a checksum of their own: hardly any change goes unseen."""


def change(data: bytes, rng: np.random.Generator) -> bytes:
    """Change an encoded chunk: mostly one byte, mostly near the front, where the headers are."""
    raw = bytearray(data)
    kind = rng.integers(0, 10)
    at = int(rng.integers(0, min(len(raw), 48) if rng.random() < 0.6 else len(raw)))
    if kind < 3:
        raw[at] ^= 1 << int(rng.integers(0, 8))
    elif kind < 5:
        raw[at] = int(rng.choice([0, 1, 0x7F, 0x80, 0xFF]))
    elif kind == 5:
        del raw[at:]
    elif kind == 6:
        raw[at:at] = rng.bytes(int(rng.integers(1, 9)))
    elif kind == 7:
        del raw[at : at + int(rng.integers(1, 9))]
    elif kind == 8:
        raw += rng.bytes(int(rng.integers(1, 20)))
    else:
        raw[at & ~3 : (at & ~3) + 4] = struct.pack(
            "<i", int(rng.choice([-1, 0, 1, 2**31 - 1, -(2**31), 700]))
        )
    return bytes(raw) or b"\0"


def both(store: MemoryStore, cuda) -> list[bool]:
    """Read every row as a patch on both, hold them equal, and return which rows were readable."""
    source = zg.open(store).source
    n = source.spec.shape[0]
    start = np.stack([np.arange(n), np.zeros(n, int)], axis=1)
    request = ReadRequest(
        arrays=(source.spec,), array_index=np.zeros(n, np.int32), start=start,
        count=(1, source.spec.shape[1]), step=(1, 1),
    )  # fmt: skip
    read = {"output": output_format(source.spec.dtype), "on_error": "mask"}
    wanted, fine = reader.read((source,), request, device="cpu", **read)
    got, ok = reader.read((source,), request, device=cuda, **read)
    np.testing.assert_array_equal(ok, fine)
    same(got, wanted, device=cuda)
    return ok.tolist()


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("chain", FUZZED)
def test_changed_bytes_give_what_the_host_gives(cuda, chain, seed):
    rng = np.random.default_rng(seed)
    dtype = ("u2", "f8")[seed % 2]
    data = values((N_CHUNKS, N_ELEMENTS), dtype, seed)
    store = MemoryStore(encode(data, Recipe(chunks=(1, N_ELEMENTS), codecs=CHAINS[chain])))
    for row in range(N_CHUNKS):
        store.objects[f"c/{row}/0"] = change(store.objects[f"c/{row}/0"], rng)
    ok = both(store, cuda)
    assert any(ok) or "crc32c" in chain or chain in CHECKED
    assert not all(ok)
    array = zg.open(store)
    for row in np.flatnonzero(~np.array(ok))[:12]:
        messages = []
        for device in ("cpu", cuda):
            with pytest.raises(ChunkDecodeError) as caught:
                array.read(int(row), device=device)
            assert caught.value.chunk == f"c/{row}/0"
            messages.append(str(caught.value))
        assert messages[0] == messages[1]


@pytest.mark.parametrize(
    "chain",
    [
        "zstd",
        "lz4",
        "crc32c",
        "zlib",
        "gzip",
        "zstd-checksum",
        "blosc-lz4-shuffle",
        "blosc-zstd-shuffle",
        "blosc-blosclz-shuffle",
        "blosc-zlib-shuffle",
    ],
)
def test_every_cut_gives_what_the_host_gives(cuda, chain):
    data = values((1, 300), "u2")
    whole = encode(data, Recipe(chunks=(1, 300), codecs=CHAINS[chain]))["c/0/0"]
    cuts = range(1, len(whole))
    objects = encode(values((len(cuts), 300), "u2"), Recipe(chunks=(1, 300), codecs=CHAINS[chain]))
    for row, cut in enumerate(cuts):
        objects[f"c/{row}/0"] = whole[:cut]
    ok = both(MemoryStore(objects), cuda)
    assert not any(ok)


def blosc_store(containers: list[bytes], n: int, typesize: int = 2) -> MemoryStore:
    data = np.zeros((len(containers), n), f"u{typesize}")
    recipe = Recipe(chunks=(1, n), codecs=CHAINS["blosc-lz4-shuffle"], fill_value=9)
    objects = encode(data, recipe)
    for row, container in enumerate(containers):
        objects[f"c/{row}/0"] = container
    return MemoryStore(objects)


def test_blosc_headers_that_lie(cuda):
    data = np.tile(np.arange(60, dtype="u2"), 40)
    containers = []
    for cname in ("lz4", "zstd", "zlib", "blosclz"):
        good = build(data.view("u1"), cname=cname, typesize=2, blocksize=1024, shuffled=True)
        true = {"nbytes": good.nbytes, "cbytes": len(good.encode()), "blocksize": good.blocksize}
        lies: list[dict] = [{}]
        for name, size in true.items():
            lies += [{"said": {name: value}} for value in (size - 2, size - 1, size + 1, 0, -1)]
        lies += [{"versions": versions} for versions in ((1, 1), (3, 1), (2, 0), (2, 2))]
        lies += [{"typesize": typesize} for typesize in (0, 1, 4, 255)]
        lies += [{"flags": good.flags ^ flag} for flag in (1, 2, 4, 8, 16)]
        containers += [replace(good, **lie).encode() for lie in lies]
    copied = replace(good, flags=2, blocks=[])  # the data follow as they are
    for size in (1024, 0, -1, 1 << 30):
        header = replace(copied, said={"blocksize": size, "cbytes": 16 + data.nbytes})
        containers.append(header.encode() + data.tobytes())
    ok = both(blosc_store(containers, data.size), cuda)
    assert ok[0]
    assert ok[len(lies)]  # the good ones
    assert ok[-4:] == [True, False, False, False]
    assert 2 < sum(ok) < len(ok)


def test_blosc_block_offsets_and_stream_sizes_that_lie(cuda):
    data = np.tile(np.arange(60, dtype="u2"), 40)
    containers = []
    for cname in ("lz4", "zstd", "zlib", "blosclz"):
        for split in (False, True):
            good = build(
                data.view("u1"), cname=cname, typesize=2, blocksize=1024, shuffled=True, split=split
            ).encode()
            containers.append(good)
            first = struct.unpack_from("<i", good, 16)[0]
            # starts of blocks, and the sizes of the first stream
            for at in (16, 20, 16 + 4 * 4, first):
                true = struct.unpack_from("<i", good, at)[0]
                near_end = [len(good) + d for d in (-4, -1, 0, 1)]
                limits = [2**31 - 1, -(2**31), 511, 512, 513, 1024, 1025]
                lies = [-1, 0, 1, 15, 16, 17, true - 1, true + 1, true + 4, *near_end, *limits]
                for lie in lies:
                    raw = bytearray(good)
                    struct.pack_into("<i", raw, at, lie)
                    containers.append(bytes(raw))
    ok = both(blosc_store(containers, data.size), cuda)
    assert 4 <= sum(ok) < len(ok)


def test_blosc_of_a_threaded_writer(cuda):
    """Blocks lie in the order in which threads finished; gaps between them are allowed."""
    rng = np.random.default_rng(0)
    data = np.repeat(rng.integers(0, 9, 500, dtype=np.uint8), 10).view("u2")
    containers = []
    options = {"typesize": 2, "blocksize": 1024}
    for cname in ("lz4", "zstd", "zlib", "blosclz"):
        for split, shuffled, stored in itertools.product((False, True), repeat=3):
            kind = {"cname": cname, "split": split, "shuffled": shuffled, "stored": stored}
            for order in ([4, 3, 2, 1, 0], [2, 0, 4, 1, 3]):
                made = build(
                    data.view("u1"), order=order, gap=len(containers) % 4, **kind, **options
                )
                containers.append(made.encode())
    store = blosc_store(containers, data.size)
    ok = both(store, cuda)
    assert all(ok)
    same(zg.open(store).read(device=cuda), np.tile(data, (len(containers), 1)), device=cuda)


@pytest.fixture
def eight_blosc_threads():
    numcodecs.blosc.use_threads = True
    before = numcodecs.blosc.set_nthreads(8)
    yield
    numcodecs.blosc.set_nthreads(before)
    numcodecs.blosc.use_threads = None


@pytest.mark.parametrize("cname", BLOSC_INNER)
def test_containers_of_c_blosc_all_decode_on_the_device(cuda, cname, eight_blosc_threads):
    """Split or not, shuffled, memcpyed, with a short last block, by a writer with threads."""
    rng = np.random.default_rng(0)
    n = 20_000
    data = np.repeat(rng.integers(0, 999, n // 4, dtype="<u2"), 4)
    noise = rng.integers(0, 1 << 16, n, dtype="<u2")
    containers, wanted = [], []
    for shuffle, blocksize, typesize in itertools.product(range(3), (2048, 3000), (1, 2, 4)):
        for clevel, content in ((5, data), (0, data), (9, noise)):
            made = numcodecs.blosc.compress(
                content.tobytes(), cname.encode(), clevel, shuffle, blocksize, typesize=typesize
            )
            containers.append(bytes(made))
            wanted.append(content)
    assert 0 < sum(c[2] & 2 != 0 for c in containers) < len(containers)
    array = zg.open(blosc_store(containers, n))
    got = array.read(device=cuda, options=zg.ReadOptions(strict=True))
    same(got, np.stack(wanted), device=cuda)


@pytest.mark.parametrize("cname", ["lz4", "zlib", "zstd"])
def test_blocks_that_a_threaded_writer_left_out_of_order(cuda, cname, eight_blosc_threads):
    n = 1 << 18
    data = np.repeat(np.random.default_rng(0).integers(0, 999, n // 16, dtype="<u2"), 16)
    for _ in range(50):
        made = bytes(numcodecs.blosc.compress(data.tobytes(), cname.encode(), 5, 1, 1 << 13))
        starts = struct.unpack_from("<64i", made, 16)
        if starts != tuple(sorted(starts)):
            break
    else:
        pytest.skip("in 50 trials threads wrote all blocks in order")
    array = zg.open(blosc_store([made], n))
    same(array.read(device=cuda, options=zg.ReadOptions(strict=True)), data[None], device=cuda)


def test_blosc_of_snappy_needs_the_device(cuda):
    """Builds of c-blosc may have no Snappy; the device does."""
    data = np.repeat(np.arange(500, dtype="u2"), 4)
    options = {"cname": "snappy", "typesize": 2, "blocksize": 1000, "order": [3, 1, 2, 0]}
    containers = [
        build(data.view("u1"), split=split, shuffled=split, **options).encode()
        for split in (False, True)
    ]
    array = zg.open(blosc_store(containers, data.size))
    same(array.read(device=cuda), np.stack([data, data]), device=cuda)


def test_zstd_frames_that_lie(cuda):
    frames = [*zstd_cases.FINE, *zstd_cases.WRONG, *zstd_cases.ODD]
    n = zstd_cases.N_DECODED
    recipe = Recipe(chunks=(1, n), codecs=CHAINS["zstd"], fill_value=9)
    objects = encode(np.zeros((len(frames), n), "u1"), recipe)
    for row, frame in enumerate(frames):
        objects[f"c/{row}/0"] = frame
    ok = both(MemoryStore(objects), cuda)
    decided = len(zstd_cases.FINE) + len(zstd_cases.WRONG)
    assert ok[:decided] == [row < len(zstd_cases.FINE) for row in range(decided)]
