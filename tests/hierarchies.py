"""A small hierarchy in both formats, consolidated and not, for the tests of hierarchies."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import zarr

from tests.zarr_cases import MemoryStore
from zarrgpu.errors import StoreError

ZARR_WARNINGS = [
    pytest.mark.filterwarnings("ignore:Object at"),  # zarr-python on what is no node
    pytest.mark.filterwarnings("ignore:Consolidated"),
    pytest.mark.filterwarnings("ignore:Both zarr.json"),
]
"""Marks of tests that let zarr-python walk trees which it warns of."""

FORMATS = pytest.mark.parametrize("zarr_format", [2, 3])

GROUP = {"zarr_format": 3, "node_type": "group"}
"""The least document of a v3 group."""


class UnlistableStore(MemoryStore):
    """Like a bucket that gives objects and no listing."""

    def list_dir(self, prefix: str) -> list[str]:
        msg = f"{self.url!r} key {prefix!r}: access denied"
        raise StoreError(msg)


def example(zarr_format: int) -> zarr.storage.MemoryStore:
    store = zarr.storage.MemoryStore()
    root = zarr.create_group(store, zarr_format=zarr_format, attributes={"k": 1})
    for name in ("g", "g/h", "e"):
        root.create_group(name, attributes={"name": name})
    for name in ("x", "g/y", "g/h/z"):
        root.create_array(name, data=np.arange(4, dtype="u2"), chunks=(2,), fill_value=0)
    return store


def plain_objects(zarr_format: int) -> dict[str, bytes]:
    return {key: value.to_bytes() for key, value in example(zarr_format)._store_dict.items()}


def consolidated_objects(zarr_format: int) -> dict[str, bytes]:
    store = example(zarr_format)
    with warnings.catch_warnings(action="ignore"):
        zarr.consolidate_metadata(store)
    return {key: value.to_bytes() for key, value in store._store_dict.items()}


PATHS = ["e", "g", "g/h", "g/h/z", "g/y", "x"]
