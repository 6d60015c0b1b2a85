"""Law: an image over an `ArrayProxy` gives what nibabel's own image of the same data gives.

Oracle: nibabel's `ArrayProxy` and `SpatialImage.slicer`, NumPy for what they cannot do.
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.arrayproxy import is_proxy
from numpy.testing import assert_allclose, assert_array_equal

import zarrgpu as zg
from tests.test_nifti import DTYPES, SFORM, nifti_zarr, random_array, write
from zarrgpu.errors import MissingDependencyError, SelectionError, UnsupportedFormatError
from zarrgpu.interop.nibabel import ArrayProxy, to_nibabel

SHAPE = (9, 8, 7, 3)
WHOLE = random_array(SHAPE, "i2")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scaled image with an extension."""
    image = nibabel.Nifti1Image(WHOLE, SFORM)
    image.set_qform(SFORM, 1)
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"hello"))
    image.header.set_slope_inter(0.37, -4.5)
    image.header["magic"], image.header["vox_offset"] = b"n+1", 368
    path = tmp_path_factory.mktemp("nibabel") / "a.nii"
    with path.open("wb") as file:
        image.header.write_to(file)
        file.write(bytes(368 - file.tell()) + WHOLE.tobytes("F"))
    assert_array_equal(nibabel.load(path).dataobj.get_unscaled(), WHOLE)
    return path


@pytest.mark.parametrize("gz", [False, True])
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_images_of_every_type(tmp_path: Path, dtype: str, version: int, *, gz: bool) -> None:
    data = random_array(SHAPE, dtype)
    path = write(tmp_path / f"a.nii{'.gz' * gz}", data, version=version, order=">")
    expected, image = nibabel.load(path), to_nibabel(zg.open(path))
    assert type(image) is type(expected)
    assert image.header == expected.header
    assert_array_equal(image.affine, expected.affine)
    assert_array_equal(np.asanyarray(image.dataobj), np.asanyarray(expected.dataobj))
    part = image.slicer[2:, ::2, 1:3]
    wanted = expected.slicer[2:, ::2, 1:3]
    assert_array_equal(np.asanyarray(part.dataobj), np.asanyarray(wanted.dataobj))
    assert_array_equal(part.affine, wanted.affine)


def test_scaling_types_and_header_are_nibabels(path: Path) -> None:
    expected, image = nibabel.load(path), to_nibabel(zg.open(path))
    theirs, ours = expected.dataobj, image.dataobj
    assert is_proxy(ours)
    assert nibabel.is_proxy(ours)
    assert (ours.shape, ours.ndim, ours.dtype, len(ours)) == (SHAPE, 4, theirs.dtype, 9)
    for dtype in (None, "f4", "f8", "i2", "c8"):
        got = ours.get_scaled(dtype)
        wanted = theirs._get_scaled(None if dtype is None else np.dtype(dtype), ())
        assert got.dtype == wanted.dtype
        assert_array_equal(got, wanted)
    assert_array_equal(np.asarray(ours, "f4"), np.asarray(theirs, "f4"))
    assert_array_equal(ours.get_unscaled(), WHOLE)
    assert_array_equal(image.get_fdata(), expected.get_fdata())
    assert_array_equal(image.header.extensions[0].get_content(), b"hello")
    assert image.header.get_slope_inter() == (None, None)
    assert (image.header["sform_code"], image.header["qform_code"]) == (2, 1)


def test_a_written_image_is_the_same(path: Path, tmp_path: Path) -> None:
    to_nibabel(zg.open(path)).to_filename(tmp_path / "b.nii.gz")
    written, expected = nibabel.load(tmp_path / "b.nii.gz"), nibabel.load(path)
    assert_allclose(written.get_fdata(), expected.get_fdata(), atol=0.37)  # rescaled to int16
    assert_array_equal(written.affine, expected.affine)


INDEX = st.integers(-3, 2)
SLICE = st.builds(
    slice, *[st.none() | st.integers(-10, 10)] * 2, st.sampled_from([None, 1, 2, 3, -1, -2])
)
SLICER = st.lists(st.one_of(INDEX, SLICE, st.none()), max_size=4).flatmap(
    lambda items: st.one_of(
        st.just(tuple(items)),
        st.integers(0, len(items)).map(lambda k: (*items[:k], Ellipsis, *items[k:])),
    )
)


@settings(max_examples=150, deadline=None)
@given(slicer=SLICER)
def test_every_slicer_is_numpys(path: Path, slicer: tuple) -> None:
    proxy = ArrayProxy(zg.open(path), slope=1)
    got = proxy[slicer]
    assert got.shape == WHOLE[slicer].shape
    assert_array_equal(got, WHOLE[slicer])


