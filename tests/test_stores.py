"""Laws of the stores.

1. Every store gives the same bytes: whole objects, ranges, suffixes, sizes, listings; a missing
   object is an answer.
2. What fails is a `StoreError` with the key (a passing failure is tried again).
3. A read is few requests: one for a v3 array's metadata, coalesced ones for its chunks.
"""

from __future__ import annotations

import http.server
import io
import os
import pickle
import signal
import sys
import threading
import traceback
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

import zarrgpu as zg
from tests.synthetic_slides import SlideRecipe, make_svs
from tests.zarr_cases import CHAINS, MemoryStore, Recipe, encode, expected, values, write
from zarrgpu.cli import main
from zarrgpu.convert import convert
from zarrgpu.errors import (
    ChunkDecodeError,
    MissingDependencyError,
    NodeNotFoundError,
    ObjectTooLargeError,
    StoreError,
    UnsupportedFormatError,
)
from zarrgpu.interop import openslide
from zarrgpu.model import ByteRange, ReadOptions
from zarrgpu.stores.base import Store
from zarrgpu.stores.fsspec import FsspecStore
from zarrgpu.stores.local import LocalStore
from zarrgpu.stores.resolve import resolve_store, split_file
from zarrgpu.stores.retry import ATTEMPTS, pause_s

RECIPE = Recipe(
    chunks=(8, 8),
    shards=(32, 32),
    codecs=CHAINS["zstd"],
    fill_value=7,
    missing=frozenset([(0, 1), (3, 3)]),
)
DATA = values((50, 60), "u2")
OBJECTS = encode(DATA, RECIPE)
PLAIN = Recipe(
    chunks=(16, 16), codecs=CHAINS["blosc-lz4-shuffle"], fill_value=7, missing=frozenset([(1, 1)])
)
TREE = {
    "zarr.json": b'{"zarr_format": 3, "node_type": "group"}',
    **{f"sharded/{k}": v for k, v in OBJECTS.items()},
    **{f"plain 100%/{k}": v for k, v in encode(DATA, PLAIN).items()},
}
MORE = {"big": bytes(4 << 20), "empty": b""}


def _zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for key, data in TREE.items():
            archive.writestr(key, data)
    return file.getvalue()


MORE["t.zarr.zip"] = _zipped()
MORE["slide.svs"] = make_svs(SlideRecipe(height=100, width=80, tile=64, n_levels=1, kind="none"))
UNCOMPRESSED = np.arange(1, 300 * 128 + 1, dtype=np.uint16).reshape(300, 128)
MORE |= {
    f"plain/{key}": data
    for key, data in encode(
        UNCOMPRESSED, Recipe(chunks=(256, 128), missing=frozenset({(1, 0)}))
    ).items()
}


SIGNATURE = "id=a/b&signature=c+d/e="
QUERY, LOGIN = "?signature=secret", "://me:secret@"


