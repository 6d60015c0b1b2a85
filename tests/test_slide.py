"""Law: a slide is what OpenSlide says it is, pixel for pixel, and everything else is a typed error.

Levels other than 0 are compared with tifffile, because OpenSlide interpolates there.
"""

from __future__ import annotations

import multiprocessing
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import zarrgpu as zg
from tests.synthetic_slides import COMPRESSION, SlideRecipe, make_svs
from zarrgpu.errors import (
    ChunkDecodeError,
    DataError,
    MetadataError,
    SelectionError,
    StoreError,
)
from zarrgpu.patches import patch_request, read_slide_patches
from zarrgpu.pyramid import Pyramid, level0_locations, level_pixels
from zarrgpu.thumbnail import reduce_rows, source_rows, thumbnail_size

openslide = pytest.importorskip("openslide")
tifffile = pytest.importorskip("tifffile")

TOLERANCE = {"j2k-ycbcr-422": 1}
"""Largest difference from OpenSlide at level 0, by kind; 0 where not named (see test_aperio)."""

RECIPE = SlideRecipe(height=331, width=287, tile=64, n_levels=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("slides")


@pytest.fixture(scope="module", params=list(COMPRESSION))
def files(request, folder):
    """One slide of each compression: its path, kind, and pixels of each level by tifffile."""
    path = folder / f"{request.param}.svs"
    path.write_bytes(make_svs(replace(RECIPE, kind=request.param)))
    with tifffile.TiffFile(path) as tiff:
        levels = [page.asarray() for page in tiff.pages if page.is_tiled]
    return SimpleNamespace(path=path, kind=request.param, levels=levels)


@pytest.fixture(scope="module")
def plain(folder):
    """Path and true level pixels of a lossless slide."""
    path = folder / "plain.svs"
    recipe = replace(RECIPE, kind="lzw")
    path.write_bytes(make_svs(recipe))
    return SimpleNamespace(path=path, levels=[recipe.level(i) for i in range(3)])


@pytest.fixture(scope="module")
def slide(plain):
    return zg.open_slide(plain.path)


def cut(level: np.ndarray, x: int, y: int, width: int, height: int) -> np.ndarray:
    """Region of an array, 0 outside of it."""
    out = np.zeros((height, width, level.shape[2]), level.dtype)
    top, left = max(y, 0), max(x, 0)
    inside = level[top : max(y + height, 0), left : max(x + width, 0)]
    out[top - y : top - y + inside.shape[0], left - x : left - x + inside.shape[1]] = inside
    return out


def largest_difference(a: np.ndarray, b: np.ndarray) -> int:
    assert a.shape == b.shape
    return int(np.abs(a.astype(int) - b.astype(int)).max(initial=0))


# ---------------------------------------------------------------------------- equal to OpenSlide


def test_geometry_and_properties_equal_openslide(files):
    ours = zg.open_slide(files.path)
    with openslide.OpenSlide(files.path) as peer:
        assert ours.level_count == peer.level_count == 3
        assert ours.dimensions == peer.dimensions
        assert ours.level_dimensions == peer.level_dimensions
        assert ours.level_downsamples == peer.level_downsamples
        assert dict(ours.properties) == dict(peer.properties)
        assert set(ours.associated_images) == set(peer.associated_images)
        downsamples = [0, 0.5, 1, 1.5, 2, 3, 4, 1e9, -1, float("inf"), float("nan")]
        for exact in ours.level_downsamples:
            downsamples += [exact, np.nextafter(exact, 0), np.nextafter(exact, np.inf)]
        for downsample in downsamples:
            level = ours.get_best_level_for_downsample(downsample)
            assert level == peer.get_best_level_for_downsample(downsample), downsample


def test_level_0_equals_openslide_at_random_places(files):
    ours = zg.open_slide(files.path)
    random = np.random.default_rng(1)
    locations = random.integers(-70, 340, (25, 2))
    got = ours.read_regions(locations, 0, (50, 37))
    with openslide.OpenSlide(files.path) as peer:
        for location, pixels in zip(locations.tolist(), got, strict=True):
            expected = np.asarray(peer.read_region(location, 0, (50, 37)))
            # what is transparent to OpenSlide is black, like the fill value of a slide
            assert not expected[expected[..., 3] == 0].any()
            difference = largest_difference(pixels, expected[..., :3])
            assert difference <= TOLERANCE.get(files.kind, 0), location


def test_coarser_levels_equal_tifffile(files):
    ours = zg.open_slide(files.path)
    random = np.random.default_rng(2)
    tolerance = 2 if files.kind == "j2k-ycbcr-422" else 0
    for level in (1, 2):
        height, width = files.levels[level].shape[:2]
        whole = ours.read_region((0, 0), level, (width, height))
        if not files.kind.startswith("j2k-ycbcr"):  # tifffile leaves those in YCbCr
            assert largest_difference(whole, files.levels[level]) <= tolerance
        downsample = ours.level_downsamples[level]
        for x, y in random.integers(-20, 120, (10, 2)).tolist():
            location = (round(x * downsample), round(y * downsample))
            got = ours.read_region(location, level, (30, 21))
            assert np.array_equal(got, cut(whole, x, y, 30, 21))


def test_associated_images_equal_openslide(files):
    ours = zg.open_slide(files.path)
    with openslide.OpenSlide(files.path) as peer:
        for name, image in ours.associated_images.items():
            expected = np.asarray(peer.associated_images[name].convert("RGB"))
            assert np.array_equal(image[...], expected), name


@pytest.mark.parametrize("size", [(100, 100), (287, 331), (1000, 1000), (13, 200), (40, 9), (1, 1)])
def test_thumbnail_has_openslides_size_and_nearly_its_content(plain, size):
    ours = zg.open_slide(plain.path).get_thumbnail(size)
    with openslide.OpenSlide(plain.path) as peer:
        expected = np.asarray(peer.get_thumbnail(size))
    assert ours.shape == expected.shape
    assert ours.shape[1] <= size[0]
    assert ours.shape[0] <= size[1]
    # the filters differ (area mean, Lanczos), the picture does not
    assert np.abs(ours.astype(int) - expected).mean() < 8


def test_thumbnail_of_a_level_is_the_exact_area_mean(plain, monkeypatch):
    from zarrgpu import regions as module

    ours = zg.open_slide(plain.path)
    whole = ours.get_thumbnail((90, 300))  # from level 1, 143 px wide
    fewer = ours.get_thumbnail((90, 40))
    read, sizes = module._read_rows, []

    def spied(*args):
        sizes.append(read(*args))
        return sizes[-1]

    monkeypatch.setattr(module, "_read_rows", spied)
    row_nbytes = ours.level_dimensions[1][0] * 3
    for most in (1, 2 * row_nbytes, 6 * row_nbytes):  # bands of a row, rows, strips of rows
        monkeypatch.setattr(module, "_THUMBNAIL_STRIP_NBYTES", most)
        assert np.array_equal(ours.get_thumbnail((90, 300)), whole)
        assert np.array_equal(ours.get_thumbnail((90, 40)), fewer)
        assert max(pixels.nbytes for pixels in sizes) <= most + 2 * row_nbytes  # rows that are cut
        sizes.clear()
    level = plain.levels[1].astype(float)
    height, width = whole.shape[:2]

    def weights(full: int, reduced: int) -> np.ndarray:
        edge = np.arange(reduced + 1) * full / reduced
        pixel = np.arange(full)
        overlap = np.minimum(edge[1:, None], pixel + 1) - np.maximum(edge[:-1, None], pixel)
        return np.clip(overlap, 0, None) * reduced / full

    rows, columns = weights(level.shape[0], height), weights(level.shape[1], width)
    expected = np.einsum("ab,bcd,ec->aed", rows, level, columns)
    assert np.abs(whole - expected).max() <= 0.5 + 1e-6


def test_thumbnail_sizes_are_pillows():
    image = pytest.importorskip("PIL.Image")
    random = np.random.default_rng(3)
    for width, height, w, h in random.integers(1, 400, (300, 4)).tolist():
        picture = image.new("1", (width, height))
        picture.thumbnail((w, h))
        assert thumbnail_size((width, height), (w, h)) == picture.size


def test_reduction_keeps_types_and_does_not_spread_what_is_not_finite():
    pixels = np.arange(48, dtype=np.float32).reshape(6, 8, 1)
    pixels[0, 0] = np.nan
    reduced = reduce_rows(pixels, (0, 3), (6, 8), (3, 4))
    assert reduced.dtype == np.float32
    assert np.isnan(reduced).sum() == 1
    assert source_rows(1, 3, 7, 3) == (2, 7)
    flags = reduce_rows(np.ones((4, 4, 1), bool), (0, 2), (4, 4), (2, 2))
    assert flags.dtype == bool
    assert flags.all()


# ----------------------------------------------------------------------------- where, and rounding


def test_a_location_at_a_coarser_level_is_its_nearest_pixel_and_halves_go_up(slide, plain):
    # 287 x 331, 143 x 165, 71 x 82: downsamples 2.0065..., 4.0393...
    for level in (1, 2):
        downsample = slide.level_downsamples[level]
        for x in range(-9, 60):
            expected = int(np.floor(x / downsample + 0.5))
            pixels = slide.read_region((x, 0), level, (3, 2))
            assert np.array_equal(pixels, cut(plain.levels[level], expected, 0, 3, 2)), x
    assert level_pixels(np.array([1, 3, -1, -3]), 2.0).tolist() == [1, 2, 0, -1]


@pytest.mark.parametrize("downsample", [1.0, 1.0005, 2.0, 2.0065, 3.7, 16.02, 64.0])
def test_level_0_locations_lead_back_to_their_pixels(downsample):
    pixels = np.arange(-5000, 200_000, 7)
    assert np.array_equal(level_pixels(level0_locations(pixels, downsample), downsample), pixels)


def test_what_lies_outside_is_the_fill_value(slide, plain):
    full = plain.levels[0]
    for x, y, width, height in ((-10, -5, 30, 20), (280, 325, 30, 20), (-3, -3, 400, 400)):
        got = slide.read_region((x, y), 0, (width, height))
        assert np.array_equal(got, cut(full, x, y, width, height))
    far = [(-31, 0), (287, 0), (0, 331), (0, -20), (1 << 62, 5), (5, -(1 << 63)), (-(10**12), 5)]
    assert not slide.read_regions(far, 0, (30, 20)).any()
    beyond = np.array([[2**64 - 1, 0]], np.uint64)  # is not -1
    assert not slide.read_regions(beyond, 0, (30, 20)).any()


def test_no_locations_and_no_pixels_are_results(slide):
    for none in ([], np.empty((0, 2)), np.empty((0, 2), np.int32)):
        assert slide.read_regions(none, 1, (5, 4)).shape == (0, 4, 5, 3)
    assert slide.read_regions([], 0, (5, 4), layout="NCHW").shape == (0, 3, 4, 5)
    for size in ((0, 0), (0, 4), (5, 0)):
        assert slide.read_region((3, 3), 0, size).shape == (size[1], size[0], 3)


@pytest.mark.parametrize("dtype", ["i1", "u1", "i4", "u8", ">i8"])
def test_any_integers_are_locations(slide, plain, dtype):
    got = slide.read_regions(np.array([[7, 9], [0, 100]], dtype), 0, (6, 5))
    assert np.array_equal(got[0], cut(plain.levels[0], 7, 9, 6, 5))
    assert np.array_equal(got[1], cut(plain.levels[0], 0, 100, 6, 5))


@pytest.mark.parametrize(
    "locations",
    [5, [5, 6], [[1.0, 2.0]], [[1, 2, 3]], [[True, False]], [["a", "b"]], [[1, 2], [3]],
     [[1 << 70, 0]], np.empty((3, 0)), np.zeros((1, 1, 2), int), None, [[None, 1]]],
)  # fmt: skip
def test_other_locations_are_refused(slide, locations):
    with pytest.raises(SelectionError, match="locations must be integers"):
        slide.read_regions(locations, 0, (4, 4))
    with pytest.raises(SelectionError, match="locations must be integers"):
        slide.plan_regions(locations, 0, (4, 4))


@pytest.mark.parametrize("size", [5, (5,), (5, 6, 7), (5.0, 6.0), (-1, 5), "ab", None])
def test_other_sizes_are_refused(slide, size):
    with pytest.raises(SelectionError, match="size must be"):
        slide.read_region((0, 0), 0, size)
    with pytest.raises(SelectionError, match="thumbnail size must be"):
        slide.get_thumbnail(size)


@pytest.mark.parametrize("level", [3, -1, 0.0, None, "0", 1 << 70])
def test_levels_that_are_not_there_are_refused(slide, plain, level):
    with pytest.raises(SelectionError, match=r"plain\.svs.*level .* is outside of 0\.\.2"):
        slide.read_region((0, 0), level, (4, 4))
    with pytest.raises(SelectionError, match="is outside"):
        slide.plan_regions([(0, 0)], level, (4, 4))


def test_other_arguments_are_refused(slide):
    with pytest.raises(SelectionError, match="layout must be NHWC or NCHW"):
        slide.read_region((0, 0), 0, (4, 4), layout="CHW")
    with pytest.raises(SelectionError, match="no axis 'z' to take a position on"):
        slide.read_region((0, 0), 0, (4, 4), position={"z": 0})
    with pytest.raises(SelectionError, match="no axis 'c'"):
        slide.read_region((0, 0), 0, (4, 4), position={"c": 0})
    with pytest.raises(SelectionError, match="normalize has 2 values"):
        slide.read_region((0, 0), 0, (4, 4), normalize=((1, 2), 3))
    with pytest.raises(SelectionError, match="on_error must be"):
        read_slide_patches((slide,), [0], [(0, 0)], (0,), (4, 4), on_error="ignore")
    for index in ([0, 0], [1], [-1], []):
        with pytest.raises(SelectionError, match="slide_index must be"):
            patch_request((slide,), index, [(0, 0)], (0,), (4, 4))


def test_out_is_filled_and_must_have_the_result_s_shape(slide, plain):
    locations = [(3, 4), (100, 50)]
    out = np.empty((2, 6, 5, 3), np.uint8)
    assert slide.read_regions(locations, 0, (5, 6), out=out) is out
    assert np.array_equal(out, slide.read_regions(locations, 0, (5, 6)))
    one = np.empty((3, 6, 5), np.float32)
    assert slide.read_region((3, 4), 0, (5, 6), out=one, dtype="f4", layout="NCHW") is one
    assert np.array_equal(one, out[0].transpose(2, 0, 1))
    for shape in ((2, 3, 6, 5), (180,), (2, 5, 6, 3), (1, 6, 5, 3)):  # the first two fit in bytes
        with pytest.raises(SelectionError, match="out must have shape"):
            slide.read_regions(locations, 0, (5, 6), out=np.empty(shape, np.uint8))


def test_layout_type_and_normalisation(slide, plain):
    expected = cut(plain.levels[0], 50, 60, 20, 10).astype(np.float32)
    got = slide.read_region(
        (50, 60), 0, (20, 10), layout="NCHW", dtype="f4", normalize=((1, 2, 3), (2, 4, 8))
    )
    wanted = (expected - [1, 2, 3]) / [2, 4, 8]
    assert got.dtype == np.float32
    assert np.allclose(got, wanted.transpose(2, 0, 1), rtol=0, atol=1e-4)


def test_plan_counts_each_tile_once(slide):
    plan = slide.plan_regions([(0, 0), (3, 3), (60, 60)], 0, (64, 64)).plan
    assert len(plan.chunks) == 4
    assert len(plan.pieces) == 1 + 4 + 4


# ------------------------------------------------------------------------- processes and threads


def test_a_slide_and_its_levels_pickle(files):
    ours = zg.open_slide(files.path)
    again = pickle.loads(pickle.dumps(ours))
    assert again.level_dimensions == ours.level_dimensions
    assert dict(again.properties) == dict(ours.properties)
    expected = ours.read_region((30, 40), 1, (20, 20))
    assert np.array_equal(again.read_region((30, 40), 1, (20, 20)), expected)
    level = pickle.loads(pickle.dumps(ours.levels[2]))
    assert np.array_equal(level[...], ours.levels[2][...])
    label = pickle.loads(pickle.dumps(ours.associated_images["label"]))
    assert np.array_equal(label[...], ours.associated_images["label"][...])


def _read_in_process(slide: zg.Slide) -> np.ndarray:
    return slide.read_region((11, 12), 0, (33, 44))


@pytest.mark.slow
def test_a_spawned_process_reads_the_same(slide):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        got = pool.apply(_read_in_process, (slide,))
    assert np.array_equal(got, _read_in_process(slide))


def test_several_threads_read_one_slide(slide, plain):
    def check(seed: int) -> None:
        random = np.random.default_rng(seed)
        for _ in range(10):
            level = int(random.integers(0, 3))
            pixels = random.integers(-5, 60, (4, 2))
            locations = level0_locations(pixels, slide.level_downsamples[level])
            got = slide.read_regions(locations, level, (40, 30))
            for (x, y), region in zip(pixels.tolist(), got, strict=True):
                assert np.array_equal(region, cut(plain.levels[level], x, y, 40, 30))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(check, range(12)))


