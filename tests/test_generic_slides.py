"""Laws of plain tiled pyramids (``generic-tiff``), and OpenSlide's catalogue of faulty ones.

Each case edits a synthetic pyramid as OpenSlide's test/cases/generic-tiff-* edit a real one. What
OpenSlide reads, we read alike; what it refuses, we refuse with a typed error, or read where we can.
"""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
import tifffile

import zarrgpu as zg
from tests.slide_editor import Editor
from tests.synthetic_slides import SlideRecipe, make_svs, tissue
from zarrgpu.errors import ChunkDecodeError, MetadataError, UnsupportedFormatError

openslide = pytest.importorskip("openslide")

RECIPE = SlideRecipe(
    kind="jpeg-420", height=250, width=300, tile=64, n_levels=1, associated=False,
    description="of no vendor",
)  # fmt: skip
FRAME = (0, 1, 2, 3, 4, 5, 10, 15)
"""First row and first column of 4 x 5 tiles."""


def resolution(x, y=(20000, 1)):
    """RATIONAL values in place of those of the resolution tags."""
    editor = Editor(RECIPE)
    for name, pair in (("XResolution", x), ("YResolution", y)):
        editor.set_value(0, name, b"".join(n.to_bytes(4, "little") for n in pair))
    return editor.set_value(0, "ResolutionUnit", b"\3\0")


def shuffled_tags():
    """Two neighbouring entries of the directory changed places."""
    editor = Editor(RECIPE)
    at = editor.tag(0, "ImageWidth").offset
    first, second = editor.data[at : at + 12], editor.data[at + 12 : at + 24]
    editor.data[at : at + 24] = second + first
    return editor


READ_ALIKE = {
    "unharmed": lambda: Editor(RECIPE),
    "lossless": lambda: Editor(replace(RECIPE, kind="lzw")),
    "sparse": lambda: Editor(replace(RECIPE, missing={0: (2, 7, 12)})),
    "sparse-frame": lambda: Editor(replace(RECIPE, missing={0: FRAME})),
    "all-missing": lambda: Editor(replace(RECIPE, missing={0: tuple(range(20))})),
    "resolution": lambda: resolution((20000, 1), (40000, 3)),
    "resolution-zero-denominator": lambda: resolution((20000, 0)),
    "bad-tag-order": shuffled_tags,
}


@pytest.mark.parametrize("case", READ_ALIKE)
def test_what_openslide_reads_is_read_alike(case, tmp_path):
    path = tmp_path / "slide.tiff"
    path.write_bytes(READ_ALIKE[case]().data)
    slide = zg.open_slide(path)
    assert slide.spec.vendor == "generic-tiff"
    with openslide.OpenSlide(path) as peer:
        expected = dict(peer.properties)
        assert dict(slide.properties) == expected
        rgba = np.asarray(peer.read_region((0, 0), 0, slide.dimensions))
    ours = slide.read_region((0, 0), 0, slide.dimensions, device="cpu")
    stored = rgba[..., 3] == 255
    assert np.array_equal(ours[stored], rgba[stored][:, :3])
    assert not ours[~stored].any()


def test_levels_are_reduced_tiled_pages_or_sub_directories(tmp_path):
    image = tissue(200, 180)
    for sub in (False, True):
        path = tmp_path / "pyramid.tiff"
        with tifffile.TiffWriter(path) as writer:
            options = {"tile": (64, 64), "photometric": "rgb", "metadata": None}
            writer.write(image, subifds=2 if sub else 0, **options)
            for step in (2, 4):
                writer.write(np.ascontiguousarray(image[::step, ::step]), subfiletype=1, **options)
        slide = zg.open_slide(path)
        assert slide.level_dimensions == ((180, 200), (90, 100), (45, 50))
        for level, step in enumerate((1, 2, 4)):
            size = slide.level_dimensions[level]
            region = slide.read_region((0, 0), level, size, device="cpu")
            assert np.array_equal(region, image[::step, ::step])
        if not sub:  # OpenSlide does not look into SubIFDs
            with openslide.OpenSlide(path) as peer:
                assert peer.level_dimensions == slide.level_dimensions


def test_a_bad_tile_is_named_and_the_rest_is_good(tmp_path):
    editor = Editor(RECIPE).in_tile(0, 6, b"\xff\xc0", b"\xff\xcc")
    path = tmp_path / "slide.tiff"
    path.write_bytes(editor.data)
    slide = zg.open_slide(path)
    with pytest.raises(ChunkDecodeError, match=r"level 0 tile \(row 1, column 1\).*slide.tiff"):
        slide.read_region((64, 64), 0, (9, 9), device="cpu")
    assert slide.read_region((0, 0), 0, (64, 64), device="cpu").any()


def test_directory_faults_are_typed_errors(tmp_path):
    data = make_svs(RECIPE)
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        page = tiff.pages[0]
        offset, count = page.offset, len(page.tags)
    after = offset + 2 + 12 * count
    loop = data[:after] + offset.to_bytes(4, "little") + data[after + 4 :]
    none = data[:4] + bytes(4) + data[8:]
    path = tmp_path / "slide.tiff"
    for damaged, message in ((loop, "loops back"), (none, "no directory"), (b"", "slide.tiff")):
        path.write_bytes(damaged)
        with pytest.raises((MetadataError, UnsupportedFormatError), match=message) as caught:
            zg.open_slide(path)
        assert "slide.tiff" in str(caught.value)
        with pytest.raises(openslide.OpenSlideError):
            openslide.OpenSlide(path)


def test_bounds_are_those_of_stored_tiles(tmp_path):
    path = tmp_path / "slide.tiff"
    path.write_bytes(Editor(replace(RECIPE, missing={0: FRAME})).data)
    properties = zg.open_slide(path).properties
    bounds = [properties[f"openslide.bounds-{name}"] for name in ("x", "y", "width", "height")]
    assert bounds == ["64", "64", "236", "186"]
