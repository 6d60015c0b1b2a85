"""Law: zarr-python reads the same through our pipeline as through its own, and writes the same.

The oracle is zarr-python with its default pipeline, and the NumPy array that was written. What is
not ours must be counted as delegated, and be right all the same.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import pickle
import subprocess
import sys
import tomllib
from pathlib import Path

import numcodecs
import numpy as np
import pytest
import zarr
from zarr.abc.codec import BytesBytesCodec
from zarr.codecs import (
    BloscCodec,
    BytesCodec,
    Crc32cCodec,
    GzipCodec,
    ShardingCodec,
    TransposeCodec,
    ZstdCodec,
)
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import cpu
from zarr.core.config import config
from zarr.registry import register_pipeline
from zarr.storage import LocalStore, MemoryStore, ZipStore

from tests.gpu.devices import same
from zarrgpu.errors import ChunkDecodeError
from zarrgpu.interop.zarr_python import Pipeline
from zarrgpu.interop.zarr_python.decoder import ShardDecoder, build_decoder
from zarrgpu.interop.zarr_python.device import DeviceJob, parse_box, read_on_device

ROOT = Path(__file__).resolve().parent.parent
PROTOTYPE = cpu.buffer_prototype
PATH = "zarrgpu.interop.zarr_python.Pipeline"
DEFAULT = "zarr.core.codec_pipeline.BatchedCodecPipeline"
SHAPE, CHUNKS, SHARDS = (13, 22, 3), (4, 5, 3), (8, 10, 3)
ROWS = np.arange(SHAPE[0]) % 3 == 0

SELECTIONS = {
    "all": lambda a: a[:],
    "box": lambda a: a[3:11, 4:19, 1:],
    "steps": lambda a: a[1::3, ::7, ::2],
    "row": lambda a: a[5],
    "element": lambda a: a[12, 21, 2],
    "ellipsis": lambda a: a[..., 1],
    "empty": lambda a: a[4:4],
    "lists": lambda a: a.oindex[[11, 0, 5], 3:9],
    "lists and int": lambda a: a.oindex[[2, 9], [1, 20], 1],
    "mask axis": lambda a: a.oindex[ROWS],
    "points": lambda a: a.vindex[[12, 0, 5], [21, 3, 3], [0, 1, 2]],
    "points 2-D": lambda a: a.vindex[[[12, 0], [5, 5]], [[21, 3], [3, 3]], [[0, 1], [2, 2]]],
    "block": lambda a: a.blocks[1, 2],
}

V3 = {
    "raw": {"compressors": None},
    "zstd": {"compressors": ZstdCodec(level=1)},
    "gzip": {"compressors": GzipCodec(level=1)},
    "blosc": {"compressors": BloscCodec(cname="lz4", shuffle="shuffle")},
    "crc32c": {"compressors": [ZstdCodec(level=1), Crc32cCodec()]},
    "big": {"serializer": BytesCodec(endian="big")},
    "transposed": {"filters": [TransposeCodec(order=(2, 0, 1))]},
}
V2 = {
    "v2 C": {"compressors": numcodecs.Zstd(level=1), "order": "C"},
    "v2 F": {"compressors": numcodecs.Blosc("zstd", shuffle=2), "order": "F"},
    "v2 zlib": {"compressors": numcodecs.Zlib(1)},
    "v2 raw": {"compressors": None},
}


@pytest.fixture(autouse=True)
def pipeline():
    """Our pipeline, with all counts at zero."""
    register_pipeline(Pipeline)
    Pipeline.stats.reset()
    with config.set({"codec_pipeline.path": PATH}):
        yield Pipeline


@pytest.fixture(params=["local", "memory", "zip"])
def store(request, tmp_path):
    if request.param == "local":
        return LocalStore(tmp_path / "a.zarr")
    if request.param == "memory":
        return MemoryStore()
    return ZipStore(tmp_path / "a.zip", mode="w")


def data(dtype="u2", shape=SHAPE):
    values = np.random.default_rng(3).integers(0, 100, shape)
    return values.astype(dtype)


def reopened(array):
    """The same array, with the pipeline that is configured now."""
    return zarr.open_array(array.store_path, mode="r+")


def create(store, values, **options):
    """Array of `values` written by zarr-python's own pipeline."""
    options = {"chunks": CHUNKS, "fill_value": 7, "overwrite": True, **options}
    if isinstance(store, ZipStore):
        options["overwrite"] = False
    with config.set({"codec_pipeline.path": DEFAULT}):
        array = zarr.create_array(store, shape=values.shape, dtype=values.dtype, **options)
        array[...] = values
    return reopened(array)


