"""What the BloscLZ kernel takes, c-blosc decodes to the same bytes; it takes all encoders write.

The kernel is the shipped kernels/blosclz.cu, run on the emulated device; the oracle is c-blosc.
"""

from __future__ import annotations

import struct

import numcodecs.blosc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.blosc_cases import Container, blosclz
from tests.kernel_bench import Bench
from tests.test_kernels import sanitized
from zarrgpu.devices.kernels import WHOLE_TILE
from zarrgpu.devices.tables import COPY_JOB, JobStatus


def c_blosc(stream: bytes, n: int) -> bytes | None:
    """What c-blosc makes of a stream; None if it refuses."""
    if len(stream) == n:  # it would be a stored stream
        return None
    container = Container(
        cname="blosclz", typesize=1, nbytes=n, blocksize=n, flags=16,
        blocks=[struct.pack("<i", len(stream)) + stream],
    )  # fmt: skip
    try:
        return bytes(numcodecs.blosc.decompress(container.encode()))
    except RuntimeError:
        return None


def run(streams, sizes, *, change=None, misalign=0, **how):
    """Statuses and decoded bytes of one job a stream."""
    bench = Bench()
    jobs = np.zeros(len(streams), COPY_JOB)
    starts = np.concatenate([[0], np.cumsum(np.array(sizes) + 3)])
    out = bench.empty(int(starts[-1]), misalign % 16)
    for i, stream in enumerate(streams):
        content = np.frombuffer(stream, np.uint8)
        jobs[i]["source"] = bench.put(content, (i + misalign) % 7)
        jobs[i]["source_nbytes"] = content.size
    jobs["target"] = out.ptr + misalign % 16 + starts[:-1]
    jobs["nbytes"] = jobs["target_nbytes"] = sizes
    if change is not None:
        change(jobs)
    before = out.array.copy()
    status, got = bench.run("blosclz", jobs, sizes, WHOLE_TILE, watch=out, **how)
    gaps = np.ones(got.size, np.bool_)
    decoded = []
    for start, size in zip(starts + misalign % 16, sizes, strict=False):
        gaps[start : start + size] = False
        decoded.append(got[start : start + size].tobytes())
    np.testing.assert_array_equal(got[gaps], before[gaps])
    return status.tolist(), decoded


