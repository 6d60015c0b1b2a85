"""Law 3 for selections: what brackets give is what zarr-python gives for the same array.

Shapes, chunks, shards and selections of every kind are drawn and read by both, on the host and on
the emulated device; NumPy is a second oracle where zarr-python agrees with it. What zarr-python
refuses raises `SelectionError`, an `IndexError` as there.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.core.buffer.cpu import Buffer
from zarr.core.indexing import oindex as numpy_oindex

import zarrgpu as zg
from tests.gpu.devices import empty, to_host
from tests.test_chunk_layouts import DATA, EDGES, rectilinear
from tests.zarr_cases import CHAINS, MemoryStore, Recipe, encode, expected, grid, store_of
from zarrgpu import selection_reads
from zarrgpu.array import Array
from zarrgpu.errors import SelectionError
from zarrgpu.plan.cuts import orthogonal_cuts, point_cuts


def opened_by_both(objects: dict[str, bytes]) -> tuple[zarr.Array, Array]:
    """The same objects opened by zarr-python and by zarrgpu."""
    buffers = {key: Buffer.from_bytes(value) for key, value in objects.items()}
    theirs = zarr.open_array(zarr.storage.MemoryStore(buffers), mode="r")
    return theirs, zg.open(MemoryStore(objects))


@st.composite
def recipes(draw, max_ndim: int = 4):
    """An array with holes, and how it is stored."""
    ndim = draw(st.integers(0, max_ndim))
    shape = tuple(draw(st.integers(1, (1, 40, 14, 8, 5)[ndim])) for _ in range(ndim))
    # few chunks: zarr-python takes its time for each
    chunks = tuple(draw(st.integers(-(-n // 4), n + 2)) for n in shape)
    coords = list(np.ndindex(*grid(shape, chunks)))
    recipe = Recipe(
        chunks=chunks,
        shards=tuple(c * draw(st.integers(1, 3)) for c in chunks) if draw(st.booleans()) else None,
        order=tuple(draw(st.permutations(range(ndim)))) if ndim and draw(st.booleans()) else None,
        big_endian=draw(st.booleans()),
        fill_value=9,
        missing=frozenset(draw(st.sets(st.sampled_from(coords), max_size=4))),
    )
    data = np.arange(100, 100 + int(np.prod(shape)), dtype="i4").reshape(shape)
    return data, recipe


def slices(size: int) -> st.SearchStrategy:
    bound = st.none() | st.integers(-size - 2, size + 2)
    return st.builds(slice, bound, bound, st.none() | st.integers(1, size + 1))


def integers(size: int) -> st.SearchStrategy:
    return st.integers(-size, size - 1).flatmap(lambda n: st.sampled_from([n, np.int64(n)]))


def lists(size: int) -> st.SearchStrategy:
    """Unsorted, repeated and negative numbers; masks; as lists or arrays."""
    numbers = st.lists(st.integers(-size, size - 1), min_size=1, max_size=2 * size)
    masks = st.lists(st.booleans(), min_size=size, max_size=size)
    return numbers | numbers.map(np.array) | masks.map(np.array) | masks


@st.composite
def orthogonal(draw, shape):
    items = [draw(slices(n) | integers(n) | lists(n)) for n in shape]
    if items and draw(st.booleans()):
        first = draw(st.integers(0, len(items)))
        items[first : draw(st.integers(first, len(items)))] = [...]
    return tuple(items)


@st.composite
def coordinates(draw, shape):
    outer = tuple(draw(st.lists(st.integers(0, 4), min_size=1, max_size=3)))
    items = []
    for size in shape:
        form = tuple(draw(st.sampled_from([1, n])) for n in outer)
        form = form[draw(st.integers(0, len(outer) - 1)) :]
        index = np.random.default_rng(draw(st.integers(0, 99))).integers(-size, size, form)
        items.append(draw(st.sampled_from([index, index.astype("i2")])))
    return tuple(items)


@st.composite
def masks(draw, shape):
    share = draw(st.sampled_from([0, 0.1, 0.5, 1]))
    return np.random.default_rng(draw(st.integers(0, 99))).random(shape) < share


@st.composite
def blocks(draw, counts):
    items = []
    for n in counts[: draw(st.integers(1, len(counts)))]:
        bound = st.none() | st.integers(-n, n - 1)
        ends = st.none() | st.integers(-n, n + 2)  # beyond, zarr-python wraps around
        items.append(draw(st.integers(-n, n - 1) | st.builds(slice, bound, ends)))
    return tuple(items)


@st.composite
def mixed(draw, shape):
    """What `a[...]` takes: basic, one list beside slices, lists for all axes, a mask."""
    kind = draw(st.sampled_from(["basic", "one list", "lists", "points", "mask"]))
    if kind == "mask":
        return draw(masks(shape))
    if kind == "points":
        return draw(coordinates(shape))
    items = [draw(lists(n) if kind == "lists" else slices(n) | integers(n)) for n in shape]
    if kind == "one list":
        items = [int(i) if isinstance(i, np.int64) else i for i in items]  # zarr-python wants int
        axis = draw(st.integers(0, len(shape) - 1))
        items[axis] = draw(lists(shape[axis]))
        items = items[: draw(st.integers(axis + 1, len(shape)))]
    return tuple(items)


def without_ellipsis(selection, ndim: int) -> tuple:
    """The same selection in arrays and slices: zarr-python fails on an ellipsis beside arrays."""
    items = [copied(np.array(item) if isinstance(item, list) else item) for item in selection]
    at = next((place for place, item in enumerate(items) if item is ...), None)
    if at is not None:
        items[at : at + 1] = [slice(None)] * (ndim + 1 - len(items))
    return tuple(items)


def copied(selection):
    """zarr-python makes negative numbers positive in the caller's own arrays."""
    if isinstance(selection, tuple):
        return tuple(map(copied, selection))
    return selection.copy() if isinstance(selection, np.ndarray) else selection


