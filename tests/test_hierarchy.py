"""Law: a hierarchy has the nodes, attributes and types that zarr-python finds, however it is read.

Consolidated or listed, v2 or v3, at any depth: same members. Consolidated metadata costs one
request for the whole tree; a listing asks for members side by side. What cannot be read is reported
where it lies and spoils nothing else, and no path leaves the store.
"""

from __future__ import annotations

import base64
import json
import os
import pickle
import subprocess
import sys
import threading
import time
import warnings
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

import zarrgpu as zg
from tests.test_opening import multiscale, small_slide
from tests.zarr_cases import MemoryStore, Recipe, encode, values, write
from zarrgpu.cli import main
from zarrgpu.errors import (
    MetadataError,
    NodeNotFoundError,
    StoreError,
    UnsupportedCodecError,
    ZarrGPUError,
)
from zarrgpu.formats.group import Dimension

pytestmark = [
    pytest.mark.filterwarnings("ignore:Object at"),  # zarr-python on what is no node
    pytest.mark.filterwarnings("ignore:Consolidated"),
    pytest.mark.filterwarnings("ignore:Both zarr.json"),
]

FORMATS = pytest.mark.parametrize("zarr_format", [2, 3])


class UnlistableStore(MemoryStore):
    """Like a bucket that gives objects and no listing."""

    def list_dir(self, prefix: str) -> list[str]:
        msg = f"{self.url!r} key {prefix!r}: access denied"
        raise StoreError(msg)


class SlowStore(MemoryStore):
    """A store with latency, which knows how many requests were in flight at most."""

    io_concurrency = 32

    def __init__(self, objects, latency_s: float = 0.002) -> None:
        super().__init__(objects)
        self.latency_s, self.flying, self.peak = latency_s, 0, 0

    def _get(self, key, offset, nbytes):
        with self._lock:
            self.flying += 1
            self.peak = max(self.peak, self.flying)
        time.sleep(self.latency_s)
        with self._lock:
            self.flying -= 1
        return super()._get(key, offset, nbytes)


def objects_of(folder) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def kind(node) -> tuple:
    """What both libraries must agree about."""
    if hasattr(node, "dtype"):
        return "array", node.shape, node.dtype, node.chunks, dict(node.attrs)
    return "group", dict(node.attrs)


def same_members(ours, theirs) -> None:
    for depth in (0, 1, None):
        wanted = {path: kind(node) for path, node in theirs.members(max_depth=depth)}
        members = ours.members(max_depth=depth)
        assert {path: kind(node) for path, node in members} == wanted
        assert ours.nmembers(depth) == len(wanted)
        paths = [path.split("/") for path, _ in members]
        assert paths == sorted(paths)
    assert ours.keys() == sorted(theirs.keys()) == list(ours)
    assert ours.group_keys() == sorted(theirs.group_keys())
    assert ours.array_keys() == sorted(theirs.array_keys())
    assert [name for name, _ in ours.groups()] == ours.group_keys()
    assert [node.path for node in ours.array_values()] == [a.path for _, a in ours.arrays()]
    for path, node in theirs.members(max_depth=None):
        assert path in ours
        assert kind(ours[path]) == kind(node)
        assert ours[path].path == node.path
        if isinstance(node, zarr.Group):
            assert (ours[path].name, ours[path].basename) == (node.name, node.basename)


# --- the same as zarr-python

names = st.text("ab.é %_", min_size=1, max_size=3).filter(lambda name: name.strip("."))
attributes = st.dictionaries(
    st.sampled_from(["k", "_ARRAY_DIMENSIONS", "units"]),
    st.one_of(st.none(), st.integers(-5, 5), st.just(["x"]), st.just({"a": [1.5, "é"]})),
    max_size=2,
)
trees = st.recursive(
    st.tuples(attributes, st.just(None)),
    lambda below: st.tuples(attributes, st.dictionaries(names, below, max_size=3)),
    max_leaves=6,
)