# ------------------------------------------------------------------------------------- bad slides


@pytest.fixture
def damaged(folder):
    """Make a slide of 6 x 5 tiles at level 0, with one tile of it damaged."""

    def make(kind: str, damage: str) -> SimpleNamespace:
        recipe = replace(RECIPE, kind=kind)
        data = bytearray(make_svs(recipe))
        path = folder / f"{kind}-{damage}.svs"
        path.write_bytes(data)
        row, column = 2, 3
        with tifffile.TiffFile(path) as tiff:
            page = tiff.pages[0]
            tile = row * 5 + column
            offset, nbytes = page.dataoffsets[tile], page.databytecounts[tile]
            offsets, counts = page.tags["TileOffsets"], page.tags["TileByteCounts"]
        entry = {4: "<u4", 8: "<u8", 16: "<u8"}
        if damage == "beyond":
            at = offsets.valueoffset + tile * np.dtype(entry[int(offsets.dtype)]).itemsize
            data[at : at + 4] = (1 << 31).to_bytes(4, "little")
        elif damage == "huge":
            at = counts.valueoffset + tile * np.dtype(entry[int(counts.dtype)]).itemsize
            data[at : at + 4] = (1 << 30).to_bytes(4, "little")
        else:
            data[offset : offset + nbytes] = bytes([0x5A]) * nbytes
        path.write_bytes(data)
        box = (column * 64, row * 64, column * 64 + 64, row * 64 + 64)
        return SimpleNamespace(path=path, box=box, truth=recipe, row=row, column=column)

    return make