def same(got: np.ndarray, wanted) -> None:
    wanted = np.asarray(wanted)
    assert got.dtype == wanted.dtype.newbyteorder("=")
    np.testing.assert_array_equal(got, wanted, strict=True)


@settings(max_examples=100)
@given(recipes(), st.data())
def test_every_kind_of_selection_is_zarr_pythons(case, data):
    stored, recipe = case
    theirs, ours = opened_by_both(encode(stored, recipe))
    whole = expected(stored, recipe)
    selection = data.draw(orthogonal(whole.shape))
    before = repr(selection)
    same(ours.oindex[selection], theirs.oindex[without_ellipsis(selection, whole.ndim)])
    same(ours.oindex[selection], numpy_oindex(whole, without_ellipsis(selection, whole.ndim)))
    same(ours.get_orthogonal_selection(selection), ours.oindex[selection])
    assert repr(selection) == before
    if not whole.ndim:
        return
    selection = data.draw(coordinates(whole.shape))
    before = repr(selection)
    same(ours.vindex[selection], theirs.vindex[copied(selection)])
    same(ours.vindex[selection], whole[selection])
    same(ours.get_coordinate_selection(selection), whole[selection])
    assert repr(selection) == before
    mask = data.draw(masks(whole.shape))
    same(ours.vindex[mask], theirs.vindex[mask])
    same(ours.get_mask_selection(mask), whole[mask])
    selection = data.draw(blocks(grid(whole.shape, recipe.shards or recipe.chunks)))
    same(ours.blocks[selection], theirs.blocks[selection])
    same(ours.get_block_selection(selection), theirs.blocks[selection])
    selection = data.draw(mixed(whole.shape))
    try:
        wanted = theirs[copied(selection)]
    except (IndexError, ValueError):
        with pytest.raises(SelectionError):
            ours[selection]
    else:
        same(ours[selection], wanted)


