"""Law of the Trestle reader: levels and properties are OpenSlide's; damage gives a typed error."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import tifffile

import zarrgpu as zg
from tests.synthetic_ventana import make_trestle
from zarrgpu.errors import MetadataError, UnsupportedFormatError
from zarrgpu.slide import Slide

openslide = pytest.importorskip("openslide")


def opened(tmp_path: Path, data: bytes) -> tuple[Path, Slide]:
    path = tmp_path / "slide.tif"
    path.write_bytes(data)
    return path, zg.open_slide(path)


CASES = {
    "overlaps": make_trestle((8, 4, 6, 3)),
    "only coarse": make_trestle((0, 0, 6, 3)),
    "fewer overlaps than levels": make_trestle((8, 4, 6), n_levels=3),
    "none": make_trestle((), description="Objective Power=40;Background Color=1"),
    "words": make_trestle((), description="OverlapsXY= 7x a 2 1;Background Color=xyz"),
    "level smaller than a tile": make_trestle((8, 4, 6, 3, 5, 5, 3, 3), n_levels=4),
    "last tiles narrower than the overlap": make_trestle((8, 4, 6, 3), size=(195, 259)),
}


@pytest.mark.parametrize("case", CASES)
def test_slide_equals_openslide(case, tmp_path):
    path, slide = opened(tmp_path, CASES[case])
    with openslide.OpenSlide(path) as peer:
        assert slide.level_dimensions == peer.level_dimensions
        for level, size in enumerate(peer.level_dimensions):
            theirs = np.asarray(peer.read_region((0, 0), level, size).convert("RGB"))
            np.testing.assert_array_equal(slide.levels[level][:], theirs)
        expected = dict(peer.properties)
    assert dict(slide.properties) == expected
    mpp = float(expected["openslide.mpp-x"])
    assert slide.mpp == (mpp, mpp)


def test_overlaps_of_a_whole_tile_are_refused(tmp_path):
    with pytest.raises(MetadataError, match="tiles of 64 pixels that overlap by 64") as caught:
        opened(tmp_path, make_trestle((64, 4)))
    assert "slide.tif" in str(caught.value)


def test_samples_that_are_stored_apart_are_refused(tmp_path):
    file = io.BytesIO()
    tifffile.imwrite(
        file, np.zeros((3, 100, 130), np.uint8), tile=(64, 64), photometric="rgb",
        planarconfig="separate", description="a=b;OverlapsXY= 8 4", software="MedScan",
        metadata=None,
    )  # fmt: skip
    with pytest.raises(UnsupportedFormatError, match=r"level 0 of .*slide\.tif.* stored apart"):
        opened(tmp_path, file.getvalue())