class RangeHandler(http.server.BaseHTTPRequestHandler):
    """Serves TREE below /data with byte ranges; other folders answer as their name says."""

    protocol_version = "HTTP/1.1"
    requests: ClassVar[list[tuple[str, str | None]]] = []

    def do_GET(self) -> None:
        from urllib.parse import unquote

        path, _, query = self.path.partition("?")
        _, folder, key = unquote(path).split("/", 2)
        wanted = self.headers.get("Range")
        if self.command == "GET":
            type(self).requests.append((key, wanted))
        # an address that is signed for GET, as S3 does it
        unsigned = unquote(query) != SIGNATURE or self.command == "HEAD"
        if (
            folder in ("403", "500")
            or (folder == "signed" and unsigned)
            or (folder == "503 once" and self.fails_once())
            or (folder == "500 chunks" and "/c/" in key)
            or (folder == "403 folders" and key.endswith("x.zip"))
        ):
            return self.answer(403 if folder == "signed" else int(folder[:3]), b"no")
        body = TREE.get(key, MORE.get(key))
        if body is None:
            return self.answer(404, b"")
        whole = folder in ("whole", "no length") or (
            folder == "no suffix" and "=-" in (wanted or "")
        )
        if wanted is None or whole:
            return self.answer(200, body)
        first, last = wanted.removeprefix("bytes=").split("-")
        start = max(0, len(body) - int(last)) if not first else int(first)
        stop = len(body) if not last or not first else min(int(last) + 1, len(body))
        if start >= len(body):
            return self.answer(416, b"")
        if folder == "short":
            stop = max(start, stop - 1)
        return self.answer(206, body[start:stop], f"bytes {start}-{stop - 1}/{len(body)}")

    def do_HEAD(self) -> None:
        self.do_GET()

    def fails_once(self) -> bool:
        return [path for path, _ in type(self).requests].count(self.path.split("/", 2)[2]) == 1

    def answer(self, status: int, body: bytes, content_range: str | None = None) -> None:
        self.send_response(status)
        if self.path.startswith("/no%20length/"):
            self.close_connection = True
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(len(body)))
        self.send_header("Accept-Ranges", "bytes")
        if content_range:
            self.send_header("Content-Range", content_range)
        self.end_headers()
        if self.command == "GET":
            with suppress(ConnectionError):  # who asks for the size alone goes away
                self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def http_server() -> Iterator[str]:
    pytest.importorskip("aiohttp")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), RangeHandler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def s3_server() -> Iterator[tuple[str, dict[str, Any]]]:
    pytest.importorskip("s3fs")
    moto = pytest.importorskip("moto.server")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    options = {
        "key": "k",
        "secret": "s",
        "client_kwargs": {"endpoint_url": f"http://{host}:{port}", "region_name": "eu-west-1"},
    }
    filesystem = fsspec.filesystem("s3", **options)
    filesystem.mkdir("bucket")
    for key, data in TREE.items():
        filesystem.pipe_file(f"bucket/data/{key}", data)
    for key, data in MORE.items():
        filesystem.pipe_file(f"bucket/more/{key}", data)
    yield "s3://bucket/data", options
    server.stop()


@pytest.fixture(
    params=["local", "file url", "memory", "zip", pytest.param("http", marks=pytest.mark.network),
            pytest.param("s3", marks=pytest.mark.network)]
)  # fmt: skip
def place(request, tmp_path) -> tuple[str | Path, dict[str, Any]]:
    """Path or URL of TREE in each kind of store, and its storage options."""
    match request.param:
        case "local":
            return write(tmp_path / "a b", TREE), {}
        case "file url":
            return write(tmp_path / "ä b%20c", TREE).as_uri(), {}
        case "memory":
            filesystem = fsspec.filesystem("memory")
            for key, data in TREE.items():
                filesystem.pipe_file(f"/{tmp_path.name}/{key}", data)
            return f"memory://{tmp_path.name}", {}
        case "zip":
            (tmp_path / "t.zip").write_bytes(MORE["t.zarr.zip"])
            return f"zip://::file://{tmp_path / 't.zip'}", {}
        case "http":
            return f"{request.getfixturevalue('http_server')}/data", {}
        case _:
            return request.getfixturevalue("s3_server")