@settings(max_examples=60)
@given(recipes(3), st.data())
def test_a_selection_in_many_cuts_is_that_in_one(case, data):
    stored, recipe = case
    array = zg.open(MemoryStore(encode(stored, recipe)))
    kinds = {
        "oindex": data.draw(orthogonal(stored.shape)),
        "blocks": ...,
        **({"vindex": data.draw(coordinates(stored.shape))} if stored.ndim else {}),
    }
    wanted = {kind: getattr(array, kind)[selection] for kind, selection in kinds.items()}
    most = data.draw(st.integers(1, 9))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection_reads, "MAX_PIECES", most)
        patch.setattr(selection_reads, "orthogonal_cuts", partial(orthogonal_cuts, max_pieces=most))
        patch.setattr(selection_reads, "point_cuts", partial(point_cuts, max_pieces=most))
        for kind, selection in kinds.items():
            out = np.zeros_like(wanted[kind])
            assert getattr(array, kind).read(selection, out=out) is out
            same(out, wanted[kind])
            same(getattr(array, kind)[selection], wanted[kind])
            plan = getattr(array, kind).plan(selection)
            assert repr(plan).startswith(f"read {out.size if kind == 'vindex' else 1} x ")
            elements = int(plan.plan.pieces.elements.sum() + plan.plan.fills.elements.sum())
            assert plan.is_part == (elements < out.size)
            assert ("first of several plans" in repr(plan)) == plan.is_part


def test_each_chunk_is_decoded_once():
    rng = np.random.default_rng(0)
    store = store_of(np.zeros((100, 100), "u1"), chunks=(10, 10))
    array = zg.open(store)
    for kind, selection in (
        ("vindex", tuple(rng.integers(0, 100, (2, 3000)))),
        ("oindex", (rng.permutation(100), rng.permutation(100))),
        ("vindex", rng.random((100, 100)) < 0.5),
    ):
        for most in (1 << 20, 700):
            store.requests.clear()
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(
                    selection_reads, "orthogonal_cuts", partial(orthogonal_cuts, max_pieces=most)
                )
                patch.setattr(selection_reads, "point_cuts", partial(point_cuts, max_pieces=most))
                getattr(array, kind)[selection]
            assert len(store.requests) == len(set(store.requests)) == 100


@pytest.mark.parametrize("codecs", ["none", "zstd", "blosc-lz4-shuffle"])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_every_device_selects_the_same(cuda, codecs, order):
    data = np.arange(20 * 30 * 3, dtype="u2").reshape(20, 30, 3)
    recipe = Recipe(
        chunks=(8, 7, 2), shards=(16, 14, 4), codecs=CHAINS[codecs], order=order, fill_value=5,
        missing=frozenset([(0, 0, 0), (1, 2, 1)]), big_endian=codecs == "none",
    )  # fmt: skip
    array, whole = zg.open(MemoryStore(encode(data, recipe))), expected(data, recipe)
    rng = np.random.default_rng(0)
    rows, columns = rng.integers(-20, 20, 25), rng.permutation(30)[:17]
    points = tuple(rng.integers(-n, n, (4, 50)) for n in whole.shape)
    mask = rng.random(whole.shape) < 0.2
    for indexer, selection, wanted in (
        (array.oindex, (rows, columns), whole[rows][:, columns]),
        (array.oindex, (rows, 4, [2, 0]), whole[rows, 4][:, [2, 0]]),
        (array.oindex, (slice(1, None, 3), columns), whole[1::3][:, columns]),
        (array.vindex, points, whole[points]),
        (array.vindex, mask, whole[mask]),
        (array, mask, whole[mask]),
        (array.blocks, (slice(1), 1), whole[:16, 14:28]),
        (array.vindex, np.zeros(whole.shape, bool), whole[:0, 0, 0]),
        (array.oindex, (np.zeros(20, bool),), whole[:0]),
    ):
        got = to_host(indexer.read(selection, device=cuda))
        same(got, wanted)
        same(indexer.read(selection, device="cpu"), wanted)
        out = empty(cuda, wanted.shape, wanted.dtype)
        assert indexer.read(selection, device=cuda, out=out) is out
        same(to_host(out), wanted)
        as_float = to_host(indexer.read(selection, device=cuda, dtype="f4"))
        same(as_float, wanted.astype("f4"))
        same(indexer.read(selection, device="cpu", dtype="f4"), wanted.astype("f4"))
        assert cuda.name in indexer.plan(selection, device=cuda).explain()


