"""Law: what netCDF wrote as Zarr is read as netCDF means it, and dimensions have names and sizes.

`nczarr_files.json` holds what netcdf-c itself wrote.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import pytest
import zarr

import zarrgpu as zg
from tests.hierarchies import (
    FORMATS,
)
from tests.zarr_cases import MemoryStore, Recipe, encode, values, write
from zarrgpu.errors import (
    MetadataError,
)
from zarrgpu.formats.group import Dimension


def netcdf_objects(style: str) -> dict[str, bytes]:
    """A dataset as versions of netcdf-c write it (its docs/nczarr.md and zinternal.h)."""
    recipe = Recipe(chunks=(2, 2), zarr_format=2, separator=".")
    objects = {f"g/v/{k}": v for k, v in encode(values((3, 4), "<f4"), recipe).items()}
    line = Recipe(chunks=(3,), zarr_format=2)
    objects |= {f"t/{k}": v for k, v in encode(np.arange(3, dtype=">i4"), line).items()}
    objects |= {f"g/x/{k}": v for k, v in encode(np.arange(4, dtype="<i4"), line).items()}
    objects |= {
        f"s/{k}": v
        for k, v in encode(np.ones(1, "<i4"), Recipe(chunks=(1,), zarr_format=2)).items()
    }
    t = {"name": "t", "size": 3, "unlimited": 1}
    x = {"name": "x", "size": 4, "unlimited": 0}
    if style == "attributes":
        holder, group, array, dims, refs = (
            ".zattrs",
            "_nczarr_group",
            "_nczarr_array",
            "dimensions",
            "dimension_references",
        )
        shared = [[t], [x]]
    else:
        holder, group, array, dims, refs = None, "_NCZARR_GROUP", "_NCZARR_ARRAY", "dims", "dimrefs"
        shared = [{"t": {"size": 3, "unlimited": 1}}, {"x": "4"}]
    annotations = {
        "": {
            group: {dims: shared[0], "arrays": ["t", "s"], "groups": ["g"]},
            "_nczarr_superblock": {"version": "2.0.0"},
        },
        "g/": {group: {dims: shared[1], "arrays": ["v", "x"], "groups": []}},
        "t/": {array: {refs: ["/t"], "storage": "chunked"}},
        "g/x/": {array: {refs: ["/g/x"], "storage": "chunked"}},
        "g/v/": {array: {refs: ["/t", "/g/x"], "storage": "chunked"}},
        "s/": {array: {refs: [], "storage": "scalar"}},
    }  # fmt: skip
    for path, annotation in annotations.items():
        own = ".zarray" if array in annotation else ".zgroup"
        name = f"{path}{holder or own}"
        document = json.loads(objects.get(name, b"{}"))
        if own == ".zgroup":
            objects[f"{path}.zgroup"] = b'{"zarr_format": 2}'
            document = {"zarr_format": 2} if holder is None else {}
        objects[name] = json.dumps({**document, **annotation}).encode()
        types = {"_nczarr_attr": {"types": {"units": "|S1", "_nczarr_attr": "|J0"}}, "units": "m"}
        attributes_ = json.loads(objects.get(f"{path}.zattrs", b"{}"))
        objects[f"{path}.zattrs"] = json.dumps({**attributes_, **types}).encode()
    return objects


@pytest.mark.parametrize("style", ["attributes", "objects"])
def test_nczarr_is_read_with_its_dimensions(style, tmp_path):
    objects = netcdf_objects(style)
    root, wanted = zg.open(write(tmp_path, objects)), zarr.open_group(tmp_path, mode="r")
    assert root.keys() == sorted(wanted.keys()) == ["g", "s", "t"]
    for path in ("g/v", "g/x", "s", "t"):
        np.testing.assert_array_equal(root[path].read(device="cpu"), wanted[path][...])
        assert dict(root[path].attrs) == dict(wanted[path].attrs)
    assert root["g/v"].dimension_names == ("t", "x")
    assert root["s"].dimension_names == ("_scalar_",)
    assert root["s"].shape == (1,)
    assert root.metadata.dimensions == {"t": Dimension(3, unlimited=True)}
    assert root["g"].dimensions == {
        "t": Dimension(3),
        "x": Dimension(4),
    }
    assert "dimensions    t = 3 (unlimited)" in root.info
    found = root.coordinates("g/v")
    assert {name: array.path for name, array in found.items()} == {"t": "t", "x": "g/x"}
    np.testing.assert_array_equal(found["t"].read(device="cpu"), [0, 1, 2])
    assert list(root["g"].coordinates(root["g/v"])) == ["x"]


FILES = json.loads((Path(__file__).parent / "nczarr_files.json").read_text())


def netcdf_files(version: str) -> dict[str, bytes]:
    """Objects that netcdf-c wrote."""
    return {
        key: base64.b64decode(data["base64"])
        if "base64" in data
        else json.dumps(data["json"]).encode()
        for key, data in FILES[version].items()
    }


@pytest.mark.parametrize("version", ["4.9.0", "4.10.1"])
def test_what_netcdf_c_wrote_is_read(version):
    root = zg.open(MemoryStore(netcdf_files(version)))
    wanted = {
        "c": np.array([b"a", b"b", b"c", b"d"]),
        "g/v": np.arange(15, dtype="f4").reshape(3, 5),
        "g/x": np.arange(5.0),
        "s": np.array([7], "i2"),
        "t": np.array([1, 2, 3], "i4"),
    }
    if version == "4.10.1":  # st: strings are S128; v: shuffled; t: big-endian, unlimited
        wanted["st"] = np.array([b"ab", b"c", b"", b"defg"], "S128")
        wanted["f"] = np.array([1, 2, 3, 65535], "u2")
    arrays = {path: node for path, node in root.members(None) if isinstance(node, zg.Array)}
    assert arrays.keys() == wanted.keys()
    for path, array in arrays.items():
        got = array.read(device="cpu")
        np.testing.assert_array_equal(got, wanted[path])
        assert got.dtype == wanted[path].dtype
    names = {path: array.dimension_names for path, array in arrays.items()}
    assert (names["g/v"], names["g/x"], names["s"]) == (("t", "x"), ("x",), ("_scalar_",))
    assert root.dimensions == {"c": Dimension(4), "t": Dimension(3, unlimited=version == "4.10.1")}
    assert root["g"].metadata.dimensions == {"x": Dimension(5)}
    assert [node.path for node in root.coordinates("g/v").values()] == ["t", "g/x"]
    assert root.attrs["title"] == "hello"


def test_a_shuffle_of_unknown_size_is_refused_and_sizes_may_be_text():
    objects = netcdf_files("4.10.1")
    annotated = objects["g/v/.zattrs"]
    objects["g/v/.zattrs"] = b'{"_ARRAY_DIMENSIONS": ["t", "x"]}'  # as netcdf-c's mode=zarr has it
    group = zg.open(MemoryStore(objects))["g"]
    with pytest.raises(MetadataError, match=r"filters\.0\.elementsize: 0 stands for the size"):
        group["v"]
    assert isinstance(dict(group.members())["v"], zg.UnreadableNode)
    document = json.loads(objects["g/v/.zarray"])
    for dtype in ("\ud800", "<f4,", [], None, "<U\u0663"):
        objects["g/v/.zarray"] = json.dumps({**document, "dtype": dtype}).encode()
        assert isinstance(
            dict(zg.open(MemoryStore(objects))["g"].members())["v"], zg.UnreadableNode
        )
    for size, attrs in (("4", b"{}"), (4, b"{}"), ("0", annotated)):
        document["filters"] = [{"id": "shuffle", "elementsize": size}]
        document["compressor"] = {"id": "zlib", "level": "4"}
        objects |= {"g/v/.zarray": json.dumps(document).encode(), "g/v/.zattrs": attrs}
        array = zg.open(MemoryStore(objects))["g/v"]
        np.testing.assert_array_equal(array.read(device="cpu").ravel(), np.arange(15))


def test_annotations_that_make_no_sense_are_passed_over():
    objects = netcdf_objects("attributes")
    for junk in (3, [], "{", '{"dimensions": 3}', {"dimensions": [1, {"name": 2}, {"name": "t"}]}):
        attrs = {"_nczarr_group": junk, "_nczarr_array": junk, "_ARRAY_DIMENSIONS": ["only one"]}
        for path in ("", "g/v/"):
            objects[f"{path}.zattrs"] = json.dumps(attrs).encode()
        root = zg.open(MemoryStore(objects))
        assert root.metadata.dimensions == {}
        assert root["g/v"].dimension_names == (None, None)
    attrs = {"_ARRAY_DIMENSIONS": ["a", "b"], "_nczarr_array": {"dimrefs": ["/t", "/g/x"]}}
    objects["g/v/.zattrs"] = json.dumps(attrs).encode()
    assert zg.open(MemoryStore(objects))["g/v"].dimension_names == ("a", "b")


@FORMATS
def test_dimensions_come_from_arrays_that_agree(zarr_format):
    store = zarr.storage.MemoryStore()
    root = zarr.create_group(store, zarr_format=zarr_format)
    for name, shape, dims in (
        ("v", (2, 3), ["y", "x"]),
        ("x", (3,), ["x"]),
        ("y", (5,), ["y"]),  # another size: no dimension of the group
        ("plain", (7,), None),
    ):
        array = root.create_array(
            name, shape=shape, dtype="i4", dimension_names=dims if zarr_format == 3 else None
        )
        if zarr_format == 2 and dims:
            array.attrs["_ARRAY_DIMENSIONS"] = dims
    group = zg.open(MemoryStore({k: v.to_bytes() for k, v in store._store_dict.items()}))
    assert group.dimensions == {"x": Dimension(3)}
    assert list(group.coordinates("v")) == ["y", "x"]
    assert list(group.coordinates(group["v"])) == ["y", "x"]
    assert group.coordinates("plain") == {}
