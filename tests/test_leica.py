"""Laws of the Leica reader.

1. Frame, levels, macro image and properties are OpenSlide's; pixels too where images begin at whole
   pixels, and else within one pixel of it. Of two images that overlap the first is shown.
2. Focal planes are an axis, of which OpenSlide has the first.
3. What does not go together is refused by name.
"""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

import zarrgpu as zg
from tests.synthetic_leica import MACRO, Field, LeicaRecipe, make_leica
from zarrgpu.errors import MetadataError, UnsupportedFormatError

openslide = pytest.importorskip("openslide")

ONE = Field(width=128, height=104, left=32, top=16)
TWO = Field(width=96, height=144, left=200, top=120, seed=1)
OVER = Field(width=96, height=144, left=112, top=80, seed=1)


def save(folder, recipe):
    path = folder / "slide.scn"
    path.write_bytes(make_leica(recipe))
    return path


@pytest.mark.parametrize(
    "recipe",
    [
        LeicaRecipe(),
        LeicaRecipe(macro=False, barcode=""),
        LeicaRecipe(fields=(ONE, TWO)),
        LeicaRecipe(fields=(ONE, OVER)),
        LeicaRecipe(fields=(OVER, ONE), width=401, height=303),
    ],
)
def test_slide_is_that_of_openslide(recipe, tmp_path):
    path = save(tmp_path, recipe)
    slide = zg.open_slide(path)
    assert slide.spec.vendor == "leica"
    with openslide.OpenSlide(path) as peer:
        expected = dict(peer.properties)
        assert dict(slide.properties) == expected
        assert slide.level_dimensions == peer.level_dimensions
        assert slide.mpp == (0.5, 0.5)
        for level, size in enumerate(slide.level_dimensions):
            ours = slide.read_region((0, 0), level, size, device="cpu")
            rgba = np.asarray(peer.read_region((0, 0), level, size))
            stored = rgba[..., 3] == 255
            assert np.array_equal(ours[stored], rgba[stored][:, :3])
            assert not ours[~stored].any()
            assert stored.any()
            assert not stored.all()
        assert set(slide.associated_images) == set(peer.associated_images)
        for name, image in slide.associated_images.items():
            pixels = np.asarray(image.read(..., device="cpu"))
            assert np.array_equal(pixels, np.asarray(peer.associated_images[name].convert("RGB")))
            assert pixels.shape == MACRO.shape