def test_a_device_reads_many_cuts_into_one_result(cuda):
    data = np.arange(40 * 50, dtype="i4").reshape(40, 50)
    recipe = Recipe(chunks=(9, 11), codecs=CHAINS["zstd"], missing=frozenset([(1, 2)]))
    array, whole = zg.open(MemoryStore(encode(data, recipe))), expected(data, recipe)
    rng = np.random.default_rng(0)
    rows, columns = rng.permutation(40), rng.integers(0, 50, 60)
    points = tuple(rng.integers(0, n, 500) for n in whole.shape)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection_reads, "orthogonal_cuts", partial(orthogonal_cuts, max_pieces=150))
        patch.setattr(selection_reads, "point_cuts", partial(point_cuts, max_pieces=150))
        for indexer, selection, wanted in (
            (array.oindex, (rows, columns), whole[np.ix_(rows, columns)]),
            (array.vindex, points, whole[points]),
        ):
            assert indexer.plan(selection, device=cuda).is_part
            same(to_host(indexer.read(selection, device=cuda)), wanted)
            out = empty(cuda, wanted.shape, wanted.dtype)
            assert indexer.read(selection, device=cuda, out=out) is out
            same(to_host(out), wanted)


@pytest.mark.parametrize("inner", [None, (1, 1)])
def test_chunks_of_many_shapes_are_selected_from(cuda, inner):
    """NumPy is the oracle: zarr-python 3.1 has no rectilinear grids."""
    array = zg.open(MemoryStore(rectilinear(DATA, EDGES, inner=inner)))
    rng = np.random.default_rng(0)
    rows, columns = rng.integers(-23, 23, 40), rng.permutation(40)[:30]
    points, mask = (rng.integers(-23, 23, 300), rng.integers(0, 40, 300)), DATA % 3 == 1
    for indexer, selection, wanted in (
        (array.oindex, (rows, columns), DATA[rows][:, columns]),
        (array.oindex, (slice(1, None, 4), columns), DATA[1::4][:, columns]),
        (array.vindex, points, DATA[points]),
        (array, mask, DATA[mask]),
        (array.blocks, (-1, 2), DATA[17:, 20:37]),  # edges at 0 5 8 11 14 17 23, 0 10 20 37 40
        (array.blocks, (slice(1, 3), slice(3, 9)), DATA[5:11, 37:]),
    ):
        same(indexer.read(selection, device="cpu"), wanted)
        same(to_host(indexer.read(selection, device=cuda)), wanted)


# ---- forms ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def both():
    data = np.arange(42, dtype="i4").reshape(6, 7)
    return opened_by_both(encode(data, Recipe(chunks=(4, 3))))


