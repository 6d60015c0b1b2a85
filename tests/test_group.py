"""Law: a group's members are those that zarr-python finds, each opened as what it is."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import zarr

import zarrgpu as zg
from tests.zarr_cases import MemoryStore, Recipe, encode, values, write
from zarrgpu.errors import NodeNotFoundError


class UnlistableStore(MemoryStore):
    """Like an http server."""

    def list_dir(self, prefix: str) -> list[str]:
        raise AssertionError(prefix)


pytestmark = pytest.mark.filterwarnings("ignore:Object at")  # zarr-python on what is no node


@pytest.fixture(params=[2, 3])
def hierarchy(request, tmp_path):
    root = zarr.open_group(
        tmp_path, mode="w", zarr_format=request.param, attributes={"k": [1, {"a": None}]}
    )
    for name in ("b", "a", "c c"):
        root.create_array(name, data=np.arange(6).reshape(2, 3), chunks=(1, 2))
    inner = root.create_group("g", attributes={"deep": True})
    inner.create_group("empty")
    inner.create_array("x", data=np.arange(5.0))
    (tmp_path / "notes.txt").write_text("no node")
    (tmp_path / "folder").mkdir()
    return tmp_path


def test_members_are_zarr_pythons(hierarchy):
    wanted, group = zarr.open_group(hierarchy, mode="r"), zg.open(hierarchy)
    assert isinstance(group, zg.Group)
    assert group.keys() == sorted(wanted.keys()) == ["a", "b", "c c", "g"]
    assert list(group) == group.keys()
    assert dict(group.attrs) == dict(wanted.attrs)
    assert dict(group["g"].attrs) == {"deep": True}
    members = group.members()
    assert [type(node) for _, node in members] == [zg.Array, zg.Array, zg.Array, zg.Group]
    for name in ("a", "b", "c c", "g/x"):
        np.testing.assert_array_equal(group[name].read(device="cpu"), wanted[name][...])
        assert group[name].path == name
    np.testing.assert_array_equal(group["g"]["x"].read(device="cpu"), np.arange(5.0))
    assert group["g"]["x"].path == "g/x"
    assert group["/g/x/"].path == "g/x"
    assert group["g"].keys() == ["empty", "x"]
    assert group["g/empty"].keys() == []
    assert str(hierarchy) in repr(group)


def test_membership(hierarchy):
    group = zg.open(hierarchy)
    for name, there in (
        ("a", True),
        ("g/x", True),
        ("none", False),
        ("folder", False),
        ("notes.txt", False),
    ):
        assert (name in group) is there
    with pytest.raises(NodeNotFoundError, match="none/x"):
        group["none/x"]


@pytest.mark.filterwarnings("ignore:Consolidated")
def test_consolidated_members_need_no_listing(hierarchy):
    root = zarr.open_group(hierarchy, mode="r")
    zarr.consolidate_metadata(hierarchy)
    objects = {
        str(p.relative_to(hierarchy)): p.read_bytes() for p in hierarchy.rglob("*") if p.is_file()
    }
    group = zg.open(UnlistableStore(objects))
    assert group.keys() == ["a", "b", "c c", "g"]
    np.testing.assert_array_equal(group["a"].read(device="cpu"), root["a"][...])


def test_pickled_groups_open_their_members(hierarchy):
    group = pickle.loads(pickle.dumps(zg.open(hierarchy)))
    assert group.keys() == ["a", "b", "c c", "g"]
    np.testing.assert_array_equal(group["a"].read(device="cpu"), np.arange(6).reshape(2, 3))


def test_attributes_of_v2_may_be_absent(tmp_path):
    write(tmp_path, {".zgroup": b'{"zarr_format": 2}'})
    assert zg.open(tmp_path).attrs == {}
    assert zg.open(tmp_path).keys() == []
    data = values((3, 3), "u1")
    recipe = Recipe(chunks=(2, 2), zarr_format=2)
    write(tmp_path, {f"a/{k}": v for k, v in encode(data, recipe).items()})
    assert zg.open(tmp_path).keys() == ["a"]
    assert zg.open(tmp_path)["a"].attrs == {}
