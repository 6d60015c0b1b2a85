"""Law: same seed, same patches, whoever asks; and every part of the mask is seen equally often."""

from __future__ import annotations

import pickle
import subprocess
import sys
import time

import numpy as np
import pytest

import zarrgpu as zg
from zarrgpu.errors import SelectionError
from zarrgpu.masks import Mask

zarr = pytest.importorskip("zarr")


def make_slide(path, *sizes: tuple[int, int]) -> zg.Slide:
    """Empty one-channel pyramid: samplers need no pixels. Sizes are (width, height)."""
    datasets = [
        {"path": str(i), "coordinateTransformations": [{"type": "scale", "scale": [1.0, 1.0]}]}
        for i in range(len(sizes))
    ]
    axes = [{"name": "y", "type": "space"}, {"name": "x", "type": "space"}]
    ome = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
    group = zarr.create_group(path, attributes={"ome": ome}, overwrite=True)
    for i, (width, height) in enumerate(sizes):
        group.create_array(str(i), shape=(height, width), chunks=(256, 256), dtype="u1")
    return zg.open_slide(path)


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    return make_slide(tmp_path_factory.mktemp("s") / "a", (1000, 700), (333, 233), (111, 77))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return make_slide(tmp_path_factory.mktemp("s") / "b", (60, 40))


@pytest.fixture(scope="module")
def huge(tmp_path_factory):
    return make_slide(tmp_path_factory.mktemp("s") / "c", (100_000, 100_000))


def blobs(height: int, width: int, seed: int = 0) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    random = np.random.default_rng(seed)
    mask = np.zeros((height, width), bool)
    for _ in range(4):
        cy, cx = random.random(2) * (height, width)
        r = (0.1 + 0.15 * random.random()) * min(height, width)
        mask |= (y - cy) ** 2 + (x - cx) ** 2 < r * r
    return mask


def brute_fraction(mask: np.ndarray, low: np.ndarray, high: np.ndarray) -> float:
    """Share of the box that the mask covers, by summing over all mask pixels."""
    weights = [
        np.clip(np.minimum(np.arange(n) + 1, h) - np.maximum(np.arange(n), a), 0, None)
        for n, a, h in zip(mask.shape[::-1], low, high, strict=True)
    ]
    return float(weights[1] @ mask @ weights[0] / np.prod(high - low))


# -------------------------------------------------------------------------------------- the mask


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (37, 53), (200, 3)])
def test_covered_area_equals_brute_force(shape):
    random = np.random.default_rng(4)
    pixels = random.random(shape) < 0.5
    pixels[0, 0] = True
    low = random.random((300, 2)) * (np.array(shape[::-1]) + 6) - 4
    high = low + random.random((300, 2)) * random.choice([0.01, 1, 9, 400], (300, 1)) + 1e-6
    got = Mask(pixels).covered(low, high)
    for a, b, area in zip(low, high, got, strict=True):
        assert area == pytest.approx(brute_fraction(pixels, a, b) * np.prod(b - a), abs=1e-9)


def test_a_small_box_in_a_large_mask_is_not_blurred():
    mask = Mask(np.ones((2000, 3000), bool))
    low = np.random.default_rng(5).random((1000, 2)) * (2990, 1990)
    share = mask.covered(low, low + 1e-3) / 1e-6
    assert np.abs(share - 1).max() < 1e-8


def test_random_points_are_uniform_over_the_mask():
    pixels = blobs(23, 31)
    mask = Mask(pixels)
    assert mask.count == pixels.sum()
    assert mask.mean == pixels.mean()
    points = mask.random_points(np.random.default_rng(6).random((200_000, 3)))
    column, row = np.floor(points).astype(int).T
    counts = np.zeros(pixels.shape)
    np.add.at(counts, (row, column), 1)
    assert counts[~pixels].sum() == 0
    assert chi_square(counts[pixels]) < 5
    assert np.abs(np.histogram(points[:, 0] % 1, 10, (0, 1))[0] / 20_000 - 1).max() < 0.03


def chi_square(counts: np.ndarray) -> float:
    """How many standard deviations chi-square lies above what uniform counts give."""
    expected = counts.sum() / counts.size
    assert expected > 20
    value = ((counts - expected) ** 2 / expected).sum()
    return float((value - (counts.size - 1)) / np.sqrt(2 * (counts.size - 1)))


def test_a_mask_pickles_without_its_table():
    pixels = blobs(300, 200)
    data = pickle.dumps(Mask(pixels))
    assert len(data) < pixels.size + 2000
    assert np.array_equal(pickle.loads(data).pixels, pixels)


