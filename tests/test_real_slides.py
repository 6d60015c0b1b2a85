"""Law: real slides are read as OpenSlide reads them at level 0, and as tifffile at other levels.

Aperio JPEG (RGB), Aperio JPEG 2000, a slide smaller than its tile, and a generic deflate pyramid.
"""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import zarrgpu as zg
from zarrgpu.patches import read_slide_patches
from zarrgpu.pyramid import level0_locations

openslide = pytest.importorskip("openslide")
tifffile = pytest.importorskip("tifffile")

pytestmark = pytest.mark.slides

NAMES = ("CMU-1-Small-Region.svs", "tcga-jpeg2000.svs", "small.svs", "boxes.tiff")
TOLERANCE = 0
"""At level 0: both decode with libjpeg-turbo and OpenJPEG."""


@pytest.fixture(scope="module", params=NAMES)
def path(request, shared_data):
    path = shared_data / "slides" / request.param
    if not path.exists():
        pytest.skip(f"no {path}")
    return path


@pytest.fixture(scope="module")
def slide(path):
    return zg.open_slide(path)


@pytest.fixture(scope="module")
def peer(path):
    with openslide.OpenSlide(path) as peer:
        yield peer


def test_geometry(slide, peer):
    assert slide.level_count == peer.level_count
    assert slide.level_dimensions == peer.level_dimensions
    assert slide.level_downsamples == peer.level_downsamples
    assert set(slide.associated_images) == set(peer.associated_images)
    for downsample in np.concatenate([np.linspace(0, 12, 97), slide.level_downsamples]).tolist():
        expected = peer.get_best_level_for_downsample(downsample)
        assert slide.get_best_level_for_downsample(downsample) == expected


def test_properties(slide, peer):
    ours = dict(slide.properties)
    for name, text in peer.properties.items():
        if name.startswith("openslide.mpp-"):
            assert float(ours[name]) == pytest.approx(float(text), rel=1e-12)
        else:
            assert ours[name] == text, name
    assert set(ours) == set(peer.properties)


def test_regions_at_random_places(slide, peer):
    random = np.random.default_rng(8)
    width, height = slide.dimensions
    locations = random.integers((-90, -90), (width + 30, height + 30), (24, 2))
    got = slide.read_regions(locations, 0, (150, 110))
    for location, pixels in zip(locations.tolist(), got, strict=True):
        expected = np.asarray(peer.read_region(location, 0, (150, 110)))[..., :3]
        assert np.abs(pixels.astype(int) - expected).max() <= TOLERANCE, location


def test_other_levels(slide, path):
    with tifffile.TiffFile(path) as tiff:
        pages = [page for page in tiff.pages if page.is_tiled]
        assert len(pages) == slide.level_count
        for level, page in enumerate(pages):
            if not level:
                continue
            data = page.asarray()
            width, height = slide.level_dimensions[level]
            assert np.array_equal(slide.read_region((0, 0), level, (width, height)), data)
            pixels = np.random.default_rng(level).integers(0, min(width, height), (6, 2))
            locations = level0_locations(pixels, slide.level_downsamples[level])
            got = slide.read_regions(locations, level, (17, 9))
            for (x, y), region in zip(pixels.tolist(), got, strict=True):
                inside = data[y : y + 9, x : x + 17]
                assert np.array_equal(region[: inside.shape[0], : inside.shape[1]], inside)
                assert not region[inside.shape[0] :].any()
                assert not region[:, inside.shape[1] :].any()


def test_associated_images(slide, peer):
    for name, image in slide.associated_images.items():
        expected = np.asarray(peer.associated_images[name].convert("RGB"))
        assert np.array_equal(image[...], expected), name


def test_thumbnail(slide, peer):
    for size in ((300, 300), (120, 64)):
        ours, theirs = slide.get_thumbnail(size), np.asarray(peer.get_thumbnail(size))
        assert ours.shape == theirs.shape
        assert np.abs(ours.astype(int) - theirs).mean() < 4


def test_loader_and_pickle(slide, peer):
    size = min(96, *slide.dimensions)
    sampler = zg.RandomPatches(pickle.loads(pickle.dumps(slide)), size=size, num_patches=20, seed=1)
    for batch in zg.PatchLoader(sampler, batch_size=8, layout="NHWC", device="cpu"):
        for location, pixels in zip(batch.locations.tolist(), batch.images, strict=True):
            expected = np.asarray(peer.read_region(location, 0, (size, size)))[..., :3]
            assert np.abs(pixels.astype(int) - expected).max() <= TOLERANCE


@pytest.mark.parametrize("name", ["CMU-1-Small-Region.svs", "tcga-jpeg2000.svs"])
def test_a_real_slide_cut_off_is_masked_where_tiles_are_gone(shared_data, tmp_path, name):
    path = shared_data / "slides" / name
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        ends = np.array(page.dataoffsets) + page.databytecounts
        tile, columns = page.tilelength, -(-page.imagewidth // page.tilewidth)
        # the file cannot be cut before its directories: let the last tiles lie beyond its end
        lost = ends > np.sort(ends)[len(ends) * 2 // 3]
        tag = page.tags["TileOffsets"]
        width = tag.valuebytecount // tag.count
        for index in np.flatnonzero(lost).tolist():
            at = tag.valueoffset + index * width
            data[at : at + width] = (len(data) + 1000 * index).to_bytes(width, "little")
    cut = tmp_path / name
    cut.write_bytes(data)
    good, broken = zg.open_slide(path), zg.open_slide(cut)
    locations = np.random.default_rng(3).integers(0, np.array(good.dimensions) - 200, (40, 2))
    index = np.zeros(40, np.int32)
    got, valid = read_slide_patches((broken,), index, locations, (0,), (200, 200), on_error="mask")
    expected = good.read_regions(locations, 0, (200, 200))
    assert np.array_equal(got[valid], expected[valid])
    whole = np.array([
        not any(
            lost[row * columns + column]
            for row in range(y // tile, (y + 199) // tile + 1)
            for column in range(x // tile, (x + 199) // tile + 1)
        )
        for x, y in locations.tolist()
    ])  # fmt: skip
    assert np.array_equal(valid, whole)
    assert 3 < whole.sum() < 37
