"""Law: an OME-Zarr image says of itself what its metadata says, its labels lie where it lies, and a
collection gives its images in their order; pixels are those that zarr-python reads.
"""

from __future__ import annotations

import json
import pickle
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import zarrgpu as zg
from tests.ngff_cases import axes_of, damage, datasets_06, edge, system, wrap
from tests.synthetic_ngff import multiscale_of, write_group, write_image, write_levels, write_plate
from tests.zarr_cases import MemoryStore
from zarrgpu.cli import main
from zarrgpu.convert import convert
from zarrgpu.errors import (
    MetadataError,
    NodeNotFoundError,
    SelectionError,
    UnsupportedFormatError,
)
from zarrgpu.formats.ngff_channels import parse_channel, parse_image_label

zarr = pytest.importorskip("zarr")

VERSIONS = pytest.mark.parametrize("version", ["0.4", "0.5", "0.6"])


# ---------------------------------------------------------------------------- images and channels


@VERSIONS
def test_an_image_says_how_it_lies_in_space(tmp_path, version):
    levels = write_image(tmp_path / "i", version, "czyx", (2, 3, 40, 48))
    image = zg.open(tmp_path / "i")
    assert isinstance(image, zg.OmeZarrImage)
    assert image.units == (None, "micrometer", "micrometer", "micrometer")
    assert image.multiscale.scale(1) == (1, 1, 1, 1)
    assert image.affine(1).tolist() == np.eye(5).tolist()
    assert image.affine(0).tolist() == np.diag([1, 1, 0.5, 0.5, 1]).tolist()
    assert image.coordinate_systems == (("physical",) if version == "0.6" else ("",))
    again = pickle.loads(pickle.dumps(image)).with_fill_value(7)
    assert again.read_region((-1, 0), 0, (1, 1))[0, 0, 0] == 7
    assert np.array_equal(again.affine(0), image.affine(0))
    stated = zg.open_slide(tmp_path / "i", mpp=3.0)
    assert isinstance(stated, zg.OmeZarrImage)
    assert stated.mpp == (3.0, 3.0)
    for level, data in enumerate(levels):
        got = image.read_region((0, 0), level, image.level_dimensions[level], position={"z": 2})
        assert np.array_equal(got, data[:, 2].transpose(1, 2, 0))


def test_channels_have_names_colours_and_windows(tmp_path):
    window = {"start": 5, "end": 100.5, "min": 0, "max": 65535}
    channels = [
        {"label": "DAPI", "color": "0000FF", "window": window},
        {"color": "#ff8000", "active": False},
        {"label": 3, "color": "blue", "window": {"start": "0", "end": 1}, "active": 1},
    ]
    write_image(tmp_path / "i", "0.5", "cyx", (3, 20, 20), omero={"channels": [*channels, 5]})
    first, second, third, none = zg.open(tmp_path / "i").channels
    assert (first.name, first.color, first.active) == ("DAPI", (0, 0, 255), True)
    assert (first.window, first.limits) == ((5.0, 100.5), (0.0, 65535.0))
    assert (second.name, second.color, second.active) == ("", (255, 128, 0), False)
    assert second.window is None
    assert (third.name, third.color, third.window, third.limits) == ("", None, None, None)
    assert (none.name, none.color) == ("", None)  # malformed, in its place
    assert parse_channel({"color": "00FF0080"}).color == (0, 255, 0)


