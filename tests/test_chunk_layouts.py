"""Laws of chunk grids and shards that are not the plain ones.

1. A rectilinear array reads what was stored, for every selection, sharded or not, on every device;
   so does one whose listed chunks are all equal, or lie beyond the end.
2. Shards within shards, transposed, compressed or checksummed shards read what zarr-python wrote.
3. What does not fit together is refused with its place; a damaged inner chunk names its shard.
"""

from __future__ import annotations

import itertools
import json
from typing import Any

import google_crc32c
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numcodecs import zstd
from zarr.codecs import (
    BytesCodec,
    Crc32cCodec,
    GzipCodec,
    ShardingCodec,
    TransposeCodec,
    ZstdCodec,
)

import zarrgpu as zg
from tests.gpu.devices import same
from tests.zarr_cases import MemoryStore, Recipe, encode
from zarrgpu.errors import ChunkDecodeError, DataError, MetadataError, UnsupportedCodecError
from zarrgpu.formats.document import Document
from zarrgpu.formats.zarr_v3 import parse_node
from zarrgpu.output import output_format
from zarrgpu.plan.request import ReadRequest
from zarrgpu.reader import read

Edges = tuple[int | list[Any], ...]


def edge_lengths(value: int | list[Any], size: int) -> list[int]:
    """Lengths of the chunks of an axis, as the extension's text expands them."""
    if isinstance(value, int):
        return [value] * -(-size // value)
    runs = [item if isinstance(item, list) else [item, 1] for item in value]
    return [length for length, count in runs for _ in range(count)]


def rectilinear(
    data: np.ndarray,
    edges: Edges,
    *,
    inner: tuple[int, ...] | None = None,
    missing: frozenset[tuple[int, ...]] = frozenset(),
    index_location: str = "end",
    endian: str = "little",
) -> dict[str, bytes]:
    """Objects of a rectilinear array, zstd in each chunk, by the letter of the specification."""
    lengths = [edge_lengths(e, n) for e, n in zip(edges, data.shape, strict=True)]
    starts = [np.append(0, np.cumsum(n)) for n in lengths]
    objects = {}
    for coords in itertools.product(*(range(len(n)) for n in lengths)):
        low = [int(s[c]) for s, c in zip(starts, coords, strict=True)]
        shape = tuple(n[c] for n, c in zip(lengths, coords, strict=True))
        chunk = padded(data, low, shape).astype(data.dtype.newbyteorder("<>"[endian == "big"]))
        if coords in missing or any(b >= n for b, n in zip(low, data.shape, strict=True)):
            continue
        key = "/".join(["c", *map(str, coords)])
        objects[key] = (
            zstd.compress(np.ascontiguousarray(chunk).tobytes(), 1)
            if inner is None
            else shard(chunk, inner, index_location)
        )
    codecs: list[Any] = [{"name": "bytes", "configuration": {"endian": endian}}, {"name": "zstd"}]
    if inner is not None:
        configuration = {
            "chunk_shape": list(inner),
            "codecs": codecs,
            "index_codecs": [
                {"name": "bytes", "configuration": {"endian": "little"}},
                {"name": "crc32c"},
            ],
            "index_location": index_location,
        }
        codecs = [{"name": "sharding_indexed", "configuration": configuration}]
    document = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(data.shape),
        "data_type": str(data.dtype),
        "chunk_grid": {
            "name": "rectilinear",
            "configuration": {"kind": "inline", "chunk_shapes": list(edges)},
        },
        "chunk_key_encoding": {"name": "default"},
        "fill_value": 7,
        "codecs": codecs,
    }
    return {"zarr.json": json.dumps(document).encode(), **objects}


def padded(data: np.ndarray, low: list[int], shape: tuple[int, ...]) -> np.ndarray:
    chunk = np.zeros(shape, data.dtype)
    part = data[tuple(slice(b, b + n) for b, n in zip(low, shape, strict=True))]
    chunk[tuple(map(slice, part.shape))] = part
    return chunk


