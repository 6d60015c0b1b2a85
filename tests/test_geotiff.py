"""Law: what a GeoTIFF says of place, missing values and bands is in the attributes of its arrays.

Oracles: tifffile's reading of the keys; numbers of the standard's own examples; GDAL's rules.
"""

from __future__ import annotations

import io

import numpy as np
import pytest
import tifffile

import zarrgpu as zg
from tests.tiff_arrays import page_array, ramp, write
from zarrgpu.errors import MetadataError
from zarrgpu.formats.geotiff import parse_nodata, scaled_geotransform

SCALE, TIEPOINT, MATRIX, KEYS, DOUBLES, ASCII = 33550, 33922, 34264, 34735, 34736, 34737
METADATA, NODATA = 42112, 42113
UTM = [(1024, 0, 1, 1), (1025, 0, 1, 1), (3072, 0, 1, 32631)]


def keys(entries: list[tuple[int, int, int, int]]) -> tuple:
    values = [1, 1, 0, len(entries), *(v for entry in entries for v in entry)]
    return (KEYS, 3, len(values), tuple(values), True)


def doubles(tag: int, *values: float) -> tuple:
    return (tag, 12, len(values), values, True)


def text(tag: int, value: str) -> tuple:
    return (tag, 2, len(value) + 1, value, True)


def attributes(*tags: tuple, image: np.ndarray | None = None, **options) -> dict:
    image = np.zeros((20, 30), "u1") if image is None else image
    return dict(page_array(write(image, extratags=tags, **options)).attrs)


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
def test_scale_and_tiepoint_make_a_geotransform(byteorder, big):
    tags = (doubles(SCALE, 10, 20, 0), doubles(TIEPOINT, 2, 3, 0, 500_000, 4_600_000, 0), keys(UTM))
    got = attributes(*tags, byteorder=byteorder, big=big)
    assert got["geotransform"] == (500_000 - 20, 10, 0, 4_600_000 + 60, 0, -20)
    assert got["crs"] == "EPSG:32631"
    assert got["geo_keys"]["ProjectedCRSGeoKey"] == 32631
    assert "gcps" not in got


def test_pixel_centres_become_corners_as_gdal_has_it():
    point = [(1024, 0, 1, 2), (1025, 0, 1, 2), (2048, 0, 1, 4326)]
    tags = (doubles(SCALE, 0.5, 0.25, 0), doubles(TIEPOINT, 0, 0, 0, 10, 50, 0), keys(point))
    got = attributes(*tags)
    assert got["geotransform"] == (9.75, 0.5, 0, 50.125, 0, -0.25)
    assert got["crs"] == "EPSG:4326"


def test_a_transformation_matrix_may_rotate():
    matrix = (0, 100, 0, 400_000, 100, 0, 0, 500_000, 0, 0, 0, 0, 0, 0, 0, 1)
    assert attributes(doubles(MATRIX, *matrix))["geotransform"] == (
        400_000,
        0,
        100,
        500_000,
        100,
        0,
    )
    with pytest.raises(MetadataError, match=r"ModelTransformation.*16 values, got 12"):
        attributes(doubles(MATRIX, *matrix[:12]))


def test_tie_points_alone_are_ground_control_points():
    ties = (0, 0, 0, 10, 20, 5, 30, 20, 0, 11, 21, 6)
    got = attributes(doubles(TIEPOINT, *ties))
    assert got["gcps"] == [(0, 0, 10, 20, 5), (30, 20, 11, 21, 6)]
    assert "geotransform" not in got


