"""Laws of the Philips reader.

1. Levels, sizes, downsamples, associated images and properties are OpenSlide's; where OpenSlide is
   transparent (tiles that are not stored) we are white.
2. What does not fit its XML is refused by name.
"""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import tifffile

import zarrgpu as zg
from tests.synthetic_philips import LABEL, MACRO, PhilipsRecipe, make_philips
from zarrgpu.errors import MetadataError, UnsupportedFormatError
from zarrgpu.formats.philips import _objective_power

openslide = pytest.importorskip("openslide")

LOSS = 60


def save(folder, recipe):
    path = folder / "philips.tiff"
    path.write_bytes(make_philips(recipe))
    return path


@pytest.mark.parametrize(
    "recipe",
    [
        PhilipsRecipe(),
        PhilipsRecipe(associated_in_xml=False),
        PhilipsRecipe(missing={0: (3, 7), 1: (1,), 2: (0,)}),
        PhilipsRecipe(height=257, width=321, n_levels=4),
    ],
)
def test_slide_is_that_of_openslide(recipe, tmp_path):
    path = save(tmp_path, recipe)
    slide = zg.open_slide(path)
    assert slide.spec.vendor == "philips"
    with openslide.OpenSlide(path) as peer:
        expected = dict(peer.properties)
        ours = dict(slide.properties)
        # newer than the OpenSlide that is installed
        assert ours.pop("openslide.objective-power") == "40"
        expected.pop("openslide.objective-power", None)
        assert ours == expected
        assert slide.level_dimensions == peer.level_dimensions
        assert slide.level_downsamples == peer.level_downsamples
        assert slide.mpp == pytest.approx(
            tuple(float(peer.properties[f"openslide.mpp-{axis}"]) for axis in "xy")
        )
        for level, size in enumerate(slide.level_dimensions):
            ours = slide.read_region((0, 0), level, size, device="cpu")
            rgba = np.asarray(peer.read_region((0, 0), level, size))
            stored = rgba[..., 3] == 255
            assert np.array_equal(ours[stored], rgba[stored][:, :3])
            assert (ours[~stored] == 255).all()
            assert bool((~stored).any()) == bool(recipe.missing.get(level))
            truth = recipe.level(level).astype(int)
            assert np.abs(ours.astype(int) - truth)[stored].mean() < LOSS / 4
        assert set(slide.associated_images) == {"label", "macro"} == set(peer.associated_images)
        for name, image in slide.associated_images.items():
            pixels = np.asarray(image.read(..., device="cpu"))
            assert np.array_equal(pixels, np.asarray(peer.associated_images[name].convert("RGB")))
            assert np.abs(pixels.astype(int) - {"label": LABEL, "macro": MACRO}[name]).mean() < 15


def test_patches_of_all_levels_come_in_batches(tmp_path, cuda):
    slide = zg.open_slide(save(tmp_path, PhilipsRecipe(missing={0: (3,)})))
    corners = [(-5, -5), (180, 10), (250, 200)]
    for level in range(3):
        host = slide.read_regions(corners, level, (64, 48), device="cpu")
        device = slide.read_regions(corners, level, (64, 48), device=cuda)
        assert np.array_equal(np.asarray(device.get() if hasattr(device, "get") else device), host)
        assert (host[0, 0, 0] == 255).all()  # outside of the slide


def test_what_does_not_fit_is_refused_by_name(tmp_path):
    path = save(tmp_path, PhilipsRecipe(wsi_images=2))
    with pytest.raises(UnsupportedFormatError, match=r"philips.tiff.*2 whole-slide images"):
        zg.open_slide(path)
    data = make_philips(PhilipsRecipe())
    cases = {
        b"</Array></Attribute></DataObject>": (b"</Array></Attribute></DataObjecX>", "not XML"),
        b"&quot;0.000454000&quot;": (b"&quot;0.00045400x&quot;", "pixel spacing of 3 levels"),
        b"&quot;0.000908000&quot;": (b"&quot;99999999.00&quot;", "coarser than level 0"),
        b'<?xml version="1.0" encoding="UTF-8" ?>': (
            b'<!DOCTYPE a [<!ENTITY b "c">]>         ', "document type",
        ),
    }  # fmt: skip
    for old, (new, message) in cases.items():
        assert len(old) == len(new)
        assert old in data
        path.write_bytes(data.replace(old, new, 3))
        with pytest.raises(MetadataError, match=message):
            zg.open_slide(path)


def test_spacing_that_is_no_number_gives_no_mpp(tmp_path):
    data = make_philips(PhilipsRecipe())
    old = b"&quot;0.000227000&quot; &quot;0.000225000&quot;"
    assert data.count(old) == 2  # of the slide, and of level 0
    path = tmp_path / "philips.tiff"
    path.write_bytes(data.replace(old, old.replace(b"0.000227000", b"0.00022700x"), 1))
    slide = zg.open_slide(path)
    assert slide.mpp == (None, None)
    assert "openslide.mpp-x" not in slide.properties


def test_an_image_in_the_xml_that_is_none_is_named_not_fatal(tmp_path):
    data = make_philips(PhilipsRecipe())
    path = tmp_path / "philips.tiff"
    path.write_bytes(data.replace(b'PMSVR="IString">/9j/', b'PMSVR="IString">/9k/', 1))
    slide = zg.open_slide(path)
    assert set(slide.associated_images) == {"macro"}
    assert "JPEG" in slide.properties["zarrgpu.associated.label.unsupported"]


def test_objects_in_objects_without_end_are_not_followed(tmp_path):
    data = make_philips(PhilipsRecipe())
    kind = b'<Attribute Name="PIM_DP_IMAGE_TYPE">WSI</Attribute>'
    inner = b'<Attribute Name="PIM_DP_SCANNED_IMAGES"><Array><DataObject>' + kind
    depth = 3000
    deep = depth * inner + depth * b"</DataObject></Array></Attribute>"
    old = b">WSI</Attribute>"
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        tag = tiff.pages[0].tags["ImageDescription"]
        description = data[tag.valueoffset : tag.valueoffset + tag.count]
        big, at = tiff.is_bigtiff, tag.offset
    assert description.count(old) == 1
    new = description.replace(old, old + deep)
    changed = bytearray(data) + new
    struct.pack_into("<QQ" if big else "<II", changed, at + 4, len(new), len(data))
    path = tmp_path / "philips.tiff"
    path.write_bytes(changed)
    assert zg.open_slide(path).level_count == 3


def test_numbers_that_overflow_are_typed_errors_or_left_out(tmp_path):
    data = make_philips(PhilipsRecipe())
    path = tmp_path / "philips.tiff"
    tiny = data.replace(b"0.000227000", b"1.0000e-300").replace(b"0.000454000", b"1.0000e+300")
    assert tiny != data
    path.write_bytes(tiny)
    with pytest.raises(MetadataError, match="coarser than level 0"):
        zg.open_slide(path)
    assert _objective_power("a-levels=" + "1" * 5000) is None
    assert _objective_power("a-levels=40,20") == "40"
