"""The demo's own laws.

Its inputs are what they claim to be to independent readers; its foreground is where the specimen
is; training and validation never share a pixel; training learns what can be learned; and the report
shows it in pictures that are not blank.
"""

from __future__ import annotations

import io
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest

from zarrgpu.demo import report
from zarrgpu.demo.display import Display
from zarrgpu.demo.foreground import (
    box_sums,
    density_map,
    foreground_mask,
    is_brightfield,
    otsu_threshold,
    stretch,
)
from zarrgpu.demo.labels import Labeller, Split, has_room, split_by_place
from zarrgpu.demo.progress import Progress
from zarrgpu.demo.svs import box_filter

INPUT_PX = 1024


@pytest.fixture(scope="module")
def tissue():
    from zarrgpu.demo.texture import tissue_image

    return tissue_image(INPUT_PX, seed=3)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    from zarrgpu.demo.inputs import make_inputs

    return make_inputs(tmp_path_factory.mktemp("demo-input"), size_px=INPUT_PX, seed=3)


# --- inputs


def test_tissue_follows_from_the_seed(tissue):
    from zarrgpu.demo.texture import tissue_image

    np.testing.assert_array_equal(tissue, tissue_image(INPUT_PX, seed=3))
    assert (tissue != tissue_image(INPUT_PX, seed=4)).any()


def test_tissue_looks_like_a_section_on_glass(tissue):
    corner = tissue[:40, :40].astype(float)
    assert corner.mean() > 235, "the corner is bare glass"
    assert corner.std() > 0.5, "glass has sensor noise"
    mask = foreground_mask(tissue)
    assert 0.2 < mask.mean() < 0.8
    assert tissue[mask].mean() < 215


def test_openslide_reads_the_svs_as_aperio_with_true_pixels(inputs, tissue):
    openslide = pytest.importorskip("openslide")
    with openslide.OpenSlide(str(inputs[0])) as slide:
        assert slide.properties["openslide.vendor"] == "aperio"
        assert slide.properties["openslide.mpp-x"] == "0.5"
        assert slide.properties["openslide.objective-power"] == "20"
        assert slide.level_dimensions == ((1024, 1024), (256, 256))
        assert set(slide.associated_images) == {"thumbnail", "label", "macro"}
        for image in slide.associated_images.values():
            assert np.ptp(np.asarray(image)[..., :3]) > 50, "not blank"
        seen = np.asarray(slide.read_region((300, 200), 0, (500, 500)))[..., :3]
        small = np.asarray(slide.read_region((0, 0), 1, (256, 256)))[..., :3]
    # JPEG at quality 80; a wrong colour transform or a wrong tile would be off by tens.
    wanted = tissue[200:700, 300:800]
    assert np.abs(seen.astype(int) - wanted).mean() < 4
    assert np.abs(small.astype(int) - box_filter(tissue, 4)).mean() < 5


def test_svs_tiles_are_abbreviated_streams_with_shared_tables(inputs):
    tifffile = pytest.importorskip("tifffile")
    with tifffile.TiffFile(inputs[0]) as tiff:
        page = tiff.pages[0]
        assert page.tile == (240, 240)
        assert page.photometric == 2
        assert page.tags["JPEGTables"].value[:2] == b"\xff\xd8"
        tiff.filehandle.seek(page.dataoffsets[0])
        stream = tiff.filehandle.read(page.databytecounts[0])
    assert b"\xff\xdb" not in stream[:20], "quantisation tables are not repeated in the tile"
    assert stream[:4] == b"\xff\xd8\xff\xc0"
    assert stream[12:19:3][:3] == bytes([0, 1, 2]), "component ids as Aperio writes them"


def test_zarr_python_reads_the_ome_zarr(inputs, tissue):
    zarr = pytest.importorskip("zarr")
    from zarrgpu.demo.inputs import unmix_stains

    group = zarr.open_group(str(inputs[1]), mode="r")
    ome = group.attrs["ome"]
    assert ome["version"] == "0.5"
    paths = [d["path"] for d in ome["multiscales"][0]["datasets"]]
    shapes = [group[path].shape for path in paths]
    assert shapes == [(2, 1024, 1024), (2, 512, 512), (2, 256, 256)]
    level = group["0"]
    assert level.shards == (1, 1024, 1024)
    assert level.chunks == (1, 256, 256)
    np.testing.assert_array_equal(level[:], unmix_stains(tissue))
    assert len(ome["omero"]["channels"]) == 2