def test_keys_that_define_their_crs_have_no_code_and_are_all_there():
    entries = [
        (1024, 0, 1, 1), (1026, ASCII, 8, 0), (3072, 0, 1, 32767), (3073, ASCII, 5, 8),
        (3078, DOUBLES, 1, 1), (2062, DOUBLES, 3, 2), (4096, 0, 1, 5773), (60000, 0, 1, 7),
    ]  # fmt: skip
    tags = (
        keys(entries), doubles(DOUBLES, 6e6, 45.5, 1.0, 2.0, 3.0), text(ASCII, "My grid|Mine|"),
    )  # fmt: skip
    got = attributes(*tags)
    assert "crs" not in got
    assert got["vertical_crs"] == "EPSG:5773"
    expected = {
        "GTModelTypeGeoKey": 1, "GTCitationGeoKey": "My grid", "ProjectedCRSGeoKey": 32767,
        "ProjectedCitationGeoKey": "Mine", "ProjStdParallel1GeoKey": 45.5,
        "GeogTOWGS84GeoKey": [1.0, 2.0, 3.0], "VerticalGeoKey": 5773, "60000": 7,
    }  # fmt: skip
    assert got["geo_keys"] == expected
    data = write(np.zeros((20, 30), "u1"), extratags=tags)
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        theirs = tiff.pages[0].geotiff_tags
    assert theirs["GTCitationGeoKey"] == got["geo_keys"]["GTCitationGeoKey"]
    assert list(theirs["GeogTOWGS84GeoKey"]) == got["geo_keys"]["GeogTOWGS84GeoKey"]
    assert theirs["ProjStdParallel1GeoKey"] == got["geo_keys"]["ProjStdParallel1GeoKey"]


def test_a_directory_of_keys_that_is_too_short_is_an_error():
    with pytest.raises(MetadataError, match=r"GeoKeyDirectory.*shorter"):
        attributes((KEYS, 3, 6, (1, 1, 0, 9, 1024, 0), True))


XML = """<GDALMetadata>
  <Item name="AREA">north &amp; south</Item>
  <Item name="DESCRIPTION" sample="1" role="description">near infrared</Item>
  <Item name="SCALE" sample="0" role="scale">0.0001</Item>
  <Item name="OFFSET" sample="0" role="offset">-0.1</Item>
  <Item name="SCALE" sample="9" role="scale">5</Item>
  <Item name="STATISTICS_MEAN" sample="0">7</Item>
</GDALMetadata>"""


def test_gdal_metadata_names_and_scales_bands():
    got = attributes(text(METADATA, XML), image=np.zeros((20, 30, 2), "u2"), planarconfig="contig")
    assert got["band_names"] == ["", "near infrared"]
    assert got["band_scales"] == [0.0001, 1.0]
    assert got["band_offsets"] == [-0.1, 0.0]
    assert got["gdal_metadata"] == {"AREA": "north & south"}
    assert "gdal_metadata" not in attributes(text(METADATA, "<GDALMetadata><Item"))
    bomb = "<!DOCTYPE a [" + "".join(
        f'<!ENTITY e{i} "{f"&e{i - 1};" * 20 if i else "x" * 99}">' for i in range(9)
    )
    assert attributes(text(METADATA, f"{bomb}]><a>&e8;</a>")).keys() >= {"tiff_ifd"}


@pytest.mark.parametrize(
    ("stated", "dtype", "nodata", "fill"),
    [
        ("-9999", "i2", -9999, -9999),
        ("-9999 ", "u2", -9999, 0),
        ("255", "u1", 255, 255),
        ("nan", "f4", np.nan, np.nan),
        ("-3.4028234663852886e+38", "f4", -3.4028234663852886e38, np.finfo("f4").min),
        ("18446744073709551615", "u8", 2**64 - 1, 2**64 - 1),
        ("1.5", "i4", 1.5, 0),
        ("inf", "i4", np.inf, 0),
        ("1e400", "f8", np.inf, np.inf),
        ("", "u1", None, 0),
        ("no", "u1", None, 0),
    ],
)
def test_nodata_is_an_attribute_and_the_value_of_missing_tiles(stated, dtype, nodata, fill):
    image = ramp((32, 48), dtype)
    data = bytearray(write(image, tile=(16, 16), extratags=[text(NODATA, stated)]))
    with tifffile.TiffFile(io.BytesIO(bytes(data))) as tiff:
        tags = tiff.pages[0].tags
        for name in ("TileOffsets", "TileByteCounts"):
            nbytes = {3: 2, 4: 4}[int(tags[name].dtype)]
            at = tags[name].valueoffset + nbytes
            data[at : at + nbytes] = bytes(nbytes)
    array = page_array(bytes(data))
    got = array.attrs.get("nodata")
    assert got == nodata or (got != got and nodata != nodata)
    expected = image.copy()
    expected[:16, 16:32] = fill
    assert np.array_equal(array.read(device="cpu")[..., 0], expected, equal_nan=dtype[0] == "f")


