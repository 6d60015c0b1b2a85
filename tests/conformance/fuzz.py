"""Damage to arrays that are right, and what a reader may make of it (law 5).

A *subject* is an array that reads; a *mutation* changes one of its objects: a member of a metadata
document, bytes of a chunk, or an entry of a shard's index whose checksum is made right again. Each
is told by a seed and a number, so that a failure repeats: ``python -m tests.conformance.fuzz
fixtures 10000 7`` runs ten thousand of seed 7, and ``... fixtures 1 7 1234`` the one numbered 1234.
"""

from __future__ import annotations

import copy
import json
import math
import resource
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

import zarrgpu as zg
from tests.conformance.fixtures import KINDS, expected
from tests.conformance.subjects import FAMILIES, Objects, Subject
from tests.gpu.devices import open_device, to_host
from tests.zarr_cases import MemoryStore, apply_codec
from zarrgpu.errors import ChunkDecodeError, MemoryBudgetError, ZarrGPUError

URL = "dict://test"
BUDGET_BYTES = 32 << 20
SECONDS = 10
"""Processor time that one read may take: far more than any needs, far less than a hang."""

CHECKSUMMED = {
    "v2_bz2", "v2_lzma", "v2_shuffle_zlib", "v2_zlib", "v3_crc32c", "v3_gzip", "v3_zstd_checksum",
    "v3_numcodecs_zlib", "v3_numcodecs_shuffle", "more_v2_crc32", "more_v2_adler32",
    "more_v2_gzip", "more_v2_zstd_checksum", "more_v3_numcodecs_bz2", "more_v3_numcodecs_lzma",
    "more_v3_numcodecs_crc32", "more_v3_numcodecs_crc32c", "more_v3_numcodecs_adler32",
    "more_v3_numcodecs_gzip", "more_v3_shard_filters",
}  # fmt: skip
"""Kinds of which a checksum covers every element of every chunk."""

HOSTILE: list[Any] = [
    ..., None, True, False, 0, 1, -1, 2, 3, 255, 2**31, 2**62, 2**63, 2**70, 10**400, 0.5, -0.0,
    1e300, float("nan"), float("-inf"), "", "x", "\0", "\ud800", "../..", "x" * 5000, "0x7fc00001",
    "NaN", "Infinity", "AAAA", [], [[]], [None], [0], [-1], [1, 1], [2**40, 2**40], [[1, 2**40]],
    [[2, 3], [4, 5]], {}, {"name": "x"}, {"id": "x"}, {"id": "zlib"}, {"id": "vlen-utf8"},
    {"id": "pickle"}, {"name": "bytes"}, {"name": "zstd", "configuration": 3},
    {"must_understand": False}, {"configuration": {}}, "C", "F", "<f8", ">U2000000000", "|O",
    [["a", "<i4"], ["b", "|O"]], [["a", "<i4", [2**31]]], "float64", "string", "r8", "int4",
]  # fmt: skip