@pytest.mark.parametrize("kind", ["jpeg-rgb", "j2k-rgb", "deflate", "lzw"])
@pytest.mark.parametrize("damage", ["beyond", "huge", "garbage"])
def test_a_damaged_tile_is_named_and_can_be_masked(damaged, folder, kind, damage):
    made = damaged(kind, damage)
    slide = zg.open_slide(made.path)
    kinds = (StoreError, ChunkDecodeError)
    with pytest.raises(kinds) as caught:
        slide.read_region((0, 0), 0, slide.dimensions)
    assert isinstance(caught.value, DataError)
    assert "level 0 tile (row 2, column 3)" in str(caught.value)
    assert made.path.name in str(caught.value)
    good = folder / f"{kind}-good.svs"
    good.write_bytes(make_svs(made.truth))
    whole = zg.open_slide(good).read_region((0, 0), 0, slide.dimensions)
    locations = np.random.default_rng(5).integers(0, 240, (60, 2))
    patches, valid = read_slide_patches(
        (slide,), np.zeros(60, np.int32), locations, (0,), (40, 40), on_error="mask"
    )
    left, top, right, bottom = made.box
    x, y = locations.T
    touches = (x < right) & (x + 40 > left) & (y < bottom) & (y + 40 > top)
    assert 0 < touches.sum() < 60
    assert np.array_equal(valid, ~touches)
    for (x, y), pixels, ok in zip(locations.tolist(), patches, valid.tolist(), strict=True):
        expected = cut(whole, x, y, 40, 40)
        if not ok and damage == "huge":
            expected[:] = 0  # found in planning: nothing of the patch is read
        elif not ok:
            inside = np.zeros((40, 40, 1), bool)
            inside[max(top - y, 0) : max(bottom - y, 0), max(left - x, 0) : max(right - x, 0)] = 1
            expected = np.where(inside, 0, expected)
        assert np.array_equal(pixels, expected)