@VERSIONS
def test_all_images_of_a_group_by_index_and_by_name(tmp_path, version):
    first, second = (multiscale_of(version, axes, 2) for axes in ("yx", "cyx"))
    second["name"] = "other"
    for index, dataset in enumerate(second["datasets"]):
        dataset["path"] = f"t{index}"
    group = write_group(tmp_path / "g", version, multiscales=[first, second])
    written = [
        write_levels(group, "yx", (30, 40), levels=2, dtype="u1", seed=1),
        write_levels(group, "cyx", (2, 30, 40), levels=2, dtype="u1", seed=2, name="t"),
    ]
    image = zg.open(tmp_path / "g")
    assert image.multiscales == ("image", "other")
    for key, levels in ((0, written[0]), ("image", written[0]), (1, written[1]),
                        ("other", written[1])):  # fmt: skip
        found = pickle.loads(pickle.dumps(image)).open_multiscale(key)
        assert [np.array_equal(a[...], b) for a, b in zip(found.levels, levels, strict=True)] == [
            True, True,
        ]  # fmt: skip
    for wrong in (2, -1, "no"):
        with pytest.raises(SelectionError):
            image.open_multiscale(wrong)


def test_matrices_in_arrays_are_read_when_they_are_asked_for(tmp_path):
    systems = [system(name, axes_of("yx")) for name in ("physical", "a", "b", "c", "d")]
    document = {
        "coordinateSystems": systems,
        "datasets": datasets_06([[2.0, 3.0]]),
        "coordinateTransformations": [
            edge("affine", "physical", "a", path="matrices/a"),
            edge("rotation", "physical", "b", path="matrices/b"),
            edge("affine", "physical", "c", path="matrices/huge"),
            edge("affine", "physical", "d", path="matrices/none"),
        ],
    }
    group = write_group(tmp_path / "i", "0.6", multiscales=[document])
    write_levels(group, "yx", (20, 20), levels=1, dtype="u1", seed=0)
    group.create_group("matrices")
    rows = np.array([[1, 0.5, 3], [0, 2, -1]])
    group.create_array("matrices/a", data=rows)
    group.create_array("matrices/b", data=np.array([[0.0, -1], [1, 0]]))
    group.create_array("matrices/huge", shape=(10**6, 10**6), chunks=(10, 10), dtype="f8")
    image = zg.open(tmp_path / "i")
    scale = np.diag([2.0, 3.0, 1.0])
    assert np.allclose(image.affine(0, "a"), np.vstack([rows, [0, 0, 1]]) @ scale)
    assert np.allclose(image.affine(0, "b")[:2, :2], [[0, -3], [2, 0]])
    with pytest.raises(MetadataError, match="no array of a matrix"):
        image.affine(0, "c")
    with pytest.raises(NodeNotFoundError):
        image.affine(0, "d")


# ------------------------------------------------------------------------------------------ labels


def write_labelled(
    path: Path, version: str, label_axes: str = "yx", label_shape: tuple[int, ...] = (40, 48),
    *, dtype: str = "int32", pixel: float = 0.5,
) -> list[np.ndarray]:  # fmt: skip
    write_image(path, version, "cyx", (2, 40, 48))
    write_group(path / "labels", version, labels=["cells"])
    label = {
        "colors": [{"label-value": 1, "rgba": [255, 0, 0, 128]}, {"label-value": 2}],
        "properties": [{"label-value": 1, "class": "nucleus"}],
    }
    return write_image(
        path / "labels/cells", version, label_axes, label_shape, dtype=dtype, seed=5, pixel=pixel,
        **{"image-label": label},
    )  # fmt: skip


@VERSIONS
def test_labels_lie_where_their_image_lies(tmp_path, version):
    levels = write_labelled(tmp_path / "i", version)
    image = zg.open(tmp_path / "i")
    assert list(image.labels) == ["cells"]
    assert len(image.labels) == 1
    assert "cells" in image.labels
    assert "no" not in image.labels
    cells = image.labels["cells"]
    assert cells.image_label.colors == {1: (255, 0, 0, 128)}
    assert cells.image_label.properties == {1: {"class": "nucleus"}}
    assert cells.image_label.source == "../../"
    assert image.image_label is None
    locations = [(0, 0), (7, 3), (30, 36), (-2, -4)]
    for level, data in enumerate(levels):
        padded = np.pad(data, ((9, 60), (9, 60)))
        got = image.read_labels("cells", locations, level, (10, 6))
        assert got.dtype == np.int32
        assert got.shape == (4, 6, 10)
        for (x, y), region in zip(locations, got, strict=True):
            x, y = (int(np.floor(v / image.level_downsamples[level] + 0.5)) + 9 for v in (x, y))
            assert np.array_equal(region, padded[y : y + 6, x : x + 10])
        out = np.empty_like(got)
        assert image.read_labels("cells", locations, level, (10, 6), out=out) is out
        assert np.array_equal(out, got)
    with pytest.raises(NodeNotFoundError):
        image.labels["no"]