def shard(chunk: np.ndarray, inner: tuple[int, ...], index_location: str) -> bytes:
    grid = [n // c for n, c in zip(chunk.shape, inner, strict=True)]
    nbytes = 16 * int(np.prod(grid)) + 4
    at = nbytes if index_location == "start" else 0
    body, index = b"", []
    for coords in itertools.product(*map(range, grid)):
        box = tuple(slice(i * c, (i + 1) * c) for i, c in zip(coords, inner, strict=True))
        encoded = zstd.compress(np.ascontiguousarray(chunk[box]).tobytes(), 1)
        index.append((at + len(body), len(encoded)))
        body += encoded
    table = np.array(index, "<u8").tobytes()
    table += google_crc32c.value(table).to_bytes(4, "little")
    return table + body if index_location == "start" else body + table


def opened(objects: dict[str, bytes]) -> zg.Array:
    array = zg.open(MemoryStore(objects))
    assert isinstance(array, zg.Array)
    return array


DATA = np.arange(23 * 40, dtype=np.uint16).reshape(23, 40)
EDGES: Edges = ([5, [3, 4], 6], [[10, 2], 17, 3])


@pytest.mark.parametrize("endian", ["little", "big"])
def test_a_rectilinear_array_reads_whole(endian, cuda):
    array = opened(rectilinear(DATA, EDGES, endian=endian))
    np.testing.assert_array_equal(array.read(device="cpu"), DATA)
    same(array.read(device=cuda), DATA, device=cuda)


@st.composite
def rectilinear_cases(draw: Any) -> tuple[tuple[int, ...], Edges, tuple[int, ...] | None, Any]:
    ndim = draw(st.integers(1, 3))
    shape = tuple(draw(st.integers(1, 14)) for _ in range(ndim))
    sharded = draw(st.booleans())
    edges: list[Any] = []
    inner = tuple(draw(st.integers(1, 3)) for _ in shape)
    unit = inner if sharded else (1,) * ndim
    for n, u in zip(shape, unit, strict=True):
        if draw(st.booleans()):
            edges.append(u * draw(st.integers(1, 4)))
            continue
        runs = draw(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 3)), max_size=4))
        lengths: list[Any] = [[u * k, count] if count > 1 else u * k for k, count in runs]
        lengths.append(u * max(1, -(-(n - sum(edge_lengths(lengths, 0))) // u)))
        edges.append(lengths)
    selection = tuple(
        draw(st.one_of(st.integers(0, n - 1), st.slices(n).filter(lambda s: (s.step or 1) > 0)))
        for n in shape
    )
    return shape, tuple(edges), inner if sharded else None, selection


@settings(max_examples=60, deadline=None)
@given(rectilinear_cases(), st.sampled_from(["start", "end"]), st.integers(0, 99))
def test_any_rectilinear_grid_reads_any_selection(case, index_location, seed):
    random = np.random.default_rng(seed)
    shape, edges, inner, selection = case
    data = np.arange(1, np.prod(shape) + 1, dtype=np.int32).reshape(shape)
    lengths = [edge_lengths(e, n) for e, n in zip(edges, shape, strict=True)]
    missing = frozenset(
        c for c in itertools.product(*(range(len(n)) for n in lengths)) if random.random() < 0.2
    )
    objects = rectilinear(data, edges, inner=inner, missing=missing, index_location=index_location)
    wanted = data.copy()
    starts = [np.append(0, np.cumsum(n)) for n in lengths]
    for coords in missing:
        wanted[tuple(slice(s[c], s[c + 1]) for s, c in zip(starts, coords, strict=True))] = 7
    array = opened(objects)
    np.testing.assert_array_equal(array.read(selection, device="cpu"), wanted[selection])
    box = tuple(max(1, n // 2) for n in shape)
    room = [n - b + 1 for n, b in zip(shape, box, strict=True)]
    corners = random.integers(0, room, (5, len(shape)))
    patches = array.read_patches(corners, box, device="cpu")
    for corner, patch in zip(corners, patches, strict=True):
        where = tuple(slice(c, c + b) for c, b in zip(corner, box, strict=True))
        np.testing.assert_array_equal(patch, wanted[where])


def test_rectilinear_patches_on_every_device(cuda):
    array = opened(rectilinear(DATA, EDGES, inner=None, missing=frozenset({(1, 1)})))
    sharded = opened(rectilinear(DATA, ([4, [6, 3], 2], [20, [10, 2]]), inner=(2, 5)))
    starts = np.array([[0, 0], [3, 9], [-2, 30], [15, 22], [6, 8]])
    for each in (array, sharded):
        host = each.read_patches(starts, (8, 9), device="cpu")
        same(each.read_patches(starts, (8, 9), device=cuda), host, device=cuda)


def test_arrays_of_both_kinds_in_one_request_in_any_order():
    uneven = opened(rectilinear(DATA, EDGES, missing=frozenset({(0, 1)})))
    even = opened(encode(DATA[::-1], Recipe(chunks=(5, 8))))
    starts = np.array([[0, 0], [3, 9], [-2, 30], [15, 22], [6, 8], [1, 1]])
    for arrays in itertools.product((uneven, even), repeat=3):
        index = np.array([0, 1, 2, 2, 1, 0], np.int32)
        request = ReadRequest(
            arrays=tuple(array.spec for array in arrays),
            array_index=index,
            start=starts,
            count=(8, 9),
            step=(1, 1),
        )
        sources = [array.source for array in arrays]
        output = output_format(np.dtype(np.uint16))
        got, _ = read(sources, request, output=output, device="cpu")
        for patch, i, start in zip(got, index, starts, strict=True):
            alone = arrays[i].read_patches([start], (8, 9), device="cpu")[0]
            np.testing.assert_array_equal(patch, alone)


def test_patches_beside_a_rectilinear_array_are_the_fill_value(cuda):
    array = opened(rectilinear(DATA, EDGES))
    for starts in ([[-9, 0], [23, 5]], [[500, 500]]):
        for device in ("cpu", cuda):
            got = array.read_patches(starts, (8, 9), device=device)
            same(got, np.full((len(starts), 8, 9), 7, np.uint16), device=device)


def test_equal_lengths_are_a_regular_grid():
    array = opened(rectilinear(DATA, ([[8, 3]], [[10, 6]])))
    assert array.spec.chunk_starts is None
    assert array.chunks == (8, 10)
    np.testing.assert_array_equal(array.read(device="cpu"), DATA)


@pytest.mark.parametrize(
    ("edges", "complaint"),
    [
        ([[5, 5], 10], "reach 10"),
        ([[5, 0, 20], 10], "at least 1"),
        ([[[5, 2, 3]], 10], "length, count"),
        ([[5, -1, 20], 10], "at least 1"),
        ([[[1, 1 << 40]], 10], "at most"),
        ([30], "2 axes"),
        (["a", 10], "length or a list"),
        ([[True, 30], 10], "at least 1"),
    ],
)
def test_chunk_shapes_that_cannot_be(edges, complaint):
    document = json.loads(rectilinear(DATA, EDGES)["zarr.json"])
    document["chunk_grid"]["configuration"]["chunk_shapes"] = edges
    with pytest.raises(MetadataError, match=complaint) as caught:
        parse_node(Document("x", document), "")
    assert "chunk_shapes" in str(caught.value)


def test_shards_must_hold_whole_chunks():
    with pytest.raises(MetadataError, match="does not divide"):
        opened(rectilinear(DATA, ([4, [6, 4]], [20, [10, 2]]), inner=(4, 5)))


# ---- shards that zarr-python wrote -----------------------------------------------------------

INNER = {
    "codecs": [BytesCodec(), ZstdCodec(level=1)],
    "index_codecs": [BytesCodec(), Crc32cCodec()],
}
WRITTEN: dict[str, tuple[tuple[int, ...], list[Any]]] = {
    "nested": (
        (12, 16),
        [ShardingCodec(chunk_shape=(6, 8), codecs=[ShardingCodec(chunk_shape=(3, 4), **INNER)])],
    ),
    "nested thrice, index first": (
        (12, 16),
        [
            ShardingCodec(
                chunk_shape=(6, 8),
                index_location="start",
                codecs=[
                    ShardingCodec(
                        chunk_shape=(6, 4),
                        index_location="start",
                        codecs=[ShardingCodec(chunk_shape=(2, 2), **INNER)],
                    )
                ],
            )
        ],
    ),
    "nested and compressed": (
        (12, 16),
        [
            ShardingCodec(
                chunk_shape=(6, 8),
                codecs=[ShardingCodec(chunk_shape=(3, 4), **INNER), GzipCodec(level=1)],
            )
        ],
    ),
    "transposed shard": (
        (12, 16),
        [TransposeCodec(order=(1, 0)), ShardingCodec(chunk_shape=(4, 4), **INNER)],
    ),
    "transposed twice": (
        (12, 16),
        [
            TransposeCodec(order=(1, 0)),
            ShardingCodec(
                chunk_shape=(4, 4), codecs=[TransposeCodec(order=(1, 0)), BytesCodec(endian="big")]
            ),
        ],
    ),
    "compressed shard": ((12, 16), [ShardingCodec(chunk_shape=(6, 8), **INNER), ZstdCodec()]),
    "checksummed shard": ((12, 16), [ShardingCodec(chunk_shape=(6, 8), **INNER), Crc32cCodec()]),
}


def written(name: str, data: np.ndarray, folder: Any) -> Any:
    """Path of an array that zarr-python wrote with holes."""
    chunks, codecs = WRITTEN[name]
    metadata = {
        "shape": data.shape,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunks}},
        "codecs": [codec.to_dict() for codec in codecs],
    }
    array = zarr.create(
        store=str(folder / "a"),
        shape=data.shape,
        chunks=chunks,
        dtype=data.dtype,
        codecs=codecs,
        fill_value=9,
        zarr_format=3,
    )
    assert metadata["shape"] == array.shape
    array[:10, :] = data[:10, :]
    array[18:, 20:] = data[18:, 20:]
    return folder / "a"


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", WRITTEN)
def test_shards_of_every_kind_read_what_zarr_python_wrote(name, tmp_path, cuda):
    path = written(name, DATA, tmp_path)
    theirs = zarr.open_array(path, mode="r")
    array = zg.open(path)
    np.testing.assert_array_equal(array.read(device="cpu"), theirs[:])
    same(array.read(device=cuda), theirs[:], device=cuda)
    starts = np.array([[0, 0], [5, 17], [11, 31]])
    patches = array.read_patches(starts, (9, 9), device="cpu")
    for (y, x), patch in zip(starts, patches, strict=True):
        np.testing.assert_array_equal(patch, theirs[y : y + 9, x : x + 9])


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", WRITTEN)
def test_damaged_shards_give_the_data_or_an_error(name, tmp_path):
    path = written(name, DATA, tmp_path)
    wanted = zarr.open_array(path, mode="r")[:]
    random = np.random.default_rng(3)
    shard_file = path / "c/0/0"
    good = shard_file.read_bytes()
    errors = 0
    for _ in range(60):
        bad = bytearray(good)
        bad[random.integers(len(bad))] ^= 1 << random.integers(8)
        shard_file.write_bytes(bad)
        try:
            zg.open(path).read(device="cpu")
        except ChunkDecodeError as error:
            errors += "c/0/0" in str(error)
    assert errors > 10  # raw or unchecksummed bytes may change without an error
    shard_file.write_bytes(good[: len(good) // 2])
    with pytest.raises(DataError, match="c/0/0"):
        zg.open(path).read(device="cpu")
    shard_file.write_bytes(good)
    np.testing.assert_array_equal(zg.open(path).read(device="cpu"), wanted)


def test_a_nested_shard_reads_only_the_inner_shards_it_needs(tmp_path):
    path = written("nested", DATA, tmp_path)
    objects = {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}
    store = MemoryStore(objects)
    array = zg.open(store)
    assert array.chunks == (6, 8)
    assert array.shards == (12, 16)
    corner = array.read((slice(0, 3), slice(0, 4)), device="cpu")
    np.testing.assert_array_equal(corner, DATA[:3, :4])
    (_, _, index_nbytes), (_, _, inner_nbytes) = store.requests[-2:]
    assert index_nbytes + inner_nbytes < len(objects["c/0/0"]) / 2


def test_codecs_that_know_one_chunk_shape_are_refused_in_a_rectilinear_grid():
    document = json.loads(rectilinear(DATA, EDGES)["zarr.json"])
    document["codecs"] = [
        {"name": "transpose", "configuration": {"order": [1, 0]}},
        {
            "name": "sharding_indexed",
            "configuration": {
                "chunk_shape": [1, 1],
                "codecs": ["bytes"],
                "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
            },
        },
    ]
    document["data_type"] = "uint8"
    with pytest.raises(UnsupportedCodecError, match="rectilinear"):
        parse_node(Document("x", document), "")


def test_shards_nested_too_deep_are_refused():
    codecs: list[Any] = ["bytes"]
    for _ in range(12):
        codecs = [
            {
                "name": "sharding_indexed",
                "configuration": {
                    "chunk_shape": [1, 1],
                    "codecs": codecs,
                    "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
                },
            }
        ]
    document = json.loads(rectilinear(DATA.astype(np.uint8), EDGES)["zarr.json"])
    document["chunk_grid"] = {"name": "regular", "configuration": {"chunk_shape": [4, 4]}}
    document["codecs"] = codecs
    with pytest.raises(UnsupportedCodecError, match="nested"):
        parse_node(Document("x", document), "")