def test_a_truncated_slide_is_read_up_to_where_it_ends(folder, plain):
    with tifffile.TiffFile(plain.path) as tiff:
        ifds = [page.offset for page in tiff.pages]
    # a slide whose directories come first, cut in the middle of its pixels
    data = _directories_first(plain.path)
    path = folder / "cut.svs"
    path.write_bytes(data[: len(data) * 2 // 3])
    slide = zg.open_slide(path)
    with pytest.raises(StoreError, match=r"level 0 tile \(row \d, column \d\).*beyond the end"):
        slide.read_region((0, 0), 0, slide.dimensions)
    locations = np.stack(np.meshgrid(range(0, 280, 64), range(0, 330, 64)), -1).reshape(-1, 2)
    patches, valid = read_slide_patches(
        (slide,), np.zeros(30, np.int32), locations, (0,), (32, 32), on_error="mask"
    )
    assert 5 < valid.sum() < 28
    for (x, y), pixels, ok in zip(locations.tolist(), patches, valid.tolist(), strict=True):
        assert np.array_equal(pixels, cut(plain.levels[0], x, y, 32, 32) * np.uint8(ok))
    path.write_bytes(plain.path.read_bytes()[: ifds[0] + 4])
    with pytest.raises(DataError, match=r"cut\.svs"):
        zg.open_slide(path)


def _directories_first(path) -> bytes:
    """Rewrite level 0 of a slide with its tags at the start; raw LZW tiles follow."""
    import struct

    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        tiles = [
            tiff.filehandle.read_array("u1", n, offset=at).tobytes()
            for at, n in zip(page.dataoffsets, page.databytecounts, strict=True)
        ]
        text = page.description.encode() + b"\0"
    n = len(tiles)
    entries = {
        256: (4, 287), 257: (4, 331), 258: (3, None), 259: (3, 5), 262: (3, 2), 270: (2, None),
        277: (3, 3), 317: (3, 2), 322: (3, 64), 323: (3, 64), 324: (4, None), 325: (4, None),
    }  # fmt: skip
    extra_at = 8 + 2 + 12 * len(entries) + 4
    bits = struct.pack("<3H", 8, 8, 8)
    start = extra_at + len(bits) + len(text) + 8 * n
    offsets = np.cumsum([start, *map(len, tiles[:-1])]).astype("<u4").tobytes()
    counts = np.array([len(t) for t in tiles], "<u4").tobytes()
    blobs = {258: (3, bits), 270: (len(text), text), 324: (n, offsets), 325: (n, counts)}
    out, extra = struct.pack("<2sHIH", b"II", 42, 8, len(entries)), b""
    for tag, (kind, value) in sorted(entries.items()):
        if value is None:
            count, blob = blobs[tag]
            out += struct.pack("<HHII", tag, kind, count, extra_at + len(extra))
            extra += blob
        else:
            out += struct.pack("<HHII", tag, kind, 1, value)
    return out + bytes(4) + extra + b"".join(tiles)


def test_levels_that_cannot_be_one_image_are_refused(slide):
    first, second = slide.levels[:2]
    spec = slide.spec
    with pytest.raises(MetadataError, match=r"level 1 .* is larger than level 0"):
        Pyramid(replace(spec, levels=(second.spec, first.spec)), (second, first))
    gray = SimpleNamespace(shape=(165, 143, 1))
    with pytest.raises(MetadataError, match=r"level 1 .* another number of channels"):
        Pyramid(spec, (first, gray))
    with pytest.raises(MetadataError, match=r"level 1 .* has no pixels"):
        Pyramid(spec, (first, SimpleNamespace(shape=(0, 143, 3))))


def test_slides_that_differ_are_not_read_together(slide, folder):
    other = folder / "gray.tif"
    tifffile.imwrite(other, np.zeros((64, 64), np.uint16), tile=(32, 32), photometric="minisblack")
    gray = zg.open_slide(other)
    with pytest.raises(SelectionError, match=r"1 channels.* 3; read them apart"):
        read_slide_patches((slide, gray), [0], [(0, 0)], (0, 0), (4, 4))
    deep = folder / "deep.tif"
    tifffile.imwrite(deep, np.full((64, 64, 3), 700, np.uint16), tile=(32, 32), photometric="rgb")
    pair = (slide, zg.open_slide(deep))
    with pytest.raises(SelectionError, match=r"different types \(uint16, uint8\)"):
        read_slide_patches(pair, [0], [(0, 0)], (0, 0), (4, 4))
    patches, _ = read_slide_patches(pair, [1, 0], [(0, 0), (0, 0)], (0, 0), (4, 4), dtype="float32")
    assert (patches[0] == 700).all()
    assert np.array_equal(patches[1], slide.read_region((0, 0), 0, (4, 4), dtype="float32"))