def test_every_store_gives_the_same_bytes(place):
    url, options = place
    store = resolve_store(url, storage_options=options)
    assert isinstance(store, Store)
    for key, data in TREE.items():
        if "%" in key and str(url).startswith("http"):
            continue  # http keys are URLs
        assert store.get(key).tobytes() == data
        assert store.size(key) == len(data)
        n = len(data)
        for start, stop in ((0, n), (0, 1), (n - 1, n), (n // 3, n // 2), (5, 5), (n, n)):
            got = store.get_range(key, ByteRange(start, stop - start))
            assert got.tobytes() == data[start:stop]
        for nbytes in (1, n // 2, n, n + 100):
            assert store.get_suffix(key, nbytes).tobytes() == data[-nbytes:]
        for start, nbytes in ((0, n + 1), (n, 1), (n + 50, 10)):
            with pytest.raises(StoreError, match=r"(?i)range|bytes") as caught:
                store.get_range(key, ByteRange(start, nbytes))
            assert key in str(caught.value)


def test_threads_do_not_take_each_others_bytes_from_an_archive(tmp_path):
    """From Python 3.12 on, zipfile seeks relative to where another thread left the file."""
    rng = np.random.default_rng(0)
    objects = {f"c/{i}": rng.bytes(5000) for i in range(8)}
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
        for key, data in objects.items():
            archive.writestr(key, data)
    store = FsspecStore(fsspec.filesystem("zip", fo=str(tmp_path / "t.zip")), "")
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def read(i: int) -> bool:
        key, at = f"c/{i % 8}", 7 * i % 4000
        return store.get_range(key, ByteRange(at, 900)).tobytes() == objects[key][at : at + 900]

    try:
        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(read, range(2000)))
    finally:
        sys.setswitchinterval(interval)


def test_every_store_says_what_is_missing(place):
    url, options = place
    store = resolve_store(url, storage_options=options)
    for key in ("none", "sharded/c/9/9", "none/zarr.json", "zarr.json/x"):
        assert store.get(key) is None
        assert store.get_range(key, ByteRange(0, 4)) is None
        assert store.get_range(key, ByteRange(0, 0)) is None
        assert store.get_suffix(key, 4) is None
        assert store.size(key) is None


def test_every_store_lists_its_folders(place):
    url, options = place
    if str(url).startswith("http"):
        pytest.skip("http has no listing")
    store = resolve_store(url, storage_options=options)
    assert store.list_dir("") == ["plain 100%", "sharded", "zarr.json"]
    assert store.list_dir("sharded") == ["c", "zarr.json"]
    assert store.list_dir("sharded/c/0") == ["0", "1"]
    assert store.list_dir("none") == []
    for folder in ("sharded", "sharded/c"):  # a folder is no object
        assert store.get(folder) is None
        assert store.size(folder) is None
    group = zg.open(url, storage_options=options)
    assert group.keys() == ["plain 100%", "sharded"]


def test_every_store_reads_arrays(place):
    url, options = place
    group = zg.open(url, storage_options=options)
    names = (
        {"sharded": RECIPE}
        if str(url).startswith("http")
        else {"sharded": RECIPE, "plain 100%": PLAIN}
    )
    for name, recipe in names.items():
        wanted = expected(DATA, recipe)
        np.testing.assert_array_equal(group[name].read(device="cpu"), wanted)
        got = group[name].read_patches([[3, 5], [40, 50]], (9, 9), device="cpu")
        np.testing.assert_array_equal(got[0], wanted[3:12, 5:14])
    with pytest.raises(NodeNotFoundError):
        group["none"]


def test_filesystems_and_stores_are_taken_as_they_are(tmp_path):
    write(tmp_path, TREE)
    for node in (
        zg.open(str(tmp_path / "sharded"), filesystem=fsspec.filesystem("file")),
        zg.open(LocalStore(tmp_path / "sharded")),
        zg.open(f"file://localhost{tmp_path}/sharded"),
        zg.open(f"simplecache::file://{tmp_path}/sharded"),
    ):
        np.testing.assert_array_equal(node.read(device="cpu"), expected(DATA, RECIPE))


def test_urls_that_lead_nowhere():
    with pytest.raises(StoreError, match="nosuch"):
        zg.open("nosuch://a/b")
    with pytest.raises((MissingDependencyError, StoreError), match=r"gs|gcs"):
        zg.open("gs://bucket/x", storage_options={"token": "/no/such/file"})


# ---- failures -----------------------------------------------------------------------------------


class FailingFileSystem(MemoryFileSystem):
    """A memory filesystem whose next requests fail."""

    protocol = "failing"
    cachable = False

    def __init__(self) -> None:
        super().__init__()
        self.failures: list[Exception] = []
        self.attempts = 0

    def cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **options: Any
    ) -> bytes:
        self.attempts += 1
        if self.failures:
            raise self.failures.pop()
        return super().cat_file(path, start, end, **options)


@pytest.fixture
def pauses(monkeypatch) -> list[float]:
    """What would have been slept."""
    slept: list[float] = []
    monkeypatch.setattr("zarrgpu.stores.retry.sleep", slept.append)
    return slept


@pytest.fixture
def failing() -> FailingFileSystem:
    filesystem = FailingFileSystem()
    for key, data in OBJECTS.items():
        filesystem.pipe_file(f"/flaky/{key}", data)
    return filesystem


def test_passing_failures_are_tried_again(failing, pauses):
    store = FsspecStore(failing, "/flaky")
    failing.failures = [OSError("reset"), TimeoutError("slow")]
    assert store.get("zarr.json").tobytes() == OBJECTS["zarr.json"]
    assert failing.attempts == 3
    assert [0.075, 0.15] <= pauses <= [0.125, 0.25]


def test_pauses_are_doubled_up_to_a_bound():
    for number in range(1, 30):
        wanted = min(0.1 * 2 ** (number - 1), 2)
        assert all(0.75 * wanted <= pause_s(number) <= 1.25 * wanted for _ in range(20))
    assert len({pause_s(3) for _ in range(20)}) > 1


def test_lasting_failures_are_said_with_key_and_attempts(failing, pauses):
    store = FsspecStore(failing, "/flaky")
    failing.failures = [OSError("reset")] * 99
    with pytest.raises(
        StoreError, match=rf"zarr.json.*failed {ATTEMPTS} times.*OSError: reset"
    ) as caught:
        store.get("zarr.json")
    assert isinstance(caught.value.__cause__, OSError)
    assert failing.attempts == ATTEMPTS
    assert len(pauses) == ATTEMPTS - 1  # none after the last
    array_store = FsspecStore(failing, "/flaky")
    failing.failures = []
    array = zg.open(array_store)
    failing.failures = [OSError("reset")] * 999
    with pytest.raises(StoreError, match="c/"):
        array.read(device="cpu")


class _RefusedError(Exception):
    """As botocore, azure and gcsfs say it."""

    def __init__(self, **facts: Any) -> None:
        super().__init__("refused")
        self.__dict__.update(facts)


@pytest.mark.parametrize(
    ("status", "attempts"),
    [(status, 1) for status in (400, 401, 403, 410, 416)]
    + [(status, ATTEMPTS) for status in (408, 429, 500, 503)],
)
def test_only_what_may_pass_is_tried_again(failing, pauses, status, attempts):
    errors = [
        _RefusedError(response={"ResponseMetadata": {"HTTPStatusCode": status}}),
        _RefusedError(status_code=status),
        _RefusedError(code=status),
        _RefusedError(status=status),
    ]
    errors.append(OSError("translated"))
    errors[-1].__cause__ = errors[0]
    for error in errors:
        pauses.clear()
        failing.attempts, failing.failures = 0, [error] * ATTEMPTS
        with pytest.raises(StoreError, match=r"zarr\.json") as caught:
            FsspecStore(failing, "/flaky").get("zarr.json")
        assert failing.attempts == attempts
        assert len(pauses) == attempts - 1
        assert ("access denied" in str(caught.value)) == (status in (401, 403))
        assert (f"failed {attempts} times" in str(caught.value)) == (attempts > 1)


def test_mistakes_are_not_tried_again(failing, pauses):
    for error in (TypeError("x"), ValueError("x"), NotImplementedError("x")):
        failing.attempts, failing.failures = 0, [error]
        with pytest.raises(StoreError, match=rf"failed with {type(error).__name__}: x"):
            FsspecStore(failing, "/flaky").get("zarr.json")
        assert failing.attempts == 1
    assert not pauses


@pytest.mark.network
def test_a_server_that_hiccups(http_server, pauses):
    RangeHandler.requests.clear()
    array = zg.open(f"{http_server}/503 once/sharded")
    np.testing.assert_array_equal(array.read(device="cpu"), expected(DATA, RECIPE))
    assert len(pauses) >= 5


def test_denied_access_is_said_at_once(failing):
    failing.failures = [PermissionError("forbidden")] * 2
    with pytest.raises(StoreError, match=r"zarr\.json.*access denied"):
        zg.open(FsspecStore(failing, "/flaky"))
    assert failing.attempts == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_denied_access_to_files(tmp_path):
    write(tmp_path, OBJECTS)
    array = zg.open(tmp_path)
    (tmp_path / "c/0/0").chmod(0)
    with pytest.raises(StoreError, match="Permission denied"):
        array.read(device="cpu")


@pytest.mark.network
@pytest.mark.parametrize(
    ("folder", "message"),
    [("403", "403"), ("500", "500"), ("whole", "asked for|got"), ("short", "asked for|got")],
)
def test_servers_that_misbehave(http_server, pauses, folder, message):
    store = resolve_store(f"{http_server}/{folder}")
    with pytest.raises(StoreError, match=message):
        store.get_range("sharded/zarr.json", ByteRange(10, 20))


def test_truncated_objects_are_refused_everywhere(tmp_path):
    memory = fsspec.filesystem("memory")
    for cut in (1, 100):
        objects = dict(OBJECTS)
        objects["c/0/0"] = objects["c/0/0"][:-cut]
        for key, data in objects.items():
            memory.pipe_file(f"/cut{cut}/{key}", data)
        for where in (write(tmp_path / str(cut), objects), f"memory://cut{cut}"):
            with pytest.raises(zg.DataError, match="c/0/0"):
                zg.open(where).read(device="cpu")


def test_a_file_that_shrinks_while_it_is_read(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(bytes(100))
    real = os.preadv
    monkeypatch.setattr(
        os, "preadv", lambda fd, views, at: 0 if at else real(fd, [views[0][:40]], at)
    )
    with pytest.raises(StoreError, match="shrank"):
        LocalStore(tmp_path).get("a")


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "broken").symlink_to(tmp_path / "none")
    store = LocalStore(tmp_path)
    for key in ("pipe", "loop"):
        with pytest.raises(StoreError, match=key):
            store.get(key)
    assert store.get("broken") is None
    assert store.get("") is None
    with pytest.raises(StoreError, match="leaves the store"):
        store.get("../x")


def test_stores_of_files_are_split():
    folder, key = split_file(LocalStore("/a/b.svs"))
    assert (folder.url, key) == ("/a", "b.svs")
    folder, key = split_file(FsspecStore(fsspec.filesystem("memory"), "/a/b.svs"))
    assert (folder.root, key) == ("/a", "b.svs")
    assert split_file(MemoryStore({})) is None


# ---- objects that are too large, archives, forks ------------------------------------------------


@pytest.fixture(params=[pytest.param("http", marks=pytest.mark.network), "memory", "local",
                        pytest.param("s3", marks=pytest.mark.network), "caching"])  # fmt: skip
def more(request, tmp_path) -> tuple[str, dict[str, Any]]:
    """Root of MORE in each kind of store, and its storage options."""
    match request.param:
        case "http":
            return f"{request.getfixturevalue('http_server')}/data", {}
        case "s3":
            return "s3://bucket/more", request.getfixturevalue("s3_server")[1]
        case "memory":
            for key, data in MORE.items():
                fsspec.filesystem("memory").pipe_file(f"/{tmp_path.name}/{key}", data)
            return f"memory://{tmp_path.name}", {}
        case "local":
            return str(write(tmp_path, MORE)), {}
        case _:
            return f"simplecache::file://{write(tmp_path, MORE)}", {}


def test_objects_larger_than_they_may_be_are_refused(more):
    store = resolve_store(more[0], storage_options=more[1])
    for limit in (0, 100, len(MORE["big"]) - 1):
        with pytest.raises(ObjectTooLargeError, match=rf"big.*more than the {limit} bytes"):
            store.get("big", max_nbytes=limit)
    for limit in (len(MORE["big"]), 1 << 40):
        assert store.get("big", max_nbytes=limit).tobytes() == MORE["big"]
    assert store.get("empty", max_nbytes=100).size == 0
    assert store.get("none", max_nbytes=100) is None


@pytest.mark.network
def test_no_more_than_that_is_taken_from_a_server(http_server):
    """Whatever the server answers: fsspec alone would take all."""
    from zarrgpu.stores.http import read_http

    filesystem = fsspec.filesystem("http")
    for folder, start, end in (("whole", 5, 105), ("whole", None, 100), ("whole", -100, None)):
        url = f"{http_server}/{folder}/big"
        assert len(filesystem.cat_file(url, start=start, end=end)) == len(MORE["big"])
        assert len(read_http(filesystem, url, start, end)) == 101
    store = resolve_store(f"{http_server}/whole")
    with pytest.raises(StoreError, match=r"big.*got more than 50 bytes; the server ignores byte"):
        store.get_range("big", ByteRange(5, 50))


@pytest.mark.network
def test_the_start_of_an_object_is_not_taken_for_a_range_beyond_its_end(http_server, pauses):
    nbytes = len(TREE["sharded/zarr.json"])
    for folder in ("whole", "data"):
        store = resolve_store(f"{http_server}/{folder}")
        with pytest.raises(StoreError):
            store.get_range("sharded/zarr.json", ByteRange(nbytes, nbytes))


@pytest.mark.network
def test_servers_without_suffix_ranges(http_server):
    store = resolve_store(f"{http_server}/no suffix")
    data = TREE["sharded/zarr.json"]
    for nbytes in (10, 20, len(data) + 5):
        assert store.get_suffix("sharded/zarr.json", nbytes).tobytes() == data[-nbytes:]


@pytest.mark.network
def test_what_fails_over_http_is_not_missing(http_server, pauses):
    for folder in ("500", "403"):  # fsspec's info raises FileNotFoundError whatever failed
        store = resolve_store(f"{http_server}/{folder}")
        with pytest.raises(StoreError, match=folder):
            store.size("big")
    store = resolve_store(f"{http_server}/no length")
    assert store.size("big") is None
    assert store.get_suffix("none", 5) is None
    with pytest.raises(StoreError, match="does not tell its size"):
        store.get_suffix("big", 5)


@pytest.mark.network
def test_a_folder_named_like_an_archive_that_may_not_be_listed(http_server):
    store = resolve_store(f"{http_server}/403 folders/x.zip/0")
    assert isinstance(store, FsspecStore)
    with pytest.raises(StoreError, match="access denied"):
        resolve_store(f"{http_server}/403 folders/x.zip")


@pytest.mark.network
@pytest.mark.parametrize("folder", ["data", "whole", "no length", "500 chunks"])
def test_parts_of_chunks_from_servers_of_every_kind(http_server, pauses, folder):
    array = zg.open(f"{http_server}/{folder}/plain")
    options = ReadOptions(max_gap_bytes=0)
    where = (slice(100, 110), slice(None))
    if folder == "500 chunks":
        with pytest.raises(StoreError, match="500"):
            array.read(where, device="cpu", options=options)
        return
    np.testing.assert_array_equal(
        array.read(where, device="cpu", options=options), UNCOMPRESSED[where]
    )
    missing = array.read(slice(260, 270), device="cpu", options=options)
    np.testing.assert_array_equal(missing, np.zeros((10, 128), np.uint16))


@pytest.mark.network
def test_a_whole_object_and_a_suffix_are_one_request(http_server):
    store = resolve_store(f"{http_server}/data")
    for read in (
        lambda: store.get("sharded/zarr.json", max_nbytes=1 << 20),
        lambda: store.get_suffix("sharded/zarr.json", 20),
    ):
        RangeHandler.requests.clear()
        read()
        assert len(RangeHandler.requests) == 1


def test_documents_and_chunks_have_a_largest_size(tmp_path, monkeypatch):
    objects = encode(DATA, PLAIN)
    write(tmp_path / "a", {**objects, "c/0/0": bytes(30 << 20)})
    fsspec.filesystem("memory").pipe({f"/{tmp_path.name}/{k}": v for k, v in objects.items()})
    fsspec.filesystem("memory").pipe_file(f"/{tmp_path.name}/c/0/0", bytes(30 << 20))
    for root in (tmp_path / "a", f"memory://{tmp_path.name}"):
        with pytest.raises(ChunkDecodeError, match=r"c/0/0.*takes more than \d+ bytes for 512"):
            zg.open(root).read(device="cpu")
        with monkeypatch.context() as patch:
            patch.setattr("zarrgpu.hierarchy.MAX_DOCUMENT_NBYTES", 40)
            with pytest.raises(ObjectTooLargeError, match=r"zarr\.json.*more than the 40 bytes"):
                zg.open(root)


def test_archives_anywhere(more):
    root, options = more
    if root.startswith("simplecache"):
        root = root.replace("simplecache::", "", 1)
    for url in (f"{root}/t.zarr.zip", f"zip://::{root}/t.zarr.zip"):
        group = zg.open(url, storage_options=options)
        assert group.keys() == ["plain 100%", "sharded"]
        for name, recipe in (("sharded", RECIPE), ("plain 100%", PLAIN)):
            wanted = expected(DATA, recipe)
            np.testing.assert_array_equal(group[name].read(device="cpu"), wanted)
    one = zg.open(f"{root}/t.zarr.zip/sharded", storage_options=options)
    np.testing.assert_array_equal(one.read(device="cpu"), expected(DATA, RECIPE))


@pytest.mark.network
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize("kind", ["http", "s3", "zip on http", "cached http"])
def test_an_array_is_read_in_a_forked_process(request, kind):
    """The event loop of fsspec has run in the parent; its thread is not in the child.

    And what the child drops must not close the parent's connections.
    """
    options: dict[str, Any] = {}
    if kind == "s3":
        root, options = request.getfixturevalue("s3_server")
    else:
        server = request.getfixturevalue("http_server")
        root = {
            "http": f"{server}/data",
            "zip on http": f"{server}/data/t.zarr.zip",
            "cached http": f"simplecache::{server}/data",
        }[kind]
    array = zg.open(f"{root}/sharded", storage_options=options)
    wanted = expected(DATA, RECIPE)
    np.testing.assert_array_equal(array.read(device="cpu"), wanted)
    children = []
    for _ in range(2):
        pid = os.fork()
        if pid == 0:
            try:
                signal.alarm(20)  # a lost loop shows as a hang
                os._exit(0 if np.array_equal(array.read(device="cpu"), wanted) else 1)
            finally:
                os._exit(2)
        children.append(pid)
    np.testing.assert_array_equal(array.read(device="cpu"), wanted)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0]