@pytest.mark.parametrize(
    "selection",
    [
        "a[1]", "a[np.int64(-1)]", "a[1, 2]", "a[...]", "a[1, ...]", "a[..., 1]", "a[1, 2, ...]",
        "a[()]", "a[::2, 1:6:3]", "a[:0]", "a[[0, 5, 0]]", "a[[0, 1], :]", "a[[-1, 1], 1:3]",
        "a[:, [4, 1]]", "a[1, [2, 0]]", "a[[0, 1], [1, 2]]", "a[[0, 1], np.int8(2)]",
        "a[np.array([[0], [1]]), [1, 2]]", "a[[True, False] * 3]", "a[[True, False] * 3, [0, 1]]",
        "a[np.arange(6), :]", "a[np.arange(6) > 2, 3]", "a[np.ones((6, 7), bool)]",
        "a[np.array([0, 1]), np.int64(1) :]", "a[(np.array([1, 2]),)]", "a[np.array(1), 0]",
        "a.vindex[1, 2]", "a.vindex[np.array(1), [2, 3]]", "a.vindex[[0, 1], [[1], [2]]]",
        "a.vindex[np.array([1]), np.array([2], 'i1')]", "a.oindex[[0, 1], [True] * 7]",
        "a.oindex[..., [0, -7]]", "a.oindex[np.int64(1), [0, 1]]", "a.oindex[np.array([], int)]",
        "a.oindex[:, 3]", "a.oindex[()]", "a.vindex[np.array([], int), np.array([], int)]",
        "a.get_mask_selection([[True] * 7] * 6)", "a.get_coordinate_selection((0, 1))",
        "a.get_basic_selection()", "a.get_basic_selection((1, slice(2)))", "a.blocks[0]",
        "a.blocks[-1, 1]", "a.blocks[0:9]", "a.blocks[1:1]", "a.blocks[0:-1]", "a.blocks[...]",
        "a.blocks[..., 2]", "a.get_block_selection((slice(1, None), -1))",
    ],
)  # fmt: skip
def test_forms_are_zarr_pythons(both, selection):
    theirs, ours = (eval(selection, {"a": array, "np": np}) for array in both)
    same(ours, theirs)


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ("a[6]", "axis 0: index 6 is out of bounds for size 6"),
        ("a[0, -8]", "axis 1: index -8 is out of bounds for size 7"),
        ("a[0, 0, 0]", "too many indices, got 3 for 2 axes"),
        ("a[..., ...]", "one ellipsis"),
        ("a[::-1]", "step must be at least 1, got -1"),
        ("a[None]", "NoneType is not a basic index"),
        ("a[np.newaxis, 0]", "NoneType is not a basic index"),
        ("a[True]", "boolean is not an index"),
        ("a[np.True_]", "mask must be booleans of the array's shape"),
        ("a[1.0]", "float is not a basic index"),
        ("a['f']", "no such fields"),
        ("a['f', 0]", "no such fields"),
        ("a[['f', 'g']]", "list is not a basic index"),
        ("a[..., [0, 1]]", "list is not a basic index; .* oindex"),
        ("a[[0, 1], ...]", "list is not a basic index; .* oindex"),
        ("a[[[0, 1]]]", "list is not a basic index"),
        ("a[np.ones(6, bool)]", r"mask must be booleans of the array's shape \(6, 7\)"),
        ("a[np.array(1)]", "one axis"),
        ("a.oindex[[6]]", "axis 0: index 6 is out of bounds for size 6"),
        ("a.oindex[:, [0, -8]]", "axis 1: index -8 is out of bounds for size 7"),
        ("a.oindex[np.array([2**64 - 1], 'u8')]", "out of bounds"),
        ("a.oindex[np.ones((2, 2), int)]", r"one axis, got shape \(2, 2\)"),
        ("a.oindex[np.ones(5, bool)]", "axis 0: a mask of 5 for 6 elements"),
        ("a.oindex[0, [1], 2]", "too many indices"),
        ("a.oindex[[0.5]]", "list is not an index"),
        ("a.oindex[np.ones(3)]", "ndarray is not an index"),
        ("a.oindex[None]", "NoneType is not an index"),
        ("a.oindex[::-1]", "step must be at least 1"),
        ("a.vindex[[6], [0]]", "axis 0: index 6 is out of bounds for size 6"),
        ("a.vindex[[0], [-8]]", "axis 1: index -8 is out of bounds for size 7"),
        ("a.vindex[[0, 1]]", "points need an integer or an array of integers for each of 2 axes"),
        ("a.vindex[:, [1]]", "points need"),
        ("a.vindex[0.5, 1]", "points need"),
        ("a.vindex[...]", "points need"),
        ("a.vindex['f']", "points need"),
        ("a.vindex[np.ones((7, 6), bool)]", "mask must be"),
        ("a.get_mask_selection([1, 2])", "mask must be"),
        ("a.get_coordinate_selection(np.ones((6, 7), bool))", "points need"),
        ("a.get_basic_selection([0, 1])", "list is not a basic index"),
        ("a.blocks[2]", "axis 0: index 2 is out of bounds for size 2"),
        ("a.blocks[-3]", "out of bounds"),
        ("a.blocks[2:]", "begin out of bounds for 2 blocks"),
        ("a.blocks[::2]", "slices of step 1"),
        ("a.blocks[[0]]", "slices of step 1"),
        ("a.blocks[0.0]", "slices of step 1"),
        ("a.get_basic_selection(0, fields=3)", "fields must be a name or a list of names"),
    ],
)
def test_what_zarr_python_refuses_is_refused(both, selection, message):
    theirs, ours = ({"a": array, "np": np} for array in both)
    with pytest.raises(IndexError):
        eval(selection, theirs)
    with pytest.raises(SelectionError, match=message) as caught:
        eval(selection, ours)
    assert "dict://test" in str(caught.value)


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ("a[::0]", "not a slice of integers"),  # ValueErrors of zarr-python
        ("a.vindex[[0, 1], [0, 1, 2]]", r"shapes \(2,\), \(3,\) do not broadcast"),
    ],
)
def test_zarr_pythons_value_errors_are_selection_errors(both, selection, message):
    with pytest.raises(ValueError, match=r"slice step|broadcast"):
        eval(selection, {"a": both[0], "np": np})
    with pytest.raises(SelectionError, match=message):
        eval(selection, {"a": both[1], "np": np})


