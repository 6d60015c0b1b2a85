"""The header kernels bring every byte that their plain references visit, and refuse the same.

The kernels are the shipped kernels/blosc_headers.cu, run on the emulated device, in three builds.
"""

from __future__ import annotations

import struct

import numcodecs
import numpy as np
import pytest

from tests import kernel_references as reference
from tests.blosc_cases import build
from tests.kernel_bench import Bench
from tests.test_kernels import sanitized
from tests.zarr_cases import BLOSC_INNER
from zarrgpu.devices.kernels import WHOLE_TILE
from zarrgpu.devices.tables import HEADER_JOB, HEADER_NBYTES, HEADER_RECORD, JobStatus

RECORD = HEADER_RECORD.itemsize
ROOM = 400
KERNELS = ("blosc_headers", "zstd_headers")


def run(kernel, chunks, nbytes, *, records=ROOM, misalign=0, change=None, **how):
    """Statuses, and for each chunk the number and the records (place -> bytes) that came."""
    bench = Bench()
    jobs = np.zeros(len(chunks), HEADER_JOB)
    rooms = np.broadcast_to(records, len(chunks)) + 1
    out = bench.zeros(int(rooms.sum()) * RECORD)
    for i, chunk in enumerate(chunks):
        content = np.frombuffer(chunk, np.uint8)
        jobs[i]["source"] = bench.put(content, (i + misalign) % 7)
        jobs[i]["source_nbytes"] = content.size
    start = np.cumsum(rooms) - rooms
    jobs["nbytes"] = nbytes
    jobs["target"], jobs["target_nbytes"] = out.ptr + start * RECORD, rooms * RECORD
    if change is not None:
        change(jobs)
    status, got = bench.run(kernel, jobs, jobs["source_nbytes"], WHOLE_TILE, watch=out, **how)
    table = got.view(HEADER_RECORD)
    found = []
    for first, room in zip(start, rooms, strict=True):
        count = int(table[first]["at"])
        rows = table[first + 1 : first + 1 + min(count, room - 1)]
        found.append((count, {int(row["at"]): row["data"].tobytes() for row in rows}))
        assert not table[first + 1 + min(count, room - 1) : first + room]["data"].any()
    return status.tolist(), found


def check(kernel, chunks, nbytes, **how):
    """Hold the kernel to its reference; returns the statuses."""
    status, found = run(kernel, chunks, nbytes, **how)
    for chunk, n, code, (count, records) in zip(
        chunks, np.broadcast_to(nbytes, len(chunks)).tolist(), status, found, strict=True
    ):
        padded = chunk + bytes(HEADER_NBYTES)
        for at, data in records.items():
            assert data == padded[at : at + HEADER_NBYTES]
        try:
            places = getattr(reference, kernel)(chunk, n)
        except reference.CorruptHeaderError:
            assert code == JobStatus.CORRUPT
            continue
        assert code == JobStatus.OK
        brought = {at + k for at in records for k in range(HEADER_NBYTES)}
        assert brought >= {k for at, size in places for k in range(at, min(at + size, len(chunk)))}
        assert len(records) == count
    return status


def texture(n, seed=0):
    """Bytes that compress, but not to nothing."""
    rng = np.random.default_rng(seed)
    return np.cumsum(rng.integers(-2, 3, n)).astype("u1")


def containers(seed=0):
    """What encoders write, and what only writers with threads, or none at all, do."""
    rng = np.random.default_rng(seed)
    made = []
    for cname in BLOSC_INNER:
        for typesize in (1, 2, 4, 8, 17):
            n = 17 * typesize * int(rng.integers(20, 120))
            for shuffle in (0, 1, 2):
                codec = numcodecs.Blosc(cname, 5, shuffle, int(rng.choice([0, 400, 1000, 4096])))
                data = texture(n, seed).view(f"V{typesize}")
                made.append((bytes(codec.encode(data)), n))
    for cname in ("zstd", "lz4", "zlib", "snappy"):
        for options in (
            {}, {"split": True}, {"split": True, "order": [2, 0, 3, 1]}, {"gap": 5},
            {"stored": True}, {"stored": True, "split": True},
        ):  # fmt: skip
            data = texture(4 * 1024, seed)
            made.append(
                (build(data, cname=cname, typesize=4, blocksize=1024, **options).encode(), 4096)
            )
    noise = rng.bytes(2000)
    made.append((bytes(numcodecs.Blosc("lz4", 5, 0).encode(noise)), 2000))
    assert made[-1][0][2] & 2  # stored as a whole
    return made


def frames():
    """Frames of one block and of many, with and without a size or a checksum, and no frames."""
    long = np.tile(texture(200_000, 1), 3)
    made = []
    for n in (1, 40, 300, 70_000, 300_000, 600_000):
        for checksum in (False, True):
            codec = numcodecs.Zstd(1, checksum=checksum)
            made.append((bytes(codec.encode(long[:n].tobytes())), n))
    made.append((bytes(numcodecs.Zstd(1).encode(bytes(900_000))), 900_000))
    return made


