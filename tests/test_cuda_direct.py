"""Law 3 by GPUDirect Storage: read straight into device memory == through host memory == host.

Files are real; the emulated device reads them into its memory, as late as it may. On a GPU the same
tests run where kvikio and GPUDirect are there.
"""

from __future__ import annotations

import ctypes
import gzip
import io
import os
from dataclasses import replace

import numpy as np
import pytest

import zarrgpu as zg
from tests.blosc_cases import build
from tests.gpu.devices import open_device, same
from tests.test_cuda_corruption import FUZZED, change
from tests.zarr_cases import CHAINS, MemoryStore, Recipe, encode, values, write
from zarrgpu import cuda_direct, cuda_headers, doctor, reader
from zarrgpu.codecs.device import decode_tables, device_chain
from zarrgpu.codecs.device_headers import chain_headers
from zarrgpu.cuda_fetch import WaveFetcher
from zarrgpu.cuda_headers import Arrived, bring_headers
from zarrgpu.devices.cuda import Slot
from zarrgpu.devices.landing import Landing, landing_of
from zarrgpu.errors import DataError, DeviceUnavailableError, ReadCancelledError, StoreError
from zarrgpu.model import ReadOptions
from zarrgpu.output import output_format
from zarrgpu.plan.request import ReadRequest
from zarrgpu.read_explanation import explain_read
from zarrgpu.stats import ReadStats

_CRC32 = ("numcodecs.crc32", {"location": "start"})
_FLETCHER32 = ("numcodecs.fletcher32", {})
MORE = {
    f"{chain}+{len(around)} checksums": (*CHAINS[chain], *around)
    for chain in ("none", "zstd-checksum", "gzip", "zlib", "lz4", "blosc-zstd-shuffle")
    for around in ((_CRC32,), (_CRC32, ("crc32c", {}), _FLETCHER32))
}
"""Streams that begin behind checksums, and end before them."""

DIRECT, PINNED = ReadOptions(gds=True), ReadOptions(gds=False)


