"""Law 4: pieces placed by one indexed assignment are where they are if placed one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.test_plan import make_spec
from zarrgpu.gather import PieceSlices, gather_pieces
from zarrgpu.output import OutputFormat
from zarrgpu.plan.request import ReadRequest
from zarrgpu.plan.tables import PieceTable
from zarrgpu.scatter import MIN_PIECES, Scatter


@st.composite
def chunks_and_pieces(draw):
    """A chunk, any pieces of it that do not overlap in the output, and the request's shape."""
    ndim = draw(st.integers(0, 4))
    chunk = tuple(draw(st.integers(1, 9)) for _ in range(ndim))
    step = tuple(draw(st.integers(1, 3)) for _ in range(ndim))
    count = tuple(-(-n // s) for n, s in zip(chunk, step, strict=True))
    n = draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 1 << 30)))
    extent, src, dst = (np.ones((ndim, n), np.int64) for _ in range(3))
    for axis in range(ndim):
        alike = draw(st.booleans())  # an axis on which all pieces are alike stays a slice
        size = 1 if alike else n
        e = rng.integers(1, draw(st.integers(1, count[axis])) + 1, size)
        extent[axis] = e
        src[axis] = rng.integers(0, chunk[axis] - (e - 1) * step[axis])
        dst[axis] = rng.integers(0, count[axis] - e + 1)
    output = rng.permutation(n).astype(np.int32)
    pieces = PieceTable(np.zeros(n, np.int32), output, src, dst, extent)
    return chunk, step, count, pieces


def in_memory_order(shape, order, dtype, values=None):
    """An array of `shape` whose axes lie in memory in the given order."""
    made = np.zeros([shape[axis] for axis in order], dtype).transpose(np.argsort(order))
    if values is not None:
        made[...] = values
    return made


@settings(max_examples=150)
@given(chunks_and_pieces(), st.data())
def test_scatter_equals_pieces_one_by_one(case, data):
    chunk_shape, step, count, pieces = case
    ndim, n = len(chunk_shape), len(pieces)
    stored, wanted = data.draw(
        st.sampled_from([("i4", "i4"), (">i4", "i4"), ("f8", "f2"), ("u2", "f4")])
    )
    content = np.arange(1, 1 + int(np.prod(chunk_shape)), dtype=stored).reshape(chunk_shape)
    chunk = in_memory_order(chunk_shape, data.draw(st.permutations(range(ndim))), stored, content)
    out_shape, order = (n, *count), [0, *(1 + a for a in data.draw(st.permutations(range(ndim))))]
    request = ReadRequest(
        arrays=(make_spec(chunk_shape, chunk_shape, dtype="<i4"),),
        array_index=np.zeros(n, np.int32), start=np.zeros((n, ndim), np.int64),
        count=count, step=step,
    )  # fmt: skip
    general = PieceSlices(pieces.take(slice(0, 0)), request, OutputFormat(dtype=np.dtype(wanted)))
    general._make_tuples(pieces, request, OutputFormat(dtype=np.dtype(wanted)))
    assert general.scatter is None
    one_by_one = np.zeros(out_shape, wanted)
    gather_pieces(chunk, range(n), general, one_by_one, OutputFormat(dtype=np.dtype(wanted)))
    for depth in range(depth_of(pieces), ndim + 1):
        at_once = in_memory_order(out_shape, order, wanted)
        Scatter(pieces, step, depth).place(chunk, range(n), at_once, fill=False)
        np.testing.assert_array_equal(at_once, one_by_one)
        filled = in_memory_order(out_shape, order, wanted)
        Scatter(pieces, step, depth).place(np.array(7, wanted), range(n), filled, fill=True)
        np.testing.assert_array_equal(filled, np.where(one_by_one != 0, 7, 0))


def depth_of(pieces: PieceTable) -> int:
    """Axes up to the last on which pieces differ, counted the obvious way."""
    columns = np.stack([pieces.src, pieces.dst, pieces.extent])
    differs = [a for a in range(columns.shape[1]) if len(np.unique(columns[:, a].T, axis=0)) > 1]
    return differs[-1] + 1 if differs else 0


def test_a_long_piece_among_points_is_placed_too():
    chunk = np.arange(5000)
    start = np.concatenate([np.arange(100), [7], np.arange(100)])
    extent = np.concatenate([np.ones(100, int), [4000], np.ones(100, int)])
    n = len(start)
    pieces = PieceTable(
        np.zeros(n, np.int32), np.arange(n, dtype=np.int32), start[None], np.zeros((1, n), int),
        extent[None],
    )  # fmt: skip
    out = np.full((n, 4000), -1)
    Scatter(pieces, (1,), 1).place(chunk, range(n), out, fill=False)
    assert out[:100, 0].tolist() == out[101:, 0].tolist() == list(range(100))
    assert out[100].tolist() == list(range(7, 4007))
    assert (out[:100, 1:] == -1).all()


def table(n_chunks: int, per_chunk: int, extent: tuple[int, ...]) -> PieceTable:
    n = n_chunks * per_chunk
    rng = np.random.default_rng(0)
    boxes = [rng.integers(0, 9, (len(extent), n)) for _ in range(2)]
    return PieceTable(
        np.repeat(np.arange(n_chunks, dtype=np.int32), per_chunk), np.arange(n, dtype=np.int32),
        *boxes, np.broadcast_to(np.array(extent)[:, None], (len(extent), n)),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("pieces", "pays"),
    [
        (table(3, MIN_PIECES, (1, 1)), True),
        (table(3, MIN_PIECES, (4, 4)), True),
        (table(3, MIN_PIECES - 1, (1, 1)), False),
        (table(3, 100, (16, 16)), False),
        (table(0, 0, (1,)), False),
    ],
)
def test_it_is_for_many_small_pieces_of_a_chunk(pieces, pays):
    assert (Scatter.where_it_pays(pieces, (1, 1)) is not None) is pays


@pytest.mark.parametrize(
    "dtype",
    [np.dtypes.StringDType(), "O", "S3", "U2", "M8[s]", "c16", "?", [("a", "u1"), ("b", "<f4")]],
    ids=str,
)
def test_any_type_of_element_is_scattered(dtype):
    dtype = np.dtype(dtype)
    numbers = np.arange(2, 50)
    content = np.array([str(n) for n in numbers], dtype) if dtype.kind in "TOSU" else None
    if content is None and dtype.names:
        content = np.rec.fromarrays([numbers, -numbers], dtype=dtype)
    elif content is None:
        content = numbers.astype(dtype)
    chunk = content.reshape(6, 8)
    rows, columns = np.random.default_rng(0).integers(0, 6, (2, 100))
    ones = np.ones((2, 100), np.int64)
    pieces = PieceTable(
        np.zeros(100, np.int32), np.arange(100, dtype=np.int32), np.stack([rows, columns]),
        0 * ones, ones,
    )  # fmt: skip
    out = np.zeros((100, 1, 1), dtype)
    scatter = Scatter(pieces, (1, 1), 2)
    scatter.place(chunk, range(100), out, fill=False)
    np.testing.assert_array_equal(out[:, 0, 0], chunk[rows, columns])
    scatter.place(chunk[1:2, 1].reshape(()), range(50), out, fill=True)
    assert (out[:50] == chunk[1, 1]).all()
    np.testing.assert_array_equal(out[50:, 0, 0], chunk[rows, columns][50:])