def test_patches_of_all_levels_come_in_batches(tmp_path, cuda):
    slide = zg.open_slide(save(tmp_path, LeicaRecipe(fields=(ONE, OVER))))
    rng = np.random.default_rng(0)
    corners = np.stack([rng.integers(-20, 380, 30), rng.integers(-20, 300, 30)], -1)
    for level in range(3):
        whole = slide.read_region((0, 0), level, slide.level_dimensions[level], device="cpu")
        padded = np.pad(whole, ((40, 90), (40, 90), (0, 0)))
        scale = int(slide.level_downsamples[level])
        for device in ("cpu", cuda):
            patches = slide.read_regions(corners // scale * scale, level, (48, 40), device=device)
            patches = np.asarray(patches.get() if hasattr(patches, "get") else patches)
            for (x, y), patch in zip(corners // scale, patches, strict=True):
                assert np.array_equal(patch, padded[y + 40 : y + 80, x + 40 : x + 88])


def test_images_between_pixels_are_at_the_nearest(tmp_path):
    path = save(
        tmp_path,
        LeicaRecipe(fields=(Field(width=128, height=104, left=32, top=16, extra_clicks=200),)),
    )
    slide = zg.open_slide(path)
    whole = slide.read_region((0, 0), 0, slide.dimensions, device="cpu")
    rows, columns = np.flatnonzero(whole.any((1, 2))), np.flatnonzero(whole.any((0, 2)))
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (16, 119, 32, 159)
    with openslide.OpenSlide(path) as peer:
        rgba = np.asarray(peer.read_region((0, 0), 0, peer.dimensions)).astype(int)
    shifted = [
        np.abs(np.roll(rgba[..., :3], (dy, dx), (0, 1)) - whole)[20:110, 40:150].max()
        for dy in (-1, 0, 1)
        for dx in (-1, 0, 1)
    ]
    assert min(shifted) == 0


def test_focal_planes_are_an_axis(tmp_path, cuda):
    path = save(tmp_path, LeicaRecipe(fields=(ONE, OVER), planes=3))
    slide = zg.open_slide(path)
    assert slide.axes == ("z", "y", "x", "c")
    with openslide.OpenSlide(path) as peer:
        rgba = np.asarray(peer.read_region((0, 0), 1, peer.level_dimensions[1]))
        assert slide.level_dimensions == peer.level_dimensions
    size = slide.level_dimensions[1]
    first = slide.read_region((0, 0), 1, size, device="cpu")
    stored = rgba[..., 3] == 255
    assert np.array_equal(first[stored], rgba[stored][:, :3])
    for z in (1, 2):
        plane = slide.read_region((0, 0), 1, size, device="cpu", position={"z": z})
        truth = ONE.level(1, z)
        part = plane[8 : 8 + truth.shape[0], 16 : 16 + truth.shape[1]].astype(int)
        assert np.abs(part - truth).mean() < 15
        device = slide.read_region((0, 0), 1, size, device=cuda, position={"z": z})
        assert np.array_equal(np.asarray(device.get() if hasattr(device, "get") else device), plane)


def test_tiles_are_named_by_plane_row_and_column(tmp_path):
    path = save(tmp_path, LeicaRecipe(planes=2))
    slide = zg.open_slide(path)
    spec = slide.levels[0].source.spec
    at = int(spec.location.offsets.reshape(2, -1)[1, 5])
    data = bytearray(path.read_bytes())
    data[at : at + 20] = bytes(20)
    path.write_bytes(data)
    with pytest.raises(zg.errors.ChunkDecodeError, match=r"level 0 tile \(z 1, row 1, column 1\)"):
        zg.open_slide(path).read_region(
            (0, 0), 0, slide.dimensions, position={"z": 1}, device="cpu"
        )


def test_what_does_not_go_together_is_refused_by_name(tmp_path):
    dark = Field(width=128, height=104, left=32, top=16, source="fluorescence")
    other = Field(width=96, height=144, left=200, top=120, objective="40")
    fewer = Field(width=96, height=144, left=200, top=120, n_levels=2)
    for fields, message in (
        ((dark,), "without an image in transmitted light"),
        ((ONE, other), "unlike levels or objectives"),
        ((ONE, fewer), "unlike levels or objectives"),
    ):
        path = save(tmp_path, LeicaRecipe(fields=fields))
        with pytest.raises(UnsupportedFormatError, match=message):
            zg.open_slide(path)
    data = make_leica(LeicaRecipe())
    for old, new, message in (
        (b'ifd="1"', b'ifd="9"', "page 9 of 4"),
        (b"</collection>", b"</collectiom>", "not XML"),
        (b"<view ", b"<vieu ", "without a view"),
        (b'offsetX="16000"', b'offsetX="-6000"', "offsetX"),
    ):
        assert old in data
        path.write_bytes(data.replace(old, new))
        with pytest.raises(MetadataError, match=message):
            zg.open_slide(path)


def test_more_resolutions_than_pages_are_refused(tmp_path):
    path = save(tmp_path, LeicaRecipe())
    text = tifffile.tiffcomment(path)
    at = text.rindex("<dimension ")
    more = "".join(f'<dimension sizeX="9" sizeY="9" z="{z}" ifd="1"/>' for z in range(1, 200))
    tifffile.tiffcomment(path, (text[:at] + more + text[at:]).encode())
    with pytest.raises(MetadataError, match=r"203 resolutions of images in 4 pages"):
        zg.open_slide(path)