@pytest.mark.network
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_child_does_not_take_the_parents_connections_from_its_loop(http_server):
    """The two share an epoll: without our hook the parent would wait for an answer for ever."""
    import aiohttp

    filesystem = fsspec.filesystem(
        "http", skip_instance_cache=True, timeout=aiohttp.ClientTimeout(total=5)
    )
    url = f"{http_server}/data/zarr.json"
    assert filesystem.cat_file(url) == TREE["zarr.json"]  # the connection stays open
    pid = os.fork()
    if pid == 0:
        try:
            signal.alarm(20)
            filesystem._session._connector._close()  # as its finalizer does
        finally:
            os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert filesystem.cat_file(url) == TREE["zarr.json"]


# ---- requests -----------------------------------------------------------------------------------


def test_opening_is_few_requests():
    store = MemoryStore(OBJECTS)
    zg.open(store)
    assert len(store.requests) == 1
    v2 = MemoryStore(encode(DATA, Recipe(chunks=(8, 8), zarr_format=2)))
    zg.open(v2)
    assert len(v2.requests) == 5  # zarr.json, then .zarray, .zgroup, .zattrs, .zmetadata at once


def test_a_thousand_patches_are_few_requests():
    data = values((512, 512), "u1")
    recipe = Recipe(chunks=(16, 16), shards=(256, 256), codecs=CHAINS["zstd"])
    store = MemoryStore(encode(data, recipe))
    array = zg.open(store)
    starts = np.random.default_rng(0).integers(0, 480, (1024, 2))
    store.requests.clear()
    got = array.read_patches(starts, (32, 32), device="cpu")
    for patch, (y, x) in zip(got, starts, strict=True):
        np.testing.assert_array_equal(patch, data[y : y + 32, x : x + 32])
    assert len(store.requests) == 4 + 4  # an index and one range of each shard
    store.requests.clear()
    array.read_patches(starts, (32, 32), device="cpu")
    assert len(store.requests) == 4  # indexes are kept


