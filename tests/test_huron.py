"""Laws of the Huron reader: pages as Aperio lays them out, so the pixels and names that Aperio's
reader gives for the same pages; the pixel size is that of the description, and never a guess.
"""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
import tifffile

import zarrgpu as zg
from tests.synthetic_slides import SlideRecipe, make_svs

RECIPE = SlideRecipe(kind="none", height=200, width=150, tile=64, n_levels=2, missing={1: (1,)})


def save(folder, text, vendor="Huron"):
    """An SVS with the maker's name in place of a tag that nothing here needs."""
    data = bytearray(make_svs(replace(RECIPE, description=text)))
    with tifffile.TiffFile(io.BytesIO(bytes(data))) as tiff:
        unit = tiff.pages[0].tags["ResolutionUnit"]
    # ResolutionUnit (3, 1 value) becomes Make (2, 6 bytes at the end of the file)
    at = len(data)
    data += f"{vendor}\0".encode()
    data[unit.offset : unit.offset + 12] = (
        (271).to_bytes(2, "little")
        + (2).to_bytes(2, "little")
        + (len(vendor) + 1).to_bytes(4, "little")
        + at.to_bytes(4, "little")
    )
    path = folder / "slide.tif"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("resolution", "mpp"),
    [
        ("0.50 um", 0.5),
        ("0,25 um", 0.25),
        ("0.4", 0.4),
        ("fine", None),
        ("50 nm", None),
        ("", None),
    ],
)
def test_pixels_and_names_are_those_of_the_pages(resolution, mpp, tmp_path):
    slide = zg.open_slide(save(tmp_path, f"Source = Huron\nResolution = {resolution}\nodd"))
    assert slide.spec.vendor == "huron"
    assert slide.mpp == (mpp, mpp)
    assert ("openslide.mpp-x" in slide.properties) == (mpp is not None)
    assert slide.properties["huron.Source"] == "Huron"
    assert set(slide.associated_images) == {"label", "macro", "thumbnail"}
    path = tmp_path / "aperio.svs"
    path.write_bytes(make_svs(replace(RECIPE, description="Aperio x")))
    aperio = zg.open_slide(path)
    assert slide.level_dimensions == aperio.level_dimensions
    for level, size in enumerate(slide.level_dimensions):
        ours = slide.read_region((0, 0), level, size, device="cpu")
        assert np.array_equal(ours, aperio.read_region((0, 0), level, size, device="cpu"))
        assert np.array_equal(ours[:64, :64], RECIPE.level(level)[:64, :64])


def test_other_makers_are_not_huron(tmp_path):
    assert zg.open_slide(save(tmp_path, "x", vendor="Huran")).spec.vendor == "generic-tiff"