def nothing_delegated():
    counts = Pipeline.stats.as_dict()
    assert not counts["reads_delegated"], counts
    return counts


# ---- reads ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("sharded", [False, True], ids=["chunks", "shards"])
@pytest.mark.parametrize("case", V3)
def test_v3_reads_equal_numpys(store, case, sharded):
    values = data()
    if sharded and case == "transposed":  # within the shard: create_array would put it around
        inner = [TransposeCodec(order=(2, 0, 1)), BytesCodec()]
        serializer = ShardingCodec(chunk_shape=CHUNKS, codecs=inner)
        options = {"chunks": SHARDS, "serializer": serializer, "compressors": None}
    else:
        options = {**V3[case], "shards": SHARDS if sharded else None}
    array = create(store, values, **options)
    with config.set({"codec_pipeline.path": DEFAULT}):
        default = reopened(array)
        wanted = {name: select(default) for name, select in SELECTIONS.items() if name != "block"}
    for name, want in wanted.items():
        got = SELECTIONS[name](array)
        np.testing.assert_array_equal(got, want, err_msg=name)
        assert np.asarray(got).dtype == np.asarray(want).dtype
    np.testing.assert_array_equal(array[:], values)
    assert nothing_delegated()["chunks_decoded"] > 0


@pytest.mark.parametrize("case", V2)
def test_v2_reads_equal_numpys(store, case):
    values = data(">i4")
    array = create(store, values, zarr_format=2, **V2[case])
    for name, select in SELECTIONS.items():
        with config.set({"codec_pipeline.path": DEFAULT}):
            want = select(reopened(array))
        np.testing.assert_array_equal(select(array), want, err_msg=name)
    np.testing.assert_array_equal(array[:], values)
    assert nothing_delegated()["chunks_decoded"] > 0


@pytest.mark.parametrize(
    "dtype", ["bool", "i1", "i8", "u4", "f2", "f4", "f8", "c8", "c16", "M8[s]", "m8[ms]"]
)
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_every_type(dtype, zarr_format):
    values = data().astype("i8").astype(dtype)
    array = create({}, values, zarr_format=zarr_format, fill_value=0)
    np.testing.assert_array_equal(array[2:9, 3:], values[2:9, 3:])
    nothing_delegated()


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("dtype", ["S5", "U3"])
@pytest.mark.filterwarnings("ignore:The data type:zarr.errors.UnstableSpecificationWarning")
def test_strings_of_a_fixed_length(dtype, zarr_format):
    values = data().astype(dtype)
    array = create({}, values, zarr_format=zarr_format, fill_value="")
    np.testing.assert_array_equal(array[:], values)
    assert Pipeline.stats.reads + Pipeline.stats.reads_delegated == 1


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("sharded", [False, True])
def test_strings_of_any_length(zarr_format, sharded):
    if zarr_format == 2 and sharded:
        pytest.skip("v2 has no shards")
    values = np.array([["", "a", "long " * 20], ["\u00e9", "\U0001f600", "z"]] * 5).astype("T")
    with config.set({"codec_pipeline.path": DEFAULT}):
        shards = {"shards": (4, 2)} if sharded else {}
        array = zarr.create_array({}, shape=values.shape, dtype=str, chunks=(2, 2),
                                  zarr_format=zarr_format, **shards)  # fmt: skip
        array[:6] = values[:6]
    array = reopened(array)
    values[6:] = ""
    for part in (np.s_[:], np.s_[1:4, 2], np.s_[3, 1]):
        np.testing.assert_array_equal(array[part], values[part])
    nothing_delegated()


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.filterwarnings("ignore:The data type:zarr.errors.UnstableSpecificationWarning")
def test_structures(zarr_format):
    dtype = np.dtype([("name", "S3"), ("at", "<i4"), ("value", "<f8")])
    values = np.zeros(11, dtype)
    values["at"], values["value"] = np.arange(11), np.arange(11) / 7
    array = create({}, values, zarr_format=zarr_format, chunks=(4,), fill_value=values[0])
    np.testing.assert_array_equal(array[:], values)
    np.testing.assert_array_equal(array[3:7], values[3:7])
    nothing_delegated()