def test_labels_of_fewer_axes_are_the_same_for_all_positions(tmp_path):
    write_image(tmp_path / "i", "0.5", "tzyx", (2, 3, 40, 48))
    write_group(tmp_path / "i/labels", "0.5", labels=["a", "b"])
    flat = write_image(tmp_path / "i/labels/a", "0.5", "yx", (40, 48), dtype="u1")[0]
    deep = write_image(tmp_path / "i/labels/b", "0.5", "tzyx", (1, 3, 40, 48), dtype="u1")[0]
    image = zg.open(tmp_path / "i")
    for z in range(3):
        at = {"t": 1, "z": z}
        got = image.read_labels("a", [(4, 5)], 0, (8, 8), position=at)[0]
        assert np.array_equal(got, flat[5:13, 4:12])
        got = image.read_labels("b", [(4, 5)], 0, (8, 8), position=at)[0]
        assert np.array_equal(got, deep[0, z, 5:13, 4:12])


def test_labels_that_do_not_fit_are_refused(tmp_path):
    write_labelled(tmp_path / "small", "0.5", label_shape=(20, 24))
    image = zg.open(tmp_path / "small")
    with pytest.raises(SelectionError, match="no level of 48 x 40 px"):
        image.read_labels("cells", [(0, 0)], 0, (4, 4))
    with pytest.raises(MetadataError, match="pixels away"):  # 24 x 20 px, of another pixel size
        image.read_labels("cells", [(0, 0)], 1, (4, 4))
    write_labelled(tmp_path / "coarse", "0.5", label_shape=(20, 24), pixel=1.0)
    levels = zg.open(tmp_path / "coarse").labels["cells"].levels
    got = zg.open(tmp_path / "coarse").read_labels("cells", [(8, 4)], 1, (4, 4))
    assert np.array_equal(got[0], levels[0][2:6, 4:8])
    write_labelled(tmp_path / "floats", "0.5", dtype="float32")
    with pytest.raises(MetadataError, match="must be integers"):
        zg.open(tmp_path / "floats").read_labels("cells", [(0, 0)], 0, (4, 4))
    write_labelled(tmp_path / "channels", "0.5", "cyx", (2, 40, 48))
    with pytest.raises(SelectionError, match="2 channels"):
        zg.open(tmp_path / "channels").read_labels("cells", [(0, 0)], 0, (4, 4))


def test_images_without_labels_and_with_unlisted_ones(tmp_path):
    write_image(tmp_path / "i", "0.5", "yx", (20, 20))
    assert dict(zg.open(tmp_path / "i").labels) == {}
    zarr.create_group(tmp_path / "i/labels")
    write_image(tmp_path / "i/labels/a", "0.5", "yx", (20, 20), dtype="u1")
    assert list(zg.open(tmp_path / "i").labels) == ["a"]
    write_group(tmp_path / "i/labels", "0.5", labels=[3])
    with pytest.raises(MetadataError, match="list of names"):
        list(zg.open(tmp_path / "i").labels)


def test_odd_label_metadata_is_left_out():
    for value in (None, 3, [], {"colors": 3}, {"colors": [3, {"label-value": "1", "rgba": [1]}]}):
        found = parse_image_label({"image-label": value})
        assert found is None or not found.colors
    found = parse_image_label({"image-label": {"colors": [{"label-value": 2.0, "rgba": [1] * 4}]}})
    assert found.colors == {2: (1, 1, 1, 1)}