def build(group, members) -> None:
    for name, (attrs, below) in members.items():
        if below is None:
            array = group.create_array(
                name, shape=(3,), chunks=(2,), dtype="int16", attributes=attrs
            )
            array[:] = np.arange(3) + len(name)
        else:
            build(group.create_group(name, attributes=attrs), below)


@FORMATS
@settings(max_examples=20, deadline=None)
@given(tree=st.dictionaries(names, trees, max_size=3), attrs=attributes, data=st.data())
def test_members_are_zarr_pythons(zarr_format, tree, attrs, data):
    store = zarr.storage.MemoryStore()
    root = zarr.create_group(store, zarr_format=zarr_format, attributes=attrs)
    build(root, tree)
    groups = ["", *(path for path, node in root.members(None) if isinstance(node, zarr.Group))]
    for path in data.draw(st.lists(st.sampled_from(groups), max_size=2)):
        with warnings.catch_warnings(action="ignore"):
            zarr.consolidate_metadata(store, path=path)
    objects = {key: value.to_bytes() for key, value in store._store_dict.items()}
    for choice in (None, False):
        ours = zg.open(MemoryStore(objects), use_consolidated=choice)
        theirs = zarr.open_group(store, mode="r", use_consolidated=choice)
        assert dict(ours.attrs) == dict(theirs.attrs)
        same_members(ours, theirs)
        for path, node in theirs.members(None):
            if isinstance(node, zarr.Array):
                np.testing.assert_array_equal(ours[path].read(device="cpu"), node[:])
    walked = {path: (groups, arrays) for path, groups, arrays in ours.walk()}
    assert sorted(walked) == sorted(groups)
    for path, (below, arrays) in walked.items():
        group = theirs[path] if path else theirs
        assert (below, arrays) == (sorted(group.group_keys()), sorted(group.array_keys()))


@pytest.mark.filterwarnings("ignore:Numcodecs codecs")
def test_real_hierarchies_are_zarr_pythons(shared_data):
    for name in ("zarr/zarrita-v3/data.zarr", "zarr/v2_sample", "ome/v0.5_hcs", "ome/v0.4_hcs"):
        group = zg.open(shared_data / name)
        wanted = zarr.open_group(shared_data / name, mode="r")
        paths = sorted((path for path, _ in wanted.members(None)), key=lambda path: path.split("/"))
        assert [path for path, _ in group.members(None)] == paths
        assert group.tree(max_nodes=10_000).count("\n") == len(paths)


def test_one_unknown_member_does_not_close_a_real_hierarchy(shared_data):
    root = shared_data / "zarr" / "zarrita-v2" / "data.zarr"
    with pytest.raises(ValueError, match="No Zarr data type found"):  # json2 objects
        zarr.open_group(root, mode="r")
    wanted = [
        path.parent.relative_to(root).as_posix()
        for path in [*root.rglob(".zarray"), *root.rglob(".zgroup")]
        if path.parent != root
    ]
    wanted.sort(key=lambda path: path.split("/"))
    for choice in (True, False):
        group = zg.open(root, use_consolidated=choice)
        assert [path for path, _ in group.members(None)] == wanted


# --- requests


def example(zarr_format: int) -> zarr.storage.MemoryStore:
    store = zarr.storage.MemoryStore()
    root = zarr.create_group(store, zarr_format=zarr_format, attributes={"k": 1})
    for name in ("g", "g/h", "e"):
        root.create_group(name, attributes={"name": name})
    for name in ("x", "g/y", "g/h/z"):
        root.create_array(name, data=np.arange(4, dtype="u2"), chunks=(2,), fill_value=0)
    return store


def plain_objects(zarr_format: int) -> dict[str, bytes]:
    return {key: value.to_bytes() for key, value in example(zarr_format)._store_dict.items()}


