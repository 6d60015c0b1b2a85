"""Law 3 on the host: reads equal what zarr-python, TensorStore and NumPy give, bit for bit.

Arrays are written by zarr-python (every codec, dtype, byte order, layout) and by
`zarr_cases.encode` (what zarr-python does not write), read whole, by selection and by patches, and
compared.
"""

from __future__ import annotations

import json
import os
import threading
import warnings
from pathlib import Path

import numcodecs
import numpy as np
import pytest
import zarr
import zarr.codecs as zc
from hypothesis import given, settings
from hypothesis import strategies as st

import zarrgpu as zg
from tests.zarr_cases import (
    BLOSC_INNER,
    CHAINS,
    DTYPES,
    MemoryStore,
    Recipe,
    encode,
    expected,
    values,
    write,
)
from zarrgpu.errors import DeviceUnavailableError, SelectionError
from zarrgpu.model import native_dtype

V2_DTYPES = (
    *(order + name for name in DTYPES if np.dtype(name).itemsize > 1 for order in "<>"),
    "|b1", "|i1", "|u1", "|S5", "<U3", ">U3", "<M8[ns]", ">M8[D]", "<m8[us]", "|V6",
)  # fmt: skip

FILLS = {
    "f2": [np.nan, np.inf, -0.0, 1.5],
    "f4": [np.nan, -np.inf, 1e-40, 3],
    "f8": [np.nan, np.inf, 0.1, -0.0],
    "c8": [complex(np.nan, 1), complex(-np.inf, np.nan), 2j],
    "c16": [complex(0.1, -np.inf), 1 + 2j],
    "bool": [True, False],
    "i1": [-128],
    "i8": [-(1 << 63), (1 << 63) - 1, (1 << 53) + 1],
    "u8": [(1 << 64) - 1],
    "u2": [65535],
}


def same(got: np.ndarray, wanted: np.ndarray) -> None:
    """Same type, shape and bytes (so that NaN and -0.0 count), native byte order."""
    assert got.dtype == native_dtype(wanted.dtype)
    assert got.dtype.isnative
    assert got.shape == wanted.shape
    if wanted.dtype.hasobject:  # whose bytes are addresses
        assert got.tolist() == wanted.tolist()
        return
    native = np.ascontiguousarray(wanted.astype(wanted.dtype.newbyteorder("=")))
    assert np.ascontiguousarray(got).tobytes() == native.tobytes()


def zarr_codecs(chain: str) -> list:
    with warnings.catch_warnings():  # zarr-python on codecs outside of the specification
        warnings.simplefilter("ignore")
        from zarr.codecs import numcodecs as wrapped

        made = {
            "zstd": zc.ZstdCodec,
            "gzip": zc.GzipCodec,
            "crc32c": zc.Crc32cCodec,
            "blosc": zc.BloscCodec,
            "numcodecs.zlib": wrapped.Zlib,
            "numcodecs.lz4": wrapped.LZ4,
        }
        return [made[name](**configuration) for name, configuration in CHAINS[chain]]


