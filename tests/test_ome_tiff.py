"""Laws of the OME-TIFF reader.

1. Every level has tifffile's pixels, for all types, axes, orders and compressions; in one file or
   in several.
2. Sizes, units, names and colours are those of the OME-XML; what is no length is no mpp.
3. XML that does not fit the pages, and files that are not there, are refused by name.
"""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

import zarrgpu as zg
from tests.synthetic_ome_tiff import noise, write_pyramid, write_several
from zarrgpu.errors import MetadataError, UnsupportedFormatError
from zarrgpu.formats.planes import stack_planes

LAYOUTS = {
    "plane": ((90, 130), "YX"),
    "channels": ((3, 90, 130), "CYX"),
    "focal-planes": ((4, 90, 130), "ZYX"),
    "time-channels-focus": ((2, 3, 2, 70, 60), "TCZYX"),
    "focus-first": ((2, 3, 70, 60), "ZCYX"),
    "rgb": ((90, 130, 3), "YXS"),
    "rgb-focus": ((2, 90, 130, 3), "ZYXS"),
}


def tifffile_level(path, level):
    with tifffile.TiffFile(path) as tiff:
        return tiff.series[0].levels[level].asarray()


def pixels(slide, level):
    """A level with axes of length 1 left out, as tifffile has it."""
    return np.asarray(slide.levels[level].read(..., device="cpu")).squeeze()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_levels_equal_tifffile(layout, dtype, tmp_path):
    shape, axes = LAYOUTS[layout]
    path = tmp_path / "image.ome.tif"
    image = noise(shape, dtype)
    options = {"photometric": "rgb"} if axes.endswith("S") else {}
    write_pyramid(path, image, axes, **options)
    slide = zg.open_slide(path)
    assert slide.spec.vendor == "ome-tiff"
    assert slide.level_count == 3
    names = tuple({"S": "c"}.get(axis, axis.lower()) for axis in axes)
    assert slide.axes[: len(names)] == names
    assert slide.dtype == np.dtype(dtype)
    for level in range(3):
        assert np.array_equal(pixels(slide, level), tifffile_level(path, level)), level
    at = axes.index("Y")
    assert slide.dimensions == (shape[at + 1], shape[at])


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "uint32", "float64"])
@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
def test_types_and_compressions_equal_tifffile(dtype, compression, tmp_path):
    path = tmp_path / "image.ome.tif"
    predictor = {"predictor": True} if compression else {}
    write_pyramid(path, noise((2, 70, 90), dtype), "CYX", compression=compression, **predictor)
    slide = zg.open_slide(path)
    for level in range(3):
        assert np.array_equal(pixels(slide, level), tifffile_level(path, level))


def test_samples_that_are_stored_apart_equal_tifffile(tmp_path):
    path = tmp_path / "image.ome.tif"
    image = noise((3, 70, 90), "uint8")
    write_pyramid(path, image, "SYX", photometric="rgb", planarconfig="separate")
    slide = zg.open_slide(path)
    assert slide.axes == ("y", "x", "c")
    for level in range(3):
        expected = tifffile_level(path, level).transpose(1, 2, 0)
        assert np.array_equal(pixels(slide, level), expected)


def test_strips_equal_tifffile(tmp_path):
    path = tmp_path / "image.ome.tif"
    write_pyramid(path, noise((2, 90, 50), "uint16"), "CYX", tile=None, rowsperstrip=7)
    slide = zg.open_slide(path)
    assert slide.levels[0].chunks == (1, 7, 50)
    for level in range(3):
        assert np.array_equal(pixels(slide, level), tifffile_level(path, level))


def test_patches_of_positions_come_in_batches(tmp_path, cuda):
    path = tmp_path / "image.ome.tif"
    image = noise((2, 3, 2, 70, 60), "uint16")
    write_pyramid(path, image, "TCZYX")
    slide = zg.open_slide(path)
    for device in ("cpu", cuda):
        patches = slide.read_regions(
            [(-3, 5), (40, 60)], 0, (20, 16), position={"t": 1, "z": 1}, device=device
        )
        patches = np.asarray(patches.get() if hasattr(patches, "get") else patches)
        padded = np.pad(image[1, :, 1], ((0, 0), (3, 20), (3, 20)))
        assert np.array_equal(patches[0], padded[:, 8:24, 0:20].transpose(1, 2, 0))
        assert np.array_equal(patches[1], padded[:, 63:79, 43:63].transpose(1, 2, 0))


UNITS = {"µm": 1, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "Å": 1e-4, "in": 25400, None: 1}


