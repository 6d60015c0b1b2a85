"""Every kernel equals its NumPy reference byte for byte, and touches nothing that it may not.

The kernels are the shipped kernels/*.cu, compiled by g++ and run on the emulated device.
"""

from __future__ import annotations

import itertools
import math
import re
import subprocess

import ml_dtypes
import numcodecs.blosc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import kernel_references as reference
from tests.emulator.build import require_compiler, sanitizer_problem
from tests.kernel_bench import Bench, gather_tables
from zarrgpu.devices.kernel_sources import kernels_folder
from zarrgpu.devices.kernels import KERNELS
from zarrgpu.devices.tables import (
    COPY_JOB,
    STRUCTS,
    UNSHUFFLE_JOB,
    ChecksumKind,
    ElementType,
    JobStatus,
)

COPIED = [">i2", "<u4", ">f8", "<c8", ">c16", "u1", "S1", "V2", "V4", "V16"]
CAST = [
    "?",
    "i1",
    "u1",
    ">i2",
    "<u2",
    "<i4",
    ">u4",
    ">i8",
    "<u8",
    "<f2",
    ">f2",
    "<f4",
    ">f4",
    "<f8",
]
FLOATS = ["f2", "f4", "f8", "bfloat16"]
INTEGERS = ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"]
WIDENED = [(s, t) for s in CAST for t in INTEGERS if np.can_cast(s, t) and s.strip("<>") != t]
LAUNCHES = settings(max_examples=60, deadline=None)

sanitized = pytest.mark.parametrize(
    "sanitizer",
    [
        pytest.param(None, id="plain"),
        *(
            pytest.param(
                s,
                id=s,
                marks=pytest.mark.skipif(
                    bool(sanitizer_problem(s)), reason=sanitizer_problem(s) or "it works"
                ),
            )
            for s in ("address", "thread")
        ),
    ],
)


# --------------------------------------------------------------------------------- declarations


def test_structs_and_dtypes_are_the_same_bytes(tmp_path):
    lines = ["int main() {"]
    for name, dtype in STRUCTS.items():
        lines.append(f'printf("{name} %zu\\n", sizeof({name}));')
        lines += [
            f'printf("{name}.{field} %zu %zu\\n", offsetof({name}, {field}), '
            f"sizeof((({name}*)0)->{field}));"
            for field in dtype.names
        ]
    source = tmp_path / "sizes.cpp"
    here = kernels_folder().parent / "tests" / "emulator"
    source.write_text(
        "#include <cstddef>\n#include <cstdio>\n"
        f'#include "{here / "cuda_on_host.hpp"}"\n#include "common.cuh"\n'
        + "\n".join([*lines, "}"])
    )
    require_compiler()
    program = tmp_path / "sizes"
    include = f"-I{kernels_folder()}"
    command = ["g++", "-std=c++20", "-w", "-pthread", include, str(source), "-o", str(program)]
    subprocess.run(command, check=True)
    printed = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    expected = []
    for name, dtype in STRUCTS.items():
        expected.append(f"{name} {dtype.itemsize}")
        for field in dtype.names:
            kind, offset = dtype.fields[field][:2]
            expected.append(f"{name}.{field} {offset} {kind.itemsize}")
    assert printed.splitlines() == expected


def test_enums_and_constants_are_the_same_numbers():
    text = (kernels_folder() / "common.cuh").read_text()
    for prefix, enum in (
        ("STATUS", JobStatus),
        ("TYPE", ElementType),
        ("CHECKSUM", ChecksumKind),
    ):
        found = dict(re.findall(rf"^    {prefix}_(\w+) = (\d+),", text, re.MULTILINE))
        assert {name: int(value) for name, value in found.items()} == {
            member.name: member.value for member in enum
        }


def test_signatures_are_those_of_the_sources():
    kinds = {"i32": "int32"}
    for kernel, (source, parameters) in KERNELS.items():
        text = (kernels_folder() / source).read_text()
        declared = re.search(rf"__global__ void {kernel}\((.*?)\n\{{", text, re.DOTALL)
        plain = re.sub(r"//[^\n]*", "", declared[1])
        types = [p.strip().rsplit(" ", 1)[0] for p in plain.replace(")", "").split(",")]
        assert tuple("address" if "*" in t else kinds[t] for t in types) == parameters
    listed = set(re.findall(r"__global__ void (\w+)\(", "".join(
        path.read_text() for path in kernels_folder().glob("*.cu")
    )))  # fmt: skip
    assert listed == set(KERNELS)