def texture(rng, n):
    """Runs, repeats at many distances, and noise."""
    parts = [rng.integers(0, 256, 40, dtype=np.uint8)]
    while sum(p.size for p in parts) < n:
        so_far = np.concatenate(parts)
        kind, length = rng.integers(0, 4), int(rng.integers(1, 400))
        if kind == 0:
            parts.append(np.full(length, rng.integers(0, 256), np.uint8))
        elif kind == 1:
            parts.append(rng.integers(0, 256, length // 4 + 1, dtype=np.uint8))
        else:
            at = int(rng.integers(0, so_far.size))
            parts.append(np.resize(so_far[at : at + length], length))
    return np.concatenate(parts)[:n]


@given(st.lists(st.integers(100, 6000), min_size=1, max_size=4), st.integers(0, 2**32))
@settings(max_examples=25, deadline=None)
def test_streams_of_the_real_encoder(sizes, seed):
    rng = np.random.default_rng(seed)
    raw = [texture(rng, n).tobytes() for n in sizes]
    coded = [(blosclz(r), r) for r in raw]
    coded = [(c, r) for c, r in coded if len(c) < len(r)]
    if not coded:
        return
    status, decoded = run([c for c, _ in coded], [len(r) for _, r in coded], misalign=seed % 16)
    assert status == [JobStatus.OK] * len(coded)
    assert decoded == [r for _, r in coded]


def test_matches_beyond_the_short_distance():
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, 3000, dtype=np.uint8)
    raw = np.concatenate([noise, np.zeros(20_000, np.uint8), noise, noise[:9]]).tobytes()
    stream = blosclz(raw)
    assert len(stream) < 4000
    assert run([stream], [len(raw)]) == ([JobStatus.OK], [raw])


@given(st.integers(0, 2**32))
@settings(max_examples=12, deadline=None)
def test_changed_streams_decode_as_by_c_blosc_or_not_at_all(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(150, 700))
    raw = texture(rng, n).tobytes()
    good = blosclz(raw)
    streams = []
    for _ in range(40):
        changed = bytearray(good)
        for _ in range(int(rng.integers(1, 3))):
            changed[int(rng.integers(0, len(changed)))] = int(rng.integers(0, 256))
        cut = int(rng.integers(0, len(changed))) if rng.random() < 0.3 else len(changed)
        streams.append(bytes(changed[:cut]))
    status, decoded = run(streams, [n] * len(streams))
    for stream, code, content in zip(streams, status, decoded, strict=True):
        if code == JobStatus.OK:
            assert len(stream) == n or content == c_blosc(stream, n)
        else:
            assert code == JobStatus.CORRUPT


@pytest.mark.parametrize(
    ("stream", "wanted"),
    [
        (b"\x04hello", b"hello"),
        (b"\xe4hello", b"hello"),  # the top bits of the first byte mean nothing
        (b"\x00a\x20\x00\x00b", b"aaaab"),  # a run: distance 1, length 3
        (b"\x00a\xe0\x00\x00\x00b", b"a" + b"a" * 9 + b"b"),
        (b"\x00a\xe0\xff\x02\x00\x00b", b"a" + b"a" * (9 + 257) + b"b"),
        (b"\x01ab\x60\x01\x00c", b"ab" + b"ababa" + b"c"),
        (b"\x00a\x20\x01\x00b", None),  # before the start
        (b"\x00a\x20\x00", None),  # ends with a match
        (b"\x00a\x20", None),
        (b"\x00a\xe0\xff\xff", None),
        (b"\x00a\x3f\xff\x00", None),
        (b"\x05hello", None),
        (b"", None),
        (b"\x04hell", None),
        (b"\x04hello\x00!", None),  # one more than there is room
    ],
)
def test_streams_by_hand(stream, wanted):
    n = 5 if wanted is None else len(wanted)
    (status,), (decoded,) = run([stream], [n])
    if wanted is None:
        assert status == JobStatus.CORRUPT
        assert stream == b"" or c_blosc(stream, n) is None or len(stream) == n
    else:
        assert (status, decoded) == (JobStatus.OK, wanted)
        assert len(stream) >= n or c_blosc(stream, n) == wanted


@pytest.mark.parametrize(
    ("field", "value", "status"),
    [
        ("nbytes", -1, JobStatus.BAD_JOB),
        ("nbytes", 1 << 31, JobStatus.BAD_JOB),
        ("source_nbytes", -1, JobStatus.BAD_JOB),
        ("target_nbytes", 4, JobStatus.TARGET_BOUNDS),
        ("source", None, JobStatus.BAD_JOB),
    ],
)
def test_a_bad_job_gets_a_status(field, value, status):
    def change(jobs):
        jobs[field][1] = jobs["target"][1] + 2 if value is None else value

    found, decoded = run([b"\x04hello"] * 3, [5] * 3, change=change)
    assert found == [JobStatus.OK, status, JobStatus.OK]
    assert decoded[::2] == [b"hello"] * 2


@sanitized
def test_blosclz_under_sanitizers(sanitizer):
    rng = np.random.default_rng(3)
    raw = [texture(rng, n).tobytes() for n in (400, 600, 900)]
    streams = [blosclz(r) for r in raw]
    changed = bytearray(streams[2])
    changed[20] ^= 0xFF
    streams += [bytes(changed), streams[1][:-5]]
    status, decoded = run(streams, [len(r) for r in (*raw, raw[2], raw[1])], sanitizer=sanitizer)
    assert status[:3] == [JobStatus.OK] * 3
    assert decoded[:3] == raw
    assert status[4] == JobStatus.CORRUPT