def test_parse_nodata_never_overflows():
    for nodata in (-(2**70), 2**70, 1e300, -1e300, float("nan"), float("inf")):
        for dtype in ("u1", ">i4", "i8", "u8", "f2", ">f8", "?", "c8"):
            assert parse_nodata(nodata, np.dtype(dtype)).dtype == np.dtype(dtype).newbyteorder("=")


def test_overviews_of_a_cog_have_their_own_geotransform(tmp_path):
    image = ramp((128, 96), "i2")
    tags = [
        doubles(SCALE, 10, 10, 0), doubles(TIEPOINT, 0, 0, 0, 100, 900, 0), keys(UTM),
        text(NODATA, "-1"),
    ]  # fmt: skip
    options = {"tile": (32, 32), "metadata": None, "photometric": "minisblack", "compression": 8}
    path = tmp_path / "cog.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(image, extratags=tags, **options)
        writer.write(image[::2, ::2], subfiletype=1, extratags=[tags[3]], **options)
        writer.write(image[::4, ::4], subfiletype=1, extratags=[tags[3]], **options)
    slide = zg.open(path)
    assert slide.level_count == 3
    for level, step in zip(slide.levels, (1, 2, 4), strict=True):
        assert level.attrs["geotransform"] == (100, 10 * step, 0, 900, 0, -10 * step)
        assert level.attrs["crs"] == "EPSG:32631"
        assert level.attrs["nodata"] == -1
        assert level.fill_value == -1
        assert np.array_equal(level.read(device="cpu")[..., 0], image[::step, ::step])
    assert scaled_geotransform((1, 2, 3, 4, 5, 6), 2, 10) == (1, 4, 30, 4, 10, 60)


@pytest.mark.parametrize("nodata", ["nan", "-9999"])
def test_pages_with_the_same_nodata_are_a_stack(nodata, tmp_path):
    images = [ramp((20, 30), "f4"), ramp((20, 30), "f4") + 1]
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        for image in images:
            writer.write(
                image, photometric="minisblack", metadata=None, extratags=[text(NODATA, nodata)]
            )
    stack = zg.open(path)
    assert stack.shape == (2, 20, 30, 1)
    assert np.array_equal(stack.fill_value, float(nodata), equal_nan=True)
    assert np.array_equal(stack.read(device="cpu")[..., 0], np.stack(images))


@pytest.mark.parametrize("digits", [400, 5000])
def test_numbers_of_any_length_are_read_without_overflow(digits):
    huge = "1" * digits
    item = '<Item name="s" sample="{}" role="scale">{}</Item>'
    xml = f"<GDALMetadata>{item.format(0, huge)}{item.format(huge, 2)}</GDALMetadata>"
    found = attributes(text(NODATA, huge), text(METADATA, xml), image=ramp((8, 8), "f4"))
    assert found["nodata"] == np.inf
    assert found["band_scales"] == [np.inf]


def test_gdal_metadata_with_entities_is_not_read():
    xml = '<!DOCTYPE a [<!ENTITY b "c">]><GDALMetadata><Item name="n">&b;</Item></GDALMetadata>'
    assert "gdal_metadata" not in attributes(text(METADATA, xml))
