"""Law: a program for openslide-python runs with one import changed, and gets the same images."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

import zarrgpu as zg
from tests.synthetic_slides import SlideRecipe, make_svs
from zarrgpu.interop import openslide as ours
from zarrgpu.interop.openslide import deepzoom as our_deepzoom

peer = pytest.importorskip("openslide")
peer_deepzoom = pytest.importorskip("openslide.deepzoom")
pytest.importorskip("PIL")

RECIPE = SlideRecipe(height=331, width=287, tile=64, n_levels=3, kind="lzw")
LEFT_OUT = {"ImageSlide", "AbstractSlide", "OpenSlideVersionError"}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("interop") / "slide.svs"
    path.write_bytes(make_svs(RECIPE))
    return path


def equal(a, b):
    assert a.mode == b.mode
    assert np.array_equal(np.asarray(a), np.asarray(b))


def test_every_public_name_is_there():
    theirs = {
        name for name, value in vars(peer).items()
        if name.startswith("PROPERTY_") or getattr(value, "__module__", "").startswith("openslide")
    }  # fmt: skip
    public = {name for name in theirs if not name.startswith("_")} - LEFT_OUT
    assert public <= set(ours.__all__)
    for name in public:
        if name.startswith("PROPERTY_"):
            assert getattr(ours, name) == getattr(peer, name)
    for cls in ("OpenSlide", "OpenSlideCache"):
        members = {n for n in dir(getattr(peer, cls)) if not n.startswith("_")}
        assert members <= set(dir(getattr(ours, cls))), cls
    generator = {n for n in dir(peer_deepzoom.DeepZoomGenerator) if not n.startswith("_")}
    assert generator - {"BOUNDS_OFFSET_PROPS", "BOUNDS_SIZE_PROPS"} <= set(
        dir(our_deepzoom.DeepZoomGenerator)
    )


def test_a_slide_has_every_name_of_openslides(path):
    """`zarrgpu.Slide` itself, which gives arrays; opening says what a file is."""
    members = {n for n in dir(peer.OpenSlide) if not n.startswith("_")}
    slide = zg.open_slide(path)
    assert members - set(dir(slide)) == {"detect_format"}
    assert members - set(dir(slide.at_mpp(1.0))) == {"detect_format", "set_cache"}
    assert zg.detect_format(path) == "aperio"
    for name in ("read_region", "get_thumbnail", "get_best_level_for_downsample"):
        theirs = list(inspect.signature(getattr(peer.OpenSlide, name)).parameters)
        assert list(inspect.signature(getattr(zg.Slide, name)).parameters)[: len(theirs)] == theirs


def test_the_same_program_gives_the_same_images(path):
    results = []
    for module, tiles in ((peer, peer_deepzoom), (ours, our_deepzoom)):
        with module.OpenSlide(path) as slide:
            slide.set_cache(module.OpenSlideCache(1 << 20))
            regions = [
                slide.read_region(location, 0, (90, 70))
                for location in ((0, 0), (100, 50), (-30, -20), (250, 300), (1000, 0))
            ]
            generator = tiles.DeepZoomGenerator(slide, 100, 3)
            top = generator.level_count - 1
            results.append({
                "regions": regions,
                "facts": (slide.dimensions, slide.level_dimensions, slide.level_downsamples,
                          slide.level_count, slide.get_best_level_for_downsample(3.0),
                          module.OpenSlide.detect_format(path), slide.color_profile is None,
                          slide.properties[module.PROPERTY_NAME_MPP_X]),
                "thumbnail": slide.get_thumbnail((200, 1000)),
                "small": slide.get_thumbnail((50, 50)),
                "associated": dict(slide.associated_images.items()),
                "tiles": [generator.get_tile(top, (x, y)) for x in range(3) for y in range(4)],
            })  # fmt: skip
    theirs, mine = results
    assert mine["facts"] == theirs["facts"]
    for a, b in zip(mine["regions"] + mine["tiles"], theirs["regions"] + theirs["tiles"],
                    strict=True):  # fmt: skip
        equal(a, b)
    equal(mine["thumbnail"], theirs["thumbnail"])
    equal(mine["small"], theirs["small"])
    assert mine["associated"].keys() == theirs["associated"].keys()
    for name, image in mine["associated"].items():
        equal(image, theirs["associated"][name])


def test_what_is_no_slide_is_an_error_of_that_name(tmp_path):
    text = tmp_path / "a.svs"
    text.write_text("hello")
    for module in (peer, ours):
        assert module.OpenSlide.detect_format(text) is None
        with pytest.raises(module.OpenSlideUnsupportedFormatError):
            module.OpenSlide(text)
        assert issubclass(module.OpenSlideUnsupportedFormatError, module.OpenSlideError)
        with pytest.raises(TypeError, match="Not a cache object"):
            module.OpenSlide.set_cache(_open(module, tmp_path), "cache")


def _open(module, folder):
    path = folder / "slide.svs"
    if not path.exists():
        path.write_bytes(make_svs(RECIPE))
    return module.OpenSlide(path)


def test_the_colour_profile_is_that_of_openslide(tmp_path):
    from dataclasses import replace

    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    path = tmp_path / "icc.svs"
    path.write_bytes(make_svs(RECIPE))
    slide = zg.open_slide(path)
    with_icc = zg.Slide(replace(slide.spec, icc_profile=profile), slide.levels, {})
    opened = with_icc.color_profile
    assert isinstance(opened, ImageCms.ImageCmsProfile)
    assert ImageCms.getProfileDescription(opened) == ImageCms.getProfileDescription(
        ImageCms.getOpenProfile(__import__("io").BytesIO(profile))
    )
    assert slide.color_profile is None
    assert with_icc.at_mpp(1.0).color_profile is not None


def test_set_cache_keeps_tiles(path):
    slide = zg.open_slide(path)
    cache = zg.ChunkCache(1 << 22)
    slide.set_cache(cache)
    first = slide.read_region((0, 0), 0, (100, 100))
    assert cache.nbytes > 0
    hits = cache.hits
    assert np.array_equal(slide.read_region((0, 0), 0, (100, 100)), first)
    assert cache.hits > hits
    slide.set_cache(1 << 20)
    slide.set_cache(peer.OpenSlideCache(1 << 20))
    with pytest.raises(TypeError, match="Not a cache object"):
        slide.set_cache("x")


def test_many_bits_make_no_rgba(tmp_path):
    zarr = pytest.importorskip("zarr")
    image = zarr.create_group(tmp_path / "i.zarr", zarr_format=3)
    image.create_array("0", shape=(40, 40), chunks=(16, 16), dtype="u2")
    axes = [{"name": n, "type": "space"} for n in "yx"]
    scale = [{"type": "scale", "scale": [1.0, 1.0]}]
    datasets = [{"path": "0", "coordinateTransformations": scale}]
    image.attrs["ome"] = {
        "version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}],
    }  # fmt: skip
    slide = ours.open_slide(tmp_path / "i.zarr")
    with pytest.raises(ours.OpenSlideError, match="make no RGBA image"):
        slide.read_region((0, 0), 0, (4, 4))
