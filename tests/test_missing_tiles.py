"""Laws of tiles that a slide has lost.

1. A missing tile of a coarser level is the mean of what it covers on the finer one, which may be
   missing and made itself; at level 0 it is 0. OpenSlide gives the same within 2 grey levels.
2. Every way to read gives the same: regions, arrays, parts of tiles, loaders, CUDA, after pickling.
3. A slide that has lost nothing plans as if there were no such rule.
4. An error of the finer level is the error of the patches that need it, and of no others.
"""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
import tifffile

import zarrgpu as zg
from tests.synthetic_slides import SlideRecipe, make_svs
from zarrgpu.errors import ChunkDecodeError, ReadCancelledError
from zarrgpu.formats.missing_tiles import RENDERED_KEY
from zarrgpu.model import MISSING_NBYTES, ReadOptions
from zarrgpu.patches import read_slide_patches
from zarrgpu.plan.request import ReadRequest
from zarrgpu.reader import plan_read

openslide = pytest.importorskip("openslide")

RECIPE = SlideRecipe(
    kind="none", height=704, width=640, tile=64, n_levels=4, missing={0: (7,), 1: (20, 28)}
)


def save(folder, recipe, name="slide.svs"):
    path = folder / name
    path.write_bytes(make_svs(recipe))
    return path


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return save(tmp_path_factory.mktemp("missing"), RECIPE)


@pytest.fixture(scope="module")
def slide(path):
    return zg.open_slide(path)


def is_missing(slide, level):
    """Pixels of a level that no tile of the file holds."""
    spec = slide.levels[level].source.spec
    grid = (spec.location.nbytes == MISSING_NBYTES).reshape(spec.grid_shape[:2])
    mask = np.repeat(np.repeat(grid, 64, 0), 64, 1)
    return mask[: spec.shape[0], : spec.shape[1]]


def made_by_hand(slide):
    """Levels by the slow obvious path: every pixel the mean of a square of the level before."""
    levels = []
    for level in range(slide.level_count):
        pixels = RECIPE.level(level).astype(float)
        missing = is_missing(slide, level)
        if level == 0:
            pixels[missing] = 0
        for y, x in np.argwhere(missing) if level else ():
            part = levels[-1][2 * y : 2 * y + 2, 2 * x : 2 * x + 2]
            pixels[y, x] = np.floor(part.mean((0, 1)) + 0.5)
        levels.append(pixels)
    return [np.asarray(pixels, np.uint8) for pixels in levels]


@pytest.fixture(scope="module")
def truth(slide):
    return made_by_hand(slide)


def test_levels_are_those_made_by_hand(slide, truth):
    assert [int(is_missing(slide, level).any()) for level in range(4)] == [1, 1, 1, 1]
    for level, expected in enumerate(truth):
        whole = slide.read_region((0, 0), level, slide.level_dimensions[level], device="cpu")
        assert np.array_equal(whole, expected), level
        assert np.array_equal(np.asarray(slide.levels[level].read(..., device="cpu")), expected)


def test_openslide_gives_the_same_within_2(slide, path, truth):
    with openslide.OpenSlide(path) as peer:
        for level, expected in enumerate(truth):
            rgba = np.asarray(peer.read_region((0, 0), level, slide.level_dimensions[level]))
            difference = np.abs(rgba[..., :3].astype(int) - expected)[rgba[..., 3] == 255]
            assert difference.max() <= (2 if level else 0)


def test_ratios_that_are_no_integers_are_within_3_of_openslide(tmp_path):
    recipe = replace(RECIPE, height=331, width=287, n_levels=2, missing={1: (1,)})
    path = tmp_path / "slide.svs"
    path.write_bytes(_with_level_1_of(recipe, 90, 77))
    slide = zg.open_slide(path)
    assert slide.level_dimensions[1] == (77, 90)
    with openslide.OpenSlide(path) as peer:
        rgba = np.asarray(peer.read_region((0, 0), 1, (77, 90))).astype(int)
    ours = slide.read_region((0, 0), 1, (77, 90), device="cpu").astype(int)
    missing = is_missing(slide, 1)
    assert missing.any()
    assert not missing.all()
    difference = np.abs(ours - rgba[..., :3]).max(-1)
    assert difference[~missing].max() == 0
    # Cairo draws tile by tile: what it blends where tiles meet is not counted
    assert np.percentile(difference[missing & (rgba[..., 3] == 255)], 95) <= 3


def _with_level_1_of(recipe, height, width):
    """A slide whose level 1 has another size than half of level 0."""

    class Odd(SlideRecipe):
        def level(self, index):
            return super().level(index) if index == 0 else super().level(0)[:height, :width]

    return make_svs(Odd(**{name: getattr(recipe, name) for name in recipe.__dataclass_fields__}))


@pytest.mark.parametrize("level", [1, 2, 3])
def test_patches_and_parts_of_tiles_equal_the_whole(slide, truth, level):
    rng = np.random.default_rng(level)
    size, scale = (37, 5), 2**level
    height, width = truth[level].shape[:2]
    corners = np.stack([rng.integers(-9, width, 40), rng.integers(-9, height, 40)], -1)
    patches = slide.read_regions(corners * scale, level, size, device="cpu")
    padded = np.pad(truth[level], ((9, 60), (9, 60), (0, 0)))
    for (x, y), patch in zip(corners, patches, strict=True):
        assert np.array_equal(patch, padded[y + 9 :, x + 9 :][:5, :37])


