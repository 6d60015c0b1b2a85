"""Law 5: any mutation of metadata or of stored bytes gives the right data or a clear error.

Never another exception than zarrgpu's own, a crash, a hang, memory beyond the budget, or wrong
pixels where a checksum or a size could tell. Mutations are seeded: a failure repeats.
"""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import textwrap
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import zarrgpu as zg
from tests.zarr_cases import CHAINS, MemoryStore, Recipe, apply_codec, encode, values, write
from zarrgpu.errors import (
    ChunkDecodeError,
    DataError,
    MemoryBudgetError,
    MetadataError,
    NodeNotFoundError,
    StoreError,
    UnsupportedCodecError,
    UnsupportedFormatError,
    ZarrGPUError,
)

MIB = 1 << 20


class Bounded:
    """Within these lines Python and NumPy take little memory and time."""

    def __init__(self, mib: int = 64, seconds: float = 5) -> None:
        self.mib, self.seconds = mib, seconds

    def __enter__(self) -> None:
        tracemalloc.start()
        self.began = time.process_time()

    def __exit__(self, *error: object) -> None:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < self.mib * MIB
        assert time.process_time() - self.began < self.seconds


def read_some(
    objects: dict[str, bytes], *, memory_budget_bytes: int = 32 * MIB
) -> np.ndarray | None:
    """Open and read a corner; None if zarrgpu refuses, in its own words."""
    try:
        node = zg.open(MemoryStore(objects))
        if not isinstance(node, zg.Array):
            return None
        options = zg.ReadOptions(memory_budget_bytes=memory_budget_bytes)
        corner = tuple(slice(0, min(n, 12)) for n in node.shape)
        got = node.read(corner, device="cpu", options=options)
        assert got.dtype == node.dtype
        assert got.shape == tuple(min(n, 12) for n in node.shape)
    except ZarrGPUError as error:
        check_refusal(error)
        return None
    return got


def check_refusal(error: ZarrGPUError, *names: str) -> None:
    """Say where it is, and no more than a screenful."""
    message = str(error)
    assert "dict://test" in message or isinstance(error, MemoryBudgetError), message
    assert all(name in message for name in names), message
    assert len(message) < 2000
    if isinstance(error, ChunkDecodeError):
        assert error.codec
        assert error.source == "dict://test"


# ---- metadata -----------------------------------------------------------------------------------

