"""Laws of tiles at places of their own.

1. Cells cover the array once, and show what painting the tiles one after the other shows: for any
   rectangles, selections, steps and points, on the host and on an emulated device.
2. A tile is decoded once per read, however many cells are cut from it.
3. Tiles that lie outside, or are not there, are refused.
"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.gpu.devices import to_host
from zarrgpu import reader
from zarrgpu.array import Array
from zarrgpu.errors import ChunkDecodeError, MetadataError, UnsupportedFormatError
from zarrgpu.formats import tile_placement
from zarrgpu.formats.tile_placement import PlacedTiles, place_tiles
from zarrgpu.model import MISSING_NBYTES, ArraySpec, CodecSpec, Manifest
from zarrgpu.opening import array_source
from zarrgpu.stats import ReadStats
from zarrgpu.stores.local import LocalStore

TILE = (8, 12)
GRID = (3, 2)


def stored_tiles() -> np.ndarray:
    """Tiles of random bytes, shape (6, 8, 12, 3)."""
    rng = np.random.default_rng(0)
    return rng.integers(1, 256, (GRID[0] * GRID[1], *TILE, 3), np.uint8)


def page_spec(codecs: tuple[CodecSpec, ...] = ()) -> ArraySpec:
    tiles = stored_tiles()
    nbytes = tiles[0].nbytes
    return ArraySpec(
        source="slide",
        shape=(GRID[0] * TILE[0], GRID[1] * TILE[1], 3),
        dtype=np.dtype(np.uint8),
        chunk_shape=(*TILE, 3),
        fill_value=0,
        codecs=codecs,
        axis_order=(0, 1, 2),
        location=Manifest(
            "tiles", np.arange(len(tiles)) * nbytes, np.full(len(tiles), nbytes, np.int64)
        ),
        dimension_names=("y", "x", "c"),
        attributes={"image": "level 0"},
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> LocalStore:
    folder = tmp_path_factory.mktemp("tiles")
    (folder / "tiles").write_bytes(stored_tiles().tobytes())
    return LocalStore(folder)


@st.composite
def placed_tiles(draw) -> tuple[PlacedTiles, tuple[int, int]]:
    """Rectangles anywhere within a level, each some part of some tile."""
    size = (draw(st.integers(1, 40)), draw(st.integers(1, 40)))
    rows = []
    for _ in range(draw(st.integers(0, 12))):
        row = [draw(st.integers(0, GRID[0] * GRID[1] - 1))]
        for axis in (0, 1):
            extent = draw(st.integers(1, min(TILE[axis], size[axis])))
            start = draw(st.integers(0, size[axis] - extent))
            row += [start, extent, draw(st.integers(0, TILE[axis] - extent))]
        rows.append(row)
    table = np.array(rows, np.int64).reshape(-1, 7).T
    tiles = PlacedTiles(
        chunk=table[0], start=table[[1, 4]], extent=table[[2, 5]], origin=table[[3, 6]]
    )
    return tiles, size


def painted(tiles: PlacedTiles, size: tuple[int, int]) -> np.ndarray:
    """The obvious way: one tile after the other."""
    canvas, stored = np.zeros((*size, 3), np.uint8), stored_tiles()
    for chunk, (y, x), (h, w), (sy, sx) in zip(
        tiles.chunk, tiles.start.T, tiles.extent.T, tiles.origin.T, strict=True
    ):
        canvas[y : y + h, x : x + w] = stored[chunk, sy : sy + h, sx : sx + w]
    return canvas


@settings(max_examples=60)
@given(placed=placed_tiles(), data=st.data())
def test_reading_is_painting(placed, data, store):
    tiles, size = placed
    spec = place_tiles(page_spec(), tiles, size)
    array, expected = Array(array_source(store, spec), "level 0"), painted(tiles, size)
    np.testing.assert_array_equal(array[:], expected)
    np.testing.assert_array_equal(array[::3, ::2, 1], expected[::3, ::2, 1])
    rows = data.draw(st.lists(st.integers(0, size[0] - 1), min_size=1, max_size=6))
    columns = data.draw(st.lists(st.integers(0, size[1] - 1), min_size=1, max_size=6))
    np.testing.assert_array_equal(array.oindex[rows, columns], expected[np.ix_(rows, columns)])
    count = min(len(rows), len(columns))
    y, x = rows[:count], columns[:count]
    np.testing.assert_array_equal(array.vindex[y, x, [0] * count], expected[y, x, [0] * count])
    starts = [[y - 5, x - 5, 0] for y, x in zip(rows[:count], columns[:count], strict=True)]
    padded = np.pad(expected, ((40, 40), (40, 40), (0, 0)))
    patches = array.read_patches(starts, (9, 7, 3))
    for patch, (top, left, _) in zip(patches, starts, strict=True):
        np.testing.assert_array_equal(patch, padded[top + 40 : top + 49, left + 40 : left + 47])


def regular(overlap: tuple[int, int] = (3, 4)) -> tuple[PlacedTiles, tuple[int, int]]:
    """All tiles, each this much over the one before."""
    number = np.indices(GRID).reshape(2, -1)
    side, shared = np.array(TILE)[:, None], np.array(overlap)[:, None]
    size = tuple(n * t - (n - 1) * o for n, t, o in zip(GRID, TILE, overlap, strict=True))
    tiles = PlacedTiles(
        chunk=np.arange(6),
        start=number * (side - shared),
        extent=np.broadcast_to(side, number.shape),
        origin=np.zeros_like(number),
    )
    return tiles, size


def test_emulated_device_equals_host(cuda, store):
    tiles, size = regular()
    array = Array(array_source(store, place_tiles(page_spec(), tiles, size)), "level 0")
    starts = [[-3, -3, 0], [4, 5, 0], [10, 12, 0]]
    got = array.read_patches(starts, (9, 9, 3), device=cuda)
    wanted = array.read_patches(starts, (9, 9, 3), device="cpu")
    np.testing.assert_array_equal(to_host(got), wanted)
    np.testing.assert_array_equal(to_host(array.read(device=cuda)), painted(tiles, size))


def test_a_grid_needs_no_more_cells_than_tiles(store):
    tiles, size = regular()
    spec = place_tiles(page_spec(), tiles, size)
    assert spec.grid_shape == (*GRID, 1)
    assert spec.stored_grid_shape == (*GRID, 1)
    array = Array(array_source(store, spec), "level 0")
    assert array.read_chunk_sizes == ((5, 5, 8), (8, 12), (3,))


def test_a_tile_in_many_cells_is_decoded_once(store):
    top, left = np.indices((8, 12)).reshape(2, -1)
    tiles = PlacedTiles(  # every pixel of tile 4 at a place of its own
        chunk=np.full(96, 4),
        start=np.stack([7 - top, 11 - left]),
        extent=np.ones((2, 96), np.int64),
        origin=np.stack([top, left]),
    )
    spec = place_tiles(page_spec(), tiles, TILE)
    source, stats = array_source(store, spec), ReadStats()
    request = reader.ReadRequest(
        arrays=(spec,), array_index=np.zeros(1, np.int32), start=np.zeros((1, 3), np.int64),
        count=(*TILE, 3), step=(1, 1, 1),
    )  # fmt: skip
    from zarrgpu.output import output_format

    result, _ = reader.read(
        (source,), request, output=output_format(spec.dtype), device="cpu", stats=stats
    )
    np.testing.assert_array_equal(result[0], stored_tiles()[4, ::-1, ::-1])
    assert stats.chunks_decoded == 1


def test_tiles_that_are_not_stored_paint_nothing(store):
    tiles, size = regular()
    spec = page_spec()
    nbytes = spec.location.nbytes.copy()
    nbytes[[0, 3]] = MISSING_NBYTES
    spec = replace(spec, location=replace(spec.location, nbytes=nbytes))
    array = Array(array_source(store, place_tiles(spec, tiles, size)), "level 0")
    kept = tiles.take(np.array([1, 2, 4, 5]))
    np.testing.assert_array_equal(array[:], painted(kept, size))


def test_tiles_of_several_files(tmp_path):
    pixels, (tiles, size) = stored_tiles(), regular()
    spec = page_spec()
    for name, part in (("a", pixels[:4]), ("b", pixels[4:])):
        (tmp_path / name).write_bytes(part.tobytes())
    place, nbytes = np.arange(len(pixels)), pixels[0].nbytes
    location = Manifest(
        "a", place % 4 * nbytes, spec.location.nbytes, keys=("a", "b"), object_id=place // 4
    )
    placed = place_tiles(replace(spec, location=location), tiles.take(np.array([0, 2, 4, 5])), size)
    array = Array(array_source(LocalStore(tmp_path), placed), "level 0")
    np.testing.assert_array_equal(array[:], painted(tiles.take(np.array([0, 2, 4, 5])), size))


def test_a_damaged_tile_is_named_by_its_place_in_the_file(store):
    tiles, size = regular()
    spec = place_tiles(page_spec((CodecSpec("zlib"),)), tiles, size)
    array = Array(array_source(store, spec), "level 0")
    with pytest.raises(ChunkDecodeError, match=r"level 0 tile \(row 1, column 1\)"):
        array[6, 15]


def test_tiles_outside_are_refused():
    tiles, size = regular()
    for wrong in (
        replace(tiles, start=tiles.start - 1),
        replace(tiles, start=tiles.start + 1),
        replace(tiles, chunk=tiles.chunk + 1),
        replace(tiles, chunk=tiles.chunk - 1),
    ):
        with pytest.raises(MetadataError, match="level 0: tiles lie outside"):
            place_tiles(page_spec(), wrong, size)
    with pytest.raises(MetadataError, match="tiles cover"):
        place_tiles(page_spec(), tiles, (0, 5))


def test_places_without_a_grid_are_refused(monkeypatch):
    monkeypatch.setattr(tile_placement, "_MAX_CELLS", 5)
    tiles, size = regular()
    with pytest.raises(UnsupportedFormatError, match=r"level 0 .*6 tiles in places"):
        place_tiles(page_spec(), tiles, size)


def test_tiles_that_all_lie_over_one_another_are_refused_in_little_time():
    n, side = 300, 256
    number = np.indices((n, n)).reshape(2, -1)
    tiles = PlacedTiles(
        chunk=np.zeros(n * n, np.int64),
        start=number,
        extent=np.full_like(number, side),
        origin=np.zeros_like(number),
    )
    start = time.perf_counter()
    with pytest.raises(UnsupportedFormatError, match="90000 tiles in places that form no grid"):
        place_tiles(page_spec(), tiles, (n + side - 1, n + side - 1))
    assert time.perf_counter() - start < 5
