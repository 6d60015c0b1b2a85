"""Laws of the QPTIFF reader.

1. Levels have tifffile's pixels, bands are the channels, with the names and colours of the XML.
2. Pages without a description are told apart as tifffile does it.
3. Levels of different bands are refused by name.
"""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

import zarrgpu as zg
from tests import synthetic_qptiff
from tests.synthetic_qptiff import LABEL, MACRO, THUMBNAIL, QptiffRecipe, write_qptiff
from zarrgpu.errors import MetadataError, UnsupportedFormatError


def pixels(array):
    return np.asarray(array.read(..., device="cpu"))


@pytest.mark.parametrize(
    "recipe",
    [
        QptiffRecipe(),
        QptiffRecipe(dtype="uint8", bands=5),
        QptiffRecipe(dtype="float32"),
        QptiffRecipe(bands=1),
        QptiffRecipe(rgb=True),
        QptiffRecipe(described=False),
    ],
)
def test_levels_equal_tifffile(recipe, tmp_path):
    path = tmp_path / "slide.qptiff"
    write_qptiff(path, recipe)
    slide = zg.open_slide(path)
    assert slide.spec.vendor == "qptiff"
    assert slide.level_count == recipe.n_levels
    with tifffile.TiffFile(path) as tiff:
        assert tiff.is_qpi
        levels = [level.asarray() for level in tiff.series[0].levels]
    for index, expected in enumerate(levels):
        assert np.array_equal(pixels(slide.levels[index]).squeeze(), expected.squeeze()), index
        assert np.array_equal(expected.squeeze(), recipe.level(index).squeeze())
    assert slide.channel_count == (3 if recipe.rgb else recipe.bands)
    assert slide.dtype == (np.uint8 if recipe.rgb else np.dtype(recipe.dtype))
    assert slide.mpp == (0.5, 0.5)


def test_names_colours_and_associated_images(tmp_path):
    path = tmp_path / "slide.qptiff"
    write_qptiff(path, QptiffRecipe())
    slide = zg.open_slide(path)
    assert slide.spec.channels == (
        {"label": "DAPI", "color": "0000FF"},
        {"label": "CD8", "color": "FF8000"},
        {"label": "Autofluorescence", "color": "000000"},
    )
    assert slide.properties["openslide.objective-power"] == "20"
    assert slide.properties["qptiff.band[1].name"] == "CD8"
    images = {name: pixels(image) for name, image in slide.associated_images.items()}
    expected = {"label": LABEL, "macro": MACRO, "thumbnail": THUMBNAIL}
    assert set(images) == set(expected)
    for name, image in expected.items():
        assert np.array_equal(images[name], image)
        assert slide.properties[f"openslide.associated.{name}.width"] == str(image.shape[1])


def test_patches_have_bands_as_channels(tmp_path, cuda):
    path = tmp_path / "slide.qptiff"
    recipe = QptiffRecipe()
    write_qptiff(path, recipe)
    slide = zg.open_slide(path)
    padded = np.pad(recipe.level(1), ((0, 0), (0, 40), (0, 40)))
    for device in ("cpu", cuda):
        found = slide.read_regions(
            [(20, 40), (240, 180)], 1, (30, 20), device=device, layout="NCHW", dtype="float32"
        )
        found = np.asarray(found.get() if hasattr(found, "get") else found)
        assert np.array_equal(found[0], padded[:, 20:40, 10:40])
        assert np.array_equal(found[1], padded[:, 90:110, 120:150])


def test_levels_of_different_bands_are_refused_by_name(tmp_path):
    path = tmp_path / "slide.qptiff"
    write_qptiff(path, QptiffRecipe(dropped=1))
    with pytest.raises(UnsupportedFormatError, match=r"qptiff.*level 1 has 2 bands .*level 0 3"):
        zg.open_slide(path)


def test_damaged_xml_is_an_error_that_names_the_page(tmp_path):
    path = tmp_path / "slide.qptiff"
    write_qptiff(path, QptiffRecipe())
    path.write_bytes(path.read_bytes().replace(b"<Name>CD8</Name>", b"<Name>CD8</Nome>", 1))
    with pytest.raises(MetadataError, match=r"slide.qptiff' at ifd.1.ImageDescription: not XML"):
        zg.open_slide(path)


@pytest.mark.parametrize("color", ["1,2," + "3" * 5000, "1,2,256", "1,2,-3"])
def test_a_colour_that_is_none_is_left_out(color, tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic_qptiff, "BANDS", (("DAPI", color), *synthetic_qptiff.BANDS[1:]))
    path = tmp_path / "slide.qptiff"
    write_qptiff(path, QptiffRecipe())
    channels = zg.open_slide(path).spec.channels
    assert channels[0] == {"label": "DAPI"}
    assert channels[1]["color"] == "FF8000"
