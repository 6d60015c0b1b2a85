"""Law: a program for openslide-python runs with one import changed, and gets the same images."""

from __future__ import annotations

import inspect
from dataclasses import replace

import numpy as np
import pytest
import tifffile

import zarrgpu as zg
from tests.slide_editor import Editor
from tests.synthetic_dicom import Instance, make, smooth
from tests.synthetic_leica import Field, LeicaRecipe, make_leica
from tests.synthetic_philips import PhilipsRecipe, make_philips
from tests.synthetic_slides import SlideRecipe, make_svs, tissue
from tests.synthetic_ventana import AreaRecipe, BifRecipe, make_bif
from zarrgpu.interop import openslide as ours
from zarrgpu.interop.openslide import deepzoom as our_deepzoom

peer = pytest.importorskip("openslide")
peer_deepzoom = pytest.importorskip("openslide.deepzoom")
pytest.importorskip("PIL")

RECIPE = SlideRecipe(height=331, width=287, tile=64, n_levels=3, kind="lzw")
GAPS = AreaRecipe(across=3, down=2)


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
    public = {name for name in theirs if not name.startswith("_")}
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


def test_a_slide_keeps_tiles_unless_told_not_to(path):
    slide = ours.OpenSlide(path)
    cache = slide.slide.levels[0].source.cache
    for _ in range(2):
        slide.read_region((0, 0), 0, (64, 64))
    assert cache.hits == 1
    assert ours.OpenSlide(path, cache=None).slide.levels[0].source.cache is None


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


def ome_zarr(path, data, **attributes):
    zarr = pytest.importorskip("zarr")
    image = zarr.create_group(path, zarr_format=3)
    image.create_array("0", data=data, attributes=attributes)
    axes = [{"name": n, "type": "channel" if n == "c" else "space"} for n in "yxc"[: data.ndim]]
    scale = [{"type": "scale", "scale": [1.0] * data.ndim}]
    datasets = [{"path": "0", "coordinateTransformations": scale}]
    image.attrs["ome"] = {
        "version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}],
    }  # fmt: skip
    return ours.open_slide(path)


@pytest.mark.parametrize(("shape", "dtype"), [((9, 9), "u2"), ((9, 9, 2), "u1"), ((9, 9, 5), "u1")])
def test_many_bits_and_channels_without_colours_make_no_rgba(shape, dtype, tmp_path):
    slide = ome_zarr(tmp_path / "i.zarr", np.zeros(shape, dtype))
    with pytest.raises(ours.OpenSlideError, match="make no RGBA image"):
        slide.read_region((0, 0), 0, (4, 4))


def test_attributes_of_a_zarr_array_say_nothing_of_its_colours(tmp_path):
    """They are free, where those of a TIFF's page are its tags."""
    attributes = {"photometric": "white is zero", "extra_samples": 1, "bits_per_sample": 4}
    slide = ome_zarr(tmp_path / "i.zarr", tissue(20, 30), **attributes)
    assert np.array_equal(pixels_of(slide, 0)[..., :3], tissue(20, 30))


def pixels_of(slide, level):
    return np.asarray(slide.read_region((0, 0), level, slide.level_dimensions[level]))


@pytest.mark.parametrize("kind", ["svs", "scn", "tiff", "bif", "dcm"])
def test_tiles_that_are_not_stored_are_transparent(kind, tmp_path):
    part = Field(width=96, height=64, left=40, top=24)
    made = {
        "svs": lambda: make_svs(replace(RECIPE, missing={0: (1, 7), 1: (2,)})),
        "scn": lambda: make_leica(LeicaRecipe(fields=(part,))),
        "tiff": lambda: make_philips(PhilipsRecipe(missing={0: (3,), 1: (1,)})),
        "bif": lambda: make_bif(BifRecipe(areas=(GAPS,), overlaps=((-6.0,), (-4.0,)))),
        "dcm": lambda: make(
            Instance(image=smooth(1, 1, 70, 90, 3), organization="TILED_SPARSE",
                     missing=frozenset({(0, 1)}))
        ),
    }  # fmt: skip
    path = tmp_path / f"slide.{kind}"
    path.write_bytes(made[kind]())
    with peer.OpenSlide(path) as theirs, ours.OpenSlide(path) as mine:
        for level in range(1 if kind == "svs" else theirs.level_count):
            expected = pixels_of(theirs, level)
            assert np.array_equal(pixels_of(mine, level), expected)
            assert set(np.unique(expected[..., 3])) <= {0, 255}
        # of a level that is made from one with a hole, but for what lies on its edge
        last = theirs.level_count - 1
        alpha, own = pixels_of(theirs, last)[..., 3], pixels_of(mine, last)[..., 3]
        assert not (own == 0).all()
        assert ((alpha == 0) <= (own == 0)).all()
        assert np.mean(alpha != own) < 0.05
        assert (alpha == 0).any() == (own == 0).any() == (kind != "tiff")
    with ours.OpenSlide(path, fill_value=200) as filled:
        pixels = pixels_of(filled, 0)
        assert (pixels[..., 3] == 255).all()
        assert (
            pixels[pixels_of(ours.OpenSlide(path), 0)[..., 3] == 0] == (200, 200, 200, 255)
        ).all()