def test_what_encoders_write():
    chunks, nbytes = zip(*containers(), strict=True)
    assert set(check("blosc_headers", chunks, nbytes)) == {JobStatus.OK}
    chunks, nbytes = zip(*frames(), strict=True)
    assert set(check("zstd_headers", chunks, nbytes)) == {JobStatus.OK}


def mutated(rng, made, n):
    """Changed bytes, near the front or anywhere, cut or with more behind."""
    chunks, nbytes = [], []
    for _ in range(n):
        raw, size = made[int(rng.integers(0, len(made)))]
        raw = bytearray(raw)
        for _ in range(int(rng.integers(1, 4))):
            at = int(rng.integers(0, min(len(raw), 60) if rng.random() < 0.7 else len(raw)))
            if rng.random() < 0.5:
                raw[at] ^= 1 << int(rng.integers(0, 8))
            else:
                word = int(
                    rng.choice([-1, 0, 1, 15, 16, len(raw) - 4, len(raw), 2**31 - 1, -(2**31)])
                )
                raw[at & ~3 : (at & ~3) + 4] = struct.pack("<i", word)
        if rng.random() < 0.3:
            raw = raw[: int(rng.integers(0, len(raw)))]
            if len(raw) >= 16 and rng.random() < 0.7:  # a Blosc container that says so
                raw[12:16] = struct.pack("<i", len(raw))
                chunks.append(bytes(raw))
                nbytes.append(size)
                continue
        chunks.append(bytes(raw) + bytes(int(rng.integers(0, 2))))
        nbytes.append(size if rng.random() < 0.9 else int(rng.integers(0, 9000)))
    return chunks, nbytes


@pytest.mark.parametrize("seed", range(3))
def test_changed_bytes_are_refused_where_the_reference_refuses(seed):
    rng = np.random.default_rng(seed)
    status = []
    for kernel, made in (("blosc_headers", containers(seed)), ("zstd_headers", frames()[:8])):
        chunks, nbytes = mutated(rng, made, 200)
        status += check(kernel, chunks, nbytes, records=20_000 if seed == 0 else 2000)
    assert {JobStatus.OK, JobStatus.CORRUPT} <= set(status)


@sanitized
def test_under_sanitizers(sanitizer):
    rng = np.random.default_rng(9)
    made = containers(3)
    chunks, nbytes = mutated(rng, made, 50)
    chunks += [chunk for chunk, _ in made[::9]]
    nbytes += [n for _, n in made[::9]]
    check("blosc_headers", chunks, nbytes, sanitizer=sanitizer, misalign=3)
    made = frames()[2:6]
    chunks, nbytes = mutated(rng, made, 15)
    check("zstd_headers", [*chunks, made[1][0]], [*nbytes, made[1][1]], sanitizer=sanitizer)


@sanitized
def test_rooms_that_are_too_small(sanitizer):
    """More records than room: a status, the number says so, and nothing is written behind."""
    chunk, n = next((c, n) for c, n in containers() if len(reference.blosc_headers(c, n)) > 40)
    assert run("blosc_headers", [chunk], n)[0] == [JobStatus.OK]
    most = run("blosc_headers", [chunk], n)[1][0][0]
    rooms = [0, 1, 5, most - 1, most]
    status, found = run("blosc_headers", [chunk] * 5, n, records=rooms, sanitizer=sanitizer)
    assert status == [JobStatus.TARGET_BOUNDS] * 4 + [JobStatus.OK]
    assert [count > room for (count, _), room in zip(found, rooms, strict=True)] == [True] * 4 + [
        False
    ]
    long, size = frames()[-2]
    status, _ = run("zstd_headers", [long] * 3, size, records=[0, 2, 20], sanitizer=sanitizer)
    assert status == [JobStatus.TARGET_BOUNDS] * 2 + [JobStatus.OK]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"source_nbytes": -1}, JobStatus.BAD_JOB),
        ({"nbytes": -1}, JobStatus.BAD_JOB),
        ({"nbytes": 1 << 31}, JobStatus.BAD_JOB),
        ({"target_nbytes": RECORD - 1}, JobStatus.TARGET_BOUNDS),
        ({"target_nbytes": 0}, JobStatus.TARGET_BOUNDS),
    ],
)
def test_jobs_that_make_no_sense(kernel, change, code):
    def apply(jobs):
        for name, value in change.items():
            jobs[name] = value
        jobs["source"] = 0  # so that the emulator lets sizes pass that no memory has

    chunk, n = containers()[0] if kernel == "blosc_headers" else frames()[0]
    status, found = run(kernel, [chunk], n, change=apply)
    assert status == [code]
    assert found[0][0] == 0


def test_targets_must_be_aligned():
    def shift(jobs):
        jobs["target"] += 4
        jobs["target_nbytes"] -= 4

    for kernel, (chunk, n) in (("blosc_headers", containers()[0]), ("zstd_headers", frames()[0])):
        assert run(kernel, [chunk], n, change=shift)[0] == [JobStatus.MISALIGNED]
