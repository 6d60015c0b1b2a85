"""Laws of the Argos reader: levels and focal planes have tifffile's pixels, names and numbers are
those of the XML, and what does not fit is refused by name.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import tifffile

import zarrgpu as zg
from tests.synthetic_slides import tissue
from zarrgpu.errors import MetadataError, UnsupportedFormatError
from zarrgpu.interop import openslide

XML = (
    "<Argos.Scan.Metadata><ObjectiveMagnification>20</ObjectiveMagnification><MinZ>{least}</MinZ>"
    "<MaxZ>{most}</MaxZ><Barcode>A1</Barcode><Scan><Speed>3</Speed></Scan><Odd a='1'>x</Odd>"
    "</Argos.Scan.Metadata>"
)
MAP, MACRO = tissue(20, 30, seed=8), tissue(25, 40, seed=9)


def level(z, index):
    return np.ascontiguousarray(tissue(150, 130, seed=z)[:: 2**index, :: 2**index])


def save(folder, planes=3, *, least=-1, most=1, depth=(3, 3, 3), xml=XML):
    path = folder / "slide.avs"
    text = xml.format(least=least, most=most).encode() + b"\0"
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        first = [(65000, 2, len(text), text, True)]
        for z in range(planes):
            for index in range(depth[z]):
                writer.write(
                    level(z, index), tile=(64, 64), photometric="rgb", metadata=None,
                    compression="lzw", predictor=2, extratags=first, description="",
                    resolution=(20000, 40000), resolutionunit="CENTIMETER", software=False,
                )  # fmt: skip
                first = []
        for image in (MAP, MACRO):
            writer.write(image, photometric="rgb", metadata=None, rowsperstrip=8, description="")
    return path


def pixels(array):
    return np.asarray(array.read(..., device="cpu"))


@pytest.mark.parametrize("planes", [1, 3])
def test_focal_planes_and_levels_are_those_of_the_pages(planes, tmp_path, cuda):
    path = save(tmp_path, planes)
    slide = zg.open_slide(path)
    assert slide.spec.vendor == "argos"
    assert slide.axes == ("z", "y", "x", "c")[-3 if planes == 1 else 0 :]
    assert slide.level_count == 3
    with tifffile.TiffFile(path) as tiff:
        assert tiff.pages[0].is_avs
        pages = [page.asarray() for page in tiff.pages]
    for index in range(3):
        expected = np.stack([pages[3 * z + index] for z in range(planes)])
        assert np.array_equal(pixels(slide.levels[index]), expected[0] if planes == 1 else expected)
        position = {"z": 1} if planes > 1 else {}
        region = slide.read_region(
            (0, 0), index, slide.level_dimensions[index], position=position, device=cuda
        )
        on_host = np.asarray(region.get() if hasattr(region, "get") else region)
        assert np.array_equal(on_host, expected[min(1, planes - 1)])
    assert slide.mpp == (0.5, 0.25)
    assert slide.properties["argos.Scan.Speed"] == "3"
    assert slide.properties["openslide.objective-power"] == "20"
    assert slide.properties["openslide.barcode"] == "A1"
    assert slide.properties["zarrgpu.argos.middle-z"] == ("1" if planes > 1 else "0")
    assert "argos.Odd" not in slide.properties
    shown = openslide.OpenSlide(path).read_region((0, 0), 1, slide.level_dimensions[1])
    assert np.array_equal(np.asarray(shown)[..., :3], pages[4 if planes > 1 else 1])
    images = {name: pixels(image) for name, image in slide.associated_images.items()}
    assert set(images) == {"thumbnail", "macro"}
    assert np.array_equal(images["thumbnail"], MAP)
    assert np.array_equal(images["macro"], MACRO)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"least": "x"}, MetadataError, "focal planes from 'x' to '1'"),
        ({"least": 3, "most": 2}, MetadataError, "focal planes from '3' to '2'"),
        ({"xml": "<Argos.Scan.Metadata><MinZ></Argos.Scan.Metadata>"}, MetadataError, "not XML"),
        ({"depth": (3, 2, 3)}, UnsupportedFormatError, r"\[3, 2, 3\] levels"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(options, error, message, tmp_path):
    path = save(tmp_path, **options)
    with pytest.raises(error, match=message) as caught:
        zg.open_slide(path)
    assert "slide.avs" in str(caught.value)


def test_the_private_tag_of_others_is_left_alone(tmp_path):
    path = tmp_path / "other.tif"
    image = tissue(70, 60)
    tifffile.imwrite(
        path, image, tile=(32, 32), photometric="rgb", metadata=None,
        extratags=[(65000, 3, 2, (1, 2), True)],
    )  # fmt: skip
    assert zg.open_slide(path).spec.vendor == "generic-tiff"


def test_heights_whose_difference_overflows_are_many_planes(tmp_path):
    slide = zg.open_slide(save(tmp_path, least="-1e308", most="1e308"))
    assert slide.properties["zarrgpu.argos.middle-z"] == "2"


@pytest.mark.parametrize("planes", [1, 3])
def test_the_quickhash_is_of_the_plane_in_the_middle_and_of_the_xml(planes, tmp_path):
    """By the rule in the words of OpenSlide's reader; the release that is installed has none."""
    path = save(tmp_path, planes)
    data, digest = path.read_bytes(), hashlib.sha256()
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[5 if planes > 1 else 2]
        for at, nbytes in zip(page.dataoffsets, page.databytecounts, strict=True):
            digest.update(data[at : at + nbytes])
        for name in ("ImageDescription", "Make", "Model", "Software", "DateTime", "Artist",
                     "HostComputer", "Copyright", "DocumentName"):  # fmt: skip
            tag = tiff.pages[page.index - 2].tags.get(name)
            digest.update(f"tiff.{name}\0{tag.value if tag else ''}\0".encode())
    digest.update(XML.format(least=-1, most=1).encode() + b"\0")
    slide = zg.open_slide(path)
    assert slide.properties["openslide.quickhash-1"] == digest.hexdigest()
    assert not any(name.startswith("openslide.bounds") for name in slide.properties)