# ------------------------------------------------------------------------------- copy, unshuffle


def run_bytes_kernel(kernel, blocks, expected, misalignments, tile, typesizes=None, sanitizer=None):
    """Run one job a block, all into one output, and compare every byte of it."""
    bench = Bench()
    dtype = COPY_JOB if typesizes is None else UNSHUFFLE_JOB
    jobs = np.zeros(len(blocks), dtype)
    target_misalignment = misalignments[0][1] if misalignments else 0
    gaps = [m[1] for m in misalignments]
    total = sum(b.size for b in blocks) + sum(gaps)
    out = bench.empty(total, target_misalignment)
    want = out.array.copy()
    at = target_misalignment
    for i, block in enumerate(blocks):
        jobs[i]["source"] = bench.put(block, misalignments[i][0])
        jobs[i]["source_nbytes"] = jobs[i]["target_nbytes"] = jobs[i]["nbytes"] = block.size
        jobs[i]["target"] = out.ptr + at
        if typesizes is not None:
            jobs[i]["typesize"] = typesizes[i]
        want[at : at + block.size] = expected[i]
        at += block.size + gaps[i]
    sizes = [b.size for b in blocks]
    status, got = bench.run(kernel, jobs, sizes, tile, sanitizer=sanitizer, watch=out)
    assert status.tolist() == [JobStatus.OK] * len(blocks)
    np.testing.assert_array_equal(got, want)


def random_bytes(rng, n):
    return rng.integers(0, 256, n, dtype=np.uint8)


job_shapes = st.lists(
    st.tuples(
        st.one_of(st.integers(0, 70), st.integers(500, 5000)),
        st.integers(0, 17),
        st.integers(0, 17),
        st.sampled_from([1, 2, 3, 4, 7, 8, 16, 255]),
    ),
    min_size=1,
    max_size=5,
)


@given(job_shapes, st.sampled_from([1, 48, 64, 1024, 8192]), st.integers(0, 2**32))
@LAUNCHES
def test_copy_segments(shapes, tile, seed):
    rng = np.random.default_rng(seed)
    tile = max(tile, 48)  # one byte a tile is thousands of tiles
    blocks = [random_bytes(rng, n) for n, *_ in shapes]
    expected = [reference.copy_segments(b) for b in blocks]
    run_bytes_kernel("copy_segments", blocks, expected, [s[1:3] for s in shapes], tile)


@pytest.mark.parametrize("kernel", ["unshuffle_bytes", "unshuffle_bits"])
def test_unshuffle(kernel):
    unshuffle = getattr(reference, kernel)

    @given(job_shapes, st.sampled_from([48, 64, 1024, 8192]), st.integers(0, 2**32))
    @LAUNCHES
    def check(shapes, tile, seed):
        rng = np.random.default_rng(seed)
        # Aligned targets and whole groups are the fast path: make them as likely as the others.
        if seed % 2:
            shapes = [(n - n % (8 * t), s, d - d % 16, t) for n, s, d, t in shapes]
        blocks = [random_bytes(rng, n) for n, *_ in shapes]
        typesizes = [t for *_, t in shapes]
        expected = [unshuffle(b, t) for b, t in zip(blocks, typesizes, strict=True)]
        places = [s[1:3] for s in shapes]
        run_bytes_kernel(kernel, blocks, expected, places, tile, typesizes)

    check()


