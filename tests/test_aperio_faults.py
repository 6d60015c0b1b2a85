"""Laws of faulty Aperio slides: OpenSlide's catalogue (its test/cases/aperio-*), made anew.

Each case edits a synthetic slide as OpenSlide's patch edits a real one. What OpenSlide reads, we
read alike: properties, names of images, pixels of level 0. What it refuses, we refuse with a typed
error that names the file and, for pixels, level and tile. Where we differ, the case says so.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import zarrgpu as zg
from tests.slide_editor import Editor
from tests.synthetic_slides import SlideRecipe, make_svs
from zarrgpu.errors import (
    ChunkDecodeError,
    MetadataError,
    StoreError,
    UnsupportedCodecError,
    UnsupportedFormatError,
)

openslide = pytest.importorskip("openslide")

RECIPE = SlideRecipe(kind="jpeg-rgb", height=200, width=150, tile=64, n_levels=2)
J2K = replace(RECIPE, kind="j2k-ycbcr")
LABEL, MACRO, THUMBNAIL = 3, 4, 1


def described(extra: str) -> Editor:
    return Editor(replace(RECIPE, description=f"Aperio Image Library v1\r\n10x10|{extra}"))


def _without_eoc() -> Editor:
    """Level 1 without an end marker, so that opening in OpenSlide does not meet it."""
    editor = Editor(J2K)
    page = editor.pages[2]
    for begin, nbytes in zip(page.dataoffsets, page.databytecounts, strict=True):
        assert editor.data[begin + nbytes - 2 : begin + nbytes] == b"\xff\xd9"
        editor.data[begin + nbytes - 2 : begin + nbytes] = b"\0\0"
    return editor


def _with_profile(thumbnail: str, slide: str) -> Editor:
    """Descriptions of one length, the thumbnail's overwritten in place."""
    text = f"Aperio x|ICC Profile = {slide}"
    editor = Editor(replace(RECIPE, icc_profile=bytes(300), description=text))
    value = f"Aperio Image|ICC Profile = {thumbnail}\0".encode()
    assert len(value) <= editor.tag(THUMBNAIL, "ImageDescription").count
    return editor.set_value(THUMBNAIL, "ImageDescription", value)


def _cut_description(editor: Editor) -> Editor:
    return editor.set_count(0, "ImageDescription", 40)


READ_ALIKE = {
    "unharmed": lambda: Editor(RECIPE),
    "33003": lambda: Editor(J2K),
    "33005": lambda: Editor(replace(RECIPE, kind="j2k-rgb")),
    "imagedescription-decimal-comma": lambda: described("MPP = 0,4990|AppMag = 20"),
    "imagedescription-property-empty": lambda: described("MPP = |AppMag = 20|Filename ="),
    "imagedescription-property-no-value": lambda: described("MPP|AppMag|Filename"),
    "no-mpp": lambda: described("AppMag = 40"),
    "jp2k-bad-eoc": _without_eoc,
    "jpeg-tile-zero-length": lambda: Editor(replace(RECIPE, missing={0: (1, 5)})),
    "jp2k-tile-zero-length": lambda: Editor(replace(J2K, missing={0: (1, 5)})),
    "label-bad-imagedescription": lambda: Editor(RECIPE).set_value(
        LABEL, "ImageDescription", b"?" * 20
    ),
    "label-no-imagedescription": lambda: Editor(RECIPE).rename_tag(LABEL, "ImageDescription", 272),
    "thumbnail-empty-imagedescription": lambda: Editor(RECIPE).set_value(
        THUMBNAIL, "ImageDescription", b"\0"
    ),
    "thumbnail-no-imagedescription": lambda: Editor(RECIPE).rename_tag(
        THUMBNAIL, "ImageDescription", 272
    ),
    "thumbnail-mismatched-icc-profile": lambda: _with_profile("AdobeRGB", "ScanScope v1"),
    "thumbnail-matching-icc-profile": lambda: _with_profile("ScanScope v1", "ScanScope v1"),
    "truncated-imagedescription": lambda: _cut_description(Editor(RECIPE)),
}


@pytest.mark.parametrize("case", READ_ALIKE)
def test_what_openslide_reads_is_read_alike(case, tmp_path):
    path = tmp_path / "slide.svs"
    path.write_bytes(READ_ALIKE[case]().data)
    slide = zg.open_slide(path)
    with openslide.OpenSlide(path) as peer:
        expected = dict(peer.properties)
        assert dict(slide.properties) == expected
        assert set(slide.associated_images) == set(peer.associated_images)
        assert slide.level_dimensions == peer.level_dimensions
        for level, size in enumerate(slide.level_dimensions):
            rgba = np.asarray(peer.read_region((0, 0), level, size)).astype(int)
            ours = slide.read_region((0, 0), level, size, device="cpu").astype(int)
            opaque = rgba[..., 3] == 255
            # 1 where a missing tile is made from the finer level
            assert np.abs(ours - rgba[..., :3])[opaque].max() <= (level if "zero" in case else 0)
            assert not ours[rgba[..., 3] == 0].any()
        mpp = peer.properties.get("openslide.mpp-x")
        assert slide.mpp == ((float(mpp),) * 2 if mpp else (None, None))


