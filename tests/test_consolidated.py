"""Law: consolidated metadata is one request for a whole tree; wrong, it is refused or left out."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

import zarrgpu as zg
from tests.hierarchies import (
    FORMATS,
    GROUP,
    PATHS,
    ZARR_WARNINGS,
    UnlistableStore,
    consolidated_objects,
    plain_objects,
)
from tests.test_opening import multiscale
from tests.zarr_cases import MemoryStore, Recipe, encode, write
from zarrgpu.errors import (
    MetadataError,
    NodeNotFoundError,
    ZarrGPUError,
)

pytestmark = ZARR_WARNINGS


@pytest.mark.parametrize(
    ("zarr_format", "requests"),
    [(3, ["zarr.json"]), (2, [".zarray", ".zattrs", ".zgroup", ".zmetadata", "zarr.json"])],
)
def test_consolidated_metadata_is_the_only_request(zarr_format, requests):
    store = UnlistableStore(consolidated_objects(zarr_format))
    root = zg.open(store)
    assert [path for path, _ in root.members(None)] == PATHS
    inner = root["g"]
    assert [path for path, _ in inner.members(None)] == ["h", "h/z", "y"]
    assert inner["h"].keys() == ["z"]
    assert (inner["h"].path, inner["h/z"].path, dict(inner["h"].attrs)) == (
        "g/h",
        "g/h/z",
        {"name": "g/h"},
    )
    assert "g/h/none" not in root
    assert len(root.tree().splitlines()) == 7
    assert pickle.loads(pickle.dumps(inner)).keys() == ["h", "y"]
    assert sorted(key for key, _, _ in store.requests) == requests
    np.testing.assert_array_equal(inner["h/z"].read(device="cpu"), np.arange(4))


def test_a_consolidated_image_is_one_request():
    objects, levels = multiscale("0.5", zarr_format=3)
    root = json.loads(objects["zarr.json"])
    members = {"s": GROUP}
    for level in ("s/0", "s/1"):
        members[level] = json.loads(objects[f"{level}/zarr.json"])
    root["consolidated_metadata"] = {"kind": "inline", "metadata": members}
    store = UnlistableStore(objects | {"zarr.json": json.dumps(root).encode()})
    slide = zg.open_slide(store, use_consolidated=True)
    assert slide.group.keys() == ["s"]
    assert [key for key, _, _ in store.requests] == ["zarr.json"]
    np.testing.assert_array_equal(slide.levels[1].read(device="cpu"), levels[1])
    with pytest.raises(MetadataError, match="has no consolidated metadata"):
        zg.open_slide(MemoryStore(objects), use_consolidated=True)


def group_document(consolidated) -> dict[str, bytes]:
    array = json.loads(encode(np.zeros(2, "u1"), Recipe(chunks=(2,)))["zarr.json"])
    document = {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": {},
        "consolidated_metadata": consolidated,
    }
    objects = {"zarr.json": document, "a/zarr.json": array}
    return {key: json.dumps(value).encode() for key, value in objects.items()}


@pytest.mark.parametrize(
    ("consolidated", "match"),
    [
        ({"kind": "other", "metadata": {}}, "expected 'inline', got 'other'"),
        ({"kind": "other", "must_understand": True}, "kind.*use_consolidated=False"),
        ({"metadata": {}}, "expected 'inline', got None"),
        ({"kind": "inline"}, "metadata: is missing"),
        ({"kind": "inline", "metadata": []}, "expected an object"),
        ([], "expected an object"),
        ({"kind": "inline", "metadata": {"a/b": GROUP}}, "'a' is no group of the consolidated"),
        (
            {"kind": "inline", "metadata": {"a": {"node_type": "array"}, "a/b": GROUP}},
            "'a' is no group of the consolidated",
        ),
        ({"kind": "inline", "metadata": {"../b": GROUP}}, "no node may be named '..'"),
        ({"kind": "inline", "metadata": {"/b": GROUP}}, "no node may be named ''"),
        ({"kind": "inline", "metadata": {"zarr.json": GROUP}}, "named 'zarr.json'"),
        ({"kind": "inline", "metadata": {"a/" * 500_000 + "b": GROUP}}, "128 names are read"),
    ],
)
def test_wrong_consolidated_metadata_is_refused_and_can_be_left_out(consolidated, match):
    objects = group_document(consolidated)
    with pytest.raises(MetadataError, match=match):
        zg.open(MemoryStore(objects))
    assert zg.open(MemoryStore(objects), use_consolidated=False).keys() == ["a"]


@pytest.mark.parametrize("consolidated", [None, {"kind": "other", "must_understand": False}])
def test_what_need_not_be_understood_is_passed_over(consolidated):
    store = MemoryStore(group_document(consolidated))
    assert zg.open(store).keys() == ["a"]
    with pytest.raises(MetadataError, match="has no consolidated metadata"):
        zg.open(store, use_consolidated=True)


@pytest.mark.parametrize(
    ("document", "match"),
    [
        (b"[]", "expected a JSON object"),
        (b"{", "not JSON"),
        (b"{}", "metadata: is missing"),
        (b'{"metadata": 1}', "expected an object"),
        (b'{"zarr_consolidated_format": 2, "metadata": {}}', "expected 1, got 2"),
        (b'{"metadata": {"a/../.zgroup": {"zarr_format": 2}}}', "no node may be named '..'"),
    ],
)
def test_a_wrong_zmetadata_is_refused_and_can_be_left_out(document, match):
    objects = plain_objects(2) | {".zmetadata": document}
    with pytest.raises(MetadataError, match=match) as caught:
        zg.open(MemoryStore(objects))
    assert caught.value.source.endswith("/.zmetadata")
    assert zg.open(MemoryStore(objects), use_consolidated=False).keys() == ["e", "g", "x"]


@FORMATS
def test_consolidated_metadata_is_believed_as_zarr_python_believes_it(zarr_format, tmp_path):
    write(tmp_path, consolidated_objects(zarr_format))
    late = {"new": plain_objects(zarr_format)}
    for name, objects in late.items():
        write(tmp_path / name, {k: v for k, v in objects.items() if "/" not in k})
    for choice in (None, True, False):
        ours = zg.open(tmp_path, use_consolidated=choice)
        theirs = zarr.open_group(tmp_path, mode="r", use_consolidated=choice)
        assert ours.keys() == sorted(theirs.keys())
        assert ("new" in ours) is ("new" in theirs) is (choice is False)
    with pytest.raises(NodeNotFoundError, match="use_consolidated=False"):
        zg.open(tmp_path)["new"]
    with pytest.raises(KeyError):
        zg.open(tmp_path)["new"]
    with pytest.raises(MetadataError, match="has no consolidated metadata"):
        zg.open(MemoryStore(plain_objects(zarr_format)), use_consolidated=True)
    array = zg.open(tmp_path / "x", use_consolidated=True)  # says nothing about arrays
    np.testing.assert_array_equal(array.read(device="cpu"), np.arange(4))


def test_a_group_without_a_document_is_no_node_in_v2():
    for objects in (plain_objects(2), consolidated_objects(2)):
        del objects["g/.zgroup"]
        if ".zmetadata" in objects:
            document = json.loads(objects[".zmetadata"])
            del document["metadata"]["g/.zgroup"]
            objects[".zmetadata"] = json.dumps(document).encode()
        group = zg.open(MemoryStore(objects))
        assert [path for path, _ in group.members(None)] == ["e", "x"]
        assert "g" not in group
        np.testing.assert_array_equal(group["g/h/z"].read(device="cpu"), np.arange(4))


@FORMATS
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_changed_byte_gives_members_or_a_typed_error(zarr_format, data):
    objects = CONSOLIDATED[zarr_format]
    key = "zarr.json" if zarr_format == 3 else ".zmetadata"
    document = bytearray(objects[key])
    for _ in range(data.draw(st.integers(1, 3))):
        document[data.draw(st.integers(0, len(document) - 1))] = data.draw(st.integers(0, 255))
    try:
        root = zg.open(MemoryStore(objects | {key: bytes(document)}))
        if isinstance(root, zg.Group):
            for path, node in root.members(None):
                assert isinstance(node, (zg.Array, zg.Group, zg.UnreadableNode)), path
            assert root.tree()
    except ZarrGPUError:
        pass


CONSOLIDATED = {zarr_format: consolidated_objects(zarr_format) for zarr_format in (2, 3)}