PALETTE = np.random.default_rng(0).integers(0, 1 << 16, (3, 256), dtype="u2")
GREY = tissue(150, 128)[..., 0]
CMYK = np.dstack([tissue(150, 128), GREY])
COLOURS = {
    "white is zero": (GREY, {"photometric": "miniswhite"}),
    "palette": (GREY, {"photometric": "palette", "colormap": PALETTE}),
    "cmyk": (CMYK, {"photometric": "separated"}),
    "16 bits": (CMYK[..., :3].astype("u2") * 251, {"photometric": "rgb"}),
    "16 bits grey": (GREY.astype("u2") * 251, {"photometric": "minisblack"}),
    "16 bits of white": (GREY.astype("u2") * 251, {"photometric": "miniswhite"}),
    "alpha": (
        np.dstack([CMYK[..., :3] // 2, np.full_like(GREY, 200)]),
        {"photometric": "rgb", "extrasamples": ["assocalpha"]},
    ),
}


@pytest.mark.parametrize("case", COLOURS)
def test_samples_become_the_colours_that_openslide_shows(case, tmp_path):
    image, options = COLOURS[case]
    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, image, tile=(64, 64), metadata=None, **options)
    with peer.OpenSlide(path) as theirs, ours.OpenSlide(path) as mine:
        assert np.array_equal(pixels_of(mine, 0), pixels_of(theirs, 0))


@pytest.mark.parametrize(("said", "shown"), [("2", (2, 1)), ("7", (3, 1)), ("x", (0, 0))])
def test_a_converted_stack_shows_the_plane_that_is_said(said, shown, tmp_path):
    """The one nearest to it at a level of fewer planes; the property is anybody's."""
    zarr = pytest.importorskip("zarr")
    image = zarr.create_group(tmp_path / "i.zarr", zarr_format=3)
    axes = [{"name": n, "type": "space"} for n in "zyx"]
    datasets = []
    for level, size in enumerate((8, 4)):
        planes = np.arange(size // 2, dtype="u1")[:, None, None]
        image.create_array(str(level), data=np.tile(planes, (1, size, size)))
        scale = [{"type": "scale", "scale": [2.0**level] * 3}]
        datasets.append({"path": str(level), "coordinateTransformations": scale})
    ome = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
    own = {"properties": {"zarrgpu.argos.middle-z": said}}
    image.attrs.put({"ome": ome, "zarrgpu": own})
    slide = ours.OpenSlide(tmp_path / "i.zarr")
    assert tuple(pixels_of(slide, level)[0, 0, 0] for level in (0, 1)) == shown
    with pytest.raises(ours.OpenSlideError, match="level 2"):
        slide.read_region((0, 0), 2, (1, 1))


def test_alpha_is_what_is_said_to_be_alpha(tmp_path):
    path = tmp_path / "slide.tif"
    options = {"photometric": "rgb", "tile": (64, 64), "metadata": None}
    tifffile.imwrite(path, CMYK, extrasamples=["unassalpha"], **options)
    assert np.array_equal(pixels_of(ours.OpenSlide(path), 0), CMYK)
    tifffile.imwrite(path, CMYK, extrasamples=["unspecified"], **options)
    with pytest.raises(ours.OpenSlideError, match="RGB and unspecified make no RGBA image"):
        ours.OpenSlide(path).read_region((0, 0), 0, (4, 4))
    tifffile.imwrite(path, CMYK[..., :3], **{**options, "photometric": "cielab"})
    with pytest.raises(ours.OpenSlideError, match=r"CIE L\*a\*b\* make no RGBA image"):
        ours.OpenSlide(path).read_region((0, 0), 0, (4, 4))


@pytest.mark.parametrize(("photometric", "shown"), [("MONOCHROME2", 1), ("MONOCHROME1", -1)])
def test_grey_of_dicom_is_shown_as_it_is_meant(photometric, shown, tmp_path):
    """OpenSlide refuses it; samples themselves stay as they are stored."""
    image = smooth(1, 1, 70, 90, 1)
    path = tmp_path / "grey.dcm"
    path.write_bytes(make(Instance(image=image, photometric=photometric)))
    stored = image[0, 0, ..., 0]
    pixels = pixels_of(ours.OpenSlide(path), 0)
    assert np.array_equal(pixels[..., 0], stored if shown > 0 else 255 - stored)
    assert np.array_equal(pixels_of(zg.open_slide(path), 0)[..., 0], stored)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P"])
def test_an_ordinary_image_is_a_slide_as_there(mode, tmp_path):
    image_of = pytest.importorskip("PIL.Image")
    path = tmp_path / "photo.png"
    image_of.fromarray(tissue(150, 128)).convert(mode).save(path, icc_profile=b"profile")
    results = []
    for module, tiles in ((peer, peer_deepzoom), (ours, our_deepzoom)):
        assert module.ImageSlide.detect_format(path) == "PNG"
        with module.open_slide(path) as slide:
            assert isinstance(slide, module.ImageSlide)
            assert isinstance(slide, module.AbstractSlide)
            boxes = [((0, 0), (128, 150)), ((-10, 20), (50, 400)), ((500, 0), (9, 9)),
                     ((127, 149), (5, 5)), ((-5, -5), (5, 5)), ((3, 3), (0, 2))]  # fmt: skip
            regions = [slide.read_region(at, 0, size) for at, size in boxes]
            generator = tiles.DeepZoomGenerator(slide, 50, 2)
            top = generator.level_count - 1
            regions += [generator.get_tile(top - 1, (1, 1)), slide.get_thumbnail((40, 40))]
            slide.set_cache(module.OpenSlideCache(1 << 20))
            facts = (slide.dimensions, slide.level_count, slide.level_dimensions,
                     slide.level_downsamples, slide.get_best_level_for_downsample(9.0),
                     dict(slide.properties), dict(slide.associated_images))  # fmt: skip
            results.append((regions, facts))
            for level, size in ((1, (4, 4)), (0, (-1, 4))):
                with pytest.raises(module.OpenSlideError):
                    slide.read_region((0, 0), level, size)
        with pytest.raises(ValueError, match="closed slide"):
            slide.read_region((0, 0), 0, (1, 1))
    (theirs, their_facts), (mine, my_facts) = results
    assert my_facts == their_facts
    for a, b in zip(mine, theirs, strict=True):
        equal(a, b)
        assert a.info["icc_profile"] == b.info["icc_profile"] == b"profile"
    with ours.ImageSlide(image_of.new("RGB", (5, 4))) as slide:
        assert slide.dimensions == (5, 4)
        with pytest.raises(ours.OpenSlideError, match="no tiles as arrays"):
            our_deepzoom.DeepZoomGenerator(slide).get_tiles(0, [(0, 0)])


def test_what_is_not_there_is_the_error_that_it_is_there(path, tmp_path):
    for module in (peer, ours):
        with pytest.raises(module.OpenSlideUnsupportedFormatError):
            module.OpenSlide(tmp_path / "none.svs")
        with pytest.raises(module.lowlevel.OpenSlideError):
            module.OpenSlide(tmp_path)
        with pytest.raises(FileNotFoundError):
            module.open_slide(tmp_path / "none.svs")
        text = tmp_path / "text.txt"
        text.write_text("no image")
        with pytest.raises(OSError, match="cannot identify image file"):
            module.open_slide(text)
        assert module.ImageSlide.detect_format(text) is None
        encoded = str(path).encode()
        assert zg.open_slide(encoded).dimensions == (287, 331)
        assert module.OpenSlide.detect_format(encoded) == "aperio"
        assert module.OpenSlide(encoded).dimensions == (287, 331)
        assert isinstance(module.__library_version__, str)


def test_associated_images_carry_their_profile(tmp_path):
    path = tmp_path / "slide.svs"
    text = "Aperio x|ICC Profile = ScanScope v1"
    editor = Editor(replace(RECIPE, icc_profile=bytes(range(100)) * 3, description=text))
    named = b"Aperio Image|ICC Profile = ScanScope v1\0"
    path.write_bytes(editor.set_value(1, "ImageDescription", named).data)
    for module in (peer, ours):
        with module.OpenSlide(path) as slide:
            found = {n: im.info.get("icc_profile") for n, im in slide.associated_images.items()}
        assert found == {"thumbnail": bytes(range(100)) * 3, "label": None, "macro": None}


def test_only_what_is_no_slide_is_an_ordinary_image(tmp_path):
    refused, plain = tmp_path / "refused.svs", tmp_path / "plain.tif"
    editor = Editor(RECIPE).set_value(0, "ResolutionUnit", b"\2\0")
    refused.write_bytes(editor.rename_tag(0, "ResolutionUnit", 32997).data)  # ImageDepth 2
    tifffile.imwrite(plain, tissue(60, 50), photometric="rgb", rowsperstrip=8)
    pytest.importorskip("PIL.Image").open(refused).close()
    for module in (peer, ours):
        with pytest.raises(module.OpenSlideError):
            module.open_slide(refused)
        with module.open_slide(plain) as slide:
            assert isinstance(slide, module.ImageSlide)
            assert np.array_equal(pixels_of(slide, 0)[..., :3], tissue(60, 50))