def consolidated_objects(zarr_format: int) -> dict[str, bytes]:
    store = example(zarr_format)
    with warnings.catch_warnings(action="ignore"):
        zarr.consolidate_metadata(store)
    return {key: value.to_bytes() for key, value in store._store_dict.items()}


PATHS = ["e", "g", "g/h", "g/h/z", "g/y", "x"]


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


def test_a_v3_node_costs_one_request():
    store = MemoryStore(plain_objects(3))
    assert [path for path, _ in zg.open(store).members(None)] == PATHS
    assert sorted(key for key, _, _ in store.requests) == sorted(
        ["zarr.json", *(f"{path}/zarr.json" for path in PATHS)]
    )


def test_a_v2_node_costs_two_or_three_requests():
    store = MemoryStore(plain_objects(2))
    assert [path for path, _ in zg.open(store).members(None)] == PATHS
    assert len(store.requests) == 5 + 3 * 3 + 3 * 2


@FORMATS
def test_a_thousand_members_are_asked_for_side_by_side(zarr_format):
    document = encode(np.zeros(2, "u1"), Recipe(chunks=(2,), zarr_format=zarr_format))
    array = {key: value for key, value in document.items() if key.startswith((".z", "z"))}
    group = (
        {"zarr.json": b'{"zarr_format": 3, "node_type": "group"}'}
        if zarr_format == 3
        else {".zgroup": b'{"zarr_format": 2}'}
    )
    objects = dict(group)
    for i in range(10):
        objects |= {f"g{i}/{key}": value for key, value in group.items()}
        for j in range(99):
            objects |= {f"g{i}/a{j}/{key}": value for key, value in array.items()}
    store = SlowStore(objects)
    assert zg.open(store).nmembers(None) == 1000
    assert store.peak > 8


def test_the_levels_of_an_image_are_read_once():
    objects, _ = multiscale("0.5", zarr_format=3)
    store = MemoryStore(
        {f"i/{key}": value for key, value in objects.items()}
        | {"zarr.json": b'{"zarr_format": 3, "node_type": "group"}'}
        | {"i/s/zarr.json": b'{"zarr_format": 3, "node_type": "group"}'}
    )
    members = dict(zg.open(store).members(None))
    assert {path: type(node).__name__ for path, node in members.items()} == {
        "i": "Slide",
        "i/s": "Group",
        "i/s/0": "Array",
        "i/s/1": "Array",
    }
    keys = [key for key, _, _ in store.requests]
    assert len(keys) == len(set(keys)) == 5
    assert zg.open(store).group_keys() == ["i"]
    assert "image 50 x 40 px of uint16, 2 level(s)" in zg.open(store).tree()


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


# --- listing


def test_a_store_that_cannot_list_says_what_to_do():
    root = zg.open(UnlistableStore(plain_objects(3)))
    np.testing.assert_array_equal(root["g/h/z"].read(device="cpu"), np.arange(4))
    for use in (root.keys, root.members, root.tree, lambda: list(root.walk()), lambda: len(root)):
        with pytest.raises(StoreError, match=r"cannot be listed.*access denied.*by path.*consolid"):
            use()
    assert root  # costs no listing


class _Quiet(SimpleHTTPRequestHandler):
    """Serves files, and pages that list folders."""

    def log_message(self, *arguments):
        pass


class _NoIndex(_Quiet):
    """Serves files only."""

    def list_directory(self, path):
        self.send_error(404)


@contextmanager
def served(folder, handler=_NoIndex):
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.network
@FORMATS
def test_http_needs_a_path_or_consolidated_metadata(zarr_format, tmp_path):
    pytest.importorskip("aiohttp")
    write(tmp_path / "plain.zarr", plain_objects(zarr_format))
    write(tmp_path / "one.zarr", consolidated_objects(zarr_format))
    with served(tmp_path) as url:
        plain = zg.open(f"{url}/plain.zarr")
        with pytest.raises(StoreError, match="cannot be listed"):
            plain.keys()
        np.testing.assert_array_equal(plain["g/y"].read(device="cpu"), np.arange(4))
        assert [path for path, _ in zg.open(f"{url}/one.zarr").members(None)] == PATHS
        node = zg.open(f"{url}/one.zarr/g/h/z")
        np.testing.assert_array_equal(node.read(device="cpu"), np.arange(4))


