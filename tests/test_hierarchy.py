"""Law: a hierarchy has the nodes, attributes and types that zarr-python finds, however it is read.

Consolidated or listed, v2 or v3, at any depth: same members. Consolidated metadata costs one
request for the whole tree; a listing asks for members side by side. What cannot be read is reported
where it lies and spoils nothing else, and no path leaves the store.
"""

from __future__ import annotations

import json
import threading
import time
import warnings
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

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
    StoreError,
    UnsupportedCodecError,
)

pytestmark = ZARR_WARNINGS


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
        node = zg.open(shared_data / name)
        group = node.group if isinstance(node, zg.Plate) else node
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
        "i": "OmeZarrImage",
        "i/s": "Group",
        "i/s/0": "Array",
        "i/s/1": "Array",
    }
    keys = [key for key, _, _ in store.requests]
    assert len(keys) == len(set(keys)) == 5
    assert zg.open(store).group_keys() == ["i"]
    assert "image 50 x 40 px of uint16, 2 level(s)" in zg.open(store).tree()


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
