"""Law: a plate gives the wells and fields that its metadata lists, as zarr-python reads them, and
regions of many of them in one plan, in which each chunk is fetched once.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import zarrgpu as zg
from tests.ngff_cases import CASES, damaged
from tests.synthetic_ngff import write_group, write_image, write_plate
from zarrgpu.errors import MetadataError, SelectionError, UnsupportedFormatError
from zarrgpu.formats.ngff_plate import parse_plate, parse_well
from zarrgpu.stores.local import LocalStore

zarr = pytest.importorskip("zarr")


class CountingStore(LocalStore):
    """A folder that knows what was asked of it."""

    def __init__(self, root: str | Path) -> None:
        super().__init__(root)
        self.asked: list[str] = []

    def get(self, key: str, *args: Any, **options: Any) -> Any:
        self.asked.append(key)
        return super().get(key, *args, **options)

    def get_range(self, key: str, *args: Any, **options: Any) -> Any:
        self.asked.append(key)
        return super().get_range(key, *args, **options)


@pytest.fixture(scope="module", params=["0.4", "0.5", "0.6"])
def plate(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("plate") / "p.zarr"
    return path, write_plate(path, request.param)


def test_rows_columns_wells_and_fields(plate):
    path, fields = plate
    found = zg.open(path)
    assert isinstance(found, zg.Plate)
    assert (found.name, found.rows, found.columns) == ("demo", ("A", "B"), ("1", "2", "10"))
    assert list(found) == ["A/1", "A/10", "B/2"]
    assert len(found) == 3
    assert [run.name for run in found.acquisitions] == ["day", "night"]
    assert found.acquisitions[1].start_time == 9
    assert found.spec.field_count == 2
    assert found.place("A/10") == (0, 2)
    assert "A/10" in found
    assert ("B", 2) in found
    assert "A/2" not in found  # a place of the grid without a well
    assert ("C", "1") not in found
    assert 5 not in found
    for well in (found["A/10"], found["A", 10], found["A", "10"], found["/A/10/"]):
        assert isinstance(well, zg.Well)
        assert list(well) == ["0", "1"]
        assert well.group.path == "A/10"
    assert well.acquired(2) == ("1",)
    assert well.acquired(7) == ()
    for image in (well["1"], well[1], well[-1], found["A/10/1"]):
        assert isinstance(image, zg.Slide)
        assert image.mpp == (0.5, 0.5)
        assert np.array_equal(image.levels[0][...], fields["A/10/1"])
    theirs = zarr.open_group(path, mode="r")
    for name, well in found.items():
        for field, image in well.items():
            expected = theirs[f"{name}/{field}/s1"][...]
            assert np.array_equal(image.levels[1][...], expected)


def test_a_column_by_its_number(tmp_path):
    names = ("01", "2", "03", "003", "x3")
    wells = [{"path": f"A/{n}", "rowIndex": 0, "columnIndex": k} for k, n in enumerate(names)]
    document = {"rows": [{"name": "A"}], "columns": [{"name": n} for n in names], "wells": wells}
    write_group(tmp_path / "p", "0.5", plate=document)
    found = zg.open(tmp_path / "p")
    assert [found.place(("A", number)) for number in (1, np.int8(2), "003")] == [
        (0, 0), (0, 1), (0, 3),
    ]  # fmt: skip
    for column in (3, 0, -1, True, "1", None):  # 3 may be "03" or "003"
        assert ("A", column) not in found


@pytest.mark.parametrize("well", ["A/2", "C/1", "A", "", "A/1/0/0", ("A", "2"), ("Z", 1), 3, None])
def test_wells_that_are_not_there(plate, well):
    found = zg.open(plate[0])
    with pytest.raises(SelectionError, match=r"has no well|has no field"):
        found[well]
    assert found.get(well, "none") == "none"


@pytest.mark.parametrize("field", ["2", 2, -3, None, True, "", "../0"])
def test_fields_that_are_not_there(plate, field):
    well = zg.open(plate[0])["A/1"]
    with pytest.raises(SelectionError, match="has no field"):
        well[field]
    assert well.get(field) is None


def test_regions_of_many_wells(plate):
    path, fields = plate
    found = zg.open(path)
    locations = [(0, 0), (13, 7), (30, 30), (-3, -2)]
    got = found.read_regions(locations, 0, (16, 12), layout="NCHW", device="cpu")
    assert list(got) == ["A/1/0", "A/10/0", "B/2/0"]
    for name, regions in got.items():
        padded = np.pad(fields[name], ((0, 0), (9, 40), (9, 40)))
        for (x, y), region in zip(locations, regions, strict=True):
            assert np.array_equal(region, padded[:, y + 9 : y + 21, x + 9 : x + 25])
    everything = found.read_regions([(5, 6)], 0, (8, 8), fields=None, wells=["B/2", ("A", 1)])
    assert list(everything) == ["B/2/0", "B/2/1", "A/1/0", "A/1/1"]
    for name, regions in everything.items():
        assert np.array_equal(regions[0], fields[name][:, 6:14, 5:13].transpose(1, 2, 0))
    night = found.read_regions([(0, 0)], 0, (4, 4), acquisition=2)
    assert list(night) == ["A/1/1", "A/10/1", "B/2/1"]
    floats = found.read_regions([(0, 0)], 0, (4, 4), normalize=(10, 2), wells=["A/1"])
    expected = (fields["A/1/0"][:, :4, :4].transpose(1, 2, 0) - 10.0) / 2
    assert np.allclose(floats["A/1/0"][0], expected, atol=1e-4)
    assert found.read_regions([(0, 0)], 0, (4, 4), acquisition=9, fields=None) == {}
    for wrong in ({"fields": 2}, {"fields": "x"}, {"wells": ["A/2"]}, {"out": None}, {"mpp": 1}):
        with pytest.raises(SelectionError):
            found.read_regions([(0, 0)], 0, (4, 4), **wrong)


def test_a_batch_across_wells_is_one_plan(plate):
    path, _ = plate
    store = CountingStore(path)
    found = zg.open(store)
    images = found.images(fields=None)
    assert len(images) == 6
    opened = len(store.asked)
    store.asked.clear()
    # each field has 2 channels of 3 x 3 chunks; these regions touch the same 4 of each, twice over
    overlapping = [(0, 0), (4, 4), (8, 8), (1, 15), (15, 1)]
    found = zg.open(store)
    found.read_regions(overlapping, 0, (16, 16), fields=None, device="cpu")
    chunks = [key for key in store.asked if "/s0/" in key and key[-1].isdigit()]
    assert len(chunks) == len(set(chunks)) == 6 * 2 * 4
    version = found.spec.version
    # the plate, 3 wells, 6 fields, 12 levels: a document each; v2 asks for two or three
    assert opened <= (1 + 3 + 6 + 12) * (1 if version >= "0.5" else 3) + 4


def test_patches_of_a_plate_train(plate):
    path, fields = plate
    images = zg.open(path).images(fields=None)
    names = list(images)
    sampler = zg.RandomPatches(list(images.values()), size=8, num_patches=40, seed=3)
    table = sampler.epoch_patches(0)
    assert len(set(table.slide.tolist())) > 3
    seen = 0
    for batch in zg.PatchLoader(sampler, batch_size=10, layout="NCHW", device="cpu"):
        for pixels in batch.images:
            (x, y), which = table.location[seen].tolist(), names[table.slide[seen]]
            assert np.array_equal(pixels, fields[which][:, y : y + 8, x : x + 8])
            seen += 1
    assert seen == 40


def test_plates_pickle_and_say_what_they_are(plate, capsys):
    path, fields = plate
    found = pickle.loads(pickle.dumps(zg.open(path)))
    assert repr(found).startswith("<zarrgpu.Plate")
    assert np.array_equal(found["B/2/1"].levels[0][...], fields["B/2/1"])
    from zarrgpu.describe import describe_path, draw_path

    text = "\n".join(describe_path(str(path)))
    assert "wells         A/1, A/10, B/2" in text
    assert "acquisition   2  night" in text
    assert "field 1  acquisition 2" in "\n".join(describe_path(str(path / "A/1")))
    assert "well of 2 field(s)" in str(draw_path(str(path), max_depth=1))


@pytest.mark.parametrize("name", ["v0.4_hcs", "v0.5_hcs"])
def test_real_plates(shared_data, name):
    path = shared_data / "ome" / name
    if not path.is_dir():
        pytest.skip(f"no {path}")
    found = zg.open(path)
    assert (found.name, found.rows, found.columns) == ("test_plate", ("A", "B"), ("1", "2"))
    assert list(found) == ["A/1"]
    theirs = zarr.open_group(path, mode="r")["A/1/0/0"]
    assert np.array_equal(found["A", 1][0].levels[0][...], theirs[...])


def test_fields_that_differ_are_refused(tmp_path):
    write_plate(tmp_path / "p", "0.5")
    write_image(tmp_path / "p/A/1/0", "0.5", "yx", (40, 48))
    with pytest.raises(SelectionError, match="read them apart"):
        zg.open(tmp_path / "p").read_regions([(0, 0)], 0, (4, 4))


def test_what_is_no_well_and_no_image(tmp_path):
    write_plate(tmp_path / "p", "0.5")
    write_group(tmp_path / "p/A/1", "0.5")
    write_group(tmp_path / "p/A/10/0", "0.5")
    found = zg.open(tmp_path / "p")
    with pytest.raises(UnsupportedFormatError, match="no well metadata"):
        found["A/1"]
    with pytest.raises(UnsupportedFormatError, match="no multiscale image"):
        found["A/10/0"]
    wells = {p: type(node).__name__ for p, node in found.group["A"].members()}
    assert wells == {"1": "Group", "10": "Well"}


# ------------------------------------------------------------------------------------- bad metadata


@pytest.mark.parametrize("version", ["0.1", "0.2", "0.3", "0.4", "0.5", "0.6"])
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damaged_plates_are_read_right_or_refused(version, data):
    attributes = data.draw(damaged(CASES[version, "plate"]))
    try:
        found = parse_plate(attributes, "s")
    except (MetadataError, UnsupportedFormatError):
        return
    places = {(well.row, well.column) for well in found.wells}
    assert len(places) == len(found.wells) == len({well.path for well in found.wells}) >= 1
    for well in found.wells:
        row, column = well.path.split("/")
        assert 0 <= well.row < len(found.rows)
        assert 0 <= well.column < len(found.columns)
        if version >= "0.5":
            assert (found.rows[well.row], found.columns[well.column]) == (row, column)
        assert ".." not in (row, column)


@pytest.mark.parametrize("version", ["0.4", "0.5", "0.6"])
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_damaged_wells_are_read_right_or_refused(version, data):
    attributes = data.draw(damaged(CASES[version, "well"]))
    try:
        found = parse_well(attributes, "s")
    except (MetadataError, UnsupportedFormatError):
        return
    assert len({field.path for field in found}) == len(found) >= 1
    assert not any("/" in field.path or field.path in ("", ".", "..") for field in found)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_the_official_plates_and_wells(shared_data, version):
    import json

    for kind, parse in (("plate", parse_plate), ("well", parse_well)):
        for prefix in ("", "strict_"):
            path = shared_data / "ngff" / version / f"{prefix}{kind}_suite.json"
            if not path.is_file():
                pytest.skip(f"no {path}")
            for case in json.loads(path.read_text())["tests"]:
                if case["valid"]:
                    assert parse(case["data"], case["formerly"])


def test_a_device_gives_the_same(plate, cuda):
    found = zg.open(plate[0])
    regions = {"locations": [(0, 0), (13, 7), (-3, 30)], "level": 0, "size": (16, 12)}
    host = found.read_regions(**regions, fields=None, device="cpu")
    device = found.read_regions(**regions, fields=None, device=cuda)
    assert list(device) == list(host)
    for path, expected in host.items():
        got = device[path]
        assert np.array_equal(got.get() if hasattr(got, "get") else got, expected)
