"""Laws: conversion is NumPy's, bit for bit; a conversion that no device does is refused."""

from __future__ import annotations

import sys
import warnings

import numpy as np
import pytest

import zarrgpu as zg
from tests.zarr_cases import DTYPES, MemoryStore, Recipe, encode, values
from zarrgpu import reader
from zarrgpu.errors import MissingDependencyError, SelectionError
from zarrgpu.output import output_format
from zarrgpu.plan.request import ReadRequest

REAL = [name for name in DTYPES if np.dtype(name).kind != "c"]


def one_patch(array: zg.Array, output, shape: tuple[int, ...], start: tuple[int, ...], **options):
    request = ReadRequest(
        arrays=(array.spec,), array_index=np.zeros(1, np.int32), start=np.array([start]),
        count=shape, step=(1,) * len(shape),
    )  # fmt: skip
    return reader.read((array.source,), request, output=output, device="cpu", **options)[0][0]


@pytest.mark.parametrize("stored", REAL)
@pytest.mark.parametrize("wanted", ["f2", "f4", "f8"])
@pytest.mark.parametrize("big_endian", [False, True])
def test_casts_are_numpys_without_a_warning(stored, wanted, big_endian):
    data = values((9, 7), stored, 1)
    recipe = Recipe(
        chunks=(4, 4), big_endian=big_endian, missing=frozenset([(0, 1)]), fill_value=data.max()
    )
    array = zg.open(MemoryStore(encode(data, recipe)))
    whole = array.read(device="cpu")
    got = array.read(device="cpu", dtype=wanted)  # warnings are errors in this suite
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        wished = whole.astype(wanted)
    assert got.dtype == np.dtype(wanted)
    np.testing.assert_array_equal(got, wished)


def test_bfloat16_needs_ml_dtypes(monkeypatch):
    array = zg.open(MemoryStore(encode(np.zeros((4, 4), "u1"), Recipe(chunks=(4, 4)))))
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'zarrgpu\[extended\]'"):
        array.read(device="cpu", dtype="bfloat16")


@pytest.mark.parametrize("stored", ["u1", "i2", "f4", "f8"])
def test_normalisation_is_two_float32_roundings(stored):
    data = np.abs(np.nan_to_num(values((10, 6, 3), stored, 2), posinf=9, neginf=3))
    recipe = Recipe(chunks=(4, 4, 2), missing=frozenset([(1, 0, 0)]), fill_value=3)
    array = zg.open(MemoryStore(encode(data, recipe)))
    mean, std = (10.5, 3.0, 120.0), (0.7, 50.0, 3.0)
    output = output_format(
        array.dtype, dtype="f4", normalize=(mean, std), channel_axis=2, channels=3
    )
    scale = (1 / np.array(std)).astype(np.float32)
    offset = (-np.array(mean) / np.array(std)).astype(np.float32)
    padded = np.pad(array.read(device="cpu"), ((1, 0), (0, 1), (0, 0)), constant_values=3)
    got = one_patch(array, output, (11, 7, 3), (-1, 0, 0))
    np.testing.assert_array_equal(got, padded.astype(np.float32) * scale + offset)
    chw = one_patch(array, output, (11, 7, 3), (-1, 0, 0), layout=(2, 0, 1))
    np.testing.assert_array_equal(chw, np.moveaxis(got, 2, 0))


@pytest.mark.parametrize(
    ("stored", "arguments"),
    [
        ("i1", {"dtype": "u2"}),
        ("u2", {"dtype": "i2"}),
        ("u8", {"dtype": "i8"}),
        ("u2", {"dtype": "u1"}),
        ("u1", {"dtype": ">i4"}),
        ("u1", {"dtype": "?"}),
        ("f4", {"dtype": "i4"}),
        ("f2", {"dtype": "i8"}),
        ("c8", {"dtype": "bfloat16"}),
        ("u1", {"normalize": (0, 1), "dtype": "i4"}),
        ("c8", {"dtype": "f4"}),
        ("M8[s]", {"dtype": "f8"}),
        ("S3", {"dtype": "f4"}),
        ("u1", {"dtype": ">f4"}),
        ("u1", {"dtype": "no such type"}),
        ("c8", {"normalize": (0, 1)}),
        ("u1", {"normalize": (0, 0)}),
        ("u1", {"normalize": (0,)}),
        ("u1", {"normalize": 0.5}),
        ("u1", {"normalize": (0, -1)}),
        ("u1", {"normalize": (np.nan, 1)}),
        ("u1", {"normalize": (0, 1e-300)}),
        ("u1", {"normalize": (1e300, 1)}),
        ("u1", {"normalize": ([1, 2], 1), "channel_axis": 0, "channels": 3}),
        ("u1", {"normalize": ([1, 2], [1, 2, 3]), "channel_axis": 0, "channels": 3}),
        ("u1", {"normalize": ([[1, 2]], 1), "channel_axis": 0, "channels": 2}),
        ("u1", {"normalize": ("a", 1)}),
        ("u1", {"normalize": (0, 1), "dtype": "u1"}),
    ],
)
def test_other_conversions_are_refused(stored, arguments):
    with pytest.raises(SelectionError):
        output_format(np.dtype(stored), **arguments)