def test_real_labels(shared_data):
    for version in ("v0.4", "v0.5"):
        path = shared_data / "ome" / version
        if not path.is_dir():
            pytest.skip(f"no {path}")
        image = zg.open(path)
        assert list(image.labels) == ["nuclei"]
        nuclei = zarr.open_group(path, mode="r")["labels/nuclei/0"][...]
        got = image.read_labels("nuclei", [(2, 3)], 0, (8, 5), position={"z": 4})
        assert np.array_equal(got[0], nuclei[4, 3:8, 2:10])


# ------------------------------------------------------------------------------- series and scenes

XML = """<?xml version="1.0" encoding="UTF-8"?>
<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">{}</OME>"""


def write_series(path: Path, version: str, paths: list[str], listed: list[str] | None) -> None:
    write_group(path, version, **{"bioformats2raw.layout": 3})
    for number, name in enumerate(paths):
        write_image(path / name, version, "yx", (20, 20), seed=number)
    metadata = {} if listed is None else {"series": listed}
    write_group(path / "OME", version, **metadata)


@VERSIONS
def test_a_series_is_in_the_order_of_its_ome_xml(tmp_path, version):
    write_series(tmp_path / "s", version, ["0", "1", "extra"], ["extra", "0", "1"])
    series = zg.open(tmp_path / "s")
    assert isinstance(series, zg.Series)
    assert isinstance(series, zg.Group)
    assert [image.path for image in series.images] == ["extra", "0", "1"]
    assert [image.name for image in series.images] == ["", "", ""]
    theirs = zarr.open_group(tmp_path / "s", mode="r")
    for image in series.images:
        expected = theirs[f"{image.path}/s0"][...]
        assert np.array_equal(series[image.path].levels[0][...], expected)
    assert series.ome_xml is None
    images = "".join(f'<Image ID="Image:{n}" Name="{n} &amp; co"/>' for n in "abc")
    (tmp_path / "s/OME/METADATA.ome.xml").write_text(XML.format(images), "utf-8")
    assert [image.name for image in series.images] == ["a & co", "b & co", "c & co"]
    assert "of 3 images" in repr(series)


def test_a_series_that_is_not_listed_is_numbered(tmp_path):
    write_series(tmp_path / "s", "0.4", ["0", "1", "2", "4"], None)
    assert [image.path for image in zg.open(tmp_path / "s").images] == ["0", "1", "2"]


@pytest.mark.parametrize(
    "text",
    ["<OME", XML.format("<Image/>"), '<!DOCTYPE a [<!ENTITY b "c">]><OME/>', "\xff", ""],
)
def test_bad_ome_xml_is_an_error(tmp_path, text):
    write_series(tmp_path / "s", "0.5", ["0", "1"], None)
    (tmp_path / "s/OME/METADATA.ome.xml").write_bytes(text.encode("latin-1"))
    with pytest.raises(MetadataError, match=r"METADATA\.ome\.xml"):
        _ = zg.open(tmp_path / "s").images


def test_a_series_that_is_no_list_is_an_error(tmp_path):
    write_series(tmp_path / "s", "0.5", ["0"], None)
    write_group(tmp_path / "s/OME", "0.5", series="0")
    with pytest.raises(MetadataError, match="expected a list of paths"):
        _ = zg.open(tmp_path / "s").images


def test_the_only_image_of_a_series_is_the_slide(tmp_path):
    write_series(tmp_path / "one", "0.4", ["0"], None)
    slide = zg.open_slide(tmp_path / "one")
    assert np.array_equal(slide.levels[0][...], zg.open(tmp_path / "one/0").levels[0][...])
    converted = convert(tmp_path / "one", tmp_path / "converted")
    assert np.array_equal(zg.open(converted).levels[0][...], slide.levels[0][...])
    write_series(tmp_path / "two", "0.5", ["0", "label"], ["0", "label"])
    for call in (zg.open_slide, lambda path: convert(path, tmp_path / "no")):
        with pytest.raises(UnsupportedFormatError, match=r"2 images \(0, label\).* as .*two/0"):
            call(tmp_path / "two")
    write_series(tmp_path / "none", "0.5", [], None)
    with pytest.raises(UnsupportedFormatError, match="a series of 0 images"):
        zg.open_slide(tmp_path / "none")