def test_each_chunk_is_asked_for_once():
    store = MemoryStore(encode(DATA, PLAIN))
    array = zg.open(store)
    store.requests.clear()
    array.read_patches(np.zeros((50, 2), int), (40, 40), device="cpu")
    keys = [key for key, _, _ in store.requests]
    assert sorted(keys) == sorted(f"c/{y}/{x}" for y in range(3) for x in range(3))


@pytest.mark.network
def test_requests_over_http_are_ranges(http_server):
    array = zg.open(f"{http_server}/data/sharded")
    RangeHandler.requests.clear()
    array.read((slice(0, 8), slice(0, 8)), device="cpu")
    shard = [wanted for key, wanted in RangeHandler.requests if key == "sharded/c/0/0"]
    assert len(shard) == 2  # index and inner chunk
    assert all(wanted and wanted.startswith("bytes=") for wanted in shard)


def test_coalescing_limits_give_the_same_bytes():
    wanted = expected(DATA, RECIPE)
    counts = []
    for gap, cap in ((0, 1), (0, 1 << 20), (1 << 20, 1 << 20), (64, 300)):
        store = MemoryStore(OBJECTS)
        array = zg.open(store)
        options = zg.ReadOptions(max_gap_bytes=gap, max_coalesced_bytes=cap)
        np.testing.assert_array_equal(array.read(device="cpu", options=options), wanted)
        counts.append(len(store.requests))
    assert counts[0] > counts[3] > counts[2]


