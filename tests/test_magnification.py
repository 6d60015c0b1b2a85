"""Law: a slide read at a pixel size is what Pillow makes of the level, the same on every device.

Pillow rounds to 8 bits between its two passes, so it may differ by 1; in float32 it does not.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import zarrgpu as zg
from tests.gpu.devices import empty, to_host
from tests.synthetic_slides import SlideRecipe, make_svs
from zarrgpu.errors import ChunkDecodeError, MemoryBudgetError, SelectionError
from zarrgpu.magnification import level_for_step, level_ratios, read_scaled_patches
from zarrgpu.regions import read_regions

RECIPE = SlideRecipe(height=331, width=287, tile=64, n_levels=3, kind="deflate")
MPP = 0.499


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("magnification") / "slide.svs"
    path.write_bytes(make_svs(RECIPE))
    return path


@pytest.fixture(scope="module")
def slide(path):
    return zg.open_slide(path)


@pytest.fixture(scope="module")
def levels():
    return [RECIPE.level(i) for i in range(3)]


def with_mpp(slide, mpp):
    """The same slide with another pixel size."""
    return zg.Slide(replace(slide.spec, mpp=mpp), slide.levels, {})


def by_pillow(level, corner, step, size):
    """Region of a level by Pillow, which takes what lies beside the box into account too."""
    (x, y), (dx, dy), (w, h) = corner, step, size
    box = (x, y, x + w * dx, y + h * dy)
    return np.asarray(Image.fromarray(level).resize(size, Image.Resampling.BILINEAR, box=box))


@pytest.mark.parametrize("step", [1.3, 1.9999, 2.5, 5.0, 9.1, (1.5, 2.8), (0.5, 0.7)])
def test_regions_inside_equal_pillow(slide, levels, step):
    pair = step if isinstance(step, tuple) else (step, step)
    level = level_for_step(slide, pair)
    ratio = level_ratios(slide)[level]
    assert (np.array(pair) * 1.01 >= ratio).all() or level == 0
    mpp = tuple(MPP * s for s in pair)
    size = (11, 14)
    for x, y in [(0, 0), (57, 101), (133, 3)]:
        got = slide.read_region_mpp((x, y), mpp, size)
        expected = by_pillow(levels[level], (x, y) / ratio, pair / ratio, size)
        assert np.abs(got.astype(int) - expected).max() <= 1
        floats = slide.read_region_mpp((x, y), mpp, size, dtype="f4", normalize=([1, 2, 3], 4.0))
        for c in range(3):
            plane = levels[level][..., c].astype("f4")
            exact = by_pillow(plane, (x, y) / ratio, pair / ratio, size)
            np.testing.assert_allclose(floats[..., c], (exact - (1, 2, 3)[c]) / 4, atol=2e-5)


def test_a_coarser_level_is_read_where_it_is_fine_enough(slide):
    assert [level_for_step(slide, s) for s in ((1, 1), (2, 2), (2.02, 2.02), (3, 3), (4.1, 4.1))] \
        == [0, 1, 1, 1, 2]  # fmt: skip
    assert level_for_step(slide, (4.1, 1.5)) == 0  # one axis needs it
    assert level_for_step(slide, (0.2, 0.2)) == 0
    stats = read_scaled_patches((slide,), [0], [(0, 0)], [(4.1, 4.1)], (60, 60))
    assert stats[1].all()


def test_the_pixels_of_a_level_come_through_unchanged(slide, levels):
    """The fast path, where nothing is to be resampled, and the general one."""
    for level, whole in enumerate(levels):
        step = level_ratios(slide)[level]
        height, width = whole.shape[:2]
        got, _ = read_scaled_patches((slide,), [0], [(0, 0)], [step], (width, height))
        assert np.array_equal(got[0], whole)
        # beside one that is resampled there is no fast path
        both, _ = read_scaled_patches(
            (slide, slide), [0, 1], [(0, 0)] * 2, [step, step * 1.3], (width, height)
        )
        assert np.array_equal(both[0], whole)


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_edges_are_not_blended_with_the_fill_value(slide, levels, layout):
    """A pixel whose centre is outside is the fill value, others know nothing of it."""
    step, size = 1.7, (40, 30)
    corners = [(-20, -13), (-200, 5), (270, 320), (150, 310), (1000, -1000)]
    index = np.zeros(len(corners), int)
    make = {"layout": layout}
    black, ok = read_scaled_patches((slide,), index, corners, [(step, step)], size, **make)
    white, _ = read_scaled_patches(
        (slide.with_fill_value(255),), index, corners, [(step, step)], size, **make
    )
    assert ok.all()
    if layout == "NCHW":
        black, white = black.transpose(0, 2, 3, 1), white.transpose(0, 2, 3, 1)
    for (x, y), dark, light in zip(corners, black, white, strict=True):
        centres_x = x + (np.arange(size[0]) + 0.5) * step
        centres_y = y + (np.arange(size[1]) + 0.5) * step
        inside = (
            ((centres_y >= 0) & (centres_y < 331))[:, None] & (centres_x >= 0) & (centres_x < 287)
        )
        assert not dark[~inside].any()
        assert (light[~inside] == 255).all()
        assert np.array_equal(dark[inside], light[inside])
    # the upper left corner by Pillow, whose box begins at the image
    corner, _ = read_scaled_patches((slide,), [0], [(0, 0)], [(step, step)], size)
    expected = by_pillow(levels[0], (0, 0), (step, step), size)
    assert np.abs(corner[0].astype(int) - expected).max() <= 1


@pytest.mark.parametrize("dtype", [None, "f2", "f4", "f8"])
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_devices_give_the_same_bytes(slide, cuda, layout, dtype):
    rng = np.random.default_rng(3)
    other = with_mpp(slide, (0.25, 0.31))
    slides = (slide, other, slide)
    index = rng.integers(0, 3, 40)
    corners = rng.uniform(-60, 330, (40, 2))
    steps = [(1.7, 2.2), (3.4, 3.3), (9.0, 8.1)]
    normalize = None if dtype is None else ([100, 110, 120], 50)
    how = {"layout": layout, "dtype": dtype, "normalize": normalize}
    host, _ = read_scaled_patches(slides, index, corners, steps, (20, 17), device="cpu", **how)
    in_parts = zg.ReadOptions(memory_budget_bytes=1 << 17)
    for options in (zg.ReadOptions(), in_parts):
        got, ok = read_scaled_patches(
            slides, index, corners, steps, (20, 17), device=cuda, options=options, **how
        )
        assert ok.all()
        assert np.array_equal(to_host(got), host)
    out = empty(cuda, host.shape, host.dtype)
    read_scaled_patches(slides, index, corners, steps, (20, 17), device=cuda, out=out, **how)
    assert np.array_equal(to_host(out), host)


def test_slides_of_different_pixel_sizes_are_read_together(slide):
    fine = with_mpp(slide, (0.2, 0.2))
    rng = np.random.default_rng(4)
    index, locations = rng.integers(0, 2, 30), rng.integers(-10, 300, (30, 2))
    together = read_regions((slide, fine), index, locations, (24, 24), mpp=1.1)
    for i, (which, location) in enumerate(zip(index, locations, strict=True)):
        alone = (slide, fine)[which].read_region_mpp(location, 1.1, (24, 24))
        assert np.array_equal(together[i], alone)


def test_a_small_budget_gives_the_same_and_too_small_a_one_is_refused(slide):
    locations = np.random.default_rng(5).integers(0, 200, (20, 2))
    wanted = slide.read_regions_mpp(locations, 1.3, (30, 30))
    options = zg.ReadOptions(memory_budget_bytes=30_000)
    assert np.array_equal(slide.read_regions_mpp(locations, 1.3, (30, 30), options=options), wanted)
    options = zg.ReadOptions(memory_budget_bytes=5_000)
    with pytest.raises(MemoryBudgetError, match=r"slide\.svs.*takes .* px of level"):
        slide.read_regions_mpp(locations, 1.3, (30, 30), options=options)


def test_a_slide_without_a_pixel_size_says_so(slide):
    nowhere = with_mpp(slide, (0.5, None))
    for read in (
        lambda: nowhere.at_mpp(1.0),
        lambda: nowhere.read_region_mpp((0, 0), 1.0, (4, 4)),
        lambda: zg.RandomPatches(nowhere, size=8, mpp=1.0),
    ):
        with pytest.raises(SelectionError, match=r"does not state its pixel size in y"):
            read()


@pytest.mark.parametrize("mpp", [0, -1, float("nan"), float("inf"), "x", (1, 2, 3), (1, 0), None])
def test_what_is_no_pixel_size_is_refused(slide, mpp):
    with pytest.raises(SelectionError, match="mpp must be one or two positive numbers"):
        slide.at_mpp(mpp)


def test_results_without_pixels_and_at_the_ends_of_the_world(slide, cuda):
    for device in ("cpu", cuda):
        for size in ((0, 5), (5, 0), (0, 0)):
            got = slide.read_regions_mpp([(3, 3), (9, 9)], 0.7, size, device=device)
            assert got.shape == (2, size[1], size[0], 3)
        assert slide.read_regions_mpp([], 0.7, (4, 5), device=device).shape == (0, 5, 4, 3)
        far = [(1 << 60, -(1 << 60)), (-(1 << 61), 5)]
        assert not to_host(slide.read_regions_mpp(far, 0.7, (3, 3), device=device)).any()
        # far beyond level 0, and more than the whole slide
        one = to_host(slide.read_regions_mpp([(20, 20)], 1e-5, (4, 4), device=device))
        assert (one == one[:, :1, :1]).all()
        whole = slide.read_regions_mpp([(0, 0)], 287 * MPP, (1, 1), device=device)
        mean = slide.read_region((0, 0), 2, slide.level_dimensions[2]).mean(axis=(0, 1))
        assert np.abs(to_host(whole)[0, 0, 0] - mean).max() < 12
    for mpp in (1e12, 1e-12, 1e308):
        with pytest.raises(SelectionError, match=r"slide\.svs.*are none that a slide is read at"):
            slide.read_regions_mpp([(0, 0)], mpp, (1, 1))


def test_a_level_and_an_mpp_are_not_given_together(slide):
    with pytest.raises(SelectionError, match="not both"):
        read_regions((slide,), [0], [(0, 0)], (4, 4), level=1, mpp=1.0)
    with pytest.raises(SelectionError, match="not both"):
        zg.GridPatches(slide, size=8, level=1, mpp=1.0)


@pytest.mark.parametrize("dtype", ["?", "<i4", ">u8", "<f8"])
def test_types_that_float32_does_not_hold_are_rounded_where_asked_for(tmp_path, cuda, dtype):
    zarr = pytest.importorskip("zarr")
    scales = [{"type": "scale", "scale": [0.5, 0.5]}]
    axes = [{"name": n, "type": "space", "unit": "micrometer"} for n in "yx"]
    document = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scales}]}
    pixels = np.random.default_rng(0).random((40, 48)) * (1.5 if dtype == "?" else 1e9)
    twin = pixels.astype(dtype).astype("f4")
    for name, data in (("i.zarr", pixels.astype(dtype)), ("twin.zarr", twin)):
        image = zarr.create_group(tmp_path / name)
        image.create_array("0", data=data, chunks=(16, 16))
        image.attrs["ome"] = {"version": "0.5", "multiscales": [document]}
    slide = zg.open_slide(tmp_path / "i.zarr")
    assert slide.read_region_mpp((0, 0), 0.5, (8, 8)).dtype == np.dtype(dtype).newbyteorder("=")
    for options in ({}, {"dtype": "float64"}):  # what was asked for would not be what one gets
        with pytest.raises(SelectionError, match=r"not resampled as they are.* dtype='float32'"):
            slide.read_region_mpp((0, 0), 0.7, (8, 8), **options)
    for device in ("cpu", cuda):
        got = slide.read_regions_mpp([(3, 4)], 0.7, (9, 8), dtype="float32", device=device)
        expected = zg.open_slide(tmp_path / "twin.zarr").read_regions_mpp([(3, 4)], 0.7, (9, 8))
        assert np.array_equal(to_host(got), expected)


# ---- the view -----------------------------------------------------------------------------------


def test_the_view_has_the_pixel_size_and_the_coarser_levels(slide):
    view = slide.at_mpp(0.75)
    step = 0.75 / MPP
    assert view.mpp == pytest.approx((0.75, 0.75))
    assert view.dimensions == (round(287 / step), round(331 / step))
    assert view.level_dimensions[1:] == slide.level_dimensions[1:]
    assert view.level_count == 3
    assert view.level_downsamples[0] == 1
    for mine, of_slide in zip(view.level_downsamples[1:], slide.level_downsamples[1:], strict=True):
        assert mine == pytest.approx(of_slide / step)
    assert view.properties["openslide.mpp-x"] == repr(view.mpp[0])
    assert view.properties["openslide.level[0].width"] == str(view.dimensions[0])
    assert view.properties["openslide.vendor"] == "aperio"
    assert "0.75" in repr(view)


def test_the_view_reads_in_its_own_frame(slide):
    view = slide.at_mpp((0.75, 1.1))
    x_step, y_step = 0.75 / MPP, 1.1 / MPP
    corners = np.array([(40 * x_step, 30 * y_step)])
    direct, _ = read_scaled_patches((slide,), [0], corners, [(x_step, y_step)], (20, 25))
    assert np.array_equal(view.read_region((40, 30), 0, (20, 25)), direct[0])
    whole = view.read_region((0, 0), view.level_count - 1, view.level_dimensions[-1])
    assert np.array_equal(whole, slide.read_region((0, 0), 2, slide.level_dimensions[2]))
    assert view.get_best_level_for_downsample(1e9) == view.level_count - 1
    thumbnail = view.get_thumbnail((60, 60))
    assert max(thumbnail.shape[:2]) == 60
    with view as same:
        assert same.read_region((0, 0), 0, (5, 5), layout="NCHW").shape == (3, 5, 5)
    with pytest.raises(SelectionError, match="level 7"):
        view.read_region((0, 0), 7, (5, 5))


# ---- samplers and the loader --------------------------------------------------------------------


@pytest.mark.parametrize("mpp", [MPP, 0.75, 1.1, (0.8, 1.4)])
def test_a_loader_delivers_what_read_region_mpp_reads(slide, mpp):
    other = with_mpp(slide, (0.3, 0.35))
    sampler = zg.RandomPatches([slide, other], size=(24, 20), mpp=mpp, num_patches=60, seed=1)
    loader = zg.PatchLoader(sampler, batch_size=16, layout="NHWC", window_batches=2)
    for batch in loader:
        for pixels, where, which in zip(batch.images, batch.locations, batch.slides, strict=True):
            one = (slide, other)[which]
            assert np.array_equal(pixels, one.read_region_mpp(where, mpp, (24, 20)))
            extent = np.array([24, 20]) * np.broadcast_to(mpp, 2) / one.mpp
            assert (where >= 0).all()
            assert (where + extent <= np.array(one.dimensions) + 1).all()
    assert loader.stats.patches == 60


def test_a_grid_is_one_of_patch_pixels(slide):
    step = 0.75 / MPP
    grid = zg.GridPatches(slide, size=32, stride=20, mpp=0.75)
    at = grid.epoch_patches(0).location
    columns, rows = (int((n / step - 32) // 20) + 1 for n in (287, 331))
    assert len(grid) == columns * rows
    expected = [(x * 20 * step, y * 20 * step) for y in range(rows) for x in range(columns)]
    assert np.abs(at - expected).max() <= 0.5
    padded = zg.GridPatches(slide, size=32, mpp=0.75, edge="pad")
    assert len(padded) == -(-287 // (32 * step)) * -(-331 // (32 * step))
    mask = np.zeros((33, 28), bool)
    mask[5:20, 5:20] = True
    masked = zg.GridPatches(slide, size=32, stride=20, mpp=0.75, mask=mask)
    assert 0 < len(masked) < len(grid)
    drawn = zg.RandomPatches(slide, size=32, mpp=0.75, mask=mask, num_patches=50)
    for location in drawn.epoch_patches(0).location:
        assert drawn.mask_fraction(0, location[None])[0] >= 0.5 - 1e-9


def test_patches_larger_than_the_slide_are_refused(slide):
    with pytest.raises(SelectionError, match=r"do not fit into an mpp of 3\.0"):
        zg.RandomPatches(slide, size=64, mpp=3.0)


def test_a_corrupt_tile_masks_its_patch_only(path, tmp_path):
    slide = zg.open_slide(path)
    location = slide.levels[0].source.spec.location
    raw = bytearray(path.read_bytes())
    raw[location.offsets[0] : location.offsets[0] + 8] = b"\xff" * 8
    broken = tmp_path / "broken.svs"
    broken.write_bytes(raw)
    bad = zg.open_slide(broken)
    locations = [(10, 10), (200, 200), (150, 20)]
    with pytest.raises(ChunkDecodeError):
        bad.read_regions_mpp(locations, 0.8, (20, 20))
    for read, argument in ((slide.read_regions_mpp, 0.8), (slide.read_regions, 0)):
        wanted = read(locations, argument, (20, 20))
        name = read.__name__
        got, ok = getattr(bad, name)(locations, argument, (20, 20), on_error="mask")
        assert ok.tolist() == [False, True, True]
        assert np.array_equal(got[1:], wanted[1:])
    with pytest.raises(SelectionError, match="on_error is for read_regions"):
        bad.read_region((0, 0), 0, (4, 4), on_error="mask")