def test_an_image_or_plate_of_bioformats2raw_is_what_it_is(tmp_path):
    write_image(tmp_path / "i", "0.4", "yx", (20, 20), **{"bioformats2raw.layout": 3})
    assert isinstance(zg.open(tmp_path / "i"), zg.OmeZarrImage)


@pytest.fixture
def scene(tmp_path):
    shift = {"type": "translation", "translation": [10.0, 5.0]}
    steps = [
        {**shift, "input": {"path": "a", "name": "physical"}, "output": {"name": "world"}},
        {"type": "affine", "path": "coordinateTransformations/b", "output": {"name": "world"},
         "input": {"path": "b", "name": "physical"}},
        {"type": "displacements", "path": "field", "input": {"path": "c", "name": "physical"},
         "output": {"name": "world"}},
    ]  # fmt: skip
    document = {
        "coordinateSystems": [system("world", axes_of("yx"))],
        "coordinateTransformations": steps,
    }
    group = write_group(tmp_path / "s", "0.6", scene=document)
    for name in "abc":
        write_image(tmp_path / "s" / name, "0.6", "yx", (20, 20))
    group.create_group("coordinateTransformations")
    rows = np.array([[0.0, -2.0, 1.0], [2.0, 0.0, 3.0]])
    group.create_array("coordinateTransformations/b", data=rows)
    return tmp_path / "s", np.vstack([rows, [0, 0, 1]])


def test_a_scene_says_how_its_images_lie_to_each_other(scene):
    path, rows = scene
    found = pickle.loads(pickle.dumps(zg.open(path)))
    assert isinstance(found, zg.Scene)
    assert found.images == ("a", "b", "c")
    assert ("a", "physical") in found.coordinate_systems
    to_world = np.array([[1, 0, 10], [0, 1, 5], [0, 0, 1.0]])
    assert np.allclose(found.affine(("a", "physical"), "world"), to_world)
    assert np.allclose(found.affine("world", ("b", "physical")), np.linalg.inv(rows))
    between = found.affine(("a", "physical"), ("b", "physical"))
    assert np.allclose(between, np.linalg.inv(rows) @ to_world)
    # pixel (8, 6) of a, in pixels of b, by hand
    pixel = np.linalg.inv(found["b"].affine()) @ between @ found["a"].affine() @ [8, 6, 1]
    y, x = 8 * 0.5 + 10, 6 * 0.5 + 5
    assert np.allclose(pixel[:2], [(x - 3) / 2 / 0.5 + 0, -(y - 1) / 2 / 0.5][::1])
    with pytest.raises(UnsupportedFormatError, match="displacements"):
        found.affine(("c", "physical"), "world")
    with pytest.raises(SelectionError, match="no coordinate system"):
        found.affine("a", "world")


def test_a_scene_whose_images_are_not_there(scene):
    path, _ = scene
    write_image(path / "a", "0.5", "yx", (20, 20))
    with pytest.raises(MetadataError, match="no coordinate system 'physical'"):
        zg.open(path).affine(("a", "physical"), "world")
    write_group(path / "a", "0.6")
    with pytest.raises(NodeNotFoundError, match="no image at 'a'"):
        zg.open(path).affine(("a", "physical"), "world")