# --------------------------------------------------------------------------------- random patches


def test_same_seed_same_patches_in_another_process(slide, tmp_path):
    mask = blobs(70, 100)
    sampler = zg.RandomPatches([slide, slide], size=(40, 30), level=1, mask=[mask, None], seed=9)
    (tmp_path / "sampler").write_bytes(pickle.dumps(sampler))
    code = (
        "import pickle, sys, hashlib, pathlib\n"
        "s = pickle.loads(pathlib.Path(sys.argv[1]).read_bytes())\n"
        "for e in (0, 1, 77):\n"
        "    t = s.epoch_patches(e)\n"
        "    print(hashlib.sha256(t.slide.tobytes() + t.location.tobytes()).hexdigest())\n"
    )
    got = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "sampler"],
        capture_output=True,
        text=True,
        check=True,
    )
    import hashlib

    expected = []
    for epoch in (0, 1, 77):
        table = sampler.epoch_patches(epoch)
        assert table.slide.dtype == np.int32
        assert table.location.dtype == np.int64
        data = table.slide.tobytes() + table.location.tobytes()
        expected.append(hashlib.sha256(data).hexdigest())
    assert got.stdout.split() == expected
    assert len(set(expected)) == 3
    other = zg.RandomPatches([slide, slide], size=(40, 30), level=1, mask=[mask, None], seed=10)
    assert not np.array_equal(other.epoch_patches(0).location, sampler.epoch_patches(0).location)


def test_the_patches_of_a_seed_do_not_change_with_versions(slide):
    """What NumPy may change between versions is not used, so these hold for good."""
    table = zg.RandomPatches(slide, size=64, mask=blobs(70, 100), num_patches=4, seed=1)
    assert table.epoch_patches(0).location.tolist() == GOLDEN