@pytest.mark.parametrize("location", ["start", "end"])
def test_what_is_not_stored_is_the_fill_value(store, location):
    array = zarr.create_array(
        store, shape=(40, 20), chunks=(5, 5), dtype="i4", fill_value=-3,
        shards={"shape": (20, 10), "index_location": location},
    )  # fmt: skip
    want = np.full((40, 20), -3, "i4")
    array[3:7, 2:4] = want[3:7, 2:4] = 9
    np.testing.assert_array_equal(array[:], want)
    np.testing.assert_array_equal(array[0:12, 1], want[0:12, 1])
    np.testing.assert_array_equal(array[25:], want[25:])
    counts = nothing_delegated()
    assert counts["chunks_missing"] > 0


def test_a_missing_fill_value_is_zarr_pythons_default():
    array = zarr.create_array(
        {}, shape=(6,), chunks=(2,), dtype="f4", zarr_format=2, fill_value=None
    )
    np.testing.assert_array_equal(array[:], np.zeros(6, "f4"))


@pytest.mark.parametrize("sharded", [False, True])
def test_results_of_any_layout(sharded):
    values = data()
    array = create({}, values, shards=SHARDS if sharded else None)
    outs = [
        np.empty(SHAPE, "u2", order="F"),
        np.empty((26, 44, 3), "u2")[::2, ::2],
        np.empty((3, 22, 13), "u2").T,
        np.empty(SHAPE, "f4"),
        np.empty(SHAPE, ">u2"),
    ]
    for out in outs:
        array.get_basic_selection(..., out=cpu.NDBuffer(out))
        np.testing.assert_array_equal(out, values)
    with config.set({"array.order": "F"}):
        zarr_f = reopened(array)
    assert zarr_f[:].flags.f_contiguous
    np.testing.assert_array_equal(zarr_f[:], values)
    nothing_delegated()


def test_no_axes():  # shards of no axes are written by zarr-python from 3.3 on, and in its tests
    array = zarr.create_array({}, shape=(), dtype="i4", fill_value=5, chunks=())
    assert array[()] == 5
    array[()] = 42
    assert array[()] == 42
    assert array[...] == 42


def test_shards_in_shards():
    inner = ShardingCodec(chunk_shape=(2, 5, 3), codecs=[BytesCodec(), ZstdCodec(level=1)])
    values = data()
    array = create({}, values, chunks=SHARDS, compressors=None,
                   serializer=ShardingCodec(chunk_shape=CHUNKS, codecs=[inner]))  # fmt: skip
    np.testing.assert_array_equal(array[:], values)
    np.testing.assert_array_equal(array[3:9, 4:12], values[3:9, 4:12])
    nothing_delegated()


@pytest.mark.filterwarnings("ignore:Combining a `sharding_indexed`:zarr.errors.ZarrUserWarning")
def test_shards_that_codecs_wrap():
    serializer = ShardingCodec(chunk_shape=(2, 2, 3), codecs=[BytesCodec(), GzipCodec(level=1)])
    values = data()
    array = create({}, values, chunks=(8, 10, 3), serializer=serializer,
                   filters=[TransposeCodec(order=(1, 0, 2))],
                   compressors=[ZstdCodec(level=1)])  # fmt: skip
    np.testing.assert_array_equal(array[:], values)
    np.testing.assert_array_equal(array[3:9, 4:12], values[3:9, 4:12])
    nothing_delegated()