@pytest.mark.parametrize("unit", UNITS)
def test_physical_sizes_are_in_micrometres(unit, tmp_path):
    path = tmp_path / "image.ome.tif"
    units = {} if unit is None else {"PhysicalSizeXUnit": unit, "PhysicalSizeYUnit": unit}
    metadata = {"PhysicalSizeX": 0.25, "PhysicalSizeY": 0.5, **units}
    write_pyramid(path, noise((40, 50), "uint8"), "YX", metadata=metadata, levels=1)
    slide = zg.open_slide(path)
    assert slide.mpp == pytest.approx((0.25 * UNITS[unit], 0.5 * UNITS[unit]))
    assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.25 * UNITS[unit])
    assert "zarrgpu.mpp-z" not in slide.properties


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "pixel"},
        {"PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "reference frame"},
        {"PhysicalSizeX": 0},
        {"PhysicalSizeX": "abc"},
    ],
)
def test_what_is_no_length_is_no_mpp(metadata, tmp_path):
    path = tmp_path / "image.ome.tif"
    write_pyramid(path, noise((40, 50), "uint8"), "YX", metadata=metadata, levels=1)
    slide = zg.open_slide(path)
    assert slide.mpp == (None, None)
    assert "openslide.mpp-x" not in slide.properties


def test_channels_have_names_and_colours(tmp_path):
    path = tmp_path / "image.ome.tif"
    metadata = {"Channel": {"Name": ["DAPI", "CD8"], "Color": [0x0000FFFF, -16776961]}}
    write_pyramid(path, noise((2, 40, 50), "uint8"), "CYX", metadata=metadata, levels=1)
    assert zg.open_slide(path).spec.channels == (
        {"label": "DAPI", "color": "0000FF"},
        {"label": "CD8", "color": "FF0000"},
    )


def test_the_largest_image_is_the_slide_and_others_are_associated(tmp_path):
    path = tmp_path / "image.ome.tif"
    label, main = noise((30, 20, 3), "uint8"), noise((90, 130, 3), "uint8", 1)
    with tifffile.TiffWriter(path, ome=True) as writer:
        for name, image in (("label", label), ("main", main), ("stack", noise((2, 9, 9), "uint8"))):
            rgb = {"photometric": "rgb"} if image.shape[-1] == 3 else {}
            writer.write(image, metadata={"Name": name}, tile=(32, 32), **rgb)
    slide = zg.open_slide(path)
    assert np.array_equal(pixels(slide, 0), main)
    assert set(slide.associated_images) == {"label"}
    assert np.array_equal(
        np.asarray(slide.associated_images["label"].read(..., device="cpu")), label
    )
    assert "2 planes" in slide.properties["zarrgpu.associated.stack.unsupported"]
    assert slide.properties["ome.image[1].name"] == "main"


def test_an_image_of_several_files_is_one_slide(tmp_path, cuda):
    names = ["a.ome.tif", "b.ome.tif", "c.ome.tif"]
    image = noise((3, 70, 90), "uint16")
    write_several(tmp_path, image, names)
    for name in names:  # each names the others
        slide = zg.open_slide(tmp_path / name)
        assert slide.axes == ("c", "y", "x")
        for device in ("cpu", cuda):
            found = slide.read_region((0, 0), 0, (90, 70), device=device)
            found = np.asarray(found.get() if hasattr(found, "get") else found)
            assert np.array_equal(found, image.transpose(1, 2, 0))
    with tifffile.TiffFile(tmp_path / names[0]) as tiff:
        assert np.array_equal(tiff.series[0].asarray(), image)


def test_a_file_that_is_not_there_is_named(tmp_path):
    write_several(tmp_path, noise((2, 40, 50), "uint16"), ["a.ome.tif", "b.ome.tif"])
    (tmp_path / "b.ome.tif").unlink()
    with pytest.raises(UnsupportedFormatError, match=r"a.ome.tif' has planes in 'b.ome.tif'"):
        zg.open_slide(tmp_path / "a.ome.tif")


def test_names_do_not_lead_out_of_the_folder(tmp_path):
    inner = tmp_path / "inner"
    inner.mkdir()
    write_several(inner, noise((2, 40, 50), "uint16"), ["a.ome.tif", "bbbbbbbb.tif"])
    data = (inner / "a.ome.tif").read_bytes()
    (inner / "bbbbbbbb.tif").rename(tmp_path / "bbbbb.tif")
    (inner / "a.ome.tif").write_bytes(data.replace(b"bbbbbbbb.tif", b"../bbbbb.tif"))
    with pytest.raises(UnsupportedFormatError, match=r"planes in '../bbbbb.tif'"):
        zg.open_slide(inner / "a.ome.tif")


def test_a_file_that_another_one_describes_names_it(tmp_path):
    path = tmp_path / "plane.ome.tif"
    text = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><BinaryOnly '
        'MetadataFile="all.companion.ome" UUID="urn:uuid:1"/></OME>'
    )
    image = noise((40, 50), "uint8")
    tifffile.imwrite(path, image, tile=(32, 32), description=text, metadata=None)
    with pytest.raises(UnsupportedFormatError, match=r"'all.companion.ome' describes"):
        zg.open_slide(path)


