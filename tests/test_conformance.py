"""Law 3, on others' arrays: what they wrote, zarrgpu reads bit for bit, or names why it does not.

1. Every kind of array that zarr-python 3.4.2 writes: the 44 of shared/facts/zarr.md, which every
   other reader opens in part, and those that the list leaves out.
2. A drawn matrix of codec x dtype x order x byte order x shards x fill value x format that
   zarr-python 3.1.6 writes and reads, and TensorStore reads where it can.
3. Types of few bits, which TensorStore writes.
"""

from __future__ import annotations

import zipfile
from typing import Any

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
from tests.conformance.matrix import CHOICES, COMPRESSORS, TENSORSTORE, Case, cases, stored
from tests.conformance.matrix import expected as zarr_python_reads
from tests.gpu.devices import is_emulated, same
from tests.zarr_cases import MemoryStore
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


# ---- a drawn matrix ------------------------------------------------------------------------------


def test_the_matrix_has_every_choice_and_few_cases():
    assert len(cases()) < 350
    for name, choices in CHOICES.items():
        assert {getattr(case, name) for case in cases()} == set(choices)
    assert len({(case.dtype, case.compressor) for case in cases()}) > 250


@pytest.mark.parametrize("case", cases(), ids=str)
def test_the_matrix_equals_zarr_python(case):
    wanted = zarr_python_reads(case)
    array = zg.open(MemoryStore(stored(case)))
    assert_same(array.read(device="cpu"), wanted)
    selection = tuple(slice(n // 4, n - 1, 3) for n in case.shape)
    assert_same(array.read(selection, device="cpu"), wanted[selection])


@pytest.mark.parametrize("compressor", COMPRESSORS)
def test_the_matrix_on_a_device_equals_zarr_python(compressor, cuda, request):
    """Every case on one of the two emulated devices, and all on a real one."""
    turn = 1 if request.node.callspec.params["cuda"] == "lazy" else 0
    chosen = [case for case in cases() if case.compressor == compressor]
    for case in chosen[turn :: 2 if is_emulated(cuda) else 1]:
        wanted = zarr_python_reads(case)
        array = zg.open(MemoryStore(stored(case)))
        if wanted.dtype.kind in "biufc":
            same(array.read(device=cuda), wanted, device=cuda)
            continue
        with pytest.raises(SelectionError, match="cannot lie on a GPU"):
            array.read(device=cuda)


def test_a_matrix_equals_tensorstore():
    tensorstore = pytest.importorskip("tensorstore")
    read = [case for case in cases(tensorstore=True) if same_as_tensorstore(tensorstore, case)]
    assert len(read) > 100
    assert {case.dtype for case in read} == set(TENSORSTORE["dtype"])
    assert {case.compressor for case in read} == set(TENSORSTORE["compressor"])
    assert {case.shards for case in read} == set(CHOICES["shards"])


def same_as_tensorstore(tensorstore: Any, case: Case) -> bool:
    """Compare with TensorStore; False if it refuses to open the array."""
    context = tensorstore.Context()
    memory = {"driver": "memory", "path": "a/"}
    objects = tensorstore.KvStore.open(memory, context=context).result()
    for key, value in stored(case).items():
        objects[key] = value
    driver = "zarr" if case.zarr_format == 2 else "zarr3"
    try:
        theirs = tensorstore.open({"driver": driver, "kvstore": memory}, context=context).result()
    except ValueError:
        return False
    array = zg.open(MemoryStore(stored(case)))
    assert_same(array.read(device="cpu"), np.asarray(theirs.read().result()))
    assert_same(array.read(device="cpu"), zarr_python_reads(case))
    return True


# ---- types that NumPy lacks ----------------------------------------------------------------------

FEW_BITS = (
    "bfloat16", "float8_e3m4", "float8_e4m3b11fnuz", "float8_e4m3fn", "float8_e4m3fnuz",
    "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu", "float4_e2m1fn", "int4", "int2",
)  # fmt: skip


@pytest.mark.parametrize("driver", ["zarr3", "zarr"])
@pytest.mark.parametrize("name", FEW_BITS)
def test_types_of_few_bits_equal_tensorstore(name, driver, cuda):
    tensorstore = pytest.importorskip("tensorstore")
    pytest.importorskip("ml_dtypes")
    context = tensorstore.Context()
    memory = {"driver": "memory", "path": "a/"}
    grid = {"name": "regular", "configuration": {"chunk_shape": [3, 4]}}
    metadata = {"shape": [7, 6], "chunks": [3, 4], "dtype": name}
    if driver == "zarr3":
        metadata = {"shape": [7, 6], "chunk_grid": grid, "data_type": name}
    theirs = tensorstore.open(
        {"driver": driver, "kvstore": memory, "metadata": metadata}, context=context, create=True
    ).result()
    dtype = theirs.dtype.numpy_dtype
    bits = np.random.default_rng(0).integers(0, 256, 42 * dtype.itemsize, dtype=np.uint8)
    if "int" in name:
        low = 1 << int(name[-1]) - 1
        data = (bits % (2 * low)).astype("i1") - low
    else:
        data = (bits % 16 if name.startswith("float4") else bits).view(dtype)
    theirs.write(data.reshape(7, 6).astype(dtype)).result()
    kept = tensorstore.KvStore.open(memory, context=context).result()
    array = zg.open(MemoryStore({key.decode(): kept[key] for key in kept.list().result()}))
    assert_same(array.read(device="cpu"), np.asarray(theirs.read().result()))
    with pytest.raises(SelectionError, match=rf"elements of type {name} cannot lie on a GPU"):
        array.read(device=cuda)