# ---- what is fetched -----------------------------------------------------------------------------


class CountingStore(MemoryStore):
    """Counts bytes, and requests in flight."""

    nbytes = now = most = 0

    async def get(self, key, prototype=None, byte_range=None):
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0.001)
        data = await super().get(key, prototype, byte_range)
        self.now -= 1
        self.nbytes += 0 if data is None else len(data)
        return data


def test_inner_chunks_are_fetched_by_range():
    values = np.random.default_rng(0).integers(0, 256, (512, 512), np.uint8)
    store = CountingStore()
    array = create(store, values, chunks=(32, 32), shards=(512, 512), compressors=None)
    store.nbytes = 0
    np.testing.assert_array_equal(array[40:60, 40:60], values[40:60, 40:60])
    index = 256 * 16 + 4
    assert store.nbytes == index + 32 * 32
    store.nbytes = 0
    np.testing.assert_array_equal(array[:], values)
    assert store.nbytes == index + values.nbytes


def test_requests_in_flight_are_bounded():
    values = data(shape=(40, 40))
    store = CountingStore()
    array = create(store, values, chunks=(4, 4))
    store.most = 0
    with config.set({"async.concurrency": 5}):
        np.testing.assert_array_equal(array[:], values)
    assert store.most == 5


# ---- writes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"shards": SHARDS}, {"zarr_format": 2}], ids=str)
def test_writes_are_zarr_pythons(options):
    values = data()
    stores = {}
    for path in (PATH, DEFAULT):
        stores[path] = MemoryStore()
        with config.set({"codec_pipeline.path": path}):
            array = zarr.create_array(
                stores[path], shape=SHAPE, dtype="u2", chunks=CHUNKS, fill_value=7, **options
            )
            array[...] = values
            array[2:5, 3:17] = 1
            array.oindex[[0, 7], 2] = 3
    ours, theirs = (stores[path]._store_dict for path in (PATH, DEFAULT))
    assert {k: v.to_bytes() for k, v in ours.items()} == {
        k: v.to_bytes() for k, v in theirs.items()
    }


def test_an_array_travels():
    values = data()
    folder = create(MemoryStore(), values)
    copy = pickle.loads(pickle.dumps(folder.async_array.codec_pipeline))
    assert copy == folder.async_array.codec_pipeline
    folder[:]
    assert pickle.loads(pickle.dumps(folder.async_array.codec_pipeline)) == copy


def _read_in_child(path):
    return int(zarr.open_array(path, mode="r")[:].sum())


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_reads(tmp_path):
    values = data(shape=(400, 400))
    array = create(LocalStore(tmp_path), values, chunks=(50, 50))
    np.testing.assert_array_equal(array[:], values)  # threads exist now, and are not in the child
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply_async(_read_in_child, (tmp_path,)).get(timeout=60) == values.sum()


# ---- what is not ours ----------------------------------------------------------------------------


class Inverted(BytesBytesCodec):
    """A codec of the user's that says it is gzip."""

    is_fixed_size = True

    def to_dict(self):
        return {"name": "gzip", "configuration": {"level": 1}}

    async def _encode_single(self, chunk, spec):
        return spec.prototype.buffer.from_array_like(~chunk.as_numpy_array())

    _decode_single = _encode_single

    def compute_encoded_size(self, nbytes, spec):
        return nbytes


def test_a_codec_class_of_the_users_is_left_to_it():
    values = data()
    array = zarr.create_array(
        {}, shape=SHAPE, dtype="u2", chunks=CHUNKS, compressors=[Inverted()], fill_value=0
    )
    array[:] = values
    np.testing.assert_array_equal(array[:], values)
    counts = Pipeline.stats.as_dict()
    assert counts["reads"] == 0
    assert counts["reads_delegated"] == 1
    assert counts["reasons"] == {"codec class Inverted": 1}