@pytest.mark.network
def test_http_servers_with_an_index_are_listed(tmp_path):
    pytest.importorskip("aiohttp")
    write(tmp_path, plain_objects(3))
    with served(tmp_path, _Quiet) as url:
        assert [path for path, _ in zg.open(url).members(None)] == PATHS


def test_a_store_that_fails_is_no_answer():
    class Failing(MemoryStore):
        def _get(self, key, offset, nbytes):
            if key.startswith("g/"):
                raise StoreError(f"{key!r}: failed 3 times")
            return super()._get(key, offset, nbytes)

    group = zg.open(Failing(plain_objects(3)))
    assert "x" in group
    with pytest.raises(StoreError, match="failed 3 times"):
        "g" in group  # noqa: B015
    with pytest.raises(StoreError, match="failed 3 times"):
        group.get("g")
    assert isinstance(dict(group.members())["g"], zg.UnreadableNode)


def test_a_group_below_that_cannot_be_listed_is_reported():
    class Partly(MemoryStore):
        def list_dir(self, prefix):
            if prefix == "g":
                raise StoreError("access denied")
            return [] if prefix == "e" else super().list_dir(prefix)

    members = dict(zg.open(Partly(plain_objects(3))).members(None))
    assert list(members) == ["e", "g", "x"]
    for name in ("e", "g"):
        assert isinstance(members[name], zg.UnreadableNode)
        assert "cannot be listed" in str(members[name].error)


# --- consolidated metadata that is wrong


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


GROUP = {"zarr_format": 3, "node_type": "group"}


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


# --- nodes that cannot be read


def broken_objects() -> dict[str, bytes]:
    """A good array among five members that cannot be read, each for a reason of its own."""
    array = json.loads(encode(np.zeros(4, "u1"), Recipe(chunks=(2,)))["zarr.json"])
    ome = {"ome": {"version": "0.5", "multiscales": [{"axes": 3}]}}
    documents = {
        "codec": {**array, "codecs": [*array["codecs"], {"name": "nobody's"}]},
        "dtype": {**array, "data_type": "int1000"},
        "grid": {**array, "chunk_grid": {"name": "hexagonal"}},
        "good": array,
        "image": {**GROUP, "attributes": ome},
        "image/x": array,
        "kind": {"zarr_format": 3, "node_type": "leaf"},
        "none": None,
    }
    objects = {f"{k}/zarr.json": json.dumps(v).encode() for k, v in documents.items()}
    return objects | {"zarr.json": json.dumps(GROUP).encode(), "json/zarr.json": b"{"}


def consolidated_broken() -> dict[str, bytes]:
    objects = broken_objects()
    nodes = {
        key.removesuffix("/zarr.json"): json.loads(value)
        for key, value in objects.items()
        if key not in ("zarr.json", "json/zarr.json")
    }
    inline = {"kind": "inline", "must_understand": False, "metadata": {**nodes, "json": "{"}}
    return {"zarr.json": json.dumps({**GROUP, "consolidated_metadata": inline}).encode()}