@pytest.fixture(params=["lazy", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    """A device that reads files itself; every batch of reads was waited for at the end."""
    kind = request.param
    device = open_device(kind, **({} if kind == "cuda" else {"gds": True}))
    if problem := device.driver.gds_problem:
        pytest.skip(problem)
    yield device
    if kind != "cuda":
        assert device.driver.file_reads_open == 0


@pytest.fixture
def any_size(monkeypatch):
    """Let small reads go straight into device memory too."""
    monkeypatch.setattr(cuda_direct, "MIN_DIRECT_NBYTES", 1)


@pytest.fixture
def emulated():
    return open_device("lazy", gds=True)


def read(array, device, options, **more):
    """An array read as one request; what it cost."""
    stats = ReadStats()
    spec = array.spec
    ndim = len(spec.shape)
    request = ReadRequest(
        arrays=(spec,), array_index=np.zeros(1, np.int32), start=np.zeros((1, ndim), int),
        count=spec.shape, step=(1,) * ndim,
    )  # fmt: skip
    got, ok = reader.read(
        (array.source,), request, output=output_format(spec.dtype), device=device,
        options=options, stats=stats, **more,
    )  # fmt: skip
    return got, ok, stats


def check(array, device, *, options=DIRECT, direct=None):
    """Direct, pinned and host reads agree; `direct` bytes, or all, took the direct way."""
    wanted, _, _ = read(array, "cpu", None)
    got, _, stats = read(array, device, options)
    same(got, wanted, device=device)
    pinned, _, through_host = read(array, device, replace(options, gds=False))
    same(pinned, wanted, device=device)
    assert through_host.direct_bytes == 0
    assert stats.direct_bytes == (stats.fetched_bytes if direct is None else direct)
    assert stats.fetched_bytes == through_host.fetched_bytes
    assert stats.chunks_decoded == through_host.chunks_decoded
    return stats


# ---- every codec ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("any_size")
@pytest.mark.parametrize("chain", [*CHAINS, *MORE])
def test_every_chain_equals_the_host(device, chain, tmp_path):
    chains = CHAINS | MORE
    seed = list(chains).index(chain)
    for number, shards in enumerate(((60, 80), None)):
        dtype = ("u2", "f4", "u1", "i8")[(seed + number) % 4]
        data = values((90, 70), dtype, seed)
        recipe = Recipe(chunks=(30, 40), codecs=chains[chain], shards=shards,
                        big_endian=seed % 3 == 0, missing=frozenset([(0, 1)]))  # fmt: skip
        array = zg.open(write(tmp_path / str(number), encode(data, recipe)))
        stats = check(array, device)
        assert stats.direct_bytes > 0
        assert stats.chunks_retried == 0


@pytest.mark.usefixtures("any_size")
def test_chunks_that_the_host_decodes_go_through_host_memory(device, tmp_path):
    data = values((90, 70), "u2")
    for number, codec in enumerate([("bz2", {"level": 1}), ("lzma", {"preset": 1})]):
        recipe = Recipe(chunks=(30, 40), codecs=((f"numcodecs.{codec[0]}", codec[1]),))
        array = zg.open(write(tmp_path / str(number), encode(data, recipe)))
        check(array, device, direct=0)


def payload_of(chunks, rng):
    """Chunks one after the other with noise between, and their places."""
    parts, offset = [], []
    for chunk in chunks:
        parts.append(rng.bytes(int(rng.integers(0, 40))))
        offset.append(sum(map(len, parts)))
        parts.append(chunk)
    payload = np.frombuffer(b"".join([*parts, rng.bytes(64)]), np.uint8)
    return payload, np.array(offset), np.array([len(chunk) for chunk in chunks])


def same_tables(got, wanted):
    np.testing.assert_array_equal(got.on_device, wanted.on_device)
    here = wanted.on_device
    for name in ("result", "shuffle_block_nbytes"):
        np.testing.assert_array_equal(getattr(got, name)[here], getattr(wanted, name)[here])
    assert got.work_nbytes == wanted.work_nbytes
    pairs = zip(got.live_steps(), wanted.live_steps(), strict=True)
    for a, b in pairs:
        assert (a.level, a.name, set(a.columns)) == (b.level, b.name, set(b.columns))
        for name, column in a.columns.items():
            np.testing.assert_array_equal(column, b.columns[name], err_msg=f"{a.name} {name}")


@pytest.mark.parametrize("damaged", [False, True])
@pytest.mark.parametrize("chain", [*FUZZED, *MORE])
def test_headers_are_all_that_tables_are_made_from(emulated, chain, damaged, monkeypatch):
    """Tables out of headers among noise are those out of all bytes, for what is not refused."""
    rng = np.random.default_rng([*FUZZED, *MORE].index(chain))
    n = 9000 if "blosc" in chain else 90_000  # blocks of Blosc; several of zstd
    recipe = Recipe(chunks=(1, n), codecs=(CHAINS | MORE)[chain])
    count = 60 if damaged else 12
    objects = encode(values((12, n), "u2", 3), recipe)
    chunks = [objects[f"c/{i % 12}/0"] for i in range(count)]
    if damaged:
        chunks = [change(chunk, rng) for chunk in chunks]
    array = zg.open(MemoryStore(objects))
    device_codecs = device_chain(array.source.chain)
    headers = chain_headers(device_codecs)
    payload, offset, nbytes = payload_of(chunks, rng)
    landing = Landing(emulated.driver)
    room = landing.room(payload.size)
    ctypes.memmove(room, payload.ctypes.data, payload.size)
    noise = np.frombuffer(rng.bytes(payload.size), np.uint8).copy()
    monkeypatch.setattr(cuda_headers, "_empty_mirror", lambda nbytes: noise[:nbytes])
    arrived = [Arrived(headers, np.arange(count), offset, nbytes)]
    mirror, refused = bring_headers(emulated.driver, landing, payload.size, arrived)
    kept = np.setdiff1d(np.arange(count), refused)
    how = {"itemsize": 2, "verify_checksums": True}
    got = decode_tables(device_codecs, mirror, offset[kept], nbytes[kept], **how)
    wanted = decode_tables(device_codecs, payload, offset[kept], nbytes[kept], **how)
    same_tables(got, wanted)
    others = decode_tables(device_codecs, payload, offset[refused], nbytes[refused], **how)
    assert not others.on_device.any()
    if not damaged:
        assert len(kept) == count
        assert wanted.on_device.all()


# ---- damage --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("any_size")
@pytest.mark.parametrize("chain", FUZZED)
def test_changed_bytes_give_what_the_host_gives(emulated, chain, tmp_path):
    rng = np.random.default_rng(FUZZED.index(chain))
    data = values((50, 700), "u2", 1)
    objects = encode(data, Recipe(chunks=(1, 700), codecs=CHAINS[chain]))
    for row in range(50):
        objects[f"c/{row}/0"] = change(objects[f"c/{row}/0"], rng)
    source = zg.open(write(tmp_path, objects)).source
    request = ReadRequest(
        arrays=(source.spec,), array_index=np.zeros(50, np.int32),
        start=np.stack([np.arange(50), np.zeros(50, int)], axis=1), count=(1, 700), step=(1, 1),
    )  # fmt: skip
    how = {"output": output_format(source.spec.dtype), "on_error": "mask"}
    wanted, fine = reader.read((source,), request, device="cpu", **how)
    got, ok = reader.read((source,), request, device=emulated, options=DIRECT, **how)
    np.testing.assert_array_equal(ok, fine)
    same(got, wanted, device=emulated)
    assert emulated.driver.file_reads
    assert emulated.driver.file_reads_open == 0


@pytest.mark.usefixtures("any_size")
@pytest.mark.parametrize("damage", ["missing", "empty", "folder", "cut", "long", "loop"])
@pytest.mark.parametrize("shards", [None, (60, 80)])
def test_files_that_are_not_as_they_should_be(emulated, damage, shards, tmp_path):
    """The same pixels or the same error as without GPUDirect."""
    data = values((90, 160), "u2")
    codecs = CHAINS["none"] if damage in ("cut", "long") else CHAINS["zstd"]
    recipe = Recipe(chunks=(30, 40), codecs=codecs, shards=shards, index_location="start")
    path = write(tmp_path, encode(data, recipe))
    file = path / "c/0/1"
    content = file.read_bytes()
    file.unlink()
    if damage == "empty":
        file.write_bytes(b"")
    elif damage == "folder":
        file.mkdir()
    elif damage == "cut":
        file.write_bytes(content[: len(content) * 2 // 3])
    elif damage == "long":
        file.write_bytes(content + bytes(100_000))
    elif damage == "loop":
        file.symlink_to(file)
    array = zg.open(path)
    outcomes = []
    for device, options in (("cpu", None), (emulated, PINNED), (emulated, DIRECT)):
        try:
            got, _, _ = read(array, device, options)
            outcomes.append(np.array(got).tobytes())
        except DataError as error:
            outcomes.append((type(error), str(error)))
    assert outcomes[2] == outcomes[1]
    if isinstance(outcomes[0], bytes):
        assert outcomes[1] == outcomes[0]
    # a shard without an index ends the read before a chunk is fetched
    assert emulated.driver.file_reads or (shards and damage in ("empty", "loop"))
    assert emulated.driver.file_reads_open == 0


# ---- which reads ---------------------------------------------------------------------------------


def test_small_reads_go_through_host_memory(device, tmp_path):
    rng = np.random.default_rng(0)
    data = rng.integers(0, 1 << 16, (3, 40_000), np.uint16)
    large = zg.open(write(tmp_path / "large", encode(data, Recipe(chunks=(1, 40_000)))))
    check(large, device)
    small = zg.open(write(tmp_path / "small", encode(data, Recipe(chunks=(1, 20_000)))))
    check(small, device, direct=0)
    last = Recipe(chunks=(1, 16_000), shards=(3, 48_000))
    mixed = zg.open(write(tmp_path / "mixed", encode(data, last)))
    check(mixed, device)


@pytest.mark.usefixtures("any_size")
def test_chunks_whose_headers_do_not_tell_enough_come_back_whole(device, tmp_path, monkeypatch):
    """More Blosc streams than room, gzip headers with names: the device decodes them too."""
    data = values((4, 9000), "u2")
    data[:, ::2] = 7
    data[:2] = 9
    blosc = encode(data, Recipe(chunks=(1, 9000), codecs=CHAINS["blosc-lz4-noshuffle"]))
    for row in (0, 1):  # 100 streams
        raw = data[row].view(np.uint8)
        blosc[f"c/{row}/0"] = build(raw, cname="lz4", typesize=2, blocksize=180).encode()
    named = encode(data, Recipe(chunks=(1, 9000), codecs=CHAINS["gzip"]))
    for row in (1, 3):
        content = io.BytesIO()
        with gzip.GzipFile("a name", "wb", 1, content) as file:
            file.write(data[row].tobytes())
        named[f"c/{row}/0"] = content.getvalue()
    back: list[int] = []
    bring_back = WaveFetcher.bring_back

    def count(fetcher, wave, places):
        back.append(len(places))
        bring_back(fetcher, wave, places)

    monkeypatch.setattr(WaveFetcher, "bring_back", count)
    for name, objects, n in (("blosc", blosc, 2), ("named", named, 2)):
        array = zg.open(write(tmp_path / name, objects))
        back.clear()
        stats = check(array, device, options=ReadOptions(gds=True, strict=True))
        assert max(back) == n
        assert stats.chunks_retried == 0


@pytest.mark.usefixtures("any_size")
def test_chunks_that_arrived_are_cached(device, tmp_path):
    data = values((40, 30), "u2")
    recipe = Recipe(chunks=(10, 30), codecs=CHAINS["blosc-zstd-shuffle"])
    array = zg.open(write(tmp_path, encode(data, recipe)), cache=zg.ChunkCache(0, 1 << 20))
    wanted, _, _ = read(zg.open(tmp_path), "cpu", None)
    for cached in (0, 4):
        got, _, stats = read(array, device, DIRECT)
        same(got, wanted, device=device)
        assert (stats.chunks_cached, stats.direct_bytes > 0) == (cached, cached == 0)


@pytest.mark.usefixtures("any_size")
def test_many_waves_and_many_arrays(device, tmp_path):
    data = values((40, 3000), "u2")
    recipe = Recipe(chunks=(1, 1000), codecs=CHAINS["blosc-zstd-shuffle"], shards=(10, 3000))
    array = zg.open(write(tmp_path, encode(data, recipe)))
    stats = check(array, device, options=ReadOptions(gds=True, memory_budget_bytes=120_000))
    assert stats.waves > 3


@pytest.mark.usefixtures("any_size")
def test_parts_of_uncompressed_chunks(device, tmp_path):
    data = values((300, 50), "f4")
    array = zg.open(write(tmp_path, encode(data, Recipe(chunks=(300, 50)))))
    starts = np.array([[7, 0], [100, 0], [290, 0]])
    wanted = array.read_patches(starts, (5, 50), device="cpu")
    got = array.read_patches(starts, (5, 50), device=device, options=DIRECT)
    same(got, wanted, device=device)


@pytest.mark.usefixtures("any_size")
@pytest.mark.parametrize("compression", [None, "zlib", "zstd", "lzw", "packbits"])
def test_tiles_of_tiff_files(device, compression, tmp_path):
    tifffile = pytest.importorskip("tifffile")
    data = values((40, 44), "u2")
    path = tmp_path / "image.tif"
    predictor = compression in ("zlib", "zstd", "lzw")
    tifffile.imwrite(path, data, tile=(16, 32), compression=compression, predictor=predictor)
    image = zg.open(path)
    array = image.levels[0] if hasattr(image, "levels") else image
    np.testing.assert_array_equal(np.array(array.read(device="cpu"))[..., 0], data)
    on_device = device_chain(array.source.chain) is not None
    assert on_device or compression in ("lzw", "packbits") or predictor
    check(array, device, direct=None if on_device else 0)


def test_the_memory_behind_a_short_stored_strip_can_be_read(device, tmp_path):
    """A cache keeps strips whole, and what the gather may read is told as whole strips."""
    tifffile = pytest.importorskip("tifffile")
    data = np.random.default_rng(0).integers(0, 256, (1300, 1000), np.uint8)
    tifffile.imwrite(tmp_path / "image.tif", data, rowsperstrip=1200)
    for cache in (None, zg.ChunkCache(0, 8 << 20)):
        image = zg.open(tmp_path / "image.tif", cache=cache)
        array = image.levels[0] if hasattr(image, "levels") else image
        for _ in range(2):
            got = array.read_patches([[1210, 0, 0]], (80, 1000, 1), device=device, options=DIRECT)
            same(got[0, ..., 0], data[1210:1290], device=device)


# ---- options and faults --------------------------------------------------------------------------


@pytest.fixture
def stored(tmp_path):
    """An array of six large chunks in files of their own."""
    data = np.random.default_rng(1).integers(0, 1 << 16, (6, 40_000), np.uint16)
    codecs = CHAINS["blosc-lz4-noshuffle"]
    return zg.open(write(tmp_path, encode(data, Recipe(chunks=(1, 40_000), codecs=codecs))))


def test_it_is_used_where_it_can_be(emulated, stored):
    plain = open_device("lazy")
    for options in (None, ReadOptions(), PINNED):
        _, _, stats = read(stored, plain, options)
        assert stats.direct_bytes == 0
        _, _, stats = read(stored, emulated, options)
        assert (stats.direct_bytes > 0) == (options != PINNED)
    with pytest.raises(DeviceUnavailableError, match=r"gds=True.*made without it"):
        read(stored, plain, DIRECT)


def test_explain_and_the_doctor_say_which_way(emulated, stored, tmp_path):
    plain = open_device("lazy")
    data = values((3, 40), "u2")
    elsewhere = zg.open(MemoryStore(encode(data, Recipe(chunks=(1, 40)))))
    bz2 = Recipe(chunks=(1, 40), codecs=(("numcodecs.bz2", {"level": 1}),))
    on_host = zg.open(write(tmp_path / "bz2", encode(data, bz2)))
    for array, device, options, way in (
        (stored, emulated, ReadOptions(), "on emulated:0, GPUDirect by preadv, from "),
        (stored, emulated, PINNED, "on host, through pinned memory, from "),
        (stored, plain, ReadOptions(), "on host, through pinned memory, from "),
        (elsewhere, emulated, ReadOptions(), "on host, through pinned memory, from "),
        (on_host, emulated, ReadOptions(), "on host, through pinned memory, from "),
    ):
        plan = array.plan(..., device=device).plan
        output = output_format(array.spec.dtype)
        text = explain_read(plan, (array.source,), output, device, options)
        assert way in text, text
    assert doctor._gds(emulated.driver) == "files by GPUDirect Storage, with preadv"
    assert "made without it" in doctor._gds(plain.driver)


def test_stores_without_files_are_refused_where_it_must_be(emulated, tmp_path):
    data = values((3, 40_000), "u2")
    array = zg.open(MemoryStore(encode(data, Recipe(chunks=(1, 40_000)))))
    with pytest.raises(StoreError, match=r"gds=True.*no local files; read it with gds=None"):
        read(array, emulated, DIRECT)
    got, _, stats = read(array, emulated, ReadOptions())
    same(got, data[None], device=emulated)
    assert stats.direct_bytes == 0


def test_reads_that_fail_are_made_again_through_host_memory(emulated, stored):
    wanted, _, _ = read(stored, "cpu", None)
    root = stored.source.store.root
    emulated.driver.broken_files = {f"{root}/c/2/0", f"{root}/c/5/0"}
    got, _, stats = read(stored, emulated, ReadOptions())
    same(got, wanted, device=emulated)
    assert 0 < stats.direct_bytes < stats.fetched_bytes
    with pytest.raises(StoreError, match=r"c/2/0': bytes 0-.* said to be broken.*gds=None"):
        read(stored, emulated, DIRECT)
    assert emulated.driver.file_reads_open == 0


def test_file_systems_that_cannot_are_left_alone(emulated, stored):
    """Where no file can be read directly, it is tried with the first waves and then no more."""
    root = stored.source.store.root
    wanted, _, _ = read(stored, "cpu", None)
    emulated.driver.broken_files = {f"{root}/c/{row}/0" for row in range(6)}
    for tried in (6, 6, 6):
        got, _, stats = read(stored, emulated, ReadOptions())
        same(got, wanted, device=emulated)
        assert (stats.direct_bytes, len(emulated.driver.file_reads)) == (0, tried)
    emulated.driver.broken_files = set()
    _, _, stats = read(stored, emulated, DIRECT)  # it is asked for
    assert stats.direct_bytes == stats.fetched_bytes


def test_files_that_shrink_meanwhile(emulated, stored, monkeypatch):
    path = f"{stored.source.store.root}/c/3/0"
    begin = emulated.driver.read_files

    def shrink(reads):
        os.truncate(path, 50_000)
        return begin(reads)

    monkeypatch.setattr(emulated.driver, "read_files", shrink)
    with pytest.raises(DataError, match="c/3/0"):
        read(stored, emulated, ReadOptions())
    assert emulated.driver.file_reads_open == 0


def test_errors_meanwhile_wait_for_what_arrives(emulated, tmp_path):
    """A read that fails in host memory does not leave others writing into device memory."""
    rng = np.random.default_rng(0)
    data = rng.integers(0, 256, (2, 100_000), np.uint8)
    objects = encode(data, Recipe(chunks=(1, 100_000), codecs=CHAINS["crc32c"]))
    path = write(tmp_path, objects)
    (path / "c/1/0").write_bytes(b"short")
    array = zg.open(path)
    with pytest.raises(DataError, match="c/1/0"):
        read(array, emulated, DIRECT)
    assert len(emulated.driver.file_reads) == 1
    assert emulated.driver.file_reads_open == 0


def test_a_slot_is_idle_when_its_landing_is(emulated):
    slot = Slot(emulated.driver)
    landing, done = landing_of(slot), []
    landing.slot.stream.give(lambda: done.append(True))
    assert slot.settles()
    assert done
    landing.slot.stream.lost = True
    assert not slot.settles()


def test_cancelled_reads_end(emulated, stored):
    with pytest.raises(ReadCancelledError):
        read(stored, emulated, DIRECT, cancelled=lambda: True)
    got, _, stats = read(stored, emulated, DIRECT, cancelled=lambda: False)
    same(got, read(stored, "cpu", None)[0], device=emulated)
    assert stats.direct_bytes == stats.fetched_bytes