def test_whole_objects_lie_in_memory_that_is_offered(tmp_path):
    (tmp_path / "a").write_bytes(b"0123456789")
    memory = np.zeros(64, np.uint8)
    store = LocalStore(tmp_path)
    for got in (
        store.get("a", lambda nbytes: memory[:nbytes]),
        store.get_range("a", ByteRange(2, 5), lambda nbytes: memory[:nbytes]),
    ):
        assert np.shares_memory(got, memory)
    assert io.BytesIO(memory[:5]).read() == b"23456"


def test_a_signed_address_is_signed_for_every_object(http_server):
    """A presigned file, or a folder with one token for all; the signature is in no message."""
    query = "?id=a%2Fb&signature=c%2Bd%2Fe%3D"
    group = zg.open(f"{http_server}/signed{query}")
    assert np.array_equal(
        np.asarray(group["sharded"].read(..., device="cpu")), expected(DATA, RECIPE)
    )
    array = zg.open(f"{http_server}/signed/sharded{query}")
    assert np.array_equal(np.asarray(array.read(..., device="cpu")), expected(DATA, RECIPE))
    copy = pickle.loads(pickle.dumps(array))
    assert np.array_equal(np.asarray(copy.read(..., device="cpu")), expected(DATA, RECIPE))
    store = resolve_store(f"{http_server}/signed/slide.svs{query}")
    assert store.url == f"{http_server}/signed/slide.svs"
    folder, key = split_file(store)
    assert key == "slide.svs"
    assert folder.size(key) == len(MORE["slide.svs"])
    slide = zg.open_slide(f"{http_server}/signed/slide.svs{query}")
    assert slide.read_region((0, 0), 0, (9, 9), device="cpu").shape == (9, 9, 3)