@pytest.mark.parametrize(
    ("code", "names"),
    [(7, {"label", "macro", "thumbnail"}), (None, {"label", "macro", "thumbnail"})],
)
def test_label_without_subfile_type_is_found_by_its_text_where_openslide_has_none(
    code, names, tmp_path
):
    editor = Editor(RECIPE)
    if code is None:
        editor.rename_tag(LABEL, "NewSubfileType", 253)
    else:
        editor.set_value(LABEL, "NewSubfileType", code.to_bytes(4, "little"))
    path = tmp_path / "slide.svs"
    path.write_bytes(editor.data)
    assert set(zg.open_slide(path).associated_images) == names
    with openslide.OpenSlide(path) as peer:
        assert set(peer.associated_images) == names - {"label"}
    # nor is there a label for us where the text does not say so either
    path.write_bytes(editor.set_value(LABEL, "ImageDescription", b"?" * 50).data)
    assert set(zg.open_slide(path).associated_images) == names - {"label"}


REFUSED_AT_OPEN = {
    "bad-compression": (
        lambda: Editor(RECIPE).set_value(0, "Compression", (200).to_bytes(2, "little")),
        UnsupportedCodecError,
        "ifd 0 of '.*slide.svs'.*compression 200",
    ),
    "bad-imagedepth": (
        lambda: (
            Editor(RECIPE)
            .set_value(0, "ResolutionUnit", b"\2\0")
            .rename_tag(0, "ResolutionUnit", 32997)
        ),
        UnsupportedFormatError,
        "ifd 0 of '.*slide.svs'.*ImageDepth 2",
    ),
}


@pytest.mark.parametrize("case", REFUSED_AT_OPEN)
def test_what_openslide_refuses_at_open_is_refused_by_name(case, tmp_path):
    make, error, message = REFUSED_AT_OPEN[case]
    path = tmp_path / "slide.svs"
    path.write_bytes(make().data)
    with pytest.raises(error, match=message):
        zg.open_slide(path)
    with pytest.raises(openslide.OpenSlideError):
        openslide.OpenSlide(path)


def test_a_description_outside_of_the_file_is_refused_where_openslide_finds_another_vendor(
    tmp_path,
):
    path = tmp_path / "slide.svs"
    path.write_bytes(Editor(RECIPE).set_pointer(0, "ImageDescription", 1 << 30).data)
    with pytest.raises(
        MetadataError, match=r"slide.svs' at ifd.0.ImageDescription: .*beyond the end"
    ):
        zg.open_slide(path)
    assert openslide.OpenSlide.detect_format(path) == "generic-tiff"


def _far_tiles(editor: Editor, page: int, tiles: range) -> Editor:
    for tile in tiles:
        editor.set_entry(page, "TileOffsets", tile, 1 << 30)
    return editor


UNREADABLE_TILES = {
    "jp2k-bad-image": (
        lambda: Editor(J2K).in_tile(0, 4, b"\xff\x52", b"\xff\x53"), 0, 4, ChunkDecodeError,
    ),
    "jp2k-bad-numcomps": (
        # SIZ of 38 + 3 * 3 bytes; one component by its count, and two by their length
        lambda: Editor(J2K).in_tile(0, 4, b"\0\x03\x07", b"\0\x01\x07"), 0, 4, ChunkDecodeError,
    ),
    "jp2k-bad-width": (
        lambda: Editor(J2K).in_tile(0, 4, b"\0\0\0\x40", b"\0\0\0\x50"), 0, 4, ChunkDecodeError,
    ),
    "jp2k-tile-missing": (lambda: _far_tiles(Editor(J2K), 0, range(4, 5)), 0, 4, StoreError),
    "jpeg-bad-image": (
        lambda: Editor(RECIPE).in_tile(0, 4, b"\xff\xc0", b"\xff\xcc"), 0, 4, ChunkDecodeError,
    ),
    "jpeg-cut-off": (
        lambda: Editor(RECIPE).set_entry(0, "TileByteCounts", 4, 60), 0, 4, ChunkDecodeError,
    ),
    "truncated-top-level": (lambda: _far_tiles(Editor(RECIPE), 2, range(4)), 1, 0, StoreError),
}  # fmt: skip


@pytest.mark.parametrize("case", UNREADABLE_TILES)
def test_an_unreadable_tile_is_named_and_leaves_the_rest_readable(case, tmp_path):
    make, level, tile, error = UNREADABLE_TILES[case]
    path = tmp_path / "slide.svs"
    path.write_bytes(make().data)
    slide = zg.open_slide(path)
    columns = slide.levels[level].source.spec.grid_shape[1]
    row, column = divmod(tile, columns)
    scale = int(slide.level_downsamples[level])
    at = (column * 64 * scale, row * 64 * scale)
    name = rf"level {level} tile \(row {row}, column {column}\)"
    with pytest.raises(error, match=name) as caught:
        slide.read_region(at, level, (20, 20), device="cpu")
    assert "slide.svs" in str(caught.value)
    with pytest.raises(openslide.OpenSlideError), openslide.OpenSlide(path) as peer:
        peer.read_region(at, level, (20, 20))
    if case != "truncated-top-level":
        sound = zg.open_slide(_sound(tmp_path, case))
        away = slide.read_region((0, 0), 0, (64, 64), device="cpu")
        assert np.array_equal(away, sound.read_region((0, 0), 0, (64, 64), device="cpu"))


def _sound(folder, case):
    path = folder / "sound.svs"
    path.write_bytes(make_svs(J2K if case.startswith("jp2k") else RECIPE))
    return path
