"""Law: zarr-python reads the same through our pipeline as through its own, and writes the same.

The oracle is zarr-python with its default pipeline, and the NumPy array that was written. What is
not ours must be counted as delegated, and be right all the same.
"""

from __future__ import annotations

import numcodecs
import numpy as np
import pytest
import zarr
from zarr.codecs import (
    BytesCodec,
    GzipCodec,
    ShardingCodec,
    TransposeCodec,
    ZstdCodec,
)
from zarr.core.buffer import cpu
from zarr.core.config import config
from zarr.storage import LocalStore, MemoryStore, ZipStore

from tests.zarr_python_arrays import (
    CHUNKS,
    DEFAULT,
    SHAPE,
    SHARDS,
    V3,
    create,
    data,
    nothing_delegated,
    our_pipeline,
    reopened,
)
from zarrgpu.interop.zarr_python import Pipeline

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

V2 = {
    "v2 C": {"compressors": numcodecs.Zstd(level=1), "order": "C"},
    "v2 F": {"compressors": numcodecs.Blosc("zstd", shuffle=2), "order": "F"},
    "v2 zlib": {"compressors": numcodecs.Zlib(1)},
    "v2 raw": {"compressors": None},
}


@pytest.fixture(autouse=True)
def pipeline():
    with our_pipeline():
        yield


@pytest.fixture(params=["local", "memory", "zip"])
def store(request, tmp_path):
    if request.param == "local":
        return LocalStore(tmp_path / "a.zarr")
    if request.param == "memory":
        return MemoryStore()
    return ZipStore(tmp_path / "a.zip", mode="w")


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


@pytest.mark.parametrize(("zarr_format", "sharded"), [(2, False), (3, False), (3, True)])
def test_strings_of_any_length(zarr_format, sharded):
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