@pytest.mark.parametrize(
    "bad", [9, -10, (0, 0, 0, 0, 0), ([0, 1],), "a", 1.0, True, (..., ...)], ids=str
)
def test_bad_slicers(path: Path, bad: object) -> None:
    with pytest.raises(SelectionError):
        ArrayProxy(zg.open(path))[bad]


@pytest.mark.parametrize(
    "shape", [(9, 8, 7, 3, 1), (9, 8, 1, 7, 3), (1, 9, 8, 7, -1), (9, 8, 7, 1, 3)]
)
def test_reshape_moves_axes_of_length_1(path: Path, shape: tuple[int, ...]) -> None:
    proxy = ArrayProxy(zg.open(path), slope=1)
    moved = proxy.reshape(shape)
    wanted = WHOLE.reshape(shape)
    assert moved.shape == wanted.shape
    assert_array_equal(np.asarray(moved), wanted)
    assert_array_equal(moved[..., 0], wanted[..., 0])
    assert_array_equal(moved.reshape(SHAPE)[2:4], WHOLE[2:4])


@pytest.mark.parametrize("shape", [(8, 9, 7, 3), (72, 7, 3), (-1, -1, 3), (5, -1)])
def test_other_shapes_need_the_data(path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="shape"):
        ArrayProxy(zg.open(path)).reshape(shape)


def test_axes_that_are_left_out_must_be_of_length_1(path: Path) -> None:
    for axes in ([0, 1, 2], [0, 0, 1, 2, 3], [0, 1, 2, 4, 3]):
        with pytest.raises(ValueError, match="axes"):
            ArrayProxy(zg.open(path), axes=axes)


def test_copies_and_pickles(path: Path) -> None:
    proxy = ArrayProxy(zg.open(path))
    for other in (proxy.copy(), pickle.loads(pickle.dumps(proxy))):
        assert_array_equal(other[3:5], proxy[3:5])
        assert "a.nii" in repr(other)


@pytest.mark.parametrize("draft", ["array", "attribute"])
@pytest.mark.parametrize("shape", [(9, 8, 7), SHAPE])
def test_nifti_zarr(tmp_path: Path, draft: str, shape: tuple[int, ...]) -> None:
    data = random_array(shape, "i2")
    expected = nifti_zarr(tmp_path / "a.nii.zarr", data, draft=draft)
    slide = zg.open(tmp_path / "a.nii.zarr")
    image = to_nibabel(slide)
    assert_array_equal(image.dataobj.get_unscaled(), data)
    assert_array_equal(image.get_fdata(), data * 2.0 + 1)
    assert_allclose(image.affine, expected.affine, atol=1e-6)
    coarse = to_nibabel(slide, level=1)
    assert_array_equal(coarse.dataobj.get_unscaled(), data[::2, ::2, ::2])
    assert_allclose(coarse.affine @ [0, 0, 0, 1], SFORM @ [0.5, 0.5, 0.5, 1], atol=1e-5)
    assert coarse.header.get_zooms()[:3] == pytest.approx(
        [2 * z for z in expected.header.get_zooms()[:3]]
    )
    coarse.to_filename(tmp_path / "b.nii")
    again = nibabel.load(tmp_path / "b.nii")
    assert_allclose(again.affine, coarse.affine, atol=1e-5)
    assert again.shape == coarse.shape


def test_any_array_and_any_slide_with_an_affine(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "a.zarr", data=WHOLE, chunks=(4, 4, 4, 1))
    array = zg.open(tmp_path / "a.zarr")
    with pytest.raises(UnsupportedFormatError, match="give affine="):
        to_nibabel(array)
    image = to_nibabel(array, affine=SFORM)
    assert_array_equal(image.slicer[2:5].get_fdata(), WHOLE[2:5])
    lazy = nibabel.Nifti1Image(ArrayProxy(array), SFORM)
    assert not lazy.in_memory
    assert_array_equal(lazy.dataobj[1, ..., 2], WHOLE[1, ..., 2])


def test_a_slide_has_x_y_z_t_c(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    stored = random_array((3, 20, 30), "u1")
    group.create_array("0", data=stored, chunks=(1, 8, 8))
    axes = [{"name": "c", "type": "channel"}, *({"name": n, "type": "space"} for n in "yx")]
    scale = [{"type": "scale", "scale": [1.0, 1.0, 1.0]}]
    group.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [
            {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}
        ],
    }
    proxy = ArrayProxy.of_level(zg.open(tmp_path / "a.zarr"))
    assert proxy.shape == (30, 20, 1, 1, 3)
    assert_array_equal(np.asarray(proxy), stored.transpose(2, 1, 0)[:, :, None, None])


def test_without_nibabel(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(MissingDependencyError, match=r"zarrgpu\[nibabel\]"):
        to_nibabel(zg.open(path))
