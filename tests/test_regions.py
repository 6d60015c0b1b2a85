"""Law: regions of many slides are what each slide gives alone, with the fill value asked for.

OME-Zarr images are slides too: any axes, types and numbers of channels.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

import zarrgpu as zg
from tests.gpu.devices import to_host
from tests.synthetic_slides import SlideRecipe, make_svs
from zarrgpu.errors import SelectionError

zarr = pytest.importorskip("zarr")

RECIPE = SlideRecipe(height=331, width=287, tile=64, n_levels=2, kind="deflate")


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    made = []
    for seed, height in enumerate((331, 270)):
        path = tmp_path_factory.mktemp("regions") / f"{seed}.svs"
        recipe = SlideRecipe(height=height, width=287, tile=64, n_levels=2, kind="deflate")
        path.write_bytes(make_svs(recipe))
        made.append(zg.open_slide(path))
    return made


AXES = ("t", "c", "z", "y", "x")


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """An image of five axes, coarser by (1, 2) along (y, x) in its second level."""
    path = tmp_path_factory.mktemp("regions") / "image.zarr"
    pixels = np.random.default_rng(0).integers(0, 4000, (2, 5, 3, 60, 100)).astype("u2")
    levels = [pixels, pixels.reshape(2, 5, 3, 60, 50, 2).mean(axis=-1).astype("u2")]
    group = zarr.create_group(path, zarr_format=3)
    datasets = []
    for i, (level, x_size) in enumerate(zip(levels, (0.25, 0.5), strict=True)):
        array = group.create_array(
            str(i), shape=level.shape, chunks=(1, 1, 1, 32, 32), dtype="u2", fill_value=7
        )
        array[...] = level
        scale = {"type": "scale", "scale": [1.0, 1.0, 1.0, 400.0, x_size * 1000]}
        datasets.append({"path": str(i), "coordinateTransformations": [scale]})
    kinds = {"t": "time", "c": "channel"}
    axes = [
        {"name": n, "type": kinds.get(n, "space")} | ({"unit": "nanometer"} if n in "zyx" else {})
        for n in AXES
    ]
    group.attrs["ome"] = {
        "version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}],
    }  # fmt: skip
    return SimpleNamespace(path=path, levels=levels, slide=zg.open_slide(path))


def test_regions_of_many_slides_are_those_of_each(slides, cuda):
    rng = np.random.default_rng(1)
    index, locations = rng.integers(0, 2, 25), rng.integers(-40, 300, (25, 2))
    for how in ({"level": 0}, {"level": 1}, {"level": (1, 0)}, {"mpp": 0.8}, {}):
        got = zg.read_regions(slides, index, locations, (31, 22), **how, device="cpu")
        on_device = zg.read_regions(slides, index, locations, (31, 22), **how, device=cuda)
        assert np.array_equal(to_host(on_device), got)
        for pixels, which, location in zip(got, index, locations, strict=True):
            if "mpp" in how:
                alone = slides[which].read_region_mpp(location, 0.8, (31, 22))
            else:
                level = np.broadcast_to(how.get("level", 0), 2)[which]
                alone = slides[which].read_region(location, int(level), (31, 22))
            assert np.array_equal(pixels, alone)


def test_levels_that_do_not_fit_the_slides_are_refused(slides):
    with pytest.raises(SelectionError, match="got 3 levels for 2 slides"):
        zg.read_regions(slides, [0], [(0, 0)], (4, 4), level=(0, 0, 0))
    with pytest.raises(SelectionError, match="slide_index"):
        zg.read_regions(slides, [2], [(0, 0)], (4, 4))
    with pytest.raises(SelectionError, match="slide_index"):
        zg.read_regions(slides, [2], [(0, 0)], (4, 4), mpp=0.7)
    with pytest.raises(SelectionError, match="slide_index"):
        zg.read_regions(slides, [0, 0], [(0, 0)], (4, 4), mpp=0.7)
    for index in ([0.7], [1 << 32], [True], ["0"]):
        for how in ({"level": 0}, {"mpp": 0.7}):
            with pytest.raises(SelectionError, match="slide_index must be 1 integers"):
                zg.read_regions(slides, index, [(0, 0)], (4, 4), **how)
    for none in ((), ["a.svs"], [slides[0].at_mpp(1.0)]):
        with pytest.raises(SelectionError, match="takes one slide or more"):
            zg.read_regions(none, [0], [(0, 0)], (4, 4))


# ---- fill values --------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [255, np.uint8(12), 0])
def test_what_is_outside_is_the_value_asked_for(slides, value, cuda):
    slide = slides[0]
    locations = [(-20, -10), (270, 320), (100, 100), (2000, 0)]
    plain = slide.read_regions(locations, 0, (40, 30))
    ones = slide.read_regions([(0, 0)], 0, (287, 331))  # all inside
    assert np.array_equal(ones, slide.read_regions([(0, 0)], 0, (287, 331), fill_value=value))
    filled = slide.read_regions(locations, 0, (40, 30), fill_value=value)
    on_device = slide.read_regions(locations, 0, (40, 30), fill_value=value, device=cuda)
    assert np.array_equal(to_host(on_device), filled)
    for (x, y), before, after in zip(locations, plain, filled, strict=True):
        rows, columns = np.arange(y, y + 30), np.arange(x, x + 40)
        inside = ((rows >= 0) & (rows < 331))[:, None] & (columns >= 0) & (columns < 287)
        assert (after[~inside] == value).all()
        assert np.array_equal(after[inside], before[inside])
    same = slide.with_fill_value(value)
    assert np.array_equal(same.read_regions(locations, 0, (40, 30)), filled)
    assert same.associated_images is slide.associated_images
    opened = zg.open_slide(slide.spec.source, fill_value=value)
    assert np.array_equal(opened.read_regions(locations, 0, (40, 30)), filled)


def test_samplers_and_loaders_take_it_from_the_slide(slides):
    white = slides[0].with_fill_value(255)
    grid = zg.GridPatches(white, size=100, edge="pad")
    last = list(zg.PatchLoader(grid, batch_size=4, layout="NHWC"))[-1].images[-1]
    assert (last[31:] == 255).all()
    assert (last[:, 87:] == 255).all()


def test_normalised_fill_values_are_normalised_as_pixels(slides):
    how = {"normalize": (255.0, 2.0), "fill_value": 255}
    assert not slides[0].read_region((-100, 0), 0, (50, 50), **how).any()
    assert not slides[0].read_region_mpp((-100, 0), 0.7, (50, 50), **how).any()


@pytest.mark.parametrize("value", [256, -1, 0.5, "white", (1, 2, 3), float("nan")])
def test_values_that_pixels_cannot_have_are_refused(slides, value):
    with pytest.raises(SelectionError, match="fill_value must be one value of uint8"):
        slides[0].read_region((0, 0), 0, (4, 4), fill_value=value)


# ---- pixel sizes and axes -----------------------------------------------------------------------


def test_a_pixel_size_may_be_given_when_opening(slides):
    path = slides[0].spec.source
    assert zg.open_slide(path, mpp=0.25).mpp == (0.25, 0.25)
    slide = zg.open_slide(path, mpp=(0.25, 0.5))
    assert slide.mpp == (0.25, 0.5)
    assert slide.at_mpp(0.5).dimensions == (round(287 / 2), 331)
    with pytest.raises(SelectionError, match="mpp must be"):
        zg.open_slide(path, mpp=-1)


def test_an_ome_zarr_image_is_a_slide(image, cuda):
    slide = image.slide
    assert slide.mpp == pytest.approx((0.25, 0.4))
    assert slide.dimensions == (100, 60)
    got = slide.read_region((10, 5), 0, (20, 15), position={"t": 1, "z": 2})
    assert np.array_equal(got, image.levels[0][1, :, 2, 5:20, 10:30].transpose(1, 2, 0))
    # at its own pixel size, and that of the level that is coarser in x alone
    same = slide.read_region_mpp((10, 5), slide.mpp, (20, 15), position={"t": 1, "z": 2})
    assert np.array_equal(same, got)
    half = slide.read_region_mpp((10, 5), (0.5, 0.4), (20, 15), position={"z": 1})
    assert np.array_equal(half, image.levels[1][0, :, 1, 5:20, 5:25].transpose(1, 2, 0))
    for layout in ("NHWC", "NCHW"):
        how = {"layout": layout, "position": {"t": 1}, "dtype": "f4", "normalize": (
            np.arange(5) * 100.0, 7.0)}  # fmt: skip
        host = slide.read_regions_mpp([(3, 3), (80, 50)], 0.61, (20, 15), device="cpu", **how)
        device = slide.read_regions_mpp([(3, 3), (80, 50)], 0.61, (20, 15), device=cuda, **how)
        assert np.array_equal(to_host(device), host)
    outside = slide.read_region_mpp((-1000, 0), 0.61, (4, 4))
    assert (outside == 7).all()


def test_a_loader_takes_a_position(image):
    position = {"t": 1, "z": 2}
    for sampler in (
        zg.RandomPatches(image.slide, size=16, num_patches=20),
        zg.RandomPatches(image.slide, size=16, num_patches=20, mpp=0.5),
    ):
        read = image.slide.read_region_mpp if sampler.mpp else image.slide.read_region
        loader = zg.PatchLoader(sampler, batch_size=8, layout="NHWC", position=position)
        for batch in loader:
            for pixels, where in zip(batch.images, batch.locations, strict=True):
                wanted = read(where, sampler.mpp or 0, (16, 16), position=position)
                assert np.array_equal(pixels, wanted)
    with pytest.raises(SelectionError, match="z=9"):
        zg.PatchLoader(sampler, position={"z": 9})


def test_what_is_no_slide_has_no_format(image, tmp_path, slides):
    assert zg.detect_format(image.path) == "ome-zarr"
    assert zg.detect_format(slides[0].spec.source) == "aperio"
    text = tmp_path / "a.txt"
    text.write_text("hello")
    assert zg.detect_format(text) is None
    assert zg.detect_format(tmp_path / "absent.svs") is None