GOLDEN = [[925, 34], [692, 329], [681, 346], [214, 413]]


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("size", [1, 20, (31, 17)])
@pytest.mark.parametrize("shape", [None, (1, 1), (7, 10), (700, 1000), (900, 1300)])
def test_patches_lie_inside_with_enough_mask(slide, level, size, shape):
    mask = None
    if shape is not None:
        mask = blobs(*shape) | (shape[0] == 1)
        mask[shape[0] // 5 : shape[0] * 4 // 5, shape[1] // 5 : shape[1] * 4 // 5] = True
    for fraction in (0.0, 0.3, 1.0):
        sampler = zg.RandomPatches(
            slide, size=size, level=level, mask=mask, num_patches=200, min_mask_fraction=fraction
        )
        width, height = slide.level_dimensions[level]
        location = sampler.epoch_patches(3).location
        downsample = slide.level_downsamples[level]
        first = np.floor(location / downsample + 0.5)
        assert (first >= 0).all()
        assert (first + sampler.size <= (width, height)).all()
        if mask is None:
            continue
        scale = np.array(mask.shape[::-1]) / slide.dimensions
        extent = np.array(sampler.size) * downsample
        for corner in location[:5]:
            share = brute_fraction(mask, corner * scale, (corner + extent) * scale)
            assert share >= fraction - 1e-6
            assert share > 0


def test_without_a_mask_all_locations_are_equally_likely(small):
    for mask in (None, np.ones((1, 1), bool), np.ones((400, 300), bool)):
        sampler = zg.RandomPatches(small, size=(53, 35), mask=mask, num_patches=40_000)
        location = sampler.epoch_patches(0).location
        counts = np.zeros((6, 8))  # 60 - 53 + 1 columns, 40 - 35 + 1 rows
        np.add.at(counts, (location[:, 1], location[:, 0]), 1)
        assert chi_square(counts) < 4


@pytest.mark.parametrize("size", [(9, 7), (45, 30)])  # by points of the mask, and by locations
def test_locations_come_in_proportion_to_the_mask_they_cover(small, size):
    mask = blobs(20, 30, seed=2)
    sampler = zg.RandomPatches(
        small, size=size, mask=mask, num_patches=100_000, min_mask_fraction=0.2, seed=3
    )
    location = sampler.epoch_patches(0).location
    room = (40 - size[1] + 1, 60 - size[0] + 1)
    counts = np.zeros(room)
    np.add.at(counts, (location[:, 1], location[:, 0]), 1)
    rows, columns = np.mgrid[: room[0], : room[1]]
    corners = np.stack([columns.ravel(), rows.ravel()], 1)
    share = sampler.mask_fraction(0, corners).reshape(room)
    share[share < 0.2] = 0
    assert counts[share == 0].sum() == 0
    expected = share / share.sum() * 100_000
    many = expected > 20
    value = ((counts - expected)[many] ** 2 / expected[many]).sum()
    assert (value - many.sum()) / np.sqrt(2 * many.sum()) < 4


def test_mask_pixels_far_from_the_border_are_seen_equally_often(slide):
    mask = np.zeros((70, 100), bool)
    mask[20:50, 20:80] = True
    mask[30:36, 40:44] = False
    table = zg.RandomPatches(
        slide, size=50, mask=mask, num_patches=40_000, min_mask_fraction=0.0
    ).epoch_patches(0)
    seen = np.zeros((700, 1000))
    for x, y in table.location.tolist():
        seen[y, x] += 1
    box = np.ones(50)
    seen = np.apply_along_axis(lambda v: np.convolve(v, box)[: v.size], 0, seen)
    seen = np.apply_along_axis(lambda v: np.convolve(v, box)[: v.size], 1, seen)
    inner = seen[250:450, 250:380]
    # convolved: a pixel is seen in proportion to the mask around it, the same in the middle of it
    assert inner.std() / inner.mean() < 0.05


def test_slides_come_in_proportion_to_their_masked_area(slide, small):
    half = np.zeros((10, 10), bool)
    half[:, :5] = True
    sampler = zg.RandomPatches(
        [slide, small, slide], size=10, mask=[half, None, None], num_patches=60_000
    )
    counts = np.bincount(sampler.epoch_patches(0).slide, minlength=3)
    areas = np.array([350_000, 2400, 700_000])
    expected = areas / areas.sum() * 60_000
    assert (((counts - expected) ** 2 / expected).sum()) < 14
    assert (sampler.epoch_patches(0).location[counts.argmax()] >= 0).all()


def test_a_hundred_thousand_patches_take_well_under_a_second(huge):
    sampler = zg.RandomPatches(huge, size=256, mask=blobs(1000, 1000), num_patches=100_000, seed=1)
    began = time.process_time()
    assert len(sampler.epoch_patches(0)) == 100_000
    assert time.process_time() - began < 1  # 0.1 s measured


# ------------------------------------------------------------------------------------------- grids


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize(("size", "stride"), [(50, None), ((40, 30), (40, 7)), ((30, 64), 25)])
def test_a_padded_grid_covers_every_pixel_and_a_dropped_one_stays_inside(
    slide, level, size, stride
):
    width, height = slide.level_dimensions[level]
    downsample = slide.level_downsamples[level]
    for edge in ("pad", "drop"):
        grid = zg.GridPatches(slide, size=size, stride=stride, level=level, edge=edge)
        first = np.floor(grid.epoch_patches(0).location / downsample + 0.5).astype(int)
        assert len(grid) == len(first)
        assert len(np.unique(first, axis=0)) == len(first)
        covered = np.zeros((height, width), int)
        for x, y in first.tolist():
            assert x % grid.stride[0] == 0
            assert y % grid.stride[1] == 0
            covered[y : y + grid.size[1], x : x + grid.size[0]] += 1
        last = first + grid.size
        if edge == "pad":
            assert (covered > 0).all()
        else:
            assert (last <= (width, height)).all()
            columns = (width - grid.size[0]) // grid.stride[0] + 1
            rows = (height - grid.size[1]) // grid.stride[1] + 1
            assert len(grid) == rows * columns
        assert np.array_equal(first, first[np.lexsort(first.T)])  # row by row


def test_a_masked_grid_is_the_part_of_the_grid_with_enough_mask(slide):
    mask = blobs(33, 91)
    whole = zg.GridPatches(slide, size=40, stride=30, edge="pad")
    every = whole.epoch_patches(0).location
    scale = np.array([91, 33]) / slide.dimensions
    shares = np.array([brute_fraction(mask, p * scale, (p + 40) * scale) for p in every])
    for fraction in (0.0, 0.25, 0.5, 0.9, 1.0):
        grid = zg.GridPatches(
            slide, size=40, stride=30, edge="pad", mask=mask, min_mask_fraction=fraction
        )
        wanted = every[(shares > 0) & (shares >= fraction - 1e-9)]
        assert np.array_equal(grid.epoch_patches(5).location, wanted)


def test_a_grid_of_several_slides_goes_slide_by_slide(slide, small):
    grid = zg.GridPatches([small, slide, small], size=40, mask=[None, None, np.eye(9) > 0])
    table = grid.epoch_patches(0)
    assert (np.diff(table.slide) >= 0).all()
    counts = np.bincount(table.slide, minlength=3)
    assert counts.tolist() == [1, 25 * 17, 0]


# ------------------------------------------------------------------------------------------ errors


def test_patches_that_do_not_fit_say_what_to_do(small, slide):
    text = r"patches of 61 x 5 px do not fit into level 0 of 60 x 40 px; take a smaller size"
    with pytest.raises(SelectionError, match=text):
        zg.RandomPatches([slide, small], size=(61, 5))
    with pytest.raises(SelectionError, match=text):
        zg.GridPatches(small, size=(61, 5))
    assert len(zg.GridPatches(small, size=(61, 5), edge="pad")) == 8


def test_masks_that_do_not_fit_say_what_to_do(slide):
    with pytest.raises(SelectionError, match="mask of 4 x 3 px is empty"):
        zg.RandomPatches(slide, mask=np.zeros((3, 4)))
    with pytest.raises(SelectionError, match="two-dimensional"):
        zg.RandomPatches(slide, mask=[np.ones(3)])
    with pytest.raises(SelectionError, match="two-dimensional"):
        zg.RandomPatches(slide, mask=["tissue"])
    with pytest.raises(SelectionError, match="got 1 masks for 2 slides"):
        zg.RandomPatches([slide, slide], mask=np.ones((3, 4)))
    with pytest.raises(SelectionError, match="got 3 masks for 1 slides"):
        zg.GridPatches(slide, mask=[None, None, None])


def test_too_little_mask_is_found_out_soon_and_says_what_to_do(slide, huge):
    dot = np.zeros((700, 1000), bool)
    dot[300, 500] = True
    sampler = zg.RandomPatches(slide, size=64, mask=dot, num_patches=100_000)
    began = time.process_time()
    with pytest.raises(SelectionError, match=r"50% of their area.*lower min_mask_fraction"):
        sampler.epoch_patches(0)
    assert time.process_time() - began < 5
    seen = zg.RandomPatches(slide, size=64, mask=dot, num_patches=50, min_mask_fraction=0.0)
    location = seen.epoch_patches(0).location
    assert (location <= (500, 300)).all()
    assert (location + 64 > (500, 300)).all()
    assert len(np.unique(location[:, 0])) > 20, "the dot is anywhere in the patch"
    corner = np.zeros((100, 100), bool)
    corner[0, 0] = True
    edge = zg.RandomPatches(huge, size=256, mask=corner, num_patches=500).epoch_patches(0).location
    assert edge.min() == 0
    assert edge.max() < 1000


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"size": 0}, "patch size must be"),
        ({"size": 2.5}, "patch size must be"),
        ({"size": (3,)}, "patch size must be"),
        ({"size": (3, -1)}, "patch size must be"),
        ({"size": True}, "patch size must be"),
        ({"level": 3}, "level 3 is outside of 0..2"),
        ({"level": -1}, "level -1 is outside"),
        ({"level": 0.0}, "level 0.0 is outside"),
        ({"min_mask_fraction": 1.5}, "min_mask_fraction must lie in 0..1"),
        ({"min_mask_fraction": float("nan")}, "min_mask_fraction must lie in 0..1"),
        ({"num_patches": 0}, "num_patches must be an integer of at least 1"),
        ({"num_patches": 2.0}, "num_patches must be an integer"),
        ({"seed": -1}, "seed must be an integer of at least 0"),
        ({"seed": "a"}, "seed must be an integer"),
    ],
)
def test_bad_arguments_are_refused(slide, options, text):
    with pytest.raises(SelectionError, match=text):
        zg.RandomPatches(slide, **options)


def test_bad_slides_grids_and_epochs_are_refused(slide):
    with pytest.raises(SelectionError, match="at least one slide"):
        zg.RandomPatches([])
    with pytest.raises(SelectionError, match="needs slides, got Array"):
        zg.RandomPatches([slide.levels[0]])
    with pytest.raises(SelectionError, match="stride must be"):
        zg.GridPatches(slide, stride=0)
    with pytest.raises(SelectionError, match="edge must be drop or pad"):
        zg.GridPatches(slide, edge="reflect")
    with pytest.raises(SelectionError, match="epoch must be an integer of at least 0"):
        zg.RandomPatches(slide).epoch_patches(-1)


def test_numpy_integers_and_any_seed_are_taken(slide):
    sampler = zg.RandomPatches(slide, size=np.int64(20), num_patches=np.int32(3), seed=1 << 100)
    assert sampler.size == (20, 20)
    assert len(sampler.epoch_patches(np.int64(1 << 40))) == 3
