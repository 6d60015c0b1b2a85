"""Checksum kernels take what carries its checksum and nothing else: zlib, numcodecs, zstd agree.

The kernels are the shipped kernels/checksum*.cu, run on the emulated device.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import kernel_references as reference
from tests.kernel_bench import Bench
from tests.test_kernels import sanitized
from zarrgpu.devices.kernels import CHECKSUM_PARTS_NBYTES, CHECKSUM_TILE_NBYTES, tile_starts
from zarrgpu.devices.tables import CHECKSUM_JOB, ChecksumKind, JobStatus

KINDS = list(ChecksumKind)
PARALLEL = KINDS[:-1]


def run_checksums(blocks, kinds, *, tile=CHECKSUM_TILE_NBYTES, change=None, misalign=0, **how):
    """Statuses of one job a block, all kinds that have a launch in common at once."""
    bench = Bench()
    jobs = np.zeros(len(blocks), CHECKSUM_JOB)
    stored = np.zeros(len(blocks), "<u4")
    for i, (block, kind) in enumerate(zip(blocks, kinds, strict=True)):
        jobs[i]["big_endian"] = i % 2
        value = np.uint32(reference.checksum(block, kind))
        stored[i] = value.byteswap() if i % 2 else value
        jobs[i]["source"] = bench.put(block, (misalign + i) % 19)
        jobs[i]["source_nbytes"] = jobs[i]["nbytes"] = block.size
        jobs[i]["kind"] = kind
    address = bench.put(stored, misalign % 4)
    jobs["stored"] = address + 4 * np.arange(len(blocks))
    starts = tile_starts([b.size for b in blocks], tile)
    parts = bench.empty(int(starts[-1]) * CHECKSUM_PARTS_NBYTES)
    jobs["parts"] = parts.ptr + starts[:-1] * CHECKSUM_PARTS_NBYTES
    jobs["parts_nbytes"] = np.diff(starts) * CHECKSUM_PARTS_NBYTES
    if change is not None:
        change(jobs)
    sizes = [b.size for b in blocks]
    if kinds[0] == ChecksumKind.XXH64:
        return bench.run("checksum_xxh64", jobs, sizes, tile, **how)[0].tolist()
    if how:
        bench.run("checksum_parts", jobs, sizes, tile, **how)
    first, _ = bench.run("checksum_parts", jobs, sizes, tile)
    status, _ = bench.run("checksum_verify", jobs, sizes, tile, **how)
    assert (first == np.where(status == JobStatus.MISMATCH, JobStatus.OK, status)).all()
    return status.tolist()


def draw_block(rng, n):
    """Bytes that are random, constant or sparse: sums reach 0 and their modulus."""
    kind = rng.integers(0, 4)
    if kind == 0:
        return np.full(n, rng.choice([0, 255, 1]), np.uint8)
    data = rng.integers(0, 256, n, dtype=np.uint8)
    return data * (rng.random(n) < 0.02).astype(np.uint8) if kind == 1 else data


sizes = st.one_of(st.integers(0, 70), st.integers(500, 3000), st.integers(16_000, 40_000))


@given(
    st.lists(st.tuples(sizes, st.sampled_from(PARALLEL)), min_size=1, max_size=4),
    st.sampled_from([64, 1088, CHECKSUM_TILE_NBYTES]), st.integers(0, 2**32),
)  # fmt: skip
@settings(max_examples=50, deadline=None)
def test_what_is_right_passes_and_one_bit_less_does_not(shapes, tile, seed):
    rng = np.random.default_rng(seed)
    blocks = [draw_block(rng, n) for n, _ in shapes]
    kinds = [kind for _, kind in shapes]
    tile = tile if max(b.size for b in blocks) < 4000 else CHECKSUM_TILE_NBYTES
    assert run_checksums(blocks, kinds, tile=tile, misalign=seed % 16) == [JobStatus.OK] * len(
        kinds
    )
    changed = int(rng.integers(0, len(blocks)))
    wanted = [JobStatus.OK] * len(kinds)
    wanted[changed] = JobStatus.MISMATCH

    def flip(jobs):  # another checksum, which is as good as other data
        jobs["big_endian"][changed] ^= 1

    value = reference.checksum(blocks[changed], kinds[changed])
    if value != int(np.uint32(value).byteswap()):
        assert run_checksums(blocks, kinds, tile=tile, change=flip) == wanted


@given(st.lists(sizes, min_size=1, max_size=4), st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_xxh64_is_that_of_zstd(shapes, seed):
    rng = np.random.default_rng(seed)
    blocks = [draw_block(rng, n) for n in shapes]
    kinds = [ChecksumKind.XXH64] * len(blocks)
    assert run_checksums(blocks, kinds, misalign=seed % 16) == [JobStatus.OK] * len(blocks)


@pytest.mark.parametrize("kind", KINDS)
def test_every_byte_counts(kind):
    """Each byte changed alone, at sizes around those of stripes, words, parts and tiles."""
    for n in (1, 2, 5, 31, 33, 63, 64, 65, 100):
        data = np.random.default_rng(n).integers(0, 256, n, dtype=np.uint8)
        bench = Bench()
        jobs = np.zeros(n + 1, CHECKSUM_JOB)
        jobs["kind"], jobs["nbytes"], jobs["source_nbytes"] = kind, n, n
        jobs["stored"] = bench.put(np.uint32([reference.checksum(data, kind)]))
        changed = np.tile(data, (n + 1, 1))
        changed[np.arange(n), np.arange(n)] ^= 1 << (n % 8)
        jobs["source"] = bench.put(changed) + n * np.arange(n + 1)
        tiles = -(-n // 64)
        parts = bench.empty((n + 1) * tiles * CHECKSUM_PARTS_NBYTES)
        jobs["parts"] = parts.ptr + np.arange(n + 1) * tiles * CHECKSUM_PARTS_NBYTES
        jobs["parts_nbytes"] = tiles * CHECKSUM_PARTS_NBYTES
        names = ["checksum_xxh64"] if kind == ChecksumKind.XXH64 else [
            "checksum_parts", "checksum_verify"]  # fmt: skip
        for name in names:
            status, _ = bench.run(name, jobs, [n] * (n + 1), 64)
        assert status.tolist() == [JobStatus.MISMATCH] * n + [JobStatus.OK]


@pytest.mark.parametrize(
    ("field", "value", "status"),
    [
        ("nbytes", -1, JobStatus.BAD_JOB),
        ("nbytes", 101, JobStatus.SOURCE_BOUNDS),
        ("nbytes", 1 << 40, JobStatus.BAD_JOB),
        ("kind", 5, JobStatus.BAD_JOB),
        ("kind", -1, JobStatus.BAD_JOB),
        ("kind", ChecksumKind.XXH64, JobStatus.BAD_JOB),
        ("parts_nbytes", 255, JobStatus.TARGET_BOUNDS),
        ("parts", None, JobStatus.MISALIGNED),
    ],
)
def test_a_bad_job_gets_a_status(field, value, status):
    data = np.arange(100, dtype=np.uint8)

    def change(jobs):
        if value is None:
            jobs[field][1] += 4
            jobs["parts_nbytes"][1] = 256
        else:
            jobs[field][1] = value

    found = run_checksums([data] * 3, [ChecksumKind.ADLER32] * 3, change=change)
    assert found[::2] == [JobStatus.OK] * 2
    assert found[1] == status


@pytest.mark.parametrize("tile", [32, 100, 32768])
def test_tiles_that_do_not_fit_the_sums_are_refused(tile):
    data = np.arange(100, dtype=np.uint8)
    assert run_checksums([data], [ChecksumKind.CRC32], tile=tile) == [JobStatus.BAD_JOB]


@sanitized
@pytest.mark.parametrize("kind", KINDS)
def test_checksums_under_sanitizers(sanitizer, kind):
    rng = np.random.default_rng(kind)
    blocks = [rng.integers(0, 256, n, dtype=np.uint8) for n in (0, 1, 17, 64, 700, 17_000)]
    found = run_checksums(blocks, [kind] * len(blocks), sanitizer=sanitizer, misalign=3)
    assert found == [JobStatus.OK] * len(blocks)