def test_unmixing_a_pure_stain_leaves_nothing_in_the_other_channel():
    from zarrgpu.demo.inputs import STAIN_OD, unmix_stains

    unit = np.array(STAIN_OD) / np.linalg.norm(STAIN_OD, axis=1, keepdims=True)
    image = np.rint(244 * np.exp(-0.8 * unit) - 1).astype(np.uint8)[None]
    haematoxylin, dab = unmix_stains(image)
    assert haematoxylin[0, 0] > 20 * max(1, int(haematoxylin[0, 1]) - 120)
    assert dab[0, 1] > 20 * max(1, int(dab[0, 0]) - 120)


def test_inputs_are_made_once(inputs):
    from zarrgpu.demo.inputs import make_inputs

    before = inputs[0].stat().st_mtime_ns
    again = make_inputs(inputs[0].parents[1], size_px=INPUT_PX, seed=3)
    assert again == inputs
    assert inputs[0].stat().st_mtime_ns == before


# --- foreground


def _disc(size=128):
    y, x = np.mgrid[:size, :size]
    return np.hypot(y - size / 2, x - size * 0.4) < size * 0.25


def test_brightfield_foreground_is_the_coloured_disc():
    disc = _disc()
    rng = np.random.default_rng(0)
    image = rng.integers(236, 246, (*disc.shape, 3)).astype(np.uint8)
    image[disc] = (190, 90, 150)
    assert is_brightfield(image)
    mask = foreground_mask(image)
    assert (mask == disc).mean() > 0.97


def test_grey_shadow_and_black_padding_are_no_specimen():
    disc = _disc()
    image = np.full((*disc.shape, 3), 240, np.uint8)
    image[disc] = (190, 90, 150)
    image[:, -20:] = 150  # a shadow is dark but colourless
    image[-20:] = (3, 0, 4)  # scanner padding, whose saturation is rounding noise
    mask = foreground_mask(image)
    assert not mask[:-24, -18:].any()
    assert not mask[-16:].any()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "float64"])
@pytest.mark.parametrize("channels", [1, 2, 4])
def test_fluorescence_foreground_is_the_bright_disc(dtype, channels):
    disc = _disc()
    rng = np.random.default_rng(0)
    image = rng.normal(10, 2, (*disc.shape, channels))
    image[disc, channels - 1] += 90
    mask = foreground_mask(np.clip(image, 0, None).astype(dtype))
    assert (mask == disc).mean() > 0.97


@pytest.mark.parametrize("value", [0, 7, np.nan])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_constant_image_is_foreground_everywhere(value, channels):
    image = np.full((16, 16, channels), value, np.float32)
    assert foreground_mask(image).all()
    assert not density_map(image).any()


@pytest.mark.parametrize("shape", [(1, 1), (2, 30), (9, 5)])
def test_tiny_images_keep_their_shape(shape):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (*shape, 3)).astype(np.uint8)
    assert foreground_mask(image).shape == shape
    assert density_map(image).shape == shape


def test_otsu_falls_between_two_classes():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(0.2, 0.03, 900), rng.normal(0.8, 0.03, 100)])
    assert 0.3 < otsu_threshold(values.astype(np.float32)) < 0.7


def test_stretch_keeps_a_sparse_channel():
    image = np.zeros((64, 64, 1), np.uint16)
    image[10, 10] = 500
    assert stretch(image)[10, 10, 0] == 1
    assert stretch(image).sum() == 1


# --- labels and split


def test_half_of_the_patches_are_dense_and_they_are_the_denser_half():
    rng = np.random.default_rng(0)
    density = rng.random((50, 80)).astype(np.float32)
    locations = rng.integers(0, 700, (200, 2))
    label = Labeller.fit(density, dimensions=(800, 500), size=(100, 100), locations=locations % 400)
    values, classes = label.densities(locations % 400), label(locations % 400)
    assert classes.mean() == pytest.approx(0.5, abs=0.01)
    assert values[classes == 1].min() >= values[classes == 0].max()


def test_density_is_the_mean_of_the_box():
    density = np.arange(60, dtype=np.float32).reshape(6, 10)
    label = Labeller(table=box_sums(density), dimensions=(100, 60), size=(20, 30))
    got = label.densities(np.array([[10, 20], [90, 50]]))
    # The second box overhangs the image and is cut to it.
    np.testing.assert_allclose(got, [density[2:5, 1:3].mean(), density[5:, 9:].mean()])


def test_a_constant_image_has_one_class():
    label = Labeller.fit(
        np.full((8, 8), 0.1, np.float32),
        dimensions=(8, 8),
        size=(3, 3),
        locations=np.array([[0, 0], [1, 3], [2, 2], [5, 5]]),
    )
    assert not label(np.array([[0, 0], [4, 1], [5, 5]])).any()


