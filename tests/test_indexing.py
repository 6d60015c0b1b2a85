"""Law: a normalised selection picks the elements that NumPy picks, or raises `SelectionError`."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zarrgpu.errors import SelectionError
from zarrgpu.indexing import normalise_selection


def indices(size: int) -> st.SearchStrategy:
    bounds = st.none() | st.integers(-2 * size - 2, 2 * size + 2) | st.integers(-(1 << 70), 1 << 70)
    steps = st.none() | st.integers(1, size + 2) | st.just(1 << 80)
    slices = st.builds(slice, bounds, bounds, steps)
    return slices | st.integers(-size, size - 1) if size else slices


@st.composite
def shapes_and_selections(draw):
    shape = tuple(draw(st.lists(st.integers(0, 7), max_size=5)))
    items = [draw(indices(size)) for size in shape]
    if draw(st.booleans()):  # an ellipsis for any run of axes, or for none
        first = draw(st.integers(0, len(items)))
        last = draw(st.integers(first, len(items)))
        items[first:last] = [...]
    elif draw(st.booleans()):
        del items[draw(st.integers(0, len(items))) :]
    return shape, items[0] if len(items) == 1 and draw(st.booleans()) else tuple(items)


@given(shapes_and_selections())
def test_box_is_numpys_selection(case):
    shape, selection = case
    array = np.arange(int(np.prod(shape))).reshape(shape)
    box = normalise_selection(selection, shape)
    axes = [
        [s + k * d for k in range(n)]
        for s, n, d in zip(box.start, box.count, box.step, strict=True)
    ]
    picked = array[np.ix_(*axes)] if axes else array
    wanted = array[selection]
    assert box.result_shape == wanted.shape
    np.testing.assert_array_equal(picked.reshape(wanted.shape), wanted)
    # a step is only kept where it means something: all numbers fit the planner's int64
    assert all(
        d == 1 or (n > 1 and d < size)
        for n, d, size in zip(box.count, box.step, shape, strict=True)
    )


def test_numpy_integers_are_integers():
    selection = (np.int64(-1), slice(np.uint8(1), np.int16(4)), np.array(2))
    box = normalise_selection(selection, (3, 5, 4))
    assert (box.start, box.count, box.dropped) == ((2, 1, 2), (1, 3, 1), (0, 2))


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        (4, "index 4 is out of bounds for size 4"),
        (-5, "index -5 is out of bounds"),
        (1 << 80, "out of bounds"),
        ((0, 0, 0), "too many indices, got 3 for 2 axes"),
        ((..., ...), "one ellipsis"),
        (slice(None, None, -1), "step must be at least 1, got -1"),
        (slice(None, None, 0), "not a slice of integers"),
        (slice(0.5, 2), "not a slice of integers"),
        (slice("a", None), "not a slice of integers"),
        (True, "boolean is not an index"),
        (np.True_, "not a basic index"),
        (None, "NoneType is not a basic index"),
        ("x", "str is not a basic index"),
        (1.0, "float is not a basic index"),
        ([0, 1], "list is not a basic index"),
        (np.array([0, 1]), "ndarray is not a basic index"),
        (np.ones((4, 6), bool), "ndarray is not a basic index"),
    ],
)
def test_other_forms_are_refused(selection, message):
    with pytest.raises(SelectionError, match=message) as caught:
        normalise_selection(selection, (4, 6), source="a.zarr")
    assert "a.zarr" in str(caught.value)
    assert isinstance(caught.value, IndexError)