def test_empty_lists_and_unsigned_numbers_are_numpys(both):
    array, whole = both[1], np.asarray(both[1])
    for got, wanted in (
        (array[[]], whole[:0]),
        (array.oindex[[], :], whole[:0]),
        (array.vindex[[], []], whole[:0, 0]),
        (array[np.array([5, 0], "u8"), 0], whole[[5, 0], 0]),
    ):
        same(got, wanted)


def test_more_points_than_can_be_numbered_are_refused_before_they_take_memory(both):
    rows, columns = np.zeros((1 << 16, 1), int), np.zeros((1, 1 << 16), int)
    with pytest.raises(SelectionError, match=r"4294967296 points .* read in parts"):
        both[1].vindex[rows, columns]


def test_arrays_may_be_selected_by_arrays(both):
    mask = np.arange(42).reshape(6, 7) % 3 == 0
    by = zg.open(store_of(mask, chunks=(2, 2)))
    whole = np.asarray(both[1])
    same(both[1][by], whole[mask])
    same(both[1].vindex[by], whole[mask])
    rows = zg.open(store_of(np.array([4, 1]), chunks=(2,)))
    same(both[1].oindex[rows], whole[[4, 1]])


class Tensor:
    """An array of a library whose types NumPy does not know."""

    shape = (2,)
    dtype = "tensor.int64"

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.array([4, 1])


def test_arrays_of_other_libraries_are_indices_where_lists_are_asked_for(both):
    same(both[1].oindex[Tensor()], np.asarray(both[1])[[4, 1]])
    with pytest.raises(SelectionError, match="Tensor is not a basic index"):
        both[1][Tensor()]


def test_arrays_of_no_axes_and_of_no_elements():
    theirs, ours = opened_by_both(encode(np.array(5), Recipe(chunks=())))
    for selection in ("a[()]", "a[...]", "a.oindex[...]", "a.blocks[...]", "a.oindex[()]"):
        same(eval(selection, {"a": ours}), eval(selection, {"a": theirs}))
    for selection in ("a[0]", "a.vindex[()]", "a[[0]]", "a[np.array(True)]"):
        with pytest.raises(SelectionError):
            eval(selection, {"a": ours, "np": np})
    theirs, ours = opened_by_both(encode(np.empty((0, 3), "i4"), Recipe(chunks=(2, 2))))
    for selection in (
        "a[...]", "a[:, [0, 2]]", "a[np.zeros((0, 3), bool)]", "a.oindex[np.zeros(0, int), 1:]",
        "a.vindex[np.zeros(0, int), np.zeros(0, int)]",
    ):  # fmt: skip
        same(*(eval(selection, {"a": array, "np": np}) for array in (ours, theirs)))
    same(ours.oindex[np.zeros(0, bool)], np.empty((0, 3), "i4"))
    for selection in ("a[0]", "a.blocks[...]", "a.blocks[0]", "a.vindex[[0], [0]]"):
        for array in (ours, theirs):
            with pytest.raises(IndexError):
                eval(selection, {"a": array})


def test_out_is_filled_and_checked(both):
    array, whole = both[1], np.asarray(both[1])
    rows, points, mask = [4, 1, 4], ([4, 1], [0, 6]), whole % 2 == 0
    for method, selection, wanted in (
        (array.get_basic_selection, (slice(1, 5), 3), whole[1:5, 3]),
        (array.get_orthogonal_selection, (rows, slice(2)), whole[rows, :2]),
        (array.get_coordinate_selection, points, whole[points]),
        (array.get_mask_selection, mask, whole[mask]),
        (array.get_block_selection, (1,), whole[4:]),
        (array.read, mask, whole[mask]),
    ):
        out = np.zeros_like(wanted)
        assert method(selection, out=out) is out
        same(out, wanted)
        same(method(selection, dtype="f8"), wanted.astype("f8"))
        for wrong in (np.zeros((*wanted.shape, 1), "i4"), np.zeros(wanted.shape, "i8"), [0]):
            with pytest.raises(SelectionError, match="out must be"):
                method(selection, out=wrong)


