"""Laws of the Ventana reader.

1. Levels and associated images have OpenSlide's pixels where tiles lie on whole pixels. Where they
   lie between pixels, each is a stored one of the tile that OpenSlide shows there.
2. Every property has OpenSlide's name and value.
3. XML that is damaged or contradicts the tags gives a typed error that says where.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile

import zarrgpu as zg
from tests.gpu.devices import to_host
from tests.synthetic_ventana import ISCAN, AreaRecipe, BifRecipe, encode_info, make_bif
from zarrgpu.errors import ChunkDecodeError, MetadataError, UnsupportedFormatError, ZarrGPUError
from zarrgpu.formats import ventana_xml
from zarrgpu.slide import Slide

openslide = pytest.importorskip("openslide")

WIDE = AreaRecipe(across=5, down=4)


def opened(tmp_path: Path, recipe: BifRecipe) -> tuple[Path, Slide]:
    path = tmp_path / "slide.bif"
    path.write_bytes(make_bif(recipe))
    return path, zg.open_slide(path)


def peer_level(path: Path, level: int) -> np.ndarray:
    with openslide.OpenSlide(path) as peer:
        region = peer.read_region((0, 0), level, peer.level_dimensions[level])
        return np.asarray(region.convert("RGB"))


WHOLE_PIXELS = {
    "overlaps": BifRecipe(areas=(WIDE,), n_levels=2),
    "no overlaps": BifRecipe(areas=(WIDE,), overlaps=((0.0,), (0.0,)), n_levels=3),
    "gaps": BifRecipe(areas=(WIDE,), overlaps=((-6.0,), (-4.0,))),
    "jpeg": BifRecipe(areas=(WIDE,), compression="jpeg", n_levels=2),
    "one tile": BifRecipe(areas=(AreaRecipe(across=2, down=2),), overlaps=((0.0,), (0.0,))),
    "two areas": BifRecipe(
        areas=(WIDE, AreaRecipe(column=6, row=1, x=340, y=12, down=3)), n_levels=2
    ),
    "areas that overlap": BifRecipe(
        areas=(replace(WIDE, x=7, y=60), AreaRecipe(column=6, row=1, x=200, y=11, down=3))
    ),
    "ignored area": BifRecipe(areas=(WIDE, AreaRecipe(column=6, row=1, x=400, y=9, scanned=0))),
    "ventana tiff": BifRecipe(areas=(WIDE,), encode_info="", n_levels=2),
}


@pytest.mark.parametrize("case", WHOLE_PIXELS)
def test_levels_equal_openslide(case, tmp_path):
    path, slide = opened(tmp_path, WHOLE_PIXELS[case])
    with openslide.OpenSlide(path) as peer:
        assert slide.level_dimensions == peer.level_dimensions
        assert slide.level_downsamples == peer.level_downsamples
    for level in range(slide.level_count):
        np.testing.assert_array_equal(slide.levels[level][:], peer_level(path, level))


def test_any_areas_equal_openslide(tmp_path):
    rng = np.random.default_rng(11)
    for _ in range(25):
        areas, column = [], 0
        for _ in range(int(rng.integers(1, 4))):
            across, down = rng.integers(2, 5, 2).tolist()
            x, y = rng.integers(0, 300, 2).tolist()
            row = int(rng.integers(0, 3))
            areas.append(AreaRecipe(across=across, down=down, column=column, row=row, x=x, y=y))
            column += across + int(rng.integers(0, 2))
        overlaps = tuple((float(n),) for n in rng.integers(-8, 30, 2))
        path, slide = opened(tmp_path, BifRecipe(areas=tuple(areas), overlaps=overlaps))
        np.testing.assert_array_equal(slide.levels[0][:], peer_level(path, 0))


@pytest.mark.parametrize("case", ["two areas", "ventana tiff"])
def test_properties_and_associated_images_equal_openslide(case, tmp_path):
    path, slide = opened(tmp_path, WHOLE_PIXELS[case])
    with openslide.OpenSlide(path) as peer:
        expected = dict(peer.properties)
        images = {
            name: np.asarray(im.convert("RGB")) for name, im in peer.associated_images.items()
        }
    assert dict(slide.properties) == expected
    assert slide.mpp == (0.465, 0.465)
    assert set(slide.associated_images) == set(images) == {"macro", "thumbnail"}
    for name, image in images.items():
        np.testing.assert_array_equal(slide.associated_images[name][:], image)


@pytest.mark.parametrize("overlaps", [((5.0, 6.0), (3.0, 5.0, 4.0)), ((0.3,), (0.4,))])
def test_tiles_between_pixels_lie_at_the_nearest(overlaps, tmp_path):
    """OpenSlide interpolates by the fraction, so smooth tiles differ by a little from it."""
    recipe = BifRecipe(areas=(WIDE,), overlaps=overlaps, compression="jpeg", n_levels=3)
    path, slide = opened(tmp_path, recipe)
    for level in range(slide.level_count):
        mine, theirs = slide.levels[level][:].astype(int), peer_level(path, level).astype(int)
        assert mine.shape == theirs.shape
        inner = np.s_[2:-2, 2:-2]
        difference = np.abs(mine - theirs)[inner]
        assert np.median(difference) <= 8
        assert (mine[inner] > 0).any(axis=-1).all()  # no gaps


def test_batches_and_emulated_device_are_cut_from_the_level(cuda, tmp_path):
    _, slide = opened(tmp_path, WHOLE_PIXELS["areas that overlap"])
    whole = np.pad(slide.levels[0][:], ((40, 40), (40, 40), (0, 0)))
    rng = np.random.default_rng(2)
    width, height = slide.dimensions
    corners = np.stack([rng.integers(-30, width, 12), rng.integers(-30, height, 12)], axis=1)
    for device in ("cpu", cuda):
        patches = to_host(slide.read_regions(corners, 0, (40, 30), device=device))
        for patch, (x, y) in zip(patches, corners, strict=True):
            expected = np.zeros((30, 40, 3), np.uint8)
            part = whole[y + 40 : y + 70, x + 40 : x + 80]
            expected[: part.shape[0], : part.shape[1]] = part
            np.testing.assert_array_equal(patch, expected)


INFO = encode_info(BifRecipe())
JOINT = '<TileJointInfo Confidence="9" OverlapX="1" OverlapY="1" {}/>'

BAD_LAYOUTS = {
    "not xml": ("<EncodeInfo", MetadataError, "not XML"),
    "entities": ('<!DOCTYPE a [<!ENTITY b "c">]>' + INFO, MetadataError, "document type"),
    "another root": (INFO.replace("EncodeInfo", "Other"), MetadataError, "in a Other"),
    "no areas": ("<EncodeInfo/>", MetadataError, "0 areas and 0 origins"),
    "origins": (INFO.replace("<AOI0", "<AOI9/><AOI0"), MetadataError, "1 areas and 2 origins"),
    "nothing scanned": (
        INFO.replace('AOIScanned="1"', 'AOIScanned="0"'),
        MetadataError,
        "no area was scanned",
    ),
    "tile size": (INFO.replace('Width="64"', 'Width="65"'), MetadataError, "those of the TIFF"),
    "no rows": (INFO.replace('NumRows="2"', 'NumRows="0"'), MetadataError, "3 x 0 tiles"),
    "many rows": (
        INFO.replace('NumRows="2"', 'NumRows="9"'),
        MetadataError,
        "3 x 9 tiles at column 0, row 0 lies outside of 3 x 2",
    ),
    "huge": (INFO.replace('NumRows="2"', f'NumRows="{1 << 30}"'), MetadataError, "tiles"),
    "no number": (INFO.replace('Pos-X="0"', 'Pos-X="a"'), MetadataError, "Pos-X is no number"),
    "no integer": (
        INFO.replace('NumRows="2"', 'NumRows="2.5"'),
        MetadataError,
        "NumRows is no integer",
    ),
    "missing attribute": (INFO.replace("Pos-Y", "Pos-Z"), MetadataError, "Pos-Y is no number"),
    "origin": (INFO.replace('OriginX="0"', 'OriginX="7"'), MetadataError, "no multiple"),
    "outside": (INFO.replace('OriginX="0"', 'OriginX="640"'), MetadataError, "lies outside of"),
    "far away": (INFO.replace('Pos-X="0"', 'Pos-X="99999999999"'), MetadataError, "tiles cover"),
    "tiles that do not advance": (
        encode_info(BifRecipe(overlaps=((64.0,), (4.0,)))),
        MetadataError,
        "64 x 48 pixels that are 0 x 44 apart",
    ),
    "unknown tile": (
        encode_info(BifRecipe(joints=JOINT.format('Direction="UP" Tile1="1" Tile2="7"'))),
        MetadataError,
        "tile 7 of 6",
    ),
    "another neighbour": (
        encode_info(BifRecipe(joints=JOINT.format('Direction="RIGHT" Tile1="1" Tile2="3"'))),
        MetadataError,
        r"RIGHT of tile \(0, 1\) lies \(2, 1\)",
    ),
    "direction": (
        encode_info(BifRecipe(joints=JOINT.format('Direction="LEFT" Tile1="2" Tile2="1"'))),
        UnsupportedFormatError,
        "direction 'LEFT'",
    ),
    "confidence": (
        encode_info(
            BifRecipe(
                joints=JOINT.replace('"9"', '"-9"').format('Direction="RIGHT" Tile1="1" Tile2="2"')
            )
        ),
        MetadataError,
        "confidence -9",
    ),
}


@pytest.mark.parametrize("case", BAD_LAYOUTS)
def test_bad_layouts_are_refused(case, tmp_path):
    info, error, message = BAD_LAYOUTS[case]
    with pytest.raises(error, match=message) as caught:
        opened(tmp_path, BifRecipe(encode_info=info))
    assert "slide.bif" in str(caught.value)


@pytest.mark.parametrize(
    ("descriptions", "error", "message"),
    [
        (["level=1 mag=20"], MetadataError, "expected level=0"),
        (["level=0 quality=90"], MetadataError, "expected level=0"),
        (["level=0 mag=0"], MetadataError, "expected level=0"),
        (["level=0 mag=20", "level=1 mag=20"], MetadataError, "magnification 20 after 20"),
        (["level=0 mag=20", "level=1 mag=8"], UnsupportedFormatError, "not whole times"),
        (["level=0 mag=1e200", "level=1 mag=1e-200"], UnsupportedFormatError, "inf times smaller"),
        (["no such"], MetadataError, "expected level=0"),
        (["no such", "nor this"], MetadataError, "no page is a level"),
    ],
)
def test_bad_descriptions_are_refused(descriptions, error, message, tmp_path):
    recipe = BifRecipe(areas=(WIDE,), n_levels=2, descriptions=descriptions)
    with pytest.raises(error, match=message):
        opened(tmp_path, recipe)


def test_iscan_may_lie_below_metadata(tmp_path):
    below = "<Metadata>" + ISCAN[ISCAN.index("<iScan") :] + "</Metadata>"
    path, slide = opened(tmp_path, BifRecipe(iscan=below))
    with openslide.OpenSlide(path) as peer:
        assert slide.properties["ventana.Name"] == peer.properties["ventana.Name"] == "a & b"


def test_a_damaged_tile_is_named_and_the_rest_is_read(tmp_path):
    recipe = BifRecipe(areas=(WIDE,))
    path, slide = opened(tmp_path, recipe)
    expected = slide.levels[0][:]
    location = slide.levels[0].source.spec.location
    data = bytearray(path.read_bytes())
    at = int(location.offsets[12])
    data[at : at + 8] = bytes(8)
    path.write_bytes(data)
    slide = zg.open_slide(path)
    with pytest.raises(ChunkDecodeError, match=r"level 0 tile \(row 2, column 2\).*slide.bif"):
        slide.levels[0][:]
    np.testing.assert_array_equal(slide.levels[0][:88], expected[:88])


def test_any_changed_byte_of_the_xml_gives_data_or_a_typed_error(tmp_path):
    path, _ = opened(tmp_path, BifRecipe())
    data = path.read_bytes()
    rng = np.random.default_rng(5)
    begin, end = data.index(b"<EncodeInfo"), data.index(b"</EncodeInfo>")
    for at in rng.integers(begin, end, 150).tolist():
        changed = bytearray(data)
        changed[at] = rng.integers(32, 127)
        path.write_bytes(changed)
        try:
            zg.open_slide(path).read_region((0, 0), 0, (64, 64))
        except ZarrGPUError:
            continue


def test_areas_that_share_their_tiles_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(ventana_xml, "_MAX_TILES", 100)
    with pytest.raises(MetadataError, match=r"17 areas of 102 tiles, expected at most 100"):
        opened(tmp_path, BifRecipe(areas=(AreaRecipe(),) * 17))


@pytest.mark.parametrize("tag", [(700, 3, 3, (1, 2, 3), True), (700, 1, 9, b"<x:xmpme", True)])
def test_what_others_write_into_the_tag_of_the_xml_is_no_error(tag, tmp_path):
    path, image = tmp_path / "a.tif", np.zeros((32, 32), np.uint8)
    options = {"tile": (16, 16), "photometric": "minisblack", "metadata": None}
    tifffile.imwrite(path, image, extratags=[tag], **options)
    assert zg.open(path).shape == (32, 32, 1)


def test_the_colour_profile_is_that_of_level_0_as_in_openslide(tmp_path, monkeypatch):
    profile, write = bytes(range(200)), tifffile.TiffWriter.write

    def with_profile(writer, *args, **options):
        return write(writer, *args, **{"iccprofile": profile, **options})

    monkeypatch.setattr(tifffile.TiffWriter, "write", with_profile)
    path, slide = opened(tmp_path, BifRecipe(areas=(WIDE,)))
    with openslide.OpenSlide(path) as peer:
        expected = peer.properties["openslide.icc-size"]
    assert slide.properties["openslide.icc-size"] == expected == "200"
    assert slide.icc_profile == slide.associated_images["macro"].icc_profile == profile