@pytest.mark.parametrize("objects", [broken_objects(), consolidated_broken()])
def test_what_cannot_be_read_is_reported_where_it_lies(objects):
    group = zg.open(MemoryStore(objects))
    bad = ["codec", "dtype", "grid", "image", "json", "kind", "none"]
    assert group.keys() == sorted([*bad, "good"])
    members = dict(group.members(None))
    assert [path for path, node in members.items() if isinstance(node, zg.UnreadableNode)] == bad
    assert isinstance(members["good"], zg.Array)
    assert isinstance(members["image/x"], zg.Array)
    assert isinstance(members["codec"].error, UnsupportedCodecError)
    text = str(group.tree())
    for name in bad:
        assert name in group
        assert members[name].path == name
        with pytest.raises(type(members[name].error)) as caught:
            group[name]
        assert str(caught.value) == str(members[name].error)
        assert f"{name}  unreadable, {type(caught.value).__name__}: " in text
    assert "good  array 4 uint8, chunks 2, uncompressed" in text
    assert repr(members["json"]).startswith("<zarrgpu.UnreadableNode 'json': MetadataError: ")


# --- both formats


def test_v3_wins_at_the_top_and_a_groups_own_format_below_it(tmp_path):
    root = zarr.create_group(tmp_path, zarr_format=2)
    root.create_array("both", data=np.arange(2, dtype="u1"))
    root.create_array("old", data=np.arange(2, dtype="u1"))
    write(tmp_path / "both", encode(np.arange(5, dtype="u2"), Recipe(chunks=(5,))))
    write(tmp_path / "new", encode(np.arange(5, dtype="u2"), Recipe(chunks=(5,))))
    ours, theirs = zg.open(tmp_path), zarr.open_group(tmp_path, mode="r")
    assert ours["both"].shape == theirs["both"].shape == (2,)
    assert zg.open(tmp_path / "both").shape == zarr.open(tmp_path / "both", mode="r").shape == (5,)
    # zarr-python does not see nodes of the other format; they are there all the same
    assert ours.keys() == ["both", "new", "old"]
    assert sorted(theirs.keys()) == ["both", "old"]
    write(tmp_path, {"zarr.json": json.dumps(GROUP).encode()})
    ours, theirs = zg.open(tmp_path), zarr.open_group(tmp_path, mode="r")
    assert ours.zarr_format == theirs.metadata.zarr_format == 3
    assert ours["both"].shape == theirs["both"].shape == (5,)


# --- paths


@FORMATS
def test_no_path_leaves_the_store(zarr_format, tmp_path):
    fsspec = pytest.importorskip("fsspec")
    write(tmp_path, plain_objects(zarr_format))
    local = fsspec.filesystem("file")
    for group in (zg.open(tmp_path / "g"), zg.open(tmp_path / "g", filesystem=local)):
        for path in ("../x", "h/../../x", "..", "h/..", ".", "./y", "..\\x", "...", "y/zarr.json"):
            assert path not in group
            with pytest.raises(NodeNotFoundError, match="no node may be named"):
                group[path]
        for path in ("y", "/y", "y/", "//y//"):
            assert group[path].path == "y"
        assert group["h\\z"].path == group["h//z"].path == "h/z"
        assert group[""] is group
        assert 3 not in group
        assert group.get("none", 5) == 5


def test_an_image_does_not_reach_out_of_its_group(tmp_path):
    objects, _ = multiscale("0.5", zarr_format=3)
    document = json.loads(objects["zarr.json"])
    document["attributes"]["ome"]["multiscales"][0]["datasets"][0]["path"] = "../s/0"
    write(tmp_path, objects)
    write(tmp_path / "i", {"zarr.json": json.dumps(document).encode()})
    with pytest.raises(MetadataError, match="is no array of 3 axes"):
        zg.open(tmp_path / "i")


# --- drawing


