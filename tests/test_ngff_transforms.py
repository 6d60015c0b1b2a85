"""Law: a transformation is the matrix that its text says, by NumPy's algebra; two after one another
are the product; its inverse undoes it; a damaged one is an error with a place, or right.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ngff_cases import (
    CASES,
    all_transformations,
    axes_of,
    damaged,
    datasets_06,
    edge,
    image,
    system,
    wrap,
)
from zarrgpu.errors import MetadataError, SelectionError, UnsupportedFormatError
from zarrgpu.formats.document import Document
from zarrgpu.formats.ngff_transforms import inverse_matrix, inverted, transformation_matrix
from zarrgpu.formats.ome import Multiscale, parse_multiscale

numbers = st.floats(-1e3, 1e3, allow_nan=False).filter(lambda n: n == 0 or abs(n) > 1e-3)
positive = st.floats(1e-3, 1e3)


def matrix_of(step: dict[str, Any], ndim: int, load: Any = None) -> np.ndarray:
    return transformation_matrix(Document("s", step), ndim, load)


def apply(step: dict[str, Any], point: np.ndarray) -> np.ndarray:
    """What a transformation does to a point, by the text of the specification; no matrices."""
    kind = step["type"]
    if kind == "identity":
        return point
    if kind == "scale":
        return point * np.array(step["scale"], float)
    if kind == "translation":
        return point + np.array(step["translation"], float)
    if kind == "mapAxis":
        return np.array([point[axis] for axis in step["mapAxis"]])
    if kind == "projectAxis":
        kept = [p for i, p in enumerate(point) if i not in step.get("droppedInputs", [])]
        for place in sorted(step.get("createdOutputs", [])):
            kept.insert(place, 0.0)
        return np.array(kept)
    if kind == "affine":
        rows = np.array(step["affine"], float)
        return rows[:, :-1] @ point + rows[:, -1]
    if kind == "rotation":
        return np.array(step["rotation"], float) @ point
    if kind == "sequence":
        for part in step["transformations"]:
            point = apply(part, point)
        return point
    if kind == "bijection":
        return apply(step["forward"], point)
    assert kind == "byDimension"
    out = {}
    for part in step["transformations"]:
        moved = apply(part["transformation"], point[part["inputAxes"]])
        out |= dict(zip(part["outputAxes"], moved, strict=True))
    return np.array([out[axis] for axis in range(len(out))])


@st.composite
def steps(draw, ndim: int, depth: int = 2) -> dict[str, Any]:
    """A transformation from `ndim` axes to as many, of any type that is a matrix."""
    simple = ["identity", "scale", "translation", "mapAxis", "affine", "rotation", "projectAxis"]
    kind = draw(st.sampled_from(simple + ["sequence", "byDimension", "bijection"] * (depth > 0)))
    vector = st.lists(numbers, min_size=ndim, max_size=ndim)
    if kind == "scale":
        return {"type": kind, kind: draw(st.lists(positive, min_size=ndim, max_size=ndim))}
    if kind == "translation":
        return {"type": kind, kind: draw(vector)}
    if kind == "mapAxis":
        return {"type": kind, kind: draw(st.permutations(range(ndim)))}
    if kind == "projectAxis":
        axes = st.integers(0, ndim - 1)
        return {"type": kind, "droppedInputs": [draw(axes)], "createdOutputs": [draw(axes)]}
    if kind == "affine":
        rows = st.lists(numbers, min_size=ndim + 1, max_size=ndim + 1)
        return {"type": kind, kind: draw(st.lists(rows, min_size=ndim, max_size=ndim))}
    if kind == "rotation":
        found, _ = np.linalg.qr(
            np.random.default_rng(draw(st.integers(0, 99))).random((ndim, ndim))
        )
        found[0] *= np.sign(np.linalg.det(found))
        return {"type": kind, kind: found.tolist()}
    if kind == "sequence":
        parts = draw(st.lists(steps(ndim, depth - 1), min_size=1, max_size=3))
        return {"type": kind, "transformations": parts}
    if kind == "bijection":
        return {"type": kind, "forward": draw(steps(ndim, depth - 1)),
                "inverse": {"type": "identity"}}  # fmt: skip
    if kind == "byDimension":
        inputs, outputs = (draw(st.permutations(range(ndim))) for _ in "io")
        cut = draw(st.integers(1, ndim))
        parts = [
            {"transformation": draw(steps(len(i), depth - 1)), "inputAxes": i, "outputAxes": o}
            for i, o in ((inputs[:cut], outputs[:cut]), (inputs[cut:], outputs[cut:]))
            if i
        ]
        return {"type": kind, "transformations": parts}
    return {"type": "identity"}


@settings(max_examples=200, deadline=None)
@given(data=st.data(), ndim=st.integers(1, 5))
def test_a_transformation_is_its_matrix(data, ndim):
    step = data.draw(steps(ndim))
    matrix = matrix_of(step, ndim)
    assert matrix.shape == (ndim + 1, ndim + 1)
    assert matrix[-1].tolist() == [0.0] * ndim + [1.0]
    point = np.array(data.draw(st.lists(numbers, min_size=ndim, max_size=ndim)))
    expected = apply(step, point)
    size = np.abs(matrix).max() * (1 + np.abs(point).max())
    assert np.allclose(matrix @ [*point, 1.0], [*expected, 1.0], rtol=1e-9, atol=1e-9 * size)


@settings(max_examples=100, deadline=None)
@given(data=st.data(), ndim=st.integers(1, 4))
def test_an_inverse_undoes_it(data, ndim):
    step = data.draw(steps(ndim))
    matrix = matrix_of(step, ndim)
    found = inverted(matrix)
    if found is None:
        scaled = matrix[:-1, :-1] / max(np.abs(matrix[:-1, :-1]).max(), 1e-300)
        assert np.linalg.matrix_rank(scaled, tol=1e-3) < ndim or np.linalg.cond(scaled) > 1e6
        return
    size = np.linalg.cond(matrix)
    assert np.allclose(found @ matrix, np.eye(ndim + 1), atol=1e-12 * max(size, 1))


def test_pixels_of_any_unit_have_an_inverse():
    tiny = matrix_of({"type": "scale", "scale": [1e-9, 4e-10, 1e12]}, 3)
    found = inverted(tiny)
    assert found is not None
    assert np.allclose(found @ tiny, np.eye(4))


def test_a_bijection_states_its_inverse():
    up = {"type": "translation", "translation": [1.0, 2.0]}
    down = {"type": "translation", "translation": [-5.0, 0.0]}  # not even the true one
    step = Document("s", {"type": "bijection", "forward": up, "inverse": down})
    assert transformation_matrix(step, 2)[:2, 2].tolist() == [1, 2]
    assert inverse_matrix(step, 2)[:2, 2].tolist() == [-5, 0]


def test_development_versions_call_axes_of_parts_otherwise():
    part = {"transformation": {"type": "scale", "scale": [2.0]}}
    step = {
        "type": "byDimension",
        "transformations": [
            {**part, "input_axes": [1], "output_axes": [0]},
            {**part, "input_axes": [0], "output_axes": [1]},
        ],
    }
    assert (matrix_of(step, 2) @ [3, 5, 1]).tolist() == [10, 6, 1]


def test_dimensions_may_change():
    step = {"type": "affine", "affine": [[0, 0, 1], [3, 4, 2], [6, 7, 5]]}  # of the specification
    assert matrix_of(step, 2).tolist() == [[0, 0, 1], [3, 4, 2], [6, 7, 5], [0, 0, 1]]
    drop = {"type": "projectAxis", "droppedInputs": [1]}
    assert matrix_of(drop, 3).tolist() == [[1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    make = {"type": "projectAxis", "createdOutputs": [0, 2]}
    assert (matrix_of(make, 2) @ [7, 9, 1]).tolist() == [0, 7, 0, 9, 1]
    assert inverted(matrix_of(make, 2)) is None
    both = {"type": "sequence", "transformations": [make, {"type": "scale", "scale": [1, 1, 1, 2]}]}
    assert (matrix_of(both, 2) @ [7, 9, 1]).tolist() == [0, 7, 0, 18, 1]


@pytest.mark.parametrize(
    ("step", "location"),
    [
        ({}, "type"),
        ({"type": "scale"}, "scale"),
        ({"type": "scale", "scale": [1, 2, 3]}, "scale"),
        ({"type": "scale", "scale": [1, 0]}, "scale"),
        ({"type": "scale", "scale": [1, float("nan")]}, "scale"),
        ({"type": "translation", "translation": [1, "2"]}, "translation"),
        ({"type": "mapAxis", "mapAxis": [0, 0]}, "mapAxis"),
        ({"type": "mapAxis", "mapAxis": [0, 2]}, "mapAxis"),
        ({"type": "mapAxis", "mapAxis": [0.5, 1]}, "mapAxis"),
        ({"type": "projectAxis"}, ""),
        ({"type": "projectAxis", "droppedInputs": [2]}, "droppedInputs"),
        ({"type": "projectAxis", "createdOutputs": [3]}, "createdOutputs"),
        ({"type": "affine"}, "affine"),
        ({"type": "affine", "affine": [[1, 2], [3, 4]]}, "affine"),
        ({"type": "affine", "affine": [[1, 2, 3], [3, 4]]}, "affine"),
        ({"type": "affine", "affine": []}, "affine"),
        ({"type": "affine", "affine": [[]]}, "affine"),
        ({"type": "rotation", "rotation": [[1, 0], [0, 2]]}, "rotation"),
        ({"type": "rotation", "rotation": [[0, 1], [1, 0]]}, "rotation"),
        ({"type": "rotation", "rotation": [[1]]}, "rotation"),
        ({"type": "sequence", "transformations": []}, "transformations"),
        ({"type": "sequence", "transformations": [{"type": "scale", "scale": [1]}]},
         "transformations.0.scale"),
        ({"type": "byDimension", "transformations": [
            {"transformation": {"type": "identity"}, "inputAxes": [0], "outputAxes": [0, 1]}]},
         "transformations.0.outputAxes"),
        ({"type": "byDimension", "transformations": [
            {"transformation": {"type": "identity"}, "inputAxes": [0, 2], "outputAxes": [0, 1]}]},
         "transformations.0.inputAxes"),
        ({"type": "byDimension", "transformations": [
            {"transformation": {"type": "identity"}, "inputAxes": [0], "outputAxes": [1]}]},
         "transformations"),
        ({"type": "byDimension", "transformations": 2 * [
            {"transformation": {"type": "identity"}, "inputAxes": [0], "outputAxes": [0]}]},
         "transformations.1.outputAxes"),
        ({"type": "bijection", "forward": {"type": "identity"}}, "inverse"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_located(step, location):
    with pytest.raises(MetadataError) as caught:
        matrix_of(step, 2)
    assert ".".join(map(str, caught.value.location)) == location


@pytest.mark.parametrize("kind", ["displacements", "coordinates"])
def test_fields_of_vectors_are_refused_by_name(kind):
    with pytest.raises(UnsupportedFormatError, match=f"{kind} at 'field' is a field of vectors"):
        matrix_of({"type": kind, "path": "field"}, 2)


@pytest.mark.parametrize("kind", ["thinPlate", 3, None])
def test_unknown_types_are_refused_by_name(kind):
    with pytest.raises(UnsupportedFormatError, match="is not known"):
        matrix_of({"type": kind}, 2)


def test_matrices_may_lie_in_arrays():
    rows = np.array([[1, 2, 3], [4, 5, 6]], "<i2")
    step = {"type": "affine", "path": "a/b"}
    assert matrix_of(step, 2, {"a/b": rows}.__getitem__)[:2].tolist() == rows.tolist()
    with pytest.raises(UnsupportedFormatError, match="in the array 'a/b'"):
        matrix_of(step, 2)
    for bad in (np.zeros(3), np.zeros((2, 2)), np.full((2, 3), np.nan), np.zeros((2, 3), bool)):
        with pytest.raises(MetadataError):
            matrix_of(step, 2, lambda _, bad=bad: bad)


# ------------------------------------------------------------------------------------------- images


def multiscale(**changes: Any) -> Multiscale:
    document = {
        "coordinateSystems": [system("physical", axes_of("czyx"))],
        "datasets": datasets_06([[1, 4.0, 0.5, 0.25], [1, 4.0, 1.0, 0.5]]),
    }
    return parse_multiscale(wrap("0.6", multiscales=[document | changes]), "s")


def test_an_image_of_0_6_lies_in_its_intrinsic_system():
    found = multiscale()
    assert found.axes == ("c", "z", "y", "x")
    assert found.types == ("channel", "space", "space", "space")
    assert found.units == (None, *["micrometer"] * 3)
    assert found.mpp == (0.25, 0.5)
    assert found.scale(1) == (1, 4, 1, 0.5)
    assert found.translation(1) == (0, 0, 0, 0)
    assert [each.name for each in found.coordinate_systems] == ["physical"]
    assert found.affine(1).tolist() == np.diag([1, 4, 1, 0.5, 1]).tolist()
    for level, name in ((2, None), (-1, None), (0, "other")):
        with pytest.raises(SelectionError):
            found.affine(level, name)


def test_scale_and_translation_before_0_6():
    found = parse_multiscale(image("0.5"), "s")
    assert found.scale(1) == (0.1, 1, 1, 1)
    assert found.translation(1) == (0, 0, 0.25, 0.25)
    assert found.affine(1).tolist() == [
        [0.1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 1, 0, 0.25], [0, 0, 0, 1, 0.25], [0, 0, 0, 0, 1],
    ]  # fmt: skip
    nothing = parse_multiscale(image("0.1"), "s")
    assert nothing.scale() is None
    assert nothing.mpp == (None, None)
    with pytest.raises(SelectionError, match="no transformation"):
        nothing.affine()


def test_further_systems_are_reached_over_several_steps_and_backwards():
    systems = [system(name, axes_of("yx")) for name in ("physical", "a", "b", "c")]
    shear = [[1, 0.5, 3], [0, 2, -1]]
    found = parse_multiscale(
        wrap("0.6", multiscales=[{
            "coordinateSystems": systems[::-1],  # the intrinsic one is found, wherever it stands
            "datasets": datasets_06([[2.0, 3.0]]),
            "coordinateTransformations": [
                edge("affine", "physical", "a", affine=shear),
                edge("translation", "b", "a", translation=[5, 7]),  # taken backwards
                edge("displacements", "b", "c", path="field"),
            ],
        }]), "s",
    )  # fmt: skip
    assert found.coordinate_systems[0].name == "physical"
    assert found.mpp == (3.0, 2.0)
    to_a = np.vstack([np.array(shear), [0, 0, 1]]) @ np.diag([2, 3, 1])
    back = np.array([[1, 0, -5], [0, 1, -7], [0, 0, 1]])
    assert np.allclose(found.affine(0, "a"), to_a)
    assert np.allclose(found.affine(0, "b"), back @ to_a)
    with pytest.raises(UnsupportedFormatError, match="displacements at 'field'"):
        found.affine(0, "c")


def test_what_has_no_inverse_is_not_taken_backwards():
    systems = [system("physical", axes_of("yx")), system("flat", axes_of("xyz"))]
    systems += [system("shadow", axes_of("yx"))]
    found = parse_multiscale(
        wrap("0.6", multiscales=[{
            "coordinateSystems": systems,
            "datasets": datasets_06([[2.0, 3.0]]),
            "coordinateTransformations": [
                edge("affine", "flat", "physical", affine=[[1, 0, 0, 0], [0, 1, 0, 0]]),
                edge("affine", "shadow", "physical", affine=[[1, 1, 0], [1, 1, 0]]),
            ],
        }]), "s",
    )  # fmt: skip
    for name in ("flat", "shadow"):
        with pytest.raises(UnsupportedFormatError, match="affine has no inverse"):
            found.affine(0, name)


def test_array_systems_take_names_and_sizes_from_the_physical_one_behind():
    arrays = [{"name": f"dim_{i}", "type": "array"} for i in range(3)]
    found = parse_multiscale(
        wrap("0.6", multiscales=[{
            "coordinateSystems": [system("pixels", arrays), system("world", axes_of("zyx"))],
            "datasets": datasets_06([[1, 1, 1], [2, 2, 2]], "pixels"),
            "coordinateTransformations": [{
                **edge("sequence", "pixels", "world"), "transformations": [
                    {"type": "mapAxis", "mapAxis": [2, 0, 1]},
                    {"type": "scale", "scale": [4.0, 0.5, 0.25]},
                ],
            }],
        }]), "s",
    )  # fmt: skip
    # output z is array axis 2, y is 0, x is 1
    assert found.axes == ("y", "x", "z")
    assert found.mpp == (0.25, 0.5)
    assert found.scale(1) == (1.0, 0.5, 8.0)  # in the units of those axes
    assert (found.affine(1, "world") @ [10, 20, 30, 1]).tolist() == [240.0, 10.0, 10.0, 1.0]


@pytest.mark.parametrize(
    ("changes", "location"),
    [
        ({"coordinateSystems": []},
         "ome.multiscales.0.datasets.0.coordinateTransformations.0.output"),
        ({"coordinateSystems": 3}, "ome.multiscales.0.coordinateSystems"),
        ({"coordinateSystems": [system("physical", axes_of("cz"))]},
         "ome.multiscales.0.datasets.0.coordinateTransformations.0.scale"),
        ({"coordinateSystems": [system("physical", [*axes_of("czy"), {"name": "w"}])]},
         "ome.multiscales.0.coordinateSystems"),
        ({"datasets": datasets_06([[1, 1, 1, 1]], "nowhere")},
         "ome.multiscales.0.datasets.0.coordinateTransformations.0.output"),
        ({"datasets": datasets_06([[1] * 4]) + datasets_06([[1] * 4], "other"),
          "coordinateSystems": [system(n, axes_of("czyx")) for n in ("physical", "other")]},
         "ome.multiscales.0.datasets.1.coordinateTransformations.0.output"),
        ({"datasets": [{"path": "s0"}]}, "ome.multiscales.0.datasets.0.coordinateTransformations"),
    ],
)  # fmt: skip
def test_broken_metadata_of_0_6_is_located(changes, location):
    with pytest.raises(MetadataError) as caught:
        multiscale(**changes)
    assert ".".join(map(str, caught.value.location)) == location


@pytest.mark.parametrize("version", ["0.1", "0.2", "0.3", "0.4", "0.5", "0.6"])
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damaged_images_are_read_right_or_refused(version, data):
    attributes = data.draw(damaged(CASES[version, "image"]))
    before = copy.deepcopy(attributes)
    try:
        found = parse_multiscale(attributes, "s")
    except (MetadataError, UnsupportedFormatError):
        return
    assert attributes == before  # nothing is changed in place
    assert {"x", "y"} <= set(found.axes)
    assert len(found.affines) == len(found.paths) >= 1
    for level, matrix in enumerate(found.affines):
        if matrix is None:
            continue
        assert matrix.shape == (len(found.axes) + 1,) * 2
        assert np.isfinite(matrix).all()
        for each in found.coordinate_systems:
            try:
                assert np.isfinite(found.affine(level, each.name)).all()
            except (SelectionError, MetadataError, UnsupportedFormatError):
                continue
    assert all(size is None or size > 0 for size in found.mpp)


def test_every_type_of_0_6_is_told_apart():
    told = set()
    for step in all_transformations():
        try:
            told.add((step["type"], matrix_of(step, 3, lambda _: np.eye(3)).shape))
        except (UnsupportedFormatError, MetadataError) as error:
            told.add((step["type"], type(error).__name__))
    assert len({kind for kind, _ in told}) == 12
    assert {kind for kind, what in told if what == "UnsupportedFormatError"} == {
        "displacements", "coordinates"
    }  # fmt: skip