def test_cuda_loaders_caches_and_pickles_give_the_same(slide, path, truth, cuda):
    copy = pickle.loads(pickle.dumps(slide))
    cached = zg.open_slide(path, cache=64 << 20)
    for level in (1, 2):
        size = slide.level_dimensions[level]
        for other in (copy, cached, cached):
            assert np.array_equal(
                other.read_region((0, 0), level, size, device="cpu"), truth[level]
            )
        # on the device, converted and laid out anew
        region = slide.read_region((0, 0), level, size, device=cuda, layout="NCHW", dtype="float32")
        on_host = np.asarray(region.get() if hasattr(region, "get") else region)
        assert np.array_equal(on_host, truth[level].transpose(2, 0, 1).astype(np.float32))
    sampler = zg.RandomPatches([slide], size=64, level=1, seed=3, num_patches=40)
    loader = zg.PatchLoader(sampler, batch_size=8, device="cpu", layout="NHWC")
    seen = 0
    for batch in loader:
        for (x, y), image in zip(batch.locations, batch.images, strict=True):
            part = truth[1][y // 2 : y // 2 + 64, x // 2 : x // 2 + 64]
            assert np.array_equal(np.asarray(image)[: part.shape[0], : part.shape[1]], part)
            seen += 1
    assert seen == 40


def test_a_sound_slide_has_no_such_rule(tmp_path):
    slide = zg.open_slide(save(tmp_path, replace(RECIPE, missing={})))
    assert all(level.source.spec.substitute is None for level in slide.levels)
    assert all(level.source.substitute is None for level in slide.levels)


def test_only_what_is_missing_is_planned_from_the_finer_level(slide):
    plan = slide.plan_regions([(0, 0)], 1, slide.level_dimensions[1])
    missing = slide.levels[1].source.spec.substitute.location
    assert missing.key == RENDERED_KEY
    n_missing = int((missing.nbytes != MISSING_NBYTES).sum())
    assert 0 < n_missing < missing.nbytes.size
    assert f"{missing.nbytes.size} chunks" in plan.explain()


def test_blocks_of_a_tile_are_the_whole(slide, truth, monkeypatch):
    monkeypatch.setattr("zarrgpu.rendered_tiles._BLOCK_NBYTES", 5000)
    whole = slide.read_region((0, 0), 1, slide.level_dimensions[1], device="cpu")
    assert np.array_equal(whole, truth[1])


def test_a_plan_covers_every_element_once(slide):
    rng = np.random.default_rng(5)
    source = slide.levels[1].source
    start = np.zeros((20, 3), np.int64)
    start[:, :2] = rng.integers(-20, 350, (20, 2))
    request = ReadRequest(
        arrays=(source.spec,),
        array_index=np.zeros(20, np.int32),
        start=start,
        count=(50, 70, 3),
        step=(1, 1, 1),
    )
    plan = plan_read((source,), request, options=ReadOptions())
    assert len(plan.arrays) == 2
    assert plan.base == (0, 0)
    covered = np.zeros(request.output_shape, int)
    for table in (plan.pieces, plan.fills):
        for box, dst, extent in zip(table.output, table.dst.T, table.extent.T, strict=True):
            covered[(box, *map(slice, dst, dst + extent))] += 1
    assert (covered == 1).all()
    missing = source.spec.location.nbytes == MISSING_NBYTES
    assert np.array_equal(missing[plan.chunks.chunk_id], plan.chunks.array == 1)


def test_an_error_of_the_finer_level_masks_the_patches_that_need_it(tmp_path):
    path = save(tmp_path, replace(RECIPE, kind="jpeg-rgb"))
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        # tile (row 0, column 6), which the missing tile 3 of level 1 covers with tile 7
        offset, nbytes = page.dataoffsets[6], page.databytecounts[6]
    data = bytearray(path.read_bytes())
    data[offset : offset + nbytes] = bytes(nbytes)
    path.write_bytes(data)
    slide = zg.open_slide(path)
    assert is_missing(slide, 1)[0, 3 * 64]
    with pytest.raises(ChunkDecodeError, match=r"level 0 tile \(row 0, column 6\)"):
        slide.read_region((3 * 128, 0), 1, (8, 8), device="cpu")
    patches, ok = read_slide_patches(
        (slide,), np.zeros(3, np.int32), [(3 * 128, 0), (0, 0), (0, 256)], (1,), (8, 8),
        device="cpu", on_error="mask",
    )  # fmt: skip
    assert ok.tolist() == [False, True, True]
    assert not patches[0].any()
    assert np.array_equal(patches[1], slide.read_region((0, 0), 1, (8, 8), device="cpu"))


def test_rendering_is_cancelled_too(slide):
    place = [(3 * 128, 0)]  # of a tile that level 1 lacks, and no other
    with pytest.raises(ReadCancelledError):
        read_slide_patches(
            (slide,), np.zeros(1, np.int32), place, (1,), (8, 8), device="cpu",
            cancelled=lambda: True,
        )  # fmt: skip


def test_another_fill_value_is_seen_through_tiles_that_are_made(tmp_path):
    """Where a made tile covers a missing one, it is the new fill value as well; caches know it."""
    path = save(tmp_path, replace(RECIPE, missing={0: (7, 17)}))
    slide = zg.open_slide(path, cache=1 << 26)
    white = slide.with_fill_value(255)
    for level in (1, 2):
        whole = {"location": (0, 0), "level": level, "size": slide.level_dimensions[level]}
        black = [slide.read_region(**whole, device="cpu") for _ in range(2)]
        filled = [white.read_region(**whole, device="cpu") for _ in range(2)]
        filled += [slide.read_region(**whole, fill_value=255, device="cpu")]
        hole = (black[0] == 0).all(-1) & is_missing(slide, level)
        assert hole.any()
        for region in filled:
            assert (region[hole] == 255).all()
            assert np.array_equal(region[~is_missing(slide, level)],
                                  black[0][~is_missing(slide, level)])  # fmt: skip
        assert np.array_equal(*black)