@pytest.mark.parametrize("patch_fraction", [0.01, 0.0625, 0.2])
@pytest.mark.parametrize("poor", [(), ("right",), ("right", "left"), ("right", "left", "bottom")])
def test_patches_of_the_two_sides_share_no_pixel(patch_fraction, poor):
    mask = np.zeros((60, 200), np.bool_)
    mask[5:55, 15:185] = True
    density = _density_without(poor, mask.shape)
    split = split_by_place(mask, density, patch_fractions=(patch_fraction, patch_fraction))
    assert split.side is not None
    axis = 0 if split.side in ("left", "right") else 1
    train = np.flatnonzero(split.train.any(axis=axis))
    test = np.flatnonzero(split.validation.any(axis=axis))
    first, second = (train, test) if split.side in ("right", "bottom") else (test, train)
    # A patch that is half inside its mask reaches at most half its width beyond it.
    assert second.min() - first.max() - 1 >= patch_fraction * mask.shape[1 - axis] - 1e-9
    assert first.max() < split.boundary * mask.shape[1 - axis] < second.min()
    assert 0.05 < split.validation.sum() / mask.sum() < 0.35
    assert not (split.train | split.validation)[~mask].any()


@pytest.mark.parametrize("poor", [("right",), ("left", "right"), ("right", "bottom")])
def test_a_side_with_one_class_only_does_not_validate(poor):
    mask = np.ones((100, 100), np.bool_)
    even = split_by_place(mask, _density_without((), (100, 100)), patch_fractions=(0.02, 0.02))
    assert even.side == "right"
    split = split_by_place(mask, _density_without(poor, (100, 100)), patch_fractions=(0.02, 0.02))
    assert split.side not in (*poor, None)