# ---- broken data ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["local", "memory"])
def test_a_broken_chunk_is_named(kind, tmp_path):
    store = LocalStore(tmp_path) if kind == "local" else MemoryStore()
    array = create(store, data(), compressors=[ZstdCodec(level=1), Crc32cCodec()])
    key = "c/1/2/0"
    encoded = bytearray(zarr.core.sync.sync(store.get(key, PROTOTYPE)).to_bytes())
    encoded[5] ^= 1
    zarr.core.sync.sync(store.set(key, cpu.Buffer.from_bytes(bytes(encoded))))
    with pytest.raises(ValueError, match=r"chunk 'c/1/2/0' of .*crc32c") as caught:
        array[:]
    assert isinstance(caught.value, ChunkDecodeError)
    np.testing.assert_array_equal(array[8:], data()[8:])


@pytest.mark.parametrize("broken", ["c/0/0/0", "c/2/2/0"])
def test_an_error_ends_a_read_whose_requests_are_still_out(broken):
    store = CountingStore()
    array = create(store, data(), compressors=[GzipCodec(level=1), Crc32cCodec()])
    zarr.core.sync.sync(store.set(broken, cpu.Buffer.from_bytes(b"nonsense")))
    with config.set({"async.concurrency": 3}), pytest.raises(ChunkDecodeError, match=broken):
        zarr.core.sync.sync(array.async_array.getitem(...), timeout=20)
    assert store.now <= 3


def test_an_error_of_the_store_is_the_reads():
    class Failing(CountingStore):
        async def get(self, key, prototype=None, byte_range=None):
            if key.endswith("1/1/0"):
                raise PermissionError(key)
            return await super().get(key, prototype, byte_range)

    store = Failing()
    array = create(store, data())
    with pytest.raises(PermissionError):
        zarr.core.sync.sync(array.async_array.getitem(...), timeout=20)


@pytest.mark.parametrize("location", ["start", "end"])
@pytest.mark.parametrize("kind", ["local", "memory"])
def test_a_broken_shard_is_an_error_or_right(kind, location, tmp_path):
    store = LocalStore(tmp_path) if kind == "local" else MemoryStore()
    values = data(shape=(8, 8))
    array = create(store, values, chunks=(4, 4), compressors=[GzipCodec(level=1), Crc32cCodec()],
                   shards={"shape": (8, 8), "index_location": location})  # fmt: skip
    good = zarr.core.sync.sync(store.get("c/0/0", PROTOTYPE)).to_bytes()
    broken = [good[:n] for n in (0, 3, 67, len(good) - 1)]
    broken += [good[:i] + bytes([good[i] ^ 0x41]) + good[i + 1 :] for i in range(len(good))]
    for encoded in broken:
        zarr.core.sync.sync(store.set("c/0/0", cpu.Buffer.from_bytes(encoded)))
        for part in (np.s_[:], np.s_[:3, :3]):
            try:
                got = array[part]
            except (ValueError, OSError):
                continue
            np.testing.assert_array_equal(got, values[part])
    zarr.core.sync.sync(store.set("c/0/0", cpu.Buffer.from_bytes(good[:10])))
    with pytest.raises(ValueError, match="too short to hold its index"):
        array[:]


# ---- devices -------------------------------------------------------------------------------------


