"""Law 3, on everyone's arrays: what another library wrote, zarrgpu reads bit for bit, or names why not.

1. Every kind of array that zarr-python 3.4.2 writes: the 44 of shared/facts/zarr.md, which every
   other reader opens in part, and those that the list leaves out.
2. A drawn matrix of codec x dtype x order x byte order x shards x fill value x format that
   zarr-python 3.1.6 writes and reads, and TensorStore reads where it can.
3. Types of few bits, which TensorStore writes.
"""

from __future__ import annotations

import zipfile

import numpy as np
import pytest

import zarrgpu as zg
from tests.conformance.fixtures import (
    ARCHIVE,
    KINDS,
    LISTED,
    assert_same,
    can_be_on_a_gpu,
    expected,
)
from tests.gpu.devices import same
from zarrgpu.errors import SelectionError

# ---- what zarr-python 3.4.2 writes ---------------------------------------------------------------


def test_the_listed_kinds_are_44():
    assert len(LISTED) == len(set(KINDS) & set(LISTED)) == 44
    with zipfile.ZipFile(ARCHIVE) as archive:
        names = {name.split("/")[0] for name in archive.namelist()}
    group = {"zarr.json", ".zgroup", ".zattrs", "tree2", "tree3"}
    assert names - {"expected", "kinds.json"} - group == set(KINDS)
    assert ARCHIVE.stat().st_size < 450_000


@pytest.mark.parametrize("name", KINDS)
def test_what_zarr_python_342_writes(name):
    wanted = expected(name)
    array = zg.open(ARCHIVE / name)
    assert array.shape == wanted.shape
    assert_same(array.read(device="cpu"), wanted)
    for selection in (
        tuple(slice(n // 3, None, 2) for n in wanted.shape),
        tuple(slice(None, -(-n // 2)) for n in wanted.shape),
    ):
        assert_same(
            array.read(selection, device="cpu"), np.asarray(wanted[selection], wanted.dtype)
        )


@pytest.mark.parametrize("name", [name for name in KINDS if can_be_on_a_gpu(name)])
def test_what_zarr_python_342_writes_on_a_device(name, cuda):
    array = zg.open(ARCHIVE / name)
    wanted = expected(name)
    same(array.read(device=cuda), wanted, device=cuda)
    selection = tuple(slice(n // 3, None, 2) for n in wanted.shape)
    same(array.read(selection, device=cuda), np.asarray(wanted[selection]), device=cuda)


@pytest.mark.parametrize("name", [name for name in KINDS if not can_be_on_a_gpu(name)])
def test_types_that_a_gpu_has_not_are_refused_by_name(name, cuda):
    array = zg.open(ARCHIVE / name)
    with pytest.raises(SelectionError, match=r"elements of type .* cannot lie on a GPU") as caught:
        array.read(device=cuda)
    assert name in str(caught.value)
    assert str(array.source.spec.dtype) in str(caught.value)
    assert "device='cpu'" in str(caught.value)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("use_consolidated", [None, True, False])
def test_trees_that_zarr_python_342_writes(zarr_format, use_consolidated):
    group = zg.open(ARCHIVE / f"tree{zarr_format}", use_consolidated=use_consolidated)
    assert dict(group.attrs) == {"title": "ż"}
    assert sorted(group) == ["a", "g"]
    assert dict(group["g/h"].attrs) == {"n": 1}
    assert group["a"].read(device="cpu").tolist() == [1, 2, 3]
    assert group["g/h/b"].read(device="cpu").tolist() == [[1, 2], [3, 4]]
