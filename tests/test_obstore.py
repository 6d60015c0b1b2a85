"""Law: a store of obstore gives the bytes that the same objects give by other means."""

from __future__ import annotations

import http.server
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import zarrgpu as zg
from tests.zarr_cases import CHAINS, Recipe, encode, expected, values, write
from zarrgpu.errors import NodeNotFoundError, ObjectTooLargeError, StoreError
from zarrgpu.model import ByteRange
from zarrgpu.stores.base import Store
from zarrgpu.stores.obstore import ObjectStore, is_obstore
from zarrgpu.stores.resolve import resolve_store, split_file

obstore_store = pytest.importorskip("obstore.store")

RECIPE = Recipe(
    chunks=(8, 8),
    shards=(32, 32),
    codecs=CHAINS["zstd"],
    fill_value=7,
    missing=frozenset([(0, 1), (3, 3)]),
)
DATA = values((50, 60), "u2")
TREE = {
    "zarr.json": b'{"zarr_format": 3, "node_type": "group"}',
    **{f"a/{key}": data for key, data in encode(DATA, RECIPE).items()},
}


class Handler(http.server.SimpleHTTPRequestHandler):
    """Files with byte ranges, suffixes too."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            return self.answer(404, b"")
        body, wanted = path.read_bytes(), self.headers.get("Range")
        if wanted is None:
            return self.answer(200, body)
        first, last = wanted.removeprefix("bytes=").split("-")
        start = int(first) if first else max(0, len(body) - int(last))
        stop = min(int(last) + 1, len(body)) if first and last else len(body)
        if start >= len(body):
            return self.answer(416, b"")
        return self.answer(206, body[start:stop], f"bytes {start}-{stop - 1}/{len(body)}")

    def do_HEAD(self) -> None:
        self.do_GET()

    def answer(self, status: int, body: bytes, content_range: str | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Last-Modified", "Mon, 23 Nov 2026 07:00:00 GMT")
        if content_range:
            self.send_header("Content-Range", content_range)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def http_root(tmp_path) -> Iterator[str]:
    write(tmp_path, TREE)
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Handler, directory=str(tmp_path))
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(params=["memory", "local", pytest.param("http", marks=pytest.mark.network)])
def store(request, tmp_path):
    match request.param:
        case "memory":
            made = obstore_store.MemoryStore()
            for key, data in TREE.items():
                made.put(key, data)
            return made
        case "local":
            return obstore_store.LocalStore(write(tmp_path, TREE))
        case _:
            root = request.getfixturevalue("http_root")
            return obstore_store.HTTPStore.from_url(root, client_options={"allow_http": True})


def test_the_same_bytes(store):
    opened = resolve_store(store)
    assert isinstance(opened, Store)
    assert isinstance(opened, ObjectStore)
    for key, data in TREE.items():
        n = len(data)
        assert opened.get(key).tobytes() == data
        assert opened.size(key) == n
        for start, stop in ((0, n), (0, 1), (n - 1, n), (n // 3, n // 2), (5, 5)):
            got = opened.get_range(key, ByteRange(start, stop - start))
            assert got.tobytes() == data[start:stop]
        for nbytes in (1, n // 2, n, n + 100):
            assert opened.get_suffix(key, nbytes).tobytes() == data[-nbytes:]
        assert opened.get_suffix(key, 0).size == 0
        for start, nbytes in ((0, n + 1), (n, 1), (n + 50, 10)):
            with pytest.raises(StoreError, match="bytes") as caught:
                opened.get_range(key, ByteRange(start, nbytes))
            assert key in str(caught.value)
            assert "Debug" not in str(caught.value)
        with pytest.raises(ObjectTooLargeError, match=key):
            opened.get(key, max_nbytes=n - 1)
    for key in ("none", "a/none/x", "a", "a/c"):
        assert opened.get(key) is None
        assert opened.get_range(key, ByteRange(0, 4)) is None
        assert opened.get_range(key, ByteRange(0, 0)) is None
        assert opened.get_suffix(key, 4) is None
        assert opened.size(key) is None
    with pytest.raises(StoreError, match=r"\.\./x"):
        opened.get("../x")


def test_arrays_and_groups(store):
    wanted = expected(DATA, RECIPE)
    for array in (zg.open(store)["a"], zg.open("a", filesystem=store)):
        np.testing.assert_array_equal(array.read(device="cpu"), wanted)
        got = array.read_patches([[3, 5], [40, 50]], (9, 9), device="cpu")
        np.testing.assert_array_equal(got[0], wanted[3:12, 5:14])
    with pytest.raises(NodeNotFoundError):
        zg.open("none", filesystem=store)


def test_listing(tmp_path):
    memory = obstore_store.MemoryStore()
    for key, data in TREE.items():
        memory.put(key, data)
    for made in (memory, obstore_store.LocalStore(write(tmp_path, TREE))):
        opened = resolve_store(made)
        assert opened.list_dir("") == ["a", "zarr.json"]
        assert opened.list_dir("a") == ["c", "zarr.json"]
        assert opened.list_dir("a/c/0") == ["0", "1"]
        assert opened.list_dir("none") == []
        assert zg.open(made).keys() == ["a"]
        assert resolve_store("a", filesystem=made).list_dir("c/0") == ["0", "1"]


def test_archives(tmp_path):
    from tests.test_zip_store import zipped

    memory = obstore_store.MemoryStore()
    memory.put("deep/x.zarr.zip", zipped(TREE))
    array = zg.open("deep/x.zarr.zip/a", filesystem=memory)
    np.testing.assert_array_equal(array.read(device="cpu"), expected(DATA, RECIPE))


def test_stores_are_known_split_and_pickled(tmp_path):
    local = obstore_store.LocalStore(write(tmp_path, TREE))
    assert is_obstore(local)
    assert not is_obstore(tmp_path)
    folder, key = split_file(ObjectStore(local, "a/zarr.json"))
    assert folder.get(key).tobytes() == TREE["a/zarr.json"]
    assert split_file(ObjectStore(local)) is None
    again = pickle.loads(pickle.dumps(ObjectStore(local, "a")))
    assert again.get("zarr.json").tobytes() == TREE["a/zarr.json"]


@pytest.mark.network
def test_servers_that_cannot_be_reached():
    store = obstore_store.HTTPStore.from_url(
        "http://127.0.0.1:9/", client_options={"allow_http": True}, retry_config={"max_retries": 0}
    )
    with pytest.raises(StoreError, match=r"zarr\.json.*GenericError"):
        zg.open(store)


@pytest.mark.network
def test_a_signature_is_in_no_message_and_no_traceback():
    query = "?signature=secret"
    store = obstore_store.HTTPStore.from_url(
        f"http://127.0.0.1:9/data{query}", client_options={"allow_http": True},
        retry_config={"max_retries": 0},
    )  # fmt: skip
    with pytest.raises(StoreError, match=r"127\.0\.0\.1:9/data") as caught:
        zg.open(store)
    report = "".join(traceback.format_exception(caught.value)) + repr(ObjectStore(store))
    assert "secret" not in report


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_fork_is_an_error_that_says_so(tmp_path):
    """The threads of obstore are not in the child, where a request would wait for ever."""
    store = resolve_store(obstore_store.LocalStore(write(tmp_path, TREE)))
    assert store.get("zarr.json").tobytes() == TREE["zarr.json"]
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.alarm(20)
            store.get("zarr.json")
        except StoreError as error:
            code = 0 if "forked" in str(error) else 2
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