@pytest.mark.parametrize("sharded", [False, True], ids=["chunks", "shards"])
@pytest.mark.parametrize("case", ["zstd", "blosc", "big", "raw"])
def test_boxes_on_a_device_equal_numpys(cuda, case, sharded):
    values = data()
    array = create({}, values, **V3[case], shards=SHARDS if sharded else None, fill_value=7)
    pipeline = array.async_array.codec_pipeline
    store_path, metadata = array.store_path, array.metadata
    del_key = "c/0/1/0"
    zarr.core.sync.sync(array.store.delete(del_key))
    values[0 : (8 if sharded else 4), (10 if sharded else 5) : (20 if sharded else 10)] = 7
    step = SHARDS if sharded else CHUNKS
    picks = (slice(1, None, 2), slice(0, 4), 1)
    jobs, wanted, placed = [], [], {}
    for coords in np.ndindex(*(-(-n // s) for n, s in zip(SHAPE, step, strict=True))):
        options = array.async_array.config
        chunk = ArraySpec(step, metadata.data_type, metadata.fill_value, options, PROTOTYPE)
        decoder = build_decoder(tuple(pipeline), chunk)
        assert isinstance(decoder, ShardDecoder) == sharded
        number = len(jobs)
        jobs.append(DeviceJob(
            getter=store_path / metadata.encode_chunk_key(coords),
            decoder=decoder,
            shape=chunk.shape,
            fill_value=chunk.fill_value,
            box=parse_box(picks, chunk.shape),
            place=lambda part, number=number: placed.__setitem__(number, part),
        ))  # fmt: skip
        begin = [i * s for i, s in zip(coords, step, strict=True)]
        whole = np.full(step, 7, values.dtype)  # what lies beyond the array is the fill value
        part = values[tuple(slice(b, b + s) for b, s in zip(begin, step, strict=True))]
        inside = tuple(map(slice, part.shape))
        whole[inside] = part
        wanted.append((whole[picks], tuple(slice(0, -(-(n - 1) // 2)) if i == 0 else slice(0, n)
                                           for i, n in enumerate(part.shape[:2]))))  # fmt: skip
    outcomes = read_on_device(jobs, cuda, zarr.core.sync._get_loop(), PROTOTYPE)
    for number, (whole, inside) in enumerate(wanted):
        got = placed[number].get() if hasattr(placed[number], "get") else np.array(placed[number])
        np.testing.assert_array_equal(got[inside], whole[inside])
    assert [o.present for o in outcomes].count(False) == 1
    same(placed[0], wanted[0][0], device=cuda)


@pytest.mark.parametrize(
    ("selection", "box"),
    [
        ((slice(None), 3), ((0, 3), (5, 1), (1, 1), (1,))),
        ((slice(1, 5, 2), slice(2, 3)), ((1, 2), (2, 1), (2, 1), ())),
        ((np.array([1]), 3), None),
        ((slice(None),), None),
    ],
)
def test_boxes(selection, box):
    found = parse_box(selection, (5, 7))
    got = found and (found.start, found.count, found.step, found.scalars)
    assert got == box


# ---- packaging -----------------------------------------------------------------------------------


def test_zarr_python_finds_it_by_its_entry_point():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    target = project["entry-points"]["zarr.codec_pipeline"]["zarrgpu"]
    assert target.replace(":", ".") == PATH == f"{Pipeline.__module__}.{Pipeline.__qualname__}"
    assert zarr.registry.get_pipeline_class() is Pipeline


def test_without_zarr_python_the_error_says_what_to_install():
    code = """
import sys
sys.modules["zarr"] = None
import zarrgpu.interop.zarr_python as interop
from zarrgpu.errors import MissingDependencyError
try:
    interop.Pipeline
except MissingDependencyError as error:
    assert "pip install 'zarrgpu[zarr]'" in str(error)
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


@pytest.mark.slow
def test_zarr_pythons_own_tests_pass():
    """A part of them; `tests.zarr_python_suite.run` runs all that the issue names."""
    from tests.zarr_python_suite.run import PIPELINE, run_tests

    source, python = (os.environ.get(f"ZARRGPU_ZARR_{name}") for name in ("SOURCE", "PYTHON"))
    if source is None or python is None:
        pytest.skip("ZARRGPU_ZARR_SOURCE and _PYTHON name no sdist of zarr and what runs its tests")
    tests = ["tests/test_indexing.py", "tests/test_v2.py", "tests/test_codecs"]
    record = run_tests(python, Path(source), tests, pipeline=PIPELINE, options=[])
    assert record["failed"] == 0, record["failures"]
    assert record["passed"] > 500
    assert record["reads"]["reads"] > 9 * record["reads"]["reads_delegated"]