def test_what_a_plan_says(both):
    array = both[1]
    assert "read 2 x [1, 1] from 1 array" in array.plan(([4, 1], [0, 6])).explain()
    assert "read 1 x [3, 7] from 1 array" in array.plan([4, 1, 4]).explain()
    text = array.oindex.plan(([0, 5, 1], [6, 0])).explain()
    assert "read 1 x [3, 2] from 1 array" in text
    assert "4 chunks" in text
    assert "read 1 x [4, 3]" in array.blocks.plan((0, 0)).explain()


def test_more_pieces_than_a_plan_may_have_are_read():
    data = np.arange(300, dtype="u2") % 7
    array = zg.open(store_of(data, chunks=(1,), shards=(300,)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("zarrgpu.selection_reads.MAX_PIECES", 100)
        patch.setattr("zarrgpu.plan.touches.MAX_PIECES", 100)
        same(array[...], data)
        same(array[::2], data[::2])


# ---- fields --------------------------------------------------------------------------------------

RECORD = np.dtype([("red", "u1"), ("value", ">f4"), ("place", "<i4", (2,))])


@pytest.fixture(scope="module")
def records():
    """An array of structured elements, and what it holds."""
    rng = np.random.default_rng(0)
    data = np.frombuffer(rng.integers(0, 100, 13 * 30, np.uint8).tobytes(), RECORD)
    raw = zg.open(store_of(data.view(f"V{RECORD.itemsize}"), chunks=(5,), fill_value=bytes(13)))
    source = replace(raw.source, spec=replace(raw.source.spec, dtype=RECORD, fill_value=None))
    return Array(source), data


def test_fields_are_numpys(records):
    array, data = records
    rows, mask = [7, 2, 29], np.arange(30) % 4 == 1
    for got, wanted in (
        (array["red"], data["red"]),
        (array["value", 3:9], data["value"][3:9]),
        (array["place", 4], data["place"][4]),
        (array["red", rows], data["red"][rows]),
        (array.oindex["value", rows], data["value"][rows]),
        (array.vindex["red", mask], data["red"][mask]),
        (array.blocks["red", -1], data["red"][25:]),
        (array.get_basic_selection(slice(2, 5), fields="value"), data["value"][2:5]),
        (array.get_mask_selection(mask, fields="place"), data["place"][mask]),
        (array.read("red", dtype="f4"), data["red"].astype("f4")),
        (array.read(rows), data[rows]),
    ):
        assert got.dtype == wanted.dtype.newbyteorder("=")
        assert got.tobytes() == wanted.astype(got.dtype).tobytes()
        assert got.shape == wanted.shape
    several = array["red", "place", 2:6]
    assert several.dtype.names == ("red", "place")
    assert several.dtype.itemsize == 9
    for name in several.dtype.names:
        np.testing.assert_array_equal(several[name], data[name][2:6])
    assert array.get_basic_selection(0, fields=["value"])["value"] == data["value"][0]
    out = np.zeros(30, "f4")
    assert array.get_basic_selection(..., fields="value", out=out) is out
    np.testing.assert_array_equal(out, data["value"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("a['blue']", r"no such fields.*\['blue'\].*\['red', 'value', 'place'\]"),
        ("a['red', 'blue']", "no such fields"),
        ("a['red', 'red']", "twice"),
        ("a.read(..., out=np.zeros(30, RECORD)[:0])", "out must be"),
        ("a.get_basic_selection(fields='red', out=np.zeros(30))", "out must be .*uint8"),
        ("a.get_basic_selection(fields='red', out=np.zeros(29, 'u1'))", "out must be"),
        ("a.read(('red', 'value'), dtype='f4')", "cannot deliver"),
    ],
)
def test_fields_that_cannot_be_are_refused(records, call, message):
    with pytest.raises(SelectionError, match=message):
        eval(call, {"a": records[0], "np": np, "RECORD": RECORD})