def _density_without(poor, shape):
    """Random density of which the quarter on each of the `poor` sides is empty."""
    density = 1 + np.random.default_rng(0).random(shape).astype(np.float32)
    quarters = {
        "left": np.s_[:, : shape[1] // 4],
        "right": np.s_[:, -shape[1] // 4 :],
        "bottom": np.s_[-shape[0] // 4 :],
    }
    for side in poor:
        density[quarters[side]] = 0
    return density


def test_room_is_where_a_patch_lies_half_inside():
    mask = np.zeros((20, 40), np.bool_)
    mask[5:9, 10:18] = True
    assert has_room(mask, (8 / 40, 8 / 20)), "half of an 8 x 8 box"
    assert not has_room(mask, (9 / 40, 9 / 20))
    assert has_room(np.ones((3, 3), np.bool_), (1.0, 1.0))
    assert not has_room(np.zeros((3, 3), np.bool_), (0.3, 0.3))


def test_images_too_small_to_cut_are_not_cut():
    mask = np.ones((16, 16), np.bool_)
    split = split_by_place(mask, np.zeros((16, 16), np.float32), patch_fractions=(0.5, 0.5))
    assert split.side is None
    assert split.train.all()
    assert split.validation.all()


# --- training


class ToyLoader:
    """Patches whose class is whether they are bright; the class is also in the x coordinate."""

    def __init__(self, count, *, seed, channels=2, side=8):
        rng = np.random.default_rng(seed)
        labels = rng.integers(0, 2, count)
        images = rng.normal(0, 1, (count, channels, side, side)) + 1.5 * labels[:, None, None, None]
        self.images = images.astype(np.float32)
        self.locations = np.stack([labels, labels], axis=1)

    def __len__(self):
        return math.ceil(len(self.images) / 16)

    def __iter__(self):
        for at in range(0, len(self.images), 16):
            box = slice(at, at + 16)
            yield SimpleNamespace(images=self.images[box], locations=self.locations[box])


def _label(locations):
    return locations[:, 0].astype(np.int64)


@pytest.fixture(scope="module")
def history():
    pytest.importorskip("torch")
    from zarrgpu.demo.train import fit

    train, validation = ToyLoader(128, seed=1), ToyLoader(48, seed=2)
    return fit(train, validation, _label, channels=2, patch_px=8, epochs=4, learning_rate=2e-2)


def test_training_learns_a_separable_set(history):
    assert history.after.accuracy > 0.9
    assert history.after.loss < 0.5 * history.before.loss
    assert history.epochs[-1].train_loss < history.epochs[0].train_loss
    assert len(history.step_losses) == 4 * 8
    assert history.device == "cpu"
    assert 0.5 <= history.after.baseline < 0.7


def test_training_follows_from_the_seed(history):
    from zarrgpu.demo.train import fit

    again = fit(
        ToyLoader(128, seed=1),
        ToyLoader(48, seed=2),
        _label,
        channels=2,
        patch_px=8,
        epochs=1,
        learning_rate=2e-2,
    )
    assert again.before.loss == history.before.loss


@pytest.mark.parametrize(("channels", "side"), [(1, 8), (3, 9), (5, 31), (3, 128), (2, 250)])
def test_model_takes_any_channels_and_sizes(channels, side):
    torch = pytest.importorskip("torch")
    from zarrgpu.demo.train import build_model

    model = build_model(channels, side)
    assert model(torch.zeros(2, channels, side, side)).shape == (2,)


def test_progress_is_plain_lines_into_a_file():
    stream = io.StringIO()
    progress = Progress("epoch 1/1", 8, stream=stream)
    for _ in range(8):
        progress.update("loss 0.5")
    progress.close()
    lines = stream.getvalue().splitlines()
    assert lines == [f"  epoch 1/1  {n}/8  loss 0.5" for n in (2, 4, 6, 8)]


def test_progress_redraws_one_line_on_a_terminal():
    stream = io.StringIO()
    stream.isatty = lambda: True
    progress = Progress("epoch", 3, stream=stream)
    for _ in range(3):
        progress.update()
    progress.close()
    assert "\n" not in stream.getvalue()
    assert "3/3" in stream.getvalue()
    assert stream.getvalue().endswith("\r\x1b[2K")


# --- report


def _png(path):
    from matplotlib.image import imread

    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    return imread(path)


def test_report_pictures_are_drawn(tmp_path, history, tissue):
    pytest.importorskip("matplotlib")
    thumbnail = box_filter(tissue, 4)
    display = Display.fit(thumbnail)
    mask = foreground_mask(thumbnail)
    overview = report.Overview(
        picture=display.render(thumbnail),
        channels=(("DAPI", (0.2, 0.4, 1.0)),),
        mask=mask,
        title="tissue",
        subtitle="1024 x 1024 px",
        dimensions=(1024, 1024),
        size=(128, 128),
        train=np.array([[100, 300], [700, 700]]),
        validation=np.array([[500, 100]]),
        train_labels=np.array([0, 1]),
        validation_labels=np.array([1]),
        split=Split(train=mask, validation=mask, side="top", boundary=0.3),
        mpp=0.5,
    )
    report.write_thumbnail(tmp_path / "thumbnail.png", overview)
    patches = [display.render(tissue[k : k + 64, k : k + 64]) for k in range(0, 330, 30)]
    scores = np.linspace(0, 1, len(patches), dtype=np.float32)
    report.write_mosaic(
        tmp_path / "patches.png", patches, (scores > 0.3).astype(np.int64), scores, subtitle="x"
    )
    report.write_loss(tmp_path / "loss.png", history, subtitle="toy")
    for name, least in (("thumbnail.png", 600), ("patches.png", 300), ("loss.png", 400)):
        picture = _png(tmp_path / name)
        assert min(picture.shape[:2]) >= least
        assert picture[..., :3].std() > 0.05, f"{name} is not blank"
    # The boxes are there, in the colours of their classes (the legend below is cut off).
    rgb = np.rint(255 * _png(tmp_path / "thumbnail.png")[:-60, :, :3]).astype(int)
    for color in report.CLASS_COLORS:
        wanted = [int(color[k : k + 2], 16) for k in (1, 3, 5)]
        assert (np.abs(rgb - wanted).max(axis=2) < 24).sum() > 100


def test_fluorescence_is_shown_in_its_channels_colours():
    image = np.zeros((32, 32, 2), np.uint16)
    image[:16, :, 0] = 1000
    image[16:, :, 1] = 50
    display = Display.fit(image, [{"color": "FF0000", "label": "a"}, {"color": "00FF00"}])
    picture = display.render(image)
    assert picture[0, 0].tolist() == [255, 0, 0]
    assert picture[-1, 0].tolist() == [0, 255, 0]
    assert display.labels == ("a", "channel 1")


def test_numbers_are_json(tmp_path):
    numbers = {"loss": np.float32(0.5), "path": tmp_path, "steps": np.arange(2)}
    report.write_numbers(tmp_path / "report.json", numbers)
    read = json.loads((tmp_path / "report.json").read_text())
    assert read == {"loss": 0.5, "path": str(tmp_path), "steps": [0, 1]}