@pytest.mark.parametrize(
    "address",
    ["{}/signed/slide.svs{}", "{}/signed/t.zarr.zip{}", "zip://x::{}/signed/t.zarr.zip{}",
     "{}/500/slide.svs{}", "zip://a{}", "foo://a{}"],
)  # fmt: skip
def test_a_signature_is_in_no_message_and_no_traceback(http_server, pauses, address):
    server = http_server.replace("://", LOGIN)
    with pytest.raises(StoreError) as caught:
        zg.open_slide(address.format(server, QUERY))
    report = "".join(traceback.format_exception(caught.value))
    assert "StoreError" in report
    assert "secret" not in report


def test_what_is_no_slide_is_told_without_its_signature(http_server):
    group = f"{http_server}/data{QUERY}"
    for open_it in (zg.open_slide, openslide.open_slide, convert):
        arguments = (group, "never.zarr") if open_it is convert else (group,)
        with pytest.raises(UnsupportedFormatError, match="/data'") as caught:
            open_it(*arguments)
        assert "secret" not in str(caught.value)


def test_what_shows_or_keeps_an_address_leaves_its_signature_out(http_server, tmp_path):
    address = f"{http_server}/signed/slide.svs?id=a%2Fb&signature=c%2Bd%2Fe%3D"
    with openslide.open_slide(address) as slide:
        assert "slide.svs'" in repr(slide)
        assert "signature" not in repr(slide)
    written = convert(address, tmp_path / "out.zarr", quiet=True)
    documents = [file.read_text() for file in written.rglob("*.json")]
    assert any("slide.svs" in text for text in documents)
    assert not any("signature" in text for text in documents)


@pytest.mark.parametrize("command", ["info", "tree", "validate"])
def test_commands_tell_no_signature(http_server, capsys, command):
    """Of a group that is read, and is no OME-Zarr image."""
    main([command, f"{http_server}/data{QUERY}"])
    told = "".join(capsys.readouterr())
    assert "/data" in told
    assert "secret" not in told


def test_links_of_a_signed_page_are_names(http_server):
    """Where a page is asked for with a token, or has links that carry one, or sort it anew."""
    page = f"{http_server}/data/list"
    links = ["a.dcm", "b.dcm?token=x/y", "?C=N;O=D", "c/"]
    MORE["list"] = "".join(f'<a href="{link}">x</a>' for link in links).encode()
    for query in ("", "?token=x/y", "?token=x/"):
        assert resolve_store(page + query).list_dir("") == ["a.dcm", "b.dcm", "c"]
