"""Law 1 for lists and points: their pieces read each selected element once, from its own chunk.

However a selection is cut, its cuts together are the pieces of the whole, and no chunk is in two
of them unless it alone has more pieces than a cut may have.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.test_plan import make_spec
from zarrgpu.plan.cuts import orthogonal_cuts, point_cuts
from zarrgpu.plan.touches import touch_chunks


@st.composite
def specs(draw, max_ndim: int = 3):
    """Arrays on regular and rectilinear chunk grids."""
    ndim = draw(st.integers(0, max_ndim))
    shape = tuple(draw(st.integers(1, (1, 40, 14, 8)[ndim])) for _ in range(ndim))
    chunks = tuple(draw(st.integers(1, n + 2)) for n in shape)
    spec = make_spec(shape, chunks)
    if ndim and draw(st.booleans()):
        starts = [
            np.array([0, *sorted(draw(st.sets(st.integers(1, n - 1)))), n] if n > 1 else [0, 1])
            for n in shape
        ]
        longest = tuple(int(np.diff(s).max()) for s in starts)
        spec = replace(spec, chunk_shape=longest, chunk_starts=tuple(starts))
    return spec


def elements(spec, cut, step):
    """Every (output, place in the output box, flat element of the array) of a cut's pieces."""
    found = []
    for row, chunk_id in enumerate(cut.chunk_id):
        coords = np.unravel_index(int(chunk_id), spec.grid_shape) if spec.ndim else ()
        for k in np.ndindex(*cut.pieces.extent[:, row].tolist()):
            at = [
                int(spec.chunk_start(a, coords[a])) + int(cut.pieces.src[a, row]) + k[a] * step[a]
                for a in range(spec.ndim)
            ]
            # within its chunk
            assert [int(spec.chunk_of(a, at[a])) for a in range(spec.ndim)] == [
                int(c) for c in coords
            ]
            dst = tuple(int(cut.pieces.dst[a, row]) + k[a] for a in range(spec.ndim))
            found.append((int(cut.pieces.output[row]), dst, tuple(at)))
    return found


@settings(max_examples=100)
@given(specs(), st.data())
def test_orthogonal_pieces_are_the_product(spec, data):
    start, count, step, indices, wanted = [], [], [], [], []
    for size in spec.shape:
        if data.draw(st.booleans()):
            index = np.array(data.draw(st.lists(st.integers(0, size - 1), max_size=8)), np.int64)
            indices.append(index)
            start.append(0)
            count.append(len(index))
            step.append(1)
            wanted.append(index.tolist())
        else:
            bounds = st.integers(0, size)
            chosen = range(size)[data.draw(st.builds(slice, bounds, bounds, st.integers(1, size)))]
            indices.append(None)
            start.append(chosen.start)
            count.append(len(chosen))
            step.append(chosen.step)
            wanted.append(list(chosen))
    most = data.draw(st.sampled_from([1, 2, 3, 7, 1000]))
    cuts = list(orthogonal_cuts(spec, start, count, step, indices, max_pieces=most))
    assert cuts
    assert all(len(cut.pieces) == len(cut.chunk_id) <= most for cut in cuts)
    found = sorted(e for cut in cuts for e in elements(spec, cut, step))
    assert found == sorted(
        (0, k, tuple(axis[i] for axis, i in zip(wanted, k, strict=True)))
        for k in np.ndindex(*count)
    )


@settings(max_examples=100)
@given(specs(), st.data())
def test_point_pieces_are_boxes_of_one_element(spec, data):
    n = data.draw(st.integers(0, 12))
    index = np.array(
        [[data.draw(st.integers(0, size - 1)) for _ in range(n)] for size in spec.shape], np.int64
    ).reshape(spec.ndim, n)
    most = data.draw(st.sampled_from([1, 2, 3, 100]))
    cuts = list(point_cuts(spec, index, max_pieces=most))
    assert cuts
    assert all(len(cut.pieces) == len(cut.chunk_id) <= most for cut in cuts)
    for before, after in itertools.pairwise(cuts):
        # a chunk is in two cuts only if one of them is of it alone
        shared = set(before.chunk_id.tolist()) & set(after.chunk_id.tolist())
        assert not shared or len(set(before.chunk_id.tolist())) == 1
    found = sorted(e for cut in cuts for e in elements(spec, cut, (1,) * spec.ndim))
    assert found == [(i, (0,) * spec.ndim, tuple(index[:, i].tolist())) for i in range(n)]
    ones = (1,) * spec.ndim
    chunk_id, pieces = touch_chunks(spec, np.ascontiguousarray(index.T), ones, ones)  # law 4
    (whole,) = point_cuts(spec, index)
    np.testing.assert_array_equal(whole.chunk_id, chunk_id)
    for name in ("output", "src", "dst", "extent"):
        np.testing.assert_array_equal(getattr(whole.pieces, name), getattr(pieces, name))


def test_a_step_over_most_chunks_costs_what_it_selects():
    spec = make_spec((1 << 40,), (1,))
    (cut,) = orthogonal_cuts(spec, [5], [1000], [1 << 30], [None])
    assert cut.chunk_id.tolist() == [5 + k * (1 << 30) for k in range(1000)]


def test_chunks_are_not_cut_in_two_where_lists_are_in_any_order():
    rng = np.random.default_rng(0)
    spec = make_spec((300, 300), (50, 50))
    index = [rng.permutation(300)[:200], rng.permutation(300)[:200]]
    cuts = list(orthogonal_cuts(spec, [0, 0], [200, 200], [1, 1], index, max_pieces=12_000))
    assert len(cuts) > 1
    assert sum(len(np.unique(cut.chunk_id)) for cut in cuts) == 36
    points = rng.integers(0, 300, (2, 5000))
    cuts = list(point_cuts(spec, points, max_pieces=1000))
    assert sum(len(np.unique(cut.chunk_id)) for cut in cuts) == 36