HOSTILE: list[Any] = [
    ...,
    None,
    True,
    False,
    0,
    1,
    -1,
    2**31,
    2**63,
    2**70,
    10**400,
    0.5,
    1e300,
    float("nan"),
    float("-inf"),
    "",
    "x",
    "\0",
    "\ud800",
    "../..",
    "x" * 5000,
    [],
    [[]],
    [None],
    [0],
    [-1],
    [2**40],
    [2**40, 2**40],
    [1, 1],
    [3, 3],
    {},
    {"name": "x"},
    {"id": "x"},
    {"name": "zstd", "configuration": 3},
    {"must_understand": False},
    {"configuration": {}},
]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of all members and items of a JSON document."""
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, item in items:
        yield (*path, key)
        yield from places(item, (*path, key))


def mutated(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    """Document with another value at a path; without it if the value is ``...``."""
    document = copy.deepcopy(document)
    owner = document
    for key in path[:-1]:
        owner = owner[key]
    if value is ...:
        del owner[path[-1]]
    else:
        owner[path[-1]] = value
    return document


RECIPES = {
    "v3": Recipe(chunks=(4, 4), codecs=CHAINS["zstd"], order=(1, 0)),
    "v3-sharded": Recipe(chunks=(4, 4), shards=(8, 8), codecs=CHAINS["blosc-lz4-shuffle"]),
    "v3-plain-shards": Recipe(
        chunks=(4, 4), shards=(8, 8), index_checksum=False, index_location="start"
    ),
    "v2": Recipe(chunks=(4, 4), codecs=CHAINS["zlib"], zarr_format=2, separator="."),
}


@pytest.mark.parametrize("name", RECIPES)
def test_every_member_of_the_metadata_mutated(name):
    recipe = RECIPES[name]
    data = values((10, 9), "u2")
    objects = encode(data, recipe)
    key = ".zarray" if recipe.zarr_format == 2 else "zarr.json"
    document = json.loads(objects[key])
    document["attributes"] = {"a": [1]}
    refused = trials = 0
    with Bounded(seconds=60):
        for path in places(document):
            for hostile in HOSTILE:
                changed = json.dumps(mutated(document, path, hostile)).encode()
                got = read_some(objects | {key: changed})
                trials += 1
                refused += got is None
                if path[0] in ("attributes", "dimension_names") and got is not None:
                    np.testing.assert_array_equal(got, data)
    assert refused > trials // 3


@pytest.mark.parametrize("name", ["v3", "v2"])
@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"\0",
        b"{",
        b"[]",
        b"3",
        b"null",
        b'"x"',
        b"\xff\xfe{}",
        b"\xef\xbb\xbf",
        b"{}" * 2,
        b"NaN",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"zarr_format": ' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"zarr_format": ' + b"9" * 10_000 + b"}",
        b'{"zarr_format": 3, "node_type": "array"}',
        b'{"zarr_format": 2}',
        b'{"zarr_format": 1e999}',
        b"\xc3\x28",
    ],
)
def test_documents_that_are_none(name, document):
    key = ".zarray" if name == "v2" else "zarr.json"
    with Bounded(), pytest.raises(MetadataError) as caught:
        zg.open(MemoryStore({key: document}))
    assert caught.value.source == "dict://test"
    assert caught.value.kind in {"missing", "type", "value", "syntax", "unknown"}
    assert len(str(caught.value)) < 2000


DEEP = "[" * 900 + "]" * 900


def test_deep_values_anywhere_in_the_metadata():
    for recipe in RECIPES.values():
        objects = encode(values((10, 9), "u2"), recipe)
        key = ".zarray" if recipe.zarr_format == 2 else "zarr.json"
        document = json.loads(objects[key])
        for path in places(document):
            text = json.dumps(mutated(document, path, "DEEP")).replace('"DEEP"', DEEP)
            read_some(objects | {key: text.encode()})


def test_errors_of_metadata_say_where():
    objects = encode(values((10, 9), "u2"), RECIPES["v3-sharded"])
    document = json.loads(objects["zarr.json"])
    path = ("codecs", 0, "configuration", "chunk_shape")
    with pytest.raises(MetadataError, match=r"codecs\.0\.configuration\.chunk_shape") as caught:
        zg.open(MemoryStore({"zarr.json": json.dumps(mutated(document, path, "x")).encode()}))
    assert [str(part) for part in caught.value.location] == [str(part) for part in path]
    assert caught.value.kind == "type"
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_every_member_of_a_multiscale_image_mutated(version):
    steps = [{"type": "scale", "scale": [0.5, 0.5]}]
    image = {
        "name": "a",
        "version": version,
        "axes": [{"name": n, "type": "space", "unit": "micrometer"} for n in "yx"],
        "datasets": [{"path": "0", "coordinateTransformations": steps}],
        "coordinateTransformations": steps,
    }
    members = {"multiscales": [image], "omero": {"channels": [{"label": "a"}]}}
    level = {f"0/{k}": v for k, v in encode(values((10, 9), "u2"), RECIPES["v3"]).items()}
    attributes = {"ome": {"version": version, **members}} if version == "0.5" else members
    document = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    slides = 0
    for path in places(document):
        for hostile in [*HOSTILE, "0/", "/0", ".", "./0", "0/.", "..", "1", "DEEP"]:
            text = json.dumps(mutated(document, path, hostile)).replace('"DEEP"', DEEP)
            changed = text.encode()
            try:
                node = zg.open(MemoryStore(level | {"zarr.json": changed}))
            except ZarrGPUError as error:
                check_refusal(error)
                continue
            slides += isinstance(node, zg.Slide)
    assert slides > 100


@pytest.mark.parametrize("path", [".", "", "./.", "/"])
def test_a_level_that_is_its_own_image_ends(path, tmp_path):
    image = {"multiscales": [{"version": "0.4", "axes": ["y", "x"], "datasets": [{"path": path}]}]}
    write(tmp_path, {".zgroup": b'{"zarr_format": 2}', ".zattrs": json.dumps(image).encode()})
    with pytest.raises(MetadataError, match="no array of 2 axes"):
        zg.open(tmp_path)


def test_names_that_no_file_can_have(tmp_path):
    write(tmp_path, {".zgroup": b'{"zarr_format": 2}'})
    group = zg.open(tmp_path)
    for name in ("a\0b", "\ud800", "x" * 5000, "../../etc"):
        with pytest.raises(StoreError):
            group[name]
        with pytest.raises((StoreError, NodeNotFoundError)):
            zg.open(f"{tmp_path}/{name}")


# ---- chunk bytes --------------------------------------------------------------------------------

SURE = {"zstd-checksum", "gzip", "zlib", "crc32c", "zstd+crc32c", "crc32c+gzip"}
"""Chains whose checksum tells every change."""


def damage(data: bytes, rng: np.random.Generator, trial: int) -> bytes:
    """One of: flipped bits, overwritten bytes, cut off, extended, moved, emptied."""
    damaged = bytearray(data)
    at = int(rng.integers(max(1, len(data))))
    match trial % 6:
        case 0:
            damaged[at] ^= 1 << int(rng.integers(8))
        case 1:
            damaged[at : at + 4] = rng.bytes(len(damaged[at : at + 4]))
        case 2:
            del damaged[at:]
        case 3:
            damaged += rng.bytes(1 + int(rng.integers(50)))
        case 4:
            damaged = damaged[at:] + damaged[:at]
        case 5:
            damaged[:at] = bytes(at)
    return bytes(damaged)


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("layout", ["whole", "sharded"])
def test_stored_bytes_mutated(chain, layout):
    rng = np.random.default_rng(len(chain))
    data = values((16, 12), "<u4", 1)
    shards = (16, 12) if layout == "sharded" else None
    recipe = Recipe(chunks=(8, 12), shards=shards, codecs=CHAINS[chain])
    objects = encode(data, recipe)
    key = "c/0/0"
    errors = 0
    with Bounded(seconds=20):
        for trial in range(60):
            damaged = damage(objects[key], rng, trial)
            try:
                got = zg.open(MemoryStore(objects | {key: damaged})).read(device="cpu")
            except (ChunkDecodeError, StoreError) as error:
                check_refusal(error, "c/0/0")
                errors += 1
                continue
            assert got.shape == data.shape
            if chain in SURE:
                np.testing.assert_array_equal(got, data)
    assert errors > 15


def sharded(**options: Any) -> tuple[np.ndarray, dict[str, bytes], Recipe]:
    data = values((16, 16), "<u4", 1)
    recipe = Recipe(
        **{"chunks": (8, 8), "shards": (16, 16), "codecs": CHAINS["zstd-checksum"]} | options
    )
    return data, encode(data, recipe), recipe


def with_entry(shard: bytes, entry: int, offset: int, nbytes: int) -> bytes:
    """Shard of four chunks with one index entry changed and the checksum made right again."""
    index = np.frombuffer(shard[-68:-4], "<u8").reshape(4, 2).copy()
    index[entry] = offset % 2**64, nbytes % 2**64
    return shard[:-68] + apply_codec("crc32c", {}, index.tobytes())


@pytest.mark.parametrize(
    ("offset", "nbytes"),
    [
        (1 << 20, 10),
        (1 << 46, 10),
        (1 << 47, 10),
        (1 << 62, 10),
        (1 << 63, 10),
        (2**64 - 1, 10),
        (10, 2**64 - 1),
        (0, 0),
        (0, 1 << 20),
        (0, 1 << 40),
        (0, 1 << 62),
        (2**64 - 2, 2**64 - 2),
        (2**63 - 1, 2**63 - 1),
        (0, 3),
    ],
)
def test_shard_index_entries_that_cannot_be(offset, nbytes):
    data, objects, _ = sharded()
    shard = with_entry(objects["c/0/0"], 2, offset, nbytes)
    array = zg.open(MemoryStore({**objects, "c/0/0": shard}))
    with Bounded(), pytest.raises((ChunkDecodeError, StoreError), match="c/0/0"):
        array.read(device="cpu")
    del data


def test_overlapping_entries_are_chunks_of_the_same_bytes():
    # nothing forbids it, and the bytes decode: chunk 2 is chunk 1 then
    data, objects, _ = sharded()
    shard = objects["c/0/0"]
    offset, nbytes = np.frombuffer(shard[-68:-4], "<u8").reshape(4, 2)[1].tolist()
    objects["c/0/0"] = with_entry(shard, 2, offset, nbytes)
    got = zg.open(MemoryStore(objects)).read(device="cpu")
    data[8:, :8] = data[:8, 8:]
    np.testing.assert_array_equal(got, data)
    objects["c/0/0"] = with_entry(shard, 2, offset + 1, nbytes - 1)  # in the middle of another
    with pytest.raises(ChunkDecodeError, match=r"c/0/0 inner chunk \(1, 0\)"):
        zg.open(MemoryStore(objects)).read(device="cpu")


def test_checksums_name_the_shard_and_the_chunk():
    _, objects, _ = sharded(codecs=CHAINS["crc32c"])
    shard = bytearray(objects["c/0/0"])
    shard[300] ^= 1  # in the second inner chunk of 8 * 8 * 4 + 4 bytes
    with pytest.raises(ChunkDecodeError, match="checksum mismatch") as caught:
        zg.open(MemoryStore({**objects, "c/0/0": bytes(shard)})).read(device="cpu")
    assert caught.value.chunk == "c/0/0 inner chunk (0, 1)"
    assert caught.value.codec == "crc32c"
    shard = bytearray(objects["c/0/0"])
    shard[-20] ^= 1  # in the index
    with pytest.raises(ChunkDecodeError, match="shard index: crc32c: checksum mismatch") as caught:
        zg.open(MemoryStore({**objects, "c/0/0": bytes(shard)})).read(device="cpu")
    assert (caught.value.chunk, caught.value.codec) == ("c/0/0", "sharding_indexed")


@pytest.mark.parametrize("location", ["start", "end"])
@pytest.mark.parametrize("size", [0, 1, 67, 68])
def test_shards_shorter_than_their_index(location, size):
    _, objects, _ = sharded(index_location=location)
    cut = objects["c/0/0"][:size]
    with pytest.raises((ChunkDecodeError, StoreError), match="c/0/0"):
        zg.open(MemoryStore({**objects, "c/0/0": cut})).read(device="cpu")


def test_uncompressed_chunks_of_another_size():
    data = values((8, 8), "<u4")
    objects = encode(data, Recipe(chunks=(8, 8)))
    for stored in (b"", b"x", objects["c/0/0"][:-1], objects["c/0/0"] + b"x", objects["c/0/0"] * 2):
        with pytest.raises(ChunkDecodeError, match=r"decodes to .* bytes, expected 256") as caught:
            zg.open(MemoryStore({**objects, "c/0/0": stored})).read(device="cpu")
        assert (caught.value.chunk, caught.value.codec) == ("c/0/0", "bytes")


def test_a_chunk_of_another_array_is_refused():
    # the right codec, the wrong size: what a wrong dtype or chunk shape in the metadata looks like
    for chain in ("zstd", "blosc-lz4-shuffle", "gzip", "zlib", "lz4"):
        objects = encode(values((8, 8), "<u2"), Recipe(chunks=(8, 8), codecs=CHAINS[chain]))
        wider = encode(values((8, 8), "<u4"), Recipe(chunks=(8, 8), codecs=CHAINS[chain]))
        for mixed in ({**objects, "c/0/0": wider["c/0/0"]}, {**wider, "c/0/0": objects["c/0/0"]}):
            with pytest.raises(ChunkDecodeError, match="bytes"):
                zg.open(MemoryStore(mixed)).read(device="cpu")


def test_objects_far_larger_than_their_chunk_are_not_read(tmp_path):
    data = values((8, 8), "<u4")
    write(tmp_path, encode(data, Recipe(chunks=(8, 8), codecs=CHAINS["zstd"])))
    with (tmp_path / "c/0/0").open("ab") as file:
        file.truncate(1 << 34)  # sparse
    array = zg.open(tmp_path)
    with Bounded(), pytest.raises(ChunkDecodeError, match=r"takes more than [0-9]+ bytes for 256"):
        array.read(device="cpu")


@pytest.mark.parametrize("value", [2, 255])
def test_bool_bytes_other_than_0_and_1_are_true(value):
    objects = encode(np.array([True, False]), Recipe(chunks=(2,)))
    objects["c/0"] = bytes([value, 0])
    array = zg.open(MemoryStore(objects))
    assert array.read(device="cpu", dtype="f4").tolist() == [1, 0]


# ---- sizes beyond memory ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "chunks", "shards", "selection"),
    [
        ((10,), (1 << 40,), None, ...),
        ((1 << 40,), (1 << 40,), None, slice(0, 5)),
        ((1 << 40,), (1,), None, ...),
        ((1 << 28,), (1,), None, ...),
        ((1 << 61,), (1 << 40,), None, ...),
        ((1 << 20, 1 << 20, 1 << 20), (1 << 12, 1 << 12, 1 << 12), None, (0, 0, slice(None))),
        ((1 << 40,), (1,), (1 << 40,), 5),
        ((1 << 40,), (1,), (1 << 30,), 5),
        ((1 << 44,), (1 << 4,), (1 << 20,), slice(0, 1 << 30, 1 << 20)),
    ],
)
def test_sizes_that_do_not_fit_are_refused_before_memory_is_taken(shape, chunks, shards, selection):
    small = encode(np.zeros((1,) * len(shape), "u1"), Recipe(chunks=(1,) * len(shape), shards=None))
    document = json.loads(small["zarr.json"])
    document["shape"] = shape
    document["chunk_grid"]["configuration"]["chunk_shape"] = shards or chunks
    document["codecs"].append({"name": "gzip"})  # of an uncompressed chunk a part can be read
    if shards:
        little = {"name": "bytes", "configuration": {"endian": "little"}}
        configuration = {
            "chunk_shape": chunks,
            "codecs": [little],
            "index_codecs": [little, {"name": "crc32c"}],
        }
        document["codecs"] = [{"name": "sharding_indexed", "configuration": configuration}]
    array = zg.open(MemoryStore({"zarr.json": json.dumps(document).encode()}))
    # NumPy reports what it failed to allocate to tracemalloc too, so only the time is bounded here
    with Bounded(mib=1 << 110), pytest.raises(MemoryBudgetError):
        array.read(selection, device="cpu", options=zg.ReadOptions(memory_budget_bytes=64 * MIB))


def test_patches_beyond_memory_are_refused():
    array = zg.open(MemoryStore(encode(values((8, 8), "u1"), Recipe(chunks=(4, 4)))))
    with Bounded(mib=1 << 110):
        for shape in ((1 << 40, 1 << 40), (1 << 62, 1 << 62), (1 << 24, 1 << 24)):
            with pytest.raises(MemoryBudgetError):
                array.read_patches([[0, 0]], shape, device="cpu")


def test_bombs_within_an_address_space():
    """Bombs of each codec, whole and in shards, in a process that cannot have a gigabyte more."""
    script = """
        import gzip, resource, zlib
        import numpy as np
        import zarrgpu as zg
        from tests.test_codecs import BOMBS
        from tests.zarr_cases import MemoryStore, Recipe, encode

        data = np.zeros(64, np.uint8)
        zg.open(MemoryStore(encode(data, Recipe(chunks=(64,))))).read(device="cpu")
        for name in ("zstd", "blosc", "gzip", "zlib", "lz4"):
            __import__(f"numcodecs.{name}")
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 29), used + (1 << 29)))
        refused = 0
        for bomb, (codec, encoded) in BOMBS.items():
            name = codec if codec in ("zstd", "gzip", "blosc") else f"numcodecs.{codec}"
            chain = ((name, {"cname": "lz4", "clevel": 1, "shuffle": "shuffle", "blocksize": 0}
                      if codec == "blosc" else {} if codec == "lz4" else {"level": 1}),)
            for codecs in (chain, (chain[0], ("crc32c", {})), (("crc32c", {}), chain[0])):
                whole = encode(data, Recipe(chunks=(64,), codecs=codecs))
                from tests.zarr_cases import apply_codec
                last = codecs[-1][0]
                stored = apply_codec("crc32c", {}, encoded) if last == "crc32c" else encoded
                try:
                    zg.open(MemoryStore({**whole, "c/0": stored})).read(device="cpu")
                except zg.ChunkDecodeError:
                    refused += 1
                else:
                    print("accepted", bomb, codecs)
        print("refused", refused, "of", 3 * len(BOMBS))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=Path(__file__).parents[1],
    )
    assert done.returncode == 0, done.stderr[-2000:]
    from tests.test_codecs import BOMBS

    assert done.stdout.split() == ["refused", str(3 * len(BOMBS)), "of", str(3 * len(BOMBS))], (
        done.stdout
    )


