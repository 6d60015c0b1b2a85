"""Laws 1 and 2 of plans.

1. The pieces and fills of a plan cover every element of every output exactly once, and read the
   element that NumPy would read; each chunk appears once; direct chunks are runs of the output.
2. Each chunk's bytes lie in its read, whatever the coalescing limits.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zarrgpu.errors import SelectionError
from zarrgpu.grids import KeyEncoding
from zarrgpu.model import MISSING_NBYTES, UNKNOWN_NBYTES, ArraySpec, Manifest, ObjectPerChunk
from zarrgpu.plan.explain import explain, format_nbytes
from zarrgpu.plan.locate import ChunkLocations, locate_chunks
from zarrgpu.plan.planner import build_plan, plan_touches
from zarrgpu.plan.request import ReadRequest
from zarrgpu.plan.tables import ReadPlan


def make_spec(
    shape: tuple[int, ...], chunks: tuple[int, ...], *, order: tuple[int, ...] | None = None,
    dtype: str = "<i4", name: str = "a",
) -> ArraySpec:  # fmt: skip
    return ArraySpec(
        source=name, shape=shape, dtype=np.dtype(dtype), chunk_shape=chunks, fill_value=np.int32(7),
        codecs=(), axis_order=order if order is not None else tuple(range(len(shape))),
        location=ObjectPerChunk(KeyEncoding("default", "/")), dimension_names=(None,) * len(shape),
    )  # fmt: skip


def make_plan(
    request: ReadRequest, *, stored: str = "whole", seed: int = 0, gap: int = 10, cap: int = 1000,
    direct: bool = True,
) -> ReadPlan:  # fmt: skip
    """Plan with chunks as whole objects, or as random ranges of few objects, some missing."""
    rng = np.random.default_rng(seed)
    touched = plan_touches(request)
    locations = []
    for touch in touched:
        n = len(touch.chunk_id)
        place = locate_chunks(request.arrays[touch.array], touch.chunk_id, None)
        if stored != "whole":
            nbytes = rng.integers(1, 50, n)
            nbytes[rng.random(n) < 0.3] = MISSING_NBYTES
            place = ChunkLocations(rng.integers(0, 3, n), rng.integers(0, 500, n), nbytes)
        locations.append(place)
    return build_plan(
        request, touched, locations, max_gap_bytes=gap, max_coalesced_bytes=cap, allow_direct=direct
    )


@st.composite
def requests(draw, max_ndim: int = 6):
    ndim = draw(st.integers(0, max_ndim))
    most = (0, 40, 12, 7, 4, 3, 3)[ndim]
    axes = range(ndim)
    count = tuple(draw(st.integers(0, most)) for _ in axes)
    step = tuple(draw(st.integers(1, 1 + most // 2)) for _ in axes)
    arrays = []
    for index in range(draw(st.integers(1, 3))):
        shape = tuple(draw(st.integers(0, most)) for _ in axes)
        same = draw(st.booleans())  # boxes as large as chunks are what direct decoding is for
        chunks = tuple(max(1, count[a]) if same else draw(st.integers(1, most + 2)) for a in axes)
        order = tuple(draw(st.permutations(range(ndim)))) if draw(st.booleans()) else None
        dtype = draw(st.sampled_from(["<i4", ">i4"]))
        arrays.append(make_spec(shape, chunks, order=order, dtype=dtype, name=f"a{index}"))
    boxes = draw(st.integers(0, 6))
    aligned = draw(st.booleans())
    start = [
        [
            draw(st.integers(-1, 3)) * arrays[0].chunk_shape[a]
            if aligned
            else draw(st.integers(-most - 3, most + 3))
            for a in axes
        ]
        for _ in range(boxes)
    ]
    return ReadRequest(
        arrays=tuple(arrays),
        array_index=np.array(
            [draw(st.integers(0, len(arrays) - 1)) for _ in range(boxes)], np.int32
        ),
        start=np.array(start, np.int64).reshape(boxes, ndim),
        count=count,
        step=(1,) * ndim if draw(st.booleans()) else step,
    )


def wanted_indices(request: ReadRequest, box: int) -> np.ndarray:
    """Flat index of the element of its array that each output element shows; -1 outside."""
    spec = request.arrays[request.array_index[box]]
    flat, inside = np.zeros((), np.int64), np.ones((), bool)
    for axis, (n, d, size) in enumerate(zip(request.count, request.step, spec.shape, strict=True)):
        at = request.start[box, axis] + np.arange(n) * d
        shape = [1] * spec.ndim
        shape[axis] = n
        at = at.reshape(shape)
        inside = inside & (at >= 0) & (at < size)
        flat = flat * size + at
    return np.broadcast_to(np.where(inside, flat, -1), request.count)


def run_plan(plan: ReadPlan) -> tuple[np.ndarray, np.ndarray]:
    """Carry out a plan element by element: the array element written, and how often it was."""
    request = plan.request
    shown = np.full(request.output_shape, -5, np.int64)
    times = np.zeros(request.output_shape, np.int64)
    for table, is_fill in ((plan.pieces, False), (plan.fills, True)):
        for row in range(len(table)):
            extent = table.extent[:, row]
            assert (extent >= 1).all()
            output = int(table.output[row])
            dst = tuple(slice(d, d + e) for d, e in zip(table.dst[:, row], extent, strict=True))
            chunk = int(table.chunk[row])
            array = chunk if is_fill else int(plan.chunks.array[chunk])
            assert array == request.array_index[output]
            times[(output, *dst)] += 1
            if is_fill:
                shown[(output, *dst)] = -1
                continue
            spec = request.arrays[array]
            coords = (
                np.unravel_index(plan.chunks.chunk_id[chunk], spec.grid_shape) if spec.ndim else ()
            )
            axes = [
                c * chunk_size + s + np.arange(e) * d
                for c, chunk_size, s, e, d in zip(
                    coords, spec.chunk_shape, table.src[:, row], extent, request.step, strict=True
                )
            ]
            for at, c, chunk_size in zip(axes, coords, spec.chunk_shape, strict=True):
                assert c * chunk_size <= at.min()
                assert at.max() < (c + 1) * chunk_size
            elements = np.ravel_multi_index(np.ix_(*axes), spec.shape) if axes else np.int64(0)
            shown[(output, *dst)] = elements
    return shown, times


def check_tables(plan: ReadPlan) -> None:
    chunks, reads, pieces = plan.chunks, plan.reads, plan.pieces
    identity = list(zip(chunks.array.tolist(), chunks.chunk_id.tolist(), strict=True))
    assert len(set(identity)) == len(identity)
    assert (np.diff(pieces.chunk) >= 0).all()
    for chunk in range(len(chunks)):
        first, last = chunks.piece_start[chunk : chunk + 2]
        assert last > first, "a chunk that nobody needs"
        assert (pieces.chunk[first:last] == chunk).all()
    assert chunks.piece_start[-1] == len(pieces)
    assert reads.chunk_start[0] == 0
    assert reads.chunk_start[-1] == len(chunks)
    for read in range(len(reads)):
        for chunk in range(*reads.chunk_start[read : read + 2]):
            assert chunks.read[chunk] == read
            assert chunks.array[chunk] == reads.array[read]
            assert chunks.object_id[chunk] == reads.object_id[read]
            if reads.nbytes[read] == UNKNOWN_NBYTES:
                assert chunks.nbytes[chunk] == UNKNOWN_NBYTES
                continue
            assert chunks.offset[chunk] >= reads.offset[read]
            end = chunks.offset[chunk] + chunks.nbytes[chunk]
            assert end <= reads.offset[read] + reads.nbytes[read]


def check_direct(plan: ReadPlan) -> None:
    """A direct chunk is one whole chunk whose elements lie one after another in the output."""
    flat = np.arange(int(np.prod(plan.request.output_shape))).reshape(plan.request.output_shape)
    for chunk in np.flatnonzero(plan.chunks.direct):
        spec = plan.arrays[plan.chunks.array[chunk]]
        row, last = plan.chunks.piece_start[chunk : chunk + 2]
        assert last == row + 1
        assert spec.axis_order == tuple(range(spec.ndim))
        assert spec.dtype.isnative
        assert tuple(plan.pieces.extent[:, row]) == spec.chunk_shape
        dst = tuple(
            slice(d, d + e)
            for d, e in zip(plan.pieces.dst[:, row], plan.pieces.extent[:, row], strict=True)
        )
        run = flat[(plan.pieces.output[row], *dst)].ravel()
        assert run[-1] - run[0] + 1 == len(run)
        assert (np.diff(run) == 1).all()


@settings(max_examples=150)
@given(
    requests(),
    st.sampled_from(["whole", "ranges"]),
    st.integers(0, 99),
    st.integers(0, 60),
    st.integers(1, 300),
)
def test_pieces_and_fills_cover_every_element_once(request_, stored, seed, gap, cap):
    plan = make_plan(request_, stored=stored, seed=seed, gap=gap, cap=cap)
    shown, times = run_plan(plan)
    assert (times == 1).all()
    stored_ids = [set() for _ in request_.arrays]
    for array, chunk_id in zip(plan.chunks.array, plan.chunks.chunk_id, strict=True):
        stored_ids[array].add(int(chunk_id))
    for box in range(request_.num_boxes):
        wanted = wanted_indices(request_, box)
        if stored == "whole":
            np.testing.assert_array_equal(shown[box], wanted)
            continue
        spec = request_.arrays[request_.array_index[box]]
        owner = owning_chunks(spec, wanted)
        kept = np.isin(owner, list(stored_ids[request_.array_index[box]]))
        np.testing.assert_array_equal(shown[box], np.where(kept, wanted, -1))
    check_tables(plan)
    check_direct(plan)


def owning_chunks(spec: ArraySpec, flat: np.ndarray) -> np.ndarray:
    """Chunk id of each element of an array given by flat index; -9 for outside."""
    if not spec.ndim:
        return np.where(flat >= 0, 0, -9)
    if 0 in spec.shape:
        return np.full(flat.shape, -9)
    coords = np.unravel_index(np.maximum(flat, 0), spec.shape)
    ids = np.ravel_multi_index(
        [at // c for at, c in zip(coords, spec.chunk_shape, strict=True)], spec.grid_shape
    )
    return np.where(flat >= 0, ids, -9)


@pytest.mark.parametrize("ndim", range(5))
def test_every_small_box_of_a_small_grid(ndim):
    # all starts and counts at once: the corners that random draws may miss
    shape, chunks = (5, 3, 3, 2)[:ndim], (2, 2, 3, 1)[:ndim]
    spec = make_spec(shape, chunks)
    for count in itertools.product(*[range(min(n + 2, 4)) for n in shape]):
        starts = np.array(
            list(itertools.product(*[range(-2, n + 2, ndim) for n in shape])), np.int64
        )
        request = ReadRequest(
            arrays=(spec,), array_index=np.zeros(len(starts), np.int32),
            start=starts.reshape(len(starts), ndim), count=count, step=(1,) * ndim,
        )  # fmt: skip
        shown, times = run_plan(make_plan(request))
        assert (times == 1).all()
        for box in range(len(starts)):
            np.testing.assert_array_equal(shown[box], wanted_indices(request, box))


def test_more_axes_than_four_with_boxes_far_outside():
    shape, chunks = (2, 3, 2, 3, 2, 2, 3), (1, 2, 2, 1, 2, 1, 2)
    start = np.array([[0] * 7, [-1] * 7, [1] * 7, [1 << 60] * 7, [-(1 << 60)] * 7])
    request = ReadRequest(
        arrays=(make_spec(shape, chunks),), array_index=np.zeros(5, np.int32), start=start,
        count=(2,) * 7, step=(1,) * 7,
    )  # fmt: skip
    shown, times = run_plan(make_plan(request))
    assert (times == 1).all()
    for box in range(3):
        np.testing.assert_array_equal(shown[box], wanted_indices(request, box))
    assert (shown[3:] == -1).all()


def test_aligned_patches_are_decoded_in_place():
    spec = make_spec((64, 64, 3), (16, 16, 3))
    start = np.array([[0, 0, 0], [16, 32, 0], [48, 48, 0], [8, 0, 0]])
    request = ReadRequest(
        arrays=(spec,),
        array_index=np.zeros(4, np.int32),
        start=start,
        count=(16, 16, 3),
        step=(1, 1, 1),
    )
    plan = make_plan(request)
    check_direct(plan)
    assert plan.chunks.direct.sum() == 2  # the first patch's chunk is also in the fourth
    assert not make_plan(request, direct=False).chunks.direct.any()


def test_manifest_chunks_keep_their_ranges():
    spec = make_spec((4, 4), (2, 2))
    manifest = Manifest("f", np.array([100, 50, 0, 7]), np.array([9, 8, MISSING_NBYTES, 5]))
    located = locate_chunks(
        ArraySpec(
            **{name: getattr(spec, name) for name in ArraySpec.__slots__} | {"location": manifest}
        ),
        np.array([3, 0, 2]),
        None,
    )
    assert located.offset.tolist() == [7, 100, 0]
    assert located.nbytes.tolist() == [5, 9, MISSING_NBYTES]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arrays": ()}, "at least one array"),
        ({"count": (2,)}, "has 2 axes, the box has 1"),
        ({"start": np.zeros((2, 2), np.int64)}, "starts have shape"),
        ({"count": (2, -1)}, "counts must be at least 0"),
        ({"step": (0, 1)}, "steps at least 1"),
        ({"array_index": np.array([1], np.int32)}, "array_index must lie in"),
        ({"array_index": np.array([-1], np.int32)}, "array_index must lie in"),
    ],
)
def test_impossible_requests_are_refused(changes, message):
    members = {
        "arrays": (make_spec((4, 4), (2, 2)),), "array_index": np.zeros(1, np.int32),
        "start": np.zeros((1, 2), np.int64), "count": (2, 2), "step": (1, 1),
    }  # fmt: skip
    with pytest.raises(SelectionError, match=message):
        ReadRequest(**members | changes)


def test_explain_adds_up():
    spec = make_spec((64, 64), (16, 16))
    request = ReadRequest(
        arrays=(spec, spec), array_index=np.array([0, 1, 0], np.int32),
        start=np.array([[0, 0], [8, 8], [60, 60]]), count=(16, 16), step=(1, 1),
    )  # fmt: skip
    plan = make_plan(request)
    text = explain(plan, result="R", holds="H", steps=[("gather", "cpu")])
    assert "read 3 x [16, 16] from 2 arrays" in text
    assert "6 whole objects" in text
    assert "in 6 reads of 6 objects" in text
    assert "decode   6 chunks, 6.0 KiB (1 straight into the result)" in text
    assert "6 pieces, 2 fills" in text
    assert plan.decoded_nbytes == 6 * 16 * 16 * 4
    assert plan.output_elements == 3 * 16 * 16
    assert format_nbytes(3 << 40) == "3.0 TiB"
