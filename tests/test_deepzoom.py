"""Law: a Deep Zoom generator has openslide-python's geometry, exactly, and its pixels, nearly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import zarrgpu as zg
from tests.synthetic_slides import SlideRecipe, make_svs
from zarrgpu.errors import SelectionError

openslide = pytest.importorskip("openslide")
deepzoom = pytest.importorskip("openslide.deepzoom")

RECIPE = SlideRecipe(height=331, width=287, tile=64, n_levels=3, kind="deflate")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("deepzoom") / "slide.svs"
    path.write_bytes(make_svs(RECIPE))
    return path


@pytest.fixture(scope="module")
def slide(path):
    return zg.open_slide(path)


def pairs(path, slide, **options):
    peer = openslide.OpenSlide(path)
    return zg.DeepZoomGenerator(slide, **options), deepzoom.DeepZoomGenerator(peer, **options)


def addresses(generator):
    for level, (columns, rows) in enumerate(generator.level_tiles):
        for row in range(rows):
            for column in range(columns):
                yield level, (column, row)


def check_geometry(ours, peer):
    assert ours.level_count == peer.level_count
    assert ours.level_dimensions == peer.level_dimensions
    assert ours.level_tiles == peer.level_tiles
    assert ours.tile_count == peer.tile_count
    assert ours.get_dzi("jpeg") == peer.get_dzi("jpeg")
    for level, address in addresses(ours):
        same = (level, address)
        assert ours.get_tile_dimensions(*same) == peer.get_tile_dimensions(*same)
        assert ours.get_tile_coordinates(*same) == peer.get_tile_coordinates(*same)


OPTIONS = [{}, {"tile_size": 64, "overlap": 0}, {"tile_size": 62, "overlap": 1},
           {"tile_size": 33, "overlap": 5}, {"tile_size": 1000, "overlap": 3}]  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS)
def test_geometry_is_that_of_openslide(path, slide, options):
    check_geometry(*pairs(path, slide, **options))


class Bounded:
    """A slide of OpenSlide's, with bounds."""

    def __init__(self, slide, bounds):
        self._slide = slide
        names = ("x", "y", "width", "height")
        named = {f"openslide.bounds-{n}": str(v) for n, v in zip(names, bounds, strict=True)}
        self.properties = {**slide.properties, **named}

    def __getattr__(self, name):
        return getattr(self._slide, name)


def test_bounds_limit_it_as_they_do_there(path, slide):
    peer = Bounded(openslide.OpenSlide(path), (31, 44, 150, 201))
    ours = zg.Slide(replace(slide.spec, properties=peer.properties), slide.levels, {})
    options = {"tile_size": 60, "limit_bounds": True}
    a = zg.DeepZoomGenerator(ours, **options)
    b = deepzoom.DeepZoomGenerator(peer, **options)
    check_geometry(a, b)
    top = a.level_count - 1
    assert np.array_equal(a.get_tile(top, (0, 0)), np.asarray(b.get_tile(top, (0, 0))))


@pytest.mark.parametrize("options", OPTIONS[:3])
def test_pixels_are_those_of_openslide(path, slide, options):
    """At full size exactly; smaller within what two filters differ by on a slide with grain."""
    ours, peer = pairs(path, slide, **options)
    differences = []
    for level, address in addresses(ours):
        got = ours.get_tile(level, address)
        expected = np.asarray(peer.get_tile(level, address))
        assert got.shape == (*ours.get_tile_dimensions(level, address)[::-1], 3)
        # Pillow's thumbnail keeps the ratio of what was read: tiles there may lack rows or columns
        assert (np.array(got.shape) >= expected.shape).all()
        if level == ours.level_count - 1:
            assert np.array_equal(got, expected)
            continue
        # thin tiles at the far edges are stretched, by Pillow after rounding to pixels of the level
        columns, rows = ours.level_tiles[level]
        inner = address[0] < max(columns - 1, 1) and address[1] < max(rows - 1, 1)
        if inner and got.shape == expected.shape and level >= ours.level_count - 3:
            differences.append(np.abs(got.astype(int) - expected).mean())
    assert max(differences) < 10  # on waves of a few pixels; see the real slide below


def test_a_batch_of_tiles_is_the_tiles(slide):
    generator = zg.DeepZoomGenerator(slide, tile_size=50, overlap=2)
    for level in range(generator.level_count):
        columns, rows = generator.level_tiles[level]
        all_of_them = [(x, y) for y in range(rows) for x in range(columns)]
        tiles = generator.get_tiles(level, all_of_them, layout="NCHW")
        for address, tile in zip(all_of_them, tiles, strict=True):
            assert np.array_equal(tile.transpose(1, 2, 0), generator.get_tile(level, address))
    assert generator.get_tiles(0, []) == []


def test_tiles_join_without_seams(slide):
    """Tiles without overlap, put together, are the level read at once."""
    generator = zg.DeepZoomGenerator(slide, tile_size=37, overlap=0)
    level = generator.level_count - 2
    columns, rows = generator.level_tiles[level]
    width, height = 37 * (columns - 1), 37 * (rows - 1)  # the last ones stretch
    whole, _ = slide.read_scaled([(0, 0)], (2, 2), (width, height))
    for x in range(columns - 1):
        for y in range(rows - 1):
            part = whole[0][y * 37 : y * 37 + 37, x * 37 : x * 37 + 37]
            assert np.array_equal(generator.get_tile(level, (x, y)), part)


def test_a_view_at_a_pixel_size_has_tiles_too(slide):
    view = slide.at_mpp(0.75)
    generator = zg.DeepZoomGenerator(view, tile_size=64, overlap=0)
    assert generator.level_dimensions[-1] == view.dimensions
    top = generator.level_count - 1
    assert np.array_equal(generator.get_tile(top, (1, 1)), view.read_region((64, 64), 0, (64, 64)))


@pytest.mark.parametrize(
    ("level", "address"), [(-1, (0, 0)), (99, (0, 0)), (9, (-1, 0)), (9, (0, 99))]
)
def test_what_is_not_there_is_refused_as_there(path, slide, level, address):
    for generator in pairs(path, slide):
        for method in ("get_tile", "get_tile_coordinates", "get_tile_dimensions"):
            with pytest.raises(ValueError, match=r"Invalid (level|address)"):
                getattr(generator, method)(level, address)


def test_senseless_settings_are_refused(slide):
    with pytest.raises(ValueError, match="tile_size"):
        zg.DeepZoomGenerator(slide, 0)
    with pytest.raises(SelectionError, match="takes no out"):
        zg.DeepZoomGenerator(slide).get_tile(0, (0, 0), out=1)
    assert "tile_size=254" in repr(zg.DeepZoomGenerator(slide))


@pytest.mark.slides
def test_a_real_slide_has_the_geometry_of_openslide(shared_data):
    path = shared_data / "slides" / "CMU-1-Small-Region.svs"
    if not path.exists():
        pytest.skip(f"no {path}")
    slide = zg.open_slide(path)
    ours, peer = pairs(path, slide)
    check_geometry(ours, peer)
    level = ours.level_count - 3
    got = ours.get_tile(level, (0, 0)).astype(int)
    assert np.abs(got - np.asarray(peer.get_tile(level, (0, 0)))).mean() < 2
