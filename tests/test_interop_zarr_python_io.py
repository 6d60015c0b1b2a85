"""Law: our pipeline fetches what it needs and no more, writes as zarr-python does, leaves to
zarr-python what is not ours, and ends with an error that names what is broken.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import pickle
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import zarr
from zarr.abc.codec import BytesBytesCodec
from zarr.codecs import Crc32cCodec, GzipCodec, ZstdCodec
from zarr.core.buffer import cpu
from zarr.core.config import config
from zarr.storage import LocalStore, MemoryStore

from tests.zarr_python_arrays import (
    CHUNKS,
    DEFAULT,
    PATH,
    PROTOTYPE,
    SHAPE,
    SHARDS,
    create,
    data,
    our_pipeline,
)
from zarrgpu.errors import ChunkDecodeError
from zarrgpu.interop.zarr_python import Pipeline

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def pipeline():
    with our_pipeline():
        yield


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


def test_the_page_tells_what_the_record_shows():
    """docs/zarr-python.md has a row for each run of zarr-python's tests that is recorded."""
    text = (ROOT / "docs" / "zarr-python.md").read_text()
    record = json.loads((ROOT / "docs" / "benchmarks" / "zarr-python-suite.json").read_text())
    rows = [line for line in text.splitlines() if line.startswith("| 3.")]
    assert len(rows) == len(record["runs"])
    for row, (version, run) in zip(rows, record["runs"].items(), strict=True):
        default, ours, suite = run["default"], run["zarrgpu"], run["codec_pipeline_tests"]
        assert ours["failed"] == 0
        assert ours["passed"] >= default["passed"]
        assert run["share_of_reads"] > 0.95
        passed = f"{suite['passed']} passed" if suite else "none yet"
        assert suite is None or suite["failed"] == 0
        cells = [version, f"{default['passed']:,}", f"{ours['passed']:,}", str(ours["failed"]),
                 passed, f"{100 * run['share_of_reads']:.2f} %"]  # fmt: skip
        assert row == f"| {' | '.join(cells)} |"


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