@pytest.mark.parametrize("shuffle", [1, 2])
@pytest.mark.parametrize("typesize", [1, 2, 3, 4, 8, 16])
def test_unshuffle_is_the_inverse_of_blosc(typesize, shuffle):
    # An incompressible block is stored shuffled but raw: Blosc's own shuffle, readable.
    rng = np.random.default_rng(typesize)
    for n in (typesize * 256, typesize * 250, 4099):
        data = np.repeat(random_bytes(rng, n // 4 + 1), 4)[:n]
        numcodecs.blosc.set_nthreads(1)
        coded = numcodecs.blosc.compress(
            data.view(f"V{typesize}") if n % typesize == 0 else data, b"lz4", 1, shuffle, n
        )
        head = np.frombuffer(coded, np.uint8)
        flags, real_typesize = int(head[2]), int(head[3])
        streams = read_lz4_blosc(head)
        if streams is None:
            continue
        bits, kernel = (flags & 4, "unshuffle_bits") if shuffle == 2 else (flags & 1, None)
        kernel = kernel or "unshuffle_bytes"
        if not bits:
            continue
        run_bytes_kernel(kernel, [streams], [data], [(0, 0)], 1024, [real_typesize])


def read_lz4_blosc(chunk):
    """Decode, but leave shuffled, the bytes of a one-block Blosc LZ4 chunk; None if memcpyed."""
    import imagecodecs

    flags, typesize = int(chunk[2]), int(chunk[3])
    nbytes, blocksize = chunk[4:12].view("<i4").tolist()
    if flags & 2:
        return None
    assert blocksize >= nbytes
    splits = typesize if not flags & 16 and typesize <= 16 and nbytes // typesize >= 128 else 1
    if nbytes % blocksize:
        splits = 1
    at, parts = int(chunk[16:20].view("<i4")[0]), []
    for _ in range(splits):
        size = int(chunk[at : at + 4].copy().view("<i4")[0])
        stream = chunk[at + 4 : at + 4 + size]
        room = nbytes // splits
        parts.append(
            stream
            if size == room
            else np.frombuffer(
                imagecodecs.lz4_decode(stream.tobytes(), out=np.empty(room, np.uint8)), np.uint8
            )
        )
        at += 4 + size
    return np.concatenate(parts)


def test_many_small_jobs_and_one_large():
    rng = np.random.default_rng(0)
    sizes = [*([3] * 2000), 300_000, *([0] * 50)]
    blocks = [random_bytes(rng, n) for n in [sum(sizes)]]
    bench = Bench()
    source, out = bench.put(blocks[0]), bench.empty(sum(sizes))
    jobs = np.zeros(len(sizes), COPY_JOB)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    jobs["source"], jobs["target"] = source + starts, out.ptr + starts
    jobs["source_nbytes"] = jobs["target_nbytes"] = jobs["nbytes"] = sizes
    status, got = bench.run("copy_segments", jobs, sizes, 8192, watch=out)
    assert (status == JobStatus.OK).all()
    np.testing.assert_array_equal(got, blocks[0])


@sanitized
def test_byte_kernels_under_sanitizers(sanitizer):
    rng = np.random.default_rng(1)
    sizes = [0, 1, 15, 16, 17, 64, 130, 1024, 3000]
    places = [(i % 5, 3 * i % 16) for i in range(len(sizes))]
    blocks = [random_bytes(rng, n) for n in sizes]
    run_bytes_kernel("copy_segments", blocks, blocks, places, 1024, sanitizer=sanitizer)
    typesizes = [2, 2, 4, 4, 3, 8, 1, 4, 8]
    for kernel in ("unshuffle_bytes", "unshuffle_bits"):
        aligned = [(1, 16 + -n % 16) for n in sizes]  # every target at a multiple of 16
        for where in (places, aligned):
            expected = [
                getattr(reference, kernel)(b, t) for b, t in zip(blocks, typesizes, strict=True)
            ]
            run_bytes_kernel(kernel, blocks, expected, where, 1024, typesizes, sanitizer)


@pytest.mark.parametrize(
    ("kernel", "change", "status"),
    [
        ("copy_segments", {"nbytes": -1}, JobStatus.BAD_JOB),
        ("copy_segments", {"nbytes": 101}, JobStatus.SOURCE_BOUNDS),
        ("copy_segments", {"target_nbytes": 99}, JobStatus.TARGET_BOUNDS),
        ("unshuffle_bytes", {"typesize": 0}, JobStatus.BAD_JOB),
        ("unshuffle_bytes", {"typesize": 256}, JobStatus.BAD_JOB),
        ("unshuffle_bits", {"source_nbytes": 99}, JobStatus.SOURCE_BOUNDS),
        ("unshuffle_bits", {"overlap": 1}, JobStatus.BAD_JOB),
    ],
)
def test_a_bad_job_gets_a_status_and_writes_nothing(kernel, change, status):
    bench = Bench()
    dtype = COPY_JOB if kernel == "copy_segments" else UNSHUFFLE_JOB
    jobs = np.zeros(2, dtype)
    out = bench.empty(300)
    good, bad = np.arange(100, dtype=np.uint8), np.zeros(100, np.uint8)
    for job, data, at in ((jobs[0], good, 0), (jobs[1], bad, 200)):
        job["source"], job["target"] = bench.put(data), out.ptr + at
        job["source_nbytes"] = job["target_nbytes"] = job["nbytes"] = 100
        if kernel != "copy_segments":
            job["typesize"] = 1
    if change == {"overlap": 1}:
        jobs[1]["source"] = jobs[1]["target"] - 50
    else:
        for field, value in change.items():
            jobs[1][field] = value
    got_status, got = bench.run(kernel, jobs, [100, 100], 64, watch=out)
    assert got_status.tolist() == [JobStatus.OK, status]
    if kernel != "unshuffle_bits":
        np.testing.assert_array_equal(got[:100], good)
    assert (got[100:] == got[100]).all()


# --------------------------------------------------------------------------------------- gather


def draw_strides(rng, shape, *, flips):
    """Strides of a box in a larger array with its axes in any order, and the array's size."""
    order = rng.permutation(len(shape))
    steps = rng.integers(1, 3, len(shape)) if rng.random() < 0.3 else np.ones(len(shape), int)
    padded = [int(shape[d] * steps[d] + rng.integers(0, 2)) for d in range(len(shape))]
    strides, total = [0] * len(shape), 1
    # Mostly keep the innermost axis innermost: that is where the fast paths are.
    axes = range(len(shape)) if rng.random() < 0.6 else order
    for d in reversed(list(axes)):
        strides[d] = total * int(steps[d])
        total *= padded[d]
    offset = 0
    if flips:
        for d in range(len(shape)):
            if rng.random() < 0.15:
                offset += (shape[d] - 1) * strides[d]
                strides[d] = -strides[d]
    return tuple(strides), offset, total


def random_elements(rng, dtype, n):
    """Random bits, with plenty of values where rounding is hard."""
    data = random_bytes(rng, n * dtype.itemsize)
    elements = data.view(dtype)
    if dtype.kind == "f":
        small = rng.standard_normal(n) * 10.0 ** rng.integers(-9, 6, n)
        with np.errstate(all="ignore"):
            elements[::2] = small.astype(dtype)[::2]
            ties = (rng.integers(0, 4096, n) * 2.0 ** rng.integers(-26, 4, n)).astype(dtype)
        elements[1::4] = ties[1::4]
    if dtype.kind == "b":
        data &= 1
    return data


def native(name):
    """Type of the results; ml_dtypes' types have no byte order to change."""
    if name == "bfloat16":
        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name).newbyteorder("=")


def run_gather(rng, source_name, out_name, *, scaled, shapes, tile, sanitizer=None):
    source_dtype, out_dtype = np.dtype(source_name), native(out_name)
    bench = Bench()
    ndim = len(shapes[0])
    channel_dim = int(rng.integers(-1, ndim)) if scaled else -1
    pieces, addresses, total = [], [], int(rng.integers(0, 5))
    for shape in shapes:
        source_strides, source_offset, n = draw_strides(rng, shape, flips=True)
        target_strides, target_offset, room = draw_strides(rng, shape, flips=True)
        n += int(rng.integers(0, 3))
        chunk = random_elements(rng, source_dtype, n)
        block = 0
        if source_dtype.itemsize > 1 and rng.random() < 0.4:
            block = source_dtype.itemsize * int(rng.integers(1, n + 1))
            blocks = [chunk[i : i + block] for i in range(0, chunk.size, block)]
            chunk = np.concatenate(
                [reference.shuffle_bytes(b, source_dtype.itemsize) for b in blocks]
            )
        is_fill = rng.random() < 0.15
        piece = reference.Piece(
            chunk=None if is_fill else chunk,
            extents=tuple(shape),
            source_offset=source_offset,
            target_offset=total + target_offset,
            source_strides=source_strides,
            target_strides=target_strides,
            channel_start=int(rng.integers(0, 3)),
            block_nbytes=0 if is_fill else block,
        )
        pieces.append(piece)
        misalign = int(rng.integers(0, 8)) if rng.random() < 0.5 else 0
        addresses.append(0 if is_fill else bench.put(chunk, misalign))
        total += room + int(rng.integers(0, 4))
    fill = random_elements(rng, source_dtype.newbyteorder("="), 1).view(
        source_dtype.newbyteorder("=")
    )[0]
    scale = offset = None
    scale_places = (0, 0, 0)
    if scaled:
        n_channels = 3 + max(s[channel_dim] for s in shapes)
        scale, offset = rng.standard_normal((2, n_channels)).astype(np.float32)
        scale_places = (bench.put(scale), bench.put(offset), n_channels)
    out = bench.empty(total * out_dtype.itemsize)
    want = out.array.copy().view(out_dtype)
    for piece in pieces:
        reference.gather(want, piece, source_dtype, fill, scale, offset, channel_dim)
    jobs, layouts = gather_tables(
        pieces, addresses, source_dtype, out_dtype, out.ptr, out.nbytes, fill, scale_places,
        channel_dim,
    )  # fmt: skip
    sizes = [math.prod(s) for s in shapes]
    status, got = bench.run(
        "gather", jobs, sizes, tile, layouts=layouts, sanitizer=sanitizer, watch=out
    )
    assert status.tolist() == [JobStatus.OK] * len(pieces)
    np.testing.assert_array_equal(got, want.view(np.uint8))


@st.composite
def boxes(draw):
    ndim = draw(st.sampled_from([1, 2, 2, 3, 3, 4, 6]))
    outer = st.integers(1, 3 if ndim > 3 else 6)
    inner = st.one_of(st.integers(1, 9), st.integers(10, 100))
    one = st.tuples(*[outer] * (ndim - 1), inner)
    return draw(st.lists(one, min_size=1, max_size=3))


tiles = st.sampled_from([5, 64, 100, 4096])


@given(boxes(), st.sampled_from(COPIED), tiles, st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_gather_copies(shapes, source, tile, seed):
    rng = np.random.default_rng(seed)
    run_gather(rng, source, source, scaled=False, shapes=shapes, tile=tile)


@given(
    boxes(), st.sampled_from(CAST), st.sampled_from(FLOATS), st.booleans(), tiles,
    st.integers(0, 2**32),
)  # fmt: skip
@settings(max_examples=250, deadline=None)
def test_gather_casts_and_normalises(shapes, source, out, scaled, tile, seed):
    rng = np.random.default_rng(seed)
    run_gather(rng, source, out, scaled=scaled, shapes=shapes, tile=tile)


def ways_to_read(itemsize):
    """Boxes (6, 20, 3): side by side, of a shuffled block, evenly spaced, backwards, one by one."""
    shape, n = (6, 20, 3), 6 * 20 * 3
    inside = 100 * 3 + 2  # of rows of 100 x 3
    rows = (300, 3, 1)
    for misalign in range(4):
        yield shape, rows, inside, 2000, 0, misalign
    yield shape, (60, 3, 1), 0, n, 0, 1  # nothing to read on either side of it
    for block in (n, 64, 100, 7):
        yield shape, (60, 3, 1), 0, n, block * itemsize, 0
        yield shape, rows, inside, 2000, block * itemsize, 3
    yield (3, 6, 20), (1, 300, 3), inside, 2000, 0, 0
    yield (3, 6, 20), (1, 300, -3), inside + 57, 2000, 0, 0
    yield (3, 6, 20), (1, 300, 3), inside, 2000, 0, 1
    yield (6, 20, 3), (300, -3, 1), inside + 57, 2000, 0, 0
    yield (6, 20, 3), (-300, 3, 1), inside + 1500, 2000, 0, 2
    yield (1, 6, 60), (1, 300, -1), inside + 59, 2000, 0, 0
    yield (1, 60, 6), (1, 1, 300), inside, 2000, 0, 0
    yield shape, rows, inside, 0, 0, 0  # a fill


EACH_WAY_NORMALISED = [
    ("u1", "f2"), ("i1", "bfloat16"), (">u2", "bfloat16"), ("<i2", "f4"), ("f2", "f4"),
    ("<f4", "f2"), (">u4", "f8"), ("i4", "bfloat16"), (">f8", "f4"),
]  # fmt: skip
EACH_WAY_AS_IT_IS = [
    *EACH_WAY_NORMALISED, ("u1", "u1"), (">u2", ">u2"), (">f4", ">f4"), ("<c8", "<c8"),
    ("V16", "V16"), ("u1", "i8"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("source", "out", "channels"),
    [
        *((*types, "none") for types in EACH_WAY_AS_IT_IS),
        *(
            (*types, channels)
            for types in EACH_WAY_NORMALISED
            for channels in ("one", "innermost", "outermost")
        ),
    ],
)
def test_each_way_to_read_an_item(source, out, channels):
    read_each_way(source, out, channels)


@pytest.mark.parametrize("sanitizer", sanitized.args[1][1:])
@pytest.mark.parametrize(("source", "out"), [("u1", "f2"), (">u2", "bfloat16"), ("<i4", "f4")])
def test_each_way_to_read_an_item_under_sanitizers(source, out, sanitizer):
    """No word beside the source is read, and nothing at an odd place."""
    read_each_way(source, out, "innermost", sanitizer)


def read_each_way(source, out, channels, sanitizer=None):
    source_dtype, out_dtype = np.dtype(source), native(out)
    scaled = channels != "none"
    rng, bench = np.random.default_rng(8), Bench()
    dim = {"one": -1, "innermost": 2, "outermost": 0, "none": -1}[channels]
    n_channels = {"one": 1, "innermost": 64, "outermost": 8, "none": 1}[channels]
    scale, offset = rng.standard_normal((2, n_channels)).astype(np.float32)
    pieces, addresses, start = [], [], 3
    for shape, strides, first, n, block, misalign in ways_to_read(source_dtype.itemsize):
        chunk = random_elements(rng, source_dtype, n) if n else None
        if chunk is not None and block and source_dtype.itemsize > 1:
            parts = [chunk[i : i + block] for i in range(0, chunk.size, block)]
            shuffled = [reference.shuffle_bytes(part, source_dtype.itemsize) for part in parts]
            chunk = np.concatenate(shuffled)
        if n == math.prod(shape):
            start += -start % 16  # the last item ends where the source does
        target_strides = (shape[1] * shape[2], shape[2], 1)
        pieces.append(reference.Piece(
            chunk=chunk, extents=shape, source_offset=first, target_offset=start,
            source_strides=strides, target_strides=target_strides, block_nbytes=block,
        ))  # fmt: skip
        addresses.append(0 if chunk is None else bench.put(chunk, misalign))
        start += math.prod(shape) + 5
    fill = random_elements(rng, source_dtype.newbyteorder("="), 1).view(
        source_dtype.newbyteorder("=")
    )[0]
    target = bench.empty(start * out_dtype.itemsize)
    want = target.array.copy().view(out_dtype)
    scales = (scale, offset) if scaled else (None, None)
    for piece in pieces:
        reference.gather(want, piece, source_dtype, fill, *scales, dim)
    places = (bench.put(scale), bench.put(offset), n_channels) if scaled else (0, 0, 0)
    jobs, layouts = gather_tables(
        pieces, addresses, source_dtype, out_dtype, target.ptr, target.nbytes, fill, places, dim
    )
    sizes = [math.prod(piece.extents) for piece in pieces]
    status, got = bench.run(
        "gather", jobs, sizes, 200, layouts=layouts, watch=target, sanitizer=sanitizer
    )
    assert (status == 0).all()
    np.testing.assert_array_equal(got, want.view(np.uint8))


@given(boxes(), st.sampled_from(WIDENED), tiles, st.integers(0, 2**32))
@settings(max_examples=100, deadline=None)
def test_gather_widens_integers(shapes, types, tile, seed):
    rng = np.random.default_rng(seed)
    run_gather(rng, *types, scaled=False, shapes=shapes, tile=tile)


@pytest.mark.parametrize(
    ("source", "out"),
    [("f4", "f2"), ("f8", "f2"), ("f8", "f4"), ("f2", "f4"), ("f4", "bfloat16"),
     ("f8", "bfloat16"), ("f2", "bfloat16")],
)  # fmt: skip
def test_float_conversions_at_every_kind_of_value(source, out):
    """All halves, and what lies around each of them: subnormals, ties, overflow, NaN."""
    halves = np.arange(1 << 16, dtype=np.uint16).view(native(out) if out == "bfloat16" else "f2")
    with np.errstate(all="ignore"):
        exact = halves.astype(source)
        finite = np.isfinite(exact)
        middle = exact.copy()
        middle[:-1] = np.where(
            finite[:-1] & finite[1:], (exact[:-1].astype("f8") + exact[1:]) / 2, exact[:-1]
        )
        around = [exact, middle, np.nextafter(middle, np.inf), np.nextafter(middle, -np.inf)]
        values = (exact if source == "f2" else np.concatenate(around)).astype(source)
        want = values.astype(native(out))
    piece = reference.Piece(
        chunk=values.view(np.uint8), extents=(values.size,), source_offset=0, target_offset=0,
        source_strides=(1,), target_strides=(1,),
    )  # fmt: skip
    bench = Bench()
    target = bench.empty(want.nbytes)
    jobs, layouts = gather_tables(
        [piece], [bench.put(values)], values.dtype, want.dtype, target.ptr, want.nbytes,
        np.zeros((), source), (0, 0, 0), -1,
    )  # fmt: skip
    _, got = bench.run("gather", jobs, [values.size], 4096, layouts=layouts, watch=target)
    np.testing.assert_array_equal(got, want.view(np.uint8))


@sanitized
@pytest.mark.parametrize(
    ("source", "out", "scaled"),
    [(">u2", ">u2", False), ("u1", "u1", False), ("V16", "V16", False), ("u1", "f2", True),
     (">f8", "f8", True), ("<i4", "f8", False), (">u2", "bfloat16", True), ("u1", "i8", False),
     ("<f4", "bfloat16", False)],
)  # fmt: skip
def test_gather_under_sanitizers(sanitizer, source, out, scaled):
    rng = np.random.default_rng(11)
    shapes = [(4, 5, 3), (1, 1, 1), (2, 3, 90), (3, 4, 64)]
    run_gather(rng, source, out, scaled=scaled, shapes=shapes, tile=100, sanitizer=sanitizer)


GATHER_CHANGES = [
    ({"layout": 2}, {}, JobStatus.BAD_JOB),
    ({"layout": -1}, {}, JobStatus.BAD_JOB),
    ({"extents": (1, 1, 1, 1, -4, 8)}, {}, JobStatus.BAD_JOB),
    ({"extents": (2, 1, 1, 1, 4, 8)}, {}, JobStatus.BAD_JOB),
    ({"extents": (1, 1, 1, 1, 1 << 16, 1 << 16)}, {}, JobStatus.BAD_JOB),
    ({"extents": (1, 1, 1, 1, 5, 8)}, {}, JobStatus.SOURCE_BOUNDS),
    ({"source_offset": 1}, {}, JobStatus.SOURCE_BOUNDS),
    ({"source_offset": -1}, {}, JobStatus.SOURCE_BOUNDS),
    ({"source_nbytes": 63}, {}, JobStatus.SOURCE_BOUNDS),
    ({"target_offset": 33}, {}, JobStatus.TARGET_BOUNDS),
    ({"target_offset": -1}, {}, JobStatus.TARGET_BOUNDS),
    ({"target_offset": (1 << 62)}, {}, JobStatus.TARGET_BOUNDS),
    ({"shuffle_block_nbytes": 3}, {}, JobStatus.BAD_JOB),
    ({"shuffle_block_nbytes": -2}, {}, JobStatus.BAD_JOB),
    ({}, {"ndim": 7}, JobStatus.BAD_JOB),
    ({}, {"source_type": 18}, JobStatus.BAD_JOB),
    ({}, {"source_type": ElementType.BF16}, JobStatus.BAD_JOB),
    ({}, {"target_type": ElementType.U1}, JobStatus.BAD_JOB),
    ({}, {"target_type": ElementType.I2}, JobStatus.BAD_JOB),
    ({}, {"target_type": ElementType.RAW4}, JobStatus.BAD_JOB),
    ({}, {"swap_nbytes": 4}, JobStatus.BAD_JOB),
    ({}, {"source_strides": (0, 0, 0, 0, 1 << 62, 1)}, JobStatus.SOURCE_BOUNDS),
    ({}, {"source_strides": (0, 0, 0, 0, -8, 1)}, JobStatus.SOURCE_BOUNDS),
    ({}, {"target_strides": (0, 0, 0, 0, 9 << 40, 1)}, JobStatus.TARGET_BOUNDS),
]


@pytest.mark.parametrize(("job_change", "layout_change", "status"), GATHER_CHANGES)
def test_a_bad_gather_job_gets_a_status_and_writes_nothing(job_change, layout_change, status):
    piece = reference.Piece(
        chunk=np.arange(64, dtype=np.uint8), extents=(4, 8), source_offset=0, target_offset=0,
        source_strides=(8, 1), target_strides=(8, 1),
    )  # fmt: skip
    bench = Bench()
    out = bench.empty(128)
    dtype = np.dtype("<u2")
    address = bench.put(piece.chunk)
    jobs, layouts = gather_tables(
        [piece], [address], dtype, dtype, out.ptr, 128, np.uint16(0), (0, 0, 0), -1
    )
    for changes, table in ((job_change, jobs), (layout_change, layouts)):
        for field, value in changes.items():
            table[field][0] = value
    if "target_nbytes" not in layout_change:
        before = out.array.copy()
    got_status, got = bench.run("gather", jobs, [32], 4096, layouts=layouts, watch=out)
    assert got_status.tolist() == [status]
    np.testing.assert_array_equal(got, before)


@pytest.mark.parametrize("change", ["few channels", "misaligned scale", "misaligned target"])
def test_normalisation_and_alignment_are_checked(change):
    piece = reference.Piece(
        chunk=np.arange(12, dtype=np.uint8), extents=(4, 3), source_offset=0, target_offset=0,
        source_strides=(3, 1), target_strides=(3, 1),
    )  # fmt: skip
    bench = Bench()
    out = bench.empty(52)
    table = bench.put(np.ones(4, np.float32))
    scale = (table, table, 2) if change == "few channels" else (table, table, 3)
    if change == "misaligned scale":
        scale = (table + 1, table, 3)
    target = out.ptr + (change == "misaligned target")
    jobs, layouts = gather_tables(
        [piece], [bench.put(piece.chunk)], np.dtype("u1"), np.dtype("f4"), target, 48,
        np.uint8(0), scale, 1,
    )  # fmt: skip
    status, _ = bench.run("gather", jobs, [12], 4096, layouts=layouts)
    expected = JobStatus.BAD_JOB if change == "few channels" else JobStatus.MISALIGNED
    assert status.tolist() == [expected]


def test_patches_from_several_arrays_into_one_batch():
    """NHWC uint8 and big-endian uint16 patches become one normalised NCHW float16 batch."""
    rng = np.random.default_rng(5)
    images = [
        rng.integers(0, 255, (40, 50, 3), np.uint8),
        rng.integers(0, 999, (30, 40, 3), np.uint16).astype(">u2"),
    ]
    mean, std = np.float32([100, 120, 90]), np.float32([50, 60, 70])
    scale, offset = (1 / std).astype("f4"), (-mean / std).astype("f4")
    want = np.empty((2, 3, 16, 20), np.float16)
    bench = Bench()
    out = bench.empty(want.nbytes)
    tables = []
    scales = (bench.put(scale), bench.put(offset), 3)
    for i, image in enumerate(images):
        y, x = 7 + i, 9 + 2 * i
        patch = image[y : y + 16, x : x + 20]
        want[i] = (patch.astype("f4") * scale + offset).astype("f2").transpose(2, 0, 1)
        width = image.shape[1]
        piece = reference.Piece(  # axes in the order of the output: c, y, x
            chunk=image.reshape(-1).view(np.uint8), extents=(3, 16, 20),
            source_offset=(y * width + x) * 3, target_offset=i * 3 * 16 * 20,
            source_strides=(1, width * 3, 3), target_strides=(320, 20, 1),
        )  # fmt: skip
        tables.append(gather_tables(
            [piece], [bench.put(image)], image.dtype, want.dtype, out.ptr, want.nbytes,
            image.dtype.type(0), scales, 0,
        ))  # fmt: skip
    jobs = np.concatenate([t[0] for t in tables])
    jobs["layout"] = [0, 1]
    layouts = np.concatenate([t[1] for t in tables])
    status, got = bench.run("gather", jobs, [960, 960], 512, layouts=layouts, watch=out)
    assert status.tolist() == [0, 0]
    np.testing.assert_array_equal(got, want.reshape(-1).view(np.uint8))


def test_any_grid_and_block_give_the_same_bytes():
    """Kernels loop over tiles: the launch geometry is a matter of speed only."""
    results = []
    for block, tile in itertools.product((32, 64, 128), (64, 512)):
        rng = np.random.default_rng(3)
        bench = Bench(block)
        data = rng.integers(0, 256, 5000, dtype=np.uint8)
        out = bench.empty(data.size)
        jobs = np.zeros(1, UNSHUFFLE_JOB)
        jobs["source"], jobs["target"], jobs["typesize"] = bench.put(data), out.ptr, 4
        jobs["source_nbytes"] = jobs["target_nbytes"] = jobs["nbytes"] = data.size
        results.append(bench.run("unshuffle_bytes", jobs, [data.size], tile, watch=out)[1])
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])