# ---- what is asked ------------------------------------------------------------------------------


def test_paths_with_nothing_to_read(tmp_path):
    for missing in (tmp_path / "none", f"file://{tmp_path}/none", "memory://none-of-it", tmp_path):
        with pytest.raises(NodeNotFoundError, match="check the path") as caught:
            zg.open(missing)
        assert isinstance(caught.value, FileNotFoundError)
    text = tmp_path / "notes.txt"
    for content in (b"", b"II", b"hello" * 100):
        text.write_bytes(content)
        with pytest.raises(UnsupportedFormatError, match="not a TIFF"):
            zg.open(text)


@pytest.mark.parametrize("name", ["gdeflate", "imagecodecs_nosuch", "numcodecs.nosuch", "no/such"])
def test_unknown_codecs_are_named_when_opened(name):
    objects = encode(values((4, 4), "u2"), RECIPES["v3"])
    document = json.loads(objects["zarr.json"])
    document["codecs"].append({"name": name})
    with pytest.raises(UnsupportedCodecError, match=name.removeprefix("numcodecs.")) as caught:
        zg.open(MemoryStore({**objects, "zarr.json": json.dumps(document).encode()}))
    assert "zstd" in str(caught.value)
    assert "dict://test" in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"memory_budget_bytes": 0},
        {"memory_budget_bytes": -1},
        {"memory_budget_bytes": None},
        {"memory_budget_bytes": float("nan")},
        {"memory_budget_bytes": "1GB"},
        {"max_gap_bytes": -1},
        {"max_gap_bytes": 1.5},
        {"max_coalesced_bytes": 0},
        {"io_concurrency": 0},
        {"io_concurrency": -5},
        {"num_threads": 0},
        {"num_threads": True},
        {"max_coalesced_bytes": 1 << 70},
        {"max_gap_bytes": 1 << 64},
        {"num_threads": 1 << 20},
        {"io_concurrency": 1 << 20},
    ],
)
def test_absurd_options_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        zg.ReadOptions(**options)


def test_extreme_options_give_the_same_bytes():
    data = values((40, 40), "u2")
    array = zg.open(MemoryStore(encode(data, Recipe(chunks=(4, 4), shards=(20, 20)))))
    for options in (
        {"max_gap_bytes": 2**62, "max_coalesced_bytes": 2**62},
        {"max_gap_bytes": 0, "max_coalesced_bytes": 1},
        {"num_threads": 64, "io_concurrency": 64},
        {"memory_budget_bytes": 5000},
    ):
        got = array.read(device="cpu", options=zg.ReadOptions(**options))
        np.testing.assert_array_equal(got, data)


def test_all_typed_errors_are_one_tree():
    assert issubclass(DataError, ZarrGPUError)
    assert issubclass(StoreError, OSError)
    assert issubclass(MemoryBudgetError, MemoryError)