def write_v3(path: Path, data: np.ndarray, *, codecs=None, **options) -> zarr.Array:
    array = zarr.create_array(
        path, shape=data.shape, dtype=data.dtype.newbyteorder("="), zarr_format=3,
        compressors=codecs, **{"chunks": tuple(max(1, n // 2 + 1) for n in data.shape)} | options,
    )  # fmt: skip
    array[...] = data
    return array


def write_v2(path: Path, data: np.ndarray, **options) -> zarr.Array:
    array = zarr.create_array(
        path, shape=data.shape, dtype=data.dtype, zarr_format=2,
        **{"chunks": tuple(max(1, n // 2 + 1) for n in data.shape), "compressors": None} | options,
    )  # fmt: skip
    array[...] = data
    return array


@pytest.mark.filterwarnings("ignore:Numcodecs codecs")
@pytest.mark.parametrize("chain", [c for c in CHAINS if "snappy" not in c])
def test_every_codec_and_dtype_of_v3(chain, tmp_path):
    codecs = zarr_codecs(chain)
    for number, dtype in enumerate(DTYPES):
        data = values((7, 10), dtype, number)
        layout = {"shards": (8, 12), "chunks": (4, 3)} if number % 2 else {"chunks": (4, 3)}
        wanted = write_v3(tmp_path / dtype, data, codecs=codecs, **layout)
        same(zg.open(tmp_path / dtype).read(device="cpu"), wanted[...])


@pytest.mark.parametrize("dtype", V2_DTYPES)
def test_every_dtype_of_v2_in_both_orders(dtype, tmp_path):
    import numcodecs

    data = values((7, 5, 3), dtype, 4).astype(dtype)
    for number, order in enumerate("CF"):
        compressor = (numcodecs.Blosc(), numcodecs.Zstd())[number]
        path = tmp_path / order
        wanted = write_v2(path, data, order=order, compressors=compressor, fill_value=data.flat[3])
        next(iter(sorted(f for f in path.iterdir() if not f.name.startswith(".")))).unlink()
        same(zg.open(path).read(device="cpu"), wanted[...])


@pytest.mark.parametrize("name", ["none", "zstd", "gzip", "zlib", "lz4", *BLOSC_INNER])
@pytest.mark.parametrize("separator", [".", "/"])
def test_every_compressor_of_v2(name, separator, tmp_path):
    import numcodecs

    made = {
        "none": None,
        "zstd": numcodecs.Zstd(1),
        "gzip": numcodecs.GZip(1),
        "zlib": numcodecs.Zlib(1),
        "lz4": numcodecs.LZ4(),
    }
    for dtype in ("u1", ">i4", "<f8"):
        for shuffle in (0, 1, 2) if name not in made else (0,):
            compressor = made[name] if name in made else numcodecs.Blosc(name, 5, shuffle)
            path = tmp_path / f"{dtype[-2:]}{shuffle}"
            data = values((9, 11), dtype).astype(dtype)
            wanted = write_v2(
                path, data, compressors=compressor,
                chunk_key_encoding={"name": "v2", "separator": separator},
            )  # fmt: skip
            same(zg.open(path).read(device="cpu"), wanted[...])


@pytest.mark.parametrize("dtype", FILLS)
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_missing_chunks_are_the_fill_value(dtype, zarr_format, tmp_path):
    for number, fill in enumerate(FILLS[dtype]):
        for order in "<>" if zarr_format == 2 else "<":
            path = tmp_path / f"{number}{order == '<'}"
            stored = np.dtype(dtype).newbyteorder(order)
            wanted = zarr.create_array(
                path,
                shape=(5, 6),
                chunks=(2, 3),
                dtype=stored,
                fill_value=fill,
                zarr_format=zarr_format,
            )
            wanted[:2, :3] = values((2, 3), dtype)
            array = zg.open(path)
            same(array.read(device="cpu"), wanted[...])
            same(np.asarray(array.fill_value), np.asarray(wanted.fill_value))


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_null_fill_value_reads_as_zeros(zarr_format):
    data = values((4, 4), "f4")
    recipe = Recipe(
        chunks=(2, 2), fill_value=None, missing=frozenset([(1, 1)]), zarr_format=zarr_format
    )
    objects = encode(data, recipe)
    if zarr_format == 3:
        with pytest.raises(zg.MetadataError, match="fill_value"):
            zg.open(MemoryStore(objects))
        return
    array = zg.open(MemoryStore(objects))
    assert array.fill_value is None
    same(array.read(device="cpu"), expected(data, recipe))


@pytest.mark.parametrize("location", ["start", "end"])
@pytest.mark.parametrize("index_codecs", [[zc.BytesCodec()], [zc.BytesCodec(), zc.Crc32cCodec()]])
def test_shards_with_holes_of_zarr_python(location, index_codecs, tmp_path):
    data = values((13, 10, 3), "u2")
    data[:4, :5] = 0
    data[8:] = 0
    sharding = zc.ShardingCodec(
        chunk_shape=(2, 5, 3),
        codecs=[zc.TransposeCodec(order=(2, 0, 1)), zc.BytesCodec(endian="big"), zc.ZstdCodec()],
        index_codecs=index_codecs,
        index_location=location,
    )
    array = zarr.create_array(
        tmp_path,
        shape=data.shape,
        dtype="u2",
        chunks=(8, 10, 3),
        serializer=sharding,
        compressors=None,
        filters=None,
        fill_value=0,
    )
    array[...] = data
    got = zg.open(tmp_path)
    assert (got.chunks, got.shards) == ((2, 5, 3), (8, 10, 3))
    same(got.read(device="cpu"), data)
    same(got.read((slice(3, None, 4), -1), device="cpu"), data[3::4, -1])


@pytest.mark.parametrize("order", ["transpose", "memory order"])
def test_transposed_chunks(order, tmp_path):
    data = values((6, 7, 5, 4), "i4")
    for axes in ((3, 2, 1, 0), (1, 3, 0, 2), (2, 0, 3, 1)):
        path = tmp_path / "".join(map(str, axes))
        filters = [zc.TransposeCodec(order=axes)]
        if (
            order == "memory order"
        ):  # two in a row: an order that is its own inverse would hide a mistake
            filters.append(zc.TransposeCodec(order=(0, 2, 3, 1)))
        wanted = write_v3(path, data, filters=filters, codecs=[zc.ZstdCodec()], chunks=(4, 3, 2, 3))
        same(zg.open(path).read(device="cpu"), wanted[...])


@pytest.mark.parametrize("encoding", ["default", "v2"])
@pytest.mark.parametrize("separator", ["/", "."])
@pytest.mark.parametrize("shape", [(), (5,), (4, 5)])
def test_chunk_keys_and_shapes(encoding, separator, shape, tmp_path):
    data = values(shape, "f4")
    chunks = (2,) * len(shape)
    array = zarr.create_array(
        tmp_path, shape=shape, chunks=chunks, dtype="f4",
        chunk_key_encoding={"name": encoding, "separator": separator},
    )  # fmt: skip
    array[...] = data
    same(zg.open(tmp_path).read(device="cpu"), data)
    same(np.asarray(zg.open(tmp_path)), data)


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 0, 2)])
def test_arrays_without_elements(shape, tmp_path):
    array = zarr.create_array(
        tmp_path, shape=shape, chunks=(2,) * len(shape), dtype="u1", fill_value=9
    )
    got = zg.open(tmp_path)
    same(got.read(device="cpu"), array[...])
    assert (got.size, got.nbytes, len(got)) == (0, 0, shape[0])
    patches = got.read_patches(np.zeros((2, len(shape)), int), (2,) * len(shape), device="cpu")
    assert (patches == 9).all()
    assert patches.shape == (2, *(2,) * len(shape))


# ---- NumPy as the oracle -------------------------------------------------------------------------


@st.composite
def stored_arrays(draw):
    """An array as drawn, and the recipe and objects that store it."""
    ndim = draw(st.integers(0, 4))
    shape = tuple(draw(st.integers(1, (1, 30, 12, 7, 4)[ndim])) for _ in range(ndim))
    chunks = tuple(draw(st.integers(1, n + 2)) for n in shape)
    shards = tuple(c * draw(st.integers(1, 3)) for c in chunks) if draw(st.booleans()) else None
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    all_chunks = list(np.ndindex(*(-(-n // c) for n, c in zip(shape, chunks, strict=True))))
    recipe = Recipe(
        chunks=chunks,
        shards=shards,
        codecs=CHAINS[draw(st.sampled_from(list(CHAINS)))],
        order=tuple(draw(st.permutations(range(ndim)))) if ndim and draw(st.booleans()) else None,
        big_endian=draw(st.booleans()),
        fill_value=values((), dtype, 8)[()],
        separator=draw(st.sampled_from("/.")),
        key_encoding=draw(st.sampled_from(["default", "v2"])),
        index_location=draw(st.sampled_from(["start", "end"])),
        index_checksum=draw(st.booleans()),
        index_big_endian=draw(st.booleans()),
        missing=frozenset(draw(st.sets(st.sampled_from(all_chunks)))),
    )
    data = values(shape, dtype, draw(st.integers(0, 9)))
    return expected(data, recipe), MemoryStore(encode(data, recipe))


def slices(size: int) -> st.SearchStrategy:
    bound = st.none() | st.integers(-size - 2, size + 2)
    step = st.none() | st.integers(1, size + 1)
    return st.builds(slice, bound, bound, step) | st.integers(-size, size - 1)


@settings(max_examples=200)
@given(stored_arrays(), st.data())
def test_selections_and_patches_are_numpys(case, data):
    whole, store = case
    array = zg.open(store)
    options = zg.ReadOptions(
        num_threads=data.draw(st.sampled_from([1, 3])),
        max_gap_bytes=data.draw(st.integers(0, 200)),
        max_coalesced_bytes=data.draw(st.integers(1, 2000)),
    )
    same(array.read(device="cpu", options=options), whole)
    selection = tuple(data.draw(slices(n)) for n in whole.shape)
    same(array.read(selection, device="cpu", options=options), np.asarray(whole[selection]))
    count = tuple(data.draw(st.integers(0, n + 1)) for n in whole.shape)
    boxes = data.draw(st.integers(0, 4))
    starts = np.array(
        [[data.draw(st.integers(-n - 2, n + 2)) for n in whole.shape] for _ in range(boxes)],
        np.int64,
    ).reshape(boxes, whole.ndim)
    got = array.read_patches(starts, count, device="cpu", options=options)
    same(got, padded_patches(whole, array.spec.fill_scalar, starts, count))


def padded_patches(
    whole: np.ndarray, fill: np.generic, starts: np.ndarray, count: tuple[int, ...]
) -> np.ndarray:
    """Cut boxes out of an array that is padded widely enough."""
    reach = [2 * n + 5 for n in whole.shape]
    padded = np.full(
        [n + 2 * r for n, r in zip(whole.shape, reach, strict=True)], fill, whole.dtype
    )
    padded[tuple(slice(r, r + n) for r, n in zip(reach, whole.shape, strict=True))] = whole
    out = np.empty((len(starts), *count), whole.dtype)
    for box, start in enumerate(starts):
        out[box] = padded[
            tuple(slice(s + r, s + r + n) for s, r, n in zip(start, reach, count, strict=True))
        ]
    return out


@given(stored_arrays())
def test_out_is_filled_wherever_it_lies(case):
    whole, store = case
    array = zg.open(store)
    base = np.zeros(whole.nbytes + 1, np.uint8)
    for shift in (0, 1):  # aligned or not
        out = base[shift : shift + whole.nbytes].view(whole.dtype).reshape(whole.shape)
        out[...] = 0
        assert array.read(device="cpu", out=out) is out
        same(out, whole)
    patches = np.zeros((1, *whole.shape), whole.dtype)
    assert (
        array.read_patches(np.zeros((1, whole.ndim), int), whole.shape, device="cpu", out=patches)
        is patches
    )
    same(patches[0], whole)


def test_out_that_does_not_fit_is_refused():
    data = values((6, 6), "u2")
    array = zg.open(MemoryStore(encode(data, Recipe(chunks=(4, 4)))))
    read_only = np.zeros((6, 6), "u2")
    read_only.flags.writeable = False
    for out in (
        np.zeros((6, 5), "u2"),
        np.zeros((36,), "u2"),
        np.zeros((6, 6), "i2"),
        np.zeros((6, 6), ">u2"),
        np.zeros((6, 6), "u2", order="F"),
        np.zeros((6, 12), "u2")[:, ::2],
        read_only,
        [[0] * 6] * 6,
    ):
        with pytest.raises(SelectionError, match="out"):
            array.read(device="cpu", out=out)
    starts = np.zeros((2, 2), int)
    for out in (np.zeros((4, 2, 1), "u2"), np.zeros((2, 2, 2), "f4"), np.zeros((8,), "u2")):
        with pytest.raises(SelectionError, match="out"):
            array.read_patches(starts, (2, 2), device="cpu", out=out)


# ---- TensorStore as a second oracle -------------------------------------------------------------


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(chunks=(4, 5), codecs=CHAINS["gzip"], order=(1, 0), big_endian=True),
        Recipe(
            chunks=(4, 5),
            shards=(8, 10),
            codecs=CHAINS["zstd"],
            missing=frozenset([(0, 0), (2, 1)]),
            fill_value=77,
        ),
        Recipe(
            chunks=(3, 3),
            shards=(9, 6),
            codecs=CHAINS["blosc-lz4-bitshuffle"],
            index_location="start",
            index_checksum=False,
        ),
        Recipe(
            chunks=(3, 3),
            shards=(3, 3),
            codecs=CHAINS["zstd+crc32c"],
            index_big_endian=True,
            order=(1, 0),
        ),
        Recipe(
            chunks=(6, 2),
            zarr_format=2,
            codecs=CHAINS["blosc-zstd-shuffle"],
            order=(1, 0),
            big_endian=True,
            separator=".",
        ),
        Recipe(
            chunks=(6, 2),
            zarr_format=2,
            codecs=CHAINS["zlib"],
            fill_value=5,
            missing=frozenset([(1, 1)]),
        ),
    ],
)
@pytest.mark.parametrize("dtype", ["u2", "f4"])
def test_tensorstore_reads_the_same(recipe, dtype, tmp_path):
    tensorstore = pytest.importorskip("tensorstore")
    data = values((11, 13), dtype)
    write(tmp_path, encode(data, recipe))
    driver = "zarr" if recipe.zarr_format == 2 else "zarr3"
    wanted = (
        tensorstore.open(
            {"driver": driver, "kvstore": {"driver": "file", "path": str(tmp_path)}}, open=True
        )
        .result()
        .read()
        .result()
    )
    array = zg.open(tmp_path)
    same(array.read(device="cpu"), wanted)
    same(array.read(device="cpu"), expected(data, recipe))
    same(array.read((slice(1, 9, 3), slice(2, None)), device="cpu"), wanted[1:9:3, 2:])


# ---- other people's files -----------------------------------------------------------------------

READABLE = 96


def array_folders(root: Path) -> list[Path]:
    names = ("zarr.json", ".zarray")
    found = {Path(folder) for folder, _, files in os.walk(root) if any(n in files for n in names)}
    return sorted(
        f for f in found if (f / ".zarray").exists() or is_array_document(f / "zarr.json")
    )


def is_array_document(path: Path) -> bool:
    return json.loads(path.read_text())["node_type"] == "array"


@pytest.mark.filterwarnings("ignore")
def test_real_arrays_equal_zarr_python(shared_data):
    readable = []
    for folder in array_folders(shared_data / "zarr") + array_folders(shared_data / "ome"):
        array = zg.open(folder)
        if folder.name == "1d.contiguous.json2.O":  # zarr-python 3 reads no such objects
            decoded = numcodecs.JSON().decode((folder / "0").read_bytes())
            assert array[...].tolist() == decoded.tolist()
            readable.append(folder.name)
            continue
        wanted = zarr.open_array(folder, mode="r")
        same(array.read(device="cpu"), np.asarray(wanted[...]))
        assert array.shape == wanted.shape
        assert array.chunks == wanted.chunks
        assert array.shards == wanted.shards
        assert dict(array.attrs) == dict(wanted.attrs)
        readable.append(folder.name)
    assert len(readable) == READABLE


# ---- what surrounds a read ----------------------------------------------------------------------


def test_names_are_zarr_pythons(tmp_path):
    wanted = zarr.create_array(
        tmp_path, shape=(6, 8), chunks=(2, 2), shards=(4, 8), dtype="i2", fill_value=3,
        attributes={"a": [1, None]}, dimension_names=["y", None],
    )  # fmt: skip
    got = zg.open(tmp_path)
    for name in ("shape", "ndim", "dtype", "chunks", "shards", "fill_value", "size", "nbytes"):
        assert getattr(got, name) == getattr(wanted, name), name
    assert dict(got.attrs) == dict(wanted.attrs)
    assert got.dimension_names == ("y", None)
    assert got.codecs == ("zstd",)
    assert len(got) == 6
    assert str(tmp_path) in repr(got)
    with pytest.raises(TypeError, match="len"):
        len(zg.open(MemoryStore(encode(np.zeros(()), Recipe(chunks=())))))


def test_sizes_beyond_int64_do_not_wrap():
    recipe = Recipe(chunks=(1 << 20, 1 << 20), missing=frozenset([(0, 0)]))
    document = json.loads(encode(np.zeros((1, 1), "u2"), recipe)["zarr.json"])
    document["shape"] = [1 << 40, 1 << 40]
    array = zg.open(MemoryStore({"zarr.json": json.dumps(document).encode()}))
    assert (array.size, array.nbytes) == (1 << 80, 1 << 81)
    far = array.read(
        (-1, slice(-3, None)), device="cpu", options=zg.ReadOptions(memory_budget_bytes=1 << 42)
    )
    assert far.tolist() == [0, 0, 0]


def test_array_protocol_and_default_device():
    data = values((5, 4), "i2")
    array = zg.open(MemoryStore(encode(data, Recipe(chunks=(2, 2)))))
    same(np.asarray(array), data)
    same(np.asarray(array, dtype="f8"), data.astype("f8"))
    with pytest.raises(ValueError, match="copy"):
        np.asarray(array, copy=False)
    text = array.plan((slice(1, 3), 2), device="cpu").explain()
    assert "read 1 x [2, 1] from 1 array" in text
    assert "fetch         on host, from dict://test" in text
    assert repr(array.plan_patches([[0, 0]], (2, 2), device="cpu")).count("on cpu")


@pytest.mark.parametrize(
    ("starts", "shape"),
    [
        ([0, 0], (2, 2)),
        ([[0, 0, 0]], (2, 2)),
        ([[0.0, 0.0]], (2, 2)),
        ([["a", "b"]], (2, 2)),
        ([[1, 2], [3]], (2, 2)),
        ([[1 << 80, 0]], (2, 2)),
        (None, (2, 2)),
        ([[0, 0]], (2,)),
        ([[0, 0]], (2, -1)),
        ([[0, 0]], (2, 2.5)),
        ([[0, 0]], (2, "a")),
        ([[0, 0]], 2),
        ([[0, 0]], None),
    ],
)
def test_impossible_patches_are_refused(starts, shape):
    array = zg.open(MemoryStore(encode(values((5, 4), "i2"), Recipe(chunks=(2, 2)))))
    with pytest.raises(SelectionError):
        array.read_patches(starts, shape, device="cpu")


@pytest.mark.parametrize(
    "start", [2**64 - 1, 2**63, 2**63 - 1, -(2**63), -(2**63) + 1, 2**62, 2**32, -(2**32)]
)
def test_patches_beyond_any_array_are_fill(start):
    data = values((50, 40), "u2")
    array = zg.open(MemoryStore(encode(data, Recipe(chunks=(16, 16), fill_value=9))))
    starts = np.array([[start, 0]], np.uint64 if start >= 2**63 else np.int64)
    got = array.read_patches(starts, (4, 4), device="cpu")
    assert (got == 9).all()


def test_no_cuda_device_is_said_with_what_to_install():
    from zarrgpu.devices.resolve import cuda_problem

    array = zg.open(MemoryStore(encode(values((5, 4), "i2"), Recipe(chunks=(2, 2)))))
    if not cuda_problem():
        pytest.skip("a CUDA device works here")
    for device in ("cuda", "cuda:0"):
        with pytest.raises(DeviceUnavailableError, match="device='cpu'"):
            array.read(device=device)
    with pytest.raises(DeviceUnavailableError, match=r"expected auto, cpu, cuda or cuda:N"):
        array.read(device="tpu")
    same(array.read(), np.asarray(array))
    same(array[1:3], array.read(slice(1, 3), device="cpu"))


def test_reads_from_many_threads_are_those_of_one():
    data = values((64, 64), "f4")
    recipe = Recipe(chunks=(8, 8), shards=(32, 32), codecs=CHAINS["zstd"])
    array = zg.open(MemoryStore(encode(data, recipe)))
    wrong: list[object] = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        try:
            for _ in range(10):
                starts = rng.integers(0, 40, (6, 2))
                got = array.read_patches(starts, (24, 24), device="cpu")
                for patch, (y, x) in zip(got, starts, strict=True):
                    same(patch, data[y : y + 24, x : x + 24])
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