def test_real_scenes(shared_data):
    folder = shared_data / "ome" / "v0.6_scene"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    found = zg.open(folder / "example2_multi_instrument_chain.zarr")
    one, two, three = ((f"instrument{n}", "physical") for n in (1, 2, 3))
    first = np.array([[1, 0, 0, 10], [0, 1, 0, 5], [0, 0, 1, -2], [0, 0, 0, 1.0]])
    last = np.array([[0.9, 0.1, 0, 0], [0, 1.1, 0, 1], [0, 0, 1.2, 3], [0, 0, 0, 1]])
    assert np.allclose(found.affine(one, two), first)
    assert np.allclose(found.affine(one, three), np.linalg.inv(last) @ first)
    image = found["instrument1"]
    assert isinstance(image, zg.OmeZarrImage)
    assert image.multiscale.version == "0.6.dev3"
    assert image.axes == ("z", "y", "x")
    assert image.mpp == (1.0, 1.0)


# -------------------------------------------------------------------------------------------- .ozx


def zipped(folder: Path, name: Path) -> Path:
    """Archive by RFC-9: documents first, nothing compressed, a comment that names the version."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    files.sort(key=lambda p: (p.name != "zarr.json", len(p.parts)))
    with zipfile.ZipFile(name, "w", zipfile.ZIP_STORED) as archive:
        archive.comment = json.dumps({"ome": {"version": "0.5", "zipFile": {}}}).encode()
        for file in files:
            archive.write(file, str(file.relative_to(folder)))
    return name


def test_an_archive_is_read_like_a_folder(tmp_path):
    fields = write_plate(tmp_path / "p", "0.5")
    plate = zg.open(zipped(tmp_path / "p", tmp_path / "p.ozx"))
    assert list(plate) == ["A/1", "A/10", "B/2"]
    assert np.array_equal(plate["B/2/1"].levels[0][...], fields["B/2/1"])
    levels = write_labelled(tmp_path / "i", "0.5")
    image = zg.open(zipped(tmp_path / "i", tmp_path / "i.ozx"))
    assert np.array_equal(image.read_labels("cells", [(0, 0)], 0, (48, 40))[0], levels[0])
    assert zg.validate(tmp_path / "p.ozx") == zg.validate(tmp_path / "i.ozx") == ()
    assert np.array_equal(zg.open(tmp_path / "p.ozx/A/1/0").levels[0][...], fields["A/1/0"])


# ---------------------------------------------------------------------------------------- validate


@VERSIONS
def test_what_is_written_well_has_no_problems(tmp_path, version):
    write_plate(tmp_path / "p", version)
    write_labelled(tmp_path / "i", version)
    write_series(tmp_path / "s", version, ["0", "1"], ["1", "0"])
    for name in "pis":
        assert zg.validate(tmp_path / name) == ()
        assert zg.validate(zg.open(tmp_path / name)) == ()
    assert {p.kind for p in zg.validate(tmp_path / "i", strict=True)} == {"missing"}


def problems(path: Path, **options: bool) -> list[tuple[str, str, str]]:
    return [
        (p.source.removeprefix(str(path)), ".".join(map(str, p.location)), p.kind)
        for p in zg.validate(path, **options)
    ]


def test_problems_of_all_that_lies_below(tmp_path):
    path = tmp_path / "p"
    write_plate(path, "0.5")
    group = zarr.open_group(path / "B/2")
    images = [{"path": "0", "acquisition": 2}, {"path": "9", "acquisition": 1}]
    group.attrs["ome"] = {"version": "0.5", "well": {"images": images}}
    field = zarr.open_group(path / "A/1/0")
    ome = dict(field.attrs["ome"])
    ome["multiscales"][0]["datasets"].append(
        {"path": "s7", "coordinateTransformations": [{"type": "scale", "scale": [1, 1, 1]}]}
    )
    ome["multiscales"][0]["axes"][1]["name"] = 5
    field.attrs["ome"] = ome
    write_image(path / "A/1/1", "0.4", "yx", (20, 20))
    plate = dict(zarr.open_group(path).attrs["ome"])
    plate["plate"]["wells"].append({"path": "B/1", "rowIndex": 1, "columnIndex": 0})
    zarr.open_group(path).attrs["ome"] = plate
    assert problems(path) == [
        ("/A/1/0", "ome.multiscales.0.axes.1.name", "type"),
        ("/A/1/0", "ome.multiscales.0.datasets.2.path", "missing"),
        ("/A/1/1", "", "value"),  # of version 0.4
        ("/B/2", "ome.well.images.1.path", "missing"),
        ("", "ome.plate.wells.3.path", "missing"),
    ]
    assert problems(path, deep=False) == []


def test_problems_of_levels_and_labels(tmp_path):
    write_labelled(tmp_path / "i", "0.5", dtype="float32")
    group = zarr.open_group(tmp_path / "i")
    group.create_array("s1", data=np.zeros((60, 60), "u1"), overwrite=True)
    assert problems(tmp_path / "i") == [
        ("", "ome.multiscales.0.datasets.1.path", "value"),
        ("/labels/cells", "ome.multiscales.0.datasets.0.path", "type"),
        ("/labels/cells", "ome.multiscales.0.datasets.1.path", "type"),
    ]
    (tmp_path / "i/s0/zarr.json").write_text("{")
    assert ("/s0", "", "syntax") in problems(tmp_path / "i")


def test_what_the_text_demands_of_the_store(tmp_path):
    write_plate(tmp_path / "p", "0.5")
    well = zarr.open_group(tmp_path / "p/A/1")
    images = [{"path": "0"}, {"path": "1", "acquisition": 7}]
    well.attrs["ome"] = {"version": "0.5", "well": {"images": images}}
    assert problems(tmp_path / "p") == [
        ("/A/1", "ome.well.images.0.acquisition", "missing"),
        ("/A/1", "ome.well.images.1.acquisition", "value"),
    ]
    write_labelled(tmp_path / "i", "0.5")
    write_image(tmp_path / "i/labels/cells", "0.5", "yx", (40, 48), levels=1)
    group = zarr.open_group(tmp_path / "i")
    group.create_array("s0", data=np.zeros((2, 40, 48), "u2"), overwrite=True)
    names = ["c", "x", "y"]
    group.create_array(
        "s1", data=np.zeros((2, 20, 24), "u2"), dimension_names=names, overwrite=True
    )
    assert problems(tmp_path / "i") == [
        ("", "ome.multiscales.0.datasets.0.path", "missing"),  # dimension_names
        ("", "ome.multiscales.0.datasets.1.path", "value"),
        ("/labels/cells", "ome.multiscales.0.datasets", "value"),  # levels
    ]
    for version, attributes in (("0.4", "0.5"), ("0.5", "0.4")):
        document = multiscale_of(attributes, "yx", 1)
        group = write_group(tmp_path / version, version, multiscales=[document])
        group.attrs.put(wrap(attributes, multiscales=[document]))
        (found,) = zg.validate(tmp_path / version, deep=False)
        assert "OME-Zarr 0." in found.message


def test_problems_of_a_scene(scene):
    path, _ = scene
    attributes = dict(zarr.open_group(path).attrs["ome"])
    attributes["scene"]["coordinateTransformations"][0]["input"]["path"] = "nowhere"
    zarr.open_group(path).attrs["ome"] = attributes
    at = "ome.scene.coordinateTransformations.0.input.path"
    assert problems(path) == [("", at, "missing")]


def test_what_cannot_be_validated(tmp_path):
    with pytest.raises(NodeNotFoundError):
        zg.validate(tmp_path)
    zarr.create_array(tmp_path / "a", data=np.zeros(3))
    with pytest.raises(UnsupportedFormatError, match="is an array"):
        zg.validate(tmp_path / "a")
    with pytest.raises(UnsupportedFormatError, match="cannot validate a int"):
        zg.validate(3)
    zarr.create_group(tmp_path / "g")
    (found,) = zg.validate(tmp_path / "g")
    assert found.kind == "missing"
    (tmp_path / "g/zarr.json").write_text("[]")
    (found,) = zg.validate(tmp_path / "g")
    assert found.kind == "type"


def test_the_command_lists_problems(tmp_path, capsys):
    write_labelled(tmp_path / "i", "0.5")
    assert main(["validate", str(tmp_path / "i")]) == 0
    assert capsys.readouterr().out == "no problems\n"
    assert main(["validate", "--strict", "--shallow", str(tmp_path / "i")]) == 1
    shown = capsys.readouterr()
    assert "ome.multiscales.0.metadata is missing  (missing)" in shown.out
    assert "2 problem(s)" in shown.err


# ------------------------------------------------------------------------------------ bad metadata


def stored(path: Path) -> dict[str, bytes]:
    """Objects of a folder."""
    return {
        str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()
    }


@pytest.fixture(scope="module", params=["0.4", "0.5", "0.6"])
def objects(request, tmp_path_factory):
    version = request.param
    path = tmp_path_factory.mktemp("fuzz")
    labels = write_labelled(path / "image", version)
    group = zarr.open_group(path / "image", mode="r")
    fields = write_plate(path / "plate", version)
    return version, stored(path), [group[name][...] for name in ("s0", "s1")], labels, fields


def with_damage(version: str, objects: dict[str, bytes], group: str, seed: int) -> MemoryStore:
    """The objects with the attributes of a group damaged."""
    name = ".zattrs" if version < "0.5" else "zarr.json"
    key = f"{group}/{name}"
    document = json.loads(objects[key])
    attributes = document if version < "0.5" else document["attributes"]
    broken = damage(attributes, random.Random(seed).choice)
    document = broken if version < "0.5" else document | {"attributes": broken}
    changed = {**objects, key: json.dumps(document).encode()}
    return MemoryStore({k.removeprefix(f"{root_of(group)}/"): v for k, v in changed.items()})


def root_of(group: str) -> str:
    return group.split("/", maxsplit=1)[0]


@pytest.mark.parametrize("group", ["image", "image/labels", "image/labels/cells"])
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**63))
def test_damaged_images_give_right_pixels_or_an_error(objects, group, seed):
    version, good, levels, labels, _ = objects
    store = with_damage(version, good, group, seed)
    try:
        image = zg.open(store)
        if isinstance(image, zg.OmeZarrImage) and image.axes == ("c", "y", "x"):
            first = int(image.multiscale.paths[0] == "s1")  # it may have lost its finest level
            got = image.read_region((3, 4), 0, (8, 8), device="cpu", layout="NCHW")
            assert np.array_equal(got, levels[first][:, 4:12, 3:11])
            for name in image.labels:
                masks = image.read_labels(name, [(3, 4)], 0, (8, 8), device="cpu")
                assert np.array_equal(masks[0], labels[first][4:12, 3:11])
            assert all(isinstance(channel.name, str) for channel in image.channels)
            assert all(size is None or size > 0 for size in image.mpp)
    except zg.ZarrGPUError:
        pass
    assert isinstance(zg.validate(store), tuple)
    assert isinstance(zg.validate(store, strict=True, deep=False), tuple)


@pytest.mark.parametrize("group", ["plate", "plate/A/1", "plate/A/1/0"])
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**63))
def test_damaged_plates_give_right_pixels_or_an_error(objects, group, seed):
    version, good, _, _, fields = objects
    store = with_damage(version, good, group, seed)
    try:
        plate = zg.open(store)
        if isinstance(plate, zg.Plate):
            got = plate.read_regions([(3, 4)], 0, (8, 8), device="cpu", layout="NCHW", fields=None)
            for path, regions in got.items():
                image = plate[path]
                if image.multiscale.paths[0] == "s0" and image.axes == ("c", "y", "x"):
                    assert np.array_equal(regions[0], fields[path][:, 4:12, 3:11])
    except zg.ZarrGPUError:
        pass
    assert isinstance(zg.validate(store), tuple)