@FORMATS
def test_the_tree_is_drawn(zarr_format, capsys, tmp_path):
    store = example(zarr_format)
    root = zarr.open_group(store)
    if zarr_format == 3:
        root.create_array("s", shape=(8, 6), chunks=(2, 3), shards=(4, 6), dtype="f4")
    write(tmp_path, {key: value.to_bytes() for key, value in store._store_dict.items()})
    group = zg.open(tmp_path)
    array = f"array 4 uint16, chunks 2, {'zstd' if zarr_format == 3 else 'blosc'}"
    shards = "├── s  array 8 x 6 float32, chunks 2 x 3 in shards 4 x 6, zstd"
    lines = [
        "/",
        "├── e  group",
        "├── g  group",
        "│   ├── h  group",
        f"│   │   └── z  {array}",
        f"│   └── y  {array}",
        *([shards] if zarr_format == 3 else []),
        f"└── x  {array}",
    ]
    assert repr(group.tree()) == str(group.tree()) == "\n".join(lines)
    flat = [line for line in lines if not line.startswith("│")]
    assert group.tree(0).splitlines() == flat
    assert group["g"].tree(1).splitlines()[0] == "/g"
    cut = group.tree(max_nodes=2)
    assert cut.splitlines() == ["/", "├── e  group", "└── g  group", cut.splitlines()[-1]]
    assert "there is more" in cut.splitlines()[-1]
    with pytest.raises(ValueError, match="max_depth"):
        group.tree(-1)
    assert main(["tree", str(tmp_path), "--max-depth", "0"]) == 0
    assert capsys.readouterr().out.splitlines() == flat
    assert main(["tree", str(tmp_path / "x")]) == 0
    assert capsys.readouterr().out == f"/  {array}\n"
    with pytest.raises(SystemExit):
        main(["tree", str(tmp_path), "--max-depth", "-1"])


def test_uneven_chunks_are_drawn_as_such():
    document = json.loads(encode(np.zeros((6, 5), "u1"), Recipe(chunks=(2, 5)))["zarr.json"])
    grid = {"kind": "inline", "chunk_shapes": [[2, 4], 3]}
    document["chunk_grid"] = {"name": "rectilinear", "configuration": grid}
    objects = {
        "zarr.json": json.dumps(GROUP).encode(),
        "a/zarr.json": json.dumps(document).encode(),
    }
    text = zg.open(MemoryStore(objects)).tree()
    assert text == "/\n└── a  array 6 x 5 uint8, chunks up to 4 x 3, uncompressed"


def test_slides_are_drawn_as_their_levels(capsys, tmp_path):
    (tmp_path / "a.svs").write_bytes(small_slide())
    assert main(["tree", str(tmp_path / "a.svs")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "/  image 80 x 64 px of uint8, 1 level(s)"
    assert lines[1].startswith("└── level 0  array 64 x 80 x 3 uint8, chunks 32 x 32 x 3, ")


def test_a_terminal_without_the_characters_is_no_error(tmp_path):
    write(tmp_path, plain_objects(3))
    command = [sys.executable, "-m", "zarrgpu", "tree", str(tmp_path)]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONIOENCODING": "ascii"}
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 7
    assert "??? e  group" in done.stdout


def test_info_of_a_group_shows_its_members(capsys, tmp_path):
    write(tmp_path, plain_objects(2))
    assert main(["info", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    for fact in ("zarr format   2", "attributes    k", "├── g  group", "└── x  array 4 uint16"):
        assert fact in out


def test_names_cannot_paint_the_terminal():
    objects = {"zarr.json": json.dumps(GROUP).encode()}
    objects["\x1b[31mred/zarr.json"] = objects["a\nb/zarr.json"] = objects["zarr.json"]
    text = zg.open(MemoryStore(objects)).tree()
    assert text.splitlines() == ["/", r"├── \x1b[31mred  group", r"└── a\nb  group"]


def test_a_group_tells_about_itself():
    group = zg.open(MemoryStore(consolidated_objects(3)))
    for fact in ("name          /", "zarr format   3", "consolidated  6 nodes", "attributes    k"):
        assert fact in group.info.splitlines()
    assert "consolidated  no" in zg.open(MemoryStore(plain_objects(2)))["g"].info
    assert (group.name, group["g/h"].name, group["g/h"].basename) == ("/", "/g/h", "h")


# --- dimensions


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