# ---- mutations -----------------------------------------------------------------------------------


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of all members and items of a JSON document."""
    items: Any = ()
    if isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, item in items:
        yield (*path, key)
        yield from places(item, (*path, key))


def at(document: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        document = document[key]
    return document


def changed_document(
    data: bytes, rng: np.random.Generator, donors: list[Any]
) -> tuple[bytes, str] | None:
    """Another value at a drawn place: hostile, of the same name in another document, or near."""
    document = json.loads(data)
    paths = list(places(document))
    if not paths:
        return None
    path = paths[rng.integers(len(paths))]
    old = at(document, path)
    how = rng.integers(4)
    if how == 0 and donors:
        donor = donors[rng.integers(len(donors))]
        same = [at(donor, p) for p in places(donor) if p[-1] == path[-1]]
        new = same[rng.integers(len(same))] if same else HOSTILE[rng.integers(len(HOSTILE))]
    elif how == 1 and type(old) is int:
        new = int(old) + int(rng.choice([-1, 1, 2, 7, 255]))
    elif how == 1 and isinstance(old, list) and old:
        new = [old[i] for i in rng.permutation(len(old))] + (old[:1] if rng.integers(2) else [])
    elif how == 1 and isinstance(old, str) and old:
        at_ = int(rng.integers(len(old)))
        new = old[:at_] + chr(int(rng.integers(32, 127))) + old[at_ + 1 :]
    else:
        new = HOSTILE[rng.integers(len(HOSTILE))]
    document = copy.deepcopy(document)
    owner = at(document, path[:-1])
    if new is ...:
        del owner[path[-1]]
    else:
        owner[path[-1]] = copy.deepcopy(new)
    what = f"{'.'.join(map(str, path))} = {str(new)[:60]}"
    return json.dumps(document).encode(), what


def changed_bytes(data: bytes, rng: np.random.Generator) -> tuple[bytes, str]:
    """One of: bits flipped, bytes overwritten, cut off, extended, rotated, emptied, a huge word."""
    damaged = bytearray(data)
    at_ = int(rng.integers(max(1, len(data)) if rng.integers(2) else min(max(1, len(data)), 24)))
    how = int(rng.integers(8))
    if how == 0 and data:
        damaged[at_] ^= 1 << int(rng.integers(8))
    elif how == 1:
        damaged[at_ : at_ + 4] = rng.bytes(len(damaged[at_ : at_ + 4]))
    elif how == 2:
        del damaged[at_:]
    elif how == 3:
        damaged += rng.bytes(1 + int(rng.integers(50)))
    elif how == 4:
        damaged = damaged[at_:] + damaged[:at_]
    elif how == 5:
        damaged[:at_] = bytes(at_)
    else:
        word = int(rng.choice([2**31 - 1, 2**32 - 1, 2**30, 2**16, 0, 2**31]))
        raw = word.to_bytes(4, "little" if rng.integers(2) else "big")
        damaged[at_ : at_ + 4] = raw[: len(damaged[at_ : at_ + 4])]
    return bytes(damaged), f"bytes, way {how}, at {at_}"


def changed_index(subject: Subject, key: str, rng: np.random.Generator) -> tuple[bytes, str] | None:
    """Another entry in the index of a shard, with a right checksum; None where there is none."""
    if "zarr.json" not in subject.objects:
        return None
    document = json.loads(subject.objects["zarr.json"])
    codecs = document.get("codecs", [])
    codec = codecs[0] if len(codecs) == 1 else {"name": "none"}
    configuration = codec.get("configuration", {})
    if codec["name"] != "sharding_indexed" or len(configuration["index_codecs"]) != 2:
        return None
    data = subject.objects[key]
    grid = document["chunk_grid"]["configuration"]
    if "chunk_shape" not in grid:
        return None
    pairs = zip(grid["chunk_shape"], configuration["chunk_shape"], strict=True)
    nbytes = 16 * math.prod(outer // inner for outer, inner in pairs)
    start = 0 if configuration["index_location"] == "start" else len(data) - nbytes - 4
    index = np.frombuffer(data[start : start + nbytes], "<u8").copy()
    which = int(rng.integers(len(index)))
    index[which] = rng.choice(
        np.array([0, 1, 7, 100, len(data), 2**31, 2**40, 2**62, 2**63, 2**64 - 2, 2**64 - 1], "u8")
    )
    fixed = apply_codec("crc32c", {}, index.astype("<u8").tobytes())
    return data[:start] + fixed + data[start + nbytes + 4 :], f"index entry {which}"


def mutation(
    subject: Subject, rng: np.random.Generator, donors: list[Any]
) -> tuple[Objects, str, str] | None:
    """Objects with one changed, its key, and what was done."""
    chunks, documents = subject.chunks, subject.documents
    if chunks and (rng.integers(2) or not documents):
        key = chunks[rng.integers(len(chunks))]
        done = changed_index(subject, key, rng) if rng.integers(2) else None
        done = done or changed_bytes(subject.objects[key], rng)
    else:
        key = documents[rng.integers(len(documents))]
        if rng.integers(10) == 0:
            done = changed_bytes(subject.objects[key], rng)
        else:
            done = changed_document(subject.objects[key], rng, donors)
    if done is None or done[0] == subject.objects[key]:
        return None
    return subject.objects | {key: done[0]}, key, done[1]


# ---- what a reader may make of it ----------------------------------------------------------------


def read_corner(node: Any, device: Any = "cpu") -> Any:
    """At most 12 elements along each axis; of a group, of all that it holds."""
    if isinstance(node, zg.Group):
        return [read_corner(member, device) for _, member in node.members(max_depth=None)]
    if not isinstance(node, zg.Array):
        return None
    corner = tuple(slice(0, min(n, 12)) for n in node.shape)
    options = zg.ReadOptions(memory_budget_bytes=BUDGET_BYTES)
    got = node.read(corner, device=device, options=options)
    assert got.dtype == node.dtype
    assert got.shape == tuple(min(n, 12) for n in node.shape)
    return got


def check_refusal(error: ZarrGPUError, key: str) -> None:
    """Say where it is: the array, and the chunk if that was changed; no more than a screenful."""
    message = str(error)
    assert URL in message or isinstance(error, MemoryBudgetError), message
    assert len(message) < 2000, message
    if isinstance(error, ChunkDecodeError):
        assert error.chunk.startswith(key), message
        assert error.codec, message


def check(subject: Subject, objects: Objects, key: str) -> str:
    """Read what was changed: ``same`` or ``other`` data, or the name of zarrgpu's error.

    Raises
    ------
    AssertionError
        If the error does not say where, or a checksum was not heeded.
    """
    began = time.process_time()
    try:
        got = read_corner(zg.open(MemoryStore(objects, URL)))
    except ZarrGPUError as error:
        check_refusal(error, key if key in subject.chunks else "")
        return type(error).__name__
    finally:
        assert time.process_time() - began < SECONDS
    if subject.name not in KINDS or not isinstance(got, np.ndarray):
        return "read"
    wanted = expected(subject.name)
    wanted = wanted[(*(slice(0, 12) for _ in wanted.shape), ...)]
    equal = got.dtype == wanted.dtype and got.shape == wanted.shape
    if equal and got.dtype.hasobject:
        equal = got.tolist() == np.asarray(wanted).tolist()
    elif equal:
        equal = got.tobytes() == np.ascontiguousarray(wanted).tobytes()
    if subject.name in CHECKSUMMED and key in subject.chunks:
        assert equal, "a checksum did not tell"
    return "same" if equal else "other"


def compare(device: Any) -> Callable[[Subject, Objects, str], str]:
    """Make a check that a device gives what the host gives, or refuses it as the host does."""

    def outcome(objects: Objects, where: Any) -> Any:
        try:
            return read_corner(zg.open(MemoryStore(objects, URL)), where)
        except ZarrGPUError as error:
            return error

    def check_device(subject: Subject, objects: Objects, key: str) -> str:
        host, other = outcome(objects, "cpu"), outcome(objects, device)
        if isinstance(other, ZarrGPUError):
            check_refusal(other, key if key in subject.chunks else "")
            assert isinstance(host, ZarrGPUError) or "lie on a GPU" in str(other), str(other)
            if isinstance(host, ChunkDecodeError) and isinstance(other, ChunkDecodeError):
                assert other.codec == host.codec, str(other)
            return type(other).__name__
        assert not isinstance(host, ZarrGPUError), f"the host says {host}"
        if isinstance(host, np.ndarray):
            assert to_host(other).tobytes() == host.tobytes()
        return "same"

    return check_device


def case(
    subjects: Mapping[str, Subject],
    donors: list[Any],
    seed: int,
    number: int,
    check: Callable[[Subject, Objects, str], str] = check,
) -> tuple[str, Callable[[], str]] | None:
    """Description of the mutation of a number, and what reads it."""
    rng = np.random.default_rng([seed, number])
    subject = list(subjects.values())[rng.integers(len(subjects))]
    done = mutation(subject, rng, donors)
    if done is None:
        return None
    objects, key, what = done
    return f"{subject.name} {key}: {what}", lambda: check(subject, objects, key)


def documents_of(subjects: Mapping[str, Subject]) -> list[Any]:
    """All metadata, to take members from."""
    return [
        json.loads(subject.objects[key])
        for subject in subjects.values()
        for key in subject.documents
    ]


def campaign(
    subjects: Mapping[str, Subject],
    n: int,
    seed: int,
    first: int = 0,
    check: Callable[[Subject, Objects, str], str] = check,
) -> tuple[Counter[str], list[str]]:
    """Run `n` mutations; count the outcomes, and describe those that must not be."""
    donors = documents_of(subjects)
    outcomes: Counter[str] = Counter()
    wrong = []
    for number in range(first, first + n):
        drawn = case(subjects, donors, seed, number, check)
        if drawn is None:
            continue
        try:
            outcomes[drawn[1]()] += 1
        except Exception as error:
            wrong.append(f"{number}: {drawn[0]}: {type(error).__name__}: {str(error)[:300]}")
    return outcomes, wrong


def main() -> None:
    """Run a campaign, and say what came of it and what memory it took."""
    warnings.simplefilter("ignore")
    family, (n, seed) = sys.argv[1], map(int, sys.argv[2:4])
    first = int(sys.argv[4]) if len(sys.argv) > 4 else 0
    checked = check
    if family.startswith("device-"):  # the emulated one
        checked = compare(open_device("emulated"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes, wrong = campaign(FAMILIES[family.removeprefix("device-")](), n, seed, first, checked)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    lines = [*wrong, str(dict(outcomes)), f"{after - before} KiB more, {after} at most"]
    sys.stdout.buffer.write("\n".join([*lines, ""]).encode("utf-8", "backslashreplace"))
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