def test_planes_that_are_only_claimed_take_no_memory(tmp_path):
    path = tmp_path / "plane.tif"
    tifffile.imwrite(path, noise((640, 640), "uint8"), tile=(16, 16), metadata=None)
    plane = zg.open_slide(path).levels[0].source.spec
    few = stack_planes([plane, None, plane], (("z", 3),), what="level 0")
    assert few.shape == (3, 640, 640, 1)
    with pytest.raises(UnsupportedFormatError, match=r"104857600 chunks, of which .* holds 1600"):
        stack_planes([plane, *[None] * 65535], (("z", 65536),), what="level 0")


MISFITS = {
    'SizeX="90"': ('SizeX="91"', MetadataError, "91 x 70 pixels"),
    'SizeX="9': ('SizeX="-', MetadataError, "SizeX='-0'"),
    'SizeC="3"': ('SizeC="4"', None, ""),
    'SizeZ="1"': ('SizeZ="0"', MetadataError, "SizeZ='0'"),
    'FirstC="2"': ('FirstC="7"', MetadataError, "FirstC=7, of 3"),
    'IFD="0"': ('IFD="5"', MetadataError, "pages from 5 on of 1"),
    'DimensionOrder="XYZCT"': ('DimensionOrder="XYZCC"', MetadataError, "DimensionOrder"),
    "</Pixels>": ("</Pixelz>", MetadataError, "not XML"),
}


@pytest.mark.parametrize("old", MISFITS)
def test_xml_that_does_not_fit_is_refused_by_name(old, tmp_path):
    new, error, message = MISFITS[old]
    write_several(tmp_path, noise((3, 70, 90), "uint16"), ["a.ome.tif", "b.ome.tif", "c.ome.tif"])
    path = tmp_path / "a.ome.tif"
    data = path.read_bytes()
    assert old.encode() in data
    path.write_bytes(data.replace(old.encode(), new.encode()))
    if error is None:  # a plane that no page holds is empty
        region = zg.open_slide(path).read_region((0, 0), 0, (90, 70), device="cpu")
        assert region.shape == (70, 90, 4)
        assert region[..., :3].any()
        assert not region[..., 3].any()
        return
    with pytest.raises(error, match=message) as caught:
        zg.open_slide(path)
    assert "a.ome.tif" in str(caught.value)


def test_planes_stored_unlike_are_refused_by_name(tmp_path):
    write_several(tmp_path, noise((2, 40, 50), "uint16"), ["a.ome.tif", "b.ome.tif"])
    with tifffile.TiffFile(tmp_path / "b.ome.tif") as tiff:
        text, image = tiff.pages[0].description, tiff.asarray()
    tifffile.imwrite(tmp_path / "b.ome.tif", image, tile=(16, 16), description=text, metadata=None)
    with pytest.raises(UnsupportedFormatError, match="differ in chunk_shape"):
        zg.open_slide(tmp_path / "a.ome.tif")


PIXELS = (
    '<Pixels DimensionOrder="XYCZT" SizeX="{}" SizeY="{}" SizeC="1" SizeZ="1" SizeT="1">{}</Pixels>'
)


def test_an_image_whose_page_has_another_size_is_left_out(tmp_path):
    # without TiffData the pages are taken in order, but they are those of the first image
    first, second = PIXELS.format(64, 48, '<TiffData IFD="0"/>'), PIXELS.format(30, 20, "")
    images = f'<Image Name="main">{first}</Image><Image Name="label">{second}</Image>'
    xml = f'<OME\nxmlns="a">{images}</OME>'
    path = tmp_path / "image.ome.tif"
    with tifffile.TiffWriter(path) as writer:
        options = {"photometric": "minisblack", "metadata": None}
        writer.write(noise((48, 64), "uint8"), description=xml, **options)
        writer.write(noise((20, 30), "uint8"), **options)
    slide = zg.open_slide(path)
    assert slide.spec.vendor == "ome-tiff"
    assert not slide.associated_images
    reason = slide.properties["zarrgpu.associated.label.unsupported"]
    assert reason == "the XML says 30 x 20 pixels, its page has 64 x 48"


def test_planes_that_are_named_over_and_over_are_refused(tmp_path):
    path = tmp_path / "image.ome.tif"
    write_pyramid(path, noise((4, 40, 50), "uint8"), "CYX", levels=1)
    text = tifffile.tiffcomment(path)
    at = text.index("<TiffData")
    tifffile.tiffcomment(path, (text[:at] + 20 * '<TiffData PlaneCount="4"/>' + text[at:]).encode())
    with pytest.raises(MetadataError, match="names the 4 planes over and over"):
        zg.open_slide(path)


def test_the_colour_profile_of_level_0_is_that_of_the_image(tmp_path):
    profile = bytes(range(200))
    path = tmp_path / "a.ome.tiff"
    options = {"photometric": "rgb", "tile": (32, 32), "iccprofile": profile}
    with tifffile.TiffWriter(path, ome=True) as writer:
        writer.write(noise((70, 90, 3), "u1"), metadata={"axes": "YXS"}, **options)
    slide = zg.open_slide(path)
    assert slide.spec.vendor == "ome-tiff"
    assert slide.icc_profile == slide.levels[0].icc_profile == profile
    assert slide.with_fill_value(9).icc_profile == profile
